"""A bug of our own in a cluster under work and faults: what it stops, what it must not cost.

The rule (ADR 18): nothing acknowledged is lost in silence, only the nodes stop that tried before it
was known, and every other checkpoint is served. Convergence and all checkers of the simulation judge.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.sim.scenario import Scenario, away_from_active, three_nodes

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.messages import Op
from ckptd.core.replication.resync import ResyncSender
from ckptd.core.stops_by_bugs import CLOSES_AFTER, Stops
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.draw.options import Options
from ckptd.sim.mutants.planted_bugs import apply_raises_on, commit_raises_on, copying_raises_on
from ckptd.sim.simulation import simulate

POISON = b"poison"
SYNC = SA_CKPT_WR_ALL_REPLICAS
KINDS = [SYNC, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK]
OTHER = b"bystander"


def cluster_with_two(flags: int = SYNC) -> tuple[Scenario, str]:
    """Two open checkpoints that hold something; the client is not at the active node, which is returned."""
    scenario = three_nodes(flags)
    scenario.worker(0).open(SimCheckpoint(OTHER, SYNC, scenario.checkpoint.retention_ns, False))
    scenario.until(lambda: OTHER in scenario.worker(0).handles)
    scenario.write(b"before")
    assert end_put(scenario, OTHER).outcome == Outcome.OK
    return scenario, away_from_active(scenario)


def end_put(scenario: Scenario, name: bytes) -> Any:
    return scenario.end(scenario.begin_update([[Op.PUT, b"k0", b"fine", None]], name=name))


def serves_the_other(scenario: Scenario) -> None:
    """The other checkpoint is written and read as before."""
    assert end_put(scenario, OTHER).outcome == Outcome.OK
    read = scenario.end(scenario.begin_read(name=OTHER))
    assert read.outcome == Outcome.OK and read.result[0] == b"fine"


@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("everywhere", [True, False])
def test_one_node_stops_at_a_write_that_the_active_replica_raises_at(flags: int, everywhere: bool) -> None:
    scenario, active = cluster_with_two(flags)
    with apply_raises_on(POISON, lambda node_id, as_active: everywhere or as_active) as bug:
        call = scenario.write(POISON)
        assert (call.outcome, call.code) == (Outcome.UNKNOWN, codes.LIBRARY)
        serves_the_other(scenario)
        assert scenario.write(b"after").outcome == Outcome.OK
        scenario.finish()
        assert bug.stopped == [active]
    assert scenario.read() == b"after"


@pytest.mark.parametrize("flags", KINDS)
def test_the_service_continues_when_one_backup_raises_at_a_write(flags: int) -> None:
    scenario, active = cluster_with_two(flags)
    backup = scenario.others(active)[1]
    with apply_raises_on(POISON, lambda node_id, as_active: node_id == backup) as bug:
        assert scenario.write(POISON).outcome == Outcome.OK
        scenario.until(lambda: bool(bug.stopped))
        serves_the_other(scenario)
        scenario.finish()
        assert bug.stopped == [backup]
    assert scenario.read() == POISON
    assert scenario.replicas() == ["a", "b", "c"]


@pytest.mark.parametrize("flags", [SYNC, SA_CKPT_WR_ACTIVE_REPLICA])
def test_a_write_that_every_backup_raises_at_is_kept_and_stops_each_of_them_once(flags: int) -> None:
    scenario, active = cluster_with_two(flags)
    with apply_raises_on(POISON, lambda node_id, as_active: not as_active) as bug:
        assert scenario.write(POISON).outcome == Outcome.OK
        scenario.until(lambda: len(bug.stopped) == 2)
        scenario.finish()
        serves_the_other(scenario)
        assert sorted(bug.stopped) == sorted(scenario.others(active))
    assert scenario.read() == POISON


def test_what_no_active_replica_can_commit_is_kept_and_not_served() -> None:
    scenario, _ = cluster_with_two()
    with commit_raises_on(POISON, lambda node_id, as_active: True) as bug:
        scenario.begin_write(POISON)
        scenario.until(lambda: len(bug.stopped) == CLOSES_AFTER)
        scenario.converge()
        serves_the_other(scenario)
        scenario.run_ms(3000)
        assert len(bug.stopped) == CLOSES_AFTER
        creation_id = scenario.handle(0).creation_id
        asked = scenario.end(scenario.begin_read())
        assert (asked.outcome, asked.code) == (Outcome.NOT_DONE, codes.TRY_AGAIN)
        nodes = scenario.cluster.nodes()
        assert all(creation_id in node.context.stops.closed for node in nodes)
        assert all("closed" in node.context.alarms for node in nodes)
        held = [dict(node.replicas[creation_id].sections.items_sorted()).get(b"k0") for node in nodes]
        assert any(section is not None and section.content == POISON for section in held)
        assert any(host.quarantined for host in scenario.cluster.hosts.values())


def test_a_replica_that_cannot_be_made_leaves_its_node_and_all_else_unchanged() -> None:
    scenario, active = cluster_with_two()
    backup = scenario.others(active)[1]

    def at(node_id: str, as_active: bool) -> bool:
        return node_id == backup

    with apply_raises_on(POISON, at) as applying, copying_raises_on(POISON, at) as copying:
        assert scenario.write(POISON).outcome == Outcome.OK
        scenario.until(lambda: bool(copying.stopped))
        scenario.run_ms(5000)
        assert (applying.stopped, copying.stopped) == ([backup], [backup])
        assert backup not in scenario.replicas()
        assert scenario.read() == POISON
        serves_the_other(scenario)


PLACES: dict[str, Callable[[str, bool], bool]] = {
    "everywhere": lambda node_id, as_active: True,
    "active": lambda node_id, as_active: as_active,
    "backup": lambda node_id, as_active: not as_active,
    "one": lambda node_id, as_active: node_id == "b",
}


def with_plain_clients(seed: int) -> Options:
    """Return the options of a seed, without clients that lead or resize: what is closed they ask for ever."""
    return replace(draw_options(seed), leaders=0, resizers=0)


@pytest.mark.extended
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seed", [900010, 900011, 900012])
def test_a_bug_amid_all_other_faults_breaks_no_rule(seed: int, place: str) -> None:
    """At one value of one client; last words can be lost, and nodes be started again meanwhile."""
    options = with_plain_clients(seed)
    with apply_raises_on(b"<%d.%d>" % (1 + seed % 2, 2 + seed % 7), PLACES[place]) as bug:
        verdict = simulate(options)
    assert verdict.good, verdict.text
    limit = options.nodes if place == "backup" else CLOSES_AFTER + (place == "everywhere") * options.nodes
    assert len(bug.stopped) <= limit, bug.stopped


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("raises_on", [apply_raises_on, commit_raises_on, copying_raises_on])
def test_bugs_amid_all_other_faults_break_no_rule(raises_on: Any, place: str) -> None:
    struck = 0
    for seed in range(910_000, 910_040):
        with raises_on(b"<%d.%d>" % (1 + seed % 2, 2 + seed % 7), PLACES[place]) as bug:
            verdict = simulate(with_plain_clients(seed))
        assert verdict.good, (seed, verdict.text)
        struck += bool(bug.stopped)
    assert struck or (raises_on, place) == (commit_raises_on, "backup")


@pytest.mark.extended
def test_a_bug_in_a_commit_amid_all_other_faults_breaks_no_rule() -> None:
    """In the first of these simulations that writes the value, and in all before it."""
    for seed in range(900_010, 900_050):
        with commit_raises_on(b"<%d.%d>" % (1 + seed % 2, 2 + seed % 7), PLACES["everywhere"]) as bug:
            verdict = simulate(with_plain_clients(seed))
        assert verdict.good, (seed, verdict.text)
        assert len(bug.stopped) <= CLOSES_AFTER, (seed, bug.stopped)
        if len(bug.stopped) == CLOSES_AFTER:
            return
    pytest.fail("the bug never struck as often as it can")


def test_without_last_words_a_clients_repeats_end_two_of_three_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault that the rule is for, with the rule switched off."""
    monkeypatch.setattr(Stops, "add", lambda stops, learned: [])
    scenario, _ = cluster_with_two()
    with apply_raises_on(POISON, lambda node_id, as_active: True) as bug:
        scenario.begin_write(POISON)
        scenario.until(lambda: len(bug.stopped) >= 2)
    assert len(set(bug.stopped)) >= 2


def test_with_the_log_a_backup_would_stop_at_the_same_update_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, active = cluster_with_two()
    backup = scenario.others(active)[1]
    monkeypatch.setattr(ResyncSender, "must_send_sections", property(lambda source: False))
    monkeypatch.setattr(Stops, "named_update", lambda *version: False)
    with apply_raises_on(POISON, lambda node_id, as_active: node_id == backup) as bug:
        assert scenario.write(POISON).outcome == Outcome.OK
        scenario.until(lambda: len(bug.stopped) >= 2)
