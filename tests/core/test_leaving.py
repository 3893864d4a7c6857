"""A planned leave: hand over first, so that no call fails and nothing is lost (rules 4, rolling upgrade)."""

import pytest
from tests.core.client import Call, Opened
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes

from ckpt_protocol.codes import NOT_EXIST, OK
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)


def write_until_left(cluster: Cluster, table: Opened, node_id: str) -> list[Call]:
    """Write without a pause while a node leaves."""
    calls: list[Call] = []
    cluster.leave(node_id)
    while node_id not in cluster.left:
        calls.append(table.begin_write(b"k%d" % (len(calls) % 50), b"%d" % len(calls)))
        cluster.run(0.5)
        assert len(calls) < 20_000
    cluster.run(300)
    return calls


@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("node_id", "ab")
def test_no_call_fails_and_nothing_is_lost_when_a_node_leaves(flags: int, node_id: str) -> None:
    """a coordinates, b holds the active replica."""
    cluster = three_nodes()
    cluster.client("b").open(flags=flags)
    table = cluster.client("c").open_existing()
    calls = write_until_left(cluster, table, node_id)
    assert {call.code for call in calls} == {OK}
    assert all(len(call.answers) == 1 for call in calls)
    expected = {b"k%d" % (i % 50): b"%d" % i for i in range(len(calls))}
    assert table.read_all() == expected
    assert len(calls) < 400, "a hand-over takes no time-out"
    cluster.restart(node_id)
    cluster.check()


def test_all_nodes_may_leave_and_return_one_after_the_other() -> None:
    cluster = three_nodes()
    client = cluster.client("a")
    table = client.open()
    table.write(b"k", b"v")
    for node_id in "abc":
        if client.node_id == node_id:
            client.move("abca"["abc".index(node_id) + 1])
        cluster.leave(node_id)
        cluster.until(lambda: node_id in cluster.left)  # noqa: B023
        assert table.read(b"k") == b"v"
        cluster.restart(node_id)
        cluster.settle()
    assert table.read(b"k") == b"v"
    cluster.check()


def test_the_only_replica_is_moved_before_its_node_leaves() -> None:
    cluster = three_nodes(replicas=1)
    client = cluster.client("b")
    table = client.open()
    table.write(b"k", b"v")
    client.move("c")
    cluster.leave("b")
    cluster.until(lambda: "b" in cluster.left)
    assert table.read(b"k") == b"v"
    assert cluster.in_sync("a") != ["b"]
    cluster.restart("b")
    cluster.check()


@pytest.mark.parametrize("node_id", "ab")
def test_either_node_of_a_pair_may_leave(node_id: str) -> None:
    cluster = two_nodes()
    other = "b" if node_id == "a" else "a"
    cluster.client(node_id).open()
    table = cluster.client(other).open_existing()
    calls = write_until_left(cluster, table, node_id)
    assert {call.code for call in calls} == {OK}
    assert cluster.active() == other
    cluster.restart(node_id)
    cluster.check()
    assert cluster.contents(node_id) == cluster.contents(other) != {}


def test_the_data_of_a_collocated_checkpoint_stays_where_it_is_held_elsewhere() -> None:
    cluster = three_nodes()
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    first = cluster.client("b").open(flags=flags)
    first.set_active()
    second = cluster.client("c").open_existing()
    first.write(b"k", b"v")
    cluster.leave("b")
    cluster.until(lambda: "b" in cluster.left)
    answer = second.try_read(b"k")
    assert (answer.code, answer.index) == (NOT_EXIST, -1)
    assert second.set_active().code == OK
    assert second.read(b"k") == b"v"
    cluster.restart("b")
    cluster.check()


def test_the_last_node_leaves_without_waiting() -> None:
    cluster = nodes("a")
    cluster.client("a").open().write(b"k", b"v")
    cluster.leave("a")
    cluster.run(50)
    assert cluster.left == ["a"]


def test_a_node_that_cannot_hand_over_leaves_when_its_time_is_up() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.cut("a", "bc")
    cluster.run(2000)
    cluster.leave("a")
    cluster.run(9_000)
    assert cluster.left == []
    cluster.run(3_000)
    assert cluster.left == ["a"]
    cluster.heal()
    cluster.check()


def test_a_leave_waits_for_the_node_that_is_being_admitted() -> None:
    """Of a pair, one alone, while the other has been decided a member and has installed nothing (seed 1433)."""
    cluster = two_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.kill("b")
    cluster.settle()
    cluster.restart("b")
    cluster.until(lambda: cluster.node("a").membership.decided != cluster.node("a").view)
    cluster.leave("a")
    cluster.until(lambda: "a" in cluster.left)
    table.client.move("b")
    assert table.read(b"k") == b"v"
    cluster.restart("a")
    cluster.check()


def test_a_node_that_gave_up_while_its_disk_wrote_does_not_serve_in_the_view_that_came_of_it() -> None:
    """Seed 1657: it said that it serves no more; then its disk was done, it served, and so did its successor."""
    cluster = three_nodes(leave_ns=100 * 10**6)
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.until(lambda: cluster.node("b").membership.installation.saving is not None)
    cluster.hosts["b"].disk_full = True
    cluster.run(50)
    cluster.leave("b")
    cluster.run(200)
    assert cluster.node("b").heartbeats.left
    cluster.hosts["b"].disk_full = False
    cluster.run(60)
    assert "b" in cluster.left or not cluster.serving("b")
    node = cluster.hosts["b"].node
    assert node is None or node.context.frozen


@pytest.mark.parametrize("node_id", "abc")
def test_a_node_that_has_nothing_to_wait_for_is_succeeded_before_its_next_heartbeat(node_id: str) -> None:
    """Seen in a recording: that it leaves and that it has left went out with one stamp.

    The second was taken for a copy of the first, and its clients waited for the next heartbeat.
    """
    cluster = three_nodes()
    cluster.settle()
    cluster.run(26)
    cluster.leave(node_id)
    cluster.run(10)
    views = [cluster.node(other).view for other in "abc" if other != node_id]
    assert all(view is not None and node_id not in view.members for view in views)


def test_two_that_leave_at_once_do_not_count_on_each_other() -> None:
    cluster = nodes("abcde", replicas=2)
    table = cluster.client("d").open()
    table.write(b"k", b"acknowledged")
    leaving = cluster.in_sync("a")
    staying = next(node_id for node_id in "abcde" if node_id not in leaving)
    table.client.move(staying)
    for node_id in leaving:
        cluster.leave(node_id)
    cluster.until(lambda: all(node_id in cluster.left for node_id in leaving))
    assert table.read(b"k") == b"acknowledged"
    cluster.check()


def test_all_nodes_may_be_stopped_at_once() -> None:
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    for node_id in "abc":
        cluster.leave(node_id)
    cluster.run(3000)
    assert sorted(cluster.left) == ["a", "b", "c"], "nobody stays who could take anything over"


def test_a_leave_waits_again_when_the_other_holder_is_lost_meanwhile() -> None:
    """It had looked once whether others hold all; then the one that did died, and it left with the only copy."""
    cluster = nodes("abcde", replicas=2, chunk_bytes=4096)
    table = cluster.client("d").open()
    for number in range(90):
        table.write(b"s%d" % number, bytes(4000))
    other = next(node_id for node_id in cluster.in_sync("a") if node_id != "d")
    cluster.kill(other, silent=True)
    table.begin_write(b"k", b"pending")
    cluster.run(5)
    cluster.leave("d")
    cluster.run(120)
    assert cluster.node("d").requests.draining and not cluster.node("d").heartbeats.left
    cluster.until(lambda: "d" in cluster.left)
    cluster.settle()
    assert cluster.in_sync("b" if other != "b" else "c")
    assert all(
        len(cluster.contents(node_id)) >= 90 for node_id in cluster.in_sync("b" if other != "b" else "c")
    )
    cluster.check()


def test_both_of_two_members_may_leave_while_a_third_is_about_to_be_admitted() -> None:
    """Each counted on the other, which had not yet said that it leaves; the third had nothing."""
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.run(2000)
    cluster.restart("c")
    cluster.run(5)
    cluster.leave("a")
    cluster.leave("b")
    cluster.until(lambda: {"a", "b"} <= set(cluster.left))
    cluster.run(1)
    cluster.restart("a")
    cluster.restart("b")
    cluster.check()
    assert cluster.contents("c") == {b"k": b"v"}
