"""Figures in columns that are never cut: as wide as what they hold, at most 80 together, also in a file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.text import Text

WIDTH: Final = 80
GAP: Final = "  "


@dataclass(slots=True)
class Rows:
    """Rows under `heads`: the first cell stands left, the others right. Headings stand between them."""

    heads: Sequence[str]
    _lines: list[tuple[str | Sequence[str], str]] = field(default_factory=list)

    def heading(self, text: str, style: str = "") -> None:
        """A line that keeps to no columns."""
        self._lines.append((text, style))

    def row(self, *cells: str, style: str = "") -> None:
        """As many cells as there are heads."""
        assert len(cells) == len(self.heads), cells
        self._lines.append((cells, style))

    def print(self, console: Console) -> None:
        """Whatever the width of `console`: a narrower terminal breaks the lines, and loses nothing."""
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
