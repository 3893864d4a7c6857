"""Makes the core of a node: one that holds data, or one that only votes."""

from ckptd.core.hub import NO_TRANSPORT, Transport
from ckptd.core.node import Node
from ckptd.core.settings import Settings
from ckptd.core.witness import Witness

Core = Node | Witness


def make_core(
    settings: Settings,
    incarnation: int,
    record: bytes,
    now_ns: int,
    wall_offset_ns: int,
    transport: Transport = NO_TRANSPORT,
) -> Core:
    """Return the core of a node with these settings; the arguments are described at `Node`."""
    kind = Witness if settings.witness else Node
    return kind(settings, incarnation, record, now_ns, wall_offset_ns, transport)
