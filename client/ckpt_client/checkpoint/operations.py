"""What a program can do with an open checkpoint: each operation once, for `Table` and `AsyncTable`.

Those on one section are in `section_operations`, which says what an operation is. Here are those on several
sections, or on the whole checkpoint.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

from ckpt_client.checkpoint.open_checkpoint import BeginAgain, logger
from ckpt_client.checkpoint.section_operations import Operation as Operation
from ckpt_client.checkpoint.section_operations import SectionOperations
from ckpt_client.checkpoint.transactions import Changes, shown_version
from ckpt_client.codecs import V
from ckpt_client.errors import CheckpointEnded, SaAisError, VersionConflict, error_of
from ckpt_client.requests import mapping_requests, table_requests
from ckpt_client.requests.chosen import Chosen
from ckpt_client.requests.table_requests import Key, SectionDescriptor, Status, refuse
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.limits import OPS_PER_UPDATE_MAX
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import Page

Pairs = Mapping[Any, Any] | Iterable[tuple[Key, Any]]
"""Several sections with their values: a mapping, or (key, value) pairs."""


class Operations(SectionOperations[V]):
    """The operations on one open checkpoint."""

    # -- writing

    def write_many(
        self,
        values: Pairs,
        expiration: int | None,
        expires_in: float | None = None,
        keep: bool = False,
        with_tails: bool | None = None,
    ) -> Operation[None]:
        """Set the content of several sections, as one atomic update.

        `with_tails`: the tails of longer old values stay; None: as `writes_as_saf` says.
        """
        changes = Changes(self.attributes)
        try:
            expiry = self.expiry_of(expiration, expires_in, keep)
            pairs = table_requests.pairs_of(values)
            table_requests.check_count(len(pairs))
            keeps_tails = self.writes_as_saf if with_tails is None else with_tails
            add = changes.patch if keeps_tails else changes.put
            for key, value in pairs:
                add(key, self.encoded(key, value), expiry)
        except SaAisError as error:
            raise self.failure("write to", error) from None
        yield from self.update(changes)

    def merge(self, values: Pairs, more: Mapping[str, Any]) -> Operation[None]:
        """Do what `dict.update` does, as one atomic update; nothing at all for no sections."""
        try:
            pairs = [*table_requests.pairs_of(values), *more.items()]
        except SaAisError as error:
            raise self.failure("write to", error) from None
        if pairs:
            yield from self.write_many(pairs, None, with_tails=False)  # A mapping has no tails.

    def delete_many(self, keys: Iterable[Key]) -> Operation[None]:
        """Delete several sections, as one atomic update; missing ones are no error."""
        changes = Changes(self.attributes)
        try:
            for key in table_requests.key_list(keys):
                changes.remove(key)
        except SaAisError as error:
            raise self.failure("delete from", error) from None
        yield from self.update(changes)

    def clear(self) -> Operation[None]:
        """Delete every section that exists when its page is read."""
        for page in self.pages(with_values=False):
            ids = [section.section_id for section in (yield from page)]
            for start in range(0, len(ids), OPS_PER_UPDATE_MAX):
                yield from self.delete_many(ids[start : start + OPS_PER_UPDATE_MAX])

    def popitem(self) -> Operation[tuple[bytes, V]]:
        """Delete the first section in the order of the keys; return key and value. KeyError if none."""
        while True:
            try:
                payload = yield from self.ask(Kind.ITERATE, mapping_requests.first_body())
                found = mapping_requests.first_of(payload)
                version = shown_version(found[2]) if found is not None else ""
            except SaAisError as error:
                raise self.failure("read from", error) from None
            if found is None:
                empty = error_of(codes.NOT_EXIST, "the table is empty", 0)
                raise self.failure("delete from", empty, key_error=True)
            key, data, _ = found
            value = self.decoded(key, data)
            try:
                yield from self.delete_if(key, version)
            except VersionConflict:
                yield from self._begin_again("other programs take the first section all the time")
                continue
            return key, value

    # -- reading

    def read_many(self, keys: Iterable[Key]) -> Operation[list[V]]:
        """Return the values of several keys, all of the same moment."""
        try:
            wanted = table_requests.key_list(keys)
            payload = yield from self.ask(Kind.READ, table_requests.read_body(self.attributes, wanted))
            values = table_requests.values_of(payload, len(wanted))
        except SaAisError as error:
            raise self.failure("read from", error) from None
        return [self.decoded(key, data) for key, data in zip(wanted, values, strict=True)]

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

    def read_all(self) -> Operation[dict[bytes, V]]:
        """Return every section. All pages share the operation's time-out."""
        found: dict[bytes, V] = {}
        for page in self.pages(with_values=True):
            found.update(map(self.item, (yield from page)))
        return found

    def item(self, section: SectionDescriptor) -> tuple[bytes, V]:
        """Return a section's (key, value)."""
        try:
            key, data = table_requests.item_of(section)
        except SaAisError as error:
            raise self.failure("read from", error) from None
        return key, self.decoded(key, data)

    def snapshot(self) -> Operation[dict[bytes, V]]:
        """Return every section, all of the same moment.

        The pages are read while others write. What they changed meanwhile is read after that, with its
        values, until nothing is missing up to one position in the sequence of updates.
        """
        try:
            while True:
                found = yield from self._whole_state()
                if found is not None:
                    break
                yield BeginAgain("the active replica was lost, or others write faster than this reads")
        except SaAisError as error:
            raise self.failure("read from", error) from None
        return {key: self.decoded(key, data) for key, data in found.items()}

    def _whole_state(self) -> Operation[dict[bytes, bytes] | None]:
        """Return every section's content; None if the pages and the changes do not fit together."""
        found: dict[bytes, bytes] = {}
        page = yield from self._page_with_position(None)
        first = last = _position(page)
        while True:
            found.update(map(table_requests.item_of, page.sections))
            if page.after is None:
                break
            page = yield from self._page_with_position(page.after)
            first, last = min(first, _position(page)), max(last, _position(page))
            if first[1] != last[1]:
                return None  # The active replica was lost in between.
        sequence, lineage = first
        complete = first == last
        while not complete:
            body = mapping_requests.track_body(sequence, lineage, with_values=True)
            changes = mapping_requests.changes_of((yield from self.ask(Kind.TRACK, body)))
            if changes.complete is None:
                _refuse_older_node()
            if changes.rows is None or changes.lineage != lineage:
                return None
            sequence, complete = changes.sequence, changes.complete and changes.sequence >= last[0]
            for row in changes.rows:
                if row.value is not None:
                    found[row.section_id] = row.value
                elif found.pop(row.section_id, None) is not None and complete and not row.is_gone:
                    refuse(codes.FAILED_OPERATION, f"section {row.section_id[:32]!r} is corrupted")
            if not complete:
                yield BeginAgain("others write faster than this reads")
        return found

    def _page_with_position(self, after: bytes | None) -> Operation[Page]:
        body = table_requests.iterate_body(after, True, with_position=True)
        return table_requests.positioned_page_of((yield from self.ask(Kind.ITERATE, body)))

    # -- changes

    def chosen(self, key: Key | None, prefix: Key | None, values: bool) -> Chosen:
        """Return which changes a program wants to see. Raises: CheckpointError INVALID_PARAM."""
        try:
            if key is not None and prefix is not None:
                refuse(codes.INVALID_PARAM, "give a key or a prefix, not both")
            if key is not None:
                return Chosen(table_requests.section_id(self.attributes, key), True, bool(values))
            if prefix is not None:
                return Chosen(table_requests.section_id(self.attributes, prefix), False, bool(values))
        except SaAisError as error:
            raise self.failure("track", error) from None
        return Chosen(values=bool(values))

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


def _position(page: Page) -> tuple[int, int]:
    if page.position is None:
        _refuse_older_node()
    return page.position


def _refuse_older_node() -> NoReturn:
    refuse(codes.NOT_SUPPORTED, "the node that answers runs a version of ckptd that has no snapshots")
