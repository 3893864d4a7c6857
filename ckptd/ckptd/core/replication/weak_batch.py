"""Batches of a weak checkpoint: the sections that changed since the last one, newest value only.

A hot section costs one transfer a batch. A section larger than a batch travels in
pieces; a replica that did not get all of them holds it as CORRUPTED. It knows neither
nodes nor messages.
"""

from typing import Any, Final

from ckpt_protocol.limits import OPS_PER_UPDATE_MAX, PORTION_BYTES_MAX
from ckpt_protocol.messages import Op
from ckptd.core.replication.sections import CORRUPTED, Before, SectionTable

BATCH_SECTIONS_MAX: Final = OPS_PER_UPDATE_MAX // 2
"""Sections in a batch of several requests: its first portion names them all, and has to be one update."""

OP_BYTES: Final = 60
"""What an operation takes beside its id and its content, and a swallowed request beside its answer."""


class WeakBatch:
    """What gathered since the last batch: ids in the order they changed, and the requests swallowed.

    `beside_bytes`: what their ids and answers take. All of them stand in the first portion.
    """

    __slots__ = ("answered", "beside_bytes", "changed", "expired", "since_ns")

    def __init__(self) -> None:
        self.beside_bytes = 0
        self.changed: dict[bytes, None] = {}
        self.answered: list[list[Any]] = []
        self.expired: set[bytes] = set()
        self.since_ns = 0

    def add(self, before: Before, answered: list[Any] | None, now_ns: int) -> None:
        """Remember what an update touched, and the request that it answered."""
        if not self.changed and not self.answered:
            self.since_ns = now_ns
        for section_id in before:
            self.beside_bytes += OP_BYTES + len(section_id)
            self.changed[section_id] = None
        if answered is None:
            self.expired.update(before)
        else:
            self.beside_bytes += OP_BYTES + len(answered[3])
            self.answered.append(answered)
            self.expired.difference_update(before)

    def has_room(self, ops: Any) -> bool:
        """Whether an update may join what gathered; else that is to be sent first."""
        if not self.changed or type(ops) is not list:
            return True
        return len(self.changed) + len(ops) <= BATCH_SECTIONS_MAX and self.beside_bytes < PORTION_BYTES_MAX

    def __bool__(self) -> bool:
        return bool(self.changed or self.answered)

    def split(self, sections: SectionTable, batch_bytes: int) -> list[tuple[list[Any], list[bytes]]]:
        """The operations in portions of about `batch_bytes`, each with the ids that it completes.

        Of several portions the first marks what the others bring as corrupted: a replica that is lost its
        active one between them must show no later update without an earlier one (R59).
        """
        portions: list[tuple[list[Any], list[bytes]]] = []
        ops: list[Any] = []
        whole: list[bytes] = []
        marks: list[Any] = []
        size = ids_bytes = 0
        for section_id in self.changed:
            section = sections.sections.get(section_id)
            if section is None:
                mark = [True] if section_id in self.expired else []
                marks.append([Op.REMOVE, section_id, *mark])
                continue
            content = section.content
            total = len(content) + (section.state == CORRUPTED)  # Not whole here, and so nowhere.
            times = [section.expiration_ns, section.last_update_ns]
            for offset in range(0, len(content) or 1, batch_bytes):
                piece = content[offset : offset + batch_bytes]
                ids_bytes += OP_BYTES + len(section_id)
                if ops and (size + len(piece) > batch_bytes or ids_bytes > PORTION_BYTES_MAX):
                    portions.append((ops, whole))
                    ops, whole, size, ids_bytes = [], [], 0, OP_BYTES + len(section_id)
                ops.append([Op.PIECE, section_id, total, offset, piece, *times])
                size += len(piece)
                if portions and not offset:
                    marks.append([Op.PIECE, section_id, total + 1, 0, b"", *times])
            whole.append(section_id)
        if ops or not portions:
            portions.append((ops, whole))
        portions[0][0][:0] = marks
        return portions

    def clear(self) -> None:
        self.beside_bytes = 0
        self.changed = {}
        self.answered = []
        self.expired = set()
