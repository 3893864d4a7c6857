"""The figures as tables for people and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console

from bench.cases import Case, Outcome
from bench.layout import Rows
from bench.measure import Figures, Ratios
from bench.scale import RATIO_MAX, Growth, Holding
from bench.time_outs import Kept

PROCESSES: Final = {"client": "client", "node": "node", "replica 1": "repl. 1", "replica 2": "repl. 2"}
"""The head of each process's column."""


def _verdict(wanted: str, found: float, met: bool) -> str:
    return f"{wanted}: {found:.2f}, {'met' if met else 'missed'}"


def _style(met: bool) -> str:
    return "green" if met else "red"


def _cells(figures: Figures) -> list[str]:
    times = [f"{figures.percentile_us(p):.1f}" for p in (50, 99)]
    spent = [f"{figures.cpu_us(p):.1f}" if p in figures.processes else "" for p in PROCESSES]
    return [*times, f"{figures.rate:,.0f}", *spent, f"{figures.cpu_us():.1f}"]


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Print each case: the floor, ckptd, and their ratio."""
    console.print("\nLatency, operations a second, and CPU µs an operation: of each process, of all")
    rows = Rows(("", "p50 µs", "p99 µs", "ops/s", *PROCESSES.values(), "CPU µs"))
    for outcome in outcomes:
        rows.heading(outcome.case.title, "bold")
        ratios = Ratios.of(outcome.floor, outcome.ckptd)
        rows.row("floor", *_cells(outcome.floor))
        rows.row("ckptd", *_cells(outcome.ckptd))
        none = ("" for _ in PROCESSES)
        rows.row("ratio", f"{ratios.p50:.2f}", "", f"{ratios.rate:.2f}", *none, f"{ratios.cpu:.2f}")
        for goal in outcome.case.goal.judge(outcome.floor, outcome.ckptd):
            rows.heading(f"goal {_verdict(*goal)}", _style(goal[2]))
    rows.print(console)


def print_growths(console: Console, growths: Sequence[Growth]) -> None:
    """Print the cost with few and with many."""
    console.print("\nCost with few and with many")
    rows = Rows(("", "p50 µs few", "many", "ratio", "CPU µs few", "many", "ratio"))
    for growth in growths:
        few, many, ratios = growth.few, growth.many, growth.ratios
        rows.heading(growth.name, "bold")
        p50 = (f"{few.percentile_us(50):.1f}", f"{many.percentile_us(50):.1f}", f"{ratios.p50:.2f}")
        rows.row("", *p50, f"{few.cpu_us():.1f}", f"{many.cpu_us():.1f}", f"{ratios.cpu:.2f}")
        met = ratios.cpu <= RATIO_MAX
        rows.heading("goal " + _verdict(f"CPU ≤ {RATIO_MAX:g} x", ratios.cpu, met), _style(met))
    rows.print(console)


def print_holding(console: Console, holding: Holding) -> None:
    """Print how much memory the sections take, and what idle nodes use."""
    grown = ", ".join(f"{node} {size / 2**20:.1f} MiB" for node, size in holding.grown_bytes.items())
    largest = max(holding.grown_bytes.values()) / holding.sections
    wanted = f"≤ {holding.goal_bytes / holding.sections:.0f} B a section"
    console.print(f"\nRSS growth for {holding.sections:,} sections of {holding.section_bytes} B: {grown}")
    console.print("goal " + _verdict(wanted, largest, holding.met), style=_style(holding.met))
    idle = ", ".join(f"{node} {percent:.1f} %" for node, percent in holding.idle_percent.items())
    console.print("CPU of a core while nobody asks (heartbeats; in every figure above, too):")
    console.print(f"  {idle}")


def _case_json(case: Case) -> dict[str, object]:
    return {"case": case.name, "value_bytes": case.value_bytes, "nodes": case.nodes}


def as_json(
    environment: dict[str, object],
    outcomes: Sequence[Outcome],
    growths: Sequence[Growth],
    holding: Holding | None,
    kept: Sequence[Kept],
) -> dict[str, object]:
    """Return everything as `--json` writes it."""
    return {
        "environment": environment,
        "cases": [
            {
                **_case_json(o.case),
                "floor": o.floor.as_json(),
                "ckptd": o.ckptd.as_json(),
                "ratio": {k: round(v, 3) for k, v in asdict(Ratios.of(o.floor, o.ckptd)).items()},
                "goals": [
                    {"goal": wanted, "ratio": round(found, 3), "met": met}
                    for wanted, found, met in o.case.goal.judge(o.floor, o.ckptd)
                ],
            }
            for o in outcomes
        ],
        "growth": [
            {
                "case": g.name,
                "few": g.few.as_json(),
                "many": g.many.as_json(),
                "ratio": {k: round(v, 3) for k, v in asdict(g.ratios).items()},
                "met": g.ratios.cpu <= RATIO_MAX,
            }
            for g in growths
        ],
        "time_outs": [{**asdict(one), "met": one.met} for one in kept],
        "holding": None
        if holding is None
        else {**asdict(holding), "goal_bytes": holding.goal_bytes, "met": holding.met},
    }
