"""Writes the core's records in a thread of its own: a disk that is slow must not stop heartbeats.

A `write` that stands still for seconds (a busy disk, a hung NFS server) once cost a node
its lease, and every client that waited at it. The core keeps back what has to wait for a
record, and goes on with the rest.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from ckptd.core.events import Event, Persisted, PersistFailed
from ckptd.runtime.counters import Counts


class RecordWriter:
    """One thread that writes the newest record that waits. Close it before the state directory."""

    def __init__(self, write: Callable[[bytes], None], counts: Counts) -> None:
        """`write` returns when the record is on disk. Raises: OSError where it is not."""
        self.tell: Callable[[Event], None] = lambda event: None
        """Takes `Persisted` and `PersistFailed`, on the loop."""

        self.fail: Callable[[str, Exception], None] = lambda where, error: None
        """Takes what `write` raised beyond an OSError: our own bug."""

        self._write = write
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._changed = threading.Condition()
        self._waiting: tuple[bytes, int] | None = None
        self._closing = False
        # A daemon: a disk that never answers must not keep a process that was told to end.
        self._thread = threading.Thread(target=self._run, name="ckptd-records", daemon=True)
        self._thread.start()

    def persist(self, record: bytes, number: int) -> None:
        """Have a record written in place of all that still wait. Returns at once."""
        with self._changed:
            self._waiting = (record, number)
            self._changed.notify()

    async def close(self, limit_s: float) -> bool:
        """Write what still waits; whether that was done within the time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        return self._ended.is_set()

    # -- in the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._closing:
                    self._changed.wait()
                if self._waiting is None:
                    break
                (record, number), self._waiting = self._waiting, None
            error: Exception | None = None
            try:
                self._write(record)
            except Exception as raised:
                error = raised
            self._call(self._written, number, error)
        self._call(self._ended.set)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # The loop is closed where the disk took longer than the daemon waited at its end.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the loop

    def _written(self, number: int, error: Exception | None) -> None:
        if error is None:
            self.tell(Persisted(number))
        elif isinstance(error, OSError):
            self._counts.persist_failures += 1
            self.tell(PersistFailed(number, error.strerror or str(error)))
        else:
            self.fail("Persist", error)
