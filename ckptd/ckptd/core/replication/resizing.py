"""Resizing: the limits of a checkpoint change, decided by its active replica (ADR 33).

The limits in force are part of the checkpoint's content (`content.resize_state`). The directory has them as
well, for those who open the checkpoint. The directory's are never below those that the replicas accept.

1. The active replica orders an update that says what is wanted. What shrinks is in force from there on.
2. Once every in-sync replica has that, the active replica asks the directory to take what is wanted.
3. Once the directory has that, another update puts in force what grows. Then the request is answered.

The content and the directory have the number of the last resize that they know. So a new active replica sees
how far its predecessor came, and does the rest.
"""

from abc import abstractmethod
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.creation_attributes import attributes_fault
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Op, answer_error, answer_ok
from ckpt_protocol.parse_updates import Ops
from ckptd.core.client_request import Request
from ckptd.core.content.replica_content import EXAMINED_MAX, ReplicaContent
from ckptd.core.content.resize_state import ResizeState
from ckptd.core.content.sections import SectionTable
from ckptd.core.directory.attributes import Limits
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.hub import Hub
from ckptd.core.replication.leader_election import REPEAT_NS, LeaderElection
from ckptd.core.settings import EVERY_NODE_MUST, FeatureLevel
from ckptd.core.work_costs import ELEMENT_WORK, FRAME_WORK, PASSED_SHIFT

_RESIZE: Final = Op.RESIZE
_SHAPES: Final = ([Op.RESIZE], [Op.RESIZE, Op.TOKEN])


class Resizing(LeaderElection):
    """The resizes of one checkpoint, at its active replica: one after the other."""

    __slots__ = ("limits_proposed_ns", "resizes")

    def __init__(self, replica: ReplicaContent, hub: Hub) -> None:
        super().__init__(replica, hub)
        self.resizes: dict[tuple[int, int], tuple[Request, Ops]] = {}
        """By session and number: the requests that have not begun."""
        self.limits_proposed_ns = -REPEAT_NS

    @abstractmethod
    def refuse_update(self, request: Request, refusal: RequestError) -> None:
        """Answer an update that is refused, and remember that."""

    @property
    def table(self) -> SectionTable:
        return self.replica.sections

    @property
    def is_resized(self) -> bool:
        """Return True if the content and the directory have the same limits, and all that was wanted."""
        entry, state = self.entry, self.table.resize_state
        if entry is None or (not state.number and not entry.resize_number):
            return True
        return (entry.resize_number, entry.attributes.limits) == (
            state.number,
            state.wanted,
        ) and state.complete

    @property
    def resizes_settled(self) -> bool:
        """Return True if nothing is left to do."""
        return not self.resizes and self.is_resized

    @property
    def waiting_count(self) -> int:
        return super().waiting_count + len(self.resizes)

    # -- requests

    def is_waiting(self, request: Request) -> bool:
        """Return True if this is a duplicate of a resize that has not begun."""
        return (request.session, request.number) in self.resizes

    def judge(self, request: Request, ops: Ops) -> Ops | None:
        if ops[0][0] != _RESIZE or [op[0] for op in ops] not in _SHAPES:
            return super().judge(request, ops)
        if self.context.feature_level < FeatureLevel.TABLE:
            raise RequestError(codes.NOT_SUPPORTED, f"checkpoints are not resized: {EVERY_NODE_MUST}")
        if self.is_waiting(request) or not self._refuse_if_overloaded(request):
            self.resizes[request.session, request.number] = request, ops
            self.advance_resizes()
        return None

    def withdraw(self, session: int, number: int) -> Request | None:
        if (session, number) not in self.resizes:
            return super().withdraw(session, number)
        return self._pop_resize((session, number))

    def forget_sessions(self, sessions: list[int]) -> None:
        """Refuse the resizes of sessions that have ended: the answers would be remembered for ever."""
        ended = set(sessions)
        for key in [key for key in self.resizes if key[0] in ended]:
            self.answer(self._pop_resize(key), answer_error(codes.BAD_HANDLE, "this session has ended"))

    def _pop_resize(self, key: tuple[int, int]) -> Request:
        """Remove and return a request that has not begun. The search was for the first of them."""
        if key == next(iter(self.resizes)):
            self.table.end_search()
        return self.resizes.pop(key)[0]

    def take_settling(self) -> list[Request]:
        waiting, self.resizes = self.resizes, {}
        self.table.end_search()
        return [*super().take_settling(), *(request for request, _ in waiting.values())]

    # -- steps

    def begin_election(self, entry: CheckpointEntry) -> None:
        super().begin_election(entry)
        self.limits_proposed_ns = -REPEAT_NS

    def on_entry(self, entry: CheckpointEntry) -> None:
        super().on_entry(entry)
        if not self.resizes_settled:
            self.advance_resizes()

    def on_awaited_commit(self) -> None:
        self.advance_resizes()

    def advance_resizes(self) -> None:
        """Do what can be done now of the resize that is under way; then begin the next ones.

        Those that change nothing follow each other at once. So they end with the work of one event, too, as
        do the searches of many checkpoints.
        """
        entry, context = self.entry, self.context
        if entry is None or not self.ready or not context.serving():
            return
        self.arm_timers()
        while self._bring_in_line(entry):
            if self.settling and self.names_as_wanted:
                self._settle()
            if not self.resizes:
                return
            if context.work >= context.settings.work_per_turn:
                context.wake_at(context.now_ns)
                return
            if not self._begin_next():
                return

    def _bring_in_line(self, entry: CheckpointEntry) -> bool:
        """Bring the content and the directory in line. Return False if something has to happen first."""
        state, log = self.table.resize_state, self.replica.log
        if self.is_resized:
            self.awaits_commit = False
            return True
        if log.committed_seq < self.table.limits_before[0]:
            self.awaits_commit = True
            return False
        if entry.resize_number < state.number:
            self._propose_limits(entry, state)
            return False
        if (entry.resize_number, entry.attributes.limits) == (state.number, state.wanted):
            self._change_limits(state.complete_growth(), None, b"")
            self._log_limits(state.wanted)
        else:  # The content lost a resize, with all replicas that had it. What it holds may need its limits.
            wanted = state.in_force.at_least(entry.attributes.limits)
            self._change_limits(ResizeState(entry.resize_number + 1, state.in_force, wanted), None, b"")
        return self._bring_in_line(entry)

    def _propose_limits(self, entry: CheckpointEntry, state: ResizeState) -> None:
        now_ns = self.context.now_ns
        if now_ns >= self.limits_proposed_ns + REPEAT_NS:
            self.limits_proposed_ns = now_ns
            seq = self.activation_seq
            self.propose([DirectoryOp.RESIZE, entry.creation_id, seq, state.number, *state.wanted])
        self.context.wake_at(self.limits_proposed_ns + REPEAT_NS)

    def _settle(self) -> None:
        if self.is_resized:
            super()._settle()

    def _change_limits(self, state: ResizeState, request: Request | None, answer: bytes) -> None:
        """Order the update with these limits; with a request, as its outcome."""
        self.order(Ops([[_RESIZE, *state.fields()]]), request, answer, answers=False)
        self.limits_proposed_ns = -REPEAT_NS
        if request is not None:
            self.settling[request.session, request.number] = request, answer

    def _log_limits(self, limits: Limits) -> None:
        self.context.log(
            f"checkpoint {self.replica.name.decode(errors='replace')!r} is resized: up to "
            f"{limits.sections_max} sections of up to {limits.section_bytes_max} bytes, with ids of up to "
            f"{limits.section_id_bytes_max}"
        )

    # -- the place of a resize in the sequence of updates

    def _begin_next(self) -> bool:
        """Judge the first request that waits. Return False if its turn is not over."""
        key, (request, ops) = next(iter(self.resizes.items()))
        self.context.work += FRAME_WORK
        try:
            if super().judge(request, ops) is None:
                self._pop_resize(key)
                return True
            limits = self._limits_asked(ops[0])
            if not self._is_content_within(limits):
                return False
            self._pop_resize(key)
            self._order_resize(request, limits)
        except RequestError as refusal:
            self._pop_resize(key)
            self.refuse_update(request, refusal)
        return True

    def _order_resize(self, request: Request, limits: Limits) -> None:
        answer = answer_ok(list(limits))
        state = self.table.resize_state
        if limits == state.in_force:
            self.order(Ops([]), request, answer)
            return
        self.context.count("resizes")
        resized = state.resize(limits)
        self._change_limits(resized, request, answer)
        if resized.complete:
            self._log_limits(limits)

    def _limits_asked(self, op: list[Any]) -> Limits:
        """Return the limits that a request wants. Raises: RequestError."""
        now = self.table.resize_state.in_force
        _, *asked, at_least = op
        limits = Limits(*(old if new is None else new for old, new in zip(now, asked, strict=True)))
        fault = attributes_fault(self.replica.attributes.with_limits(limits).fields())
        if fault:
            raise RequestError(codes.INVALID_PARAM, fault)
        if at_least:
            limits = limits.at_least(now)
        if 1 in (now.sections_max, limits.sections_max) and now.sections_max != limits.sections_max:
            text = "maxSections cannot change from 1 or to 1: such a checkpoint has only the default section"
            raise RequestError(codes.INVALID_PARAM, text)
        return limits

    def _is_content_within(self, limits: Limits) -> bool:
        """Return True if the content fits in these limits; False if the search goes on.

        A large checkpoint is searched in portions. Raises: RequestError NO_SPACE, with what does not fit.
        """
        table, context = self.table, self.context
        count = len(table.sections)
        if count > limits.sections_max:
            text = f"there are {count} sections, so maxSections cannot be {limits.sections_max}"
            raise RequestError(codes.NO_SPACE, text)
        now, search = table.resize_state.in_force, table.search
        if search is None or search.limits != limits:
            smaller = limits.section_bytes_max < min(now.section_bytes_max, table.content_bytes)
            if not smaller and limits.section_id_bytes_max >= now.section_id_bytes_max:
                return True
            search = table.begin_search(table.sections, limits)
            context.work += count >> PASSED_SHIFT
        scanned, found = search.scan_some(EXAMINED_MAX)
        context.work += ELEMENT_WORK * scanned
        if found is not None:
            raise RequestError(codes.NO_SPACE, self._what_is_too_large(found, limits))
        if search.complete:
            return True
        context.wake_at(context.now_ns)
        return False

    def _what_is_too_large(self, section_id: bytes, limits: Limits) -> str:
        if len(section_id) > limits.section_id_bytes_max:
            what, size = f"id {section_id[:32]!r}", len(section_id)
            limit = f"maxSectionIdSize cannot be {limits.section_id_bytes_max}"
        else:
            what, size = f"section {section_id[:32]!r}", len(self.table.sections[section_id].content)
            limit = f"maxSectionSize cannot be {limits.section_bytes_max}"
        return f"{what} has {size} bytes, so {limit}"
