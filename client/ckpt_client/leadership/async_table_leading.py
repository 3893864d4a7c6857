"""`lead` and `leader` of an `AsyncTable`."""

import asyncio
from collections.abc import Callable

from ckpt_client.checkpoint.async_table_driver import AsyncTableDriver
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_leadership import AsyncLeadership, Leading
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import TTL_S, LeadArguments, lead_arguments
from ckpt_client.leadership.leaders import Leader, LeadershipHistory, ask_history, ask_leader
from ckpt_client.leadership.table_leading import require_leadable
from ckpt_client.session.table_requests import OpenParameters
from ckpt_protocol import codes


class AsyncLeadingTable(AsyncTableDriver):
    """The part of `AsyncTable` that leads."""

    def __init__(self, connection: AsyncConnection, opening: OpenParameters, timeout_ns: int) -> None:
        super().__init__(connection, opening, timeout_ns)
        self._led: AsyncLeadership | None = None
        self._waiting_to_lead: AsyncLeadership | None = None
        self._lead_turn = asyncio.Lock()

    def lead(
        self,
        timeout: float | None = None,
        ttl: float = TTL_S,
        watchdog: float | None = None,
        *,
        exclusive: bool = True,
        name: str | None = None,
        on_lost: Callable[[], object] | None = None,
        allow_loss_on_failover: bool = False,
    ) -> Leading:
        """Wait until this program leads: `async with table.lead(timeout=math.inf) as leadership:`.

        Everything is as `Table.lead` explains; `on_lost` is called by the loop. While the loop is blocked, it
        renews nothing.
        """

        async def begin() -> AsyncLeadership:
            operations = self._operations
            try:
                require_leadable(operations)
                arguments = lead_arguments(ttl, watchdog, exclusive, name, on_lost, allow_loss_on_failover)
                return await self._lead(arguments, TimeLimit(timeout, operations.timeout_ns))
            except SaAisError as error:
                raise operations.failure("lead", error) from None

        return Leading(begin)

    async def _lead(self, arguments: LeadArguments, limit: TimeLimit) -> AsyncLeadership:
        try:
            async with asyncio.timeout(limit.left_ns() / 1e9):
                await self._lead_turn.acquire()
        except TimeoutError:
            raise error_of(codes.TIMEOUT, "another task is waiting to lead with this table") from None
        operations = self._operations
        try:
            if self._led is not None:
                self._led.enter_again(arguments)
                return self._led
            if not operations.handle:
                await self._reopened_handle(limit)
            candidacy = Candidacy(
                operations.opening.name,
                operations.creation_id,
                arguments,
                self._connection.sibling,
                lambda: operations.auto_activate and operations.attributes.may_lack_active,
            )
            leadership = AsyncLeadership(candidacy, arguments, operations.failure, self._leadership_left)
            self._waiting_to_lead = leadership
            await leadership.win(limit)
            if operations.closed:
                await leadership.close()
                raise operations.closed_error()
            self._led, operations.leadership = leadership, candidacy.state
            return leadership
        finally:
            self._waiting_to_lead = None
            self._lead_turn.release()

    def _leadership_left(self) -> None:
        self._led = self._operations.leadership = None

    async def _end_leadership(self) -> None:
        """Leave the leadership, or the queue; 1 s at most."""
        for leadership in (self._waiting_to_lead, self._led):
            if leadership is not None:
                await leadership.close()

    # -- who leads

    async def leader(self, timeout: float | None = None) -> Leader | None:
        """Return the program that leads the checkpoint; None if there is none. A read-only table may ask."""
        return await self._run(ask_leader(self._operations), timeout)

    async def leadership_history(self, timeout: float | None = None) -> LeadershipHistory:
        """Return the program that leads, those that wait to, and the last ten that led, with the reasons."""
        return await self._run(ask_history(self._operations), timeout)
