"""`ckptctl lead`: run a command while it leads a checkpoint, so that one such command runs at a time."""

import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, Final

from ckpt_client import Table
from ckpt_client.checkpoint.leadership_state import SECOND_NS, boottime_ns
from ckpt_client.leadership.leadership import Leadership
from ckptctl.command_runner import FORWARDED, CommandRunner, Deadline, Ended
from ckptctl.settings import Access

TOKEN: Final = "CKPTD_TOKEN"
TOKEN_INT: Final = "CKPTD_TOKEN_INT"
"""The variables of the command's environment that have the fencing token, as text and as a number."""

KILL_AFTER_SHARE: Final = 5
"""The command has ttl / 5 between SIGTERM and SIGKILL, unless --kill-after says otherwise."""

MARGIN_SHARE: Final = 20
"""The command is killed ttl / 20 before another program may lead."""

LOOKS_PER_TTL: Final = 20
"""How often the deadlines of the command are moved on in a ttl."""

OPEN_S: Final = 10.0
"""How long to wait until a node answers at all, in seconds."""

_LOST: Final = 0
"""What is written into the pipe when the leadership is lost; else it is the number of a signal."""


class _News:
    """A pipe that says what has happened: signals, and the loss of the leadership."""

    def __init__(self) -> None:
        self.waiting = True
        """True until the command runs: then a signal ends `ckptctl`."""

        self.end, self._begin = os.pipe()

    def on_signal(self, number: int, _: Any) -> None:
        if self.waiting:
            sys.exit(128 + number)
        os.write(self._begin, bytes((number,)))

    def on_lost(self) -> None:
        os.write(self._begin, bytes((_LOST,)))

    def take(self) -> bytes:
        """Return what has happened since the last time, a byte for each."""
        return os.read(self.end, 64)

    @contextmanager
    def handles_signals(self) -> Iterator[None]:
        """Take the signals in the block, except those that are ignored already."""
        taken = [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.on_signal) for number in taken}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def why_not_runnable(command: list[str]) -> Ended | None:
    """Return the exit code that a shell has for a command that it cannot start, and why; None if it can."""
    name = command[0]
    if shutil.which(name) is not None:
        return None
    if os.path.isdir(name):
        return Ended(126, f"{name}: this is a directory")
    if os.sep in name and os.path.exists(name):
        return Ended(126, f"{name}: permission denied")
    return Ended(127, f"{name}: command not found")


def run_while_leading(
    access: Access,
    checkpoint: str,
    command: list[str],
    *,
    ttl: float,
    kill_after: float,
    name: str | None,
    exclusive: bool,
    allow_loss: bool,
) -> Ended:
    """Wait until this process leads the checkpoint, run the command, and resign once it has ended.

    Times are in seconds. Raises: CheckpointError.
    """
    logging.basicConfig(format="ckptctl: %(message)s")  # The client logs why the leadership is lost.
    runner, news = CommandRunner(), _News()
    try:
        with (
            news.handles_signals(),
            Table(checkpoint, timeout=min(access.timeout, OPEN_S), **access.client_arguments) as table,
            table.lead(
                access.timeout,
                ttl,
                exclusive=exclusive,
                name=name or os.path.basename(command[0]),
                on_lost=news.on_lost,
                allow_loss_on_failover=allow_loss,
            ) as leadership,
        ):
            news.waiting = False
            return _Run(leadership, runner, news, ttl, kill_after).until_ended(command)
    finally:
        runner.close()


class _Run:
    """One run of the command."""

    def __init__(
        self, leadership: Leadership, runner: CommandRunner, news: _News, ttl: float, kill_after: float
    ) -> None:
        self._leadership = leadership
        self._runner = runner
        self._news = news
        self._margin_ns = round(ttl * SECOND_NS) // MARGIN_SHARE
        self._kill_after_ns = round(kill_after * SECOND_NS)
        self._look_s = ttl / LOOKS_PER_TTL
        self._deadline = Deadline(0, 0)
        self._lost = False

    def until_ended(self, command: list[str]) -> Ended:
        """Run the command; keep its deadline ahead while we lead."""
        leadership, runner, news = self._leadership, self._runner, self._news
        tokens = {TOKEN: leadership.token, TOKEN_INT: str(leadership.token_int)}
        self._deadline = self._next_deadline()
        runner.start(command, os.environ | tokens, self._deadline)
        while True:
            ready = wait([runner.link, news.end], None if self._lost else self._look_s)
            if runner.link in ready:
                return runner.ended()
            for number in news.take() if news.end in ready else b"":
                if number == _LOST:
                    self._end_in_time()
                elif number != signal.SIGINT or not runner.in_foreground:
                    runner.send_signal(number)
            deadline = self._next_deadline()
            if not self._lost and deadline.kill_ns > self._deadline.kill_ns:
                self._deadline = deadline
                runner.set_deadline(deadline)

    def _next_deadline(self) -> Deadline:
        until_ns = boottime_ns() + round(self._leadership.valid_for * SECOND_NS)
        kill_ns = until_ns - self._margin_ns
        return Deadline(kill_ns - self._kill_after_ns, kill_ns)

    def _end_in_time(self) -> None:
        """The leadership is lost: end the command now, and kill it before the ttl would have ended it."""
        self._lost = True
        now_ns = boottime_ns()
        self._runner.set_deadline(Deadline(now_ns, min(now_ns + self._kill_after_ns, self._deadline.kill_ns)))
