"""The core of a witness: a node that votes on views and holds no data.

It is a third voter for two data nodes, so that they can use the arbiter `majority`. It is never a member of
a view, serves no client, and knows nothing of checkpoints.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind, Verb, answer_error, answer_ok, encode_answer
from ckpt_protocol.parse_requests import parse_describe, parse_nothing, parse_operate
from ckptd.core.arbiter.paxos import PaxosArbiter
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.containment import close_client, close_peer, contain_client, drop_heartbeat
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.events import (
    ClientReceived,
    Effect,
    Event,
    HeartbeatReceived,
    Leave,
    LeaveAsked,
    Outranked,
    PeerConnected,
    PeerLost,
    PeerReceived,
    PeerRefused,
    PeerTrouble,
    Persisted,
    PersistFailed,
    TimeCame,
)
from ckptd.core.hub import NO_TRANSPORT, Positions, Transport, VoterHub
from ckptd.core.liveness.incarnations import Incarnations
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.next_members import NextMembers
from ckptd.core.membership.outlived_view import OutlivedView
from ckptd.core.operations.status import describe_cluster
from ckptd.core.parse_views import parse_decided
from ckptd.core.settings import Settings
from ckptd.core.view import View

VOTES: Final = (Kind.PREPARE, Kind.ACCEPT)

_DRAINED: Final = answer_ok("a witness has nothing to hand over")


class Witness(VoterHub):
    """The core of `ckptd --witness`; `handle` and `deadline_ns` are those of a `Node`."""

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
        self.liveness = Liveness(context, self)
        self.heartbeats = self.liveness.heartbeats
        self.store = RecordStore(context, record)
        self.arbiter = PaxosArbiter(context, self.store, self, self.liveness)
        self.next_members = NextMembers(context, self.liveness)
        self.liveness.own.amnesiac = self.store.amnesiac
        self.incarnations = Incarnations(context, self.liveness, self)
        self.outlived = OutlivedView(context, self.liveness, self.store, self.incarnations, True)
        self.decided: View | None = None

    @property
    def deadline_ns(self) -> int:
        return self.context.deadline_ns

    def serving(self, now_ns: int) -> bool:
        """Return False: a witness never serves."""
        return False

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        """Take one event; return the effects to carry out, in order."""
        context = self.context
        context.now_ns = now_ns
        effects: list[Effect] = []
        context.effects = effects
        match event:
            case TimeCame():
                self._on_time()
            case HeartbeatReceived(frame, authentic):
                self._on_heartbeat(frame, authentic)
            case PeerReceived(node_id, frames):
                self._on_frames(node_id, frames)
            case PeerConnected(node_id, incarnation, urls):
                self.incarnations.on_connected(node_id, incarnation, urls)
            case PeerLost(node_id):
                self.incarnations.on_lost(node_id)
            case PeerTrouble():
                self.incarnations.on_trouble(event)
            case Outranked(node_id, incarnation):
                self.incarnations.on_outranked(node_id, incarnation)
            case PeerRefused(node_id):
                self.liveness.deaths.on_connection_refused(node_id)
            case ClientReceived(link, frames):
                self._on_client(link, frames)
            case Persisted(number):
                self.store.on_persisted(number)
                self.liveness.own.disk_failing = False
            case PersistFailed(_, text):
                self.store.on_failed(text)
                self.liveness.own.disk_failing = True
            case LeaveAsked():
                self._leave()
            case _:
                pass  # Clients come and go, and the wall clock is read: a witness does nothing about it.
        return effects

    def last_words(self, now_ns: int) -> list[Effect]:
        """Return no effects: a witness carries out no requests, so it has nothing to warn others of."""
        return []

    def _on_time(self) -> None:
        context, heartbeats = self.context, self.heartbeats
        context.deadline_ns = NEVER_NS
        if context.now_ns >= heartbeats.next_ns:
            self.store.on_time()
            heartbeats.next_ns = context.now_ns + context.settings.heartbeat_ns
            heartbeats.send_all()
            self.incarnations.update()
            self.outlived.update()
        context.wake_at(heartbeats.next_ns)

    def _on_heartbeat(self, frame: Frame, authentic: bool) -> None:
        try:
            peer = self.heartbeats.receive(frame, authentic)
        except FrameError as error:
            drop_heartbeat(self.context, frame, error)
            return
        decided = self.decided
        if peer is not None and decided is not None and peer.decided_epoch < decided.epoch:
            # Nobody else may know a view that an operator forced, and a node that hears of it waits for it.
            body = pack_body([decided.fields()])
            self.context.send_peer(peer.node_id, encode_frame(Kind.DECIDED, 0, decided.epoch, 0, body))

    def _leave(self) -> None:
        self.liveness.own.leaving = self.liveness.own.left = True
        self.heartbeats.send_all()
        self.context.effects.append(Leave())

    @property
    def turn_due(self) -> bool:
        """Return False: a witness never has work left."""
        return False

    # -- what the parts ask of their node (see `VoterHub`)

    def known_views(self) -> tuple[View | None, ...]:
        return self.decided, self.store.record.view

    def on_decided(self, view: View) -> None:
        raise AssertionError("a witness does not propose views")

    def on_superseded(self) -> None:
        """Keep nothing: a witness holds no data."""

    def unreplicated_positions(self, node_id: str) -> Positions:
        return []

    def on_positions_advertised(self, positions: Positions) -> None:
        """Take no notice: a witness never becomes active."""

    # -- votes

    def _on_frames(self, node_id: str, frames: list[Frame]) -> None:
        try:
            for frame in frames:
                if frame.kind in VOTES:
                    self.arbiter.receive(node_id, frame)
                elif frame.kind == Kind.NODES:
                    self.incarnations.on_nodes(node_id, frame)
                elif frame.kind == Kind.DECIDED:
                    self._adopt_decided(parse_decided(frame.body))
                elif frame.kind == Kind.STOP:
                    self._leave()
        except FrameError as error:
            close_peer(self.context, node_id, frame, error)

    def _adopt_decided(self, view: View) -> None:
        if self.decided is not None and view.epoch <= self.decided.epoch:
            return
        self.decided = view
        self.liveness.own.decided_epoch = view.epoch
        self.context.epoch = view.epoch
        self.context.feature_level = view.feature_level
        self.arbiter.on_decided_elsewhere(view)
        self.context.log(f"view {view.epoch} is decided: {', '.join(view.members)}")

    # -- clients

    def _on_client(self, link: int, frames: list[Frame]) -> None:
        for frame in frames:
            try:
                body = self._answer(frame)
            except RequestError as refusal:
                body = answer_error(refusal.code, refusal.text)
            except FrameError as error:
                self.context.effects.append(close_client(link, frame, error))
                return
            except Exception as error:  # An answer changes nothing.
                contain_client(self.context, link, frame, error)
                return
            self.context.send_client(link, encode_answer(frame.a, self.context.epoch, 0, body))
            if body is _DRAINED:
                self._leave()

    def _answer(self, frame: Frame) -> bytes:
        match frame.kind:
            case Kind.PING:
                parse_nothing(frame.kind, frame.body)
                return answer_ok()
            case Kind.DESCRIBE:
                return self._describe(parse_describe(frame.body).what)
            case Kind.OPERATE if parse_operate(frame.body).verb == Verb.DRAIN:
                return _DRAINED
            case Kind.OPERATE if parse_operate(frame.body).verb == Verb.STOP:
                return answer_error(
                    codes.BAD_OPERATION,
                    "a witness cannot stop the cluster: send this command to a node with data",
                )
            case _:
                text = f"node {self.context.node_id} is a witness: it votes, and holds no data"
                return answer_error(codes.UNAVAILABLE, text)

    def _describe(self, what: str) -> bytes:
        if what == "checkpoints":
            return answer_ok([])
        waiting_for = self.incarnations.explain_wait("nothing: it is a witness")
        return answer_ok(
            describe_cluster(
                self.context,
                self.liveness,
                self.decided,
                waiting_for,
                self.context.alarms,
                {},
            )
        )
