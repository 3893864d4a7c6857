"""The active replicas of this node that may have something due: timers, acknowledgements, a batch."""

from collections.abc import Iterator

from ckpt_protocol.limits import ADVERTISED_POSITIONS_MAX
from ckptd.core.client_request import Request
from ckptd.core.hub import Positions
from ckptd.core.replication.active_replica import ActiveReplica


class BusyReplicas:
    """Active replicas that may have something due. An idle one is not here, and costs nothing."""

    def __init__(self) -> None:
        self.by_id: dict[int, ActiveReplica] = {}
        """By creation id."""

    def on_local_pause(self, pause_ns: int) -> None:
        """This process was paused: acknowledgements that it did not read in that time are not overdue."""
        for active in self.by_id.values():
            active.last_progress_ns = min(active.last_progress_ns + pause_ns, active.context.now_ns)

    def run_timers(self) -> None:
        """Let every active replica in `active_with_timers` do what is due."""
        for creation_id, active in list(self.by_id.items()):
            if not active.run_timers():
                self.by_id.pop(creation_id, None)

    def unanswered(self) -> Iterator[Request]:
        """Yield the requests whose updates wait for other replicas."""
        for active in self.by_id.values():
            for update in active.replica.log.pending:
                if update.waiting_request is not None:
                    yield update.waiting_request

    def stalled_nodes(self) -> list[str]:
        """Return the nodes whose acknowledgements are overdue."""
        late: dict[str, None] = {}
        for active in self.by_id.values():
            late.update(dict.fromkeys(active.stalled_replicas()))
        return sorted(late)

    def unreplicated_positions(self, node_id: str) -> Positions:
        """Return how far asynchronous active replicas have ordered what a node may lack."""
        positions: Positions = []
        for creation_id, active in self.by_id.items():
            seq = active.replica.log.seq
            if not active.replica.sync and active.ready and active.acked.get(node_id, seq) < seq:
                positions.append((creation_id, seq))
                if len(positions) == ADVERTISED_POSITIONS_MAX:
                    break
        return positions
