"""What the connectors of all peers share."""

from dataclasses import dataclass, field

from ckpt_protocol.handshake import Identity
from ckptd.runtime.counters import Counters
from ckptd.runtime.logs import RateLimitedLog


@dataclass(slots=True, frozen=True)
class PeerContext:
    """The context that all connectors of a node share."""

    identity: Identity
    counters: Counters
    limited_log: RateLimitedLog
    heartbeat_s: float
    buffer_bytes_max: int
    family: int
    """The address family of our own sockets, AF_INET or AF_INET6."""

    witnesses: frozenset[str] = frozenset()
    """The peers that vote and hold no data."""

    opened: dict[bytes, None] = field(default_factory=dict)
    """The nonces of our current handshakes with peers. When a peer asks back, we confirm these only."""
