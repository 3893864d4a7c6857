"""Clients that ask nothing for long, on nodes that fall silent meanwhile."""

import re
from dataclasses import replace
from functools import cache

import pytest

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.simulation import Verdict, simulate

pytestmark = pytest.mark.extended

SILENT = {"pause": 2, "isolate": 2, "cut-one-way": 1, "crash-host": 1}


@cache
def stories() -> tuple[Verdict, ...]:
    """Some simulations in which nodes fall silent, and sessions live for a second."""
    return tuple(
        simulate(
            replace(
                draw_options(seed, nodes=3, clients=4),
                napping=True,
                session_grace_ns=SECOND_NS,
                chaos_ns=9 * SECOND_NS,
                fault_every_ns=250 * MILLISECOND_NS,
                fault_weights=SILENT,
                think_ns=10 * MILLISECOND_NS,
                pipeline=1,
            )
        )
        for seed in range(1, 13)
    )


def told(pattern: str) -> list[str]:
    return [line for story in stories() for line in story.time_line if re.search(pattern, line)]


def test_quiet_clients_break_no_rule() -> None:
    for story in stories():
        assert story.good, f"seed {story.options.seed}: {story.rule}: {story.text}"


def test_some_sleep_until_their_session_has_ended_and_come_back() -> None:
    assert told(r"client \d+: sleeps")
    assert told(r"client \d+: is idle and keeps its session alive")
    ended = 0
    for story in stories():
        asleep: set[str] = set()
        for line in story.time_line:
            if found := re.search(
                r"(client \d+): (sleeps|is idle and keeps its session alive|its session has ended)", line
            ):
                name, what = found.groups()
                ended += what == "its session has ended" and name in asleep
                asleep = asleep | {name} if what == "sleeps" else asleep - {name}
    assert ended, "no session ended while its client slept"
