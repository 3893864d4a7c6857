"""Simulations by seed: each keeps every rule, and is the same history in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptd.sim.options import FAULT_KINDS, draw_options
from ckptd.sim.simulation import simulate
from ckptd.sim.trace import Trace

SEEDS = 150


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_every_rule_holds(seed: int) -> None:
    verdict = simulate(draw_options(seed))
    assert verdict.good, f"python -m ckptd.sim {seed}\n{verdict.rule}: {verdict.text}"


def run_in_process(seed: int, hash_seed: str, trace: Path) -> str:
    command = [sys.executable, "-m", "ckptd.sim", str(seed), "--quiet", "--trace", str(trace)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("seed", [3, 20])
def test_a_seed_is_one_history_in_every_process_and_under_every_hash_seed(seed: int, tmp_path: Path) -> None:
    first = run_in_process(seed, "1", tmp_path / "first")
    second = run_in_process(seed, "2", tmp_path / "second")
    assert first == second and f"seed {seed}" in first
    written = (tmp_path / "first").read_bytes()
    assert len(written) > 100_000
    assert written == (tmp_path / "second").read_bytes()


def test_writing_the_trace_changes_nothing(tmp_path: Path) -> None:
    with open(tmp_path / "trace", "w", encoding="utf-8") as file:
        written = simulate(draw_options(7), Trace(file))
    assert written.digest == simulate(draw_options(7)).digest


def test_other_seeds_are_other_histories() -> None:
    assert simulate(draw_options(7)).digest != simulate(draw_options(8)).digest


def test_a_simulation_stops_after_the_steps_that_were_asked_for() -> None:
    verdict = simulate(draw_options(7, steps_max=500))
    assert verdict.stopped and verdict.good and verdict.events == 501


def test_the_seeds_hold_every_kind_of_fault_and_every_number_of_nodes() -> None:
    drawn = [draw_options(seed) for seed in range(1, SEEDS + 1)]
    assert {options.nodes for options in drawn} == {1, 2, 3, 5}
    for place, kind in enumerate(FAULT_KINDS):
        assert any(options.fault_every_ns and options.fault_weights[place] for options in drawn), kind
