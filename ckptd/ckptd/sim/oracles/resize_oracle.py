"""A resize that an active replica knows goes on: it does not wait for its client, or for another resize."""

from typing import Final

from ckptd.core.node import Node
from ckptd.core.replication.leader_election import REPEAT_NS
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.oracles.view_oracle import ViewOracle
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation

IDLE_NS: Final = REPEAT_NS + 250 * MILLISECOND_NS
"""So long after it could do something for a resize, an active replica has done it."""


class ResizeOracle:
    """Checks the active replicas of a node."""

    def __init__(self, views: ViewOracle) -> None:
        self.views = views
        self._idle_since: dict[tuple[str, int], tuple[object, int]] = {}
        """By node and checkpoint: what waits to be done, and since when."""

    def process_started(self, node_id: str) -> None:
        """Forget the node's predecessor."""
        for key in [key for key in self._idle_since if key[0] == node_id]:
            del self._idle_since[key]

    def after_event(self, host: Host, node: Node) -> None:
        """Check what one node may have left undone. Raises: Violation."""
        serving = node.serving(host.local_ns)
        for creation_id, replica in node.replicas.items():
            active, state = replica.active, replica.sections.resize_state
            key = host.node_id, creation_id
            entry = node.directory.checkpoints.get(creation_id)
            if not state.number or active is None or entry is None or not serving:
                self._idle_since.pop(key, None)
                continue
            committed = replica.committed_seq >= replica.sections.limits_before[0]
            if active.is_resized or not active.ready or not committed or self.views.is_outranked(node):
                self._idle_since.pop(key, None)
                continue
            waits = node.context.epoch, state, entry.resize_number, active.limits_proposed_ns
            found, since_ns = self._idle_since.get(key, (None, 0))
            if found != waits:
                self._idle_since[key] = waits, host.local_ns
            elif host.local_ns - since_ns > IDLE_NS:
                raise Violation(
                    "a resize is finished",
                    f"{host.node_id} does nothing for the resize of {replica.name!r}: {state}, and the "
                    f"directory has {entry.resize_number}",
                )
