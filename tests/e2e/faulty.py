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
"""The time-out of a call whose caller cannot go to another node."""

ENTRIES = 60
"""This many further acknowledged updates show that the service continues."""


@contextmanager
def under_load(
    cluster: LocalCluster, name: str, shape: Shape = SYNC, failures: bool = False, losses: int = 0
) -> Iterator[Load]:
    """Run the block while clients make calls; then check every call, and what the nodes reported.

    `failures`: calls of clients that know all nodes may fail, too. `losses` as in `judge`.
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
    """Return callers that stay at their nodes, so that those of one side cannot go to the other."""
    shape = Shape(pinned=True, timeout=TIMEOUT_SECONDS)
    with Watch(cluster) as watch:
        with Load(cluster, name, shape) as load:
            load.wait_more(ENTRIES)
            yield load
            load.wait_more(ENTRIES)
        check(judge(load, losses))
    assert watch.wrong() == []


def acknowledging(cluster: LocalCluster, load: Load, since_ns: int, until_ns: int) -> set[str]:
    """Return the nodes through which updates were done that began and ended between the two times."""
    nodes = dict(zip((caller.place.address for caller in load.bookkeepers), cluster.node_ids, strict=True))
    return {
        nodes[caller.place.address]
        for caller in [*load.bookkeepers, *load.callers]
        for call in list(caller.recorder.calls)
        if since_ns < call.invoked_ns and call.returned_ns < until_ns
        if call.outcome == Outcome.OK and call.operation.value == "update"
    }


def check(verdict: Verdict) -> None:
    """Check that nothing contradicts a promise, and that the checkers came to a verdict."""
    assert verdict.wrong == []
    assert verdict.undecided == 0
    assert verdict.calls > 0 and verdict.acknowledged > 0


def coordinator(cluster: LocalCluster) -> str:
    """Return the coordinator, according to any node that answers."""
    return cluster.describe("cluster", cluster.running[0]).coordinator


def standby(cluster: LocalCluster, name: str) -> str:
    """Return a node with an in-sync replica that is not active; if possible not the coordinator."""
    cluster.wait_in_sync(name, 2)
    active, first = cluster.active_node(name), coordinator(cluster)
    others = [node for node in cluster.in_sync_nodes(name) if node != active]
    return next((node for node in others if node != first), others[0])


def node_of(cluster: LocalCluster, role: str, name: str) -> str:
    """Return the node that has a role for a checkpoint at the moment."""
    if role == "coordinator":
        return coordinator(cluster)
    active = cluster.active_node(name)
    assert active is not None
    return active if role == "active" else standby(cluster, name)


def alarms(cluster: LocalCluster, node: str) -> dict[str, str]:
    """Return a node's alarms, by name."""
    return dict(cluster.describe("cluster", node).alarms)


def wait_blocked(cluster: LocalCluster, node: str, reason: str) -> None:
    """Wait until a node serves nothing and reports that it waits for this."""

    def blocked() -> bool:
        described = cluster.describe("cluster", node)
        return not described.serving and reason in described.waiting_for

    cluster.wait_until(blocked, f"node {node} waits for {reason!r}")


def wait_alone(cluster: LocalCluster, node: str) -> None:
    """Wait until a node serves in a view of which it is the only member."""

    def alone() -> bool:
        described = cluster.describe("cluster", node)
        return described.serving and [member.node_id for member in described.members] == [node]

    cluster.wait_until(alone, f"node {node} goes on alone")


def wait_logged(cluster: LocalCluster, node: str, text: str) -> None:
    """Wait until a node has logged this."""
    cluster.wait_until(lambda: text in cluster.log_path(node).read_text(), f"node {node} logs {text!r}")


def quarantined(cluster: LocalCluster, node: str) -> bytes:
    """Return everything that a node has in quarantine."""
    directory = cluster.state_path(node) / "quarantine"
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir())) if directory.is_dir() else b""
