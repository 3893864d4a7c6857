"""What a program can do with an open checkpoint: each operation once, for `Table` and `AsyncTable`.

An operation is a generator of steps (see `steps`); `ask` makes one call on the checkpoint. The arguments are
checked when the steps are carried out, and every SaAisError becomes the program's CheckpointError. What an
operation means is explained at the methods of `Table` and `AsyncTable`, which do nothing but carry it out.
One write and one read are what programs do most. They are one request, and have no generator: the tables send
`write_body` and `read_body` themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ckpt_client.checkpoint.open_checkpoint import TableStep, is_missing, logger
from ckpt_client.checkpoint.resizing import ResizableCheckpoint
from ckpt_client.checkpoint.transactions import (
    Changes,
    Versioned,
    packed_version,
    shown_version,
    version_of,
    versioned_of,
)
from ckpt_client.errors import CheckpointEnded, CheckpointError, SaAisError, VersionConflict, error_of
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Key, OpenParameters, SectionDescriptor, Status, Value
from ckpt_client.steps import Result, Steps
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.messages import Kind

Operation = Steps[TableStep, Result]


class Operations(ResizableCheckpoint):
    """The operations on one open checkpoint."""

    def __init__(self, name: Key, opening: OpenParameters, timeout_ns: int) -> None:
        super().__init__(name, opening, timeout_ns)
        self.section_expiration: int = SA_TIME_END
        """When written sections expire if the program gives no time; SA_TIME_END leaves it as it is."""

    # -- writing

    def write_body(self, key: Key, value: Value, expiration: int | None) -> bytes:
        """Return the request that sets the content of one section."""
        return table_requests.put_body(self.attributes, key, value, self.expiration_of(expiration))

    def write_many(
        self, values: Mapping[Any, Value] | Iterable[tuple[Key, Value]], expiration: int | None
    ) -> Operation[None]:
        """Write at the beginning of several sections, as one atomic update."""
        expiration = self.expiration_of(expiration)
        try:
            yield from self.ask(Kind.UPDATE, table_requests.patch_body(self.attributes, values, expiration))
        except SaAisError as error:
            raise self.failure("write to", error) from None

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

    # -- conditional updates

    def get_versioned(self, key: Key) -> Operation[Versioned | None]:
        """Return one section's value with its version; None if it is missing."""
        try:
            body = table_requests.read_versioned_body(self.attributes, key)
            return versioned_of((yield from self.ask(Kind.READ, body)))
        except SaAisError as error:
            if is_missing(error):
                return None
            raise self.failure("read from", error) from None

    def write_if(self, key: Key, value: Value, expiration: int | None, version: str | None) -> Operation[str]:
        """Set the content of one section if it has this version (None: if missing); return the new one."""
        changes = Changes(self.attributes)
        try:
            changes.require(key, packed_version(version) if version is not None else None)
            changes.put(key, value, self.expiration_of(expiration))
        except SaAisError as error:
            raise self.failure("write to", error) from None
        return (yield from self.update(changes))

    def add(self, key: Key, value: Value, expiration: int | None) -> Operation[str]:
        """Create one section; return its version. EXIST if it exists."""
        try:
            return (yield from self.write_if(key, value, expiration, None))
        except VersionConflict as conflict:
            error = error_of(codes.EXIST, conflict.aspErrorCode.text)
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
        self, key: Key, function: Callable[[bytes | None], Value | None], expiration: int | None
    ) -> Operation[Value | None]:
        """Replace one section's content by what a function makes of it; begin again if others were faster."""
        while True:
            before = yield from self.get_versioned(key)
            after = function(before.value if before is not None else None)
            try:
                if after is not None:
                    yield from self.write_if(key, after, expiration, before.version if before else None)
                elif before is not None:
                    yield from self.delete_if(key, before.version)
            except VersionConflict:
                continue
            return after

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

    def expiration_of(self, expiration: int | None) -> int | None:
        """Return when a written section expires, if the program gives this time."""
        if expiration is None and self.section_expiration != SA_TIME_END:
            return self.section_expiration
        return expiration

    # -- reading

    def get(self, key: Key, default: Any) -> Operation[Any]:
        """Return the value of one key, or `default`."""
        try:
            return (yield from self._value(key))
        except SaAisError as error:
            if is_missing(error):
                return default
            raise self.failure("read from", error) from None

    def _value(self, key: Key) -> Operation[bytes]:
        return table_requests.value_of((yield from self.ask(Kind.READ, self.read_body(key))))

    def read_body(self, key: Key) -> bytes:
        """Return the request that reads one section."""
        return table_requests.read_one_body(self.attributes, key)

    def read_many(self, keys: Iterable[Key]) -> Operation[list[bytes]]:
        """Return the values of several keys, all of the same moment."""
        try:
            wanted = table_requests.key_list(keys)
            payload = yield from self.ask(Kind.READ, table_requests.read_body(self.attributes, wanted))
            return table_requests.values_of(payload, len(wanted))
        except SaAisError as error:
            raise self.failure("read from", error) from None

    def contains(self, key: Key) -> Operation[bool]:
        """Return True if there is a section with this key."""
        try:
            yield from self.ask(Kind.READ, table_requests.probe_body(self.attributes, key))
        except SaAisError as error:
            if is_missing(error):
                return False
            raise self.failure("read from", error) from None
        return True

    def pages(self, with_values: bool) -> Iterator[Operation[list[SectionDescriptor]]]:
        """Yield an operation for each page of sections. Carry it out before you take the next one."""
        after: bytes | None = None

        def page() -> Operation[list[SectionDescriptor]]:
            nonlocal after
            try:
                body = table_requests.iterate_body(after, with_values)
                sections, after = table_requests.page_of((yield from self.ask(Kind.ITERATE, body)))
            except SaAisError as error:
                raise self.failure("read from", error) from None
            return sections

        yield page()
        while after is not None:
            yield page()

    def read_all(self) -> Operation[dict[bytes, bytes]]:
        """Return every section. All pages share the operation's time-out."""
        found: dict[bytes, bytes] = {}
        for page in self.pages(with_values=True):
            found.update(map(self.item, (yield from page)))
        return found

    def item(self, section: SectionDescriptor) -> tuple[bytes, bytes]:
        """Return a section's (key, value)."""
        try:
            return table_requests.item_of(section)
        except SaAisError as error:
            raise self.failure("read from", error) from None

    # -- replicas

    def activate(self) -> Operation[None]:
        """Make the local replica the active one."""
        if self.attributes.sync:
            logger.info("checkpoint %r is synchronous, so it needs no active replica", self.name)
            return
        try:
            yield from self.ask(Kind.ACTIVE_SET, pack_body([False]))
        except SaAisError as error:
            raise self.failure("activate", error) from None

    def synchronize(self) -> Operation[None]:
        """Wait until every in-sync replica has everything that was written before."""
        if self.attributes.sync:
            logger.info("checkpoint %r is synchronous, so its replicas are always the same", self.name)
            return
        try:
            yield from self.ask(Kind.SYNCHRONIZE, table_requests.EMPTY_BODY)
        except SaAisError as error:
            raise self.failure("synchronize", error) from None

    def has_active(self) -> Operation[bool]:
        """Return True if there is an active replica."""
        try:
            payload = yield from self.ask(Kind.STATUS, table_requests.EMPTY_BODY, may_activate=False)
            return table_requests.status_of(payload).active is not None
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and not isinstance(error, CheckpointEnded):
                return False
            raise self.failure("look at", error) from None

    def status(self) -> Operation[Status]:
        """Return the checkpoint's state."""
        try:
            status = table_requests.status_of((yield from self.ask(Kind.STATUS, table_requests.EMPTY_BODY)))
            self.attributes = status.attributes  # (Another program may have resized it.)
            return status
        except SaAisError as error:
            raise self.failure("look at", error) from None

    def unlink(self) -> Operation[None]:
        """Free the checkpoint's name, if this checkpoint still has it."""
        try:
            yield from self.reopen()  # Only then we know which creation it is.
            leadership, secret = self.leadership, 0
            if leadership is not None:
                leadership.check()
                secret = leadership.secret
            body = table_requests.unlink_body(self.opening.name, self.creation_id, secret)
            try:
                yield from self.ask(Kind.UNLINK, body, may_activate=False)
            except SaAisError as error:
                if leadership is None:
                    raise
                leadership.take_refusal(error)
                raise
        except SaAisError as error:
            raise self.failure("unlink", error) from None
