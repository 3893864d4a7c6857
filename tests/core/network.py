"""The network of the core's tests: links are made at once, and only a test loses, holds or breaks anything.

Everything arrives in order after the same short delay.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Final

from ckptd.core.events import PeerConnected, PeerRefused
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.peer_links import PeerLink, PeerLinks
from ckptd.sim.world.world import World

DELAY_NS: Final = 50_000
REFUSED_EVERY_NS: Final = 5 * MILLISECOND_NS


class Link(PeerLink):
    """A connection of two nodes. An end that its core does not know yet (`greeted`) sends nothing."""

    __slots__ = ("greeted",)

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one, other)
        self.greeted: list[str] = []


class Network(PeerLinks):
    """`sent` is what went over links, in order; `holds` is what was sent on each way that is held.

    `urls`: the client addresses that a node tells its peers.
    """

    def __init__(self, world: World, hosts: dict[str, Host], urls: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__(world, hosts)
        self.urls = urls
        self.sent: list[tuple[str, str, bytes]] = []
        self.holds: dict[tuple[str, str], list[tuple[PeerLink, bytes]]] = {}

    # -- what is in flight

    def send(self, sender: str, node_id: str, data: bytes) -> None:
        link = self.ends.get((sender, node_id))
        if not isinstance(link, Link) or sender not in link.greeted:
            return
        self.sent.append((sender, node_id, data))
        if (sender, node_id) in self.holds:
            self.holds[sender, node_id].append((link, data))
        else:
            super().send(sender, node_id, data)

    def hold(self, sender: str, peer: str) -> None:
        """Hold back what is sent in this direction; heartbeats pass."""
        self.holds[sender, peer] = []

    def release(self, sender: str, peer: str) -> None:
        """Let what was held back arrive, in order."""
        for link, data in self.holds.pop((sender, peer), []):
            self._push(link, (sender, peer), data)

    def arrive(self, link: PeerLink, sender: str, peer: str, data: bytes) -> None:
        """Let one message that was held back arrive now."""
        if self.ends.get((peer, sender)) is link:
            self._receive(link, (sender, peer), data)

    # -- links

    def connect(self, one: str, other: str) -> None:
        """Link two nodes that run, unless they have a link or are cut off from each other."""
        running = self.hosts[one].running and self.hosts[other].running and one != other
        cut = self.is_cut((one, other)) or self.is_cut((other, one))
        if not running or cut or (one, other) in self.ends:
            return
        link = Link(one, other)
        self.ends[one, other] = self.ends[other, one] = link
        self.world.after(DELAY_NS, partial(self._greet, link, one, other))
        self.world.after(DELAY_NS, partial(self._greet, link, other, one))

    def _greet(self, link: Link, node_id: str, peer: str) -> None:
        if self.ends.get((node_id, peer)) is link:
            link.greeted.append(node_id)
            event = PeerConnected(peer, self.hosts[peer].incarnation, self.urls(peer))
            self.hosts[node_id].deliver(event)

    def on_lost(self, node_id: str, peer: str) -> None:
        """Do nothing: nobody dials, and the test decides when there is a link again."""

    def lose_any(self, node_id: str, peer: str) -> None:
        """Let a node lose its link to a peer, if it has one."""
        self.lose(node_id, peer, self.ends.get((node_id, peer)))

    def close(self, node_id: str, peer: str) -> None:
        self.world.after(0, partial(self.flap, node_id, peer))

    def flap(self, one: str, other: str, down_ms: float = 1) -> None:
        """Break a link: it loses what is in flight on it, and is made again."""
        for way in ((one, other), (other, one)):
            if way in self.holds:
                self.holds[way] = []
            self.lose_any(*way)
        self.world.after(int(down_ms * MILLISECOND_NS), partial(self.connect, one, other))

    def cut(self, side: str, other_side: str, one_way: bool = False) -> None:
        """Cut the nodes of two sides, each a string of ids, off from each other.

        `one_way`: heartbeats still pass from the second side to the first.
        """
        for one, other in itertools.product(side, other_side):
            for way in ((one, other),) if one_way else ((one, other), (other, one)):
                self.cuts[way] = 1
            self.lose_any(one, other)
            self.lose_any(other, one)

    def heal(self) -> None:
        """End every cut, and make the links that are missing."""
        self.cuts.clear()
        for one, other in itertools.combinations(self.hosts, 2):
            self.connect(one, other)

    # -- processes

    def started(self, *node_ids: str) -> None:
        """Link processes that have started; what is left of links to their previous incarnations is lost."""
        for node_id, peer in itertools.product(node_ids, self.hosts):
            self.lose_any(peer, node_id)
        for node_id, peer in itertools.product(node_ids, self.hosts):
            self.connect(node_id, peer)

    def ended(self, node_id: str, silent: bool, last_words: bool) -> None:
        """Show its peers that a process has ended: their links end, and their connections are refused.

        `silent`: they notice nothing. `last_words`: what the process had sent arrives first.
        """
        for way in [way for way in self.holds if node_id in way]:
            del self.holds[way]
        if silent:
            for peer in self.peers_of(node_id):
                self.ends.pop((node_id, peer), None)
            return
        self.process_gone(node_id, orderly=last_words)
        for peer in self.peers_of(node_id):
            self.world.after(2 * DELAY_NS, partial(self._refuse_dials, peer, node_id))

    def _refuse_dials(self, node_id: str, peer: str) -> None:
        """Refuse a node's connections for as long as the peer's process does not run."""
        host = self.hosts[peer]
        if not host.running and host.powered:
            if not self.is_cut((node_id, peer)):
                self.hosts[node_id].deliver(PeerRefused(peer))
            self.world.after(REFUSED_EVERY_NS, partial(self._refuse_dials, node_id, peer))
