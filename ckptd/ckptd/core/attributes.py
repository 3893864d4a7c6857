"""A checkpoint's creation attributes and the rules for them (SAF 3.3.2, 3.5.1; R24 to R31)."""

from dataclasses import dataclass
from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    UPDATE_FLAGS,
)
from ckpt_protocol.limits import SECTION_BYTES_MAX, SECTION_ID_BYTES_MAX, SECTIONS_MAX, SIZE_MAX
from ckptd.core.refusal import Refusal


@dataclass(slots=True, frozen=True)
class Attributes:
    """`SaCkptCheckpointCreationAttributesT`; sizes in bytes. `sync`, `weak` and so on read the flags."""

    flags: int
    checkpoint_size: int
    retention_ns: int
    sections_max: int
    section_bytes_max: int
    section_id_bytes_max: int

    @property
    def sync(self) -> bool:
        return bool(self.flags & SA_CKPT_WR_ALL_REPLICAS)

    @property
    def weak(self) -> bool:
        return bool(self.flags & SA_CKPT_WR_ACTIVE_REPLICA_WEAK)

    @property
    def collocated(self) -> bool:
        return bool(self.flags & SA_CKPT_CHECKPOINT_COLLOCATED)

    @property
    def section_bytes_cap(self) -> int:
        """The largest section that is really held."""
        return min(self.section_bytes_max, SECTION_BYTES_MAX)

    def fields(self) -> list[int]:
        """As they travel, in the order of the SAF structure."""
        return [
            self.flags,
            self.checkpoint_size,
            self.retention_ns,
            self.sections_max,
            self.section_bytes_max,
            self.section_id_bytes_max,
        ]

    def same(self, other: "Attributes", with_retention: bool) -> bool:
        """Whether a reopen with `other` is legal: retention counts for B.01 clients only (R30, R31)."""
        mine, theirs = self.fields(), other.fields()
        if not with_retention:
            mine[2] = theirs[2]
        return mine == theirs


def parse_attributes(fields: Any) -> Attributes:
    """Creation attributes as a client sent them.

    Raises: Refusal INVALID_PARAM.
    """
    if type(fields) is not list or len(fields) < 6 or any(type(field) is not int for field in fields[:6]):
        raise Refusal(codes.INVALID_PARAM, "the creation attributes are not six integers")
    attributes = Attributes(*fields[:6])
    flags = attributes.flags
    if flags & ~SA_CKPT_CHECKPOINT_COLLOCATED not in UPDATE_FLAGS:
        raise Refusal(codes.INVALID_PARAM, f"creation flags {flags:#x} do not hold exactly one update flag")
    if not 0 <= attributes.retention_ns <= SIZE_MAX:
        raise Refusal(codes.INVALID_PARAM, "the retention duration is negative or beyond SA_TIME_MAX")
    if not 1 <= attributes.sections_max <= SECTIONS_MAX:
        raise Refusal(
            codes.INVALID_PARAM, f"maxSections {attributes.sections_max} is not 1 to {SECTIONS_MAX}"
        )
    if not 1 <= attributes.section_bytes_max <= SIZE_MAX or not 0 <= attributes.checkpoint_size <= SIZE_MAX:
        raise Refusal(codes.INVALID_PARAM, "a size is not positive or beyond 2^63-1")
    if not 0 <= attributes.section_id_bytes_max <= SECTION_ID_BYTES_MAX:
        raise Refusal(codes.INVALID_PARAM, f"maxSectionIdSize is not 0 to {SECTION_ID_BYTES_MAX}")
    if attributes.section_id_bytes_max == 0 and attributes.sections_max > 1:
        raise Refusal(codes.INVALID_PARAM, "several sections need ids of at least one byte")
    if attributes.checkpoint_size > attributes.sections_max * attributes.section_bytes_max:
        raise Refusal(codes.INVALID_PARAM, "checkpointSize exceeds maxSections x maxSectionSize")
    return attributes
