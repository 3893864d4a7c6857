"""`python -m bench.time_outs`: every call that no node answers ends at its time-out.

There are three nodes. In one half of the runs all of them are stopped (SIGSTOP). In the other half two are
stopped, so the client's node lives but cannot serve. Every call of `Table`, `AsyncTable` and both SAF
services is made meanwhile, all at the same time, and the time that each took is compared with its time-out.
"""

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from bench.layout import Rows
from ckpt_client import AsyncTable, CheckpointError, SaAisError, Table
from ckpt_client.saf import AsyncCheckpointService, CheckpointCreationAttributes, CheckpointService
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA, SA_TIME_END
from ckptd.testing import LocalCluster

TIME_OUTS_S: Final = (0.1, 0.5, 2.0)
GOAL_PART: Final = 0.1
GOAL_S: Final = 0.02
"""A call ends within a tenth of its time-out, or 20 ms, of it, whichever is more."""

NAME: Final = "safCkpt=time-outs"
READ_WRITE_CREATE: Final = 7
ATTRIBUTES: Final = CheckpointCreationAttributes(SA_CKPT_WR_ACTIVE_REPLICA, 102_400, 0, 100, 1024, 32)

Calls = dict[str, Callable[[], Any]]


@dataclass(slots=True)
class Kept:
    """One contender's calls at one time-out."""

    contender: str
    stopped: str
    time_out_s: float
    calls: int
    earliest_ms: float
    """How far the earliest call ended from its time-out; negative if it ended before."""

    latest_ms: float
    """How far the latest call ended from its time-out."""

    answered: list[str]
    """The calls that were answered although no node could serve them."""

    @property
    def met(self) -> bool:
        """True if every call ended in time, and none too early."""
        allowed_ms = max(GOAL_PART * self.time_out_s, GOAL_S) * 1e3
        return -allowed_ms <= self.earliest_ms and self.latest_ms <= allowed_ms and not self.answered


def saf_calls(service: Any, checkpoint: Any) -> Calls:
    """Return every call of the SAF service that asks the daemon, for the blocking and the asyncio form."""
    return {
        "open": lambda: service.checkpoint_open(NAME, READ_WRITE_CREATE, ATTRIBUTES),
        "unlink": lambda: service.checkpoint_unlink(NAME),
        "retention": lambda: checkpoint.retention_duration_set(SA_TIME_END),
        "status": checkpoint.status_get,
        "create": lambda: checkpoint.section_create("new"),
        "delete": lambda: checkpoint.section_delete("k"),
        "expiration": lambda: checkpoint.section_expiration_time_set("k", SA_TIME_END),
        "iteration": lambda: checkpoint.section_iteration_initialize(5),
        "write": lambda: checkpoint.write([("k", b"v", 0)]),
        "overwrite": lambda: checkpoint.overwrite("k", b"v"),
        "read": lambda: checkpoint.read([("k", None, 0)]),
        "synchronize": checkpoint.synchronize,
    }


def in_threads(calls: Calls) -> dict[str, tuple[float, bool]]:
    """Make all calls at once; return how long each took, and True if it was answered."""
    took: dict[str, tuple[float, bool]] = {}

    def make(name: str, call: Callable[[], Any]) -> None:
        began = time.monotonic()
        try:
            call()
        except (SaAisError, CheckpointError):
            took[name] = time.monotonic() - began, False
        else:
            took[name] = time.monotonic() - began, True

    threads = [threading.Thread(target=make, args=call) for call in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took


async def in_tasks(calls: Mapping[str, Callable[[], Awaitable[Any]]]) -> dict[str, tuple[float, bool]]:
    """Make all calls at once, for coroutines."""

    async def make(call: Callable[[], Awaitable[Any]]) -> tuple[float, bool]:
        began = time.monotonic()
        try:
            await call()
        except (SaAisError, CheckpointError):
            return time.monotonic() - began, False
        return time.monotonic() - began, True

    took = await asyncio.gather(*(make(call) for call in calls.values()))
    return dict(zip(calls, took, strict=True))


@contextmanager
def stopped(cluster: LocalCluster, nodes: str) -> Iterator[None]:
    """Stop these nodes, long enough for the others to miss them."""
    for node in nodes:
        cluster.pause(node)
    try:
        time.sleep(1.0 if len(nodes) < len(cluster.node_ids) else 0.0)
        yield
    finally:
        for node in nodes:
            cluster.resume(node)
        cluster.wait_serving()


def tables(cluster: LocalCluster, nodes: str, time_out_s: float) -> dict[str, tuple[float, bool]]:
    """Measure `Table`: one for each call, since a table makes one call at a time."""
    held = [Table("time-outs", 100, 1024, 32, address=cluster.address("a")) for _ in range(6)]
    held[0].Write("k", b"v")
    calls: Calls = {
        "Write": lambda: held[0].Write("k", b"v", timeout=time_out_s),
        "Read": lambda: held[1].Read("k", timeout=time_out_s),
        "Delete": lambda: held[2].Delete("k", timeout=time_out_s),
        "status": lambda: held[3].status(timeout=time_out_s),
        "read_all": lambda: held[4].read_all(timeout=time_out_s),
        "unlink": lambda: held[5].unlink(timeout=time_out_s),
        "open": lambda: Table("time-outs", address=cluster.address("a"), timeout=time_out_s),
    }
    with stopped(cluster, nodes):
        took = in_threads(calls)
    for table in held:
        table.close()
    return took


def async_tables(cluster: LocalCluster, nodes: str, time_out_s: float) -> dict[str, tuple[float, bool]]:
    """Measure `AsyncTable`: one for all calls."""

    async def run() -> dict[str, tuple[float, bool]]:
        table = await AsyncTable.open("time-outs", 100, 1024, 32, address=cluster.address("a"))
        await table.write("k", b"v")
        calls = {
            "write": lambda: table.write("k", b"v", timeout=time_out_s),
            "read": lambda: table.read("k", timeout=time_out_s),
            "delete": lambda: table.delete("k", timeout=time_out_s),
            "status": lambda: table.status(timeout=time_out_s),
            "read_all": lambda: table.read_all(timeout=time_out_s),
            "unlink": lambda: table.unlink(timeout=time_out_s),
        }
        with stopped(cluster, nodes):
            took = await in_tasks(calls)
        await table.close()
        return took

    return asyncio.run(run())


def services(cluster: LocalCluster, nodes: str, time_out_s: float) -> dict[str, tuple[float, bool]]:
    """Measure the blocking SAF service: one, used by as many threads as there are calls."""
    service = CheckpointService.initialize(address=cluster.address("a"))
    checkpoint = service.checkpoint_open(NAME, READ_WRITE_CREATE, ATTRIBUTES)
    checkpoint.section_create("k")
    service.inner.timeout_ns = int(time_out_s * 1e9)
    with stopped(cluster, nodes):
        took = in_threads(saf_calls(service, checkpoint))
    service.finalize()
    return took


def async_services(cluster: LocalCluster, nodes: str, time_out_s: float) -> dict[str, tuple[float, bool]]:
    """Measure the SAF service for asyncio."""

    async def run() -> dict[str, tuple[float, bool]]:
        service = await AsyncCheckpointService.initialize(address=cluster.address("a"))
        checkpoint = await service.checkpoint_open(NAME, READ_WRITE_CREATE, ATTRIBUTES)
        await checkpoint.section_create("k")
        service.timeout_ns = int(time_out_s * 1e9)
        with stopped(cluster, nodes):
            took = await in_tasks(saf_calls(service, checkpoint))
        await service.finalize()
        return took

    return asyncio.run(run())


CONTENDERS: Final = {
    "Table": tables,
    "AsyncTable": async_tables,
    "CheckpointService": services,
    "AsyncCheckpointService": async_services,
}


def measure_time_outs() -> list[Kept]:
    """Measure every contender at every time-out, with all nodes stopped and with all but the client's."""
    kept = []
    with LocalCluster(nodes=3) as cluster:
        for nodes, why in (("abc", "all"), ("bc", "others")):
            for contender, run in CONTENDERS.items():
                for time_out_s in TIME_OUTS_S:
                    took = run(cluster, nodes, time_out_s)
                    missed_ms = [
                        (seconds - time_out_s) * 1e3 for seconds, answered in took.values() if not answered
                    ]
                    answered = [name for name, (_, answered) in took.items() if answered]
                    limits = (min(missed_ms, default=0.0), max(missed_ms, default=0.0))
                    kept.append(Kept(contender, why, time_out_s, len(took), *limits, answered))
    return kept


def print_time_outs(console: Console, kept: list[Kept]) -> None:
    """Print how far the earliest and the latest call of each contender ended from its time-out."""
    console.print("\nCalls that nobody answers: their end against their time-out (10 % or 20 ms)")
    rows = Rows(("who", "stopped", "s", "calls", "earliest ms", "latest ms", "goal"))
    for one in kept:
        times = (f"{one.earliest_ms:+.1f}", f"{one.latest_ms:+.1f}", "met" if one.met else "missed")
        style = "green" if one.met else "red"
        rows.row(one.contender, one.stopped, f"{one.time_out_s:g}", str(one.calls), *times, style=style)
        if one.answered:
            rows.heading(f"  answered: {', '.join(one.answered)}", style)
    rows.print(console)


def main() -> int:
    """Measure and print."""
    argparse.ArgumentParser(
        prog="python -m bench.time_outs", description=__doc__.splitlines()[0]
    ).parse_args()
    print_time_outs(Console(highlight=False, soft_wrap=True), measure_time_outs())
    return 0


if __name__ == "__main__":
    sys.exit(main())
