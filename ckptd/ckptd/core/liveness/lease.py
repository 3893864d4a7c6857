"""The lease: until when this node may serve, and when a node that a view excludes has stopped.

Every heartbeat carries the sender's stamp and echoes the receiver's last one. An echo in the same epoch
acknowledges the lease, counted from when that stamp was *sent*. A node may serve (`Context.serving`) for as
long as the echoes of **all** other members allow. So a member that stops echoing ends the lease of every
other one, and after a lease, with some allowance for slow clocks, none of them serves.
"""

from typing import Final

from ckptd.core.context import NEVER_NS, Context
from ckptd.core.liveness.failure_detector import FailureDetector
from ckptd.core.liveness.peer import NEVER_HEARD_NS, Peer, Peers
from ckptd.core.liveness.proofs_of_death import ProofsOfDeath
from ckptd.core.settings import CLOCK_SKEW
from ckptd.core.view import View

SOLE_MEMBER_LEASE_NS: Final = NEVER_NS
"""The lease of the only member of a view: it needs no acknowledgement."""


class Lease:
    """This node's lease, and what it has granted of the leases of others."""

    def __init__(
        self, context: Context, peers: Peers, detector: FailureDetector, deaths: ProofsOfDeath
    ) -> None:
        self.context = context
        self.peers = peers
        self.detector = detector
        self.deaths = deaths

    # -- this node's

    def on_echo(self, peer: Peer, epoch: int, echo_ns: int) -> None:
        """Take a peer's echo of a stamp of this incarnation; `epoch` is the peer's."""
        context = self.context
        if echo_ns and epoch == context.epoch and not context.sealed:
            if peer.lease_acked_epoch != epoch:
                peer.lease_acked_epoch, peer.lease_acked_ns = epoch, NEVER_HEARD_NS
            peer.lease_acked_ns = max(peer.lease_acked_ns, echo_ns)

    def renew(self, view: View) -> None:
        """Compute until when this node may serve.

        Every other member's echo gives a lease that counts from when the echoed stamp was sent; the first
        to end decides.
        """
        context = self.context
        until_ns = SOLE_MEMBER_LEASE_NS
        for node_id in view.members:
            if node_id == context.node_id:
                continue
            peer = self.peers.get(node_id)
            if (
                peer is None
                or peer.lease_acked_epoch != view.epoch
                or peer.incarnation != view.members[node_id].incarnation
            ):
                until_ns = NEVER_HEARD_NS
                break
            until_ns = min(until_ns, peer.lease_acked_ns + context.settings.lease_ns)
        context.lease_until_ns = until_ns
        if until_ns > context.now_ns:
            context.established_epoch = view.epoch

    def members_without_ack(self, view: View) -> list[str]:
        """Return the other members that are heard, but whose echoes give this node no lease."""
        oldest_ns = self.context.now_ns - self.context.settings.lease_ns
        others = (self.peers[node_id] for node_id in view.members if node_id in self.peers)
        return [
            peer.node_id
            for peer in others
            if self.detector.recently_heard(peer)
            and (peer.lease_acked_epoch != view.epoch or peer.lease_acked_ns <= oldest_ns)
        ]

    # -- those of others

    def grant(self, peer: Peer) -> int:
        """Return the stamp of a peer that our next heartbeat echoes, which prolongs its lease; 0 for none.

        A sealed node echoes nothing: its echo would prolong a lease of an epoch that is over.
        """
        echo_ns = 0 if self.context.sealed else peer.their_timestamp_ns
        if echo_ns:
            peer.lease_granted_ns = peer.heard_ns
        return echo_ns

    @property
    def duration_with_skew_ns(self) -> int:
        """How long a lease may last on our clock if its holder's clock runs slower."""
        lease_ns = self.context.settings.lease_ns
        return lease_ns + lease_ns // CLOCK_SKEW

    def granted_until_ns(self, node_id: str) -> int:
        """Return until when an excluded node may believe in its lease, as far as our own echoes go.

        We echo a stamp only after it arrived. So its lease from us ends one lease after we received the
        last stamp that we echoed.
        """
        peer = self.peers.get(node_id)
        return self.context.now_ns if peer is None else peer.lease_granted_ns + self.duration_with_skew_ns

    def excluded_leases_end_ns(self, view: View, installed_epoch: int, all_answered_ns: int) -> int:
        """Return when the last lease of a node that this decided view excludes has surely ended.

        `installed_epoch` is the newest that a member of the view has installed; all of them had answered
        the collector at `all_answered_ns`.

        Nodes that an installed view already excludes need no wait: that view change waited for their leases.
        A lease needs every member's echo. So a coordinator that was a member itself goes by its own last
        echo; any other goes by the time when all members had answered the collector.
        """
        context, deaths = self.context, self.deaths
        was_member = view.members[context.node_id].join_epoch <= installed_epoch
        end_ns = context.now_ns
        for past in view.past_memberships:
            node_id, incarnation = past.node_id, past.incarnation
            if past.last_epoch < installed_epoch or node_id == context.node_id:
                continue
            if deaths.proved_dead(node_id, incarnation) or deaths.has_left_cleanly(
                node_id, incarnation, view.epoch
            ):
                continue
            if view.includes(node_id, incarnation):
                continue  # It is back, and sealed its old epoch when it answered the collector.
            if was_member:
                end_ns = max(end_ns, self.granted_until_ns(node_id))
            else:
                end_ns = max(end_ns, all_answered_ns + self.duration_with_skew_ns)
        return end_ns
