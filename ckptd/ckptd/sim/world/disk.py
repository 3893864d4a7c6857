"""A host's disk: it holds one record, which is written as a whole or not at all.

A write takes time, and the disk may be full. The disk knows neither nodes nor the meaning of a record.
"""

from collections.abc import Callable
from typing import Final

from ckptd.core.events import Persisted, PersistFailed
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.draw.options import MICROSECOND_NS
from ckptd.sim.world.world import World

WRITE_MIN_NS: Final = 100 * MICROSECOND_NS
WRITE_MAX_NS: Final = 5 * MILLISECOND_NS
SLOW_MIN_NS: Final = 20 * MILLISECOND_NS
SLOW_MAX_NS: Final = 500 * MILLISECOND_NS


class Disk:
    """Writes one record at a time; a newer record replaces the one that waits.

    `report` passes Persisted and PersistFailed to the process that asked.
    """

    def __init__(self, world: World, report: Callable[[Persisted | PersistFailed], None]) -> None:
        self.world = world
        self.report = report
        self.record = b""
        """What the next start finds."""

        self.full = False
        """While True, every write fails and the record stays as it is."""

        self._writing: tuple[bytes, int] | None = None
        self._waiting: tuple[bytes, int] | None = None
        self._process = 0

    def persist(self, record: bytes, number: int) -> None:
        """Begin to replace the record by this one, now or when the current write is done."""
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
        self.report(PersistFailed(number, "the disk is full") if self.full else Persisted(number))

    def process_gone(self) -> None:
        """The process ended or the power failed: a write under way is done completely, or not at all."""
        if self._writing is not None and not self.full and self.world.chance(0.5):
            self.record = self._writing[0]
        self._writing = self._waiting = None
        self._process += 1
