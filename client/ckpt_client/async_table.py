"""`AsyncTable`: a checkpoint as a table of byte sections, for asyncio.

All tables of an event loop that name the same addresses share one connection.
"""

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, ClassVar, Self, overload

from ckpt_client.checkpoint.following import Following, Opening
from ckpt_client.checkpoint.section_operations import check_codec
from ckpt_client.checkpoint.tracking import OneByOne, SectionChange, track
from ckpt_client.checkpoint.transactions import AsyncTransaction, Versioned
from ckpt_client.codecs import Codec, V
from ckpt_client.errors import CheckpointError, SaAisError
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.blocking_connection import DETACH_NS
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_table_leading import AsyncLeadingTable
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Attributes, Key, OpenParameters, Status, Stored, Value
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_MAX

logger = logging.getLogger("aspCheckpoint")


class AsyncTable(AsyncLeadingTable[V]):
    """A checkpoint, for asyncio. Each call means what it means in `Table`.

    Open one with `async with AsyncTable.open(...) as table:` or `await AsyncTable.open(...)`. Many tasks may
    use one table at once; their requests are sent together. Cancelling a call gives up its answer and affects
    nothing else; you then do not know whether a write was done.

    Raises: CheckpointError, in every method.
    """

    default_auto_activate: ClassVar[bool] = True

    def __init__(
        self,
        connection: AsyncConnection,
        opening: OpenParameters,
        timeout_ns: int,
        codec: Codec[V] | None = None,
    ) -> None:
        """For `open` only."""
        super().__init__(connection, opening, timeout_ns, codec)
        self._operations.auto_activate = self.default_auto_activate

    @classmethod
    def open(
        cls,
        name: Key,
        max_sections: int | None = None,
        max_section_size_bytes: int | None = None,
        max_section_id_size_bytes: int | None = None,
        flags: int = SA_CKPT_WR_ALL_REPLICAS,
        retention_ms: int = SA_TIME_MAX,
        *,
        read_only: bool = False,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        follow_active: bool | None = None,
        timeout: float | None = table_requests.TIMEOUT_S,
        grow: bool = False,
        codec: Codec[V] | None = None,
    ) -> Opening["AsyncTable[V]"]:
        """Open a checkpoint: `async with AsyncTable.open(…) as table:`, or `await AsyncTable.open(…)`.

        If it is missing and the three limits are given, create it. The arguments are those of `Table`.
        """
        limits = (max_sections, max_section_size_bytes, max_section_id_size_bytes)
        where = address, cluster, key, follow_active
        parameters = name, *limits, flags, retention_ms, read_only, grow
        return Opening(cls._opened(parameters, where, timeout, codec))

    @classmethod
    async def _opened(
        cls, parameters: Any, where: Any, timeout: float | None, codec: Codec[V] | None
    ) -> "AsyncTable[V]":
        name = parameters[0]
        try:
            check_codec(codec)
            timeout_ns = table_requests.timeout_in_ns(timeout)
            opening = table_requests.open_parameters(*parameters)
            connection = AsyncConnection.shared(*where)
        except SaAisError as error:
            raise CheckpointError(error, f"cannot open checkpoint {name!r}: {error.text}") from None
        table = cls(connection, opening, timeout_ns, codec)
        try:
            await table._open(timeout_ns)
        except BaseException as error:
            connection.leave()  # Without waiting for an answer: that would exceed the call's time-out.
            if isinstance(error, SaAisError):
                raise table._operations.failure("open", error) from None
            raise
        return table

    # -- attributes

    @property
    def section_expiration(self) -> int:
        """When written sections expire if a call does not say: ns since 1970; SA_TIME_END: never."""
        return self._operations.section_expiration

    @section_expiration.setter
    def section_expiration(self, expiration: int) -> None:
        self._operations.section_expiration = expiration

    @property
    def auto_activate(self) -> bool:
        """True if a call that finds no active replica activates the local one."""
        return self._operations.auto_activate

    @auto_activate.setter
    def auto_activate(self, auto_activate: bool) -> None:
        self._operations.auto_activate = auto_activate

    @property
    def attributes(self) -> Attributes:
        """The attributes in force, as this table's open, last `status` or last `resize` showed them."""
        return self._operations.attributes

    @property
    def flags(self) -> int:
        """The creation flags."""
        return self._operations.attributes.flags

    @property
    def retention_ms(self) -> int:
        """How long the checkpoint is kept while no program has it open, in ms; SA_TIME_MAX: for ever."""
        return table_requests.retention_in_ms(self._operations.attributes.retention_ns)

    @property
    def max_sections(self) -> int:
        """The maximum number of sections."""
        return self._operations.attributes.sections_max

    @property
    def max_section_size_bytes(self) -> int:
        """The maximum size of a section."""
        return self._operations.attributes.section_bytes_max

    @property
    def max_section_id_size_bytes(self) -> int:
        """The maximum length of a section's id."""
        return self._operations.attributes.section_id_bytes_max

    @property
    def handle(self) -> int:
        """The checkpoint handle; 0 once closed."""
        return self._operations.handle

    @property
    def node_id(self) -> str:
        """The node that this table is connected to; "" while it has none."""
        return self._connection.node_id

    # -- conditional updates

    async def get_versioned(self, key: Key, timeout: float | None = None) -> Versioned[V] | None:
        """Return the value of a key with its version; None if there is no such section.

        `Table.get_versioned` says what a version is.
        """
        return await self._run(self._operations.get_versioned(key), timeout)

    @overload
    async def add(
        self: "AsyncTable[bytes]",
        key: Key,
        value: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
    ) -> str: ...

    @overload
    async def add(
        self,
        key: Key,
        value: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
    ) -> str: ...

    async def add(
        self,
        key: Key,
        value: Any,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
    ) -> str:
        """Create a section; return its version. See `Table.add`."""
        return await self._run(self._operations.add(key, value, expiration, expires_in), timeout)

    @overload
    async def modify(
        self: "AsyncTable[bytes]",
        key: Key,
        function: Callable[[bytes | None], Stored | None],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> Stored | None: ...

    @overload
    async def modify(
        self,
        key: Key,
        function: Callable[[V | None], V | None],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> V | None: ...

    async def modify(
        self,
        key: Key,
        function: Callable[[Any], Any],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Replace the value of a key by `function(value)`, and return that, as `Table.modify` explains."""
        expiry = expiration, expires_in, keep_expiry
        return await self._run(self._operations.modify(key, function, *expiry), timeout)

    def transaction(self, timeout: float | None = None) -> AsyncTransaction[V]:
        """Return a transaction: `async with table.transaction() as t:`, as `Table.transaction` explains."""
        operations = self._operations
        return AsyncTransaction(operations, lambda changes: self._run(operations.update(changes), timeout))

    def batch(self, timeout: float | None = None) -> AsyncTransaction[V]:
        """Return a transaction without conditions: many puts and deletes that are one atomic update."""
        return self.transaction(timeout)

    # -- replicas

    async def activate(self, timeout: float | None = None) -> None:
        """Make the local replica the active one. Only for asynchronous collocated checkpoints."""
        await self._run(self._operations.activate(), timeout)

    async def synchronize(self, timeout: float | None = None) -> None:
        """Wait until every in-sync replica has everything that was written before this call."""
        await self._run(self._operations.synchronize(), timeout)

    async def resize(
        self,
        max_sections: int | None = None,
        max_section_size_bytes: int | None = None,
        max_section_id_size_bytes: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Change the limits of the checkpoint, as `Table.resize` explains."""
        limits = (max_sections, max_section_size_bytes, max_section_id_size_bytes)
        await self._run(self._operations.resize(limits), timeout)

    async def get_active_status(self, timeout: float | None = None) -> bool:
        """Return True if there is an active replica."""
        return await self._run(self._operations.has_active(), timeout)

    def set_auto_activate(self, auto_activate: bool) -> None:
        """Set whether a call that finds no active replica activates the local one.

        This holds for this table and for those opened later.
        """
        AsyncTable.default_auto_activate = bool(auto_activate)
        self.auto_activate = bool(auto_activate)

    async def status(self, timeout: float | None = None) -> Status:
        """Return the checkpoint's state: sections, memory, replicas, opens."""
        return await self._run(self._operations.status(), timeout)

    def track(
        self, *, key: Key | None = None, prefix: Key | None = None, values: bool = False
    ) -> Following[SectionChange[V]]:
        """Return an iterator over every change from now on, in order: `async for change in table.track():`.

        With `key`, `prefix` and `values` as `Table.track` explains. `await table.track()` begins at once:
        what you read after that is never older than the position from which changes are reported. No change
        is missed when the session moves to another node or the connection is replaced. If the session has
        ended, RESUMED is reported and then every section. If the checkpoint is gone, the iterator raises.
        """
        operations = self._operations

        async def begin() -> OneByOne:
            chosen = operations.chosen(key, prefix, values)
            limit = TimeLimit(None, operations.timeout_ns)
            feed = await self._begin_feed(limit)
            decode = operations.decoded
            return OneByOne(await track(feed.ask, limit, None, feed.fail, feed.reopen, chosen, decode))

        return Following(begin)

    # -- closing

    async def unlink(self, timeout: float | None = None) -> None:
        """Free the checkpoint's name. The data goes when the last table that has it open is closed.

        It raises NOT_EXIST if this checkpoint no longer has its name, even if a newer checkpoint has it.
        """
        await self._run(self._operations.unlink(), timeout)

    async def close(self) -> None:
        """Close the checkpoint. Closing again does nothing.

        While no node has the session this does not wait: the session sends the CLOSE as soon as it can, as
        long as other tables use it. Otherwise it waits 1 s at most. A table that leads resigns first, which
        may take another second.
        """
        operations = self._operations
        if operations.closed:
            return
        operations.closed = True
        handle, operations.handle = operations.handle, 0
        try:
            await self._leads.close()
        finally:
            await self._close_handle(handle)

    async def _close_handle(self, handle: int) -> None:
        limit = TimeLimit(None, DETACH_NS)
        try:
            if self._connection.is_shared:
                await self._connection.close_handle(handle, limit)
        except SaAisError as error:
            # If the session has ended, everything is closed; if not, the end of its grace time closes it.
            logger.info("checkpoint %r was not closed cleanly: %s", self.name, error)
        finally:
            await self._connection.release(limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._operations.closed else f"at node {self.node_id!r}"
        return f"<AsyncTable {self.name!r} {state}>"
