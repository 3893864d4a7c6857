"""The active replicas of this node that may have something due: timers, acknowledgements, a batch."""

import heapq
from collections.abc import Iterator
from typing import Final

from ckpt_protocol.limits import ADVERTISED_POSITIONS_MAX
from ckptd.core.client_request import Request
from ckptd.core.context import Context
from ckptd.core.hub import Positions
from ckptd.core.replication.active_replica import ActiveReplica

OBSOLETE_TIMES_FACTOR: Final = 4
"""Times are sorted anew, without the obsolete ones, when there are so many times as many as replicas."""


class BusyReplicas:
    """Active replicas that may have something due. An idle one is not here, and costs nothing."""

    def __init__(self) -> None:
        self.by_id: dict[int, ActiveReplica] = {}
        """By creation id."""
        self.quiet: dict[int, tuple[int, ActiveReplica]] = {}
        """Those whose leader need not be looked at before a time, with that time, by creation id."""
        self._quiet_until: list[tuple[int, int]] = []
        """A heap of times, each with the creation id. Obsolete is what `quiet` does not have."""

    def on_local_pause(self, pause_ns: int) -> None:
        """This process was paused: acknowledgements that it did not read in that time are not overdue."""
        for active in self.by_id.values():
            active.last_progress_ns = min(active.last_progress_ns + pause_ns, active.context.now_ns)

    def run_timers(self, context: Context) -> None:
        """Let every active replica in `active_with_timers` do what is due."""
        context.note_serving()
        quiet_until = self._quiet_until
        while quiet_until and quiet_until[0][0] <= context.now_ns:
            until_ns, creation_id = heapq.heappop(quiet_until)
            due_ns, due = self.quiet.get(creation_id, (None, None))
            if due is not None and due_ns == until_ns:
                del self.quiet[creation_id]
                if due.ready:
                    self.by_id[creation_id] = due
        for creation_id, active in list(self.by_id.items()):
            if not active.run_timers():
                self.by_id.pop(creation_id, None)
                self._await_end_of_leader(creation_id, active)
        if quiet_until:
            context.wake_at(quiet_until[0][0])

    def _await_end_of_leader(self, creation_id: int, active: ActiveReplica) -> None:
        """Look at an idle replica again when its leader will have been silent for its ttl.

        A leader that is heard meanwhile moves no time: one look too many, once per ttl, costs less. A leader
        with a shorter ttl than the one before it is looked at earlier.
        """
        ends_ns = active.ends_ns
        if ends_ns is None or (creation_id in self.quiet and self.quiet[creation_id][0] <= ends_ns):
            return
        self.quiet[creation_id] = ends_ns, active
        heapq.heappush(self._quiet_until, (ends_ns, creation_id))
        if len(self._quiet_until) > OBSOLETE_TIMES_FACTOR * len(self.quiet):
            self._quiet_until = [(until_ns, found) for found, (until_ns, _) in self.quiet.items()]
            heapq.heapify(self._quiet_until)

    def forget(self, creation_id: int) -> None:
        """Forget a replica that is not active any more."""
        self.by_id.pop(creation_id, None)
        self.quiet.pop(creation_id, None)

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
