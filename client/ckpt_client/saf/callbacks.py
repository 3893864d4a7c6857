"""Callbacks that wait for `dispatch`, and the descriptor that signals them (SAF 3.4.2, 3.4.3; R16 to R19).

The service's own thread adds them, and `dispatch` calls them in the program's thread. So a program that
dispatches from one thread gets all its callbacks there.
"""

import contextlib
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

Callback = Callable[[], object]
_DRAIN_BYTES: Final = 4096


class PendingCallbacks:
    """A queue of callbacks; each has an owner, with which it is cancelled. Safe for threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        """Notified when a callback is added, and when the queue is closed."""

        self.closed = False
        self._waiting: deque[tuple[object, Callback]] = deque()
        self._gone: weakref.WeakSet[object] = weakref.WeakSet()
        self._pipe: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, owner: object, callback: Callback) -> bool:
        """Add a callback. Return False if the queue is closed or the owner was cancelled."""
        with self.changed:
            if self.closed or owner in self._gone:
                return False
            self._waiting.append((owner, callback))
            if len(self._waiting) == 1:
                self._signal_fd()
            self.changed.notify_all()
            return True

    def take(self) -> Callback | None:
        """Remove and return the oldest callback; None if there is none."""
        with self.changed:
            if not self._waiting:
                return None
            _, callback = self._waiting.popleft()
            if not self._waiting:
                self._clear_fd()
            return callback

    def cancel(self, owner: object) -> None:
        """Forget the callbacks of one owner (R63), and accept no more from it.

        The service's thread may still try to add one after the program's thread has closed the owner.
        """
        with self.changed:
            self._gone.add(owner)
            if not self._waiting:
                return
            self._waiting = deque(entry for entry in self._waiting if entry[0] is not owner)
            if not self._waiting:
                self._clear_fd()

    def fileno(self) -> int:
        """Return a descriptor that is readable while a callback is pending. Raises: OSError."""
        with self.changed:
            if self._pipe is None:
                reading, writing = os.pipe()
                os.set_blocking(reading, False)
                os.set_blocking(writing, False)
                self._pipe = reading, writing
                if self._waiting:
                    self._signal_fd()
            return self._pipe[0]

    def close(self) -> None:
        """Forget all callbacks and the descriptor; threads that wait in `dispatch` return."""
        with self.changed:
            self.closed = True
            self._waiting.clear()
            pipe, self._pipe = self._pipe, None
            self.changed.notify_all()
        for descriptor in pipe or ():
            os.close(descriptor)

    def _signal_fd(self) -> None:
        if self._pipe is not None:
            os.write(self._pipe[1], b"!")

    def _clear_fd(self) -> None:
        if self._pipe is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe[0], _DRAIN_BYTES)
