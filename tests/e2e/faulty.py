"""A cluster under load, what happens to it, and the verdict on all calls."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.load.load import Load, Shape
from bench.load.verdict import Verdict, judge
from bench.load.watch import Watch

from ckptd.sim.checkers.history import Outcome
from ckptd.testing import LocalCluster

SYNC = Shape()
TIMEOUT_SECONDS = 1.5
"""Of a call whose caller cannot go to another node."""

ENTRIES = 60
"""So many further acknowledged updates show that the service goes on."""


@contextmanager
def under_load(
    cluster: LocalCluster, name: str, shape: Shape = SYNC, failures: bool = False, losses: int = 0
) -> Iterator[Load]:
    """The block is what happens meanwhile. Then every call is judged, and what nodes said of themselves.

    `failures`: calls of clients that know all nodes may fail too. `losses` as in `judge`.
    """
    with Watch(cluster) as watch:
        with Load(cluster, name, shape, seed=len(name)) as load:
            load.wait_more(ENTRIES)
            yield load
            load.wait_more(ENTRIES)
        verdict = judge(load, losses)
    check(verdict)
    assert watch.wrong() == []
    if not failures:
        assert load.errors == []


@contextmanager
def pinned_load(cluster: LocalCluster, name: str, losses: int = 0) -> Iterator[Load]:
    """Callers that stay at their nodes, so that those of one side cannot go to the other."""
    shape = Shape(pinned=True, timeout=TIMEOUT_SECONDS)
    with Watch(cluster) as watch:
        with Load(cluster, name, shape) as load:
            load.wait_more(ENTRIES)
            yield load
            load.wait_more(ENTRIES)
        check(judge(load, losses))
    assert watch.wrong() == []


def acknowledging(cluster: LocalCluster, load: Load, since_ns: int, until_ns: int) -> set[str]:
    """The nodes by way of which updates that began and ended between the two were done."""
    nodes = dict(zip((caller.place.address for caller in load.bookkeepers), cluster.node_ids, strict=True))
    return {
        nodes[caller.place.address]
        for caller in [*load.bookkeepers, *load.callers]
        for call in list(caller.recorder.calls)
        if since_ns < call.invoked_ns and call.returned_ns < until_ns
        if call.outcome == Outcome.OK and call.operation.value == "update"
    }


def check(verdict: Verdict) -> None:
    """Nothing contradicts a promise, and the checkers came to a verdict."""
    assert verdict.wrong == []
    assert verdict.undecided == 0
    assert verdict.calls > 0 and verdict.acknowledged > 0


def coordinator(cluster: LocalCluster) -> str:
    """The node that is coordinator, as any that answers says."""
    return str(cluster.describe("cluster", cluster.running[0])["coordinator"])


def standby(cluster: LocalCluster, name: str) -> str:
    """A node with an in-sync replica that is not the active one; not the coordinator if it can be had."""
    cluster.wait_in_sync(name, 2)
    active, first = cluster.active_node(name), coordinator(cluster)
    others = [node for node in cluster.in_sync_nodes(name) if node != active]
    return next((node for node in others if node != first), others[0])


def node_of(cluster: LocalCluster, role: str, name: str) -> str:
    """The node that has a role for a checkpoint just now."""
    if role == "coordinator":
        return coordinator(cluster)
    active = cluster.active_node(name)
    assert active is not None
    return active if role == "active" else standby(cluster, name)


def alarms(cluster: LocalCluster, node: str) -> dict[str, str]:
    """The alarms that a node has, by name."""
    return dict(cluster.describe("cluster", node)["alarms"])


def wait_blocked(cluster: LocalCluster, node: str, reason: str) -> None:
    """Until a node serves nothing and says that it waits for this."""

    def blocked() -> bool:
        described = cluster.describe("cluster", node)
        return not described["serving"] and reason in described["waiting_for"]

    cluster.wait_until(blocked, f"node {node} waits for {reason!r}")


def wait_alone(cluster: LocalCluster, node: str) -> None:
    """Until a node serves in a view of its own."""

    def alone() -> bool:
        described = cluster.describe("cluster", node)
        return bool(described["serving"]) and [member[0] for member in described["members"]] == [node]

    cluster.wait_until(alone, f"node {node} goes on alone")


def wait_logged(cluster: LocalCluster, node: str, text: str) -> None:
    """Until a node has logged this."""
    cluster.wait_until(lambda: text in cluster.log_path(node).read_text(), f"node {node} logs {text!r}")


def quarantined(cluster: LocalCluster, node: str) -> bytes:
    """Everything that a node has in quarantine."""
    directory = cluster.state_path(node) / "quarantine"
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir())) if directory.is_dir() else b""
