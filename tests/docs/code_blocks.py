"""The code blocks of a page, and what the page says about running them.

An HTML comment right before a block, which no reader sees, may say one of two things:

    <!-- not run: the reason -->     the block is not checked

    <!-- run:                        this Python runs at this place of the page, for example because the
    NODES = None                     block needs what the reader's own program has
    -->
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^>]+?) -->\s*", re.DOTALL)
_RUN = re.compile(r"<!-- run:\n(?P<program>.*?)^ *-->\s*", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of a page, or a comment that is to be run."""

    page: Path
    line: int
    """The page's line of its first line of code."""

    language: str
    """What follows the fence, "" if nothing does; "hidden" for a comment that is to be run."""

    text: str
    not_run: str = ""
    """Why it is not checked; "" if it is."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, text: str | None = None) -> Iterator[Block]:
    """The blocks of a page, in order, with those in lists and with the comments that are to be run."""
    comment = ""
    for token in MarkdownIt().parse(page.read_text("utf-8") if text is None else text):
        if token.type == "html_block":
            comment = token.content
            hidden = _RUN.fullmatch(comment)
            if hidden is not None:
                yield Block(page, _first_line(token.map) + 1, "hidden", hidden["program"])
        elif token.type in ("fence", "code_block"):
            said = _NOT_RUN.fullmatch(comment)
            why = "" if said is None else " ".join(said["why"].split())
            below_fence = token.type == "fence"
            yield Block(page, _first_line(token.map) + below_fence, token.info.strip(), token.content, why)
            comment = ""
        elif token.nesting >= 0 and token.type not in ("list_item_open", "inline"):
            comment = ""


def _first_line(lines: list[int] | None) -> int:
    assert lines is not None
    return lines[0] + 1
