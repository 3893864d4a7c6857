"""Forged heartbeats, second daemons under a node's id, clocks that were ahead: nobody may notice."""

from dataclasses import replace

import pytest
from tests.sim.scenario import three_nodes

from ckptd.core.settings import SECOND_NS
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.draw.options import Options
from ckptd.sim.mutants.mutants import MUTANTS
from ckptd.sim.simulation import simulate
from ckptd.sim.sweep import find_seed

FORGED_SEED = 83000000
SEEDS_MAX = 20
"""Seeds within which a rule that is switched off is found, in the shape that presses on it."""


@pytest.mark.parametrize(
    "options",
    [replace(draw_options(FORGED_SEED), impostors=True), draw_options(1, shape="impostors")],
    ids=["as drawn", "disks lost"],
)
def test_impostors_break_nothing(options: Options) -> None:
    verdict = simulate(options)
    assert verdict.good, verdict.text


@pytest.mark.parametrize(
    "rule",
    ["incarnations by heartbeats", pytest.param("later incarnations hidden", marks=pytest.mark.extended)],
)
def test_a_rule_against_them_that_is_switched_off_is_found(rule: str) -> None:
    assert MUTANTS[rule].shape == "impostors"
    assert find_seed(rule, 1, SEEDS_MAX, jobs=1).found is not None


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
    second = impostors.second_daemons[0]
    assert second.node.view is None
    assert "accept another daemon as node" in second.node.context.alarms["superseded"]
    assert scenario.cluster.world.now_ns > 3 * SECOND_NS
