"""Cores wired together in virtual time: the small language of the scenario tests.

The hosts, links and disks are those of the simulator, in a world without chance, so only the test decides
what is lost, late or broken: `kill`, `restart`, `cut`, `flap`, `hold`, `pause`. After every event the cluster
checks that no checkpoint has two active replicas; `check` checks the other invariants.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.core.client import Answer, Call, Client
from tests.core.network import DELAY_NS, Network

from ckpt_protocol.framing import FrameDecoder
from ckptd.core.checks.invariants import broken_invariants, several_active
from ckptd.core.events import ClientConnected, Effect, Event, FenceEnded, LeaveAsked
from ckptd.core.hub import Transport
from ckptd.core.make_core import Core, make_core
from ckptd.core.node import Node
from ckptd.core.replication.replica import Replica
from ckptd.core.settings import MILLISECOND_NS, Settings
from ckptd.sim.draw.calm_options import calm_options
from ckptd.sim.trace import NoTrace
from ckptd.sim.world.client_links import ClientEnd, ClientLinks
from ckptd.sim.world.clock import WORLD_BEGAN_WALL_NS, Clock
from ckptd.sim.world.fake_etcd import FakeEtcd
from ckptd.sim.world.host import Host
from ckptd.sim.world.host_cluster import HostCluster
from ckptd.sim.world.world import FixedWorld

WALL_OFFSET_NS: Final = WORLD_BEGAN_WALL_NS
OPTIONS: Final = calm_options(1, delay_min_ns=DELAY_NS, delay_max_ns=DELAY_NS)
CLOCK: Final = Clock(offset_ns=0, skew_ppm=0, wall_error_ns=0)


class Cluster(HostCluster):
    """`lines`, `left`, `asked_back` and `fences` are what the cores asked for, in order.

    `may_contain`: the test makes the cores raise before they change anything. `speechless`: the last words of
    a node that raises do not reach its peers. `last_copies`: the nodes of `left` that reported that they take
    the last replica of something with them.
    """

    network: Network

    def __init__(self, node_ids: str, witnesses: str = "", **settings: Any) -> None:
        self.world = FixedWorld(OPTIONS, NoTrace())
        self.hosts = {
            node_id: Host(
                self.world,
                Settings(
                    node_id,
                    peers=tuple(n for n in node_ids if n != node_id),
                    witness=node_id in witnesses,
                    witnesses=tuple(n for n in witnesses if n != node_id),
                    **settings,
                ),
                CLOCK,
                self,
                self._make_core,
            )
            for node_id in node_ids + witnesses
        }
        self.network = network = Network(self.world, self.hosts, self.urls)
        self.cut, self.heal, self.flap = network.cut, network.heal, network.flap
        self.hold, self.release = network.hold, network.release
        self.sent, self.holds = network.sent, network.holds
        self.ends, self.cuts = network.ends, network.cuts
        self.client_links = ClientLinks(self.world, self.hosts)
        self.register = FakeEtcd(self.world, self.hosts)
        self.lines = self.world.time_line
        self.session_ids = itertools.count(1001)
        self.left: list[str] = []
        self.last_copies: list[str] = []
        self.asked_back: list[tuple[str, str]] = []
        self.fences: list[tuple[str, str]] = []
        self.may_have_two_actives = False
        self.speechless = False
        self.may_contain = False

    def urls(self, node_id: str) -> tuple[str, ...]:
        """Return the addresses for clients that a node announces."""
        return ()

    def _make_core(
        self, settings: Settings, incarnation: int, record: bytes, now_ns: int, wall_offset_ns: int
    ) -> Core:
        transport = Transport(self.urls(settings.node_id))
        return make_core(settings, incarnation, record, now_ns, wall_offset_ns, transport)

    # -- time

    @property
    def now_ns(self) -> int:
        """The current time, on every node's clock."""
        return self.world.now_ns

    def after(self, delay_ns: int, action: Callable[[], None]) -> None:
        """Do something later."""
        self.world.after(delay_ns, action)

    def run(self, milliseconds: float) -> None:
        """Let virtual time pass."""
        self.world.run_until(self.now_ns + int(milliseconds * MILLISECOND_NS))

    def until(self, done: Callable[[], Any], milliseconds: float = 15_000) -> None:
        """Let time pass until a condition holds; fail with the cores' log if it does not."""
        if not done():
            end_ns = self.now_ns + int(milliseconds * MILLISECOND_NS)
            came = self.world.run_until(end_ns, lambda: bool(done()))
            assert came, "it never came to pass"

    def story(self) -> str:
        """Return what the cores logged."""
        return "\n".join(self.lines)

    # -- which node has which role

    def node(self, node_id: str) -> Node:
        """Return the core of a node that runs."""
        node = self.hosts[node_id].node
        assert node is not None, f"{node_id} does not run"
        return node

    def running(self) -> list[Node]:
        """Return the data nodes that run."""
        return [host.node for host in self.hosts.values() if host.node is not None]

    @property
    def quarantined(self) -> list[tuple[str, bytes]]:
        """Return what is in quarantine, node by node."""
        return [(host.node_id, kept) for host in self.hosts.values() for kept in host.quarantined.values()]

    def unread(self, node_id: str) -> list[int | str]:
        """Return the links that a node does not read at present."""
        clients = [
            link.number
            for link in self.client_links.links.values()
            if link.node_id == node_id and link.held_back is not None
        ]
        return [*clients, *(peer for peer, reader in self.network.unread if reader == node_id)]

    def serving(self, node_id: str) -> bool:
        """Return True if a node runs and may serve now."""
        core = self.hosts[node_id].core
        return core is not None and core.serving(self.now_ns)

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
        self.hosts[node_id].deliver(event)

    def carry_out(self, node_id: str, effects: list[Effect]) -> None:
        """Carry out effects of a core, after a test passed the event to it directly."""
        host = self.hosts[node_id]
        for effect in effects:
            host.carry_out(effect)
        if host.running:
            host.schedule()

    # -- what the hosts ask, and where their effects go (host.Outside; the rest is in HostCluster)

    def clock_ahead(self) -> int:
        return 0

    def process_stopping(self, node_id: str) -> None:
        pass

    def ask_back(self, sender: str, node_id: str) -> None:
        self.asked_back.append((sender, node_id))

    def begin_again(self, node_id: str, incarnation: int) -> None:
        self.after(0, partial(self._begin_again, node_id, incarnation))

    def _begin_again(self, node_id: str, incarnation: int) -> None:
        self.kill(node_id)
        host = self.hosts[node_id]
        host.saved_incarnation = max(host.saved_incarnation, incarnation)
        self.restart(node_id)

    def fence(self, sender: str, node_id: str) -> None:
        self.fences.append((sender, node_id))

    def process_ended(self, node_id: str, last_copy: bool) -> None:
        self.left.append(node_id)
        self.last_copies += [node_id] if last_copy else []
        self.kill(node_id)

    def process_failed(self, node_id: str) -> None:
        self.hosts[node_id].disk.release(told=False)
        self._stop(node_id, last_words=not self.speechless)

    def core_raised(self, node_id: str, event: Event, error: Exception) -> None:
        pass

    def core_contained(self, node_id: str, effects: list[Effect]) -> None:
        pass

    def handled(self, node_id: str, event: Event) -> None:
        node = self.hosts[node_id].node
        if node is not None:
            clocked = [(each, self.now_ns) for each in self.running()]
            for creation_id in node.replicas:
                wrong = several_active(creation_id, clocked)
                assert self.may_have_two_actives or not wrong, wrong

    # -- what a test does to disks, the register and fences

    def hold_disk(self, node_id: str) -> None:
        """Hold back what the node writes to its disk from now on."""
        self.hosts[node_id].disk.held = True

    def release_disk(self, node_id: str) -> None:
        """Write what was held back, and hold back nothing more."""
        self.hosts[node_id].disk.release()

    def lose_disk(self, node_id: str) -> None:
        """Delete the state directory of a node that does not run."""
        assert not self.hosts[node_id].running
        self.hosts[node_id].disk.record = b""

    def cut_register(self, node_ids: str) -> None:
        """Cut nodes off from the register."""
        for node_id in node_ids:
            self.register.cut(node_id)

    def heal_register(self, node_ids: str) -> None:
        """Let nodes reach the register again."""
        for node_id in node_ids:
            self.register.heal(node_id)

    def end_fence(self, node_id: str, fenced: bool = True) -> None:
        """End the fence hook that was run last."""
        by, target = self.fences[-1]
        assert by == node_id
        self.deliver(node_id, FenceEnded(target, fenced, "exit code 0" if fenced else "exit code 1"))

    # -- what a test does to nodes

    def start(self, *node_ids: str) -> None:
        """Start nodes' processes, with what is on their disks, and link them with all that run."""
        for node_id in node_ids:
            self.hosts[node_id].start()
        self.network.started(*node_ids)

    def restart(self, node_id: str) -> None:
        """Start a killed node's process again: a new incarnation, with its disk."""
        assert not self.hosts[node_id].running, f"{node_id} runs"
        self.start(node_id)

    def kill(self, node_id: str, silent: bool = False) -> None:
        """End a process at once.

        The links of its peers end, and their connections are refused. `silent`: they notice nothing.
        """
        self._stop(node_id, silent)

    def _stop(self, node_id: str, silent: bool = False, last_words: bool = True) -> None:
        host = self.hosts[node_id]
        host.stop()
        host.powered = not silent
        self.network.ended(node_id, silent, last_words)
        self.client_links.process_gone(node_id, machine_too=silent)

    def pause(self, node_id: str) -> None:
        """Pause a process as SIGSTOP does: its links stay, and what arrives waits."""
        self.hosts[node_id].pause()

    def resume(self, node_id: str) -> None:
        """Let a paused process continue: it handles what waited, in order, at the current time."""
        self.hosts[node_id].resume()

    def leave(self, node_id: str) -> None:
        """Ask a node to hand over and leave."""
        self.deliver(node_id, LeaveAsked())

    # -- clients

    def client(self, node_id: str) -> Client:
        """Return a new session, attached to a node."""
        client = Client(self, next(self.session_ids))
        client.attach(node_id)
        return client

    def operate(self, node_id: str, *said: str) -> Answer:
        """Send an operator command to one node, and return its answer."""
        return Client(self, next(self.session_ids)).operate(node_id, list(said))

    def begin_operate(self, node_id: str, *said: str) -> Call:
        """Send an operator command to one node, without waiting for the answer."""
        return Client(self, next(self.session_ids)).begin_operate(node_id, list(said))

    def connect_client(self, client: ClientEnd, node_id: str) -> int:
        """Make a new link of a client to a node."""
        link = self.client_links.open(client, node_id)
        link.client_end_open = True
        self.deliver(node_id, ClientConnected(link.number))
        return link.number

    def send_to_node(self, link: int, data: bytes) -> None:
        """Send bytes from a client to its node."""
        if link in self.client_links.links:
            self.client_links.send_to_node(self.client_links.links[link], data)

    def lose_client(self, link: int, process_dead: bool) -> None:
        """End a client's link."""
        if link in self.client_links.links:
            self.client_links.close_by_client(self.client_links.links[link], process_dead)

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
