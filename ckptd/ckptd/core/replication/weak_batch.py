"""Batches of a weak checkpoint: the sections that changed since the last one, newest value only.

A hot section costs one transfer a batch. A section larger than a batch is sent in pieces; a replica that did
not receive all of them holds it as CORRUPTED. This module knows neither nodes nor messages.
"""

from typing import Any, Final

from ckpt_protocol.limits import OPS_PER_UPDATE_MAX, PORTION_BYTES_MAX
from ckpt_protocol.messages import Op
from ckptd.core.content.section import CORRUPTED, PreImages
from ckptd.core.content.sections import SectionTable
from ckptd.core.content.versions import VERSION_BYTES

BATCH_SECTIONS_MAX: Final = OPS_PER_UPDATE_MAX // 2
"""The most sections in a batch of several requests: its first portion names them all, in a single update."""

OP_BYTES: Final = 60
"""The size of an operation without its id and content, and of a covered request without its answer."""


class WeakBatch:
    """What has gathered since the last batch."""

    __slots__ = ("changed", "covered_requests", "expired", "first_portion_bytes", "since_ns", "updates")

    def __init__(self) -> None:
        self.first_portion_bytes = 0
        """The size of the ids and answers, all of which are in the first portion."""
        self.changed: dict[bytes, None] = {}
        """The ids of the changed sections, in the order in which they first changed."""
        self.covered_requests: list[list[Any]] = []
        """The requests that the batch covers, with their answers."""
        self.expired: set[bytes] = set()
        """The changed sections whose last change was their expiration."""
        self.since_ns = 0
        self.updates = 0
        """How many updates were added since the last batch."""

    def add(self, pre_images: PreImages, covered: list[Any] | None, now_ns: int) -> None:
        """Remember which sections an update touched, and the request that it answered."""
        if not self.changed and not self.covered_requests:
            self.since_ns = now_ns
        self.updates += 1
        for section_id in pre_images:
            self.first_portion_bytes += OP_BYTES + len(section_id)
            self.changed[section_id] = None
        if covered is None:
            self.expired.update(pre_images)
        else:
            self.first_portion_bytes += OP_BYTES + len(covered[3])
            self.covered_requests.append(covered)
            self.expired.difference_update(pre_images)

    def can_add(self, ops: Any) -> bool:
        """Return True if an update may be added to the batch; otherwise the batch has to be sent first."""
        if not self or type(ops) is not list:
            return True
        return (
            len(self.changed) + len(ops) <= BATCH_SECTIONS_MAX
            and self.first_portion_bytes < PORTION_BYTES_MAX
        )

    def __bool__(self) -> bool:
        return bool(self.changed or self.covered_requests)

    def split(
        self, sections: SectionTable, batch_bytes: int, with_versions: bool
    ) -> list[tuple[list[Any], list[bytes]]]:
        """Return the operations in portions of about `batch_bytes`, each with the ids that it completes.

        If there are several, the first marks as corrupted what the others bring: a replica that loses its
        active replica between two of them must not show a later update without an earlier one (R59).
        """
        portions: list[tuple[list[Any], list[bytes]]] = []
        ops: list[Any] = []
        completed_ids: list[bytes] = []
        corruption_marks: list[Any] = []
        size = ids_bytes = 0
        for section_id in self.changed:
            section = sections.sections.get(section_id)
            if section is None:
                mark = [True] if section_id in self.expired else []
                corruption_marks.append([Op.REMOVE, section_id, *mark])
                continue
            content = section.content
            total = len(content) + (section.state == CORRUPTED)  # Incomplete here, so everywhere.
            times: list[Any] = [section.expiration_ns, section.last_update_ns]
            if with_versions:
                times.append(section.version.to_bytes(VERSION_BYTES))
            for offset in range(0, len(content) or 1, batch_bytes):
                piece = content[offset : offset + batch_bytes]
                ids_bytes += OP_BYTES + len(section_id)
                if ops and (size + len(piece) > batch_bytes or ids_bytes > PORTION_BYTES_MAX):
                    portions.append((ops, completed_ids))
                    ops, completed_ids, size, ids_bytes = [], [], 0, OP_BYTES + len(section_id)
                ops.append([Op.PIECE, section_id, total, offset, piece, *times])
                size += len(piece)
                if portions and not offset:
                    corruption_marks.append([Op.PIECE, section_id, total + 1, 0, b"", *times])
            completed_ids.append(section_id)
        if ops or not portions:
            portions.append((ops, completed_ids))
        portions[0][0][:0] = corruption_marks
        return portions

    def clear(self) -> None:
        self.first_portion_bytes = 0
        self.changed = {}
        self.covered_requests = []
        self.expired = set()
        self.updates = 0
