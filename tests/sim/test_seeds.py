"""Simulations by seed: each keeps every rule, and is the same history in every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptd.sim.__main__ import main
from ckptd.sim.draw.draw_options import FAULT_KINDS, draw_options
from ckptd.sim.draw.profiles import PROFILES
from ckptd.sim.draw.shapes import SHAPES
from ckptd.sim.simulation import simulate
from ckptd.sim.sweep import MEMORY_BYTES_MAX, processes, repeat, sweep
from ckptd.sim.trace import Trace

SEEDS = 300
"""Of these every kind of everything is drawn."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("first", "last"),
    [
        (1, 12),
        pytest.param(13, 40, marks=pytest.mark.extended),
        pytest.param(41, SEEDS, marks=pytest.mark.slow),
    ],
)
def test_every_rule_holds(first: int, last: int) -> None:
    failed = [one for one in sweep(first, last - first + 1, os.cpu_count() or 1) if one.rule]
    told = [f"{repeat(one.seed)}  # {one.rule}: {one.text[:300]}" for one in failed]
    assert not told, "\n".join(["", *told])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's memory is not limited")
def test_a_process_of_a_sweep_gets_no_more_memory_than_it_may_have() -> None:
    """One seed took 25 GB, and the machine with it."""
    with processes(1) as executor:
        raised = executor.submit(bytearray, 2 * MEMORY_BYTES_MAX).exception()
    assert isinstance(raised, MemoryError)


def run_in_process(seed: int, hash_seed: str, trace: Path) -> str:
    command = [sys.executable, "-m", "ckptd.sim", str(seed), "--quiet", "--trace", str(trace)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("seed", [20, pytest.param(24, marks=pytest.mark.extended)])
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


def test_a_sweep_has_the_shape_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """It ran ordinary seeds instead, and said that they had passed."""
    assert main(["--sweep", "1", "--first", "7", "--jobs", "1", "--shape", "leaders frozen"]) == 0
    shaped = simulate(draw_options(7, shape="leaders frozen"))
    assert f"1 seeds, {shaped.events} events" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["--sweep", "1", "--mutant", "sessions never end"], ["--mutants", "--shape", "leaders"]],
)
def test_a_sweep_refuses_what_it_would_ignore(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"{arguments[0]} does not take {arguments[-2]}" in capsys.readouterr().err


def test_a_simulation_stops_after_the_steps_that_were_asked_for() -> None:
    verdict = simulate(draw_options(7, steps_max=500))
    assert verdict.stopped and verdict.good and verdict.events == 501


def test_the_seeds_hold_every_kind_of_fault_every_profile_and_every_number_of_nodes() -> None:
    drawn = [draw_options(seed) for seed in range(1, SEEDS + 1)]
    assert {1, 2, 3, 5} <= {options.nodes for options in drawn}
    assert set(PROFILES) <= {options.profile for options in drawn} <= set(SHAPES)
    impossible = {kind for kind in FAULT_KINDS if not any(kind in o.fault_weights for o in drawn)}
    assert impossible <= {"disk-full", "disk-lost", "register-cut", "witness-cut"}
