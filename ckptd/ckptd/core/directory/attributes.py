"""A checkpoint's creation attributes and the rules for them (SAF 3.3.2, 3.5.1; R24 to R31)."""

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.creation_attributes import attributes_fault
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import SECTION_BYTES_MAX, SIZE_MAX

FIELD_NAMES: Final = (
    "creationFlags",
    "checkpointSize",
    "retentionDuration",
    "maxSections",
    "maxSectionSize",
    "maxSectionIdSize",
)
"""Source: SaCkptCheckpointCreationAttributesT, SAF 3.3.2.1."""


class Limits(NamedTuple):
    """The attributes that a resize changes (ADR 33)."""

    sections_max: int
    section_bytes_max: int
    section_id_bytes_max: int

    def at_least(self, other: "Limits") -> "Limits":
        """Return the larger of each."""
        return Limits(*map(max, self, other))

    def at_most(self, other: "Limits") -> "Limits":
        """Return the smaller of each."""
        return Limits(*map(min, self, other))

    def cover(self, other: "Limits") -> bool:
        """Return True if none is smaller than that of `other`."""
        return self.at_least(other) == self


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

    @property
    def limits(self) -> Limits:
        return Limits(self.sections_max, self.section_bytes_max, self.section_id_bytes_max)

    def with_limits(self, limits: Limits) -> "Attributes":
        """Return these with other limits. The size of the checkpoint follows them."""
        size = min(limits.sections_max * limits.section_bytes_max, SIZE_MAX)
        return replace(self, checkpoint_size=size, **limits._asdict())

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
            f"{name} is {mine}, and {asked} was asked for"
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
