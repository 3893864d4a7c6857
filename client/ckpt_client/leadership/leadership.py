"""`Leadership`: what `Table.lead` returns, for programs that block."""

import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self

from ckpt_client.checkpoint.leadership_state import LeadershipState
from ckpt_client.errors import LeadershipEnded, SaAisError
from ckpt_client.io.blocking_connection import DETACH_NS
from ckpt_client.io.loop_thread import finalize_at_exit
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import LeadArguments
from ckpt_client.leadership.leadership_facts import Fail, LeadershipFacts
from ckpt_client.steps import Result


class Runs(Protocol):
    """Runs coroutines on the process's loop, as a `loop_thread.Runner` does."""

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result: ...
    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> object: ...


class Lost(threading.Event):
    """An event that is set once the program leads no more.

    `is_set` also looks at the clock: a process that was paused knows it before any of its threads has run.
    """

    def __init__(self, state: LeadershipState) -> None:
        super().__init__()
        self._state = state

    def is_set(self) -> bool:
        """Return True if the program leads no more."""
        return super().is_set() or self._state.is_over

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the program leads no more; return False after `timeout` seconds (None: no limit)."""
        return self.is_set() or super().wait(timeout) or self.is_set()


class Leadership(LeadershipFacts):
    """The program leads the table's checkpoint, until it leaves the `with` block or resigns.

    Any thread may use it. In a forked child it is lost, and the parent leads on.
    """

    def __init__(
        self,
        candidacy: Candidacy,
        arguments: LeadArguments,
        fail: Fail,
        on_left: Callable[[], None],
        runner: Runs,
    ) -> None:
        """For `lead` only."""
        super().__init__(candidacy, arguments, fail, on_left)
        self.lost = Lost(candidacy.state)
        """Set once the program leads no more, also when it has resigned."""

        self._runner = runner
        self._counting = threading.Lock()
        ended = weakref.WeakMethod(self._ended)
        candidacy.state.on_end = lambda lost: _notify(ended, lost)

    def win(self, limit: TimeLimit) -> LeadershipState:
        """Wait until we lead. Raises: SaAisError; whatever is raised, we do not lead then."""
        try:
            self._runner.run(self._candidacy.win(limit))
        except BaseException:
            self._runner.spawn(self._candidacy.leave())  # We may have been interrupted when we led already.
            raise
        finalize_at_exit(self._candidacy)
        weakref.finalize(self, _let_go, self._runner, self._candidacy, os.getpid()).atexit = False
        return self._state

    def enter_again(self, arguments: LeadArguments) -> bool:
        """Count one more block, unless the last one is just being left. Raises: SaAisError."""
        if self._pid != os.getpid():  # The lock may have its owner in the parent.
            raise self._state.lost_error()
        with self._counting:
            return super().enter_again(arguments)

    def resign(self, to: str | None = None, timeout: float | None = None) -> None:
        """Hand over to the next program that waits, or to the first that waits with the name `to`.

        It ends the leadership of every block that leads with it; to resign again does nothing. When it
        returns, the service knows it. `timeout`: seconds; None: 1 s.

        Raises: CheckpointError NOT_EXIST if no program of that name waits; then this one leads as before.
        LeadershipLost if no program of that name waits, and the leadership was lost meanwhile. If
        no node answers, CheckpointError TIMEOUT, and so on: then the program leads no more, but the next one
        has to wait until the service knows it.
        """
        successor = self._successor(to)
        if self._left or self._is_elsewhere():
            return
        try:
            self._runner.run(self._candidacy.resign(successor, TimeLimit(timeout, DETACH_NS)))
        except SaAisError as error:
            if self._state.ended and not isinstance(error, LeadershipEnded):
                self._leave()
            raise self._fail("resign from", error) from None
        self._leave()

    def close(self) -> None:
        """Leave the leadership; 1 s at most."""
        if not self._left and not self._is_elsewhere():
            try:
                self._runner.run(self._candidacy.leave())
            finally:
                self._leave()

    def _ended(self, lost: bool) -> None:
        self.lost.set()
        if lost:
            self._report_loss()
            if self._arguments.on_lost is not None:
                # It may take its time, and use tables. The thread that noticed the loss may be the loop's.
                threading.Thread(target=self._call_on_lost, name="on_lost", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_elsewhere():
            return
        with self._counting:
            self._blocks -= 1
            last = self._blocks == 0
        if last:
            self.close()


def _notify(ended: "weakref.WeakMethod[Any]", lost: bool) -> None:
    notify = ended()
    if notify is not None:
        notify(lost)


def _let_go(runner: Runs, candidacy: Candidacy, pid: int) -> None:
    """Leave a leadership that the program has dropped, with its table.

    The garbage collector may call this anywhere, even while a lock is held, so it waits for nothing.
    """
    if pid != os.getpid() or candidacy.finalized:
        return
    leaving = candidacy.leave()
    try:
        runner.spawn(leaving)
    except RuntimeError:  # Its loop is closed.
        leaving.close()
