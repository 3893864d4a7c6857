"""Queues received datagrams in lanes, so that a flood from unknown senders fills only their own lane.

Heartbeats from peers' addresses are handled first. Each sender may use a limited share of its lane.
Datagrams from unauthenticated senders are admitted at a bounded rate; those above it are dropped before
anything reads them.
"""

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

from ckptd.core.hub import Limits
from ckptd.runtime.clock import now_ns
from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.counters import Counters

UNAUTHENTICATED_PER_S: Final = 2000
"""Datagrams per second from all unauthenticated senders together; more are dropped unread.

Each costs about 50 us and may need an answer, so this many take a tenth of a core."""

SOURCE_PER_S: Final = 200
"""Datagrams per second from one host, in each of the lanes UNAUTHENTICATED and HEARTBEAT. It lets 200
clients begin their handshake at once, and a daemon sends only 40 heartbeats a second."""

HEARTBEATS_PER_S: Final = 2600
"""Heartbeats per second from addresses that are no peer's. `NODES_MAX` nodes that all send from another
address than their configured one send 2,560. Without a limit, a flood of forged heartbeats took all of a
node's time."""

SOURCES_MAX: Final = 1024
"""Hosts whose rates are remembered. When there are more, all are forgotten and start afresh."""


class Lane(IntEnum):
    """The kind of sender of a datagram, judged by its address and its first bytes only."""

    PEER = 0
    """A heartbeat from a peer's address."""
    CLIENT = 1
    """Any other datagram from a client's address."""
    HEARTBEAT = 2
    """A heartbeat from any other address: from a peer with several addresses, or from anyone."""
    UNAUTHENTICATED = 3
    """Anything else."""


WAITING_MAX: Final = {Lane.PEER: 2048, Lane.CLIENT: 4096, Lane.HEARTBEAT: 256, Lane.UNAUTHENTICATED: 512}
"""Datagrams that may wait in a lane. In a full lane the oldest is dropped, since the newest heartbeat is the
most useful one."""

_NAMES: Final = {
    Lane.PEER: "peers",
    Lane.CLIENT: "clients",
    Lane.HEARTBEAT: "heartbeats",
    Lane.UNAUTHENTICATED: "strangers",
}

SENDER_WAITING_MAX: Final = {Lane.PEER: 256, Lane.CLIENT: 512, Lane.HEARTBEAT: 64, Lane.UNAUTHENTICATED: 32}
"""How many of these may come from one address; more of its datagrams are dropped."""


class TokenBucket:
    """A token bucket: at most `per_s` a second on average, and at most that many at once."""

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._left: float = per_s
        self._at_ns = now_ns()

    def allows(self) -> bool:
        """Return True, and count one, if one more is allowed now."""
        at_ns = now_ns()
        self._left = min(self._per_s, self._left + (at_ns - self._at_ns) * self._per_s / 1e9)
        self._at_ns = at_ns
        if self._left < 1:
            return False
        self._left -= 1
        return True


class DatagramLanes:
    """The datagrams that wait to be handled."""

    def __init__(self, counters: Counters, lane_of: Callable[[bytes, SocketAddress], Lane]) -> None:
        """`lane_of` returns which lane a datagram from an address belongs to."""
        self._lane_of = lane_of
        self._counters = counters
        self._waiting: tuple[deque[tuple[bytes, SocketAddress]], ...] = tuple(deque() for _ in Lane)
        self._senders: tuple[dict[SocketAddress, int], ...] = tuple({} for _ in Lane)
        self._ends: list[Any] = []
        self._next = Lane.CLIENT
        self._rate = {
            Lane.UNAUTHENTICATED: TokenBucket(UNAUTHENTICATED_PER_S),
            Lane.HEARTBEAT: TokenBucket(HEARTBEATS_PER_S),
        }
        self._rates: dict[Lane, dict[str, TokenBucket]] = {Lane.UNAUTHENTICATED: {}, Lane.HEARTBEAT: {}}

    def __len__(self) -> int:
        return sum(map(len, self._waiting)) + len(self._ends)

    def limits(self) -> Limits:
        """Return how many datagrams wait in each lane, and how many may."""
        return {
            f"datagrams_{name}": (len(self._waiting[lane]), WAITING_MAX[lane])
            for lane, name in _NAMES.items()
        }

    def put(self, item: Any) -> None:
        """Queue a received datagram in its lane, or drop it if its sender or lane is over its limit."""
        datagram, address = item
        if datagram is None:
            self._ends.append(item)
            return
        lane = self._lane_of(datagram, address)
        if lane in self._rate and not self._admits(lane, address[0]):
            self._counters.strangers_dropped += 1
            return
        senders = self._senders[lane]
        if senders.get(address, 0) >= SENDER_WAITING_MAX[lane]:
            self._counters.datagrams_dropped += 1
            return
        waiting = self._waiting[lane]
        if len(waiting) >= WAITING_MAX[lane]:
            self._pop(lane)
            self._counters.datagrams_dropped += 1
        waiting.append(item)
        senders[address] = senders.get(address, 0) + 1

    def get(self) -> Any:
        """Return the next datagram: peers' heartbeats first, then one from each other lane in turn."""
        if self._waiting[Lane.PEER]:
            return self._pop(Lane.PEER)
        for _ in range(len(Lane) - 1):
            lane, self._next = self._next, Lane(self._next % (len(Lane) - 1) + 1)
            if self._waiting[lane]:
                return self._pop(lane)
        return self._ends.pop()

    def _pop(self, lane: Lane) -> tuple[bytes, SocketAddress]:
        item = self._waiting[lane].popleft()
        senders, address = self._senders[lane], item[1]
        senders[address] -= 1
        if not senders[address]:
            del senders[address]
        return item

    def _admits(self, lane: Lane, host: str) -> bool:
        rates = self._rates[lane]
        rate = rates.get(host)
        if rate is None:
            if len(rates) >= SOURCES_MAX:
                rates.clear()
            rate = rates[host] = TokenBucket(SOURCE_PER_S)
        return rate.allows() and self._rate[lane].allows()
