"""Background tasks for the core's rarer effects. Each has an owner, so that none outlives the daemon."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Errands:
    """Runs background tasks that carry out effects."""

    def __init__(self) -> None:
        self.fail: Callable[[str, Exception], None] = lambda where, error: None
        """Called if a task raises. Tasks handle all faults from outside, so the exception is our own bug."""

        self._running: dict[asyncio.Task[None], bool] = {}

    def start(self, errand: Coroutine[Any, Any, None], *, to_its_end: bool = False) -> None:
        """Run `errand`. `to_its_end`: at its end the daemon waits for this task instead of cancelling it."""
        task = asyncio.get_running_loop().create_task(errand)
        self._running[task] = to_its_end
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            self.fail(task.get_name(), error)

    async def close(self) -> None:
        """Cancel the tasks that may be cancelled; return when all have ended."""
        for task, to_its_end in self._running.items():
            if not to_its_end:
                task.cancel()
        while self._running:
            await asyncio.wait(list(self._running))
