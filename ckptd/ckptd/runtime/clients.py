"""Links to clients over streams (unix socket, TCP), and how many clients a node takes."""

import asyncio
import itertools
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.bounds import FROM_CLIENT
from ckpt_protocol.framing import FrameDecoder, FrameError
from ckpt_protocol.greeting import Refused
from ckptd.core.events import ClientCongested, ClientConnected, ClientDrained, ClientLost, ClientReceived
from ckptd.runtime.boundary import contained
from ckptd.runtime.counts import Counts
from ckptd.runtime.driver import Driver, Outlet
from ckptd.runtime.logs import Seldom
from ckptd.runtime.process import Process, process_at

CLIENT_BUFFER_BYTES: Final = 1024 * 1024
"""Unread answers above which we read no more requests of a client."""


class Clients:
    """Every client of this node, by link: a number that is never used again."""

    def __init__(
        self, driver: Driver, counts: Counts, seldom: Seldom, clients_max: int, buffer_bytes_max: int
    ) -> None:
        self.driver = driver
        self.counts = counts
        self.seldom = seldom
        self.buffer_bytes_max = buffer_bytes_max
        self.unread: dict[ClientLink, int] = {}
        """Bytes of answers that wait to be read, of each link that has more than it should."""
        self.unread_bytes = 0
        self._clients_max = clients_max
        self._numbers = itertools.count(1)

    def connect(self, outlet: Outlet) -> int:
        """Give a link its number and tell the core. Raises: Refused when there are too many."""
        clients = self.driver.clients
        if len(clients) >= self._clients_max:
            raise Refused(codes.NO_RESOURCES, f"this node takes {self._clients_max} clients and has them")
        number = next(self._numbers)
        clients[number] = outlet
        self.driver.handle(ClientConnected(number))
        return number

    def close(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when what was written has gone out."""
        return [
            outlet.end() for outlet in list(self.driver.clients.values()) if isinstance(outlet, ClientLink)
        ]

    def note_unread(self, link: "ClientLink", unread_bytes: int) -> None:
        """Keep account of answers that nobody reads; where they are too many, the worst client is cut off."""
        self.unread_bytes += unread_bytes - self.unread.pop(link, 0)
        if unread_bytes:
            self.unread[link] = unread_bytes
        while self.unread_bytes > self.buffer_bytes_max:
            worst = max(self.unread, key=lambda found: self.unread[found])
            self.unread_bytes -= self.unread.pop(worst)
            worst.cut_off()

    def lose(self, number: int, process_dead: bool = False) -> None:
        """Forget a link and tell the core."""
        if self.driver.clients.pop(number, None) is not None:
            self.driver.handle(ClientLost(number, process_dead))


class ClientLink(asyncio.Protocol):
    """A client on a stream, after the first exchange."""

    def __init__(self, clients: Clients, transport: asyncio.Transport) -> None:
        """Raises: Refused when there are too many clients."""
        self._clients = clients
        self._transport = transport
        self._write = transport.write
        self._feed = FrameDecoder(FROM_CLIENT).feed
        self._handle = clients.driver.handle
        self._congested = False
        self._held_back = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process: Process | None = process_at(transport.get_extra_info("socket"))
        self._number = clients.connect(self)
        transport.set_write_buffer_limits(high=CLIENT_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._feed(data)
        except FrameError as error:
            self._clients.counts.garbage_streams += 1
            self._clients.seldom.warn(
                "client garbage", f"client {self._number} sent garbage and was cut off: {error}"
            )
            self._transport.abort()
            return
        except Exception as error:
            contained(self._clients.counts, self._clients.seldom, "a client's stream", error)
            self._transport.abort()
            return
        if frames:
            self._handle(ClientReceived(self._number, frames))

    def send(self, data: bytes) -> None:
        self._write(data)
        if self._congested:
            self._clients.note_unread(self, self._transport.get_write_buffer_size())

    def close(self, reason: str) -> None:
        self._clients.counts.garbage_streams += 1
        self._clients.seldom.warn("client closed", f"client {self._number} was cut off: {reason}")
        self._transport.close()

    def end(self) -> asyncio.Future[None]:
        """End the link because this node stops."""
        self._transport.close()
        return self._closed

    def stop_reading(self) -> None:
        """What it asked waits for its turn here: let it wait at the other end."""
        self._held_back = True
        self._look_at_reading()

    def read_on(self) -> None:
        self._held_back = False
        self._look_at_reading()

    def pause_writing(self) -> None:
        # A client that does not read its answers is not asked for more, nor served what it asked already.
        self._congested = True
        self._look_at_reading()
        self._handle(ClientCongested(self._number))
        self._clients.note_unread(self, self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._congested = False
        self._look_at_reading()
        self._clients.note_unread(self, 0)
        self._handle(ClientDrained(self._number))

    def _look_at_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self._congested or self._held_back:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.note_unread(self, 0)
        process_dead = self._process is not None and self._process.is_dead()
        self._clients.lose(self._number, process_dead)
        self._closed.set_result(None)

    def cut_off(self) -> None:
        """End the link at once: its answers take what all clients' may take together."""
        self._clients.seldom.warn("client buffer", f"client {self._number} reads no answers and was cut off")
        self._transport.abort()
