"""One UDP socket, through asyncio-dgram, with its traps closed.

asyncio-dgram 3.0 queues what it receives without a bound, and hands the error of one
send to the next send or receive, which is then lost. Here the queues are ours: the one
of datagrams has a lane for each kind of sender (`lanes`), the one of errors only counts.
It must not know what a datagram holds.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from asyncio_dgram.aio import DatagramServer, Protocol, TransportClosed

from ckptd.runtime.addresses import SocketAddress
from ckptd.runtime.counts import Counts
from ckptd.runtime.lanes import Lanes

RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""The default holds about 90 datagrams of 1 KiB: a burst of heartbeats after a pause would be lost."""


class _Received(asyncio.Queue[Any]):
    """Of (datagram, address) pairs; (None, None) ends them."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        super().__init__()

    def _init(self, maxsize: int) -> None:
        self._queue = self.lanes

    def _put(self, item: Any) -> None:
        self.lanes.put(item)

    def _get(self) -> Any:
        return self.lanes.get()


class _Errors(asyncio.Queue[Any]):
    """Always empty: nobody waits for an error of a datagram that is lost already."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self._counts = counts

    def put_nowait(self, item: Any) -> None:
        self._counts.datagram_errors += 1


class Datagrams:
    """A bound UDP socket: `send` never waits, `receive_all` runs until `close`."""

    def __init__(self, server: Any, drained: asyncio.Event, counts: Counts, lanes: Lanes) -> None:
        self.lanes = lanes
        self._server = server
        self._drained = drained
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
        lanes = Lanes(counts)
        received, errors, drained = _Received(lanes), _Errors(counts), asyncio.Event()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Protocol(received, errors, drained), sock=sock
        )
        make_server: Any = DatagramServer
        return cls(make_server(transport, received, errors, drained), drained, counts, lanes)

    def send(self, datagram: bytes, address: SocketAddress) -> None:
        """Hand a datagram to the kernel, or drop it where that cannot take it."""
        if not self._drained.is_set():
            self._counts.datagrams_dropped += 1
            return
        sending = self._server.send(datagram, address)
        try:
            # Its first step hands the datagram over; the rest only waits for the buffer, which we do not.
            sending.send(None)
        except StopIteration:
            return
        except (TransportClosed, OSError):
            self._counts.datagram_errors += 1
        finally:
            sending.close()

    async def receive_all(self, receive: Callable[[bytes, SocketAddress], None]) -> None:
        """Give each datagram to `receive`, until the socket is closed."""
        while True:
            try:
                datagram, address = await self._server.recv()
            except TransportClosed:
                return
            receive(datagram, address)

    def close(self) -> None:
        """End `receive_all`."""
        self._server.close()
