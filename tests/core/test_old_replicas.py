"""R2: a node with a complete copy of an earlier stay. It counts for nothing, and saves what it can of a join."""

import pytest
from tests.core.client import Client
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.codes import BAD_HANDLE, NOT_EXIST, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.messages import Kind

SYNC = SA_CKPT_WR_ALL_REPLICAS
KINDS = (SYNC, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)


def epoch(cluster: Cluster, node_id: str) -> int:
    return cluster.node(node_id).context.epoch


def with_an_old_copy(cluster: Cluster, flags: int = SYNC) -> Client:
    """c holds all of a checkpoint, and the others went on without it: since then k is new. A client at c."""
    reader = cluster.client("c")
    table = cluster.client("a").open(flags=flags)
    table.write(b"k", b"old")
    cluster.run(50)
    cluster.cut("c", "ab")
    cluster.run(2500)
    table.write(b"k", b"new")
    cluster.run(50)
    assert cluster.contents("c") == {b"k": b"old"} and cluster.replica("c").complete
    return reader


def until_decided(cluster: Cluster) -> None:
    """Everything is healed, and the view in which c is a member again is decided; it is not installed."""
    before = epoch(cluster, "a")
    cluster.heal()
    cluster.until(lambda: cluster.node("a").reconfiguration.decided.epoch > before)  # type: ignore[union-attr]


# -- its directory


def hold_back(cluster: Cluster) -> None:
    """From now on nothing comes to c but heartbeats."""
    for node_id in "ab":
        cluster.hold(node_id, "c")


def test_an_old_directory_counts_for_nothing_while_a_node_that_continued_is_only_silent() -> None:
    """With a restarted node it would be a majority, and all that they know is of its earlier stay."""
    cluster = three_nodes()
    reader = with_an_old_copy(cluster)
    hold_back(cluster)
    until_decided(cluster)
    cluster.kill("a")
    cluster.cut("b", "ac")
    cluster.restart("a")
    cluster.run(5000)
    assert not cluster.serving("a") and not cluster.serving("c")
    waits = {cluster.node(node_id).reconfiguration.describe_wait() for node_id in "ac"}
    assert any(wait.startswith("a member that has the directory") for wait in waits), waits
    cluster.holds.clear()
    cluster.heal()
    cluster.settle()
    assert reader.open_existing().read(b"k") == b"new"
    cluster.check()


def test_an_old_directory_counts_for_nothing_when_all_nodes_that_continued_are_dead() -> None:
    """The checkpoint is lost; what is left of it goes to quarantine and not to readers."""
    cluster = three_nodes()
    reader = with_an_old_copy(cluster)
    hold_back(cluster)
    until_decided(cluster)
    for node_id in "ab":
        cluster.kill(node_id)
    cluster.run(3000)
    assert not cluster.serving("c")
    for node_id in "ab":
        cluster.restart(node_id)
    cluster.settle()
    assert reader.try_open().code in (BAD_HANDLE, NOT_EXIST)
    assert cluster.client("c").try_open().code == NOT_EXIST
    assert [(node_id, b"old" in content) for node_id, content in cluster.quarantined] == [("c", True)]
    cluster.check()


# -- its replica


def installed_not_joined(cluster: Cluster) -> None:
    """c is a member again and knows the directory; what would bring its copy up to date does not come."""
    before = epoch(cluster, "a")
    cluster.heal()
    cluster.until(lambda: epoch(cluster, "c") > before)
    hold_back(cluster)
    cluster.run(2)
    assert cluster.in_sync("c") == ["a", "b"]
    assert cluster.contents("c") == {b"k": b"old"} and cluster.replica("c").complete


@pytest.mark.parametrize("flags", KINDS)
def test_an_old_replica_is_not_served_when_its_node_is_a_member_again_and_the_nodes_that_continued_die(
    flags: int,
) -> None:
    cluster = three_nodes()
    reader = with_an_old_copy(cluster, flags)
    installed_not_joined(cluster)
    for node_id in "ab":
        cluster.kill(node_id)
        cluster.restart(node_id)
    cluster.settle()
    assert reader.try_open().code == NOT_EXIST
    cluster.run(12_000)
    assert [(node_id, b"old" in content) for node_id, content in cluster.quarantined] == [("c", True)]
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_an_old_replica_does_not_become_active_while_the_nodes_that_continued_are_cut_off(flags: int) -> None:
    """It is whole, and its side has the majority: the checkpoint waits for its holders all the same."""
    cluster = nodes("abcde", replicas=2)
    table = cluster.client("a").open(flags=flags)
    table.write(b"k", b"old")
    cluster.run(50)
    assert cluster.in_sync("a") == ["a", "b"]
    reader = cluster.client("e").open_existing()
    cluster.cut("b", "acde")
    cluster.until(lambda: cluster.in_sync("a") == ["a", "c"])
    table.write(b"k", b"new")
    cluster.run(50)
    cluster.heal()
    cluster.settle()
    assert cluster.contents("b") == {b"k": b"old"}, "it is kept for a join for some seconds"
    cluster.cut("ac", "bde")
    cluster.run(3000)
    call = reader.begin_read(b"k")
    cluster.run(1500)
    assert all(cluster.serving(node_id) for node_id in "bde")
    assert cluster.active() is None and call.code == TRY_AGAIN
    cluster.heal()
    cluster.settle()
    assert cluster.client("b").open_existing().read(b"k") == b"new"
    cluster.check()


# -- what it is good for


@pytest.mark.parametrize("away", ["c", "de"])
def test_an_old_replica_is_brought_up_to_date_by_what_it_missed_and_not_rebuilt(away: str) -> None:
    """Where somebody opens the checkpoint just then, or a second node returns with the first."""
    names = "abcde" if away == "de" else "abc"
    cluster = nodes(names, replicas=len(names))
    table = cluster.client("a").open()
    for number in range(20):
        table.write(b"k%02d" % number, b"old")
    opener = cluster.client("a")
    for node_id in away:
        cluster.cut(node_id, names.replace(node_id, ""))
    cluster.run(3000)
    table.write(b"k00", b"missed")
    cluster.sent.clear()
    until_decided(cluster)
    if away == "c":
        opener.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.check()
    sent = {node_id: cluster.kinds_sent("a", node_id, table.creation_id) for node_id in away}
    assert all(cluster.contents(node_id) == cluster.contents("a") for node_id in away)
    assert [kinds.count(Kind.REPLICATE) for kinds in sent.values()] == [1] * len(away)
    assert cluster.quarantined == [], "nothing was lost"


def test_replicas_from_which_others_continued_are_not_quarantined() -> None:
    """Another node took its place while it was cut off: what a sync copy held, and was acknowledged, they have."""
    cluster = nodes("abcd")
    client = cluster.client("d")
    for number in range(8):
        client.open(b"n%d" % number).write(b"k", b"v")
    cluster.cut("d", "abc")
    cluster.run(2500)
    cluster.heal()
    cluster.settle()
    cluster.run(12_000)
    assert cluster.quarantined == []
    assert set(cluster.node("d").replicas) == {
        entry.creation_id
        for entry in cluster.node("d").directory.checkpoints.values()
        if "d" in entry.replicas
    }


def test_a_replica_goes_to_quarantine_if_its_checkpoint_was_lost_in_a_view_that_its_node_never_ran() -> None:
    """Nothing told that node of the loss: in the next view the checkpoint was not there (seed 7013035)."""
    cluster = nodes("abcde")
    flags = SYNC | SA_CKPT_CHECKPOINT_COLLOCATED
    cluster.client("c").open(flags=flags).write(b"k", b"v")
    cluster.client("b").begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.until(lambda: len(cluster.node("b").replicas) == 1)
    cluster.hold("b", "a")  # It never says that its copy is in sync.
    cluster.until(lambda: cluster.contents("b") == {b"k": b"v"} and cluster.replica("b").complete)
    first = epoch(cluster, "a")
    cluster.hold_disk("b")  # It installs nothing.
    cluster.kill("c")
    cluster.until(lambda: cluster.node("a").reconfiguration.decided.epoch > first)  # type: ignore[union-attr]
    cluster.release("b", "a")
    cluster.until(lambda: epoch(cluster, "a") > first)
    cluster.restart("c")
    cluster.until(lambda: epoch(cluster, "a") > first + 1)
    assert cluster.node("a").directory.checkpoints == {}
    cluster.kill("e")
    cluster.until(lambda: epoch(cluster, "a") > first + 2)
    cluster.release_disk("b")
    cluster.until(lambda: epoch(cluster, "b") > first)
    assert epoch(cluster, "b") == epoch(cluster, "a")
    cluster.settle()
    cluster.run(12_000)
    assert cluster.node("b").replicas == {}
    assert [(node_id, content.count(b"v")) for node_id, content in cluster.quarantined] == [("b", 1)]


# -- while it is brought up to date


def in_the_middle_of_a_join(flags: int) -> tuple[Cluster, Client]:
    """c has the first chunk of what it missed, which kept most of its copy; the rest is under way."""
    cluster = three_nodes(log_bytes_max=2000, chunk_bytes=64, chunks_in_flight=1)
    reader = cluster.client("c")
    table = cluster.client("a").open(flags=flags)
    for number in range(20):
        table.write(b"k%02d" % number, b"old")
        cluster.run(6)
    cluster.run(50)
    cluster.cut("c", "ab")
    cluster.run(2500)
    for number in range(60):
        table.write(b"new", b"%d" % number)
        cluster.run(6)
    cluster.heal()
    cluster.until(lambda: not cluster.replica("c").complete)
    assert cluster.quarantined == [], "what it holds is a beginning of what the others hold"
    return cluster, reader


@pytest.mark.parametrize("flags", KINDS)
def test_an_old_replica_goes_to_quarantine_when_the_nodes_that_bring_it_up_to_date_die(flags: int) -> None:
    """Seed 91302013: the first chunk took its place, and the others died before the second one came.

    Then nobody had anything: neither what the others had held, nor the old copy.
    """
    cluster, reader = in_the_middle_of_a_join(flags)
    for node_id in "ab":
        cluster.kill(node_id)
        cluster.restart(node_id)
    cluster.settle()
    cluster.run(12_000)
    assert reader.try_open().code == NOT_EXIST
    assert [(node_id, content.count(b"old")) for node_id, content in cluster.quarantined] == [("c", 20)]
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_a_join_that_breaks_off_begins_again_from_the_old_replica(flags: int) -> None:
    """Not from nothing: most of what it holds need not travel."""
    cluster, _ = in_the_middle_of_a_join(flags)
    cluster.sent.clear()
    cluster.flap("a", "c")
    cluster.until(lambda: cluster.replica("c").complete and not cluster.replica("c").possibly_superseded)
    to_c = b"".join(data for sender, peer, data in cluster.sent if (sender, peer) == ("a", "c"))
    assert b"59" in to_c and b"old" not in to_c
    cluster.check()
    assert cluster.contents("c") == cluster.contents("a")
    assert cluster.quarantined == []


@pytest.mark.parametrize("flags", [SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK])
def test_half_a_replica_is_no_content_to_fall_back_to(flags: int) -> None:
    """It became active in the middle of a join, and the next one, by which it catches up, breaks off as well.

    It had put the half of the first join aside, and took it for a whole copy (seed 7003856).
    """
    collocated = flags | SA_CKPT_CHECKPOINT_COLLOCATED
    cluster = three_nodes(chunk_bytes=64, chunks_in_flight=1)
    table = cluster.client("c").open(flags=collocated)
    table.set_active()
    for number in range(20):
        table.write(b"k%02d" % number, b"v")
    others = [cluster.client(node_id).open(flags=collocated) for node_id in "ab"]
    cluster.run(50)
    cluster.cut("c", "ab")
    table.begin_write(b"k00", b"lost")
    cluster.run(2500)
    others[0].set_active()
    others[0].write(b"k00", b"kept")
    cluster.heal()
    cluster.until(lambda: 3 < len(cluster.contents("c")) < 10 and not cluster.replica("c").complete)
    table.begin(Kind.ACTIVE_SET, False)
    cluster.until(lambda: cluster.replica("c").active is not None)
    cluster.until(lambda: cluster.replica("c").previous_content is not None or len(cluster.contents("c")) < 3)
    cluster.kill("b")
    before = epoch(cluster, "c")
    cluster.until(lambda: epoch(cluster, "c") > before)
    assert not cluster.replica("c").complete or len(cluster.contents("c")) == 20
    cluster.settle()
    others[0].set_active()
    cluster.run(1000)
    cluster.check()
    assert cluster.contents("c") == cluster.contents("a")
    assert others[0].read(b"k00") == b"kept"
