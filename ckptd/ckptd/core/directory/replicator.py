"""Replicate the directory: one operation at a time, answered once every member has staged it.

Every member runs this. The coordinator validates requests, puts their operations into one sequence and sends
them. The other members stage each operation and acknowledge it; its commit applies it. Only one operation is
pending at a time, so each is validated against a directory in which nothing is pending (ADR 5).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, cast

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.errors import RequestError
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import DIRECTORY_ID, Kind, answer_error
from ckptd.core.client_request import Request
from ckptd.core.containment import contain_request, refuse_repeat
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.directory.parse_directory import check_staged
from ckptd.core.directory.validation import validate
from ckptd.core.hub import Hub
from ckptd.core.reply_cache import ANSWERS_BYTES_FREE, FORGOTTEN, ErrorReplyCache
from ckptd.core.settings import FeatureLevel
from ckptd.core.stops_by_bugs import number_of
from ckptd.core.view import View
from ckptd.core.work_costs import FRAME_WORK

INTERNAL_OPS_MAX: Final = 16
"""How many internal operations of one kind may wait at a time. Clients' requests wait in the same queue: when
a program with 10,000 sessions had gone, the end of each session was ordered before any client's open."""


_OF_CHECKPOINTS: Final = (
    DirectoryOp.EXPIRE,
    DirectoryOp.RETENTION_SET,
    DirectoryOp.ACTIVE_SET,
    DirectoryOp.IN_SYNC,
    DirectoryOp.OUT_OF_SYNC,
    DirectoryOp.ADD_REPLICA,
    DirectoryOp.LEADER,
    DirectoryOp.RESIZE,
)

_OF_ACTIVE_REPLICAS: Final = (DirectoryOp.LEADER, DirectoryOp.RESIZE)
"""What active replicas propose again and again until the directory has it."""


_WITH_LAST_FIELD: Final = (DirectoryOp.ATTACH, DirectoryOp.END)
"""Operations whose last field is new in `FeatureLevel.TAKEOVER`: an older node does not know them with it."""


@dataclass(slots=True, frozen=True)
class Operation:
    """The operation that is being applied, as this node's last words name it."""

    seq: int
    creation_id: int
    session: int
    request: int
    first: bool
    """This node is the coordinator and has not answered the operation's request yet."""


class DirectoryReplicator:
    """The replicated sequence of directory operations, at one member."""

    def __init__(self, context: Context, directory: Directory, hub: Hub) -> None:
        self.context = context
        self.directory = directory
        self.hub = hub
        self.view: View | None = None
        self.queue: deque[Request | list[Any]] = deque()
        self.in_flight: bytes | None = None
        """The one operation that is staged here and not known to be committed."""
        self.in_flight_kind = 0
        self.waiting_request: Request | None = None
        """At the coordinator: the request that the staged operation answers."""
        self.awaiting_ack: list[str] = []
        """At the coordinator: the members that have not acknowledged the staged operation."""
        self.proposed_ns = 0
        self.error_replies = ErrorReplyCache()

    @property
    def is_coordinator(self) -> bool:
        """True if this node is the coordinator of the installed view."""
        return self.view is not None and self.view.coordinator == self.context.node_id

    def on_installed(self, view: View) -> None:
        """Start in a view that was just installed: it has finished or superseded what was staged."""
        self.view = view
        self.queue.clear()
        self.in_flight = None
        self.waiting_request = None
        self.awaiting_ack = []
        self.error_replies.clear()

    def unanswered(self) -> list[Request]:
        """Return the requests that have not been answered, for the next coordinator."""
        queued = [item for item in self.queue if isinstance(item, Request)]
        if self.waiting_request is not None:
            self.waiting_request.outcome_uncertain = (
                True  # It was staged, so the next coordinator finishes it.
            )
            queued.insert(0, self.waiting_request)
        return queued

    # -- the coordinator's side

    def submit(self, item: Request | list[Any]) -> None:
        """Queue a client's request or an internal operation."""
        if isinstance(item, Request) and len(self.queue) >= self.context.settings.requests_waiting_max:
            text = "too many requests already wait for the coordinator (requests_waiting_max)"
            self.hub.answer(item, answer_error(codes.TRY_AGAIN, text))
            return
        self.queue.append(item)
        self.advance()

    def withdraw(self, session: int, number: int, scanned_max: int) -> Request | None:
        """Remove a request and its duplicates from the queue; None if it is not there, or may be done."""
        entry = self.directory.sessions.get(session)
        waiting_request = self.waiting_request
        if (
            waiting_request is not None
            and (waiting_request.session, waiting_request.number) == (session, number)
        ) or (entry is not None and number in entry.answers.by_request):
            return None
        found = None
        for item in list(islice(self.queue, scanned_max)):
            if isinstance(item, Request) and (item.session, item.number) == (session, number):
                if item.in_doubt:
                    return None
                self.queue.remove(item)
                found = item
        return found

    def pop_late(self, late_ns: int, scanned_max: int) -> list[Request]:
        """Remove from the queue the requests that came before `late_ns` and were not done, with duplicates.

        This scans the queue once. To search for each of 1,000 requests separately took 100 ms, at every
        heartbeat.
        """
        if not self.queue:
            return []
        scanned = [self.queue.popleft() for _ in range(min(scanned_max, len(self.queue)))]
        requests = [item for item in scanned if isinstance(item, Request)]
        late = {(item.session, item.number): item for item in requests if item.received_ns <= late_ns}
        for item in requests:
            if item.in_doubt:
                late.pop((item.session, item.number), None)
        if self.waiting_request is not None:
            late.pop((self.waiting_request.session, self.waiting_request.number), None)
        sessions = self.directory.sessions
        for session, number in list(late):
            entry = sessions.get(session)
            if entry is not None and number in entry.answers.by_request:
                del late[session, number]
        on_time = [
            item
            for item in scanned
            if not (isinstance(item, Request) and (item.session, item.number) in late)
        ]
        self.queue.extendleft(reversed(on_time))
        return list(late.values())

    @property
    def turn_due(self) -> bool:
        """True if an item that waits can be ordered now: only the end of the last turn has stopped it."""
        return bool(self.queue) and self.in_flight is None and self.is_coordinator and self.context.serving()

    def count_internal(self, *kinds: int) -> int:
        """Count the operations of these kinds: the internal ones that wait here, and the staged one."""
        waiting = sum(type(item) is list and item[0] in kinds for item in self.queue)
        return waiting + (self.in_flight is not None and self.in_flight_kind in kinds)

    def waiting(self) -> Iterator[Request]:
        """Yield the requests that are neither done nor refused."""
        if self.waiting_request is not None:
            yield self.waiting_request
        for item in self.queue:
            if isinstance(item, Request):
                yield item

    def advance(self) -> None:
        """Order what waits, while nothing is pending, and no more than a turn allows.

        (A refused request leaves nothing pending: 25,000 that waited for one member were once refused in a
        single event.)
        """
        context = self.context
        while self.turn_due and context.work < 2 * context.settings.work_per_turn:
            context.work += FRAME_WORK
            item = self.queue.popleft()
            if isinstance(item, Request):
                self._replicate_request(item)
            elif item[0] in _OF_ACTIVE_REPLICAS and not self.directory.would_change(item):
                continue  # It was asked for more than once.
            elif not self.context.stops.known or (0, number_of(item)) not in self.context.stops.requests:
                self._replicate(item, 0, 0, 0, b"", None)
            else:
                self.context.count("repeats_refused")

    def _replicate_request(self, request: Request) -> None:
        assert self.view is not None
        directory = self.directory
        session = directory.sessions.get(request.session)
        if session is not None and request.kind != Kind.ATTACH:
            answers = session.answers
            directory.trim_answers(session, request.first_unanswered)
            known = answers.by_request.get(request.number)
            if known is not None:
                self.hub.answer(request, known[1])
                return
            if request.number < answers.first_unanswered:
                self.hub.answer(request, FORGOTTEN)
                return
            excess = answers.excess or self._lacks_capacity_for_answer(request, answers.bytes)
            if excess:
                self.hub.answer(request, answer_error(codes.NO_RESOURCES, excess))
                return
        number = 0 if request.kind == Kind.ATTACH else request.number
        stop = self.context.stops.requests.get((request.session, number))
        if stop is not None:
            self.hub.answer(request, refuse_repeat(self.context, stop))
            return
        refused = self.error_replies.find(request.session, request.number, request.first_unanswered)
        if refused is not None and request.kind != Kind.ATTACH:
            self.hub.answer(request, refused[1])
            return
        origin = self.context.node_id if isinstance(request.origin, int) else request.origin
        try:
            op, answer = validate(
                directory,
                self.view,
                self.context.settings,
                origin,
                request,
                self.context.full_nodes,
                self.context.stops.bars_replica,
            )
        except RequestError as refusal:
            error = answer_error(refusal.code, refusal.text, refusal.index)
            if session is not None and refusal.code != codes.TRY_AGAIN and request.kind != Kind.ATTACH:
                self.error_replies.record(
                    request.session, request.number, request.first_unanswered, directory.seq, error
                )
            self.hub.answer(request, error)
            return
        except Exception as error:  # Validation changes nothing.
            self.hub.answer(request, contain_request(self.context, request, error))
            return
        if op and op[0] == DirectoryOp.ADD_REPLICA:
            self._replicate(op, 0, 0, 0, answer, request)  # No answer to remember: nothing was opened.
        elif op:
            if op[0] in _WITH_LAST_FIELD and self.context.feature_level < FeatureLevel.TAKEOVER:
                op = op[:-1]  # As an older node knows it.
            if op[0] == DirectoryOp.CREATE:
                op = [*op, self.context.wall_ns]
            self._replicate(op, request.session, request.number, request.first_unanswered, answer, request)
        else:
            self.hub.answer(request, answer)

    def _lacks_capacity_for_answer(self, request: Request, answers_bytes: int) -> str:
        """Return why no more answers are kept: the directory is full, and this session has many. Else ""."""
        limit = self.context.settings.directory_bytes_max
        full = self.directory.resident_bytes >= limit and answers_bytes >= ANSWERS_BYTES_FREE
        if not full or request.kind == Kind.DETACH:
            return ""
        return (
            f"the directory is full (directory_bytes_max, {limit}), and this session has not "
            "acknowledged its answers"
        )

    def _replicate(
        self,
        op: list[Any],
        session: int,
        number: int,
        first_unanswered: int,
        answer: bytes,
        waiting_request: Request | None,
    ) -> None:
        assert self.view is not None
        self.in_flight_kind = op[0]
        self.in_flight = pack_body([op, session, number, first_unanswered, answer])
        self.waiting_request = waiting_request
        self.proposed_ns = self.context.now_ns
        self.awaiting_ack = [node_id for node_id in self.view.members if node_id != self.context.node_id]
        for node_id in self.awaiting_ack:
            self._send_staged(node_id)
        self._commit_if_acknowledged()

    def _send_staged(self, node_id: str) -> None:
        if self.in_flight is not None:
            seq = self.directory.seq + 1
            frame = encode_frame(Kind.REPLICATE, DIRECTORY_ID, self.context.epoch, seq, self.in_flight)
            self.context.send_peer(node_id, frame)

    def on_ack(self, node_id: str, seq: int) -> None:
        if self.is_coordinator and seq == self.directory.seq + 1 and node_id in self.awaiting_ack:
            self.awaiting_ack.remove(node_id)
            self._commit_if_acknowledged()
            self.advance()

    def _commit_if_acknowledged(self) -> None:
        if self.in_flight is None or self.awaiting_ack or self.view is None:
            return
        waiting_request, self.waiting_request = self.waiting_request, None
        answer = self.commit_in_flight(first=True)
        frame = encode_frame(Kind.COMMIT, DIRECTORY_ID, self.context.epoch, self.directory.seq)
        for node_id in self.view.members:
            if node_id != self.context.node_id:
                self.context.send_peer(node_id, frame)
        if waiting_request is not None:
            self.hub.answer(waiting_request, answer)

    def on_peer_connected(self, node_id: str) -> None:
        """Send again what may have been lost with the last link."""
        if self.is_coordinator and self.view is not None and node_id in self.view.members:
            frame = encode_frame(Kind.COMMIT, DIRECTORY_ID, self.context.epoch, self.directory.seq)
            self.context.send_peer(node_id, frame)
            if node_id in self.awaiting_ack:
                self._send_staged(node_id)

    def stalled_members(self) -> list[str]:
        """Return the members that have not acknowledged the pending operation within `replica_timeout_ns`."""
        if self.in_flight is None or not self.is_coordinator:
            return []
        late = self.context.now_ns - self.proposed_ns >= self.context.settings.replica_timeout_ns
        return list(self.awaiting_ack) if late else []

    # -- every member's side

    def stage(self, sender: str, seq: int, body: bytes) -> None:
        """Stage the coordinator's next operation. Its arrival shows that the previous one is committed."""
        if seq == self.directory.seq + 2 and self.in_flight is not None:
            self.commit_in_flight()
        if seq == self.directory.seq + 1:
            self.in_flight = check_staged(body)
        if seq <= self.directory.seq + 1:
            self.context.acks[sender, DIRECTORY_ID] = seq

    def on_commit(self, seq: int) -> None:
        if seq == self.directory.seq + 1 and self.in_flight is not None:
            self.commit_in_flight()

    def in_flight_operation(self, first: bool) -> Operation:
        """Return the staged operation as this node's last words name it."""
        assert self.in_flight is not None
        op, session, number = unpack_body(self.in_flight)[:3]
        creation_id = op[1] if op[0] in _OF_CHECKPOINTS else 0
        seq = self.directory.seq + 1
        if op[0] == DirectoryOp.ATTACH:
            number = 0
        return Operation(seq, creation_id, session, number if session else number_of(op), first)

    def commit_in_flight(self, first: bool = False) -> bytes:
        """Apply the staged operation and return its answer. `first`: see `Operation`."""
        assert self.in_flight is not None
        op, session, number, first_unanswered, answer = unpack_body(self.in_flight)[:5]
        before, self.context.cause = self.context.cause, self.in_flight_operation(first)
        self.in_flight = None
        directory = self.directory
        directory.apply(op, directory.seq + 1, self.context.now_ns)
        if directory.ended:
            self.error_replies.forget(directory.ended[-1])
        entry = directory.sessions.get(session)
        if entry is not None and number:
            directory.trim_answers(entry, first_unanswered)
            directory.record_reply(entry, number, answer)
        self.hub.on_directory_applied()
        self.context.cause = before
        return cast(bytes, answer)
