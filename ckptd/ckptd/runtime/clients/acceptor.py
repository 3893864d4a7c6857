"""Accepts stream connections, runs the handshake, and hands the connections to clients or peers."""

import asyncio

from ckpt_protocol.framing import FrameError
from ckpt_protocol.greeting import ROLE_CLIENT, ROLE_OPERATOR, Greeted, HandshakeRejected, Identity
from ckptd.core.operations.resource_usage import Limits
from ckptd.runtime.boundary import contained
from ckptd.runtime.clients.clients import ClientLink, Clients
from ckptd.runtime.counters import Counts
from ckptd.runtime.logs import Seldom
from ckptd.runtime.net.handshake import FIRST_EXCHANGE_LIMIT_S, Stranger
from ckptd.runtime.net.stream_options import prepare_stream
from ckptd.runtime.peers.peers import Peers


class Door:
    """Makes the protocol for each accepted connection."""

    def __init__(
        self,
        identity: Identity,
        clients: Clients,
        peers: Peers,
        counts: Counts,
        seldom: Seldom,
        strangers_max: int,
    ) -> None:
        self._identity = identity
        self._clients = clients
        self._peers = peers
        self._counts = counts
        self._seldom = seldom
        self._strangers_max = strangers_max
        self._strangers: dict[Stranger, None] = {}
        self._closed = False

    def accept(self) -> Stranger:
        """Return a protocol for a new connection: the factory of every listening socket."""
        return Stranger(self._identity, self._came, self._gone, self._taken, self._peers.opened)

    def limits(self) -> Limits:
        """Return how many connections are in the handshake, and how many may be."""
        return {"strangers": (len(self._strangers), self._strangers_max)}

    def close(self) -> None:
        """Accept no more connections: end those in the handshake, and close new ones at once."""
        self._closed = True
        for stranger in list(self._strangers):
            stranger.end(ConnectionAbortedError("this node stops"))

    def _came(self, stranger: Stranger) -> None:
        if self._closed:
            stranger.end(ConnectionAbortedError("this node stops"))
            return
        if len(self._strangers) >= self._strangers_max:
            next(iter(self._strangers)).end(TimeoutError())
        self._strangers[stranger] = None
        stranger.timer = asyncio.get_running_loop().call_later(
            FIRST_EXCHANGE_LIMIT_S, stranger.end, TimeoutError()
        )

    def _gone(self, stranger: Stranger, reason: Exception | None) -> None:
        self._strangers.pop(stranger, None)
        if stranger.timer is not None:
            stranger.timer.cancel()
            stranger.timer = None
        match reason:
            case HandshakeRejected():
                self._counts.refused += 1
                self._seldom.warn("refused", f"a connection was refused: {reason.text}")
            case FrameError():
                self._counts.garbage_streams += 1
                self._seldom.warn("stranger", f"a connection that is none of ckptd was closed: {reason}")
            case TimeoutError():
                self._counts.timed_out += 1
            case ConnectionError() | None:
                pass
            case _:
                contained(self._counts, self._seldom, "a first exchange", reason)

    def _taken(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        try:
            if greeted.about:
                transport.close()  # It only asked who is here, and has its answer.
            elif greeted.role in (ROLE_CLIENT, ROLE_OPERATOR):
                prepare_stream(transport)
                link = ClientLink(self._clients, transport, is_operator=greeted.role == ROLE_OPERATOR)
                transport.set_protocol(link)
                if rest:
                    link.data_received(rest)
            else:
                self._peers.accept(transport, greeted, rest)
        except HandshakeRejected as error:
            self._counts.refused += 1
            self._seldom.warn("refused", f"a connection was refused: {error.text}")
            transport.write(error.frame())
            transport.close()
        except Exception as error:
            contained(self._counts, self._seldom, "a connection that changed hands", error)
            transport.abort()
