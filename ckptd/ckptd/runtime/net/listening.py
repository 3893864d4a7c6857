"""The sockets that a daemon listens on: one port for TCP and UDP, and a unix socket."""

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import Final

from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.errors import StartError
from ckptd.runtime.host.private_files import directory_fault

BACKLOG: Final = 1024
RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Of a UDP socket. The system's default holds about 90 datagrams of 1 KiB, so a burst of heartbeats after a
pause would be lost."""

_PORT_ATTEMPTS: Final = 20
_UNIX_PATH_BYTES_MAX: Final = 103
"""The limit of macOS: `sun_path` less its final NUL. Linux allows four bytes more."""


def bind_port(listen: HostPort) -> tuple[socket.socket, socket.socket]:
    """Bind a TCP and a UDP socket to the same port, and listen on the TCP socket; return both.

    Raises: StartError.
    """
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"cannot listen on {listen}: {error.strerror}") from None
    # Prefer IPv4: clients and peers that are given a name such as localhost mostly try IPv4 first.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    for attempt in range(_PORT_ATTEMPTS):
        stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            stream.setblocking(False)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind(address)
            # Listen now: until one of them listens, a second daemon could bind the same port.
            stream.listen(BACKLOG)
            return stream, bind_datagram_socket(family, stream.getsockname())
        except OSError as error:
            stream.close()
            # With port 0, the port that the kernel chose for TCP may be taken for UDP: try another one.
            if listen.port or attempt == _PORT_ATTEMPTS - 1:
                raise StartError(f"cannot listen on {listen}: {error.strerror}") from None
    raise AssertionError("not reached")


def bind_datagram_socket(family: int, address: SocketAddress) -> socket.socket:
    """Return a UDP socket on `address`. Raises: OSError if it is taken or is none of this host's."""
    # We bind the socket ourselves: if uvloop did it, its error would not say why it failed.
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class UnixSocket:
    """A listening unix socket. A lock keeps its path ours until `close`."""

    def __init__(self, path: Path, mode: int) -> None:
        """Listen at `path`, replacing the socket that a dead daemon left there. Raises: StartError."""
        self.path = path
        if len(os.fsencode(path)) > _UNIX_PATH_BYTES_MAX:
            raise StartError(
                f"the path of the unix socket {path} is longer than {_UNIX_PATH_BYTES_MAX} bytes"
            )
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            fault = directory_fault(path.parent, sticky_is_safe=True)
            if fault:
                raise StartError(f"cannot listen on unix socket {path}: {fault}")
            self._lock = self._acquire_lock()
            try:
                self._remove_dead_socket()
                self.socket = self._bind(mode)
            except BaseException:
                os.close(self._lock)
                raise
        except OSError as error:
            raise StartError(f"cannot listen on unix socket {path}: {error.strerror or error}") from None

    def close(self) -> None:
        """Remove the path and release the lock. The server that listens on the socket closes the socket."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._lock)

    def _acquire_lock(self) -> int:
        # Without it, daemons that start at the same time could take each other's new socket for a stale one.
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StartError(f"another ckptd listens on unix socket {self.path}") from None
        return lock

    def _remove_dead_socket(self) -> None:
        try:
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise StartError(f"{self.path} exists and is not a socket")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(os.fspath(self.path))
            except OSError:
                self.path.unlink(missing_ok=True)
                return
        raise StartError(f"another process listens on unix socket {self.path}")

    def _bind(self, mode: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The umask makes the mode hold from the first moment; a chmod would come too late.
        umask = os.umask(0o777 & ~mode)
        try:
            sock.setblocking(False)
            sock.bind(os.fspath(self.path))
            sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(umask)
        return sock
