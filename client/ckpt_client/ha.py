"""A program with standbys: `run` serves while it leads, and follows the table while it waits.

    def serve(state, leadership):
        while work_to_do() and not leadership.lost.is_set():
            ...

    with Table("orders", 100, 1024, 32) as table:
        ha.run(serve, table=table)

Start the program on two hosts or more. One of them serves. `state`, a dict, has all that was acknowledged to
the leaders before it (of an asynchronous checkpoint, a fail-over may have lost the newest updates:
`leadership.data_may_be_lost`). What `serve` writes with this table is refused once it leads no more.
"""

import asyncio
import contextlib
import logging
import math
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from ckpt_client.async_table import AsyncTable
from ckpt_client.codecs import V
from ckpt_client.errors import LeadershipLost, SaAisError
from ckpt_client.io.loop_thread import shared_runner
from ckpt_client.leadership.async_leadership import AsyncLeadership
from ckpt_client.leadership.lead_arguments import TTL_S, LeadOptions
from ckpt_client.leadership.leadership import Leadership
from ckpt_client.table import Table

__all__ = ["EXIT_CODE", "run", "run_async"]

Result = TypeVar("Result")

EXIT_CODE: Final = 75
"""With which `end_process_after` ends the process (EX_TEMPFAIL)."""

logger = logging.getLogger("aspCheckpoint")


def run(
    serve: Callable[[dict[bytes, V], Leadership], Result],
    *,
    table: Table[V],
    ttl: float = TTL_S,
    watchdog: float | None = None,
    name: str | None = None,
    allow_loss_on_failover: bool = False,
    end_process_after: float | None = None,
) -> Result:
    """Call `serve(state, leadership)` whenever this program leads; return what it returns while it leads.

    If the leadership is lost, `leadership.lost` is set, and `serve` has to return (or to let LeadershipLost
    pass). Then the program waits to lead again. If it has not returned `end_process_after` seconds later, the
    process ends at once, with exit code 75. The other arguments are those of `Table.lead`.

    Raises: what `serve` raises; CheckpointError as `Table.lead`; UndecodableValue if the table's codec cannot
    read a value.
    """
    arguments: LeadOptions = {
        "ttl": ttl,
        "watchdog": watchdog,
        "name": name,
        "allow_loss_on_failover": allow_loss_on_failover,
    }
    while True:
        leadership, state = _lead(table, arguments)
        with leadership, _Grace(leadership, end_process_after):
            if leadership.lost.is_set():
                continue
            try:
                result = serve(state, leadership)
            except LeadershipLost:
                if not _was_lost(leadership):
                    raise
            else:
                if not _was_lost(leadership):
                    return result


def _lead(table: Table[V], arguments: LeadOptions) -> tuple[Leadership, dict[bytes, V]]:
    """Wait until the program leads; return its leadership, and the complete content of the table."""
    runner = shared_runner()
    standby = runner.run(table._follow())
    leadership: Leadership | None = None
    try:
        try:
            leadership = table.lead(math.inf, **arguments)
            held = runner.run(standby.complete(leadership.position, leadership.over()))
        finally:
            runner.run(standby.end())
        state = {key: table._operations.decoded(key, data) for key, data in held.items()}
    except BaseException as error:
        if leadership is not None:
            leadership.close()
        if isinstance(error, SaAisError):
            raise table._operations.failure("follow", error) from None
        raise
    return leadership, state


def _was_lost(leadership: Leadership | AsyncLeadership) -> bool:
    return leadership.lost.is_set() and not leadership.resigned


async def run_async(
    serve: Callable[[dict[bytes, V], AsyncLeadership], Awaitable[Result]],
    *,
    table: AsyncTable[V],
    ttl: float = TTL_S,
    watchdog: float | None = None,
    name: str | None = None,
    allow_loss_on_failover: bool = False,
    end_process_after: float | None = None,
) -> Result:
    """Do what `run` does, for asyncio: `serve` is cancelled when the leadership is lost."""
    arguments: LeadOptions = {
        "ttl": ttl,
        "watchdog": watchdog,
        "name": name,
        "allow_loss_on_failover": allow_loss_on_failover,
    }
    while True:
        leadership, state = await _lead_async(table, arguments)
        async with leadership:
            if leadership.lost.is_set():
                continue  # The state may be incomplete.
            with _Grace(leadership, end_process_after):
                task = asyncio.ensure_future(serve(state, leadership))
                await _wait_until_done(task, leadership)
                with contextlib.suppress(LeadershipLost, asyncio.CancelledError):
                    if not _was_lost(leadership):
                        break
                    task.result()
    return task.result()


async def _lead_async(table: AsyncTable[V], arguments: LeadOptions) -> tuple[AsyncLeadership, dict[bytes, V]]:
    """Do what `_lead` does."""
    standby = await table._follow()
    leadership: AsyncLeadership | None = None
    try:
        try:
            leadership = await table.lead(math.inf, **arguments)
            held = await standby.complete(leadership.position, leadership.over())
        finally:
            await standby.end()
        state = {key: table._operations.decoded(key, data) for key, data in held.items()}
    except BaseException as error:
        if leadership is not None:
            await leadership.close()
        if isinstance(error, SaAisError):
            raise table._operations.failure("follow", error) from None
        raise
    return leadership, state


async def _wait_until_done(task: "asyncio.Future[Any]", leadership: AsyncLeadership) -> None:
    """Wait for what serves; cancel it when the leadership is lost, or this is cancelled."""
    lost = asyncio.ensure_future(leadership.lost.wait())
    try:
        await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        if not _was_lost(leadership):
            await asyncio.wait({task})  # It has resigned, and may have more to do.
    finally:
        for each in (lost, task):
            if not each.done():
                each.cancel()
        await asyncio.wait({task, lost})


class _Grace:
    """Ends the process when its block lasts too long after the leadership was lost.

    It is a thread of its own: the program's loop may be blocked.
    """

    def __init__(self, leadership: Leadership | AsyncLeadership, grace_s: float | None) -> None:
        self._leadership = leadership
        self._grace_s = grace_s
        self._left = threading.Event()

    def __enter__(self) -> None:
        if self._grace_s is not None:
            threading.Thread(target=self._wait, name="end_process_after", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._left.set()

    def _wait(self) -> None:
        assert self._grace_s is not None
        while valid_s := self._leadership.valid_for:
            if self._left.wait(valid_s):
                return
        if self._leadership.resigned or self._left.wait(self._grace_s):
            return
        logger.critical("the leadership was lost %g s ago: the process ends", self._grace_s)
        os._exit(EXIT_CODE)


def __dir__() -> list[str]:
    return sorted(__all__)
