"""A whole cluster in the world: hosts, network, clients, oracles, and the faults."""

import traceback

from ckptd.core.events import Effect, Event
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.view import View
from ckptd.core.witness import Witness
from ckptd.sim.clients.clients import Clients
from ckptd.sim.clients.workload import Workload
from ckptd.sim.draw.options import Options
from ckptd.sim.faults.chaos import Chaos
from ckptd.sim.faults.faults import Faults
from ckptd.sim.faults.hostile_client import HostileClient
from ckptd.sim.faults.impostors import Impostors
from ckptd.sim.faults.operator import Operator
from ckptd.sim.oracles.oracles import Oracles
from ckptd.sim.trace import Trace
from ckptd.sim.world.client_links import ClientLinks
from ckptd.sim.world.fake_etcd import FakeEtcd
from ckptd.sim.world.fencing import Fencing
from ckptd.sim.world.host import Host, MakeCore, new_clock
from ckptd.sim.world.host_cluster import HostCluster
from ckptd.sim.world.network import Network
from ckptd.sim.world.world import Violation, World

TOGETHER_NS = 50 * MILLISECOND_NS
"""All nodes are first started within this time of each other, unless they are late."""

LATE_NS = (SECOND_NS // 2, 5 * SECOND_NS // 2)
"""How long after the beginning a late node is first started: at least, at most."""

LEFT_FOR_NS = 50 * MILLISECOND_NS
"""If a leave ends only after the faults have ended, the node is started again after this time."""

RESTARTED_AFTER_NS = 100 * MILLISECOND_NS
"""A supervisor restarts a process that failed after this time."""

BEGINS_AGAIN_NS = 20 * MILLISECOND_NS
"""A node that restarts on its own is back after about this time."""

SPREAD = (2**10, 2**20)
"""How far above the incarnation that a peer knows it starts: `runtime.host.state_directory` says why."""

FENCED_FOR_NS = 3 * SECOND_NS
"""A machine whose power a fence hook has cut is switched on again within this time."""


class Cluster(HostCluster):
    """Everything in one simulation. `converge` in `simulation` and the scenario tests drive it.

    `hosts` are those of the data nodes; `machines` are these and the hosts of the witnesses.
    """

    network: Network

    def __init__(self, options: Options, trace: Trace | None = None, make: MakeCore = Node) -> None:
        self.options = options
        self.world = World(options, trace or Trace())
        self.hosts = {node_id: self._host(node_id, make) for node_id in options.node_ids}
        self.machines = self.hosts | {
            node_id: self._host(node_id, Witness) for node_id in options.witness_ids
        }
        self.network = Network(self.world, self.machines)
        self.register = FakeEtcd(self.world, self.hosts)
        self.fencing = Fencing(self.world, self.hosts, self._cut_power)
        self.client_links = ClientLinks(self.world, self.hosts)
        self.hostile_client = HostileClient(self.world, self.hosts)
        self.impostors = Impostors(self.world, self.machines)
        self.oracles = Oracles(self.world, self.hosts, self)
        self.workload = Workload(self.world, self.client_links, self.oracles.views)
        if options.leaders:
            self.oracles.leaders.history = self.workload.leaderships
        self.clients = Clients(self.workload)
        self.faults = Faults(
            self.world,
            self.hosts,
            self.machines,
            self.network,
            self.client_links,
            self.register,
            self.oracles,
        )
        self.chaos = Chaos(self.faults, self.clients)
        self.operator = Operator(self.faults)

    def _host(self, node_id: str, make: MakeCore) -> Host:
        return Host(self.world, self.options.settings(node_id), new_clock(self.world), self, make)

    def start(self) -> None:
        """Start every node, within a few milliseconds of each other."""
        late = self._late()
        for node_id in self.machines:
            self.world.after(
                self.world.between(*LATE_NS) if node_id in late else self.world.between(0, TOGETHER_NS),
                lambda node_id=node_id: self.faults.restart(node_id),  # type: ignore[misc]
            )

    def _late(self) -> list[str]:
        """Choose the machines that are still missing when the others are started for the first time."""
        if not self.options.late:
            return []
        late = self.world.random.sample(list(self.machines), self.options.late)
        for node_id in late:
            self.machines[node_id].powered = False
        return late

    def make_reliable(self) -> None:
        """From now on the network, the register and the fence hooks lose and delay nothing by chance."""
        self.network.reliable = self.register.reliable = self.fencing.reliable = True

    def nodes(self) -> list[Node]:
        """The cores that run."""
        return [host.node for host in self.hosts.values() if host.node is not None]

    def deferred_replicas(self, node_id: str) -> dict[int, int]:
        """Return the checkpoints for which a node makes no replica now, because it has no memory for one."""
        node = self.hosts[node_id].node
        return node.requests.replicas.deferred_resyncs if node is not None else {}

    # -- what the oracle for views reports and asks (oracles.view_oracle.ViewListener)

    def on_decided(self, view: View) -> None:
        self.chaos.on_decided(view)

    def may_be_unlinked_since(self, name: bytes, since_ns: int) -> bool:
        """Return True if a client may have unlinked `name` since then; a hostile client may at any time."""
        of_workload = any(checkpoint.name == name for checkpoint in self.workload.checkpoints)
        return not of_workload or self.workload.open_close.unlinked_since(name, since_ns)

    # -- what the hosts ask, and where their effects go (host.Outside; the rest is in HostCluster)

    def clock_ahead(self) -> int:
        return self.impostors.clock_ahead()

    def process_stopping(self, node_id: str) -> None:
        if node_id in self.hosts:
            self.oracles.views.process_stopping(node_id)

    def ask_back(self, sender: str, node_id: str) -> None:
        self.network.ask_back(sender, node_id)

    def begin_again(self, node_id: str, incarnation: int) -> None:
        host = self.machines[node_id]
        self.world.say(f"{node_id} starts again")
        self._end_process(node_id)
        host.saved_incarnation = incarnation + self.world.between(*SPREAD)
        self.world.after(BEGINS_AGAIN_NS, lambda: self.faults.restart(node_id))

    def send_client(self, link: int, data: bytes) -> None:
        self.operator.on_answer(link, data)
        super().send_client(link, data)

    def fence(self, sender: str, node_id: str) -> None:
        self.fencing.fence(sender, node_id)

    def process_ended(self, node_id: str, last_copy: bool) -> None:
        self.world.say(f"{node_id} has left")
        self._end_process(node_id)
        self.faults.on_left(node_id)
        if self.faults.healed:
            self.world.after(LEFT_FOR_NS, lambda: self.faults.restart(node_id))

    def _end_process(self, node_id: str) -> None:
        self.machines[node_id].stop()
        self.network.process_gone(node_id, orderly=True)
        self.client_links.process_gone(node_id, machine_too=False)

    def process_failed(self, node_id: str) -> None:
        """Stop the process; a supervisor (systemd) starts it again."""
        self._end_process(node_id)
        self.faults.on_left(node_id)
        self.world.after(RESTARTED_AFTER_NS, lambda: self.faults.restart(node_id))

    def core_raised(self, node_id: str, event: Event, error: Exception) -> None:
        where = "".join(traceback.format_tb(error.__traceback__)[-3:])
        raise Violation(
            "the core raised", f"node {node_id} on {type(event).__name__}: {error!r}\n{where}"
        ) from error

    def core_contained(self, node_id: str, effects: list[Effect]) -> None:
        raise Violation("the core raised", f"node {node_id}: {effects}")

    def handled(self, node_id: str, event: Event) -> None:
        if node_id in self.hosts:
            self.oracles.after_event(node_id)

    def _cut_power(self, node_id: str) -> None:
        """The hook cuts a machine's power; later the machine is switched on again."""
        self.faults.power_off(node_id)
        away_ns = self.world.between(LEFT_FOR_NS, LEFT_FOR_NS if self.faults.healed else FENCED_FOR_NS)
        self.world.after(away_ns, lambda: self.faults.restart(node_id))
