"""Real processes in networks that are cut, one way or both, or lossy.

Source: the failure table, "Partition", "One-way loss", "Lossy link 30 %" and "Heal".
"""

import time

import pytest
from bench.load.load import Load
from bench.load.verdict import judge
from bench.load.watch import Watch
from tests.e2e.faulty import ENTRIES, acknowledging, check, coordinator, pinned_load, under_load

from ckpt_client import CheckpointError, Table
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

REASON = why_unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

LEASE_SECONDS = 0.6
CUT_SECONDS = 3.0
LOSS_SECONDS = 4.0
TIMEOUT_SECONDS = 1.5

SPLITS = [
    (3, 1),
    *(pytest.param(*split, marks=pytest.mark.slow) for split in ((2, 1), (3, 2), (5, 1), (5, 2), (5, 3))),
]
"""(nodes, how many of them are cut off from the others)."""


@pytest.mark.extended
@pytest.mark.parametrize("with_coordinator", [True, False])
@pytest.mark.parametrize(("nodes", "few"), SPLITS)
def test_only_one_side_of_a_partition_acknowledges_and_nothing_is_lost_at_heal(
    nodes: int, few: int, with_coordinator: bool, name: str
) -> None:
    with NetnsCluster(nodes) as cluster, pinned_load(cluster, name) as load:
        first = coordinator(cluster)
        order = sorted(cluster.node_ids, key=lambda node: (node == first) != with_coordinator)
        side, rest = set(order[:few]), set(order[few:])
        cluster.partition(side)
        # A view without the others needs the lease to end first; what each side does then is what counts.
        since_ns = time.monotonic_ns() + int(2 * LEASE_SECONDS * 1e9)
        time.sleep(CUT_SECONDS)
        until_ns = time.monotonic_ns()
        cluster.heal()
        cluster.wait_serving()
        goes_on = side if first in side else rest
        if nodes > 2:
            goes_on = side if 2 * few > nodes else rest
        assert acknowledging(cluster, load, since_ns, until_ns) == goes_on


@pytest.mark.extended
@pytest.mark.parametrize("nodes", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_cut_in_one_direction_counts_as_a_partition(nodes: int, name: str) -> None:
    """The node that is not heard hears everybody, and must not go on by that."""
    with NetnsCluster(nodes) as cluster, pinned_load(cluster, name) as load:
        first = coordinator(cluster)
        unheard = next(node for node in cluster.node_ids if node != first)
        for node in cluster.node_ids:
            if node != unheard:
                cluster.cut_one_way(unheard, node)
        since_ns = time.monotonic_ns() + int(2 * LEASE_SECONDS * 1e9)
        time.sleep(CUT_SECONDS)
        until_ns = time.monotonic_ns()
        cluster.heal()
        cluster.wait_serving()
        assert acknowledging(cluster, load, since_ns, until_ns) == set(cluster.node_ids) - {unheard}


def test_a_node_that_is_cut_off_serves_nothing_stale(name: str) -> None:
    with NetnsCluster(3) as cluster, Table(name, 10, 32, 32, address=cluster.addresses()) as table:
        table.Write("k", "before")
        for cut_off in cluster.node_ids:
            others = [cluster.address(node) for node in cluster.node_ids if node != cut_off]
            address = cluster.address(cut_off)
            with Table(name, address=address) as deaf, Table(name, address=others) as other:
                cluster.isolate(cut_off)
                other.Write("k", f"without {cut_off}")
                with pytest.raises(CheckpointError):
                    deaf.Read("k", timeout=0.5)
                cluster.heal()
                cluster.wait_serving()
                assert deaf.Read("k") == f"without {cut_off}".encode()


@pytest.mark.extended
def test_a_loss_of_30_percent_of_all_heartbeats_changes_no_view_and_fails_no_call(name: str) -> None:
    with NetnsCluster(3) as cluster, Watch(cluster) as watch:
        with Load(cluster, name) as load:
            load.wait_more(ENTRIES)
            before = watch.epochs()
            cluster.lossy(0.3, "udp")
            load.wait_more(ENTRIES)
            time.sleep(LOSS_SECONDS)
            cluster.heal()
            load.wait_more(ENTRIES)
            assert watch.epochs() == before
        check(judge(load))
        assert load.errors == []


@pytest.mark.slow
def test_a_loss_of_30_percent_of_all_packets_breaks_no_promise(name: str) -> None:
    """TCP stalls for longer than `replica_timeout` then, so that views change and calls may fail."""
    with NetnsCluster(3) as cluster, under_load(cluster, name, failures=True):
        cluster.lossy(0.3)
        time.sleep(LOSS_SECONDS)
        cluster.heal()


@pytest.mark.extended
@pytest.mark.parametrize("nodes", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_the_others_continue_when_the_active_host_falls_silent(nodes: int, name: str) -> None:
    with NetnsCluster(nodes) as cluster, under_load(cluster, name) as load:
        silent = cluster.active_node(load.ledger)
        assert silent is not None
        cluster.isolate(silent)
        load.wait_more(ENTRIES)
        cluster.heal()
        cluster.wait_serving()


@pytest.mark.extended
def test_what_only_the_losing_side_had_ordered_goes_to_quarantine(name: str) -> None:
    """An asynchronous write that the active replica acknowledged after the cut, within its lease."""
    with NetnsCluster(3) as cluster:
        table = Table(
            name, 100, 32, 32, SA_CKPT_WR_ACTIVE_REPLICA, address=cluster.addresses(), timeout=TIMEOUT_SECONDS
        )
        with table:
            table.Write("before", "1")
            table.Synchronize()
            active = cluster.active_node(name)
            assert active is not None
            others = [node for node in cluster.node_ids if node != active]
            with Table(name, address=cluster.address(active), timeout=TIMEOUT_SECONDS) as losing:
                cluster.isolate(active)
                losing.Write("alone", "2")
                with pytest.raises(CheckpointError):
                    while True:
                        losing.Write("alone", "2")
            with Table(name, address=cluster.address(others[0])) as winning:
                winning.Write("after", "3")
                assert winning.read_all() == {b"before": b"1", b"after": b"3"}
        cluster.heal()
        cluster.wait_serving()
        cluster.wait_in_sync(name, cluster.node_ids)
        quarantine = cluster.directory / f"{active}.state" / "quarantine"
        cluster.wait_until(
            lambda: quarantine.is_dir() and any(quarantine.iterdir()), "the losing copy is in quarantine"
        )
        (kept,) = quarantine.iterdir()
        assert b"alone" in kept.read_bytes()
        with Table(name, address=cluster.address(active)) as returned:
            assert returned.read_all() == {b"before": b"1", b"after": b"3"}


@pytest.mark.extended
def test_leaving_the_cluster_removes_its_namespaces() -> None:
    with NetnsCluster(2) as cluster:
        names = [cluster.namespace(node) for node in cluster.node_ids]
        assert all(cluster.has_namespace(name) for name in names)
    assert not any(cluster.has_namespace(name) for name in names)
