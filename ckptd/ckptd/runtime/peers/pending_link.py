"""A connection that we opened to a peer, until the peer accepts it as the link (ADR 17)."""

import asyncio

from ckpt_protocol.errors import FrameError
from ckpt_protocol.handshake import HandshakeRejected, PeerIdentity, parse_refused
from ckpt_protocol.messages import Kind
from ckptd.runtime.net.handshake import cut_first_frame


class PendingLink(asyncio.Protocol):
    """A connection that we opened to a peer, which asks back before it accepts the connection.

    `outcome` is set when the peer accepts. It raises HandshakeRejected, FrameError, or ConnectionError if the
    connection ended first. `rest`: the bytes received after that.
    """

    def __init__(self, transport: asyncio.Transport, identity: PeerIdentity, rest: bytes) -> None:
        self.transport = transport
        self.identity = identity
        self.rest = b""
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        transport.set_protocol(self)
        self.data_received(rest)

    def data_received(self, data: bytes) -> None:
        self.rest += data
        if self.outcome.done():
            return
        try:
            frame, self.rest = cut_first_frame(self.rest)
            if frame is None:
                return
            if frame.kind == Kind.REFUSED:
                raise parse_refused(frame)
            if frame.kind != Kind.TAKEN:
                raise FrameError(f"a frame of kind {frame.kind} arrived before TAKEN")
        except (HandshakeRejected, FrameError) as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(
                exc or ConnectionResetError("the connection ended before the peer accepted it")
            )
