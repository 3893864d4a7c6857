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

LONG_AGO_NS: Final = -(2**62)

"""Creation ids of asynchronous checkpoints, and how far their active replica has ordered."""

CLOCK_SKEW: Final = 50
"""The clocks of two nodes differ in speed by at most one part in this many."""

ASK_BACK_NS: Final = SECOND_NS
"""How often, at most, heartbeats of an unknown incarnation make a node ask at the peer's address.

A second daemon with the peer's node id sends 40 of them per second, a hostile sender as many as it likes.
"""

ALONE_LEASE_NS: Final = NEVER_NS
"""The lease of the only member of a view: it needs no acknowledgement."""


@dataclass(slots=True)
class Peer:
    """What this node knows of another node. Times are on our clock, stamps on their sender's."""

    node_id: str
    is_witness: bool = False
    incarnation: int = 0
    heard_ns: int = LONG_AGO_NS
    """When its last heartbeat came."""
    excused_ns: int = 0
    """For how much of the time since then this process was paused and could not receive."""
    asked_back_ns: int = LONG_AGO_NS
    """When a heartbeat of an unknown incarnation last made us ask at its address."""
    echo_given_ns: int = LONG_AGO_NS
    """When the newest of its heartbeats arrived that we echoed while serving."""
    epoch: int = 0
    decided_epoch: int = 0
    stamp_ns: int = 0
    """The newest stamp that it sent, to be echoed."""
    stamped_ns: int = 0
    """The last stamp that we sent to it."""
    echoed_ns: int = LONG_AGO_NS
    """The newest stamp of ours that it echoed in our epoch."""
    echo_epoch: int = 0
    dead_incarnation: int = 0
    """Every incarnation of this node up to this one is proved dead."""
    declared_dead_incarnation: int = 0
    """Every incarnation up to this one counts as dead, by a fence hook or the operator, until it is heard."""
    connected: bool = False
    fresh: tuple[int, int] = (0, 0)
    """The last incarnation whose echoes were fresh when it was proved dead, and in which epoch (R1)."""
    member: bool = False
    leaving: bool = False
    left: bool = False
    forgetful: bool = False
    """It started with an empty state directory."""
    full: bool = False
    """Its replicas use all the memory that they may."""
    disk_fails: bool = False
    """It cannot write its record: it does not vote, and installs no new view."""
    holds_data: bool = False
    """It has installed a view, and holds that view's directory."""
    outlived_command: bool = False
    """The view on its disk is an operator's, and had no member but an earlier incarnation of this node."""
    disk_epoch: int = 0
    answered_epoch: int = 0
    """The epoch whose first heartbeat from it we have answered."""
    seen_leaving: bool = False
    hears: dict[str, int] = field(default_factory=dict)
    """The nodes that it hears, each with its incarnation."""
    linked: dict[str, int] = field(default_factory=dict)
    """Those of them that it has a link to."""
    knows_us: int = 0
    """Our incarnation that it has met; 0: none."""
    unlinked_ns: int = NEVER_NS
    """Since when it reports no link to us, while we believe that there is one."""
    complaints: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    said: bytes = b""
    """The body of its last heartbeat."""

    @property
    def has_history(self) -> bool:
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
        self.complaints: tuple[str, ...] = ()
        self.complained_ns = context.now_ns
        self.leaving = False
        self.left = False
        self.member = False
        self.forgetful = False
        self.full = False
        self.disk_fails = False
        self.outlived_command = False
        self.disk_epoch = 0
        self.decided_epoch = 0
        self.known: dict[bytes, Heartbeat] = {}
        """Each peer's last heartbeat, by its body: most repeat the last one and need not be parsed again."""

    # -- sending

    def send_all(self) -> None:
        """Send one heartbeat to every configured peer."""
        for peer in self.peers.values():
            self.send(peer)

    def send(self, peer: Peer) -> None:
        context = self.context
        # A sealed node echoes nothing: its echo would prolong a lease of an epoch that is over.
        echo_ns = 0 if context.sealed else peer.stamp_ns
        if echo_ns:
            peer.echo_given_ns = peer.heard_ns
        standing = (
            self.leaving,
            self.left,
            self.member,
            self.forgetful,
            self.full,
            self.disk_fails,
            context.epoch > 0,
            self.outlived_command,
        )
        flags = sum(1 << place for place, holds in enumerate(standing) if holds)
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
                    if self.hears(other)
                ],
                list(self.complaints),
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
        peer.stamped_ns = stamp_ns = max(context.now_ns, peer.stamped_ns + 1)
        frame = encode_frame(Kind.HEARTBEAT, stamp_ns & (2**64 - 1), epoch, echo_ns, body)
        context.effects.append(SendHeartbeat(peer.node_id, frame))

    # -- receiving

    def receive(self, frame: Frame, sealed: bool = True) -> Peer | None:
        """Take a heartbeat; None if it is stale or from a node that we do not know. Raises: FrameError.

        A heartbeat that is not `sealed` (signed) only makes us ask at the peer's address who is there.
        Otherwise one forged datagram with a huge stamp would make every later heartbeat of that incarnation
        look old.
        """
        beat = parse_heartbeat(frame, self.known)
        peer = self.peers.get(beat.node_id)
        context = self.context
        if peer is None or beat.cluster != context.settings.cluster:
            return None
        incarnation = beat.incarnation
        if incarnation != peer.incarnation:
            self._note_unknown_start(peer)
            return None
        if not sealed:
            context.count("heartbeats_unsealed")
            return None
        if incarnation <= peer.dead_incarnation or frame.a <= peer.stamp_ns:
            return None
        if frame.body != peer.said:
            self.known.pop(peer.said, None)
            self.known[frame.body], peer.said = beat, frame.body
        peer.hears, peer.linked, peer.complaints = beat.hears, beat.linked, beat.complaints
        peer.heard_ns = context.now_ns
        peer.excused_ns = 0
        if peer.declared_dead_incarnation >= incarnation:
            self.retract_death(peer)
        peer.epoch = frame.b
        peer.decided_epoch = beat.decided_epoch
        peer.disk_epoch = beat.disk_epoch
        peer.stamp_ns = frame.a
        peer.knows_us = beat.of_incarnation
        for node_id, given_up in beat.given_up.items():
            other = self.peers.get(node_id)
            if other is not None and not self.hears(other):
                other.declared_dead_incarnation = max(other.declared_dead_incarnation, given_up)
        if beat.unacknowledged and frame.b == context.epoch:
            self.hub.on_positions_advertised(beat.unacknowledged)
        peer.leaving = bool(beat.flags & 1)
        peer.left = bool(beat.flags & 2)
        peer.member = bool(beat.flags & 4)
        peer.forgetful = bool(beat.flags & 8)
        peer.full = bool(beat.flags & 16)
        peer.disk_fails = bool(beat.flags & 32)
        peer.holds_data = bool(beat.flags & 64)
        peer.outlived_command = bool(beat.flags & 128)
        if (
            beat.of_incarnation == context.incarnation
            and frame.c
            and frame.b == context.epoch
            and not context.sealed
        ):
            if peer.echo_epoch != frame.b:
                peer.echo_epoch, peer.echoed_ns = frame.b, LONG_AGO_NS
            peer.echoed_ns = max(peer.echoed_ns, frame.c)
        return peer

    def _note_unknown_start(self, peer: Peer) -> None:
        """Note a heartbeat of an incarnation that we have not met: do not believe it, but ask the peer.

        One forged datagram with a huge incarnation once excluded a healthy node permanently.
        """
        context = self.context
        context.count("heartbeats_of_unknown_start")
        if context.now_ns - peer.asked_back_ns >= ASK_BACK_NS:
            peer.asked_back_ns = context.now_ns
            context.effects.append(AskBack(peer.node_id))

    def met(self, peer: Peer, incarnation: int) -> bool:
        """Note that this incarnation answered at the peer's address; False if we know of a later one."""
        if incarnation < peer.incarnation:
            return False
        if incarnation > peer.incarnation:
            self.meet(peer, incarnation)
        elif incarnation <= peer.dead_incarnation:
            peer.dead_incarnation = incarnation - 1
            self.context.log(f"node {peer.node_id} was taken for dead, and is alive", "warning")
        return True

    def take_earlier(self, peer: Peer, incarnation: int) -> None:
        """Accept an incarnation below the one that we knew: it answers, and the newest view names it."""
        self.meet(peer, incarnation)
        peer.dead_incarnation = incarnation - 1
        peer.declared_dead_incarnation = min(peer.declared_dead_incarnation, peer.dead_incarnation)

    def meet(self, peer: Peer, incarnation: int) -> None:
        """Note a newer incarnation of a node: every older one is dead."""
        if peer.incarnation > peer.dead_incarnation:
            self._note_freshness(peer)
        peer.dead_incarnation = max(peer.dead_incarnation, incarnation - 1)
        peer.incarnation = incarnation
        peer.stamp_ns = 0
        peer.heard_ns = LONG_AGO_NS
        peer.epoch = peer.decided_epoch = peer.disk_epoch = 0
        peer.echoed_ns, peer.echo_epoch = LONG_AGO_NS, 0
        peer.leaving = peer.left = peer.member = peer.forgetful = peer.full = peer.disk_fails = False
        peer.holds_data = peer.outlived_command = False
        peer.excused_ns = 0
        peer.hears, peer.linked, peer.complaints, peer.knows_us = {}, {}, (), 0

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
        self._note_freshness(peer)
        return True

    def _note_freshness(self, peer: Peer) -> None:
        """Note whether the echo of this peer, which is proved dead now, was fresh when it died.

        If it was, the peer cannot have continued without us: it would have had to wait until our lease
        ended.
        """
        if self.context.now_ns - peer.echoed_ns < self.context.settings.lease_ns:
            peer.fresh = (peer.incarnation, peer.echo_epoch)

    def died_waiting(self, view: View) -> bool:
        """Return True if the coordinator of a view that excludes us died before it can have installed it.

        It would have waited for our lease to end first, and its echo was fresh when it died.
        """
        peer = self.peers.get(view.coordinator)
        epoch = self.context.epoch
        died = (view.members[view.coordinator].incarnation, epoch)
        return peer is not None and 0 < epoch < view.epoch and peer.fresh == died

    def declare_dead(self, node_id: str, incarnation: int) -> None:
        """Give a silent node up: a fence hook or the operator says that it is dead, and its data is lost."""
        peer = self.peers[node_id]
        peer.declared_dead_incarnation = max(peer.declared_dead_incarnation, incarnation)

    def retract_death(self, peer: Peer) -> None:
        """Note that a node that was given up is heard again: it is not dead, and comes back by joining."""
        peer.declared_dead_incarnation = 0
        self.context.log(f"node {peer.node_id} was given up, and is alive", "warning")

    def is_half_open(self, peer: Peer) -> bool:
        """Return True if only this end believes in the link to a peer: it is to be closed and made again.

        After a cut one end may have given the connection up while the other, which has nothing to send,
        never learns of it: each then waited for the other to connect. A peer that has not met our current
        incarnation has no link to it either.
        """
        context = self.context
        me, us = context.node_id, context.incarnation
        says_so = peer.knows_us != us or (peer.hears.get(me) == us and not peer.left)
        if not peer.connected or not says_so or peer.linked.get(me) == us:
            peer.unlinked_ns = NEVER_NS
        elif peer.unlinked_ns == NEVER_NS:
            peer.unlinked_ns = context.now_ns
        elif context.now_ns - peer.unlinked_ns >= context.settings.grace_ns:
            peer.unlinked_ns = NEVER_NS
            return True
        return False

    def on_local_pause(self, pause_ns: int) -> None:
        """Move the times on by a pause of this process: no node's silence in that time counts against it.

        What the others sent is still waiting to be read. A pause of ours for garbage collection once cost
        the others their membership.
        """
        for peer in self.peers.values():
            peer.excused_ns += pause_ns

    # -- judging

    def hears(self, peer: Peer) -> bool:
        """Return True if the peer was heard within the grace, has not left and is not proved dead."""
        if peer.incarnation <= peer.dead_incarnation or peer.left:
            return False
        return self.silent_ns(peer) < self.context.settings.grace_ns

    def who_holds_data(self) -> str:
        """Return another member that is heard and holds its view's data; "" for none."""
        holders = (p for p in self.peers.values() if p.holds_data and p.member and not p.is_witness)
        return next((peer.node_id for peer in holders if self.hears(peer)), "")

    def silent_ns(self, peer: Peer) -> int:
        """Return for how long the peer was not heard, not counting pauses of this process."""
        return self.context.now_ns - peer.heard_ns - peer.excused_ns

    def alive(self, node_id: str, incarnation: int) -> bool:
        """Return True if this incarnation is heard; for ourselves, if it is ours and has not left."""
        if node_id == self.context.node_id:
            return incarnation == self.context.incarnation and not self.left
        peer = self.peers.get(node_id)
        return peer is not None and peer.incarnation == incarnation and self.hears(peer)

    def proved_dead(self, node_id: str, incarnation: int) -> bool:
        """Return True if it is proved that this incarnation of a node can do nothing any more."""
        if node_id == self.context.node_id:
            return incarnation != self.context.incarnation
        peer = self.peers.get(node_id)
        return peer is not None and incarnation <= peer.dead_incarnation

    def counts_as_dead(self, node_id: str, incarnation: int) -> bool:
        """Return True if the node is proved dead, or was given up by a fence hook or the operator."""
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

    def renew_lease(self, view: View) -> None:
        """Compute until when this node may serve.

        Every other member's echo gives a lease that counts from when the echoed stamp was sent; the first
        to end decides.
        """
        context = self.context
        until_ns = ALONE_LEASE_NS
        for node_id in view.members:
            if node_id == context.node_id:
                continue
            peer = self.peers.get(node_id)
            if (
                peer is None
                or peer.echo_epoch != view.epoch
                or peer.incarnation != view.members[node_id].incarnation
            ):
                until_ns = LONG_AGO_NS
                break
            until_ns = min(until_ns, peer.echoed_ns + context.settings.lease_ns)
        context.lease_until_ns = until_ns
        if until_ns > context.now_ns:
            context.established_epoch = view.epoch

    def without_echo(self, view: View) -> list[str]:
        """Return the other members that are heard, but whose echoes give this node no lease."""
        oldest_ns = self.context.now_ns - self.context.settings.lease_ns
        others = (self.peers[node_id] for node_id in view.members if node_id in self.peers)
        return [
            peer.node_id
            for peer in others
            if self.hears(peer) and (peer.echo_epoch != view.epoch or peer.echoed_ns <= oldest_ns)
        ]

    @property
    def longest_lease_ns(self) -> int:
        """How long a lease may last on our clock if its holder's clock runs slower."""
        lease_ns = self.context.settings.lease_ns
        return lease_ns + lease_ns // CLOCK_SKEW

    def lease_left_behind_ns(self, node_id: str) -> int:
        """Return until when an excluded node may believe in its lease, as far as our own echoes go.

        We echo a stamp only after it arrived. So its lease from us ends one lease after we received the
        last stamp that we echoed.
        """
        peer = self.peers.get(node_id)
        return self.context.now_ns if peer is None else peer.echo_given_ns + self.longest_lease_ns
