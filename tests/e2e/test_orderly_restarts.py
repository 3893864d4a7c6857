"""Orderly restarts of real daemons: what SIGTERM could save is saved, and what is not is said."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.operator import done
from tests.etcd_server import ETCD_MISSING, EtcdCluster

from ckpt_client import Table
from ckptd.runtime.errors import EXIT_LAST_COPY
from ckptd.testing import LocalCluster

SECTIONS = 40


@contextmanager
def filled(cluster: LocalCluster, replicas: int) -> Iterator[Table]:
    """A table with something in it, on so many nodes."""
    with Table("orders", SECTIONS, 1024, 32, address=cluster.addresses(), timeout=20) as table:
        for number in range(SECTIONS):
            table[f"k{number}"] = b"%d" % number
        cluster.wait_in_sync("orders", replicas)
        yield table


def holds_all(table: Table) -> bool:
    return {key: table[key] for key in table} == {f"k{n}".encode(): b"%d" % n for n in range(SECTIONS)}


def restart_all(cluster: LocalCluster, pause_s: float) -> list[int]:
    """As a script of an operator in a hurry does it; the exit codes."""
    codes = []
    for node in cluster.node_ids:
        codes.append(cluster.leave(node))
        cluster.start(node)
        time.sleep(pause_s)
    cluster.wait_serving()
    return codes


@pytest.mark.parametrize("pause_s", [0, pytest.param(0.1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("nodes", "witnesses"),
    [(2, 0), *(pytest.param(*voters, marks=pytest.mark.extended) for voters in ((3, 0), (2, 1)))],
)
def test_nodes_that_are_restarted_without_a_look_keep_everything(
    nodes: int, witnesses: int, pause_s: float
) -> None:
    with LocalCluster(nodes, witnesses=witnesses) as cluster, filled(cluster, nodes) as table:
        assert restart_all(cluster, pause_s) == [0] * nodes
        assert holds_all(table)


@pytest.mark.extended
@pytest.mark.skipif(bool(ETCD_MISSING), reason=ETCD_MISSING)
def test_under_etcd_too() -> None:
    with EtcdCluster(1) as etcd:
        flags = ("--etcd-endpoints", ",".join(etcd.endpoints))
        with LocalCluster(2, arbiter="etcd", flags=flags) as cluster, filled(cluster, 2) as table:
            assert restart_all(cluster, 0.0) == [0, 0]
            assert holds_all(table)


@pytest.mark.extended
def test_the_last_node_waits_for_one_that_is_started_late() -> None:
    with LocalCluster(2) as cluster, filled(cluster, 2) as table:
        assert cluster.leave("a") == 0
        process = cluster.begin_leave("b")
        time.sleep(3)
        assert process.poll() is None
        assert holds_all(table), "it serves while it waits"
        assert "one of a" in str(cluster.describe("cluster", "b").alarms)
        cluster.start("a")
        assert process.wait(20) == 0
        assert holds_all(table)


@pytest.mark.extended
def test_the_last_node_says_what_it_takes_with_it() -> None:
    with LocalCluster(2, flags=("--leave-ms", "500")) as cluster, filled(cluster, 2):
        assert cluster.leave("a") == 0
        assert cluster.leave("b") == EXIT_LAST_COPY
        assert "no remaining node has 'orders': the replica of this node was the last" in cluster.log("b")


@pytest.mark.extended
def test_a_second_signal_ends_the_wait_and_is_no_good_end() -> None:
    with LocalCluster(2, flags=("--leave-ms", "60000")) as cluster, filled(cluster, 2):
        assert cluster.leave("a") == 0
        cluster.begin_leave("b")
        cluster.wait_until(lambda: "waits up to 60 s" in cluster.log("b"), "b waits")
        assert cluster.leave("b") == EXIT_LAST_COPY


@pytest.mark.extended
def test_a_node_alone_waits_for_no_other_and_says_so() -> None:
    with LocalCluster(1) as cluster, filled(cluster, 1):
        assert cluster.leave("a") == 0
        assert "the replica of this node was the last" in cluster.log("a")


@pytest.mark.parametrize(
    ("nodes", "witnesses"),
    [
        pytest.param(1, 0, marks=pytest.mark.extended),
        pytest.param(3, 0, marks=pytest.mark.slow),
        (2, 1),
    ],
)
def test_the_operator_stops_the_whole_cluster(nodes: int, witnesses: int) -> None:
    with LocalCluster(nodes, witnesses=witnesses) as cluster, filled(cluster, nodes):
        said = done(cluster, "a", "cluster", "stop", "--yes")
        assert "every node stops; the data of the cluster is gone: 'orders'" in said
        assert "Not reached" not in said
        assert [cluster.wait_ended(node) for node in cluster.all_ids] == [0] * (nodes + witnesses)
