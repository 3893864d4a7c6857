"""`python -m bench.silence`: nodes fall silent, and how long their clients take to continue.

First comes the table of `leaving`: every client on every transport, in every state, with every fault. It
takes a quarter of an hour; `--only silences` leaves it out, and `--only table` stops after it.

Then there are three nodes under `majority`, each in a network namespace. The node with the active replica is
cut off, as by a pulled cable or lost power, again and again under writes. If there are no namespaces, its
process is stopped (SIGSTOP) instead. The writer is attached to another node first, and to that very node
next.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.leaving import all_rows
from bench.measure import percentile
from bench.writer import KEYS, VALUE_BYTES, Writer, count_lost, goal
from ckpt_client import Table
from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

STREAM_MIN_SECONDS, STREAM_MAX_SECONDS = 0.05, 0.3
AFTER_ACKNOWLEDGEMENTS: Final = 100
GOAL_P50_MS: Final = 1_200.0
GOAL_P99_MS: Final = 1_500.0


@dataclass(slots=True)
class Silence:
    """The result of one silence."""

    node: str
    near: bool
    """True if the writer was attached to the node that fell silent."""

    pause_ms: float
    acknowledged: int
    lost: int
    errors: list[str]


def fall_silent(cluster: LocalCluster, node: str) -> Callable[[], None]:
    """Silence a node; return the function that ends the silence."""
    if isinstance(cluster, NetnsCluster):
        cluster.isolate(node)
        return cluster.heal
    cluster.pause(node)
    return lambda: cluster.resume(node)


def silence_once(cluster: LocalCluster, near: bool) -> Silence:
    """Silence once and measure everything about it. The cluster is whole again afterwards."""
    name = "silence"
    with Table(name, KEYS, VALUE_BYTES, 16, address=cluster.addresses()):
        node = cluster.active_node(name)
    assert node is not None, "a sync checkpoint always has an active replica"
    others = [other for other in cluster.node_ids if other != node]
    where = cluster.addresses(node if near else others[0])
    with Table(name, KEYS, VALUE_BYTES, 16, address=where, follow_active=False) as table:
        writer = Writer(table)
        with writer.at_work():
            time.sleep(random.uniform(STREAM_MIN_SECONDS, STREAM_MAX_SECONDS))
            moment = time.monotonic_ns()
            end = fall_silent(cluster, node)
            try:
                cluster.wait_until(
                    lambda: writer.count_after(moment) >= AFTER_ACKNOWLEDGEMENTS,
                    "writes are acknowledged again",
                )
            finally:
                end()
        first = next_after(writer, moment)
    cluster.wait_serving()
    cluster.wait_in_sync(name, cluster.node_ids)
    lost = max(count_lost(cluster, each, name, writer) for each in cluster.node_ids)
    return Silence(node, near, (first - moment) / 1e6, len(writer.ended_ns), lost, writer.errors)


def next_after(writer: Writer, moment_ns: int) -> int:
    """Return when the longest gap between two acknowledged writes after a moment ended.

    The cut takes some milliseconds, during which writes still get through.
    """
    ends = [moment_ns, *(ended for ended in writer.ended_ns if ended > moment_ns)]
    return max(pairwise(ends), key=lambda pair: pair[1] - pair[0])[1]


def main() -> None:
    """Silence, print, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.silence", description=__doc__)
    parser.add_argument("--times", type=int, default=20, metavar="N")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="3 or more")
    parser.add_argument("--only", choices=("table", "silences"), help="one of the two parts")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(soft_wrap=True)
    kept = arguments.only == "silences" or print_table(console)
    if arguments.only != "table":
        kept = print_silences(console, arguments) and kept
    sys.exit(0 if kept else 1)


def print_table(console: Console) -> bool:
    """Print the table of every client; return True if all continued in time."""
    rows = []
    for row in all_rows():
        rows.append(row)
        console.print(str(row), style="" if row.kept else "red")
    late = sum(not row.kept for row in rows)
    worst = max(rows, key=lambda row: row.seconds - 2 * row.own_s)
    console.print(f"the slowest beyond its own work: {worst}")
    console.print(
        goal(
            "clients that went on within 1.5 s and their own work", f"{len(rows)}", len(rows) - late, not late
        )
    )
    return not late


def print_silences(console: Console, arguments: argparse.Namespace) -> bool:
    """Silence the active replica's host again and again; return True if every goal was met."""
    reason = why_unavailable()
    console.print(
        f"the host is silenced by SIGSTOP of its process, since {reason}" if reason else "the host is cut off"
    )
    found: list[Silence] = []
    with (LocalCluster if reason else NetnsCluster)(arguments.nodes) as cluster:
        for number in range(2 * arguments.times):
            one = silence_once(cluster, near=number % 2 == 1)
            found.append(one)
            console.print(
                f"{number + 1:3}  node {one.node}, the writer {'there' if one.near else 'elsewhere'}: "
                f"next acknowledged write after {one.pause_ms:7.1f} ms  "
                f"acknowledged {one.acknowledged:,}, lost {one.lost}, failed calls {len(one.errors)}"
            )
    reached = True
    for near in (False, True):
        pauses = [one.pause_ms for one in found if one.near is near]
        where = "the writer there" if near else "the writer elsewhere"
        console.print(f"{where}: min {min(pauses):.0f} ms, max {max(pauses):.0f} ms")
        p50, p99 = percentile(pauses, 50), percentile(pauses, 99)
        console.print(goal(f"{where}: p50", f"≤ {GOAL_P50_MS:g} ms", p50, p50 <= GOAL_P50_MS))
        console.print(goal(f"{where}: p99", f"< {GOAL_P99_MS:g} ms", p99, p99 < GOAL_P99_MS))
        reached = reached and p50 <= GOAL_P50_MS and p99 < GOAL_P99_MS
    lost, failed = sum(one.lost for one in found), sum(len(one.errors) for one in found)
    console.print(goal("acknowledged writes lost", "0", lost, not lost))
    console.print(goal("failed calls", "0", failed, not failed))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    return reached and not lost and not failed


if __name__ == "__main__":
    main()
