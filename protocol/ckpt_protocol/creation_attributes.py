"""The rules for a checkpoint's creation attributes (SAF 3.3.2, 3.5.1; R24 to R26), for clients and daemons.

The six attributes travel as `[creationFlags, checkpointSize, retentionDuration, maxSections, maxSectionSize,
maxSectionIdSize]`: sizes in bytes, the duration in nanoseconds.
"""

from typing import Any, NamedTuple

from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS, UPDATE_FLAGS
from ckpt_protocol.limits import SECTION_ID_BYTES_MAX, SECTIONS_MAX, SIZE_MAX


class Attributes(NamedTuple):
    """A checkpoint's creation attributes, in the order of the SAF structure. Sizes in bytes."""

    flags: int
    checkpoint_size: int
    retention_ns: int
    sections_max: int
    section_bytes_max: int
    section_id_bytes_max: int

    @property
    def sync(self) -> bool:
        """True if a write returns when every in-sync replica has it."""
        return bool(self.flags & SA_CKPT_WR_ALL_REPLICAS)

    @property
    def may_lack_active(self) -> bool:
        """True if the service never activates a replica on its own (asynchronous and collocated)."""
        return bool(self.flags & SA_CKPT_CHECKPOINT_COLLOCATED) and not self.sync

    @property
    def single(self) -> bool:
        """True if there is only the default section, which every key names."""
        return self.sections_max == 1


def attributes_fault(fields: Any) -> str:
    """Return what is wrong with creation attributes (INVALID_PARAM), in words; "" if nothing is."""
    if type(fields) is not list or len(fields) < 6 or any(type(field) is not int for field in fields[:6]):
        return "the creation attributes are not six integers"
    flags, checkpoint_size, retention_ns, sections_max, section_bytes_max, section_id_bytes_max = fields[:6]
    if flags & ~SA_CKPT_CHECKPOINT_COLLOCATED not in UPDATE_FLAGS:
        return f"creation flags {flags:#x} must contain exactly one update flag"
    if not 0 <= retention_ns <= SIZE_MAX:
        return "the retention duration is negative or exceeds SA_TIME_MAX"
    if not 1 <= sections_max <= SECTIONS_MAX:
        return f"maxSections {sections_max} is not 1 to {SECTIONS_MAX}"
    if not 1 <= section_bytes_max <= SIZE_MAX:
        return f"maxSectionSize {section_bytes_max} is not 1 to 2^63-1"
    if not 0 <= checkpoint_size <= SIZE_MAX:
        return f"checkpointSize {checkpoint_size} is not 0 to 2^63-1"
    if not 0 <= section_id_bytes_max <= SECTION_ID_BYTES_MAX:
        return f"maxSectionIdSize {section_id_bytes_max} is not 0 to {SECTION_ID_BYTES_MAX}"
    if section_id_bytes_max == 0 and sections_max > 1:
        return "several sections need ids, so maxSectionIdSize must not be 0"
    if checkpoint_size > sections_max * section_bytes_max:
        return "checkpointSize exceeds maxSections x maxSectionSize"
    return ""
