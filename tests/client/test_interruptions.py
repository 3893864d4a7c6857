"""A blocking call that is interrupted at any point, signal handlers, threads and forks."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode, FakeService
from tests.client.fixtures import Start, service, start
from tests.client.test_blocking_connection import ALL, STREAMS, cut_after, forked, once

import ckpt_client
from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_client.session.planned_move import PlannedMove
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind

__all__ = ["service", "start"]

CLIENT = os.path.dirname(ckpt_client.__file__)
pytestmark = pytest.mark.timeout(60)


class Interrupted(BaseException):
    """As KeyboardInterrupt, which a test runner would take for itself."""


# -- interrupted at every line

# The interpreter looks for signals when a function was called, and at backward jumps: never at these.
UNINTERRUPTED = ("try:", "finally:", "self._owner_thread = 0", "lock.release()")


def interrupt() -> None:
    """What a handler does by default."""
    raise Interrupted


def interrupted_at(place: int, call: Callable[[], Any], deed: Callable[[], Any] = interrupt) -> bool:
    """Run `call`, and do `deed` at its `place`-th line in the client; False: it has fewer."""
    left = [place]

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(CLIENT):
            return None
        if event == "line" and line_of(frame) not in UNINTERRUPTED:
            left[0] -= 1
            if left[0] == 0:
                sys.settrace(None)
                deed()
                return None
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return left[0] <= 0


LINES: dict[str, list[str]] = {}


def line_of(frame: FrameType) -> str:
    """The source of the line that is about to run."""
    name = frame.f_code.co_filename
    if name not in LINES:
        LINES[name] = Path(name).read_text().splitlines()
    return LINES[name][frame.f_lineno - 1].split("#")[0].strip()


def scenarios() -> dict[str, Callable[[FakeNode, FakeNode, Table], None]]:
    """What goes on while a write is interrupted."""

    def quiet(a: FakeNode, b: FakeNode, table: Table) -> None:
        a.misbehave = None

    def link_lost(a: FakeNode, b: FakeNode, table: Table) -> None:
        a.misbehave = once(Kind.UPDATE, cut_after)

    def moving(a: FakeNode, b: FakeNode, table: Table) -> None:
        session = table._connection._session
        if session.attached:
            other = next(address for address in session._endpoints._addresses if address != session.address)
            session.move = PlannedMove(other, "", session._identity, session._next_attach)

    return {"quiet": quiet, "link lost": link_lost, "moving": moving}


@pytest.mark.parametrize("what", scenarios())
def test_a_write_interrupted_at_every_line_leaves_the_table_sound(
    what: str, start: Start, service: FakeService
) -> None:
    a, b = start("a"), start("b")
    with Table("x", 9, 100, 9, address=[a.url, b.url]) as table:
        place = 1
        while True:
            scenarios()[what](a, b, table)
            if not interrupted_at(place, lambda: table.Write("k", "interrupted")):
                break
            a.misbehave = None
            table.Write("after", str(place))
            assert table.Read(["after"]) == str(place).encode()
            assert table._connection._lock.acquire(blocking=False), "the lock is free"
            table._connection._lock.release()
            place += 1
        assert place > 60
        assert table._connection._session.calls == {}
    assert service.applied_twice == []
    assert service.sessions == {}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # within `__del__`
def test_an_open_and_a_close_interrupted_at_every_line_leave_nothing_open(
    start: Start, service: FakeService
) -> None:
    node = start("a")
    place, opened = 1, True
    with Table("x", 9, 100, 9, address=node.url) as witness:
        while opened:

            def open_and_close() -> None:
                Table("x", address=node.url).close()

            opened = interrupted_at(place, open_and_close)
            place += 1
        # What was not closed in order has its grace time, of which the service knows by the lost link.
        witness.Write("k", "v")
        for session_id in [s for s in service.sessions if s != witness.svcHdl]:
            service.end_session(session_id)
        assert witness.status().opens == 1
    assert place > 100


def test_an_interrupt_right_after_the_lock_was_taken_gives_it_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal may raise before the caller has seen that it has the lock, which stayed locked for ever."""
    with Table("x", 9, 100, 9, address=start("a").url) as table:
        lock = table._connection._lock

        class Interrupting:
            def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
                lock.acquire(blocking, timeout)
                raise Interrupted

            release = staticmethod(lock.release)

        monkeypatch.setattr(table._connection, "_lock", Interrupting())
        with pytest.raises(Interrupted):
            table.Write("k", "v")
        monkeypatch.setattr(table._connection, "_lock", lock)
        free: list[bool] = []
        other = threading.Thread(target=lambda: free.append(lock.acquire(blocking=False)))
        other.start()
        other.join()
        assert free == [True]
        monkeypatch.setattr(table._connection, "_lock", threading.RLock())
        table.Write("k", "v")


def test_a_table_closed_by_a_handler_at_every_line_of_a_call_is_closed(
    start: Start, service: FakeService
) -> None:
    node = start("a")
    place, reached = 1, True
    while reached:
        table = Table("x", 9, 100, 9, address=node.url)

        def write(table: Table = table) -> None:
            try:
                table.Write("k", "v")
            except CheckpointError as error:
                assert error.code in (codes.TIMEOUT, codes.BAD_HANDLE)

        reached = interrupted_at(place, write, table.close)
        if reached:
            with pytest.raises(CheckpointError) as caught:
                table.Write("k", "v")
            assert caught.value.code == codes.BAD_HANDLE
        table.close()
        assert table._connection._socket is None
        place += 1
    assert place > 60
    assert service.applied_twice == []


# -- signal handlers


@contextmanager
def on_alarm(handler: Callable[[], Any]) -> Iterator[None]:
    """`handler` is what SIGALRM does."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def signalling(kind: int, deed: Callable[[FakeLink, Frame], Any] | None = None) -> Any:
    """Send SIGALRM to this process, and wait for the handler, before serving the first request of a kind."""

    def deed_with_signal(link: FakeLink, frame: Frame) -> None:
        os.kill(os.getpid(), signal.SIGALRM)
        if deed is not None:
            deed(link, frame)

    return once(kind, deed_with_signal)


@pytest.mark.parametrize("scheme", ALL)
def test_a_handler_that_raises_ends_the_call_and_not_the_table(
    scheme: str, start: Start, service: FakeService
) -> None:
    node = start("a", scheme)
    with on_alarm(interrupt), Table("x", 9, 100, 9, address=node.url) as table:
        for number in range(5):
            node.misbehave = signalling(Kind.UPDATE)
            with pytest.raises(Interrupted):
                table.Write("k", "lost")
            node.misbehave = None
            table.Write("k", str(number))
            assert table["k"] == str(number).encode()
    assert service.applied_twice == []


def test_a_handler_that_returns_does_not_disturb_the_call(start: Start) -> None:
    node = start("a")
    seen = threading.Event()

    def serve_later(link: FakeLink, frame: Frame) -> None:
        seen.wait()
        link.serve(frame)

    with on_alarm(seen.set), Table("x", 9, 100, 9, address=node.url) as table:
        node.misbehave = signalling(Kind.UPDATE, serve_later)
        table.Write("k", "v")
        assert table["k"] == b"v"


def test_a_call_from_a_handler_within_a_call_is_refused_at_once(start: Start) -> None:
    """It waited for the call that it had interrupted, until its time was over."""
    node = start("a")
    errors: list[CheckpointError] = []
    over = threading.Event()

    def write() -> None:
        try:
            table.Write("handler", "v")
        except CheckpointError as error:
            errors.append(error)
        over.set()

    def serve_later(link: FakeLink, frame: Frame) -> None:
        over.wait()
        link.serve(frame)

    with Table("x", 9, 100, 9, address=node.url) as table, on_alarm(write):
        node.misbehave = signalling(Kind.UPDATE, serve_later)
        table.Write("k", "v")
        assert [error.code for error in errors] == [codes.TRY_AGAIN]
        assert table.read_all() == {b"k": b"v"}


def test_a_handler_may_close_the_table_that_its_thread_is_using(start: Start) -> None:
    """A SIGTERM handler that closes and exits hung for ever when the signal came in a call."""
    node = start("a")
    table = Table("x", 9, 100, 9, address=node.url)
    node.misbehave = signalling(Kind.UPDATE)
    with on_alarm(table.close), pytest.raises(CheckpointError) as caught:
        table.Write("k", "v")
    assert caught.value.code == codes.TIMEOUT, "unknown whether the call was carried out"
    with pytest.raises(CheckpointError) as caught:
        table.Read("k")
    assert caught.value.code == codes.BAD_HANDLE
    table.close()


# -- threads


@pytest.mark.parametrize("scheme", STREAMS)
def test_threads_share_a_table_while_its_links_are_lost_again_and_again(
    scheme: str, start: Start, service: FakeService
) -> None:
    a, b = start("a", scheme), start("b", scheme)
    seen = [0]

    def lose_some(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        seen[0] += 1
        if seen[0] % 17:
            return False
        if frame.kind == Kind.UPDATE:
            cut_after(link, frame)
        else:
            link.cut()
        return True

    wrong: list[BaseException | str] = []
    with Table("x", 100, 100, 9, address=[a.url, b.url]) as table:
        a.misbehave = b.misbehave = lose_some

        def work(name: str) -> None:
            try:
                for number in range(40):
                    table.Write(name, str(number))
                    if table[name] != str(number).encode():
                        wrong.append(name)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        a.misbehave = b.misbehave = None
        assert wrong == []
        assert len(table) == 6
    assert service.checkpoints[b"x"].applied == 240
    assert service.applied_twice == []
    assert {a.kinds().count(Kind.ATTACH) > 1, b.kinds().count(Kind.ATTACH) > 1} == {True}


# -- forks


def test_a_fork_in_the_middle_of_another_threads_call_lets_the_child_call_at_once(
    start: Start, service: FakeService
) -> None:
    node = start("a")
    held, go_on = threading.Event(), threading.Event()
    with Table("x", 9, 100, 9, address=node.url) as table:

        def hold(link: FakeLink, frame: Frame) -> None:
            # Answered later, by another thread, so that the node goes on serving the child.
            threading.Thread(target=lambda: (go_on.wait(), link.serve(frame))).start()
            held.set()

        node.misbehave = once(Kind.UPDATE, hold)
        writer = threading.Thread(target=table.Write, args=("parent", "v"))
        writer.start()
        held.wait()

        def child() -> bool:
            table.Write("child", "v")
            table.close()
            return True

        with forked(child):
            pass
        go_on.set()
        writer.join()
        assert table.read_all() == {b"parent": b"v", b"child": b"v"}
    assert service.applied_twice == []


def test_a_fork_from_a_handler_within_a_call_ends_the_childs_call(start: Start) -> None:
    """The session of that call is the parent's: the child waited for an answer that would never come."""
    node = start("a")
    children: list[int] = []
    over = threading.Event()

    def fork() -> None:
        children.append(os.fork())
        over.set()

    def serve_later(link: FakeLink, frame: Frame) -> None:
        over.wait()
        link.serve(frame)

    with on_alarm(fork), Table("x", 9, 100, 9, address=node.url) as table:
        node.misbehave = signalling(Kind.UPDATE, serve_later)
        try:
            table.Write("k", "v")
            if children[0] == 0:
                os._exit(1)
        except CheckpointError as error:
            if children and children[0] == 0:
                os._exit(0 if error.code == codes.TIMEOUT else 2)
            raise
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        assert table["k"] == b"v"


async def test_after_a_fork_an_async_table_belongs_to_the_parent(start: Start, service: FakeService) -> None:
    """Closing it in the child unregistered the parent's socket from the selector that both share."""
    url = start("a", "tcp").url
    async with await AsyncTable.open("x", 9, 100, 9, address=url) as table:
        await table.write("parent", "1")

        def child() -> bool:
            async def work() -> bool:
                try:
                    await table.write("child", "1")
                except CheckpointError as error:
                    await table.close()
                    async with await AsyncTable.open("x", address=url) as own:
                        await own.write("own", "2")
                        return error.code == codes.BAD_HANDLE and await own.read("parent") == b"1"
                return False

            answers: list[bool] = []
            # A thread of its own: in this one a loop is running.
            thread = threading.Thread(target=lambda: answers.append(asyncio.run(work())))
            thread.start()
            thread.join()
            return answers == [True]

        pid = os.fork()
        if pid == 0:
            good = False
            try:
                good = child()
            finally:
                os._exit(0 if good else 1)
        ended = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        await table.write("parent", "3")
        assert await table.read_all() == {b"own": b"2", b"parent": b"3"}


def test_a_child_that_continues_with_its_parents_loop_does_not_use_its_socket(start: Start) -> None:
    url = start("a").url
    with asyncio.Runner() as runner:
        table = runner.run(AsyncTable.open("x", 9, 100, 9, address=url))
        runner.run(table.write("parent", "1"))

        def child() -> bool:
            try:
                runner.run(table.write("child", "1"))
            except CheckpointError as error:
                runner.run(table.close())
                return error.code == codes.BAD_HANDLE
            return False

        with forked(child):
            pass
        runner.run(table.write("parent", "2"))
        assert runner.run(table.read_all()) == {b"parent": b"2"}
        runner.run(table.close())


async def test_a_process_with_an_async_table_may_start_others(start: Start) -> None:
    async with await AsyncTable.open("x", 9, 100, 9, address=start("a").url) as table:
        await table.write("k", "v")
        program = (sys.executable, "-c", "print(1)")
        process = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        assert out == b"1\n"
        subprocess.run([sys.executable, "-c", ""], check=True, preexec_fn=lambda: None)
        assert await table.read("k") == b"v"
