"""Follow a checkpoint's changes, so that a standby learns what to read.

Pure, except for the coroutines that make requests. TRACK is a read that waits: it names the position in the
checkpoint's sequence of updates up to which the client knows everything, and the answer lists what came after
it. So a lost connection or a fail-over loses no change. A slow tracker costs the service nothing either: the
changes that it has not received are queued nowhere, since the replica still holds the updates.

If those updates do not reach back far enough (or an asynchronous checkpoint has another active replica),
every section counts as overwritten, and every section that is gone as deleted.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, Final, Generic, NamedTuple, NoReturn, Self

from ckpt_client.codecs import V
from ckpt_client.errors import CheckpointEnded, SaAisError
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests import mapping_requests, table_requests
from ckpt_client.requests.chosen import ALL, Chosen
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import Changed

TRACK_NS: Final = 30_000 * MILLISECOND_NS
"""The time-out of one TRACK. The service answers after 10 s at the latest, with or without a change."""

RETRY_S: Final = 0.25
"""The pause before TRACK is repeated while no node serves."""

OWN_MAX: Final = 10_000
"""How many of its own updates a handle remembers as its own."""

WAITS: Final = (codes.TRY_AGAIN, codes.TIMEOUT, codes.UNAVAILABLE, codes.NO_RESOURCES)
"""The codes after which a tracking waits, and asks again."""

AskOne = Callable[[int, bytes, int], Awaitable[Any]]
"""Makes one request (kind, body, time-out in ns) on the open checkpoint; returns the answer's payload.

Raises: SaAisError, BAD_HANDLE once the session has ended.
"""

Fail = Callable[[SaAisError], NoReturn]
"""Raises the error that the program gets for an error of the service."""

Reopen = Callable[[TimeLimit | None], Awaitable[None]]
"""Opens the same checkpoint again, in a new session, within a time limit (None: the table's time-out).

Raises: SaAisError, NOT_EXIST if that checkpoint is gone.
"""


class SectionChangeT(IntEnum):
    """What happened to a section. (This is our own: B.02.02 has no tracking.)

    RESUMED and ENDED are about the tracking itself, and name no section.
    """

    CREATED = 1
    WRITTEN = 2
    OVERWRITTEN = 3
    DELETED = 4
    EXPIRED = 5
    RESUMED = 6
    """The tracking continues in a new session, and changes may have been missed.

    Every section follows as OVERWRITTEN, and every section that is gone as DELETED.
    """

    ENDED = 7
    """The tracking has ended; this is the last change."""


_GONE: Final = (SectionChangeT.DELETED, SectionChangeT.EXPIRED)


class _Fields(NamedTuple):
    sequence: int
    """The position of the update in the checkpoint's sequence of updates.

    It is the same for every tracker, and it never falls.
    """

    change: SectionChangeT
    section_id: bytes
    data_offset: int
    """Where the written bytes begin; 0 for a section that is gone."""

    data_size: int
    """How many bytes were written; 0 for a section that is gone."""


class SectionChange(_Fields, Generic[V]):
    """What happened to one section, or to the tracking. As a tuple it has the five fields above.

    With `track(values=True)` it has the section's `content`, and its `value`, which is what the table's codec
    makes of the content.
    """

    content: bytes | None = None
    """The section's content after this change, or a newer one, if values were asked for.

    None if they were not, if the section is gone by then, or if it is corrupted.
    """

    decode: Callable[[bytes, bytes], V] | None = None
    """What makes a typed table's value of section id and content."""

    @property
    def value(self) -> V | None:
        """The section's value, if there is a `content`. Raises: UndecodableValue."""
        if self.content is None or self.decode is None:
            return None
        return self.decode(self.section_id, self.content)


class OwnUpdates:
    """The numbers of the updates that the tracking handle made itself, whose changes it does not report."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def note(self, number: int) -> None:
        """Remember the number of an update that is about to be sent."""
        self._numbers[number] = None
        if len(self._numbers) > OWN_MAX:
            del self._numbers[next(iter(self._numbers))]

    def __contains__(self, number: object) -> bool:
        return number in self._numbers


class Tracker:
    """A position in a checkpoint's sequence of updates, and the sections that exist as far as we know."""

    def __init__(
        self,
        own: OwnUpdates | None = None,
        chosen: Chosen = ALL,
        decode: Callable[[bytes, bytes], Any] | None = None,
    ) -> None:
        self._own = own if own is not None else OwnUpdates()
        self.chosen = chosen
        self._decode = decode
        self._sequence: int | None = None
        self._lineage = 0
        self._told = 0
        self.needs_full_scan = False
        """All sections have to be read, from the first page to the last, before the next TRACK."""

        self._known: set[bytes] = set()

    @property
    def body(self) -> bytes:
        """The body of TRACK, which asks what came after our position; at first, what the position is now."""
        return self.chosen.body(self._sequence, self._lineage)

    @property
    def position(self) -> int:
        """The position up to which the changes are known; -1 before the first, or during a full scan."""
        return -1 if self._sequence is None or self.needs_full_scan else self._sequence

    def take(self, payload: Any) -> list[SectionChange[Any]]:
        """Take the answer to TRACK; return its changes. If they are unknown, set `needs_full_scan`."""
        try:
            sequence, rows, lineage, complete = mapping_requests.changes_of(payload)
            for row in rows or ():
                SectionChangeT(row.change)
        except ValueError:
            table_requests.raise_malformed("TRACK")
        if self.chosen.values and complete is None:
            text = "the node that answers runs a version of ckptd that does not track values"
            table_requests.refuse(codes.NOT_SUPPORTED, text)
        self._sequence, self._lineage = sequence, lineage
        self.needs_full_scan = rows is None
        changes = []
        for row in rows or ():
            if self._is_own(row) or not self.chosen.covers(row.section_id):
                continue
            if row.is_gone and row.section_id not in self._known:
                continue  # It was created since as well, or an update deleted what was not there.
            changes.append(self._change(*row[:5], None if row.is_gone else row.value))
        return changes

    def lose_place(self) -> None:
        """Forget the position, as tracking continues in a new session: TRACK asks for the current one."""
        self._sequence, self._lineage = None, 0

    def resume(self) -> SectionChange[Any]:
        """Have all sections read, now that the position is known again; return RESUMED."""
        self.needs_full_scan = True
        return self.about(SectionChangeT.RESUMED)

    def about(self, what: SectionChangeT) -> SectionChange[Any]:
        """Return a change of the tracking itself."""
        return SectionChange(self._told, what, b"", 0, 0)

    def _is_own(self, row: Changed) -> bool:
        own = row[5] in self._own
        if own:
            self._know(row[2], row[1] not in _GONE)
        return own

    def _change(
        self,
        sequence: int,
        kind: int,
        section_id: bytes,
        offset: int,
        size: int,
        content: bytes | None = None,
    ) -> SectionChange[Any]:
        change = SectionChangeT(kind)
        if change not in _GONE and section_id not in self._known:
            change = SectionChangeT.CREATED  # A write that creates missing sections does not say if it did.
        self._know(section_id, change not in _GONE)
        # An asynchronous checkpoint may lose updates that we have reported, so that its sequence falls back.
        # Ours does not: what exists now is reported with the highest sequence so far.
        sequence = self._told = max(sequence, self._told)
        reported: SectionChange[Any] = SectionChange(sequence, change, section_id, offset, size)
        if content is not None:
            reported.content, reported.decode = content, self._decode
        return reported

    def _know(self, section_id: bytes, there: bool) -> None:
        if there:
            self._known.add(section_id)
        else:
            self._known.discard(section_id)

    def start(self, section_ids: list[bytes]) -> None:
        """Remember sections that exist already; they are not reported."""
        self._known.update(section_ids)

    def scan_page(self, sections: list[table_requests.SectionDescriptor]) -> list[SectionChange[Any]]:
        """Return a change for each section of a page, since any of them may have changed."""
        sequence, overwritten = self._sequence or 0, SectionChangeT.OVERWRITTEN
        return [
            self._change(sequence, overwritten, section.section_id, 0, section.size_bytes, section.value)
            for section in sections
        ]

    def finish_scan(self, found: set[bytes]) -> list[SectionChange[Any]]:
        """Return DELETED for every known section that is not in `found`, now that all sections were read."""
        sequence = self._sequence or 0
        self.needs_full_scan = False
        gone = sorted(self._known - found)
        return [self._change(sequence, SectionChangeT.DELETED, section_id, 0, 0) for section_id in gone]


async def begin(ask: AskOne, tracker: Tracker, limit: TimeLimit) -> None:
    """Find the position from which changes are reported, and the sections that exist there.

    If there is no active replica yet, everything that it brings is reported as new. Raises: SaAisError.
    """
    if not await _find_place(ask, tracker, limit.left_ns()):
        return
    after = tracker.chosen.before
    while True:
        page, after = await _page(ask, after, limit.left_ns(), tracker.chosen._replace(values=False))
        tracker.start([section.section_id for section in page])
        if after is None:
            return


async def _find_place(ask: AskOne, tracker: Tracker, timeout_ns: int) -> bool:
    """Ask for the current position. Return False if there is no active replica yet."""
    try:
        tracker.take(await ask(Kind.TRACK, tracker.body, timeout_ns))
    except SaAisError as error:
        if not _is_without_active(error):
            raise
        tracker.take([0, [], 0])
        return False
    return True


class Changes:
    """An async iterator over the changes after `begin`, in order.

    It yields lists of the changes that came together; no list is empty. A cancelled `anext` loses nothing:
    the next one begins where it began. If the handle is dead (BAD_HANDLE), the iterator calls `reopen` and
    reports RESUMED. If that fails, or the service cannot track, it raises what `fail` makes of the error.
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
        self._after = tracker.chosen.before

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[SectionChange[Any]]:
        while not (changes := await self.advance()):
            pass
        return changes

    async def advance(self) -> list[SectionChange[Any]]:
        """Make the next request; return its changes, or none. After that, `position` may be another one."""
        try:
            begins_again = self._lost or self._without_place
            return await (self._resume() if begins_again else self._take())
        except SaAisError as error:
            if error.code == codes.BAD_HANDLE and self._reopen is not None and not self._lost:
                self._lost = True
                if self._without_place:
                    await asyncio.sleep(RETRY_S)  # It has only just been opened again.
                return []
            waits = error.code in WAITS or _is_without_active(error)
            if not waits:
                if self._fail is not None:
                    self._fail(error)
                raise
            self._found, self._after = set(), self._tracker.chosen.before
            await asyncio.sleep(RETRY_S)
            return []

    @property
    def position(self) -> int:
        """The position up to which all changes have been returned; -1 if that is unknown now."""
        return -1 if self._lost or self._without_place else self._tracker.position

    def ended(self) -> SectionChange[Any]:
        """Return the change that tells the program that no more changes come."""
        return self._tracker.about(SectionChangeT.ENDED)

    async def _resume(self) -> list[SectionChange[Any]]:
        """Continue in a new session.

        The handle is opened again once: if the position is not found yet, the next attempt looks for it with
        the same handle. Each attempt once opened another handle, four in a second while no node served.
        """
        if self._lost:
            assert self._reopen is not None, "the session is lost and cannot be opened again"
            await self._reopen(None)
            self._lost, self._without_place = False, True
        self._tracker.lose_place()
        await _find_place(self._ask, self._tracker, TRACK_NS)
        self._without_place = False
        self._found, self._after = set(), self._tracker.chosen.before
        return [self._tracker.resume()]

    async def _take(self) -> list[SectionChange[Any]]:
        """Make one request, a TRACK or one for a page of all sections; return its changes."""
        tracker = self._tracker
        if not tracker.needs_full_scan:
            return tracker.take(await self._ask(Kind.TRACK, tracker.body, TRACK_NS))
        page, self._after = await _page(self._ask, self._after, TRACK_NS, tracker.chosen)
        self._found.update(section.section_id for section in page)
        changes = tracker.scan_page(page)
        if self._after is None:
            changes += tracker.finish_scan(self._found)
            self._found, self._after = set(), tracker.chosen.before
        return changes


async def track(
    ask: AskOne,
    limit: TimeLimit,
    own: OwnUpdates | None = None,
    fail: Fail | None = None,
    reopen: Reopen | None = None,
    chosen: Chosen = ALL,
    decode: Callable[[bytes, bytes], Any] | None = None,
) -> Changes:
    """Begin to track, within the limit; return the changes from now on.

    Raises: SaAisError, or what `fail` makes of it.
    """
    tracker = Tracker(own, chosen, decode)
    try:
        try:
            await begin(ask, tracker, limit)
        except SaAisError as error:
            if error.code != codes.BAD_HANDLE or reopen is None:
                raise
            await reopen(limit)
            tracker = Tracker(own, chosen, decode)
            await begin(ask, tracker, limit)
    except SaAisError as error:
        if fail is not None:
            fail(error)
        raise
    return Changes(ask, tracker, fail, reopen)


class OneByOne:
    """Yields the changes one by one.

    Neither this nor `Changes` is a generator, because a generator ends when its task is cancelled.
    """

    def __init__(self, lists: Changes) -> None:
        self._lists = lists
        self._left: deque[SectionChange[Any]] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SectionChange[Any]:
        while not self._left:
            self._left.extend(await anext(self._lists))
        return self._left.popleft()


def _is_without_active(error: SaAisError) -> bool:
    return error.code == codes.NOT_EXIST and error.index < 0 and not isinstance(error, CheckpointEnded)


async def _page(
    ask: AskOne, after: bytes | None, timeout_ns: int, chosen: Chosen
) -> tuple[list[table_requests.SectionDescriptor], bytes | None]:
    """Return the chosen sections of a page, and where the next one begins; None if none of it is chosen."""
    body = table_requests.iterate_body(after, chosen.values)
    page, after = table_requests.page_of(await ask(Kind.ITERATE, body, timeout_ns))
    if page and chosen.ends(page[-1].section_id):
        after = None
    return [section for section in page if chosen.covers(section.section_id)], after
