"""What a scenario says of itself: which requirements it proves, and in which worlds."""

import pytest

VIRTUAL = "virtual"
DAEMONS = "daemons-unix"
USUAL = (VIRTUAL, DAEMONS)
EACH_TRANSPORT = (VIRTUAL, DAEMONS, "daemons-tcp", "daemons-udp")


def requirement(*numbers: str) -> pytest.MarkDecorator:
    """The scenario proves these requirements ("R23"), or, where one is deviated from, what we do instead."""
    return pytest.mark.requirement(*numbers)


def on(*worlds: str, why: str) -> pytest.MarkDecorator:
    """The scenario runs only in these worlds ("virtual", "daemons-unix", …), for a reason."""
    return pytest.mark.worlds(*worlds, why=why)


def settings(**changed: int) -> pytest.MarkDecorator:
    """The nodes' settings (`ckptd.core.settings`), where a scenario needs others. Only in virtual time."""
    return pytest.mark.settings(**changed)


each_transport = pytest.mark.worlds(*EACH_TRANSPORT, why="")
"""The scenario is about the client: it runs with every kind of address."""


def numbers_of(item: pytest.Item) -> tuple[str, ...]:
    """What a scenario proves."""
    return tuple(number for mark in item.iter_markers("requirement") for number in mark.args)
