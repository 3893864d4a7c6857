"""Simulations with a hostile client: the others' histories, time-outs and convergence are as without it."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, Op
from ckptd.sim.cluster import Cluster
from ckptd.sim.draw.draw_options import HOSTILE, draw_options
from ckptd.sim.faults.spoiling import GROWN_BYTES_MAX, spoil
from ckptd.sim.simulation import run_phases, simulate

SEEDS = (1, 2, *(pytest.param(seed, marks=pytest.mark.extended) for seed in range(3, 13)))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hostile_client_breaks_nothing_of_the_others(seed: int) -> None:
    verdict = simulate(replace(draw_options(seed), hostile=True))
    assert verdict.good, f"{verdict.rule}: {verdict.text}"


def test_it_sends_as_long_as_faults_come() -> None:
    cluster = Cluster(replace(draw_options(3), hostile=True))
    run_phases(cluster)
    assert cluster.hostile_client.sent > 100


def test_some_seeds_have_one() -> None:
    drawn = [draw_options(seed).hostile for seed in range(1, 301)]
    assert 0.5 * HOSTILE < sum(drawn) / len(drawn) < 1.5 * HOSTILE


class Repeating(Random):
    """Draws the most changes, changes inside of a body, the most copies, and these places."""

    def __init__(self, places: list[int]) -> None:
        super().__init__(0)
        self.places = places

    def random(self) -> float:
        return 0.9

    def choice(self, options: Any) -> Any:
        return options[-1]

    def randrange(self, *among: int) -> int:  # type: ignore[override]
        return self.places.pop(0) if self.places else 0


REPEAT = 4
"""The number of the change that repeats a value."""


def test_a_body_that_is_repeated_again_and_again_stays_bounded() -> None:
    """5,000 copies of a value in a list, then 5,000 of the list: 25 GB in one frame (seed 7000020)."""
    body = pack_body([[Op.PUT, b"k", b"v", None]])
    copy_none, copy_the_list, change_bytes = [0, 7, 3, REPEAT], [0, REPEAT], [5]
    draw = Repeating([*copy_none, *copy_the_list, *change_bytes])
    spoiled = spoil(draw, Frame(Kind.UPDATE, 5, 2, 5, body), (Kind.UPDATE,))
    assert GROWN_BYTES_MAX // 2 < len(spoiled.body) < 2 * GROWN_BYTES_MAX
