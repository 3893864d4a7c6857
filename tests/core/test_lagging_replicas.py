"""Async replicas that lag behind after a fail-over: caught up with, or rebuilt by their own word (rules 5.6)."""

import pytest
from tests.core.client import READ_WRITE
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes

from ckpt_protocol.codes import NOT_EXIST
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
)
from ckpt_protocol.messages import Kind
from ckptd.core.settings import MILLISECOND_NS


def lagging(next_active: str = "d") -> tuple[Cluster, bytes]:
    """An async checkpoint, active at c, with b behind it and d just rebuilt by chunks; who is next in turn.

    d holds the sections and no updates that led to them: it cannot bring b up to date by those.
    """
    cluster = nodes("abcd", replicas=4, log_bytes_max=2000, chunk_bytes=200, chunks_in_flight=2)
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
    """rules 5.6: it leaves the in-sync set, joins, and is in it again."""
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
    cluster.until(lambda: cluster.replica("b", name).ignores_updates)
    cluster.until(lambda: cluster.node("a").replicator.in_flight is not None)
    cluster.hold("a", "d")  # The commit comes late.
    cluster.until(lambda: cluster.in_sync("b", name) == ["a", "d"])
    cluster.run(2)
    cluster.release("a", "d")
    cluster.check()
    assert cluster.in_sync("a", name) == ["a", "b", "d"]


def test_updates_that_cross_a_join_do_not_begin_it_again() -> None:
    """Two joins at a time told it twice to keep what it held: it kept less, and was called in sync."""
    cluster, name = lagging()
    table = cluster.client("a").open_existing(name)
    far = cluster.client("d").open_existing(name)
    cluster.kill("c")
    cluster.until(lambda: cluster.active(name) == "d")
    cluster.sent.clear()
    for number in range(300):
        (table, far)[number % 2].begin_write(b"k%02d" % (number % 7), b"%d" % number)
        cluster.run(0.011)
    cluster.check()
    assert cluster.kinds_sent("b", "d", table.creation_id).count(Kind.JOIN) == 1
    assert cluster.contents("b", name) == cluster.contents("d", name)


def test_a_replica_that_lags_keeps_what_it_holds_until_its_leave_is_granted() -> None:
    """Else the death of the more advanced ones in that moment would lose the checkpoint, not its tail."""
    cluster, name = lagging()
    cluster.kill("c")
    cluster.until(lambda: cluster.active(name) == "d")
    cluster.until(lambda: cluster.replica("b", name).ignores_updates)
    assert cluster.in_sync("b", name) == ["a", "b", "d"]
    cluster.kill("a")
    cluster.kill("d")
    cluster.restart("a")
    cluster.restart("d")
    cluster.settle()
    table = cluster.client("b").open_existing(name)
    assert table.read_all() == {b"k%02d" % number: b"old" for number in range(30)}
    cluster.check()


def test_a_replica_that_lags_goes_to_quarantine_when_those_that_were_ahead_die() -> None:
    """It had left the in-sync set, so the checkpoint is lost with them; what it still holds is not."""
    cluster, name = lagging()
    cluster.kill("c")
    cluster.until(lambda: cluster.in_sync("b", name) == ["a", "d"])
    cluster.kill("a")
    cluster.kill("d")
    cluster.restart("a")
    cluster.restart("d")
    cluster.settle()
    assert cluster.client("b").try_open(name).code == NOT_EXIST
    assert [(node_id, content.count(b"old")) for node_id, content in cluster.quarantined] == [("b", 30)]
    cluster.check()


def test_an_active_replica_whose_catching_up_breaks_off_goes_back_to_what_it_held() -> None:
    """The more advanced ones die in the middle of their chunks: half a copy would be no copy at all."""
    cluster, name = lagging(next_active="b")
    cluster.kill("c")
    cluster.until(lambda: not cluster.replica("b", name).complete)
    active = cluster.replica("b", name).active
    assert active is not None and active.catching_up_from == "d"
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


def test_a_lagging_replica_that_is_made_active_as_it_drops_out_catches_up_and_counts_again() -> None:
    """Seed 5220: it had just said that it cannot follow, took no updates, and waited for them for ever."""
    cluster = two_nodes()
    there = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    here = cluster.client("a").open_existing()
    there.set_active()
    cluster.settle()
    there.write(b"k", b"1")
    cluster.run(50)
    cluster.hold("b", "a")
    there.write(b"k", b"2")
    cluster.run(1)
    cluster.holds["b", "a"].clear()  # It went out as the link broke.
    there.write(b"k", b"3")
    setting = here.begin(Kind.ACTIVE_SET, False)
    cluster.run(1)
    cluster.release("b", "a")
    cluster.until(lambda: setting.code is not None)
    assert "is out of sync" in "".join(cluster.lines)
    cluster.check()
    assert cluster.active() == "a"
    assert here.read(b"k") == b"3"
    here.write(b"k", b"4")
    cluster.run(50)
    cluster.kill("b")
    assert here.read(b"k") == b"4"


def test_a_join_that_was_overtaken_by_a_report_is_forgotten() -> None:
    """Seed 30895: made active, it asked for what it lacked, and was not active any more when that was read.

    It was answered when it was made active again: two joins at one time, and half of each stayed.
    """
    settings = {"log_bytes_max": 0, "chunk_bytes": 40, "chunks_in_flight": 1}
    cluster = nodes("abc", weak_batch_ns=40 * MILLISECOND_NS, **settings)
    there = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA_WEAK | SA_CKPT_CHECKPOINT_COLLOCATED)
    here = cluster.client("c").open_existing()
    there.set_active()
    cluster.settle()
    for number in range(5):
        there.write(b"k%d" % number, b"v")
        cluster.run(60)
    there.write(b"late", b"1")
    cluster.hold("c", "b")
    first = here.begin(Kind.ACTIVE_SET, False)
    cluster.run(5)
    second = there.begin(Kind.ACTIVE_SET, False)
    cluster.run(5)
    cluster.release("c", "b")
    cluster.until(lambda: second.code is not None and first.code is not None)
    assert cluster.active() == "b"
    for number in range(30):
        there.write(b"often", b"%500d" % number)
        cluster.run(60)
    there.write(b"late", b"2")
    here.set_active()
    cluster.check()
    assert cluster.contents("c") == cluster.contents("b")
    assert len(cluster.contents("c")) == 7 and cluster.contents("c")[b"late"] == b"2"


@pytest.mark.parametrize("at", ["a", "b"])
def test_an_open_of_what_was_lost_on_the_way_is_refused(at: str) -> None:
    """It was ordered while c, which held the only replica, was a member, and finished in the view without c."""
    cluster = three_nodes(replicas=1)
    cluster.client("c").open().write(b"k", b"v")
    client = cluster.client(at)
    cluster.run(60)
    cluster.hold("c", "a")
    call = client.begin(Kind.OPEN, 0, [b"x", READ_WRITE, None, False])
    cluster.run(1)
    cluster.kill("c")
    cluster.until(lambda: call.answers)
    assert call.code == NOT_EXIST
    assert cluster.node(at).directory.find(b"x") is None
