"""Accepts stream connections, runs the handshake, and hands the connections to clients or peers."""

import asyncio

from ckpt_protocol.errors import FrameError
from ckpt_protocol.handshake import ROLE_CLIENT, ROLE_OPERATOR, HandshakeRejected, Identity, PeerIdentity
from ckptd.core.hub import Limits
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.clients.clients import ClientLink, Clients
from ckptd.runtime.counters import Counters
from ckptd.runtime.logs import RateLimitedLog
from ckptd.runtime.net.handshake import HANDSHAKE_LIMIT_S, IncomingHandshake
from ckptd.runtime.net.stream_options import prepare_stream
from ckptd.runtime.peers.peers import Peers


class ConnectionAcceptor:
    """Makes the protocol for each accepted connection."""

    def __init__(
        self,
        identity: Identity,
        clients: Clients,
        peers: Peers,
        counters: Counters,
        limited_log: RateLimitedLog,
        handshakes_max: int,
    ) -> None:
        self._identity = identity
        self._clients = clients
        self._peers = peers
        self._counters = counters
        self._limited_log = limited_log
        self._handshakes_max = handshakes_max
        self._handshakes: dict[IncomingHandshake, asyncio.TimerHandle] = {}
        """The connections in the handshake, oldest first, and the timers that end them."""

        self._closed = False

    def accept(self) -> IncomingHandshake:
        """Return a protocol for a new connection: the factory of every listening socket."""
        return IncomingHandshake(
            self._identity, self._on_connection, self._on_closed, self._on_authenticated, self._peers.opened
        )

    def limits(self) -> Limits:
        """Return how many connections are in the handshake, and how many may be."""
        return {"strangers": (len(self._handshakes), self._handshakes_max)}

    def close(self) -> None:
        """Accept no more connections: end those in the handshake, and close new ones at once."""
        self._closed = True
        for handshake in list(self._handshakes):
            handshake.close_gracefully(ConnectionAbortedError("this node is stopping"))

    def _on_connection(self, handshake: IncomingHandshake) -> None:
        if self._closed:
            handshake.close_gracefully(ConnectionAbortedError("this node is stopping"))
            return
        if len(self._handshakes) >= self._handshakes_max:
            next(iter(self._handshakes)).close_gracefully(TimeoutError())
        self._handshakes[handshake] = asyncio.get_running_loop().call_later(
            HANDSHAKE_LIMIT_S, handshake.close_gracefully, TimeoutError()
        )

    def _on_closed(self, handshake: IncomingHandshake, reason: Exception | None) -> None:
        timer = self._handshakes.pop(handshake, None)
        if timer is not None:
            timer.cancel()
        match reason:
            case HandshakeRejected():
                self._counters.refused += 1
                self._limited_log.warn("refused", f"a connection was refused: {reason.text}")
            case FrameError():
                self._counters.garbage_streams += 1
                self._limited_log.warn(
                    "handshake", f"closed a connection that does not speak the protocol of ckptd: {reason}"
                )
            case TimeoutError():
                self._counters.timed_out += 1
            case ConnectionError() | None:
                pass
            case _:
                contained(self._counters, self._limited_log, "a handshake", reason)

    def _on_authenticated(self, transport: asyncio.Transport, identity: PeerIdentity, rest: bytes) -> None:
        try:
            if identity.about:
                transport.close()  # It only asked who is here, and has its answer.
            elif identity.role in (ROLE_CLIENT, ROLE_OPERATOR):
                prepare_stream(transport)
                link = ClientLink(self._clients, transport, is_operator=identity.role == ROLE_OPERATOR)
                transport.set_protocol(link)
                if rest:
                    link.data_received(rest)
            else:
                self._peers.accept(transport, identity, rest)
        except HandshakeRejected as error:
            self._counters.refused += 1
            self._limited_log.warn("refused", f"a connection was refused: {error.text}")
            transport.write(error.frame())
            transport.close()
        except Exception as error:
            contained(self._counters, self._limited_log, "an authenticated connection", error)
            transport.abort()
