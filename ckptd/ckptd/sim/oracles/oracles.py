"""All oracles together: after every event they check, cheaply, what the event's node may have broken.

They remember what the pure invariants cannot see at one moment. They may read the nodes' state, and they know
which processes are really dead.
"""

from ckptd.sim.oracles.leader_oracle import LeaderOracle
from ckptd.sim.oracles.leave_oracle import LeaveOracle
from ckptd.sim.oracles.memory_oracle import MemoryOracle
from ckptd.sim.oracles.replica_oracle import ReplicaOracle
from ckptd.sim.oracles.resize_oracle import ResizeOracle
from ckptd.sim.oracles.view_oracle import ViewListener, ViewOracle
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World


class Oracles:
    """Check one node after each of its events."""

    def __init__(self, world: World, hosts: dict[str, Host], listener: ViewListener) -> None:
        self.hosts = hosts
        self.views = ViewOracle(world, hosts, listener)
        self.leaves = LeaveOracle(world, hosts)
        self.memory = MemoryOracle()
        self.replicas = ReplicaOracle(world, hosts, self.views)
        self.leaders = LeaderOracle(world, self.views)
        self.resizes = ResizeOracle(self.views)

    def process_started(self, node_id: str) -> None:
        """Forget the node's predecessor: the new process is not compared with it."""
        self.views.process_started(node_id)
        self.memory.process_started(node_id)
        self.replicas.process_started(node_id)
        self.leaders.process_started(node_id)
        self.resizes.process_started(node_id)

    def after_event(self, node_id: str) -> None:
        """Check what one node may have changed. Raises: Violation."""
        host = self.hosts[node_id]
        node = host.node
        assert node is not None
        self.views.after_event(node_id, node)
        self.leaves.after_event(host, node)
        self.memory.after_event(host, node)
        self.replicas.after_event(host, node)
        self.leaders.after_event(host, node)
        self.resizes.after_event(host, node)
