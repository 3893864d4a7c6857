"""Following a checkpoint's changes, so that a standby learns what to read.

Pure, but for the coroutines that ask. TRACK is a read that waits: it names the place in the checkpoint's
order of updates up to which everything is known, and is answered with what came behind it. So nothing is
missed over a lost connection or a fail-over, and a tracker that is slow costs the service nothing: what it
was not told is no longer queued anywhere, but found in the updates that the replica still holds. Where
those do not reach back so far (or an asynchronous checkpoint has another active replica) every section
counts as overwritten, and those that are gone as deleted.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, Final, NamedTuple, NoReturn, Self

from ckpt_client.errors import CheckpointEnded, SaAisError
from ckpt_client.session import table_requests
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_protocol import codes
from ckpt_protocol.answers import Changed, parse_changes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import FrameError
from ckpt_protocol.messages import Kind

TRACK_NS: Final = 30_000 * MILLISECOND_NS
"""How long one TRACK is waited for.

The service answers after 10 s at the latest, with or without a change.
"""

AGAIN_S: Final = 0.25
"""The pause before TRACK is repeated where no node serves."""

OWN_MAX: Final = 10_000
"""So many of a handle's own updates are known to be its own."""

_WAITS: Final = (codes.TRY_AGAIN, codes.TIMEOUT, codes.UNAVAILABLE, codes.NO_RESOURCES)

AskOne = Callable[[int, bytes, int], Awaitable[Any]]
"""Makes one request (kind, body, time-out in ns) on the open checkpoint; returns the answer's payload.

Raises: SaAisError, BAD_HANDLE once the session has ended.
"""

Fail = Callable[[SaAisError], NoReturn]
"""Raises what an error of the service's is to the program."""

Reopen = Callable[[], Awaitable[None]]
"""Opens the same checkpoint again, in a new session.

Raises: SaAisError, NOT_EXIST where there is none that is the same.
"""


class SectionChangeT(IntEnum):
    """What became of a section. (The service's own: B.02.02 has no tracking.)

    Two are about the tracking itself, and name no section. RESUMED: it goes on in a new session, and
    something may have been missed; every section follows as OVERWRITTEN, and those that are gone as DELETED.
    ENDED: it is the last that is told.
    """

    CREATED = 1
    WRITTEN = 2
    OVERWRITTEN = 3
    DELETED = 4
    EXPIRED = 5
    RESUMED = 6
    ENDED = 7


_GONE: Final = (SectionChangeT.DELETED, SectionChangeT.EXPIRED)


class SectionChange(NamedTuple):
    """What became of one section, or of the tracking. Whoever tracks learns of it, and reads what it needs.

    `sequence`: the place of its update in the checkpoint's one order of updates, the same for whoever tracks;
    it never falls. `data_offset` and `data_size`: what was written, in bytes; 0 and 0 of a section that went.
    """

    sequence: int
    change: SectionChangeT
    section_id: bytes
    data_offset: int
    data_size: int


class OwnUpdates:
    """Which requests were made by the tracking handle itself: their changes are no news to it."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def note(self, number: int) -> None:
        """An update is about to be asked for."""
        self._numbers[number] = None
        if len(self._numbers) > OWN_MAX:
            del self._numbers[next(iter(self._numbers))]

    def __contains__(self, number: object) -> bool:
        return number in self._numbers


class Tracker:
    """One place in a checkpoint's order of updates, and the sections that are there as far as was told.

    `blind`: all sections are to be looked at, from the first page to the last, before anything else is asked.
    """

    def __init__(self, own: OwnUpdates | None = None) -> None:
        self._own = own if own is not None else OwnUpdates()
        self._sequence: int | None = None
        self._tenure = 0
        self._told = 0
        self.blind = False
        self._known: set[bytes] = set()

    @property
    def body(self) -> bytes:
        """What TRACK asks: what came behind the place; at first: which place is the present."""
        return pack_body([self._sequence, self._tenure])

    def take(self, payload: Any) -> list[SectionChange]:
        """TRACK's answer: the changes. From then on `blind`, where all sections are to be looked at."""
        try:
            sequence, rows, tenure = parse_changes(payload)
            for row in rows or ():
                SectionChangeT(row.change)
        except (FrameError, ValueError):
            table_requests.misread("TRACK")
        self._sequence, self._tenure = sequence, tenure
        self.blind = rows is None
        return [self._change(*row[:5]) for row in rows or () if not self._is_own(row)]

    def lose_place(self) -> None:
        """The tracking goes on in a new session: TRACK asks again which place is the present."""
        self._sequence, self._tenure = None, 0

    def resume(self) -> SectionChange:
        """The place is found: all sections are to be looked at."""
        self.blind = True
        return self.about(SectionChangeT.RESUMED)

    def about(self, what: SectionChangeT) -> SectionChange:
        """A change of the tracking itself."""
        return SectionChange(self._told, what, b"", 0, 0)

    def _is_own(self, row: Changed) -> bool:
        own = row[5] in self._own
        if own:
            self._know(row[2], row[1] not in _GONE)
        return own

    def _change(self, sequence: int, kind: int, section_id: bytes, offset: int, size: int) -> SectionChange:
        change = SectionChangeT(kind)
        if change not in _GONE and section_id not in self._known:
            change = SectionChangeT.CREATED  # What creates where it is missing does not say which it did.
        self._know(section_id, change not in _GONE)
        # What an asynchronous checkpoint lost was told, and is told again as what is there now.
        sequence = self._told = max(sequence, self._told)
        return SectionChange(sequence, change, section_id, offset, size)

    def _know(self, section_id: bytes, there: bool) -> None:
        if there:
            self._known.add(section_id)
        else:
            self._known.discard(section_id)

    def begin(self, section_ids: list[bytes]) -> None:
        """These are there already, and no news."""
        self._known.update(section_ids)

    def look(self, sections: list[table_requests.SectionDescriptor]) -> list[SectionChange]:
        """A page of sections that may all have changed."""
        sequence = self._sequence or 0
        return [
            self._change(sequence, SectionChangeT.OVERWRITTEN, section.section_id, 0, section.size_bytes)
            for section in sections
        ]

    def end_look(self, found: set[bytes]) -> list[SectionChange]:
        """All sections were looked at: what was not found among them is gone."""
        sequence = self._sequence or 0
        self.blind = False
        gone = sorted(self._known - found)
        return [self._change(sequence, SectionChangeT.DELETED, section_id, 0, 0) for section_id in gone]


async def begin(ask: AskOne, tracker: Tracker, timeout_ns: int = TRACK_NS) -> None:
    """Find the place from which changes are told. `timeout_ns`: of each request. Raises: SaAisError.

    Where there is no active replica yet, all that it brings will be new.
    """
    if not await _find_place(ask, tracker, timeout_ns):
        return
    after: bytes | None = None
    while True:
        page, after = await _page(ask, after, timeout_ns)
        tracker.begin([section.section_id for section in page])
        if after is None:
            return


async def _find_place(ask: AskOne, tracker: Tracker, timeout_ns: int) -> bool:
    """Ask which place is the present. Return False if there is no active replica yet."""
    try:
        tracker.take(await ask(Kind.TRACK, tracker.body, timeout_ns))
    except SaAisError as error:
        if not _is_without_active(error):
            raise
        tracker.take([0, [], 0])
        return False
    return True


class Changes:
    """The changes behind `begin`, in order: an async iterator over lists of those that came together, none
    empty.

    A cancelled `anext` takes nothing along: the next one begins where it began. Where the handle is dead
    (BAD_HANDLE) it goes on by `reopen`, and says so. It raises what `fail` makes of a SaAisError where that
    cannot be, or the service cannot do it at all.
    """

    def __init__(
        self, ask: AskOne, tracker: Tracker, fail: Fail | None = None, reopen: Reopen | None = None
    ) -> None:
        self._ask = ask
        self._tracker = tracker
        self._fail = fail
        self._reopen = reopen
        self._lost = self._without_place = False
        self._found: set[bytes] = set()
        self._after: bytes | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[SectionChange]:
        while True:
            try:
                begins_again = self._lost or self._without_place
                changes = await (self._resume() if begins_again else self._take())
            except SaAisError as error:
                if error.code == codes.BAD_HANDLE and self._reopen is not None and not self._lost:
                    self._lost = True
                    continue
                waits = error.code in _WAITS or _is_without_active(error)
                if not waits:
                    if self._fail is not None:
                        self._fail(error)
                    raise
                self._found, self._after = set(), None
                await asyncio.sleep(AGAIN_S)
                continue
            if changes:
                return changes

    def ended(self) -> SectionChange:
        """What tells the program that nothing more is told."""
        return self._tracker.about(SectionChangeT.ENDED)

    async def _resume(self) -> list[SectionChange]:
        """Continue in a new session.

        The handle is opened again once: where the place is not found yet, the next attempt looks for it with
        the same handle. It opened another one at each attempt, four in a second while no node served.
        """
        if self._lost:
            assert self._reopen is not None, "lost with no way back"
            await self._reopen()
            self._lost, self._without_place = False, True
        self._tracker.lose_place()
        await _find_place(self._ask, self._tracker, TRACK_NS)
        self._without_place = False
        self._found, self._after = set(), None
        return [self._tracker.resume()]

    async def _take(self) -> list[SectionChange]:
        """What one request brings: the answer to a TRACK, or a page of all sections."""
        tracker = self._tracker
        if not tracker.blind:
            return tracker.take(await self._ask(Kind.TRACK, tracker.body, TRACK_NS))
        page, self._after = await _page(self._ask, self._after, TRACK_NS)
        self._found.update(section.section_id for section in page)
        changes = tracker.look(page)
        if self._after is None:
            changes += tracker.end_look(self._found)
            self._found = set()
        return changes


async def track(
    ask: AskOne,
    timeout_ns: int,
    own: OwnUpdates | None = None,
    fail: Fail | None = None,
    reopen: Reopen | None = None,
) -> Changes:
    """The changes from now on: begun when this returns. `timeout_ns`: of each request until then.

    Raises: SaAisError, or what `fail` makes of it.
    """
    tracker = Tracker(own)
    try:
        try:
            await begin(ask, tracker, timeout_ns)
        except SaAisError as error:
            if error.code != codes.BAD_HANDLE or reopen is None:
                raise
            await reopen()
            tracker = Tracker(own)
            await begin(ask, tracker, timeout_ns)
    except SaAisError as error:
        if fail is not None:
            fail(error)
        raise
    return Changes(ask, tracker, fail, reopen)


class OneByOne:
    """Each change by itself. (No generators, here and above: those end where a task is cancelled.)"""

    def __init__(self, lists: Changes) -> None:
        self._lists = lists
        self._left: deque[SectionChange] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SectionChange:
        while not self._left:
            self._left.extend(await anext(self._lists))
        return self._left.popleft()


def _is_without_active(error: SaAisError) -> bool:
    return error.code == codes.NOT_EXIST and error.index < 0 and not isinstance(error, CheckpointEnded)


async def _page(
    ask: AskOne, after: bytes | None, timeout_ns: int
) -> tuple[list[table_requests.SectionDescriptor], bytes | None]:
    return table_requests.page_of(
        await ask(Kind.ITERATE, table_requests.iterate_body(after, False), timeout_ns)
    )
