"""Connects one core with its links, its timer, and what carries out its effects."""

import asyncio

from ckpt_protocol.handshake import Identity
from ckptd.core.make_core import Core
from ckptd.runtime.clients.clients import Clients
from ckptd.runtime.clients.connection_acceptor import ConnectionAcceptor
from ckptd.runtime.clients.datagram_router import DatagramRouter
from ckptd.runtime.clients.udp_clients import UdpClients
from ckptd.runtime.clients.unfinished_frames import UnfinishedFrames
from ckptd.runtime.clients.unread_answers import UnreadAnswers
from ckptd.runtime.clock import now_ns
from ckptd.runtime.config.model import Config
from ckptd.runtime.counters import Counters
from ckptd.runtime.effects.daemon_effects import DaemonEffects
from ckptd.runtime.event_recorder import EventRecorder
from ckptd.runtime.logs import RateLimitedLog
from ckptd.runtime.net.datagram_lanes import DatagramLanes
from ckptd.runtime.peers.peer_context import PeerContext
from ckptd.runtime.resources import Resources
from ckptd.runtime.transport_limits import TransportLimits


class NodeAssembly:
    """All parts of one node, each made with those that it needs. Nothing is received or accepted yet."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        node: Core,
        recorder: EventRecorder | None,
        limits: TransportLimits,
        resources: Resources,
        counters: Counters,
        limited_log: RateLimitedLog,
    ) -> None:
        peer_context = PeerContext(
            identity,
            counters,
            limited_log,
            heartbeat_s=config.heartbeat_ms / 1000,
            buffer_bytes_max=config.peer_buffer_bytes_max,
            family=resources.stream.family,
            witnesses=frozenset(config.other_witnesses),
        )
        self.effects = DaemonEffects(
            node,
            recorder,
            resources.state,
            resources.sender,
            config.other_nodes,
            peer_context,
            counters,
            register=resources.register,
            fence_hook=resources.fence_hook,
        )
        self.driver, self.peers = self.effects.driver, self.effects.peers
        self.clients = Clients(
            self.driver,
            counters,
            limited_log,
            resources.capacity.clients,
            UnreadAnswers(config.client_buffer_bytes_max, config.share_of_limits),
            UnfinishedFrames(config.client_frames_bytes_max, round(config.frame_timeout_ms * 1e6)),
        )
        self.udp_clients = UdpClients(identity, resources.sender, self.clients)
        self.acceptor = ConnectionAcceptor(
            identity, self.clients, self.peers, counters, limited_log, resources.capacity.handshakes
        )
        self.router = DatagramRouter(
            self.driver, self.peers, self.udp_clients, identity.key, counters, limited_log
        )
        self.lanes = DatagramLanes(counters, self.router.lane_of)
        self._limits = limits
        limits.add(
            self.clients.limits,
            self.acceptor.limits,
            self.udp_clients.limits,
            self.lanes.limits,
            self.peers.limits,
        )

    def pass_time(self, passed_s: float) -> None:
        """Check timers, idle and slow clients, and how full limits are. Call it every `passed_s` seconds."""
        self.driver.check_time()
        self.udp_clients.drop_idle()
        self.clients.unfinished.pass_time(int(passed_s * 1e9))
        self._limits.check(now_ns())

    def close_links(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when the bytes already written are sent."""
        return self.clients.close() + self.peers.close()
