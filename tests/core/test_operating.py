"""The operator's word: each says what it did and what that can lose; none does anything to a cluster that serves."""

from dataclasses import replace

import pytest
from tests.core.cluster import Cluster, nodes, three_nodes, two_nodes

from ckpt_protocol.codes import BAD_OPERATION, INVALID_PARAM, NO_RESOURCES, NOT_EXIST, OK
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA
from ckptd.core.events import PersistFailed
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, bootstrap_view


def blocked_pair() -> Cluster:
    """b is blocked: a, which coordinates, fell silent; x holds k=v on both."""
    cluster = two_nodes()
    cluster.client("b").open().write(b"k", b"v")
    cluster.kill("a", silent=True)
    cluster.run(3000)
    assert not cluster.serving("b")
    return cluster


@pytest.mark.parametrize("said", [("accept-loss", "a"), ("force-active",)])
def test_a_blocked_node_of_a_pair_continues_on_an_operator_command(said: tuple[str, ...]) -> None:
    cluster = blocked_pair()
    answer = cluster.operate("b", *said)
    assert answer.code == OK and "quarantine" in answer.payload
    table = cluster.client("b").open_existing()
    table.write(b"k", b"w")
    assert cluster.node("b").view.epoch > EPOCH_JUMP_DATA_LOSS  # type: ignore[union-attr]
    assert cluster.node("b").context.counters["losses_accepted"] == 1
    cluster.restart("a")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"w"}


def given_up_and_alive() -> Cluster:
    """A pair that is cut: each wrote alone, b by the operator's word that a is lost."""
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
    return cluster


def b_alone_stands(cluster: Cluster) -> None:
    """What b wrote alone is everywhere, and what a did went to quarantine there."""
    cluster.check()
    assert cluster.contents("a") == cluster.contents("b") == {b"k": b"by b alone"}
    assert [node_id for node_id, content in cluster.quarantined if b"by a alone" in content] == ["a"]


def test_what_the_side_declared_dead_had_acknowledged_goes_to_quarantine_when_it_comes_back() -> None:
    cluster = given_up_and_alive()
    cluster.heal()
    b_alone_stands(cluster)


def test_a_minority_continues_when_the_operator_forces_it() -> None:
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
    assert "last view" in cluster.node("a").reconfiguration.describe_wait()
    answer = cluster.operate("b", "bootstrap")
    assert answer.code == OK and "a new history" in answer.payload
    cluster.settle()
    assert cluster.node("a").directory.checkpoints == {}
    cluster.restart("c")
    cluster.check()


def test_a_cold_start_continues_when_the_missing_node_counts_as_dead() -> None:
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


def test_a_checkpoint_that_waits_for_a_node_is_lost_when_that_node_is_declared_dead() -> None:
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
    assert entry is not None and sorted(entry.last_in_sync) == kept
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


def test_what_continues_without_a_lost_holder_is_rebuilt_elsewhere() -> None:
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


def written_alone(cluster: Cluster, node_id: str, content: bytes) -> None:
    """A node serves alone, and x holds k=content there."""
    cluster.until(lambda: cluster.serving(node_id))
    cluster.client(node_id).open().write(b"k", content)


@pytest.mark.parametrize("node_ids", ["ab", "abc"])
def test_of_two_histories_that_were_bootstrapped_apart_one_goes_to_quarantine(node_ids: str) -> None:
    """Both began in epoch 1000: when they met, each side took the other's view for its own (found by seed 9100132)."""
    cluster = Cluster(node_ids)
    cluster.start(*node_ids)
    cluster.cut("a", node_ids[1:])
    cluster.cut(node_ids[1:], "a")
    cluster.cut("b", "c")
    cluster.run(2000)
    for node_id in "ab":
        assert cluster.operate(node_id, "bootstrap").code == OK
        written_alone(cluster, node_id, b"by " + node_id.encode())
    cluster.may_have_two_actives = True
    cluster.heal()
    cluster.check()
    contents = [cluster.contents(node_id) for node_id in "ab"]
    assert contents[0] == contents[1] and contents[0] in ({b"k": b"by a"}, {b"k": b"by b"})
    lost = "b" if contents[0] == {b"k": b"by a"} else "a"
    assert [node_id for node_id, content in cluster.quarantined if b"by " in content] == [lost]


def test_of_two_sides_that_were_forced_apart_one_goes_to_quarantine() -> None:
    cluster = two_nodes(on_silent_peer="block")
    cluster.client("a").open().write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.cut("b", "a")
    cluster.run(3000)
    cluster.may_have_two_actives = True
    for node_id in "ab":
        assert cluster.operate(node_id, "force-active").code == OK
        written_alone(cluster, node_id, b"by " + node_id.encode())
    cluster.heal()
    cluster.check()
    contents = [cluster.contents(node_id) for node_id in "ab"]
    assert contents[0] == contents[1] and contents[0] in ({b"k": b"by a"}, {b"k": b"by b"})
    lost = "b" if contents[0] == {b"k": b"by a"} else "a"
    assert [node_id for node_id, content in cluster.quarantined if b"by " in content] == [lost]


def test_a_node_without_data_is_not_bootstrapped_while_it_receives_heartbeats_of_one_that_has_some() -> None:
    """It would have taken those that serve into its new, empty history: bootstrap gives up what is missing, no more."""
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.run(2000)
    cluster.restart("c")
    cluster.until(lambda: bool(cluster.node("c").reconfiguration.next_members.reachable_data_nodes()))
    answer = cluster.operate("c", "bootstrap")
    assert answer.code == BAD_OPERATION
    cluster.check()
    assert cluster.contents("c") == {b"k": b"v"}


def test_the_side_that_was_declared_dead_does_not_admit_the_other_before_it_has_received_its_view() -> None:
    """Heartbeats passed first when the cut healed: the side that was given up admitted the other one, in an epoch
    above that of the operator's word, and what had been acknowledged by that word was lost (seed 9110798)."""
    cluster = given_up_and_alive()
    cluster.hold("b", "a")
    cluster.heal()
    cluster.run(300)
    cluster.release("b", "a")
    b_alone_stands(cluster)


def test_a_cold_start_that_lacks_votes_says_so_and_bootstrap_makes_it() -> None:
    """All three were here, and each said that it waited for 2 of 3 nodes: b and c have no vote, as a remembers a view."""
    cluster = Cluster("abc")
    cluster.start("a")
    cluster.run(1000)
    assert cluster.operate("a", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("a"))
    cluster.kill("a", silent=True)
    cluster.start("b", "c")
    cluster.restart("a")
    cluster.run(3000)
    for node_id in "abc":
        assert not cluster.serving(node_id)
        assert cluster.node(node_id).reconfiguration.describe_wait() == "2 of 3 votes for a cold start"
    assert cluster.operate("b", "bootstrap").code == OK
    cluster.check()


def test_a_voter_that_lost_its_disk_after_the_operators_word_abstains_all_the_same() -> None:
    """What was promised before a forced view is void, but not what was since: a voted for the view of a and b, forgot
    it, and voted for another one of the same epoch with c, which had missed it (seed 9120610)."""
    cluster = Cluster("abc")
    cluster.start("a")
    cluster.run(1000)
    cluster.operate("a", "bootstrap")
    cluster.until(lambda: cluster.serving("a"))
    cluster.kill("a", silent=True)
    cluster.start("b", "c")
    cluster.restart("a")
    cluster.run(2000)
    assert cluster.operate("b", "bootstrap").code == OK
    cluster.settle()
    cluster.cut("c", "ab")
    table = cluster.client("b").open()
    cluster.until(lambda: len(cluster.node("b").view.members) == 2 and cluster.serving("b"))  # type: ignore[union-attr]
    table.write(b"k", b"v")
    cluster.kill("a")
    cluster.lose_disk("a")
    cluster.heal()
    cluster.cut("b", "ac")
    cluster.restart("a")
    cluster.run(3000)
    assert not cluster.serving("a") and not cluster.serving("c")
    cluster.heal()
    cluster.check()
    assert cluster.contents("c") == {b"k": b"v"}


@pytest.mark.parametrize(("members", "abstains"), [("a", False), ("ac", True), ("ab", True)])
def test_a_forced_view_ends_the_abstention_of_a_voter_only_if_that_cannot_have_promised_since(
    members: str, abstains: bool
) -> None:
    """a and c were bootstrapped; c and b decided a view, b lost its disk, and decided another one of the same epoch
    with a (seed 7534695)."""
    cluster = Cluster("abc")
    cluster.start("b")
    cluster.run(200)
    node = cluster.node("b")
    assert node.liveness.own.amnesiac
    forced = replace(bootstrap_view(5000, dict.fromkeys(members, 1000)), operator_forced=True)
    node.arbiter.on_decided_elsewhere(forced)
    assert node.store.amnesiac == abstains


@pytest.mark.parametrize("arbiter", ["majority", "etcd"])
@pytest.mark.parametrize("verb", ["force-active", "bootstrap"])
def test_a_command_that_waits_for_a_slow_disk_is_discarded_once_the_cluster_has_continued(
    arbiter: str, verb: str
) -> None:
    """It came true when the disk answered: c outranked a and b, and what they acknowledged was lost to that."""
    cluster = nodes("abc", arbiter=arbiter)
    table = cluster.client("a").open()
    cluster.cut("c", "ab")
    cluster.cut_register("c")
    if verb == "bootstrap":
        cluster.kill("c")
        cluster.run(3000)
        cluster.start("c")
    cluster.run(3000)
    cluster.hold_disk("c")
    command = cluster.begin_operate("c", verb)
    cluster.run(100)
    assert not command.answers
    cluster.register.cuts.clear()
    cluster.heal()
    cluster.run(1000)
    table.write(b"k", b"v")
    cluster.release_disk("c")
    cluster.until(lambda: command.answers)
    answer = command.answers[0]
    assert answer.code == BAD_OPERATION and "no view was decided" in answer.text
    cluster.check()
    assert all(node.context.epoch < EPOCH_JUMP_DATA_LOSS for node in cluster.running())
    assert {cluster.contents(node_id)[b"k"] for node_id in "abc"} == {b"v"} and not cluster.quarantined


def test_a_command_that_waits_for_a_slow_disk_is_discarded_once_its_node_serves_again() -> None:
    """Nothing was decided meanwhile: all three are in the view that they were in before."""
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    table.write(b"k", b"old")
    for node_id in "abc":
        cluster.cut(node_id, "abc".replace(node_id, ""))
    cluster.run(3000)
    epoch = cluster.node("a").context.epoch
    cluster.hold_disk("a")
    command = cluster.begin_operate("a", "force-active")
    cluster.run(100)
    cluster.heal()
    cluster.until(lambda: cluster.serving("a"))
    assert cluster.node("a").context.epoch == epoch
    table.write(b"k", b"new")
    cluster.release_disk("a")
    cluster.until(lambda: command.answers)
    assert command.answers[0].code == BAD_OPERATION
    cluster.check()
    assert {node.context.epoch for node in cluster.running()} == {epoch}
    assert cluster.contents("c") == {b"k": b"new"}


@pytest.mark.parametrize("full_before", [True, False])
def test_a_command_to_a_node_whose_disk_is_full_decides_nothing(full_before: bool) -> None:
    cluster = three_nodes()
    cluster.cut("c", "ab")
    cluster.run(3000)
    cluster.hosts["c"].disk.full = True
    if full_before:
        cluster.deliver("c", PersistFailed(1, "the disk is full"))
    answer = cluster.operate("c", "force-active")
    assert answer.code == NO_RESOURCES and "the disk is full" in answer.text
    cluster.hosts["c"].disk.full = False
    cluster.run(1000)
    assert not cluster.serving("c")
    assert cluster.operate("c", "force-active").code == OK, "it can be said again"
    cluster.until(lambda: cluster.serving("c"))


def test_a_take_over_that_waits_for_a_slow_disk_is_discarded_once_the_other_node_sends_heartbeats() -> None:
    """b took over when a counted as lost, and its disk was slow: a was back, and acknowledged more."""
    cluster = two_nodes()
    table = cluster.client("a").open()
    cluster.cut("a", "b")
    cluster.run(3000)
    cluster.hold_disk("b")
    assert cluster.operate("b", "accept-loss", "a").code == OK
    cluster.run(100)
    cluster.heal()
    cluster.run(1000)
    table.write(b"k", b"v")
    cluster.release_disk("b")
    cluster.check()
    assert cluster.contents("b") == {b"k": b"v"} and not cluster.quarantined


@pytest.mark.parametrize("writes", ["the first fails", "the second fails"])
def test_a_command_that_was_refused_is_not_on_disk(writes: str) -> None:
    """A write with the view was queued behind the one that failed, or behind the answer.

    The node started with that view, and what had been acknowledged since went to quarantine.
    """
    cluster = two_nodes(on_silent_peer="block")
    table = cluster.client("a").open()
    cluster.cut("a", "b")
    cluster.run(3000)
    disk = cluster.hosts["b"].disk
    disk.held = True
    first = cluster.begin_operate("b", "force-active")
    cluster.run(50)
    second = cluster.begin_operate("b", "force-active")
    cluster.run(50)
    if writes == "the first fails":
        disk.end_write(done=False)
        disk.end_write(done=True)
        disk.release()
    else:
        disk.end_write(done=True)
        cluster.run(50)
        assert not first.answers, "its view is on the disk"
        disk.end_write(done=False)
        assert not first.answers
        disk.release()
    cluster.until(lambda: first.answers and second.answers)
    assert first.answers[0].code != OK and second.answers[0].code == NO_RESOURCES
    cluster.heal()
    cluster.settle()
    table.write(b"k", b"v")
    cluster.kill("b")
    cluster.run(1500)
    cluster.restart("b")
    cluster.check()
    assert cluster.contents("b") == {b"k": b"v"} and not cluster.quarantined


def test_a_vote_under_way_that_fails_leaves_no_refused_command_on_disk() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    for node_id in "abc":
        cluster.cut(node_id, "abc".replace(node_id, ""))
    cluster.run(3000)
    disk = cluster.hosts["c"].disk
    disk.held = True
    cluster.until(lambda: disk.writing is not None)
    command = cluster.begin_operate("c", "force-active")
    cluster.run(2)
    cluster.heal()
    cluster.until(lambda: all(cluster.serving(node_id) for node_id in "abc"))
    disk.end_write(done=False)
    disk.end_write(done=True)
    disk.release()
    cluster.until(lambda: command.answers)
    assert command.answers[0].code == NO_RESOURCES
    table.write(b"k", b"v")
    cluster.kill("c")
    cluster.kill("b")
    cluster.run(500)
    cluster.restart("c")
    cluster.run(8000)
    assert cluster.contents("a") == {b"k": b"v"} and not cluster.quarantined
    assert all(node.context.epoch < EPOCH_JUMP_DATA_LOSS for node in cluster.running())


def test_a_command_that_only_a_dead_incarnation_knew_of_excludes_no_node() -> None:
    """Its view was on disk when its node died. The other members had not heard of it, and waited for word of it."""
    cluster = nodes("abcd", arbiter="etcd")
    cluster.client("b").open().write(b"k", b"v")
    cluster.cut("ab", "cd")
    cluster.cut_register("abcd")
    cluster.run(3000)
    disk = cluster.hosts["c"].disk
    disk.held = True
    cluster.begin_operate("c", "force-active")
    cluster.run(2)
    disk.end_write(done=True, told=False)
    cluster.kill("c")
    disk.release()
    cluster.heal()
    cluster.register.cuts.clear()
    cluster.run(2000)
    cluster.restart("c")
    cluster.check()
    assert cluster.contents("b") == {b"k": b"v"} and not cluster.quarantined


def test_of_two_commands_that_wait_for_a_slow_disk_the_second_counts() -> None:
    cluster = three_nodes()
    cluster.cut("c", "ab")
    cluster.run(3000)
    cluster.hold_disk("c")
    first, second = cluster.begin_operate("c", "force-active"), cluster.begin_operate("c", "force-active")
    cluster.run(100)
    cluster.release_disk("c")
    cluster.until(lambda: first.answers and second.answers)
    assert first.answers[0].code == BAD_OPERATION and second.answers[0].code == OK
    cluster.until(lambda: cluster.serving("c"))


def test_a_node_that_an_operator_had_continue_alone_is_admitted_where_the_others_continued_too() -> None:
    """Seed 7170870: a waited for ever for word of b's view, which died with b's earlier start."""
    cluster = Cluster("ab", arbiter="etcd")
    cluster.start("b")
    cluster.run(100)
    assert cluster.operate("b", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("b"))
    word = cluster.node("b").context.epoch
    cluster.kill("b", silent=True)
    cluster.start("a")
    cluster.run(100)
    assert cluster.operate("a", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("a"))
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    assert cluster.node("a").context.epoch < word
    cluster.restart("b")
    cluster.check()
    assert cluster.contents("b") == {b"k": b"v"}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_voter_that_took_a_lower_view_still_reports_that_its_own_forced_view_is_over(
    restarts: bool,
) -> None:
    """Seed 7238163: b waited for ever for word of a's view, of which a's disk had only the epoch left.

    a had gone on alone by the operator's word, died, and came back. Before c heard a, it had a vote for a view
    of the others' history, whose epochs are lower.
    """
    cluster = Cluster("abc")
    cluster.start("a")
    cluster.run(100)
    for command in (["accept-loss", "b"], ["accept-loss", "c"], ["bootstrap"]):
        assert cluster.operate("a", *command).code == OK
    cluster.until(lambda: cluster.serving("a"))
    forced_epoch = cluster.node("a").context.epoch
    cluster.kill("a", silent=True)
    cluster.start("c")
    cluster.run(100)
    assert cluster.operate("c", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("c"))
    cluster.start("a")
    cluster.cuts["a", "c"] = 1  # a's heartbeats are lost; the link is there.
    cluster.start("b")
    cluster.until(lambda: cluster.serving("b"))
    cluster.client("b").open().write(b"k", b"v")
    cluster.until(lambda: cluster.node("a").store.record.view == cluster.node("b").view)
    cluster.run(200)
    assert cluster.node("b").context.epoch < forced_epoch
    cluster.kill("c")
    cluster.lose_disk("c")
    if restarts:
        cluster.kill("a")
        cluster.restart("a")
    cluster.heal()
    cluster.restart("c")
    cluster.check()
    assert cluster.contents("a") == {b"k": b"v"}


@pytest.mark.parametrize("arbiter", ["majority", "etcd"])
def test_a_forced_view_of_which_only_the_epoch_is_left_blocks_no_node(arbiter: str) -> None:
    """Seed 7249460: b and c had gone on by the operator's word. Both died, and c lost its disk.

    b's disk has the epoch of the view and not its members, so all waited for ever for word of it.
    """
    cluster = nodes("abcde", arbiter=arbiter)
    for node_id in "abcde":
        cluster.kill(node_id)
    cluster.start("b", "c")
    cluster.run(100)
    assert cluster.operate("c", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("b") and cluster.serving("c"))
    forced_epoch = cluster.node("b").context.epoch
    for node_id in "bc":
        cluster.kill(node_id)
    cluster.lose_disk("c")
    cluster.start("a", "b", "c", "d")
    cluster.run(5000)
    assert not cluster.serving("a"), "e may serve in the view"
    cluster.start("e")
    cluster.check()
    assert cluster.node("a").context.epoch > forced_epoch


def test_a_command_that_waits_for_a_slow_disk_is_discarded_once_a_newer_view_was_decided() -> None:
    """The node decided, and installed, the older view behind the newer one, and served in it (seed 7122780)."""
    cluster = Cluster("abc")
    cluster.start("a")
    cluster.run(1000)
    cluster.hold_disk("a")
    command = cluster.begin_operate("a", "bootstrap")
    cluster.cut("a", "bc")
    cluster.start("b")
    cluster.run(1000)
    assert cluster.operate("b", "bootstrap").code == OK
    cluster.until(lambda: cluster.serving("b"))
    cluster.start("c")
    cluster.until(lambda: cluster.serving("c"))
    cluster.client("b").open().write(b"k", b"v")
    cluster.heal()
    cluster.until(lambda: cluster.node("a").reconfiguration.decided is not None)
    cluster.release_disk("a")
    cluster.until(lambda: command.answers)
    assert command.answers[0].code == BAD_OPERATION
    cluster.check()
    assert cluster.contents("a") == {b"k": b"v"}
    assert not cluster.quarantined


@pytest.mark.parametrize("arbiter", ["majority", "etcd"])
def test_what_a_command_had_acknowledged_is_not_outranked_when_one_of_its_members_restarts(
    arbiter: str,
) -> None:
    """c, with b, goes on by force-active, and is then heard by nobody. b restarts, and knows the epoch alone.

    a took the next epoch above it for a view that followed its own, served what was old, and outranked c.
    """
    cluster = nodes("abcd" if arbiter == "majority" else "abc", arbiter=arbiter, replicas=4)
    cluster.client("c").open().write(b"k", b"old")
    cluster.settle()
    if arbiter == "majority":
        cluster.kill("d")
        cluster.until(lambda: len(cluster.node("a").view.members) == 3)  # type: ignore[union-attr]
        cluster.run(100)
    else:
        cluster.cut_register("abc")
    cluster.cut("a", "bc")
    cluster.run(3000)
    assert cluster.operate("c", "force-active").code == OK
    cluster.until(lambda: cluster.serving("c"))
    cluster.client("c").open_existing().write(b"k", b"by the command")
    cluster.kill("b")
    cluster.run(20)
    cluster.heal()
    cluster.cut("c", "abd" if arbiter == "majority" else "ab")
    cluster.heal_register("ab")
    for node_id in "bd" if arbiter == "majority" else "b":
        cluster.restart(node_id)
    cluster.run(5000)
    assert not cluster.serving("a")
    cluster.register.cuts.clear()
    cluster.heal()
    cluster.check()
    assert cluster.contents("a") == {b"k": b"by the command"}
    assert not cluster.quarantined
