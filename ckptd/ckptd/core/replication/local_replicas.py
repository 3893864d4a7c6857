"""All replicas of this node: it makes and drops them as the directory says, and handles their messages."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, FrameError, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.client_request import Request
from ckptd.core.containment import close_peer
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory, Do, Entry
from ckptd.core.replication.active_replica import ActiveReplica, Answer
from ckptd.core.replication.capacity import Memory
from ckptd.core.replication.closed_checkpoints import Closed
from ckptd.core.replication.parse_replicas import parse_chunk, parse_join, parse_report
from ckptd.core.replication.replica import Replica
from ckptd.core.replication.resync import JoinSource, may_be_alone, quarantine, take_chunk, take_joined
from ckptd.core.settings import MILLISECOND_NS
from ckptd.core.view import LOSS_EPOCHS, View

_REPLICATE: Final = Kind.REPLICATE

EARLY_FRAMES_MAX: Final = 10_000
"""Frames of a view that this node does not run yet, and as many of checkpoints that it does not know of yet.

Further ones are dropped. Those of a view are sent again in that view. Because of the others a replica is not
in sync in time, and joins again.
"""

ASK_AGAIN_NS = 250 * MILLISECOND_NS
JOIN_AGAIN_NS = 5000 * MILLISECOND_NS


class Replicas:
    """The replicas of this node."""

    def __init__(self, context: Context, answer: Answer, again: Callable[[list[Request]], None]) -> None:
        self.context = context
        self.answer = answer
        self.again = again
        self.directory = Directory()
        self.view: View | None = None
        self.held: dict[int, Replica] = {}
        """This node's replicas by creation id."""
        self.watched: dict[int, ActiveReplica] = {}
        """Active replicas that may have something due, by creation id."""
        self.asks: dict[int, int] = {}
        """By creation id: the operation proposed to the coordinator that the directory does not show yet."""
        self.ask_again_ns = 0
        self.memory = Memory(context)
        self.put_off: dict[int, int] = {}
        """Joins that found no memory: creation id to the time of the next try."""
        self.closed = Closed(self)
        self.lossy = False
        """Since this node started, a view may have continued without proof that the others were dead: the
        epoch
        rose by half of `LOSS_EPOCHS` or more at once."""
        self.early: dict[int, list[tuple[str, Frame]]] = {}
        """Frames of checkpoints that the directory here does not have yet, each with its sender."""
        self.early_frames = 0
        self.ask: Callable[[list[object]], None] = lambda op: None

    # -- in line with the directory

    def on_installed(self, view: View, directory: Directory) -> None:
        """Start reports, joins and active replicas again, in the new epoch."""
        last_epoch = self.view.epoch if self.view is not None else 0
        # Others may have continued without this node's replicas if it was out of the view, or if it never ran
        # a
        # view in between: it was not notified of what was lost there (seed 7013035).
        was_away = view.members[self.context.node_id].join_epoch > last_epoch or view.epoch > last_epoch + 1
        self.lossy = self.lossy or view.epoch - last_epoch >= LOSS_EPOCHS // 2
        self.view = view
        self.directory = directory
        self.asks.clear()
        self.early.clear()
        self.early_frames = 0
        for creation_id, replica in list(self.held.items()):
            self.context.cause = replica
            replica.reports.clear()
            replica.sources.clear()
            replica.waiting_joins.clear()
            replica.joining_from = ""
            replica.fall_back()
            if replica.heard_epoch != last_epoch:
                replica.heard_seq = 0
            replica.dropped = False  # It is still in sync there: it may be needed, or leaves again.
            entry = directory.checkpoints.get(creation_id)
            replica.of_past = replica.of_past or was_away
            if entry is None:
                self._remove(creation_id)
            elif replica.active is not None and entry.active != self.context.node_id:
                self._resign(replica)
            elif replica.active is not None:
                replica.active.start(self.others_in_sync(entry), entry.term, self.counts(entry))
                self.closed.look(replica)
        self.follow(directory.checkpoints)

    def on_serving(self) -> None:
        """Commit what has waited until every member runs the view."""
        for replica in self.held.values():
            if replica.active is not None:
                self.context.cause = replica
                replica.active.progress_ns = max(replica.active.progress_ns, self.context.now_ns)
                replica.active.advance()

    def follow(self, creation_ids: Iterable[int]) -> None:
        """Bring this node's replicas of these checkpoints in line with the directory."""
        for creation_id in list(creation_ids):
            entry = self.directory.checkpoints.get(creation_id)
            if entry is None:
                self._remove(creation_id)
            else:
                self._follow(entry)

    def _follow(self, entry: Entry) -> None:
        me = self.context.node_id
        in_sync = entry.replicas.get(me)
        replica = self.held.get(entry.creation_id)
        if self.context.stops.shuns(entry.creation_id, me):
            return  # This checkpoint stopped this node before.
        if in_sync is None:
            return  # This node came back and may be given a replica again. If not, this one is dropped later.
        made = replica is None
        if replica is not None:
            self.context.cause = replica
            if in_sync:
                replica.of_past = False
        if replica is None:
            made_ns = entry.created_ns
            replica = Replica(self.context, entry.creation_id, entry.name, entry.attributes, made_ns)
            self.held[entry.creation_id] = replica
        if self.asks.get(entry.creation_id) == (Do.IN_SYNC if in_sync else Do.OUT):
            del self.asks[entry.creation_id]
            if not in_sync:
                replica.joining_from = ""  # Until now it reported; now it joins (seed 40035).
        if entry.active == me:
            if replica.active is None:
                self._activate(replica, entry)
            else:
                was_ready = replica.active.ready
                replica.active.change_replicas(entry.replicas, self.counts(entry))
                if not was_ready:
                    self.after_progress(replica)
        else:
            if replica.active is not None:
                self._resign(replica)
            self._follow_active(replica, entry, in_sync)
        for node_id, join in list(replica.waiting_joins.items()):
            if node_id in entry.replicas:
                del replica.waiting_joins[node_id]
                self._on_join(replica, node_id, join)
        if made:
            self._take_early(entry.creation_id)

    def _follow_active(self, replica: Replica, entry: Entry, in_sync: bool) -> None:
        """Report to the active replica's node, or join from it."""
        if entry.active is None:
            replica.joining_from = ""
            replica.reports.clear()
            return
        put_off = entry.creation_id in self.put_off and not in_sync
        if replica.joining_from == entry.active or put_off:
            return
        replica.reports.clear()
        replica.sources.clear()
        replica.joining_from = entry.active
        if in_sync or entry.creation_id in self.asks:
            self._report(replica, entry.active)
        else:
            replica.dropped = False
            replica.send_join(entry.active)

    def _report(self, replica: Replica, active: str) -> None:
        term = self.directory.checkpoints[replica.creation_id].term
        frame = encode_frame(
            Kind.ACK,
            replica.creation_id,
            self.context.epoch,
            replica.log.seq,
            pack_body([term, replica.heard_seq]),
        )
        self.context.send_peer(active, frame)

    def others_in_sync(self, entry: Entry) -> list[str]:
        return [node_id for node_id in entry.in_sync if node_id != self.context.node_id]

    def counts(self, entry: Entry) -> bool:
        """Return True if the directory counts this node's replica as in sync, and no change is proposed."""
        return bool(entry.replicas.get(self.context.node_id)) and entry.creation_id not in self.asks

    def _activate(self, replica: Replica, entry: Entry) -> None:
        replica.joining_from = ""
        replica.dropped = False  # It catches up before it serves.
        replica.sources.clear()
        replica.active = ActiveReplica(replica, self.answer, self.watched)
        replica.active.start(self.others_in_sync(entry), entry.term, self.counts(entry))
        self.closed.look(replica)
        self.after_progress(replica)

    def _resign(self, replica: Replica) -> None:
        assert replica.active is not None
        unanswered = replica.active.resign()
        replica.active = None
        replica.joining_from = ""
        replica.reports.clear()
        replica.waiting_joins.clear()
        self.again(unanswered)

    def _remove(self, creation_id: int) -> None:
        """Drop a replica; quarantine it first if it may hold data that no other node has."""
        replica = self.held.pop(creation_id, None)
        self.asks.pop(creation_id, None)
        self.watched.pop(creation_id, None)
        if replica is not None and may_be_alone(replica, self.directory, self.lossy):
            quarantine(replica)
        if replica is not None and replica.active is not None:
            self.again(replica.active.resign())
            replica.active = None
            self.watched.pop(creation_id, None)

    def forget_retired(self) -> None:
        """Drop the replicas that are not in the directory, long after the view was installed."""
        for creation_id in list(self.held):
            entry = self.directory.checkpoints.get(creation_id)
            if entry is None or (self.context.node_id not in entry.replicas and not entry.holders):
                self._remove(creation_id)

    def forget_sessions(self, sessions: list[int]) -> None:
        """Forget the answers of ended sessions: the directory refuses those sessions."""
        for replica in self.held.values():
            for session in sessions:
                replica.log.answers.pop(session, None)
                if replica.active is not None:
                    replica.active.refused.forget(session)

    # -- messages

    def receive(self, node_id: str, frame: Frame) -> None:
        """Handle a frame between replicas, of this epoch. Raises: FrameError."""
        replica = self.held.get(frame.a)
        if replica is None:
            self._keep_early(node_id, frame)
            return
        match frame.kind:
            case Kind.REPLICATE | Kind.ACK:
                self.receive_update(replica, node_id, frame)
            case Kind.COMMIT:
                if replica.active is not None or replica.dropped:
                    return
                if frame.c > replica.log.seq and replica.complete:
                    self._drop_unless_joining(replica)
                elif frame.c > replica.log.committed_seq:
                    replica.commit(frame.c)
            case Kind.JOIN:
                self._on_join(replica, node_id, parse_join(frame))
            case Kind.CHUNK:
                if node_id != self._source_of(replica):
                    return
                chunk = parse_chunk(frame)
                if replica.active is None and not self.memory.has_room_for(chunk, len(frame.body)):
                    self._put_join_off(replica)
                else:
                    take_chunk(replica, chunk, node_id)
            case Kind.CHUNK_ACK:
                if node_id in replica.sources:
                    replica.sources[node_id].on_chunk_ack(frame.c)
            case Kind.JOINED:
                if node_id == self._source_of(replica):
                    self._on_joined(replica, frame.c)

    def receive_update(self, replica: Replica, node_id: str, frame: Frame) -> None:
        """Handle REPLICATE or ACK, of this epoch. Raises: FrameError."""
        active = replica.active
        if frame.kind == _REPLICATE:
            if replica.dropped or (active is not None and node_id != active.fetching_from):
                return
            if not replica.stage(node_id, frame.c, frame.body):
                self._drop_unless_joining(replica)
        elif frame.body:
            term, heard_seq = parse_report(frame.body)
            self._on_report(replica, node_id, term, frame.c, heard_seq)
        elif active is not None:
            if active.ready:
                active.on_ack(node_id, frame.c)
            else:
                self._on_ack(active, node_id, frame.c)

    def _source_of(self, replica: Replica) -> str:
        return replica.active.fetching_from if replica.active is not None else replica.joining_from

    def _keep_early(self, node_id: str, frame: Frame) -> None:
        """Keep a frame that overtook the directory operation that creates its checkpoint."""
        if frame.kind not in (Kind.REPLICATE, Kind.COMMIT, Kind.ACK, Kind.JOIN):
            return
        if self.early_frames < EARLY_FRAMES_MAX and self.directory.may_come(frame.a):
            self.early_frames += 1
            self.early.setdefault(frame.a, []).append((node_id, frame))

    def _take_early(self, creation_id: int) -> None:
        for node_id, frame in self.early.pop(creation_id, []):
            self.early_frames -= 1
            try:
                self.receive(node_id, frame)
            except FrameError as error:  # Close the sender's link, and not the one that CREATE came by.
                close_peer(self.context, node_id, frame, error)

    def _on_ack(self, active: ActiveReplica, node_id: str, seq: int) -> None:
        was_ready = active.ready
        active.on_ack(node_id, seq)
        if not was_ready:
            self.after_progress(active.replica)

    def _on_report(self, replica: Replica, node_id: str, term: int, seq: int, heard_seq: int) -> None:
        """Take a report: what a replica holds, and that it takes updates from no other node in this term.

        An acknowledgement alone does not say the latter. One was in flight while a node gave the active role
        up and took it again, and let that node serve at the same time as another (seed 33).
        """
        replica.reports[node_id] = (term, seq, heard_seq)
        replica.waiting_joins.pop(node_id, None)  # A JOIN from before this report is obsolete (seed 30895).
        if replica.active is not None and replica.active.term == term:
            was_ready = replica.active.ready
            replica.active.on_report(node_id, seq)
            if not was_ready:
                self.after_progress(replica)

    def after_progress(self, replica: Replica) -> None:
        """Propose an active replica that has caught up as in sync; once it is ready, serve what waits."""
        active = replica.active
        if active is None or not active.ready:
            if active is not None and active.caught_up:
                self._count_active(replica)
            return
        for node_id, join in list(replica.waiting_joins.items()):
            del replica.waiting_joins[node_id]
            self._start_source(replica, node_id, join)
        self.again([])

    def _count_active(self, replica: Replica) -> None:
        """Propose an active replica as in sync: it has caught up, so it holds everything.

        It may have left the in-sync set before it was made active, and learn of that only now.
        """
        if not self.directory.checkpoints[replica.creation_id].replicas.get(self.context.node_id):
            self._ask(Do.IN_SYNC, replica.creation_id)

    def _on_join(self, replica: Replica, node_id: str, join: tuple[int, int, bool]) -> None:
        entry = self.directory.checkpoints.get(replica.creation_id)
        if entry is None or node_id not in entry.replicas:
            replica.waiting_joins[node_id] = join
        elif (replica.active is not None and replica.active.ready) or (
            replica.active is None and entry.active == node_id and replica.complete
        ):
            self._start_source(replica, node_id, join)
        else:
            replica.waiting_joins[node_id] = join

    def _start_source(self, replica: Replica, node_id: str, join: tuple[int, int, bool]) -> None:
        entry = self.directory.checkpoints[replica.creation_id]
        if replica.active is not None:
            if entry.replicas.get(node_id):
                # It joins because it left the in-sync set, but the directory here does not show that yet.
                replica.waiting_joins[node_id] = join
                return
            replica.active.forget_joiner(node_id)
        replica.sources[node_id] = JoinSource(replica, node_id)
        replica.sources[node_id].start(*join)

    def _on_joined(self, replica: Replica, done_seq: int) -> None:
        if replica.log.seq < done_seq:
            return  # It ends a join that this replica has started again since.
        take_joined(replica)
        if replica.active is not None:
            replica.active.fetching_from = ""
            replica.active.advance_start()
            self.after_progress(replica)
        else:
            self._ask(Do.IN_SYNC, replica.creation_id)

    def _drop_unless_joining(self, replica: Replica) -> None:
        """Handle an update or commit that lies beyond this replica's end, or an update that it refused.

        If a join is under way, ignore it: it was sent before the answer to the JOIN, which follows in order.
        A second join next to the first would be asked to keep sections that the first has replaced.
        """
        entry = self.directory.checkpoints.get(replica.creation_id)
        in_sync = entry is not None and entry.replicas.get(self.context.node_id)
        if in_sync or replica.diverged:
            self._drop(replica)

    def _drop(self, replica: Replica) -> None:
        """Have a replica that cannot follow propose to leave the in-sync set, and then join again.

        One that only lags behind keeps its content until the join replaces it: if the replicas that were
        ahead die before that, it is all that is left.
        """
        self.context.log(
            f"checkpoint {replica.creation_id:x}: this node's copy cannot follow, it is rebuilt", "warning"
        )
        if replica.diverged:
            quarantine(replica)
            replica.drop()
        replica.dropped = True
        entry = self.directory.checkpoints.get(replica.creation_id)
        if entry is not None and entry.replicas.get(self.context.node_id):
            self._ask(Do.OUT, replica.creation_id)
        else:
            self.asks.pop(replica.creation_id, None)
            replica.joining_from = ""
            if entry is not None:
                self._follow(entry)

    def _ask(self, number: int, creation_id: int) -> None:
        self.asks[creation_id] = number
        if number == Do.OUT:
            self.held[creation_id].joining_from = ""
        self.ask([number, creation_id, self.context.node_id])

    def ask_again(self) -> None:
        """Repeat proposals that may have been lost with a broken link."""
        if self.asks and self.context.now_ns >= self.ask_again_ns:
            self.ask_again_ns = self.context.now_ns + ASK_AGAIN_NS
            for creation_id, number in list(self.asks.items()):
                self.ask([number, creation_id, self.context.node_id])

    # -- links

    def on_peer_lost(self, node_id: str) -> None:
        """Forget what was under way to or from that node: it may not have arrived."""
        for replica in self.held.values():
            self.context.cause = replica
            replica.sources.pop(node_id, None)
            replica.waiting_joins.pop(node_id, None)
            replica.reports.pop(node_id, None)
            active = replica.active
            if replica.joining_from == node_id:
                replica.joining_from = ""
            if active is not None:
                if active.fetching_from == node_id:
                    active.fetching_from = ""
                if node_id not in active.required:
                    active.forget_joiner(node_id)

    def on_peer_connected(self, node_id: str) -> None:
        """Send that node again what it may lack, and report to it what we hold."""
        for replica in list(self.held.values()):
            entry = self.directory.checkpoints.get(replica.creation_id)
            if entry is None:
                continue
            self.context.cause = replica
            active = replica.active
            if active is not None:
                if node_id in active.required and node_id not in active.unreported:
                    active.resend(node_id)
                active.advance_start()
            elif entry.active == node_id and self.context.node_id in entry.replicas:
                # What was sent on the last link, or while there was none, may be lost.
                replica.joining_from = ""
                self._follow_active(replica, entry, bool(entry.replicas[self.context.node_id]))

    # -- memory

    def is_full(self) -> bool:
        """Return True if this node's replicas have reached the memory limit."""
        return self.memory.is_full(self.held.values())

    def _put_join_off(self, replica: Replica) -> None:
        """Put off a join for which there is no memory: free what it took, and try again later."""
        name = replica.name.decode(errors="replace")
        self.context.log(f"checkpoint {name!r}: there is no memory for a copy here", "warning")
        self.context.count("joins_without_memory")
        replica.fall_back()
        if replica.of_past:
            quarantine(replica)
        replica.drop()
        replica.joining_from = ""
        self.memory.count_again_ns = 0
        self.put_off[replica.creation_id] = self.context.now_ns + JOIN_AGAIN_NS

    def join_again(self) -> None:
        """Start again the joins that found no memory, once they are due and there is some."""
        for creation_id, at_ns in list(self.put_off.items()):
            entry = self.directory.checkpoints.get(creation_id)
            if entry is None or creation_id not in self.held:
                del self.put_off[creation_id]
            elif at_ns <= self.context.now_ns and not self.is_full():
                del self.put_off[creation_id]
                self._follow(entry)

    # -- timers

    def note_lag(self, lag_ns: int) -> None:
        """This process was paused: acknowledgements that it did not read in that time are not overdue."""
        for active in self.watched.values():
            active.progress_ns = min(active.progress_ns + lag_ns, self.context.now_ns)

    def watch(self) -> None:
        """Let every active replica in `watched` do what is due."""
        for creation_id, active in list(self.watched.items()):
            if not active.watch():
                self.watched.pop(creation_id, None)

    def unanswered(self) -> Iterator[Request]:
        """Yield the requests whose updates wait for other replicas."""
        for active in self.watched.values():
            for update in active.replica.log.pending:
                if update.asked is not None:
                    yield update.asked

    def laggards(self) -> list[str]:
        """Return the nodes whose acknowledgements are overdue."""
        late: dict[str, None] = {}
        for active in self.watched.values():
            late.update(dict.fromkeys(active.laggards()))
        return sorted(late)
