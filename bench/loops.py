"""The event loop of everything that is measured here: uvloop if it is installed, as in the daemon."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


def runner() -> asyncio.Runner:
    """Return a runner of that loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def run(main: Coroutine[object, object, T]) -> T:
    """Run one coroutine on that loop."""
    with runner() as one:
        return one.run(main)


def loop_name() -> str:
    """Return the name of that loop."""
    with runner() as one:
        return type(one.get_loop()).__module__.partition(".")[0]
