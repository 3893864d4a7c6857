"""Replicas that join: missed updates, differing sections, or all of it, while writes go on (DESIGN 5.7)."""

from typing import Any

import pytest
from tests.core.client import Opened
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.codes import OK
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.messages import Kind, Op

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
SMALL: dict[str, Any] = {"log_bytes_max": 2000, "chunk_bytes": 200, "chunks_in_flight": 2}
"""The log is soon forgotten, so that a join takes chunks, and many of them."""


def kinds_sent(cluster: Cluster, sender: str, peer: str, creation_id: int) -> list[int]:
    """The kinds of all frames about a checkpoint that went one way."""
    return [
        frame.kind
        for one, other, data in cluster.sent
        if (one, other) == (sender, peer)
        for frame in FrameDecoder().feed(data)
        if frame.a == creation_id
    ]


def filled(cluster: Cluster, flags: int, sections: int = 40) -> Opened:
    """A checkpoint with its active replica at a and something in it."""
    table = cluster.client("a").open(flags=flags)
    for number in range(sections):
        table.write(b"k%02d" % number, b"old")
        cluster.run(6)  # More than a weak batch takes, so that each is an update of its own.
    cluster.run(20)
    return table


@pytest.mark.parametrize("flags", KINDS)
def test_a_restarted_node_is_rebuilt_whole_in_chunks_while_writes_go_on(flags: int) -> None:
    cluster = three_nodes(**SMALL)
    table = filled(cluster, flags)
    cluster.kill("c")
    table.write(b"k00", b"without c")
    cluster.restart("c")
    cluster.sent.clear()
    calls = []
    for number in range(400):
        calls.append(table.begin_write(b"k%02d" % (number % 40), b"%d" % number))
        if number % 10 == 0:
            calls.append(table.begin(Kind.UPDATE, [Op.DELETE, b"k%02d" % (number % 40)]))
        if number % 15 == 0:
            calls.append(table.begin_write(b"new%d" % number, b"%d" % number))
        cluster.run(0.5)
    cluster.check()
    assert {call.code for call in calls} == {OK}
    assert kinds_sent(cluster, "a", "c", table.creation_id).count(Kind.CHUNK) > 3
    assert cluster.in_sync("c") == ["a", "b", "c"]
    assert cluster.contents("c") == cluster.contents("a") == table.read_all()


@pytest.mark.parametrize("flags", KINDS)
def test_a_node_that_was_cut_off_gets_only_the_updates_that_it_missed(flags: int) -> None:
    cluster = three_nodes()
    table = filled(cluster, flags)
    cluster.cut("c", "ab")
    cluster.run(2000)
    table.write(b"k01", b"missed")
    table.update([Op.DELETE, b"k02"])
    cluster.run(20)
    cluster.sent.clear()
    cluster.heal()
    cluster.check()
    sent = kinds_sent(cluster, "a", "c", table.creation_id)
    assert Kind.CHUNK not in sent and Kind.REPLICATE in sent
    assert cluster.contents("c") == cluster.contents("a")
    assert cluster.quarantined == []


def test_only_the_sections_that_differ_and_the_deletions_travel_when_the_updates_are_forgotten() -> None:
    cluster = three_nodes(log_bytes_max=2000)
    table = filled(cluster, SA_CKPT_WR_ALL_REPLICAS, 60)
    table.update([Op.PUT, b"big", bytes(4000), None])
    cluster.cut("c", "ab")
    cluster.run(2000)
    for number in range(60):
        table.write(b"k01", b"%d" % number)
    table.update([Op.DELETE, b"k02"])
    assert not cluster.replica("a").log.reaches_back_to(cluster.replica("c").last_seq)
    cluster.sent.clear()
    cluster.heal()
    cluster.check()
    assert Kind.CHUNK in kinds_sent(cluster, "a", "c", table.creation_id)
    to_c = sum(len(data) for sender, peer, data in cluster.sent if (sender, peer) == ("a", "c"))
    assert to_c < 4000, "the large section did not change"
    assert cluster.contents("c") == cluster.contents("a")
    assert b"k02" not in cluster.contents("c")
    assert cluster.quarantined == []


def test_a_tail_that_the_cluster_went_on_without_goes_to_quarantine() -> None:
    """Nothing is lost in silence, and no two histories are merged (DESIGN 6)."""
    cluster = three_nodes()
    table = filled(cluster, SA_CKPT_WR_ACTIVE_REPLICA, 3)
    other = cluster.client("b").open_existing()
    cluster.hold("a", "b")
    cluster.hold("a", "c")
    table.write(b"k00", b"lost")
    cluster.cut("a", "bc")
    cluster.holds.clear()
    cluster.run(2500)
    assert cluster.active() in ("b", "c")
    assert other.read(b"k00") == b"old"
    other.write(b"k01", b"new")
    cluster.heal()
    cluster.check()
    assert cluster.contents("a") == {b"k00": b"old", b"k01": b"new", b"k02": b"old"}
    assert [(node_id, b"lost" in content) for node_id, content in cluster.quarantined] == [("a", True)]


def test_a_reader_at_a_joining_replica_never_sees_a_state_that_is_incomplete() -> None:
    cluster = three_nodes(log_bytes_max=2000, chunk_bytes=64, chunks_in_flight=1)
    table = filled(cluster, SA_CKPT_WR_ALL_REPLICAS)
    cluster.kill("c")
    cluster.settle()
    cluster.restart("c")
    cluster.until(lambda: cluster.serving("c"))
    reader = cluster.client("c")
    cluster.until(lambda: "c" in set(cluster.node("c").directory.find(b"x").replicas))  # type: ignore[union-attr]
    handle = reader.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    assert len(cluster.contents("c")) < 40
    cluster.until(lambda: handle.answers)
    assert len(cluster.contents("c")) == 40, (
        "an open waits until the new replica is like the others (SAF 3.5.1)"
    )
    assert len(Opened(reader, handle.answers[0]).read_all()) == 40
    assert table.read(b"k00") == b"old"
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("after_ms", [0.2, 0.6, 1.1, 2.3])
def test_a_join_begins_again_when_its_link_breaks(flags: int, after_ms: float) -> None:
    cluster = three_nodes(**SMALL)
    table = filled(cluster, flags)
    cluster.kill("c")
    cluster.settle()
    cluster.restart("c")
    cluster.until(lambda: cluster.node("c").replicas)
    for number in range(3):
        cluster.run(after_ms)
        table.begin_write(b"k%02d" % number, b"new")
        cluster.flap("a", "c")
        cluster.run(2)
    cluster.check()
    assert cluster.in_sync("a") == ["a", "b", "c"]
    assert cluster.contents("c") == cluster.contents("a")


@pytest.mark.parametrize("flags", KINDS)
def test_a_join_begins_again_at_the_new_active_replica_when_the_old_one_dies(flags: int) -> None:
    cluster = three_nodes(**SMALL)
    table = filled(cluster, flags)
    cluster.kill("c")
    cluster.settle()
    cluster.restart("c")
    cluster.until(lambda: cluster.node("c").replicas)
    cluster.run(0.6)
    assert cluster.in_sync("b") == ["a", "b"]
    cluster.kill("a")
    cluster.until(lambda: cluster.in_sync("c") == ["b", "c"])
    table.client.move("c")
    assert len(table.read_all()) == 40
    cluster.restart("a")
    cluster.check()


def test_a_joining_replica_does_not_become_active_while_the_one_in_sync_is_only_cut_off() -> None:
    """R2: half a copy never serves; the checkpoint is unavailable until its holder is back, and then whole."""
    cluster = three_nodes(replicas=1, **SMALL)
    table = filled(cluster, SA_CKPT_WR_ALL_REPLICAS)
    other = cluster.client("b").open_existing()
    cluster.cut("a", "bc")
    cluster.run(2500)
    call = other.begin_read(b"k00")
    cluster.run(1500)
    assert call.code == 6, call.answers
    assert cluster.active() is None
    cluster.heal()
    cluster.settle()
    assert other.read(b"k00") == b"old"
    table.client.move("a")
    assert len(table.read_all()) == 40
    cluster.check()


def lagging(next_active: str = "d") -> tuple[Cluster, bytes]:
    """An async checkpoint, active at c, with b behind it and d just rebuilt by chunks; who is next in turn.

    d holds the sections and no updates that led to them: it cannot bring b up to date by those.
    """
    cluster = nodes("abcd", replicas=4, **SMALL)
    client = cluster.client("c")
    name = b"x"
    table = client.open(name, SA_CKPT_WR_ACTIVE_REPLICA)
    while "abd"[table.creation_id % 3] != next_active:
        name += b"x"
        table = client.open(name, SA_CKPT_WR_ACTIVE_REPLICA)
    for number in range(30):
        table.write(b"k%02d" % number, b"old")
        cluster.run(2)
    cluster.kill("d")
    cluster.settle()
    cluster.hold("c", "b")
    table.write(b"k00", b"new")
    cluster.restart("d")
    cluster.settle()
    assert not cluster.replica("d", name).log.entries, "it was rebuilt by chunks"
    assert cluster.replica("b", name).last_seq < cluster.replica("d", name).last_seq
    return cluster, name


def test_a_replica_that_lags_too_far_is_rebuilt_by_its_own_word() -> None:
    """DESIGN 5.6: it leaves the in-sync set, joins, and is in it again."""
    cluster, name = lagging()
    cluster.kill("c")
    cluster.until(lambda: cluster.active(name) == "d")
    cluster.until(lambda: cluster.in_sync("a", name) == ["a", "d"])
    cluster.check()
    assert cluster.in_sync("a", name) == ["a", "b", "d"]
    assert all(cluster.contents(node_id, name)[b"k00"] == b"new" for node_id in "abd")


def test_a_join_that_overtakes_the_news_of_its_drop_is_not_forgotten() -> None:
    """The one that is rebuilt hears of its leave from the coordinator before the active replica does."""
    cluster, name = lagging()
    cluster.kill("c")
    cluster.until(lambda: cluster.active(name) == "d")
    cluster.until(lambda: cluster.replica("b", name).dropped)
    cluster.until(lambda: cluster.node("a").order.staged is not None)
    cluster.hold("a", "d")  # The commit comes late.
    cluster.until(lambda: cluster.in_sync("b", name) == ["a", "d"])
    cluster.run(2)
    cluster.release("a", "d")
    cluster.check()
    assert cluster.in_sync("a", name) == ["a", "b", "d"]


def test_a_replica_that_lags_keeps_what_it_holds_until_its_leave_is_granted() -> None:
    """Else the death of the more advanced ones in that moment would lose the checkpoint, not its tail."""
    cluster, name = lagging()
    cluster.kill("c")
    cluster.until(lambda: cluster.active(name) == "d")
    cluster.until(lambda: cluster.replica("b", name).dropped)
    assert cluster.in_sync("b", name) == ["a", "b", "d"]
    cluster.kill("a")
    cluster.kill("d")
    cluster.restart("a")
    cluster.restart("d")
    cluster.settle()
    table = cluster.client("b").open_existing(name)
    assert table.read_all() == {b"k%02d" % number: b"old" for number in range(30)}
    cluster.check()


def test_an_active_replica_whose_catching_up_breaks_off_goes_back_to_what_it_held() -> None:
    """The more advanced ones die in the middle of their chunks: half a copy would be no copy at all."""
    cluster, name = lagging(next_active="b")
    cluster.kill("c")
    cluster.until(lambda: not cluster.replica("b", name).complete)
    active = cluster.replica("b", name).active
    assert active is not None and active.fetching_from == "d"
    cluster.kill("a")
    cluster.kill("d")
    cluster.restart("a")
    cluster.restart("d")
    cluster.settle()
    table = cluster.client("b").open_existing(name)
    assert table.read_all() == {b"k%02d" % number: b"old" for number in range(30)}
    table.write(b"k00", b"newer")
    cluster.check()
    assert cluster.contents("a", name) == cluster.contents("b", name)


def test_catching_up_begins_again_when_its_link_breaks() -> None:
    cluster, name = lagging(next_active="b")
    cluster.kill("c")
    cluster.until(lambda: not cluster.replica("b", name).complete)
    cluster.flap("b", "d")
    cluster.check()
    assert cluster.active(name) == "b"
    assert all(cluster.contents(node_id, name)[b"k00"] == b"new" for node_id in "abd")
