"""Real nodes whose views are decided by real etcd processes.

Source: the failure table, the column of three nodes and "Arbiter/witness down".
"""

from collections.abc import Iterator

import pytest
from tests.e2e.faulty import ENTRIES, alarms, coordinator, node_of, under_load, wait_blocked
from tests.e2e.operator import ckptctl, done
from tests.etcd_server import ETCD_MISSING, EtcdCluster

from ckpt_client import CheckpointError, Table
from ckpt_protocol import codes
from ckptd.testing import LocalCluster

pytestmark = pytest.mark.skipif(bool(ETCD_MISSING), reason=ETCD_MISSING)

SIZES = (2, pytest.param(3, marks=pytest.mark.slow))
PROBE_MS = 200
"""How often a node looks whether etcd is there; short, since the alarm is waited for."""


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """One member that no test stops; each cluster has a register of its own there, by its name."""
    with EtcdCluster(1) as cluster:
        yield cluster


def nodes_with(etcd: EtcdCluster, nodes: int, name: str) -> LocalCluster:
    flags = ("--etcd-endpoints", ",".join(etcd.endpoints), "--register-probe-ms", str(PROBE_MS))
    return LocalCluster(nodes, arbiter="etcd", flags=flags, name=name)


@pytest.mark.extended
@pytest.mark.parametrize("nodes", SIZES)
def test_sigkill_of_the_active_node_loses_nothing(etcd: EtcdCluster, nodes: int, name: str) -> None:
    with nodes_with(etcd, nodes, name) as cluster, under_load(cluster, name) as load:
        for role in ("active", "coordinator"):
            node = node_of(cluster, role, load.register(0))
            cluster.kill(node)
            load.wait_more(ENTRIES)
            cluster.start(node)
            cluster.wait_serving()
            for checkpoint in load.checkpoints:
                cluster.wait_in_sync(checkpoint, load.replicas)


@pytest.mark.extended
@pytest.mark.parametrize("nodes", SIZES)
def test_the_others_continue_when_the_coordinator_is_paused(etcd: EtcdCluster, nodes: int, name: str) -> None:
    with nodes_with(etcd, nodes, name) as cluster, under_load(cluster, name) as load:
        first = coordinator(cluster)
        cluster.pause(first)
        try:
            load.wait_more(ENTRIES)
        finally:
            cluster.resume(first)
        cluster.wait_serving()


@pytest.mark.extended
@pytest.mark.parametrize("nodes", SIZES)
def test_without_etcd_the_service_continues_and_a_change_of_the_view_waits_for_it(
    nodes: int, name: str
) -> None:
    with EtcdCluster(1) as etcd, nodes_with(etcd, nodes, name) as cluster, under_load(cluster, name) as load:
        etcd.kill(0)
        first = coordinator(cluster)
        cluster.wait_until(lambda: "arbiter" in alarms(cluster, first), "the alarm is raised")
        assert "ALARM arbiter: the register does not answer" in done(cluster, first, "status")
        assert ckptctl(cluster, "status", "--check", node=first).returncode == 1
        load.wait_more(ENTRIES)
        dead = next(node for node in cluster.node_ids if node != first)
        with Table(load.ledger, address=cluster.address(first)) as table:
            cluster.kill(dead)
            with pytest.raises(CheckpointError) as caught:
                table.Write("while etcd is away", "x", timeout=1.5)
            assert caught.value.code in (codes.TRY_AGAIN, codes.TIMEOUT)
            wait_blocked(cluster, first, "the arbiter: the register does not answer")
            etcd.start(0)
            table.Write("with etcd", "x")
        load.wait_more(ENTRIES)
        cluster.wait_until(lambda: "arbiter" not in alarms(cluster, first), "the alarm is gone")
        cluster.start(dead)
        cluster.wait_serving()


@pytest.mark.extended
@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_one_of_three_members_of_etcd_is_not_needed(lost: int, name: str) -> None:
    """The one that everybody asks first, or another; its loss and a node's come together."""
    with EtcdCluster(3) as etcd, nodes_with(etcd, 3, name) as cluster, under_load(cluster, name) as load:
        node = node_of(cluster, "active", load.register(0))
        etcd.kill(lost)
        cluster.kill(node)
        load.wait_more(ENTRIES)
        cluster.start(node)
        cluster.wait_serving()
        assert not any("arbiter" in alarms(cluster, each) for each in cluster.node_ids)
        etcd.start(lost)
        etcd.wait_healthy()


def test_all_nodes_started_again_wait_for_etcd_and_then_serve(etcd: EtcdCluster, name: str) -> None:
    """A cold start reads what the register holds of the time before."""
    with nodes_with(etcd, 2, name) as cluster:
        before = cluster.describe().epoch
        for node in cluster.node_ids:
            cluster.kill(node)
        for node in cluster.node_ids:
            cluster.start(node)
        cluster.wait_serving()
        assert cluster.describe().epoch > before
        with Table(name, 10, 100, 32, address=cluster.addresses()) as table:
            table.Write("k", "v")
            assert table.Read(["k"]) == b"v"
