"""The marks of a scenario: which requirements it proves, and in which worlds."""

import pytest

VIRTUAL = "virtual"
DAEMONS = "daemons-unix"
USUAL = (VIRTUAL, DAEMONS)
EACH_TRANSPORT = (VIRTUAL, DAEMONS, "daemons-tcp", "daemons-udp")


def requirement(*numbers: str) -> pytest.MarkDecorator:
    """Mark a scenario that proves these requirements ("R23"), or what we do instead of them."""
    return pytest.mark.requirement(*numbers)


def on(*worlds: str, why: str) -> pytest.MarkDecorator:
    """Mark a scenario that runs only in these worlds ("virtual", "daemons-unix", …), with the reason."""
    return pytest.mark.worlds(*worlds, why=why)


def settings(**changed: int) -> pytest.MarkDecorator:
    """Set settings of the nodes (`ckptd.core.settings`) that a scenario needs. Only in virtual time."""
    return pytest.mark.settings(**changed)


each_transport = pytest.mark.worlds(*EACH_TRANSPORT, why="")
"""Marks a scenario about the client, which runs with every kind of address."""


def numbers_of(item: pytest.Item) -> tuple[str, ...]:
    """Return the requirements that a scenario proves."""
    return tuple(number for mark in item.iter_markers("requirement") for number in mark.args)
