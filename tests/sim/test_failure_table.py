"""What must happen under each fault, row by row of the failure table, in virtual time."""

import pytest
from tests.sim.scenario import (
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
)
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.cluster import Cluster
from ckptd.sim.draw.calm_options import calm_options

SYNC = SA_CKPT_WR_ALL_REPLICAS
ASYNC = (SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
COLLOCATED = SA_CKPT_CHECKPOINT_COLLOCATED


@pytest.mark.parametrize("make", [two_nodes, three_nodes, five_nodes])
def test_acknowledged_writes_survive_when_the_active_nodes_process_crashes(make) -> None:
    scenario = make(SYNC)
    active = away_from_active(scenario)
    for number in range(20):
        assert scenario.write(b"%d" % number).outcome == Outcome.OK
    scenario.faults.crash(active)
    assert scenario.read() == b"19"
    write_until_done(scenario, b"after", 100)
    assert scenario.active not in (None, active)
    scenario.finish()


def test_requests_in_flight_get_their_one_answer_when_the_active_node_crashes() -> None:
    scenario = three_nodes(SYNC)
    active = away_from_active(scenario)
    calls = [scenario.begin_update([[Op.CREATE, b"", 2**63 - 1, b"made %d" % n]]) for n in range(10)]
    scenario.run_ms(0.3)
    scenario.faults.crash(active)
    assert [scenario.end(call).outcome for call in calls] == [Outcome.OK] * 10
    assert len({call.result[0] for call in calls}) == 10
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", ASYNC)
def test_a_suffix_at_most_is_lost_when_the_active_node_of_an_async_checkpoint_crashes(
    make, flags: int
) -> None:
    scenario = make(flags)
    active = away_from_active(scenario)
    for number in range(50):
        scenario.write(b"%d" % number)
    scenario.faults.crash(active)
    survived = scenario.read()
    assert survived is not None and int(survived) <= 49
    write_until_done(scenario, b"after", 100)
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", ASYNC)
def test_no_active_replica_until_one_is_set_when_that_of_a_collocated_async_checkpoint_is_lost(
    make, flags: int
) -> None:
    scenario = make(flags | COLLOCATED)
    active = scenario.active
    assert active is not None
    standby = scenario.others(active)[0]
    scenario.attach_to(1, standby)
    scenario.open(1)
    scenario.write(b"kept")
    scenario.run_ms(200)
    scenario.faults.crash(active)
    scenario.run_ms(300)
    assert scenario.active is None
    scenario.worker(1).judge = lambda handle, result: None  # type: ignore[method-assign]
    call = scenario.end(scenario.begin_read(client=1))
    assert (call.code, call.index) == (codes.NOT_EXIST, -1)
    assert scenario.request(1, Kind.ACTIVE_SET, [True]).outcome == Outcome.OK
    assert scenario.active == standby
    assert scenario.read(client=1) == b"kept"
    scenario.finish()


def test_standby_takes_over_within_two_seconds_when_the_active_machine_loses_power() -> None:
    scenario = three_nodes(SYNC)
    active = away_from_active(scenario)
    scenario.write(b"before")
    scenario.faults.power_off(active)
    write_until_done(scenario, b"after", 2000)
    assert scenario.active not in (None, active)
    scenario.finish()


def test_a_pair_blocks_until_the_coordinator_returns_when_its_machine_loses_power() -> None:
    scenario = two_nodes(SYNC)
    coordinator = scenario.coordinator
    (other,) = scenario.others(coordinator)
    scenario.attach_to(0, other)
    scenario.write(b"before")
    scenario.faults.power_off(coordinator)
    call = scenario.write(b"blocked")
    assert call.outcome in (Outcome.NOT_DONE, Outcome.UNKNOWN)
    assert scenario.active is None
    node = scenario.cluster.hosts[other].node
    assert node is not None and coordinator in node.reconfiguration.waiting_for
    scenario.faults.restart(coordinator)
    write_until_done(scenario, b"released", 3000)
    scenario.finish()


def test_writes_pause_for_no_more_than_the_replica_timeout_when_a_standby_falls_silent() -> None:
    scenario = three_nodes(SYNC)
    active = scenario.active
    assert active is not None
    scenario.attach_to(0, active)
    scenario.write(b"before")
    scenario.faults.power_off(scenario.others(active)[0])
    write_until_done(scenario, b"after", 2000)
    scenario.finish()


def test_the_coordinators_side_alone_continues_when_a_pair_is_partitioned() -> None:
    scenario = two_nodes(SYNC)
    coordinator = scenario.coordinator
    (other,) = scenario.others(coordinator)
    scenario.attach_to(0, coordinator)
    scenario.attach_to(1, other)
    scenario.open(1)
    scenario.faults.cut(scenario.faults.ways_between([coordinator], [other]))
    scenario.run_ms(2000)
    assert scenario.active == coordinator
    write_until_done(scenario, b"after", 100)
    scenario.finish()
    assert scenario.read(client=1) == b"after"


@pytest.mark.parametrize("active_in_minority", [True, False])
def test_the_majority_continues_when_five_nodes_are_split_two_to_three(active_in_minority: bool) -> None:
    scenario = five_nodes(SYNC)
    active = scenario.active
    assert active is not None
    with_replica = [node_id for node_id in scenario.replicas() if node_id != active]
    rest = [node_id for node_id in scenario.others(active) if node_id not in with_replica]
    two = [active, rest[0]] if active_in_minority else [with_replica[0], rest[0]]
    three = [node_id for node_id in scenario.cluster.hosts if node_id not in two]
    scenario.attach_to(0, three[0])
    scenario.write(b"before")
    scenario.faults.cut(scenario.faults.ways_between(two, three))
    scenario.run_ms(2500)
    assert scenario.active in three
    assert scenario.read() == b"before"
    write_until_done(scenario, b"after", 2000)
    scenario.finish()


def test_a_checkpoint_without_a_replica_in_the_majority_is_unavailable_and_adopted_at_heal() -> None:
    scenario = five_nodes(SYNC, replicas=2)
    scenario.write(b"kept")
    two = scenario.replicas()
    assert len(two) == 2
    three = [node_id for node_id in scenario.cluster.hosts if node_id not in two]
    ways = scenario.faults.ways_between(two, three)
    scenario.attach_to(0, three[0])
    scenario.faults.cut(ways)
    scenario.run_ms(3000)
    assert scenario.active is None
    call = scenario.end(scenario.begin_read())
    assert call.outcome == Outcome.UNKNOWN or call.code == codes.TRY_AGAIN
    scenario.faults.heal(ways)
    assert scenario.read() == b"kept"
    scenario.finish()


def test_one_way_loss_counts_as_a_partition() -> None:
    scenario = three_nodes(SYNC)
    active = scenario.active
    assert active is not None
    others = scenario.others(active)
    scenario.attach_to(0, others[0])
    scenario.write(b"before")
    scenario.faults.cut([(active, other) for other in others])
    write_until_done(scenario, b"after", 3000)
    assert scenario.active in others
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes, five_nodes])
def test_a_pause_shorter_than_the_lease_changes_nothing_but_latency(make) -> None:
    scenario = make(SYNC)
    active = away_from_active(scenario)
    epoch = scenario.cluster.nodes()[0].context.epoch
    scenario.faults.pause(active)
    scenario.run_ms(300)
    scenario.faults.resume(active)
    write_until_done(scenario, b"after", 500)
    assert scenario.active == active
    assert scenario.cluster.nodes()[0].context.epoch == epoch
    scenario.finish()


def test_a_paused_active_node_finds_its_lease_gone_before_it_touches_what_is_queued() -> None:
    scenario = three_nodes(SYNC)
    active = scenario.active
    assert active is not None
    scenario.attach_to(0, active)
    scenario.attach_to(1, scenario.others(active)[0])
    scenario.open(1)
    scenario.write(b"before")
    scenario.faults.pause(active)
    stale = scenario.begin_read()
    scenario.run_ms(2500)
    assert scenario.write(b"after", client=1).outcome == Outcome.OK
    scenario.faults.resume(active)
    scenario.end(stale)
    assert scenario.read() == b"after"
    scenario.finish()


@pytest.mark.parametrize("make", [two_nodes, three_nodes])
@pytest.mark.parametrize("flags", [SYNC, *ASYNC])
def test_nothing_is_lost_and_no_call_fails_when_the_active_node_leaves(make, flags: int) -> None:
    scenario = make(flags)
    active = away_from_active(scenario)
    for number in range(10):
        scenario.write(b"%d" % number)
    scenario.faults.leave(active)
    for number in range(10, 40):
        call = scenario.write(b"%d" % number)
        assert call.outcome == Outcome.OK
        scenario.run_ms(20)
    scenario.run_ms(2000)
    assert not scenario.cluster.hosts[active].running
    assert scenario.read() == b"39"
    scenario.finish()


def test_what_both_nodes_of_a_pair_held_is_gone_when_both_crash() -> None:
    scenario = two_nodes(SYNC)
    scenario.write(b"gone")
    for node_id in list(scenario.cluster.hosts):
        scenario.faults.crash(node_id)
    scenario.run_ms(100)
    for node_id in list(scenario.cluster.hosts):
        scenario.faults.restart(node_id)
    scenario.converge()
    scenario.open(0)
    assert scenario.read() is None
    scenario.finish()


def test_writes_continue_and_the_slow_replica_comes_back_when_it_lags_beyond_the_replica_timeout() -> None:
    scenario = three_nodes(SYNC)
    active = scenario.active
    assert active is not None
    slow = scenario.others(active)[1]
    scenario.attach_to(0, active)
    ways = scenario.faults.ways_between([slow], scenario.others(slow))
    scenario.faults.slow(ways, 10_000)
    write_until_done(scenario, b"after", 3000)
    scenario.faults.slow(ways, 1)
    scenario.finish()
    assert slow in scenario.replicas()


def test_no_view_changes_when_thirty_percent_of_all_datagrams_are_lost() -> None:
    scenario = three_nodes(SYNC)
    epoch = scenario.cluster.nodes()[0].context.epoch
    scenario.faults.lossy(0.3)
    for number in range(100):
        assert scenario.write(b"%d" % number).outcome == Outcome.OK
        scenario.run_ms(50)
    assert scenario.cluster.nodes()[0].context.epoch == epoch
    scenario.finish()


def test_retention_is_neither_shortened_nor_forgotten_when_the_coordinator_is_lost() -> None:
    scenario = three_nodes(SYNC, retention_ns=3 * SECOND_NS)
    creation_id = scenario.handle(0).creation_id
    handle = scenario.handle(0)
    closed_ns = scenario.world.now_ns
    scenario.worker(0).close(handle)
    scenario.run_ms(1000)
    scenario.faults.crash(scenario.coordinator)
    scenario.run_ms(1500)
    assert all(creation_id in node.directory.checkpoints for node in scenario.cluster.nodes())
    scenario.run_ms((closed_ns + 3 * SECOND_NS - scenario.world.now_ns) / MILLISECOND_NS + 1500)
    assert all(creation_id not in node.directory.checkpoints for node in scenario.cluster.nodes())


def test_a_cold_start_waits_for_a_majority_of_the_voters() -> None:
    cluster = Cluster(calm_options(3))
    cluster.faults.start("b")
    cluster.world.run_until(3 * SECOND_NS)
    (node,) = cluster.nodes()
    assert node.view is None and "cold start" in node.reconfiguration.waiting_for
    cluster.faults.start("c")
    cluster.world.run_until(6 * SECOND_NS)
    assert [list(node.view.members) for node in cluster.nodes() if node.view is not None] == [["b", "c"]] * 2


def test_a_restarted_majority_waits_for_the_last_member_or_proof_of_its_death() -> None:
    """They remember a view in which the third may still serve; only its return proves it dead."""
    scenario = three_nodes(SYNC)
    scenario.write(b"held by nobody now")
    for node_id in list(scenario.cluster.hosts):
        scenario.faults.power_off(node_id)
    scenario.faults.restart("b")
    scenario.faults.restart("c")
    scenario.run_ms(3000)
    assert all(node.view is None for node in scenario.cluster.nodes())
    scenario.faults.restart("a")
    scenario.converge()


def test_a_crash_between_a_promise_and_its_sending_forgets_nothing() -> None:
    """The register's promise is on disk before it is said: a crash at any effect leaves one view an epoch."""
    for seed in range(12):
        scenario = three_nodes(SYNC, seed=seed)
        scenario.write(b"before")
        first = scenario.coordinator
        for node_id in scenario.others(first):
            scenario.faults.crash_amid_effects(node_id)
            scenario.run_ms(30)
            scenario.faults.restart(node_id)
        scenario.faults.crash(first)
        scenario.run_ms(200)
        scenario.finish()
