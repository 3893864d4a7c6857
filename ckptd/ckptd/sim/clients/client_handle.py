"""A handle that a client has open."""

from dataclasses import dataclass, field

from ckptd.sim.clients.checkpoints import SimCheckpoint


@dataclass(slots=True)
class ClientHandle:
    """A handle on one checkpoint."""

    checkpoint: SimCheckpoint
    number: int
    """The number of the OPEN that made it, as it travels."""

    creation_id: int
    generated: int = 0
    """How many sections with generated ids its client has created."""

    seen: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    """By section: the last value that its client has seen together with the version, and that version."""
