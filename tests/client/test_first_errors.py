"""A call that has to clean up, or to ask again, after an error reports that error and not a later one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.client.fake_service import FakeNode, FakeService
from tests.client.fixtures import Start, service, start
from tests.client.saf_fake import unanswered
from tests.client.test_blocking_connection import forked
from tests.client.test_coming_back import SHELLS, Open, end_all, ended_by, opened

from ckpt_client import Table
from ckpt_client.asp.asp_table import AspTable
from ckpt_client.asp.functions import saCkptSelectionObjectGet
from ckpt_client.errors import CheckpointEnded, error_of
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

__all__ = ["opened", "service", "start"]

pytestmark = pytest.mark.timeout(60)
TIMEOUT_S = 0.3
"""The time-out of a call of which one request is never answered."""


@contextmanager
def another_checkpoint(service: FakeService, node: FakeNode) -> Iterator[Table]:
    """Every session has ended, and another program has created a checkpoint of the same name since."""
    end_all(service)
    del service.checkpoints[b"x"]
    with Table("x", 9, 100, 9, address=node.url) as other:
        yield other


@pytest.mark.parametrize("shell", SHELLS)
def test_another_checkpoint_of_the_name_is_reported_even_if_the_close_of_it_is_not_answered(
    shell: str, start: Start, service: FakeService, opened: Open
) -> None:
    """The caller got TIMEOUT, as if the call might have been done, and nothing said that the data is gone."""
    node = start()
    quiet = opened(shell, "x", 9, 100, 9, address=node.url, timeout=TIMEOUT_S)
    with another_checkpoint(service, node):
        node.misbehave = unanswered(Kind.CLOSE)
        assert isinstance(ended_by(quiet.do, "Write", "k", "w"), CheckpointEnded)
        node.misbehave = None


def test_a_tracking_of_a_name_that_another_checkpoint_has_says_so_even_if_the_close_is_not_answered(
    start: Start, service: FakeService
) -> None:
    node = start()
    with Table("x", 9, 100, 9, address=node.url, timeout=TIMEOUT_S) as table:
        service.checkpoints.pop(b"x")
        with Table("x", 9, 100, 9, address=node.url):
            node.misbehave = unanswered(Kind.CLOSE)
            error = ended_by(table.track)
            node.misbehave = None
    assert error.code == codes.NOT_EXIST and "another checkpoint" in error.text


def test_a_tracking_of_an_unlinked_name_says_so_even_if_the_node_then_falls_silent(
    start: Start, service: FakeService
) -> None:
    """`track` then asks whether the table itself is still open. That question was not answered: TIMEOUT."""
    node = start()
    with Table("x", 9, 100, 9, address=node.url, timeout=TIMEOUT_S) as table:
        service.checkpoints.pop(b"x")
        node.misbehave = unanswered(Kind.STATUS)
        assert ended_by(table.track).code == codes.NOT_EXIST
        node.misbehave = None


@pytest.mark.parametrize("shell", SHELLS)
def test_the_end_of_a_session_is_reported_if_no_time_is_left_to_open_the_checkpoint_again(
    shell: str, start: Start, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BAD_HANDLE says that nothing was done. The asyncio one reported the time-out of an OPEN instead."""
    node = start()
    quiet = opened(shell, "x", 9, 100, 9, address=node.url)
    connection, now_ns = quiet.table._connection, 10**9

    def end_late(kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        nonlocal now_ns
        assert kind == Kind.UPDATE, "the checkpoint is opened again although no time is left"
        now_ns += timeout_ns + 1
        raise error_of(codes.BAD_HANDLE, "the session has ended")

    async def end_late_async(*request: Any) -> Any:
        return end_late(*request)

    with monkeypatch.context() as patched:
        patched.setattr("ckpt_client.io.time_limit._monotonic_ns", lambda: now_ns)
        if shell == "blocking":
            patched.setattr(quiet.table, "_call_service", end_late)
            assert ended_by(quiet.do, "Write", {"k": "v"}).code == codes.BAD_HANDLE
        else:
            patched.setattr(connection, "call", end_late_async)
            assert ended_by(quiet.do, "write_many", {"k": "v"}).code == codes.BAD_HANDLE


def test_a_forked_child_that_leaves_an_asp_tables_block_with_an_error_sees_that_error(start: Start) -> None:
    """The service that an asp function had made for the table is the parent's: BAD_HANDLE hid the error."""
    node = start()

    def child() -> bool:
        try:
            with table:
                raise ZeroDivisionError
        except ZeroDivisionError:
            return True

    with AspTable("x", 9, 100, 9, address=node.url) as table:
        assert saCkptSelectionObjectGet(table.svcHdl) > 0
        with forked(child):
            pass
