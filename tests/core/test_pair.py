"""Two nodes, no third: the coordinator's side goes on, the other waits for proof of its death (rules 6, R1, R3)."""

import pytest
from tests.core.cluster import two_nodes

from ckpt_protocol.codes import NOT_EXIST, TRY_AGAIN


def test_the_coordinator_of_a_pair_continues_alone_and_the_other_one_blocks() -> None:
    cluster = two_nodes()
    table = cluster.client("b").open()
    other = cluster.client("a").open_existing()
    table.write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.run(3000)
    assert cluster.active() == "a", "an active replica on the blocked side moves to the coordinator's"
    assert not cluster.serving("b")
    assert "coordinator a" in cluster.node("b").reconfiguration.describe_wait()
    other.write(b"k", b"w")
    call = table.begin_read(b"k")
    cluster.run(1100)
    assert call.code == TRY_AGAIN
    cluster.heal()
    cluster.settle()
    assert table.read(b"k") == b"w"
    cluster.check()


def test_the_other_one_of_a_pair_continues_when_the_coordinator_is_proved_dead() -> None:
    cluster = two_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.kill("a")
    table.write(b"k", b"w")
    cluster.restart("a")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"w"}


@pytest.mark.parametrize("silent", [True, False])
def test_a_pairs_silence_or_an_old_refusal_promotes_no_node(silent: bool) -> None:
    """R1: a refused connection proves a death only if the lost one's lease on us was fresh."""
    cluster = two_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.run(5000)
    cluster.kill("a", silent=silent)
    cluster.cuts.clear()
    cluster.run(5000)
    assert not cluster.serving("b")
    assert "coordinator a" in cluster.node("b").reconfiguration.describe_wait()


def test_a_restarted_coordinator_that_continued_alone_stops_the_other_from_promoting() -> None:
    """R3: the epoch on its disk is above ours. Its newer data died with it, and ours is not served in its place."""
    cluster = two_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.run(3000)
    table.write(b"k", b"w")
    cluster.kill("a")
    cluster.heal()
    cluster.restart("a")
    cluster.settle()
    assert cluster.client("b").try_open().code == NOT_EXIST
    assert [node_id for node_id, _ in cluster.quarantined] == ["b"]
    cluster.check()


def test_a_restarted_coordinator_that_did_not_continue_alone_lets_the_other_promote() -> None:
    cluster = two_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.run(300)
    cluster.kill("a")
    cluster.heal()
    cluster.restart("a")
    cluster.settle()
    assert table.read(b"k") == b"v"
    cluster.check()
    assert cluster.contents("a") == {b"k": b"v"}


def test_a_view_that_the_dead_coordinator_had_decided_does_not_meet_that_of_its_successor() -> None:
    """Seed 418: both had one epoch. The successor served in its own, and went by the other.

    The dead one had decided to go on alone, and died while it waited for the end of a lease. Its
    next start told of that view while the successor's disk was writing.
    """
    cluster = two_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.hold("b", "a")
    table.begin_write(b"j", b"pending")
    cluster.until(lambda: list(cluster.node("a").reconfiguration.decided.members) == ["a"])  # type: ignore[union-attr]
    cluster.hosts["b"].disk.full = True
    cluster.kill("a")
    cluster.holds.clear()
    cluster.run(1)
    cluster.restart("a")
    cluster.run(10)
    assert cluster.node("b").store.failing
    cluster.hosts["b"].disk.full = False
    cluster.check()
    assert cluster.contents("a")[b"k"] == cluster.contents("b")[b"k"] == b"v"
