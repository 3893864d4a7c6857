"""`AsyncLeadership`: what `AsyncTable.lead` gives, for asyncio."""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self

from ckpt_client.checkpoint.leadership_state import LeadershipState
from ckpt_client.errors import LeadershipEnded, SaAisError
from ckpt_client.io.blocking_connection import DETACH_NS
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import LeadArguments
from ckpt_client.leadership.leadership_facts import Fail, LeadershipFacts


class AsyncLost:
    """An event that is set once the program leads no more: `await lost`, or `await lost.wait()`.

    `is_set` also looks at the clock: a process that was paused knows it before its loop has run.
    """

    def __init__(self, state: LeadershipState) -> None:
        self._state = state
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake all who wait."""
        self._event.set()

    def is_set(self) -> bool:
        """Return True if the program leads no more."""
        return self._event.is_set() or self._state.is_over

    async def wait(self) -> None:
        """Wait until the program leads no more."""
        if not self.is_set():
            await self._event.wait()

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()


class AsyncLeadership(LeadershipFacts):
    """The program leads the table's checkpoint, until it leaves the `async with` block or resigns."""

    def __init__(
        self, candidacy: Candidacy, arguments: LeadArguments, fail: Fail, on_left: Callable[[], None]
    ) -> None:
        """For `lead` only."""
        super().__init__(candidacy, arguments, fail, on_left)
        self.lost = AsyncLost(candidacy.state)
        """Set once the program leads no more, also when it has resigned."""

        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        candidacy.state.on_end = self._ended

    async def win(self, limit: TimeLimit) -> LeadershipState:
        """Wait until we lead. Raises: SaAisError; whatever is raised, we do not lead then."""
        await self._candidacy.win(limit)
        return self._state

    async def resign(self, to: str | None = None, timeout: float | None = None) -> None:
        """Hand over to the next program that waits, or to the first with the name `to`.

        `Leadership.resign` says more.
        """
        successor = self._successor(to)
        if self._left or self._is_elsewhere():
            return
        try:
            await self._candidacy.resign(successor, TimeLimit(timeout, DETACH_NS))
        except SaAisError as error:
            if self._state.ended and not isinstance(error, LeadershipEnded):
                self._leave()
            raise self._fail("resign from", error) from None
        except BaseException:
            self._leave()
            raise
        self._leave()

    async def close(self) -> None:
        """Leave the leadership; 1 s at most."""
        if not self._left and not self._is_elsewhere():
            try:
                await self._candidacy.leave()
            finally:
                self._leave()

    def _ended(self, lost: bool) -> None:
        if threading.get_ident() == self._thread:
            self._tell(lost)
            return
        with contextlib.suppress(RuntimeError):  # The loop is closed: none of its tasks waits any more.
            self._loop.call_soon_threadsafe(self._tell, lost)

    def _tell(self, lost: bool) -> None:
        self.lost.set()
        if lost:
            self._report_loss()
            self._call_on_lost()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks -= 1
        if self._blocks == 0:
            await self.close()


class Leading:
    """What `AsyncTable.lead` returns: `async with table.lead() as leadership:`, or `await table.lead()`."""

    def __init__(self, begin: Callable[[], Awaitable[AsyncLeadership]]) -> None:
        """For `lead` only."""
        self._begin = begin
        self._leadership: AsyncLeadership | None = None

    def __await__(self) -> Generator[Any, None, AsyncLeadership]:
        return self._begin().__await__()

    async def __aenter__(self) -> AsyncLeadership:
        self._leadership = await self._begin()
        return self._leadership

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leadership is not None:
            await self._leadership.__aexit__(kind, error, trace)
