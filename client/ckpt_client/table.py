"""`Table`: a checkpoint as a table of byte sections, for programs that block.

The names in CamelCase are ASP's. The others are those of a Python mapping, and a few of our own.
"""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

from ckpt_client.checkpoint.operations import Operations
from ckpt_client.checkpoint.section_operations import check_codec
from ckpt_client.checkpoint.transactions import Transaction, Versioned
from ckpt_client.codecs import Codec, V
from ckpt_client.errors import CheckpointError, SaAisError
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.table_leading import LeadingTable
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Key, Status, Stored, Value
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_MAX

if TYPE_CHECKING:
    from ckpt_client.checkpoint.tracking_thread import TrackCallback, Tracking


class Table(LeadingTable[V]):
    """A checkpoint: named sections of bytes that survive the loss of a node, as a mapping.

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
    `resize`, are EXIST. With `grow` they are no error: each limit that is smaller than yours is raised to it
    (while another program leads the checkpoint, not before this one leads).

    A table does nothing between its calls. If its node is lost during a pause that is longer than the
    session's grace (10 s), its next call opens the checkpoint again, provided that the retention has kept
    it. If your program's pauses are longer than the retention, set `keep_alive`: one thread of the process
    then keeps the sessions of such tables alive.

    Keys are text (as UTF-8) or bytes, and come back as bytes. If the checkpoint has only one section, every
    key names that section. With a `codec` (see `codecs`) the values are of its type:
    `Table[Order]("orders", 100, 4096, 32, codec=codecs.json)`. You may use a table from several threads, and
    after a fork.

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
        codec: Codec[V] | None = None,
    ) -> None:
        self.ckptName = name
        try:
            check_codec(codec)
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
        super().__init__(Operations(name, opening, timeout_ns, codec), connection, keep_alive)
        self._operations.auto_activate = self._auto_activate
        self.tryAgainDelayMs = 250
        try:
            self._open(timeout_ns)
        except BaseException:
            self._operations.closed = True
            self._connection.leave()  # Without waiting for an answer: that would exceed the call's time-out.
            raise

    # -- conditional updates

    def get_versioned(self, key: Key, timeout: float | None = None) -> Versioned[V] | None:
        """Return the value of a key with its version; None if there is no such section.

        The version is opaque text. No other value of this key ever has it, also after the checkpoint was
        unlinked and created again. (If all state directories are lost, versions may repeat.)
        """
        return self._run(self._operations.get_versioned(key), timeout)

    @overload
    def add(
        self: "Table[bytes]",
        key: Key,
        data: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
    ) -> str: ...

    @overload
    def add(
        self,
        key: Key,
        data: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
    ) -> str: ...

    def add(
        self,
        key: Key,
        data: Any,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        timeout: float | None = None,
    ) -> str:
        """Create a section; return its version.

        If there is one, CheckpointError, with the code SA_AIS_ERR_EXIST.

        Source: saCkptSectionCreate.
        """
        return self._run(self._operations.add(key, data, expiration, expires_in), timeout)

    @overload
    def modify(
        self: "Table[bytes]",
        key: Key,
        function: Callable[[bytes | None], Stored | None],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> Stored | None: ...

    @overload
    def modify(
        self,
        key: Key,
        function: Callable[[V | None], V | None],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> V | None: ...

    def modify(
        self,
        key: Key,
        function: Callable[[Any], Any],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Replace the value of a key by `function(value)`, and return that; no other write comes between.

        The function gets None if there is no such section, and returns None to delete it. If another program
        writes the section in the meantime, the function is called again with the newer value.
        """
        expiry = expiration, expires_in, keep_expiry
        return self._run(self._operations.modify(key, function, *expiry), timeout)

    def transaction(self, timeout: float | None = None) -> Transaction[V]:
        """Return a transaction: `with table.transaction() as t:`, one atomic update at the end of the block.

            t.require("balance:a", version)       # also require_absent(key), require_present(key)
            t["balance:a"] = b"10"                # replaces the value, or creates the section
            t.write("offer", b"1", expires_in=30) # the same, with an expiry
            t.delete("note")                      # a missing section is no error
            del t["hold:17"]                      # a missing section is a CheckpointKeyError

        If a condition does not hold, the end of the block raises VersionConflict, and nothing is done.
        """
        operations = self._operations
        return Transaction(operations, lambda changes: self._run(operations.update(changes), timeout))

    def batch(self, timeout: float | None = None) -> Transaction[V]:
        """Return a transaction without conditions: many puts and deletes that are one atomic update."""
        return self.transaction(timeout)

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

    def track(
        self,
        callback: "TrackCallback[V] | None" = None,
        *,
        key: Key | None = None,
        prefix: Key | None = None,
        values: bool = False,
    ) -> "Tracking[V]":
        """Report every change from now on, to `callback(changes)` in a thread of its own, or to your loop.

        With `key` or `prefix` only changes of that section, or of those whose ids begin so. With `values`
        each change has the section's `value` after it, or a newer one, and changes of one section that come
        together are reported once.

        Without a callback, iterate over the returned `Tracking`: it yields one `SectionChange` after the
        other. Call its `stop` when you have seen enough.

        Changes come in order. Those that arrive while the callback runs are passed to it together. This
        table's own changes are reported too. No change is missed when the session moves to another node or
        the connection is replaced. If the session has ended, RESUMED is reported and then every section. If
        the checkpoint is gone, the callback receives ENDED, and the loop raises.
        """
        from ckpt_client.checkpoint.tracking_thread import Tracking  # This imports asyncio, which takes long.

        operations = self._operations
        chosen = operations.chosen(key, prefix, values)

        def begin(
            name: bytes, creation_id: int, callback: Any, where: Any, limit: TimeLimit, timeout_ns: int
        ) -> "Tracking[V]":
            decode = operations.decoded
            return Tracking(name, creation_id, callback, where, limit, timeout_ns, chosen, decode)

        return self._start_feed(begin, callback)

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
