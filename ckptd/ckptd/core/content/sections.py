"""Sections, and the rules by which operations change them (SAF 3.6, 3.7; R88 to R133).

The table holds the newest *staged* content. `apply` does all operations or none. For every id that it touches
it keeps the previous section: that undoes a refused update, and answers reads while the update is pending.
Operations arrive parsed (`ckpt_protocol.parse_updates`), so only what depends on the checkpoint is checked
here. This module knows neither replicas nor clients.
"""

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.limits import SIZE_MAX
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_updates import Ops
from ckptd.core.content.leadership import NOBODY, Leadership, parse_leadership
from ckptd.core.content.limits_in_force import LimitsInForce
from ckptd.core.content.ordered_ids import OrderedIds
from ckptd.core.content.section import CORRUPTED, VALID, PreImages, Section
from ckptd.core.content.versions import SEQ_BITS, version_of_change
from ckptd.core.directory.attributes import Attributes
from ckptd.core.work_costs import KIB_SHIFT, PASSED_SHIFT

SECTION_OVERHEAD_BYTES: Final = 300
"""Approximate memory of a section, without its content and its id."""

EXPIRATIONS_FREE: Final = 1_000
"""Obsolete expiration times that may be kept, in addition to one for each section."""

EXPIRED_MAX: Final = 1_000
"""The most expired sections that one update deletes. The rest are due at once, after other work's turn."""

GENERATED_TRIES_MAX: Final = 65_536
"""The most numbers tried for one generated id: all that an id of two bytes can have, some 10 ms of work."""

_PIECEWISE_BYTES: Final = 4096
"""A section of more bytes than this is built from memory views, so that it is copied only once."""

_FIELDS_OF_CREATE: Final = 4  # A fifth field, True, marks a generated id.
DEFAULT_ID: Final = b""


class SectionTable(LimitsInForce):
    """All sections of one replica, within its checkpoint's limits."""

    __slots__ = (
        "_generated",
        "_ordered",
        "content_bytes",
        "epoch",
        "expirations",
        "fenced",
        "leadership",
        "sections",
        "version",
        "work",
    )

    def __init__(self, attributes: Attributes, created_ns: int = 0) -> None:
        super().__init__(attributes)
        self.sections: dict[bytes, Section] = {}
        self.content_bytes = 0
        self.epoch = 0
        """The epoch of the update that is applied: generated ids and versions begin with it."""
        self.version = 0
        """The version that the update which is applied gives to each section that it changes."""
        self.leadership: Leadership = NOBODY
        """Who leads the checkpoint, and who waits to."""
        self.fenced = False
        """No other than the leader may write: `leadership.fenced`, which every update looks at."""
        self.expirations: list[tuple[int, bytes]] = []
        """A heap of (expiration time, id). Some entries may be obsolete."""
        self._ordered: OrderedIds | None = None
        self._generated = 0
        self.work = 0
        """The counted work of operations beyond `OP_WORK`, kept or undone: content built, and ids tried."""
        if attributes.sections_max == 1:
            self.sections[DEFAULT_ID] = Section(b"", SA_TIME_END, created_ns, 0, 0)

    # -- changing

    def apply(
        self, ops: Ops, time_ns: int, seq: int, pre_images: PreImages, index_in_batch: int = 0
    ) -> list[bytes] | None:
        """Apply every operation or none. Return the ids that were generated, or None if there are none.

        `epoch` has to be the update's. `index_in_batch`: how many updates the weak batch contains already. A
        CREATE without an id is given one *in place*, so that every replica applies the same `ops`. Raises:
        RequestError, with the index of the operation at fault.
        """
        handlers = _HANDLERS
        self.version = version_of_change(self.epoch, seq, index_in_batch)
        generated: list[bytes] | None = None
        index = 0
        try:
            for index, op in enumerate(ops):  # noqa: B007 (the handlers below need it)
                made = handlers[op[0]](self, op, time_ns, seq, pre_images)
                if made is not None:
                    if generated is None:
                        generated = []
                    generated.append(made)
        except RequestError as refusal:
            self.undo(pre_images)
            refusal.index = index
            raise
        return generated

    def apply_during_resync(self, ops: Ops, time_ns: int, seq: int, pre_images: PreImages) -> None:
        """Apply operations at a joining replica; skip those on sections that it has not received yet."""
        for op in ops:
            touched: PreImages = {}
            try:
                self.apply(Ops([op]), time_ns, seq, touched)
            except RequestError:
                continue
            for section_id, section in touched.items():
                pre_images.setdefault(section_id, section)

    def undo(self, pre_images: PreImages) -> None:
        """Restore the previous sections."""
        for section_id, section in pre_images.items():
            self.put_raw(section_id, section)
        pre_images.clear()

    def put_raw(self, section_id: bytes, section: Section | None) -> None:
        """Put a section under an id, whatever was there; None removes."""
        sections = self.sections
        old = sections.get(section_id)
        if old is not None:
            self.content_bytes -= len(old.content)
        elif section is not None and self._ordered is not None:
            self._ordered.add(section_id)
        if section is None:
            if old is not None:
                del sections[section_id]
                if self._ordered is not None:
                    self._ordered.discard(section_id)
            return
        sections[section_id] = section
        self.content_bytes += len(section.content)
        if section.expiration_ns != SA_TIME_END:
            heapq.heappush(self.expirations, (section.expiration_ns, section_id))
            if len(self.expirations) > EXPIRATIONS_FREE + 2 * len(sections):
                self.rearm_expirations()  # Most entries are obsolete, and would stay until their time came.

    def _replace(
        self, section_id: bytes, old: Section | None, section: Section, pre_images: PreImages
    ) -> None:
        if section_id not in pre_images:
            pre_images[section_id] = old
        if self.search is not None:
            self.search.note(section_id, section)
        if old is None or section.expiration_ns != SA_TIME_END:
            self.put_raw(section_id, section)
            return
        self.content_bytes += len(section.content) - len(old.content)
        self.sections[section_id] = section

    def _get(self, section_id: bytes) -> Section:
        section = self.sections.get(section_id)
        if section is None:
            raise RequestError(codes.NOT_EXIST, f"there is no section {section_id[:32]!r}")
        return section

    def _check_content(self, content: bytes) -> None:
        size = len(content)
        if size <= self.section_bytes_cap:
            return
        if size > self.attributes.section_bytes_max:
            limit = self.attributes.section_bytes_max
            raise RequestError(codes.INVALID_PARAM, f"{size} bytes exceed maxSectionSize, which is {limit}")
        raise RequestError(
            codes.NO_RESOURCES, f"{size} bytes exceed the largest section that this service allows"
        )

    def _check_expiration(self, expiration_ns: int, time_ns: int) -> None:
        if not time_ns < expiration_ns <= SIZE_MAX:
            raise RequestError(codes.INVALID_PARAM, "the expiration time is not a time, or has passed")

    def _check_new_id(self, section_id: bytes) -> None:
        limit = self.attributes.section_id_bytes_max
        if len(section_id) > limit:
            raise RequestError(
                codes.INVALID_PARAM,
                f"a section id of {len(section_id)} bytes exceeds the limit of {limit} bytes",
            )
        if not section_id:
            raise RequestError(codes.INVALID_PARAM, "this checkpoint needs a section id")
        if len(self.sections) >= self.attributes.sections_max:
            raise RequestError(codes.NO_SPACE, f"all {self.attributes.sections_max} sections are in use")

    def _create(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> bytes | None:
        _, section_id, expiration_ns, content, *_ = op
        self._check_content(content)
        self._check_expiration(expiration_ns, time_ns)
        if self.attributes.sections_max == 1 or section_id in self.sections:
            raise RequestError(codes.EXIST, f"section {section_id[:32]!r} exists")
        if not section_id:
            section_id = self._generate_id(seq)
            op[:] = [op[0], section_id, expiration_ns, content, True]
        self._check_new_id(section_id)
        self._replace(
            section_id, None, Section(content, expiration_ns, time_ns, seq, self.version), pre_images
        )
        return section_id if len(op) > _FIELDS_OF_CREATE else None

    def _generate_id(self, seq: int) -> bytes:
        """Return a free id: the update's epoch and seq in up to eight bytes, incremented while it is taken.

        It contains the epoch because an asynchronous checkpoint that lost its last updates uses their seqs
        again: an id that one client was given would name another client's section. The search continues from
        the last generated id, also in later updates. Otherwise a client that created sections with the next
        ids would make every search start over at the first of them.
        """
        if len(self.sections) >= self.attributes.sections_max:
            raise RequestError(codes.NO_SPACE, f"all {self.attributes.sections_max} sections are in use")
        width = min(self.attributes.section_id_bytes_max, 8)
        space = 256**width
        first = max((self.epoch << SEQ_BITS) + seq, self._generated)
        number = first
        for number in range(first, first + min(space, len(self.sections) + 1, GENERATED_TRIES_MAX)):
            section_id: bytes = (number % space).to_bytes(width, "big")
            if section_id not in self.sections:
                self.work += (number - first) >> PASSED_SHIFT
                self._generated = number + 1
                return section_id
        self.work += (number - first) >> PASSED_SHIFT
        self._generated = number + 1  # (The next request continues there.)
        text = (
            f"all ids of {width} bytes are in use"
            if width <= 2
            else f"{GENERATED_TRIES_MAX} generated ids in a row were in use"
        )
        raise RequestError(codes.NO_SPACE, text)

    def _delete(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        section_id = op[1]
        if section_id == DEFAULT_ID:
            raise RequestError(codes.INVALID_PARAM, "the default section cannot be deleted")
        old = self._get(section_id)
        if section_id not in pre_images:
            pre_images[section_id] = old
        self.put_raw(section_id, None)

    def _overwrite(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        _, section_id, content = op
        old = self._get(section_id)
        self._check_content(content)
        self._replace(
            section_id, old, Section(content, old.expiration_ns, time_ns, seq, self.version), pre_images
        )

    def _write(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        _, section_id, offset, content = op
        old = self._get(section_id)
        self._splice(section_id, old, offset, content, old.expiration_ns, time_ns, seq, pre_images)

    def _splice(
        self,
        section_id: bytes,
        old: Section | None,
        offset: int,
        content: bytes,
        expiration_ns: int,
        time_ns: int,
        seq: int,
        pre_images: PreImages,
    ) -> None:
        """Write at an offset. This never shortens; a gap after the old end reads as zeros (R116)."""
        self._check_content(content)
        if offset + len(content) > self.section_bytes_cap:
            raise RequestError(
                codes.NO_RESOURCES,
                f"offset {offset} plus {len(content)} bytes exceed the section limit of "
                f"{self.section_bytes_cap} bytes",
            )
        if old is not None:
            if old.state == CORRUPTED:
                raise RequestError(
                    codes.FAILED_OPERATION, f"section {section_id[:32]!r} is corrupted: overwrite all of it"
                )
            old_content = old.content
            if not content:
                content = old_content
            elif offset or len(content) < len(old_content):
                content = _spliced(old_content, offset, content)
        elif offset and content:
            content = bytes(offset) + content
        self.work += len(content) >> KIB_SHIFT
        self._replace(
            section_id, old, Section(content, expiration_ns, time_ns, seq, self.version), pre_images
        )

    def _set_expiration(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        _, section_id, expiration_ns = op
        if section_id == DEFAULT_ID:
            raise RequestError(codes.INVALID_PARAM, "the default section never expires")
        old = self._get(section_id)
        self._check_expiration(expiration_ns, time_ns)
        section = Section(old.content, expiration_ns, old.last_update_ns, seq, self.version, old.state)
        self._replace(section_id, old, section, pre_images)

    def _expire_after(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        """Set an expiration that long after the time of the update, which is the same at every replica."""
        _, section_id, duration_ns = op
        if not duration_ns:
            raise RequestError(codes.INVALID_PARAM, "a section cannot expire after 0 ns")
        expiration_ns = min(time_ns + duration_ns, SA_TIME_END)
        self._set_expiration([Op.EXPIRATION_SET, section_id, expiration_ns], time_ns, seq, pre_images)

    def _get_or_admit(
        self, section_id: bytes, expiration_ns: int | None, time_ns: int
    ) -> tuple[Section | None, int]:
        """Return the section, if it exists, and the expiration to set, for operations that may create it."""
        old = self.sections.get(section_id)
        if expiration_ns is not None:
            self._check_expiration(expiration_ns, time_ns)
            if section_id == DEFAULT_ID and expiration_ns != SA_TIME_END:
                raise RequestError(codes.INVALID_PARAM, "the default section never expires")
        if old is None:
            self._check_new_id(section_id)
            return None, SA_TIME_END if expiration_ns is None else expiration_ns
        return old, old.expiration_ns if expiration_ns is None else expiration_ns

    def _put(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        _, section_id, content, expiration_ns = op
        old = self.sections.get(section_id)
        if (
            old is not None
            and len(content) <= self.quick_bytes_max
            and (expiration_ns is None or expiration_ns == old.expiration_ns == SA_TIME_END)
        ):  # The common case. It checks and does the same as the general one below.
            if section_id not in pre_images:
                pre_images[section_id] = old
            self.content_bytes += len(content) - len(old.content)
            self.sections[section_id] = Section(content, old.expiration_ns, time_ns, seq, self.version)
            return
        old, expiration_ns = self._get_or_admit(section_id, expiration_ns, time_ns)
        self._check_content(content)
        self._replace(
            section_id, old, Section(content, expiration_ns, time_ns, seq, self.version), pre_images
        )

    def _patch(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        _, section_id, offset, content, expiration_ns = op
        old = self.sections.get(section_id)
        if (
            old is not None
            and not offset
            and len(old.content) <= len(content) <= self.quick_bytes_max
            and old.state == VALID
            and (expiration_ns is None or expiration_ns == old.expiration_ns == SA_TIME_END)
        ):  # The common case, as in _put.
            if section_id not in pre_images:
                pre_images[section_id] = old
            self.content_bytes += len(content) - len(old.content)
            self.sections[section_id] = Section(content, old.expiration_ns, time_ns, seq, self.version)
            return
        old, expiration_ns = self._get_or_admit(section_id, expiration_ns, time_ns)
        self._splice(section_id, old, offset, content, expiration_ns, time_ns, seq, pre_images)

    def _remove(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        if op[1] in self.sections:
            self._delete(op, time_ns, seq, pre_images)

    def _fragment(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        """Add a piece of a weak section, which is CORRUPTED until its last piece has arrived."""
        _, section_id, total, offset, content, expiration_ns, last_update_ns, *version = op
        old = self.sections.get(section_id)
        old_content = old.content[:offset] if old is not None and offset else b""
        new_content = old_content + content
        state = VALID if len(new_content) == total else CORRUPTED
        made = Section(
            new_content,
            expiration_ns,
            last_update_ns,
            seq,
            int.from_bytes(version[0]) if version else self.version,
            state,
        )
        self._replace(section_id, old, made, pre_images)

    def _require(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        """Change nothing: the active replica has judged this condition, and no replica judges it again."""
        if pre_images:
            raise RequestError(codes.INVALID_PARAM, "a condition comes after a change")

    def lead(self, leadership: Leadership) -> None:
        """Replace who leads and who waits."""
        self.leadership = leadership
        self.fenced = leadership.fenced

    def _lead(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        try:
            self.lead(parse_leadership(op[1]))
        except FrameError as error:
            raise RequestError(codes.INVALID_PARAM, str(error)) from None

    def _misplaced(self, op: Any, time_ns: int, seq: int, pre_images: PreImages) -> None:
        """Refuse what is no change of a section: the active replica takes it from its place beforehand."""
        raise RequestError(codes.INVALID_PARAM, "a token comes last; to lead and to resign stand alone")

    # -- reading

    @property
    def resident_bytes(self) -> int:
        """Approximate memory of all sections."""
        return self.content_bytes + SECTION_OVERHEAD_BYTES * len(self.sections)

    def next_expiration_ns(self) -> int | None:
        """Return when the next section expires (ns since 1970), None for never."""
        heap = self.expirations
        while heap:
            expiration_ns, section_id = heap[0]
            section = self.sections.get(section_id)
            if section is not None and section.expiration_ns == expiration_ns:
                return expiration_ns
            heapq.heappop(heap)
        return None

    def expired(self, wall_ns: int, count_max: int = EXPIRED_MAX) -> list[bytes]:
        """Return the ids of at most `count_max` expired sections; the caller deletes them."""
        due: dict[bytes, None] = {}
        heap = self.expirations
        while heap and heap[0][0] <= wall_ns and len(due) < count_max:
            expiration_ns, section_id = heapq.heappop(heap)
            section = self.sections.get(section_id)
            if section is not None and section.expiration_ns == expiration_ns:
                due[section_id] = None
        return list(due)

    def rearm_expirations(self) -> None:
        """Rebuild `expirations`, with each section once: for a new active replica, for instance."""
        self.expirations = [
            (section.expiration_ns, section_id)
            for section_id, section in self.sections.items()
            if section.expiration_ns != SA_TIME_END
        ]
        heapq.heapify(self.expirations)

    def ordered(self, count_max: int) -> OrderedIds | None:
        """Return all ids in byte order, or None until they are sorted; each call sorts up to `count_max`.

        A checkpoint that is never iterated is never sorted.
        """
        if self._ordered is None:
            self._ordered = OrderedIds(self.sections)
        return self._ordered if self._ordered.sort_some(self.sections, count_max) else None

    def sorted_ids(self) -> list[bytes]:
        """Return all ids in byte order."""
        return sorted(self.sections)

    def items_sorted(self) -> Iterator[tuple[bytes, Section]]:
        """Yield every section as it is staged, in byte order."""
        for section_id in self.sorted_ids():
            yield section_id, self.sections[section_id]


def _spliced(old_content: bytes, offset: int, content: bytes) -> bytes:
    """Return `old_content` with `content` written at `offset`; a gap between them reads as zeros."""
    end = offset + len(content)
    if len(old_content) <= _PIECEWISE_BYTES:
        return old_content[:offset].ljust(offset, b"\0") + content + old_content[end:]
    with memoryview(old_content) as view:
        return b"".join((view[:offset], bytes(max(0, offset - len(old_content))), content, view[end:]))


Handler = Callable[[SectionTable, Any, int, int, PreImages], bytes | None]
"""Applies one operation (operation, ns since 1970, seq, before); returns an id that it generated."""

# Not in each table: bound methods would put it into a reference cycle, and the daemon collects no cycles.
_HANDLERS: Final[dict[int, Handler]] = {
    Op.CREATE: SectionTable._create,
    Op.DELETE: SectionTable._delete,
    Op.OVERWRITE: SectionTable._overwrite,
    Op.WRITE: SectionTable._write,
    Op.EXPIRATION_SET: SectionTable._set_expiration,
    Op.PUT: SectionTable._put,
    Op.PATCH: SectionTable._patch,
    Op.REMOVE: SectionTable._remove,
    Op.PIECE: SectionTable._fragment,
    Op.REQUIRE: SectionTable._require,
    Op.LEAD: SectionTable._misplaced,
    Op.RESIGN: SectionTable._misplaced,
    Op.REVOKE: SectionTable._misplaced,
    Op.TOKEN: SectionTable._misplaced,
    Op.LEADERSHIP: SectionTable._lead,
    Op.RESIZE: SectionTable.apply_resize,
    Op.EXPIRE_AFTER: SectionTable._expire_after,
}
