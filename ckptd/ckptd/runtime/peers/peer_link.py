"""The link to a peer, after the handshake."""

import asyncio
from collections.abc import Callable

from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.handshake import HandshakeRejected, PeerIdentity, parse_refused
from ckpt_protocol.messages import Kind
from ckptd.core.events import PeerReceived
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.counters import Counters
from ckptd.runtime.driver import Driver
from ckptd.runtime.logs import RateLimitedLog
from ckptd.runtime.net.stream_options import prepare_stream


class PeerLink(asyncio.Protocol):
    """Carries frames to and from one peer. `on_lost` is called once, when the connection is gone.

    `body_limits`: how large a body the peer may send, by kind of frame (see `ckpt_protocol.bounds_by_kind`).
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        identity: PeerIdentity,
        body_limits: tuple[int, ...],
        driver: Driver,
        counters: Counters,
        limited_log: RateLimitedLog,
        buffer_bytes_max: int,
        on_lost: Callable[["PeerLink"], None],
        on_rejected: Callable[[HandshakeRejected], None],
    ) -> None:
        self.identity = identity
        self._node_id = identity.node_id
        self._transport = transport
        self._handle = driver.handle
        self._feed = FrameDecoder(body_limits).feed
        self._counters = counters
        self._limited_log = limited_log
        self._on_lost = on_lost
        self._on_rejected = on_rejected
        self._ignores_input = False
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.send = transport.write
        prepare_stream(transport, is_peer=True)
        transport.set_write_buffer_limits(high=buffer_bytes_max)

    def data_received(self, data: bytes) -> None:
        if self._ignores_input:
            return
        try:
            frames = self._feed(data)
            if frames and frames[0].kind == Kind.REFUSED:
                self._on_refused_frame(frames[0])
                return
        except FrameError as error:
            self.close(f"it sent an invalid frame: {error}")
            return
        except Exception as error:
            self.close(contained(self._counters, self._limited_log, "the data of a peer", error))
            return
        if frames:
            self._handle(PeerReceived(self._node_id, frames))

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait in our buffer to be sent to the peer, without those in the kernel's."""
        return self._transport.get_write_buffer_size()

    def close(self, reason: str) -> None:
        """Cut the link because of what the peer sent; the peer may connect again."""
        self._counters.garbage_streams += 1
        self._limited_log.warn("peer closed", f"closed the connection to node {self._node_id}: {reason}")
        self._transport.abort()

    def stop_reading(self) -> None:
        """Stop reading: what the peer sent still waits for its turn here, so more has to wait at the peer."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def supersede(self) -> None:
        """End the link without reporting anything, because a newer one replaces it."""
        self._ignores_input = True
        self._transport.abort()

    def close_gracefully(self) -> asyncio.Future[None]:
        """End the link because this node stops, or refuses the peer.

        Bytes already written are still sent; then the future is set.
        """
        self._ignores_input = True
        self._transport.close()
        return self._closed

    def pause_writing(self) -> None:
        # The write buffer has reached its limit, which is the most that we buffer for a peer.
        self._limited_log.warn(
            "peer buffer", f"closed the connection to node {self._node_id}: it does not read"
        )
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost(self)
        self._closed.set_result(None)

    def _on_refused_frame(self, frame: Frame) -> None:
        """The peer ends the link after it had accepted it: it knows a higher incarnation of this node."""
        self._on_rejected(parse_refused(frame))
        self._transport.abort()
