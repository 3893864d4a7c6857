"""Many seeds, in several processes: which of them fail."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from ckptd.sim.options import draw_options
from ckptd.sim.simulation import simulate


@dataclass(slots=True, frozen=True)
class Swept:
    """One seed's outcome, small enough to travel between processes."""

    seed: int
    rule: str
    text: str
    events: int
    calls: int
    undecided: int


def sweep_seed(asked: tuple[int, int]) -> Swept:
    """Run one (seed, nodes)."""
    seed, nodes = asked
    try:
        verdict = simulate(draw_options(seed, nodes))
    except Exception as error:
        return Swept(seed, "the simulator failed", repr(error), 0, 0, 0)
    return Swept(seed, verdict.rule, verdict.text, verdict.events, verdict.calls, verdict.undecided)


def sweep(first: int, seeds: int, jobs: int, nodes: int = 0) -> Iterator[Swept]:
    """The outcomes of `seeds` seeds from `first` on, in order."""
    asked = [(seed, nodes) for seed in range(first, first + seeds)]
    if jobs <= 1:
        yield from map(sweep_seed, asked)
        return
    with ProcessPoolExecutor(jobs) as executor:
        yield from executor.map(sweep_seed, asked, chunksize=1)


def summary(swept: list[Swept]) -> str:
    """One line about all of them."""
    failed = [one for one in swept if one.rule]
    rules = ", ".join(f"{rule} {count}" for rule, count in Counter(one.rule for one in failed).most_common())
    events, calls = sum(one.events for one in swept), sum(one.calls for one in swept)
    undecided = sum(one.undecided for one in swept)
    return (
        f"{len(swept)} seeds, {events} events, {calls} calls, {undecided} histories undecided,"
        f" {len(failed)} failed{': ' + rules if rules else ''}"
    )
