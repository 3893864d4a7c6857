"""What an `AsyncTable` has of a mapping. Each call means what it means in `Table`."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, TypeVar, overload

from ckpt_client.checkpoint.async_table_driver import AsyncTableDriver
from ckpt_client.checkpoint.operations import Pairs
from ckpt_client.codecs import V
from ckpt_client.errors import SaAisError
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Key, SectionDescriptor, Value
from ckpt_protocol.messages import Kind

T = TypeVar("T")

_MISSING: Final[Any] = object()


class AsyncTableMapping(AsyncTableDriver[V]):
    """The part of `AsyncTable` that reads and writes sections."""

    # -- writing

    @overload
    async def write(
        self: "AsyncTableMapping[bytes]",
        key: Key,
        value: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    @overload
    async def write(
        self: "AsyncTableMapping[bytes]",
        key: Key,
        value: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
        if_version: str,
    ) -> str: ...

    @overload
    async def write(
        self,
        key: Key,
        value: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    @overload
    async def write(
        self,
        key: Key,
        value: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
        if_version: str,
    ) -> str: ...

    async def write(
        self,
        key: Key,
        value: Any,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
        if_version: str | None = None,
    ) -> str | None:
        """Set the content of one section; a missing section is created.

        When it expires, and what `if_version` does: as `Table.Write` explains.
        """
        operations = self._operations
        if if_version is not None:
            expiry = expiration, expires_in, keep_expiry
            return await self._run(operations.write_with(key, value, if_version, *expiry), timeout)
        try:
            body = operations.write_body(key, value, expiration, expires_in, keep_expiry)
            await self._ask(Kind.UPDATE, body, timeout)
        except SaAisError as error:
            raise operations.failure("write to", error) from None
        return None

    @overload
    async def write_many(
        self: "AsyncTableMapping[bytes]",
        values: Mapping[Any, Value] | Iterable[tuple[Key, Value]],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    @overload
    async def write_many(
        self,
        values: Mapping[Any, V] | Iterable[tuple[Key, V]],
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None: ...

    async def write_many(
        self,
        values: Pairs,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Set the content of several sections, as one atomic update; missing ones are created."""
        operation = self._operations.write_many(values, expiration, expires_in, keep_expiry)
        await self._run(operation, timeout)

    @overload
    async def update(
        self: "AsyncTableMapping[bytes]",
        other: Mapping[Any, Value] | Iterable[tuple[Key, Value]] = (),
        /,
        **more: Value,
    ) -> None: ...

    @overload
    async def update(self, other: Mapping[Any, V] | Iterable[tuple[Key, V]] = (), /, **more: V) -> None: ...

    async def update(self, other: Pairs = (), /, **more: Any) -> None:
        """Write several sections, as `dict.update` does, in one atomic update; see `Table.update`."""
        await self._run(self._operations.merge(other, more))

    async def touch(
        self,
        key: Key,
        *,
        expires_in: float | None = None,
        expiration: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Set when a section expires, and leave its value; see `Table.touch`."""
        await self._run(self._operations.touch(key, expiration, expires_in), timeout)

    async def delete(self, key: Key, timeout: float | None = None, *, if_version: str | None = None) -> None:
        """Delete a section; a missing one is no error. With `max_sections` 1 this does nothing.

        With `if_version` it is deleted only if it has this version (`get_versioned`), else VersionConflict.
        """
        if if_version is not None:
            await self._run(self._operations.delete_if(key, if_version), timeout)
            return
        await self._run(self._operations.delete(key, missing_is_error=False), timeout)

    async def delete_many(self, keys: Iterable[Key], timeout: float | None = None) -> None:
        """Delete several sections, as one atomic update; missing ones are no error."""
        await self._run(self._operations.delete_many(keys), timeout)

    async def clear(self, timeout: float | None = None) -> None:
        """Delete every section, page by page. One that is written meanwhile may stay."""
        await self._run(self._operations.clear(), timeout)

    @overload
    async def pop(self, key: Key) -> V: ...

    @overload
    async def pop(self, key: Key, default: V | T, timeout: float | None = None) -> V | T: ...

    async def pop(self, key: Key, default: Any = _MISSING, timeout: float | None = None) -> Any:
        """Delete a section and return its value; no other program gets the same one. See `Table.pop`."""
        missing = default is _MISSING
        return await self._run(self._operations.pop(key, default, missing_is_error=missing), timeout)

    async def popitem(self, timeout: float | None = None) -> tuple[bytes, V]:
        """Delete the first section in the order of the keys; return (key, value). See `Table.popitem`."""
        return await self._run(self._operations.popitem(), timeout)

    @overload
    async def setdefault(
        self: "AsyncTableMapping[bytes]", key: Key, default: Value, timeout: float | None = None
    ) -> bytes: ...

    @overload
    async def setdefault(self, key: Key, default: V, timeout: float | None = None) -> V: ...

    async def setdefault(self, key: Key, default: Any, timeout: float | None = None) -> Any:
        """Return the value of a key. If there is no such section, create it with `default` first."""
        return await self._run(self._operations.setdefault(key, default), timeout)

    # -- reading

    async def read(self, key: Key, timeout: float | None = None) -> V:
        """Return the value of one key. If it is missing, raise a CheckpointError that is also a KeyError."""
        operations = self._operations
        try:
            payload = await self._ask(Kind.READ, operations.read_body(key), timeout)
            data = table_requests.value_of(payload)
        except SaAisError as error:
            raise operations.failure("read from", error, key_error=True) from None
        return operations.decoded(key, data)

    async def read_many(self, keys: Iterable[Key], timeout: float | None = None) -> list[V]:
        """Return the values of several keys, all of the same moment."""
        return await self._run(self._operations.read_many(keys), timeout)

    @overload
    async def get(self, key: Key, default: None = None, timeout: float | None = None) -> V | None: ...

    @overload
    async def get(self, key: Key, default: V | T, timeout: float | None = None) -> V | T: ...

    async def get(self, key: Key, default: Any = None, timeout: float | None = None) -> Any:
        """Return the value of a key, or `default` if there is no such section."""
        return await self._run(self._operations.get(key, default), timeout)

    async def contains(self, key: Key, timeout: float | None = None) -> bool:
        """Return True if there is a section with this key."""
        return await self._run(self._operations.contains(key), timeout)

    async def expires_in(self, key: Key, timeout: float | None = None) -> float | None:
        """Return the seconds until a section expires; None if it never does. See `Table.expires_in`."""
        return await self._run(self._operations.expires_in(key), timeout)

    # -- all sections

    async def snapshot(self, timeout: float | None = None) -> dict[bytes, V]:
        """Return every section, all of the same moment; see `Table.snapshot`."""
        return await self._run(self._operations.snapshot(), timeout)

    async def read_all(self, timeout: float | None = None) -> dict[bytes, V]:
        """Return every section, as a dict; read in pages, which share the time-out."""
        return await self._run(self._operations.read_all(), timeout)

    async def items(self, timeout: float | None = None) -> AsyncIterator[tuple[bytes, V]]:
        """Iterate over every (key, value), in the order of the keys; in pages, as `Table.items` explains."""
        async for section in self.sections(True, timeout):
            yield self._operations.item(section)

    async def keys(self, timeout: float | None = None) -> AsyncIterator[bytes]:
        """Iterate over every key, in order; in pages, like `items`."""
        async for section in self.sections(False, timeout):
            yield section.section_id

    async def values(self, timeout: float | None = None) -> AsyncIterator[V]:
        """Iterate over every value, in the order of the keys; in pages, like `items`."""
        async for _, value in self.items(timeout):
            yield value

    async def sections(
        self, with_values: bool = False, timeout: float | None = None
    ) -> AsyncIterator[SectionDescriptor]:
        """Iterate over every section: size, state, times and, if asked for, value; in pages, like `items`.

        The values are bytes, whatever the table's codec.
        """
        for page in self._operations.pages(with_values):
            for section in await self._run(page, timeout):
                yield section

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.keys()
