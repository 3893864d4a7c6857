"""The coordinator's background work: retention, lost replicas, lost nodes' sessions, members' proposals."""

from typing import Any

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.placement import missing_replicas
from ckptd.core.directory.replicator import INTERNAL_OPS_MAX, DirectoryReplicator
from ckptd.core.liveness.heartbeat import Heartbeats
from ckptd.core.membership.proposal import handover_members
from ckptd.core.view import View


class Housekeeping:
    """Runs at every member, but acts only at the coordinator. Its operations are ordered like all others."""

    def __init__(self, context: Context, replicator: DirectoryReplicator, heartbeats: Heartbeats) -> None:
        self.context = context
        self.replicator = replicator
        self.heartbeats = heartbeats
        self.view: View | None = None
        self.next_expiry_ns = NEVER_NS
        self.placement_due = False
        self.unavailable: list[int] = []
        """Creation ids of checkpoints of which no in-sync replica is in the view."""
        self.orphaned_sessions: dict[tuple[int, int], int] = {}
        """When to end the sessions whose node is not in the view, by session and generation."""
        self.last_served_ns = context.now_ns
        """When this node last served, as far as this class noticed, or installed a view."""

    def on_installed(self, view: View) -> None:
        """Start all timers again, because those of the last coordinator are lost with it."""
        self._extend_orphans()
        self.view = view
        self.next_expiry_ns = self.context.now_ns
        self.placement_due = True
        self.context.wake_at(self.context.now_ns)
        until_ns = self.context.now_ns + self.context.settings.session_grace_ns
        orphans = [
            (session, entry.generation)
            for session, entry in self.replicator.directory.sessions.items()
            if entry.node_id not in view.members
        ]
        checkpoints = self.replicator.directory.checkpoints
        self.unavailable = [entry.creation_id for entry in checkpoints.values() if entry.last_in_sync]
        self.orphaned_sessions = {orphan: self.orphaned_sessions.get(orphan, until_ns) for orphan in orphans}

    def on_directory_changed(self, creation_ids: list[int]) -> None:
        """Note the retention times that have started on these checkpoints."""
        for creation_id in creation_ids:
            entry = self.replicator.directory.checkpoints.get(creation_id)
            expires_ns = self.replicator.directory.expires_ns(entry) if entry is not None else None
            if expires_ns is not None and expires_ns < self.next_expiry_ns:
                self.next_expiry_ns = expires_ns
                self.context.wake_at(expires_ns)

    def _extend_orphans(self) -> None:
        """Extend the grace of orphaned sessions by the time in which this node did not serve.

        Clients could attach nowhere in that time, so it does not count towards their grace.
        """
        now_ns = self.context.now_ns
        away_ns, self.last_served_ns = now_ns - self.last_served_ns, now_ns
        if away_ns >= self.context.settings.lease_ns:
            self.orphaned_sessions = {
                orphan: until_ns + away_ns for orphan, until_ns in self.orphaned_sessions.items()
            }

    def on_time(self) -> None:
        if not self.context.serving() or self.view is None:
            return
        self._extend_orphans()
        if not self.replicator.is_coordinator:
            return
        now_ns = self.context.now_ns
        if now_ns >= self.next_expiry_ns:
            self._expire(now_ns)
        if self.unavailable:
            self._drop_dead_holders()
        # Do not wait for an empty queue: clients that open and close without a pause would prevent it.
        if self.placement_due and not self.replicator.count_internal(
            DirectoryOp.ADD_REPLICA, DirectoryOp.HOLDER_LOST
        ):
            self.placement_due = False
            for creation_id, node_id in self._missing_replicas():
                self.replicator.submit([DirectoryOp.ADD_REPLICA, creation_id, node_id])
        remaining = (
            INTERNAL_OPS_MAX - self.replicator.count_internal(DirectoryOp.END)
            if self.orphaned_sessions
            else 0
        )
        for (session, generation), until_ns in list(self.orphaned_sessions.items()):
            if until_ns <= now_ns and remaining > 0:
                remaining -= 1
                del self.orphaned_sessions[session, generation]
                self.replicator.submit([DirectoryOp.END, session, generation])

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
            if self.heartbeats.counts_as_dead(node_id, incarnation)
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
        return min(self.next_expiry_ns, min(self.orphaned_sessions.values(), default=NEVER_NS))

    def _missing_replicas(self) -> list[tuple[int, str]]:
        assert self.view is not None
        staying = handover_members(self.view, self.heartbeats)
        leaving = [node_id for node_id in self.view.members if node_id not in staying]
        full = [peer.node_id for peer in self.heartbeats.peers.values() if peer.full]
        if self.heartbeats.full:
            full.append(self.context.node_id)
        replicas = self.context.settings.replicas
        return missing_replicas(self.replicator.directory, self.view, replicas, leaving, full)

    def _expire(self, now_ns: int) -> None:
        """Order EXPIRE for the checkpoints whose retention is over.

        It has to be ordered, since a client may open one of them at the same time.
        """
        if self.replicator.count_internal(DirectoryOp.EXPIRE):
            return  # `next_expiry_ns` stays due: the next ones follow when these are done.
        self.next_expiry_ns = NEVER_NS
        remaining = INTERNAL_OPS_MAX
        for entry in list(self.replicator.directory.checkpoints.values()):
            expires_ns = self.replicator.directory.expires_ns(entry)
            if expires_ns is None:
                continue
            if expires_ns <= now_ns and remaining > 0:
                remaining -= 1
                self.replicator.submit([DirectoryOp.EXPIRE, entry.creation_id, entry.retention_seq])
            elif expires_ns < self.next_expiry_ns:
                self.next_expiry_ns = expires_ns
        if self.next_expiry_ns > now_ns:
            self.context.wake_at(self.next_expiry_ns)

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
            case [DirectoryOp.END, int(session), int(generation)]:
                entry = self.replicator.directory.sessions.get(session)
                if entry is not None and entry.generation == generation:
                    self.replicator.submit([DirectoryOp.END, session, generation])
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
