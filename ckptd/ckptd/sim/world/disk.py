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

        self.held = False
        """While True, a write that begins ends only when `end_write` says so."""

        self.writing: tuple[bytes, int] | None = None
        """The record and the number of the write that is under way."""

        self._waiting: tuple[bytes, int] | None = None
        self._process = 0
        """A write that began under another number does not end by itself."""

    def persist(self, record: bytes, number: int) -> None:
        """Begin to replace the record by this one, now or when the current write is done."""
        if self.writing is not None:
            self._waiting = record, number
        else:
            self._begin(record, number)

    def _begin(self, record: bytes, number: int) -> None:
        self.writing = record, number
        if self.held:
            return
        process = self._process
        slow = self.world.chance(self.world.options.disk_slow)
        least_ns, most_ns = (SLOW_MIN_NS, SLOW_MAX_NS) if slow else (WRITE_MIN_NS, WRITE_MAX_NS)
        self.world.after(self.world.between(least_ns, most_ns), lambda: self._end(process))

    def _end(self, process: int) -> None:
        if process == self._process and self.writing is not None:
            self.end_write(done=not self.full)

    def end_write(self, *, done: bool, told: bool = True) -> None:
        """The write that is under way is done, or has failed. `told`: the process learns of it."""
        assert self.writing is not None
        record, number = self.writing
        waiting, self.writing, self._waiting = self._waiting, None, None
        if done:
            self.record = record
        if waiting is not None:
            self._begin(*waiting)
        if told:
            self.report(Persisted(number) if done else PersistFailed(number, "the disk is full"))

    def release(self, told: bool = True) -> None:
        """Do at once what is not written yet, and write by itself again. `told`: the process learns of it."""
        self._process += 1
        while self.writing is not None:
            self.end_write(done=not self.full, told=told)
        self.held = False

    def process_gone(self) -> None:
        """The process ended or the power failed: a write under way is done completely, or not at all."""
        if self.writing is not None and not self.full and self.world.chance(0.5):
            self.record = self.writing[0]
        self.writing = self._waiting = None
        self._process += 1
