"""What a program can do without a table: each operation once, for `Connection` and `AsyncConnection`.

An operation is a generator of requests (see `steps`). The two classes have the methods that carry it out.
"""

from typing import TYPE_CHECKING, Any, Literal, overload

from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Key, Status
from ckpt_client.steps import Request, Result, Steps, drive, drive_async
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.messages import Kind

if TYPE_CHECKING:
    from ckpt_protocol.descriptions import CheckpointDescription, ClusterDescription

ServiceCall = Steps[Request, Result]


def describe(what: str) -> ServiceCall[Any]:
    """DESCRIBE: return what the node knows."""
    # Imported here because few programs need it.
    from ckpt_protocol.descriptions import parse_checkpoint_descriptions, parse_cluster_description

    payload = yield Kind.DESCRIBE, 0, pack_body([what])
    try:
        return (parse_cluster_description if what == "cluster" else parse_checkpoint_descriptions)(payload)
    except FrameError:
        table_requests.raise_malformed("DESCRIBE")


def unlink(name: Key) -> ServiceCall[None]:
    """UNLINK: free a checkpoint's name, whichever checkpoint has it now."""
    yield Kind.UNLINK, 0, table_requests.unlink_body(name)


def status(handle: int) -> ServiceCall[Status]:
    """STATUS: return the state of an open checkpoint."""
    return table_requests.status_of((yield Kind.STATUS, handle, table_requests.EMPTY_BODY))


class ServiceCalls:
    """The base of `Connection`: the operations for programs that block."""

    @overload
    def describe(self, what: Literal["cluster"], timeout: float | None = None) -> "ClusterDescription": ...
    @overload
    def describe(
        self, what: Literal["checkpoints"], timeout: float | None = None
    ) -> "tuple[CheckpointDescription, ...]": ...
    def describe(self, what: str, timeout: float | None = None) -> object:
        """Return what the node knows about the "cluster" or its "checkpoints". Raises: SaAisError."""
        return self._run(describe(what), timeout)

    def unlink(self, name: Key, timeout: float | None = None) -> None:
        """Free a checkpoint's name, whichever checkpoint has it now.

        The data goes when the last table that has the checkpoint open is closed. Raises: SaAisError.
        """
        self._run(unlink(name), timeout)

    def status(self, handle: int, timeout: float | None = None) -> Status:
        """Return the state of an open checkpoint. Raises: SaAisError."""
        return self._run(status(handle), timeout)

    def _run(self, operation: ServiceCall[Result], timeout: float | None) -> Result:
        return drive(operation, self._carry_out, TimeLimit(timeout, table_requests.TIMEOUT_NS))

    def _carry_out(self, request: Request, limit: TimeLimit) -> Any:
        return self.call(*request, limit.left_ns())

    def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make a request, wait, and return the answer's payload. Raises: SaAisError."""
        raise NotImplementedError


class AsyncServiceCalls:
    """The base of `AsyncConnection`: the operations for asyncio."""

    @overload
    async def describe(
        self, what: Literal["cluster"], timeout: float | None = None
    ) -> "ClusterDescription": ...
    @overload
    async def describe(
        self, what: Literal["checkpoints"], timeout: float | None = None
    ) -> "tuple[CheckpointDescription, ...]": ...
    async def describe(self, what: str, timeout: float | None = None) -> object:
        """Return what the node knows about the "cluster" or its "checkpoints". Raises: SaAisError."""
        return await self._run(describe(what), timeout)

    async def unlink(self, name: Key, timeout: float | None = None) -> None:
        """Free a checkpoint's name, whichever checkpoint has it now.

        The data goes when the last table that has the checkpoint open is closed. Raises: SaAisError.
        """
        await self._run(unlink(name), timeout)

    async def status(self, handle: int, timeout: float | None = None) -> Status:
        """Return the state of an open checkpoint. Raises: SaAisError."""
        return await self._run(status(handle), timeout)

    async def _run(self, operation: ServiceCall[Result], timeout: float | None) -> Result:
        return await drive_async(operation, self._carry_out, TimeLimit(timeout, table_requests.TIMEOUT_NS))

    async def _carry_out(self, request: Request, limit: TimeLimit) -> Any:
        return await self.call(*request, limit.left_ns())

    async def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make a request, wait, and return the answer's payload. Raises: SaAisError."""
        raise NotImplementedError
