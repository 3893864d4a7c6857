"""How views follow each other: who proposes one, whom it holds, and when it is installed.

A would-be coordinator has the arbiter decide the next view, *then* collects from its
members, *then* installs. Whoever learns of a decided view refuses every older epoch, and
a collector's answer freezes the node's old epoch. It knows the directory only as
something that is collected and installed.
"""

from collections.abc import Callable
from typing import Any

from ckpt_protocol.codec import pack_body, unpack_array
from ckpt_protocol.framing import Frame, FrameError, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter import Arbiter
from ckptd.core.context import Context
from ckptd.core.coordinator import DirectoryOrder
from ckptd.core.directory import Directory, read_snapshot
from ckptd.core.heartbeat import CLOCK_SKEW, Heartbeats
from ckptd.core.view import View, following, founding, parse_view, served_between, succession, was_member


class Collection:
    """What a coordinator has gathered for a decided view."""

    __slots__ = ("complete_ns", "replies", "view")

    def __init__(self, view: View) -> None:
        self.view = view
        self.replies: dict[str, Collected] = {}
        self.complete_ns = -1


class Collected:
    """One member's answer: how far its directory is, and the directory where the coordinator's lies behind."""

    __slots__ = ("committed_seq", "directory", "installed_epoch", "staged")

    def __init__(self, installed_epoch: int, committed_seq: int, staged: bytes | None, directory: Any) -> None:
        self.installed_epoch = installed_epoch
        self.committed_seq = committed_seq
        self.staged = staged
        self.directory = directory

    @property
    def place(self) -> tuple[int, int]:
        """How advanced it is."""
        return self.installed_epoch, self.committed_seq + (self.staged is not None)


class Membership:
    """`view` is the installed view, `decided` the newest that is known to be decided."""

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
        self.order = order
        self.on_installed = on_installed
        self.view: View | None = None
        self.decided: View | None = None
        self.collection: Collection | None = None
        self.waiting_for = "the other nodes"
        self.admit_since_ns = -1
        self.installs: dict[str, bytes] = {}
        arbiter.decided = self._on_decided
        if not self._votes:
            self.decided = arbiter.record.view
            heartbeats.decided_epoch = heartbeats.disk_epoch = arbiter.disk_epoch

    @property
    def directory(self) -> Directory:
        return self.order.directory

    @property
    def _votes(self) -> bool:
        """Whether views are voted on; else what is on a node's own disk was decided."""
        return self.context.settings.arbiter_name == "majority"

    @property
    def settled(self) -> bool:
        """Whether the newest decided view is installed and nothing is under way."""
        if self.view is None or self.decided is None or self.collection is not None or self.arbiter.busy:
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
            self.collection = None
            return
        wanted = self._wanted_members(base)
        current = {node_id: member.incarnation for node_id, member in base.members.items()}
        if wanted != current:
            if self._may_change(base, wanted):
                self._propose()
            return
        if self.view is not None and self.view.epoch >= base.epoch:
            return
        if base.coordinator != context.node_id:
            self._propose()
        elif self.collection is None or self.collection.view.epoch != base.epoch:
            self._collect(base)
        else:
            self._install_when_complete()

    def _first_alive(self, base: View) -> str:
        """Who acts: the first in succession that is alive and does not leave."""
        alive = [
            node_id
            for node_id in succession(base)
            if self.heartbeats.alive(node_id, base.members[node_id].incarnation)
            and node_id not in self.heartbeats.complaints
        ]
        return alive[0] if alive else self.context.node_id

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
            if node_id in accused or not self._hear_each_other(node_id, wanted):
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
        """Members whose acknowledgements some member waits for in vain. Nobody accuses its way to the front."""
        accused = list(self.heartbeats.complaints)
        for node_id in base.members:
            peer = self.heartbeats.peers.get(node_id)
            if peer is not None and peer.epoch == base.epoch:
                accused.extend(peer.complaints)
        return accused

    def _hear_each_other(self, node_id: str, others: dict[str, int]) -> bool:
        peers = self.heartbeats.peers
        me = self.context.node_id
        its = peers[node_id]
        return all(
            its.hears.get(other) == incarnation and (other == me or peers[other].hears.get(node_id) == its.incarnation)
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
        if current is not None and self._votes and (self.decided is None or current.epoch > self.decided.epoch):
            # A view that we did not know of may be decided already: it is decided again, as it stands.
            return current
        if current is not None and current.has(context.node_id, context.incarnation):
            wanted = self._wanted_members(current)
            if self._first_alive(current) != context.node_id or not self._proved(current, wanted):
                return None
            if not self._keeps_data(current, wanted):
                self.waiting_for = "a member that holds the directory, or proof that all of them are dead"
                return None
            return following(current, max(current.epoch, heartbeats.decided_epoch) + 1, wanted)
        members = self._with_joiners({context.node_id: context.incarnation}, [])
        if len(members) < self._needed():
            return None
        if current is not None and not all(
            heartbeats.proved_dead(node_id, member.incarnation) for node_id, member in current.members.items()
        ):
            self.waiting_for = "the members of the last view, or proof of their death"
            return None
        disk_epochs = [peer.disk_epoch for peer in heartbeats.peers.values() if heartbeats.hears(peer)]
        epoch = max([current.epoch if current else 0, heartbeats.decided_epoch, self.arbiter.disk_epoch, *disk_epochs])
        return founding(epoch + 1, members)

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

    def _proved(self, current: View, wanted: dict[str, int]) -> bool:
        """Under `pair` only the coordinator may leave the other behind without proof of its death (R1)."""
        context, heartbeats = self.context, self.heartbeats
        if context.settings.arbiter_name != "pair" or current.coordinator == context.node_id:
            return True
        coordinator = current.coordinator
        incarnation = current.members[coordinator].incarnation
        if wanted.get(coordinator) == incarnation or heartbeats.gave_up(coordinator, incarnation):
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
        self.consider()

    def send_decided(self, node_id: str) -> None:
        """Tell a node of the newest decided view, when it shows that it does not know it."""
        if self.decided is not None and node_id != self.context.node_id:
            body = pack_body([self.decided.fields()])
            self.context.send_peer(node_id, encode_frame(Kind.DECIDED, 0, self.decided.epoch, 0, body))

    def learn(self, view: View) -> None:
        """A view was decided: no older epoch is served or acknowledged from now on."""
        if self.decided is not None and view.epoch <= self.decided.epoch:
            return
        self.decided = view
        self.heartbeats.decided_epoch = max(self.heartbeats.decided_epoch, view.epoch)
        self.context.frozen = True
        self.arbiter.note(view)
        self.heartbeats.disk_epoch = self.arbiter.disk_epoch
        self.installs.clear()
        if self.collection is not None and self.collection.view.epoch < view.epoch:
            self.collection = None

    def on_decided_elsewhere(self, frame: Frame) -> None:
        """A node tells of a decided view. Raises: FrameError."""
        view = parse_view(unpack_array(frame.body, 1)[0])
        if self.decided is None or view.epoch > self.decided.epoch:
            self.learn(view)
            self.consider()

    # -- collecting

    def _collect(self, view: View) -> None:
        self.collection = Collection(view)
        self.collection.replies[self.context.node_id] = self._collected_here(None)
        for node_id in view.members:
            if node_id != self.context.node_id:
                self._send_collect(node_id)
        self._install_when_complete()

    def _send_collect(self, node_id: str) -> None:
        assert self.collection is not None
        view = self.collection.view
        installed_epoch, seq = self.collection.replies[self.context.node_id].place
        if installed_epoch < view.members[self.context.node_id].join_epoch:
            installed_epoch, seq = 0, 0  # Ours may not count: have theirs sent, whatever it is.
        body = pack_body([view.fields(), installed_epoch])
        frame = encode_frame(Kind.COLLECT, 0, view.epoch, seq, body)
        self.context.send_peer(node_id, frame)

    def _collected_here(self, behind: tuple[int, int] | None) -> Collected:
        directory = self.directory
        collected = Collected(directory.installed_epoch, directory.seq, self.order.staged, None)
        if behind is not None and collected.place > behind:
            collected.directory = directory.snapshot(self.context.now_ns)
        return collected

    def on_collect(self, node_id: str, frame: Frame) -> None:
        """Freeze, and tell the coordinator how far this member's directory is. Raises: FrameError."""
        fields = unpack_array(frame.body, 2)
        view = parse_view(fields[0])
        if self.decided is not None and view.epoch < self.decided.epoch:
            return
        if self.view is not None and self.view.epoch >= view.epoch:
            return
        if not view.has(self.context.node_id, self.context.incarnation):
            return
        self.learn(view)
        collected = self._collected_here((int(fields[1]), frame.c))
        body = [collected.installed_epoch, collected.committed_seq, collected.staged, collected.directory]
        reply = encode_frame(Kind.COLLECTED, 0, view.epoch, collected.place[1], pack_body(body))
        self.context.send_peer(node_id, reply)

    def on_collected(self, node_id: str, frame: Frame) -> None:
        """A member's answer. Raises: FrameError."""
        collection = self.collection
        if collection is None or frame.b != collection.view.epoch or node_id not in collection.view.members:
            return
        installed_epoch, committed_seq, staged, directory = unpack_array(frame.body, 4)[:4]
        collection.replies[node_id] = Collected(installed_epoch, committed_seq, staged, directory)
        self._install_when_complete()

    def _install_when_complete(self) -> None:
        collection = self.collection
        if collection is None or len(collection.replies) < len(collection.view.members):
            self.waiting_for = "the members' answers to the collector"
            return
        if collection.complete_ns < 0:
            collection.complete_ns = self.context.now_ns
        wait_ns = self._leases_end_ns(collection)
        if self.context.now_ns < wait_ns:
            self.waiting_for = "the end of the leases of those left behind"
            self.context.wake_at(wait_ns)
            return
        self._install_collected(collection)

    def _leases_end_ns(self, collection: Collection) -> int:
        """When the last lease of a node that this view leaves behind has surely ended.

        Who left before the newest view that a member has installed was waited for then. A
        lease needs every member's echo: a coordinator that was a member itself goes by its
        own last one, any other by when all members had answered the collector.
        """
        context, heartbeats, view = self.context, self.heartbeats, collection.view
        installed_epoch = max(reply.installed_epoch for reply in collection.replies.values())
        was_member = view.members[context.node_id].join_epoch <= installed_epoch
        end_ns = context.now_ns
        for departure in view.departures:
            node_id, incarnation = departure.node_id, departure.incarnation
            if departure.last_epoch < installed_epoch or node_id == context.node_id:
                continue
            if heartbeats.proved_dead(node_id, incarnation) or heartbeats.gave_up(node_id, incarnation):
                continue
            if was_member:
                end_ns = max(end_ns, heartbeats.lease_left_behind_ns(node_id))
            else:
                lease_ns = context.settings.lease_ns
                end_ns = max(end_ns, collection.complete_ns + lease_ns + lease_ns // CLOCK_SKEW)
        return end_ns

    # -- installing

    def _install_collected(self, collection: Collection) -> None:
        view, replies = collection.view, collection.replies
        installed = {node_id: reply.installed_epoch for node_id, reply in replies.items()}
        if served_between(view, installed):
            counted = {n: reply for n, reply in replies.items() if installed[n] >= view.members[n].join_epoch}
        else:
            counted = {n: reply for n, reply in replies.items() if 0 < installed[n] == max(installed.values())}
        if not counted and not self._nothing_to_lose(view):
            self.waiting_for = "a member that holds the directory"
            return
        if not counted:
            base = Collected(0, 0, None, Directory().snapshot(self.context.now_ns))
        else:
            best = max(counted, key=lambda node_id: (counted[node_id].place, node_id == self.context.node_id))
            base = counted[best]
        if served_between(view, installed):
            stayed = [n for n, member in view.members.items() if member.join_epoch <= base.installed_epoch]
        else:
            stayed = [n for n in view.members if was_member(view, n, base.installed_epoch)]
        base_place = base.place
        if base.directory is not None:
            self.order.directory = read_snapshot(base.directory, self.context.now_ns)
            self.order.staged = base.staged
        snapshot = pack_body(self._finished_snapshot())
        for node_id in view.members:
            if node_id != self.context.node_id:
                same = counted.get(node_id) is not None and counted[node_id].place == base_place
                body = [view.fields(), base.installed_epoch, None if same else snapshot, stayed]
                frame = encode_frame(Kind.INSTALL, 0, view.epoch, self.directory.seq, pack_body(body))
                self.installs[node_id] = frame
                self.context.send_peer(node_id, frame)
        self.collection = None
        self._install(view, stayed)

    def _nothing_to_lose(self, view: View) -> bool:
        """Whether an empty directory is right, where no member has one.

        A founder that never installed would have had to acknowledge every change; and when
        everybody that may have gone on is dead, what they held is gone with them. A member
        that left and came back holds what others may have gone on from: that counts for
        nothing, and goes to quarantine.
        """
        if any(member.join_epoch == view.founded for member in view.members.values()):
            return True
        return all(
            self.heartbeats.proved_dead(departure.node_id, departure.incarnation)
            or view.has(departure.node_id, departure.incarnation)
            for departure in view.departures
        )

    def _finished_snapshot(self) -> list[Any]:
        """A new coordinator finishes the operation that was staged before anything else."""
        if self.order.staged is not None:
            self.order.finish()
        return self.directory.snapshot(self.context.now_ns)

    def on_install(self, node_id: str, frame: Frame) -> None:
        """The coordinator's word. Raises: FrameError."""
        fields = unpack_array(frame.body, 4)
        view = parse_view(fields[0])
        if not view.has(self.context.node_id, self.context.incarnation):
            return
        if (self.view is not None and view.epoch <= self.view.epoch) or (
            self.decided is not None and view.epoch < self.decided.epoch
        ):
            return
        self.learn(view)
        if fields[2] is not None:
            if type(fields[2]) is not bytes:
                raise FrameError("an INSTALL whose directory is no bytes")
            self.order.directory = read_snapshot(unpack_array(fields[2], 4), self.context.now_ns)
            self.order.staged = None
        elif self.order.staged is not None and self.directory.seq < frame.c:
            self.order.finish()
        if self.directory.seq != frame.c or self.directory.installed_epoch != fields[1]:
            return
        self._install(view, [str(stayer) for stayer in fields[3]])

    def _install(self, view: View, stayed: list[str]) -> None:
        context = self.context
        self.directory.install(view, stayed)
        self.view = view
        context.epoch = view.epoch
        context.frozen = False
        context.acks.clear()
        self.waiting_for = ""
        self.admit_since_ns = -1
        self.heartbeats.complaints = ()
        self.heartbeats.renew_lease(view)
        names = ", ".join(view.members)
        context.log(f"view {view.epoch} installed: members {names}; coordinator {view.coordinator}")
        self.on_installed(view)
        self.heartbeats.send_all()

    def on_peer_connected(self, node_id: str) -> None:
        """Say again what a broken link may have swallowed."""
        if self.collection is not None and node_id in self.collection.view.members:
            self._send_collect(node_id)
        elif node_id in self.installs:
            self.context.send_peer(node_id, self.installs[node_id])

    def on_heartbeat(self, node_id: str, epoch: int, decided_epoch: int) -> None:
        """A member that runs the installed view needs its INSTALL no more; one that lags is told what was decided."""
        if self.view is not None and epoch == self.view.epoch:
            self.installs.pop(node_id, None)
        if self.decided is not None and decided_epoch < self.decided.epoch:
            self.send_decided(node_id)
