"""What `make bench` prints can be read at 80 columns and in a file: no figure is cut."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from bench.cases import CASES, Outcome
from bench.kill import Kill
from bench.kill import report as print_kills
from bench.layout import WIDTH
from bench.measure import Figures, Round
from bench.report import print_growths, print_holding, print_outcomes
from bench.scale import Growth, Holding
from bench.time_outs import Kept, print_time_outs
from rich.console import Console

PROCESSES = ("client", "node", "replica 1", "replica 2")


def figures(factor: int = 1) -> Figures:
    """Of a slow machine: five digits each."""
    spent = {name: 12_345_600 * factor * (number + 1) for number, name in enumerate(PROCESSES)}
    latencies = [98_765_400 * factor] * 100
    return Figures([Round(latencies, 1_000_000 * factor, {name: 100 * ns for name, ns in spent.items()})])


def outcomes(console: Console) -> None:
    print_outcomes(console, [Outcome(case, figures(), figures(2)) for case in CASES])


def growths(console: Console) -> None:
    print_growths(console, [Growth("write, 10,000 checkpoints instead of 10", figures(), figures(2))])


def holding(console: Console) -> None:
    nodes = dict.fromkeys("abc", 123456789)
    print_holding(console, Holding(100_000, 100, nodes, dict.fromkeys("abc", 12.3)))


def time_outs(console: Console) -> None:
    print_time_outs(console, [Kept("AsyncCheckpointService", "others", 0.5, 33, -12345.6, 12345.6, [])])


def kills(console: Console) -> None:
    fields: dict[str, Any] = {"acknowledged": 1_234_567, "lost": 0, "errors": []}
    found = [Kill(node="a", attached_to_it=to, pause_ms=12345.6, **fields) for to in (True, False)]
    print_kills(console, found)


@pytest.mark.parametrize(
    ("show", "told"),
    [
        (
            outcomes,
            ["98765.4", "197530.8", "12345.6", "49382.4", "246912.0", "100,000", "CPU ≤ 1.6 x: 2.00, missed"],
        ),
        (growths, ["98765.4", "197530.8", "123456.0", "2.00"]),
        (holding, ["a 117.7 MiB, b 117.7 MiB, c 117.7 MiB", "missed", "c 12.3 %"]),
        (time_outs, ["AsyncCheckpointService", "others", "-12345.6", "+12345.6", "missed"]),
        (kills, ["12345.6", "2,469,134", "1,234,567"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_every_figure_is_whole_in_lines_of_80_columns(
    show: Callable[[Console], None], told: list[str]
) -> None:
    """Tables of rich shrank their columns to the width, and cut the figures with it."""
    printed = io.StringIO()
    show(Console(file=printed, width=WIDTH, highlight=False, soft_wrap=True))
    text = printed.getvalue()
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert [figure for figure in told if figure not in text] == []
    assert "…" not in text


def test_a_narrow_terminal_loses_nothing() -> None:
    narrow, wide = io.StringIO(), io.StringIO()
    outcomes(Console(file=narrow, width=20, highlight=False, soft_wrap=True))
    outcomes(Console(file=wide, width=200, highlight=False, soft_wrap=True))
    assert narrow.getvalue() == wide.getvalue()
