"""`Table`: a checkpoint as a table of byte sections, for programs that block.

The names in CamelCase are ASP's. The others are those of a Python mapping, and a few of our own.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, overload

from ckpt_client.checkpoint.open_checkpoint import is_missing
from ckpt_client.checkpoint.operations import Operations
from ckpt_client.checkpoint.transactions import Changes, Transaction, Versioned
from ckpt_client.errors import CheckpointError, SaAisError
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.leadership.table_leading import LeadingTable
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Key, SectionDescriptor, Status, Value
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_MAX
from ckpt_protocol.messages import Kind

if TYPE_CHECKING:
    from ckpt_client.checkpoint.tracking_thread import TrackCallback, Tracking

logger = logging.getLogger("aspCheckpoint")

_MISSING: Final[Any] = object()
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ


class Table(LeadingTable):
    """A checkpoint: named sections of bytes that survive the loss of a node.

    If you give the three limits (number of sections, bytes of a section, bytes of a section's id), a missing
    checkpoint is created; without them it must exist. Each limit has two names, which mean the same: that of
    ASP's code (`maxRows`, `maxRowSizeBytes`, `maxRowKeySizeBytes`) and that of ASP's documentation
    (`maxSections`, `maxSectionSizeBytes`, `maxSectionIdSizeBytes`). By position they come in this order.

    `flags` (or `flagsp`) is one of SA_CKPT_WR_ALL_REPLICAS, _WR_ACTIVE_REPLICA, _WR_ACTIVE_REPLICA_WEAK,
    optionally with SA_CKPT_CHECKPOINT_COLLOCATED. `retentionMs` is how long the checkpoint is kept while no
    program has it open; SA_TIME_MAX keeps it for ever. `read_only` opens an existing checkpoint for reading.
    `timeout` is the time-out of every call to which you give no other, in seconds; None is 10, `math.inf` no
    limit. The constructor is such a call: it waits while no daemon listens, or none serves yet. For
    `address`, `cluster`, `key` and `follow_active` see `Connection`.

    A checkpoint that exists keeps its limits: other ones than those it was created with, or had before a
    `resize`, are EXIST. With `grow` they are no error: each limit that is smaller than yours is raised to it.

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
    _waits: ClassVar[bool] = True

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
        grow: bool = False,
    ) -> None:
        self.ckptName = name
        try:
            timeout_ns = table_requests.timeout_in_ns(timeout)
            opening = table_requests.open_parameters(
                name,
                table_requests.one_of(maxRows, maxSections),
                table_requests.one_of(maxRowSizeBytes, maxSectionSizeBytes),
                table_requests.one_of(maxRowKeySizeBytes, maxSectionIdSizeBytes),
                flagsp if flags is None else flags,
                retentionMs,
                read_only,
                grow,
            )
            if isinstance(address, Iterator):
                address = list(address)  # `track` reads it a second time.
            self._endpoint = address, cluster, key, follow_active
            connection = _connection_class(keep_alive)(*self._endpoint, self._waits)
        except SaAisError as error:
            raise CheckpointError(error, f"cannot open checkpoint {name!r}: {error.text}") from None
        super().__init__(Operations(name, opening, timeout_ns), connection, keep_alive)
        self._operations.auto_activate = self._auto_activate
        self.tryAgainDelayMs = 250
        try:
            self._open(timeout_ns)
        except BaseException:
            self._operations.closed = True
            self._connection.leave()  # Without waiting for an answer: that would exceed the call's time-out.
            raise

    # -- writing

    @overload
    def Write(
        self, key: Key, data: Value, *, expiration: int | None = None, timeout: float | None = None
    ) -> None: ...

    @overload
    def Write(
        self,
        key: Key,
        data: Value,
        *,
        expiration: int | None = None,
        timeout: float | None = None,
        if_version: str,
    ) -> str: ...

    @overload
    def Write(
        self,
        key: Mapping[Any, Value] | Iterable[tuple[Key, Value]],
        *,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> None: ...

    def Write(
        self,
        key: Any,
        data: Any = _MISSING,
        *,
        expiration: int | None = None,
        timeout: float | None = None,
        if_version: str | None = None,
    ) -> str | None:
        """`Write({key: data})` keeps the tail of a longer old value; `Write(key, data)` replaces all of it.

        So JSON or a pickle that you write in a mapping, or in a list of (key, data), is spoiled if the old
        value was longer, and no error tells you. Write it with `table[key] = data` or `Write(key, data)`, or
        make all values of a key equally long.

        `Write(key, data)` gives one section exactly this content. A mapping or a list writes several
        sections from their beginning and shortens none; all of it is one atomic update. Missing sections are
        created. `expiration` is the time (ns since 1970) at which the sections expire. None takes
        `sectionExpiration`; if that is SA_TIME_END, existing sections keep their expiration.

        With `if_version`, one section is written only if it has this version (`get_versioned`), else
        VersionConflict; the call returns the new version.

        Source: saCkptSectionOverwrite, saCkptCheckpointWrite, saCkptSectionCreate.
        """
        operations = self._operations
        if if_version is not None:
            return self._run(operations.write_if(key, data, expiration, if_version), timeout)
        if data is _MISSING:
            self._run(operations.write_many(key, expiration), timeout)
            return None
        try:
            self._ask(_UPDATE, operations.write_body(key, data, expiration), timeout)
        except SaAisError as error:
            raise operations.failure("write to", error) from None
        return None

    def Delete(self, key: Key, timeout: float | None = None, *, if_version: str | None = None) -> None:
        """Delete a section; a missing one is no error. With `maxSections` 1 this does nothing.

        With `if_version` it is deleted only if it has this version (`get_versioned`), else VersionConflict.

        Source: saCkptSectionDelete.
        """
        if if_version is not None:
            self._run(self._operations.delete_if(key, if_version), timeout)
            return
        self._run(self._operations.delete(key, missing_is_error=False), timeout)

    # -- conditional updates

    def get_versioned(self, key: Key, timeout: float | None = None) -> Versioned | None:
        """Return the value of a key with its version; None if there is no such section.

        The version is opaque text. No other value of this key ever has it, also after the checkpoint was
        unlinked and created again. (If all state directories are lost, versions may repeat.)
        """
        return self._run(self._operations.get_versioned(key), timeout)

    def add(
        self, key: Key, data: Value, *, expiration: int | None = None, timeout: float | None = None
    ) -> str:
        """Create a section; return its version. CheckpointError EXIST if it exists.

        Source: saCkptSectionCreate.
        """
        return self._run(self._operations.add(key, data, expiration), timeout)

    def modify(
        self,
        key: Key,
        function: Callable[[bytes | None], Value | None],
        *,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> Value | None:
        """Replace the value of a key by `function(value)`, and return that; no other write comes between.

        The function gets None if there is no such section, and returns None to delete it. If another program
        writes the section in the meantime, the function is called again with the newer value.
        """
        return self._run(self._operations.modify(key, function, expiration), timeout)

    def transaction(self, timeout: float | None = None) -> Transaction:
        """Return a transaction: `with table.transaction() as t:`, one atomic update at the end of the block.

            t.require("balance:a", version)       # also require_absent(key), require_present(key)
            t["balance:a"] = b"10"                # replaces the value, or creates the section
            del t["hold:17"]

        If a condition does not hold, the end of the block raises VersionConflict, and nothing is done.
        """
        operations = self._operations
        return Transaction(
            Changes(operations.attributes),
            operations.failure,
            operations.expiration_of,
            lambda changes: self._run(operations.update(changes), timeout),
        )

    # -- reading

    def Read(self, keys: Any, timeout: float | None = None) -> Any:
        """Return the value of one key (`Read(key)`, `Read([key])`), or a list of the values of several keys.

        The values of several keys are all of the same moment.

        Source: saCkptCheckpointRead.
        """
        if not table_requests.is_single_key(keys):
            return table_requests.values_or_value(self.read_many(keys, timeout))
        try:
            return self._read_one(keys, timeout)
        except SaAisError as error:
            raise self._operations.failure("read from", error) from None

    def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[bytes]:
        """Return the values of several keys, all of the same moment."""
        return self._run(self._operations.read_many(keys), timeout)

    def _read_one(self, key: Key, timeout: float | None) -> bytes:
        body = self._operations.read_body(key)
        return table_requests.value_of(self._ask(_READ, body, timeout))

    def read_all(self, timeout: float | None = None) -> dict[bytes, bytes]:
        """Return every section, as a dict. See `items` for sections that are written at the same time.

        `timeout` holds for all pages together.
        """
        return self._run(self._operations.read_all(), timeout)

    def items(self, timeout: float | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over every (key, value), in the order of the keys.

        They are read in pages. A section that exists all the time comes once; one that is written, created or
        deleted during the iteration comes as it is when its page is read. `timeout` holds for each page. A
        corrupted section raises FAILED_OPERATION; `sections` returns those too.
        """
        for section in self.sections(True, timeout):
            yield self._operations.item(section)

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
        for page in self._operations.pages(with_values):
            yield from self._run(page, timeout)

    def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """Return the value of a key, or `default` if there is no such section."""
        try:
            return self._read_one(key, timeout)
        except SaAisError as error:
            if is_missing(error):
                return default
            raise self._operations.failure("read from", error) from None

    def __getitem__(self, key: Key) -> bytes:
        try:
            return self._read_one(key, None)
        except SaAisError as error:
            raise self._operations.failure("read from", error, key_error=True) from None

    def __setitem__(self, key: Key, value: Value) -> None:
        self.Write(key, value)

    def __delitem__(self, key: Key) -> None:
        self._run(self._operations.delete(key, missing_is_error=True))

    def __contains__(self, key: Key) -> bool:
        return self._run(self._operations.contains(key))

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
        self._run(self._operations.activate(), timeout)

    def Synchronize(self, timeout: float | None = None) -> None:
        """Wait until every in-sync replica has everything that was written before this call.

        Source: saCkptCheckpointSynchronize.
        """
        self._run(self._operations.synchronize(), timeout)

    def resize(
        self,
        max_sections: int | None = None,
        max_section_size_bytes: int | None = None,
        max_section_id_size_bytes: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Change the limits of the checkpoint; None leaves one as it is. What is in it stays.

        When this returns, all replicas have the new limits. The content has to fit in them: else NO_SPACE,
        whose text says what does not, and nothing is changed. Programs that open the checkpoint with its
        former limits still can. `max_sections` cannot change from 1 or to 1.
        """
        limits = (max_sections, max_section_size_bytes, max_section_id_size_bytes)
        self._run(self._operations.resize(limits), timeout)

    def GetActiveStatus(self, timeout: float | None = None) -> bool:
        """Return True if there is an active replica."""
        return self._run(self._operations.has_active(), timeout)

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
        return self._run(self._operations.status(), timeout)

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

        return self._start_feed(Tracking, callback)

    # -- closing

    def unlink(self, timeout: float | None = None) -> None:
        """Free the checkpoint's name. The data goes when the last table that has it open is closed.

        It raises NOT_EXIST if this checkpoint no longer has its name, even if a newer checkpoint has it.

        Source: saCkptCheckpointUnlink.
        """
        self._run(self._operations.unlink(), timeout)

    def close(self) -> None:
        """Close the checkpoint and the connection. If no node answers, this takes 1 s at most.

        If the table leads, it resigns first, which may take another second. Closing again does nothing.
        """
        self._operations.closed = True
        try:
            self._leads.close()
        finally:
            self._operations.handle = 0
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._operations.closed else f"at node {self.node_id!r}"
        return f"<Table {self.ckptName!r} {state}>"


def _connection_class(keep_alive: bool) -> type[Connection]:
    if not keep_alive:
        return Connection
    from ckpt_client.io.keep_alive import KeptConnection  # Few programs need it.

    return KeptConnection
