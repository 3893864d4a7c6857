"""Figures in columns that are never cut: as wide as their content, at most 80 together, also in a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.text import Text

WIDTH: Final = 80
GAP: Final = "  "


@dataclass(slots=True)
class Rows:
    """Rows under `heads`, with headings in between. The first cell is left-aligned, the others right."""

    heads: Sequence[str]
    _lines: list[tuple[str | Sequence[str], str]] = field(default_factory=list)

    def heading(self, text: str, style: str = "") -> None:
        """Add a line that ignores the columns."""
        self._lines.append((text, style))

    def row(self, *cells: str, style: str = "") -> None:
        """Add a row, with as many cells as there are heads."""
        assert len(cells) == len(self.heads), cells
        self._lines.append((cells, style))

    def print(self, console: Console) -> None:
        """Print regardless of the width of `console`. A narrower terminal wraps lines and loses nothing."""
        rows = [self.heads, *(line for line, _ in self._lines if not isinstance(line, str))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.heads))]
        for line, style in ((self.heads, "bold"), *self._lines):
            text = line if isinstance(line, str) else _aligned(line, widths)
            console.print(Text(text), style=style, soft_wrap=True)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return GAP.join((first, *others)).rstrip()
