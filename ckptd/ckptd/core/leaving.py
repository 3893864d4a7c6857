"""A planned leave: hand over first, so that no call fails and nothing is lost."""

from collections.abc import Callable
from typing import Final

from ckptd.core.context import Context
from ckptd.core.events import Leave
from ckptd.core.heartbeat import Heartbeats
from ckptd.core.membership import Membership
from ckptd.core.replicas import Replicas
from ckptd.core.requests import Requests
from ckptd.core.settings import MILLISECOND_NS

LINGER_NS = 1000 * MILLISECOND_NS
"""How long a node that gave up waits to see the view without it."""

STEP_NS = MILLISECOND_NS

ANSWER_HEARTBEATS: Final = 4
"""How long it waits for the others' first heartbeats since it said that it leaves."""


class Leaving:
    """First others get the replicas that only this node has; then it orders nothing more, and when all
    is acknowledged it says that it has left. Whoever succeeds need not wait for its lease."""

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
        self.late = False
        self.gone = False
        self.on_gone: Callable[[bool], None] = lambda late: None

    def start(self) -> None:
        """Begin, once."""
        if self.since_ns < 0:
            self.since_ns = self.context.now_ns
            self.heartbeats.leaving = True
            self.context.log("leaving: handing over")
            self.heartbeats.send_all()

    def on_time(self) -> None:
        if self.since_ns < 0 or self.gone:
            return
        context = self.context
        context.wake_at(context.now_ns + STEP_NS)
        if self.left_ns < 0:
            self.late = context.now_ns - self.since_ns >= context.settings.leave_ns
            if not self.late and not (self._have_answered() and self._others_hold_all()):
                self._drain(False)  # Again, perhaps: one that held the rest is lost since.
            else:
                self._drain(True)
                if self.late or self._all_acknowledged():
                    self._give_up()
        elif self._succeeded() or context.now_ns - self.left_ns >= LINGER_NS:
            self.gone = True
            context.log("left")
            self.on_gone(self.late)
            context.effects.append(Leave())

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

    def _succeeded(self) -> bool:
        """Whether nobody is left to take over, or somebody has."""
        view, decided = self.membership.view, self.membership.decided
        if view is None or (len(view.members) == 1 and self.membership.settled):
            return True
        if decided is not None and self.context.node_id not in decided.members:
            return any(peer.epoch >= decided.epoch for peer in self.heartbeats.peers.values())
        return False

    def _have_answered(self) -> bool:
        """Whether the other members have said whether they stay; a silent one is not waited for."""
        context, view, peers = self.context, self.membership.view, self.heartbeats.peers
        silent_ns = ANSWER_HEARTBEATS * context.settings.heartbeat_ns
        if view is None or context.now_ns - self.since_ns >= silent_ns:
            return True
        others = (node_id for node_id in view.members if node_id != context.node_id)
        return all(peers[node_id].heard_ns > self.since_ns for node_id in others)

    def _others_hold_all(self) -> bool:
        """Whether every checkpoint that can be is in sync at nodes that stay, if any do."""
        view, me = self.membership.view, self.context.node_id
        if view is None:
            return True
        peers = self.heartbeats.peers
        staying = [node_id for node_id in view.members if node_id != me and not peers[node_id].leaving]
        if not staying:
            # Who is about to be admitted is waited for: it can take over what only these nodes have.
            return not any(not peer.leaving for peer in self.membership.candidates.newcomers())
        if not self.context.serving():
            return False
        return all(
            entry.attributes.collocated or any(node_id in staying for node_id in entry.in_sync)
            for entry in self.membership.directory.checkpoints.values()
            if entry.replicas.get(me)
        )

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
