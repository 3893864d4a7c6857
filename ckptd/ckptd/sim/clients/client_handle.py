"""A handle that a client has open."""

from dataclasses import dataclass

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
