"""The world: virtual time, what is due in it, and the record of what happened.

It knows neither nodes nor networks; those put their actions into it. Actions that are
due at one moment run in the order in which they were put there, so that one seed gives
one history.
"""

import heapq
from collections.abc import Callable
from random import Random
from typing import Final

from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.draw.options import Options
from ckptd.sim.trace import Trace

Action = Callable[[], None]

STEPS_MAX: Final = 3_000_000
"""A simulation that takes more actions than this has lost its way."""


class Violation(Exception):
    """A rule that must always hold did not. `rule` is its short name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class StepsSpent(Exception):
    """The simulation was asked to stop after so many steps."""


class World:
    """Time, chance and the time line of one simulation. `random` is the one source of chance in it."""

    def __init__(self, options: Options, trace: Trace) -> None:
        self.options = options
        self.trace = trace
        self.random = Random(f"world {options.seed}")
        self.now_ns = 0
        self.steps = 0
        self.time_line: list[str] = []
        self._due: list[tuple[int, int, Action]] = []
        self._order = 0
        self._steps_max = options.steps_max

    # -- time

    def after(self, delay_ns: int, action: Action) -> None:
        """Have `action` run in `delay_ns`."""
        self.at(self.now_ns + delay_ns, action)

    def at(self, world_ns: int, action: Action) -> None:
        """Have `action` run at a moment that is not in the past."""
        self._order += 1
        heapq.heappush(self._due, (max(world_ns, self.now_ns), self._order, action))

    def run_until(self, world_ns: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass; whether `done` came true before the time was over.

        Raises: Violation; StepsSpent.
        """
        while self._due and self._due[0][0] <= world_ns:
            self.now_ns, _, action = heapq.heappop(self._due)
            self.steps += 1
            if self._steps_max and self.steps > self._steps_max:
                raise StepsSpent(f"{self._steps_max} steps were asked for")
            if self.steps > STEPS_MAX:
                raise Violation("progress", f"{STEPS_MAX} steps did not bring the simulation to its end")
            action()
            if done is not None and done():
                return True
        self.now_ns = max(self.now_ns, world_ns)
        return done is not None and done()

    # -- chance

    def chance(self, of_one: float) -> bool:
        """True that often. Draws nothing for 0, so that a fault that is off changes nothing."""
        return of_one > 0 and self.random.random() < of_one

    def between(self, least_ns: int, most_ns: int) -> int:
        """A duration in between, both included."""
        return self.random.randint(least_ns, max(least_ns, most_ns))

    def about(self, mean_ns: int) -> int:
        """A duration of this mean, as the pauses between independent happenings are."""
        return int(self.random.expovariate(1.0) * mean_ns) + 1

    # -- the record

    def say(self, text: str) -> None:
        """One line of the time line."""
        line = f"{self.now_ns / MILLISECOND_NS:11.3f} ms  {text}"
        self.time_line.append(line)
        self.trace.note(self.now_ns, "world", text)
