"""Closed checkpoints: not served, because what they were asked to do stopped nodes (see `stops`).

Their names, replicas and open handles stay as they are. The node that would hold the active replica writes
what it has to quarantine and does not start to serve. All other checkpoints are served.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ckptd.core.containment import where
from ckptd.core.replication.replica import Replica
from ckptd.core.replication.resync import quarantine

if TYPE_CHECKING:
    from ckptd.core.replication.local_replicas import LocalReplicas


class Closed:
    """The closed checkpoints of this node."""

    def __init__(self, replicas: "LocalReplicas") -> None:
        self.replicas = replicas
        self.context = replicas.context
        self.kept: dict[int, None] = {}
        """Creation ids of those whose content went to quarantine."""

    def on_stops(self, creation_ids: Iterable[int]) -> None:
        """Close the checkpoints that may not be tried any more, and start again those that may."""
        replicas = self.replicas
        for creation_id in creation_ids:
            replica, entry = replicas.by_id.get(creation_id), replicas.directory.checkpoints.get(creation_id)
            if entry is None:
                continue
            if replica is None or replica.active is None:
                replicas.reconcile([creation_id])  # (This node may have shunned it until now.)
            elif creation_id in self.context.stops.closed:
                replicas.hub.retry_parked(replica.active.close())
                self.look(replica)
            elif not replica.active.ready:
                self.kept.pop(creation_id, None)
                replicas.begin_activation(replica, entry)
                replicas.on_maybe_ready(replica)

    def look(self, replica: Replica) -> None:
        """If the checkpoint is closed, quarantine the replica, which this node is to make active."""
        why = self.context.stops.closed.get(replica.creation_id)
        if why is None or replica.creation_id in self.kept:
            return
        self.kept[replica.creation_id] = None
        self.context.count("checkpoints_closed")
        name = replica.name.decode(errors="replace")
        self.context.log(f"checkpoint {name!r} is not served: {why}", "error")
        try:
            quarantine(replica)
        except Exception as error:  # It changes nothing, and this content has stopped nodes.
            text = f"checkpoint {name!r} could not be put into quarantine: {where(error)}"
            self.context.log(text, "error")
