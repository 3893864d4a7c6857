"""A session that ended while its program was quiet: tables open their checkpoints again, and say so."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode, FakeService
from tests.client.fixtures import Start, service, start
from tests.client.test_blocking_connection import ALL, once

from ckpt_client import AsyncTable, CheckpointError, SaAisError, Table
from ckpt_client.errors import CheckpointEnded
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_ok

__all__ = ["service", "start"]

SHELLS = ["blocking", "asyncio"]
pytestmark = pytest.mark.timeout(60)


class Quiet:
    """A table that is not used for a while, by either shell."""

    def __init__(self, shell: str, *arguments: Any, **named: Any) -> None:
        self._runner = asyncio.Runner() if shell == "asyncio" else None
        self.table: Any
        if self._runner is None:
            self.table = Table(*arguments, **named)
        else:
            self.table = self._runner.run(AsyncTable.open(*arguments, **named))

    def do(self, blocking: str, *arguments: Any) -> Any:
        """Call the method that `Table` and `AsyncTable` have under this name, or its small letters."""
        if self._runner is None:
            return getattr(self.table, blocking)(*arguments)
        return self._runner.run(getattr(self.table, blocking.lower())(*arguments))

    def track(self) -> None:
        """Begin to track, and no more than that."""
        if self._runner is None:
            self.table.track(lambda changes: None).stop()
        else:
            self._runner.run(self.table.track())

    def close(self) -> None:
        self.do("close")
        if self._runner is not None:
            self._runner.close()


Open = Callable[..., Quiet]


@pytest.fixture(autouse=True)
def quiet_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call comes after a long pause."""
    monkeypatch.setattr("ckpt_client.session.node_silence.STALE_NS", 0)


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens tables that are closed with the test."""
    tables: list[Quiet] = []

    def open_table(shell: str, *arguments: Any, **named: Any) -> Quiet:
        tables.append(Quiet(shell, *arguments, **named))
        return tables[-1]

    yield open_table
    for table in tables:
        table.close()


def end_all(service: FakeService) -> None:
    """Every session's grace is over."""
    with service.lock:
        for session_id in list(service.sessions):
            service.end_session(session_id)


def ended_by(call: Callable[..., Any], *arguments: Any) -> SaAisError:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    return caught.value.aspErrorCode


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", ALL)
@pytest.mark.parametrize("linked", [True, False])
def test_a_table_comes_back_with_the_same_checkpoint(
    shell: str, scheme: str, linked: bool, start: Start, service: FakeService, opened: Open
) -> None:
    """A quiet table whose node was restarted was dead for good, though all nodes were there throughout."""
    node = start("a", scheme)
    keeper, quiet = Table("x", 9, 100, 9, address=node.url), opened(shell, "x", 9, 100, 9, address=node.url)
    quiet.do("Write", "k", "v")
    end_all(service)
    if not linked:
        node.drop_links()
    quiet.do("Write", "k", "w")
    assert quiet.do("Read", "k") == b"w"
    assert service.checkpoints[b"x"].applied == 2
    assert service.checkpoints[b"x"].opens == 1
    assert quiet.table.counts.reopened == 1
    keeper.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_checkpoint_that_has_ended_is_reported_once_and_then_created_again(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    quiet = opened(shell, "x", 9, 100, 9, address=start().url)
    quiet.do("Write", "k", "v")
    end_all(service)
    del service.checkpoints[b"x"]
    error = ended_by(quiet.do, "Write", "k", "w")
    assert isinstance(error, CheckpointEnded) and error.code == codes.NOT_EXIST
    assert "ended while" in error.text
    assert b"x" not in service.checkpoints, "nothing is made behind the program's back"
    quiet.do("Write", "k", "w")
    assert quiet.do("Read", "k") == b"w"


@pytest.mark.parametrize("shell", SHELLS)
def test_another_checkpoint_of_that_name_is_reported_once_and_then_opened(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    node = start()
    quiet = opened(shell, "x", 9, 100, 9, address=node.url)
    quiet.do("Write", "k", "v")
    end_all(service)
    del service.checkpoints[b"x"]
    with Table("x", 9, 100, 9, address=node.url) as other:
        other["k"] = "other"
        assert isinstance(ended_by(quiet.do, "Write", "k", "w"), CheckpointEnded)
        assert other["k"] == b"other"
        assert service.checkpoints[b"x"].opens == 1, "what was looked at was closed"
        assert quiet.do("Read", "k") == b"other"
        assert service.checkpoints[b"x"].opens == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_a_table_that_creates_nothing_says_that_there_is_none(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    node = start()
    Table("x", 9, 100, 9, address=node.url).close()
    quiet = opened(shell, "x", address=node.url)
    end_all(service)
    kept = service.checkpoints.pop(b"x")
    assert isinstance(ended_by(quiet.do, "Write", "k", "w"), CheckpointEnded)
    error = ended_by(quiet.do, "Write", "k", "w")
    assert error.code == codes.NOT_EXIST and not isinstance(error, CheckpointEnded)
    service.checkpoints[b"x"] = kept
    quiet.do("Write", "k", "w")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_write_under_way_when_the_session_ended_is_timeout_and_not_repeated(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    node = start()
    keeper, quiet = Table("x", 9, 100, 9, address=node.url), opened(shell, "x", 9, 100, 9, address=node.url)
    quiet.do("Write", "k", "v")

    def end(link: FakeLink, frame: Frame) -> None:
        service.serve(link.node, link.session_id, frame)
        service.end_session(link.session_id)
        link.cut()

    node.misbehave = once(Kind.UPDATE, end)
    assert ended_by(quiet.do, "Write", "k", "w").code == codes.TIMEOUT
    assert service.checkpoints[b"x"].applied == 2
    assert quiet.do("Read", "k") == b"w"
    assert service.checkpoints[b"x"].applied == 2
    keeper.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_read_under_way_when_the_session_ended_is_done_in_the_next(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    node = start()
    keeper, quiet = Table("x", 9, 100, 9, address=node.url), opened(shell, "x", 9, 100, 9, address=node.url)
    quiet.do("Write", "k", "v")

    def end(link: FakeLink, frame: Frame) -> None:
        service.end_session(link.session_id)
        link.cut()

    node.misbehave = once(Kind.READ, end)
    assert quiet.do("Read", "k") == b"v"
    keeper.close()


def test_threads_that_come_back_together_open_once(start: Start, service: FakeService) -> None:
    node = start()
    with Table("x", 9, 100, 9, address=node.url) as keeper, Table("x", 9, 100, 9, address=node.url) as table:
        keeper["k"] = b"v"
        end_all(service)
        keeper["k"] = b"v"
        read: list[bytes] = []
        threads = [threading.Thread(target=lambda: read.append(table["k"])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read == [b"v"] * 8
        assert service.checkpoints[b"x"].opens == 2
        assert table.counts.reopened == 1


def test_a_closed_table_does_not_come_back(start: Start, service: FakeService) -> None:
    table = Table("x", 9, 100, 9, address=start().url)
    end_all(service)
    table.close()
    assert ended_by(table.Read, "k").code == codes.BAD_HANDLE
    assert service.sessions == {}


def test_a_forked_child_gets_the_error_of_a_checkpoint_that_ended(start: Start, service: FakeService) -> None:
    """It opened whatever had the name, and made an empty one where there was none."""
    with Table("x", 9, 100, 9, address=start().url) as table:
        table["k"] = b"v"
        del service.checkpoints[b"x"]
        child = os.fork()
        if not child:
            try:
                table.Read("k")
            except CheckpointError as error:
                os._exit(0 if isinstance(error.aspErrorCode, CheckpointEnded) else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_moving_is_logged_once_in_a_while_and_always_counted(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = start("a"), start("b")
    caplog.set_level(logging.WARNING, "ckpt_client")
    with Table("x", 9, 9, 9, address=[a.url, b.url]) as table:
        for node in (a, b, a):
            assert table.node_id in ("", node.node_id)
            node.misbehave = once(Kind.UPDATE, lambda link, frame: link.cut())
            table["k"] = b"v"
        assert table.counts.moved == 3
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert "moved to node b" in lines[0] and "it left node a" in lines[0]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("linked", [True, False])
def test_unlink_is_a_call_like_any_other_after_a_pause(
    shell: str, linked: bool, start: Start, service: FakeService, opened: Open
) -> None:
    """It was BAD_HANDLE, again and again, where the session had ended."""
    node = start()
    keeper, quiet = Table("x", 9, 100, 9, address=node.url), opened(shell, "x", 9, 100, 9, address=node.url)
    end_all(service)
    if not linked:
        node.drop_links()
    quiet.do("unlink")
    assert b"x" not in service.checkpoints
    assert quiet.table.counts.reopened == 1
    keeper.close()


@pytest.mark.parametrize("shell", SHELLS)
def test_unlink_names_no_successor_of_a_checkpoint_that_ended(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    node = start()
    quiet = opened(shell, "x", 9, 100, 9, address=node.url)
    end_all(service)
    del service.checkpoints[b"x"]
    with Table("x", 9, 100, 9, address=node.url) as successor:
        assert isinstance(ended_by(quiet.do, "unlink"), CheckpointEnded)
        successor["k"] = "v"
        assert b"x" in service.checkpoints


def tracks_nothing(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
    """A node's `misbehave`: where nothing ever changes, only the first TRACK is answered."""
    if frame.kind != Kind.TRACK:
        return False
    with node.service.lock:
        session = node.service.sessions.get(link.session_id)
        if session is None or frame.b not in session.opens:
            return False
    if unpack_body(frame.body)[0] is None:
        link.answer(frame.a, answer_ok([0, [], 0]))
    return True


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kept", [True, False])
def test_tracking_is_a_call_like_any_other_after_a_pause(
    shell: str, kept: bool, start: Start, service: FakeService, opened: Open
) -> None:
    """`AsyncTable.track` was BAD_HANDLE, and `Table.track` NOT_EXIST for good."""
    node = start()
    node.misbehave = tracks_nothing
    quiet = opened(shell, "x", 9, 100, 9, address=node.url)
    end_all(service)
    if not kept:
        del service.checkpoints[b"x"]
        assert isinstance(ended_by(quiet.track), CheckpointEnded)
    quiet.track()
    assert not service.checkpoints[b"x"].unlinked
