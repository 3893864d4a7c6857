"""The coordinator's background work: `retention`, `orphaned_sessions`, lost replicas, members' proposals."""

from typing import Any

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.placement import missing_replicas
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.next_members import handover_members
from ckptd.core.membership.orphaned_sessions import OrphanedSessions
from ckptd.core.membership.retention import Retention
from ckptd.core.view import View


class Housekeeping:
    """Runs at every member, but acts only at the coordinator. Its operations are ordered like all others."""

    def __init__(self, context: Context, replicator: DirectoryReplicator, liveness: Liveness) -> None:
        self.context = context
        self.replicator = replicator
        self.liveness = liveness
        self.view: View | None = None
        self.retention = Retention(context, replicator)
        self.orphaned_sessions = OrphanedSessions(context, replicator)
        self.placement_due = False
        self.unavailable: list[int] = []
        """Creation ids of checkpoints of which no in-sync replica is in the view."""

    def on_installed(self, view: View) -> None:
        """Start all timers again, because those of the last coordinator are lost with it."""
        self.view = view
        self.retention.on_installed()
        self.placement_due = True
        self.context.wake_at(self.context.now_ns)
        self.orphaned_sessions.on_installed(view)
        checkpoints = self.replicator.directory.checkpoints
        self.unavailable = [entry.creation_id for entry in checkpoints.values() if entry.last_in_sync]

    def on_time(self) -> None:
        if not self.context.serving() or self.view is None:
            return
        self.orphaned_sessions.extend()
        if not self.replicator.is_coordinator:
            return
        self.retention.expire_due()
        if self.unavailable:
            self._drop_dead_holders()
        # Do not wait for an empty queue: clients that open and close without a pause would prevent it.
        if self.placement_due and not self.replicator.count_internal(
            DirectoryOp.ADD_REPLICA, DirectoryOp.HOLDER_LOST
        ):
            self.placement_due = False
            for creation_id, node_id in self._missing_replicas():
                self.replicator.submit([DirectoryOp.ADD_REPLICA, creation_id, node_id])
        self.orphaned_sessions.end_due()

    def _drop_dead_holders(self) -> None:
        """Order HOLDER_LOST for each dead node that unavailable checkpoints wait for.

        A checkpoint waits for its holders until they are back, proved dead or declared dead.
        """
        checkpoints = self.replicator.directory.checkpoints
        waiting = [checkpoints[cid] for cid in self.unavailable if cid in checkpoints]
        self.unavailable = [entry.creation_id for entry in waiting if entry.last_in_sync]
        if self.replicator.count_internal(DirectoryOp.ADD_REPLICA, DirectoryOp.HOLDER_LOST):
            return
        lost = {
            (node_id, incarnation)
            for entry in waiting
            for node_id, incarnation in entry.last_in_sync.items()
            if self.liveness.deaths.counts_as_dead(node_id, incarnation)
        }
        for node_id, incarnation in sorted(lost):
            self.context.log(f"data that only node {node_id} had is lost", "warning")
            self.context.count("holders_lost")
            self.replicator.submit([DirectoryOp.HOLDER_LOST, node_id, incarnation])
            self.placement_due = True  # Checkpoints that continue without them lack replicas.

    def next_ns(self) -> int:
        """When the coordinator next has something to do; NEVER_NS at other members."""
        if not self.replicator.is_coordinator:
            return NEVER_NS
        return min(self.retention.next_expiry_ns, self.orphaned_sessions.next_ns)

    def _missing_replicas(self) -> list[tuple[int, str]]:
        assert self.view is not None
        staying = handover_members(self.view, self.liveness)
        leaving = [node_id for node_id in self.view.members if node_id not in staying]
        full = [peer.node_id for peer in self.liveness.peers.values() if peer.full]
        if self.liveness.own.full:
            full.append(self.context.node_id)
        replicas = self.context.settings.replicas
        return missing_replicas(self.replicator.directory, self.view, replicas, leaving, full)

    def propose(self, operation: list[Any]) -> None:
        """Propose an operation to the coordinator, which orders it if it agrees."""
        view = self.replicator.view
        if view is None or self.context.sealed:
            return
        if self.replicator.is_coordinator:
            self.on_proposal(self.context.node_id, operation)
        else:
            frame = encode_frame(Kind.ASK, 0, self.context.epoch, 0, pack_body(operation))
            self.context.send_peer(view.coordinator, frame)

    def on_proposal(self, node_id: str, op: list[Any]) -> None:
        """Order an operation that a member proposes, unless it is already done or out of date."""
        match op:
            case [DirectoryOp.END, int(session), int(generation), *_]:
                entry = self.replicator.directory.sessions.get(session)
                if entry is not None and entry.generation == generation:
                    self.replicator.submit(op)
            case [
                DirectoryOp.IN_SYNC | DirectoryOp.OUT_OF_SYNC as number,
                int(creation_id),
                str(of_node),
            ] if of_node == node_id:
                checkpoint = self.replicator.directory.checkpoints.get(creation_id)
                if checkpoint is None or node_id not in checkpoint.replicas:
                    return
                if checkpoint.replicas[node_id] != (number == DirectoryOp.IN_SYNC):
                    self.replicator.submit([number, creation_id, node_id])
            case [DirectoryOp.LEADER | DirectoryOp.RESIZE, int(creation_id), *_]:
                checkpoint = self.replicator.directory.checkpoints.get(creation_id)
                if checkpoint is not None and checkpoint.active == node_id:
                    self.replicator.submit(op)  # (It is dropped if it changes nothing when its turn comes.)
