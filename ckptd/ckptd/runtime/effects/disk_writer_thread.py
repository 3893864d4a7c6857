"""Writes the core's records in a thread of its own, so that a slow disk does not stop heartbeats.

A `write` that hung for seconds (a busy disk, a hung NFS server) once cost a node its lease, and with it every
client that was waiting there. The core keeps back what has to wait for a record, and continues with the rest.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from ckptd.core.events import Persisted, PersistFailed
from ckptd.runtime.counters import Counters
from ckptd.runtime.driver import Driver
from ckptd.runtime.host.state_directory import StateDirectory


class DiskWriterThread:
    """A thread that writes the newest waiting record. Close it before the state directory.

    `driver` is notified with `Persisted` and `PersistFailed`, on the event loop. It fails if writing raises
    anything but an OSError, which is our own bug.
    """

    def __init__(self, state: StateDirectory, counters: Counters, driver: Driver) -> None:
        self._state = state
        self._counters = counters
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._changed = threading.Condition()
        self._waiting: tuple[bytes, int] | None = None
        self._closing = False
        # A daemon thread: a disk that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="ckptd-records", daemon=True)
        self._thread.start()

    def persist(self, record: bytes, number: int) -> None:
        """Queue a record in place of any that still waits. Returns at once."""
        with self._changed:
            self._waiting = (record, number)
            self._changed.notify()

    async def close(self, limit_s: float) -> bool:
        """Write the record that still waits. Return True if that was done within `limit_s`."""
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
                self._state.write_record(record)
            except Exception as raised:
                error = raised
            self._call(self._on_written, number, error)
        self._call(self._ended.set)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        # The loop is closed if the disk took longer than the daemon waited for it at its end.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the loop

    def _on_written(self, number: int, error: Exception | None) -> None:
        if error is None:
            self._driver.handle(Persisted(number))
        elif isinstance(error, OSError):
            self._counters.persist_failures += 1
            self._driver.handle(PersistFailed(number, error.strerror or str(error)))
        else:
            self._driver.fail("Persist", error)
