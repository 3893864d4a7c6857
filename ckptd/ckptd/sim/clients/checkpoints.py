"""The checkpoints of a simulation: their names, kinds and attributes."""

from dataclasses import dataclass
from typing import Final

from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)

ALL_KINDS: Final = tuple(
    update | collocated
    for collocated in (0, SA_CKPT_CHECKPOINT_COLLOCATED)
    for update in (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
)
"""The six kinds of checkpoints."""

KINDS: Final = {
    "all": ALL_KINDS,
    "sync": tuple(kind for kind in ALL_KINDS if kind & SA_CKPT_WR_ALL_REPLICAS),
    "async": tuple(kind for kind in ALL_KINDS if not kind & SA_CKPT_WR_ALL_REPLICAS),
    "weak": tuple(kind for kind in ALL_KINDS if kind & SA_CKPT_WR_ACTIVE_REPLICA_WEAK),
    "activated": tuple(
        kind
        for kind in ALL_KINDS
        if kind & SA_CKPT_CHECKPOINT_COLLOCATED and not kind & SA_CKPT_WR_ALL_REPLICAS
    ),
}
"""The kinds that a simulation may have, by the name in its options."""


@dataclass(slots=True, frozen=True)
class SimCheckpoint:
    """The name and attributes of one checkpoint; it may be created several times."""

    name: bytes
    flags: int
    retention_ns: int
    single: bool

    @property
    def section_ids(self) -> tuple[bytes, ...]:
        """The ids that are modelled."""
        return (b"",) if self.single else (b"k0", b"k1", b"k2")

    def attributes(self) -> list[int]:
        """Return the attributes as they travel."""
        sections, section_bytes = (1, 96) if self.single else (64, 96)
        return [self.flags, sections * section_bytes, self.retention_ns, sections, section_bytes, 8]
