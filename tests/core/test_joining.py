"""Replicas that join: missed updates, differing sections, or all of it, while writes go on (rules 5.7)."""

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
from ckpt_protocol.messages import Kind, Op

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
SMALL: dict[str, Any] = {"log_bytes_max": 2000, "chunk_bytes": 200, "chunks_in_flight": 2}
"""The log is soon forgotten, so that a join takes chunks, and many of them."""


def filled(cluster: Cluster, flags: int, sections: int = 40) -> Opened:
    """A checkpoint with its active replica at a and something in it."""
    table = cluster.client("a").open(flags=flags)
    for number in range(sections):
        table.write(b"k%02d" % number, b"old")
        cluster.run(6)  # More than a weak batch takes, so that each is an update of its own.
    cluster.run(20)
    return table


@pytest.mark.parametrize("flags", KINDS)
def test_a_restarted_node_is_rebuilt_whole_in_chunks_while_writes_continue(flags: int) -> None:
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
    assert cluster.kinds_sent("a", "c", table.creation_id).count(Kind.CHUNK) > 3
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
    sent = cluster.kinds_sent("a", "c", table.creation_id)
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
    assert not cluster.replica("a").log.holds_since(cluster.replica("c").last_seq)
    cluster.sent.clear()
    cluster.heal()
    cluster.check()
    assert Kind.CHUNK in cluster.kinds_sent("a", "c", table.creation_id)
    to_c = sum(len(data) for sender, peer, data in cluster.sent if (sender, peer) == ("a", "c"))
    assert to_c < 4000, "the large section did not change"
    assert cluster.contents("c") == cluster.contents("a")
    assert b"k02" not in cluster.contents("c")
    assert cluster.quarantined == []


def test_a_tail_without_which_the_cluster_continued_goes_to_quarantine() -> None:
    """Nothing is lost in silence, and no two histories are merged (rules 6)."""
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


def test_a_replica_that_joined_shows_nothing_that_is_pending() -> None:
    """Its chunks showed an update that another replica does not have yet: it reads on its own only after that."""
    cluster = nodes("abcd", replicas=4, chunk_bytes=200, log_bytes_max=0)
    table = cluster.client("b").open()
    for number in range(20):
        table.write(b"k%02d" % number, b"old")
    cluster.kill("d")
    cluster.hold("d", "b")
    cluster.restart("d")
    cluster.until(
        lambda: all(node.view is not None and len(node.view.members) == 4 for node in cluster.running())
    )
    cluster.until(lambda: cluster.serving("d"))
    moves, stays = cluster.client("a"), cluster.client("a")
    readers = [moves.open(), stays.open()]
    moves.move("d")
    cluster.hold("b", "c")
    call = table.begin_write(b"k00", b"new")
    cluster.run(5)
    cluster.release("d", "b")
    cluster.until(lambda: len(cluster.contents("d")) == 20)
    cluster.run(50)
    assert call.code is None
    assert [reader.read(b"k00") for reader in readers] == [b"old", b"old"]
    cluster.release("b", "c")
    cluster.check()
    assert call.code == OK
    assert [reader.read(b"k00") for reader in readers] == [b"new", b"new"]


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


@pytest.mark.parametrize("deleted", [False, True])
def test_a_replica_that_is_not_wanted_back_goes_to_quarantine_with_what_only_it_had(deleted: bool) -> None:
    """Seen in a scenario: another node had taken its place, and ten seconds later it was gone without a word."""
    cluster = nodes("abcde")
    client = cluster.client("b")
    table = client.open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    table.write(b"k", b"of all")
    assert cluster.active() == "b"
    cluster.run(50)
    cluster.cut("b", "acde")
    assert table.try_write(b"k", b"of b alone").code == OK
    cluster.run(3000)
    other = cluster.client("c").open_existing()
    assert other.read(b"k") == b"of all"
    assert "b" not in cluster.in_sync("c")
    if deleted:
        other.close()
        cluster.client("c").unlink()
    cluster.heal()
    cluster.settle()
    cluster.run(12_000)
    cluster.check()
    assert [node_id for node_id, content in cluster.quarantined if b"of b alone" in content] == ["b"]
    assert not any(b"of all" in content for _, content in cluster.quarantined if b"of b alone" not in content)


def test_what_a_joining_replica_has_acknowledged_is_in_force_when_it_learns_that_it_joined() -> None:
    """JOINED took its acknowledgement back to what was committed: a write hung, and it was put out for that."""
    cluster = three_nodes(chunk_bytes=200, log_bytes_max=100)
    table = cluster.client("a").open()
    for number in range(60):
        table.write(b"s%d" % number, bytes(100))
    assert cluster.active() == "a"
    cluster.kill("c")
    cluster.settle()
    cluster.restart("c")
    cluster.until(lambda: "c" in cluster.replica("a").resync_senders)
    cluster.hold("b", "a")
    first = table.begin_write(b"k", b"1")
    cluster.run(20)
    second = table.begin_write(b"k", b"2")
    cluster.run(5)
    cluster.release("b", "a")
    cluster.run(20)
    assert (first.code, second.code) == (OK, OK)
    cluster.check()
