"""All replicas of this node: it makes and drops them as the directory says, and handles their messages."""

from collections.abc import Iterable
from typing import Final

from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind
from ckptd.core.containment import close_peer
from ckptd.core.content.parse_replicas import parse_chunk, parse_join, parse_report
from ckptd.core.content.replica_state import ReplicaEvent
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.hub import Hub
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.replication.busy_replicas import BusyReplicas
from ckptd.core.replication.closed_by_stops import ClosedCheckpoints
from ckptd.core.replication.memory_capacity import Capacity
from ckptd.core.replication.replica import Replica
from ckptd.core.replication.resync import (
    ResyncSender,
    finish_resync,
    may_be_unique,
    quarantine,
    receive_chunk,
)
from ckptd.core.replication.sync_reports import SyncReports
from ckptd.core.replication.unknown_checkpoints import UnknownCheckpoints
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, View

_REPLICATE: Final = Kind.REPLICATE

OBSOLETE_TTL_NS: Final = 10 * SECOND_NS
"""How long after a view's installation replicas that the directory no longer lists are kept for a resync."""

RESYNC_RETRY_NS = 5000 * MILLISECOND_NS


class LocalReplicas:
    """The replicas of this node."""

    def __init__(self, context: Context, hub: Hub) -> None:
        self.context = context
        self.hub = hub
        self.directory = Directory()
        self.view: View | None = None
        self.by_id: dict[int, Replica] = {}
        """This node's replicas by creation id."""
        self.busy = BusyReplicas()
        self.sync_reports = SyncReports(context, hub)
        self.obsolete_ns = NEVER_NS
        self.capacity = Capacity(context)
        self.deferred_resyncs: dict[int, int] = {}
        """Joins that found no memory: creation id to the time of the next try."""
        self.closed_checkpoints = ClosedCheckpoints(context)
        self.unproven_takeover_seen = False
        """Since this node started, a view may have continued without proof that the others were dead: the
        epoch rose by half of `EPOCH_JUMP_DATA_LOSS` or more at once."""
        self.unknown_checkpoints = UnknownCheckpoints()

    # -- in line with the directory

    def on_installed(self, view: View, directory: Directory) -> None:
        """Start reports, joins and active replicas again, in the new epoch."""
        last_epoch = self.view.epoch if self.view is not None else 0
        # Others may have continued without this node's replicas if it was out of the view, or if it never ran
        # a view in between: it was not notified of what was lost there (seed 7013035).
        was_away = view.members[self.context.node_id].join_epoch > last_epoch or view.epoch > last_epoch + 1
        self.unproven_takeover_seen |= view.epoch - last_epoch >= EPOCH_JUMP_DATA_LOSS // 2
        self.view = view
        self.directory = directory
        self.obsolete_ns = self.context.now_ns + OBSOLETE_TTL_NS
        self.sync_reports.unconfirmed.clear()
        self.unknown_checkpoints.clear()
        for creation_id, replica in list(self.by_id.items()):
            self.context.cause = replica
            replica.replica_reports.clear()
            replica.resync_senders.clear()
            replica.queued_joins.clear()
            replica.resync_source = ""
            replica.restore_content()
            if replica.advertised_epoch != last_epoch:
                replica.advertised_seq = 0
            # It is still in sync there: it may be needed, or leaves again.
            replica.on_event(ReplicaEvent.READMITTED)
            entry = directory.checkpoints.get(creation_id)
            replica.possibly_superseded = replica.possibly_superseded or was_away
            if entry is None:
                self._remove(creation_id)
            elif replica.active is not None and entry.active != self.context.node_id:
                self._step_down(replica)
            elif replica.active is not None:
                self.begin_activation(replica, entry)
                self.closed_checkpoints.quarantine_if_closed(replica)
        self.reconcile(directory.checkpoints)

    def on_serving(self) -> None:
        """Commit what has waited until every member runs the view."""
        for replica in self.by_id.values():
            if replica.active is not None:
                self.context.cause = replica
                replica.active.last_progress_ns = max(replica.active.last_progress_ns, self.context.now_ns)
                replica.active.try_commit()

    def reconcile(self, creation_ids: Iterable[int]) -> None:
        """Bring this node's replicas of these checkpoints in line with the directory."""
        for creation_id in list(creation_ids):
            entry = self.directory.checkpoints.get(creation_id)
            if entry is None:
                self._remove(creation_id)
            else:
                self._reconcile(entry)

    def _reconcile(self, entry: CheckpointEntry) -> None:
        me = self.context.node_id
        in_sync = entry.replicas.get(me)
        replica = self.by_id.get(entry.creation_id)
        if self.context.stops.bars_replica(entry.creation_id, me):
            return  # This checkpoint stopped this node before.
        if in_sync is None:
            return  # This node came back and may be given a replica again. If not, this one is dropped later.
        created = replica is None
        if replica is not None:
            self.context.cause = replica
            if in_sync:
                replica.possibly_superseded = False
        if replica is None:
            created_ns = entry.created_ns
            replica = Replica(self.context, entry.creation_id, entry.name, entry.created_with, created_ns)
            self.by_id[entry.creation_id] = replica
        if self.sync_reports.unconfirmed.get(entry.creation_id) == (
            DirectoryOp.IN_SYNC if in_sync else DirectoryOp.OUT_OF_SYNC
        ):
            del self.sync_reports.unconfirmed[entry.creation_id]
            if not in_sync:
                replica.resync_source = ""  # Until now it reported; now it joins (seed 40035).
        if entry.active == me:
            if replica.active is None:
                self._activate(replica, entry)
            else:
                was_ready = replica.active.ready
                replica.active.change_replicas(entry.replicas, self._counts_as_in_sync(entry))
                replica.active.on_entry(entry)
                if not was_ready:
                    self.on_maybe_ready(replica)
        else:
            if replica.active is not None:
                self._step_down(replica)
            self._attach_to_active(replica, entry, in_sync)
        for node_id, join in list(replica.queued_joins.items()):
            if node_id in entry.replicas:
                del replica.queued_joins[node_id]
                self._on_join(replica, node_id, join)
        if created:
            self._receive_kept_frames(entry.creation_id)

    def _attach_to_active(self, replica: Replica, entry: CheckpointEntry, in_sync: bool) -> None:
        """Report to the active replica's node, or join from it."""
        if entry.active is None:
            replica.resync_source = ""
            replica.replica_reports.clear()
            return
        deferred = entry.creation_id in self.deferred_resyncs and not in_sync
        if replica.resync_source == entry.active or deferred:
            return
        replica.replica_reports.clear()
        replica.resync_senders.clear()
        replica.resync_source = entry.active
        if in_sync or entry.creation_id in self.sync_reports.unconfirmed:
            self._report(replica, entry.active)
        else:
            replica.on_event(ReplicaEvent.READMITTED)
            replica.request_resync(entry.active)

    def _report(self, replica: Replica, active: str) -> None:
        replica.report(active, self.directory.checkpoints[replica.creation_id].activation_seq)

    def _counts_as_in_sync(self, entry: CheckpointEntry) -> bool:
        """Return True if the directory counts this node's replica as in sync, and no change is proposed."""
        return (
            bool(entry.replicas.get(self.context.node_id))
            and entry.creation_id not in self.sync_reports.unconfirmed
        )

    def begin_activation(self, replica: Replica, entry: CheckpointEntry) -> None:
        """Let the active role begin (again), with what the directory says of the replicas."""
        assert replica.active is not None
        others = [node_id for node_id in entry.in_sync if node_id != self.context.node_id]
        replica.active.begin_election(entry)
        replica.active.begin_activation(others, entry.activation_seq, self._counts_as_in_sync(entry))

    def _activate(self, replica: Replica, entry: CheckpointEntry) -> None:
        replica.resync_source = ""
        replica.on_event(ReplicaEvent.READMITTED)  # It catches up before it serves.
        replica.resync_senders.clear()
        replica.active = ActiveReplica(replica, self.hub, self.busy.by_id)
        self.begin_activation(replica, entry)
        self.closed_checkpoints.quarantine_if_closed(replica)
        self.on_maybe_ready(replica)

    def _step_down(self, replica: Replica) -> None:
        assert replica.active is not None
        unanswered = replica.active.step_down()
        replica.active = None
        self.busy.forget(replica.creation_id)
        replica.resync_source = ""
        replica.replica_reports.clear()
        replica.queued_joins.clear()
        self.hub.retry_parked(unanswered)

    def _remove(self, creation_id: int) -> None:
        """Drop a replica; quarantine it first if it may hold data that no other node has."""
        replica = self.by_id.pop(creation_id, None)
        self.sync_reports.unconfirmed.pop(creation_id, None)
        self.busy.forget(creation_id)
        if replica is not None and may_be_unique(replica, self.directory, self.unproven_takeover_seen):
            quarantine(replica)
        if replica is not None and replica.active is not None:
            self.hub.retry_parked(replica.active.step_down())
            replica.active = None
            self.busy.by_id.pop(creation_id, None)

    def drop_obsolete(self) -> None:
        """Drop the replicas that are not in the directory, once `OBSOLETE_TTL_NS` have passed in a view."""
        if self.context.now_ns < self.obsolete_ns:
            return
        self.obsolete_ns = NEVER_NS
        for creation_id in list(self.by_id):
            entry = self.directory.checkpoints.get(creation_id)
            if entry is None or (self.context.node_id not in entry.replicas and not entry.last_in_sync):
                self._remove(creation_id)

    def forget_sessions(self, sessions: list[int]) -> None:
        """Forget the answers of ended sessions: the directory refuses those sessions."""
        for replica in self.by_id.values():
            for session in sessions:
                replica.log.answers.pop(session, None)
            if replica.active is not None:
                replica.active.forget_sessions(sessions)

    def on_stops(self, creation_ids: Iterable[int]) -> None:
        """Close the checkpoints that may not be tried any more, and start again those that may."""
        for creation_id in creation_ids:
            replica, entry = self.by_id.get(creation_id), self.directory.checkpoints.get(creation_id)
            if entry is None:
                continue
            if replica is None or replica.active is None:
                self.reconcile([creation_id])  # (This node may have shunned it until now.)
            elif creation_id in self.context.stops.closed:
                self.hub.retry_parked(replica.active.close())
                self.closed_checkpoints.quarantine_if_closed(replica)
            elif not replica.active.ready:
                self.closed_checkpoints.quarantined.pop(creation_id, None)
                self.begin_activation(replica, entry)
                self.on_maybe_ready(replica)

    # -- messages

    def receive(self, node_id: str, frame: Frame) -> None:
        """Handle a frame between replicas, of this epoch. Raises: FrameError."""
        replica = self.by_id.get(frame.a)
        if replica is None:
            self.unknown_checkpoints.keep(self.directory, node_id, frame)
            return
        match frame.kind:
            case Kind.REPLICATE | Kind.ACK:
                self.receive_update(replica, node_id, frame)
            case Kind.COMMIT:
                if replica.active is not None or replica.ignores_updates:
                    return
                if frame.c > replica.log.seq and replica.complete:
                    self._leave_in_sync_unless_resyncing(replica)
                elif frame.c > replica.log.committed_seq:
                    replica.commit(frame.c)
            case Kind.JOIN:
                self._on_join(replica, node_id, parse_join(frame))
            case Kind.CHUNK:
                if node_id != replica.source:
                    return
                chunk = parse_chunk(frame)
                if replica.active is None and not self.capacity.can_admit_resync(chunk, len(frame.body)):
                    self._defer_resync(replica)
                else:
                    receive_chunk(replica, chunk, node_id)
            case Kind.CHUNK_ACK:
                if node_id in replica.resync_senders:
                    replica.resync_senders[node_id].on_chunk_ack(frame.c)
            case Kind.JOINED:
                if node_id == replica.source:
                    self._on_joined(replica, frame.c)

    def receive_update(self, replica: Replica, node_id: str, frame: Frame) -> None:
        """Handle REPLICATE or ACK, of this epoch. Raises: FrameError."""
        active = replica.active
        if frame.kind == _REPLICATE:
            if replica.ignores_updates or (active is not None and node_id != active.catching_up_from):
                return
            if not replica.stage(node_id, frame.c, frame.body):
                self._leave_in_sync_unless_resyncing(replica)
        elif frame.body:
            activation_seq, advertised_seq = parse_report(frame.body)
            self._on_report(replica, node_id, activation_seq, frame.c, advertised_seq)
        elif active is not None:
            was_ready = active.ready
            active.on_ack(node_id, frame.c)
            if not was_ready:
                self.on_maybe_ready(replica)

    def _receive_kept_frames(self, creation_id: int) -> None:
        for node_id, frame in self.unknown_checkpoints.pop(creation_id):
            try:
                self.receive(node_id, frame)
            except FrameError as error:  # Close the sender's link, and not the one that CREATE came by.
                close_peer(self.context, node_id, frame, error)

    def _on_report(
        self, replica: Replica, node_id: str, activation_seq: int, seq: int, advertised_seq: int
    ) -> None:
        """Take a report: what a replica holds, and that it takes no other node's updates in this activation.

        An acknowledgement alone does not say the latter. One was in flight while a node gave the active role
        up and took it again, and let that node serve at the same time as another (seed 33).
        """
        replica.replica_reports[node_id] = (activation_seq, seq, advertised_seq)
        replica.queued_joins.pop(node_id, None)  # A JOIN from before this report is obsolete (seed 30895).
        if replica.active is not None and replica.active.activation_seq == activation_seq:
            was_ready = replica.active.ready
            replica.active.on_report(node_id, seq)
            if not was_ready:
                self.on_maybe_ready(replica)

    def on_maybe_ready(self, replica: Replica) -> None:
        """Propose an active replica that has caught up as in sync; once it is ready, serve what waits."""
        active = replica.active
        if active is None or not active.ready:
            if active is not None and active.has_caught_up:
                self._report_self_in_sync(replica)
            return
        for node_id, join in list(replica.queued_joins.items()):
            del replica.queued_joins[node_id]
            self._start_resync_sender(replica, node_id, join)
        self.hub.retry_parked()

    def _report_self_in_sync(self, replica: Replica) -> None:
        """Propose an active replica as in sync: it has caught up, so it holds everything.

        It may have left the in-sync set before it was made active, and learn of that only now.
        """
        if not self.directory.checkpoints[replica.creation_id].replicas.get(self.context.node_id):
            self._propose(DirectoryOp.IN_SYNC, replica.creation_id)

    def _on_join(self, replica: Replica, node_id: str, join: tuple[int, int, bool]) -> None:
        entry = self.directory.checkpoints.get(replica.creation_id)
        if entry is None or node_id not in entry.replicas:
            replica.queued_joins[node_id] = join
        elif (replica.active is not None and replica.active.ready) or (
            replica.active is None and entry.active == node_id and replica.complete
        ):
            self._start_resync_sender(replica, node_id, join)
        else:
            replica.queued_joins[node_id] = join

    def _start_resync_sender(self, replica: Replica, node_id: str, join: tuple[int, int, bool]) -> None:
        entry = self.directory.checkpoints[replica.creation_id]
        if replica.active is not None:
            if entry.replicas.get(node_id):
                # It joins because it left the in-sync set, but the directory here does not show that yet.
                replica.queued_joins[node_id] = join
                return
            replica.active.drop_joiner(node_id)
        replica.resync_senders[node_id] = ResyncSender(replica, node_id)
        replica.resync_senders[node_id].start(*join)

    def _on_joined(self, replica: Replica, complete_at_seq: int) -> None:
        if replica.log.seq < complete_at_seq:
            return  # It ends a join that this replica has started again since.
        finish_resync(replica)
        if replica.active is not None:
            replica.active.catching_up_from = ""
            replica.active.try_become_ready()
            self.on_maybe_ready(replica)
        else:
            self._propose(DirectoryOp.IN_SYNC, replica.creation_id)

    def _leave_in_sync_unless_resyncing(self, replica: Replica) -> None:
        """Handle an update or commit that lies beyond this replica's end, or an update that it refused.

        Ignore it during a resync: the source sent it before it answered our JOIN, and that brings the rest.
        A second join next to the first would be asked to keep sections that the first has replaced.
        """
        entry = self.directory.checkpoints.get(replica.creation_id)
        in_sync = entry is not None and entry.replicas.get(self.context.node_id)
        if in_sync or replica.has_diverged:
            self._leave_in_sync(replica)

    def _propose(self, number: int, creation_id: int) -> None:
        if number == DirectoryOp.OUT_OF_SYNC:
            self.by_id[creation_id].resync_source = ""
        self.sync_reports.propose(number, creation_id)

    def _leave_in_sync(self, replica: Replica) -> None:
        """Have a replica that cannot follow propose to leave the in-sync set, and then join again.

        One that only lags behind keeps its content until the join replaces it: if the replicas that were
        ahead die before that, it is all that is left.
        """
        self.context.log(
            f"checkpoint {replica.creation_id:x}: this replica is out of sync and will be rebuilt", "warning"
        )
        if replica.has_diverged:
            quarantine(replica)
            replica.reset()
        replica.on_event(ReplicaEvent.LEFT_IN_SYNC_SET)
        entry = self.directory.checkpoints.get(replica.creation_id)
        if entry is not None and entry.replicas.get(self.context.node_id):
            self._propose(DirectoryOp.OUT_OF_SYNC, replica.creation_id)
        else:
            self.sync_reports.unconfirmed.pop(replica.creation_id, None)
            replica.resync_source = ""
            if entry is not None:
                self._reconcile(entry)

    # -- links

    def on_peer_lost(self, node_id: str) -> None:
        """Forget what was under way to or from that node: it may not have arrived."""
        for replica in self.by_id.values():
            self.context.cause = replica
            replica.resync_senders.pop(node_id, None)
            replica.queued_joins.pop(node_id, None)
            replica.replica_reports.pop(node_id, None)
            active = replica.active
            if replica.resync_source == node_id:
                replica.resync_source = ""
            if active is not None:
                if active.catching_up_from == node_id:
                    active.catching_up_from = ""
                if node_id not in active.commit_set:
                    active.drop_joiner(node_id)

    def on_peer_connected(self, node_id: str) -> None:
        """Send that node again what it may lack, and report to it what we hold."""
        for replica in list(self.by_id.values()):
            entry = self.directory.checkpoints.get(replica.creation_id)
            if entry is None:
                continue
            self.context.cause = replica
            active = replica.active
            if active is not None:
                reported = node_id in active.commit_set and node_id not in active.awaiting_report
                if active.has_sent_tails and reported:
                    active.send_tail(node_id)
                was_ready = active.ready
                active.try_become_ready()
                if not was_ready:
                    self.on_maybe_ready(replica)
            elif entry.active == node_id and self.context.node_id in entry.replicas:
                # What was sent on the last link, or while there was none, may be lost.
                replica.resync_source = ""
                self._attach_to_active(replica, entry, bool(entry.replicas[self.context.node_id]))

    # -- memory

    def is_full(self) -> bool:
        """Return True if this node's replicas have reached the memory limit."""
        return self.capacity.is_full(self.by_id.values())

    def _defer_resync(self, replica: Replica) -> None:
        """Put off a join for which there is no memory: free what it took, and try again later."""
        name = replica.name.decode(errors="replace")
        self.context.log(f"checkpoint {name!r}: not enough memory for a replica here", "warning")
        self.context.count("joins_without_memory")
        replica.restore_content()
        if replica.possibly_superseded:
            quarantine(replica)
        replica.reset()
        replica.resync_source = ""
        self.capacity.recount_due_ns = 0
        self.deferred_resyncs[replica.creation_id] = self.context.now_ns + RESYNC_RETRY_NS

    def retry_resyncs(self) -> None:
        """Start again the joins that found no memory, once they are due and there is some."""
        for creation_id, at_ns in list(self.deferred_resyncs.items()):
            entry = self.directory.checkpoints.get(creation_id)
            if entry is None or creation_id not in self.by_id:
                del self.deferred_resyncs[creation_id]
            elif at_ns <= self.context.now_ns and not self.is_full():
                del self.deferred_resyncs[creation_id]
                self._reconcile(entry)
