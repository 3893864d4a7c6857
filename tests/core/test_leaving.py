"""A planned leave: hand over first, so that no call fails and nothing is lost (rules 4, rolling upgrade)."""

from typing import Any

import pytest
from tests.core.client import READ_WRITE, Call, Opened
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes

from ckpt_protocol.codes import NOT_EXIST, OK
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.framing import decode_datagram
from ckpt_protocol.messages import Kind, Verb
from ckptd.core.directory.directory import Directory
from ckptd.core.events import HeartbeatReceived, PeerLost, SendHeartbeat

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
    cluster.until(lambda: cluster.node("a").reconfiguration.decided != cluster.node("a").view)
    cluster.leave("a")
    cluster.until(lambda: "a" in cluster.left)
    table.client.move("b")
    assert table.read(b"k") == b"v"
    cluster.restart("a")
    cluster.check()


def test_a_node_that_stopped_serving_while_its_disk_wrote_does_not_serve_in_the_resulting_view() -> None:
    """Seed 1657: it said that it serves no more; then its disk was done, it served, and so did its successor."""
    cluster = three_nodes(leave_ns=100 * 10**6)
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.until(lambda: cluster.node("b").reconfiguration.view_change.awaiting_disk is not None)
    cluster.hosts["b"].disk.full = True
    cluster.run(50)
    cluster.leave("b")
    cluster.run(250)
    assert cluster.node("b").liveness.own.left
    cluster.hosts["b"].disk.full = False
    cluster.run(60)
    assert "b" in cluster.left or not cluster.serving("b")
    node = cluster.hosts["b"].node
    assert node is None or node.context.sealed


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


def test_of_nodes_that_leave_at_once_the_last_waits_for_one_that_comes_back() -> None:
    """As after `docker compose restart`: it once was left with exit code 0 by everybody, with all data."""
    cluster = three_nodes()
    client = cluster.client("a")
    table = client.open()
    table.write(b"k", b"v")
    for node_id in "abc":
        cluster.leave(node_id)
    cluster.run(3000)
    assert sorted(cluster.left) == ["a", "b"]
    cluster.run(4000)
    cluster.restart("b")
    cluster.until(lambda: "c" in cluster.left)
    assert cluster.last_copies == []
    cluster.run(1)
    cluster.restart("a")
    cluster.restart("c")
    cluster.settle()
    assert cluster.contents("b") == {b"k": b"v"}
    cluster.check()


@pytest.mark.parametrize(
    ("node_ids", "more"),
    [
        ("ab", {}),
        ("ab", {"arbiter": "etcd"}),
        ("ab", {"witnesses": "w"}),
        ("abc", {}),
        ("abc", {"arbiter": "etcd"}),
        ("abcde", {}),
        ("abcde", {"replicas": 1}),
    ],
)
@pytest.mark.parametrize("pause_ms", [0, 3, 30, 300])
def test_restarts_in_quick_succession_lose_nothing(
    node_ids: str, more: dict[str, Any], pause_ms: int
) -> None:
    """Three of them lost everything, each with exit code 0: the last holder handed over to nobody."""
    cluster = nodes(node_ids, session_grace_ns=60 * 10**9, **more)
    client = cluster.client(node_ids[0])
    client.open().write(b"k", b"v")
    for node_id in node_ids * 2:
        cluster.leave(node_id)
        cluster.until(lambda: node_id in cluster.left)  # noqa: B023
        cluster.run(1 + pause_ms)
        cluster.left.remove(node_id)
        cluster.restart(node_id)
    cluster.settle()
    assert cluster.last_copies == []
    assert cluster.contents(cluster.in_sync(node_ids[0])[0]) == {b"k": b"v"}
    cluster.check()


def test_a_node_that_comes_back_at_the_last_moment_still_gets_the_replica() -> None:
    cluster = two_nodes(session_grace_ns=60 * 10**9, chunk_bytes=4096)
    table = cluster.client("a").open()
    for number in range(90):
        table.write(b"s%d" % number, bytes(4000))
    for node_id in "ab":
        cluster.leave(node_id)
        cluster.run(1_500)
    assert cluster.left == ["a"]
    cluster.run(8_300)
    cluster.restart("a")
    cluster.until(lambda: "b" in cluster.left)
    assert cluster.last_copies == []
    assert len(cluster.contents("a")) == 90


@pytest.mark.parametrize("node_ids", ["ab", "abc"])
def test_the_last_holder_reports_what_is_lost_with_it(node_ids: str) -> None:
    cluster = nodes(node_ids)
    cluster.client("a").open().write(b"k", b"v")
    for node_id in node_ids:
        cluster.leave(node_id)
    cluster.run(9_500)
    last = node_ids[-1]
    assert last not in cluster.left and cluster.serving(last)
    alarms = cluster.node(last).context.alarms
    assert "'x'" in alarms["leaving"] and "one of a" in alarms["leaving"]
    cluster.run(2_000)
    assert cluster.last_copies == [last]
    assert any("the replica of this node was the last" in line for line in cluster.lines)


def test_a_node_with_nothing_to_hand_over_waits_for_no_other() -> None:
    cluster = three_nodes()
    for node_id in "abc":
        cluster.leave(node_id)
        cluster.run(1500)
    assert cluster.left == ["a", "b", "c"]
    assert cluster.last_copies == []


def test_no_node_waits_for_a_checkpoint_that_is_collocated_at_this_node_alone() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED)
    table.write(b"k", b"v")
    cluster.leave("b")
    cluster.run(1500)
    assert cluster.left == ["b"]
    assert cluster.last_copies == []
    assert any("no remaining node has 'x'" in line for line in cluster.lines)


def test_a_collocated_replica_that_is_being_made_is_waited_for() -> None:
    cluster = three_nodes(chunk_bytes=4096)
    table = cluster.client("b").open(flags=SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED)
    for number in range(90):
        table.write(b"s%d" % number, bytes(4000))
    cluster.hold("b", "c")
    other = cluster.client("a")
    cluster.release("b", "c")
    other.move("c")
    cluster.hold("b", "c")
    other.begin(Kind.OPEN, 0, [b"x", READ_WRITE, None, False])
    cluster.until(lambda: "c" in cluster.node("b").directory.find(b"x").replicas)  # type: ignore[union-attr]
    cluster.leave("b")
    cluster.run(50)
    cluster.release("b", "c")
    cluster.until(lambda: "b" in cluster.left)
    assert len(cluster.contents("c")) == 90


@pytest.mark.parametrize("node_ids", ["a", "ab", "abc", "abcde"])
def test_the_operator_stops_the_whole_cluster_and_no_node_waits(node_ids: str) -> None:
    cluster = nodes(node_ids)
    cluster.client("a").open().write(b"k", b"v")
    assert "'x'" in str(cluster.operate(node_ids[0], "stop").payload)
    cluster.run(1500)
    assert sorted(cluster.left) == list(node_ids)
    assert cluster.last_copies == []


def test_a_node_whose_link_is_broken_receives_the_stop_when_it_is_back() -> None:
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.flap("a", "c", down_ms=20)
    cluster.flap("b", "c", down_ms=30)
    cluster.operate("a", "stop")
    cluster.run(1500)
    assert sorted(cluster.left) == ["a", "b", "c"]


def test_a_node_that_waits_for_others_ends_when_the_cluster_is_stopped() -> None:
    cluster = two_nodes()
    cluster.client("a").open().write(b"k", b"v")
    for node_id in "ab":
        cluster.leave(node_id)
        cluster.run(1500)
    assert cluster.left == ["a"]
    cluster.operate("b", "stop")
    cluster.run(100)
    assert cluster.left == ["a", "b"]
    assert cluster.last_copies == []


def test_what_a_node_takes_with_it_has_its_name_whatever_becomes_of_the_directory() -> None:
    """A view that comes while the node lingers brings another directory (the fuzzer's seed 503999)."""
    cluster = three_nodes()
    cluster.client("c").open(flags=SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED).write(b"k", b"v")
    operator = cluster.client("c")
    call = operator.begin(Kind.OPERATE, 0, [Verb.DRAIN])
    cluster.until(lambda: cluster.node("c").liveness.own.left)
    cluster.node("c").replicator.directory = Directory()
    cluster.until(lambda: "c" in cluster.left)
    cluster.run(5)
    assert call.answer is not None and "'x'" in str(call.answer.payload)


def test_two_that_leave_at_one_moment_do_not_both_count_on_what_the_other_announced_before() -> None:
    """Each had a heartbeat under way that did not say so yet, and took it for the answer to its own word."""
    cluster = two_nodes()
    cluster.client("a").open().write(b"k", b"v")
    under_way: list[tuple[str, HeartbeatReceived]] = []
    for node in cluster.running():
        node.context.effects = []
        node.heartbeats.send_all()
        sent = (effect for effect in node.context.effects if isinstance(effect, SendHeartbeat))
        under_way += [(beat.node_id, HeartbeatReceived(decode_datagram(beat.data))) for beat in sent]
    cluster.cuts.update({("a", "b"): 1, ("b", "a"): 1})  # Of the heartbeats alone: the link stays.
    cluster.leave("a")
    cluster.leave("b")
    cluster.run(0.1)
    for node_id, event in under_way:
        cluster.deliver(node_id, event)
    cluster.run(20)
    assert cluster.left == []
    cluster.cuts.clear()
    cluster.run(3000)
    assert cluster.left == ["a"]


def test_a_leave_waits_again_when_the_other_holder_is_lost_during_it() -> None:
    """It had looked once whether others hold all; then the one that did died, and it left with the only copy."""
    cluster = nodes("abcde", replicas=2, chunk_bytes=4096)
    table = cluster.client("d").open()
    for number in range(90):
        table.write(b"s%d" % number, bytes(4000))
    other = next(node_id for node_id in cluster.in_sync("a") if node_id != "d")
    cluster.hold(other, "d")
    table.begin_write(b"k", b"pending")
    cluster.run(5)
    cluster.leave("d")
    cluster.run(5)
    assert cluster.node("d").requests.draining and not cluster.node("d").liveness.own.left
    cluster.kill(other, silent=True)
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


def test_a_link_that_only_one_end_believes_in_is_made_again_next_to_a_node_that_leaves() -> None:
    """Seed 158 with orderly restarts: b waited for a, which was back and never admitted; b left with everything.

    a believed in a link that b had lost. Such a link was looked at only where its peer did not leave.
    """
    cluster = two_nodes(session_grace_ns=60 * 10**9)
    cluster.client("a").open().write(b"k", b"v")
    cluster.leave("a")
    cluster.run(100)
    cluster.leave("b")
    cluster.run(100)
    cluster.restart("a")
    cluster.run(0.2)
    link = cluster.ends.pop(("b", "a"))
    cluster.deliver("b", PeerLost("a"))
    cluster.run(3_000)
    assert ("a", "b") not in cluster.ends or cluster.ends["a", "b"] is not link
    cluster.until(lambda: "b" in cluster.left)
    assert cluster.last_copies == []


def test_a_node_that_leaves_and_was_excluded_is_admitted_once_more_so_that_it_can_hand_over() -> None:
    """Seed 534 with orderly restarts: it named data as lost that the others had, and kept what only it had."""
    cluster = nodes("abc", replicas=1, session_grace_ns=60 * 10**9)
    cluster.client("c").open().write(b"k", b"v")
    cluster.cut("c", "ab")
    cluster.until(lambda: "c" not in cluster.node("a").view.members)  # type: ignore[union-attr]
    cluster.leave("c")
    cluster.run(500)
    cluster.heal()
    cluster.until(lambda: "c" in cluster.left)
    assert cluster.last_copies == []
    holder = cluster.in_sync("a")[0]
    assert holder in "ab" and cluster.contents(holder) == {b"k": b"v"}
