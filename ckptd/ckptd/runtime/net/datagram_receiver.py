"""Receives datagrams through asyncio-dgram, with two defects of that package worked around.

asyncio-dgram 3.0 queues received datagrams without a bound, and it reports the error of one send to the
next send or receive, whose datagram is then lost. So we pass in queues of our own. The queue of datagrams
has a lane for each kind of sender (`datagram_lanes`); the queue of errors only counts them. Both are
private parts of asyncio-dgram, which is why its version is pinned.

This module must not know what a datagram contains.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from asyncio_dgram.aio import DatagramServer, Protocol

from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.counters import Counters
from ckptd.runtime.net.datagram_lanes import DatagramLanes


class _Received:
    """The queue that asyncio-dgram fills with (datagram, address) pairs; (None, None) marks the end.

    Only one task may read from it.
    """

    def __init__(self, lanes: DatagramLanes) -> None:
        self._lanes = lanes
        self._waiter: asyncio.Future[None] | None = None

    def put_nowait(self, item: Any) -> None:
        """Queue a received datagram and wake the reader."""
        self._lanes.put(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Any:
        """Wait for the next datagram and return it."""
        while not self._lanes:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._lanes.get()


class _Errors:
    """Counts the errors that asyncio-dgram reports. The datagram is lost already, so nothing else is done."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def put_nowait(self, item: Any) -> None:
        """Count one error."""
        self._counters.datagram_errors += 1


class DatagramReceiver:
    """Queues what arrives at a UDP socket in lanes. `receive_all` hands it on until `close`."""

    def __init__(self, server: Any, received: _Received) -> None:
        """Use `open`."""
        self._server = server
        self._received = received

    @classmethod
    async def open(cls, sock: socket.socket, lanes: DatagramLanes, counters: Counters) -> "DatagramReceiver":
        """Start to receive at a bound socket."""
        received, errors, drained = _Received(lanes), _Errors(counters), asyncio.Event()
        make_protocol: Any = Protocol
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: make_protocol(received, errors, drained), sock=sock
        )
        make_server: Any = DatagramServer
        return cls(make_server(transport, received, errors, drained), received)

    async def receive_all(self, receive: Callable[[bytes, SocketAddress], None]) -> None:
        """Pass each datagram to `receive` until the receiver is closed."""
        while True:
            datagram, address = await self._received.get()
            if datagram is None:
                return
            receive(datagram, address)

    def close(self) -> None:
        """Stop receiving, which ends `receive_all`."""
        self._server.close()
