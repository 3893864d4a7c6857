"""One UDP socket. It receives through asyncio-dgram, with two defects of that package worked around.

asyncio-dgram 3.0 queues received datagrams without a bound, and it reports the error of one send to the
next send or receive, whose datagram is then lost. So we pass in queues of our own. The queue of datagrams
has a lane for each kind of sender (`datagram_lanes`); the queue of errors only counts them. Both are
private parts of asyncio-dgram, which is why its version is pinned.

We send directly on the socket and drop what the kernel has no space for. Asyncio's send queue is not used
because it can stay full for ever: in Python 3.13.0 every datagram that was queued there keeps counting
8 bytes even after it was sent (cpython issue 135444), and after about 8,000 of them nothing is sent any
more.

This module must not know what a datagram contains.
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
"""The system's default holds about 90 datagrams of 1 KiB, so a burst of heartbeats after a pause would be
lost."""


class _Received:
    """The queue that asyncio-dgram fills with (datagram, address) pairs; (None, None) marks the end.

    Only one task may read from it.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, item: Any) -> None:
        """Queue a received datagram and wake the reader."""
        self.lanes.put(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """Wait for the next datagram and return it."""
        while not self.lanes:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.lanes.get()


class _Errors:
    """Counts the errors that asyncio-dgram reports. The datagram is lost already, so nothing else is done."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def put_nowait(self, item: Any) -> None:
        """Count one error."""
        self._counts.datagram_errors += 1


class Datagrams:
    """A bound UDP socket. `send` never waits; `receive_all` runs until `close`."""

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
        """Open a socket on `address`. Raises: OSError if the address is taken or is none of this host's."""
        # We bind the socket ourselves: if uvloop did it, its error would not say why it failed.
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
        """Hand a datagram to the kernel; drop and count it if the kernel cannot take it."""
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
        """Pass each datagram to `receive` until the socket is closed."""
        while True:
            datagram, address = await self._received.get()
            if datagram is None:
                return
            receive(datagram, address)

    def close(self) -> None:
        """Close the socket, which ends `receive_all`."""
        self._closed = True
        self._server.close()
