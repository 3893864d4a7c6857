"""`AsyncTable`: a checkpoint as a table of byte sections, for asyncio.

All tables of an event loop that name the same addresses share one connection.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, Self, overload

from ckpt_client.checkpoint.tracking import OneByOne, OwnUpdates, SectionChange, track
from ckpt_client.checkpoint.transactions import AsyncTransaction, Changes, Versioned
from ckpt_client.errors import CheckpointError, SaAisError
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.blocking_connection import DETACH_NS
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_table_leading import AsyncLeadingTable
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import (
    Attributes,
    Key,
    OpenParameters,
    SectionDescriptor,
    Status,
    Value,
)
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_MAX
from ckpt_protocol.messages import Kind

logger = logging.getLogger("aspCheckpoint")


class AsyncTable(AsyncLeadingTable):
    """A checkpoint, for asyncio. Each call means what it means in `Table`.

    Open one with `await AsyncTable.open(...)`. Many tasks may use one table at once; their requests are sent
    together. Cancelling a call gives up its answer and affects nothing else; you then do not know whether a
    write was done.

    Raises: CheckpointError, in every method.
    """

    default_auto_activate: ClassVar[bool] = True

    def __init__(self, connection: AsyncConnection, opening: OpenParameters, timeout_ns: int) -> None:
        """For `open` only."""
        super().__init__(connection, opening, timeout_ns)
        self._operations.auto_activate = self.default_auto_activate

    @classmethod
    async def open(
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
    ) -> Self:
        """Open a checkpoint. If it is missing and the three limits are given, create it.

        The arguments are those of `Table`.
        """
        try:
            timeout_ns = table_requests.timeout_in_ns(timeout)
            limits = (max_sections, max_section_size_bytes, max_section_id_size_bytes)
            opening = table_requests.open_parameters(name, *limits, flags, retention_ms, read_only, grow)
            connection = AsyncConnection.shared(address, cluster, key, follow_active)
        except SaAisError as error:
            raise CheckpointError(error, f"cannot open checkpoint {name!r}: {error.text}") from None
        table = cls(connection, opening, timeout_ns)
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
        """When written sections expire if a call does not say: ns since 1970; SA_TIME_END: unchanged."""
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

    # -- writing

    @overload
    async def write(
        self, key: Key, value: Value, *, expiration: int | None = None, timeout: float | None = None
    ) -> None: ...

    @overload
    async def write(
        self,
        key: Key,
        value: Value,
        *,
        expiration: int | None = None,
        timeout: float | None = None,
        if_version: str,
    ) -> str: ...

    async def write(
        self,
        key: Key,
        value: Value,
        *,
        expiration: int | None = None,
        timeout: float | None = None,
        if_version: str | None = None,
    ) -> str | None:
        """Set the content of one section; a missing section is created.

        `expiration` is in ns since 1970. None takes `section_expiration`; if that is SA_TIME_END, an existing
        section keeps its expiration. With `if_version` the section is written only if it has this version
        (`get_versioned`), else VersionConflict; the call returns the new version.
        """
        operations = self._operations
        if if_version is not None:
            return await self._run(operations.write_if(key, value, expiration, if_version), timeout)
        try:
            await self._ask(Kind.UPDATE, operations.write_body(key, value, expiration), timeout)
        except SaAisError as error:
            raise operations.failure("write to", error) from None
        return None

    async def write_many(
        self,
        values: Mapping[Any, Value] | Iterable[tuple[Key, Value]],
        *,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Write several sections as one atomic update; each keeps the tail of a longer old value.

        So JSON or a pickle is spoiled if the old value was longer, and no error tells you. Write it with
        `write`, which replaces the whole value, or make all values of a key equally long.
        """
        await self._run(self._operations.write_many(values, expiration), timeout)

    async def delete(self, key: Key, timeout: float | None = None, *, if_version: str | None = None) -> None:
        """Delete a section; a missing one is no error. With `max_sections` 1 this does nothing.

        With `if_version` it is deleted only if it has this version (`get_versioned`), else VersionConflict.
        """
        if if_version is not None:
            await self._run(self._operations.delete_if(key, if_version), timeout)
            return
        await self._run(self._operations.delete(key, missing_is_error=False), timeout)

    # -- conditional updates

    async def get_versioned(self, key: Key, timeout: float | None = None) -> Versioned | None:
        """Return the value of a key with its version; None if there is no such section.

        `Table.get_versioned` says what a version is.
        """
        return await self._run(self._operations.get_versioned(key), timeout)

    async def add(
        self, key: Key, value: Value, *, expiration: int | None = None, timeout: float | None = None
    ) -> str:
        """Create a section; return its version. CheckpointError EXIST if it exists."""
        return await self._run(self._operations.add(key, value, expiration), timeout)

    async def modify(
        self,
        key: Key,
        function: Callable[[bytes | None], Value | None],
        *,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> Value | None:
        """Replace the value of a key by `function(value)`, and return that, as `Table.modify` explains."""
        return await self._run(self._operations.modify(key, function, expiration), timeout)

    def transaction(self, timeout: float | None = None) -> AsyncTransaction:
        """Return a transaction: `async with table.transaction() as t:`, as `Table.transaction` explains."""
        operations = self._operations
        return AsyncTransaction(
            Changes(operations.attributes),
            operations.failure,
            operations.expiration_of,
            lambda changes: self._run(operations.update(changes), timeout),
        )

    # -- reading

    async def read(self, key: Key, timeout: float | None = None) -> bytes:
        """Return the value of one key. If it is missing, raise a CheckpointError that is also a KeyError."""
        operations = self._operations
        try:
            payload = await self._ask(Kind.READ, operations.read_body(key), timeout)
            return table_requests.value_of(payload)
        except SaAisError as error:
            raise operations.failure("read from", error, key_error=True) from None

    async def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[bytes]:
        """Return the values of several keys, all of the same moment."""
        return await self._run(self._operations.read_many(keys), timeout)

    async def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """Return the value of a key, or `default` if there is no such section."""
        return await self._run(self._operations.get(key, default), timeout)

    async def contains(self, key: Key, timeout: float | None = None) -> bool:
        """Return True if there is a section with this key."""
        return await self._run(self._operations.contains(key), timeout)

    async def read_all(self, timeout: float | None = None) -> dict[bytes, bytes]:
        """Return every section, as a dict; read in pages, which share the time-out."""
        return await self._run(self._operations.read_all(), timeout)

    async def items(self, timeout: float | None = None) -> AsyncIterator[tuple[bytes, bytes]]:
        """Iterate over every (key, value), in the order of the keys; in pages, as `Table.items` explains."""
        async for section in self.sections(True, timeout):
            yield self._operations.item(section)

    async def keys(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Iterate over every key, in order; in pages, like `items`."""
        async for section in self.sections(False, timeout):
            yield section.section_id

    async def values(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Iterate over every value, in the order of the keys; in pages, like `items`."""
        async for _, value in self.items(timeout):
            yield value

    async def sections(
        self, with_values: bool = False, timeout: float | None = None
    ) -> AsyncIterator[SectionDescriptor]:
        """Iterate over every section: size, state, times and, if asked for, value; in pages, like `items`."""
        for page in self._operations.pages(with_values):
            for section in await self._run(page, timeout):
                yield section

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()

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

    async def track(self) -> AsyncIterator[SectionChange]:
        """Return an iterator over every change from now on, in order; see `SectionChange`.

        Changes made by this table are left out. Tracking has begun when this returns: what you read after
        that is never older than the position from which changes are reported. No change is missed when the
        session moves to another node or the connection is replaced. If the session has ended, RESUMED is
        reported and then every section. If the checkpoint is gone, the iterator raises.
        """
        if self._own is None:
            self._own = OwnUpdates()
        limit = TimeLimit(None, self._operations.timeout_ns)
        feed = await self._begin_feed(limit)
        return OneByOne(await track(feed.ask, limit, self._own, feed.fail, feed.reopen))

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
