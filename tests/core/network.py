"""Hosts, links and virtual time: what is in flight between cores, and what a test does to it.

Everything arrives in order after the same short delay. A link that breaks loses what is in flight on it.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ckpt_protocol.framing import FrameDecoder
from ckptd.core.events import Event, PeerConnected, PeerLost, PeerReceived, TimeCame
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, Settings
from ckptd.core.witness import Witness

DELAY_NS = 50_000


@dataclass(slots=True)
class Host:
    """One node's process, and the disk that outlives it."""

    settings: Settings
    node: Node | Witness | None = None
    incarnation: int = 0
    record: bytes = b""
    silent: bool = False
    paused: bool = False
    disk_full: bool = False
    queued: list[Event] = field(default_factory=list)
    turn_asked: bool = False
    unread: dict[int | str, list[Event]] = field(default_factory=dict)
    """Links that the core does not read, each with what has come on it since."""


class Link:
    """A connection of two nodes; the decoders by the node that receives."""

    def __init__(self, one: str, other: str) -> None:
        self.greeted: list[str] = []
        self.decoders = {one: FrameDecoder(), other: FrameDecoder()}


class Network:
    """`ends[x, y]` is the link to y as x has it; `sent` what went over links, in order."""

    def __init__(self, node_ids: str, witnesses: str = "", **settings: Any) -> None:
        self.now_ns = 0
        self.heap: list[tuple[int, int, Callable[[], None]]] = []
        self.counter = itertools.count(1)
        self.hosts = {
            node_id: Host(
                Settings(
                    node_id,
                    peers=tuple(n for n in node_ids if n != node_id),
                    witness=node_id in witnesses,
                    witnesses=tuple(n for n in witnesses if n != node_id),
                    **settings,
                )
            )
            for node_id in node_ids + witnesses
        }
        self.ends: dict[tuple[str, str], Link] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.holds: dict[tuple[str, str], list[tuple[Link, bytes]]] = {}
        self.sent: list[tuple[str, str, bytes]] = []
        self.lines: list[str] = []

    def deliver(self, node_id: str, event: Event) -> None:
        """Pass one event to a core now."""
        raise NotImplementedError

    def story(self) -> str:
        """What the cores logged."""
        return "\n".join(self.lines)

    # -- time

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (self.now_ns + delay_ns, next(self.counter), action))

    def run(self, milliseconds: float) -> None:
        """Let virtual time pass."""
        end_ns = self.now_ns + int(milliseconds * MILLISECOND_NS)
        while self._step(end_ns):
            pass
        self.now_ns = end_ns

    def until(self, done: Callable[[], Any], milliseconds: float = 15_000) -> None:
        """Let time pass until a condition holds; fail with the cores' log if it does not."""
        end_ns = self.now_ns + int(milliseconds * MILLISECOND_NS)
        while not done():
            assert self._step(end_ns), "it never came to pass"

    def _step(self, end_ns: int) -> bool:
        due = [
            (host.node.deadline_ns, node_id)
            for node_id, host in self.hosts.items()
            if host.node is not None and not host.paused
        ]
        deadline_ns, node_id = min(due, default=(end_ns + 1, ""))
        deadline_ns = max(deadline_ns, self.now_ns)
        at_ns = self.heap[0][0] if self.heap else end_ns + 1
        if min(at_ns, deadline_ns) > end_ns:
            return False
        if at_ns <= deadline_ns:
            self.now_ns, _, action = heapq.heappop(self.heap)
            action()
        else:
            self.now_ns = deadline_ns
            self.deliver(node_id, TimeCame())
        return True

    # -- links

    def _send(self, sender: str, peer: str, data: bytes) -> None:
        link = self.ends.get((sender, peer))
        if link is None or sender not in link.greeted:
            return
        self.sent.append((sender, peer, data))
        if (sender, peer) in self.holds:
            self.holds[sender, peer].append((link, data))
        else:
            self.after(DELAY_NS, lambda: self._arrive(link, sender, peer, data))

    def _arrive(self, link: Link, sender: str, peer: str, data: bytes) -> None:
        if self.ends.get((peer, sender)) is link:
            frames = link.decoders[peer].feed(data)
            self.deliver(peer, PeerReceived(sender, frames))

    def _connect(self, one: str, other: str) -> None:
        hosts = self.hosts
        running = hosts[one].node is not None and hosts[other].node is not None and one != other
        if not running or (one, other) in self.ends or {(one, other), (other, one)} & self.cuts:
            return
        link = Link(one, other)
        self.ends[one, other] = self.ends[other, one] = link
        self.after(DELAY_NS, partial(self._greet, link, one, other))
        self.after(DELAY_NS, partial(self._greet, link, other, one))

    def _greet(self, link: Link, node_id: str, peer: str) -> None:
        if self.ends.get((node_id, peer)) is link:
            link.greeted.append(node_id)
            self.deliver(node_id, PeerConnected(peer, self.hosts[peer].incarnation))

    def _lose(self, node_id: str, peer: str, link: Link | None = None) -> None:
        """Let a node notice that its link to a peer (this link, or the current one) has ended."""
        held = self.ends.get((node_id, peer))
        if held is not None and link in (None, held):
            del self.ends[node_id, peer]
            self.deliver(node_id, PeerLost(peer))

    def flap(self, one: str, other: str, down_ms: float = 1) -> None:
        """Break a link: it loses what is in flight on it, and is made again."""
        for way in ((one, other), (other, one)):
            if way in self.holds:
                self.holds[way] = []
            self._lose(*way)
        self.after(int(down_ms * MILLISECOND_NS), lambda: self._connect(one, other))

    def cut(self, side: str, other_side: str, one_way: bool = False) -> None:
        """Cut the nodes of two sides, each a string of ids, off from each other.

        `one_way`: heartbeats still pass from the second side to the first.
        """
        for one, other in itertools.product(side, other_side):
            self.cuts |= {(one, other)} if one_way else {(one, other), (other, one)}
            self._lose(one, other)
            self._lose(other, one)

    def heal(self) -> None:
        """End every cut, and make the links that are missing."""
        self.cuts.clear()
        for one, other in itertools.combinations(self.hosts, 2):
            self._connect(one, other)

    def hold(self, sender: str, peer: str) -> None:
        """Hold back what is sent in this direction; heartbeats pass."""
        self.holds[sender, peer] = []

    def release(self, sender: str, peer: str) -> None:
        """Let what was held back arrive, in order."""
        for link, data in self.holds.pop((sender, peer), []):
            self.after(DELAY_NS, partial(self._arrive, link, sender, peer, data))
