"""`lead` and `leader` of an `AsyncTable`."""

from collections.abc import Callable

from ckpt_client.checkpoint.following import Following
from ckpt_client.codecs import Codec, V
from ckpt_client.errors import SaAisError
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_leadership import AsyncLeadership, Leading
from ckpt_client.leadership.async_leads import AsyncLeads
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import TTL_S, LeadArguments, lead_arguments
from ckpt_client.leadership.leader_tracking import LeaderChanges
from ckpt_client.leadership.leaders import Leader, LeadershipHistory, ask_history, ask_leader
from ckpt_client.leadership.standby import Standby
from ckpt_client.leadership.table_leading import require_leadable
from ckpt_client.mapping.async_table_mapping import AsyncTableMapping
from ckpt_client.requests.table_requests import OpenParameters


class AsyncLeadingTable(AsyncTableMapping[V]):
    """The part of `AsyncTable` that leads."""

    def __init__(
        self,
        connection: AsyncConnection,
        opening: OpenParameters,
        timeout_ns: int,
        codec: Codec[V] | None = None,
    ) -> None:
        super().__init__(connection, opening, timeout_ns, codec)
        self._leads = AsyncLeads(self._operations)

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
                arguments = lead_arguments(
                    ttl,
                    watchdog,
                    exclusive=exclusive,
                    name=name,
                    on_lost=on_lost,
                    allow_loss_on_failover=allow_loss_on_failover,
                )
                limit = TimeLimit(timeout, operations.timeout_ns)
                if not operations.handle:
                    await self._reopened_handle(limit)
                leadership = await self._leads.lead(arguments, limit, self._begin_to_lead)
            except SaAisError as error:
                raise operations.failure("lead", error) from None
            if operations.wants_to_grow:
                try:
                    await self._run(operations.grow_as_leader())
                except BaseException:
                    await leadership.close()
                    raise
            return leadership

        return Leading(begin)

    def _begin_to_lead(self, arguments: LeadArguments, on_left: Callable[[], None]) -> AsyncLeadership:
        operations = self._operations
        candidacy = Candidacy(
            operations.opening.name,
            operations.creation_id,
            arguments,
            self._connection.sibling,
            operations.may_activate,
        )
        return AsyncLeadership(candidacy, arguments, operations.failure, on_left)

    async def _follow(self) -> Standby:
        """Follow the checkpoint; for `ha`."""
        operations = self._operations
        return Standby(operations.opening.name, operations.creation_id, self._connection.sibling)

    # -- who leads

    async def leader(self, timeout: float | None = None) -> Leader | None:
        """Return the program that leads the checkpoint; None if there is none. A read-only table may ask."""
        return await self._run(ask_leader(self._operations), timeout)

    async def leadership_history(self, timeout: float | None = None) -> LeadershipHistory:
        """Return the program that leads, those that wait to, and the last ten that led, with the reasons."""
        return await self._run(ask_history(self._operations), timeout)

    def track_leader(self) -> Following[Leader | None]:
        """Return an iterator over who leads: first the present leader, then each other one; None for none.

        `async for leader in table.track_leader():` If the checkpoint is gone, the iterator raises.
        """

        async def begin() -> LeaderChanges:
            feed = await self._begin_feed(TimeLimit(None, self._operations.timeout_ns))
            return LeaderChanges(feed.ask, self._operations.creation_id, feed.reopen, feed.fail)

        return Following(begin)
