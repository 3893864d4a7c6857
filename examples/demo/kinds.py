"""The demo's second part: what each kind of checkpoint promises, and what survives a SIGKILL."""

import threading
import time
from dataclasses import dataclass, field
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column
from rich.table import Table as Grid

from ckpt_client import CheckpointError, Table
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckptd.testing import LocalCluster

SECTIONS_MAX: Final = 100_000
VALUE: Final = bytes(100)
STREAM_SECONDS: Final = 0.4
AFTER: Final = 100


@dataclass(slots=True, frozen=True)
class Kind:
    """A kind of checkpoint, and which acknowledged writes it may lose."""

    name: str
    flags: int
    may_be_lost: str


_ALL = "nothing"
_ACTIVE = "the newest"
_COLLOCATED = SA_CKPT_CHECKPOINT_COLLOCATED
KINDS: Final = (
    Kind("ALL_REPLICAS", SA_CKPT_WR_ALL_REPLICAS, _ALL),
    Kind("ALL_REPLICAS, collocated", SA_CKPT_WR_ALL_REPLICAS | _COLLOCATED, _ALL),
    Kind("ACTIVE_REPLICA", SA_CKPT_WR_ACTIVE_REPLICA, _ACTIVE),
    Kind("ACTIVE_REPLICA, collocated", SA_CKPT_WR_ACTIVE_REPLICA | _COLLOCATED, _ACTIVE),
    Kind("WEAK", SA_CKPT_WR_ACTIVE_REPLICA_WEAK, _ACTIVE),
    Kind("WEAK, collocated", SA_CKPT_WR_ACTIVE_REPLICA_WEAK | _COLLOCATED, _ACTIVE),
)
LEGEND: Final = (
    "next: how long after the kill a write that began after it was acknowledged.",
    "ALL_REPLICAS: a write returns when every replica has it; nothing acknowledged may be lost.",
    "ACTIVE_REPLICA: it returns when the active replica has it; the others follow at once, each write whole.",
    "WEAK: as ACTIVE_REPLICA, but the others follow in batches, of the newest values only.",
    "collocated: replicas only where the checkpoint is open; without ALL_REPLICAS no node becomes active "
    "by itself: here the writing program activates the replica of the node that it went to.",
)


@dataclass(slots=True)
class Stream:
    """Writes a new section for each number, one after the other, until it is stopped."""

    table: Table
    acknowledged: list[tuple[int, int, int]] = field(default_factory=list)
    """(number, when its call began, when it was acknowledged), in ns."""

    failed: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    resumed: threading.Event = field(default_factory=threading.Event)
    killed_ns: int | None = None

    def run(self) -> None:
        """Write until stopped; runs in a thread."""
        number = after = 0
        while not self.stopped.is_set():
            number += 1
            began = time.monotonic_ns()
            try:
                self.table.Write(str(number), VALUE)
            except CheckpointError as error:
                self.failed.append(str(error))
                continue
            self.acknowledged.append((number, began, time.monotonic_ns()))
            if self.killed_ns is not None and began > self.killed_ns:
                after += 1
                if after == AFTER:
                    self.resumed.set()


@dataclass(slots=True, frozen=True)
class Outcome:
    """What survived one kill."""

    acknowledged: int
    survived: int
    next_ms: float
    failed: int


def kill_under_stream(cluster: LocalCluster, kind: Kind, number: int) -> Outcome:
    """Kill the active replica's node while one program writes; then restore the cluster."""
    name = f"demo-{number}"
    first, second = cluster.node_ids[number % 3], cluster.node_ids[(number + 1) % 3]
    with (
        Table(name, SECTIONS_MAX, 1024, 32, kind.flags, address=cluster.addresses(first)) as table,
        # A collocated checkpoint has replicas where it was opened, so a standby opens it too.
        Table(name, SECTIONS_MAX, 1024, 32, kind.flags, address=cluster.address(second)) as standby,
    ):
        table.Write("0", VALUE)
        cluster.wait_in_sync(name, [first, second])
        stream = Stream(table)
        thread = threading.Thread(target=stream.run)
        thread.start()
        try:
            time.sleep(STREAM_SECONDS)
            active = cluster.active_node(name) or first
            stream.killed_ns = killed_ns = time.monotonic_ns()
            cluster.kill(active)
            if not stream.resumed.wait(30.0):
                raise RuntimeError(
                    f"{kind.name}: no write was acknowledged after the kill: {stream.failed[-1:]}"
                )
        finally:
            stream.stopped.set()
            thread.join()
        held = set(standby)
    before = [number for number, _, ended in stream.acknowledged if ended <= killed_ns]
    next_ns = min(ended for _, began, ended in stream.acknowledged if began > killed_ns)
    survived = sum(str(number).encode() in held for number in before)
    cluster.start(active)
    cluster.wait_serving()
    return Outcome(len(before), survived, (next_ns - killed_ns) / 1e6, len(stream.failed))


def measure_kinds(console: Console, cluster: LocalCluster) -> bool:
    """Measure all six kinds; return True if none broke its promise."""
    grid = Grid(
        Column("kind", no_wrap=True),
        "may be lost",
        "acknowledged",
        "survived",
        "lost",
        "next",
        box=SIMPLE_HEAD,
        pad_edge=False,
        title="SIGKILL of the active replica's node under a stream of writes",
    )
    kept = True
    for number, kind in enumerate(KINDS):
        with console.status(f"{kind.name}: killing its active replica's node …"):
            outcome = kill_under_stream(cluster, kind, number)
        lost = outcome.acknowledged - outcome.survived
        kept &= not (kind.flags & SA_CKPT_WR_ALL_REPLICAS and lost) and not outcome.failed
        counts = (f"{outcome.acknowledged:,}", f"{outcome.survived:,}", str(lost))
        grid.add_row(kind.name, kind.may_be_lost, *counts, f"{outcome.next_ms:.0f} ms")
    console.print(grid)
    for line in LEGEND:
        console.print(f"[dim]{line}[/]")
    return kept
