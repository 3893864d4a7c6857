"""The command `python -m ckptd.sim`.

`SEED` runs one seed, `--sweep N` runs many, `--mutants` checks what the sweep would find, and `--replay FILE`
replays what a daemon recorded. The exit code is 1 if a rule was broken, a mutant was not found, or a replay
differed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ckptd.core.checks.event_log_format import RecordingError
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.draw.shapes import SHAPES
from ckptd.sim.mutants.mutants import MUTANTS, switched_off
from ckptd.sim.replay import replay
from ckptd.sim.simulation import Verdict, simulate
from ckptd.sim.sweep import find_seeds_and_report, sweep_and_report
from ckptd.sim.trace import Trace

_OF_ONE_SEED: Final = ("mutant", "clients", "steps", "trace")
"""Options for the run of one seed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m ckptd.sim", description="Simulate a cluster under faults."
    )
    parser.add_argument("seed", type=int, nargs="?", help="run this one seed and print what happens")
    parser.add_argument(
        "--nodes",
        type=int,
        default=0,
        choices=range(6),
        help="use this many nodes instead of the drawn number",
    )
    parser.add_argument(
        "--clients", type=int, default=0, help="use this many clients instead of the drawn number"
    )
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps")
    parser.add_argument("--mutant", default="", choices=("", *MUTANTS), help="switch this rule off")
    parser.add_argument(
        "--shape",
        default="",
        choices=("", *SHAPES),
        help="use this shape instead of the drawn one; the shape of the mutant has priority",
    )
    parser.add_argument("--quiet", action="store_true", help="print only the verdict")
    parser.add_argument("--trace", metavar="FILE", help="write every event and its effects to this file")
    parser.add_argument("--sweep", type=int, metavar="N", help="run N seeds")
    parser.add_argument("--first", type=int, default=1, help="the first seed of a sweep")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="number of processes for a sweep"
    )
    parser.add_argument(
        "--mutants",
        nargs="*",
        metavar="NAME",
        help="find these mutants (default: all) with the ordinary sweep",
    )
    parser.add_argument(
        "--seeds", type=int, default=2000, help="number of seeds within which a mutant has to be found"
    )
    parser.add_argument(
        "--replay", metavar="FILE", help="feed the events of a daemon's recording to a fresh core"
    )
    parsed = parser.parse_args(arguments)
    if parsed.replay:
        return _replay(Path(parsed.replay), parsed.quiet)
    if parsed.mutants is not None:
        _refuse(parser, parsed, "--mutants", *_OF_ONE_SEED, "nodes", "shape")
        return _find_mutants(parser, parsed)
    if parsed.sweep:
        _refuse(parser, parsed, "--sweep", *_OF_ONE_SEED)
        results = sweep_and_report(parsed.first, parsed.sweep, parsed.jobs, parsed.nodes, parsed.shape)
        return 1 if any(one.rule for one in results) else 0
    if parsed.seed is None:
        parser.error("give a seed, --sweep N, --mutants or --replay FILE")
    return _run_one(parsed)


def _refuse(parser: argparse.ArgumentParser, parsed: argparse.Namespace, mode: str, *options: str) -> None:
    """Refuse the options that this mode would ignore: its result would be that of something else."""
    given = [f"--{option}" for option in options if getattr(parsed, option)]
    if given:
        parser.error(f"{mode} does not take {', '.join(given)}")


def _replay(path: Path, quiet: bool) -> int:
    try:
        outcome = replay(path)
    except (RecordingError, OSError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    start = outcome.start
    if not quiet:
        print("\n".join(outcome.time_line), end="\n\n")
    who = f"node {start.settings.node_id}, ckptd {start.version}"
    if outcome.difference:
        print(f"{who}: DIFFERENT: {outcome.difference}")
    elif outcome.failure:
        print(f"{who}: {outcome.events} events, the same effects, and the last one raises: {outcome.failure}")
    else:
        print(f"{who}: {outcome.events} events, the same effects")
    return 0 if outcome.same else 1


def _find_mutants(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> int:
    unknown = [name for name in parsed.mutants if name not in MUTANTS]
    if unknown:
        parser.error(f"unknown mutant: {', '.join(unknown)}; the mutants are: {', '.join(MUTANTS)}")
    results = find_seeds_and_report(parsed.mutants or list(MUTANTS), parsed.first, parsed.seeds, parsed.jobs)
    return 0 if all(one.found for one in results) else 1


def _run_one(parsed: argparse.Namespace) -> int:
    shape = parsed.shape or (MUTANTS[parsed.mutant].shape if parsed.mutant else "")
    options = draw_options(parsed.seed, parsed.nodes, parsed.steps, parsed.clients, shape)
    if not parsed.quiet:
        print("\n".join(options.lines()), end="\n\n")
    with switched_off(parsed.mutant):
        if parsed.trace:
            with open(parsed.trace, "w", encoding="utf-8") as file:
                verdict = simulate(options, Trace(file))
        else:
            verdict = simulate(options)
    if not parsed.quiet:
        print("\n".join(verdict.time_line), end="\n\n")
    _report(verdict)
    return 0 if verdict.good else 1


def _report(verdict: Verdict) -> None:
    seed = verdict.options.seed
    print(
        f"seed {seed}: {verdict.events} events, {verdict.calls} calls,"
        f" {verdict.undecided} histories undecided, {verdict.world_ns / 1e9:.3f} s of virtual time,"
        f" trace {verdict.digest}"
    )
    if verdict.good:
        print(f"seed {seed}: {'stopped early, ' if verdict.stopped else ''}every rule held")
    else:
        print(f"seed {seed}: BROKEN: {verdict.rule}: {verdict.text}")


if __name__ == "__main__":
    sys.exit(main())
