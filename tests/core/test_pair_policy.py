"""`on_silent_peer`: what a pair does when one of both is silent, and what a lost state directory does to it."""

import pytest
from tests.core.cluster import Cluster, two_nodes

from ckpt_protocol.codes import TRY_AGAIN
from ckptd.core.membership.pair_policy import FENCE_AGAIN_NS
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS


def written_pair(**settings: object) -> Cluster:
    """a coordinates; x holds k=v on both."""
    cluster = two_nodes(**settings)
    cluster.client("b").open().write(b"k", b"v")
    return cluster


def cut_off(cluster: Cluster) -> None:
    """The two do not hear each other, for long."""
    cluster.cut("a", "b")
    cluster.run(3000)


# -- block


def test_neither_continues_without_proof_under_block() -> None:
    cluster = written_pair(on_silent_peer="block")
    cut_off(cluster)
    assert not cluster.serving("a") and not cluster.serving("b")
    assert "on_silent_peer is block" in cluster.node("a").reconfiguration.describe_wait()
    cluster.heal()
    cluster.check()
    assert cluster.contents("a") == cluster.contents("b") == {b"k": b"v"}


def test_under_block_the_survivor_of_a_proved_death_continues_whichever_died() -> None:
    for dead, survivor in (("a", "b"), ("b", "a")):
        cluster = written_pair(on_silent_peer="block")
        table = cluster.client(survivor).open_existing()
        cluster.kill(dead)
        table.write(b"k", b"w")
        cluster.restart(dead)
        cluster.check()


def test_under_block_a_planned_leave_is_succeeded() -> None:
    cluster = written_pair(on_silent_peer="block")
    table = cluster.client("b").open_existing()
    cluster.leave("a")
    cluster.until(lambda: "a" in cluster.left)
    table.write(b"k", b"w")


# -- fence


def test_a_fence_hook_that_succeeds_lets_the_other_continue_and_the_log_names_what_that_can_lose() -> None:
    cluster = written_pair(on_silent_peer="fence")
    table = cluster.client("b").open_existing()
    cluster.kill("a", silent=True)
    cluster.until(lambda: cluster.fences)
    assert cluster.fences == [("b", "a")]
    cluster.run(2000)
    assert not cluster.serving("b"), "it waits for the hook's end"
    cluster.end_fence("b")
    table.write(b"k", b"w")
    assert any("without proof that coordinator a is dead" in line for line in cluster.lines)
    node = cluster.node("b")
    assert node.context.counters["losses_accepted"] == 1
    assert node.view is not None and node.view.epoch > EPOCH_JUMP_DATA_LOSS


def test_a_fence_hook_that_fails_is_run_again_and_promotes_no_node() -> None:
    cluster = written_pair(on_silent_peer="fence")
    cluster.kill("a", silent=True)
    cluster.until(lambda: cluster.fences)
    cluster.end_fence("b", fenced=False)
    cluster.run(FENCE_AGAIN_NS / 1e6 - 1000)
    assert len(cluster.fences) == 1
    assert not cluster.serving("b")
    cluster.run(2000)
    assert len(cluster.fences) == 2


def test_a_fence_hook_that_ends_when_the_coordinators_heartbeats_arrive_again_counts_for_nothing() -> None:
    cluster = written_pair(on_silent_peer="fence")
    cut_off(cluster)
    cluster.heal()
    cluster.run(100)
    cluster.end_fence("b")
    cluster.check()
    assert cluster.node("b").view.coordinator == "a"  # type: ignore[union-attr]
    assert "losses_accepted" not in cluster.node("b").context.counters


def test_the_coordinators_side_continues_alone_under_fence_as_under_keep_active() -> None:
    cluster = written_pair(on_silent_peer="fence")
    cluster.kill("b", silent=True)
    cluster.run(3000)
    assert cluster.serving("a")
    assert cluster.fences == []


# -- promote


def test_under_promote_the_other_continues_after_its_grace() -> None:
    cluster = written_pair(on_silent_peer="promote")
    table = cluster.client("b").open_existing()
    cluster.kill("a", silent=True)
    table.write(b"k", b"w")
    assert cluster.node("b").context.counters["losses_accepted"] == 1


def test_when_promoted_sides_meet_one_wins_and_what_the_other_had_goes_to_quarantine() -> None:
    """Both went on: a in epoch 2, b a thousand epochs higher. The higher one is the cluster's history."""
    cluster = written_pair(on_silent_peer="promote")
    mine, theirs = cluster.client("a").open_existing(), cluster.client("b").open_existing()
    cluster.may_have_two_actives = True  # That is what `promote` says that it can do.
    cluster.cut("a", "b")
    for node_id in "ab":
        cluster.until(lambda node_id=node_id: len(cluster.node(node_id).view.members) == 1)
    mine.write(b"only a", b"1")
    theirs.write(b"only b", b"1")
    cluster.heal()
    cluster.check()
    assert cluster.contents("a") == cluster.contents("b") == {b"k": b"v", b"only b": b"1"}
    (node_id, content) = cluster.quarantined[0]
    assert node_id == "a" and b"only a" in content


# -- proof that is none


def test_a_coordinator_whose_restart_is_noticed_at_once_cannot_have_gone_on_alone() -> None:
    """Its disk is lost, so that says nothing; but our lease on it was fresh when it died."""
    cluster = written_pair()
    table = cluster.client("b").open_existing()
    cluster.kill("a", silent=True)
    cluster.lose_disk("a")
    cluster.run(50)
    cluster.restart("a")
    table.write(b"k", b"w")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"w"}


def test_a_coordinator_that_lost_its_state_directory_is_no_proof_after_a_silence() -> None:
    """R1, R3: it may have gone on alone, and its disk, which would tell, is gone. Nobody guesses."""
    cluster = written_pair()
    table = cluster.client("a").open_existing()
    cut_off(cluster)
    table.write(b"k", b"acknowledged by a alone")
    cluster.kill("a")
    cluster.lose_disk("a")
    cluster.heal()
    cluster.restart("a")
    cluster.run(3000)
    assert not cluster.serving("b"), "its older data would take the newer's place"
    assert "the operator" in cluster.node("b").reconfiguration.describe_wait()
    assert cluster.operate("b", "force-active").code == 1
    cluster.until(lambda: cluster.serving("b"))
    cluster.check()
    assert cluster.contents("a") == {b"k": b"v"}


@pytest.mark.parametrize("policy", ["keep-active", "block"])
def test_a_blocked_node_answers_try_again(policy: str) -> None:
    cluster = written_pair(on_silent_peer=policy)
    table = cluster.client("b").open_existing()
    cut_off(cluster)
    call = table.begin_write(b"k", b"w")
    cluster.run(1200)
    assert call.code == TRY_AGAIN


def test_a_coordinator_that_lost_its_disk_proves_nothing_by_its_second_restart_either() -> None:
    """What it was told since made its disk look as if it had always been there: older data replaced newer."""
    cluster = two_nodes()
    cluster.client("b").open().write(b"k", b"v")
    table = cluster.client("a").open_existing()
    cluster.cut("a", "b")
    cluster.run(3000)
    table.write(b"k", b"acknowledged by a alone")
    cluster.kill("a")
    cluster.lose_disk("a")
    cluster.heal()
    for _ in range(2):
        cluster.restart("a")
        cluster.run(3000)
        assert not cluster.serving("b")
        cluster.kill("a")
    cluster.restart("a")
    assert "force-active" in cluster.node("b").reconfiguration.describe_wait()


def test_a_pair_whose_first_start_was_cut_short_begins_all_the_same() -> None:
    """Its coordinator's disk tells of a view and of no installation; nobody has served, so nothing can be older."""
    cluster = Cluster("ab")
    cluster.start("a", "b")
    cluster.until(lambda: bool(cluster.hosts["a"].disk.record))
    assert cluster.node("a").view is None
    cluster.kill("a")
    cluster.restart("a")
    cluster.check()
