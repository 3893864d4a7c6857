"""A replica's content: what the active replica orders is staged here, and reads are answered from it.

Updates are applied when they are staged, since nothing staged is ever rolled back (ADR 4). Each pending
update remembers the previous values, and readers see those until it commits. The active replica's own part is
in `active_replica`, joining in `resync`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import merge
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import (
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_CORRUPTED,
    SA_CKPT_SECTIONS_FOREVER,
    SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME,
    SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME,
    SA_TIME_END,
)
from ckpt_protocol.errors import FrameError, ParseFailed, RequestError
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.limits import CALL_BYTES_MAX, PAGE_BYTES_MAX
from ckpt_protocol.limits import VERSION_BYTES as SHOWN_VERSION_BYTES
from ckpt_protocol.messages import REPLICATE_ROUTE, Kind, Op, answer_ok
from ckpt_protocol.parse_requests import Elements, Iterate
from ckpt_protocol.parse_updates import Answered, Ops, parse_replicated
from ckptd.core.content.replica_state import (
    COMPLETE,
    IGNORES_UPDATES,
    TRANSITIONS,
    ReplicaEvent,
    ReplicaState,
)
from ckptd.core.content.section import CORRUPTED, PreImages, Section
from ckptd.core.content.sections import SectionTable
from ckptd.core.content.update_log import Update, UpdateLog
from ckptd.core.content.versions import VERSION_BYTES
from ckptd.core.context import Context
from ckptd.core.directory.attributes import Attributes
from ckptd.core.settings import EVERY_NODE_MUST, FeatureLevel
from ckptd.core.work_costs import ELEMENT_WORK, LEADERSHIP_SHIFT, OP_WORK, PENDING_SHIFT

_ROUTE_BYTES = REPLICATE_ROUTE.size
_unpack_route = REPLICATE_ROUTE.unpack_from
_DESCRIPTOR_BYTES = 40
_TOKEN: Final = Op.TOKEN
_LEADERSHIP: Final = Op.LEADERSHIP
_CREATION_ID_BYTES: Final = 8
_FIELDS_OF_ELEMENT: Final = 3  # A fourth field, True, asks for the version, a fifth for the time left.

SECTION_LOOKUPS_MAX: Final = 64
"""Up to so many sections are looked up in each pending update; for more, these are merged first."""

EXAMINED_MAX: Final = 1_000
"""Sections that an ITERATE examines, or sorts, before other requests get their turn: some 2 ms."""


class ReplicaContent(ABC):
    """One node's replica of one checkpoint, without what it does for others: `Replica` adds that."""

    __slots__ = (
        "advertised_epoch",
        "advertised_seq",
        "attributes",
        "complete",
        "context",
        "created_ns",
        "creation_id",
        "ignores_updates",
        "known_losses",
        "log",
        "name",
        "possibly_superseded",
        "previous_content",
        "queued_joins",
        "replica_reports",
        "resync_source",
        "reusable_sections",
        "sections",
        "state",
        "sync",
        "tracked",
        "weak",
    )

    def __init__(
        self, context: Context, creation_id: int, name: bytes, attributes: Attributes, created_ns: int = 0
    ) -> None:
        self.context = context
        self.creation_id = creation_id
        self.name = name
        self.attributes = attributes
        """Those of the creation. The limits in force are those of `sections`."""
        self.sync = attributes.sync
        self.weak = attributes.weak
        self.created_ns = created_ns
        self.sections = SectionTable(attributes, created_ns)
        self.log = UpdateLog(self.context.settings.log_bytes_max)
        self.state = ReplicaState.CONSISTENT
        self.complete = True
        """The sections are exactly what the updates up to `log.seq` made of them: False during a join."""
        self.ignores_updates = False
        """It cannot follow, and takes no updates until it joins again."""
        self.possibly_superseded = False
        """Its node was out of at least one view, or never ran one, so others may have continued without it.
        Cleared when the directory counts it as in sync, or when a join replaces its content."""
        self.tracked = False
        """A client wants, or wanted, to be notified of its changes."""
        self.replica_reports: dict[str, tuple[int, int, int]] = {}
        """By node: the `activation_seq`, seq and `advertised_seq` that its replica reported."""
        self.advertised_seq = 0
        """The seq up to which the active replica had ordered, by its heartbeats in `advertised_epoch`."""
        self.advertised_epoch = 0
        self.known_losses: list[tuple[int, int]] = []
        """For each take-over with a loss: (the seq that it continued from, updates lost at least)."""
        self.resync_source = ""
        """The node that this replica reports to or joins from, or ""."""
        self.queued_joins: dict[str, tuple[int, int, bool]] = {}
        """By node: JOINs that cannot be answered yet."""
        self.reusable_sections: dict[bytes, Section] = {}
        """During a join: sections of the old content that a chunk may keep."""
        self.previous_content: tuple[SectionTable, UpdateLog, bool] | None = None
        """During a join: the old content, see `stash_content`."""

    def on_event(self, event: ReplicaEvent) -> None:
        """Enter the state that follows on an event."""
        self.state = TRANSITIONS[self.state, event]
        self.complete = self.state in COMPLETE
        self.ignores_updates = self.state in IGNORES_UPDATES

    # -- the roles of the replica

    @property
    @abstractmethod
    def is_active(self) -> bool:
        """Return True if it has the active role."""

    @property
    @abstractmethod
    def resident_bytes(self) -> int:
        """Return about how much memory it takes, with its role."""

    @abstractmethod
    def flush_batch(self) -> None:
        """Order what the active role of a weak checkpoint has gathered."""

    @abstractmethod
    def stream_to(self, node_id: str) -> None:
        """Send a joining replica's node every update from now on, if this one is active."""

    @abstractmethod
    def end_join(self, node_id: str) -> None:
        """A replica has been sent everything: it counts for commits from now on."""

    @abstractmethod
    def on_committed(self, committed_seq: int) -> None:
        """Everything up to this seq is committed: joins may be complete."""

    @property
    def has_diverged(self) -> bool:
        """Return True if it holds something else than the active replica."""
        return self.state is ReplicaState.DIVERGED

    @property
    def last_seq(self) -> int:
        """The seq of the last staged update."""
        return self.log.seq

    @property
    def committed_seq(self) -> int:
        """The last seq that every in-sync replica is known to have staged."""
        return self.log.committed_seq

    # -- staging

    def stage(self, sender: str, seq: int, body: bytes) -> bool:
        """Stage one REPLICATE. Return False if this replica cannot follow it.

        Raises: FrameError if the peer sent garbage.
        """
        if len(body) < _ROUTE_BYTES:
            raise FrameError("an update is shorter than its header")
        session, request, first_unanswered, time_ns, committed_seq, epoch = _unpack_route(body)
        log = self.log
        if seq > log.seq:
            if seq != log.seq + 1:
                return False
            stops = self.context.stops
            if stops.by_creation and stops.named_update(self.creation_id, epoch, seq):
                self.context.count("repeats_refused")
                return False  # It stopped a node: this replica gets the result by joining.
            if epoch > self.context.epoch:
                raise FrameError("an update has a later epoch than this node")
            update = Update(epoch, seq, time_ns, session, request, first_unanswered, body[_ROUTE_BYTES:])
            try:
                ops, answered = parse_replicated(update.body, session)
            except FrameError:
                raise
            except Exception as error:
                raise ParseFailed(error) from error
            if ops and ops[-1][0] == _TOKEN:
                ops = Ops(ops[:-1])  # The active replica has compared it.
                if not ops:
                    raise FrameError("an update with a token changes nothing")
            bytes_before = self.sections.resident_bytes
            if not self._apply(update, ops, answered):
                return False
            self.context.resident_bytes += self.sections.resident_bytes - bytes_before
            log.append(update)
            if self.sync:
                log.pending.append(update)
        if committed_seq > log.committed_seq and not self.is_active:
            self.commit(committed_seq)
        self.context.acks[sender, self.creation_id] = log.seq
        return True

    def _apply(self, update: Update, ops: Ops, answered: list[Answered] | None) -> bool:
        pre_images: PreImages = {}
        self.sections.epoch = update.epoch
        self.context.work += OP_WORK * len(ops)
        if ops and ops[0][0] == _LEADERSHIP:
            self.context.work += len(update.body) >> LEADERSHIP_SHIFT
        if not self.complete:
            self.sections.apply_during_resync(ops, update.time_ns, update.seq, pre_images)
            generated = _generated_ids(ops)
        else:
            try:
                generated = self.sections.apply(ops, update.time_ns, update.seq, pre_images)
            except RequestError:
                self.on_event(ReplicaEvent.REFUSED_UPDATE)
                return False
        if self.sync:
            update.pre_images = pre_images
        log = self.log
        if answered is None:
            update.answer = self.answer_to(ops, generated)
            log.record_reply(
                update.session, update.request, update.first_unanswered, update.seq, update.answer
            )
        else:
            for session, request, first_unanswered, answer in answered:
                log.record_reply(session, request, first_unanswered, update.seq, answer)
        return True

    def request_resync(self, node_id: str) -> None:
        """Ask the replica on that node for what this one lacks. A join that broke off starts again."""
        self.restore_content()
        log, context = self.log, self.context
        body = pack_body([log.epoch, self.complete])
        context.send_peer(node_id, encode_frame(Kind.JOIN, self.creation_id, context.epoch, log.seq, body))

    def commit(self, committed_seq: int) -> None:
        """Commit the updates up to here: every in-sync replica has staged them."""
        log = self.log
        if committed_seq > log.seq:
            committed_seq = log.seq
        log.committed_seq = committed_seq
        if self.tracked:
            self.context.newly_visible[self.creation_id] = None
        pending = log.pending
        while pending and pending[0].seq <= committed_seq:
            pending.popleft().pre_images = None
        if log.entry_bytes > log.compact_above_bytes:
            log.compact(self.sections.content_bytes)

    def reset(self) -> None:
        """Forget the content: it has diverged from the active replica's, or there is no memory for it."""
        self.sections = SectionTable(self.attributes, self.created_ns)
        self.log = UpdateLog(self.context.settings.log_bytes_max)
        self.on_event(ReplicaEvent.EMPTIED)
        self.reusable_sections = {}
        self.previous_content = None

    def stash_content(self) -> None:
        """Start with empty content, and keep the old content until the new one is whole.

        If the source dies in the middle of its chunks, the old content is all that is left: an active replica
        that was catching up serves it, and any other node starts its next join from it or quarantines it
        (seed 91302013). The incomplete content of a join that broke off is of no use and is not kept.
        """
        if self.previous_content is None and self.complete:
            self.previous_content = self.sections, self.log, self.possibly_superseded
            self.sections = SectionTable(self.attributes, self.created_ns)
            self.log = UpdateLog(self.context.settings.log_bytes_max)

    def restore_content(self) -> None:
        """Restore the content that was set aside: the source is gone before the new content is whole."""
        if self.previous_content is not None:
            self.sections, self.log, self.possibly_superseded = self.previous_content
            self.previous_content = None
            self.on_event(ReplicaEvent.RESYNC_ENDED)
            self.reusable_sections = {}

    # -- reading: always the committed state

    def pending_touches(self, section_ids: list[bytes]) -> bool:
        """Return True if an update that is not known to be committed touches one of these."""
        if len(section_ids) > SECTION_LOOKUPS_MAX:
            overlay = self.committed_overlay()
            return any(section_id in overlay for section_id in section_ids)
        self.context.work += len(section_ids) * len(self.log.pending) >> PENDING_SHIFT
        for update in self.log.pending:
            pre_images = update.pre_images
            if pre_images and any(section_id in pre_images for section_id in section_ids):
                return True
        return False

    def committed_section(self, section_id: bytes) -> Section | None:
        """Return the section as the committed updates left it."""
        for update in self.log.pending:
            if update.pre_images and section_id in update.pre_images:
                return update.pre_images[section_id]
        return self.sections.sections.get(section_id)

    def committed_lookup(self, count: int) -> Callable[[bytes], Section | None]:
        """Return the function that looks up `count` sections as the committed updates left them."""
        if count <= SECTION_LOOKUPS_MAX:
            self.context.work += count * len(self.log.pending) >> PENDING_SHIFT
            return self.committed_section
        overlay, staged = self.committed_overlay(), self.sections.sections
        return lambda section_id: overlay[section_id] if section_id in overlay else staged.get(section_id)

    def committed_overlay(self) -> PreImages:
        """Return the committed value (None: no section) under every id that a pending update touches."""
        overlay: PreImages = {}
        for update in self.log.pending:
            self.context.work += ELEMENT_WORK * len(update.pre_images or ())
            for section_id, section in (update.pre_images or {}).items():
                overlay.setdefault(section_id, section)
        return overlay

    def read(self, elements: Elements) -> bytes:
        """Answer READ. All elements show one committed state (R126 to R133). Raises: RequestError."""
        self.context.work += ELEMENT_WORK * len(elements)
        get: Callable[[bytes], Section | None] = self.sections.sections.get
        if self.log.pending:
            get = self.committed_lookup(len(elements))
        limit = self.sections.attributes.section_bytes_max
        values: list[Any] = []
        more: dict[int, list[Any]] = {}
        total, in_parts = 0, False
        for index, element in enumerate(elements):
            section_id, offset, size = element[0], element[1], element[2]
            if size is not None and offset + size > limit:
                text = f"offset {offset} and size {size} exceed maxSectionSize, which is {limit}"
                raise RequestError(codes.INVALID_PARAM, text, index)
            section = get(section_id)
            if section is None:
                raise RequestError(codes.NOT_EXIST, f"there is no section {section_id[:32]!r}", index)
            if section.state == CORRUPTED:
                text = f"section {section_id[:32]!r} is corrupted: overwrite or delete it"
                raise RequestError(codes.FAILED_OPERATION, text, index)
            content = section.content
            if offset > len(content):
                raise RequestError(
                    codes.INVALID_PARAM, f"offset {offset} is after the end of the section", index
                )
            values.append(content)
            if len(element) > _FIELDS_OF_ELEMENT:
                more[index] = self._more_of(section, *element[_FIELDS_OF_ELEMENT : _FIELDS_OF_ELEMENT + 2])
            if offset or size is not None:
                in_parts = True
                total += len(content) - offset if size is None else min(size, len(content) - offset)
            else:
                total += len(content)
            if total > CALL_BYTES_MAX:
                raise RequestError(
                    codes.NO_RESOURCES, f"one read may return at most {CALL_BYTES_MAX} bytes", index
                )
        if in_parts:  # Only after all checks: a READ of 31 bytes once took 60 ms to be refused.
            values = [
                content[offset : len(content) if size is None else offset + size]
                for content, (_, offset, size, *_) in zip(values, elements, strict=True)
            ]
        for index, fields in more.items():
            if fields:
                values[index] = [values[index], *fields]
        return answer_ok(values)

    def _more_of(self, section: Section, with_version: bool, with_time_left: bool = False) -> list[Any]:
        """Return what a READ shows behind a value: version, ns until the section expires (nil: never)."""
        if with_version:
            self._check_versions_known()
        version = self.shown_version(section.version) if with_version else None
        if not with_time_left:
            return [version] if with_version else []
        if section.expiration_ns == SA_TIME_END:
            return [version, None]
        return [version, max(0, section.expiration_ns - self.context.wall_ns)]

    def _check_versions_known(self) -> None:
        """Refuse to show versions while an older node may have other ones. Raises: RequestError."""
        if self.context.feature_level < FeatureLevel.TAKEOVER:
            raise RequestError(codes.NOT_SUPPORTED, f"versions are not shown: {EVERY_NODE_MUST}")

    def answer_to(self, ops: Ops, generated: list[bytes] | None) -> bytes:
        """Return the answer to an update that was just applied: with its version, if it has conditions."""
        if ops[0][0] != Op.REQUIRE:
            return answer_ok(generated)
        return answer_ok([generated, self.shown_version(self.sections.version)])

    def shown_version(self, version: int) -> bytes:
        """Return a version as clients see it: no section of this name ever has it with another value."""
        return self.creation_id.to_bytes(_CREATION_ID_BYTES) + version.to_bytes(VERSION_BYTES)

    def committed_attributes(self) -> Attributes:
        """Return the attributes that the committed updates put in force. (Asynchronous: the staged ones.)"""
        table = self.sections
        if not table.resize_state.number:
            return self.attributes
        committed_seq = self.log.committed_seq if self.sync else self.log.seq
        return self.attributes.with_limits(table.committed_limits(committed_seq))

    def count_and_bytes(self) -> tuple[int, int]:
        """Return the number of sections and the bytes of content, as committed (R84, R85)."""
        sections = self.sections.sections
        count, content_bytes = len(sections), self.sections.content_bytes
        for section_id, old in self.committed_overlay().items():
            new = sections.get(section_id)
            count += (old is not None) - (new is not None)
            content_bytes += len(old.content) if old else 0
            content_bytes -= len(new.content) if new else 0
        return count, content_bytes

    def iterate(self, asked: Iterate) -> list[Any] | Iterate:
        """Return what answers ITERATE: a page of descriptors in byte order, and where it ends (R107 to R114).

        Return the rest of the request instead if `EXAMINED_MAX` sections were examined, or sorted, without a
        result: other requests get their turn first.
        """
        chosen, expiration_ns, after, with_values, limit, with_versions, _ = asked
        staged, context = self.sections.sections, self.context
        if with_versions:
            self._check_versions_known()
        overlay = self.committed_overlay()
        context.work += ELEMENT_WORK * EXAMINED_MAX
        ordered = self.sections.ordered(EXAMINED_MAX)
        if ordered is None:
            return asked
        ids = ordered.after(after)
        gone = sorted(i for i in overlay if i not in staged and (after is None or i > after))
        if gone:
            ids = merge(ids, gone)
        page: list[list[Any]] = []
        page_bytes = examined = 0
        last: bytes | None = None
        for section_id in ids:
            if examined == EXAMINED_MAX:
                if not page:
                    return asked._replace(after=last)
                return [page, last]
            examined += 1
            section = overlay[section_id] if section_id in overlay else staged[section_id]
            if section is None or not _is_chosen(section, chosen, expiration_ns):
                last = section_id
                continue
            if page_bytes >= PAGE_BYTES_MAX or len(page) == limit:
                break
            last = section_id
            value = section.content if with_values and section.state != CORRUPTED else None
            size = len(section.content)
            row: list[Any] = [
                section_id,
                section.expiration_ns,
                size,
                section.state,
                section.last_update_ns,
                value,
            ]
            if with_versions:
                row.append(self.shown_version(section.version))
                page_bytes += SHOWN_VERSION_BYTES
            page.append(row)
            page_bytes += _DESCRIPTOR_BYTES + len(section_id) + (size if value is not None else 0)
        else:
            last = None
        context.work -= ELEMENT_WORK * (EXAMINED_MAX - examined)
        return [page, last]


def _is_chosen(section: Section, chosen: int, expiration_ns: int) -> bool:
    if chosen == SA_CKPT_SECTIONS_ANY:
        return True
    if chosen == SA_CKPT_SECTIONS_FOREVER:
        return section.expiration_ns == SA_TIME_END
    if chosen == SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME:
        return section.expiration_ns <= expiration_ns
    if chosen == SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME:
        return section.expiration_ns >= expiration_ns
    assert chosen == SA_CKPT_SECTIONS_CORRUPTED, chosen
    return section.state == CORRUPTED


def _generated_ids(ops: Ops) -> list[bytes] | None:
    generated = [op[1] for op in ops if len(op) > 4 and op[0] == 1]
    return generated or None
