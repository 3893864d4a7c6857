"""Views that an operator forced, and nodes that restart while a member of such a view lives on unheard."""

from dataclasses import replace

import pytest
from tests.core.cluster import Cluster, nodes

from ckpt_protocol.codes import OK
from ckptd.core.arbiter.disk_record import parse_disk_record

ARBITERS = pytest.mark.parametrize("arbiter", ["majority", "etcd"])


def stopped(node_ids: str, arbiter: str) -> Cluster:
    """Nodes that were in one view, and that all have ended."""
    cluster = nodes(node_ids, arbiter=arbiter)
    for node_id in node_ids:
        cluster.kill(node_id)
    return cluster


def force(cluster: Cluster, at: str, others: str = "") -> None:
    """Start nodes, and have the operator bootstrap them."""
    cluster.start(at, *others)
    cluster.run(100)
    assert cluster.operate(at, "bootstrap").code == OK
    cluster.until(lambda: all(cluster.serving(node_id) for node_id in at + others))


def force_beside_an_ordinary_view(arbiter: str, survivor: str, returning: str, other: str) -> Cluster:
    """`survivor` and `returning` are bootstrapped; what they acknowledge is at `survivor`, which nobody hears.

    The last ordinary view had `returning` and `other`.
    """
    cluster = nodes("abc", arbiter=arbiter)
    cluster.kill(survivor)
    cluster.until(lambda: all(node.view and len(node.view.members) == 2 for node in cluster.running()))
    cluster.until(lambda: cluster.serving(returning))
    cluster.kill(returning)
    cluster.kill(other)
    force(cluster, survivor, returning)
    cluster.client(survivor).open().write(b"k", b"v")
    cluster.run(100)
    cluster.cut(survivor, returning + other)
    cluster.kill(returning)
    return cluster


@ARBITERS
def test_a_view_that_followed_a_forced_one_is_not_outranked_by_its_ballot(arbiter: str) -> None:
    """a's vote for the forced view has a ballot that nobody else knew when b, c and d decided the next view."""
    cluster = stopped("abcde", arbiter)
    force(cluster, "a", "b")
    cluster.kill("a")
    cluster.start("c", "d")
    cluster.until(lambda: all(cluster.serving(node_id) for node_id in "bcd"))
    cluster.client("c").open().write(b"k", b"v")
    cluster.run(200)
    cluster.cut("c", "abde")
    cluster.kill("b")
    cluster.kill("d")
    for node_id in "abd":
        cluster.restart(node_id)
    cluster.run(6000)
    assert not cluster.serving("a"), "c holds what was acknowledged"
    cluster.heal()
    cluster.start("e")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"v"} and not cluster.quarantined


@ARBITERS
@pytest.mark.parametrize("lost", [False, True])
def test_a_forced_view_on_the_disk_of_no_member_blocks_no_node(arbiter: str, lost: bool) -> None:
    """c had heard of a's view, and had it on disk, but was not in it."""
    cluster = stopped("abc", arbiter)
    force(cluster, "a")
    epoch = cluster.node("a").context.epoch
    cluster.start("c")
    cluster.until(lambda: cluster.node("c").liveness.own.decided_epoch >= epoch)
    cluster.run(2)
    cluster.kill("a")
    cluster.kill("c")
    if lost:
        cluster.lose_disk("a")
    for node_id in "abc":
        cluster.restart(node_id)
    cluster.check()


@ARBITERS
@pytest.mark.parametrize("ids", ["cab", "cba"])
def test_a_member_of_a_forced_view_that_restarts_does_not_outrank_it(arbiter: str, ids: str) -> None:
    """The node that proposes may be the one that restarted. It looked only at the disks of the others."""
    survivor, returning, other = ids
    cluster = force_beside_an_ordinary_view(arbiter, survivor, returning, other)
    cluster.start(returning, other)
    cluster.run(6000)
    assert not cluster.serving(returning), f"{survivor} holds what was acknowledged"
    cluster.heal()
    cluster.check()
    assert cluster.contents(returning) == {b"k": b"v"} and not cluster.quarantined


@ARBITERS
def test_accept_loss_ends_the_wait_for_word_of_a_forced_view(arbiter: str) -> None:
    cluster = stopped("abcde", arbiter)
    force(cluster, "c", "b")
    cluster.kill("b")
    cluster.kill("c")
    cluster.lose_disk("c")
    cluster.start("a", "b", "c", "d")
    cluster.run(3000)
    assert not cluster.serving("a"), "e may serve in the view"
    for node_id in "abcd":
        assert cluster.operate(node_id, "accept-loss", "e").code == OK
    cluster.until(lambda: cluster.serving("a"))


@ARBITERS
def test_a_member_of_a_forced_view_that_a_peer_does_not_know_is_waited_for(arbiter: str) -> None:
    """b comes back with a configuration that does not name c, which serves on."""
    cluster = force_beside_an_ordinary_view(arbiter, "c", "b", "a")
    cluster.hosts["b"].settings = replace(cluster.hosts["b"].settings, peers=("a",))
    cluster.start("a", "b")
    cluster.run(6000)
    assert not cluster.serving("a")


@ARBITERS
def test_an_earlier_accept_loss_does_not_declare_a_node_dead_that_came_back_since(arbiter: str) -> None:
    """c was declared dead at a, came back, and has gone on with b by the operator's word."""
    cluster = stopped("abcde", arbiter)
    cluster.start("a")
    cluster.run(100)
    assert cluster.operate("a", "accept-loss", "c").code == OK
    cluster.start("b", "c")
    cluster.run(100)
    cluster.cut("a", "bc")
    cluster.run(100)
    assert cluster.operate("c", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("b") and cluster.serving("c"))
    cluster.client("c").open().write(b"k", b"v")
    cluster.run(100)
    cluster.kill("b")
    cluster.heal()
    cluster.cut("c", "abde")
    cluster.start("b", "d", "e")
    cluster.run(6000)
    assert not cluster.serving("a"), "c holds what was acknowledged"


def test_a_register_that_takes_a_lower_view_over_a_forced_uninstalled_one_blocks_no_node() -> None:
    """Seed 7272051: c died before it installed the view that it had forced, and went on telling its epoch.

    Then the register took a lower view at c as well. The view is on no disk any more.
    """
    cluster = stopped("abc", "majority")
    cluster.start("c")
    cluster.run(100)
    cluster.begin_operate("c", "bootstrap")
    cluster.until(lambda: cluster.node("c").store.record.view.operator_forced)
    cluster.kill("c")
    record = parse_disk_record(cluster.hosts["c"].disk.record)
    assert record.view is not None and record.view.epoch > record.installed_epoch
    cluster.start("a", "b", "c")
    cluster.hold("b", "a")  # c's refusal comes first: a learns the ballot of the command.
    cluster.until(lambda: cluster.node("a").arbiter.highest_round >= 1000)
    cluster.release("b", "a")  # Now b's promise comes first: a and b know view 1 alone, and c accepts that.
    cluster.until(lambda: cluster.node("a").reconfiguration.decided is not None)
    cluster.hold("b", "a")  # The next proposal begins after c's next heartbeats.
    cluster.hold("c", "a")
    cluster.run(60)
    cluster.release("b", "a")
    cluster.release("c", "a")
    cluster.check()


def known_to_a_witness() -> Cluster:
    """b has forced a view, of which a witness has heard, and then died; a was away."""
    cluster = nodes("ab", witnesses="w")
    for node_id in "abw":
        cluster.kill(node_id)
    force(cluster, "b")
    epoch = cluster.node("b").context.epoch
    cluster.start("w")
    cluster.until(lambda: cluster.hosts["w"].core.liveness.own.decided_epoch >= epoch)
    cluster.kill("b")
    return cluster


def test_a_witness_passes_on_the_forced_view_that_it_knows() -> None:
    """The member that forced the view lost its disk. The others waited for a view that nobody sent."""
    cluster = known_to_a_witness()
    cluster.lose_disk("b")
    cluster.start("a", "b")
    cluster.check()


def test_accept_loss_ends_the_wait_for_a_view_that_only_a_witness_knows() -> None:
    cluster = known_to_a_witness()
    cluster.start("a")
    cluster.run(3000)
    assert not cluster.serving("a")
    assert cluster.operate("a", "accept-loss", "b").code == OK
    cluster.until(lambda: cluster.serving("a"))


@pytest.mark.parametrize("at", ["c", "d"])
@ARBITERS
def test_a_forced_view_is_over_when_all_its_members_have_started_again(arbiter: str, at: str) -> None:
    """e was in no view since, and is dead: nobody needs to wait for it."""
    cluster = nodes("abcde", arbiter=arbiter)
    cluster.kill("e")
    cluster.until(lambda: all(list(node.view.members) == list("abcd") for node in cluster.running()))
    cluster.run(1000)
    for node_id in "abcd":
        cluster.kill(node_id)
    force(cluster, at, "cd".replace(at, ""))
    cluster.run(100)
    cluster.kill("c")
    cluster.kill("d")
    cluster.start("a", "b", "c", "d")
    cluster.run(5000)
    assert all(cluster.serving(node_id) for node_id in "abcd")


@pytest.mark.parametrize("returning", ["a", "b", "c"])
@ARBITERS
def test_a_node_that_returns_from_a_forced_view_that_is_over_takes_nothing_from_the_others(
    arbiter: str, returning: str
) -> None:
    """The two others serve after accept-loss. The vote of the third has the forced view with the highest ballot."""
    cluster = stopped("abc", arbiter)
    force(cluster, returning)
    cluster.kill(returning)
    others = [node_id for node_id in "abc" if node_id != returning]
    cluster.start(*others)
    cluster.run(3000)
    for node_id in others:
        assert cluster.operate(node_id, "accept-loss", returning).code == OK
    cluster.until(lambda: all(cluster.serving(node_id) for node_id in others))
    cluster.client(others[0]).open().write(b"k", b"v")
    cluster.run(200)
    cluster.start(returning)
    cluster.check()
    assert not cluster.quarantined
    assert cluster.contents(others[0]) == {b"k": b"v"}


def force_again_after_a_lower_view() -> Cluster:
    """e forced a view, and the register took a lower one at e. Later e forces another one, with d."""
    cluster = stopped("abcde", "majority")
    cluster.start("e")
    cluster.run(100)
    cluster.begin_operate("e", "bootstrap")
    cluster.until(lambda: cluster.node("e").store.record.view.operator_forced)
    cluster.kill("e")  # Its disk has the view; it has not installed it.
    cluster.start(*"abcde")
    for node_id in "bcd":
        cluster.hold(node_id, "a")
    cluster.until(lambda: cluster.node("a").arbiter.highest_round >= 1000)
    for node_id in "bcd":
        cluster.release(node_id, "a")
    cluster.until(lambda: cluster.node("e").store.record.view.epoch == 1)
    cluster.run(1)
    cluster.kill("e")
    cluster.start("e")
    cluster.check()
    cluster.kill("d")  # (The last ordinary view is to be one without d.)
    cluster.until(lambda: all(list(node.view.members) == list("abce") for node in cluster.running()))
    cluster.run(1000)
    for node_id in "abce":
        cluster.kill(node_id)
    force(cluster, "e", "d")
    return cluster


def test_no_epoch_is_forced_twice() -> None:
    cluster = force_again_after_a_lower_view()
    node = cluster.node("e")
    assert node.store.record.outlived_epoch not in (0, node.context.epoch)
    assert not node.liveness.own.outlived_command


def test_a_view_that_was_forced_after_one_that_is_over_is_waited_for() -> None:
    """d holds what was acknowledged, and nobody hears it."""
    cluster = force_again_after_a_lower_view()
    cluster.client("d").open().write(b"k", b"v")
    cluster.run(100)
    cluster.cut("d", "abce")
    cluster.kill("e")
    cluster.start("a", "b", "c", "e")
    cluster.run(6000)
    assert not any(cluster.serving(node_id) for node_id in "abce")


def test_a_view_that_only_the_slowest_voter_knows_is_found() -> None:
    """b's disk ends with a view that followed a forced one. Its promise always came last, after a majority."""
    cluster = stopped("abc", "majority")
    force(cluster, "b")
    cluster.start("a")
    cluster.until(lambda: cluster.serving("a") and cluster.serving("b"))
    cluster.kill("a")
    cluster.kill("b")
    cluster.lose_disk("a")
    force(cluster, "c")
    cluster.start("a", "b")
    cluster.check()


def test_no_node_waits_for_the_vote_of_a_witness_for_a_forced_view_that_is_over() -> None:
    cluster = nodes("abc", witnesses="vw")
    for node_id in "abcvw":
        cluster.kill(node_id)
    force(cluster, "b", "a")
    cluster.kill("a")
    cluster.kill("b")
    cluster.start("b", "v", "w")
    cluster.until(lambda: parse_disk_record(cluster.hosts["w"].disk.record).view.operator_forced)
    for node_id in "bvw":
        cluster.kill(node_id)
    cluster.start(*"abcvw")
    cluster.check()


def test_a_view_that_followed_a_forced_one_is_not_waited_for_when_its_members_are_back() -> None:
    """c was bootstrapped alone since, and remembers no more than that."""
    cluster = stopped("abc", "majority")
    force(cluster, "c")
    cluster.start("b")
    cluster.until(lambda: cluster.serving("b") and cluster.serving("c"))
    cluster.kill("b")
    cluster.kill("c")
    force(cluster, "c")
    cluster.kill("c")
    cluster.start("a", "c")
    cluster.run(2000)
    cluster.start("b")
    cluster.check()
