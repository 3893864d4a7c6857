"""Cores wired together in virtual time: the small language of the scenario tests.

Everything is delivered in order after the same short delay, so that a test alone decides
what is lost, late or broken: `kill`, `restart`, `cut`, `flap`, `hold`, `pause`. After every
event two active replicas of one checkpoint are an error; `check` looks at the rest.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, assert_never

from tests.core.client import Client

from ckpt_protocol.framing import FrameDecoder, decode_datagram
from ckptd.core.events import (
    ClientConnected,
    ClientLost,
    ClientReceived,
    CloseClient,
    ClosePeer,
    Effect,
    Event,
    HeartbeatReceived,
    Leave,
    LeaveAsked,
    Log,
    PeerConnected,
    PeerLost,
    PeerReceived,
    PeerRefused,
    Persist,
    Quarantine,
    SendClient,
    SendHeartbeat,
    SendPeer,
    TimeCame,
)
from ckptd.core.invariants import broken_invariants, two_actives
from ckptd.core.node import Node
from ckptd.core.replica import Replica
from ckptd.core.settings import MILLISECOND_NS, Settings

DELAY_NS = 50_000
REFUSED_EVERY_NS = 5 * MILLISECOND_NS
WALL_OFFSET_NS = 10**18


@dataclass(slots=True)
class Host:
    """One node's process, and the disk that outlives it."""

    settings: Settings
    node: Node | None = None
    incarnation: int = 0
    record: bytes = b""
    silent: bool = False
    paused: bool = False
    queued: list[Event] = field(default_factory=list)


class Link:
    """A connection of two nodes; the decoders by the node that receives."""

    def __init__(self, one: str, other: str) -> None:
        self.decoders = {one: FrameDecoder(), other: FrameDecoder()}


class Cluster:
    """`quarantined`, `lines` and `left` are what the cores asked for, in order."""

    def __init__(self, node_ids: str, **settings: Any) -> None:
        self.now_ns = 0
        self.heap: list[tuple[int, int, Callable[[], None]]] = []
        self.counter = itertools.count(1)
        self.hosts = {
            node_id: Host(Settings(node_id, peers=tuple(n for n in node_ids if n != node_id), **settings))
            for node_id in node_ids
        }
        self.ends: dict[tuple[str, str], Link] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.holds: dict[tuple[str, str], list[tuple[Link, bytes]]] = {}
        self.sent: list[tuple[str, str, bytes]] = []
        self.clients: dict[int, Client] = {}
        self.quarantined: list[tuple[str, bytes]] = []
        self.lines: list[str] = []
        self.left: list[str] = []

    # -- who is what

    def node(self, node_id: str) -> Node:
        """A node that runs."""
        node = self.hosts[node_id].node
        assert node is not None, f"{node_id} does not run"
        return node

    def running(self) -> list[Node]:
        return [host.node for host in self.hosts.values() if host.node is not None]

    def serving(self, node_id: str) -> bool:
        """Whether a node runs and may serve now."""
        node = self.hosts[node_id].node
        return node is not None and node.serving(self.now_ns)

    def active(self, name: bytes = b"x") -> str | None:
        """The node that serves as a checkpoint's active replica now."""
        for node in self.running():
            entry = node.directory.find(name)
            if entry is not None and node.active_for(entry.creation_id, self.now_ns):
                return node.context.node_id
        return None

    def replica(self, node_id: str, name: bytes = b"x") -> Replica:
        """A node's copy of a checkpoint."""
        entry = self.node(node_id).directory.find(name)
        assert entry is not None, f"{node_id} knows no {name!r}"
        return self.node(node_id).replicas[entry.creation_id]

    def in_sync(self, node_id: str, name: bytes = b"x") -> list[str]:
        """The in-sync replicas' nodes, as this node's directory has them."""
        entry = self.node(node_id).directory.find(name)
        return entry.in_sync if entry is not None else []

    def contents(self, node_id: str, name: bytes = b"x") -> dict[bytes, bytes]:
        """What a node's copy holds, as staged."""
        return {key: section.content for key, section in self.replica(node_id, name).sections.visible()}

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
        """Let time pass until something is so; fails with the cores' log when it never is."""
        end_ns = self.now_ns + int(milliseconds * MILLISECOND_NS)
        while not done():
            assert self._step(end_ns), "it never came to pass:\n" + "\n".join(self.lines[-40:])

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

    # -- events and effects

    def deliver(self, node_id: str, event: Event) -> None:
        """Give a core one event now, and carry out what it asks for."""
        host = self.hosts[node_id]
        if host.node is None:
            return
        if host.paused:
            host.queued.append(event)
            return
        for effect in host.node.handle(event, self.now_ns):
            self._carry_out(node_id, effect)
        clocked = [(node, self.now_ns) for node in self.running()]
        for creation_id in host.node.replicas if host.node is not None else ():
            wrong = two_actives(creation_id, clocked)
            assert not wrong, wrong

    def _carry_out(self, node_id: str, effect: Effect) -> None:
        match effect:
            case SendPeer(peer, data):
                self._send(node_id, peer, data)
            case SendHeartbeat(peer, data):
                if (node_id, peer) not in self.cuts:
                    event = HeartbeatReceived(decode_datagram(data))
                    self.after(DELAY_NS, lambda: self.deliver(peer, event))
            case SendClient(link, data):
                self.after(DELAY_NS, lambda: self.clients[link].receive(link, data))
            case Persist(record):
                self.hosts[node_id].record = record
            case CloseClient(link, _):
                self.lines.append(f"{node_id} closes client link {link}")
                self.after(0, lambda: self.deliver(node_id, ClientLost(link)))
            case ClosePeer(peer, reason):
                self.lines.append(f"{node_id} closes its link to {peer}: {reason}")
                self.after(0, lambda: self.flap(node_id, peer))
            case Quarantine(_, content):
                self.quarantined.append((node_id, content))
            case Log(_, text):
                self.lines.append(f"{self.now_ns / 1e6:.3f} {node_id} {text}")
            case Leave():
                self.left.append(node_id)
                self.after(0, lambda: self.kill(node_id))
            case _:
                assert_never(effect)

    def _send(self, sender: str, peer: str, data: bytes) -> None:
        link = self.ends.get((sender, peer))
        if link is None:
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

    # -- what a test does to nodes

    def start(self, *node_ids: str) -> None:
        """Start nodes' processes, with what is on their disks, and link them with all that run."""
        for node_id in node_ids:
            host = self.hosts[node_id]
            host.incarnation += 1
            host.silent = host.paused = False
            host.queued = []
            host.node = Node(host.settings, host.incarnation, host.record, self.now_ns, WALL_OFFSET_NS)
        for node_id, peer in itertools.product(node_ids, self.hosts):
            self._lose(peer, node_id)  # What is left of a link to the start before this one.
        for node_id, peer in itertools.product(node_ids, self.hosts):
            self._connect(node_id, peer)

    def restart(self, node_id: str) -> None:
        """Start a killed node's process again: a new incarnation, with its disk."""
        assert self.hosts[node_id].node is None, f"{node_id} runs"
        self.start(node_id)

    def kill(self, node_id: str, silent: bool = False) -> None:
        """End a process at once. Its peers see the links end and dials refused; `silent`: they see nothing."""
        host = self.hosts[node_id]
        host.node = None
        host.silent = silent
        self.holds = {way: held for way, held in self.holds.items() if node_id not in way}
        for peer in self.hosts:
            link = self.ends.pop((node_id, peer), None)
            if not silent:
                self.after(DELAY_NS, partial(self._lose, peer, node_id, link))
                self.after(2 * DELAY_NS, partial(self._refuse, peer, node_id))
        for client in list(self.clients.values()):
            client.lose_node(node_id)

    def _refuse(self, peer: str, dead: str) -> None:
        """Dials are refused for as long as nothing listens there."""
        host = self.hosts[dead]
        if host.node is None and not host.silent and peer != dead:
            if (peer, dead) not in self.cuts:
                self.deliver(peer, PeerRefused(dead))
            self.after(REFUSED_EVERY_NS, lambda: self._refuse(peer, dead))

    def pause(self, node_id: str) -> None:
        """Stop a process as SIGSTOP does: links stay, what comes waits."""
        self.hosts[node_id].paused = True

    def resume(self, node_id: str) -> None:
        """Let it go on: it handles what waited, in order, with the clock of now."""
        host = self.hosts[node_id]
        host.paused = False
        queued, host.queued = host.queued, []
        for event in queued:
            self.deliver(node_id, event)

    def leave(self, node_id: str) -> None:
        """Ask a node to hand over and leave."""
        self.deliver(node_id, LeaveAsked())

    # -- what a test does to the network

    def _connect(self, one: str, other: str) -> None:
        hosts = self.hosts
        running = hosts[one].node is not None and hosts[other].node is not None and one != other
        if not running or (one, other) in self.ends or {(one, other), (other, one)} & self.cuts:
            return
        link = Link(one, other)
        self.ends[one, other] = self.ends[other, one] = link
        self.after(DELAY_NS, lambda: self._greet(link, one, other))
        self.after(DELAY_NS, lambda: self._greet(link, other, one))

    def _greet(self, link: Link, node_id: str, peer: str) -> None:
        if self.ends.get((node_id, peer)) is link:
            self.deliver(node_id, PeerConnected(peer, self.hosts[peer].incarnation))

    def _lose(self, node_id: str, peer: str, link: Link | None = None) -> None:
        """A node learns that its link to a peer (this one, or whichever there is) has ended."""
        held = self.ends.get((node_id, peer))
        if held is not None and link in (None, held):
            del self.ends[node_id, peer]
            self.deliver(node_id, PeerLost(peer))

    def flap(self, one: str, other: str, down_ms: float = 1) -> None:
        """A link breaks, loses what is under way on it, and is made anew."""
        for way in ((one, other), (other, one)):
            if way in self.holds:
                self.holds[way] = []
            self._lose(*way)
        self.after(int(down_ms * MILLISECOND_NS), lambda: self._connect(one, other))

    def cut(self, side: str, other_side: str, one_way: bool = False) -> None:
        """Nothing passes between the nodes of two sides any more, each a string of ids.

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
        """Keep what is sent on this way from arriving; heartbeats pass."""
        self.holds[sender, peer] = []

    def release(self, sender: str, peer: str) -> None:
        """Let what was held arrive, in order."""
        for link, data in self.holds.pop((sender, peer), []):
            self.after(DELAY_NS, partial(self._arrive, link, sender, peer, data))

    # -- clients

    def client(self, node_id: str) -> Client:
        """A new session, attached to a node."""
        client = Client(self, session=1000 + next(self.counter))
        client.attach(node_id)
        return client

    def connect_client(self, client: Client, node_id: str) -> int:
        """A new link of a client to a node."""
        link = next(self.counter)
        self.clients[link] = client
        self.after(DELAY_NS, lambda: self.deliver(node_id, ClientConnected(link)))
        return link

    def send_client(self, node_id: str, link: int, data: bytes) -> None:
        """Bytes from a client to its node."""
        event = ClientReceived(link, FrameDecoder().feed(data))
        self.after(DELAY_NS, lambda: self.deliver(node_id, event))

    def lose_client(self, node_id: str, link: int, process_dead: bool) -> None:
        """A client's link ends."""
        self.deliver(node_id, ClientLost(link, process_dead))

    # -- the end

    def settle(self) -> None:
        """Let time pass until every running node serves and every replica is in sync."""
        self.until(lambda: self._settled())

    def _settled(self) -> bool:
        nodes = self.running()
        for node in nodes:
            if not self.serving(node.context.node_id) or node.view is None:
                return False
            if len(node.view.members) != len(nodes):
                return False
            for entry in node.directory.checkpoints.values():
                if entry.active is not None and not all(entry.replicas.values()):
                    return False
                wanted = min(node.settings.replicas, len(nodes))
                if len(entry.replicas) < wanted and not entry.attributes.collocated:
                    return False
        return len({node.directory.seq for node in nodes}) == 1

    def check(self) -> None:
        """Let the cluster come to rest; then every invariant must hold."""
        self.settle()
        self.run(50)
        assert broken_invariants([(node, self.now_ns) for node in self.running()]) == []


def nodes(node_ids: str, **settings: Any) -> Cluster:
    """A cluster of these nodes that serves."""
    cluster = Cluster(node_ids, **settings)
    cluster.start(*node_ids)
    cluster.settle()
    return cluster


def three_nodes(**settings: Any) -> Cluster:
    """a, b and c under `majority`; a coordinates."""
    return nodes("abc", **settings)


def two_nodes(**settings: Any) -> Cluster:
    """a and b under `pair`; a coordinates."""
    return nodes("ab", **settings)
