"""A planned leave: hand over first, so that no call fails and nothing is lost.

A node that was told to leave goes on serving until every checkpoint that it holds is in sync at a
member that stays. Then it orders nothing more, waits until all is acknowledged, and says that it has
left: whoever succeeds need not wait for its lease.

The last node waits, too. Three restarts in quick succession once lost everything, each with exit
code 0: the last holder found nobody to hand over to and went. Now it waits for a configured peer to
come back. Where none does in time it says what it takes with it (`Leave.last_copy`).

Nobody is waited for where nobody is expected: a node without peers, a collocated checkpoint that no
member that stays has open, a cluster that the operator stops as a whole.
"""

from collections.abc import Callable
from typing import Final

from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.context import Context
from ckptd.core.directory.directory import Entry
from ckptd.core.events import Leave
from ckptd.core.liveness.heartbeat import Heartbeats, Peer
from ckptd.core.membership.proposal import keepers
from ckptd.core.membership.reconfiguration import Membership
from ckptd.core.operations.alarms import show_names
from ckptd.core.replication.local_replicas import Replicas
from ckptd.core.requests.router import Requests
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.view import View

LINGER_NS: Final = SECOND_NS
"""How long a node that gave up waits to see the view without it; one that stops with all, for the others."""

STEP_NS: Final = MILLISECOND_NS

ANSWER_HEARTBEATS: Final = 4
"""How long it waits for the others' answers to its word that it leaves; who is silent is not counted on."""

HAND_OVER_SHARES: Final = 2
"""A leave takes so many times `leave_ns` at most: one to wait for a peer, one to hand over to it."""


class Leaving:
    """The leave of this node. `since_ns` is when it was asked for (-1: not yet), `left_ns` when it gave up.

    `stopping`: the operator stops the whole cluster. `last_copy`: what this node takes with it though a peer
    could have come for it, names by creation id; `alone`: what no other node was to have.
    """

    def __init__(
        self,
        context: Context,
        heartbeats: Heartbeats,
        membership: Membership,
        replicas: Replicas,
        requests: Requests,
    ) -> None:
        self.context = context
        self.heartbeats = heartbeats
        self.membership = membership
        self.replicas = replicas
        self.requests = requests
        self.since_ns = -1
        self.left_ns = -1
        self.stopping = False
        self.gone = False
        self.last_copy: dict[int, bytes] = {}
        self.alone: dict[int, bytes] = {}
        self.on_gone: Callable[[str], None] = lambda text: None
        self._said: dict[str, int] = {}
        self._sorted_at: object = None
        self._waits = False

    def start(self) -> None:
        """Begin, once."""
        if self.since_ns < 0:
            self.since_ns = self.context.now_ns
            self.heartbeats.leaving = True
            self.context.log("leaving: handing over")
            self.heartbeats.send_all()
            self._said = {peer.node_id: peer.stamped_ns for peer in self.heartbeats.peers.values()}

    def stop_all(self) -> None:
        """The operator stops the whole cluster: tell every peer, and wait for nobody's return."""
        if not self.stopping:
            self.stopping = True
            self.context.log("the operator stops the whole cluster", "warning")
            for node_id in self.heartbeats.peers:
                self._tell_stop(node_id)
        self.start()

    def on_peer_connected(self, node_id: str) -> None:
        """Say again what a broken link may have swallowed."""
        if self.stopping:
            self._tell_stop(node_id)

    def _tell_stop(self, node_id: str) -> None:
        self.context.send_peer(node_id, encode_frame(Kind.STOP, 0, self.context.epoch, 0))

    def on_time(self) -> None:
        if self.since_ns < 0 or self.gone:
            return
        context = self.context
        context.wake_at(context.now_ns + STEP_NS)
        if self.left_ns < 0:
            self._look()
        elif self._succeeded() or context.now_ns - self.left_ns >= LINGER_NS:
            self._go()

    def _look(self) -> None:
        """Give up once everything is handed over and acknowledged, or when the time for that is over."""
        view, passed_ns = self.membership.view, self.context.now_ns - self.since_ns
        waits = self._waits_for_others(view)
        late = passed_ns >= (LINGER_NS if self.stopping else self._limit_ns())
        if waits and not late:
            self._drain(False)  # Again, perhaps: one that held the rest is lost since.
            self._say_wait()
        else:
            self._drain(True)
            if late or self._all_acknowledged():
                self._give_up()

    def _limit_ns(self) -> int:
        """How long to try: `leave_ns`, and as long again where a peer is here that can take over."""
        leave_ns = self.context.settings.leave_ns
        here = any(not peer.leaving for peer in self.membership.candidates.newcomers())
        return HAND_OVER_SHARES * leave_ns if here else leave_ns

    def _waits_for_others(self, view: View | None) -> bool:
        """Whether somebody has still to take what only this node holds, or to say that he stays."""
        if view is None:
            return False
        if self.stopping:
            self._sort_copies(view, [])
            peers = self.heartbeats.peers.values()
            return any(not peer.leaving and self.heartbeats.hears(peer) for peer in peers)
        staying = [node_id for node_id in keepers(view, self.heartbeats) if node_id != self.context.node_id]
        answered = [node_id for node_id in staying if self._counts_on(node_id, view)]
        silent_ns = ANSWER_HEARTBEATS * self.context.settings.heartbeat_ns
        if len(answered) < len(staying) and self.context.now_ns - self.since_ns < silent_ns:
            return True
        self._sort_copies(view, answered)
        if staying and not self.context.serving():
            return True
        return bool(self.last_copy)

    def _counts_on(self, node_id: str, view: View) -> bool:
        """Whether a member knows that this node leaves, and has said since that it does not leave before it.

        What it said earlier counts for nothing: two that were told to leave at one moment once counted on
        each other.
        """
        peer = self.heartbeats.peers[node_id]
        knows = peer.echo_epoch == view.epoch and peer.echoed_ns >= self._said[node_id]
        return knows and not peer.left and self.heartbeats.hears(peer)

    def _sort_copies(self, view: View, staying: list[str]) -> None:
        """Find what nobody that stays has: `last_copy` where somebody could come to have it, else `alone`."""
        directory = self.membership.directory
        looked_at = (directory.installed_epoch, directory.seq, staying, self.stopping)
        if looked_at == self._sorted_at:
            return  # (A directory may hold 100,000 checkpoints, and this is asked every millisecond.)
        self._sorted_at = looked_at
        self.last_copy, self.alone = {}, {}
        for entry in directory.checkpoints.values():
            if not self._holds(entry) or any(node_id in staying for node_id in entry.in_sync):
                continue
            if self._is_expected(entry, staying):
                self.last_copy[entry.creation_id] = entry.name
            else:
                self.alone[entry.creation_id] = entry.name

    def _holds(self, entry: Entry) -> bool:
        """Whether this node's copy counts: it is in sync, or an unavailable checkpoint waits for it."""
        me = self.context.node_id
        return entry.replicas.get(me, False) or entry.holders.get(me) == self.context.incarnation

    def _is_expected(self, entry: Entry, staying: list[str]) -> bool:
        """Whether some other node may get a copy: of a collocated one only who has it open."""
        if self.stopping or not self.context.settings.peers:
            return False
        return not entry.attributes.collocated or any(node_id in staying for node_id in entry.replicas)

    def _say_wait(self) -> None:
        """One line, and what `ckptctl status` shows, once this node is the last that holds something."""
        peers = ", ".join(self.context.settings.peers)
        if self.last_copy and not self._waits and not self.stopping:
            self._waits = True
            seconds = self.context.settings.leave_ns / SECOND_NS
            text = (
                f"no other node holds {_show(self.last_copy)}: "
                f"this node waits up to {seconds:g} s for one of {peers}"
            )
            self.context.log(f"leaving: {text}", "warning")
            self.context.alarms["leaving"] = text

    def _drain(self, draining: bool) -> None:
        resumed = self.requests.draining and not draining
        self.requests.draining = draining
        if resumed:
            self.requests.again([])

    def _give_up(self) -> None:
        self.left_ns = self.context.now_ns
        self.context.frozen = True
        self.heartbeats.left = True
        self.heartbeats.send_all()
        taken = self.last_copy | self.alone
        if taken:
            text = f"leaving: no node that stays holds {_show(taken)}: this node's copy was the last"
            self.context.log(text, "warning")
        if self.last_copy:
            self.context.count("last_copies_taken", len(self.last_copy))

    def _go(self) -> None:
        self.gone = True
        self.context.log("left")
        self.on_gone(self._outcome())
        self.context.effects.append(Leave(bool(self.last_copy)))

    def _outcome(self) -> str:
        """What the operator is told who asked for this."""
        taken = self.last_copy | self.alone
        names = _show(taken) if taken else ""
        if not self.stopping:
            return (
                f"left, and took the last copy of {names} with it"
                if names
                else "handed over: nothing is lost"
            )
        peers = self.heartbeats.peers.values()
        missed = ", ".join(peer.node_id for peer in peers if not peer.leaving and not self._has_ended(peer))
        text = f"every node stops; what the cluster held is gone: {names or 'nothing'}"
        return f"{text}. Not reached, and to be stopped by hand where they run: {missed}" if missed else text

    def _has_ended(self, peer: Peer) -> bool:
        return peer.left or 0 < peer.incarnation <= peer.dead_incarnation

    def _succeeded(self) -> bool:
        """Whether nobody is left to take over, or somebody has."""
        view, decided = self.membership.view, self.membership.decided
        if view is None or self.stopping or (len(view.members) == 1 and self.membership.settled):
            return True
        if decided is not None and self.context.node_id not in decided.members:
            return any(peer.epoch >= decided.epoch for peer in self.heartbeats.peers.values())
        return False

    def _all_acknowledged(self) -> bool:
        if self.membership.order.staged is not None or self.membership.order.queue:
            return False
        for replica in self.replicas.held.values():
            active = replica.active
            if active is None:
                continue
            active.flush_batch()
            if replica.log.committed_seq < replica.log.seq or active.after_commit:
                return False
        return True


def _show(copies: dict[int, bytes]) -> str:
    return show_names(copies.values(), len(copies))
