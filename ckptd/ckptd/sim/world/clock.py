"""How a node's clocks relate to the world's time: each has its own offset and its own small skew.

All times are int nanoseconds. The world's time is true time; a node never sees it.
"""

from dataclasses import dataclass
from typing import Final

PPM: Final = 1_000_000
WORLD_BEGAN_WALL_NS: Final = 1_700_000_000 * 10**9
"""What a true wall clock shows when the world begins (ns since 1970)."""


@dataclass(slots=True, frozen=True)
class Clock:
    """A monotonic clock that began at `offset_ns` and gains `skew_ppm` parts per million."""

    offset_ns: int
    skew_ppm: int
    wall_error_ns: int
    """How far the node's wall clock is from the true one."""

    def read(self, world_ns: int) -> int:
        """Return what the node's monotonic clock shows at this world time."""
        return self.offset_ns + world_ns + world_ns * self.skew_ppm // PPM

    def world_ns_at(self, local_ns: int) -> int:
        """Return the first world time at which the node's clock shows at least `local_ns`."""
        world_ns = (local_ns - self.offset_ns) * PPM // (PPM + self.skew_ppm)
        while self.read(world_ns) < local_ns:
            world_ns += 1
        return world_ns

    def wall_offset(self, world_ns: int) -> int:
        """Return how far the node's wall clock is ahead of its monotonic clock."""
        return WORLD_BEGAN_WALL_NS + world_ns + self.wall_error_ns - self.read(world_ns)
