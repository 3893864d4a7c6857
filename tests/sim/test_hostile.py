"""Simulations with a hostile client: the others' histories, time-outs and convergence are as without it."""

from dataclasses import replace

import pytest

from ckptd.sim.cluster import Cluster
from ckptd.sim.options import HOSTILE, draw_options
from ckptd.sim.simulation import run_phases, simulate

SEEDS = 12


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_hostile_client_breaks_nothing_of_the_others(seed: int) -> None:
    verdict = simulate(replace(draw_options(seed), hostile=True))
    assert verdict.good, f"{verdict.rule}: {verdict.text}"


def test_it_sends_as_long_as_faults_come() -> None:
    cluster = Cluster(replace(draw_options(3), hostile=True))
    run_phases(cluster)
    assert cluster.hostile.sent > 100


def test_some_seeds_have_one() -> None:
    drawn = [draw_options(seed).hostile for seed in range(1, 301)]
    assert 0.5 * HOSTILE < sum(drawn) / len(drawn) < 1.5 * HOSTILE
