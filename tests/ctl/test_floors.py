"""The lowest versions that `pyproject.toml` accepts are ones that are known to work."""

import re
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


def floor(package: str) -> tuple[int, ...]:
    (line,) = (line for line in PROJECT["dependencies"] if re.match(rf"{package}\b", line))
    found = re.search(r">=([\d.]+)", line)
    assert found, line
    return tuple(int(part) for part in found[1].split("."))


@pytest.mark.parametrize(
    ("package", "lowest"),
    [
        ("msgpack", (1, 2, 1)),  # A published vulnerability in those before.
        ("typer", (0, 18)),  # click has no upper bound, and 8.3 broke those before.
    ],
)
def test_a_version_that_is_known_to_fail_is_not_accepted(package: str, lowest: tuple[int, ...]) -> None:
    assert floor(package) >= lowest


def test_the_package_whose_private_parts_are_used_is_pinned() -> None:
    """asyncio-dgram 3.1 may rename what `ckptd.runtime.net.datagram_receiver` takes from it."""
    assert any(line == "asyncio-dgram==3.0.*" for line in PROJECT["dependencies"])
