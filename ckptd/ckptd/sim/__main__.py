"""`python -m ckptd.sim SEED`, or `--sweep N` for many seeds. Exit code 1 where a rule was broken."""

import argparse
import sys

from ckptd.sim.options import draw_options
from ckptd.sim.simulation import Verdict, simulate
from ckptd.sim.sweep import summary, sweep
from ckptd.sim.trace import Trace


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m ckptd.sim", description="Simulate a cluster under faults."
    )
    parser.add_argument("seed", type=int, nargs="?", help="run this one seed and tell what happened")
    parser.add_argument("--nodes", type=int, default=0, choices=range(6), help="so many nodes, not as drawn")
    parser.add_argument("--clients", type=int, default=0, help="so many clients, not as drawn")
    parser.add_argument("--steps", type=int, default=0, help="stop after so many steps")
    parser.add_argument("--quiet", action="store_true", help="only the verdict")
    parser.add_argument("--trace", metavar="FILE", help="write every event and its effects")
    parser.add_argument("--sweep", type=int, metavar="N", help="run N seeds")
    parser.add_argument("--first", type=int, default=1, help="the first seed of a sweep")
    parser.add_argument("--jobs", type=int, default=2, help="processes of a sweep")
    asked = parser.parse_args()
    if asked.sweep:
        return _sweep(asked.first, asked.sweep, asked.jobs, asked.nodes)
    if asked.seed is None:
        parser.error("give a seed, or --sweep N")
    return _run_one(asked)


def _run_one(asked: argparse.Namespace) -> int:
    options = draw_options(asked.seed, asked.nodes, asked.steps, asked.clients)
    if not asked.quiet:
        print("\n".join(options.lines()), end="\n\n")
    if asked.trace:
        with open(asked.trace, "w", encoding="utf-8") as file:
            verdict = simulate(options, Trace(file))
    else:
        verdict = simulate(options)
    if not asked.quiet:
        print("\n".join(verdict.time_line), end="\n\n")
    _tell(verdict)
    return 0 if verdict.good else 1


def _tell(verdict: Verdict) -> None:
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


def _sweep(first: int, seeds: int, jobs: int, nodes: int) -> int:
    swept = []
    on_terminal = sys.stderr.isatty()
    for one in sweep(first, seeds, jobs, nodes):
        swept.append(one)
        if one.rule:
            print(f"seed {one.seed}: BROKEN: {one.rule}: {one.text.splitlines()[0][:300]}", flush=True)
        if on_terminal:
            print(f"\r{len(swept)} of {seeds}", end="", file=sys.stderr, flush=True)
    print(summary(swept))
    return 1 if any(one.rule for one in swept) else 0


if __name__ == "__main__":
    sys.exit(main())
