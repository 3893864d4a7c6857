"""A host's disk: one record, written whole or not at all, that takes its time and may be full.

It knows neither nodes nor what a record says.
"""

from collections.abc import Callable
from typing import Final

from ckptd.core.events import Persisted, PersistFailed
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.draw.profiles import MICROSECOND_NS
from ckptd.sim.world.world import World

WRITE_MIN_NS: Final = 100 * MICROSECOND_NS
WRITE_MAX_NS: Final = 5 * MILLISECOND_NS
SLOW_MIN_NS: Final = 20 * MILLISECOND_NS
SLOW_MAX_NS: Final = 500 * MILLISECOND_NS


class Disk:
    """`record` is what the next start finds. One write goes on at a time; what waits is overtaken by newer.

    `tell` takes Persisted and PersistFailed to the process that asked. While `full` every
    write fails, and the record stands.
    """

    def __init__(self, world: World, tell: Callable[[Persisted | PersistFailed], None]) -> None:
        self.world = world
        self.tell = tell
        self.record = b""
        self.full = False
        self._writing: tuple[bytes, int] | None = None
        self._waiting: tuple[bytes, int] | None = None
        self._process = 0

    def persist(self, record: bytes, number: int) -> None:
        """Begin to put `record` in the last one's place, now or when the disk is free."""
        if self._writing is not None:
            self._waiting = record, number
        else:
            self._begin(record, number)

    def _begin(self, record: bytes, number: int) -> None:
        self._writing = record, number
        process = self._process
        slow = self.world.chance(self.world.options.disk_slow)
        least_ns, most_ns = (SLOW_MIN_NS, SLOW_MAX_NS) if slow else (WRITE_MIN_NS, WRITE_MAX_NS)
        self.world.after(self.world.between(least_ns, most_ns), lambda: self._end(process))

    def _end(self, process: int) -> None:
        if process != self._process or self._writing is None:
            return
        record, number = self._writing
        waiting, self._writing, self._waiting = self._waiting, None, None
        if not self.full:
            self.record = record
        if waiting is not None:
            self._begin(*waiting)
        self.tell(PersistFailed(number, "the disk is full") if self.full else Persisted(number))

    def process_gone(self) -> None:
        """The process ended or the power went: a write under way was done, or it was not."""
        if self._writing is not None and not self.full and self.world.chance(0.5):
            self.record = self._writing[0]
        self._writing = self._waiting = None
        self._process += 1
