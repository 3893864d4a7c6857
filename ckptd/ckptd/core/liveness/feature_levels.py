"""What all configured nodes understand, and which nodes are too old for the others."""

from ckptd.core.context import Context
from ckptd.core.liveness.failure_detector import FailureDetector
from ckptd.core.liveness.peer import Peer, Peers
from ckptd.core.settings import EVERY_NODE_MUST


class FeatureLevels:
    """The feature levels of the configured nodes, witnesses included: those store views.

    A node counts with the level with which it was last heard, also when it is away. One that was never heard
    has level 0.
    """

    def __init__(self, context: Context, peers: Peers, detector: FailureDetector) -> None:
        self.context = context
        self.peers = peers
        self.detector = detector

    def common(self) -> int:
        """Return the highest level that all configured nodes were seen with."""
        return min([self.context.settings.feature_level, *(p.feature_level for p in self.peers.values())])

    def admits(self, peer: Peer, level: int) -> bool:
        """Return True if a peer understands all that a view of this level may use."""
        return peer.feature_level >= level

    def waits_for(self) -> list[str]:
        """Return the nodes that keep the common level below this node's own."""
        own = self.context.settings.feature_level
        return [peer.node_id for peer in self.peers.values() if peer.feature_level < own]

    def update(self) -> None:
        """Raise or clear the alarm `too_old`; called with each heartbeat."""
        context, own = self.context, self.context.settings.feature_level
        heard = self.detector.heard_peers()
        newer = [peer.node_id for peer in heard if peer.required_level > own]
        older = [p.node_id for p in heard if not p.is_witness and not self.admits(p, context.feature_level)]
        if newer:
            text = f"node {', '.join(newer)} uses features that this version of ckptd does not know"
            context.raise_alarm("too_old", f"{text}: upgrade ckptd on this node; it is not admitted before")
        elif older:
            text = f"the version of ckptd on node {', '.join(older)} is too old for what the cluster uses"
            context.raise_alarm("too_old", f"{text}: it is not admitted; {EVERY_NODE_MUST}")
        else:
            context.clear_alarm("too_old")
