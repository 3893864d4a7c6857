"""Passes each frame of a peer to the part that handles it, if the frame is of this node's epoch."""

from collections.abc import Iterable
from typing import Final

from ckpt_protocol.bounds_by_kind import FROM_WITNESS
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, refuse_by_header
from ckpt_protocol.messages import DIRECTORY_ID, REPLICA_KINDS, Kind
from ckptd.core.containment import close_peer
from ckptd.core.context import Context
from ckptd.core.directory.parse_directory import parse_proposal
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.membership.housekeeping import Housekeeping
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.membership.view_change import VIEW_CHANGE_KINDS
from ckptd.core.operations.last_words import LastWords
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.unknown_checkpoints import FRAMES_AHEAD_MAX
from ckptd.core.requests.router import RequestRouter
from ckptd.core.view import View
from ckptd.core.work_costs import KIB_SHIFT, PEER_WORK

REPLICATE: Final = Kind.REPLICATE
ACK: Final = Kind.ACK
_HOT_KINDS = (ACK, REPLICATE)
_VOTE_KINDS = (Kind.PREPARE, Kind.PROMISE, Kind.ACCEPT, Kind.ACCEPTED)
_REQUEST_KINDS = (
    Kind.FORWARD,
    Kind.FORWARD_ANSWER,
    Kind.FORWARD_REFUSED,
    Kind.WITHDRAW,
    Kind.QUERY,
    Kind.QUERIED,
    Kind.ASK,
)


class PeerFrames:
    """Takes the frames of all peers."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        reconfiguration: Reconfiguration,
        replicator: DirectoryReplicator,
        replicas: LocalReplicas,
        requests: RequestRouter,
        housekeeping: Housekeeping,
        stop_reports: LastWords,
    ) -> None:
        self.context = context
        self.hub = hub
        self.reconfiguration = reconfiguration
        self.replicator = replicator
        self.replicas = replicas
        self.requests = requests
        self.housekeeping = housekeeping
        self.stop_reports = stop_reports
        self.future_epoch_frames: list[tuple[str, Frame]] = []
        """Frames of a view that this node does not run yet, each with its sender."""

    def receive(self, node_id: str, frames: Iterable[Frame]) -> bool:
        """Take a peer's frames in order, as many as its turn allows; False if its link is closed instead."""
        context, replicas = self.context, self.replicas.by_id
        witness = node_id in context.settings.witnesses
        try:
            for frame in frames:
                kind, creation_id, epoch, seq, body = frame
                if witness:
                    refuse_by_header(kind, len(body), FROM_WITNESS)
                context.cause = frame
                context.work += PEER_WORK + (len(body) >> KIB_SHIFT)
                replica = replicas.get(creation_id) if kind in _HOT_KINDS else None
                if replica is not None and epoch == context.epoch and not context.sealed:
                    active = replica.active  # Most frames take this short path.
                    if active is not None and active.ready and kind == ACK and not body:
                        active.on_ack(node_id, seq)
                    else:
                        self.replicas.receive_update(replica, node_id, frame)
                elif kind in REPLICA_KINDS or kind in _REQUEST_KINDS:
                    # The epoch is checked for each message: a node that was paused has stale ones queued.
                    if epoch == context.epoch and not context.sealed:
                        self._on_epoch_frame(node_id, frame)
                    elif epoch > context.epoch and len(self.future_epoch_frames) < FRAMES_AHEAD_MAX:
                        self.future_epoch_frames.append((node_id, frame))
                else:
                    self._on_view_change_frame(node_id, frame)
                if context.work >= context.work_until:
                    break
        except FrameError as error:
            close_peer(context, node_id, frame, error)
            return False
        return True

    def _on_epoch_frame(self, node_id: str, frame: Frame) -> None:
        kind = frame.kind
        if frame.a == DIRECTORY_ID and kind in REPLICA_KINDS:
            if kind == Kind.REPLICATE:
                self.replicator.stage(node_id, frame.c, frame.body)
            elif kind == Kind.ACK:
                self.replicator.on_ack(node_id, frame.c)
            elif kind == Kind.COMMIT:
                self.replicator.on_commit(frame.c)
        elif kind == Kind.FORWARD:
            self.requests.forwarding.on_forward(node_id, frame)
        elif kind == Kind.FORWARD_ANSWER:
            self.requests.forwarding.on_forward_answer(frame)
        elif kind == Kind.FORWARD_REFUSED:
            self.requests.forwarding.on_forward_refused(node_id, frame)
        elif kind == Kind.WITHDRAW:
            self.requests.withdrawals.on_withdraw(frame)
        elif kind == Kind.QUERY:
            self.requests.reads.on_query(node_id, frame)
        elif kind == Kind.QUERIED:
            self.requests.reads.on_queried(frame)
        elif kind == Kind.ASK:
            self.housekeeping.on_proposal(node_id, parse_proposal(frame.body))
        else:
            self.replicas.receive(node_id, frame)

    def _on_view_change_frame(self, node_id: str, frame: Frame) -> None:
        kind = frame.kind
        if kind in _VOTE_KINDS:
            self.reconfiguration.arbiter.receive(node_id, frame)
        elif kind in VIEW_CHANGE_KINDS:
            self.reconfiguration.view_change.receive(node_id, frame)
        elif kind == Kind.DECIDED:
            self.reconfiguration.on_decided_elsewhere(frame)
        elif kind == Kind.STOP:
            self.hub.stop_all()
        elif kind == Kind.NODES:
            self.reconfiguration.incarnations.on_nodes(node_id, frame)
        elif kind == Kind.FAULTS:
            self.stop_reports.on_stopped(node_id, frame)
        else:
            raise FrameError(f"a peer may not send a frame of kind {kind}")

    def on_installed(self, view: View) -> None:
        """Take the frames of this view that came before it was installed."""
        kept, self.future_epoch_frames = self.future_epoch_frames, []
        for node_id, frame in kept:
            if frame.b == view.epoch:
                try:
                    self._on_epoch_frame(node_id, frame)
                except FrameError as error:  # Close the link to its sender, not to the view's sender.
                    close_peer(self.context, node_id, frame, error)
            elif frame.b > view.epoch:
                self.future_epoch_frames.append((node_id, frame))
