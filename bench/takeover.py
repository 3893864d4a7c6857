"""`python -m bench.takeover`: what happens to the leader of a table, and when the next program has written.

Two programs want to lead one table on three nodes, and another program's writes to another table go on
meanwhile. Again and again something happens to the one that leads: it is killed (SIGKILL), stopped for three
times its ttl (SIGSTOP), asked to resign; its daemon is killed, or its whole host is cut off and killed (in
network namespaces, as root). Each program writes down what it was acknowledged. From that follows whether
there were ever two leaders, a late write was accepted, or anything acknowledged was lost.

At the end, the writes of a leader and those with conditions are compared with plain ones.
"""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.layout import Rows
from bench.measure import percentile
from bench.takeover_cost import GOAL_RATIO, LEADER, PLAIN, Costs, measure_costs
from bench.takeover_rounds import Stage, Takeover
from bench.writer import KEYS, VALUE_BYTES, Writer, count_lost, goal
from ckpt_client import Table
from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

FAIL_OVER_SECONDS: Final = 1.5
"""The time after the ttl in which a lost host's successor has to write."""

GOALS_MS: Final = {"kill": 30.0, "daemon": 150.0, "resign": 5.0}
"""For the next write: the median, for `daemon` the longest."""

TITLES: Final = {
    "kill": "program killed",
    "stop": "program stopped",
    "daemon": "its daemon killed",
    "resign": "resigned",
    "host": "host gone",
}


@dataclass(slots=True)
class Case:
    """All rounds of one kind."""

    name: str
    takeovers: list[Takeover] = field(default_factory=list)


@dataclass(slots=True)
class Result:
    """The result of the rounds on one cluster."""

    cases: list[Case]
    faults: list[str]
    acknowledged: int
    """Writes of the leaders."""

    load: int
    """Writes to the other table."""

    load_lost: int


def run_rounds(cluster: LocalCluster, counts: dict[str, int], ttl: float, console: Console) -> Result:
    """Make the rounds of these cases, while another table is written to."""
    cases = [Case(name) for name, count in counts.items() if count]
    where = cluster.addresses(cluster.node_ids[-1])
    with (
        Stage(cluster, ttl) as stage,
        Table("load", KEYS, VALUE_BYTES, 16, address=where, timeout=30) as other,
    ):
        rounds: dict[str, Callable[[], Takeover]] = {
            "kill": stage.kill_program,
            "stop": stage.stop_program,
            "daemon": stage.kill_daemon,
            "resign": stage.resign,
            "host": stage.lose_host,
        }
        writer = Writer(other)
        with writer.at_work():
            for case in cases:
                for number in range(counts[case.name]):
                    takeover = rounds[case.name]()
                    case.takeovers.append(takeover)
                    resigned = f" (resign: {takeover.resign_ms:.1f} ms)" if takeover.resign_ms else ""
                    console.print(
                        f"{number + 1:3}  {TITLES[case.name]}: next write after "
                        f"{takeover.next_write_ms:8.1f} ms{resigned}"
                    )
        lost = count_lost(cluster, cluster.node_ids[-1], "load", writer)
        return Result(cases, stage.faults(), stage.acknowledged, len(writer.ended_ns), lost)


def report(console: Console, results: list[Result], ttl: float) -> None:
    """Print the figures, and which goals are met or missed."""
    rows = Rows(("next write after", "rounds", "p50 ms", "max ms"))
    figures = {
        case.name: [takeover.next_write_ms for takeover in case.takeovers]
        for result in results
        for case in result.cases
    }
    for name, times in figures.items():
        rows.row(TITLES[name], str(len(times)), f"{percentile(times, 50):.1f}", f"{max(times):.1f}")
        if name == "resign":
            calls = [one.resign_ms for r in results for c in r.cases if c.name == name for one in c.takeovers]
            rows.row(
                "  the call itself", str(len(calls)), f"{percentile(calls, 50):.1f}", f"{max(calls):.1f}"
            )
    rows.print(console)
    for name, limit in GOALS_MS.items():
        if name in figures:
            percent = 100 if name == "daemon" else 50
            found = percentile(figures[name], percent)
            what = f"{TITLES[name]}, {'longest' if percent == 100 else 'p50'}"
            console.print(goal(what, f"≤ {limit:g} ms", found, found <= limit))
    if "host" in figures:
        limit, found = (ttl + FAIL_OVER_SECONDS) * 1000, max(figures["host"])
        console.print(goal("host gone, longest", f"≤ {limit:g} ms", found, found <= limit))
    faults = [fault for result in results for fault in result.faults]
    console.print(goal("two leaders, late or lost writes", "0", len(faults), not faults))
    for fault in faults:
        console.print(f"fault: {fault}")
    lost = sum(result.load_lost for result in results)
    console.print(goal("acknowledged writes to the other table lost", "0", lost, not lost))
    total = sum(result.acknowledged for result in results), sum(result.load for result in results)
    console.print(f"acknowledged: {total[0]:,} writes of leaders, {total[1]:,} to the other table")


def report_costs(console: Console, costs: Costs) -> None:
    """Print what a write costs."""
    rows = Rows(("a write of 1 KiB", "p50 µs", "ratio"))
    for name in costs.rounds:
        rows.row(name, f"{costs.p50_us(name):.1f}", "" if name == PLAIN else f"{costs.ratio(name):.3f}")
    rows.print(console)
    ratio = costs.ratio(LEADER)
    colour, verdict = ("green", "met") if ratio <= GOAL_RATIO else ("red", "MISSED")
    console.print(
        f"goal a leader's write ≤ {GOAL_RATIO:g} x a plain one: [{colour}]{verdict}[/] ({ratio:.3f})"
    )


def main() -> None:
    """Make all rounds, print, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m bench.takeover", description=__doc__)
    for name, default in (("kill", 100), ("stop", 20), ("daemon", 20), ("resign", 50), ("host", 10)):
        help_text = f"rounds of: {TITLES[name]} (default: {default})"
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=help_text)
    parser.add_argument("--cost", type=int, default=100, metavar="N", help="rounds of each kind of write")
    parser.add_argument("--ttl", type=float, default=3.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(soft_wrap=True, highlight=False)
    counts = {name: getattr(arguments, name) for name in TITLES}
    hosts = {"host": counts.pop("host")}
    results: list[Result] = []
    costs: Costs | None = None
    if any(counts.values()):
        with LocalCluster(3, name="takeover") as cluster:
            results.append(run_rounds(cluster, counts, arguments.ttl, console))
    if hosts["host"]:
        reason = why_unavailable()
        if reason:
            console.print(f"host gone: left out, since {reason}")
        else:
            with NetnsCluster(3, name="takeover") as cluster:
                results.append(run_rounds(cluster, hosts, arguments.ttl, console))
    if arguments.cost:
        with LocalCluster(3, name="takeover") as cluster:
            costs = measure_costs(cluster, arguments.cost)
    if results:
        report(console, results, arguments.ttl)
    if costs is not None:
        report_costs(console, costs)
    if arguments.json:
        content = {
            "rounds": [asdict(result) for result in results],
            "costs": None if costs is None else costs.rounds,
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
