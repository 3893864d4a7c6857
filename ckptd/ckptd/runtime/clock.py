"""The host's clocks. Other modules of the daemon take the time from here."""

import time
from functools import partial
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that keeps running while the host is suspended, because a lease must not survive a closed lid.

On Linux that is CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC includes sleep already.
"""

now_ns: Final = partial(time.clock_gettime_ns, _CLOCK)
"""Return the time of the core's clock in nanoseconds. It only grows."""

WALL_STEP_NS: Final = 1_000_000
"""The core is notified when the wall clock has moved by more than this against the core's clock."""


def wall_offset_ns() -> int:
    """Return how far the wall clock (ns since 1970) is ahead of `now_ns`."""
    return time.time_ns() - now_ns()


class WallClock:
    """Notices when the wall clock is set, or slewed by time synchronisation."""

    def __init__(self) -> None:
        self.offset_ns = wall_offset_ns()

    def moved(self) -> bool:
        """Return True, and read `offset_ns` again, if the wall clock has moved since `offset_ns` was read."""
        offset_ns = wall_offset_ns()
        if abs(offset_ns - self.offset_ns) <= WALL_STEP_NS:
            return False
        self.offset_ns = offset_ns
        return True
