"""Finds out if the process at the other end of a unix socket is still alive.

A process in this pid namespace, or in one below it, is looked up in /proc. Of any other one (the daemon runs
in a container, the client does not) the kernel gives a file descriptor, from Linux 6.5 on.
"""

import asyncio
import os
import select
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

_UCRED: Final = struct.Struct("iII")
_EXITING: Final = 0x4
"""PF_EXITING of the kernel's task flags. It is set before the sockets of a dying process close."""


_SO_PEERPIDFD: Final = 77
"""The number of the socket option on all architectures that Python is built for, but PA-RISC and SPARC."""

_INT: Final = struct.Struct("i")

DYING_SECONDS: Final = 0.05
"""How long a foreign process may take from the end of its connection to its own end, to be reported as dead.

The kernel closes the sockets of a dying process first.
"""


class ClientProcess(Protocol):
    """The process of a client."""

    @property
    def descriptors(self) -> int:
        """How many file descriptors of this daemon it takes, beside its connection's."""

    @property
    def shown(self) -> str:
        """The process, for a text to people."""

    def report_death(self, report: Callable[[bool], None]) -> None:
        """When its connection has ended: call `report`, now or soon, with True if the process is dead.

        It takes no descriptor from then on.
        """

    def close(self) -> None:
        """Close its descriptors: its client was refused."""


@dataclass(slots=True, frozen=True)
class Process:
    """A process that /proc shows. Its start time distinguishes it from a later one with the same pid."""

    pid: int
    started: str
    descriptors: ClassVar[int] = 0

    @property
    def shown(self) -> str:
        return f"process {self.pid}"

    def is_dead(self) -> bool:
        """Return True if the process is known to have ended or to be ending."""
        # Its socket closes while it exits, before its pid is gone, so the pid alone would say "alive".
        try:
            stat = _stat(self.pid)
        except OSError:
            return False
        if stat is None:
            return True
        state, flags, started = stat
        return started != self.started or state in "ZXx" or bool(flags & _EXITING)

    def report_death(self, report: Callable[[bool], None]) -> None:
        """Report at once."""
        report(self.is_dead())

    def close(self) -> None:
        """Do nothing: it has no descriptor."""


class ForeignProcess:
    """A process that /proc does not show here, by a file descriptor that is readable once it has ended."""

    shown = "a process in another namespace"
    descriptors = 1

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def is_dead(self) -> bool:
        """Return True if the process has ended."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        return bool(poller.poll(0))

    def report_death(self, report: Callable[[bool], None]) -> None:
        """Report when the process has ended, or `DYING_SECONDS` later."""
        loop = asyncio.get_running_loop()

        def end() -> None:
            waiting.cancel()
            loop.remove_reader(self._descriptor)
            dead = self.is_dead()
            self.close()
            report(dead)

        waiting = loop.call_later(DYING_SECONDS, end)
        loop.add_reader(self._descriptor, end)

    def close(self) -> None:
        """Close its descriptor."""
        os.close(self._descriptor)


def process_at(sock: socket.socket | None) -> Process | ForeignProcess | None:
    """Return the process that connected a unix socket; None if the system does not tell."""
    if sock is None or sock.family != socket.AF_UNIX or not sys.platform.startswith("linux"):
        return None
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid = int(_UCRED.unpack(credentials)[0])
        if not pid:
            descriptor = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size)
            return ForeignProcess(_INT.unpack(descriptor)[0])
        stat = _stat(pid)
    except (OSError, struct.error):
        return None
    return Process(pid, stat[2]) if stat else None


def _stat(pid: int) -> tuple[str, int, str] | None:
    """Return state, flags and start time of a process; None if it does not exist.

    Raises: OSError if we may not look.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return fields[0], int(fields[6]), fields[19]
    except (IndexError, ValueError):
        raise OSError(f"/proc/{pid}/stat has an unexpected format") from None
