"""Every configured peer: which links are up, where each one is, and who may come as a peer."""

import asyncio

from ckpt_protocol import codes
from ckpt_protocol.greeting import Greeted, Refused
from ckptd.core.events import PeerTrouble
from ckptd.runtime.addresses import HostPort, SocketAddress
from ckptd.runtime.peering import Peering, Surroundings


class Peers:
    """The peerings of one node, by node id."""

    def __init__(self, addresses: dict[str, HostPort], surroundings: Surroundings) -> None:
        self.peerings = {
            node_id: Peering(node_id, address, surroundings) for node_id, address in addresses.items()
        }
        self.opened = surroundings.opened
        self._node_id = surroundings.identity.node_id
        self._tell = surroundings.driver.handle

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

    def datagram_address(self, node_id: str) -> SocketAddress | None:
        """Where a peer's heartbeats go; None while its name has no address."""
        peering = self.peerings.get(node_id)
        return None if peering is None else peering.resolved

    def seal(self, node_id: str, heartbeat: bytes) -> bytes:
        """A heartbeat for a peer, with its seal."""
        return self.peerings[node_id].seals.seal(heartbeat)

    def unseal(self, datagram: bytes, address: SocketAddress) -> bytes | None:
        """The heartbeat within; None where no peer that we have met sealed it for us."""
        likely_first = sorted(self.peerings.values(), key=lambda peering: peering.resolved != address)
        return next(filter(None, (peering.seals.open(datagram) for peering in likely_first)), None)

    def is_at(self, address: SocketAddress) -> bool:
        """Whether a peer's heartbeats come from this address."""
        return any(peering.resolved == address for peering in self.peerings.values())

    def close(self) -> list[asyncio.Future[None]]:
        """End every link; each future is set when what was written has gone out."""
        return [closed for peering in self.peerings.values() for closed in peering.close()]
