"""Conditional updates: versions of sections, and transactions, which are done whole or not at all.

Pure. A transaction gathers conditions and changes, and becomes one UPDATE (see `docs/protocol.md`).
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, NamedTuple, Protocol, Self, overload

from ckpt_client.codecs import V
from ckpt_client.errors import CheckpointError, SaAisError
from ckpt_client.requests.expiry import Expiry
from ckpt_client.requests.table_requests import (
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
from ckpt_protocol.limits import OPS_PER_UPDATE_MAX, VERSION_BYTES
from ckpt_protocol.messages import Op


class Versioned(NamedTuple, Generic[V]):
    """A value with its version, which no other value of this key ever has."""

    value: V
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


def versioned_of(payload: Any) -> Versioned[bytes]:
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

    def put(self, key: Key, value: Value, expiry: Expiry) -> None:
        """Add: this section has this content, and expires then."""
        self._write(Op.PUT, [], key, value, expiry)

    def patch(self, key: Key, value: Value, expiry: Expiry) -> None:
        """Add: this section begins with this content, and expires then."""
        self._write(Op.PATCH, [0], key, value, expiry)

    def _write(self, number: int, offset: list[int], key: Key, value: Value, expiry: Expiry) -> None:
        name, content = section_id(self.attributes, key), content_of(value)
        check_expiration(expiry.at_ns)
        self.ops.append([number, name, *offset, content, expiry.at_ns])
        self.ops += expiry.ops_for(name)
        self._add_bytes(len(name) + len(content))

    def delete(self, key: Key) -> None:
        """Add: this section is deleted; it has to exist."""
        self._delete(Op.DELETE, key)

    def remove(self, key: Key) -> None:
        """Add: this section is deleted if it exists."""
        self._delete(Op.REMOVE, key)

    def _delete(self, number: int, key: Key) -> None:
        name = section_id(self.attributes, key)
        self.ops.append([number, name])
        self._add_bytes(len(name))

    def _add_bytes(self, count: int) -> None:
        self._bytes += count
        check_call_bytes(self._bytes)
        operations = len(self.conditions) + len(self.ops)
        if operations > OPS_PER_UPDATE_MAX:
            most = f"an update has at most {OPS_PER_UPDATE_MAX} conditions and operations"
            refuse(codes.NO_RESOURCES, f"{most}, of which each `expires_in` is one")

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


class _Gathering(Generic[V]):
    """What a program does inside a transaction: nothing is sent before the end of its block.

    Raises: CheckpointError INVALID_PARAM, NO_RESOURCES; then nothing of the call is gathered.
    """

    def __init__(self, parts: "TransactionParts", commit: Callable[[Changes], Any]) -> None:
        self._changes = Changes(parts.attributes)
        self._parts = parts
        self._commit = commit
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

    @overload
    def write(
        self: "_Gathering[bytes]",
        key: Key,
        value: Value,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
    ) -> None: ...

    @overload
    def write(
        self,
        key: Key,
        value: V,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
    ) -> None: ...

    def write(
        self,
        key: Key,
        value: Any,
        *,
        expiration: int | None = None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
    ) -> None:
        """Replace a section's content, or create it. When it expires: as in a table's `Write` or `write`."""
        parts = self._parts

        def put() -> None:
            expiry = parts.expiry_of(expiration, expires_in, keep_expiry)
            self._changes.put(key, parts.encoded(key, value), expiry)

        self._gather(put)

    def delete(self, key: Key) -> None:
        """Delete a section; a missing one is no error."""
        self._gather(lambda: self._changes.remove(key))

    @overload
    def __setitem__(self: "_Gathering[bytes]", key: Key, value: Value) -> None: ...

    @overload
    def __setitem__(self, key: Key, value: V) -> None: ...

    def __setitem__(self, key: Key, value: Any) -> None:
        self.write(key, value)

    def __delitem__(self, key: Key) -> None:
        """Delete a section. If it is missing, the transaction fails, and nothing of it is done."""
        self._gather(lambda: self._changes.delete(key))

    def _gather(self, add: Callable[[], None]) -> None:
        try:
            add()
        except SaAisError as error:
            raise self._parts.failure("update", error) from None


class TransactionParts(Protocol):
    """What a transaction needs of its table's operations."""

    attributes: Attributes

    def failure(self, what: str, error: SaAisError, /) -> CheckpointError:
        """Return what the program gets for an error."""

    def encoded(self, key: Key, value: Any, /) -> Value:
        """Return what is stored for a value. Raises: SaAisError INVALID_PARAM."""

    def expiry_of(self, expiration: int | None, expires_in: float | None, keep_expiry: bool, /) -> Expiry:
        """Return when a section expires. Raises: SaAisError INVALID_PARAM."""


class Transaction(_Gathering[V]):
    """`with table.transaction() as t:` one atomic update, sent at the end of the block.

    An exception inside the block discards it. At its end: VersionConflict if a condition does not hold,
    CheckpointKeyError if a section is missing that `del` was to delete; then nothing was done.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._changes.empty:
            self.version = self._commit(self._changes)


class AsyncTransaction(_Gathering[V]):
    """`async with table.transaction() as t:` the same as `Transaction`, for asyncio."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and not self._changes.empty:
            self.version = await self._commit(self._changes)
