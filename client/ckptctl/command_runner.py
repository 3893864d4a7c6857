"""Run a command in time: a process between `ckptctl lead` and the command ends the command by a deadline.

`ckptctl` sends the deadlines, which move on with each renewal. The runner ends the command on its own when a
deadline passes, or when `ckptctl` is gone: whether it was killed, frozen or stopped at a terminal. On Linux
the kernel kills the command if the runner is killed.

Without a terminal the command has a process group of its own, and all signals go to the group. In the
foreground of a terminal it stays in the group of `ckptctl`, so that it may read and gets Ctrl-C, and signals
go to the command alone.

Not promised: a process that has left the group, or waits in the kernel for a broken disk, may live longer; so
may a command when the whole machine is suspended, or when `ckptctl` and its runner are killed together on
another system than Linux.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NamedTuple

from ckpt_client.checkpoint.leadership_state import SECOND_NS, boottime_ns

FORWARDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""The signals that go on to the command."""

PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that this process gets when its parent has ended."""

CLOCK_STEP_S: Final = 0.25
"""The longest pause between two looks at the clock: timers do not count the time of a suspended machine."""


class Deadline(NamedTuple):
    """When the command is ended, by `boottime_ns`."""

    term_ns: int
    kill_ns: int


class Ended(NamedTuple):
    """The end of the command: its exit code as a shell has it; the text says why it could not be started."""

    exit_code: int
    text: str = ""


class CommandRunner:
    """A runner, as `ckptctl` sees it. Make it before there are threads and connections: it is a fork."""

    def __init__(self) -> None:
        foreground = _foreground_group()
        self.link, theirs = Pipe()
        """It becomes readable when the command has ended."""

        self._pid = os.fork()
        if not self._pid:
            try:
                self.link.close()
                os.setpgid(0, 0)
                _Runner(theirs, foreground).run()
            finally:
                os._exit(0)
        theirs.close()
        self.in_foreground = foreground is not None
        """True if the command gets the terminal's signals by itself."""

    def start(self, command: Sequence[str], environment: Mapping[str, str], deadline: Deadline) -> None:
        """Start the command."""
        self._send("start", list(command), dict(environment), deadline)

    def set_deadline(self, deadline: Deadline) -> None:
        """Replace the deadline."""
        self._send("deadline", deadline)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command."""
        self._send("signal", number)

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # It has ended; `ended` says how.
            self.link.send(message)

    def ended(self) -> Ended:
        """Wait for the end of the command, and return it."""
        try:
            return Ended(*self.link.recv())
        except (EOFError, ConnectionResetError):
            return Ended(128 + signal.SIGKILL, "the process that runs the command was killed")

    def close(self) -> None:
        """End the runner, and the command at once if it runs."""
        self.link.close()
        os.waitpid(self._pid, 0)


def _foreground_group() -> int | None:
    """Return this process's group if it is in the foreground of the terminal on standard input."""
    try:
        return os.getpgrp() if os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp() else None
    except (OSError, ValueError):
        return None


class _Runner:
    """The runner's own process. It has one thread, so the command's parent ends only with it."""

    def __init__(self, link: "Connection[Any, Any]", foreground: int | None) -> None:
        self._link = link
        self._foreground = foreground
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = Deadline(sys.maxsize, sys.maxsize)
        self._termed = False
        self._woken, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(woken)
        for number in FORWARDED:
            # `ckptctl` decides what they mean. (What is ignored from the start is so for the command, too.)
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _ignore)

    def run(self) -> None:
        while True:
            ready = wait([self._link, self._woken], self._pause_s())
            if self._woken in ready:
                os.read(self._woken, 4096)
            if self._link in ready:
                try:
                    ended = self._take(*self._link.recv())
                except (EOFError, ConnectionResetError):
                    self._signal(signal.SIGKILL)
                    return
                if ended is not None:
                    self._link.send(ended)
                    return
            self._look_at_clock()
            if self._process is not None and self._process.poll() is not None:
                self._signal_group(signal.SIGKILL)  # What the command has left behind does not act either.
                with contextlib.suppress(BrokenPipeError):
                    self._link.send(self._ended(self._process.returncode))
                return

    def _take(self, what: str, *values: Any) -> Ended | None:
        """Take a message; return the end of a command that cannot be started."""
        if what == "start":
            command, environment, self._deadline = values
            if boottime_ns() >= self._deadline.term_ns:
                return Ended(128 + signal.SIGTERM, "it was too late to start the command")
            return self._start(command, environment)
        if what == "deadline":
            (deadline,) = values
            # Once the command was asked to end, it has the time that it had then, or less.
            self._deadline = Deadline(*map(min, deadline, self._deadline)) if self._termed else deadline
        else:
            self._signal(*values)
        return None

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> Ended | None:
        try:
            self._process = subprocess.Popen(
                command,
                env=environment,
                process_group=self._foreground or 0,
                preexec_fn=_die_with_parent(),
            )
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            return Ended(127 if missing else 126, f"{command[0]}: {error.strerror}")
        return None

    def _ended(self, code: int) -> Ended:
        text = "the command was ended, since the leadership ends" if self._termed else ""
        return Ended(code if code >= 0 else 128 - code, text)

    def _pause_s(self) -> float | None:
        if self._process is None:
            return None
        due_ns = self._deadline.kill_ns if self._termed else self._deadline.term_ns
        return min(max(due_ns - boottime_ns(), 0) / SECOND_NS, CLOCK_STEP_S)

    def _look_at_clock(self) -> None:
        if self._process is None:
            return
        now_ns = boottime_ns()
        if now_ns >= self._deadline.kill_ns:
            self._signal(signal.SIGKILL)
            self._process.wait()
        elif now_ns >= self._deadline.term_ns and not self._termed:
            self._termed = True
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            if self._foreground is None:
                self._signal_group(number)
            else:
                self._process.send_signal(number)

    def _signal_group(self, number: int) -> None:
        if self._process is not None and self._foreground is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def _ignore(*_: object) -> None:
    """A handler, not SIG_IGN: the command begins with the default."""


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child calls so that the kernel kills it when this process ends; None if it cannot."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return die_with_parent
