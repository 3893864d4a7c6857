"""The failure detector: which nodes are heard, and for how long a node has been silent.

Silence proves nothing: see `proofs_of_death` for what does.
"""

from ckptd.core.context import Context
from ckptd.core.liveness.own_status import OwnStatus
from ckptd.core.liveness.peer import Peer, Peers


class FailureDetector:
    """Judges by the times at which heartbeats came."""

    def __init__(self, context: Context, own: OwnStatus, peers: Peers) -> None:
        self.context = context
        self.own = own
        self.peers = peers

    def recently_heard(self, peer: Peer) -> bool:
        """Return True if the peer was heard within the grace, has not left and is not proved dead."""
        if peer.incarnation <= peer.dead_incarnation or peer.left:
            return False
        return self.silence_ns(peer) < self.context.settings.grace_ns

    def heard_peers(self) -> list[Peer]:
        """Return the peers that were heard recently, in the order of their ids."""
        return [peer for peer in self.peers.values() if self.recently_heard(peer)]

    def silence_ns(self, peer: Peer) -> int:
        """Return for how long the peer was not heard, not counting pauses of this process."""
        return self.context.now_ns - peer.heard_ns - peer.pause_credit_ns

    def alive(self, node_id: str, incarnation: int) -> bool:
        """Return True if this incarnation is heard; for ourselves, if it is ours and has not left."""
        if node_id == self.context.node_id:
            return incarnation == self.context.incarnation and not self.own.left
        peer = self.peers.get(node_id)
        return peer is not None and peer.incarnation == incarnation and self.recently_heard(peer)

    def on_local_pause(self, pause_ns: int) -> None:
        """Move the times on by a pause of this process: no node's silence in that time counts against it.

        What the others sent is still waiting to be read. A pause of ours for garbage collection once cost
        the others their membership.
        """
        for peer in self.peers.values():
            peer.pause_credit_ns += pause_ns
