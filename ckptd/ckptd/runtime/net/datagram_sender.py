"""Sends datagrams from a bound UDP socket.

We send directly on the socket and drop what the kernel has no space for. Asyncio's send queue is not used
because it can stay full for ever: in Python 3.13.0 every datagram that was queued there keeps counting
8 bytes even after it was sent (cpython issue 135444), and after about 8,000 of them nothing is sent any
more.

This module must not know what a datagram contains.
"""

import socket

from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.counters import Counters


class DatagramSender:
    """Sends on `sock`, which it closes. `send` never waits."""

    def __init__(self, sock: socket.socket, counters: Counters) -> None:
        self._socket = sock
        self._counters = counters
        self._closed = False

    def send(self, datagram: bytes, address: SocketAddress) -> None:
        """Hand a datagram to the kernel; drop and count it if the kernel cannot take it."""
        if self._closed:
            self._counters.datagram_errors += 1
            return
        try:
            self._socket.sendto(datagram, address)
        except BlockingIOError:
            self._counters.datagrams_dropped += 1
        except OSError:
            self._counters.datagram_errors += 1

    def close(self) -> None:
        """Close the socket. Datagrams that are sent later are dropped and counted."""
        self._closed = True
        self._socket.close()
