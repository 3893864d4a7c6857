"""Look up the current address of a peer's name without blocking anything else.

A name is looked up again each time it is needed. Since a lookup takes as long as the name server likes,
it runs in a daemon thread of its own, which the process does not wait for when it ends. At most one
lookup per name is under way at a time.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Any, Final

from ckptd.runtime.config.addresses import HostPort, SocketAddress, address_query

RESOLVE_LIMIT_S: Final = 2.0
"""After this time `resolve` fails for its caller; an answer that comes later still serves the next caller."""

_under_way: dict[tuple[HostPort, int], "asyncio.Future[SocketAddress]"] = {}


async def resolve(host_port: HostPort, family: int) -> SocketAddress:
    """Return an address of a peer that a socket of `family` can use. Raises: OSError."""
    if host_port.ip is not None:
        return _query(host_port, family, socket.AI_NUMERICHOST)
    key = (host_port, family)
    found = _under_way.get(key)
    if found is None or found.get_loop() is not asyncio.get_running_loop():
        found = _under_way[key] = asyncio.get_running_loop().create_future()
        found.add_done_callback(lambda future: _forget(key, future))
        threading.Thread(
            target=_resolve_in_thread, args=(key, found), name=f"look up {host_port}", daemon=True
        ).start()
    try:
        async with asyncio.timeout(RESOLVE_LIMIT_S):
            return await asyncio.shield(found)
    except TimeoutError:
        raise OSError(f"the lookup of {host_port.host} takes longer than {RESOLVE_LIMIT_S:g} s") from None


def _query(host_port: HostPort, family: int, flags: int = 0) -> SocketAddress:
    query: dict[str, Any] = address_query(host_port, family)
    query["flags"] |= flags
    address: SocketAddress = socket.getaddrinfo(**query)[0][4]
    return address


def _resolve_in_thread(key: tuple[HostPort, int], found: "asyncio.Future[SocketAddress]") -> None:
    address: SocketAddress | OSError
    try:
        address = _query(*key)
    except OSError as error:
        address = error
    except Exception as error:  # (For example UnicodeError: the name cannot be encoded for a query.)
        address = OSError(str(error) or type(error).__name__)
    with contextlib.suppress(RuntimeError):  # The loop may be closed by now; then no caller waits.
        found.get_loop().call_soon_threadsafe(_finish, found, address)


def _finish(found: "asyncio.Future[SocketAddress]", address: SocketAddress | OSError) -> None:
    if found.done():
        return
    if isinstance(address, OSError):
        found.set_exception(address)
    else:
        found.set_result(address)


def _forget(key: tuple[HostPort, int], found: "asyncio.Future[SocketAddress]") -> None:
    if _under_way.get(key) is found:
        del _under_way[key]
    if not found.cancelled():
        found.exception()  # Mark it as retrieved: the caller may be gone.
