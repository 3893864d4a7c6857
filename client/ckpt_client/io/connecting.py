"""Connect a blocking socket to an address within a time-out, and explain why that failed."""

import fcntl
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ckpt_client.session.address import Address, check_owner
from ckpt_client.session.endpoints import NOBODY_LISTENS, Outlook

LARGE_BYTES: Final = 65_536
"""The progress of a request is checked if more than this much of it waits in the socket.

Anything smaller fits into the buffers of a node that does not run any more.
"""

_TIOCOUTQ: Final = 0x5411
_SO_NWRITE: Final = 0x1024
"""How to ask Linux and macOS for the number of bytes that the other side has not taken in.

Source: tcp(7) SIOCOUTQ, unix(7); <sys/socket.h> of macOS.
"""


def untaken_bytes(sock: socket.socket) -> int:
    """Return how many of the bytes sent still wait for the other side; 0 if the system does not tell."""
    try:
        if sys.platform == "darwin":
            return sock.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
        return int.from_bytes(fcntl.ioctl(sock.fileno(), _TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def connect_socket(address: Address, timeout_s: float) -> socket.socket:
    """Return a connected socket that has no time-out of its own. For udp it talks to that address only.

    Raises: OSError (TimeoutError after `timeout_s`), ValueError for an invalid host name.
    """
    until_s = time.monotonic() + timeout_s
    if address.scheme == "unix":
        check_owner(address)
        return _connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, address.host, timeout_s)
    failure: OSError = ConnectionError("the host has no address")
    # A name may have several addresses: they share the time-out.
    for family, kind, protocol, _, where in _resolve(address, timeout_s):
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("no connection within the time limit")
        try:
            sock = _connect(family, kind, protocol, where, left_s)
        except OSError as error:
            failure = error
            continue
        if not address.datagram:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise failure


def _connect(family: int, kind: int, protocol: int, where: Any, timeout_s: float) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.settimeout(timeout_s)
        sock.connect(where)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def resolve_in_thread(address: Address, then: Callable[[list[Any] | Exception], None]) -> None:
    """Call `then` with what `getaddrinfo` returns or raises for a host: at once, or from another thread.

    A look-up has no time-out, and may take many seconds. So it runs in a thread that nobody waits for, not
    even at the program's end.
    """
    kind = socket.SOCK_DGRAM if address.datagram else socket.SOCK_STREAM

    def ask(flags: int = 0) -> None:
        try:
            found: list[Any] | Exception = list(
                socket.getaddrinfo(address.host, address.port, type=kind, flags=flags)
            )
        except (OSError, ValueError) as error:
            found = error
        if not flags or not isinstance(found, socket.gaierror):
            then(found)
        else:
            threading.Thread(target=ask, name=f"look up {address.host}", daemon=True).start()

    ask(socket.AI_NUMERICHOST)


def _resolve(address: Address, timeout_s: float) -> list[Any]:
    """Return the addresses of a host. Raises: OSError (TimeoutError after `timeout_s`), ValueError."""
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()
    resolve_in_thread(address, answers.put)
    try:
        found = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError("the host name was not resolved within the time limit") from None
    if isinstance(found, Exception):
        raise found
    return found


def explain_failure(error: Exception) -> tuple[str, Outlook]:
    """Return what went wrong with a connection, and what that says about the next attempt.

    A ValueError means that the host's name is invalid. A name that is unknown now may be known soon: that of
    a container is, once the container has started.
    """
    why = getattr(error, "strerror", "") or str(error) or type(error).__name__
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return f"{NOBODY_LISTENS} ({why})", Outlook.NOT_YET
    if isinstance(error, PermissionError):
        return f"this user may not connect ({why})", Outlook.HOPELESS
    if isinstance(error, socket.gaierror):
        return why, Outlook.NOT_YET
    return why, Outlook.HOPELESS if isinstance(error, ValueError) else Outlook.OPEN
