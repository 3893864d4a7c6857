"""Forged heartbeats, second daemons under a node's id, clocks that were ahead: nobody may notice."""

from dataclasses import replace

import pytest
from tests.sim.scenario import three_nodes

from ckptd.core.settings import SECOND_NS
from ckptd.sim.mutants import switched_off
from ckptd.sim.options import Options, draw_options
from ckptd.sim.simulation import simulate

FORGED_SEED = 83000000
LOST_SEED = 83100071
"""Here a node's clock is ahead, and then its disk is lost."""


def options(seed: int) -> Options:
    return replace(draw_options(seed), impostors=True)


@pytest.mark.parametrize("seed", [FORGED_SEED, LOST_SEED])
def test_impostors_break_nothing(seed: int) -> None:
    verdict = simulate(options(seed))
    assert verdict.good, verdict.text


@pytest.mark.parametrize(
    ("rule", "seed"),
    [("heartbeats make starts known", FORGED_SEED), ("no later start is told", LOST_SEED)],
)
def test_a_rule_against_them_that_is_switched_off_is_found(rule: str, seed: int) -> None:
    with switched_off(rule):
        verdict = simulate(options(seed))
    assert not verdict.good


def test_a_cluster_at_rest_changes_no_view_because_of_impostors() -> None:
    scenario = three_nodes()
    scenario.write(b"kept")
    impostors = scenario.cluster.impostors
    epochs = [node.context.epoch for node in scenario.cluster.nodes()]
    impostors.begin()
    impostors._start_second()
    scenario.run_ms(3000)
    impostors.end()
    assert impostors.forged > 20
    assert [node.context.epoch for node in scenario.cluster.nodes()] == epochs
    assert all(
        node.serving(host.local_ns)
        for node, host in zip(scenario.cluster.nodes(), scenario.cluster.hosts.values(), strict=True)
    )
    second = impostors.seconds[0]
    assert second.node.view is None
    assert "another daemon is node" in second.node.context.alarms["superseded"]
    assert scenario.cluster.world.now_ns > 3 * SECOND_NS
