"""Heartbeats: the message that nodes send each other all the time; how it is made, and how it is taken.

Every heartbeat carries the sender's stamp and echoes the receiver's last one (see `lease`), and says how its
sender is (see `own_status`). A heartbeat alone makes no incarnation known, since anybody can send one
(ADR 17).

This module knows nothing of checkpoints.
"""

from typing import Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import Context
from ckptd.core.events import AskBack, SendHeartbeat
from ckptd.core.hub import VoterHub
from ckptd.core.liveness.failure_detector import FailureDetector
from ckptd.core.liveness.lease import Lease
from ckptd.core.liveness.own_status import OwnStatus
from ckptd.core.liveness.parse_heartbeat import Heartbeat, parse_heartbeat
from ckptd.core.liveness.peer import Peer, Peers
from ckptd.core.liveness.proofs_of_death import ProofsOfDeath
from ckptd.core.settings import SECOND_NS

ASK_BACK_NS: Final = SECOND_NS
"""How often, at most, heartbeats of an unknown incarnation make a node ask at the peer's address.

A second daemon with the peer's node id sends 40 of them per second, a hostile sender as many as it likes.
"""


class Heartbeats:
    """Sends this node's heartbeats, and notes what those of others say."""

    def __init__(
        self,
        context: Context,
        hub: VoterHub,
        own: OwnStatus,
        peers: Peers,
        detector: FailureDetector,
        deaths: ProofsOfDeath,
        lease: Lease,
    ) -> None:
        self.context = context
        self.hub = hub
        self.own = own
        self.peers = peers
        self.detector = detector
        self.deaths = deaths
        self.lease = lease
        self.next_ns = context.now_ns
        """When the next heartbeats are due."""
        self.parsed_by_body: dict[bytes, Heartbeat] = {}
        """Each peer's last heartbeat, by its body: most repeat the last one and need not be parsed again."""

    # -- sending

    def send_all(self) -> None:
        """Send one heartbeat to every configured peer."""
        for peer in self.peers.values():
            self.send(peer)

    def send(self, peer: Peer) -> None:
        context = self.context
        own = self.own
        echo_ns = self.lease.grant(peer)
        flag_values = (
            own.leaving,
            own.left,
            own.member,
            own.amnesiac,
            own.full,
            own.disk_failing,
            context.epoch > 0,
            own.outlived_command,
        )
        flags = sum(1 << bit for bit, holds in enumerate(flag_values) if holds)
        body = pack_body(
            [
                context.node_id,
                context.incarnation,
                own.decided_epoch,
                own.disk_epoch,
                flags,
                [
                    [other.node_id, other.incarnation, other.connected]
                    for other in self.detector.heard_peers()
                ],
                list(own.stall_reports),
                peer.incarnation,
                context.settings.cluster,
                [
                    [other.node_id, other.declared_dead_incarnation]
                    for other in self.peers.values()
                    if other.declared_dead_incarnation
                ],
                [] if context.sealed else self.hub.unreplicated_positions(peer.node_id),
                context.settings.feature_level,
                context.feature_level,
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
            self.deaths.retract_death(peer)
        peer.epoch = frame.b
        peer.decided_epoch = beat.decided_epoch
        peer.disk_epoch = beat.disk_epoch
        peer.their_timestamp_ns = frame.a
        peer.knows_us = beat.of_incarnation
        peer.feature_level, peer.required_level = beat.feature_level, beat.required_level
        for node_id, declared in beat.declared_dead.items():
            other = self.peers.get(node_id)
            if other is not None and not self.detector.recently_heard(other):
                self.deaths.declare_dead(node_id, declared)
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
        if beat.of_incarnation == context.incarnation:
            self.lease.on_echo(peer, frame.b, frame.c)
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
