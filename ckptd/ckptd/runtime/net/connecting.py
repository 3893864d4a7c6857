"""Opens TCP connections to peers."""

import asyncio
import socket
from typing import Final

from ckptd.runtime.config.addresses import SocketAddress

CONNECT_LIMIT_S: Final = 1.0
"""The kernel repeats a lost SYN only after a second, so waiting longer gains little. It also bounds how long
we take to notice that a network cut has healed."""


async def connect_stream(address: SocketAddress, family: int) -> socket.socket:
    """Return a connected TCP socket. Raises: ConnectionRefusedError; OSError; TimeoutError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
        # A socket can connect to itself if the port is in the ephemeral range and nothing listens there.
        if sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError(f"the connection to {address} reached this process itself")
    except BaseException:
        sock.close()
        raise
    return sock
