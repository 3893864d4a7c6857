"""All configured peers: their links and addresses, and which connections may claim to be a peer's."""

import asyncio

from ckpt_protocol import codes
from ckpt_protocol.greeting import Greeted, HandshakeRejected
from ckptd.core.events import PeerTrouble
from ckptd.core.operations.resource_usage import Limits
from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.peers.peer_connector import Peering, Surroundings


class Peers:
    """The peerings of one node, by node id."""

    def __init__(self, addresses: dict[str, HostPort], surroundings: Surroundings) -> None:
        self.peerings = {
            node_id: Peering(node_id, address, surroundings) for node_id, address in addresses.items()
        }
        self.opened = surroundings.opened
        self._at: dict[SocketAddress | None, Peering] = {}
        """A cache by address; `at` rebuilds it when an address has changed."""

        self._node_id = surroundings.identity.node_id
        self._tell = surroundings.driver.handle
        self._buffer_bytes_max = surroundings.buffer_bytes_max

    def accept(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        """Take a connection that claims to be a peer's; the peering checks that claim.

        Raises: HandshakeRejected.
        """
        me, node_id = self._node_id, greeted.node_id
        peering = self.peerings.get(node_id)
        if peering is None:
            remedy = "give all nodes the same peers, or correct the node id"
            text = f"it connects, and is not among the peers of node {me!r}: {remedy}"
            self._tell(PeerTrouble(node_id, codes.ACCESS, text))
            raise HandshakeRejected(
                codes.ACCESS, f"node {node_id!r} is not among the peers of node {me!r}: {remedy}"
            )
        peering.claim(transport, greeted, rest)

    def limits(self) -> Limits:
        """Return the largest number of unsent bytes for one peer, and how many there may be."""
        links = (peering.link for peering in self.peerings.values())
        unsent = max((link.unsent_bytes for link in links if link is not None), default=0)
        return {"peer_buffer_bytes": (unsent, self._buffer_bytes_max)}

    def datagram_address(self, node_id: str) -> SocketAddress | None:
        """Return the address to send a peer's heartbeats to; None while its name has no address."""
        peering = self.peerings.get(node_id)
        return None if peering is None else peering.resolved

    def seal(self, node_id: str, heartbeat: bytes) -> bytes:
        """Return a heartbeat for a peer with its seal."""
        return self.peerings[node_id].seals.seal(heartbeat)

    def unseal(self, datagram: bytes, address: SocketAddress) -> bytes | None:
        """Return the heartbeat without its seal; None if it has no seal that we share with a peer."""
        likely = self.at(address)
        heartbeat = likely.seals.open(datagram) if likely is not None else None
        if heartbeat is None:
            others = (peering for peering in self.peerings.values() if peering is not likely)
            heartbeat = next(filter(None, (peering.seals.open(datagram) for peering in others)), None)
        return heartbeat

    def at(self, address: SocketAddress) -> Peering | None:
        """Return the peer whose heartbeats come from this address; None if there is none."""
        peering = self._at.get(address)
        if peering is None or peering.resolved != address:
            self._at = {each.resolved: each for each in self.peerings.values()}
            peering = self._at.get(address)
        return peering

    def close(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when the bytes already written are sent."""
        return [closed for peering in self.peerings.values() for closed in peering.close()]
