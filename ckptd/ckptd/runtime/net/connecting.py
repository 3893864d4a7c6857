"""TCP connections to peers, as this node opens them."""

import asyncio
import socket
from typing import Final

from ckptd.runtime.config.addresses import SocketAddress

CONNECT_LIMIT_S: Final = 1.0
"""A SYN that is lost is sent again after a second anyway; a cut that heals is noticed within this."""


async def connect_stream(address: SocketAddress, family: int) -> socket.socket:
    """A connected TCP socket. Raises: ConnectionRefusedError; OSError; TimeoutError."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(CONNECT_LIMIT_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
        # A port of the ephemeral range can connect to itself when nobody listens there.
        if sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError(f"only we ourselves are at {address}")
    except BaseException:
        sock.close()
        raise
    return sock
