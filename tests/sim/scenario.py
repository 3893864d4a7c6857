"""A small language for scenarios: a calm cluster in virtual time, clients, and faults by name."""

from collections.abc import Callable
from typing import Any

from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END
from ckpt_protocol.messages import Kind, Op
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.checkers.checkers import check_all, check_generated, check_not_done
from ckptd.sim.checkers.history import Call, Outcome
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import CallResult
from ckptd.sim.clients.worker import Worker
from ckptd.sim.cluster import Cluster
from ckptd.sim.convergence import violations
from ckptd.sim.draw.calm_options import calm_options
from ckptd.sim.simulation import converge, final_read

NAME = b"table"


class Scenario:
    """A cluster that serves, with one open checkpoint. `faults` has a method for each fault.

    `at`: the node whose client creates the checkpoint, and which is active then; by default the first one.
    """

    def __init__(
        self, nodes: int, flags: int, retention_ns: int = SA_TIME_END, at: str = "", **changes: Any
    ) -> None:
        self.cluster = Cluster(calm_options(nodes, **changes))
        self.world = self.cluster.world
        self.faults = self.cluster.faults
        self.checkpoint = SimCheckpoint(NAME, flags, retention_ns, False)
        self.workload = self.cluster.workload
        self.workload.checkpoints = [self.checkpoint]
        self.workload.resting = True
        self.cluster.start()
        self.run_ms(100)
        self.cluster.clients.start()
        converge(self.cluster, "the start")
        if at:
            self.attach_to(0, at)
        self.open(0)

    # -- time

    def run_ms(self, milliseconds: float) -> None:
        """Let time pass."""
        self.world.run_until(self.world.now_ns + int(milliseconds * MILLISECOND_NS))

    def until(self, done: Callable[[], bool], within_ms: float = 60_000) -> None:
        """Let time pass until a condition holds; fail with the time line if it does not hold in time."""
        until_ns = self.world.now_ns + int(within_ms * MILLISECOND_NS)
        assert self.world.run_until(until_ns, done), f"not within {within_ms:g} ms"

    def converge(self) -> None:
        """Let time pass until the cluster has converged."""
        converge(self.cluster, "convergence")

    # -- which node has which role

    @property
    def active(self) -> str | None:
        """Return the node that serves as active replica now."""
        creation_id = self.handle(0).creation_id
        serving = [
            host.node_id
            for host in self.cluster.hosts.values()
            if host.node is not None and host.node.active_for(creation_id, host.local_ns)
        ]
        assert len(serving) <= 1, serving
        return serving[0] if serving else None

    @property
    def coordinator(self) -> str:
        """Return the coordinator of the newest installed view."""
        views = [node.view for node in self.cluster.nodes() if node.view is not None]
        return max(views, key=lambda view: view.epoch).coordinator

    def node(self, node_id: str) -> Node:
        """Return the core of a node that runs."""
        node = self.cluster.hosts[node_id].node
        assert node is not None, f"{node_id} does not run"
        return node

    def others(self, node_id: str) -> list[str]:
        """Return all nodes but this one."""
        return list(self.cluster.network.peers_of(node_id))

    def replicas(self) -> list[str]:
        """Return the nodes with an in-sync replica, according to the newest view's directory."""
        nodes = [node for node in self.cluster.nodes() if node.view is not None]
        newest = max(nodes, key=lambda node: (node.directory.installed_epoch, node.directory.seq))
        return newest.directory.checkpoints[self.handle(0).creation_id].in_sync

    # -- clients

    def worker(self, client: int) -> Worker:
        return self.cluster.clients.workers[client]

    def handle(self, client: int, name: bytes = NAME) -> ClientHandle:
        return self.worker(client).handles[name]

    def attach_to(self, client: int, node_id: str) -> None:
        """Have a client use this node."""
        session = self.worker(client).client
        session._next_node = self.cluster.options.node_ids.index(node_id)
        session.leave_link()
        session.connect()
        self.until(lambda: session.attached)
        assert session.link is not None and session.link.node_id == node_id

    def open(self, client: int) -> None:
        """Open the checkpoint; an asynchronous collocated one is activated where the client is."""
        self.worker(client).open(self.checkpoint)
        self.until(lambda: NAME in self.worker(client).handles)
        if (
            self.checkpoint.flags & SA_CKPT_CHECKPOINT_COLLOCATED
            and not self.checkpoint.flags & SA_CKPT_WR_ALL_REPLICAS
        ):
            self.request(client, Kind.ACTIVE_SET, [True])
        self.converge()

    def request(self, client: int, kind: int, body: list[Any]) -> CallResult:
        """Make any request on the open handle, and wait until it has ended."""
        ends: list[CallResult] = []
        self.worker(client).request(kind, self.handle(client).number, body, ends.append)
        self.until(lambda: bool(ends))
        return ends[0]

    def begin_write(self, content: bytes, client: int = 0, section_id: bytes = b"k0") -> Call:
        """Begin a write and do not wait for its end."""
        return self.begin_update([[Op.PUT, section_id, content, None]], client)

    def begin_update(self, ops: list[Any], client: int = 0, name: bytes = NAME) -> Call:
        """Begin one atomic update."""
        handle = self.handle(client, name)
        self.worker(client).update(handle, ops)
        return self.workload.history.calls[handle.creation_id][-1]

    def begin_read(
        self, client: int = 0, section_ids: tuple[bytes, ...] = (b"k0",), name: bytes = NAME
    ) -> Call:
        """Begin a read."""
        handle = self.handle(client, name)
        self.worker(client).read(handle, list(section_ids))
        return self.workload.history.calls[handle.creation_id][-1]

    def end(self, call: Call) -> Call:
        """Let time pass until a call has ended."""
        self.until(lambda: call.outcome != Outcome.PENDING)
        return call

    def write(self, content: bytes, client: int = 0, section_id: bytes = b"k0") -> Call:
        """Write, and wait for the answer."""
        return self.end(self.begin_write(content, client, section_id))

    def read(self, client: int = 0) -> bytes | None:
        """Return the content of `k0`; None if there is no such section."""
        call = self.end(self.begin_read(client))
        return bytes(call.result[0]) if call.outcome == Outcome.OK else None

    # -- the end

    def finish(self) -> None:
        """Heal everything, converge, and run every checker."""
        self.faults.heal_all()
        self.converge()
        final_read(self.cluster)
        self.converge()
        assert violations(self.cluster) == []
        assert self.contradictions() == []

    def contradictions(self) -> list[str]:
        """Return what the checkers object to in the answers that clients got."""
        wrong: list[str] = []
        for creation_id, calls in self.workload.history.calls.items():
            subject = self.workload.subjects[creation_id]
            sync = bool(subject.flags & SA_CKPT_WR_ALL_REPLICAS)
            subject.losses_ns = self.cluster.oracles.replicas.losses_of(creation_id, sync)
            subject.fork_ns = self.cluster.oracles.replicas.fork_of(creation_id)
            wrong.extend(check_all(subject, calls).wrong)
            wrong.extend(check_generated(calls, subject.losses_ns))
            wrong.extend(check_not_done(calls, subject.losses_ns))
        return wrong

    def story(self) -> str:
        """Return the time line, for a test that fails."""
        return "\n".join(self.world.time_line)


def three_nodes(flags: int = SA_CKPT_WR_ALL_REPLICAS, **changes: Any) -> Scenario:
    """Return three nodes under `majority`, with one open checkpoint."""
    return Scenario(3, flags, **changes)


def two_nodes(flags: int = SA_CKPT_WR_ALL_REPLICAS, **changes: Any) -> Scenario:
    """Return two nodes under `pair`, with one open checkpoint."""
    return Scenario(2, flags, **changes)


def five_nodes(flags: int = SA_CKPT_WR_ALL_REPLICAS, **changes: Any) -> Scenario:
    """Return five nodes under `majority`, with one open checkpoint."""
    return Scenario(5, flags, **changes)


def away_from_active(scenario: Scenario, client: int = 0) -> str:
    """Attach a client to a node other than the active replica's; return the active replica's node."""
    active = scenario.active
    assert active is not None
    scenario.attach_to(client, scenario.others(active)[0])
    return active


def write_until_done(scenario: Scenario, content: bytes, within_ms: float) -> None:
    """Check that the next write is acknowledged within this virtual time."""
    began_ns = scenario.world.now_ns
    call = scenario.write(content)
    assert call.outcome == Outcome.OK
    assert scenario.world.now_ns - began_ns <= within_ms * MILLISECOND_NS
