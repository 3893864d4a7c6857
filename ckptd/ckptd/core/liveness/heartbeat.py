"""Heartbeats: which nodes are heard, the lease that their echoes give, and what proves a node dead.

Every heartbeat carries the sender's stamp and echoes the receiver's last one. An echo in the same epoch
acknowledges the lease, counted from when that stamp was *sent*.

Silence proves nothing. A newer incarnation proves that the older one is dead, and so does a refused
connection if the last heartbeats were fresh. A heartbeat alone makes no incarnation known, since anybody
can send one (ADR 17).

This module knows nothing of checkpoints.
"""

from dataclasses import dataclass, field
from typing import Final

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.events import AskBack, SendHeartbeat
from ckptd.core.hub import VoterHub
from ckptd.core.liveness.parse_heartbeat import Heartbeat, parse_heartbeat
from ckptd.core.settings import SECOND_NS
from ckptd.core.view import View

NEVER_HEARD_NS: Final = -(2**62)

CLOCK_SKEW: Final = 50
"""The clocks of two nodes differ in speed by at most one part in this many."""

ASK_BACK_NS: Final = SECOND_NS
"""How often, at most, heartbeats of an unknown incarnation make a node ask at the peer's address.

A second daemon with the peer's node id sends 40 of them per second, a hostile sender as many as it likes.
"""

SOLE_MEMBER_LEASE_NS: Final = NEVER_NS
"""The lease of the only member of a view: it needs no acknowledgement."""


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
    urls: tuple[str, ...] = ()
    last_body: bytes = b""
    """The body of its last heartbeat."""

    @property
    def knows_a_view(self) -> bool:
        """Return True if it knows of a view."""
        return bool(self.decided_epoch or self.disk_epoch)


class Heartbeats:
    """The failure detector of one node."""

    def __init__(self, context: Context, hub: VoterHub) -> None:
        self.context = context
        self.hub = hub
        settings = context.settings
        self.peers = {
            node_id: Peer(node_id, node_id in settings.witnesses)
            for node_id in sorted((*settings.peers, *settings.witnesses))
        }
        self.next_ns = context.now_ns
        self.stall_reports: tuple[str, ...] = ()
        self.stall_reported_ns = context.now_ns
        self.leaving = False
        self.left = False
        self.member = False
        self.amnesiac = False
        self.full = False
        self.disk_failing = False
        self.outlived_command = False
        self.disk_epoch = 0
        self.decided_epoch = 0
        self.parsed_by_body: dict[bytes, Heartbeat] = {}
        """Each peer's last heartbeat, by its body: most repeat the last one and need not be parsed again."""

    # -- sending

    def send_all(self) -> None:
        """Send one heartbeat to every configured peer."""
        for peer in self.peers.values():
            self.send(peer)

    def send(self, peer: Peer) -> None:
        context = self.context
        # A sealed node echoes nothing: its echo would prolong a lease of an epoch that is over.
        echo_ns = 0 if context.sealed else peer.their_timestamp_ns
        if echo_ns:
            peer.lease_granted_ns = peer.heard_ns
        flag_values = (
            self.leaving,
            self.left,
            self.member,
            self.amnesiac,
            self.full,
            self.disk_failing,
            context.epoch > 0,
            self.outlived_command,
        )
        flags = sum(1 << bit for bit, holds in enumerate(flag_values) if holds)
        body = pack_body(
            [
                context.node_id,
                context.incarnation,
                self.decided_epoch,
                self.disk_epoch,
                flags,
                [
                    [other.node_id, other.incarnation, other.connected]
                    for other in self.peers.values()
                    if self.recently_heard(other)
                ],
                list(self.stall_reports),
                peer.incarnation,
                context.settings.cluster,
                [
                    [other.node_id, other.declared_dead_incarnation]
                    for other in self.peers.values()
                    if other.declared_dead_incarnation
                ],
                [] if context.sealed else self.hub.unreplicated_positions(peer.node_id),
            ]
        )
        epoch = 0 if context.sealed else context.epoch
        # Two heartbeats of the same moment get different stamps: otherwise the later would be taken for a
        # duplicate, or for the earlier one.
        peer.our_timestamp_ns = timestamp_ns = max(context.now_ns, peer.our_timestamp_ns + 1)
        frame = encode_frame(Kind.HEARTBEAT, timestamp_ns & (2**64 - 1), epoch, echo_ns, body)
        context.effects.append(SendHeartbeat(peer.node_id, frame))

    # -- receiving

    def receive(self, frame: Frame, authentic: bool = True) -> Peer | None:
        """Take a heartbeat; None if it is stale or from a node that we do not know. Raises: FrameError.

        A heartbeat that is not `authentic` (signed) only makes us ask at the peer's address who is there.
        Otherwise one forged datagram with a huge stamp would make every later heartbeat of that incarnation
        look old.
        """
        beat = parse_heartbeat(frame, self.parsed_by_body)
        peer = self.peers.get(beat.node_id)
        context = self.context
        if peer is None or beat.cluster != context.settings.cluster:
            return None
        incarnation = beat.incarnation
        if incarnation != peer.incarnation:
            self._on_unknown_incarnation(peer)
            return None
        if not authentic:
            context.count("heartbeats_unsealed")
            return None
        if incarnation <= peer.dead_incarnation or frame.a <= peer.their_timestamp_ns:
            return None
        if frame.body != peer.last_body:
            self.parsed_by_body.pop(peer.last_body, None)
            self.parsed_by_body[frame.body], peer.last_body = beat, frame.body
        peer.its_heard, peer.its_links, peer.stall_reports = beat.heard, beat.links, beat.stall_reports
        peer.heard_ns = context.now_ns
        peer.pause_credit_ns = 0
        if peer.declared_dead_incarnation >= incarnation:
            self.retract_death(peer)
        peer.epoch = frame.b
        peer.decided_epoch = beat.decided_epoch
        peer.disk_epoch = beat.disk_epoch
        peer.their_timestamp_ns = frame.a
        peer.knows_us = beat.of_incarnation
        for node_id, declared in beat.declared_dead.items():
            other = self.peers.get(node_id)
            if other is not None and not self.recently_heard(other):
                other.declared_dead_incarnation = max(other.declared_dead_incarnation, declared)
        if beat.advertised_positions and frame.b == context.epoch:
            self.hub.on_positions_advertised(beat.advertised_positions)
        peer.leaving = bool(beat.flags & 1)
        peer.left = bool(beat.flags & 2)
        peer.member = bool(beat.flags & 4)
        peer.amnesiac = bool(beat.flags & 8)
        peer.full = bool(beat.flags & 16)
        peer.disk_failing = bool(beat.flags & 32)
        peer.holds_data = bool(beat.flags & 64)
        peer.outlived_command = bool(beat.flags & 128)
        if (
            beat.of_incarnation == context.incarnation
            and frame.c
            and frame.b == context.epoch
            and not context.sealed
        ):
            if peer.lease_acked_epoch != frame.b:
                peer.lease_acked_epoch, peer.lease_acked_ns = frame.b, NEVER_HEARD_NS
            peer.lease_acked_ns = max(peer.lease_acked_ns, frame.c)
        return peer

    def _on_unknown_incarnation(self, peer: Peer) -> None:
        """Note a heartbeat of an incarnation that we have not met: do not believe it, but ask the peer.

        One forged datagram with a huge incarnation once excluded a healthy node permanently.
        """
        context = self.context
        context.count("heartbeats_of_unknown_start")
        if context.now_ns - peer.asked_back_ns >= ASK_BACK_NS:
            peer.asked_back_ns = context.now_ns
            context.effects.append(AskBack(peer.node_id))

    def on_incarnation_answered(self, peer: Peer, incarnation: int) -> bool:
        """Note that this incarnation answered at the peer's address; False if we know of a later one."""
        if incarnation < peer.incarnation:
            return False
        if incarnation > peer.incarnation:
            self.on_new_incarnation(peer, incarnation)
        elif incarnation <= peer.dead_incarnation:
            peer.dead_incarnation = incarnation - 1
            self.context.log(f"node {peer.node_id} counted as dead, but it is alive", "warning")
        return True

    def adopt_earlier_incarnation(self, peer: Peer, incarnation: int) -> None:
        """Accept an incarnation below the one that we knew: it answers, and the newest view names it."""
        self.on_new_incarnation(peer, incarnation)
        peer.dead_incarnation = incarnation - 1
        peer.declared_dead_incarnation = min(peer.declared_dead_incarnation, peer.dead_incarnation)

    def on_new_incarnation(self, peer: Peer, incarnation: int) -> None:
        """Note a newer incarnation of a node: every older one is dead."""
        if peer.incarnation > peer.dead_incarnation:
            self._note_lease_freshness(peer)
        peer.dead_incarnation = max(peer.dead_incarnation, incarnation - 1)
        peer.incarnation = incarnation
        peer.their_timestamp_ns = 0
        peer.heard_ns = NEVER_HEARD_NS
        peer.epoch = peer.decided_epoch = peer.disk_epoch = 0
        peer.lease_acked_ns, peer.lease_acked_epoch = NEVER_HEARD_NS, 0
        peer.leaving = peer.left = peer.member = peer.amnesiac = peer.full = peer.disk_failing = False
        peer.holds_data = peer.outlived_command = False
        peer.pause_credit_ns = 0
        peer.its_heard, peer.its_links, peer.stall_reports, peer.knows_us = {}, {}, (), 0

    def on_connection_refused(self, node_id: str) -> bool:
        """Note a refused connection; return True if that proves the node's last incarnation dead.

        It does if that was heard just before, and if the network does not forge refusals. After a longer
        silence the host may be cut off, with another host answering for it.
        """
        peer = self.peers.get(node_id)
        context = self.context
        if peer is None or not peer.incarnation or peer.incarnation <= peer.dead_incarnation:
            return False
        lease_ns = context.settings.lease_ns
        if not context.settings.trust_rst or context.now_ns - peer.heard_ns >= lease_ns:
            return False
        if peer.connected:
            # This connection attempt may have begun before that incarnation listened at all.
            return False
        peer.dead_incarnation = peer.incarnation
        self._note_lease_freshness(peer)
        return True

    def _note_lease_freshness(self, peer: Peer) -> None:
        """Note whether the echo of this peer, which is proved dead now, was fresh when it died.

        If it was, the peer cannot have continued without us: it would have had to wait until our lease
        ended.
        """
        if self.context.now_ns - peer.lease_acked_ns < self.context.settings.lease_ns:
            peer.lease_fresh_at_death = (peer.incarnation, peer.lease_acked_epoch)

    def died_before_installing(self, view: View) -> bool:
        """Return True if the coordinator of a view that excludes us died before it can have installed it.

        It would have waited for our lease to end first, and its echo was fresh when it died.
        """
        peer = self.peers.get(view.coordinator)
        epoch = self.context.epoch
        died = (view.members[view.coordinator].incarnation, epoch)
        return peer is not None and 0 < epoch < view.epoch and peer.lease_fresh_at_death == died

    def declare_dead(self, node_id: str, incarnation: int) -> None:
        """Declare a silent node dead: a fence hook or the operator says that it is, and its data is lost."""
        peer = self.peers[node_id]
        peer.declared_dead_incarnation = max(peer.declared_dead_incarnation, incarnation)

    def retract_death(self, peer: Peer) -> None:
        """Note that a node which was declared dead is heard again: it is not, and comes back by joining."""
        peer.declared_dead_incarnation = 0
        self.context.log(f"node {peer.node_id} was declared dead, but it is alive", "warning")

    def is_half_open(self, peer: Peer) -> bool:
        """Return True if only this end believes in the link to a peer: it is to be closed and made again.

        After a cut one end may have given the connection up while the other, which has nothing to send,
        never learns of it: each then waited for the other to connect. A peer that has not met our current
        incarnation has no link to it either.
        """
        context = self.context
        me, us = context.node_id, context.incarnation
        reports_no_link = peer.knows_us != us or (peer.its_heard.get(me) == us and not peer.left)
        if not peer.connected or not reports_no_link or peer.its_links.get(me) == us:
            peer.disconnected_since_ns = NEVER_NS
        elif peer.disconnected_since_ns == NEVER_NS:
            peer.disconnected_since_ns = context.now_ns
        elif context.now_ns - peer.disconnected_since_ns >= context.settings.grace_ns:
            peer.disconnected_since_ns = NEVER_NS
            return True
        return False

    def on_local_pause(self, pause_ns: int) -> None:
        """Move the times on by a pause of this process: no node's silence in that time counts against it.

        What the others sent is still waiting to be read. A pause of ours for garbage collection once cost
        the others their membership.
        """
        for peer in self.peers.values():
            peer.pause_credit_ns += pause_ns

    # -- judging

    def recently_heard(self, peer: Peer) -> bool:
        """Return True if the peer was heard within the grace, has not left and is not proved dead."""
        if peer.incarnation <= peer.dead_incarnation or peer.left:
            return False
        return self.silence_ns(peer) < self.context.settings.grace_ns

    def find_data_holder(self) -> str:
        """Return another member that is heard and holds its view's data; "" for none."""
        holders = (p for p in self.peers.values() if p.holds_data and p.member and not p.is_witness)
        return next((peer.node_id for peer in holders if self.recently_heard(peer)), "")

    def silence_ns(self, peer: Peer) -> int:
        """Return for how long the peer was not heard, not counting pauses of this process."""
        return self.context.now_ns - peer.heard_ns - peer.pause_credit_ns

    def alive(self, node_id: str, incarnation: int) -> bool:
        """Return True if this incarnation is heard; for ourselves, if it is ours and has not left."""
        if node_id == self.context.node_id:
            return incarnation == self.context.incarnation and not self.left
        peer = self.peers.get(node_id)
        return peer is not None and peer.incarnation == incarnation and self.recently_heard(peer)

    def proved_dead(self, node_id: str, incarnation: int) -> bool:
        """Return True if it is proved that this incarnation of a node can do nothing any more."""
        if node_id == self.context.node_id:
            return incarnation != self.context.incarnation
        peer = self.peers.get(node_id)
        return peer is not None and incarnation <= peer.dead_incarnation

    def counts_as_dead(self, node_id: str, incarnation: int) -> bool:
        """Return True if the node is proved dead, or was declared dead by a fence hook or the operator."""
        if self.proved_dead(node_id, incarnation):
            return True
        peer = self.peers.get(node_id)
        return peer is not None and incarnation <= peer.declared_dead_incarnation

    def has_left_cleanly(self, node_id: str, incarnation: int, epoch: int) -> bool:
        """Return True if the node reported that it serves no more, and knows no view later than `epoch`.

        It reports that when it leaves as planned.

        A coordinator that had continued alone, and then left, must not be succeeded by the older data of
        the node that it had excluded (seed 30879).
        """
        peer = self.peers.get(node_id)
        return (
            peer is not None and peer.incarnation == incarnation and peer.left and peer.decided_epoch <= epoch
        )

    def urls_of(self, node_id: str) -> tuple[str, ...]:
        """Return the URLs at which clients reach a node."""
        if node_id == self.context.node_id:
            return self.context.transport.urls
        peer = self.peers.get(node_id)
        return peer.urls if peer is not None else ()

    def renew_lease(self, view: View) -> None:
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

    def members_without_lease_ack(self, view: View) -> list[str]:
        """Return the other members that are heard, but whose echoes give this node no lease."""
        oldest_ns = self.context.now_ns - self.context.settings.lease_ns
        others = (self.peers[node_id] for node_id in view.members if node_id in self.peers)
        return [
            peer.node_id
            for peer in others
            if self.recently_heard(peer)
            and (peer.lease_acked_epoch != view.epoch or peer.lease_acked_ns <= oldest_ns)
        ]

    @property
    def lease_ns_with_skew(self) -> int:
        """How long a lease may last on our clock if its holder's clock runs slower."""
        lease_ns = self.context.settings.lease_ns
        return lease_ns + lease_ns // CLOCK_SKEW

    def lease_expiry_ns(self, node_id: str) -> int:
        """Return until when an excluded node may believe in its lease, as far as our own echoes go.

        We echo a stamp only after it arrived. So its lease from us ends one lease after we received the
        last stamp that we echoed.
        """
        peer = self.peers.get(node_id)
        return self.context.now_ns if peer is None else peer.lease_granted_ns + self.lease_ns_with_skew
