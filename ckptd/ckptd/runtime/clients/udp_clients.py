"""Clients over UDP. An address that has finished the handshake is a link, until it sends nothing for a while.

Datagrams may come twice, late or from a forged address. The handshake is therefore idempotent, and garbage is
dropped; it never ends a link.
"""

from dataclasses import dataclass
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import HEADER, LENGTH_BYTES, Frame, FrameError, decode_datagram
from ckpt_protocol.greeting import ROLE_CLIENT, Acceptor, HandshakeRejected, Identity
from ckpt_protocol.limits import DATAGRAM_BYTES_MAX
from ckpt_protocol.messages import Kind, answer_error, encode_answer
from ckptd.core.events import ClientReceived
from ckptd.core.operations.resource_usage import Limits
from ckptd.runtime.boundary import contained
from ckptd.runtime.clients.clients import Clients
from ckptd.runtime.clock import now_ns
from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.net.datagrams import Datagrams
from ckptd.runtime.net.handshake import FIRST_EXCHANGE_LIMIT_S, new_nonce

IDLE_NS: Final = 60 * 1_000_000_000
"""A UDP client that sends nothing for this long counts as lost."""

GREETING_MAX: Final = 1024
"""Handshakes under way. With one more the oldest is dropped."""

_FIRST_EXCHANGE_NS: Final = int(FIRST_EXCHANGE_LIMIT_S * 1e9)
_REQUESTS: Final = range(Kind.ATTACH, Kind.ANSWER)


@dataclass(slots=True)
class _Exchange:
    """A handshake with an address. We keep it so that a repeated HELLO gets the same answer."""

    acceptor: Acceptor
    hello: bytes
    welcome: bytes
    since_ns: int


class UdpLink:
    """The link to one client, that is one address."""

    def __init__(self, clients: "UdpClients", address: SocketAddress, exchange: _Exchange) -> None:
        self.address = address
        self.exchange = exchange
        self.heard_ns = now_ns()
        self.number = 0
        self.held_back = False
        self._clients = clients

    def send(self, data: bytes) -> None:
        """Send whole frames, one per datagram."""
        start = 0
        while start < len(data):
            length, _, request, epoch, active = HEADER.unpack_from(data, start)
            end = start + LENGTH_BYTES + length
            frame = data[start:end]
            if len(frame) > DATAGRAM_BYTES_MAX:
                text = f"the answer has {len(frame)} bytes, a datagram {DATAGRAM_BYTES_MAX}: use tcp"
                frame = encode_answer(request, epoch, active, answer_error(codes.TOO_BIG, text))
            self._clients.datagrams.send(frame, self.address)
            start = end

    def stop_reading(self) -> None:
        """Drop what the client sends, because its requests wait for their turn here. It will ask again."""
        self.held_back = True

    def read_on(self) -> None:
        self.held_back = False

    def take_large(self) -> None:
        """Do nothing: a datagram is never large."""

    def close(self, reason: str) -> None:
        """Forget the address. The answer to its next request asks the client to repeat the handshake."""
        self._clients.lose(self)


class UdpClients:
    """All UDP clients, by address."""

    def __init__(self, identity: Identity, datagrams: Datagrams, clients: Clients) -> None:
        self.datagrams = datagrams
        self._identity = identity
        self._clients = clients
        self._links: dict[SocketAddress, UdpLink] = {}
        self._exchanges: dict[SocketAddress, _Exchange] = {}

    def receive(self, datagram: bytes, address: SocketAddress) -> None:
        """Handle a datagram that is no heartbeat."""
        try:
            frame = decode_datagram(datagram)
            if frame.kind == Kind.HELLO:
                self._hello(frame, datagram, address)
            elif frame.kind == Kind.PROOF:
                self._proof(frame, address)
            elif frame.kind in _REQUESTS:
                self._request(frame, address)
            else:
                # Do not answer: two daemons could then answer each other for ever.
                raise FrameError(f"a datagram of kind {frame.kind}")
        except HandshakeRejected as error:
            self._clients.counts.refused += 1
            self._exchanges.pop(address, None)
            self.datagrams.send(error.frame(len(datagram)), address)
        except FrameError as error:
            self._clients.counts.garbage_datagrams += 1
            self._clients.seldom.warn("udp garbage", f"garbage in a datagram from {address[0]}: {error}")
        except Exception as error:
            contained(self._clients.counts, self._clients.seldom, "a datagram", error)

    def forget_silent(self) -> None:
        """Forget links that have been idle for `IDLE_NS`, and handshakes that take too long."""
        at_ns = now_ns()
        for link in [link for link in self._links.values() if at_ns - link.heard_ns > IDLE_NS]:
            self.lose(link)
        for address in [
            address
            for address, exchange in self._exchanges.items()
            if at_ns - exchange.since_ns > _FIRST_EXCHANGE_NS
        ]:
            del self._exchanges[address]

    def lose(self, link: UdpLink) -> None:
        """Forget a link and report its loss to the core."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
            self._clients.lose(link.number)

    def limits(self) -> Limits:
        """Return how many addresses are in the handshake, and how many may be."""
        return {"udp_strangers": (len(self._exchanges), GREETING_MAX)}

    def knows(self, address: SocketAddress) -> bool:
        """Return True if a client's link has this address."""
        return address in self._links

    # -- internals

    def _hello(self, frame: Frame, datagram: bytes, address: SocketAddress) -> None:
        link = self._links.get(address)
        known = link.exchange if link is not None else None
        for exchange in (known, self._exchanges.get(address)):
            if exchange is not None and exchange.hello == datagram:
                self.datagrams.send(exchange.welcome, address)
                return
        if frame.c != ROLE_CLIENT:
            raise HandshakeRejected(codes.NOT_SUPPORTED, "over udp come clients alone: use tcp")
        acceptor = Acceptor(self._identity, new_nonce())
        welcome = acceptor.receive(frame)
        if len(welcome) > len(datagram):
            # The sender's address may be forged, so never send it more bytes than we received.
            raise HandshakeRejected(codes.INVALID_PARAM, f"pad HELLO over UDP to {len(welcome)} bytes")
        exchange = _Exchange(acceptor, datagram, welcome, now_ns())
        if acceptor.greeted is not None:
            self._connect(address, exchange)
        else:
            # Keep the old link until the new client at this address has proved itself.
            while len(self._exchanges) >= GREETING_MAX:
                del self._exchanges[next(iter(self._exchanges))]
            self._exchanges[address] = exchange
        self.datagrams.send(exchange.welcome, address)

    def _proof(self, frame: Frame, address: SocketAddress) -> None:
        exchange = self._exchanges.get(address)
        if exchange is None:
            return
        exchange.acceptor.receive(frame)
        self._connect(address, exchange)

    def _connect(self, address: SocketAddress, exchange: _Exchange) -> None:
        self._exchanges.pop(address, None)
        old = self._links.get(address)
        if old is not None:
            self.lose(old)
        link = UdpLink(self, address, exchange)
        link.number = self._clients.connect(link)
        self._links[address] = link

    def _request(self, frame: Frame, address: SocketAddress) -> None:
        link = self._links.get(address)
        if link is None:
            raise HandshakeRejected(codes.TRY_AGAIN, "greet first: this node does not know this address")
        link.heard_ns = now_ns()
        if link.held_back:
            self._clients.counts.datagrams_dropped += 1
            return
        self._clients.driver.handle(ClientReceived(link.number, [frame]))
