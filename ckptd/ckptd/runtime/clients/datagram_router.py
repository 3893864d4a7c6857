"""Says which lane a received datagram belongs to, and hands it to the peers or to the UDP clients."""

from typing import Final

from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER_BYTES, LENGTH_BYTES, decode_datagram
from ckpt_protocol.handshake import verify
from ckpt_protocol.messages import Kind
from ckptd.core.events import HeartbeatReceived
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.clients.udp_clients import UdpClients
from ckptd.runtime.config.addresses import SocketAddress
from ckptd.runtime.counters import Counters
from ckptd.runtime.driver import Driver
from ckptd.runtime.logs import RateLimitedLog
from ckptd.runtime.net.datagram_lanes import Lane
from ckptd.runtime.peers.peers import Peers

_KIND_AT: Final = LENGTH_BYTES


class DatagramRouter:
    """Where the datagrams of one socket go."""

    def __init__(
        self,
        driver: Driver,
        peers: Peers,
        udp_clients: UdpClients,
        cluster_key: bytes,
        counters: Counters,
        limited_log: RateLimitedLog,
    ) -> None:
        self._driver = driver
        self._peers = peers
        self._udp_clients = udp_clients
        self._cluster_key = cluster_key
        self._counters = counters
        self._limited_log = limited_log

    def lane_of(self, datagram: bytes, address: SocketAddress) -> Lane:
        """Return the lane of a datagram, judged by its sender's address and its kind."""
        if _is_heartbeat(datagram):
            return Lane.PEER if self._peers.at(address) is not None else Lane.HEARTBEAT
        return Lane.CLIENT if self._udp_clients.knows(address) else Lane.UNAUTHENTICATED

    def receive(self, datagram: bytes, address: SocketAddress) -> None:
        """Handle a datagram."""
        if not _is_heartbeat(datagram):
            self._udp_clients.receive(datagram, address)
            return
        heartbeat = self._peers.verify(datagram, address)
        authentic = heartbeat is not None
        try:
            frame = decode_datagram(
                heartbeat if heartbeat is not None else verify(self._cluster_key, datagram)
            )
        except FrameError as error:
            self._counters.garbage_datagrams += 1
            if self._peers.at(address) is None:  # (A peer's may belong to a link not up here yet.)
                self._limited_log.warn("heartbeat", f"a heartbeat from {address[0]} was dropped: {error}")
        except Exception as error:
            contained(self._counters, self._limited_log, "a heartbeat", error)
        else:
            self._driver.handle(HeartbeatReceived(frame, authentic))


def _is_heartbeat(datagram: bytes) -> bool:
    return len(datagram) >= HEADER_BYTES and datagram[_KIND_AT] == Kind.HEARTBEAT
