"""Becoming active: reports, catching up, levelling. An active replica serves only once that is done.

Nothing is served before every in-sync replica has what the active one has: a reader might otherwise be given
data that is lost with this replica (ADR 6). The states are those of `ActivationState`, and `TRANSITIONS` says
which may follow which.
"""

from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Final

from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.content.replica_content import ReplicaContent
from ckptd.core.content.versions import SEQ_BITS
from ckptd.core.replication.data_loss import report_data_loss


class ActivationState(Enum):
    """How far a replica is on its way to serve as the active one."""

    REPORTING = auto()
    """The other in-sync replicas have yet to report what they hold."""
    CATCHING_UP = auto()
    """A more advanced replica sends what this one lacks."""
    CAUGHT_UP = auto()
    """It holds all that any of them holds. The directory has yet to count it as in sync."""
    LEVELLING = auto()
    """The others are sent what they lack."""
    SERVING = auto()
    """It orders updates and answers reads."""
    CLOSED = auto()
    """It serves nothing: its role is over, or its checkpoint is closed."""


_S = ActivationState
TRANSITIONS: Final = {
    _S.REPORTING: {_S.REPORTING, _S.CATCHING_UP, _S.CAUGHT_UP, _S.CLOSED},
    _S.CATCHING_UP: {_S.REPORTING, _S.CATCHING_UP, _S.CAUGHT_UP, _S.CLOSED},
    _S.CAUGHT_UP: {_S.REPORTING, _S.CATCHING_UP, _S.CAUGHT_UP, _S.LEVELLING, _S.CLOSED},
    _S.LEVELLING: {_S.REPORTING, _S.CATCHING_UP, _S.SERVING, _S.CLOSED},
    _S.SERVING: {_S.REPORTING, _S.CLOSED},
    _S.CLOSED: {_S.REPORTING, _S.CLOSED},
}
"""By state, the states that may follow it. A new epoch begins with REPORTING again."""


class Activation(ABC):
    """The active role of one replica in one epoch: its state, and the replicas that it orders updates for.

    `ActiveReplica` adds what it does while it serves.
    """

    __slots__ = (
        "acked",
        "activation_seq",
        "admitted",
        "awaiting_report",
        "catching_up_from",
        "commit_set",
        "context",
        "counts_as_in_sync",
        "downstream",
        "last_progress_ns",
        "lineage",
        "ready",
        "replica",
        "state",
    )

    def __init__(self, replica: ReplicaContent) -> None:
        self.replica = replica
        self.context = replica.context
        self.state = ActivationState.REPORTING
        self.ready = False
        """The state is SERVING. (An attribute of its own, since every update looks at it.)"""
        self.commit_set: list[str] = []
        """The nodes whose acknowledgement a commit needs."""
        self.downstream: list[str] = []
        """The nodes that are sent every update: the required ones, and those that are joining."""
        self.acked: dict[str, int] = {}
        """By node: the seq up to which it has staged."""
        self.awaiting_report: list[str] = []
        """The required nodes whose reports are still awaited."""
        self.activation_seq = self.lineage = 0
        """`lineage` changes whenever something that was read here, or at the active replica before this one,
        may be lost. It stays the same while this replica stays active (ADR 15)."""
        self.admitted: dict[str, None] = {}
        """The nodes that were sent JOINED and that the directory does not count as in sync yet."""
        self.catching_up_from = ""
        """The node with a more advanced replica that this one is catching up from, or ""."""
        self.counts_as_in_sync = False
        """The directory counts this replica itself as in sync."""
        self.last_progress_ns = self.context.now_ns
        """When the last commit was, or when this replica last began to wait for others."""

    def _enter(self, state: ActivationState) -> None:
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state
        self.ready = state is ActivationState.SERVING

    @property
    def has_caught_up(self) -> bool:
        """Return True if this replica holds all that any in-sync replica holds."""
        return self.state in (ActivationState.CAUGHT_UP, ActivationState.LEVELLING, ActivationState.SERVING)

    @property
    def has_sent_tails(self) -> bool:
        """Return True if the other replicas have been sent what they lack."""
        return self.state in (ActivationState.LEVELLING, ActivationState.SERVING)

    @abstractmethod
    def arm_timers(self) -> None:
        """Have the timers of this replica looked at from now on."""

    @abstractmethod
    def begin_serving(self) -> None:
        """Set the timers, and commit what can be committed."""

    @abstractmethod
    def try_commit(self) -> None:
        """Commit what every required replica has staged."""

    def begin_activation(self, in_sync: list[str], activation_seq: int, counts_as_in_sync: bool) -> None:
        """Start (again) in an epoch, and wait for the reports of the other in-sync replicas' nodes.

        `activation_seq`: the directory's seq when this replica was made active. `counts_as_in_sync`: the
        directory counts this replica itself as in sync.
        """
        self.context.cause = self.replica
        self.replica.restore_content()
        self.activation_seq = activation_seq
        if not self.lineage or self.replica.possibly_superseded:
            self._begin_lineage()
        self._enter(ActivationState.REPORTING)
        self.counts_as_in_sync = counts_as_in_sync
        self.catching_up_from = ""
        self.commit_set = list(in_sync)
        self.downstream = list(in_sync)
        self.acked, self.admitted = {}, {}
        self.awaiting_report = list(in_sync)
        self.last_progress_ns = self.context.now_ns
        self.arm_timers()
        self._apply_reports()
        self.try_become_ready()

    def _begin_lineage(self) -> None:
        # With the epoch, since two losses may come without a directory operation in between.
        self.lineage = (self.context.epoch << SEQ_BITS) + self.activation_seq

    def _apply_reports(self) -> None:
        for node_id in list(self.awaiting_report):
            activation_seq, seq, _ = self.replica.replica_reports.get(node_id, (-1, 0, 0))
            if activation_seq == self.activation_seq:
                self.on_report(node_id, seq)

    def on_report(self, node_id: str, seq: int) -> None:
        """Take a replica's report of what it holds, for this activation."""
        if node_id not in self.awaiting_report:
            return
        self.awaiting_report.remove(node_id)
        self.acked[node_id] = seq
        if self.ready:
            self.send_tail(node_id)
            self.try_commit()
        else:
            self.try_become_ready()

    def try_become_ready(self) -> None:
        """Move on towards `ready`, as far as the reports allow.

        The active replica first catches up with the most advanced replica. Then the directory has to count it
        as in sync. Once a view change came first, and the new view lacked updates that this replica had
        acknowledged (seed 7172867). Then it brings every in-sync replica to its own state, and only then
        serves: a reader might otherwise be given data that is lost with this replica (ADR 6).
        """
        replica, log, context = self.replica, self.replica.log, self.context
        if self.ready or self.awaiting_report or replica.creation_id in context.stops.closed:
            return
        context.cause = replica
        ahead = max(self.commit_set, key=lambda node_id: (self.acked.get(node_id, 0), node_id), default="")
        # How long the log of such a replica is says nothing: it may belong to another history (seed 9540921).
        superseded = replica.possibly_superseded and not self.counts_as_in_sync
        if ahead and (self.acked.get(ahead, 0) > log.seq or not replica.complete or superseded):
            self._enter(ActivationState.CATCHING_UP)
            if self.catching_up_from != ahead:
                self.catching_up_from = ahead
                self._begin_lineage()
                replica.request_resync(ahead)
            return
        if not replica.complete:
            return
        if self.state is not ActivationState.LEVELLING:
            self._enter(ActivationState.CAUGHT_UP)
            if not self.counts_as_in_sync:
                # No in-sync replica resyncs from this one yet: if this node died, none would be in sync.
                return
            self._enter(ActivationState.LEVELLING)
            for node_id in self.commit_set:
                self.send_tail(node_id)
        if replica.sync and any(self.acked.get(node_id, 0) < log.seq for node_id in self.commit_set):
            return
        self._enter(ActivationState.SERVING)
        report_data_loss(replica)
        self.begin_serving()

    def send_tail(self, node_id: str) -> None:
        """Send a replica every staged update that it has not acknowledged."""
        replica, log, context = self.replica, self.replica.log, self.context
        acked = self.acked.get(node_id, 0)
        if not log.holds_since(acked):
            # The log does not reach back so far. A COMMIT beyond the replica's end tells it to join again.
            frame = encode_frame(Kind.COMMIT, replica.creation_id, context.epoch, log.seq)
            context.send_peer(node_id, frame)
            return
        for update in log.updates_after(acked):
            context.send_peer(node_id, update.frame(replica.creation_id, context.epoch, log.committed_seq))

    def change_replicas(self, replicas: dict[str, bool], counts_as_in_sync: bool) -> None:
        """Adopt a change of the directory within the epoch: who holds replicas (node id to in sync).

        `counts_as_in_sync` as in `begin_activation`. A node that was sent JOINED stays required until the
        directory counts it as in sync too, since it may already have proposed that.
        """
        me = self.context.node_id
        self.counts_as_in_sync = counts_as_in_sync
        for node_id, in_sync in replicas.items():
            if not in_sync or node_id == me:
                continue
            self.admitted.pop(node_id, None)
            if node_id not in self.commit_set:
                self.commit_set.append(node_id)
                self.awaiting_report.append(node_id)
                self.last_progress_ns = self.context.now_ns
            if node_id not in self.downstream:
                self.downstream.append(node_id)
        for node_id in self.commit_set:
            if not replicas.get(node_id) and node_id not in self.admitted:
                self.replica.replica_reports.pop(node_id, None)
        self.commit_set = [n for n in self.commit_set if replicas.get(n) or n in self.admitted]
        self.downstream = [n for n in self.downstream if n in replicas]
        self.awaiting_report = [n for n in self.awaiting_report if n in self.commit_set]
        self._apply_reports()
        self.try_commit()
        self.try_become_ready()

    def stream_to(self, node_id: str) -> None:
        """Send a joining replica's node every update from now on."""
        if node_id not in self.downstream:
            self.downstream.append(node_id)

    def admit(self, node_id: str) -> None:
        """Let every commit need this node from now on: it has been sent everything, and JOINED follows."""
        if node_id not in self.commit_set:
            self.commit_set.append(node_id)
            self.admitted[node_id] = None
            # (It may have acknowledged more already, and does not repeat that.)
            self.acked[node_id] = max(self.acked.get(node_id, 0), self.replica.log.committed_seq)

    def drop_joiner(self, node_id: str) -> None:
        """Forget a node that the directory does not count as in sync: it joins again, or its link broke."""
        self.replica.replica_reports.pop(node_id, None)
        self.admitted.pop(node_id, None)
        self.acked.pop(node_id, None)
        self.commit_set = [n for n in self.commit_set if n != node_id]
        self.downstream = [n for n in self.downstream if n != node_id]
        self.try_commit()
