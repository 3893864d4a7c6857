"""`aspCheckpoint.Table` as in ASP, even where ours does better: for `python -m ckpt_client.asp --strict`.

Each method makes the SAF calls that ASP's method made, in the same order, up to five times. Where ASP crashed
we do what `Table` does. The methods of `Table` that ASP did not have are here too, and behave as in `Table`.
"""

from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, overload

from ckpt_client.asp.asp_table import AspTable
from ckpt_client.asp.functions import strict_overwrite, strict_read, strict_write
from ckpt_client.errors import CheckpointError, SaAisError, error_of
from ckpt_client.requests.table_requests import Key, Value, is_single_key
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END, SA_TIME_MAX

ATTEMPTS: Final = 5
"""How often a call is made that fails with TIMEOUT or finds no active replica."""

Result = TypeVar("Result")


class StrictTable(AspTable):
    """A `Table` that does what ASP's did, for better or worse. Like ASP's, it prints what it does on stdout.

    The methods take ASP's arguments and no others. `retentionMs` is read as nanoseconds, and so is the time
    given to `Synchronize`. `sectionExpiration` has no effect.
    """

    def __init__(
        self,
        name: Key,
        maxRows: int | None = None,
        maxRowSizeBytes: int | None = None,
        maxRowKeySizeBytes: int | None = None,
        flagsp: int = SA_CKPT_WR_ALL_REPLICAS,
        retentionMs: int = SA_TIME_MAX,
        **named: Any,
    ) -> None:
        self._retention = retentionMs
        print(f"opening checkpoint {name!r} with flags {flagsp} and retention {retentionMs}")
        super().__init__(name, maxRows, maxRowSizeBytes, maxRowKeySizeBytes, flagsp, SA_TIME_MAX, **named)

    def _open(self, timeout_ns: int) -> None:
        opening = self._operations.opening
        if opening.attributes is not None:
            unscaled = opening.attributes._replace(retention_ns=self._retention)
            self._operations.opening = opening._replace(attributes=unscaled)
        super()._open(timeout_ns)

    @property
    def retentionMs(self) -> int:
        """The retention: the program gave the number as milliseconds, ASP took it as nanoseconds."""
        return self._operations.attributes.retention_ns

    # -- ASP's methods

    def SetAutoActivate(self, autoActivate: bool = True) -> None:
        """Set whether this table's calls activate the local replica if none is active.

        These are `Read`, `Delete` and, with `maxSections` 1, `Write`.
        """
        self.autoActivate = autoActivate

    @overload  # type: ignore[override]
    def Write(self, key: list[tuple[Key, Value]]) -> None: ...
    @overload
    def Write(self, key: Key, data: Value) -> None: ...
    def Write(self, key: Any, data: Any = None) -> None:
        """Write one section, or a list of (key, data); a list keeps the tail of longer old values.

        The sections of a list must exist; only the first form creates one. If the active replica is missing,
        that form takes this for a missing section and tries to create it, which fails as well.
        """
        single = is_single_key(key)
        if single and data is None:
            print("a key is written only with data")

        def write() -> None:
            if single:
                strict_overwrite(self.ckptHdl, key, data)
            else:
                strict_write(self.ckptHdl, key)
            print("the section has been written")

        def missing(error: SaAisError) -> None:
            if self.maxSections == 1:
                self._activate_for("write to", error)
            elif single:
                self._create(key, data)
            else:
                self._refuse("create sections of", error)

        self._repeat("write to", write, missing)

    def _create(self, key: Key, data: Value) -> None:
        print("the section does not exist: creating it")
        try:
            self._checkpoint.section_create(key, SA_TIME_MAX, data)
        except SaAisError as error:
            self._refuse("create a section of", error)

    def Read(self, keys: list[Key]) -> bytes | list[bytes]:  # type: ignore[override]
        """Return the values of a list of keys: one value itself, several as a list."""
        if not isinstance(keys, list):
            print("the keys must be a list")

        def missing(error: SaAisError) -> None:
            if self.GetActiveStatus():
                self._refuse("find the keys in", error)
            print("the checkpoint has no active replica")
            self._activate_for("read from", error)

        return self._repeat("read from", lambda: strict_read(self.ckptHdl, keys), missing)

    def Delete(self, key: Key) -> None:  # type: ignore[override]
        """Delete a section; a missing one is an error. With `maxSections` 1 this does nothing."""
        if self.maxSections == 1:
            return

        def missing(error: SaAisError) -> None:
            if self.GetActiveStatus():
                self._refuse("delete from", error)
            self._activate_for("delete from", error)

        self._repeat("delete from", lambda: self._checkpoint.section_delete(key), missing)

    def Activate(self) -> None:  # type: ignore[override]
        """Make the local replica the active one."""
        if self.flags & SA_CKPT_WR_ALL_REPLICAS:
            print("a synchronous checkpoint needs no active replica")
            return
        self._repeat("activate", self._checkpoint.active_replica_set)

    def Synchronize(self, timeout: int = SA_TIME_END) -> None:  # type: ignore[override]
        """Wait, for `timeout` nanoseconds at most, until all replicas have what was written before."""
        if self.flags & SA_CKPT_WR_ALL_REPLICAS:
            print("a synchronous checkpoint needs no synchronization")
            return
        self._repeat("synchronize", lambda: self._checkpoint.synchronize(timeout))

    def GetActiveStatus(self) -> bool:  # type: ignore[override]
        """Return True if there is an active replica."""
        try:
            self._repeat("look at", self._checkpoint.status_get)
        except CheckpointError as error:
            if error.code == codes.NOT_EXIST:
                return False
            raise
        return True

    # -- repetition

    def _repeat(
        self,
        what: str,
        call: Callable[[], Result],
        missing: Callable[[SaAisError], None] | None = None,
    ) -> Result:
        """Make a call until it succeeds, ATTEMPTS times at most. `missing` handles NOT_EXIST."""
        failure = error_of(codes.TIMEOUT)
        for _ in range(ATTEMPTS):
            try:
                return call()
            except SaAisError as error:
                failure = error
            if failure.code == codes.NOT_EXIST and missing is not None:
                missing(failure)
            elif failure.code != codes.TIMEOUT:
                break
        return self._refuse(what, failure)

    def _activate_for(self, what: str, error: SaAisError) -> None:
        if not self.autoActivate:
            self._refuse(what, error)
        self.Activate()

    def _refuse(self, what: str, error: SaAisError) -> NoReturn:
        text = f"cannot {what} checkpoint {self.ckptName!r}: {error.text}"
        raise CheckpointError(error, text) from None
