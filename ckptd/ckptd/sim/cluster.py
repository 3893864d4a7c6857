"""A whole cluster in the world: hosts, network, clients, the watch, and the faults."""

from ckptd.core.events import Event
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.client_links import ClientLinks
from ckptd.sim.faults import Faults
from ckptd.sim.host import Host, MakeNode, new_clock
from ckptd.sim.network import Network
from ckptd.sim.options import Options
from ckptd.sim.trace import Trace
from ckptd.sim.watch import Watch
from ckptd.sim.workload import Workload
from ckptd.sim.world import World

LEFT_FOR_NS = 50 * MILLISECOND_NS
"""A node whose leave ends only after the faults did is started again after this."""


class Cluster:
    """Everything that one simulation is about. `settle` in `simulation` and the scenario tests drive it."""

    def __init__(self, options: Options, trace: Trace | None = None, make: MakeNode = Node) -> None:
        self.options = options
        self.world = World(options, trace or Trace())
        self.hosts: dict[str, Host] = {}
        for node_id in options.node_ids:
            clock = new_clock(self.world)
            self.hosts[node_id] = Host(self.world, options.settings(node_id), clock, self, make)
        self.network = Network(self.world, self.hosts)
        self.client_links = ClientLinks(self.world, self.hosts)
        self.watch = Watch(self.world, self.hosts)
        self.workload = Workload(self.world, self.client_links)
        self.workload.is_lost_inside = lambda creation_id: creation_id in self.watch.lost
        self.workload.history_lost = lambda: self.watch.history_lost
        self.faults = Faults(self)

    def start(self) -> None:
        """Start every node, within a few milliseconds of each other."""
        for node_id in self.hosts:
            self.world.after(
                self.world.between(0, 50 * MILLISECOND_NS),
                lambda node_id=node_id: self.faults.restart(node_id),  # type: ignore[misc]
            )

    def start_node(self, node_id: str) -> None:
        """Start one node's process."""
        host = self.hosts[node_id]
        host.start()
        self.world.say(f"{node_id} starts (incarnation {host.incarnation})")
        self.watch.process_started(node_id)
        self.network.process_started(node_id)

    def nodes(self) -> list[Node]:
        """The cores that run."""
        return [host.node for host in self.hosts.values() if host.node is not None]

    def break_client_link(self) -> None:
        """Reset one client's connection."""
        workers = [worker for worker in self.workload.workers if worker.client.link is not None]
        if workers:
            client = self.world.random.choice(workers).client
            self.world.say(f"fault: the connection of {client.name} is reset")
            assert client.link is not None
            self.client_links.reset(client.link)

    def crash_client(self) -> None:
        """One client's process dies."""
        workers = [worker for worker in self.workload.workers if not worker.client.over]
        if workers:
            worker = self.world.random.choice(workers)
            self.world.say(f"fault: {worker.client.name} crashes")
            worker.crash()

    # -- where the hosts' effects go (host.Outside)

    def send_peer(self, sender: str, node_id: str, data: bytes) -> None:
        self.network.send(sender, node_id, data)

    def send_heartbeat(self, sender: str, node_id: str, data: bytes) -> None:
        self.network.send_datagram(sender, node_id, data)

    def close_peer(self, sender: str, node_id: str) -> None:
        self.network.close(sender, node_id)

    def send_client(self, link: int, data: bytes) -> None:
        self.client_links.send_to_client(link, data)

    def close_client(self, link: int) -> None:
        self.client_links.close_by_node(link)

    def process_ended(self, node_id: str) -> None:
        self.world.say(f"{node_id} has left")
        self.hosts[node_id].stop()
        self.network.process_gone(node_id, orderly=True)
        self.client_links.process_gone(node_id, machine_too=False)
        if self.faults.healed:
            self.world.after(LEFT_FOR_NS, lambda: self.faults.restart(node_id))

    def handled(self, node_id: str, event: Event) -> None:
        self.watch.after_event(node_id)
