"""`python -m bench.join`: a node joins while the cluster holds 100 MB and takes 1,000 writes a second.

There are three nodes. One is killed and started again, empty, so that it needs all 100,000 sections. The
writer keeps its schedule from two seconds before to two seconds after, and does not wait for answers. The
time of a write counts from when it was due, so that delays by a stall are counted too. A control process only
wakes every millisecond and notes how late it is; it shows how long the machine itself was stalled.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from rich.console import Console

from bench.loops import run
from bench.measure import percentile
from bench.writer import goal
from ckpt_client import AsyncTable, CheckpointError, Table
from ckptd.testing import LocalCluster

SECTIONS: Final = 100_000
SECTION_BYTES: Final = 1024
FILL_PER_UPDATE: Final = 1_000
WRITES_PER_SECOND: Final = 1_000
LEAD_SECONDS: Final = 2.0
GOAL_P99_9_MS: Final = 100.0
GOAL_IN_SYNC_SECONDS: Final = 10.0
NAME: Final = "join"
VALUE: Final = bytes(SECTION_BYTES)

CONTROL: Final = """\
import select, sys, time
print("ready", flush=True)
longest, last = 0, time.monotonic_ns()
while not select.select([sys.stdin], [], [], 0.001)[0]:
    now = time.monotonic_ns()
    longest, last = max(longest, now - last - 1_000_000), now
print(longest, flush=True)
"""
"""The control process ends when its standard input ends, and prints the longest delay in ns."""


class Control:
    """The control process, between `__enter__` and `__exit__`. After that `stall_ms` is set."""

    def __enter__(self) -> "Control":
        self._process = subprocess.Popen(
            [sys.executable, "-c", CONTROL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *error: object) -> None:
        said, _ = self._process.communicate()
        self.stall_ms = int(said) / 1e6


class Scheduled:
    """Begins a write every millisecond, in its own thread, even if earlier writes have not ended."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: run(self._run()))
        self.times_ms: list[tuple[int, float]] = []
        """When each write was due (CLOCK_MONOTONIC, ns), and how many ms later it was acknowledged."""

        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    async def _run(self) -> None:
        interval_ns = 1_000_000_000 // WRITES_PER_SECOND
        async with await AsyncTable.open(NAME, address=self._address, cluster=NAME) as table:
            due, number = time.monotonic_ns(), 0
            async with asyncio.TaskGroup() as group:
                while not self._stopped.is_set():
                    group.create_task(self._write(table, number, due))
                    number += 1
                    due += interval_ns
                    await asyncio.sleep(max(due - time.monotonic_ns(), 0) / 1e9)

    async def _write(self, table: AsyncTable, number: int, due_ns: int) -> None:
        try:
            await table.write(b"%08d" % (number * 7919 % SECTIONS), VALUE)
        except CheckpointError as error:
            self.errors.append(str(error))
        self.times_ms.append((due_ns, (time.monotonic_ns() - due_ns) / 1e6))

    def between(self, begun: float, ended: float) -> list[float]:
        """Return the times in ms of the writes that were due between these two (in seconds)."""
        return [took for due_ns, took in self.times_ms if begun <= due_ns / 1e9 <= ended]


@dataclass(slots=True)
class Join:
    """The result of one join."""

    node: str
    in_sync_seconds: float
    """From the start of its process. The figures below are of the writes in that time."""

    view_seconds: float
    writes: int
    p50_ms: float
    p99_ms: float
    p99_9_ms: float
    longest_ms: float
    stall_ms: float
    quiet_p99_9_ms: float
    """The same without a join, over the time before."""

    errors: list[str]


def join_once(cluster: LocalCluster) -> Join:
    """Kill a node that is not active, start it under writes, and wait until it is in sync."""
    active = cluster.active_node(NAME)
    assert active is not None, "a sync checkpoint always has an active replica"
    node = next(n for n in reversed(cluster.node_ids) if n != active)
    cluster.kill(node)
    cluster.wait_serving()
    with Scheduled(cluster.addresses(active)) as quiet:
        time.sleep(LEAD_SECONDS)
    with Control() as control, Scheduled(cluster.addresses(active)) as writer:
        time.sleep(LEAD_SECONDS)
        begun = time.monotonic()
        cluster.start(node)
        cluster.wait_serving(60)
        in_view = time.monotonic() - begun
        cluster.wait_in_sync(NAME, [node], 120)
        in_sync = time.monotonic() - begun
        time.sleep(LEAD_SECONDS)
    times = writer.between(begun, begun + in_sync)
    p50, p99, p99_9 = (percentile(times, percent) for percent in (50, 99, 99.9))
    return Join(
        node=node,
        in_sync_seconds=in_sync,
        view_seconds=in_view,
        writes=len(times),
        p50_ms=p50,
        p99_ms=p99,
        p99_9_ms=p99_9,
        longest_ms=max(times),
        stall_ms=control.stall_ms,
        quiet_p99_9_ms=percentile([took for _, took in quiet.times_ms], 99.9),
        errors=quiet.errors + writer.errors,
    )


def fill(table: Table) -> None:
    """Write all sections, in large updates."""
    for first in range(0, SECTIONS, FILL_PER_UPDATE):
        table.Write(
            {b"%08d" % i: b"%08d" % i * (SECTION_BYTES // 8) for i in range(first, first + FILL_PER_UPDATE)}
        )


def main() -> None:
    """Fill, let nodes join, print, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.join", description=__doc__)
    parser.add_argument("--times", type=int, default=3, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(soft_wrap=True)
    found: list[Join] = []
    with (
        LocalCluster(3, name="join") as cluster,
        Table(NAME, SECTIONS, SECTION_BYTES, 16, address=cluster.addresses(), cluster="join") as table,
    ):
        fill(table)
        for _ in range(arguments.times):
            one = join_once(cluster)
            found.append(one)
            console.print(
                f"node {one.node}: in the view after {one.view_seconds:.2f} s, in sync after "
                f"{one.in_sync_seconds:.2f} s; {one.writes:,} writes, p50 {one.p50_ms:.2f} ms, "
                f"p99 {one.p99_ms:.1f} ms, p99.9 {one.p99_9_ms:.1f} ms, longest {one.longest_ms:.1f} ms; "
                f"the machine stood still for {one.stall_ms:.1f} ms at most; "
                f"p99.9 without a join {one.quiet_p99_9_ms:.1f} ms; failed calls {len(one.errors)}"
            )
    beyond = max(one.p99_9_ms - one.stall_ms for one in found)
    in_sync, failed = max(one.in_sync_seconds for one in found), sum(len(one.errors) for one in found)
    console.print(
        goal("p99.9 beyond the machine's stall", f"< {GOAL_P99_9_MS:g} ms", beyond, beyond < GOAL_P99_9_MS)
    )
    console.print(goal("in sync", f"< {GOAL_IN_SYNC_SECONDS:g} s", in_sync, in_sync < GOAL_IN_SYNC_SECONDS))
    console.print(goal("failed calls", "0", failed, not failed))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
