"""The asyncio driver of an open checkpoint: it carries out the steps of `operations` on an `AsyncConnection`.

Tasks take turns in opening the checkpoint again.
"""

import asyncio
import time
from typing import Any, Generic, NamedTuple, NoReturn

from ckpt_client.checkpoint.open_checkpoint import BeginAgain, Counts, Reopen, TableStep
from ckpt_client.checkpoint.operations import Operation, Operations
from ckpt_client.checkpoint.tracking import AskOne, Fail
from ckpt_client.checkpoint.tracking import Reopen as ReopenFeed
from ckpt_client.codecs import Codec, V
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import OpenParameters
from ckpt_client.steps import Result, drive_async
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind


class Feed(NamedTuple):
    """How a feed of changes makes its requests on a table's open checkpoint."""

    ask: AskOne
    reopen: ReopenFeed
    fail: Fail


class AsyncTableDriver(Generic[V]):
    """The base of `AsyncTable`."""

    def __init__(
        self,
        connection: AsyncConnection,
        opening: OpenParameters,
        timeout_ns: int,
        codec: Codec[V] | None = None,
    ) -> None:
        self.name = opening.name.decode()
        self._operations = Operations(self.name, opening, timeout_ns, codec)
        self._connection = connection
        self._reopening = asyncio.Lock()

    @property
    def counts(self) -> Counts:
        """How often this table's session has moved, and how often its checkpoint was opened again."""
        return Counts(self._connection.moved, self._operations.reopened)

    # -- carrying out operations

    async def _run(self, operation: Operation[Result], timeout: float | None = None) -> Result:
        """Carry out an operation within its time-out (seconds; None: the table's)."""
        limit = TimeLimit(timeout, self._operations.timeout_ns)
        return await drive_async(operation, self._carry_out, limit)

    async def _carry_out(self, step: TableStep, limit: TimeLimit) -> Any:
        if isinstance(step, BeginAgain):
            return limit.require_left(step.text)
        if not isinstance(step, Reopen):
            kind, handle, body = step
            timeout_ns = limit.left_ns()
            return await self._connection.call(kind, handle, body, timeout_ns)
        if step.refusal is not None and (limit.is_over or not self._connection.usable):
            raise step.refusal
        return await self._reopened_handle(limit, step.lost)

    async def _ask(self, kind: int, body: bytes, timeout: float | None) -> Any:
        """Do what `Operations.ask` does, without a generator for a request that succeeds at once."""
        operations = self._operations
        timeout_ns = table_requests.timeout_in_ns(timeout, operations.timeout_ns)
        handle, leadership = operations.handle, operations.leadership
        if not handle:
            return await self._run(operations.ask(kind, body), timeout)
        deadline_ns = time.monotonic_ns() + timeout_ns
        try:
            if leadership is None or kind != Kind.UPDATE:
                return await self._connection.call(kind, handle, body, timeout_ns)
            sent_ns = leadership.check()
            answer = await self._connection.call(kind, handle, leadership.sign(body), timeout_ns)
            leadership.renew(sent_ns)
            return answer
        except SaAisError as error:
            refusal = error
        if leadership is None or kind != Kind.UPDATE:
            steps = operations.recover(kind, body, True, handle, refusal)
        else:
            steps = operations.recover_as_leader(body, True, handle, refusal)
        return await drive_async(steps, self._carry_out, TimeLimit.until(deadline_ns))

    # -- opening

    async def _open(self, timeout_ns: int) -> None:
        """Open the checkpoint as the program did at first."""
        limit = TimeLimit(None, timeout_ns)
        await drive_async(self._operations.open(), self._carry_out, limit)
        if self._operations.resized_text:
            self._connection.notices.tell(self._operations.resized_text)

    async def _reopened_handle(self, limit: TimeLimit, lost: int = 0) -> int:
        """Return the table's handle; first open the checkpoint again if there is none or it is `lost`.

        Tasks take turns.
        """
        try:
            async with asyncio.timeout(limit.left_ns() / 1e9):
                await self._reopening.acquire()
        except TimeoutError:
            raise error_of(codes.TRY_AGAIN, "another task is opening the checkpoint again") from None
        operations, connection = self._operations, self._connection
        try:
            if operations.closed:
                raise operations.closed_error()
            if operations.handle in (0, lost):
                operations.handle = 0
                connection.renew()
                await drive_async(operations.open_again(), self._carry_out, limit)
                connection.notices.tell(
                    table_requests.reopened_text(operations.opening.name, connection.node_id)
                )
            return operations.handle
        finally:
            self._reopening.release()

    # -- feeds

    async def _begin_feed(self, limit: TimeLimit) -> Feed:
        """Return how to follow this creation of the checkpoint. Raises: CheckpointError."""
        operations = self._operations
        try:
            if not operations.handle:
                await self._reopened_handle(limit)
        except SaAisError as error:
            raise operations.failure("track", error) from None
        creation_id, used = operations.creation_id, operations.handle

        async def ask(kind: int, body: bytes, timeout_ns: int) -> Any:
            nonlocal used
            if operations.closed:
                raise operations.closed_error()
            if operations.creation_id != creation_id:
                raise table_requests.ended("it has been opened again since")
            used = operations.handle
            return await self._connection.call(kind, used, body, timeout_ns)

        async def reopen(within: TimeLimit | None) -> None:
            try:
                await self._reopened_handle(within or TimeLimit(None, operations.timeout_ns), used)
            except SaAisError as error:
                if error.code != codes.BAD_HANDLE or operations.closed:
                    raise
                raise error_of(codes.TRY_AGAIN, error.text) from None

        def fail(error: SaAisError) -> NoReturn:
            raise operations.failure("track", error) from None

        return Feed(ask, reopen, fail)
