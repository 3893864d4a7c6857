"""What a program can do with one section of an open checkpoint: each operation once, without I/O.

An operation is a generator of steps (see `steps`); `ask` makes one call on the checkpoint. The arguments are
checked when the steps are carried out, and every SaAisError becomes the program's CheckpointError. What an
operation means is explained at the methods of `Table` and `AsyncTable`, which do nothing but carry it out.
One write and one read are what programs do most. They are one request, and have no generator: the tables send
`write_body` and `read_body` themselves.
"""

from collections.abc import Callable
from typing import Any, Final, Generic, NoReturn

from ckpt_client.checkpoint.open_checkpoint import BeginAgain, TableStep, is_missing
from ckpt_client.checkpoint.resizing import ResizableCheckpoint
from ckpt_client.checkpoint.transactions import (
    Changes,
    Versioned,
    packed_version,
    shown_version,
    version_of,
    versioned_of,
)
from ckpt_client.codecs import Codec, V
from ckpt_client.errors import CheckpointError, SaAisError, UndecodableValue, VersionConflict, error_of
from ckpt_client.requests import mapping_requests, table_requests
from ckpt_client.requests.expiry import NEVER, UNCHANGED, Expiry, expiry_of
from ckpt_client.requests.table_requests import Key, OpenParameters, Value
from ckpt_client.steps import Result, Steps
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.messages import Kind

Operation = Steps[TableStep, Result]

REASON_CHARS_MAX: Final = 500
"""How much of what a codec says is in the text of an error."""


def check_codec(codec: object) -> None:
    """Check that this is a codec, or None. Raises: SaAisError INVALID_PARAM.

    With the module `json`, say, a table could be opened, but neither written nor read.
    """
    if codec is not None and not (hasattr(codec, "encode") and hasattr(codec, "decode")):
        text = f"a codec has `encode` and `decode`, as codecs.json has, and {codec!r} has not"
        table_requests.refuse(codes.INVALID_PARAM, text)


class SectionOperations(ResizableCheckpoint, Generic[V]):
    """The operations on one section."""

    writes_as_saf = False
    """A write that says nothing about it leaves the expiration as it is (else it ends it), and a write of
    several sections keeps the tails of longer old values."""

    def __init__(
        self, name: Key, opening: OpenParameters, timeout_ns: int, codec: Codec[V] | None = None
    ) -> None:
        super().__init__(name, opening, timeout_ns)
        self.codec = codec
        """What makes values of bytes; None: the values are the bytes."""

        self._expiration: int = SA_TIME_END

    @property
    def section_expiration(self) -> int:
        """When written sections expire if a call does not say; SA_TIME_END: as `writes_as_saf` says."""
        return self._expiration

    @section_expiration.setter
    def section_expiration(self, expiration: int) -> None:
        self._expiration = expiration

    def expiry_of(
        self, expiration: int | None, expires_in: float | None = None, keep_expiry: bool = False
    ) -> Expiry:
        """Return when a section expires that is written. Raises: SaAisError INVALID_PARAM."""
        default = UNCHANGED if self.writes_as_saf else NEVER
        if self._expiration != SA_TIME_END:
            default = Expiry(self._expiration)
        return expiry_of(default, expiration, expires_in, keep_expiry)

    # -- typed values

    def encoded(self, key: Key, value: Any) -> Value:
        """Return what is stored for a value. Raises: SaAisError INVALID_PARAM."""
        if self.codec is None:
            stored: Value = value
            return stored
        try:
            return self.codec.encode(value)
        except Exception as error:
            text = f"the value for key {key!r} cannot be encoded: {_reason(error)}"
            raise error_of(codes.INVALID_PARAM, text) from error

    def decoded(self, key: Key, data: bytes) -> V:
        """Return the value that is stored as this. Raises: UndecodableValue."""
        if self.codec is None:
            value: Any = data
            return value  # type: ignore[no-any-return]
        try:
            return self.codec.decode(data)
        except Exception as error:
            self._raise_undecodable(key, data, error)

    def _raise_undecodable(self, key: Key, data: bytes, error: Exception) -> NoReturn:
        name = table_requests.section_id(self.attributes, key)
        reason = _reason(error)
        text = f"the value of section {name[:64]!r} is not what this table's codec reads: {reason}"
        failure = error_of(codes.SaAisErrorT.SA_AIS_ERR_FAILED_OPERATION, text)
        where = f"cannot read from checkpoint {self.name!r}: {text}"
        raise UndecodableValue(failure, where, name, data, reason) from error

    # -- writing

    def write_body(
        self,
        key: Key,
        value: Any,
        expiration: int | None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
    ) -> bytes:
        """Return the request that sets the content of one section."""
        expiry = self.expiry_of(expiration, expires_in, keep_expiry)
        if self.codec is not None:
            value = self.encoded(key, value)
        if expiry.after_ns:
            changes = Changes(self.attributes)
            changes.put(key, value, expiry)
            return changes.body
        return table_requests.put_body(self.attributes, key, value, expiry.at_ns)

    def delete(self, key: Key, missing_is_error: bool) -> Operation[None]:
        """Delete one section. With `missing_is_error`, a missing one is a KeyError."""
        try:
            if not self.attributes.single:
                yield from self.ask(Kind.UPDATE, table_requests.delete_body(self.attributes, key))
            elif self.closed:
                raise self.closed_error()
        except SaAisError as error:
            if missing_is_error or not is_missing(error):
                raise self.failure("delete from", error, key_error=True) from None

    def touch(self, key: Key, expiration: int | None, expires_in: float | None) -> Operation[None]:
        """Set when a section expires, and leave its value; a missing section is a KeyError."""
        try:
            expiry = expiry_of(NEVER, expiration, expires_in)
            yield from self.ask(Kind.UPDATE, mapping_requests.touch_body(self.attributes, key, *expiry))
        except SaAisError as error:
            raise self.failure("write to", error, key_error=True) from None

    # -- conditional updates

    def get_versioned(self, key: Key) -> Operation[Versioned[V] | None]:
        """Return one section's value with its version; None if it is missing."""
        found = yield from self._get_versioned(key)
        return None if found is None else Versioned(self.decoded(key, found.value), found.version)

    def _get_versioned(self, key: Key) -> Operation[Versioned[bytes] | None]:
        try:
            body = table_requests.read_versioned_body(self.attributes, key)
            return versioned_of((yield from self.ask(Kind.READ, body)))
        except SaAisError as error:
            if is_missing(error):
                return None
            raise self.failure("read from", error) from None

    def write_if(self, key: Key, value: Any, expiry: Expiry, version: str | None) -> Operation[str]:
        """Set the content of one section if it has this version (None: if missing); return the new one."""
        changes = Changes(self.attributes)
        try:
            changes.require(key, packed_version(version) if version is not None else None)
            changes.put(key, self.encoded(key, value), expiry)
        except SaAisError as error:
            raise self.failure("write to", error) from None
        return (yield from self.update(changes))

    def write_with(
        self,
        key: Key,
        value: Any,
        version: str,
        expiration: int | None,
        expires_in: float | None,
        keep_expiry: bool,
    ) -> Operation[str]:
        """Set the content of one section if it has this version; return the new one."""
        try:
            expiry = self.expiry_of(expiration, expires_in, keep_expiry)
            packed_version(version)
        except SaAisError as error:
            raise self.failure("write to", error) from None
        return (yield from self.write_if(key, value, expiry, version))

    def add(
        self, key: Key, value: Any, expiration: int | None, expires_in: float | None = None
    ) -> Operation[str]:
        """Create one section; return its version. EXIST if it exists."""
        try:
            expiry = self.expiry_of(expiration, expires_in)
            return (yield from self.write_if(key, value, expiry, None))
        except VersionConflict as conflict:
            error = error_of(codes.EXIST, conflict.aspErrorCode.text)
            raise self.failure("add to", error) from None
        except SaAisError as error:
            raise self.failure("add to", error) from None

    def delete_if(self, key: Key, version: str) -> Operation[None]:
        """Delete one section if it has this version."""
        changes = Changes(self.attributes)
        try:
            changes.require(key, packed_version(version))
            changes.delete(key)
        except SaAisError as error:
            raise self.failure("delete from", error) from None
        yield from self.update(changes)

    def modify(
        self,
        key: Key,
        function: Callable[[V | None], V | None],
        expiration: int | None,
        expires_in: float | None = None,
        keep_expiry: bool = False,
    ) -> Operation[V | None]:
        """Replace one section's content by what a function makes of it; begin again if others were faster."""
        try:
            expiry = self.expiry_of(expiration, expires_in, keep_expiry)
        except SaAisError as error:
            raise self.failure("write to", error) from None
        while True:
            before = yield from self.get_versioned(key)
            after = function(before.value if before is not None else None)
            try:
                if after is not None:
                    yield from self.write_if(key, after, expiry, before.version if before else None)
                elif before is not None:
                    yield from self.delete_if(key, before.version)
            except VersionConflict:
                yield from self._begin_again("other programs write this section all the time")
                continue
            return after

    def pop(self, key: Key, default: Any, missing_is_error: bool) -> Operation[Any]:
        """Delete one section; return its value, or `default`. With `missing_is_error` that is a KeyError."""
        while True:
            before = yield from self._get_versioned(key)
            if before is None:
                if missing_is_error:
                    name = table_requests.section_id(self.attributes, key)
                    error = error_of(codes.NOT_EXIST, f"there is no section {name[:32]!r}", 0)
                    raise self.failure("delete from", error, key_error=True)
                return default
            value = self.decoded(key, before.value)
            try:
                yield from self.delete_if(key, before.version)
            except VersionConflict:
                yield from self._begin_again("other programs write this section all the time")
                continue
            return value

    def setdefault(self, key: Key, value: Any) -> Operation[V]:
        """Return one section's value; if it is missing, create it with this one first."""
        while True:
            before = yield from self._get_versioned(key)
            if before is not None:
                return self.decoded(key, before.value)
            try:
                stored = self.encoded(key, value)
                yield from self._store_if_absent(key, stored)
            except VersionConflict:
                yield from self._begin_again("other programs write this section all the time")
                continue
            except SaAisError as error:
                raise self.failure("write to", error) from None
            return self.decoded(key, table_requests.stored_bytes(stored))

    def _begin_again(self, text: str) -> Operation[None]:
        """Go on only if there is time left: each request of a call that is late may take 1 ms."""
        try:
            yield BeginAgain(text)
        except SaAisError as error:
            raise self.failure("update", error) from None

    def _store_if_absent(self, key: Key, stored: Value) -> Operation[str]:
        changes = Changes(self.attributes)
        changes.require(key, None)
        changes.put(key, stored, self.expiry_of(None))
        return (yield from self.update(changes))

    def update(self, changes: Changes) -> Operation[str]:
        """Carry out conditions and changes; return the version of the changed sections.

        That is "" without a condition, since the service reports it only then.
        """
        try:
            payload = yield from self.ask(Kind.UPDATE, changes.body)
            return version_of(payload) if changes.conditions else ""
        except SaAisError as error:
            raise self._update_failure(changes, error) from None

    def _update_failure(self, changes: Changes, error: SaAisError) -> CheckpointError:
        if error.code != codes.BAD_OPERATION or not 0 <= error.index < len(changes.keys):
            return self.failure("update", error, key_error=True)
        key, found = changes.keys[error.index], error.detail
        version = shown_version(found) if found is not None else None
        return VersionConflict(error, f"cannot update checkpoint {self.name!r}: {error.text}", key, version)

    # -- reading

    def get(self, key: Key, default: Any) -> Operation[Any]:
        """Return the value of one key, or `default`."""
        try:
            data = table_requests.value_of((yield from self.ask(Kind.READ, self.read_body(key))))
        except SaAisError as error:
            if is_missing(error):
                return default
            raise self.failure("read from", error) from None
        return self.decoded(key, data)

    def read_body(self, key: Key) -> bytes:
        """Return the request that reads one section."""
        return table_requests.read_one_body(self.attributes, key)

    def contains(self, key: Key) -> Operation[bool]:
        """Return True if there is a section with this key."""
        try:
            yield from self.ask(Kind.READ, table_requests.probe_body(self.attributes, key))
        except SaAisError as error:
            if is_missing(error):
                return False
            raise self.failure("read from", error) from None
        return True

    def expires_in(self, key: Key) -> Operation[float | None]:
        """Return the seconds until a section expires, None for never; a missing section is a KeyError."""
        try:
            body = mapping_requests.time_left_body(self.attributes, key)
            return mapping_requests.time_left_of((yield from self.ask(Kind.READ, body)))
        except SaAisError as error:
            raise self.failure("read from", error, key_error=True) from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]
