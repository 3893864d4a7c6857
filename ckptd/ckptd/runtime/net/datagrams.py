"""One UDP socket, its receiving side through asyncio-dgram, with that one's traps closed.

asyncio-dgram 3.0 queues what it receives without a bound, and hands the error of one send
to the next send or receive, which is then lost. Here the queues are ours: the one of
datagrams has a lane for each kind of sender (`datagram_lanes`), the one of errors only counts. These
are private parts of that package, which is why its version is pinned.

Datagrams are sent by the socket itself. What the kernel has no room for is dropped, so no queue
is wanted, and that of asyncio can stay full for ever: in Python 3.13.0 each datagram that was
queued there counts for 8 bytes even after it was sent (cpython issue 135444), and after some
8,000 of them nothing was sent any more. This module must not know what a datagram holds.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from asyncio_dgram.aio import DatagramServer, Protocol

from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.counters import Counts
from ckptd.runtime.net.datagram_lanes import Lanes

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""The default holds about 90 datagrams of 1 KiB: a burst of heartbeats after a pause would be lost."""


class _Received:
    """What asyncio-dgram puts: (datagram, address) pairs; (None, None) ends them. One task takes them."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, item: Any) -> None:
        """A datagram came."""
        self.lanes.put(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """The next one, once there is one."""
        while not self.lanes:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.lanes.get()


class _Errors:
    """Nobody waits for an error of a datagram that is lost already."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def put_nowait(self, item: Any) -> None:
        """A datagram is lost."""
        self._counts.datagram_errors += 1


class Datagrams:
    """A bound UDP socket: `send` never waits, `receive_all` runs until `close`."""

    def __init__(self, server: Any, sock: socket.socket, counts: Counts, received: _Received) -> None:
        self.lanes = received.lanes
        self._received = received
        self._server = server
        self._socket = sock
        self._closed = False
        self._counts = counts
        self.address: SocketAddress = server.sockname

    @classmethod
    async def bind(cls, family: int, address: SocketAddress, counts: Counts) -> "Datagrams":
        """Raises: OSError where the address is taken or not ours."""
        # Bound here and not by the loop: uvloop's error would not say why.
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        received, errors, drained = _Received(Lanes(counts)), _Errors(counts), asyncio.Event()
        make_protocol: Any = Protocol
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: make_protocol(received, errors, drained), sock=sock
        )
        make_server: Any = DatagramServer
        return cls(make_server(transport, received, errors, drained), sock, counts, received)

    def send(self, datagram: bytes, address: SocketAddress) -> None:
        """Hand a datagram to the kernel, or drop it where that cannot take it."""
        if self._closed:
            self._counts.datagram_errors += 1
            return
        try:
            self._socket.sendto(datagram, address)
        except BlockingIOError:
            self._counts.datagrams_dropped += 1
        except OSError:
            self._counts.datagram_errors += 1

    async def receive_all(self, receive: Callable[[bytes, SocketAddress], None]) -> None:
        """Give each datagram to `receive`, until the socket is closed."""
        while True:
            datagram, address = await self._received.get()
            if datagram is None:
                return
            receive(datagram, address)

    def close(self) -> None:
        """End `receive_all`."""
        self._closed = True
        self._server.close()
