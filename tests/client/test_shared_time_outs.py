"""A call that makes several requests has one time-out, and each request gets what is left of it."""

import asyncio
import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    NAME,
    READ,
    Initialize,
    initialize,
    opened,
    service,
    tracked,
    until,
)
from tests.client.test_coming_back import SHELLS, Quiet, end_all

from ckpt_client import AsyncTable, CheckpointError
from ckpt_client.asp import functions as asp
from ckpt_client.asp.asp_table import AspTable
from ckpt_client.checkpoint.tracking_thread import Tracking
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.pyosaf.modules import make_modules
from ckpt_client.saf import AsyncCheckpointService
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_ONE_SECOND
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error, answer_ok

__all__ = ["initialize", "service", "start"]

pytestmark = pytest.mark.timeout(60)

TIMEOUT_S = 20
"""The time-out of a call that has none of its own. (A TRACK that waits for a change has 30 s.)"""

Requests = list[tuple[int, float]]
"""Kind and time-out (s) of each request."""


@pytest.fixture
def requests_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Requests]:
    """`requests_of(call)`: the requests that a call makes. Each takes one second of a fake clock."""
    seen: Requests = []
    now_ns = SA_TIME_ONE_SECOND

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def make(connection: Any, kind: int, handle: int, body: bytes, timeout_ns: int, *more: Any) -> Any:
            nonlocal now_ns
            if timeout_ns <= TIMEOUT_S * SA_TIME_ONE_SECOND:  # Not a thread's TRACK that waits for a change.
                seen.append((kind, timeout_ns / SA_TIME_ONE_SECOND))
                now_ns += SA_TIME_ONE_SECOND
            return method(connection, kind, handle, body, timeout_ns, *more)

        return make

    def requests_of(call: Callable[[], Any]) -> Requests:
        seen.clear()
        call()
        return list(seen)

    monkeypatch.setattr("ckpt_client.io.time_limit._monotonic_ns", lambda: now_ns)
    monkeypatch.setattr(AsyncConnection, "start", noting(AsyncConnection.start))
    monkeypatch.setattr(Connection, "call", noting(Connection.call))
    return requests_of


def counting_down(*kinds: int, seconds: int = TIMEOUT_S) -> Requests:
    """Return requests of which each gets the time that the earlier ones have left."""
    return [(kind, seconds - earlier) for earlier, kind in enumerate(kinds)]


@pytest.fixture
def node(start: Start) -> FakeNode:
    """A node that serves TRACK."""
    node = start()
    node.misbehave = tracked()
    return node


@pytest.fixture(autouse=True)
def filled(node: FakeNode, initialize: Initialize) -> None:
    """A checkpoint whose sections fill two pages."""
    checkpoint = opened(initialize(node))
    for number in range(node.service.page_sections + 1):
        checkpoint.section_create(f"k{number}")


@pytest.fixture(params=SHELLS)
def quiet(
    request: pytest.FixtureRequest, node: FakeNode, requests_of: Callable[..., Requests]
) -> Iterator[Quiet]:
    """The same checkpoint as a table, by either shell."""
    table = Quiet(request.param, NAME, address=node.url, timeout=TIMEOUT_S)
    yield table
    table.close()
    for tracking in trackings:
        tracking.stop()
    trackings.clear()


trackings: list[Tracking] = []
"""What `track` has begun. It is stopped with the test, since its thread then makes requests, too."""


def track(quiet: Quiet) -> None:
    """Begin to track, until the table is closed or the test is over."""
    if isinstance(quiet.table, AsyncTable):
        quiet.do("track")
    else:
        trackings.append(quiet.table.track(lambda changes: None))


def second_open(quiet: Quiet) -> tuple[int, ...]:
    """Return the request with which `Table.track` opens the checkpoint for itself."""
    return () if isinstance(quiet.table, AsyncTable) else (Kind.OPEN,)


def test_track_of_a_table(quiet: Quiet, requests_of: Callable[..., Requests]) -> None:
    """Each request had the whole time-out: a table with many pages of sections took many times as long."""
    expected = counting_down(*second_open(quiet), Kind.TRACK, Kind.ITERATE, Kind.ITERATE)
    assert requests_of(lambda: track(quiet)) == expected


def test_track_of_a_table_that_has_to_be_opened_again(
    quiet: Quiet, requests_of: Callable[..., Requests]
) -> None:
    quiet.table._operations.handle = 0  # It could not be opened again when its node was lost.
    expected = counting_down(Kind.OPEN, *second_open(quiet), Kind.TRACK, Kind.ITERATE, Kind.ITERATE)
    assert requests_of(lambda: track(quiet)) == expected


def test_track_of_an_async_table_that_learns_then_that_its_session_has_ended(
    node: FakeNode, requests_of: Callable[..., Requests]
) -> None:
    quiet = Quiet("asyncio", NAME, address=node.url, timeout=TIMEOUT_S)
    end_all(node.service)
    assert requests_of(quiet.track) == counting_down(
        Kind.TRACK, Kind.OPEN, Kind.TRACK, Kind.ITERATE, Kind.ITERATE
    )
    quiet.close()


def test_track_of_an_unlinked_table(node: FakeNode, requests_of: Callable[..., Requests]) -> None:
    """The question whether the table itself is still open is part of the call."""
    quiet = Quiet("blocking", NAME, address=node.url, timeout=TIMEOUT_S)
    quiet.do("unlink")

    def track() -> None:
        with pytest.raises(CheckpointError, match="cannot track"):
            quiet.track()

    assert requests_of(track) == counting_down(Kind.OPEN, Kind.STATUS)
    quiet.close()


def test_read_all(quiet: Quiet, node: FakeNode, requests_of: Callable[..., Requests]) -> None:
    def two_pages(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        after = unpack_body(frame.body)[2] if frame.kind == Kind.ITERATE else None
        if frame.kind == Kind.ITERATE:
            key = b"k0" if after is None else b"k1"
            page = [[key, SA_TIME_END, 1, 1, 5, b"v"]]
            link.answer(frame.a, answer_ok([page, key if after is None else None]))
        return frame.kind == Kind.ITERATE

    node.misbehave = two_pages
    assert quiet.do("read_all") == {b"k0": b"v", b"k1": b"v"}
    assert requests_of(lambda: quiet.do("read_all")) == counting_down(Kind.ITERATE, Kind.ITERATE)
    assert requests_of(lambda: quiet.do("read_all", 7.0)) == counting_down(
        Kind.ITERATE, Kind.ITERATE, seconds=7
    )


def test_closing_shared_async_tables_at_a_node_that_does_not_serve(
    node: FakeNode, requests_of: Callable[..., Requests]
) -> None:
    """The last one ends the session too, after its CLOSE: it waited for both, and so for up to 2 s."""

    def refuse(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind in (Kind.CLOSE, Kind.DETACH):
            link.answer(frame.a, answer_error(codes.TIMEOUT))
        return frame.kind in (Kind.CLOSE, Kind.DETACH)

    async def close_both() -> None:
        tables = [await AsyncTable.open(NAME, address=node.url, timeout=TIMEOUT_S + 1) for _ in range(2)]
        node.misbehave = refuse
        await asyncio.gather(*(table.close() for table in tables))

    made = requests_of(lambda: asyncio.run(close_both()))
    assert made == [(Kind.CLOSE, 1.0), (Kind.CLOSE, 1.0)]


def test_track_of_a_saf_checkpoint(
    node: FakeNode, initialize: Initialize, requests_of: Callable[..., Requests]
) -> None:
    library = initialize(node, timeout_ns=TIMEOUT_S * SA_TIME_ONE_SECOND)
    checkpoint = library.checkpoint_open(NAME, READ)
    expected = counting_down(Kind.TRACK, Kind.ITERATE, Kind.ITERATE)
    assert requests_of(lambda: checkpoint.track(lambda *_: None)) == expected


def test_track_of_an_async_saf_checkpoint(node: FakeNode, requests_of: Callable[..., Requests]) -> None:
    async def track() -> None:
        timeout_ns = TIMEOUT_S * SA_TIME_ONE_SECOND
        library = await AsyncCheckpointService.initialize(address=node.url, timeout_ns=timeout_ns)
        checkpoint = await library.checkpoint_open(NAME, READ)
        await checkpoint.track()
        await checkpoint.track(5 * SA_TIME_ONE_SECOND)

    tracking = Kind.TRACK, Kind.ITERATE, Kind.ITERATE
    opening = [(Kind.PING, TIMEOUT_S), (Kind.OPEN, TIMEOUT_S)]
    made = requests_of(lambda: asyncio.run(track()))
    assert made == [*opening, *counting_down(*tracking), *counting_down(*tracking, seconds=5)]


class TrackingInstance:
    """A library instance of pyosaf with a callback for changes; its calls have 10 s."""

    def __init__(self, node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saCkpt: Any = make_modules()["pyosaf.saCkpt"]
        monkeypatch.setenv("CKPTD_ADDRESS", node.url)
        callbacks = self.saCkpt.SaCkptCallbacksT_2()
        callbacks.saCkptCheckpointTrackCallback = self.saCkpt.SaCkptCheckpointTrackCallbackT(lambda *_: None)
        self.library = self.saCkpt.SaCkptHandleT()
        self.call("Initialize_2", self.library, callbacks, self.saCkpt.SaVersionT("B", 2, 3))

    def call(self, name: str, *arguments: Any) -> None:
        """Make a call of which the name begins with saCkpt."""
        assert getattr(self.saCkpt, f"saCkpt{name}")(*arguments) == codes.OK

    def open(self, timeout_s: int) -> None:
        """Open the checkpoint for reading."""
        handle = self.saCkpt.SaCkptCheckpointHandleT()
        name = self.saCkpt.SaNameT(NAME)
        timeout_ns = timeout_s * SA_TIME_ONE_SECOND
        self.call("CheckpointOpen", self.library, name, None, READ, timeout_ns, ctypes.byref(handle))


@pytest.fixture
def instance(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrackingInstance]:
    """A library instance at the node."""
    instance = TrackingInstance(node, monkeypatch)
    yield instance
    instance.call("Finalize", instance.library)


def test_track_of_all_checkpoints_of_a_pyosaf_instance(
    instance: TrackingInstance, requests_of: Callable[..., Requests]
) -> None:
    for _ in range(2):
        instance.open(7)
    each = Kind.TRACK, Kind.ITERATE, Kind.ITERATE
    assert requests_of(lambda: instance.call("Track", instance.library)) == counting_down(
        *each, *each, seconds=10
    )


def test_opening_a_checkpoint_that_a_pyosaf_instance_then_tracks(
    instance: TrackingInstance, requests_of: Callable[..., Requests]
) -> None:
    instance.call("Track", instance.library)
    assert requests_of(lambda: instance.open(7)) == counting_down(
        Kind.OPEN, Kind.TRACK, Kind.ITERATE, Kind.ITERATE, seconds=7
    )


def test_a_pyosaf_open_whose_tracking_fails_does_not_wait_for_the_close(
    instance: TrackingInstance, node: FakeNode, requests_of: Callable[..., Requests]
) -> None:
    """It waited for the answer for as long as 10 s after its own time-out."""
    instance.call("Track", instance.library)
    returned = threading.Event()
    in_time: list[bool] = []

    def fail(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind == Kind.TRACK:
            link.answer(frame.a, answer_error(codes.ACCESS))
        elif frame.kind == Kind.CLOSE:
            in_time.append(returned.wait(5))
        return frame.kind == Kind.TRACK

    node.misbehave = fail
    with pytest.raises(AssertionError, match=str(codes.ACCESS)):
        instance.open(7)
    returned.set()
    until(lambda: in_time == [True])
    node.misbehave = tracked()


def test_opening_through_the_handle_of_an_asp_table(
    node: FakeNode, requests_of: Callable[..., Requests]
) -> None:
    """The first such call also makes a service for the table, which is asked whether it is there."""
    with AspTable(NAME, address=node.url) as table:

        def open_checkpoint() -> int:
            return asp.saCkptCheckpointOpen(table.svcHdl, NAME, None, READ, 7 * SA_TIME_ONE_SECOND)

        assert requests_of(open_checkpoint) == counting_down(Kind.PING, Kind.OPEN, seconds=7)
        assert requests_of(lambda: asp.saCkptCheckpointOpen(table.svcHdl, NAME, None, READ, 0)) == (
            counting_down(Kind.OPEN, seconds=10)
        )
