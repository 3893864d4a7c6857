"""What must happen under each fault: the failure table for other kinds and other sizes of clusters."""

import pytest
from tests.sim.scenario import (
    Scenario,
    away_from_active,
    five_nodes,
    three_nodes,
    two_nodes,
    write_until_done,
)

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.history import Call, Outcome
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.cluster import Cluster
from ckptd.sim.convergence import violations
from ckptd.sim.draw.calm_options import calm_options
from ckptd.sim.simulation import converge

SYNC = SA_CKPT_WR_ALL_REPLICAS
WEAK = SA_CKPT_WR_ACTIVE_REPLICA_WEAK
ASYNC = (SA_CKPT_WR_ACTIVE_REPLICA, WEAK)
COLLOCATED = SA_CKPT_CHECKPOINT_COLLOCATED
KINDS = (SYNC, *ASYNC)
OTHER = b"other"
PATIENCE_NS = 10 * SECOND_NS
"""Of a client that stays where it is: what it waits for is the service's own pause."""

SLOW, TOO_SLOW = 1_000, 10_000
"""Round trips of 0.1 to 0.4 s, within all time-outs, and of 1 to 4 s, beyond them."""


def latency_ms(call: Call) -> float:
    """How long the caller of one that succeeded waited."""
    assert call.outcome == Outcome.OK, call.describe()
    return (call.returned_ns - call.invoked_ns) / MILLISECOND_NS


def latencies(scenario: Scenario, seconds: float) -> list[float]:
    """Write for so long, one after the other; how long each took."""
    until_ns = scenario.world.now_ns + int(seconds * SECOND_NS)
    waited: list[float] = []
    while scenario.world.now_ns < until_ns:
        waited.append(latency_ms(scenario.write(b"%d" % len(waited))))
        scenario.run_ms(5)
    return waited


def alarm(scenario: Scenario, node_id: str, name: str = "arbiter") -> str:
    """The text of a node's alarm; "" when all is well."""
    node = scenario.cluster.hosts[node_id].node
    assert node is not None
    return node.context.alarms.get(name, "")


def epochs(scenario: Scenario) -> list[int]:
    return [node.context.epoch for node in scenario.cluster.nodes()]


def is_put_out(scenario: Scenario, node_id: str) -> bool:
    """Whether a view without this node was decided."""
    decided = [node.reconfiguration.decided for node in scenario.cluster.nodes()]
    return any(view is not None and node_id not in view.members for view in decided)


def went_to_quarantine(scenario: Scenario, node_id: str) -> bool:
    """Whether this node kept what the cluster went on without."""
    return any(f"{node_id}: " in line and "to quarantine" in line for line in scenario.world.time_line)


# -- the active node's process crashes


@pytest.mark.parametrize("flags", KINDS)
def test_the_other_node_of_a_pair_is_active_within_50_ms_when_the_active_nodes_process_crashes(
    flags: int,
) -> None:
    scenario = two_nodes(flags)
    active = away_from_active(scenario)
    (other,) = scenario.others(active)
    scenario.write(b"before")
    scenario.faults.crash(active)
    scenario.until(lambda: scenario.active == other, within_ms=50)
    write_until_done(scenario, b"after", 50)
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", ASYNC)
def test_what_was_not_pushed_yet_is_lost_from_the_end_when_the_active_node_crashes_on_its_answer(
    make, flags: int
) -> None:
    """The writer is where the active replica is: it is answered before anybody else has the update."""
    survived: list[int] = []
    for seed in range(16):
        scenario = make(flags, seed=seed)
        active = scenario.active
        assert active is not None
        for number in range(20):
            scenario.write(b"%d" % number)
        scenario.faults.crash_on_answer(active)
        assert scenario.write(b"20").outcome == Outcome.OK
        survived.append(int(scenario.read() or b"-1"))
        write_until_done(scenario, b"after", 100)
        scenario.finish()
    assert min(survived) < 20 and max(survived) <= 20


def test_half_a_weak_section_is_never_served_as_valid_when_the_active_node_of_a_pair_crashes() -> None:
    told: list[int] = []
    for seed in range(8):
        scenario = two_nodes(WEAK, seed=seed, weak_batch_bytes=24)
        active = away_from_active(scenario)
        scenario.write(b"o" * 90)
        scenario.run_ms(50)
        node = scenario.cluster.hosts[active].node
        assert node is not None
        log = node.replicas[scenario.handle(0).creation_id].log
        before = log.seq
        scenario.write(b"n" * 90)
        scenario.until(lambda log=log, before=before: log.seq > before)  # type: ignore[misc]
        scenario.faults.crash(active)
        call = scenario.end(scenario.begin_read())
        told.append(call.code)
        if call.outcome == Outcome.OK:
            assert call.result[0] in (b"o" * 90, b"n" * 90)
        write_until_done(scenario, b"whole", 100)
        assert scenario.read() == b"whole"
        scenario.finish()
    assert set(told) == {codes.OK, codes.FAILED_OPERATION}


# -- a standby crashes or falls silent


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", KINDS)
def test_writes_pause_for_less_than_50_ms_when_a_standbys_process_crashes(make, flags: int) -> None:
    scenario = make(flags)
    active = scenario.active
    assert active is not None
    scenario.write(b"before")
    scenario.faults.crash(scenario.others(active)[-1])
    assert max(latencies(scenario, seconds=1)) < 50
    assert scenario.active == active
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", KINDS)
def test_writes_continue_without_the_standby_after_a_lease_when_it_falls_silent(make, flags: int) -> None:
    scenario = make(flags, patience_ns=PATIENCE_NS)
    active = scenario.active
    assert active == scenario.coordinator
    standby = scenario.others(active)[-1]
    scenario.write(b"before")
    scenario.faults.power_off(standby)
    assert max(latencies(scenario, seconds=3)) < 700
    assert scenario.active == active
    assert scenario.replicas() == [node_id for node_id in scenario.cluster.hosts if node_id != standby]
    assert "'table'" in alarm(scenario, active, "replicas_degraded")
    scenario.finish()
    assert standby in scenario.replicas()
    scenario.run_ms(100)
    assert alarm(scenario, active, "replicas_degraded") == ""


@pytest.mark.parametrize("make", [two_nodes, three_nodes, five_nodes])
def test_an_evicted_silent_standby_is_not_admitted_before_its_heartbeats_arrive_again(make) -> None:
    """Rules 5.6: a node is admitted only when all members hear it. Each change of the view stops all."""
    scenario = make(SYNC, patience_ns=PATIENCE_NS)
    active = scenario.active
    assert active is not None
    standby = next(node_id for node_id in scenario.replicas() if node_id != active)
    before = max(epochs(scenario))
    scenario.faults.power_off(standby)
    latencies(scenario, seconds=3)
    after = max(epochs(scenario))
    scenario.finish()
    assert after == before + 1


@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("role", ["active", "standby"])
def test_a_lost_replica_is_rebuilt_on_a_spare_node_when_its_process_crashes(flags: int, role: str) -> None:
    """And counts there: one after the other die all that held it at first."""
    scenario = five_nodes(flags)
    scenario.write(b"kept")
    scenario.run_ms(50)
    first = sorted(
        scenario.replicas(), key=lambda node_id: (node_id == scenario.active) != (role == "active")
    )
    assert len(first) == 3
    for victim in first:
        scenario.faults.crash(victim)
        scenario.until(lambda victim=victim: len({*scenario.replicas()} - {victim}) == 3)  # type: ignore[misc]
        scenario.faults.restart(victim)
        scenario.converge()
        assert scenario.read() == b"kept"
    scenario.finish()


# -- a short pause


@pytest.mark.parametrize("make", [two_nodes, five_nodes])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_no_view_changes_when_any_node_is_paused_for_less_than_a_lease(make, place: int) -> None:
    scenario = make(SYNC, patience_ns=PATIENCE_NS)
    before = epochs(scenario)
    scenario.faults.pause(list(scenario.cluster.hosts)[place])
    call = scenario.begin_write(b"meanwhile")
    scenario.run_ms(450)
    scenario.faults.resume(list(scenario.cluster.hosts)[place])
    assert latency_ms(scenario.end(call)) < 500
    scenario.run_ms(1000)
    assert epochs(scenario) == before
    scenario.finish()


# -- every node that holds a checkpoint dies


@pytest.mark.parametrize("make", [three_nodes, five_nodes])
def test_a_checkpoint_is_gone_once_all_its_holders_are_proved_dead_and_others_keep_theirs(make) -> None:
    scenario = make(SYNC, replicas=2)
    scenario.write(b"gone")
    holders, creation_id = scenario.replicas(), scenario.handle(0).creation_id
    (survivor, *_) = [node_id for node_id in scenario.cluster.hosts if node_id not in holders]
    scenario.attach_to(1, survivor)
    scenario.workload.checkpoints.append(SimCheckpoint(OTHER, SYNC, SA_TIME_END, False))
    scenario.worker(1).open(scenario.workload.checkpoints[-1])
    scenario.until(lambda: OTHER in scenario.worker(1).handles)
    kept = scenario.begin_update([[Op.PUT, b"k0", b"kept", None]], 1, OTHER)
    assert scenario.end(kept).outcome == Outcome.OK
    for node_id in holders:
        scenario.faults.crash(node_id)
    scenario.run_ms(2000)
    lost = scenario.cluster.oracles.views.lost
    if make is three_nodes:
        assert not lost, "the one that is left has no majority, and decides nothing"
        for node_id in holders:
            scenario.faults.restart(node_id)
        scenario.converge()
    assert list(lost) == [creation_id]
    read = scenario.begin_read(1, name=OTHER)
    assert scenario.end(read).result == [b"kept"]
    assert scenario.end(scenario.begin_read()).code == codes.BAD_HANDLE
    scenario.finish()
    scenario.open(0)
    assert scenario.read() is None, "the name means a new, empty checkpoint"
    scenario.finish()


# -- a slow replica


def slow_replica(scenario: Scenario, factor: int) -> str:
    """A standby becomes slow; which one."""
    active = scenario.active
    assert active is not None
    slow = scenario.others(active)[1]
    scenario.faults.slow(scenario.faults.ways_around(slow), factor)
    return slow


@pytest.mark.parametrize("flags", ASYNC)
def test_async_writers_never_wait_for_a_slow_replica(flags: int) -> None:
    scenario = three_nodes(flags)
    before = epochs(scenario)
    slow = slow_replica(scenario, SLOW)
    assert max(latencies(scenario, seconds=3)) < 1
    assert epochs(scenario) == before
    scenario.finish()
    assert slow in scenario.replicas()


def test_sync_writers_are_as_slow_as_the_slowest_replica() -> None:
    scenario = three_nodes(SYNC)
    before = epochs(scenario)
    slow = slow_replica(scenario, SLOW)
    waited = latencies(scenario, seconds=3)
    assert min(waited) >= 2 * 50 and max(waited) <= 2 * 200
    assert epochs(scenario) == before
    scenario.finish()
    assert slow in scenario.replicas()


@pytest.mark.parametrize("flags", KINDS)
def test_a_replica_that_is_evicted_for_being_slow_comes_back_by_joining(flags: int) -> None:
    scenario = three_nodes(flags, patience_ns=PATIENCE_NS, replica_timeout_ns=90 * MILLISECOND_NS)
    slow = slow_replica(scenario, SLOW)
    call = scenario.begin_write(b"after")
    scenario.until(lambda: is_put_out(scenario, slow), within_ms=1000)
    scenario.faults.slow(scenario.faults.ways_around(slow), 1)
    assert latency_ms(scenario.end(call)) < 1000
    scenario.converge()
    (view, *_) = [node.view for node in scenario.cluster.nodes()]
    assert view is not None and view.members[slow].join_epoch == view.epoch, "it is a newcomer"
    assert scenario.cluster.hosts[slow].incarnation == 1, "and no new process"
    scenario.finish()
    assert slow in scenario.replicas()


@pytest.mark.parametrize("flags", KINDS)
def test_writes_continue_while_a_replica_answers_later_than_a_lease(flags: int) -> None:
    """Rules 5.6: one stuck node cannot stop writes, though its heartbeats come, each a second late."""
    scenario = three_nodes(flags, patience_ns=PATIENCE_NS)
    slow_replica(scenario, TOO_SLOW)
    waited = latencies(scenario, seconds=15)
    scenario.finish()
    assert max(waited) < 3000


# -- the arbiter is down


def test_service_continues_without_the_witness_and_a_crash_blocks_writes_until_it_is_back() -> None:
    scenario = two_nodes(SYNC, witnesses=1, patience_ns=PATIENCE_NS)
    active = scenario.active
    assert active is not None
    standby = next(node_id for node_id in scenario.cluster.hosts if node_id != active)
    scenario.faults.crash("w")
    assert max(latencies(scenario, seconds=3)) < 50
    assert alarm(scenario, active) == "", "two of three voters are a majority"
    scenario.faults.crash(standby)
    blocked = scenario.begin_write(b"blocked")
    scenario.run_ms(3000)
    assert blocked.outcome == Outcome.PENDING
    assert scenario.active is None
    assert "1 of 3 voters can be reached" in alarm(scenario, active)
    scenario.faults.restart("w")
    scenario.until(lambda: blocked.outcome == Outcome.OK, within_ms=1500)
    assert scenario.active == active
    scenario.run_ms(100)
    assert alarm(scenario, active) == ""
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
def test_service_continues_without_the_register_and_a_crash_blocks_writes_until_it_is_back(make) -> None:
    scenario = make(SYNC, arbiter="etcd", patience_ns=PATIENCE_NS)
    active = scenario.active
    assert active is not None
    nodes = list(scenario.cluster.hosts)
    before = epochs(scenario)
    scenario.faults.cut_register(nodes)
    assert max(latencies(scenario, seconds=5)) < 50
    assert epochs(scenario) == before
    assert all("the view cannot change" in alarm(scenario, node_id) for node_id in nodes)
    standby = scenario.others(active)[-1]
    scenario.faults.crash(standby)
    blocked = scenario.begin_write(b"blocked")
    scenario.run_ms(3000)
    assert blocked.outcome == Outcome.PENDING
    assert scenario.active is None
    scenario.faults.heal_register(nodes)
    scenario.until(lambda: blocked.outcome == Outcome.OK, within_ms=3000)
    assert alarm(scenario, active) == ""
    scenario.finish()


# -- heal


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", [*ASYNC, *(flag | COLLOCATED for flag in ASYNC)])
def test_what_the_losing_side_had_for_itself_goes_to_quarantine_when_a_partition_heals(
    make, flags: int
) -> None:
    """The active replica is on the losing side: for a lease it still answers writes that nobody else gets."""
    scenario = make(flags, at="b")
    (winners, loser) = (scenario.others("b"), "b")
    assert scenario.active == loser and scenario.coordinator == winners[0]
    scenario.attach_to(1, winners[0])
    scenario.open(1)
    scenario.write(b"before")
    scenario.run_ms(50)
    scenario.faults.cut(scenario.faults.ways_between([loser], winners))
    assert scenario.write(b"lost").outcome == Outcome.OK
    scenario.run_ms(3000)
    if flags & COLLOCATED:
        assert scenario.active is None
        assert scenario.request(1, Kind.ACTIVE_SET, [True]).outcome == Outcome.OK
    assert scenario.active in winners
    assert scenario.read(client=1) == b"before"
    assert scenario.write(b"after", client=1).outcome == Outcome.OK
    assert not went_to_quarantine(scenario, loser)
    scenario.finish()
    scenario.run_ms(12_000)  # A copy that is wanted no more waits ten seconds for a join.
    assert went_to_quarantine(scenario, loser)
    assert not any(went_to_quarantine(scenario, node_id) for node_id in winners)
    assert scenario.read(client=0) == b"after"
    scenario.finish()


@pytest.mark.parametrize("flags", [kind | COLLOCATED for kind in KINDS])
def test_a_collocated_replica_is_rebuilt_where_it_is_still_open_when_a_partition_heals(flags: int) -> None:
    """Replicas are on the nodes that have opened it, and kept until the checkpoint goes."""
    scenario = two_nodes(flags, seed=1)  # Its first client is at a.
    scenario.attach_to(1, "b")
    scenario.open(1)
    assert scenario.replicas() == ["a", "b"]
    scenario.write(b"before")
    scenario.run_ms(50)
    ways = scenario.faults.ways_between(["a"], ["b"])
    scenario.faults.cut(ways)
    scenario.run_ms(3000)
    scenario.faults.heal(ways)
    scenario.converge()
    scenario.attach_to(1, "b")
    assert scenario.read(client=1) == b"before"
    scenario.finish()
    assert scenario.replicas() == ["a", "b"]


# -- retention and fail-over


@pytest.mark.parametrize("role", ["coordinator", "other"])
@pytest.mark.parametrize("back", [True, False])
def test_retention_in_a_pair_is_neither_shortened_nor_forgotten_when_a_node_is_lost(
    role: str, back: bool
) -> None:
    scenario = two_nodes(SYNC, retention_ns=3 * SECOND_NS)
    handle, closed_ns = scenario.handle(0), scenario.world.now_ns
    scenario.worker(0).close(handle)
    scenario.run_ms(1000)
    coordinator = scenario.coordinator
    lost = coordinator if role == "coordinator" else scenario.others(coordinator)[0]
    scenario.faults.crash(lost)
    scenario.run_ms(500)
    if back:
        scenario.faults.restart(lost)
    scenario.run_ms(1000)
    assert all(handle.creation_id in node.directory.checkpoints for node in scenario.cluster.nodes())
    scenario.run_ms((closed_ns + 3 * SECOND_NS - scenario.world.now_ns) / MILLISECOND_NS + 300)
    assert all(handle.creation_id not in node.directory.checkpoints for node in scenario.cluster.nodes())
    scenario.finish()


# -- cold start


@pytest.mark.parametrize(("first", "second"), ["ab", "ba"])
def test_a_cold_start_of_a_pair_waits_for_both(first: str, second: str) -> None:
    cluster = Cluster(calm_options(2))
    cluster.faults.start(first)
    cluster.world.run_until(5 * SECOND_NS)
    (node,) = cluster.nodes()
    assert node.view is None and node.reconfiguration.waiting_for == "2 of 2 nodes for a cold start"
    cluster.faults.start(second)
    converge(cluster, "the start")
    assert [list(node.view.members) for node in cluster.nodes() if node.view is not None] == [["a", "b"]] * 2
    assert violations(cluster) == []
