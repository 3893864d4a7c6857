"""`python -m bench.kill`: SIGKILL of the active replica's node, again and again, under a stream of writes.

Three nodes, `majority`, a sync checkpoint, a blocking `Table` that knows all three. A
kill is followed by: how long until a write that began after it was acknowledged;
whether every acknowledged write is still there, on every survivor; the node's restart,
until it holds an in-sync replica again. In half of the kills the writer talks to the
node that is killed, in half to another one.
"""

import argparse
import json
import random
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table as Grid

from bench.measure import percentile
from ckpt_client import CheckpointError, Table
from ckptd.testing import LocalCluster

KEYS: Final = 100
VALUE_BYTES: Final = 1024
STREAM_MIN_SECONDS, STREAM_MAX_SECONDS = 0.05, 0.3
AFTER_ACKNOWLEDGEMENTS: Final = 200
GOAL_P50_MS: Final = 100.0


def _value(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(VALUE_BYTES - 8)


@dataclass(slots=True)
class Writer:
    """Writes 1, 2, 3, … to keys in turn, one after the other, until stopped."""

    table: Table
    number: int = 0
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    began_ns: list[int] = field(default_factory=list)
    ended_ns: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unknown: set[bytes] = field(default_factory=set)
    """Keys whose last write ended in an error: its outcome is not known."""

    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """The stream; a thread's body."""
        while not self.stopped.is_set():
            self.number += 1
            key = b"key-%d" % (self.number % KEYS)
            began = time.monotonic_ns()
            try:
                self.table.Write(key, _value(self.number))
            except CheckpointError as error:
                self.errors.append(str(error))
                self.unknown.add(key)
                continue
            self.began_ns.append(began)
            self.ended_ns.append(time.monotonic_ns())
            self.acknowledged[key] = self.number
            self.unknown.discard(key)

    def first_after_ns(self, moment_ns: int) -> int | None:
        """When the first write that began after a moment was acknowledged."""
        for began, ended in zip(self.began_ns, self.ended_ns, strict=False):
            if began > moment_ns:
                return ended
        return None

    def count_after(self, moment_ns: int) -> int:
        """How many writes that began after a moment have been acknowledged."""
        return sum(1 for began in reversed(self.began_ns) if began > moment_ns)


@dataclass(slots=True)
class Kill:
    """What one kill showed."""

    node: str
    attached_to_it: bool
    pause_ms: float
    acknowledged: int
    lost: int
    errors: list[str]


def kill_once(cluster: LocalCluster, attached_to_it: bool) -> Kill:
    """One kill, and everything about it; the cluster is whole again afterwards."""
    name = "kill"
    with Table(name, KEYS, VALUE_BYTES, 16, address=cluster.addresses()):
        node = cluster.active_node(name)
    assert node is not None, "a sync checkpoint always has an active replica"
    others = [other for other in cluster.node_ids if other != node]
    with Table(
        name, KEYS, VALUE_BYTES, 16, address=cluster.addresses(node if attached_to_it else others[0])
    ) as table:
        writer = Writer(table)
        thread = threading.Thread(target=writer.run)
        thread.start()
        try:
            time.sleep(random.uniform(STREAM_MIN_SECONDS, STREAM_MAX_SECONDS))
            moment = time.monotonic_ns()
            cluster.kill(node)
            cluster.wait_until(
                lambda: writer.count_after(moment) >= AFTER_ACKNOWLEDGEMENTS, "writes are acknowledged again"
            )
        finally:
            writer.stopped.set()
            thread.join()
        first = writer.first_after_ns(moment)
        assert first is not None, "writes were acknowledged after the kill"
        lost = max(count_lost(cluster, other, name, writer) for other in others)
    cluster.start(node)
    cluster.wait_serving()
    cluster.wait_in_sync(name, cluster.node_ids)
    lost = max(lost, count_lost(cluster, node, name, writer))
    return Kill(node, attached_to_it, (first - moment) / 1e6, len(writer.ended_ns), lost, writer.errors)


def count_lost(cluster: LocalCluster, node: str, name: str, writer: Writer) -> int:
    """How many keys, read by way of a node, do not hold what was acknowledged last."""
    with Table(name, address=cluster.address(node)) as table:
        held = table.read_all()
    lost = 0
    for key, number in writer.acknowledged.items():
        found = int.from_bytes(held.get(key, b"")[:8], "big")
        lost += found < number if key in writer.unknown else found != number
    return lost


def main() -> None:
    """Kill, print, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console()
    kills: list[Kill] = []
    with LocalCluster(3, name="kill") as cluster:
        for number in range(arguments.kills):
            attached = number % 2 == 0
            kill = kill_once(cluster, attached)
            kills.append(kill)
            console.print(
                f"{number + 1:3}  node {kill.node}, writer on {'it,     ' if attached else 'another,'}  "
                f"next acknowledged write after {kill.pause_ms:7.1f} ms  "
                f"acknowledged {kill.acknowledged:,}, lost {kill.lost}, failed calls {len(kill.errors)}"
            )
    grid = Grid("kills", "p50 ms", "p99 ms", "max ms", "acknowledged", "lost", "failed calls")
    groups = {
        "all": kills,
        "writer on the killed node": [kill for kill in kills if kill.attached_to_it],
        "writer on another": [kill for kill in kills if not kill.attached_to_it],
    }
    for title, some in groups.items():
        if some:
            grid.add_row(f"{title} ({len(some)})", *_figures(some))
    console.print(grid)
    p50, lost = percentile([kill.pause_ms for kill in kills], 50), sum(kill.lost for kill in kills)
    console.print(f"goal p50 < {GOAL_P50_MS:g} ms: {'met' if p50 < GOAL_P50_MS else 'missed'} ({p50:.1f} ms)")
    console.print(f"goal no acknowledged write lost: {'met' if not lost else f'MISSED ({lost} lost)'}")
    for error in sorted({error for kill in kills for error in kill.errors}):
        console.print(f"failed call: {error}")
    if arguments.json:
        content = [asdict(kill) for kill in kills]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def _figures(kills: list[Kill]) -> list[str]:
    pauses = [kill.pause_ms for kill in kills]
    times = [f"{percentile(pauses, percent):.1f}" for percent in (50, 99, 100)]
    return [
        *times,
        f"{sum(kill.acknowledged for kill in kills):,}",
        str(sum(kill.lost for kill in kills)),
        str(sum(len(kill.errors) for kill in kills)),
    ]


if __name__ == "__main__":
    main()
