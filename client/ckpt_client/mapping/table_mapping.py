"""What a `Table` has of a Python mapping, and reading and writing in ASP's words."""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final, Self, TypeVar, overload

from ckpt_client.checkpoint.open_checkpoint import is_missing
from ckpt_client.checkpoint.operations import Operations, Pairs
from ckpt_client.checkpoint.table_properties import TableProperties
from ckpt_client.codecs import V
from ckpt_client.errors import SaAisError
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.mapping.table_views import (
    HasKeys,
    OneInstruction,
    TableItems,
    TableKeys,
    TableValues,
    place_of_caller,
)
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Key, SectionDescriptor, Value
from ckpt_protocol.messages import Kind

T = TypeVar("T")

_MISSING: Final[Any] = object()
_UPDATE: Final = Kind.UPDATE
_READ: Final = Kind.READ


class TableMapping(TableProperties[V], HasKeys, MutableMapping[bytes, V]):
    """The part of `Table` that reads and writes sections."""

    def __init__(self, operations: Operations[V], connection: Connection, keep_alive: bool = False) -> None:
        super().__init__(operations, connection, keep_alive)
        self._one_instruction = OneInstruction()

    # -- writing

    @overload
    def Write(
        self: "TableMapping[bytes]",
        key: Key,
        data: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    @overload
    def Write(
        self: "TableMapping[bytes]",
        key: Key,
        data: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
        if_version: str,
    ) -> str: ...

    @overload
    def Write(
        self,
        key: Key,
        data: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    @overload
    def Write(
        self,
        key: Key,
        data: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
        if_version: str,
    ) -> str: ...

    @overload
    def Write(
        self: "TableMapping[bytes]",
        key: Mapping[Any, Value] | Iterable[tuple[Key, Value]],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    @overload
    def Write(
        self,
        key: Mapping[Any, V] | Iterable[tuple[Key, V]],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    def Write(
        self,
        key: Any,
        data: Any = _MISSING,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
        if_version: str | None = None,
    ) -> str | None:
        """Give one section (`Write(key, data)`) or several (`Write({key: data})`) exactly this content.

        Missing sections are created. Several, in a mapping or in (key, data) pairs, are one atomic update.
        (`aspCheckpoint.Table.Write` of several keeps the tail of a longer old value, as in SAF.)

        A section never expires, or at `expiration` (ns since 1970), or `expires_in` seconds after the write,
        by the clock of the service; with `keep_expiry` it expires as before. If you give none of them,
        `sectionExpiration` holds, if it is set.

        With `if_version`, one section is written only if it has this version (`get_versioned`), else
        VersionConflict; the call returns the new version.

        Source: saCkptSectionOverwrite, saCkptSectionCreate, saCkptSectionExpirationTimeSet.
        """
        operations = self._operations
        if if_version is not None:
            expiry = expiration, expires_in, keep_expiry
            return self._run(operations.write_with(key, data, if_version, *expiry), timeout)
        if data is _MISSING:
            self._run(operations.write_many(key, expiration, expires_in, keep_expiry), timeout)
            return None
        try:
            body = operations.write_body(key, data, expiration, expires_in, keep_expiry)
            self._ask(_UPDATE, body, timeout)
        except SaAisError as error:
            raise operations.failure("write to", error) from None
        return None

    @overload
    def __setitem__(self: "TableMapping[bytes]", key: Key, value: Value) -> None: ...

    @overload
    def __setitem__(self, key: Key, value: V) -> None: ...

    def __setitem__(self, key: Key, value: Any) -> None:
        operations = self._operations
        try:
            self._ask(_UPDATE, operations.write_body(key, value, None), None)
        except SaAisError as error:
            raise operations.failure("write to", error) from None

    def touch(
        self,
        key: Key,
        *,
        expires_in: float | None = None,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Set when a section expires, as in `Write`, and leave its value; with neither, it never does.

        CheckpointKeyError if there is no such section. Source: saCkptSectionExpirationTimeSet.
        """
        self._run(self._operations.touch(key, expiration, expires_in), timeout)

    def Delete(self, key: Key, timeout: float | None = None, *, if_version: str | None = None) -> None:
        """Delete a section; a missing one is no error. With `maxSections` 1 this does nothing.

        With `if_version` it is deleted only if it has this version (`get_versioned`), else VersionConflict.

        Source: saCkptSectionDelete.
        """
        if if_version is not None:
            self._run(self._operations.delete_if(key, if_version), timeout)
            return
        self._run(self._operations.delete(key, missing_is_error=False), timeout)

    def delete_many(self, keys: Iterable[Key], timeout: float | None = None) -> None:
        """Delete several sections, as one atomic update; missing ones are no error."""
        self._run(self._operations.delete_many(keys), timeout)

    def __delitem__(self, key: Key) -> None:
        self._run(self._operations.delete(key, missing_is_error=True))

    @overload  # type: ignore[override]  # (A mapping's `update` has keywords for text keys only.)
    def update(
        self: "TableMapping[bytes]",
        other: Mapping[Any, Value] | Iterable[tuple[Key, Value]] = (),
        /,
        **more: Value,
    ) -> None: ...

    @overload
    def update(self, other: Mapping[Any, V] | Iterable[tuple[Key, V]] = (), /, **more: V) -> None: ...

    def update(self, other: Pairs = (), /, **more: Any) -> None:
        """Write several sections, as `dict.update` does, in one atomic update.

        It has the limits of one update: 10,000 sections, and about 64 MiB.
        """
        self._run(self._operations.merge(other, more))

    def __ior__(self, other: Pairs) -> Self:
        self.update(other)
        return self

    def clear(self, timeout: float | None = None) -> None:
        """Delete every section, page by page. One that is written meanwhile may stay."""
        self._run(self._operations.clear(), timeout)

    @overload
    def pop(self, key: Key) -> V: ...

    @overload
    def pop(self, key: Key, default: V | T, timeout: float | None = None) -> V | T: ...

    def pop(self, key: Key, default: Any = _MISSING, timeout: float | None = None) -> Any:
        """Delete a section and return its value; no other program gets the same one.

        A missing one is `default`, or CheckpointKeyError without that.
        """
        missing = default is _MISSING
        return self._run(self._operations.pop(key, default, missing_is_error=missing), timeout)

    def popitem(self, timeout: float | None = None) -> tuple[bytes, V]:
        """Delete the first section in the order of the keys; return (key, value).

        No other program gets the same one. CheckpointKeyError if the table is empty.
        """
        return self._run(self._operations.popitem(), timeout)

    @overload
    def setdefault(
        self: "TableMapping[bytes]", key: Key, default: Value, timeout: float | None = None
    ) -> bytes: ...

    @overload
    def setdefault(self, key: Key, default: V, timeout: float | None = None) -> V: ...

    def setdefault(self, key: Key, default: Any, timeout: float | None = None) -> Any:
        """Return the value of a key. If there is no such section, create it with `default` first."""
        return self._run(self._operations.setdefault(key, default), timeout)

    # -- reading

    @overload
    def Read(self, keys: Key, timeout: float | None = None) -> V: ...

    @overload
    def Read(self, keys: Iterable[Key], timeout: float | None = None) -> V | list[V]: ...

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

    def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[V]:
        """Return the values of several keys, all of the same moment.

        If one is missing, CheckpointError, with the code SA_AIS_ERR_NOT_EXIST; its `index` says which.
        """
        return self._run(self._operations.read_many(keys), timeout)

    def _read_one(self, key: Key, timeout: float | None) -> V:
        operations = self._operations
        data = table_requests.value_of(self._ask(_READ, operations.read_body(key), timeout))
        return operations.decoded(key, data)

    @overload
    def get(self, key: Key, default: None = None, timeout: float | None = None) -> V | None: ...

    @overload
    def get(self, key: Key, default: V | T, timeout: float | None = None) -> V | T: ...

    def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """Return the value of a key, or `default` if there is no such section."""
        try:
            return self._read_one(key, timeout)
        except SaAisError as error:
            if is_missing(error):
                return default
            raise self._operations.failure("read from", error) from None

    def __getitem__(self, key: Key) -> V:
        if self._one_instruction.ready is not None:
            value: V = self._one_instruction.take(key, place_of_caller(), _MISSING)
            if value is not _MISSING:
                return value
        try:
            return self._read_one(key, None)
        except SaAisError as error:
            raise self._operations.failure("read from", error, key_error=True) from None

    def __contains__(self, key: object) -> bool:
        return self._run(self._operations.contains(key))  # type: ignore[arg-type]  # (It refuses others.)

    def expires_in(self, key: Key, timeout: float | None = None) -> float | None:
        """Return the seconds until a section expires, by the service's clock; None if it never does.

        CheckpointKeyError if there is no such section.
        """
        return self._run(self._operations.expires_in(key), timeout)

    # -- all sections

    def snapshot(self, timeout: float | None = None) -> dict[bytes, V]:
        """Return every section, all of the same moment, however many write meanwhile.

        `read_all` and iterations read page by page, a page about 1 MiB, each of its own moment. `timeout`
        holds for everything together.
        """
        return self._run(self._operations.snapshot(), timeout)

    def read_all(self, timeout: float | None = None) -> dict[bytes, V]:
        """Return every section, as a dict. See `items` for sections that are written at the same time.

        `timeout` holds for all pages together.
        """
        return self._run(self._operations.read_all(), timeout)

    def items(self, timeout: float | None = None) -> TableItems[V]:
        """Return a view of every (key, value), in the order of the keys.

        Each iteration reads in pages. A section that exists all the time comes once; one that is written,
        created or deleted during the iteration comes as it is when its page is read. `timeout` holds for each
        page. A corrupted section raises FAILED_OPERATION; `sections` returns those too.
        """
        return TableItems(self, lambda: self._items(timeout))

    def keys(self, timeout: float | None = None) -> TableKeys:
        """Return a view of every key, in order; read in pages, like `items`."""
        read_keys, read_all = lambda: self._keys(timeout), lambda: self.read_all(timeout)
        return TableKeys(self, read_keys, read_all, self._one_instruction, place_of_caller())

    def values(self, timeout: float | None = None) -> TableValues[V]:
        """Return a view of every value, in the order of the keys; read in pages, like `items`."""
        return TableValues(self, lambda: self._items(timeout))

    def _items(self, timeout: float | None) -> Iterator[tuple[bytes, V]]:
        for section in self.sections(True, timeout):
            yield self._operations.item(section)

    def _keys(self, timeout: float | None) -> Iterator[bytes]:
        for section in self.sections(False, timeout):
            yield section.section_id

    def sections(
        self, with_values: bool = False, timeout: float | None = None
    ) -> Iterator[SectionDescriptor]:
        """Iterate over every section: size, state, times and, if asked for, value; in pages, like `items`.

        The values are bytes, whatever the table's codec. Source: saCkptSectionIterationNext.
        """
        for page in self._operations.pages(with_values):
            yield from self._run(page, timeout)

    def __iter__(self) -> Iterator[bytes]:
        return self._keys(None)

    def __len__(self) -> int:
        return self._run(self._operations.status()).sections

    def __bool__(self) -> bool:
        """A table is true even when it is empty."""
        return True

    def __eq__(self, other: object) -> bool:
        """A table is equal to itself only: compare `snapshot()` to compare contents."""
        return self is other

    def __hash__(self) -> int:
        return id(self)
