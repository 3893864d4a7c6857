"""Partitions, silences, pauses and restarts: who serves, who waits, and that two never serve one checkpoint."""

import pytest
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.codes import NOT_EXIST, OK, TRY_AGAIN
from ckpt_protocol.messages import Kind
from ckptd.core.events import TimeCame
from ckptd.core.settings import MILLISECOND_NS

# A lease is 600 ms, the grace before a swap is asked for 800 ms.


def epoch(cluster: Cluster, node_id: str) -> int:
    view = cluster.node(node_id).view
    return view.epoch if view is not None else 0


def members(cluster: Cluster, node_id: str) -> list[str]:
    view = cluster.node(node_id).view
    return list(view.members) if view is not None else []


def promised(cluster: Cluster, node_id: str) -> tuple[int, str]:
    """The highest ballot that a voter promised."""
    return cluster.node(node_id).store.record.promised


# -- cold starts


def test_a_cold_start_waits_for_more_than_half_of_the_voters() -> None:
    cluster = Cluster("abc")
    cluster.start("b")
    cluster.run(3000)
    assert epoch(cluster, "b") == 0 and not cluster.serving("b")
    cluster.start("c")
    cluster.until(lambda: cluster.serving("b") and cluster.serving("c"))
    assert members(cluster, "b") == ["b", "c"]
    cluster.start("a")
    cluster.settle()
    assert members(cluster, "a") == ["a", "b", "c"]
    assert cluster.node("a").view.coordinator == "b"  # type: ignore[union-attr]


def test_a_cold_start_of_a_pair_waits_for_both() -> None:
    cluster = Cluster("ab")
    cluster.start("a")
    cluster.run(5000)
    assert not cluster.serving("a")
    assert cluster.node("a").reconfiguration.describe_wait()
    cluster.start("b")
    cluster.settle()
    cluster.check()


def test_a_node_alone_serves_at_once() -> None:
    cluster = nodes("a")
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    assert table.read(b"k") == b"v"
    cluster.kill("a")
    cluster.restart("a")
    cluster.settle()
    client = cluster.client("a")
    assert client.try_open().code == NOT_EXIST, "its memory is gone"
    cluster.check()


# -- majority


def test_a_crash_that_is_proved_costs_milliseconds() -> None:
    cluster = three_nodes()
    cluster.kill("a")
    cluster.run(5)
    assert members(cluster, "b") == ["b", "c"] and cluster.serving("b")
    cluster.check()


def test_a_silent_member_is_excluded_after_its_lease_has_ended() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.kill("a", silent=True)
    cluster.run(600)
    assert epoch(cluster, "b") == 1, "silence is proof of nothing"
    cluster.run(900)
    assert members(cluster, "b") == ["b", "c"] and cluster.serving("c")
    assert table.read(b"k") == b"v"
    cluster.check()


def test_the_side_with_the_majority_continues_and_the_other_one_stops_first() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    other = cluster.client("b").open_existing()
    table.write(b"k", b"v")
    cluster.cut("a", "bc")
    stopped_ns = taken_over_ns = 0
    while not taken_over_ns:
        cluster.run(1)
        if not stopped_ns and not cluster.serving("a"):
            stopped_ns = cluster.now_ns
        if cluster.active() in ("b", "c"):
            taken_over_ns = cluster.now_ns
        assert cluster.now_ns < 10**10
    assert 0 < stopped_ns < taken_over_ns
    call = table.begin_write(b"k", b"refused")
    assert other.read(b"k") == b"v"
    other.write(b"k", b"w")
    cluster.run(1200)
    assert call.code == TRY_AGAIN
    cluster.heal()
    cluster.settle()
    assert table.read(b"k") == b"w"
    cluster.check()


def test_a_write_without_a_stuck_replica_is_answered_only_when_its_lease_has_ended() -> None:
    """Its heartbeats pass, so that it believes in its lease, and would read the old state to its clients."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"old")
    reader = cluster.client("b").open_existing()
    cluster.run(50)
    for peer in "ac":
        cluster.hold("b", peer)
        cluster.hold(peer, "b")
    call = table.begin_write(b"k", b"new")
    served_ns = 0
    while not call.answers:
        cluster.run(0.5)
        served_ns = cluster.now_ns if cluster.serving("b") else served_ns
        assert not (call.answers and cluster.serving("b"))
    assert call.code == OK
    assert members(cluster, "a") == ["a", "c"]
    assert served_ns > 600 * MILLISECOND_NS, "it was not its own silence that stopped it"
    for peer in "ac":
        cluster.release("b", peer)
        cluster.release(peer, "b")
    cluster.settle()
    assert reader.read(b"k") == b"new"
    cluster.check()


def test_no_node_serves_where_no_side_has_a_majority() -> None:
    cluster = three_nodes()
    cluster.cut("a", "bc")
    cluster.cut("b", "c")
    cluster.run(3000)
    assert not any(cluster.serving(node_id) for node_id in "abc")
    cluster.heal()
    cluster.check()


@pytest.mark.parametrize("deaf", [True, False])
def test_one_way_loss_counts_as_a_partition(deaf: bool) -> None:
    """A lease needs both directions; the majority goes on whichever of them is left."""
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.cut(*(("bc", "a") if deaf else ("a", "bc")), one_way=True)
    cluster.run(620)
    assert not cluster.serving("a")
    cluster.run(2000)
    assert members(cluster, "b") == ["b", "c"]
    assert table.read(b"k") == b"v"
    cluster.heal()
    cluster.check()


def test_a_pause_shorter_than_the_lease_is_only_latency() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    cluster.pause("a")
    cluster.run(500)
    cluster.resume("a")
    table.write(b"k", b"v")
    cluster.run(1000)
    assert epoch(cluster, "a") == 1
    cluster.check()


def test_a_resumed_node_finds_its_lease_gone_before_it_touches_what_waits() -> None:
    """After SIGCONT: reads and writes that were queued must not be answered from the past."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    other = cluster.client("b").open_existing()
    table.write(b"k", b"old")
    cluster.pause("a")
    read, write = table.begin_read(b"k"), table.begin_write(b"j", b"v")
    cluster.run(3000)
    other.write(b"k", b"new")
    cluster.resume("a")
    assert not cluster.serving("a")
    cluster.until(lambda: read.answers and write.answers)
    assert read.code == TRY_AGAIN or read.answers[0].payload == [b"new"]
    if write.code == TRY_AGAIN:
        write.answers.clear()
        table.client.send(write)
    assert table.client.end(write).code == OK
    assert other.read(b"j") == b"v"
    cluster.check()


def test_a_node_that_missed_its_deadline_serves_nothing_even_without_an_event() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"old")
    node = cluster.node("a")
    late_ns = cluster.now_ns + 10**9
    assert not node.serving(late_ns)
    frames = [effect for effect in node.handle(TimeCame(), late_ns) if type(effect).__name__ == "SendClient"]
    assert frames == []


def test_a_restarted_node_has_no_data_and_does_not_become_active_by_it() -> None:
    """R4."""
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.kill("a")
    cluster.restart("a")
    cluster.kill("b")
    table.client.move("c")
    assert table.read(b"k") == b"v"
    cluster.restart("b")
    cluster.check()


def test_a_promise_outlives_the_restart_of_its_node() -> None:
    cluster = three_nodes()
    before = promised(cluster, "b")
    cluster.kill("b")
    cluster.restart("b")
    assert promised(cluster, "b") >= before > (0, "")
    cluster.check()


def test_rivals_for_the_next_view_end_in_one() -> None:
    cluster = nodes("abcde")
    table = cluster.client("c").open()
    table.write(b"k", b"v")
    cluster.kill("a", silent=True)
    cluster.cut("b", "cde")
    cluster.run(3000)
    assert members(cluster, "c") == ["c", "d", "e"]
    cluster.heal()
    cluster.until(lambda: members(cluster, "b") == ["b", "c", "d", "e"])
    assert table.read(b"k") == b"v"
    cluster.check()


def test_a_checkpoint_whose_replicas_are_cut_off_is_unavailable_and_comes_back_whole() -> None:
    cluster = nodes("abcde", replicas=2)
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    assert cluster.in_sync("a") == ["a", "b"]
    other = cluster.client("e").open_existing()
    cluster.cut("ab", "cde")
    cluster.run(2500)
    call = other.begin_read(b"k")
    again = other.client.begin(Kind.OPEN, 0, [b"x", 7, [2, 409600, 0, 100, 4096, 64], True])
    cluster.run(1500)
    assert call.code == TRY_AGAIN
    assert again.code != OK, "its name is kept, and never created again"
    cluster.heal()
    cluster.settle()
    assert other.read(b"k") == b"v"
    table.client.move("b")
    table.write(b"k", b"w")
    assert cluster.quarantined == []
    cluster.check()


def test_a_checkpoint_is_lost_when_all_its_holders_are_proved_dead() -> None:
    cluster = nodes("abcde", replicas=2)
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    other = cluster.client("e")
    cluster.cut("ab", "cde")
    cluster.run(2500)
    cluster.kill("a")
    cluster.kill("b")
    cluster.heal()
    for node_id in "ab":
        cluster.restart(node_id)
    cluster.settle()
    assert other.try_open().code == NOT_EXIST
    cluster.check()


@pytest.mark.parametrize("restarted", [False, True])
def test_a_member_that_lost_its_majority_says_so(restarted: bool) -> None:
    """It said "2 of 3 nodes for a cold start", or after a restart "admission by the cluster's members"."""
    cluster = three_nodes()
    if restarted:
        cluster.kill("c")
        cluster.settle()
        cluster.restart("c")
        cluster.settle()
    cluster.cut("a", "c")
    cluster.cut("b", "c")
    cluster.run(3000)
    assert (
        cluster.node("c").reconfiguration.describe_wait()
        == "the arbiter: only 1 of 3 voters can be reached, so the view cannot change"
    )
    cluster.heal()
    cluster.check()


def test_a_member_that_needs_the_others_acknowledgement_says_so() -> None:
    """Silent for longer than the lease, not for as long as the grace: no view is due yet."""
    cluster = three_nodes()
    cluster.cut("a", "b")
    cluster.cut("a", "c")
    cluster.until(lambda: not cluster.serving("a"))
    assert cluster.node("a").reconfiguration.describe_wait() == "the acknowledgement of every other member"
    cluster.heal()
    cluster.check()


def test_a_sealed_nodes_stall_reports_do_not_exclude_others_for_ever() -> None:
    """Seed 2238: alone in a view that it could not install, it admitted nobody: all had owed it an answer before."""
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    node = cluster.node("c")
    context, liveness = node.context, node.liveness
    liveness.own.stall_reports = ("a", "b")
    context.sealed = True
    context.now_ns = liveness.own.stall_reported_ns + node.settings.grace_ns - 1
    node.reconfiguration.next_members.eviction.update_stall_reports([], [])
    assert liveness.own.stall_reports == ("a", "b"), "while the next view is made they stand"
    context.now_ns += 1
    node.reconfiguration.next_members.eviction.update_stall_reports([], [])
    assert liveness.own.stall_reports == ()


def test_what_was_pending_is_answered_only_when_every_member_runs_the_view() -> None:
    """Seed 23787: c alone had installed it, and answered. a never did: "nobody served in that view".

    Both died, b came back with the view before, and what had been acknowledged was gone.
    """
    cluster = three_nodes()
    table = cluster.client("c").open()
    table.write(b"k", b"1")
    assert cluster.active() == "c"
    cluster.cut("b", "ac")
    call = table.begin_write(b"k", b"2")
    cluster.run(1)
    cluster.kill("a")
    cluster.restart("a")
    before = cluster.node("c").context.epoch
    cluster.until(lambda: cluster.node("a").liveness.own.decided_epoch > before)
    cluster.hold("c", "a")  # It has answered the collector, and never learns what was collected.
    cluster.until(lambda: cluster.node("c").context.epoch > before)
    cluster.run(300)
    assert call.code is None
    cluster.kill("c")
    cluster.kill("a")
    cluster.restart("a")
    cluster.restart("c")
    cluster.heal()
    cluster.check()
    assert call.code is None and cluster.contents("b") == {b"k": b"1"}, "it was never acknowledged"


def test_what_was_pending_is_answered_as_soon_as_every_member_runs_the_view() -> None:
    cluster = three_nodes()
    table = cluster.client("c").open()
    cluster.cut("b", "ac")
    call = table.begin_write(b"k", b"2")
    before = cluster.node("c").context.epoch
    cluster.until(lambda: cluster.node("a").context.epoch > before)
    cluster.run(1)
    assert call.code == OK
    cluster.heal()
    cluster.check()


@pytest.mark.parametrize("restart", [False, True])
def test_a_coordinator_that_died_while_it_waited_for_a_lease_had_served_no_client(restart: bool) -> None:
    """It had decided a view without b, and b, in sync and alive, founded a new history when it died."""
    cluster = nodes("ab", witnesses="w")
    table = cluster.client("a").open()
    table.write(b"k", b"acknowledged")
    cluster.hold("b", "a")
    table.begin_write(b"j", b"pending")
    cluster.until(lambda: list(cluster.node("a").reconfiguration.decided.members) == ["a"])  # type: ignore[union-attr]
    cluster.run(300)
    assert cluster.node("a").view.epoch == 1, "it waits for the end of b's lease"  # type: ignore[union-attr]
    cluster.kill("a")
    cluster.holds.clear()
    if restart:
        cluster.run(1000)
        cluster.restart("a")
    cluster.until(lambda: cluster.serving("b"))
    assert cluster.client("b").open_existing().read(b"k") == b"acknowledged"
    cluster.check()


def test_the_disk_of_a_node_that_comes_back_shows_that_it_had_served_no_client() -> None:
    """The same, where its death was learned by its next start alone: that is admitted before anything is given up."""
    cluster = nodes("ab", witnesses="w", trust_rst=False)
    table = cluster.client("a").open()
    table.write(b"k", b"acknowledged")
    cluster.hold("b", "a")
    table.begin_write(b"j", b"pending")
    cluster.until(lambda: list(cluster.node("a").reconfiguration.decided.members) == ["a"])  # type: ignore[union-attr]
    cluster.run(300)
    cluster.kill("a")
    cluster.holds.clear()
    cluster.run(3000)
    assert not cluster.serving("b")
    cluster.restart("a")
    cluster.check()
    assert cluster.contents("a") == cluster.contents("b")
    assert cluster.contents("b")[b"k"] == b"acknowledged"


@pytest.mark.parametrize("times", [3, 9])
def test_a_membership_is_remembered_while_no_view_is_installed_however_often_a_node_flaps(times: int) -> None:
    """Eight stays of a node were kept: with the ninth the only holder's was gone, and its checkpoint with it."""
    cluster = nodes("abc", witnesses="vw", replicas=1)
    cluster.client("b").open().write(b"k", b"acknowledged")
    cluster.hold("a", "c")
    for _ in range(times):
        cluster.cut("b", "avwc")
        cluster.run(1500)
        cluster.cuts.clear()
        cluster.heal()
        cluster.run(1500)
    cluster.holds.clear()
    cluster.flap("a", "c")
    cluster.settle()
    assert cluster.contents("b") == {b"k": b"acknowledged"}
    cluster.check()


def test_a_possibly_superseded_replica_answers_nothing_while_its_checkpoint_waits_for_its_holders() -> None:
    """It had staged a write alone, was put out, and others went on. Back without them, it answered OK from its copy."""
    cluster = three_nodes(replicas=2, hold_ns=60_000_000_000)
    table = cluster.client("a").open()
    cluster.until(lambda: cluster.active() == "a")
    (other,) = set(cluster.in_sync("a")) - {"a"}
    third = "c" if other == "b" else "b"
    table.write(b"k", b"old")
    cluster.run(100)
    cluster.hold("a", other)
    call = table.begin_write(b"k", b"new")
    cluster.run(1)
    cluster.cut("a", other + third)
    cluster.holds.clear()
    cluster.until(lambda: cluster.active() == other)
    cluster.cut(other, third)
    del cluster.cuts["a", third], cluster.cuts[third, "a"]
    cluster.network.connect("a", third)
    cluster.until(lambda: cluster.serving("a"))
    cluster.run(300)
    assert call.code is None
    cluster.heal()
    cluster.until(lambda: call.code is not None)
    cluster.check()
    assert call.code == OK and cluster.contents(other)[b"k"] == b"new", "it was done where it counts"
