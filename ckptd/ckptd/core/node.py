"""One node: events in, effects out. It only dispatches; every rule is in the module that it calls."""

from collections.abc import Iterable
from typing import Any, assert_never

from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame
from ckpt_protocol.parse_requests import Describe, Operate
from ckptd.core.arbiter.etcd import EtcdArbiter
from ckptd.core.arbiter.make_arbiter import make_arbiter
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.client_request import Request
from ckptd.core.containment import drop_heartbeat
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.events import (
    ClientCongested,
    ClientConnected,
    ClientDrained,
    ClientLost,
    ClientReceived,
    CloseClient,
    ClosePeer,
    Effect,
    Event,
    FenceEnded,
    HeartbeatReceived,
    LeaveAsked,
    Outranked,
    PeerConnected,
    PeerLost,
    PeerReceived,
    PeerRefused,
    PeerTrouble,
    Persisted,
    PersistFailed,
    RegisterAnswered,
    RegisterFailed,
    TimeCame,
    TurnCame,
    WallClockRead,
)
from ckptd.core.hub import NO_TRANSPORT, Hub, Limits, Positions, Transport
from ckptd.core.liveness.half_open_links import is_half_open
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.housekeeping import Housekeeping
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.operations.alarms import Alarms
from ckptd.core.operations.graceful_leave import GracefulLeave, LeaveState
from ckptd.core.operations.last_words import LastWords
from ckptd.core.operations.operator_commands import OperatorCommands
from ckptd.core.operations.resource_usage import limits_of
from ckptd.core.operations.status import describe_checkpoints, describe_cluster
from ckptd.core.peer_frames import PeerFrames
from ckptd.core.replication.data_loss import note_advertised_positions
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.replication.replica import Replica
from ckptd.core.replication.resync import quarantine_all
from ckptd.core.requests.router import RequestRouter
from ckptd.core.requests.sessions import Sessions
from ckptd.core.requests.turn_budget import Turns
from ckptd.core.settings import Settings
from ckptd.core.view import View


class Node(Hub):
    """The core of one `ckptd`.

    `handle(event, now_ns)` returns the effects to carry out, in order; `deadline_ns` is when it next wants
    `TimeCame`. `record` is what the last `Persist` wrote (b"": nothing yet). `wall_offset_ns` is how far
    the wall clock (ns since 1970) is ahead of `now_ns`. `transport` is what the runtime can be asked.
    """

    def __init__(
        self,
        settings: Settings,
        incarnation: int,
        record: bytes,
        now_ns: int,
        wall_offset_ns: int,
        transport: Transport = NO_TRANSPORT,
    ) -> None:
        self.settings = settings
        self.context = context = Context(settings, incarnation, now_ns, wall_offset_ns, transport)
        self.liveness = liveness = Liveness(context, self)
        self.heartbeats = liveness.heartbeats
        self.store = RecordStore(context, record)
        self.arbiter = make_arbiter(context, self.store, self, liveness)
        self.replicator = replicator = DirectoryReplicator(context, Directory(), self)
        self.reconfiguration = reconfiguration = Reconfiguration(
            context, liveness, self.arbiter, replicator, self
        )
        self._replicas = replicas = LocalReplicas(context, self)
        self.turns = Turns(context, self)
        self.requests = requests = RequestRouter(context, self, replicator, replicas, self.turns)
        self.sessions = Sessions(context, self, replicator, requests)
        self.housekeeping = Housekeeping(context, replicator, liveness)
        self.alarms = Alarms(context)
        self.graceful_leave = GracefulLeave(context, liveness, reconfiguration, replicas, requests, self)
        self.operator_commands = OperatorCommands(context, liveness, reconfiguration, self)
        self.stop_reports = reports = LastWords(context, liveness, self.store, replicator, replicas, requests)
        self.peer_frames = PeerFrames(
            context, self, reconfiguration, replicator, replicas, requests, self.housekeeping, reports
        )
        self.next_ns = now_ns
        self.was_serving = False

    # -- looked at by the runtime, the simulator and the invariants

    @property
    def deadline_ns(self) -> int:
        return self.context.deadline_ns

    @property
    def turn_due(self) -> bool:
        """Return True if work is left: `TurnCame` is due once other events had their turn."""
        return bool(self.turns.round) or (bool(self.replicator.queue) and self.replicator.turn_due)

    @property
    def view(self) -> View | None:
        return self.reconfiguration.view

    @property
    def directory(self) -> Directory:
        return self.replicator.directory

    @property
    def replicas(self) -> dict[int, Replica]:
        return self._replicas.by_id

    def serving(self, now_ns: int) -> bool:
        """Return True if this node may order updates and serve reads at that time."""
        return now_ns < self.context.lease_until_ns and not self.context.sealed

    def active_for(self, creation_id: int, now_ns: int) -> bool:
        """Return True if this node would order an update of the checkpoint at that time."""
        replica = self._replicas.by_id.get(creation_id)
        return (
            self.serving(now_ns)
            and replica is not None
            and replica.active is not None
            and replica.active.ready
        )

    # -- events

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        """Take one event; return the effects to carry out, in order."""
        context = self.context
        context.now_ns = now_ns
        effects: list[Effect] = []
        context.effects = effects
        turns = self.turns
        # If nothing waits and the budget is not used up, a single frame is handled at once.
        free = not turns.lanes and context.work < turns.work_max
        context.work_until = context.work + turns.quantum
        kind = type(event)
        if kind is ClientReceived:
            frames = event.frames  # type: ignore[union-attr]
            if free and len(frames) == 1:
                self.sessions.receive(event.link, frames)  # type: ignore[union-attr]
            else:
                turns.on_client_frames(event.link, frames)  # type: ignore[union-attr]
        elif kind is PeerReceived:
            frames = event.frames  # type: ignore[union-attr]
            if free and len(frames) == 1:
                self.peer_frames.receive(event.node_id, frames)  # type: ignore[union-attr]
            else:
                turns.on_peer_frames(event.node_id, frames)  # type: ignore[union-attr]
        elif kind is TurnCame:
            context.work = 0
            self.replicator.advance()
            turns.run_turn()
        else:
            self._handle_other(event)
        if context.newly_visible:
            newly_visible, context.newly_visible = context.newly_visible, {}
            self.requests.change_feed.recheck(newly_visible)
        if context.newly_led:
            newly_led, context.newly_led = context.newly_led, {}
            self.requests.leader_feed.recheck(newly_led)
        if context.acks:
            context.flush_acks()
        if context.closing:
            closing, context.closing = context.closing, {}
            for link in closing:
                self.turns.drop_frames(link)
            effects.extend(CloseClient(link, reason) for link, reason in closing.items())
        context.cause = None  # Otherwise it would keep a body in memory until the next event.
        return effects

    def last_words(self, now_ns: int) -> list[Effect]:
        """Return the last effects to carry out, in order, after `handle` raised: this node ends."""
        self.context.now_ns = now_ns
        return self.stop_reports.last_words()

    def _handle_other(self, event: Event) -> None:
        match event:
            case ClientLost(link) if self.turns.defer_event(link, event):
                return
            case PeerConnected(key) | PeerLost(key) | PeerRefused(key) if self.turns.defer_event(key, event):
                return
        late_ns = self.context.now_ns - self.heartbeats.next_ns
        if late_ns >= self.settings.heartbeat_ns:
            self._on_local_pause(late_ns)
        match event:
            case TimeCame():
                self._on_time()
            case HeartbeatReceived(frame, authentic):
                self._on_heartbeat(frame, authentic)
            case ClientConnected(link, death_seen):
                self.sessions.on_connected(link, death_seen)
            case ClientLost() | PeerConnected() | PeerLost() | PeerRefused():
                self.on_link(event)
            case ClientCongested(link):
                self.turns.on_congested(link)
            case ClientDrained(link):
                self.turns.on_drained(link)
            case PeerTrouble():
                self.reconfiguration.incarnations.on_trouble(event)
            case Outranked(node_id, incarnation):
                self.reconfiguration.incarnations.on_outranked(node_id, incarnation)
            case WallClockRead(offset_ns):
                self.context.wall_offset_ns = offset_ns
            case Persisted(number):
                self.store.on_persisted(number)
                self.liveness.own.disk_failing = self.store.failing
            case PersistFailed(_, text):
                self.store.on_failed(text)
                self.liveness.own.disk_failing = self.store.failing
            case RegisterAnswered(number, swapped, revision, value):
                if isinstance(self.arbiter, EtcdArbiter):
                    self.arbiter.on_answered(number, swapped, revision, value)
            case RegisterFailed(number, text):
                if isinstance(self.arbiter, EtcdArbiter):
                    self.arbiter.on_failed(number, text)
            case FenceEnded(node_id, fenced, text):
                self.reconfiguration.pair_policy.on_fenced(node_id, fenced, text)
                self.reconfiguration.reconfigure_if_needed()
            case LeaveAsked():
                self.leave()
            case ClientReceived() | PeerReceived() | TurnCame():
                raise AssertionError("handled before")
            case _:
                assert_never(event)

    def on_link(self, event: Event) -> None:
        """Handle an event of a link, after all that the link brought before it is done."""
        match event:
            case ClientLost(link, process_dead):
                self.turns.drop_lane(link)
                self.sessions.on_lost(link, process_dead)
            case PeerConnected(node_id, incarnation, urls):
                self._on_peer_connected(node_id, incarnation, urls)
            case PeerLost(node_id):
                if self.reconfiguration.incarnations.on_lost(node_id):
                    self._replicas.on_peer_lost(node_id)
            case PeerRefused(node_id):
                if self.liveness.deaths.on_connection_refused(node_id):
                    if not self.liveness.peers[node_id].left:
                        self.context.log(f"node {node_id} is dead: it refused a connection", "warning")
                    self.reconfiguration.reconfigure_if_needed()

    def _on_local_pause(self, late_ns: int) -> None:
        """Note that this process was paused (its tick is late): no other node was silent because of that."""
        self.heartbeats.next_ns = self.context.now_ns
        self.liveness.detector.on_local_pause(late_ns)
        self.reconfiguration.on_local_pause(late_ns)
        self._replicas.busy.on_local_pause(late_ns)
        self.replicator.proposed_ns += late_ns

    # -- peers

    def _on_peer_connected(self, node_id: str, incarnation: int, urls: tuple[str, ...]) -> None:
        if self.reconfiguration.incarnations.on_connected(node_id, incarnation, urls) is None:
            return
        self.stop_reports.on_peer_connected(node_id)  # Before anything with which it might join.
        self.reconfiguration.view_change.on_peer_connected(node_id)
        self.replicator.on_peer_connected(node_id)
        self._replicas.on_peer_connected(node_id)
        self.requests.on_peer_connected(node_id)
        self.graceful_leave.on_peer_connected(node_id)
        self.reconfiguration.reconfigure_if_needed()

    def _on_heartbeat(self, frame: Frame, authentic: bool) -> None:
        try:
            peer = self.heartbeats.receive(frame, authentic)
        except FrameError as error:
            drop_heartbeat(self.context, frame, error)
            return
        if peer is None:
            return
        self.reconfiguration.on_heartbeat(peer.node_id, peer.epoch, peer.decided_epoch)
        if is_half_open(self.context, peer):
            text = f"node {peer.node_id} has no connection to this node"
            self.context.effects.append(ClosePeer(peer.node_id, text))
        view = self.reconfiguration.view
        if view is not None and not self.context.sealed:
            self.liveness.lease.renew(view)
            if peer.epoch == view.epoch and peer.answered_epoch != view.epoch:
                # The first heartbeat of an epoch is answered at once: that begins the sender's lease.
                peer.answered_epoch = view.epoch
                self.heartbeats.send(peer)
            self._on_serving_changed()
        if peer.leaving and not peer.leaving_noticed:
            # The leaving node relies on members that stay, and has to know that we have heard it.
            self.heartbeats.send(peer)
        if peer.left or peer.leaving != peer.leaving_noticed:
            peer.leaving_noticed = peer.leaving
            self.housekeeping.placement_due = True
            self.reconfiguration.reconfigure_if_needed()

    def _on_serving_changed(self) -> None:
        serving = self.context.serving()
        if serving and not self.was_serving:
            self.alarms.on_serving()
            self._replicas.on_serving()
            self.sessions.on_serving_again()
            self.replicator.advance()
            self.requests.retry_parked()
            self.housekeeping.on_time()
        self.was_serving = serving

    def leave(self) -> None:
        self.graceful_leave.start()
        self.housekeeping.placement_due = True
        self._on_time()

    def stop_all(self) -> None:
        self.graceful_leave.stop_all()
        self.leave()

    # -- what the parts ask of their node (see `Hub`)

    def known_views(self) -> tuple[View | None, ...]:
        return self.reconfiguration.decided, self.store.record.view

    def on_decided(self, view: View) -> None:
        self.reconfiguration.on_decided(view)

    def on_superseded(self) -> None:
        quarantine_all(self._replicas.by_id.values())

    def unreplicated_positions(self, node_id: str) -> Positions:
        return self._replicas.busy.unreplicated_positions(node_id)

    def on_positions_advertised(self, positions: Positions) -> None:
        note_advertised_positions(self._replicas.by_id, self.context.epoch, positions)

    def route(self, request: Request) -> None:
        self.requests.route(request)

    def resume(self, request: Request) -> None:
        self.requests.resume(request)

    def answer(self, request: Request, body: bytes) -> None:
        self.requests.answer(request, body)

    def refuse_waiting(self, request: Request, body: bytes) -> None:
        self.requests.refuse_waiting(request, body)

    def retry_parked(self, unanswered: Iterable[Request] = ()) -> None:
        self.requests.retry_parked(unanswered)

    def retry(self, requests: list[Request]) -> None:
        self.requests.retry(requests)

    def receive_peer(self, node_id: str, frames: Iterable[Frame]) -> bool:
        return self.peer_frames.receive(node_id, frames)

    def receive_client(self, link: int, frames: Iterable[Frame]) -> bool:
        return self.sessions.receive(link, frames)

    def on_attach_answered(self, request: Request, body: bytes) -> bytes:
        return self.sessions.on_attach_answered(request, body)

    def describe_wait(self) -> str:
        return self.reconfiguration.describe_wait()

    def operate(self, link: int, number: int, command: Operate) -> None:
        self.operator_commands.operate(link, number, command)

    @property
    def draining(self) -> bool:
        return self.requests.draining

    def retry_checkpoint(self, name: str) -> str:
        return self.stop_reports.retry(name)

    def on_left(self, text: str) -> None:
        self.operator_commands.answer_drained(text)

    # -- the directory

    def on_installed(self, view: View) -> None:
        self.was_serving = False
        unanswered = self.replicator.unanswered()
        self.replicator.on_installed(view)
        self.next_ns = self.context.now_ns
        self.requests.on_installed(view, unanswered)
        self._replicas.on_installed(view, self.replicator.directory)
        self.stop_reports.prune()  # (Not earlier: replicas that go had to know of the stops.)
        self.sessions.on_installed()
        self.housekeeping.on_installed(view)
        self.alarms.on_installed(self.replicator.directory)
        self.replicator.directory.dirty.clear()
        self.replicator.directory.forget_losses(self._replicas.by_id)
        self.peer_frames.on_installed(view)
        self._on_serving_changed()

    def _limits(self) -> Limits:
        of_epochs = len(self.peer_frames.future_epoch_frames)
        frames_ahead = max(of_epochs, self._replicas.unknown_checkpoints.count)
        return limits_of(self.context, self.requests, frames_ahead)

    def on_directory_applied(self) -> None:
        directory = self.replicator.directory
        changed, attached, ended = list(directory.dirty), directory.attached, directory.ended
        created = directory.created
        directory.dirty, directory.attached, directory.created, directory.ended = {}, [], [], []
        if self.context.sealed:
            return  # A view's installation follows, and checks everything.
        if attached:
            self.sessions.ensure_link_or_grace(attached)
        if created:
            self.sessions.on_created(created)
        self.sessions.on_directory_changed(changed)
        if ended:
            self.sessions.on_ended(ended)
            self._replicas.forget_sessions(ended)
        self._replicas.reconcile(changed)
        self.stop_reports.prune()
        self.housekeeping.retention.on_directory_changed(changed)
        self.alarms.on_changed(directory, changed)
        self.requests.on_directory_changed(changed)
        self.requests.retry_parked()

    def propose(self, operation: list[Any]) -> None:
        self.housekeeping.propose(operation)

    # -- time

    def _on_time(self) -> None:
        context, heartbeats = self.context, self.heartbeats
        now_ns = context.now_ns
        context.deadline_ns = NEVER_NS
        context.work = 0
        view = self.reconfiguration.view
        if view is not None and not context.sealed:
            self.liveness.lease.renew(view)
            self._on_serving_changed()
        self._replicas.busy.run_timers(context)
        if now_ns < heartbeats.next_ns and self.reconfiguration.is_stable:
            # Only a commit notice or a batch was due: the rest follows the heartbeats.
            context.wake_at(min(heartbeats.next_ns, self.next_ns))
            if now_ns < self.next_ns and self.graceful_leave.state is LeaveState.NOT_LEAVING:
                return
        if now_ns >= heartbeats.next_ns:
            self.store.on_time()
            if self._replicas.capacity.find_full_nodes(self.replicas.values(), self.liveness):
                self.housekeeping.placement_due = True
            heartbeats.next_ns = now_ns + context.settings.heartbeat_ns
            stalled = [*self._replicas.busy.stalled_nodes(), *self.replicator.stalled_members()]
            self.reconfiguration.next_members.eviction.update_stall_reports(
                stalled, self.reconfiguration.stalled_members()
            )
            heartbeats.send_all()
            self.reconfiguration.incarnations.update()
            if not self.liveness.own.leaving:
                self.alarms.update(self.replicator.directory, self.describe_wait(), self._limits())
            self.requests.on_time()
        self.reconfiguration.reconfigure_if_needed()
        self.sessions.on_time()
        self.housekeeping.on_time()
        self._replicas.sync_reports.repeat()
        self._replicas.retry_resyncs()
        self.graceful_leave.on_time()
        self._replicas.drop_obsolete()
        self.next_ns = min(self._replicas.obsolete_ns, self.sessions.next_ns(), self.housekeeping.next_ns())
        if self.next_ns <= now_ns:  # It is due but cannot be done now: look again with the next heartbeat.
            self.next_ns = heartbeats.next_ns
        context.wake_at(min(heartbeats.next_ns, self.next_ns))

    # -- describing

    def urls_of(self, node_id: str) -> tuple[str, ...]:
        return self.liveness.urls_of(node_id)

    def describe(self, asked: Describe) -> Any:
        if asked.what == "cluster":
            context, waiting, directory = self.context, self.describe_wait(), self.directory
            alarms, limits = self.alarms.current(directory), self._limits()
            return describe_cluster(context, self.liveness, self.view, waiting, alarms, limits, directory)
        return describe_checkpoints(self.context, self.directory, asked.after)
