"""`AsyncTable`: what `Table` does, for asyncio.

All tables of a loop with the same addresses share one connection.
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
    """A checkpoint, for asyncio: made by `await AsyncTable.open(...)`, with the meaning that `Table` gives
    each call.

    Many tasks may use one table at once; their requests travel together. Cancelling a call gives up its
    answer (whether a write was done is then not known) and harms nothing else.

    Raises: CheckpointError, in every method.
    """

    default_auto_activate: ClassVar[bool] = True

    def __init__(self, connection: AsyncConnection, opening: Opening, timeout_ns: int) -> None:
        """Only for `open`."""
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
        """Open a checkpoint, creating it where the three limits are given and it is missing.

        Arguments as `Table`'s.
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
            connection.leave()  # Waiting for an answer once more would make it late.
            if isinstance(error, SaAisError):
                table._fail("open", error)
            raise
        return table

    # -- what the checkpoint is

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
        """How long the checkpoint stays when nobody has it open, in ms; SA_TIME_MAX for ever."""
        return table_requests.retention_in_ms(self._attributes.retention_ns)

    @property
    def max_sections(self) -> int:
        """How many sections there may be."""
        return self._attributes.sections_max

    @property
    def max_section_size_bytes(self) -> int:
        """How large a section may be."""
        return self._attributes.section_bytes_max

    @property
    def max_section_id_size_bytes(self) -> int:
        """How long a section's id may be."""
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
        """Set one section's content, creating it where missing.

        `expiration`: ns since 1970, None as it is.
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

        So JSON or a pickle is spoiled where what stood there was longer, and nobody is told: write it with
        `write`, which replaces all of the value, or make all values of a key equally long.
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
        """Delete a section; one that is missing is fine. With `max_sections` 1 it does nothing."""
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
        """The value of one key. A missing one raises a CheckpointError that is also a KeyError."""
        try:
            return await self._read_one(key, timeout)
        except SaAisError as error:
            self._fail("read from", error, key_error=True)

    async def _read_one(self, key: Key, timeout: float | None) -> bytes:
        return table_requests.value_of(
            await self._ask(Kind.READ, table_requests.read_one_body(self._attributes, key), timeout)
        )

    async def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[bytes]:
        """The values of several keys, all of one moment."""
        try:
            wanted = table_requests.key_list(keys)
            payload = await self._ask(Kind.READ, table_requests.read_body(self._attributes, wanted), timeout)
            return table_requests.values_of(payload, len(wanted))
        except SaAisError as error:
            self._fail("read from", error)

    async def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """The value of a key, or `default` where it is missing."""
        try:
            return await self._read_one(key, timeout)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index >= 0:
                return default
            self._fail("read from", error)

    async def contains(self, key: Key, timeout: float | None = None) -> bool:
        """Whether there is a section of this key."""
        try:
            await self._ask(Kind.READ, table_requests.probe_body(self._attributes, key), timeout)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index >= 0:
                return False
            self._fail("read from", error)
        return True

    async def read_all(self, timeout: float | None = None) -> dict[bytes, bytes]:
        """Every section, as a dict; in pages as `items`."""
        return {key: value async for key, value in self.items(timeout)}

    async def items(self, timeout: float | None = None) -> AsyncIterator[tuple[bytes, bytes]]:
        """Every (key, value), in the order of the keys; in pages, as `Table.items` tells."""
        async for section in self.sections(True, timeout):
            try:
                item = table_requests.item_of(section)
            except SaAisError as error:
                self._fail("read from", error)
            yield item

    async def keys(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Every key, in order; in pages as `items`."""
        async for section in self.sections(False, timeout):
            yield section.section_id

    async def values(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Every value, in the order of the keys; in pages as `items`."""
        async for _, value in self.items(timeout):
            yield value

    async def sections(
        self, with_values: bool = False, timeout: float | None = None
    ) -> AsyncIterator[SectionDescriptor]:
        """Every section with its size, state and times, and its value if asked for; in pages as `items`."""
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
        """Wait until every in-sync replica has all that was written before."""
        if self._attributes.sync:
            logger.info("checkpoint %r is synchronous: its replicas are the same always", self.name)
            return
        try:
            await self._ask(Kind.SYNCHRONIZE, table_requests.EMPTY_BODY, timeout)
        except SaAisError as error:
            self._fail("synchronize", error)

    async def get_active_status(self, timeout: float | None = None) -> bool:
        """Whether there is an active replica."""
        try:
            payload = await self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout, False)
            return table_requests.status_of(payload).active is not None
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and not isinstance(error, CheckpointEnded):
                return False
            self._fail("look at", error)

    def set_auto_activate(self, auto_activate: bool) -> None:
        """Whether a call without an active replica activates the local one: for this table and later ones."""
        AsyncTable.default_auto_activate = bool(auto_activate)
        self.auto_activate = bool(auto_activate)

    async def status(self, timeout: float | None = None) -> Status:
        """The checkpoint's state: sections, memory, replicas, opens."""
        try:
            return table_requests.status_of(await self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout))
        except SaAisError as error:
            self._fail("look at", error)

    async def track(self) -> AsyncIterator[SectionChange]:
        """Every change from now on, in order, but for those made by this table; see `SectionChange`.

        It has begun when this returns: what is read then is not older than what is told. None is missed while
        the node, or the way to it, changes. Where the session ended, RESUMED is told and then every section.
        It raises where the checkpoint is gone.
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

    # -- the end

    async def unlink(self, timeout: float | None = None) -> None:
        """Free the checkpoint's name. The data goes when the last table that has it open is closed.

        It is NOT_EXIST where this very checkpoint has no name any more, also if a newer one has that name.
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

        Where no node answers it does not wait: the session tells the service as soon as it can, as long as
        other tables use it.
        """
        if self._closed:
            return
        self._closed = True
        handle, self._handle = self._handle, 0
        try:
            if self._connection.is_shared:
                await self._connection.close_handle(handle)
        except SaAisError as error:
            # A session that has ended has closed everything; otherwise its grace time will.
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
