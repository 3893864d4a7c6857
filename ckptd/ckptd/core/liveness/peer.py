"""What this node knows of each other node: what its last heartbeat says, and what has been proved of it.

One `Peer` for each configured node. The modules beside this one fill it in and judge it: `heartbeat`,
`failure_detector`, `lease`, `proofs_of_death` and `incarnations`.
"""

from dataclasses import dataclass, field
from typing import Final

from ckptd.core.context import NEVER_NS
from ckptd.core.settings import Settings

NEVER_HEARD_NS: Final = -(2**62)


@dataclass(slots=True)
class Peer:
    """What this node knows of another node. Times are on our clock, stamps on their sender's."""

    node_id: str
    is_witness: bool = False
    incarnation: int = 0
    heard_ns: int = NEVER_HEARD_NS
    """When its last heartbeat came."""
    pause_credit_ns: int = 0
    """For how much of the time since then this process was paused and could not receive."""
    asked_back_ns: int = NEVER_HEARD_NS
    """When a heartbeat of an unknown incarnation last made us ask at its address."""
    lease_granted_ns: int = NEVER_HEARD_NS
    """When the newest of its heartbeats arrived that we echoed while serving."""
    epoch: int = 0
    decided_epoch: int = 0
    their_timestamp_ns: int = 0
    """The newest stamp that it sent, to be echoed."""
    our_timestamp_ns: int = 0
    """The last stamp that we sent to it."""
    lease_acked_ns: int = NEVER_HEARD_NS
    """The newest stamp of ours that it echoed in our epoch."""
    lease_acked_epoch: int = 0
    dead_incarnation: int = 0
    """Every incarnation of this node up to this one is proved dead."""
    declared_dead_incarnation: int = 0
    """Every incarnation up to this one counts as dead, by a fence hook or the operator, until it is heard."""
    connected: bool = False
    lease_fresh_at_death: tuple[int, int] = (0, 0)
    """The last incarnation whose echoes were fresh when it was proved dead, and in which epoch (R1)."""
    member: bool = False
    leaving: bool = False
    left: bool = False
    amnesiac: bool = False
    """It started with an empty state directory."""
    full: bool = False
    """Its replicas use all the memory that they may."""
    disk_failing: bool = False
    """It cannot write its record: it does not vote, and installs no new view."""
    holds_data: bool = False
    """It has installed a view, and holds that view's directory."""
    outlived_command: bool = False
    """The newest view on its disk was forced by an operator, and nobody can serve in it any more."""
    disk_epoch: int = 0
    answered_epoch: int = 0
    """The epoch whose first heartbeat from it we have answered."""
    leaving_noticed: bool = False
    its_heard: dict[str, int] = field(default_factory=dict)
    """The nodes that it hears, each with its incarnation."""
    its_links: dict[str, int] = field(default_factory=dict)
    """Those of them that it has a link to."""
    knows_us: int = 0
    """Our incarnation that it has met; 0: none."""
    disconnected_since_ns: int = NEVER_NS
    """Since when it reports no link to us, while we believe that there is one."""
    stall_reports: tuple[str, ...] = ()
    feature_level: int = 0
    """What it understood when it was last heard, in this incarnation or an earlier one."""
    required_level: int = 0
    """The feature level of the view that it has installed."""
    urls: tuple[str, ...] = ()
    last_body: bytes = b""
    """The body of its last heartbeat."""

    @property
    def knows_a_view(self) -> bool:
        """Return True if it knows of a view."""
        return bool(self.decided_epoch or self.disk_epoch)

    def begin_incarnation(self, incarnation: int) -> None:
        """Forget what an earlier incarnation of the node has sent."""
        self.incarnation = incarnation
        self.their_timestamp_ns = 0
        self.heard_ns = NEVER_HEARD_NS
        self.epoch = self.decided_epoch = self.disk_epoch = 0
        self.lease_acked_ns, self.lease_acked_epoch = NEVER_HEARD_NS, 0
        self.leaving = self.left = self.member = self.amnesiac = self.full = self.disk_failing = False
        self.holds_data = self.outlived_command = False
        self.pause_credit_ns = self.required_level = 0
        self.its_heard, self.its_links, self.stall_reports, self.knows_us = {}, {}, (), 0


Peers = dict[str, Peer]
"""The configured nodes, without this one, in the order of their ids."""


def configured_peers(settings: Settings) -> Peers:
    """Return the peers of a node that has just started: it has heard none of them."""
    return {
        node_id: Peer(node_id, node_id in settings.witnesses)
        for node_id in sorted((*settings.peers, *settings.witnesses))
    }
