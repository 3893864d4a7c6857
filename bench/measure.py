"""Measure contenders against each other, in alternating rounds, so that drift affects all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from bench.processes import cpu_ns

Run = Callable[[int], list[int]]
"""Does that many operations and returns how long each took, in ns."""

SETTLE_SECONDS: Final = 0.005
"""The pause after a round. What an asynchronous write left to do is done, and counted, before the next round.

It is short, since heartbeats continue in it and count too.
"""

IDLE_SECONDS: Final = 2.0


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile of some values: one of them, the last for 100."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@dataclass(slots=True, frozen=True)
class Round:
    """The results of one contender in one round."""

    latencies_ns: list[int]
    wall_ns: int
    cpu_ns: dict[str, int]
    """By process. It includes heartbeats and everything else that the process did."""

    @property
    def p50_ns(self) -> float:
        """The median latency."""
        return percentile(self.latencies_ns, 50)

    @property
    def rate(self) -> float:
        """Operations per second."""
        return len(self.latencies_ns) / (self.wall_ns / 1e9)

    @property
    def cpu_ns_each(self) -> float:
        """CPU time of all processes per operation."""
        return sum(self.cpu_ns.values()) / len(self.latencies_ns)


@dataclass(slots=True)
class Figures:
    """The cost of a contender's operations, over all rounds."""

    rounds: list[Round] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """How many operations were measured."""
        return sum(len(one.latencies_ns) for one in self.rounds)

    def percentile_us(self, percent: float) -> float:
        """Return a percentile of the latencies, in µs."""
        return percentile([latency for one in self.rounds for latency in one.latencies_ns], percent) / 1e3

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / (sum(one.wall_ns for one in self.rounds) / 1e9)

    @property
    def processes(self) -> tuple[str, ...]:
        """The processes whose CPU time is measured."""
        return tuple(self.rounds[0].cpu_ns)

    def cpu_us(self, process: str | None = None) -> float:
        """Return the CPU time per operation in µs, of one process or of all."""
        names = self.processes if process is None else (process,)
        return sum(one.cpu_ns[name] for one in self.rounds for name in names) / self.operations / 1e3

    def as_json(self) -> dict[str, object]:
        """Return what `--json` writes."""
        return {
            "operations": self.operations,
            "p50_us": round(self.percentile_us(50), 2),
            "p99_us": round(self.percentile_us(99), 2),
            "ops_per_s": round(self.rate, 1),
            "cpu_us": {name: round(self.cpu_us(name), 2) for name in self.processes},
            "cpu_us_total": round(self.cpu_us(), 2),
        }


@dataclass(slots=True, frozen=True)
class Ratios:
    """One contender's figures divided by another's: the median of the ratios of the rounds.

    The two rounds of a pair are next to each other in time. Whatever else the machine did then affects both
    and cancels out.
    """

    cpu: float
    p50: float
    rate: float

    @classmethod
    def of(cls, base: Figures, other: Figures) -> "Ratios":
        """Return the ratios of `other` to `base`."""
        pairs = list(zip(base.rounds, other.rounds, strict=True))
        return cls(
            median(after.cpu_ns_each / before.cpu_ns_each for before, after in pairs),
            median(after.p50_ns / before.p50_ns for before, after in pairs),
            median(after.rate / before.rate for before, after in pairs),
        )


@dataclass(slots=True, frozen=True)
class Contender:
    """Something that can be run, and the processes whose CPU time it uses."""

    run: Run
    pids: Mapping[str, int]


def blocking(operation: Callable[[int], object]) -> Run:
    """Return a `Run` of one caller that calls `operation(i)` again and again."""

    def run(count: int) -> list[int]:
        clock = time.perf_counter_ns
        latencies = []
        for i in range(count):
            began = clock()
            operation(i)
            latencies.append(clock() - began)
        return latencies

    return run


def measure(contenders: Sequence[Contender], rounds: int, operations: int) -> list[Figures]:
    """Return the figures of each contender, in their order. The first round of each is not counted."""
    all_figures = [Figures() for _ in contenders]
    for number in range(-1, rounds):
        for contender, figures in zip(contenders, all_figures, strict=True):
            before = {name: cpu_ns(pid) for name, pid in contender.pids.items()}
            began = time.perf_counter_ns()
            latencies = contender.run(operations)
            wall = time.perf_counter_ns() - began
            time.sleep(SETTLE_SECONDS)
            if number < 0:
                continue
            spent = {name: cpu_ns(pid) - before[name] for name, pid in contender.pids.items()}
            figures.rounds.append(Round(latencies, wall, spent))
    return all_figures


def measure_idle(pids: Mapping[str, int]) -> dict[str, float]:
    """Return what share of a core each process uses while no client asks for anything, in percent."""
    before = {name: cpu_ns(pid) for name, pid in pids.items()}
    began = time.perf_counter_ns()
    time.sleep(IDLE_SECONDS)
    wall = time.perf_counter_ns() - began
    return {name: (cpu_ns(pid) - before[name]) / wall * 100 for name, pid in pids.items()}
