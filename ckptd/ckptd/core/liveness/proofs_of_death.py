"""What shows that an incarnation of a node can do nothing any more.

* Proofs: a newer incarnation of the node runs, or a connection to it was refused shortly after a heartbeat.
* Declarations: a fence hook or the operator says that it is dead.
* A clean leave: it has reported that it serves no more.

A proof no longer counts once the incarnation answers at its address, a declaration once its heartbeats arrive
again.
"""

from ckptd.core.context import Context
from ckptd.core.liveness.peer import Peer, Peers
from ckptd.core.view import View


class ProofsOfDeath:
    """The incarnations of other nodes that are proved dead, or were declared dead."""

    def __init__(self, context: Context, peers: Peers) -> None:
        self.context = context
        self.peers = peers

    # -- asking

    def proved_dead(self, node_id: str, incarnation: int) -> bool:
        """Return True if it is proved that this incarnation of a node can do nothing any more."""
        if node_id == self.context.node_id:
            return incarnation != self.context.incarnation
        peer = self.peers.get(node_id)
        return peer is not None and incarnation <= peer.dead_incarnation

    def counts_as_dead(self, node_id: str, incarnation: int) -> bool:
        """Return True if the node is proved dead, or was declared dead by a fence hook or the operator."""
        if self.proved_dead(node_id, incarnation):
            return True
        peer = self.peers.get(node_id)
        return peer is not None and incarnation <= peer.declared_dead_incarnation

    def has_left_cleanly(self, node_id: str, incarnation: int, epoch: int) -> bool:
        """Return True if the node reported that it serves no more, and knows no view later than `epoch`.

        It reports that when it leaves as planned.

        A coordinator that had continued alone, and then left, must not be succeeded by the older data of
        the node that it had excluded (seed 30879).
        """
        peer = self.peers.get(node_id)
        return (
            peer is not None and peer.incarnation == incarnation and peer.left and peer.decided_epoch <= epoch
        )

    def died_before_installing(self, view: View) -> bool:
        """Return True if the coordinator of a view that excludes us died before it can have installed it.

        It would have waited for our lease to end first, and its echo was fresh when it died.
        """
        peer = self.peers.get(view.coordinator)
        epoch = self.context.epoch
        died = (view.members[view.coordinator].incarnation, epoch)
        return peer is not None and 0 < epoch < view.epoch and peer.lease_fresh_at_death == died

    # -- proofs

    def on_connection_refused(self, node_id: str) -> bool:
        """Note a refused connection; return True if that proves the node's last incarnation dead.

        It does if that was heard just before, and if the network does not forge refusals. After a longer
        silence the host may be cut off, with another host answering for it.
        """
        peer = self.peers.get(node_id)
        context = self.context
        if peer is None or not peer.incarnation or peer.incarnation <= peer.dead_incarnation:
            return False
        lease_ns = context.settings.lease_ns
        if not context.settings.trust_rst or context.now_ns - peer.heard_ns >= lease_ns:
            return False
        if peer.connected:
            # This connection attempt may have begun before that incarnation listened at all.
            return False
        peer.dead_incarnation = peer.incarnation
        self._note_lease_freshness(peer)
        return True

    def on_incarnation_answered(self, peer: Peer, incarnation: int) -> bool:
        """Note that this incarnation answered at the peer's address; False if we know of a later one."""
        if incarnation < peer.incarnation:
            return False
        if incarnation > peer.incarnation:
            self.on_new_incarnation(peer, incarnation)
        elif incarnation <= peer.dead_incarnation:
            peer.dead_incarnation = incarnation - 1
            self.context.log(f"node {peer.node_id} counted as dead, but it is alive", "warning")
        return True

    def on_new_incarnation(self, peer: Peer, incarnation: int) -> None:
        """Note a newer incarnation of a node: every older one is dead."""
        if peer.incarnation > peer.dead_incarnation:
            self._note_lease_freshness(peer)
        peer.dead_incarnation = max(peer.dead_incarnation, incarnation - 1)
        peer.begin_incarnation(incarnation)

    def adopt_earlier_incarnation(self, peer: Peer, incarnation: int) -> None:
        """Accept an incarnation below the one that we knew: it answers, and the newest view names it."""
        self.on_new_incarnation(peer, incarnation)
        peer.dead_incarnation = incarnation - 1
        peer.declared_dead_incarnation = min(peer.declared_dead_incarnation, peer.dead_incarnation)

    def _note_lease_freshness(self, peer: Peer) -> None:
        """Note whether the echo of this peer, which is proved dead now, was fresh when it died.

        If it was, the peer cannot have continued without us: it would have had to wait until our lease
        ended.
        """
        if self.context.now_ns - peer.lease_acked_ns < self.context.settings.lease_ns:
            peer.lease_fresh_at_death = (peer.incarnation, peer.lease_acked_epoch)

    # -- declarations

    def declare_dead(self, node_id: str, incarnation: int) -> None:
        """Declare a silent node dead: a fence hook or the operator says that it is, and its data is lost."""
        peer = self.peers[node_id]
        peer.declared_dead_incarnation = max(peer.declared_dead_incarnation, incarnation)

    def retract_death(self, peer: Peer) -> None:
        """Note that a node which was declared dead is heard again: it is not, and comes back by joining."""
        peer.declared_dead_incarnation = 0
        self.context.log(f"node {peer.node_id} was declared dead, but it is alive", "warning")
