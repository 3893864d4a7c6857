"""The leadership of one open checkpoint, for asyncio: one, however often its program asks to lead."""

import asyncio
from collections.abc import Callable

from ckpt_client.checkpoint.leadership_state import SECOND_NS
from ckpt_client.errors import error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_leadership import AsyncLeadership
from ckpt_client.leadership.lead_arguments import LeadArguments
from ckpt_client.leadership.leads import Opened, closed_error
from ckpt_protocol import codes


class AsyncLeads:
    """The leadership of one open checkpoint. Tasks take turns in asking for it."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._led: AsyncLeadership | None = None
        self._waiting: AsyncLeadership | None = None
        self._turn = asyncio.Lock()

    async def lead(
        self,
        arguments: LeadArguments,
        limit: TimeLimit,
        begin: Callable[[LeadArguments, Callable[[], None]], AsyncLeadership],
    ) -> AsyncLeadership:
        """Lead, or return the present leadership. `begin` as in `Leads.lead`. Raises: SaAisError."""
        try:
            async with asyncio.timeout(limit.left_ns() / SECOND_NS):
                await self._turn.acquire()
        except TimeoutError:
            raise error_of(codes.TIMEOUT, "another task is waiting to lead with this table") from None
        try:
            led = self._led
            if led is not None and led.enter_again(arguments):
                return led

            def left() -> None:
                self._left(leadership)

            leadership = self._waiting = begin(arguments, left)
            try:
                if self._opened.closed:
                    raise closed_error()
                state = await leadership.win(limit)
            finally:
                self._waiting = None
            if self._opened.closed:
                await leadership.close()
                raise closed_error()
            self._led, self._opened.leadership = leadership, state
            return leadership
        finally:
            self._turn.release()

    def _left(self, leadership: AsyncLeadership) -> None:
        """The program has left a leadership. (It may lead with the next one already.)"""
        if self._led is leadership:
            self._led = self._opened.leadership = None

    async def close(self) -> None:
        """Leave the leadership, or the queue; 1 s at most. What was opened is marked as closed before."""
        for leadership in (self._waiting, self._led):
            if leadership is not None:
                await leadership.close()
