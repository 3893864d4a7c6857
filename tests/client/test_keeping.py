"""`keep_alive`: quiet tables that a thread keeps up."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
from tests.client.fake_service import FakeLink, FakeService
from tests.client.fixtures import Start, service, start
from tests.client.saf_fake import until
from tests.client.test_blocking_connection import ALL

from ckpt_client import CheckpointError, Table
from ckpt_client.errors import CheckpointEnded
from ckpt_client.io import keep_alive
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind

__all__ = ["service", "start"]

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table is quiet at once, and looked at all the time. The thread ends with the test."""
    monkeypatch.setattr("ckpt_client.session.session_calls.KEEP_UP_NS", 0)
    monkeypatch.setattr(keep_alive, "LOOK_S", 0.01)
    yield
    until(lambda: keep_alive.keeper._thread is None, "the thread goes on")


@pytest.mark.parametrize("scheme", ALL)
def test_a_quiet_table_leaves_a_node_that_falls_silent(
    scheme: str, start: Start, service: FakeService
) -> None:
    a, b = start("a", scheme), start("b", scheme)
    with Table("x", 9, 9, 9, address=[a.url, b.url], keep_alive=True) as table:
        (session,) = service.sessions.values()
        until(lambda: a.kinds().count(Kind.PING) > 3)
        assert a.kinds().count(Kind.ATTACH) == 1
        a.misbehave = lambda node, link, frame: True
        until(lambda: session.node_id == "b")
        a.misbehave = None
        table["k"] = b"v"
        assert table.node_id == "b"
        assert table.counts == (1, 0)
    assert Kind.DETACH in b.kinds()


def test_tables_at_a_silent_node_leave_it_together(start: Start, service: FakeService) -> None:
    """One after the other they waited for as long as a node may be silent: the last lost its session."""
    a, b = start("a"), start("b")
    tables = [Table(f"x{number}", 9, 9, 9, address=[a.url, b.url], keep_alive=True) for number in range(12)]
    a.misbehave = lambda node, link, frame: True
    began = time.monotonic()
    until(lambda: all(session.node_id == "b" for session in service.sessions.values()))
    assert time.monotonic() - began < len(tables), "less than the silence of each added up"
    for table in tables:
        table.close()


def test_a_session_that_ended_is_replaced_while_no_call_is_made(start: Start, service: FakeService) -> None:
    node = start()
    with Table("x", 9, 9, 9, address=node.url, keep_alive=True) as table:
        (before,) = service.sessions
        service.end_session(before)
        node.drop_links()
        until(lambda: service.checkpoints[b"x"].opens == 1 and before not in service.sessions)
        assert node.kinds().count(Kind.UPDATE) == 0
        table["k"] = b"v"
        assert table.counts.reopened == 1


def test_a_checkpoint_that_is_gone_is_reported_by_the_next_call(start: Start, service: FakeService) -> None:
    node = start()
    with Table("x", 9, 9, 9, address=node.url, keep_alive=True) as table:
        del service.checkpoints[b"x"]
        service.end_session(next(iter(service.sessions)))
        node.drop_links()
        until(lambda: table._to_tell is not None)
        with pytest.raises(CheckpointError) as caught:
            table["k"] = b"v"
        assert isinstance(caught.value.aspErrorCode, CheckpointEnded)
        table["k"] = b"v"


def test_a_call_under_way_is_not_disturbed(start: Start) -> None:
    node, over = start(), threading.Event()

    def hold(link: FakeLink, frame: Frame) -> bool:
        until(over.is_set)
        return False

    with Table("x", 9, 9, 9, address=node.url, keep_alive=True) as table:
        node.misbehave = lambda node, link, frame: frame.kind == Kind.UPDATE and hold(link, frame)
        timer = threading.Timer(0.3, over.set)
        timer.start()
        table["k"] = b"v"
        timer.join()
        assert table.counts == (0, 0)


def test_a_forked_child_keeps_up_what_it_opens_again(start: Start) -> None:
    with Table("x", 9, 9, 9, address=start().url, keep_alive=True) as table:
        table["k"] = b"v"
        child = os.fork()
        if not child:
            same = table["k"] == b"v" and keep_alive.keeper._thread is not None
            os._exit(0 if same and keep_alive.keeper._thread.is_alive() else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_table_that_is_dropped_is_kept_up_no_more(start: Start, service: FakeService) -> None:
    table = Table("x", 9, 9, 9, address=start().url, keep_alive=True)
    assert len(service.sessions) == 1
    del table
    until(lambda: not service.sessions)
