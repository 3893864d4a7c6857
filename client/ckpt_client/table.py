"""`Table`: a checkpoint as a table of byte sections, for programs that block.

The names in CamelCase are ASP's. The others are those of a Python mapping, and a few of our own.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, overload

from ckpt_client.checkpoint.open_table import OpenTable
from ckpt_client.errors import CheckpointEnded, CheckpointError, SaAisError
from ckpt_client.io.blocking import Connection
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Attributes, Key, SectionDescriptor, Status, Value
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END, SA_TIME_MAX
from ckpt_protocol.messages import Kind

if TYPE_CHECKING:
    from ckpt_client.checkpoint.tracking_thread import TrackCallback, Tracking

logger = logging.getLogger("aspCheckpoint")

_ABSENT: Final[Any] = object()
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ
_MILLISECOND_NS: Final = 1_000_000
_monotonic_ns = time.monotonic_ns
_put_body = table_requests.put_body
_read_one_body = table_requests.read_one_body


class Table(OpenTable):
    """A checkpoint: named sections of bytes that survive the loss of a node.

    If you give the three limits (number of sections, bytes of a section, bytes of a section's id), a missing
    checkpoint is created; without them it must exist. Each limit has two names, which mean the same: that of
    ASP's code (`maxRows`, `maxRowSizeBytes`, `maxRowKeySizeBytes`) and that of ASP's documentation
    (`maxSections`, `maxSectionSizeBytes`, `maxSectionIdSizeBytes`). By position they come in this order.

    `flags` (or `flagsp`) is one of SA_CKPT_WR_ALL_REPLICAS, _WR_ACTIVE_REPLICA, _WR_ACTIVE_REPLICA_WEAK,
    optionally with SA_CKPT_CHECKPOINT_COLLOCATED. `retentionMs` is how long the checkpoint is kept while no
    program has it open; SA_TIME_MAX keeps it for ever. `read_only` opens an existing checkpoint for reading.
    `timeout` (seconds; None: no limit) is the time-out of every call to which you give no other. For
    `address`, `cluster`, `key` and `follow_active` see `Connection`.

    A table does nothing between its calls. If its node is lost during a pause that is longer than the
    session's grace (10 s), its next call opens the checkpoint again, provided that the retention has kept
    it. If your program's pauses are longer than the retention, set `keep_alive`: one thread of the process
    then keeps the sessions of such tables alive.

    Keys are text (as UTF-8) or bytes, and come back as bytes. If the checkpoint has only one section, every
    key names that section. You may use a table from several threads, and after a fork.

    Raises: CheckpointError, here and in every method; its `aspErrorCode` is the SaAisError.
    Source: ASP's aspCheckpoint.Table; saCkptCheckpointOpen.
    """

    _auto_activate: ClassVar[bool] = True

    def __init__(
        self,
        name: Key,
        maxRows: int | None = None,
        maxRowSizeBytes: int | None = None,
        maxRowKeySizeBytes: int | None = None,
        flagsp: int = SA_CKPT_WR_ALL_REPLICAS,
        retentionMs: int = SA_TIME_MAX,
        *,
        maxSections: int | None = None,
        maxSectionSizeBytes: int | None = None,
        maxSectionIdSizeBytes: int | None = None,
        flags: int | None = None,
        read_only: bool = False,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        follow_active: bool | None = None,
        timeout: float | None = table_requests.TIMEOUT_S,
        keep_alive: bool = False,
    ) -> None:
        self.sectionExpiration: int = SA_TIME_END
        self.autoActivate: bool = self._auto_activate
        try:
            self._timeout_ns = table_requests.default_timeout_in_ns(timeout)
            self._opening = table_requests.opening_of(
                name,
                table_requests.either(maxRows, maxSections),
                table_requests.either(maxRowSizeBytes, maxSectionSizeBytes),
                table_requests.either(maxRowKeySizeBytes, maxSectionIdSizeBytes),
                flagsp if flags is None else flags,
                retentionMs,
                read_only,
            )
            if isinstance(address, Iterator):
                address = list(address)  # `track` reads it a second time.
            self._where = address, cluster, key, follow_active
            super().__init__(name, _connection_class(keep_alive)(*self._where), keep_alive)
        except SaAisError as error:
            raise CheckpointError(error, f"cannot open checkpoint {name!r}: {error.text}") from None
        self.tryAgainDelayMs = 250
        try:
            self._open(self._timeout_ns)
        except BaseException:
            self._closed = True
            self._connection.leave()  # Without waiting for an answer: that would exceed the call's time-out.
            raise

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
    def retentionMs(self) -> int:
        """How long the checkpoint is kept while no program has it open, in ms; SA_TIME_MAX: for ever."""
        return table_requests.retention_in_ms(self._attributes.retention_ns)

    @property
    def maxSections(self) -> int:
        """The maximum number of sections."""
        return self._attributes.sections_max

    @property
    def maxSectionSizeBytes(self) -> int:
        """The maximum size of a section."""
        return self._attributes.section_bytes_max

    @property
    def maxSectionIdSizeBytes(self) -> int:
        """The maximum length of a section's id."""
        return self._attributes.section_id_bytes_max

    @property
    def svcHdl(self) -> int:
        """The service handle, which is the id of this client's session; 0 once closed."""
        return self._connection.session_id

    @property
    def ckptHdl(self) -> int:
        """The checkpoint handle; 0 once closed."""
        return self._handle

    @property
    def tryAgainDelayMs(self) -> int:
        """The longest pause, in ms, before a request that was answered TRY_AGAIN is repeated."""
        return self._try_again_ms

    @tryAgainDelayMs.setter
    def tryAgainDelayMs(self, delay_ms: int) -> None:
        self._try_again_ms = delay_ms
        self._connection.set_pause_max(delay_ms * _MILLISECOND_NS)

    @property
    def node_id(self) -> str:
        """The node that this table is connected to; "" while it has none."""
        return self._connection.node_id

    # -- writing

    @overload
    def Write(
        self, key: Key, data: Value, *, expiration: int | None = None, timeout: float | None = None
    ) -> None: ...

    @overload
    def Write(
        self,
        key: Mapping[Any, Value] | Iterable[tuple[Key, Value]],
        *,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> None: ...

    def Write(
        self, key: Any, data: Any = _ABSENT, *, expiration: int | None = None, timeout: float | None = None
    ) -> None:
        """`Write({key: data})` keeps the tail of a longer old value; `Write(key, data)` replaces all of it.

        So JSON or a pickle that you write in a mapping, or in a list of (key, data), is spoiled if the old
        value was longer, and no error tells you. Write it with `table[key] = data` or `Write(key, data)`, or
        make all values of a key equally long.

        `Write(key, data)` gives one section exactly this content. A mapping or a list writes several
        sections from their beginning and shortens none; all of it is one atomic update. Missing sections are
        created. `expiration` is the time (ns since 1970) at which the sections expire. None takes
        `sectionExpiration`; if that is SA_TIME_END, existing sections keep their expiration.

        Source: saCkptSectionOverwrite, saCkptCheckpointWrite, saCkptSectionCreate.
        """
        if expiration is None and self.sectionExpiration != SA_TIME_END:
            expiration = self.sectionExpiration
        try:
            if data is _ABSENT:
                body = table_requests.patch_body(self._attributes, key, expiration)
            else:
                body = _put_body(self._attributes, key, data, expiration)
            self._ask(_UPDATE, body, timeout)
        except SaAisError as error:
            self._fail("write to", error)

    def Delete(self, key: Key, timeout: float | None = None) -> None:
        """Delete a section; a missing one is no error. With `maxSections` 1 this does nothing.

        Source: saCkptSectionDelete.
        """
        try:
            self._delete(key, timeout)
        except SaAisError as error:
            if error.code != codes.NOT_EXIST or error.index < 0:
                self._fail("delete from", error)

    def _delete(self, key: Key, timeout: float | None) -> None:
        if not self._attributes.single:
            self._ask(_UPDATE, table_requests.delete_body(self._attributes, key), timeout)
        elif self._closed:
            self._refuse_closed()

    # -- reading

    def Read(self, keys: Any, timeout: float | None = None) -> Any:
        """Return the value of one key (`Read(key)`, `Read([key])`), or a list of the values of several keys.

        The values of several keys are all of the same moment.

        Source: saCkptCheckpointRead.
        """
        try:
            if table_requests.is_single_key(keys):
                return self._read_one(keys, timeout)
            return table_requests.values_or_value(self.read_many(keys, timeout))
        except SaAisError as error:
            self._fail("read from", error)

    def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[bytes]:
        """Return the values of several keys, all of the same moment."""
        try:
            wanted = table_requests.key_list(keys)
            payload = self._ask(_READ, table_requests.read_body(self._attributes, wanted), timeout)
            return table_requests.values_of(payload, len(wanted))
        except SaAisError as error:
            self._fail("read from", error)

    def _read_one(self, key: Key, timeout: float | None) -> bytes:
        return table_requests.value_of(self._ask(_READ, _read_one_body(self._attributes, key), timeout))

    def read_all(self, timeout: float | None = None) -> dict[bytes, bytes]:
        """Return every section, as a dict. See `items` for sections that are written at the same time."""
        return dict(self.items(timeout))

    def items(self, timeout: float | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over every (key, value), in the order of the keys.

        They are read in pages. A section that exists all the time comes once; one that is written, created or
        deleted during the iteration comes as it is when its page is read. `timeout` holds for each page. A
        corrupted section raises FAILED_OPERATION; `sections` returns those too.
        """
        for section in self.sections(True, timeout):
            try:
                item = table_requests.item_of(section)
            except SaAisError as error:
                self._fail("read from", error)
            yield item

    def keys(self, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over every key, in order; in pages, like `items`."""
        for section in self.sections(False, timeout):
            yield section.section_id

    def values(self, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over every value, in the order of the keys; in pages, like `items`."""
        for _, value in self.items(timeout):
            yield value

    def sections(
        self, with_values: bool = False, timeout: float | None = None
    ) -> Iterator[SectionDescriptor]:
        """Iterate over every section: size, state, times and, if asked for, value; in pages, like `items`.

        Source: saCkptSectionIterationNext.
        """
        after: bytes | None = None
        while True:
            try:
                payload = self._ask(Kind.ITERATE, table_requests.iterate_body(after, with_values), timeout)
                page, after = table_requests.page_of(payload)
            except SaAisError as error:
                self._fail("read from", error)
            yield from page
            if after is None:
                return

    def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """Return the value of a key, or `default` if there is no such section."""
        try:
            return self._read_one(key, timeout)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index >= 0:
                return default
            self._fail("read from", error)

    def __getitem__(self, key: Key) -> bytes:
        try:
            return self._read_one(key, None)
        except SaAisError as error:
            self._fail("read from", error, key_error=True)

    def __setitem__(self, key: Key, value: Value) -> None:
        self.Write(key, value)

    def __delitem__(self, key: Key) -> None:
        try:
            self._delete(key, None)
        except SaAisError as error:
            self._fail("delete from", error, key_error=True)

    def __contains__(self, key: Key) -> bool:
        try:
            self._ask(_READ, table_requests.probe_body(self._attributes, key), None)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index >= 0:
                return False
            self._fail("read from", error)
        return True

    def __iter__(self) -> Iterator[bytes]:
        return self.keys()

    def __len__(self) -> int:
        return self.status().sections

    def __bool__(self) -> bool:
        """A table is true even when it is empty."""
        return True

    # -- replicas

    def Activate(self, timeout: float | None = None) -> None:
        """Make the local replica the active one. Only for asynchronous collocated checkpoints.

        Source: saCkptActiveReplicaSet.
        """
        if self._attributes.sync:
            logger.info("checkpoint %r is synchronous: it needs no active replica", self.ckptName)
            return
        try:
            self._ask(Kind.ACTIVE_SET, pack_body([False]), timeout)
        except SaAisError as error:
            self._fail("activate", error)

    def Synchronize(self, timeout: float | None = None) -> None:
        """Wait until every in-sync replica has everything that was written before this call.

        Source: saCkptCheckpointSynchronize.
        """
        if self._attributes.sync:
            logger.info("checkpoint %r is synchronous: its replicas are the same always", self.ckptName)
            return
        try:
            self._ask(Kind.SYNCHRONIZE, table_requests.EMPTY_BODY, timeout)
        except SaAisError as error:
            self._fail("synchronize", error)

    def GetActiveStatus(self, timeout: float | None = None) -> bool:
        """Return True if there is an active replica."""
        try:
            return (
                table_requests.status_of(
                    self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout, False)
                ).active
                is not None
            )
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and not isinstance(error, CheckpointEnded):
                return False
            self._fail("look at", error)

    def SetAutoActivate(self, autoActivate: bool = True) -> None:
        """Set whether a call that finds no active replica activates the local one.

        This holds for this table and for those opened later.
        """
        Table._auto_activate = bool(autoActivate)
        self.autoActivate = bool(autoActivate)

    def status(self, timeout: float | None = None) -> Status:
        """Return the checkpoint's state: sections, memory, replicas, opens.

        Source: saCkptCheckpointStatusGet.
        """
        try:
            return table_requests.status_of(self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout))
        except SaAisError as error:
            self._fail("look at", error)

    def track(self, callback: "TrackCallback | None" = None) -> "Tracking":
        """Report every change from now on, to `callback(changes)` in a thread of its own, or to your loop.

        Without a callback, iterate over the returned `Tracking`: it yields one `SectionChange` after the
        other. Call its `stop` when you have seen enough.

        Changes come in order. Those that arrive while the callback runs are passed to it together. This
        table's own changes are reported too. No change is missed when the session moves to another node or
        the connection is replaced. If the session has ended, RESUMED is reported and then every section. If
        the checkpoint is gone, the callback receives ENDED, and the loop raises.
        """
        from ckpt_client.checkpoint.tracking_thread import (
            Tracking,  # This imports asyncio, which takes long.
        )

        try:
            if not self._handle:
                self._reopened_handle(self._timeout_ns)
            name = self._opening.name
            try:
                return Tracking(name, self._creation_id, callback, self._where, self._timeout_ns)
            except SaAisError as error:
                if error.code == codes.NOT_EXIST:
                    self._ask(
                        Kind.STATUS, table_requests.EMPTY_BODY, None, False
                    )  # If the table's own session has ended too, this raises CheckpointEnded.
                raise
        except SaAisError as error:
            self._fail("track", error)

    # -- closing

    def unlink(self, timeout: float | None = None) -> None:
        """Free the checkpoint's name. The data goes when the last table that has it open is closed.

        It raises NOT_EXIST if this checkpoint no longer has its name, even if a newer checkpoint has it.

        Source: saCkptCheckpointUnlink.
        """
        try:
            timeout_ns = table_requests.timeout_in_ns(timeout, self._timeout_ns)
            if not self._handle:
                self._reopened_handle(timeout_ns)
            self._ask(
                Kind.UNLINK, table_requests.unlink_body(self._opening.name, self._creation_id), timeout, False
            )
        except SaAisError as error:
            self._fail("unlink", error)

    def close(self) -> None:
        """Close the checkpoint and the connection. If no node answers, this takes 1 s at most.

        Closing again does nothing.
        """
        self._closed = True
        self._handle = 0
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"at node {self.node_id!r}"
        return f"<Table {self.ckptName!r} {state}>"


def _connection_class(keep_alive: bool) -> type[Connection]:
    if not keep_alive:
        return Connection
    from ckpt_client.io.keep_alive import KeptConnection  # Few programs need it.

    return KeptConnection
