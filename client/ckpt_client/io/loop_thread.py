"""The event loop behind blocking calls: one background thread for all services of a process.

A call hands its coroutine to the loop and waits. So the requests of many threads are sent together, no thread
waits for another's answer, and asynchronous calls proceed while the program does something else.
"""

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, Protocol, TypeVar

from ckpt_client.errors import error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.session.call import Call
from ckpt_protocol import codes

Result = TypeVar("Result")

_EXIT_S: Final = 2.0
"""How long a process that ends waits for its services to finalize."""


class Cancellable(Protocol):
    """Something that is under way."""

    def cancel(self) -> Any:
        """Give it up."""


class Runner(Protocol):
    """Runs the coroutines of a blocking service. (A test has one in virtual time.)"""

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end; return or raise what it does. An interrupted caller cancels it."""

    def ask(self, connection: AsyncConnection, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make one request, like `AsyncConnection.call`. Nearly every call of a program is one."""

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> Cancellable:
        """Start a coroutine without waiting for it."""

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function on the loop, and wait for it."""

    def wait(self, predicate: Callable[[], bool], condition: threading.Condition) -> None:
        """Wait until the predicate holds; `condition` is notified when it may."""


class LoopThread:
    """An event loop in a thread of its own, which ends with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ckpt_client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end; return its result, or raise what it raises.

        Raises: RuntimeError in the loop's own thread, where the coroutine could never end.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a blocking call in the service's own thread would never return")
        running = _Running(coroutine)
        # If anything interrupts this thread from here on, the loop must give up what it was handed.
        try:
            self._loop.call_soon_threadsafe(running.start, self._loop)
            running.ended.acquire()
        except BaseException:
            self._loop.call_soon_threadsafe(running.give_up)
            raise
        return running.result()

    def ask(self, connection: AsyncConnection, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make one request, like `AsyncConnection.call`, without a task, which costs more than the rest."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a blocking call in the service's own thread would never return")
        asked = _Asked()
        try:
            self._loop.call_soon_threadsafe(asked.start, connection, kind, handle, body, timeout_ns)
            asked.ended.acquire()
        except BaseException:
            self._loop.call_soon_threadsafe(asked.give_up, connection)
            raise
        return asked.payload()

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> Cancellable:
        """Start a coroutine without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function on the loop, and wait for it."""

        async def inner() -> Result:
            return function()

        return self.run(inner())

    def wait(self, predicate: Callable[[], bool], condition: threading.Condition) -> None:
        """Wait until the predicate holds."""
        with condition:
            condition.wait_for(predicate)


class _Running(Generic[Result]):
    """A coroutine between two threads: the loop's thread runs it, the other waits to acquire `ended`."""

    __slots__ = ("_coroutine", "_task", "ended")

    def __init__(self, coroutine: Coroutine[Any, Any, Result]) -> None:
        self.ended = threading.Lock()
        self.ended.acquire()
        self._coroutine: Coroutine[Any, Any, Result] = coroutine
        self._task: asyncio.Task[Result] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self.ended.release())

    def give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()

    def result(self) -> Result:
        assert self._task is not None, "ended before it began"
        return self._task.result()


class _Asked:
    """A request between two threads: the loop's thread makes it, the other waits to acquire `ended`."""

    __slots__ = ("call", "ended", "refusal")

    def __init__(self) -> None:
        self.ended = threading.Lock()
        self.ended.acquire()
        self.call: Call | None = None
        self.refusal: BaseException | None = None

    def start(
        self, connection: AsyncConnection, kind: int, handle: int, body: bytes, timeout_ns: int
    ) -> None:
        try:
            self.call = connection.start(kind, handle, body, timeout_ns, self.end)
        except BaseException as error:
            self.refusal = error
            self.ended.release()
        else:
            if self.call.done:
                self.ended.release()

    def end(self, call: Call) -> None:
        self.ended.release()

    def give_up(self, connection: AsyncConnection) -> None:
        if self.call is not None:
            connection.give_up(self.call)

    def payload(self) -> Any:
        if self.refusal is not None:
            raise self.refusal
        call = self.call
        assert call is not None, "ended before it began"
        if call.code != codes.OK:
            raise error_of(call.code, call.text, call.index, call.payload)
        return call.payload


_shared: LoopThread | None = None
_lock = threading.Lock()
_inherited_by_fork: list[LoopThread] = []
"""Loops of the process from which this one was forked; we must neither touch nor close them."""

_live_services: "weakref.WeakSet[Any]" = weakref.WeakSet()


def shared_runner() -> LoopThread:
    """Return the process's loop; start it when it is first needed."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = LoopThread()
        return _shared


def finalize_at_exit(service: Any) -> None:
    """Have a service's `finalize` coroutine run when the process ends normally."""
    _live_services.add(service)


def _finalize_at_exit() -> None:
    runner = _shared
    if runner is None:
        return

    async def farewell() -> None:
        # On the loop: services that were dropped just before (the locals of a `main`, say) have left by now.
        services = [service for service in _live_services if not service.finalized]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_S):
                await asyncio.gather(*(service.finalize() for service in services), return_exceptions=True)

    with contextlib.suppress(RuntimeError, concurrent.futures.CancelledError):
        runner.run(farewell())


def _forget() -> None:
    global _shared, _lock
    if _shared is not None:
        _inherited_by_fork.append(_shared)
    _shared = None
    _lock = threading.Lock()
    _live_services.clear()


atexit.register(_finalize_at_exit)
os.register_at_fork(after_in_child=_forget)
