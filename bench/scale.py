"""Measure if the cost grows with the number of sections or checkpoints, and the memory of sections."""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.loops import runner
from bench.measure import Contender, Figures, Ratios, blocking, measure, measure_idle
from bench.processes import rss_bytes
from ckpt_client import AsyncTable, Table
from ckptd.testing import LocalCluster

FEW: Final = 10
SECTIONS: Final = 100_000
CHECKPOINTS: Final = 10_000
OPENS_AT_ONCE: Final = 64
SECTION_BYTES: Final = 100
FILL_PER_UPDATE: Final = 1_000
OPERATIONS: Final = 300
RATIO_MAX: Final = 1.25
MEMORY_SETTLE_SECONDS: Final = 1.0


@dataclass(slots=True, frozen=True)
class Growth:
    """The same operation with few and with many of something."""

    name: str
    few: Figures
    many: Figures

    @property
    def ratios(self) -> Ratios:
        """The ratios of many to few."""
        return Ratios.of(self.few, self.many)


@dataclass(slots=True, frozen=True)
class Holding:
    """What it costs each node to hold `sections` sections of `section_bytes`."""

    sections: int
    section_bytes: int
    grown_bytes: dict[str, int]
    idle_percent: dict[str, float]
    """The share of a core that each node uses while it holds them and has nothing to do."""

    @property
    def goal_bytes(self) -> int:
        """Three times the payload, and 300 B per section."""
        return self.sections * (3 * self.section_bytes + 300)

    @property
    def met(self) -> bool:
        """True if every node stayed within the goal."""
        return max(self.grown_bytes.values()) <= self.goal_bytes


def _pids(cluster: LocalCluster) -> dict[str, int]:
    return {"client": os.getpid(), **{node: cluster.pid(node) for node in cluster.node_ids}}


def _key(number: int) -> bytes:
    return b"%08d" % number


@dataclass(slots=True, frozen=True)
class _Side:
    """A table with `sections` sections, and the processes behind it."""

    table: Table
    sections: int
    pids: dict[str, int]

    def writes(self, value: bytes) -> Contender:
        table, keys = self.table, self._keys()
        return Contender(blocking(lambda i: table.Write(keys[i], value)), self.pids)

    def reads(self) -> Contender:
        table, keys = self.table, self._keys()
        return Contender(blocking(lambda i: table.Read([keys[i]])), self.pids)

    def _keys(self) -> list[bytes]:
        """Return the keys of a round's operations, spread over all sections."""
        step = max(1, self.sections // OPERATIONS)
        return [_key(i * step % self.sections) for i in range(OPERATIONS)]


def _compare(sides: Sequence[_Side], what: str, rounds: int) -> list[Growth]:
    value = bytes(SECTION_BYTES)
    writes = measure([side.writes(value) for side in sides], rounds, OPERATIONS)
    reads = measure([side.reads() for side in sides], rounds, OPERATIONS)
    return [Growth(f"write, {what}", *writes), Growth(f"read, {what}", *reads)]


def measure_sections(cores: Sequence[int], rounds: int) -> tuple[list[Growth], Holding]:
    """Measure reads and writes at 10 and at 100,000 sections, on one cluster."""
    value = bytes(SECTION_BYTES)
    with LocalCluster(3, name="bench", cores=cores) as cluster, cluster_table(cluster, "few", FEW) as few:
        for i in range(FEW):
            few.Write(_key(i), value)
        with cluster_table(cluster, "many", SECTIONS) as many:
            before = {node: rss_bytes(cluster.pid(node)) for node in cluster.node_ids}
            for start in range(0, SECTIONS, FILL_PER_UPDATE):
                many.Write([(_key(i), value) for i in range(start, start + FILL_PER_UPDATE)])
            time.sleep(MEMORY_SETTLE_SECONDS)
            grown = {n: rss_bytes(cluster.pid(n)) - before[n] for n in cluster.node_ids}
            idle = measure_idle({node: cluster.pid(node) for node in cluster.node_ids})
            pids = _pids(cluster)
            sides = [_Side(few, FEW, pids), _Side(many, SECTIONS, pids)]
            growths = _compare(sides, f"{FEW} / {SECTIONS:,} sections", rounds)
    return growths, Holding(SECTIONS, SECTION_BYTES, grown, idle)


def cluster_table(cluster: LocalCluster, name: str, sections: int) -> Table:
    """Open a sync table through the first node."""
    return Table(name, sections, SECTION_BYTES, 16, address=cluster.address(0))


async def _open_checkpoints(address: str, count: int) -> None:
    """Create checkpoints. They stay, since their retention never ends."""
    numbers = iter(range(count))

    async def open_some() -> None:
        for i in numbers:
            table = await AsyncTable.open(f"checkpoint-{i}", FEW, SECTION_BYTES, 16, address=address)
            await table.close()

    await asyncio.gather(*(open_some() for _ in range(OPENS_AT_ONCE)))


def measure_checkpoints(cores: Sequence[int], rounds: int) -> list[Growth]:
    """Measure reads and writes with 10 and with 10,000 checkpoints, on two clusters at the same time."""
    with (
        LocalCluster(3, name="few", cores=cores) as small,
        LocalCluster(3, name="many", cores=cores) as large,
    ):
        for cluster, count in ((small, FEW), (large, CHECKPOINTS)):
            with runner() as loop:
                loop.run(_open_checkpoints(cluster.address(0), count - 1))
        with cluster_table(small, "state", FEW) as few, cluster_table(large, "state", FEW) as many:
            sides = [_Side(few, FEW, _pids(small)), _Side(many, FEW, _pids(large))]
            return _compare(sides, f"{FEW} / {CHECKPOINTS:,} checkpoints", rounds)
