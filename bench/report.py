"""The figures as tables for people and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table as Grid

from bench.cases import Case, Outcome
from bench.measure import Figures, Ratios
from bench.scale import RATIO_MAX, Growth, Holding
from bench.time_outs import Kept

PROCESSES: Final = ("client", "node", "replica 1", "replica 2")


def _verdict(wanted: str, found: float, met: bool) -> str:
    return f"[{'green' if met else 'red'}]{wanted}: {found:.2f}, {'met' if met else 'missed'}[/]"


def _row(name: str, figures: Figures) -> list[str]:
    spent = [f"{figures.cpu_us(p):.1f}" if p in figures.processes else "" for p in PROCESSES]
    times = [f"{figures.percentile_us(p):.1f}" for p in (50, 99)]
    return [name, *times, f"{figures.rate:,.0f}", *spent, f"{figures.cpu_us():.1f}"]


def print_outcomes(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Each case: the floor, ckptd, and their ratio."""
    columns = ("case", "who", "p50 µs", "p99 µs", "ops/s", *(f"{p} µs" for p in PROCESSES), "CPU µs", "goal")
    grid = Grid(*columns, title="Latency, rate, and CPU per operation of each process")
    for outcome in outcomes:
        goals = outcome.case.goal.judge(outcome.floor, outcome.ckptd)
        verdict = "\n".join(_verdict(*goal) for goal in goals)
        ratios = Ratios.of(outcome.floor, outcome.ckptd)
        grid.add_row(outcome.case.title, *_row("floor", outcome.floor))
        grid.add_row("", *_row("ckptd", outcome.ckptd))
        ratio = ["ratio", f"{ratios.p50:.2f}", "", f"{ratios.rate:.2f}", *("" for _ in PROCESSES)]
        grid.add_row("", *ratio, f"{ratios.cpu:.2f}", verdict, end_section=True)
    console.print(grid)


def print_growths(console: Console, growths: Sequence[Growth]) -> None:
    """Cost with few and with many."""
    grid = Grid("what is held", "p50 µs few", "many", "CPU µs few", "many", "p50 x", "CPU x", "goal")
    for growth in growths:
        few, many, ratios = growth.few, growth.many, growth.ratios
        costs = [few.percentile_us(50), many.percentile_us(50), few.cpu_us(), many.cpu_us()]
        verdict = _verdict(f"CPU ≤ {RATIO_MAX:g} x", ratios.cpu, ratios.cpu <= RATIO_MAX)
        cells = [f"{cost:.1f}" for cost in costs] + [f"{ratios.p50:.2f}", f"{ratios.cpu:.2f}"]
        grid.add_row(growth.name, *cells, verdict)
    console.print(grid)


def print_holding(console: Console, holding: Holding) -> None:
    """Memory that the sections took, and what the nodes do when nobody asks."""
    grown = ", ".join(f"{node} {size / 2**20:.1f} MiB" for node, size in holding.grown_bytes.items())
    largest = max(holding.grown_bytes.values()) / holding.sections
    wanted = f"≤ {holding.goal_bytes / holding.sections:.0f} B a section"
    console.print(
        f"RSS growth for {holding.sections:,} sections of {holding.section_bytes} B: {grown}; "
        + _verdict(wanted, largest, holding.met)
    )
    idle = ", ".join(f"{node} {percent:.1f} %" for node, percent in holding.idle_percent.items())
    console.print(f"CPU of a core while nobody asks (heartbeats; in every figure above too): {idle}")


def _case_json(case: Case) -> dict[str, object]:
    return {"case": case.name, "value_bytes": case.value_bytes, "nodes": case.nodes}


def as_json(
    environment: dict[str, object],
    outcomes: Sequence[Outcome],
    growths: Sequence[Growth],
    holding: Holding | None,
    kept: Sequence[Kept],
) -> dict[str, object]:
    """Everything, as `--json` writes it."""
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
