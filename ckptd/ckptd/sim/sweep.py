"""Run many seeds in several processes, and report which of them fail and how far the sweep is."""

import resource
import sys
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, NamedTuple, TextIO

from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.mutants.mutants import MUTANTS, switched_off
from ckptd.sim.simulation import simulate
from ckptd.sim.trace import NoTrace

REPORT_EVERY_S: Final = 30.0
"""How often a sweep that does not write to a terminal reports its progress."""

CHUNK: Final = 4
"""How many seeds a process takes at once. They are few, so that a sweep that ends early throws little work
away."""

MEMORY_BYTES_MAX: Final = 2 * 1024**3
"""How much memory a process of a sweep may take. A seed that wanted 25 GB once took down the machine, and
the sweep with it."""


@dataclass(slots=True, frozen=True)
class SeedResult:
    """The outcome of one seed, small enough to travel between processes."""

    seed: int
    rule: str
    text: str
    events: int
    calls: int
    histories: int
    undecided: int


class SeedRun(NamedTuple):
    """One seed to run. With the defaults it runs as drawn and with every rule switched on."""

    seed: int
    nodes: int = 0
    mutant: str = ""
    shape: str = ""


def sweep_seed(run: SeedRun) -> SeedResult:
    """Run one seed to its end."""
    seed, nodes, mutant, shape = run
    try:
        with switched_off(mutant):
            verdict = simulate(draw_options(seed, nodes, shape=shape), NoTrace())
    except Exception as error:
        return SeedResult(seed, "the simulator failed", repr(error), 0, 0, 0, 0)
    return SeedResult(
        seed,
        verdict.rule,
        verdict.text,
        verdict.events,
        verdict.calls,
        verdict.histories,
        verdict.undecided,
    )


def processes(jobs: int) -> ProcessPoolExecutor:
    """Make the processes of a sweep.

    On Linux the memory of each process is bounded, so that a seed that wants more fails alone.
    """
    return ProcessPoolExecutor(jobs, initializer=_bound_memory)


def _bound_memory() -> None:
    if sys.platform == "linux":
        now, most = resource.getrlimit(resource.RLIMIT_AS)
        limits = [limit for limit in (now, most) if limit != resource.RLIM_INFINITY]
        bound = min([MEMORY_BYTES_MAX, *limits])
        resource.setrlimit(resource.RLIMIT_AS, (bound, most))


def sweep(
    first: int, seeds: int, jobs: int, nodes: int = 0, mutant: str = "", shape: str = ""
) -> Generator[SeedResult, None, None]:
    """Yield the outcomes of `seeds` seeds from `first` on, in order. Close the generator to stop early."""
    runs = [SeedRun(seed, nodes, mutant, shape) for seed in range(first, first + seeds)]
    if jobs <= 1:
        yield from map(sweep_seed, runs)
        return
    with processes(jobs) as executor:
        try:
            yield from executor.map(sweep_seed, runs, chunksize=CHUNK)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


@dataclass(slots=True)
class Progress:
    """How far a sweep is: one line that is overwritten on a terminal, a line now and then elsewhere."""

    seeds: int
    out: TextIO
    done: int = 0
    failed: int = 0
    began_s: float = field(default_factory=monotonic)
    reported_s: float = field(default_factory=monotonic)

    def count(self, one: SeedResult) -> None:
        """Count one more seed as done."""
        self.done += 1
        self.failed += bool(one.rule)
        if self.out.isatty():
            print(f"\r{self.line()}\x1b[K", end="", file=self.out, flush=True)
        elif monotonic() - self.reported_s >= REPORT_EVERY_S:
            self.reported_s = monotonic()
            print(self.line(), file=self.out, flush=True)

    def line(self) -> str:
        """Return one line: seeds done, seeds per second, seconds left, seeds that failed."""
        passed_s = max(monotonic() - self.began_s, 1e-3)
        left_s = (self.seeds - self.done) * passed_s / max(self.done, 1)
        return (
            f"{self.done} of {self.seeds} seeds, {self.done / passed_s:.1f} a second,"
            f" {left_s:.0f} s to go, {self.failed} failed"
        )

    def end(self) -> None:
        """Move past the progress line of a terminal."""
        if self.out.isatty():
            print(file=self.out)


def repeat(seed: int, nodes: int = 0, mutant: str = "", shape: str = "") -> str:
    """Return the command that runs one seed again."""
    options = (f" --mutant {mutant!r}" if mutant else "") + (f" --shape {shape!r}" if shape else "")
    return f"python -m ckptd.sim {seed}" + (f" --nodes {nodes}" if nodes else "") + options


def sweep_and_report(first: int, seeds: int, jobs: int, nodes: int = 0, shape: str = "") -> list[SeedResult]:
    """Sweep, print each failure as it comes and the progress, and sum up at the end."""
    results: list[SeedResult] = []
    progress = Progress(seeds, sys.stderr)
    for one in sweep(first, seeds, jobs, nodes, shape=shape):
        results.append(one)
        progress.count(one)
        if one.rule:
            text = one.text.splitlines()[0][:300] if one.text else ""
            print(f"\r{repeat(one.seed, nodes, shape=shape)}  # BROKEN: {one.rule}: {text}", flush=True)
    progress.end()
    print(summary(results))
    failed = [one.seed for one in results if one.rule]
    if failed:
        print("to repeat these seeds:")
        print("\n".join(f"    {repeat(seed, nodes, shape=shape)}" for seed in failed))
    return results


def summary(results: list[SeedResult]) -> str:
    """Sum all outcomes up in one line."""
    failed = [one for one in results if one.rule]
    rules = ", ".join(f"{rule} {count}" for rule, count in Counter(one.rule for one in failed).most_common())
    events, calls = sum(one.events for one in results), sum(one.calls for one in results)
    histories, undecided = sum(one.histories for one in results), sum(one.undecided for one in results)
    return (
        f"{len(results)} seeds, {events} events, {calls} calls,"
        f" {undecided} of {histories} histories undecided,"
        f" {len(failed)} failed{': ' + rules if rules else ''}"
    )


@dataclass(slots=True, frozen=True)
class MutantResult:
    """The result for one mutant: the first seed that shows it (None if none does), with the broken rule."""

    name: str
    found: SeedResult | None
    seconds: float


def find_seed(name: str, first: int, seeds: int, jobs: int) -> MutantResult:
    """Sweep with one rule switched off, up to the first seed that fails and passes with the rule switched on.

    The seeds have the mutant's shape, if it has one.
    """
    began_s = monotonic()
    shape = MUTANTS[name].shape
    outcomes = sweep(first, seeds, jobs, mutant=name, shape=shape)
    try:
        shown = (one for one in outcomes if one.rule and not sweep_seed(SeedRun(one.seed, shape=shape)).rule)
        found = next(shown, None)
    finally:
        outcomes.close()
    return MutantResult(name, found, monotonic() - began_s)


def find_seeds_and_report(names: list[str], first: int, seeds: int, jobs: int) -> list[MutantResult]:
    """Search a seed for each mutant, and print the table."""
    began_s = monotonic()
    print(f"{'mutant':<28} {'seed':>9}  {'found by':<38} {'s':>5}  rule switched off", flush=True)
    results: list[MutantResult] = []
    for name in names:
        one = find_seed(name, first, seeds, jobs)
        results.append(one)
        seed, by = (str(one.found.seed), one.found.rule) if one.found else ("NOT FOUND", "")
        print(f"{name:<28} {seed:>9}  {by:<38} {one.seconds:>5.0f}  {MUTANTS[name].rule}", flush=True)
    missed = [one.name for one in results if one.found is None]
    print(
        f"{len(results)} mutants in {monotonic() - began_s:.0f} s,"
        f" {len(missed)} not found within {seeds} seeds{': ' if missed else ''}" + ", ".join(missed)
    )
    return results
