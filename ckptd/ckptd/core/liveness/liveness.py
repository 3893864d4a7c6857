"""All that a node knows about which nodes live: the parts of this room, made in their order."""

from ckptd.core.context import Context
from ckptd.core.hub import VoterHub
from ckptd.core.liveness.failure_detector import FailureDetector
from ckptd.core.liveness.feature_levels import FeatureLevels
from ckptd.core.liveness.heartbeat import Heartbeats
from ckptd.core.liveness.lease import Lease
from ckptd.core.liveness.own_status import OwnStatus
from ckptd.core.liveness.peer import configured_peers
from ckptd.core.liveness.proofs_of_death import ProofsOfDeath


class Liveness:
    """What a node says of itself, what it knows of its peers, and what follows from that."""

    def __init__(self, context: Context, hub: VoterHub) -> None:
        self.context = context
        self.own = own = OwnStatus(context.now_ns)
        self.peers = peers = configured_peers(context.settings)
        self.detector = detector = FailureDetector(context, own, peers)
        self.deaths = deaths = ProofsOfDeath(context, peers)
        self.features = FeatureLevels(context, peers, detector)
        self.lease = lease = Lease(context, peers, detector, deaths)
        self.heartbeats = Heartbeats(context, hub, own, peers, detector, deaths, lease)

    def urls_of(self, node_id: str) -> tuple[str, ...]:
        """Return the URLs at which clients reach a node."""
        if node_id == self.context.node_id:
            return self.context.transport.urls
        peer = self.peers.get(node_id)
        return peer.urls if peer is not None else ()
