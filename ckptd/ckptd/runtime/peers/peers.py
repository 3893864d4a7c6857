"""Every configured peer: which links are up, where each one is, and who may come as a peer."""

import asyncio

from ckpt_protocol import codes
from ckpt_protocol.greeting import Greeted, Refused
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
        """By address, as far as those have not changed since."""
        self._node_id = surroundings.identity.node_id
        self._tell = surroundings.driver.handle
        self._buffer_bytes_max = surroundings.buffer_bytes_max

    def accept(self, transport: asyncio.Transport, greeted: Greeted, rest: bytes) -> None:
        """Take a connection that claims to be a peer's; it counts once that is known. Raises: Refused."""
        me, node_id = self._node_id, greeted.node_id
        peering = self.peerings.get(node_id)
        if peering is None:
            remedy = "give all nodes the same peers, or correct the node id"
            text = f"it connects, and is not among the peers of node {me!r}: {remedy}"
            self._tell(PeerTrouble(node_id, codes.ACCESS, text))
            raise Refused(codes.ACCESS, f"node {node_id!r} is not among the peers of node {me!r}: {remedy}")
        peering.claim(transport, greeted, rest)

    def limits(self) -> Limits:
        """What waits to be sent to the peer for which most does, and how much may."""
        links = (peering.link for peering in self.peerings.values())
        unsent = max((link.unsent_bytes for link in links if link is not None), default=0)
        return {"peer_buffer_bytes": (unsent, self._buffer_bytes_max)}

    def datagram_address(self, node_id: str) -> SocketAddress | None:
        """Where a peer's heartbeats go; None while its name has no address."""
        peering = self.peerings.get(node_id)
        return None if peering is None else peering.resolved

    def seal(self, node_id: str, heartbeat: bytes) -> bytes:
        """A heartbeat for a peer, with its seal."""
        return self.peerings[node_id].seals.seal(heartbeat)

    def unseal(self, datagram: bytes, address: SocketAddress) -> bytes | None:
        """The heartbeat within; None where no peer that we have met sealed it for us."""
        likely = self.at(address)
        heartbeat = likely.seals.open(datagram) if likely is not None else None
        if heartbeat is None:
            others = (peering for peering in self.peerings.values() if peering is not likely)
            heartbeat = next(filter(None, (peering.seals.open(datagram) for peering in others)), None)
        return heartbeat

    def at(self, address: SocketAddress) -> Peering | None:
        """The peer whose heartbeats come from this address."""
        peering = self._at.get(address)
        if peering is None or peering.resolved != address:
            self._at = {each.resolved: each for each in self.peerings.values()}
            peering = self._at.get(address)
        return peering

    def close(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when what was written has gone out."""
        return [closed for peering in self.peerings.values() for closed in peering.close()]
