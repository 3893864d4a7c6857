"""The operator's word: each says what it did and what that can lose; none does anything to a cluster that serves."""

import pytest
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes

from ckpt_protocol.codes import BAD_OPERATION, INVALID_PARAM, NOT_EXIST, OK
from ckptd.core.silence import LOSS_EPOCHS


def blocked_pair() -> Cluster:
    """b is blocked: a, which coordinates, fell silent; x holds k=v on both."""
    cluster = two_nodes()
    cluster.client("b").open().write(b"k", b"v")
    cluster.kill("a", silent=True)
    cluster.run(3000)
    assert not cluster.serving("b")
    return cluster


@pytest.mark.parametrize("said", [("accept-loss", "a"), ("force-active",)])
def test_a_blocked_node_of_a_pair_goes_on_when_the_operator_says_so(said: tuple[str, ...]) -> None:
    cluster = blocked_pair()
    answer = cluster.operate("b", *said)
    assert answer.code == OK and "quarantine" in answer.payload
    table = cluster.client("b").open_existing()
    table.write(b"k", b"w")
    assert cluster.node("b").view.epoch > LOSS_EPOCHS  # type: ignore[union-attr]
    assert cluster.node("b").context.counters["losses_accepted"] == 1
    cluster.restart("a")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"w"}


def test_what_the_given_up_side_had_acknowledged_goes_to_quarantine_when_it_comes_back() -> None:
    cluster = two_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.run(3000)
    table.write(b"k", b"by a alone")
    cluster.may_have_two_actives = True
    assert cluster.operate("b", "accept-loss", "a").code == OK
    cluster.until(lambda: cluster.serving("b"))
    cluster.client("b").open_existing().write(b"k", b"by b alone")
    cluster.heal()
    cluster.check()
    assert cluster.contents("a") == cluster.contents("b") == {b"k": b"by b alone"}
    assert [node_id for node_id, content in cluster.quarantined if b"by a alone" in content] == ["a"]


def test_a_minority_goes_on_when_the_operator_forces_it() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.kill("b", silent=True)
    cluster.kill("c", silent=True)
    cluster.run(3000)
    assert not cluster.serving("a")
    assert cluster.operate("a", "accept-loss", "b").code == OK
    cluster.run(2000)
    assert not cluster.serving("a"), "a dead node does not vote: only force-active overrides the arbiter"
    assert cluster.operate("a", "force-active").code == OK
    cluster.until(lambda: cluster.serving("a"))
    table.write(b"k", b"w")
    cluster.restart("b")
    cluster.restart("c")
    cluster.check()
    assert cluster.contents("c") == {b"k": b"w"}


def test_a_cold_start_with_a_node_missing_is_made_when_the_operator_says_so() -> None:
    """The missing one was a member of the last view: it may hold what clients were promised."""
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    for node_id in "abc":
        cluster.kill(node_id, silent=True)
    cluster.run(2000)
    cluster.restart("a")
    cluster.restart("b")
    cluster.run(3000)
    assert not cluster.serving("a")
    assert "last view" in cluster.node("a").membership.describe_wait()
    answer = cluster.operate("b", "bootstrap")
    assert answer.code == OK and "a new history" in answer.payload
    cluster.settle()
    assert cluster.node("a").directory.checkpoints == {}
    cluster.restart("c")
    cluster.check()


def test_a_cold_start_goes_on_when_the_missing_node_counts_as_dead() -> None:
    cluster = three_nodes()
    for node_id in "abc":
        cluster.kill(node_id, silent=True)
    cluster.run(2000)
    cluster.restart("a")
    cluster.restart("b")
    cluster.run(3000)
    assert not cluster.serving("a")
    assert cluster.operate("b", "accept-loss", "c").code == OK, "the others learn of it by heartbeats"
    cluster.settle()


def test_one_node_of_three_that_is_left_is_bootstrapped_alone() -> None:
    cluster = Cluster("abc")
    cluster.start("b")
    cluster.run(3000)
    assert not cluster.serving("b")
    assert cluster.operate("b", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("b"))
    cluster.client("b").open().write(b"k", b"v")
    cluster.start("a", "c")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"v"}


def test_a_checkpoint_that_waits_for_a_node_is_given_up_with_that_node() -> None:
    cluster = nodes("abcde", replicas=2)
    table = cluster.client("e").open()
    table.write(b"k", b"v")
    kept = cluster.in_sync("a")
    others = [node_id for node_id in "abcde" if node_id not in kept]
    for node_id in kept:
        cluster.kill(node_id, silent=True)
    cluster.until(lambda: cluster.node(others[0]).view.members.keys() == set(others), 30_000)  # type: ignore[union-attr]
    cluster.run(1000)
    entry = cluster.node(others[0]).directory.find(b"x")
    assert entry is not None and sorted(entry.holders) == kept
    for node_id in kept:
        assert cluster.operate(others[1], "accept-loss", node_id).code == OK
    cluster.until(lambda: cluster.node(others[0]).directory.find(b"x") is None)


@pytest.mark.parametrize("said", [("bootstrap",), ("force-active",), ("accept-loss", "b")])
def test_nothing_is_forced_on_a_cluster_that_serves(said: tuple[str, ...]) -> None:
    cluster = three_nodes()
    epoch = cluster.node("a").view.epoch  # type: ignore[union-attr]
    assert cluster.operate("a", *said).code == BAD_OPERATION
    cluster.check()
    assert cluster.node("a").view.epoch == epoch  # type: ignore[union-attr]


def test_a_node_that_holds_data_is_not_bootstrapped_and_one_without_is_not_forced() -> None:
    cluster = blocked_pair()
    assert cluster.operate("b", "bootstrap").code == BAD_OPERATION
    fresh = Cluster("ab")
    fresh.start("a")
    fresh.run(1000)
    assert fresh.operate("a", "force-active").code == BAD_OPERATION


def test_a_word_that_is_none_is_refused() -> None:
    cluster = two_nodes()
    for said in (("obey",), ("drain", "b"), ("accept-loss",)):
        assert cluster.operate("a", *said).code == INVALID_PARAM
    assert cluster.operate("a", "accept-loss", "z").code == NOT_EXIST


def test_a_drained_node_has_handed_over_when_the_operator_gets_the_answer() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    answer = cluster.operate("a", "drain")
    assert answer.code == OK and "handed over" in answer.payload
    cluster.run(5)
    assert cluster.left == ["a"]
    assert table.read(b"k") == b"v"
    cluster.check()


def test_what_goes_on_without_a_lost_holder_is_rebuilt_elsewhere() -> None:
    cluster = nodes("abcde", replicas=2)
    cluster.client("e").open().write(b"k", b"v")
    first, second = cluster.in_sync("a")
    others = "".join(node_id for node_id in "abcde" if node_id not in (first, second))
    cluster.cut(first + second, others)
    cluster.run(2500)
    cluster.kill(second, silent=True)
    cluster.heal()
    cluster.until(lambda: first in cluster.node(others[0]).view.members)  # type: ignore[union-attr]
    cluster.run(1000)
    assert cluster.operate(others[0], "accept-loss", second).code == OK
    cluster.until(lambda: len(cluster.in_sync(others[0])) == 2)
    cluster.restart(second)
    cluster.check()
