"""Links to clients over streams (unix socket, TCP), and the limit on the number of clients."""

import asyncio
import itertools
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.bounds_by_kind import FROM_CLIENT, FROM_NEW_CLIENT, FROM_OPERATOR
from ckpt_protocol.errors import BodyTooLong, FrameError
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.handshake import HandshakeRejected
from ckptd.core.events import ClientCongested, ClientConnected, ClientDrained, ClientLost, ClientReceived
from ckptd.core.hub import Limits
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.clients.unfinished_frames import UnfinishedFrames
from ckptd.runtime.clients.unread_answers import MEASURE_BYTES, UnreadAnswers
from ckptd.runtime.counters import Counters
from ckptd.runtime.driver import ClientSink, Driver
from ckptd.runtime.host.client_process import ClientProcess, process_at
from ckptd.runtime.host.descriptors import OPERATORS_MAX
from ckptd.runtime.logs import RateLimitedLog

CLIENT_BUFFER_BYTES: Final = 1024 * 1024
"""Unread answers above which we stop reading a client's requests."""

CLOSE_LIMIT_S: Final = 10.0
"""How long the client may take to read the rest after we have closed its link."""


class Clients:
    """All clients of this node. Each link has a number, which is never used again."""

    def __init__(
        self,
        driver: Driver,
        counters: Counters,
        limited_log: RateLimitedLog,
        clients_max: int,
        unread: UnreadAnswers,
        unfinished: UnfinishedFrames,
    ) -> None:
        self.driver = driver
        self.counters = counters
        self.limited_log = limited_log
        self.unread = unread
        self.unfinished = unfinished
        self._clients_max = clients_max
        self._numbers = itertools.count(1)
        self._operators: dict[int, ClientLink] = {}
        """The operators' tools among the clients."""
        self._process_descriptors = 0
        """File descriptors of clients' processes: each takes the place of a client."""

    @property
    def _used(self) -> int:
        return len(self.driver.clients) - len(self._operators) + self._process_descriptors

    def connect(self, sink: ClientSink, process: ClientProcess | None = None) -> int:
        """Number a client's link and report it to the core. `process`: its death will be known.

        Raises: HandshakeRejected if there are too many clients.
        """
        if self._used + _descriptors(process) >= self._clients_max:
            text = (
                f"this node has {self._clients_max} clients, which is all that it may have (clients_max, "
                "ulimit -n)"
            )
            raise HandshakeRejected(codes.NO_RESOURCES, text)
        return self._add(sink, process)

    def connect_operator(self, link: "ClientLink", process: ClientProcess | None) -> int:
        """Number an operator's tool and report it to the core. If there are too many, cut off the oldest."""
        if len(self._operators) >= OPERATORS_MAX:
            oldest, tool = next(iter(self._operators.items()))
            tool.cut_off(
                "operators",
                f"{OPERATORS_MAX} operators' tools are connected, and another one connects: the oldest "
                "has to go",
            )
            self.on_lost(oldest)
        number = self._add(link, process)
        self._operators[number] = link
        return number

    def _add(self, sink: ClientSink, process: ClientProcess | None) -> int:
        number = next(self._numbers)
        self._process_descriptors += _descriptors(process)
        self.driver.clients[number] = sink
        self.driver.handle(ClientConnected(number, process is not None))
        return number

    def limits(self) -> Limits:
        """Return how much clients use, and how much they may."""
        return {
            "clients": (self._used, self._clients_max),
            "client_buffer_bytes": (self.unread.measure(), self.unread.bytes_max),
            "client_frames_bytes": (self.unfinished.buffered_bytes, self.unfinished.bytes_max),
        }

    def close(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when the bytes already written are sent."""
        return [
            sink.close_gracefully()
            for sink in list(self.driver.clients.values())
            if isinstance(sink, ClientLink)
        ]

    def on_lost(self, number: int, process: ClientProcess | None = None) -> None:
        """Forget a link and report its loss to the core, once it is known if the client's process is dead."""
        self._operators.pop(number, None)
        forgotten = self.driver.clients.pop(number, None) is not None
        if process is None:
            if forgotten:
                self.driver.handle(ClientLost(number, False))
            return

        def report(dead: bool) -> None:
            self._process_descriptors -= _descriptors(process)
            if forgotten:
                self.driver.handle(ClientLost(number, dead))

        process.report_death(report)


class ClientLink(asyncio.Protocol):
    """The link to a client over a stream, after the handshake."""

    def __init__(self, clients: Clients, transport: asyncio.Transport, is_operator: bool = False) -> None:
        """Raises: HandshakeRejected if there are too many clients; never for an operator's tool."""
        self._clients = clients
        self._transport = transport
        self._write = transport.write
        self._decoder = FrameDecoder(FROM_OPERATOR if is_operator else FROM_NEW_CLIENT)
        self._feed = self._decoder.feed
        self._unfinished = False
        self._unmeasured_bytes = 0
        self._handle = clients.driver.handle
        self._congested = False
        self._reading_stopped = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._process = process = process_at(transport.get_extra_info("socket"))
        try:
            connect = clients.connect_operator if is_operator else clients.connect
            self._number = connect(self, process)
        except HandshakeRejected:
            if process is not None:
                process.close()
            raise
        transport.set_write_buffer_limits(high=CLIENT_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._feed(data)
        except FrameError as error:
            self._clients.counters.garbage_streams += 1
            self._clients.limited_log.warn(
                "client garbage", f"{self._description()} was cut off: {self._why(error)}"
            )
            self._transport.abort()
            return
        except Exception as error:
            contained(self._clients.counters, self._clients.limited_log, "the data of a client", error)
            self._transport.abort()
            return
        buffered_bytes = self._decoder.held_bytes
        if buffered_bytes or self._unfinished:
            self._unfinished = buffered_bytes > 0
            self._clients.unfinished.note(self, buffered_bytes, begins=bool(frames))
        if frames:
            self._handle(ClientReceived(self._number, frames))

    def _why(self, error: FrameError) -> str:
        if isinstance(error, BodyTooLong) and self._decoder.body_limits is FROM_NEW_CLIENT:
            return f"{error}, which is the limit before its session is attached"
        return f"it sent an invalid frame: {error}"

    def _description(self) -> str:
        """Return a description by which an operator can find the client."""
        if self._process is not None:
            return f"client {self._number} ({self._process.shown})"
        at = self._transport.get_extra_info("peername")
        return f"client {self._number}" + (f" ({at[0]}:{at[1]})" if isinstance(at, tuple) else "")

    def accept_large_frames(self) -> None:
        self._decoder.body_limits = FROM_CLIENT

    def send(self, data: bytes) -> None:
        self._write(data)
        self._unmeasured_bytes += len(data)
        if self._unmeasured_bytes > MEASURE_BYTES or self._congested:
            self._measure()

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that wait to be sent, without those in the kernel's buffer."""
        return self._transport.get_write_buffer_size()

    def _measure(self) -> None:
        self._unmeasured_bytes = 0
        self._clients.unread.note(self, self.unread_bytes)

    def close(self, reason: str) -> None:
        self._clients.counters.garbage_streams += 1
        self._clients.limited_log.warn("client closed", f"{self._description()} was cut off: {reason}")
        self._write = _drop  # uvloop before 0.23 sends bytes written after `close`.
        self._transport.close()
        asyncio.get_running_loop().call_later(CLOSE_LIMIT_S, self._transport.abort)

    def close_gracefully(self) -> asyncio.Future[None]:
        """End the link because this node stops; bytes already written are still sent."""
        self._transport.close()
        return self._closed

    def stop_reading(self) -> None:
        """Stop reading: the client's requests still wait for their turn here, so more have to wait there."""
        self._reading_stopped = True
        self._apply_reading()

    def resume_reading(self) -> None:
        self._reading_stopped = False
        self._apply_reading()

    def pause_writing(self) -> None:
        # Neither read more requests of a client that does not read its answers, nor serve those we have.
        self._congested = True
        self._apply_reading()
        self._handle(ClientCongested(self._number))
        self._measure()

    def resume_writing(self) -> None:
        self._congested = False
        self._apply_reading()
        self._measure()
        self._handle(ClientDrained(self._number))

    @property
    def is_reading(self) -> bool:
        """True if we read what the client sends."""
        return not (self._congested or self._reading_stopped)

    def _apply_reading(self) -> None:
        if self._transport.is_closing():
            return
        if self.is_reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.unread.note(self, 0)
        self._clients.unfinished.note(self, 0)
        self._clients.on_lost(self._number, self._process)
        self._closed.set_result(None)

    def cut_off(self, limit: str, why: str) -> None:
        self._clients.counters.clients_cut_off += 1
        self._clients.limited_log.warn(limit, f"{self._description()} was cut off: {why}")
        self._transport.abort()


def _descriptors(process: ClientProcess | None) -> int:
    return 0 if process is None else process.descriptors


def _drop(data: bytes | bytearray | memoryview) -> None:
    """Discard the data."""
