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

TELL_EVERY_S: Final = 30.0
"""How often a sweep that does not write to a terminal reports its progress."""

CHUNK: Final = 4
"""How many seeds a process takes at once. They are few, so that a sweep that ends early throws little work
away."""

MEMORY_BYTES_MAX: Final = 2 * 1024**3
"""How much memory a process of a sweep may take. A seed that wanted 25 GB once took down the machine, and
the sweep with it."""


@dataclass(slots=True, frozen=True)
class Swept:
    """The outcome of one seed, small enough to travel between processes."""

    seed: int
    rule: str
    text: str
    events: int
    calls: int
    histories: int
    undecided: int


class Asked(NamedTuple):
    """One seed to run. With the defaults it runs as drawn and with every rule switched on."""

    seed: int
    nodes: int = 0
    mutant: str = ""
    shape: str = ""


def sweep_seed(asked: Asked) -> Swept:
    """Run one seed to its end."""
    seed, nodes, mutant, shape = asked
    try:
        with switched_off(mutant):
            verdict = simulate(draw_options(seed, nodes, shape=shape), NoTrace())
    except Exception as error:
        return Swept(seed, "the simulator failed", repr(error), 0, 0, 0, 0)
    return Swept(
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
) -> Generator[Swept, None, None]:
    """Yield the outcomes of `seeds` seeds from `first` on, in order. Close the generator to stop early."""
    asked = [Asked(seed, nodes, mutant, shape) for seed in range(first, first + seeds)]
    if jobs <= 1:
        yield from map(sweep_seed, asked)
        return
    with processes(jobs) as executor:
        try:
            yield from executor.map(sweep_seed, asked, chunksize=CHUNK)
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
    told_s: float = field(default_factory=monotonic)

    def count(self, one: Swept) -> None:
        """Count one more seed as done."""
        self.done += 1
        self.failed += bool(one.rule)
        if self.out.isatty():
            print(f"\r{self.line()}\x1b[K", end="", file=self.out, flush=True)
        elif monotonic() - self.told_s >= TELL_EVERY_S:
            self.told_s = monotonic()
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


def repeat(seed: int, nodes: int = 0, mutant: str = "") -> str:
    """Return the command that runs one seed again."""
    switched = f" --mutant {mutant!r}" if mutant else ""
    return f"python -m ckptd.sim {seed}" + (f" --nodes {nodes}" if nodes else "") + switched


def sweep_and_tell(first: int, seeds: int, jobs: int, nodes: int = 0) -> list[Swept]:
    """Sweep, print each failure as it comes and the progress, and sum up at the end."""
    swept: list[Swept] = []
    progress = Progress(seeds, sys.stderr)
    for one in sweep(first, seeds, jobs, nodes):
        swept.append(one)
        progress.count(one)
        if one.rule:
            told = one.text.splitlines()[0][:300] if one.text else ""
            print(f"\r{repeat(one.seed, nodes)}  # BROKEN: {one.rule}: {told}", flush=True)
    progress.end()
    print(summary(swept))
    failed = [one.seed for one in swept if one.rule]
    if failed:
        print("to repeat them:")
        print("\n".join(f"    {repeat(seed, nodes)}" for seed in failed))
    return swept


def summary(swept: list[Swept]) -> str:
    """Sum all outcomes up in one line."""
    failed = [one for one in swept if one.rule]
    rules = ", ".join(f"{rule} {count}" for rule, count in Counter(one.rule for one in failed).most_common())
    events, calls = sum(one.events for one in swept), sum(one.calls for one in swept)
    histories, undecided = sum(one.histories for one in swept), sum(one.undecided for one in swept)
    return (
        f"{len(swept)} seeds, {events} events, {calls} calls,"
        f" {undecided} of {histories} histories undecided,"
        f" {len(failed)} failed{': ' + rules if rules else ''}"
    )


@dataclass(slots=True, frozen=True)
class Hunted:
    """The result for one mutant: the first seed that shows it (None if none does), with the broken rule."""

    name: str
    found: Swept | None
    seconds: float


def hunt(name: str, first: int, seeds: int, jobs: int) -> Hunted:
    """Sweep with one rule switched off, up to the first seed that fails and passes with the rule switched on.

    The seeds have the mutant's shape, if it has one.
    """
    began_s = monotonic()
    shape = MUTANTS[name].shape
    outcomes = sweep(first, seeds, jobs, mutant=name, shape=shape)
    try:
        shown = (one for one in outcomes if one.rule and not sweep_seed(Asked(one.seed, shape=shape)).rule)
        found = next(shown, None)
    finally:
        outcomes.close()
    return Hunted(name, found, monotonic() - began_s)


def hunt_and_tell(names: list[str], first: int, seeds: int, jobs: int) -> list[Hunted]:
    """Hunt for each mutant, and print the table."""
    began_s = monotonic()
    print(f"{'mutant':<28} {'seed':>9}  {'found by':<38} {'s':>5}  rule switched off", flush=True)
    hunted: list[Hunted] = []
    for name in names:
        one = hunt(name, first, seeds, jobs)
        hunted.append(one)
        seed, by = (str(one.found.seed), one.found.rule) if one.found else ("NOT FOUND", "")
        print(f"{name:<28} {seed:>9}  {by:<38} {one.seconds:>5.0f}  {MUTANTS[name].rule}", flush=True)
    missed = [one.name for one in hunted if one.found is None]
    print(
        f"{len(hunted)} mutants in {monotonic() - began_s:.0f} s,"
        f" {len(missed)} not found within {seeds} seeds{': ' if missed else ''}" + ", ".join(missed)
    )
    return hunted
