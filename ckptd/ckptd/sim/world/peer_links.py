"""Links between nodes, and the datagrams beside them: what is under way, and how an end learns of the other.

* A link is a reliable FIFO with two ends; `None` in it is the end of the stream.
* A process that dies sends a part of what was under way and then the end of the stream.

Who connects with whom, when a connection fails, and what a cut does to a link is not decided here: see
`Network`, and the network of the core's tests.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator

from ckpt_protocol.framing import FrameDecoder, decode_datagram
from ckptd.core.events import HeartbeatReceived, Outranked, PeerLost, PeerReceived
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World

Way = tuple[str, str]
"""From one node to another."""


class Stream:
    """One direction of a link: what is under way, with its arrival time. None is the end of the stream."""

    __slots__ = ("decoder", "last_ns", "queue", "scheduled")

    def __init__(self) -> None:
        self.queue: deque[tuple[int, bytes | None]] = deque()
        self.last_ns = 0
        self.scheduled = False
        self.decoder = FrameDecoder()


class PeerLink:
    """A connection between the processes of two nodes. `streams` is keyed by the sending node."""

    __slots__ = ("streams",)

    def __init__(self, one: str, other: str) -> None:
        self.streams = {one: Stream(), other: Stream()}


class PeerLinks(ABC):
    """All links between nodes. A subclass connects them."""

    def __init__(self, world: World, hosts: dict[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.ends: dict[Way, PeerLink] = {}
        """`ends[x, y]` is the link to `y` as `x` has it."""

        self.cuts: dict[Way, int] = {}
        """How many cuts block each way."""

        self.unread: dict[Way, PeerLink] = {}
        """The links that their receiver does not read at present."""

        self.slowness: dict[Way, int] = {}
        """The factor by which each way's delay is multiplied."""

        self.extra_loss = 0.0
        self.reliable = False
        """While True, no datagram is lost or doubled."""

    def delay_ns(self, way: Way) -> int:
        """Draw how long the next message on this way takes."""
        options = self.world.options
        return self.world.between(options.delay_min_ns, options.delay_max_ns) * self.slowness.get(way, 1)

    def is_cut(self, way: Way) -> bool:
        """Return True if nothing passes on this way."""
        return self.cuts.get(way, 0) > 0

    def peers_of(self, node_id: str) -> Iterator[str]:
        """Return all other nodes."""
        return (peer for peer in self.hosts if peer != node_id)

    # -- datagrams

    def send_datagram(self, sender: str, node_id: str, data: bytes) -> None:
        """Send a heartbeat. It may be lost, doubled, late, or overtaken."""
        world, options = self.world, self.world.options
        way = (sender, node_id)
        loss, doubled = (0.0, 0.0) if self.reliable else (options.datagram_loss, options.datagram_doubled)
        if self.is_cut(way) or world.chance(loss + self.extra_loss):
            return
        frame = decode_datagram(data)
        times = 2 if world.chance(doubled) else 1
        for _ in range(times):
            world.after(self.delay_ns(way), lambda: self.hosts[node_id].deliver(HeartbeatReceived(frame)))

    # -- frames

    def send(self, sender: str, node_id: str, data: bytes) -> None:
        """Send whole frames on the link, if there is one."""
        link = self.ends.get((sender, node_id))
        if link is not None:
            self._push(link, (sender, node_id), data)

    def _push(self, link: PeerLink, way: Way, data: bytes | None) -> None:
        stream = link.streams[way[0]]
        stream.last_ns = max(stream.last_ns, self.world.now_ns + self.delay_ns(way))
        stream.queue.append((stream.last_ns, data))
        self._schedule(link, way)

    def _schedule(self, link: PeerLink, way: Way) -> None:
        stream = link.streams[way[0]]
        if stream.queue and not stream.scheduled:
            stream.scheduled = True
            self.world.at(stream.queue[0][0], lambda: self._arrive(link, way))

    def _arrive(self, link: PeerLink, way: Way) -> None:
        sender, node_id = way
        stream = link.streams[sender]
        stream.scheduled = False
        if self.holds_back(way):
            return
        if self.ends.get((node_id, sender)) is not link:
            stream.queue.clear()
            return
        arrived: list[bytes] = []
        ended = False
        while stream.queue and stream.queue[0][0] <= self.world.now_ns and not ended:
            data = stream.queue.popleft()[1]
            if data is None:
                ended = True
            else:
                arrived.append(data)
        if arrived:
            self._receive(link, way, b"".join(arrived))
        if ended:
            self.lose(node_id, sender, link)
        else:
            self._schedule(link, way)

    def _receive(self, link: PeerLink, way: Way, data: bytes) -> None:
        sender, node_id = way
        frames = link.streams[sender].decoder.feed(data)
        self.hosts[node_id].deliver(PeerReceived(sender, frames))

    def holds_back(self, way: Way) -> bool:
        """Return True if what is on a link has to wait: its receiver does not read it."""
        link = self.unread.get(way)
        return link is not None and self.ends.get((way[1], way[0])) is link

    def read(self, node_id: str, peer: str, reading: bool) -> None:
        """Stop reading what a peer sends to a node, or resume."""
        way, link = (peer, node_id), self.ends.get((node_id, peer))
        if not reading and link is not None:
            self.unread[way] = link
        elif self.unread.pop(way, None) is not None and link is not None:
            self._schedule(link, way)

    # -- ends of links

    def lose(self, node_id: str, peer: str, link: PeerLink | None) -> None:
        """A node learns that its link to the peer is gone."""
        if link is None or self.ends.get((node_id, peer)) is not link:
            return
        del self.ends[node_id, peer]
        self.hosts[node_id].deliver(PeerLost(peer))
        self.on_lost(node_id, peer)

    @abstractmethod
    def on_lost(self, node_id: str, peer: str) -> None:
        """A node has lost its link to a peer, and its core knows: its transport acts."""

    def close(self, node_id: str, peer: str) -> None:
        """A node ends its link to a peer."""
        link = self.ends.get((node_id, peer))
        if link is not None:
            self._push(link, (node_id, peer), None)
            self.lose(node_id, peer, link)

    def refuse(self, node_id: str, peer: str, incarnation: int) -> None:
        """A node ends its link to a peer and finally reports that it knows a later incarnation of it."""
        link = self.ends.get((node_id, peer))
        if link is not None:
            its_incarnation = self.hosts[peer].incarnation

            def report() -> None:
                if self.hosts[peer].incarnation == its_incarnation and not self.is_cut((node_id, peer)):
                    self.hosts[peer].deliver(Outranked(node_id, incarnation))

            self.world.after(self.delay_ns((node_id, peer)), report)
            self.close(node_id, peer)

    def process_gone(self, node_id: str, orderly: bool) -> None:
        """The process ended, its machine lives: peers see the end of the stream, perhaps less before it."""
        for peer in self.peers_of(node_id):
            link = self.ends.get((node_id, peer))
            if link is None:
                continue
            queue = link.streams[node_id].queue
            if not orderly:
                remaining = self.world.between(0, len(queue))
                while len(queue) > remaining:
                    queue.pop()
            self._push(link, (node_id, peer), None)
            del self.ends[node_id, peer]
