"""`python -m bench`: every figure next to its floor, in one run."""

import argparse
import gc
import json
import os
import platform
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path

from rich.console import Console

from bench.cases import CASES, Case, Outcome, run_case
from bench.loops import loop_name
from bench.processes import choose_cores, pin_to
from bench.report import as_json, print_growths, print_holding, print_outcomes
from bench.rigs import CkptdRig, FloorRig
from bench.scale import Growth, Holding, measure_checkpoints, measure_sections
from bench.time_outs import Kept, measure_time_outs, print_time_outs

ROUNDS = 15


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures ckptd beside a bare echo over the same hops, the two in turn. "
        "A missed goal is printed, and is no error.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything there")
    parser.add_argument("--cores", type=int, default=1, metavar="N", help="spread the processes over N cores")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="rounds of each contender")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the cases with TEXT in their title")
    parser.add_argument("--no-time-outs", action="store_true", help="leave out calls that nobody answers")
    parser.add_argument(
        "--no-scale", action="store_true", help="leave out 100,000 sections, 10,000 checkpoints"
    )
    return parser.parse_args()


def environment(cores: Sequence[int | None]) -> dict[str, object]:
    """Return the facts about the machine and the versions that were measured."""
    try:
        installed = version("ckptd")
    except PackageNotFoundError:
        installed = "not installed"
    return {
        "ckptd": installed,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "loop": loop_name(),
        "cpus": os.cpu_count(),
        "cores": list(cores),
    }


def run_cases(
    console: Console, cases: Sequence[Case], cores: Sequence[int | None], rounds: int
) -> list[Outcome]:
    """Run all cases; those with the same number of nodes share their clusters."""
    outcomes = []
    spread = [*cores[1:], cores[0]]
    for nodes, some in groupby(cases, key=lambda case: case.nodes):
        with FloorRig(nodes, spread) as floor, CkptdRig(nodes, spread) as ckptd:
            for case in some:
                console.print(f"[dim]{case.title}")
                outcomes.append(run_case(case, floor, ckptd, rounds))
    return outcomes


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    # SIGTERM ends the run as Ctrl-C does, so that no daemon is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(highlight=False, soft_wrap=True)
    cores = choose_cores(max(1, arguments.cores))
    pin_to(os.getpid(), cores[0])
    gc.freeze()
    facts = environment(cores)
    console.print(", ".join(f"{name} {fact}" for name, fact in facts.items()))
    cases = [case for case in CASES if arguments.only in case.title]
    outcomes = run_cases(console, cases, cores, arguments.rounds)
    print_outcomes(console, outcomes)
    growths: list[Growth] = []
    holding: Holding | None = None
    if not arguments.no_scale:
        pinned = [core for core in cores if core is not None]
        console.print("[dim]100,000 sections")
        growths, holding = measure_sections(pinned, arguments.rounds)
        console.print("[dim]10,000 checkpoints")
        growths += measure_checkpoints(pinned, arguments.rounds)
        print_growths(console, growths)
        print_holding(console, holding)
    kept: list[Kept] = []
    if not arguments.no_time_outs:
        console.print("[dim]time-outs")
        kept = measure_time_outs()
        print_time_outs(console, kept)
    if arguments.json:
        measured = as_json(facts, outcomes, growths, holding, kept)
        arguments.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
