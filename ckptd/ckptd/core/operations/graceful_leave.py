"""A planned leave: hand over first, so that no call fails and nothing is lost.

A node that is to leave keeps serving until every checkpoint that it holds is in sync at a member that stays.
Then it orders no more updates, waits until all of them are acknowledged, and announces that it has left. So
its successor need not wait for its lease to end.

The last node waits, too. Three restarts in quick succession once lost everything, each with exit code 0: the
last holder found no node to hand over to and left. Now it waits for a configured peer to come back. If none
does in time, it reports what it takes with it (`last_replicas`), and ends with `Leave(last_copy=True)`.

`housekeeping` adds the replicas elsewhere, as soon as a node announces that it leaves.

It waits for no other node where none is expected: if it has no peers, if no member that stays has a
collocated checkpoint open, or if an operator stops the whole cluster.
"""

from enum import Enum, auto
from typing import Final

from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import Context
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.events import Leave
from ckptd.core.hub import Hub
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.liveness.peer import Peer
from ckptd.core.membership.next_members import handover_members
from ckptd.core.membership.reconfiguration import Reconfiguration
from ckptd.core.operations.alarms import show_names
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.requests.router import RequestRouter
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.view import View

LEAVE_ANNOUNCE_NS: Final = SECOND_NS
"""How long a node that serves no more waits to see a view without it.

When the whole cluster stops, this is how long a node waits for the others.
"""

LEAVE_POLL_NS: Final = MILLISECOND_NS
"""How often a node that is leaving looks at how far it is."""

ANSWER_HEARTBEATS: Final = 4
"""For how many heartbeats a node waits until the others have answered its announcement that it leaves.

It does not count on a node that has not answered by then.
"""

HAND_OVER_SHARES: Final = 2
"""A leave takes at most this many times `leave_ns`: one to wait for a peer, one to hand over to it."""


class LeaveState(Enum):
    """How far a node is with its leave."""

    NOT_LEAVING = auto()
    """No leave was asked for."""
    HANDING_OVER = auto()
    """The others get what only this node holds; it serves until they have it."""
    AWAITING_SUCCESSOR = auto()
    """It serves no more, and waits until another node has taken over."""
    FINISHED = auto()
    """The process may end."""


TRANSITIONS: Final = {
    LeaveState.NOT_LEAVING: LeaveState.HANDING_OVER,
    LeaveState.HANDING_OVER: LeaveState.AWAITING_SUCCESSOR,
    LeaveState.AWAITING_SUCCESSOR: LeaveState.FINISHED,
}
"""By state, the one that follows. A leave is never taken back."""


class GracefulLeave:
    """The leave of this node."""

    def __init__(
        self,
        context: Context,
        liveness: Liveness,
        reconfiguration: Reconfiguration,
        replicas: LocalReplicas,
        requests: RequestRouter,
        hub: Hub,
    ) -> None:
        self.context = context
        self.hub = hub
        self.liveness = liveness
        self.reconfiguration = reconfiguration
        self.replicas = replicas
        self.requests = requests
        self.state = LeaveState.NOT_LEAVING
        self.entered_ns = context.now_ns
        """When the state was entered."""
        self.stopping = False
        """An operator stops the whole cluster."""
        self.last_replicas: dict[int, bytes] = {}
        """What this node takes with it although a peer could have come for it: names by creation id."""
        self.unshared: dict[int, bytes] = {}
        """What no other node was expected to have: names by creation id."""
        self._announced_ns: dict[str, int] = {}
        """By peer, the stamp of the heartbeat that announced the leave."""
        self._sorted_for: object = None
        self._wait_reported = False

    def start(self) -> None:
        """Begin the leave; a second call does nothing."""
        if self.state is LeaveState.NOT_LEAVING:
            self._enter(LeaveState.HANDING_OVER)
            self.liveness.own.leaving = True
            self.context.log("leaving: handing over")
            self.liveness.heartbeats.send_all()
            self._announced_ns = {
                peer.node_id: peer.our_timestamp_ns for peer in self.liveness.peers.values()
            }

    def stop_all(self) -> None:
        """Stop the whole cluster, as an operator asks: tell every peer, and wait for none to come back."""
        if not self.stopping:
            self.stopping = True
            self.context.log("the operator stops the whole cluster", "warning")
            for node_id in self.liveness.peers:
                self._send_stop(node_id)
        self.start()

    def on_peer_connected(self, node_id: str) -> None:
        """Send STOP again: a broken link may have lost it."""
        if self.stopping:
            self._send_stop(node_id)

    def _send_stop(self, node_id: str) -> None:
        self.context.send_peer(node_id, encode_frame(Kind.STOP, 0, self.context.epoch, 0))

    def on_time(self) -> None:
        if self.state in (LeaveState.NOT_LEAVING, LeaveState.FINISHED):
            return
        context = self.context
        context.wake_at(context.now_ns + LEAVE_POLL_NS)
        if self.state is LeaveState.HANDING_OVER:
            self._check_progress()
        elif self._has_successor() or context.now_ns - self.entered_ns >= LEAVE_ANNOUNCE_NS:
            self._finish()

    def _enter(self, state: LeaveState) -> None:
        assert state is TRANSITIONS[self.state], (self.state, state)
        self.state, self.entered_ns = state, self.context.now_ns

    def _check_progress(self) -> None:
        """Give up the role once everything is handed over and acknowledged, or the time for that is over."""
        view, passed_ns = self.reconfiguration.view, self.context.now_ns - self.entered_ns
        waits = self._waits_for_others(view)
        timed_out = passed_ns >= (LEAVE_ANNOUNCE_NS if self.stopping else self._limit_ns())
        if waits and not timed_out:
            self._drain(False)  # This may resume: a node that held the rest may be lost since.
            self._report_wait()
        else:
            self._drain(True)
            if timed_out or self._all_acknowledged():
                self._stop_serving()

    def _limit_ns(self) -> int:
        """Return how long to try: `leave_ns`, and as long again if a peer is here that can take over."""
        leave_ns = self.context.settings.leave_ns
        has_reachable_peer = any(
            not peer.leaving for peer in self.reconfiguration.next_members.reachable_data_nodes()
        )
        return HAND_OVER_SHARES * leave_ns if has_reachable_peer else leave_ns

    def _waits_for_others(self, view: View | None) -> bool:
        """Return True if another node has yet to take what only this one holds, or to say that it stays."""
        if view is None:
            return False
        if self.stopping:
            self._sort_last_replicas(view, [])
            return any(not peer.leaving for peer in self.liveness.detector.heard_peers())
        staying = [
            node_id for node_id in handover_members(view, self.liveness) if node_id != self.context.node_id
        ]
        answered = [node_id for node_id in staying if self._will_stay(node_id, view)]
        limit_ns = ANSWER_HEARTBEATS * self.context.settings.heartbeat_ns
        if len(answered) < len(staying) and self.context.now_ns - self.entered_ns < limit_ns:
            return True
        self._sort_last_replicas(view, answered)
        if staying and not self.context.serving():
            return True
        return bool(self.last_replicas)

    def _will_stay(self, node_id: str, view: View) -> bool:
        """Return True if a member knows that this node leaves, and will not leave before it.

        Only what it has sent since it knows counts. Two nodes that were told to leave at the same moment once
        counted on each other.
        """
        peer = self.liveness.peers[node_id]
        knows = peer.lease_acked_epoch == view.epoch and peer.lease_acked_ns >= self._announced_ns[node_id]
        return knows and not peer.left and self.liveness.detector.recently_heard(peer)

    def _sort_last_replicas(self, view: View, staying: list[str]) -> None:
        """Find what no staying node has: in `last_replicas` if a node could come to get it, or `unshared`."""
        directory = self.reconfiguration.directory
        sorted_for = (directory.installed_epoch, directory.seq, staying, self.stopping)
        if sorted_for == self._sorted_for:
            return  # (A directory may hold 100,000 checkpoints, and this runs every millisecond.)
        self._sorted_for = sorted_for
        self.last_replicas, self.unshared = {}, {}
        for entry in directory.checkpoints.values():
            if not self._has_counting_replica(entry) or any(node_id in staying for node_id in entry.in_sync):
                continue
            if self._is_expected_elsewhere(entry, staying):
                self.last_replicas[entry.creation_id] = entry.name
            else:
                self.unshared[entry.creation_id] = entry.name

    def _has_counting_replica(self, entry: CheckpointEntry) -> bool:
        """Return True if this node's replica counts.

        It counts if it is in sync, or if an unavailable checkpoint waits for it.
        """
        me = self.context.node_id
        return entry.replicas.get(me, False) or entry.last_in_sync.get(me) == self.context.incarnation

    def _is_expected_elsewhere(self, entry: CheckpointEntry, staying: list[str]) -> bool:
        """Return True if some other node may get a replica.

        Of a collocated checkpoint, only a node that has it open may get one.
        """
        if self.stopping or not self.context.settings.peers:
            return False
        return not entry.attributes.collocated or any(node_id in staying for node_id in entry.replicas)

    def _report_wait(self) -> None:
        """Report once that this node waits because it is the last to hold something.

        The report is one line in the log, and a text that `ckptctl status` shows.
        """
        peers = ", ".join(self.context.settings.peers)
        if self.last_replicas and not self._wait_reported and not self.stopping:
            self._wait_reported = True
            seconds = self.context.settings.leave_ns / SECOND_NS
            text = (
                f"no other node has {_show(self.last_replicas)}: this node waits up to {seconds:g} s for "
                f"one of {peers}"
            )
            self.context.log(f"leaving: {text}", "warning")
            self.context.alarms["leaving"] = text

    def _drain(self, draining: bool) -> None:
        resumed = self.requests.draining and not draining
        self.requests.draining = draining
        if resumed:
            self.requests.retry_parked()

    def _stop_serving(self) -> None:
        self._enter(LeaveState.AWAITING_SUCCESSOR)
        self.context.sealed = True
        self.liveness.own.left = True
        self.liveness.heartbeats.send_all()
        taken = self.last_replicas | self.unshared
        if taken:
            text = f"leaving: no remaining node has {_show(taken)}: the replica of this node was the last one"
            self.context.log(text, "warning")
        if self.last_replicas:
            self.context.count("last_copies_taken", len(self.last_replicas))

    def _finish(self) -> None:
        self._enter(LeaveState.FINISHED)
        self.context.log("left")
        self.hub.on_left(self._outcome())
        self.context.effects.append(Leave(bool(self.last_replicas)))

    def _outcome(self) -> str:
        """Return the text for the operator who asked for this leave."""
        taken = self.last_replicas | self.unshared
        names = _show(taken) if taken else ""
        if not self.stopping:
            return (
                f"left, and the last replica of {names} is lost with this node"
                if names
                else "handed over: nothing is lost"
            )
        peers = self.liveness.peers.values()
        missed = ", ".join(peer.node_id for peer in peers if not peer.leaving and not self._has_ended(peer))
        text = f"every node stops; the data of the cluster is gone: {names or 'nothing'}"
        return f"{text}. Not reached; stop these where they run: {missed}" if missed else text

    def _has_ended(self, peer: Peer) -> bool:
        return peer.left or 0 < peer.incarnation <= peer.dead_incarnation

    def _has_successor(self) -> bool:
        """Return True if another node has taken over, or none is left to do so."""
        view, decided = self.reconfiguration.view, self.reconfiguration.decided
        if view is None or self.stopping or (len(view.members) == 1 and self.reconfiguration.is_stable):
            return True
        if decided is not None and self.context.node_id not in decided.members:
            return any(peer.epoch >= decided.epoch for peer in self.liveness.peers.values())
        return False

    def _all_acknowledged(self) -> bool:
        if self.reconfiguration.replicator.in_flight is not None or self.reconfiguration.replicator.queue:
            return False
        for replica in self.replicas.by_id.values():
            active = replica.active
            if active is None:
                continue
            active.flush_batch()
            if replica.log.committed_seq < replica.log.seq or active.answers_after_commit:
                return False
        return True


def _show(replicas: dict[int, bytes]) -> str:
    return show_names(replicas.values(), len(replicas))
