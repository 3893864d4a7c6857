"""Clients over UDP. An address that has finished the handshake is a link, until it sends nothing for a while.

Datagrams may come twice, late or from a forged address. The handshake is therefore idempotent, and garbage is
dropped; it never ends a link.
"""

from dataclasses import dataclass
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.bounds_by_kind import REQUEST_KINDS
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER, LENGTH_BYTES, Frame, decode_datagram
from ckpt_protocol.handshake import ROLE_CLIENT, Acceptor, HandshakeRejected, Identity
from ckpt_protocol.limits import DATAGRAM_BYTES_MAX
from ckpt_protocol.messages import Kind, answer_error, encode_answer
from ckptd.core.events import ClientReceived
from ckptd.core.hub import Limits
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.clients.clients import Clients
from ckptd.runtime.clock import now_ns
from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.net.datagram_sender import DatagramSender
from ckptd.runtime.net.handshake import HANDSHAKE_LIMIT_S, new_nonce

IDLE_NS: Final = 60 * 1_000_000_000
"""A UDP client that sends nothing for this long counts as lost."""

UDP_HANDSHAKES_MAX: Final = 1024
"""Handshakes under way. With one more the oldest is dropped."""

_HANDSHAKE_LIMIT_NS: Final = int(HANDSHAKE_LIMIT_S * 1e9)


@dataclass(slots=True)
class _Handshake:
    """A handshake with an address. We keep it so that a repeated HELLO gets the same answer."""

    acceptor: Acceptor
    hello: bytes
    welcome: bytes
    since_ns: int


class UdpLink:
    """The link to one client, that is one address."""

    def __init__(
        self, udp_clients: "UdpClients", clients: Clients, address: SocketAddress, handshake: _Handshake
    ) -> None:
        """Raises: HandshakeRejected if there are too many clients."""
        self.address = address
        self.handshake = handshake
        self.last_received_ns = now_ns()
        self.reading_stopped = False
        self._udp_clients = udp_clients
        self.number = clients.connect(self)

    def send(self, data: bytes) -> None:
        """Send whole frames, one per datagram."""
        start = 0
        while start < len(data):
            length, _, request, epoch, active = HEADER.unpack_from(data, start)
            end = start + LENGTH_BYTES + length
            frame = data[start:end]
            if len(frame) > DATAGRAM_BYTES_MAX:
                text = (
                    f"the answer has {len(frame)} bytes and does not fit into a datagram "
                    f"({DATAGRAM_BYTES_MAX} bytes): use TCP"
                )
                frame = encode_answer(request, epoch, active, answer_error(codes.TOO_BIG, text))
            self._udp_clients.datagrams.send(frame, self.address)
            start = end

    def stop_reading(self) -> None:
        """Drop what the client sends, because its requests wait for their turn here. It will ask again."""
        self.reading_stopped = True

    def resume_reading(self) -> None:
        self.reading_stopped = False

    def accept_large_frames(self) -> None:
        """Do nothing: a datagram is never large."""

    def close(self, reason: str) -> None:
        """Forget the address. The answer to its next request asks the client to repeat the handshake."""
        self._udp_clients.on_lost(self)


class UdpClients:
    """All UDP clients, by address."""

    def __init__(self, identity: Identity, datagrams: DatagramSender, clients: Clients) -> None:
        self.datagrams = datagrams
        self._identity = identity
        self._clients = clients
        self._links: dict[SocketAddress, UdpLink] = {}
        self._handshakes: dict[SocketAddress, _Handshake] = {}

    def receive(self, datagram: bytes, address: SocketAddress) -> None:
        """Handle a datagram that is no heartbeat."""
        try:
            frame = decode_datagram(datagram)
            if frame.kind == Kind.HELLO:
                self._on_hello(frame, datagram, address)
            elif frame.kind == Kind.PROOF:
                self._on_proof(frame, address)
            elif frame.kind in REQUEST_KINDS:
                self._on_request(frame, address)
            else:
                # Do not answer: two daemons could then answer each other for ever.
                raise FrameError(f"a datagram may not carry a frame of kind {frame.kind}")
        except HandshakeRejected as error:
            self._clients.counters.refused += 1
            self._handshakes.pop(address, None)
            self.datagrams.send(error.frame(len(datagram)), address)
        except FrameError as error:
            self._clients.counters.garbage_datagrams += 1
            self._clients.limited_log.warn("udp garbage", f"invalid datagram from {address[0]}: {error}")
        except Exception as error:
            contained(self._clients.counters, self._clients.limited_log, "a datagram", error)

    def drop_idle(self) -> None:
        """Forget links that have been idle for `IDLE_NS`, and handshakes that take too long."""
        at_ns = now_ns()
        for link in [link for link in self._links.values() if at_ns - link.last_received_ns > IDLE_NS]:
            self.on_lost(link)
        for address in [
            address
            for address, handshake in self._handshakes.items()
            if at_ns - handshake.since_ns > _HANDSHAKE_LIMIT_NS
        ]:
            del self._handshakes[address]

    def on_lost(self, link: UdpLink) -> None:
        """Forget a link and report its loss to the core."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
            self._clients.on_lost(link.number)

    def limits(self) -> Limits:
        """Return how many addresses are in the handshake, and how many may be."""
        return {"udp_strangers": (len(self._handshakes), UDP_HANDSHAKES_MAX)}

    def knows(self, address: SocketAddress) -> bool:
        """Return True if a client's link has this address."""
        return address in self._links

    # -- internals

    def _on_hello(self, frame: Frame, datagram: bytes, address: SocketAddress) -> None:
        link = self._links.get(address)
        known = link.handshake if link is not None else None
        for handshake in (known, self._handshakes.get(address)):
            if handshake is not None and handshake.hello == datagram:
                self.datagrams.send(handshake.welcome, address)
                return
        if frame.c != ROLE_CLIENT:
            raise HandshakeRejected(codes.NOT_SUPPORTED, "only clients may use UDP: use TCP")
        acceptor = Acceptor(self._identity, new_nonce())
        welcome = acceptor.receive(frame)
        if len(welcome) > len(datagram):
            # The sender's address may be forged, so never send it more bytes than we received.
            raise HandshakeRejected(codes.INVALID_PARAM, f"pad a HELLO over UDP to {len(welcome)} bytes")
        handshake = _Handshake(acceptor, datagram, welcome, now_ns())
        if acceptor.peer is not None:
            self._connect(address, handshake)
        else:
            # Keep the old link until the new client at this address has proved itself.
            while len(self._handshakes) >= UDP_HANDSHAKES_MAX:
                del self._handshakes[next(iter(self._handshakes))]
            self._handshakes[address] = handshake
        self.datagrams.send(handshake.welcome, address)

    def _on_proof(self, frame: Frame, address: SocketAddress) -> None:
        handshake = self._handshakes.get(address)
        if handshake is None:
            return
        handshake.acceptor.receive(frame)
        self._connect(address, handshake)

    def _connect(self, address: SocketAddress, handshake: _Handshake) -> None:
        self._handshakes.pop(address, None)
        old = self._links.get(address)
        if old is not None:
            self.on_lost(old)
        self._links[address] = UdpLink(self, self._clients, address, handshake)

    def _on_request(self, frame: Frame, address: SocketAddress) -> None:
        link = self._links.get(address)
        if link is None:
            raise HandshakeRejected(codes.TRY_AGAIN, "send HELLO first: this node does not know this address")
        link.last_received_ns = now_ns()
        if link.reading_stopped:
            self._clients.counters.datagrams_dropped += 1
            return
        self._clients.driver.handle(ClientReceived(link.number, [frame]))
