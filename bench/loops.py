"""The event loop that everything measured here runs on: uvloop where it is installed, as in the daemon."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def runner() -> asyncio.Runner:
    """A runner of the loop in question."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def run(main: Coroutine[object, object, T]) -> T:
    """Run one coroutine on it."""
    with runner() as one:
        return one.run(main)


def loop_name() -> str:
    """Which loop that is."""
    with runner() as one:
        return type(one.get_loop()).__module__.partition(".")[0]
