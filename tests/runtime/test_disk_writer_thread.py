"""Records are written off the loop: the newest that waits, in order, and none is forgotten at the end."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator

import pytest

from ckptd.core.events import Event, Persisted, PersistFailed
from ckptd.runtime.counters import Counters
from ckptd.runtime.effects.disk_writer_thread import DiskWriterThread


class Disk:
    """Takes one record at a time, when it is let."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.entered = threading.Semaphore(0)
        self.let = threading.Semaphore(0)
        self.error: Exception | None = None

    def write_record(self, record: bytes) -> None:
        self.entered.release()
        self.let.acquire()
        if self.error is not None:
            raise self.error
        self.written.append(record)


class Bench:
    """A writer and its disk; in place of the driver it keeps what it is notified of."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.counters = Counters()
        self.writer = DiskWriterThread(self.disk, self.counters, self)  # type: ignore[arg-type]
        self.events: list[Event] = []
        self.failures: list[tuple[str, Exception]] = []
        self._told = asyncio.Event()

    def handle(self, event: Event) -> None:
        self.events.append(event)
        self._told.set()

    def fail(self, where: str, error: Exception) -> None:
        self.failures.append((where, error))
        self._told.set()

    async def told(self, count: int) -> list[Event]:
        while len(self.events) + len(self.failures) < count:
            self._told.clear()
            await self._told.wait()
        return self.events

    async def entered(self) -> None:
        """Return when the disk has begun with a record."""
        await asyncio.to_thread(self.disk.entered.acquire)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.disk.let.release(100)
    assert await bench.writer.close(10)


async def test_a_record_is_reported_when_it_is_on_disk_and_not_before(bench: Bench) -> None:
    bench.writer.persist(b"one", 1)
    await bench.entered()
    assert bench.events == []
    bench.disk.let.release()
    assert await bench.told(1) == [Persisted(1)]
    assert bench.disk.written == [b"one"]


async def test_of_those_that_wait_only_the_newest_is_written(bench: Bench) -> None:
    bench.writer.persist(b"one", 1)
    await bench.entered()
    for number in (2, 3, 4):
        bench.writer.persist(b"%d" % number, number)
    bench.disk.let.release(4)
    assert await bench.told(2) == [Persisted(1), Persisted(4)]
    assert bench.disk.written == [b"one", b"4"]


async def test_the_loop_continues_while_the_disk_is_stuck(bench: Bench) -> None:
    bench.writer.persist(b"one", 1)
    await bench.entered()
    for _ in range(3):
        await asyncio.sleep(0)
    assert bench.events == []


async def test_a_disk_that_is_full_is_reported_and_the_next_record_is_tried(bench: Bench) -> None:
    bench.disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    bench.disk.let.release(2)
    bench.writer.persist(b"one", 1)
    await bench.told(1)
    bench.disk.error = None
    bench.writer.persist(b"two", 2)
    assert await bench.told(2) == [PersistFailed(1, "No space left on device"), Persisted(2)]
    assert bench.counters.persist_failures == 1


async def test_what_no_disk_does_is_our_own_bug(bench: Bench) -> None:
    bench.disk.error = TypeError("a record of str")
    bench.disk.let.release()
    bench.writer.persist(b"one", 1)
    await bench.told(1)
    ((where, error),) = bench.failures
    assert (where, str(error)) == ("Persist", "a record of str")
    assert bench.events == []


async def test_closing_writes_what_waits(bench: Bench) -> None:
    bench.writer.persist(b"one", 1)
    await bench.entered()
    bench.writer.persist(b"two", 2)
    closing = asyncio.create_task(bench.writer.close(10))
    bench.disk.let.release(2)
    assert await closing
    assert bench.disk.written == [b"one", b"two"]


async def test_closing_does_not_wait_for_ever() -> None:
    bench = Bench()
    bench.writer.persist(b"one", 1)
    await bench.entered()
    assert not await bench.writer.close(0.01)
    bench.disk.let.release()
    assert await bench.writer.close(10)
