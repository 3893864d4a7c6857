"""Whether the process at the other end of a unix socket still lives."""

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

_UCRED: Final = struct.Struct("iII")
_EXITING: Final = 0x4
"""PF_EXITING of the kernel's task flags: set before a dying process's sockets close."""


@dataclass(slots=True, frozen=True)
class Process:
    """A process, told from a later one with the same pid by when it started."""

    pid: int
    started: str

    def is_dead(self) -> bool:
        """Whether it is known to have ended (or to be ending)."""
        # Its socket closes while it exits, before its pid is gone: the pid alone would say "alive".
        try:
            stat = _stat(self.pid)
        except OSError:
            return False
        if stat is None:
            return True
        state, flags, started = stat
        return started != self.started or state in "ZXx" or bool(flags & _EXITING)


def process_at(sock: socket.socket | None) -> Process | None:
    """The process that connected a unix socket; None where the system does not say."""
    if sock is None or sock.family != socket.AF_UNIX or not sys.platform.startswith("linux"):
        return None
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid = int(_UCRED.unpack(credentials)[0])
        # 0: a process of another pid namespace (a container), which we cannot see.
        stat = _stat(pid) if pid else None
    except OSError:
        return None
    return Process(pid, stat[2]) if stat else None


def _stat(pid: int) -> tuple[str, int, str] | None:
    """State, flags and start time of a process; None when there is none.

    Raises: OSError where we may not look.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return fields[0], int(fields[6]), fields[19]
    except (IndexError, ValueError):
        raise OSError(f"/proc/{pid}/stat has another shape") from None
