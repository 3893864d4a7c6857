"""Threads of one service, calls that are interrupted, and forks."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    ALL_MODES,
    NAME,
    READ,
    Heard,
    Initialize,
    SafService,
    attributes,
    initialize,
    nothing_left,
    opened,
    other_tasks,
    readable,
    refused,
    service,
    tracked,
    unanswered,
    until,
)
from tests.client.test_blocking_connection import forked
from tests.client.test_interruptions import Interrupted, interrupt, on_alarm, signalling

from ckpt_client import SaAisError
from ckpt_client.io.loop_thread import shared_runner
from ckpt_client.saf import CheckpointCallbacks, CheckpointService, DispatchFlags
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error

__all__ = ["initialize", "nothing_left", "service", "start"]

ONE, ALL, BLOCKING = DispatchFlags
pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("nothing_left")]


class Called(threading.Thread):
    """A call in a thread of its own. `code`: how it ended."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.code: int | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
            self.code = codes.OK
        except SaAisError as error:
            self.code = error.code
        except BaseException as error:
            self.error = error

    def end(self) -> int | None:
        """Wait for it."""
        self.join(20)
        assert not self.is_alive(), "it hangs"
        if self.error is not None:
            raise self.error
        return self.code


# -- threads


def try_again(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
    """SYNCHRONIZE is put off."""
    if frame.kind == Kind.SYNCHRONIZE:
        link.answer(frame.a, answer_error(codes.TRY_AGAIN, "later"))
    return frame.kind == Kind.SYNCHRONIZE


@pytest.mark.parametrize("hanging", [unanswered(Kind.SYNCHRONIZE), try_again])
def test_no_thread_waits_for_anothers_answer(hanging: Any, start: Start, initialize: Initialize) -> None:
    node = start()
    library = initialize(node)
    checkpoint = opened(library)
    checkpoint.section_create("k")
    node.misbehave = hanging
    waits = Called(checkpoint.synchronize)
    until(lambda: Kind.SYNCHRONIZE in node.kinds())
    for number in range(50):
        checkpoint.overwrite("k", str(number))
        assert checkpoint.read([("k", None, 0)]) == [b"%d" % number]
    assert waits.is_alive()
    node.misbehave = None
    if hanging is try_again:
        assert waits.end() == codes.OK
    library.finalize()
    assert waits.end() in (codes.OK, codes.TIMEOUT, codes.BAD_HANDLE)


def test_many_threads_share_a_service(start: Start, service: SafService, initialize: Initialize) -> None:
    library = initialize(start())
    checkpoint = opened(library)

    def work(name: str) -> None:
        checkpoint.section_create(name)
        for number in range(50):
            checkpoint.overwrite(name, str(number))
            assert checkpoint.read([(name, None, 0)]) == [b"%d" % number]

    threads = [Called(lambda name=name: work(name)) for name in "abcdefgh"]
    assert [thread.end() for thread in threads] == [codes.OK] * 8
    assert service.checkpoints[NAME.encode()].applied == 8 * 51
    assert service.applied_twice == []


def test_finalize_in_one_thread_ends_every_call_of_the_others(start: Start, initialize: Initialize) -> None:
    node = start()
    library = initialize(node, Heard().callbacks)
    checkpoint = opened(library)
    node.misbehave = unanswered(Kind.SYNCHRONIZE, Kind.READ, Kind.OPEN)
    threads = [
        Called(checkpoint.synchronize),
        Called(lambda: checkpoint.read([("k", 1, 0)])),
        Called(lambda: library.checkpoint_open(NAME, READ)),
        Called(lambda: library.dispatch(BLOCKING)),
    ]
    until(lambda: {Kind.SYNCHRONIZE, Kind.READ, Kind.OPEN} <= set(node.kinds()))
    library.finalize()
    ends = [thread.end() for thread in threads]
    assert ends[0] in (codes.TIMEOUT, codes.BAD_HANDLE), "unknown whether the call was carried out"
    assert ends[1:] == [codes.BAD_HANDLE, ends[2], codes.OK]
    assert ends[2] in (codes.TIMEOUT, codes.BAD_HANDLE)


def test_one_of_many_that_finalize_does_it(start: Start, service: SafService, initialize: Initialize) -> None:
    library = initialize(start())
    opened(library)
    ends = [thread.end() for thread in [Called(library.finalize) for _ in range(6)]]
    assert sorted(ends, key=lambda code: code != codes.OK) == [codes.OK] + [codes.BAD_HANDLE] * 5
    assert service.sessions == {}


def test_blocking_dispatch_calls_back_until_the_service_is_finalized(
    start: Start, initialize: Initialize
) -> None:
    heard: list[tuple[int, int]] = []
    callbacks = CheckpointCallbacks(checkpoint_open=lambda i, *_: heard.append((i, threading.get_ident())))
    library = initialize(start(), callbacks)
    dispatching = [Called(lambda: library.dispatch(BLOCKING)) for _ in range(2)]
    for invocation in range(10):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
        until(lambda count=invocation: len(heard) > count)
    assert {thread for _, thread in heard} <= {thread.ident for thread in dispatching}
    library.finalize()
    assert [thread.end() for thread in dispatching] == [codes.OK] * 2


def test_what_a_callback_raises_ends_blocking_dispatch(start: Start, initialize: Initialize) -> None:
    def tell(*_: Any) -> None:
        raise KeyError("own")

    library = initialize(start(), CheckpointCallbacks(checkpoint_open=tell))
    dispatching = Called(lambda: library.dispatch(BLOCKING))
    library.checkpoint_open_async(1, NAME, ALL_MODES, attributes())
    with pytest.raises(KeyError, match="own"):
        dispatching.end()


def test_checkpoints_are_closed_while_their_callbacks_come(start: Start, initialize: Initialize) -> None:
    """What the loop puts in the very moment of a close is not told."""
    heard = Heard()
    library = initialize(start(), heard.callbacks)
    for turn in range(100):
        checkpoint = opened(library)
        checkpoint.synchronize_async(turn)
        checkpoint.close()
        assert library.pending == 0
    opened(library).synchronize_async(999)
    until(lambda: readable(library))
    library.dispatch(ALL)
    assert [told[0] for told in heard.told] == [999]


# -- interrupts


def test_an_interrupted_call_is_cancelled_and_the_service_stays_sound(
    start: Start, service: SafService, initialize: Initialize
) -> None:
    node = start()
    library = initialize(node, timeout_ns=2_000_000_000)
    checkpoint = opened(library)
    checkpoint.section_create("k")
    with on_alarm(interrupt):
        for kind, call in (
            (Kind.UPDATE, lambda: checkpoint.overwrite("k", "lost")),
            (Kind.READ, lambda: checkpoint.read([("k", 1, 0)])),
            (Kind.STATUS, checkpoint.status_get),
            (Kind.ITERATE, lambda: list(checkpoint.section_iteration())),
            (Kind.SYNCHRONIZE, checkpoint.synchronize),
            (Kind.TRACK, lambda: checkpoint.track(lambda *_: None)),
            (Kind.OPEN, lambda: library.checkpoint_open(NAME, READ)),
        ):
            for _ in range(3):
                node.misbehave = signalling(kind)
                with pytest.raises(Interrupted):
                    call()
                node.misbehave = None
                checkpoint.overwrite("k", "after")
                assert checkpoint.read([("k", None, 0)]) == [b"after"]
    assert service.applied_twice == []
    with refused(codes.NOT_EXIST):
        checkpoint.track_stop()
    until(lambda: not shared_runner().call(other_tasks), "the interrupted calls go on")


def test_an_interrupted_open_leaves_nothing_open(
    start: Start, service: SafService, initialize: Initialize
) -> None:
    """Its answer comes when nobody waits any more."""
    node = start()
    library = initialize(node)
    opened(library).section_create("k")
    with on_alarm(interrupt):
        node.misbehave = signalling(Kind.OPEN, lambda link, frame: link.serve(frame))
        with contextlib.suppress(Interrupted):
            library.checkpoint_open(NAME, READ).close()
    until(lambda: service.checkpoints[NAME.encode()].opens == 1)


def test_an_interrupted_finalize_has_finalized(start: Start, initialize: Initialize) -> None:
    node = start()
    library = initialize(node)
    opened(library)
    node.misbehave = signalling(Kind.DETACH, lambda link, frame: link.serve(frame))
    with on_alarm(interrupt), contextlib.suppress(Interrupted):
        library.finalize()
    with refused(codes.BAD_HANDLE):
        library.finalize()
    opened(initialize(node))


def test_an_interrupted_dispatch_loses_nothing(start: Start, initialize: Initialize) -> None:
    heard = Heard()
    node = start()
    library = initialize(node, heard.callbacks)
    node.misbehave = signalling(Kind.OPEN, lambda link, frame: link.serve(frame))
    with on_alarm(interrupt):
        with pytest.raises(Interrupted):
            library.checkpoint_open_async(1, NAME, ALL_MODES, attributes())
            library.dispatch(BLOCKING)
        until(lambda: library.pending or heard.told)
    library.dispatch(ALL)
    assert [told[0] for told in heard.told] == [1]


def test_a_handler_within_a_call_may_call_as_well(start: Start, initialize: Initialize) -> None:
    """Unlike with a table: the service's own thread serves both."""
    node = start()
    library = initialize(node)
    checkpoint = opened(library)
    checkpoint.section_create("k")
    read: list[bytes] = []
    with on_alarm(lambda: read.extend(checkpoint.read([("k", None, 0)]))):
        node.misbehave = signalling(Kind.UPDATE, lambda link, frame: link.serve(frame))
        checkpoint.overwrite("k", "v")
        until(lambda: read)


# -- forks


@pytest.fixture
def parent(start: Start, initialize: Initialize) -> Iterator[tuple[FakeNode, CheckpointService]]:
    """A service that is asked for the same before and after a fork."""
    node = start()
    node.misbehave = tracked()
    library = initialize(node, Heard().callbacks)
    checkpoint = opened(library)
    checkpoint.section_create("parent")
    yield node, library
    checkpoint.overwrite("parent", "2")
    assert checkpoint.read([("parent", None, 0)]) == [b"2"]
    library.checkpoint_open_async(1, NAME, READ)
    until(lambda: readable(library))


def is_dead(call: Callable[[], Any]) -> bool:
    """Whether a call is a BAD_HANDLE."""
    try:
        call()
    except SaAisError as error:
        return error.code == codes.BAD_HANDLE
    return False


def test_a_child_has_no_services_until_it_begins_its_own(
    parent: tuple[FakeNode, CheckpointService], service: SafService
) -> None:
    node, library = parent
    checkpoint = library.checkpoint_open(NAME, ALL_MODES, attributes())
    iteration, pages = checkpoint.section_iteration_initialize(5), checkpoint.section_iteration()
    checkpoint.track()

    def child() -> bool:
        dead = [
            is_dead(call)
            for call in (
                checkpoint.status_get,
                checkpoint.close,
                checkpoint.track_stop,
                lambda: checkpoint.overwrite("k", "v"),
                lambda: checkpoint.read([("k", 1, 0)]),
                iteration.next,
                iteration.finalize,
                lambda: list(pages),
                lambda: library.checkpoint_open(NAME, READ),
                lambda: library.checkpoint_open_async(1, NAME, READ),
                lambda: library.dispatch(BLOCKING),
                library.selection_object,
                library.finalize,
            )
        ]
        own = CheckpointService.initialize(address=node.url)
        mine = own.checkpoint_open(NAME, ALL_MODES, attributes())
        mine.section_create("child", initial_data="1")
        good = mine.read([("child", None, 0), ("parent", None, 0)])[0] == b"1"
        own.finalize()
        return good and all(dead)

    with forked(child):
        pass
    assert len(service.sessions) == 1
    assert checkpoint.read([("child", None, 0)]) == [b"1"]
    until(lambda: library.pending == 1)


def test_a_fork_in_the_middle_of_calls_disturbs_no_thread(
    parent: tuple[FakeNode, CheckpointService],
) -> None:
    node, library = parent
    checkpoint = library.checkpoint_open(NAME, ALL_MODES, attributes())
    checkpoint.section_create("k")
    going = threading.Event()

    def work() -> None:
        while not going.is_set():
            checkpoint.overwrite("k", "v")

    threads = [Called(work) for _ in range(3)]

    def child() -> bool:
        own = CheckpointService.initialize(address=node.url)
        own.checkpoint_open(NAME, READ).status_get()
        own.finalize()
        return is_dead(checkpoint.status_get)

    for _ in range(5):
        with forked(child):
            pass
    going.set()
    assert [thread.end() for thread in threads] == [codes.OK] * 3


@pytest.mark.parametrize("flags", [ALL, BLOCKING])
def test_a_callback_that_forks_dispatches_on_in_its_parent_only(
    flags: DispatchFlags, start: Start, initialize: Initialize
) -> None:
    """The child called what was pending as well, or waited for callbacks that could not come."""
    told: list[int] = []
    children: list[int] = []

    def tell(invocation: int, *_: Any) -> None:
        told.append(invocation)
        if invocation == 0:
            children.append(os.fork())
        if invocation == 2:
            library.finalize()

    library = initialize(start(), CheckpointCallbacks(checkpoint_open=tell))
    for invocation in range(3):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
    until(lambda: library.pending == 3)
    try:
        library.dispatch(flags)
    except SaAisError as error:
        os._exit(0 if children == [0] and told == [0] and error.code == codes.BAD_HANDLE else 1)
    if children == [0]:
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert told == [0, 1, 2]
