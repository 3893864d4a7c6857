"""The fake service as SAF programs use it: their operations, iterations by choice, and tracking."""

import asyncio
import contextlib
import gc
import select
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.client.fake_service import (
    FakeCheckpoint,
    FakeLink,
    FakeNode,
    FakeService,
    FakeSession,
    Misbehaviour,
    Refusal,
)

from ckpt_client import SaAisError
from ckpt_client.io.loop_thread import shared_runner
from ckpt_client.saf import (
    Checkpoint,
    CheckpointCallbacks,
    CheckpointCreationAttributes,
    CheckpointService,
)
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, Op, answer_ok

READ, WRITE, CREATE, ALL_MODES = 1, 2, 4, 7
SYNC, ASYNC = 1, 2
NAME = "safCkpt=x"
DEADLINE_S = 20.0
POLL_S = 0.001
CREATED, OVERWRITTEN, DELETED = 1, 3, 4


def attributes(flags: int = ASYNC, sections: int = 100, size: int = 1000) -> CheckpointCreationAttributes:
    """Return valid creation attributes."""
    return CheckpointCreationAttributes(flags, sections * size, 10**9, sections, size, 20)


def until(predicate: Callable[[], Any], what: str = "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not predicate():
        assert time.monotonic() < deadline, what or "it does not come"
        time.sleep(POLL_S)


@contextlib.contextmanager
def refused(code: int, call: str = "") -> Iterator[pytest.ExceptionInfo[SaAisError]]:
    """Check that the block is refused with a code, and that the error names this call."""
    with pytest.raises(SaAisError) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value!s}, not {SaAisErrorT(code).name}"
    assert caught.value.call == call or not call


class SafService(FakeService):
    """Sections by SAF's operations. `log`: every change, (name, kind, id, size, (session, request))."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[bytes, int, bytes, int, tuple[int, int]]] = []
        self.waiting: list[tuple[FakeLink, Frame]] = []
        self._asked = 0, 0

    def _change(self, node: FakeNode, session_id: int, session: FakeSession, frame: Frame) -> bytes:
        self._asked = session_id, frame.a
        return super()._change(node, session_id, session, frame)

    def _look(self, node: FakeNode, session: FakeSession, frame: Frame) -> bytes:
        if frame.kind != Kind.ITERATE:
            return super()._look(node, session, frame)
        checkpoint = self._with_active(session, frame)
        _, _, after, _, *limit = unpack_body(frame.body)
        count = limit[0] if limit and limit[0] else self.page_sections
        ids = sorted(i for i in checkpoint.sections if after is None or i > after)
        page = [
            [i, checkpoint.sections[i][1], len(checkpoint.sections[i][0]), 1, 5, None] for i in ids[:count]
        ]
        return answer_ok([page, ids[count - 1] if ids[count:] else None])

    def _update(self, checkpoint: FakeCheckpoint, ops: list[Any]) -> None:
        sections = dict(checkpoint.sections)
        for index, op in enumerate(ops):
            held = sections.get(op[1])
            if (held is None) == (op[0] != Op.CREATE):
                raise Refusal(codes.NOT_EXIST if held is None else codes.EXIST, "no", index)
            match op[0]:
                case Op.CREATE:
                    sections[op[1]] = (op[3], op[2])
                    self._note(checkpoint, CREATED, op[1], len(op[3]))
                case Op.OVERWRITE:
                    sections[op[1]] = (op[2], SA_TIME_END)
                    self._note(checkpoint, OVERWRITTEN, op[1], len(op[2]))
                case Op.DELETE:
                    del sections[op[1]]
                    self._note(checkpoint, DELETED, op[1], 0)
                case _:
                    raise Refusal(codes.INVALID_PARAM, "unknown operation", index)
        checkpoint.sections = sections
        checkpoint.applied += 1
        waiting, self.waiting = self.waiting, []
        for link, frame in waiting:
            self.track(link, frame)

    def _note(self, checkpoint: FakeCheckpoint, kind: int, section_id: bytes, size: int) -> None:
        self.log.append((checkpoint.name, kind, section_id, size, self._asked))

    def track(self, link: FakeLink, frame: Frame) -> None:
        """Answer a TRACK, or let it wait."""
        with self.lock:
            session = self.sessions.get(link.session_id)
            if session is None or frame.b not in session.opens:
                link.serve(frame)
                return
            after, name = unpack_body(frame.body)[0], session.opens[frame.b][0].name
            news = list(enumerate(self.log, 1))[after if after is not None else len(self.log) :]
            if not news and after is not None:
                self.waiting.append((link, frame))
                return
            rows = [
                [n, kind, i, 0, size, by[1] if by[0] == link.session_id else 0]
                for n, (of, kind, i, size, by) in news
                if of == name
            ]
            link.answer(frame.a, answer_ok([len(self.log), rows, 0]))


def tracked(also: Misbehaviour | None = None) -> Misbehaviour:
    """Return a `misbehave` for a node that serves TRACK, and calls `also` first."""

    def misbehave(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if also is not None and also(node, link, frame):
            return True
        if frame.kind == Kind.TRACK:
            assert isinstance(node.service, SafService)
            node.service.track(link, frame)
            return True
        return False

    return misbehave


def unanswered(*kinds: int) -> Misbehaviour:
    """Return a `misbehave` that leaves requests of these kinds without an answer."""
    return lambda node, link, frame: frame.kind in kinds


class Heard:
    """Records the calls of callbacks, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.callbacks = CheckpointCallbacks(self._hear, self._hear, self._hear)

    def _hear(self, *told: Any) -> None:
        self.told.append(told)


Initialize = Callable[..., CheckpointService]


@pytest.fixture
def service() -> SafService:
    """A cluster's shared state."""
    return SafService()


@pytest.fixture
def initialize() -> Iterator[Initialize]:
    """`initialize(node, callbacks)`: a service at a fake node, which ends with the test."""
    made: list[CheckpointService] = []

    def at(node: FakeNode, callbacks: CheckpointCallbacks | None = None, **more: Any) -> CheckpointService:
        version = more.pop("version", ("B", 2, 2))
        made.append(CheckpointService.initialize(version, callbacks, address=node.url, **more))
        return made[-1]

    yield at
    for service in made:
        with contextlib.suppress(SaAisError):
            service.finalize()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Check that no task stays on the loop, and that nothing warns."""
    gc.collect()  # What an earlier test left would warn during this one.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        # Since Python 3.12 every fork in a process with threads warns; some tests are about that.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield
        until(lambda: not shared_runner().call(other_tasks), "tasks are left")
    assert [str(warning.message) for warning in warned] == []


def other_tasks() -> list[str]:
    """Return the running loop's tasks, except for the current one."""
    return [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def opened(service: CheckpointService, kind: int = ASYNC, name: str = NAME) -> Checkpoint:
    """Open a checkpoint for reading and writing, and create it."""
    return service.checkpoint_open(name, ALL_MODES, attributes(kind))


def readable(service: CheckpointService) -> bool:
    """Return True if `select` shows that a callback is pending."""
    return bool(select.select([service], [], [], 0)[0])
