"""Closed checkpoints: not served, because what they were asked to do stopped nodes (see `stops_by_bugs`).

Their names, replicas and open handles stay as they are. The node that would hold the active replica writes
what it has to quarantine and does not start to serve. All other checkpoints are served.
"""

from ckptd.core.containment import where
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.context import Context
from ckptd.core.replication.resync import quarantine


class ClosedCheckpoints:
    """The closed checkpoints of this node."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.quarantined: dict[int, None] = {}
        """Creation ids of those whose content went to quarantine."""

    def quarantine_if_closed(self, replica: ReplicaContent) -> None:
        """If the checkpoint is closed, quarantine the replica, which this node is to make active."""
        why = self.context.stops.closed.get(replica.creation_id)
        if why is None or replica.creation_id in self.quarantined:
            return
        self.quarantined[replica.creation_id] = None
        self.context.count("checkpoints_closed")
        name = replica.name.decode(errors="replace")
        self.context.log(f"checkpoint {name!r} is not served: {why}", "error")
        try:
            quarantine(replica)
        except Exception as error:  # It changes nothing, and this content has stopped nodes.
            text = f"checkpoint {name!r} could not be written to quarantine: {where(error)}"
            self.context.log(text, "error")
