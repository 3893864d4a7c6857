"""A tracker's place in the order of updates, and what it makes of any answer, with a scripted service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ckpt_client import SaAisError
from ckpt_client.checkpoint import tracking
from ckpt_client.checkpoint.tracking import (
    OWN_MAX,
    TRACK_NS,
    Changes,
    OneByOne,
    OwnUpdates,
    SectionChangeT,
    Tracker,
    begin,
)
from ckpt_client.errors import error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests.table_requests import page_of
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.messages import Kind

CREATED, WRITTEN, OVERWRITTEN, DELETED, EXPIRED, *_ = SectionChangeT
LIBRARY = SaAisErrorT.SA_AIS_ERR_LIBRARY
NO_ACTIVE = error_of(codes.NOT_EXIST, "there is no active replica")
DEAD = error_of(codes.BAD_HANDLE, "closed")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "RETRY_S", 0)


def row(sequence: int, kind: int, section_id: bytes, size: int = 1, own: int = 0) -> list[Any]:
    """A change as TRACK's answer holds it."""
    return [sequence, int(kind), section_id, 0, size, own]


def page(*section_ids: bytes, after: bytes | None = None) -> list[Any]:
    """ITERATE's answer: sections of 3 bytes."""
    return [[[section_id, 9, 3, 1, 5, None] for section_id in section_ids], after]


def plain(changes: list[tracking.SectionChange]) -> list[tuple[int, int, bytes]]:
    """Changes without offsets and sizes."""
    return [(change.sequence, change.change, change.section_id) for change in changes]


class Script:
    """A service that answers what is written: payloads or errors, in order; then the handle is dead."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, Any, int]] = []

    async def __call__(self, kind: int, body: bytes, timeout_ns: int) -> Any:
        self.asked.append((kind, unpack_body(body), timeout_ns))
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if self.answers else DEAD
        if isinstance(answer, SaAisError):
            raise error_of(answer.code, answer.text, answer.index)
        return answer

    @property
    def kinds(self) -> list[int]:
        """What was asked, in order."""
        return [kind for kind, _, _ in self.asked]


async def lists_of(changes: AsyncIterator[list[Any]], code: int = codes.BAD_HANDLE) -> list[Any]:
    """All lists until the end, which is an error of this code."""
    lists: list[Any] = []
    with pytest.raises(SaAisError) as caught:
        async for some in changes:
            lists += [plain(some)]
    assert caught.value.code == code, caught.value
    return lists


# -- the tracker


def test_a_new_tracker_asks_for_the_current_position() -> None:
    tracker = Tracker()
    assert unpack_body(tracker.body) == [None, 0]
    assert tracker.take([7, [], 3]) == []
    assert unpack_body(tracker.body) == [7, 3]
    assert tracker.take([9, [], 4, True, "of a later version"]) == []
    assert unpack_body(tracker.body) == [9, 4]


def test_a_write_that_creates_a_missing_section_is_reported_as_created() -> None:
    tracker = Tracker()
    tracker.start([b"there"])
    changes = tracker.take(
        [
            5,
            [
                row(1, OVERWRITTEN, b"there"),
                row(2, OVERWRITTEN, b"new"),
                row(3, WRITTEN, b"new"),
                row(4, DELETED, b"new", 0),
                row(5, WRITTEN, b"new"),
            ],
            0,
        ]
    )
    assert plain(changes) == [
        (1, OVERWRITTEN, b"there"),
        (2, CREATED, b"new"),
        (3, WRITTEN, b"new"),
        (4, DELETED, b"new"),
        (5, CREATED, b"new"),
    ]
    assert all(type(change.change) is SectionChangeT for change in changes)


def test_own_updates_are_passed_over_but_known() -> None:
    own = OwnUpdates()
    tracker = Tracker(own)
    for number in (11, 12, 13):
        own.note(number)
    changes = tracker.take(
        [
            9,
            [
                row(1, OVERWRITTEN, b"mine", own=11),
                row(2, OVERWRITTEN, b"mine"),
                row(3, DELETED, b"mine", own=12),
                row(4, OVERWRITTEN, b"mine", own=14),
                row(5, EXPIRED, b"mine", own=13),
                row(6, WRITTEN, b"mine"),
            ],
            0,
        ]
    )
    assert plain(changes) == [(2, OVERWRITTEN, b"mine"), (4, CREATED, b"mine"), (6, CREATED, b"mine")]


def test_so_many_own_updates_are_remembered() -> None:
    own = OwnUpdates()
    for number in range(OWN_MAX + 5):
        own.note(number)
    assert 4 not in own and 5 in own and OWN_MAX + 4 in own
    assert len(own._numbers) == OWN_MAX


def test_sequences_never_fall() -> None:
    """An asynchronous checkpoint lost its last updates: what is there now has lower numbers."""
    tracker = Tracker()
    tracker.take([10, [row(10, WRITTEN, b"k")], 1])
    assert tracker.take([8, None, 2]) == [] and tracker.needs_full_scan
    assert unpack_body(tracker.body) == [8, 2], "asked is from where the service is"
    looked = tracker.scan_page(page_of(page(b"k", b"l"))[0])
    assert plain(looked) == [(10, OVERWRITTEN, b"k"), (10, CREATED, b"l")]
    assert [change.data_size for change in looked] == [3, 3]
    assert plain(tracker.finish_scan({b"k", b"l"})) == []
    told = tracker.take([12, [row(9, WRITTEN, b"k"), row(12, WRITTEN, b"k")], 2])
    assert plain(told) == [(10, WRITTEN, b"k"), (12, WRITTEN, b"k")]


def test_a_full_scan_finds_which_sections_are_gone() -> None:
    tracker = Tracker()
    tracker.start([b"c", b"a", b"b"])
    tracker.take([5, None, 0])
    tracker.scan_page(page_of(page(b"b"))[0])
    assert tracker.needs_full_scan
    gone = tracker.finish_scan({b"b"})
    assert plain(gone) == [(5, DELETED, b"a"), (5, DELETED, b"c")]
    assert [(change.data_offset, change.data_size) for change in gone] == [(0, 0)] * 2
    assert not tracker.needs_full_scan
    assert tracker.finish_scan({b"b"}) == [], "it is told once"


@pytest.mark.parametrize(
    "garbage",
    [
        None, 5, "abc", [], [1], [1, []], {}, {"a": 1}, [None, [], 0], ["x", [], 0], [float("inf"), [], 0],
        [float("nan"), [], 0], [1, 5, 0], [1, [5], 0], [1, [[]], 0], [1, [[1, 2, b"k", 0, 0]], 0],
        [1, [[1, 99, b"k", 0, 0, 0]], 0], [1, [[1, 0, b"k", 0, 0, 0]], 0], [1, [[None, 2, b"k", 0, 0, 0]], 0],
        [1, [[1, 2, [], 0, 0, 0]], 0], [1, [[1, 2, b"k", 0, 0, []]], 0], [1, [], None],
    ],
)  # fmt: skip
def test_an_answer_that_no_daemon_gives_is_an_error_of_the_library(garbage: Any) -> None:
    """An infinite number came out as an OverflowError."""
    with pytest.raises(SaAisError) as caught:
        Tracker().take(garbage)
    assert caught.value.code == LIBRARY


# -- begin


async def test_beginning_learns_which_sections_are_there() -> None:
    script = Script([7, [], 2], page(b"a", b"b", after=b"b"), page(b"c"))
    tracker = Tracker()
    await begin(script, tracker, TimeLimit(None, 123))
    assert [body for _, body, _ in script.asked] == [[None, 0], [5, 0, None, False], [5, 0, b"b", False]]
    told = tracker.take([8, [row(8, OVERWRITTEN, b"c"), row(8, OVERWRITTEN, b"d")], 2])
    assert plain(told) == [(8, OVERWRITTEN, b"c"), (8, CREATED, b"d")]


async def test_without_an_active_replica_everything_will_be_new() -> None:
    script = Script(NO_ACTIVE)
    tracker = Tracker()
    await begin(script, tracker, TimeLimit(None, TRACK_NS))
    assert script.kinds == [Kind.TRACK]
    assert unpack_body(tracker.body) == [0, 0]


@pytest.mark.parametrize("code", [codes.TRY_AGAIN, codes.TIMEOUT, codes.BAD_HANDLE, codes.ACCESS])
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_an_error_that_prevents_the_beginning_is_raised(code: int, place: int) -> None:
    answers: list[Any] = [[7, [], 2], page(b"a", after=b"a"), page(b"b")]
    answers[place] = error_of(code)
    with pytest.raises(SaAisError) as caught:
        await begin(Script(*answers), Tracker(), TimeLimit(None, TRACK_NS))
    assert caught.value.code == code


# -- follow


async def test_changes_are_followed_from_place_to_place() -> None:
    script = Script([1, [row(1, WRITTEN, b"k")], 0], [1, [], 0], [3, [row(3, DELETED, b"k", 0)], 0])
    assert await lists_of(Changes(script, Tracker())) == [[(1, CREATED, b"k")], [(3, DELETED, b"k")]]
    assert [body for _, body, _ in script.asked] == [[None, 0], [1, 0], [1, 0], [3, 0]]
    assert {limit for _, _, limit in script.asked} == {TRACK_NS}


async def test_no_request_is_made_while_the_program_does_not_take_the_changes() -> None:
    """A tracker that is slow costs the service nothing, and holds one list."""
    script = Script(*([n, [row(n, WRITTEN, b"k")], 0] for n in range(1, 9)))
    changes = Changes(script, Tracker())
    await anext(changes)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(script.asked) == 1
    assert plain(await anext(changes)) == [(2, WRITTEN, b"k")]


@pytest.mark.parametrize(
    "error",
    [
        error_of(codes.TRY_AGAIN),
        error_of(codes.TIMEOUT),
        error_of(codes.UNAVAILABLE),
        error_of(codes.NO_RESOURCES),
        NO_ACTIVE,
    ],
)
async def test_tracking_waits_and_continues_while_no_node_serves(error: SaAisError) -> None:
    script = Script([5, [row(5, WRITTEN, b"k")], 1], error, error, error, [6, [row(6, WRITTEN, b"k")], 1])
    told = await lists_of(Changes(script, Tracker()))
    assert told == [[(5, CREATED, b"k")], [(6, WRITTEN, b"k")]]
    assert [body for _, body, _ in script.asked][1:5] == [[5, 1]] * 4


@pytest.mark.parametrize("later", [error_of(codes.TRY_AGAIN), error_of(codes.UNAVAILABLE)])
async def test_what_was_lost_is_opened_again_once_however_long_no_node_serves(later: SaAisError) -> None:
    """Each attempt to find its place left one more open handle behind, until the session had no more."""
    script = Script(
        [5, [row(5, WRITTEN, b"k")], 1], DEAD, later, later, later, [9, [], 2], DEAD, later, [11, [], 3]
    )
    reopened = 0

    async def reopen(within: TimeLimit | None) -> None:
        nonlocal reopened
        reopened += 1

    changes = Changes(script, Tracker(), reopen=reopen)
    assert plain(await anext(changes)) == [(5, CREATED, b"k")]
    assert [change.change for change in await anext(changes)] == [SectionChangeT.RESUMED]
    assert reopened == 1
    assert [change.change for change in await anext(changes)] == [SectionChangeT.RESUMED]
    assert reopened == 2


async def test_a_handle_that_is_dead_whenever_it_is_opened_is_not_opened_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses, reopened = 0, 0

    async def sleep(seconds: float) -> None:
        nonlocal pauses
        pauses += seconds == 7

    async def reopen(within: TimeLimit | None) -> None:
        nonlocal reopened
        reopened += 1

    monkeypatch.setattr(tracking, "RETRY_S", 7)
    monkeypatch.setattr(tracking.asyncio, "sleep", sleep)
    script = Script(DEAD, DEAD, DEAD, DEAD, [9, [], 2])
    await anext(Changes(script, Tracker(), reopen=reopen))
    assert (reopened, pauses) == (4, 3)


@pytest.mark.parametrize("code", [codes.BAD_HANDLE, codes.ACCESS, LIBRARY, codes.NOT_SUPPORTED])
async def test_what_will_not_pass_ends_it(code: int) -> None:
    script = Script([1, [row(1, WRITTEN, b"k")], 0], error_of(code), [2, [row(2, WRITTEN, b"k")], 0])
    assert len(await lists_of(Changes(script, Tracker()), code)) == 1


async def test_a_section_that_is_missing_is_no_missing_replica() -> None:
    script = Script(error_of(codes.NOT_EXIST, "no such section", 0))
    assert await lists_of(Changes(script, Tracker()), codes.NOT_EXIST) == []


async def test_garbage_ends_it() -> None:
    assert await lists_of(Changes(Script([1, 5, 0]), Tracker()), LIBRARY) == []
    assert await lists_of(Changes(Script([1, None, 0], [5, 5]), Tracker()), LIBRARY) == []


async def test_a_full_scan_reads_all_pages_and_continues_from_there() -> None:
    tracker = Tracker()
    tracker.start([b"a", b"gone"])
    script = Script(
        [9, None, 1],
        page(b"a", b"b", after=b"b"),
        page(after=b"bb"),
        page(b"c"),
        [10, [row(10, DELETED, b"a")], 1],
    )
    assert await lists_of(Changes(script, tracker)) == [
        [(9, OVERWRITTEN, b"a"), (9, CREATED, b"b")],
        [(9, CREATED, b"c"), (9, DELETED, b"gone")],
        [(10, DELETED, b"a")],
    ]
    assert [body for _, body, _ in script.asked][1:4] == [
        [5, 0, None, False], [5, 0, b"b", False], [5, 0, b"bb", False],
    ]  # fmt: skip
    assert [body for kind, body, _ in script.asked if kind == Kind.TRACK][1:] == [[9, 1], [10, 1]]


@pytest.mark.parametrize("error", [error_of(codes.TRY_AGAIN), NO_ACTIVE, error_of(codes.TIMEOUT)])
@pytest.mark.parametrize("failing", [1, 2])
async def test_a_full_scan_begins_again_where_a_page_fails(error: SaAisError, failing: int) -> None:
    """What went before the failure must be found gone as well, if it went meanwhile."""
    tracker = Tracker()
    tracker.start([b"a", b"b", b"c"])
    answers: list[Any] = [[9, None, 1], page(b"a", after=b"a"), page(b"b", after=b"b")]
    answers[failing:] = [error, error, page(b"b", after=b"b"), page(b"d"), [9, [], 1]]
    script = Script(*answers)
    told = await lists_of(Changes(script, tracker))
    assert told[-2:] == [
        [(9, OVERWRITTEN, b"b")],
        [(9, CREATED, b"d"), (9, DELETED, b"a"), (9, DELETED, b"c")],
    ]
    tracks = [place for place, kind in enumerate(script.kinds) if kind == Kind.TRACK]
    assert tracks == [0, len(answers) - 1, len(answers)], "nothing else is asked before all was looked at"


async def test_a_full_scan_that_finds_no_section_reports_nothing() -> None:
    assert await lists_of(Changes(Script([9, None, 1], page(), [9, [], 1]), Tracker())) == []


async def test_what_is_cancelled_takes_no_change_along() -> None:
    """They came from a generator, which ends where it is cancelled: whoever waited for the next change for a
    second at the most heard of none from then on, and of no error."""
    tracker = Tracker()
    tracker.start([b"gone"])
    script = Script(
        [1, [row(1, WRITTEN, b"k"), row(1, WRITTEN, b"j")], 0],
        [9, None, 1],
        page(b"a", after=b"a"),
        page(b"b", b"k"),
        [10, [row(10, DELETED, b"a")], 1],
    )
    changes = OneByOne(Changes(script, tracker))
    told = []
    while len(told) < 8:
        cancelled = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        if cancelled.cancel():
            await asyncio.wait([cancelled])
            told.append(await anext(changes))
        else:
            told.append(cancelled.result())
    assert plain(told) == [
        (1, CREATED, b"k"),
        (1, CREATED, b"j"),
        (9, CREATED, b"a"),
        (9, CREATED, b"b"),
        (9, OVERWRITTEN, b"k"),
        (9, DELETED, b"gone"),
        (9, DELETED, b"j"),
        (10, DELETED, b"a"),
    ]


async def test_a_cancelled_tracking_ends_while_no_node_serves() -> None:
    script = Script(*[error_of(codes.TRY_AGAIN)] * 1_000_000)
    task = asyncio.ensure_future(lists_of(Changes(script, Tracker())))
    while len(script.asked) < 10:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
