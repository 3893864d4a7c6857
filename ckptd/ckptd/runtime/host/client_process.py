"""Finds out if the process at the other end of a unix socket is still alive."""

import socket
import struct
import sys
from dataclasses import dataclass
from typing import Final

_UCRED: Final = struct.Struct("iII")
_EXITING: Final = 0x4
"""PF_EXITING of the kernel's task flags. It is set before the sockets of a dying process close."""


@dataclass(slots=True, frozen=True)
class Process:
    """A process. Its start time distinguishes it from a later one with the same pid."""

    pid: int
    started: str

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


def process_at(sock: socket.socket | None) -> Process | None:
    """Return the process that connected a unix socket; None if the system does not tell."""
    if sock is None or sock.family != socket.AF_UNIX or not sys.platform.startswith("linux"):
        return None
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        pid = int(_UCRED.unpack(credentials)[0])
        # Pid 0 means a process in another pid namespace (a container), which we cannot see.
        stat = _stat(pid) if pid else None
    except OSError:
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
