"""Nothing is taken for a failure that is none: with the default times, for as long as a shift lasts."""

from typing import Any

import pytest
from tests.sim.scenario import Scenario, three_nodes

from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS
from ckptd.core.settings import SECOND_NS
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.draw.calm_options import calm_options
from ckptd.sim.faults.chaos import STALL_MAX_NS, STALL_MIN_NS

MINUTE_S = 60
EVERY_S = 2
"""A write so often: enough to see that the service serves, and little to simulate."""


def epochs(scenario: Scenario) -> list[int]:
    return [node.context.epoch for node in scenario.cluster.nodes()]


def work_for(scenario: Scenario, seconds: int) -> None:
    """A light load for so long, every call of which must be answered in time."""
    for number in range(seconds // EVERY_S):
        assert scenario.write(b"%d" % number).outcome == Outcome.OK
        scenario.run_ms(EVERY_S * 1000)
    assert scenario.read() == b"%d" % (seconds // EVERY_S - 1)


def stall_now_and_then(scenario: Scenario, every_ns: int) -> None:
    """Any node stalls, for as long as a full collection takes, again and again."""
    world, hosts = scenario.world, scenario.cluster.hosts

    def stall() -> None:
        node_id = world.random.choice(list(hosts))
        scenario.faults.stall(node_id, world.between(STALL_MIN_NS, STALL_MAX_NS))
        world.after(world.about(every_ns), stall)

    world.after(every_ns, stall)


def lossy(scenario: Scenario) -> None:
    scenario.faults.lossy(0.3)


def stalling(scenario: Scenario) -> None:
    stall_now_and_then(scenario, 2 * SECOND_NS)


def no_view_changes_for(seconds: int, disturb: Any, **changes: Any) -> None:
    scenario = three_nodes(SA_CKPT_WR_ALL_REPLICAS, **changes)
    before = epochs(scenario)
    disturb(scenario)
    work_for(scenario, seconds)
    assert epochs(scenario) == before


@pytest.mark.parametrize("disturb", [lossy, stalling])
def test_no_view_changes_in_a_minute(disturb: Any) -> None:
    no_view_changes_for(MINUTE_S, disturb)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("disturb", [lossy, stalling])
def test_no_view_changes_in_an_hour(disturb: Any) -> None:
    no_view_changes_for(60 * MINUTE_S, disturb)


@pytest.mark.parametrize("node_id", calm_options(3).node_ids)
def test_a_pause_under_half_a_second_of_any_node_changes_no_view(node_id: str) -> None:
    scenario = three_nodes(SA_CKPT_WR_ALL_REPLICAS)
    before = epochs(scenario)
    for pause_ms in (100, 300, 400, 450, 490):
        for offset_ms in (0, 7, 19):
            scenario.run_ms(700 + offset_ms)
            scenario.faults.pause(node_id)
            scenario.run_ms(pause_ms)
            scenario.faults.resume(node_id)
    scenario.run_ms(1000)
    assert epochs(scenario) == before
    assert scenario.write(b"after").outcome == Outcome.OK
