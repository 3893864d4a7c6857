"""A checkpoint's creation attributes and the rules for them (SAF 3.3.2, 3.5.1; R24 to R31)."""

from dataclasses import dataclass
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.creation_attributes import attributes_fault
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import SECTION_BYTES_MAX

FIELD_NAMES: Final = (
    "creationFlags",
    "checkpointSize",
    "retentionDuration",
    "maxSections",
    "maxSectionSize",
    "maxSectionIdSize",
)
"""Source: SaCkptCheckpointCreationAttributesT, SAF 3.3.2.1."""


@dataclass(slots=True, frozen=True)
class Attributes:
    """`SaCkptCheckpointCreationAttributesT`, with sizes in bytes. `sync`, `weak` and so on read the flags."""

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
        """The largest section that this service stores, in bytes."""
        return min(self.section_bytes_max, SECTION_BYTES_MAX)

    def fields(self) -> list[int]:
        """Return the attributes as they are sent, in the order of the SAF structure."""
        return [
            self.flags,
            self.checkpoint_size,
            self.retention_ns,
            self.sections_max,
            self.section_bytes_max,
            self.section_id_bytes_max,
        ]

    def differences(self, other: "Attributes", with_retention: bool) -> str:
        """Describe how the attributes `other` of a reopen differ from these; "" if the reopen is legal.

        The retention duration is compared for B.01 clients only (R30, R31).
        """
        pairs = zip(FIELD_NAMES, self.fields(), other.fields(), strict=True)
        return "; ".join(
            f"{name} is {mine}, not {asked}"
            for name, mine, asked in pairs
            if mine != asked and (with_retention or name != "retentionDuration")
        )


def parse_attributes(fields: Any) -> Attributes:
    """Parse creation attributes as a client sends them.

    Raises: RequestError INVALID_PARAM.
    """
    fault = attributes_fault(fields)
    if fault:
        raise RequestError(codes.INVALID_PARAM, fault)
    return Attributes(*fields[:6])
