"""The clocks of a host. Nothing else in the daemon reads one."""

import time
from functools import partial
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that goes on while the host is suspended: a lease must not outlive a closed lid.

Linux has CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC counts sleep already.
"""

now_ns: Final = partial(time.clock_gettime_ns, _CLOCK)
"""Nanoseconds of the core's clock, which only grows."""

WALL_STEP_NS: Final = 1_000_000
"""The core is told of the wall clock when it moved by more than this against its own."""


def wall_offset_ns() -> int:
    """How far the wall clock (ns since 1970) stands ahead of `now_ns`."""
    return time.time_ns() - now_ns()


class WallClock:
    """Notices that somebody set, or time keeping slewed, the wall clock."""

    def __init__(self) -> None:
        self.offset_ns = wall_offset_ns()

    def moved(self) -> bool:
        """Whether it moved since `offset_ns` was read; if so that is read anew."""
        offset_ns = wall_offset_ns()
        if abs(offset_ns - self.offset_ns) <= WALL_STEP_NS:
            return False
        self.offset_ns = offset_ns
        return True
