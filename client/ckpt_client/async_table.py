"""`AsyncTable`: a checkpoint as a table of byte sections, for asyncio.

All tables of an event loop that name the same addresses share one connection.
"""

import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self

from ckpt_client.checkpoint.open_async_table import OpenAsyncTable
from ckpt_client.checkpoint.tracking import OneByOne, OwnUpdates, SectionChange, track
from ckpt_client.errors import CheckpointEnded, CheckpointError, SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Attributes, Key, Opening, SectionDescriptor, Status, Value
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END, SA_TIME_MAX
from ckpt_protocol.messages import Kind

logger = logging.getLogger("aspCheckpoint")


class AsyncTable(OpenAsyncTable):
    """A checkpoint, for asyncio. Each call means what it means in `Table`.

    Open one with `await AsyncTable.open(...)`. Many tasks may use one table at once; their requests are sent
    together. Cancelling a call gives up its answer and affects nothing else; you then do not know whether a
    write was done.

    Raises: CheckpointError, in every method.
    """

    default_auto_activate: ClassVar[bool] = True

    def __init__(self, connection: AsyncConnection, opening: Opening, timeout_ns: int) -> None:
        """For `open` only."""
        super().__init__(connection, opening, timeout_ns)
        self.section_expiration: int = SA_TIME_END
        self.auto_activate = self.default_auto_activate

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
    ) -> Self:
        """Open a checkpoint. If it is missing and the three limits are given, create it.

        The arguments are those of `Table`.
        """
        try:
            timeout_ns = table_requests.default_timeout_in_ns(timeout)
            limits = (max_sections, max_section_size_bytes, max_section_id_size_bytes)
            opening = table_requests.opening_of(name, *limits, flags, retention_ms, read_only)
            connection = AsyncConnection.shared(address, cluster, key, follow_active)
        except SaAisError as error:
            raise CheckpointError(error, f"cannot open checkpoint {name!r}: {error.text}") from None
        table = cls(connection, opening, timeout_ns)
        try:
            await table._open(timeout_ns)
        except BaseException as error:
            connection.leave()  # Without waiting for an answer: that would exceed the call's time-out.
            if isinstance(error, SaAisError):
                table._fail("open", error)
            raise
        return table

    # -- attributes

    @property
    def attributes(self) -> Attributes:
        """The creation attributes in force."""
        return self._attributes

    @property
    def flags(self) -> int:
        """The creation flags."""
        return self._attributes.flags

    @property
    def retention_ms(self) -> int:
        """How long the checkpoint is kept while no program has it open, in ms; SA_TIME_MAX: for ever."""
        return table_requests.retention_in_ms(self._attributes.retention_ns)

    @property
    def max_sections(self) -> int:
        """The maximum number of sections."""
        return self._attributes.sections_max

    @property
    def max_section_size_bytes(self) -> int:
        """The maximum size of a section."""
        return self._attributes.section_bytes_max

    @property
    def max_section_id_size_bytes(self) -> int:
        """The maximum length of a section's id."""
        return self._attributes.section_id_bytes_max

    @property
    def handle(self) -> int:
        """The checkpoint handle; 0 once closed."""
        return self._handle

    @property
    def node_id(self) -> str:
        """The node that this table is connected to; "" while it has none."""
        return self._connection.node_id

    # -- writing

    async def write(
        self, key: Key, value: Value, *, expiration: int | None = None, timeout: float | None = None
    ) -> None:
        """Set the content of one section; a missing section is created.

        `expiration` is in ns since 1970. None takes `section_expiration`; if that is SA_TIME_END, an existing
        section keeps its expiration.
        """
        try:
            body = table_requests.put_body(self._attributes, key, value, self._expiration(expiration))
            await self._ask(Kind.UPDATE, body, timeout)
        except SaAisError as error:
            self._fail("write to", error)

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
        try:
            body = table_requests.patch_body(self._attributes, values, self._expiration(expiration))
            await self._ask(Kind.UPDATE, body, timeout)
        except SaAisError as error:
            self._fail("write to", error)

    def _expiration(self, expiration: int | None) -> int | None:
        if expiration is None and self.section_expiration != SA_TIME_END:
            return self.section_expiration
        return expiration

    async def delete(self, key: Key, timeout: float | None = None) -> None:
        """Delete a section; a missing one is no error. With `max_sections` 1 this does nothing."""
        try:
            if not self._attributes.single:
                await self._ask(Kind.UPDATE, table_requests.delete_body(self._attributes, key), timeout)
            elif self._closed:
                self._refuse_closed()
        except SaAisError as error:
            if error.code != codes.NOT_EXIST or error.index < 0:
                self._fail("delete from", error)

    # -- reading

    async def read(self, key: Key, timeout: float | None = None) -> bytes:
        """Return the value of one key. If it is missing, raise a CheckpointError that is also a KeyError."""
        try:
            return await self._read_one(key, timeout)
        except SaAisError as error:
            self._fail("read from", error, key_error=True)

    async def _read_one(self, key: Key, timeout: float | None) -> bytes:
        return table_requests.value_of(
            await self._ask(Kind.READ, table_requests.read_one_body(self._attributes, key), timeout)
        )

    async def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[bytes]:
        """Return the values of several keys, all of the same moment."""
        try:
            wanted = table_requests.key_list(keys)
            payload = await self._ask(Kind.READ, table_requests.read_body(self._attributes, wanted), timeout)
            return table_requests.values_of(payload, len(wanted))
        except SaAisError as error:
            self._fail("read from", error)

    async def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """Return the value of a key, or `default` if there is no such section."""
        try:
            return await self._read_one(key, timeout)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index >= 0:
                return default
            self._fail("read from", error)

    async def contains(self, key: Key, timeout: float | None = None) -> bool:
        """Return True if there is a section with this key."""
        try:
            await self._ask(Kind.READ, table_requests.probe_body(self._attributes, key), timeout)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index >= 0:
                return False
            self._fail("read from", error)
        return True

    async def read_all(self, timeout: float | None = None) -> dict[bytes, bytes]:
        """Return every section, as a dict; read in pages, like `items`."""
        return {key: value async for key, value in self.items(timeout)}

    async def items(self, timeout: float | None = None) -> AsyncIterator[tuple[bytes, bytes]]:
        """Iterate over every (key, value), in the order of the keys; in pages, as `Table.items` explains."""
        async for section in self.sections(True, timeout):
            try:
                item = table_requests.item_of(section)
            except SaAisError as error:
                self._fail("read from", error)
            yield item

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
        after: bytes | None = None
        while True:
            try:
                payload = await self._ask(
                    Kind.ITERATE, table_requests.iterate_body(after, with_values), timeout
                )
                page, after = table_requests.page_of(payload)
            except SaAisError as error:
                self._fail("read from", error)
            for section in page:
                yield section
            if after is None:
                return

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()

    # -- replicas

    async def activate(self, timeout: float | None = None) -> None:
        """Make the local replica the active one. Only for asynchronous collocated checkpoints."""
        if self._attributes.sync:
            logger.info("checkpoint %r is synchronous: it needs no active replica", self.name)
            return
        try:
            await self._ask(Kind.ACTIVE_SET, pack_body([False]), timeout)
        except SaAisError as error:
            self._fail("activate", error)

    async def synchronize(self, timeout: float | None = None) -> None:
        """Wait until every in-sync replica has everything that was written before this call."""
        if self._attributes.sync:
            logger.info("checkpoint %r is synchronous: its replicas are the same always", self.name)
            return
        try:
            await self._ask(Kind.SYNCHRONIZE, table_requests.EMPTY_BODY, timeout)
        except SaAisError as error:
            self._fail("synchronize", error)

    async def get_active_status(self, timeout: float | None = None) -> bool:
        """Return True if there is an active replica."""
        try:
            payload = await self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout, False)
            return table_requests.status_of(payload).active is not None
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and not isinstance(error, CheckpointEnded):
                return False
            self._fail("look at", error)

    def set_auto_activate(self, auto_activate: bool) -> None:
        """Set whether a call that finds no active replica activates the local one.

        This holds for this table and for those opened later.
        """
        AsyncTable.default_auto_activate = bool(auto_activate)
        self.auto_activate = bool(auto_activate)

    async def status(self, timeout: float | None = None) -> Status:
        """Return the checkpoint's state: sections, memory, replicas, opens."""
        try:
            return table_requests.status_of(await self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout))
        except SaAisError as error:
            self._fail("look at", error)

    async def track(self) -> AsyncIterator[SectionChange]:
        """Return an iterator over every change from now on, in order; see `SectionChange`.

        Changes made by this table are left out. Tracking has begun when this returns: what you read after
        that is never older than the position from which changes are reported. No change is missed when the
        session moves to another node or the connection is replaced. If the session has ended, RESUMED is
        reported and then every section. If the checkpoint is gone, the iterator raises.
        """
        if self._own is None:
            self._own = OwnUpdates()
        try:
            if not self._handle:
                await self._reopen(0, time.monotonic_ns() + self._timeout_ns)
        except SaAisError as error:
            self._fail("track", error)
        creation_id, used = self._creation_id, self._handle

        async def ask(kind: int, body: bytes, timeout_ns: int) -> Any:
            nonlocal used
            if self._closed:
                self._refuse_closed()
            if self._creation_id != creation_id:
                raise table_requests.ended("it was opened anew since")
            used = self._handle
            return await self._connection.call(kind, used, body, timeout_ns)

        async def reopen() -> None:
            try:
                await self._reopen(used, time.monotonic_ns() + self._timeout_ns)
            except SaAisError as error:
                if error.code != codes.BAD_HANDLE or self._closed:
                    raise
                raise error_of(codes.TRY_AGAIN, error.text) from None

        def fail(error: SaAisError) -> NoReturn:
            self._fail("track", error)

        return OneByOne(await track(ask, self._timeout_ns, self._own, fail, reopen))

    # -- closing

    async def unlink(self, timeout: float | None = None) -> None:
        """Free the checkpoint's name. The data goes when the last table that has it open is closed.

        It raises NOT_EXIST if this checkpoint no longer has its name, even if a newer checkpoint has it.
        """
        try:
            timeout_ns = table_requests.timeout_in_ns(timeout, self._timeout_ns)
            if not self._handle:
                await self._reopen(0, time.monotonic_ns() + timeout_ns)
            body = table_requests.unlink_body(self._opening.name, self._creation_id)
            await self._call(Kind.UNLINK, body, timeout_ns)
        except SaAisError as error:
            self._fail("unlink", error)

    async def close(self) -> None:
        """Close the checkpoint. Closing again does nothing.

        While no node has the session this does not wait: the session sends the CLOSE as soon as it can, as
        long as other tables use it. Otherwise it waits 1 s at most.
        """
        if self._closed:
            return
        self._closed = True
        handle, self._handle = self._handle, 0
        try:
            if self._connection.is_shared:
                await self._connection.close_handle(handle)
        except SaAisError as error:
            # If the session has ended, everything is closed; if not, the end of its grace time closes it.
            logger.info("checkpoint %r was not closed in order: %s", self.name, error)
        finally:
            await self._connection.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"at node {self.node_id!r}"
        return f"<AsyncTable {self.name!r} {state}>"
