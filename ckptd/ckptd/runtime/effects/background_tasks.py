"""Background tasks for the core's rarer effects. Each has an owner, so that none outlives the daemon."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from ckptd.runtime.driver import Driver


class BackgroundTasks:
    """Runs background tasks that carry out effects."""

    def __init__(self, driver: Driver) -> None:
        """`driver` fails if a task raises. Tasks handle all faults from outside, so that is our own bug."""
        self._driver = driver
        self._running: dict[asyncio.Task[None], bool] = {}

    def start(self, work: Coroutine[Any, Any, None], *, to_its_end: bool = False) -> None:
        """Run `work`. `to_its_end`: at its end the daemon waits for this task instead of cancelling it."""
        task = asyncio.get_running_loop().create_task(work)
        self._running[task] = to_its_end
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._driver.fail(task.get_name(), error)

    async def close(self) -> None:
        """Cancel the tasks that may be cancelled; return when all have ended."""
        for task, to_its_end in self._running.items():
            if not to_its_end:
                task.cancel()
        while self._running:
            await asyncio.wait(list(self._running))
