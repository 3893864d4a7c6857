"""Cancels a task at every turn of its event loop, one turn in each run."""

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class TurningLoop(asyncio.SelectorEventLoop):
    """A loop that cancels `victim` at the beginning of its `turn_budget`-th turn from now."""

    def __init__(self) -> None:
        super().__init__()
        self.victim: asyncio.Task[Any] | None = None
        self.turns = 0
        self.complaints: list[str] = []
        self.set_exception_handler(lambda loop, context: self.complaints.append(str(context)))

    def _run_once(self) -> None:
        if self.victim is not None:
            self.turns -= 1
            if self.turns == 0:
                self.victim.cancel()
        super()._run_once()  # type: ignore[misc]


async def cancelled_at(turn: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Run `work` and cancel it at its `turn`-th turn. Return False if it has fewer; raise its own failure."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, TurningLoop)
    task = loop.create_task(work)
    loop.victim, loop.turns = task, turn
    await asyncio.wait([task])
    loop.victim = None
    if not task.cancelled():
        task.result()
    return loop.turns <= 0


async def cancel_everywhere(
    prepare: Callable[[int], Awaitable[Coroutine[Any, Any, Any]]], check: Callable[[int], Awaitable[None]]
) -> int:
    """Cancel what `prepare` makes at its first turn, its second, and so on; call `check` after each.

    Return how many turns it took when it was not cancelled.
    """
    turn = 1
    while True:
        reached = await cancelled_at(turn, await prepare(turn))
        await check(turn)
        if not reached:
            return turn
        turn += 1


def run_clean(work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Run `work` on a loop of its own. It must leave no task there, and cause no complaint or warning."""
    gc.collect()  # What earlier tests left must not count here.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with asyncio.Runner(loop_factory=TurningLoop) as runner:
            loop = runner.get_loop()
            runner.run(work())
            left = asyncio.all_tasks(loop)
            gc.collect()
        gc.collect()
    assert isinstance(loop, TurningLoop)
    assert not left
    assert loop.complaints == []
    complaints = [f"{warning.filename}:{warning.lineno}: {warning.message}" for warning in warned]
    assert complaints == [], complaints
