"""`python -m bench.kill`: SIGKILL to the active replica's node, again and again, under a stream of writes.

There is a sync checkpoint on three nodes under `majority` (or two, under `pair`), and a blocking `Table` that
knows all of them. Each kill is measured: how long it takes until a write that began after it is acknowledged,
and whether every acknowledged write is still there, on every survivor. Then the node is restarted, until it
holds an in-sync replica again. In half of the kills the writer is attached to the node that is killed, in the
other half to another node.
"""

import argparse
import json
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.layout import Rows
from bench.measure import percentile
from bench.writer import KEYS, VALUE_BYTES, Writer, count_lost, goal
from ckpt_client import Table
from ckptd.testing import LocalCluster

STREAM_MIN_SECONDS, STREAM_MAX_SECONDS = 0.05, 0.3
AFTER_ACKNOWLEDGEMENTS: Final = 200
GOAL_P50_MS: Final = 50.0
GOAL_P99_MS: Final = 250.0


@dataclass(slots=True)
class Kill:
    """The result of one kill."""

    node: str
    attached_to_it: bool
    pause_ms: float
    acknowledged: int
    lost: int
    errors: list[str]


def kill_once(cluster: LocalCluster, attached_to_it: bool) -> Kill:
    """Kill once and measure everything about it. The cluster is whole again afterwards."""
    name = "kill"
    with Table(name, KEYS, VALUE_BYTES, 16, address=cluster.addresses()):
        node = cluster.active_node(name)
    assert node is not None, "a sync checkpoint always has an active replica"
    others = [other for other in cluster.node_ids if other != node]
    first_node = node if attached_to_it else others[0]
    address = cluster.addresses(first_node)
    with Table(name, KEYS, VALUE_BYTES, 16, address=address, follow_active=False) as table:
        writer = Writer(table)
        with writer.at_work():
            time.sleep(random.uniform(STREAM_MIN_SECONDS, STREAM_MAX_SECONDS))
            moment = time.monotonic_ns()
            cluster.kill(node)
            cluster.wait_until(
                lambda: writer.count_after(moment) >= AFTER_ACKNOWLEDGEMENTS, "writes are acknowledged again"
            )
        first = writer.first_after_ns(moment)
        assert first is not None, "writes were acknowledged after the kill"
        lost = max(count_lost(cluster, other, name, writer) for other in others)
    cluster.start(node)
    cluster.wait_serving()
    cluster.wait_in_sync(name, cluster.node_ids)
    lost = max(lost, count_lost(cluster, node, name, writer))
    return Kill(node, attached_to_it, (first - moment) / 1e6, len(writer.ended_ns), lost, writer.errors)


def main() -> None:
    """Kill, print, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="2 (a pair) or more")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(soft_wrap=True)
    kills: list[Kill] = []
    with LocalCluster(arguments.nodes, name="kill") as cluster:
        for number in range(arguments.kills):
            attached = number % 2 == 0
            kill = kill_once(cluster, attached)
            kills.append(kill)
            console.print(
                f"{number + 1:3}  node {kill.node}, writer on {'it,     ' if attached else 'another,'}  "
                f"next acknowledged write after {kill.pause_ms:7.1f} ms  "
                f"acknowledged {kill.acknowledged:,}, lost {kill.lost}, failed calls {len(kill.errors)}"
            )
    report(console, kills)
    if arguments.json:
        content = [asdict(kill) for kill in kills]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


def report(console: Console, kills: list[Kill]) -> None:
    """Print the figures, and which goals are met or missed."""
    rows = Rows(("kills", "p50 ms", "p99 ms", "max ms", "acknowledged", "lost", "failed"))
    groups = {
        "all": kills,
        "writer on it": [kill for kill in kills if kill.attached_to_it],
        "writer on another": [kill for kill in kills if not kill.attached_to_it],
    }
    for title, some in groups.items():
        if some:
            rows.row(f"{title} ({len(some)})", *_figures(some))
    rows.print(console)
    pauses, lost = [kill.pause_ms for kill in kills], sum(kill.lost for kill in kills)
    for percent, limit in ((50, GOAL_P50_MS), (99, GOAL_P99_MS)):
        found = percentile(pauses, percent)
        console.print(goal(f"p{percent}", f"< {limit:g} ms", found, found < limit))
    console.print(goal("acknowledged writes lost", "0", lost, not lost))
    for error in sorted({error for kill in kills for error in kill.errors}):
        console.print(f"failed call: {error}")


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
