"""`lead` and `leader` of a `Table`. asyncio is imported only for a program that leads."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ckpt_client.checkpoint.open_checkpoint import OpenCheckpoint
from ckpt_client.checkpoint.operations import Operations
from ckpt_client.codecs import V
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.lead_arguments import TTL_S, lead_arguments
from ckpt_client.leadership.leaders import Leader, LeadershipHistory, ask_history, ask_leader
from ckpt_client.leadership.leads import Leads
from ckpt_client.mapping.table_mapping import TableMapping
from ckpt_protocol import codes

if TYPE_CHECKING:
    from ckpt_client.leadership.lead_arguments import LeadArguments
    from ckpt_client.leadership.leader_tracking import LeaderCallback, LeaderTracking
    from ckpt_client.leadership.leadership import Leadership
    from ckpt_client.leadership.standby import Standby


def require_leadable(operations: OpenCheckpoint) -> None:
    """Check that a table may lead. Raises: SaAisError BAD_HANDLE if it is closed, ACCESS if read-only."""
    if operations.closed:
        raise operations.closed_error()
    if not operations.opening.writable:
        raise error_of(codes.ACCESS, "the table is read-only")


class LeadingTable(TableMapping[V]):
    """The part of `Table` that leads."""

    def __init__(self, operations: Operations[V], connection: Connection, keep_alive: bool = False) -> None:
        super().__init__(operations, connection, keep_alive)
        self._leads = Leads(operations)

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
    ) -> "Leadership":
        """Wait until this program leads the checkpoint; `with table.lead(timeout=math.inf) as leadership:`.

        While it leads, only this table writes: every other write to the checkpoint is refused with ACCESS. If
        the leadership ends without you, each write of this table raises LeadershipLost until you have left
        it. Those who want to lead wait in a queue. The next one leads when this one leaves its block,
        resigns, closes its table or dies, or when it has not renewed for `ttl` seconds.

        `timeout`: how long to wait, in seconds (None: the table's; math.inf: for ever). `ttl`: 0.1 s to 1 h.
        Renewals are made in the background. `watchdog`: they stop while the program has neither written
        through this table nor called `leadership.check()` for so many seconds. Without `exclusive`, others
        may write, and you get the token and the notification. `name`: what others see (None: the name of the
        script).
        `on_lost()` is called in a thread of its own when the leadership is lost. With
        `allow_loss_on_failover`, ttl may be so short that the loss of a node may end the leadership.

        To lead again inside the block, with the same arguments, is the same leadership.

        Raises: CheckpointError TIMEOUT when the time is over; INVALID_PARAM; ACCESS if the table is
        read-only; BAD_HANDLE if it is closed; NO_RESOURCES if too many wait; NOT_EXIST if the checkpoint is
        unlinked.
        """
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
                self._reopened_handle(limit)
            try:
                leadership = self._leads.lead(arguments, limit, self._begin_to_lead)
            except SaAisError as error:
                if error.code == codes.NOT_EXIST:
                    self._raise_if_ended(limit)  # The table's own session may have ended too.
                raise
        except SaAisError as error:
            raise operations.failure("lead", error) from None
        self._grow(leadership)
        return leadership

    def _grow(self, leadership: "Leadership") -> None:
        """Resize the checkpoint now, if another leader refused that when it was opened."""
        if self._operations.wants_to_grow:
            try:
                self._run(self._operations.grow_as_leader())
            except BaseException:
                leadership.close()
                raise

    def _begin_to_lead(self, arguments: "LeadArguments", on_left: Callable[[], None]) -> "Leadership":
        from ckpt_client.io.aio_connection import AsyncConnection  # These import asyncio.
        from ckpt_client.io.loop_thread import shared_runner
        from ckpt_client.leadership.candidacy import Candidacy
        from ckpt_client.leadership.leadership import Leadership

        operations, where = self._operations, self._endpoint
        candidacy = Candidacy(
            operations.opening.name,
            operations.creation_id,
            arguments,
            lambda: AsyncConnection.own(*where),
            operations.may_activate,
        )
        return Leadership(candidacy, arguments, operations.failure, on_left, shared_runner())

    async def _follow(self) -> "Standby":
        """Follow the checkpoint, on the process's loop; for `ha`."""
        from ckpt_client.io.aio_connection import AsyncConnection
        from ckpt_client.leadership.standby import Standby

        operations, where = self._operations, self._endpoint
        return Standby(operations.opening.name, operations.creation_id, lambda: AsyncConnection.own(*where))

    def _after_fork(self) -> None:
        super()._after_fork()
        self._leads.after_fork()

    # -- who leads

    def leader(self, timeout: float | None = None) -> Leader | None:
        """Return the program that leads the checkpoint; None if there is none. A read-only table may ask."""
        return self._run(ask_leader(self._operations), timeout)

    def leadership_history(self, timeout: float | None = None) -> LeadershipHistory:
        """Return the program that leads, those that wait to, and the last ten that led, with the reasons."""
        return self._run(ask_history(self._operations), timeout)

    def track_leader(self, callback: "LeaderCallback | None" = None) -> "LeaderTracking":
        """Report who leads, now and later, to `callback(leader)` in a thread of its own, or to your loop.

        Without a callback, iterate over the returned `LeaderTracking`. Call its `stop` when you have seen
        enough. `leader` is a `Leader`, or None while no program leads. If several change while the callback
        runs, it gets the last of them.
        """
        from ckpt_client.leadership.leader_tracking import LeaderTracking  # This imports asyncio.

        return self._start_feed(LeaderTracking, callback)
