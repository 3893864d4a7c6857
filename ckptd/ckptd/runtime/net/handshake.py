"""The handshake (first exchange) over a stream, for both ends; then the connection is handed over.

An unauthenticated connection can make us hold one small frame at most, and only for a short time. This
module must not know what a client or a peer sends after the handshake.
"""

import asyncio
import secrets
from collections.abc import Callable, Container
from typing import Final, cast

from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER_BYTES, LENGTH_BYTES, Frame, decode_datagram
from ckpt_protocol.handshake import NONCE_BYTES, Acceptor, HandshakeRejected, Identity, Opener, PeerIdentity
from ckpt_protocol.limits import FIRST_FRAME_BYTES_MAX

HANDSHAKE_LIMIT_S: Final = 5.0
"""How long a connection may take for the handshake before it is closed."""

OnAuthenticated = Callable[[asyncio.Transport, PeerIdentity, bytes], None]
"""Takes over a connection: its transport, who is at the other end, and the bytes received after the
handshake."""


def cut_first_frame(received: bytes) -> tuple[Frame | None, bytes]:
    """Return the first frame in `received` and the bytes after it; the frame is None while it is incomplete.

    Frames are cut one at a time because a request after a PROOF, in the same segment, may be as large as
    any request, while a frame of the handshake must be small. Raises: FrameError.
    """
    if len(received) < LENGTH_BYTES:
        return None, received
    end = LENGTH_BYTES + int.from_bytes(received[:LENGTH_BYTES], "big")
    if not HEADER_BYTES <= end <= FIRST_FRAME_BYTES_MAX:
        raise FrameError(f"the first frame claims to have {end} bytes")
    if len(received) < end:
        return None, received
    return decode_datagram(received[:end]), received[end:]


def new_nonce() -> bytes:
    """Return a random nonce for one handshake."""
    return secrets.token_bytes(NONCE_BYTES)


class IncomingHandshake(asyncio.Protocol):
    """An accepted connection whose other end has not yet proved who it is."""

    def __init__(
        self,
        identity: Identity,
        on_connection: Callable[["IncomingHandshake"], None],
        on_closed: Callable[["IncomingHandshake", Exception | None], None],
        on_authenticated: OnAuthenticated,
        opened: Container[bytes] = (),
    ) -> None:
        """`on_connection` is called when the connection is made, and `on_closed` once when it has left the
        handshake: with None if it is authenticated or was lost, otherwise with the reason for closing it.

        `opened`: the nonces of the handshakes that this node opened, for a peer that asks back (ADR 17).
        """
        self._acceptor = Acceptor(identity, new_nonce(), opened)
        self._on_connection = on_connection
        self._on_closed = on_closed
        self._on_authenticated = on_authenticated
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # It is a stream's transport, but uvloop's classes do not inherit from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        self._on_connection(self)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        self._received += data
        try:
            while self._acceptor.peer is None:
                frame, self._received = cut_first_frame(self._received)
                if frame is None:
                    return
                reply = self._acceptor.receive(frame)
                if reply:
                    transport.write(reply)
        except HandshakeRejected as error:
            transport.write(error.frame())
            self.close_gracefully(error)
        except Exception as error:  # FrameError or our own bug; no state has changed yet.
            self.close_gracefully(error)
        else:
            rest, self._received, self._transport = self._received, b"", None
            self._on_closed(self, None)
            self._on_authenticated(transport, self._acceptor.peer, rest)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport = None
            self._on_closed(self, None)

    def close_gracefully(self, reason: Exception) -> None:
        """Close the connection; bytes already written are still sent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            self._on_closed(self, reason)


class OutgoingHandshake(asyncio.Protocol):
    """A connection that we opened; `outcome` is set once we know who is at its other end.

    `outcome` raises HandshakeRejected, FrameError, or ConnectionError if the connection ended first. Any
    other exception is our own bug.
    """

    def __init__(
        self,
        identity: Identity,
        role: int,
        on_authenticated: OnAuthenticated,
        about: bytes = b"",
        nonce: bytes = b"",
    ) -> None:
        self._opener = Opener(identity, role, nonce or new_nonce(), about)
        self._on_authenticated = on_authenticated
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.outcome: asyncio.Future[PeerIdentity] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._opener.hello())

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        self._received += data
        try:
            frame, self._received = cut_first_frame(self._received)
            if frame is None:
                return
            peer, reply = self._opener.receive(frame)
        except Exception as error:  # HandshakeRejected, FrameError or our own bug: end only this connection.
            self._transport = None
            transport.abort()
            self._fail(error)
            return
        if reply:
            transport.write(reply)
        rest, self._received, self._transport = self._received, b"", None
        self._on_authenticated(transport, peer, rest)
        if not self.outcome.done():
            self.outcome.set_result(peer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(exc or ConnectionResetError("the connection ended during the handshake"))

    def cancel(self) -> None:
        """Cancel `outcome`, and end the connection unless it was handed over already."""
        self.outcome.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
