"""Conditional updates: versions of sections, and transactions, which are done whole or not at all.

Pure. A transaction gathers conditions and changes, and becomes one UPDATE (see `docs/protocol.md`).
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

from ckpt_client.errors import CheckpointError, SaAisError
from ckpt_client.session.table_requests import (
    Attributes,
    Key,
    Value,
    check_call_bytes,
    check_count,
    check_expiration,
    content_of,
    raise_malformed,
    refuse,
    section_id,
    update_body,
)
from ckpt_protocol import codes
from ckpt_protocol.limits import VERSION_BYTES
from ckpt_protocol.messages import Op


class Versioned(NamedTuple):
    """A value with its version, which no other value of this key ever has."""

    value: bytes
    version: str
    """Opaque: compare it with another version of this key, and nothing else."""


def packed_version(version: str) -> bytes:
    """Return a version as it is sent. Raises: SaAisError INVALID_PARAM."""
    try:
        packed = bytes.fromhex(version)
    except (TypeError, ValueError):
        packed = b""
    if len(packed) != VERSION_BYTES:
        refuse(codes.INVALID_PARAM, f"a version is what a call of a table returned, not {version!r}")
    return packed


def shown_version(packed: Any) -> str:
    """Return a version as the program gets it. Raises: SaAisError LIBRARY."""
    if type(packed) is not bytes or len(packed) != VERSION_BYTES:
        raise_malformed("a conditional update")
    return packed.hex()


def versioned_of(payload: Any) -> Versioned:
    """Return the one value, with its version, in the answer to READ."""
    if type(payload) is not list or len(payload) != 1 or type(payload[0]) is not list:
        raise_malformed("READ")
    value, version = (*payload[0], None)[:2]
    if type(value) is not bytes:
        raise_malformed("READ")
    return Versioned(value, shown_version(version))


def version_of(payload: Any) -> str:
    """Return the version in the answer to an update with conditions."""
    if type(payload) is not list or len(payload) != 2:
        raise_malformed("a conditional update")
    return shown_version(payload[1])


class Changes:
    """Conditions and changes of sections, for one atomic update. A wrong argument raises SaAisError."""

    def __init__(self, attributes: Attributes) -> None:
        self.attributes = attributes
        self.conditions: dict[bytes, bytes | bool | None] = {}
        self.keys: list[Key] = []
        """The key of each condition, as the program wrote it."""
        self.ops: list[list[Any]] = []
        self._bytes = 0

    def require(self, key: Key, version: bytes | bool | None) -> None:
        """Add a condition: this version, absent (None) or present (True)."""
        name = section_id(self.attributes, key)
        if name in self.conditions:
            refuse(codes.INVALID_PARAM, f"there are two conditions for section {name[:32]!r}")
        self.conditions[name] = version
        self.keys.append(key)
        self._add_bytes(len(name))

    def put(self, key: Key, value: Value, expiration_ns: int | None) -> None:
        """Add: this section has this content."""
        name, content = section_id(self.attributes, key), content_of(value)
        check_expiration(expiration_ns)
        self.ops.append([Op.PUT, name, content, expiration_ns])
        self._add_bytes(len(name) + len(content))

    def delete(self, key: Key) -> None:
        """Add: this section is deleted; it has to exist."""
        name = section_id(self.attributes, key)
        self.ops.append([Op.DELETE, name])
        self._add_bytes(len(name))

    def _add_bytes(self, count: int) -> None:
        self._bytes += count
        check_call_bytes(self._bytes)
        check_count(len(self.conditions) + len(self.ops))

    @property
    def empty(self) -> bool:
        """True if there is nothing to send."""
        return not self.conditions and not self.ops

    @property
    def body(self) -> bytes:
        """The UPDATE."""
        conditions = [[Op.REQUIRE, name, version] for name, version in self.conditions.items()]
        check_count(len(conditions) + len(self.ops))
        return update_body([*conditions, *self.ops])


class _Gathering:
    """What a program does inside a transaction: nothing is sent before the end of its block.

    Raises: CheckpointError INVALID_PARAM, NO_RESOURCES; then nothing of the call is gathered.
    """

    def __init__(
        self,
        changes: Changes,
        failure: Callable[[str, SaAisError], CheckpointError],
        expiration_of: Callable[[int | None], int | None],
        commit: Callable[[Changes], Any],
    ) -> None:
        self._changes = changes
        self._commit = commit
        self._failure = failure
        self._expiration_of = expiration_of
        self.version = ""
        """After the block: the version that the changed sections have now; "" without a condition."""

    def require(self, key: Key, version: str) -> None:
        """Require that a section has this version (`get_versioned`)."""
        self._gather(lambda: self._changes.require(key, packed_version(version)))

    def require_absent(self, key: Key) -> None:
        """Require that there is no such section."""
        self._gather(lambda: self._changes.require(key, None))

    def require_present(self, key: Key) -> None:
        """Require that there is such a section, whatever its content."""
        self._gather(lambda: self._changes.require(key, True))

    def write(self, key: Key, value: Value, *, expiration: int | None = None) -> None:
        """Replace a section's content, or create it. `expiration` as in the table's `Write` or `write`."""
        self._gather(lambda: self._changes.put(key, value, self._expiration_of(expiration)))

    def delete(self, key: Key) -> None:
        """Delete a section. If it is missing, the transaction fails, and nothing of it is done."""
        self._gather(lambda: self._changes.delete(key))

    def __setitem__(self, key: Key, value: Value) -> None:
        self.write(key, value)

    def __delitem__(self, key: Key) -> None:
        self.delete(key)

    def _gather(self, add: Callable[[], None]) -> None:
        try:
            add()
        except SaAisError as error:
            raise self._failure("update", error) from None


class Transaction(_Gathering):
    """`with table.transaction() as t:` one atomic update, sent at the end of the block.

    An exception inside the block discards it. At its end: VersionConflict if a condition does not hold,
    CheckpointKeyError if a section to be deleted is missing; then nothing was done.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._changes.empty:
            self.version = self._commit(self._changes)


class AsyncTransaction(_Gathering):
    """`async with table.transaction() as t:` the same as `Transaction`, for asyncio."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._changes.empty:
            self.version = await self._commit(self._changes)
