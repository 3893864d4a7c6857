"""All configured peers: their links and addresses, and which connections may claim to be a peer's."""

import asyncio

from ckpt_protocol import codes
from ckpt_protocol.handshake import HandshakeRejected, PeerIdentity
from ckptd.core.events import PeerTrouble
from ckptd.core.hub import Limits
from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.driver import Driver
from ckptd.runtime.peers.peer_connector import PeerConnector
from ckptd.runtime.peers.peer_context import PeerContext


class Peers:
    """The connectors of one node, by node id."""

    def __init__(self, addresses: dict[str, HostPort], driver: Driver, context: PeerContext) -> None:
        self.connectors = {
            node_id: PeerConnector(node_id, address, driver, context)
            for node_id, address in addresses.items()
        }
        self.opened = context.opened
        self._at: dict[SocketAddress | None, PeerConnector] = {}
        """A cache by address; `at` rebuilds it when an address has changed."""

        self._node_id = context.identity.node_id
        self._driver = driver
        self._buffer_bytes_max = context.buffer_bytes_max

    def accept(self, transport: asyncio.Transport, identity: PeerIdentity, rest: bytes) -> None:
        """Take a connection that claims to be a peer's; the connector checks that claim.

        Raises: HandshakeRejected.
        """
        me, node_id = self._node_id, identity.node_id
        connector = self.connectors.get(node_id)
        if connector is None:
            remedy = "configure the same peers on all nodes, or correct the node id"
            text = f"it connects, but it is not among the peers of node {me!r}: {remedy}"
            self._driver.handle(PeerTrouble(node_id, codes.ACCESS, text))
            raise HandshakeRejected(
                codes.ACCESS, f"node {node_id!r} is not among the peers of node {me!r}: {remedy}"
            )
        connector.check_claim(transport, identity, rest)

    def limits(self) -> Limits:
        """Return the largest number of unsent bytes for one peer, and how many there may be."""
        links = (connector.link for connector in self.connectors.values())
        unsent = max((link.unsent_bytes for link in links if link is not None), default=0)
        return {"peer_buffer_bytes": (unsent, self._buffer_bytes_max)}

    def datagram_address(self, node_id: str) -> SocketAddress | None:
        """Return the address to send a peer's heartbeats to; None while its name has no address."""
        connector = self.connectors.get(node_id)
        return None if connector is None else connector.resolved

    def sign(self, node_id: str, heartbeat: bytes) -> bytes:
        """Return a heartbeat for a peer with its signature."""
        return self.connectors[node_id].heartbeat_secrets.sign(heartbeat)

    def verify(self, datagram: bytes, address: SocketAddress) -> bytes | None:
        """Return the heartbeat without its signature; None if no secret of a peer signed it."""
        likely = self.at(address)
        heartbeat = likely.heartbeat_secrets.verify(datagram) if likely is not None else None
        if heartbeat is None:
            others = (connector for connector in self.connectors.values() if connector is not likely)
            heartbeat = next(
                filter(None, (connector.heartbeat_secrets.verify(datagram) for connector in others)), None
            )
        return heartbeat

    def at(self, address: SocketAddress) -> PeerConnector | None:
        """Return the peer whose heartbeats come from this address; None if there is none."""
        connector = self._at.get(address)
        if connector is None or connector.resolved != address:
            self._at = {each.resolved: each for each in self.connectors.values()}
            connector = self._at.get(address)
        return connector

    def close(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when the bytes already written are sent."""
        return [closed for connector in self.connectors.values() for closed in connector.close()]
