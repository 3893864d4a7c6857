"""Cores connected in virtual time: the small language of the scenario tests.

Everything is delivered in order after the same short delay, so only the test decides what is lost, late or
broken: `kill`, `restart`, `cut`, `flap`, `hold`, `pause`. After every event the cluster checks that no
checkpoint has two active replicas; `check` checks the other invariants.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

from tests.core.client import Answer, Call, Client
from tests.core.network import DELAY_NS, Network

from ckpt_protocol.framing import FrameDecoder, decode_datagram
from ckpt_protocol.limits import UNATTACHED_BODY_BYTES_MAX
from ckptd.core.checks.invariants import broken_invariants, several_active
from ckptd.core.events import (
    AskBack,
    AskRegister,
    BeginAgain,
    ClientConnected,
    ClientLost,
    ClientReceived,
    CloseClient,
    ClosePeer,
    Effect,
    Event,
    Fence,
    FenceEnded,
    HeartbeatReceived,
    Leave,
    LeaveAsked,
    Log,
    Outranked,
    PeerConnected,
    PeerReceived,
    PeerRefused,
    Persist,
    Persisted,
    PersistFailed,
    Quarantine,
    ReadOn,
    RefusePeer,
    RegisterAnswered,
    RegisterFailed,
    SendClient,
    SendHeartbeat,
    SendPeer,
    StopReading,
    TakeLarge,
    TurnCame,
)
from ckptd.core.hub import NO_TRANSPORT, Transport
from ckptd.core.node import Node
from ckptd.core.replication.replica import Replica
from ckptd.core.settings import MILLISECOND_NS
from ckptd.core.witness import Witness
from ckptd.sim.world.host import PlantedBugError

DISK_NS = 50_000
TURN_NS = 10_000
"""A core that has work left continues after this time; what arrives before that is handled first."""

SMALL = (UNATTACHED_BODY_BYTES_MAX,) * 256
"""By kind of frame: the largest body that is accepted on a client's link until its session is attached."""

REFUSED_EVERY_NS = 5 * MILLISECOND_NS
WALL_OFFSET_NS = 10**18


class Cluster(Network):
    """`quarantined`, `lines`, `left` and `asked_back` are what the cores asked for, in order.

    `may_contain`: the test makes the cores raise before they change anything. `speechless`: the last words of
    a node that raises do not reach its peers. `last_copies`: the nodes of `left` that reported that they take
    the last replica of something with them.
    """

    def __init__(self, node_ids: str, **settings: Any) -> None:
        super().__init__(node_ids, **settings)
        self.clients: dict[int, Client] = {}
        self.large: set[int] = set()
        """Links of clients on which large frames are accepted."""
        self.quarantined: list[tuple[str, bytes]] = []
        self.left: list[str] = []
        self.last_copies: list[str] = []
        self.asked_back: list[tuple[str, str]] = []
        self.fences: list[tuple[str, str]] = []
        self.may_have_two_actives = False
        self.speechless = False
        self.may_contain = False
        self.register: tuple[int, bytes | None] = (0, None)
        self.register_cut: set[str] = set()
        self.register_loses_answers = False
        self.slow_disks: dict[str, list[Callable[[], None]]] = {}

    # -- which node has which role

    def node(self, node_id: str) -> Node:
        """Return the core of a node that runs."""
        node = self.hosts[node_id].node
        assert isinstance(node, Node), f"{node_id} does not run"
        return node

    def running(self) -> list[Node]:
        """Return the data nodes that run."""
        return [host.node for host in self.hosts.values() if isinstance(host.node, Node)]

    def serving(self, node_id: str) -> bool:
        """Return True if a node runs and may serve now."""
        node = self.hosts[node_id].node
        return node is not None and node.serving(self.now_ns)

    def active(self, name: bytes = b"x") -> str | None:
        """Return the node that serves as a checkpoint's active replica now."""
        for node in self.running():
            entry = node.directory.find(name)
            if entry is not None and node.active_for(entry.creation_id, self.now_ns):
                return node.context.node_id
        return None

    def replica(self, node_id: str, name: bytes = b"x") -> Replica:
        """Return a node's replica of a checkpoint."""
        entry = self.node(node_id).directory.find(name)
        assert entry is not None, f"{node_id} knows no {name!r}"
        return self.node(node_id).replicas[entry.creation_id]

    def in_sync(self, node_id: str, name: bytes = b"x") -> list[str]:
        """Return the nodes of the in-sync replicas, according to this node's directory."""
        entry = self.node(node_id).directory.find(name)
        return entry.in_sync if entry is not None else []

    def contents(self, node_id: str, name: bytes = b"x") -> dict[bytes, bytes]:
        """Return what a node's replica has staged."""
        return {key: section.content for key, section in self.replica(node_id, name).sections.items_sorted()}

    def kinds_sent(self, sender: str, peer: str, creation_id: int) -> list[int]:
        """Return the kinds of all frames about a checkpoint that went from one node to another."""
        return [
            frame.kind
            for one, other, data in self.sent
            if (one, other) == (sender, peer)
            for frame in FrameDecoder().feed(data)
            if frame.a == creation_id
        ]

    # -- events and effects

    def deliver(self, node_id: str, event: Event) -> None:
        """Pass one event to a core now, and carry out its effects."""
        host = self.hosts[node_id]
        if host.node is None:
            return
        if host.paused:
            host.queued.append(event)
            return
        if isinstance(event, PeerConnected):
            host.unread.pop(event.node_id, None)  # It is another connection, so it is read.
        if isinstance(event, ClientReceived) and event.link in host.unread:
            host.unread[event.link].append(event)
            return
        if isinstance(event, PeerReceived) and event.node_id in host.unread:
            host.unread[event.node_id].append(event)
            return
        try:
            effects = host.node.handle(event, self.now_ns)
        except PlantedBugError:
            self._stop_by_fault(node_id)
            return
        for effect in effects:
            self.carry_out(node_id, effect)
        self.look_at_turns(node_id)
        clocked = [(node, self.now_ns) for node in self.running()]
        for creation_id in host.node.replicas if isinstance(host.node, Node) else ():
            wrong = several_active(creation_id, clocked)
            assert self.may_have_two_actives or not wrong, wrong

    def look_at_turns(self, node_id: str) -> None:
        """Schedule the next turn of a core that has work left, a little later."""
        host = self.hosts[node_id]
        if host.node is not None and host.node.turn_due and not host.turn_asked:
            host.turn_asked = True
            self.after(TURN_NS, partial(self._take_turn, node_id, host.incarnation))

    def _take_turn(self, node_id: str, incarnation: int) -> None:
        host = self.hosts[node_id]
        if host.incarnation == incarnation:
            host.turn_asked = False
            self.deliver(node_id, TurnCame())

    def _read_on(self, node_id: str, link: int | str) -> None:
        for event in self.hosts[node_id].unread.pop(link, []):
            self.deliver(node_id, event)

    def _stop_by_fault(self, node_id: str) -> None:
        """Carry out the last words of a core that raised, and end it, as the daemon does."""
        host = self.hosts[node_id]
        assert host.node is not None
        for effect in host.node.last_words(self.now_ns):
            match effect:
                case Persist(record):
                    host.record = host.record if host.disk_full else record
                case SendPeer() if self.speechless:
                    pass
                case _:
                    self.carry_out(node_id, effect)
        host.node = None
        self.after(2 * DELAY_NS, lambda: self.kill(node_id))

    def carry_out(self, node_id: str, effect: Effect) -> None:
        match effect:
            case SendPeer(peer, data):
                self._send(node_id, peer, data)
            case SendHeartbeat(peer, data):
                if (node_id, peer) not in self.cuts:
                    event = HeartbeatReceived(decode_datagram(data))
                    self.after(DELAY_NS, lambda: self.deliver(peer, event))
            case RefusePeer(peer, incarnation):
                self._refuse_peer(node_id, peer, incarnation)
            case BeginAgain(incarnation):
                self.after(0, lambda: self._begin_again(node_id, incarnation))
            case AskBack(peer):
                self.asked_back.append((node_id, peer))
            case SendClient(link, data):
                self.after(DELAY_NS, lambda: self.clients[link].receive(link, data))
            case Persist(record, number):
                self._persist(node_id, record, number)
            case Fence(peer):
                self.fences.append((node_id, peer))
            case AskRegister():
                self.after(DELAY_NS, partial(self._ask_register, node_id, effect))
            case TakeLarge(link):
                self.large.add(link)
            case CloseClient(link, _):
                self.lines.append(f"{node_id} closes client link {link}")
                self.after(0, lambda: self.deliver(node_id, ClientLost(link)))
            case ClosePeer(peer, reason):
                self.lines.append(f"{node_id} closes its link to {peer}: {reason}")
                self.after(0, lambda: self.flap(node_id, peer))
            case StopReading(unread):
                self.hosts[node_id].unread[unread] = []
            case ReadOn(unread):
                self.after(0, partial(self._read_on, node_id, unread))
            case Quarantine(_, content):
                self.quarantined.append((node_id, content))
            case Log(_, text):
                self.lines.append(f"{self.now_ns / 1e6:.3f} {node_id} {text}")
            case Leave(last_copy):
                self.left.append(node_id)
                self.last_copies += [node_id] if last_copy else []
                self.after(2 * DELAY_NS, lambda: self.kill(node_id))
            case _:
                assert_never(effect)

    def _refuse_peer(self, node_id: str, peer: str, incarnation: int) -> None:
        """End the link, and send the peer the reason."""
        self.after(DELAY_NS, lambda: self.deliver(peer, Outranked(node_id, incarnation)))
        self.after(2 * DELAY_NS, lambda: self.flap(node_id, peer))

    def _begin_again(self, node_id: str, incarnation: int) -> None:
        self.kill(node_id)
        self.hosts[node_id].incarnation = incarnation
        self.restart(node_id)

    def _persist(self, node_id: str, record: bytes, number: int) -> None:
        host = self.hosts[node_id]
        incarnation = host.incarnation

        def written() -> None:
            if host.node is None or host.incarnation != incarnation:
                return
            if host.disk_full:
                self.deliver(node_id, PersistFailed(number, "no space left"))
            else:
                host.record = record
                self.deliver(node_id, Persisted(number))

        if node_id in self.slow_disks:
            self.slow_disks[node_id].append(written)
        else:
            self.after(DISK_NS, written)

    def hold_disk(self, node_id: str) -> None:
        """Hold back what the node writes to its disk from now on."""
        self.slow_disks[node_id] = []

    def release_disk(self, node_id: str) -> None:
        """Write the newest record to the disk; a record that another one follows is not written."""
        self.slow_disks.pop(node_id)[-1]()

    def _ask_register(self, node_id: str, asked: AskRegister) -> None:
        """Answer as the external register: one value, swapped by its revision."""
        if node_id in self.register_cut:
            self.deliver(node_id, RegisterFailed(asked.number, "no route"))
            return
        revision, _ = self.register
        swapped = asked.value is not None and asked.revision == revision
        if swapped:
            self.register = (revision + 1, asked.value)
        if swapped and self.register_loses_answers:
            self.after(
                20 * MILLISECOND_NS, lambda: self.deliver(node_id, RegisterFailed(asked.number, "no answer"))
            )
        else:
            answer = RegisterAnswered(asked.number, swapped, *self.register)
            self.after(DELAY_NS, lambda: self.deliver(node_id, answer))

    def fence(self, node_id: str, fenced: bool = True) -> None:
        """End the fence hook that was run last."""
        by, target = self.fences[-1]
        assert by == node_id
        self.deliver(node_id, FenceEnded(target, fenced, "exit code 0" if fenced else "exit code 1"))

    def operate(self, node_id: str, *said: str) -> Answer:
        """Send an operator command to one node, and return its answer."""
        return Client(self, session=1000 + next(self.counter)).operate(node_id, list(said))

    def begin_operate(self, node_id: str, *said: str) -> Call:
        """Send an operator command to one node, without waiting for the answer."""
        return Client(self, session=1000 + next(self.counter)).begin_operate(node_id, list(said))

    def lose_disk(self, node_id: str) -> None:
        """Delete the state directory of a node that does not run."""
        assert self.hosts[node_id].node is None
        self.hosts[node_id].record = b""

    def transport_of(self, node_id: str) -> Transport:
        """What a node's core is made with."""
        return NO_TRANSPORT

    # -- what a test does to nodes

    def start(self, *node_ids: str) -> None:
        """Start nodes' processes, with what is on their disks, and link them with all that run."""
        for node_id in node_ids:
            host = self.hosts[node_id]
            host.incarnation += 1
            host.silent = host.paused = False
            host.queued = []
            host.turn_asked = False
            host.unread = {}
            make = Witness if host.settings.witness else Node
            start = host.settings, host.incarnation, host.record, self.now_ns, WALL_OFFSET_NS
            host.node = make(*start, self.transport_of(node_id))
        for node_id, peer in itertools.product(node_ids, self.hosts):
            self._lose(peer, node_id)  # What is left of a link to the previous incarnation.
        for node_id, peer in itertools.product(node_ids, self.hosts):
            self._connect(node_id, peer)

    def restart(self, node_id: str) -> None:
        """Start a killed node's process again: a new incarnation, with its disk."""
        assert self.hosts[node_id].node is None, f"{node_id} runs"
        self.start(node_id)

    def kill(self, node_id: str, silent: bool = False) -> None:
        """End a process at once.

        The links of its peers end, and their connections are refused. `silent`: they notice nothing.
        """
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
        """Refuse connections as long as nothing listens there."""
        host = self.hosts[dead]
        if host.node is None and not host.silent and peer != dead:
            if (peer, dead) not in self.cuts:
                self.deliver(peer, PeerRefused(dead))
            self.after(REFUSED_EVERY_NS, lambda: self._refuse(peer, dead))

    def pause(self, node_id: str) -> None:
        """Pause a process as SIGSTOP does: its links stay, and what arrives waits."""
        self.hosts[node_id].paused = True

    def resume(self, node_id: str) -> None:
        """Let a paused process continue: it handles what waited, in order, at the current time."""
        host = self.hosts[node_id]
        host.paused = False
        queued, host.queued = host.queued, []
        for event in queued:
            self.deliver(node_id, event)

    def leave(self, node_id: str) -> None:
        """Ask a node to hand over and leave."""
        self.deliver(node_id, LeaveAsked())

    # -- clients

    def client(self, node_id: str) -> Client:
        """Return a new session, attached to a node."""
        client = Client(self, session=1000 + next(self.counter))
        client.attach(node_id)
        return client

    def connect_client(self, client: Client, node_id: str) -> int:
        """Make a new link of a client to a node."""
        link = next(self.counter)
        self.clients[link] = client
        self.after(DELAY_NS, lambda: self.deliver(node_id, ClientConnected(link)))
        return link

    def send_client(self, node_id: str, link: int, data: bytes) -> None:
        """Send bytes from a client to its node."""
        decoder = FrameDecoder() if link in self.large else FrameDecoder(SMALL)
        event = ClientReceived(link, decoder.feed(data))
        self.after(DELAY_NS, lambda: self.deliver(node_id, event))

    def lose_client(self, node_id: str, link: int, process_dead: bool) -> None:
        """End a client's link."""
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
        """Let the cluster settle, then check every invariant."""
        self.settle()
        self.run(50)
        raised = [line for line in self.lines if "nothing was changed" in line]
        assert self.may_contain or not raised, raised
        assert broken_invariants([(node, self.now_ns) for node in self.running()]) == []


def nodes(node_ids: str, **settings: Any) -> Cluster:
    """Return a cluster of these nodes that serves."""
    cluster = Cluster(node_ids, **settings)
    cluster.start(*cluster.hosts)
    cluster.settle()
    return cluster


def three_nodes(**settings: Any) -> Cluster:
    """Return a cluster of a, b and c under `majority`; a is the coordinator."""
    return nodes("abc", **settings)


def two_nodes(**settings: Any) -> Cluster:
    """Return a cluster of a and b under `pair`; a is the coordinator."""
    return nodes("ab", **settings)
