"""The world: virtual time, the actions that are due, and the record of what happened.

The world knows neither nodes nor networks; those schedule their actions in it. Actions that are due at the
same time run in the order in which they were scheduled, so that one seed gives one history.
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
"""A simulation with more actions than this has gone wrong."""


class Violation(Exception):
    """A rule that must always hold was broken. `rule` is its short name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class StepsSpent(Exception):
    """The simulation has run the number of steps that was asked for."""


class World:
    """Time, chance and the time line of one simulation. `random` is its only source of chance."""

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
        """Run `action` in `delay_ns`."""
        self.at(self.now_ns + delay_ns, action)

    def at(self, world_ns: int, action: Action) -> None:
        """Run `action` at this world time, or now if the time is in the past."""
        self._order += 1
        heapq.heappush(self._due, (max(world_ns, self.now_ns), self._order, action))

    def run_until(self, world_ns: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass up to `world_ns`. Return True if `done` came true before that.

        Raises: Violation; StepsSpent.
        """
        while self.step(world_ns):
            if done is not None and done():
                return True
        self.now_ns = max(self.now_ns, world_ns)
        return done is not None and done()

    def step(self, world_ns: int) -> bool:
        """Run the next action, if one is due by `world_ns`. Return False if there is none.

        Raises: Violation; StepsSpent.
        """
        if not self._due or self._due[0][0] > world_ns:
            return False
        self.now_ns, _, action = heapq.heappop(self._due)
        self.steps += 1
        if self._steps_max and self.steps > self._steps_max:
            raise StepsSpent(f"the limit of {self._steps_max} steps is reached")
        if self.steps > STEPS_MAX:
            raise Violation("progress", f"the simulation did not end within {STEPS_MAX} steps")
        action()
        return True

    # -- chance

    def chance(self, of_one: float) -> bool:
        """Return True this often. For 0 nothing is drawn, so that a fault that is off changes nothing."""
        return of_one > 0 and self.random.random() < of_one

    def between(self, least_ns: int, most_ns: int) -> int:
        """Draw a duration between these two, both included."""
        return self.random.randint(least_ns, max(least_ns, most_ns))

    def about(self, mean_ns: int) -> int:
        """Draw a duration with this mean, distributed like the pauses between independent events."""
        return int(self.random.expovariate(1.0) * mean_ns) + 1

    # -- the record

    def say(self, text: str) -> None:
        """Add one line to the time line."""
        line = f"{self.now_ns / MILLISECOND_NS:11.3f} ms  {text}"
        self.time_line.append(line)
        self.trace.note(self.now_ns, "world", text)


class FixedWorld(World):
    """A world without chance: no fault comes by itself, and everything takes as little time as it can.

    A test that says itself what goes wrong runs in it. Two runs are the same without a seed.
    """

    def chance(self, of_one: float) -> bool:
        """Return False."""
        return False

    def between(self, least_ns: int, most_ns: int) -> int:
        """Return the shortest of these durations."""
        return least_ns

    def about(self, mean_ns: int) -> int:
        """Return the mean."""
        return mean_ns
