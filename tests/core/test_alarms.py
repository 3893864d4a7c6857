"""Alarms: what an operator is told of without asking (the failure table, "alarm at once")."""

import pytest
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes

from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.parse_requests import Describe


def alarms(cluster: Cluster, node_id: str) -> dict[str, str]:
    return cluster.node(node_id).context.alarms


def test_a_healthy_cluster_has_no_alarm_and_neither_has_a_change_that_takes_milliseconds() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.kill("c")
    cluster.run(200)
    cluster.restart("c")
    cluster.settle()
    cluster.run(1000)
    assert [alarms(cluster, node_id) for node_id in "abc"] == [{}] * 3
    assert "alarm" not in "".join(cluster.lines)


@pytest.mark.parametrize("absent_ms", [0, 100, 3000])
def test_the_status_shows_missing_replicas_from_a_restarts_first_moment_on(absent_ms: int) -> None:
    """A node that was back said "serving, no alarm" for 0.3 s before it had its replicas."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", bytes(4_000))
    cluster.kill("c")
    cluster.run(absent_ms)
    cluster.restart("c")
    while not cluster.serving("c"):
        cluster.run(0.02)
    unready = 0
    while True:
        for node_id in "abc":
            node = cluster.node(node_id)
            told = node.describe(Describe("cluster", None))
            (entry,) = node.replicator.directory.checkpoints.values()
            whole = entry.in_sync == ["a", "b", "c"]
            if told["serving"]:
                assert whole or "replicas_degraded" in dict(told["alarms"]), (node_id, cluster.now_ns)
        if whole:
            break
        unready += 1
        cluster.run(0.02)
    assert unready


def test_the_replicas_of_a_new_checkpoint_that_are_on_their_way_are_no_alarm() -> None:
    cluster = three_nodes()
    cluster.client("a").open(b"first")
    for _ in range(50):
        cluster.run(1)
        assert cluster.node("a").describe(Describe("cluster", None))["alarms"] == []


def test_missing_replicas_are_an_alarm_until_they_are_rebuilt() -> None:
    cluster = two_nodes()
    for number in range(5):
        cluster.client("a").open(b"table %d" % number)
    cluster.kill("b")
    cluster.run(2000)
    text = alarms(cluster, "a")["replicas_degraded"]
    assert text == "fewer than 2 replicas in sync: 'table 0', 'table 1', 'table 2' and 2 more"
    cluster.restart("b")
    cluster.settle()
    cluster.run(100)
    assert [alarms(cluster, node_id) for node_id in "ab"] == [{}, {}]


def test_a_spare_node_that_takes_the_replica_ends_the_alarm() -> None:
    cluster = nodes("abcd", replicas=2)
    cluster.client("a").open()
    cluster.kill("b")
    cluster.run(2000)
    assert alarms(cluster, "a") == {}
    cluster.check()


def test_a_collocated_checkpoint_has_the_replicas_that_were_asked_for() -> None:
    cluster = three_nodes()
    cluster.client("a").open(flags=SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED)
    cluster.run(1000)
    assert alarms(cluster, "a") == {}


def test_a_node_that_waits_says_for_what() -> None:
    cluster = two_nodes()
    cluster.client("b").open()
    cluster.kill("a", silent=True)
    cluster.run(2000)
    assert "proof that coordinator a is dead" in alarms(cluster, "b")["not_serving"]
    cluster.restart("a")
    cluster.settle()
    assert "not_serving" not in alarms(cluster, "b")


def test_a_checkpoint_that_waits_for_its_holders_is_an_alarm_where_the_other_nodes_continue() -> None:
    cluster = nodes("abcde", replicas=1)
    cluster.client("e").open(b"far")
    cluster.cut("abc", "de")
    cluster.run(3000)
    assert cluster.serving("a")
    text = alarms(cluster, "a")["unavailable"]
    assert text == "no member has a replica in sync; waiting for node e: 'far'"
    cluster.heal()
    cluster.check()
    assert "unavailable" not in alarms(cluster, "a")
