"""The clusters and clients of the two contenders, the floor and ckptd. Both offer the same `Run`s."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from bench.floor_client import AsyncFloor, BlockingFloor, open_async_floor
from bench.loops import runner
from bench.measure import Run, blocking
from bench.processes import FloorCluster
from ckpt_client import AsyncTable, Table
from ckpt_client.saf import Checkpoint, CheckpointCreationAttributes, CheckpointService
from ckpt_protocol.constants import (
    OPEN_FLAGS_ALL,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckptd.testing import LocalCluster

KEYS: Final = tuple(b"section-%d" % i for i in range(100))
CALLERS: Final = 32
SECTION_BYTES: Final = 64 * 1024


class Rig:
    """What both rigs share: one loop for the asynchronous clients, and a clean end."""

    def __init__(self) -> None:
        self.stack: Final = ExitStack()
        self.runner: Final = self.stack.enter_context(runner())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()

    def callers(self, operation: Callable[[int], Awaitable[object]]) -> Run:
        """Return a `Run` of 32 callers on the loop. Each does its share, one call after the other."""

        async def call(first: int, count: int, latencies: list[int]) -> None:
            clock = time.perf_counter_ns
            for i in range(first, count, CALLERS):
                began = clock()
                await operation(i)
                latencies.append(clock() - began)

        async def run(count: int) -> list[int]:
            latencies: list[int] = []
            await asyncio.gather(*(call(first, count, latencies) for first in range(CALLERS)))
            return latencies

        return lambda count: self.runner.run(run(count))


class FloorRig(Rig):
    """The floor with `nodes` processes that hold the values."""

    def __init__(self, nodes: int, cores: Sequence[int | None]) -> None:
        super().__init__()
        self._acknowledgements = nodes - 1
        self._cluster = self.stack.enter_context(FloorCluster(nodes - 1, cores))
        self._blocking = BlockingFloor(self._cluster.path)
        self.stack.callback(self._blocking.close)
        self._async: AsyncFloor = self.runner.run(open_async_floor(self._cluster.path))
        self.stack.callback(self._async.close)

    def pids(self, remote: bool = False) -> dict[str, int]:
        """The processes that take part."""
        return {"client": os.getpid(), **self._cluster.pids}

    def write(self, value: bytes, sync: bool = True) -> Run:
        """Writes of one section."""
        client, acknowledgements = self._blocking, self._acknowledgements if sync else 0
        return blocking(lambda i: client.write(((KEYS[i % 100], value),), acknowledgements))

    def write_hundred(self, value: bytes) -> Run:
        """Updates of a hundred sections."""
        client, pairs = self._blocking, [(key, value) for key in KEYS]
        return blocking(lambda i: client.write(pairs, self._acknowledgements))

    def read(self, value: bytes, remote: bool = False) -> Run:
        """Reads of one section, held by the client's node or (`remote`) by another."""
        client = self._blocking
        client.write([(key, value) for key in KEYS], self._acknowledgements)
        return blocking(lambda i: client.read(KEYS[i % 100], remote))

    def saf_write(self, value: bytes) -> Run:
        """Writes of one section; there is no faster floor for the SAF service."""
        return self.write(value)

    def saf_read(self, value: bytes) -> Run:
        """Reads of one section."""
        return self.read(value)

    def callers_write(self, value: bytes) -> Run:
        """Writes by 32 asyncio callers."""
        client = self._async
        return self.callers(lambda i: client.write(KEYS[i % 100], value, self._acknowledgements))

    def callers_read(self, value: bytes) -> Run:
        """Reads by 32 asyncio callers."""
        client = self._async
        self._blocking.write([(key, value) for key in KEYS], self._acknowledgements)
        return self.callers(lambda i: client.read(KEYS[i % 100]))


class CkptdRig(Rig):
    """`nodes` real daemons. The client is attached to node `a`, which holds the active replica."""

    def __init__(self, nodes: int, cores: Sequence[int | None]) -> None:
        super().__init__()
        pinned = [core for core in cores if core is not None]
        self.cluster: Final = self.stack.enter_context(LocalCluster(nodes, name="bench", cores=pinned))
        self._tables: dict[tuple[int, int], Table] = {}
        self._async: AsyncTable | None = None
        self._saf: Checkpoint | None = None

    def pids(self, remote: bool = False) -> dict[str, int]:
        """The processes that take part; with `remote` the client is attached to node `b`."""
        order = list(self.cluster.node_ids)
        if remote:
            order[0], order[1] = order[1], order[0]
        pids = {f"replica {i}" if i else "node": self.cluster.pid(node) for i, node in enumerate(order)}
        return {"client": os.getpid(), **pids}

    def _table(self, flags: int, node: int = 0) -> Table:
        if (flags, node) not in self._tables:
            table = Table(
                f"bench-{flags}", 1000, SECTION_BYTES, 64, flags, address=self.cluster.address(node)
            )
            self.stack.callback(table.close)
            self._tables[flags, node] = table
        return self._tables[flags, node]

    def _checkpoint(self) -> Checkpoint:
        if self._saf is None:
            service = CheckpointService.initialize(address=self.cluster.address(0))
            self.stack.callback(service.finalize)
            flags, size = SA_CKPT_WR_ALL_REPLICAS, 1000 * SECTION_BYTES
            attributes = CheckpointCreationAttributes(flags, size, SA_TIME_END, 1000, SECTION_BYTES, 64)
            self._saf = service.checkpoint_open("safCkpt=bench", OPEN_FLAGS_ALL, attributes)
            for key in KEYS:
                self._saf.section_create(key)
        return self._saf

    def saf_write(self, value: bytes) -> Run:
        """Overwrites of one section through the blocking SAF service."""
        overwrite = self._checkpoint().overwrite
        return blocking(lambda i: overwrite(KEYS[i % 100], value))

    def saf_read(self, value: bytes) -> Run:
        """Reads of one section through the blocking SAF service."""
        checkpoint = self._checkpoint()
        for key in KEYS:
            checkpoint.overwrite(key, value)
        return blocking(lambda i: checkpoint.read([(KEYS[i % 100], None, 0)]))

    def _async_table(self) -> AsyncTable:
        if self._async is None:
            flags, address = SA_CKPT_WR_ALL_REPLICAS, self.cluster.address(0)
            opening = AsyncTable.open("bench-async", 1000, SECTION_BYTES, 64, flags, address=address)
            table = self._async = self.runner.run(opening)
            self.stack.callback(lambda: self.runner.run(table.close()))
        return self._async

    def write(self, value: bytes, sync: bool = True) -> Run:
        """Writes of one section."""
        write = self._table(SA_CKPT_WR_ALL_REPLICAS if sync else SA_CKPT_WR_ACTIVE_REPLICA).Write
        return blocking(lambda i: write(KEYS[i % 100], value))

    def write_hundred(self, value: bytes) -> Run:
        """Updates of a hundred sections."""
        write, pairs = self._table(SA_CKPT_WR_ALL_REPLICAS).Write, [(key, value) for key in KEYS]
        for key, whole in pairs:
            write(key, whole)  # The list form never shortens: larger values of an earlier case would stay.
        return blocking(lambda i: write(pairs))

    def read(self, value: bytes, remote: bool = False) -> Run:
        """Reads of one section, held by the client's node or (`remote`) by another's active replica."""
        flags = SA_CKPT_WR_ACTIVE_REPLICA if remote else SA_CKPT_WR_ALL_REPLICAS
        for key in KEYS:
            self._table(flags).Write(key, value)
        read = self._table(flags, 1 if remote else 0).Read
        return blocking(lambda i: read([KEYS[i % 100]]))

    def callers_write(self, value: bytes) -> Run:
        """Writes by 32 asyncio callers."""
        write = self._async_table().write
        return self.callers(lambda i: write(KEYS[i % 100], value))

    def callers_read(self, value: bytes) -> Run:
        """Reads by 32 asyncio callers."""
        table = self._async_table()
        self.callers_write(value)(len(KEYS))
        return self.callers(lambda i: table.read(KEYS[i % 100]))
