"""`Table`: a checkpoint as a table of byte sections, for programs that block.

The names in CamelCase are ASP's; beside them stands what a Python mapping offers.
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

    With the three limits (number of sections, bytes of a section, bytes of a section's id) the checkpoint is
    created where it is missing; without them it must exist. ASP's names of the limits (`maxRows`,
    `maxRowSizeBytes`, `maxRowKeySizeBytes`) and those of its documentation (`maxSections`,
    `maxSectionSizeBytes`, `maxSectionIdSizeBytes`) mean the same; positions are as above.

    `flags` (or `flagsp`) is one of SA_CKPT_WR_ALL_REPLICAS, _WR_ACTIVE_REPLICA, _WR_ACTIVE_REPLICA_WEAK,
    optionally with SA_CKPT_CHECKPOINT_COLLOCATED. `retentionMs` is how long the checkpoint stays when nobody
    has it open, SA_TIME_MAX for ever. `read_only` opens an existing checkpoint for reading. `timeout`
    (seconds, None: no limit) is the time-out of every call that is given no other. For `address`, `cluster`,
    `key` and `follow_active` see `Connection`.

    A table between its calls does nothing. When its node is lost in a pause that is longer than the session's
    grace (10 s), its next call opens the checkpoint again, if its retention kept it. `keep_alive` has one
    thread of the process keep such tables up: for those whose retention is shorter than the program's pauses.

    Keys are text (as UTF-8) or bytes and come back as bytes; where there is but one section every key names
    it. A table is safe to use from several threads, and after a fork.

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
                address = list(address)  # It is read again where the table is tracked.
            self._where = address, cluster, key, follow_active
            super().__init__(name, _connection_class(keep_alive)(*self._where), keep_alive)
        except SaAisError as error:
            raise CheckpointError(error, f"cannot open checkpoint {name!r}: {error.text}") from None
        self.tryAgainDelayMs = 250
        try:
            self._open(self._timeout_ns)
        except BaseException:
            self._closed = True
            self._connection.leave()  # Waiting for an answer once more would make it late.
            raise

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
    def retentionMs(self) -> int:
        """How long the checkpoint stays when nobody has it open, in ms; SA_TIME_MAX for ever."""
        return table_requests.retention_in_ms(self._attributes.retention_ns)

    @property
    def maxSections(self) -> int:
        """How many sections there may be."""
        return self._attributes.sections_max

    @property
    def maxSectionSizeBytes(self) -> int:
        """How large a section may be."""
        return self._attributes.section_bytes_max

    @property
    def maxSectionIdSizeBytes(self) -> int:
        """How long a section's id may be."""
        return self._attributes.section_id_bytes_max

    @property
    def svcHdl(self) -> int:
        """The service handle: this client's session; 0 once closed."""
        return self._connection.session_id

    @property
    def ckptHdl(self) -> int:
        """The checkpoint handle; 0 once closed."""
        return self._handle

    @property
    def tryAgainDelayMs(self) -> int:
        """The longest pause before a request that was answered TRY_AGAIN is repeated."""
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

        So JSON or a pickle that is written with others, in a mapping or in a list of (key, data), is spoiled
        where what stood there was longer, and nobody is told: write it with `table[key] = data` or
        `Write(key, data)`, or make all values of a key equally long.

        One section, `Write(key, data)`, gets exactly this content. Several are written from their beginning,
        none is shortened, and all of it is one atomic update. Sections that are missing are created.
        `expiration` is the time (ns since 1970) at which the sections go; None takes `sectionExpiration` and,
        where that is SA_TIME_END, leaves the expiration of existing sections as it is.

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
        """Delete a section; one that is missing is fine. With `maxSections` 1 it does nothing.

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
        """The value of one key (`Read(key)`, `Read([key])`), or a list with that of each, all of one moment.

        Source: saCkptCheckpointRead.
        """
        try:
            if table_requests.is_single_key(keys):
                return self._read_one(keys, timeout)
            return table_requests.values_or_value(self.read_many(keys, timeout))
        except SaAisError as error:
            self._fail("read from", error)

    def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[bytes]:
        """The values of several keys, all of one moment."""
        try:
            wanted = table_requests.key_list(keys)
            payload = self._ask(_READ, table_requests.read_body(self._attributes, wanted), timeout)
            return table_requests.values_of(payload, len(wanted))
        except SaAisError as error:
            self._fail("read from", error)

    def _read_one(self, key: Key, timeout: float | None) -> bytes:
        return table_requests.value_of(self._ask(_READ, _read_one_body(self._attributes, key), timeout))

    def read_all(self, timeout: float | None = None) -> dict[bytes, bytes]:
        """Every section, as a dict. See `items` for what writers may do meanwhile."""
        return dict(self.items(timeout))

    def items(self, timeout: float | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Every (key, value), in the order of the keys.

        They come in pages: a section that is there all the time comes once, one that is written, created or
        deleted meanwhile comes as it is when its page is read. `timeout` holds for each page. A corrupted
        section raises FAILED_OPERATION; `sections` shows such ones too.
        """
        for section in self.sections(True, timeout):
            try:
                item = table_requests.item_of(section)
            except SaAisError as error:
                self._fail("read from", error)
            yield item

    def keys(self, timeout: float | None = None) -> Iterator[bytes]:
        """Every key, in order; in pages as `items`."""
        for section in self.sections(False, timeout):
            yield section.section_id

    def values(self, timeout: float | None = None) -> Iterator[bytes]:
        """Every value, in the order of the keys; in pages as `items`."""
        for _, value in self.items(timeout):
            yield value

    def sections(
        self, with_values: bool = False, timeout: float | None = None
    ) -> Iterator[SectionDescriptor]:
        """Every section with its size, state and times, and its value if asked for; in pages as `items`.

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
        """The value of a key, or `default` where it is missing."""
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
        """A table is true, also when it is empty."""
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
        """Wait until every in-sync replica has all that was written before.

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
        """Whether there is an active replica."""
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
        """Whether a call without an active replica activates the local one: for this table and later ones."""
        Table._auto_activate = bool(autoActivate)
        self.autoActivate = bool(autoActivate)

    def status(self, timeout: float | None = None) -> Status:
        """The checkpoint's state: sections, memory, replicas, opens. Source: saCkptCheckpointStatusGet."""
        try:
            return table_requests.status_of(self._ask(Kind.STATUS, table_requests.EMPTY_BODY, timeout))
        except SaAisError as error:
            self._fail("look at", error)

    def track(self, callback: "TrackCallback | None" = None) -> "Tracking":
        """Have every change told from now on, by `callback(changes)` in a thread of its own, or to a loop.

        Without a callback, iterate over what this returns: one `SectionChange` after the other. `stop` it.

        Changes come in order; those that came while the callback ran, together. Those made by this table come
        too. None is missed while the node, or the way to it, changes. If the session ended, RESUMED is told
        and then every section. Where the checkpoint is gone, the callback is told ENDED, and the loop raises.
        """
        from ckpt_client.checkpoint.tracking_thread import (
            Tracking,  # It needs asyncio, which takes long to import.
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
                    )  # The table may have to be told too.
                raise
        except SaAisError as error:
            self._fail("track", error)

    # -- the end

    def unlink(self, timeout: float | None = None) -> None:
        """Free the checkpoint's name. The data goes when the last table that has it open is closed.

        It is NOT_EXIST where this very checkpoint has no name any more, also if a newer one has that name.

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
        """Close the checkpoint and the connection; this takes 1 s at most where no node answers.

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
