"""`Table.track`: changes in a thread of their own, until they are stopped."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    NAME,
    Initialize,
    SafService,
    initialize,
    nothing_left,
    opened,
    service,
    tracked,
    until,
)

from ckpt_client import CheckpointError, Table
from ckpt_client.checkpoint.tracking_thread import Tracking
from ckpt_client.errors import error_of
from ckpt_client.saf import Checkpoint, SectionChangeT
from ckpt_protocol.codes import SaAisErrorT

__all__ = ["initialize", "nothing_left", "service", "start"]

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_left")]

CHILD_S = 10.0


@pytest.fixture
def writer(start: Start, initialize: Initialize) -> Checkpoint:
    """A checkpoint that somebody else writes."""
    node = start()
    node.misbehave = tracked()
    return opened(initialize(node))


@pytest.fixture
def table(start: Start, writer: Checkpoint) -> Iterator[Table]:
    """The same, as a table at another node."""
    node = start("b")
    node.misbehave = tracked()
    with Table(NAME, address=node.url) as table:
        yield table


class Told:
    """What a callback was told, in order."""

    def __init__(self) -> None:
        self.changes: list[tuple[SectionChangeT, bytes]] = []
        self.threads: set[str] = set()

    def __call__(self, changes: list[Any]) -> None:
        self.threads.add(threading.current_thread().name)
        self.changes += [(change.change, change.section_id) for change in changes]


def test_changes_are_reported_in_order_in_a_thread_of_their_own(table: Table, writer: Checkpoint) -> None:
    told = Told()
    with table.track(told):
        writer.section_create("k")
        writer.overwrite("k", b"v")
        writer.section_delete("k")
        until(lambda: len(told.changes) == 3)
    assert [change for change, _ in told.changes] == [
        SectionChangeT.CREATED,
        SectionChangeT.OVERWRITTEN,
        SectionChangeT.DELETED,
    ]
    assert told.threads == {f"track {NAME}"}


def test_a_tracking_that_is_stopped_leaves_nothing(
    table: Table, writer: Checkpoint, service: SafService
) -> None:
    sessions = len(service.sessions)
    told = Told()
    tracking = table.track(told)
    assert len(service.sessions) == sessions + 1
    tracking.stop()
    tracking.stop()
    assert tracking.wait(0) and tracking.error is None
    until(lambda: len(service.sessions) == sessions)
    writer.section_create("k")
    assert told.changes == []


def test_a_callback_may_stop_its_tracking(table: Table, writer: Checkpoint) -> None:
    trackings: list[Tracking] = []
    trackings.append(table.track(lambda changes: trackings[0].stop()))
    writer.section_create("k")
    assert trackings[0].wait(CHILD_S)


def test_a_callback_that_fails_is_called_again(table: Table, writer: Checkpoint) -> None:
    told = Told()

    def tell(changes: list[Any]) -> None:
        told(changes)
        raise ValueError

    with table.track(tell):
        for number in range(2):
            writer.section_create(f"k{number}")
            until(lambda: len(told.changes) > number)  # noqa: B023 (it is called here)


def end_tracker(service: SafService, before: set[int]) -> None:
    """The grace of the tracking's session is over, and its TRACK is answered so."""
    with service.lock:
        (session,) = set(service.sessions) - before
        service.end_session(session)
        waiting, service.waiting = service.waiting, []
    for link, frame in waiting:
        service.track(link, frame)


def forget_checkpoint(service: SafService, before: set[int]) -> None:
    """The checkpoint is gone, and the tracking's session with it."""
    with service.lock:
        del service.checkpoints[NAME.encode()]
        end_tracker(service, before)


def test_a_session_that_ended_resumes_and_has_everything_looked_at(
    table: Table, writer: Checkpoint, service: SafService
) -> None:
    """The standby in the README waited for ever, with an old copy: only `error` would have told it."""
    writer.section_create("old")
    writer.section_create("gone")
    before, told = set(service.sessions), Told()
    with table.track(told) as tracking:
        with service.lock:
            sections = service.checkpoints[NAME.encode()].sections
            sections[b"new"] = sections.pop(b"gone")
            end_tracker(service, before)
        until(lambda: (SectionChangeT.DELETED, b"gone") in told.changes)
        assert told.changes == [
            (SectionChangeT.RESUMED, b""),
            (SectionChangeT.CREATED, b"new"),
            (SectionChangeT.OVERWRITTEN, b"old"),
            (SectionChangeT.DELETED, b"gone"),
        ]
        told.changes.clear()
        writer.section_create("more")
        until(lambda: (SectionChangeT.CREATED, b"more") in told.changes)
        assert tracking.error is None


def test_a_tracking_of_a_checkpoint_that_is_gone_says_that_it_ended(
    table: Table, writer: Checkpoint, service: SafService
) -> None:
    before, told = set(service.sessions), Told()
    with table.track(told) as tracking:
        forget_checkpoint(service, before)
        assert tracking.wait(CHILD_S)
        assert told.changes == [(SectionChangeT.ENDED, b"")]
        assert tracking.error is not None and tracking.error.code == SaAisErrorT.SA_AIS_ERR_NOT_EXIST


def test_a_loop_over_a_tracking_raises_when_it_has_ended(
    table: Table, writer: Checkpoint, service: SafService
) -> None:
    before, seen = set(service.sessions), []
    with table.track() as changes:
        writer.section_create("k")
        with pytest.raises(CheckpointError) as caught:
            for change in changes:
                seen.append((change.change, change.section_id))
                forget_checkpoint(service, before)
    assert seen[0] == (SectionChangeT.CREATED, b"k")
    assert caught.value.code == SaAisErrorT.SA_AIS_ERR_NOT_EXIST


def test_a_loop_over_a_tracking_ends_where_it_is_stopped(table: Table, writer: Checkpoint) -> None:
    with table.track() as changes:
        for number in range(5):
            writer.section_create(f"k{number}")
        seen = []
        for change in changes:
            seen.append(change.section_id)
            if len(seen) == 5:
                changes.stop()
        assert seen == [b"k0", b"k1", b"k2", b"k3", b"k4"]
        assert list(changes) == []


def test_a_callback_that_exits_is_called_again(table: Table, writer: Checkpoint) -> None:
    """SystemExit ended its thread, and nothing was told any more, without a word."""
    told = Told()

    def tell(changes: list[Any]) -> None:
        told(changes)
        sys.exit("no")

    with table.track(tell) as tracking:
        for number in range(2):
            writer.section_create(f"k{number}")
            until(lambda: len(told.changes) > number)  # noqa: B023 (it is called here)
        assert tracking.error is None


def test_a_table_that_was_unlinked_and_made_again_is_not_tracked_by_its_name(
    table: Table, writer: Checkpoint
) -> None:
    table.read_all()
    table.unlink()
    opened(writer.service)
    with pytest.raises(CheckpointError) as caught:
        table.track(Told())
    assert caught.value.code == SaAisErrorT.SA_AIS_ERR_NOT_EXIST


def test_a_program_that_ends_in_order_lets_its_tracking_go(start: Start, service: SafService) -> None:
    """Over TCP nobody sees it die: the checkpoint was open for as long as its session was kept."""
    node = start("a", "tcp")
    node.misbehave = tracked()
    program = """
import sys
from ckpt_client import Table
table = Table("safCkpt=x", 9, 100, 9, address=sys.argv[1])
tracking = table.track(print)
"""
    command = [sys.executable, "-c", program, node.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    until(lambda: not service.sessions)


def test_a_forked_child_may_leave_the_block_that_tracks(table: Table, writer: Checkpoint) -> None:
    """It waited for a thread that only its parent has, and never ended."""
    told = Told()
    tracking = table.track(told)
    child = os.fork()
    if child == 0:
        tracking.stop()
        os._exit(0)
    ended: list[tuple[int, int]] = []

    def has_ended() -> bool:
        ended[:] = [os.waitpid(child, os.WNOHANG)]
        return bool(ended[0][0])

    try:
        until(has_ended, "the child is stuck")
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    assert ended == [(child, 0)]
    writer.section_create("k")
    until(lambda: told.changes)
    tracking.stop()


def test_a_shell_shows_whether_a_tracking_runs(table: Table) -> None:
    with table.track() as tracking:
        assert repr(tracking) == f"<Tracking of {NAME!r} running>"
        tracking.error = error_of(SaAisErrorT.SA_AIS_ERR_NOT_EXIST, "it is gone")
        assert repr(tracking) == f"<Tracking of {NAME!r} ended: SA_AIS_ERR_NOT_EXIST: it is gone>"
    assert repr(tracking) == f"<Tracking of {NAME!r} stopped>"


def test_a_loop_over_a_tracking_with_a_callback_is_refused(table: Table) -> None:
    """It waited for ever: the callback gets the changes."""
    with table.track(Told()) as tracking, pytest.raises(CheckpointError) as caught:
        next(iter(tracking))
    assert caught.value.code == SaAisErrorT.SA_AIS_ERR_BAD_OPERATION
    assert "callback" in caught.value.text
