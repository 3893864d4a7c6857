"""`python -m bench.handover`: SIGTERM to the active replica's node, again and again, under writes.

It measures the longest time that a write took while the node handed over and left, and checks that no call
failed. In half of the cases the writer is attached to the node that leaves, in the other half to another
node.
"""

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.measure import percentile
from bench.writer import KEYS, VALUE_BYTES, Writer, count_lost, goal
from ckpt_client import Table
from ckptd.testing import LocalCluster

BEFORE_SECONDS: Final = 0.2
AFTER_ACKNOWLEDGEMENTS: Final = 300
GOAL_MS: Final = 20.0


@dataclass(slots=True)
class Handover:
    """The result of one planned leave."""

    node: str
    attached_to_it: bool
    pause_ms: float
    usual_ms: float
    """The longest write of the time before it."""

    lost: int
    errors: list[str]


def hand_over_once(cluster: LocalCluster, attached_to_it: bool) -> Handover:
    """Make one planned leave and return."""
    name = "handover"
    with Table(name, KEYS, VALUE_BYTES, 16, address=cluster.addresses()):
        node = cluster.active_node(name)
    assert node is not None, "a sync checkpoint always has an active replica"
    others = [other for other in cluster.node_ids if other != node]
    first_node = node if attached_to_it else others[0]
    with Table(name, KEYS, VALUE_BYTES, 16, address=cluster.addresses(first_node)) as table:
        writer = Writer(table)
        with writer.at_work():
            begun = time.monotonic_ns()
            time.sleep(BEFORE_SECONDS)
            moment = time.monotonic_ns()
            cluster.leave(node)
            left = time.monotonic_ns()
            cluster.wait_until(
                lambda: writer.count_after(left) >= AFTER_ACKNOWLEDGEMENTS, "writes are acknowledged again"
            )
            end = time.monotonic_ns()
        lost = max(count_lost(cluster, other, name, writer) for other in others)
        pause, usual = writer.longest_ns(moment, end), writer.longest_ns(begun, moment)
    cluster.start(node)
    cluster.wait_serving()
    cluster.wait_in_sync(name, cluster.node_ids)
    return Handover(node, attached_to_it, pause / 1e6, usual / 1e6, lost, writer.errors)


def main() -> None:
    """Hand over, print, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.handover", description=__doc__)
    parser.add_argument("--times", type=int, default=20, metavar="N")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="2 (a pair) or more")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(soft_wrap=True)
    found: list[Handover] = []
    with LocalCluster(arguments.nodes, name="handover") as cluster:
        for number in range(arguments.times):
            one = hand_over_once(cluster, attached_to_it=number % 2 == 0)
            found.append(one)
            console.print(
                f"{number + 1:3}  node {one.node}, writer on {'it' if one.attached_to_it else 'another'}: "
                f"longest write {one.pause_ms:6.1f} ms (before: {one.usual_ms:.1f})  "
                f"lost {one.lost}, failed calls {len(one.errors)}"
            )
    for title, some in (
        ("writer on the node that leaves", [one for one in found if one.attached_to_it]),
        ("writer on another", [one for one in found if not one.attached_to_it]),
    ):
        if some:
            pauses = [one.pause_ms for one in some]
            console.print(f"{title}: p50 {percentile(pauses, 50):.1f} ms, max {max(pauses):.1f} ms")
    longest = max(one.pause_ms for one in found)
    lost, failed = sum(one.lost for one in found), sum(len(one.errors) for one in found)
    console.print(goal("longest pause of a write", f"< {GOAL_MS:g} ms", longest, longest < GOAL_MS))
    console.print(goal("acknowledged writes lost", "0", lost, not lost))
    console.print(goal("failed calls", "0", failed, not failed))
    for error in sorted({error for one in found for error in one.errors}):
        console.print(f"failed call: {error}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
