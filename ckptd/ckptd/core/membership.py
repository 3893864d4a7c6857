"""How views follow each other: who proposes one, whom it holds, and who must be waited for.

A would-be coordinator has the arbiter decide the next view, *then* has it collected and
installed (`installation`). Whoever learns of a decided view refuses every older epoch, and
a collector's answer freezes the node's old epoch.
"""

from collections.abc import Callable
from typing import Final

from ckpt_protocol.codec import pack_body, unpack_array
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter import Arbiter
from ckptd.core.context import Context
from ckptd.core.coordinator import DirectoryOrder
from ckptd.core.directory import Directory
from ckptd.core.heartbeat import Heartbeats
from ckptd.core.installation import Installation
from ckptd.core.view import View, following, founding, parse_view, succession

DEAF_HEARTBEATS: Final = 4
"""So many heartbeats long a member must fail to hear another before it is left out for that."""


class Membership:
    """`view` is the installed view, `decided` the newest that is known to be decided.

    `waiting_for` says, for the operator, what a view that is due waits for.
    """

    def __init__(
        self,
        context: Context,
        heartbeats: Heartbeats,
        arbiter: Arbiter,
        order: DirectoryOrder,
        on_installed: Callable[[View], None],
    ) -> None:
        self.context = context
        self.heartbeats = heartbeats
        self.arbiter = arbiter
        self.installation = Installation(context, heartbeats, order, self.learn, arbiter, on_installed)
        self.order = order
        self.decided: View | None = None
        self.waiting_for = "the other nodes"
        self.admit_since_ns = -1
        self.deaf_since_ns: dict[tuple[str, ...], int] = {}
        arbiter.decided = self._on_decided
        if not self._votes:
            self.decided = arbiter.record.view
            heartbeats.decided_epoch = heartbeats.disk_epoch = arbiter.disk_epoch

    @property
    def view(self) -> View | None:
        return self.installation.view

    @property
    def directory(self) -> Directory:
        return self.order.directory

    def describe_wait(self) -> str:
        """What this node waits for before it serves; "" when it does."""
        if self.settled and self.context.serving():
            return ""
        return self.installation.waiting_for or self.waiting_for

    @property
    def _votes(self) -> bool:
        """Whether views are voted on; else what is on a node's own disk was decided."""
        return self.context.settings.arbiter_name == "majority"

    @property
    def settled(self) -> bool:
        """Whether the newest decided view is installed and nothing is under way."""
        if (
            self.view is None
            or self.decided is None
            or self.installation.collection is not None
            or self.arbiter.busy
        ):
            return False
        return self.view.epoch == self.decided.epoch

    # -- deciding

    def consider(self) -> None:
        """Propose, collect or install, if it is this node's turn."""
        self.arbiter.on_time()
        base = self.decided
        context = self.context
        self.heartbeats.member = base is not None and base.has(context.node_id, context.incarnation)
        if base is None or not self.heartbeats.member:
            self._consider_outside()
            return
        first = self._first_alive(base)
        if first != context.node_id:
            self.installation.collection = None
            return
        wanted = self._wanted_members(base)
        current = {node_id: member.incarnation for node_id, member in base.members.items()}
        if wanted != current:
            if self._may_change(base, wanted):
                self._propose()
            return
        if self.view is not None and self.view.epoch >= base.epoch:
            return
        if base.coordinator != context.node_id or self.installation.lost_epoch == base.epoch:
            self._propose()
        elif self.installation.collection is None or self.installation.collection.view.epoch != base.epoch:
            self.installation.collect(base)
        else:
            self.installation.install_when_complete()

    def _first_alive(self, base: View) -> str:
        """Who acts: the first in succession that is alive, hears this node and does not leave."""
        alive = [
            node_id
            for node_id in succession(base)
            if self.heartbeats.alive(node_id, base.members[node_id].incarnation)
            and node_id not in self.heartbeats.complaints
            and self._hears_us(node_id)
        ]
        return alive[0] if alive else self.context.node_id

    def _hears_us(self, node_id: str) -> bool:
        """Whether a node can act for us: one that is deaf, and heard by all, would be waited for for ever."""
        me = self.context.node_id
        return node_id == me or self.heartbeats.peers[node_id].hears.get(me) == self.context.incarnation

    def _wanted_members(self, base: View) -> dict[str, int]:
        """The members of the next view: those alive that hear each other, in succession, then who joins."""
        heartbeats, me = self.heartbeats, self.context.node_id
        accused = self._accused(base)
        wanted: dict[str, int] = {}
        if not heartbeats.left:
            wanted[me] = self.context.incarnation
        for node_id in succession(base):
            member = base.members[node_id]
            if node_id == me or not heartbeats.alive(node_id, member.incarnation):
                continue
            if node_id in accused or self._is_deaf(node_id, wanted):
                continue
            wanted[node_id] = member.incarnation
        not_now = [*accused, *(n for n, member in base.members.items() if base.has(n, self._incarnation(n)))]
        return dict(sorted(self._with_joiners(wanted, not_now).items()))

    def _incarnation(self, node_id: str) -> int:
        peer = self.heartbeats.peers.get(node_id)
        return peer.incarnation if peer is not None else self.context.incarnation

    def _with_joiners(self, wanted: dict[str, int], not_now: list[str]) -> dict[str, int]:
        """These, and who may join them: a node that all of them hear and have links to, and it them."""
        joined = dict(wanted)
        for peer in self.heartbeats.peers.values():
            if peer.node_id in not_now or peer.node_id in joined or peer.leaving:
                continue
            if not self.heartbeats.hears(peer) or not peer.connected:
                continue
            linked = all(peer.linked.get(other) == incarnation for other, incarnation in joined.items())
            if linked and self._hear_each_other(peer.node_id, joined):
                joined[peer.node_id] = peer.incarnation
        return joined

    def _accused(self, base: View) -> list[str]:
        """Members whose acknowledgements some member waits for in vain."""
        accused = list(self.heartbeats.complaints)
        for node_id in base.members:
            peer = self.heartbeats.peers.get(node_id)
            if peer is not None and peer.epoch == base.epoch:
                accused.extend(peer.complaints)
        return accused

    def _is_deaf(self, node_id: str, others: dict[str, int]) -> bool:
        """Whether a member and one of these have not heard each other for some heartbeats.

        Not at once: it may know already that the other one is dead, which we learn next; to
        leave it out for that cost a lease's wait in three of forty kills.
        """
        context = self.context
        key = (node_id, *others)
        if self._hear_each_other(node_id, others):
            self.deaf_since_ns.pop(key, None)
            return False
        since_ns = self.deaf_since_ns.setdefault(key, context.now_ns)
        return context.now_ns - since_ns >= DEAF_HEARTBEATS * context.settings.heartbeat_ns

    def _hear_each_other(self, node_id: str, others: dict[str, int]) -> bool:
        peers = self.heartbeats.peers
        me = self.context.node_id
        its = peers[node_id]
        return all(
            its.hears.get(other) == incarnation
            and (other == me or peers[other].hears.get(node_id) == its.incarnation)
            for other, incarnation in others.items()
        )

    def _may_change(self, base: View, wanted: dict[str, int]) -> bool:
        """Whether to ask for a change now: losses at once; who joins alone waits a heartbeat for others."""
        context = self.context
        losses = any(wanted.get(node_id) != member.incarnation for node_id, member in base.members.items())
        if losses or self.view is None or self.view.epoch < base.epoch:
            self.admit_since_ns = -1
            return bool(wanted)
        if self.admit_since_ns < 0:
            self.admit_since_ns = context.now_ns
            context.wake_at(context.now_ns + 2 * context.settings.heartbeat_ns)
            return False
        return context.now_ns - self.admit_since_ns >= 2 * context.settings.heartbeat_ns

    def _consider_outside(self) -> None:
        """Not a member: wait to be admitted, or make a cold start when nobody is left who could admit us."""
        heartbeats, context = self.heartbeats, self.context
        heard = [peer for peer in heartbeats.peers.values() if heartbeats.hears(peer) and peer.connected]
        if any(peer.member for peer in heard):
            self.waiting_for = "admission by the cluster's members"
            return
        needed = self._needed()
        if len(heard) + 1 < needed:
            self.waiting_for = f"{needed} of the configured nodes for a cold start"
            return
        if min([context.node_id, *(peer.node_id for peer in heard)]) == context.node_id:
            self._propose()

    def _needed(self) -> int:
        """How many nodes a cold start takes: both of a pair, more than half of the voters, or the one."""
        pair = self.context.settings.arbiter_name == "pair"
        return len(self.context.settings.voters) if pair else self.arbiter.quorum

    def _propose(self) -> None:
        if not self.arbiter.busy and not self.heartbeats.left:
            self.arbiter.propose(self._next_view)

    def _next_view(self, current: View | None) -> View | None:
        """The rule that the arbiter applies to the view that it holds."""
        context, heartbeats = self.context, self.heartbeats
        if (
            current is not None
            and self._votes
            and (self.decided is None or current.epoch > self.decided.epoch)
        ):
            # A view that we did not know of may be decided already: it is decided again, as it stands.
            return current
        if current is not None and current.has(context.node_id, context.incarnation):
            wanted = self._wanted_members(current)
            if self._first_alive(current) != context.node_id or not self._proved(current):
                return None
            if not self._keeps_data(current, wanted):
                self.waiting_for = "a member that holds the directory, or proof that all of them are dead"
                return None
            epoch = max(current.epoch, heartbeats.decided_epoch) + 1
            if self.installation.lost_epoch == current.epoch:
                return founding(epoch, wanted)
            return following(current, epoch, wanted)
        members = self._with_joiners({context.node_id: context.incarnation}, [])
        if len(members) < self._needed():
            return None
        if current is not None and not all(
            heartbeats.proved_dead(node_id, member.incarnation) for node_id, member in current.members.items()
        ):
            self.waiting_for = "the members of the last view, or proof of their death"
            return None
        disk_epochs = [peer.disk_epoch for peer in heartbeats.peers.values() if heartbeats.hears(peer)]
        epoch = max(
            [current.epoch if current else 0, heartbeats.decided_epoch, self.arbiter.disk_epoch, *disk_epochs]
        )
        if current is None or all(
            heartbeats.proved_dead(departure.node_id, departure.incarnation)
            for departure in current.departures
        ):
            return founding(epoch + 1, members)
        # Somebody who left before may hold all there is, if the last view never served: that is seen
        # when the members' disks are collected (seed 20235).
        return following(current, epoch + 1, members)

    def _keeps_data(self, current: View, wanted: dict[str, int]) -> bool:
        """Whether the next view keeps somebody who may hold the directory.

        A member that joined and installed nothing since must not leave the older members
        behind: what they hold could never count again (seed 56).
        """
        joined = current.members[self.context.node_id].join_epoch
        if self.directory.installed_epoch >= joined:
            return True
        older = {n: member for n, member in current.members.items() if member.join_epoch < joined}
        return any(wanted.get(n) == member.incarnation for n, member in older.items()) or all(
            self.heartbeats.proved_dead(n, member.incarnation) for n, member in older.items()
        )

    def _proved(self, current: View) -> bool:
        """Under `pair` only the coordinator decides, unless it gave up or is proved dead (R1)."""
        context, heartbeats = self.context, self.heartbeats
        if context.settings.arbiter_name != "pair" or current.coordinator == context.node_id:
            return True
        coordinator = current.coordinator
        incarnation = current.members[coordinator].incarnation
        if heartbeats.gave_up(coordinator, incarnation, current.epoch):
            return True
        peer = heartbeats.peers[coordinator]
        if not heartbeats.proved_dead(coordinator, incarnation):
            self.waiting_for = f"proof that coordinator {coordinator} is dead, or its return"
            return False
        restarted = peer.incarnation > incarnation
        if restarted and heartbeats.hears(peer):
            return peer.disk_epoch <= self.arbiter.disk_epoch
        return peer.refused_epoch == current.epoch

    def _on_decided(self, view: View) -> None:
        self.context.log(f"view {view.epoch} decided: {', '.join(view.members)}")
        self.learn(view)
        if view.coordinator != self.context.node_id:
            for node_id in view.members:
                self.send_decided(node_id)
        if view.coordinator == self.context.node_id:
            # Whether it is the right view still is considered with the next heartbeat, not at once: two
            # views that each follow from the other would have no end (seed 50084).
            self.installation.collect(view)

    def send_decided(self, node_id: str) -> None:
        """Tell a node of the newest decided view, when it shows that it does not know it."""
        if self.decided is not None and node_id != self.context.node_id:
            body = pack_body([self.decided.fields()])
            self.context.send_peer(node_id, encode_frame(Kind.DECIDED, 0, self.decided.epoch, 0, body))

    def learn(self, view: View) -> bool:
        """A view was decided: no older epoch is served or acknowledged from now on.

        Answers whether it is the newest that is known.
        """
        if self.decided is not None and view.epoch <= self.decided.epoch:
            return view.epoch == self.decided.epoch
        self.decided = view
        self.heartbeats.decided_epoch = max(self.heartbeats.decided_epoch, view.epoch)
        self.context.frozen = True
        self.arbiter.note(view)
        self.heartbeats.disk_epoch = self.arbiter.disk_epoch
        self.installation.forget_older(view.epoch)
        self.admit_since_ns = -1
        self.deaf_since_ns.clear()
        return True

    def on_decided_elsewhere(self, frame: Frame) -> None:
        """A node tells of a decided view. Raises: FrameError."""
        view = parse_view(unpack_array(frame.body, 1)[0])
        if self.decided is None or view.epoch > self.decided.epoch:
            self.learn(view)
            self.consider()

    def on_heartbeat(self, node_id: str, epoch: int, decided_epoch: int) -> None:
        """Who runs the installed view needs its INSTALL no more; one that lags is told what was decided."""
        if self.view is not None and epoch == self.view.epoch:
            self.installation.installs.pop(node_id, None)
        if self.decided is not None and decided_epoch < self.decided.epoch:
            self.send_decided(node_id)
