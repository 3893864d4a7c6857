"""The first half of a view change: who proposes the next view, which nodes it contains, who is waited for.

A would-be coordinator has the arbiter decide the next view, and *then* has it collected and installed
(`view_change`). A node that learns of a decided view refuses every older epoch; a node that answers a
collector seals its old epoch.
"""

from typing import Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.base_arbiter import Arbiter, NoView
from ckptd.core.arbiter.disk_record import ANY_EPOCH
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.liveness.incarnations import Incarnations, incarnations_in
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.next_members import NextMembers
from ckptd.core.membership.outlived_view import OutlivedView
from ckptd.core.membership.pair_policy import PairPolicy
from ckptd.core.membership.view_change import ViewChange
from ckptd.core.parse_views import parse_decided
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, View, bootstrap_view, successor_view

NOT_SERVING_GRACES: Final = 3
"""How many graces an installed view may go unserved before it is abandoned. A slow disk is no reason."""


class Reconfiguration:
    """Decides when this node proposes a view, and follows what was decided.

    `view` is the installed view, `decided` the newest view that is known to be decided. `waiting_for` tells
    the operator what a view change that is due is waiting for.
    """

    def __init__(
        self,
        context: Context,
        liveness: Liveness,
        arbiter: Arbiter,
        replicator: DirectoryReplicator,
        hub: Hub,
    ) -> None:
        self.context = context
        self.liveness = liveness
        self.arbiter = arbiter
        self.store = arbiter.store
        self.next_members = NextMembers(context, liveness)
        self.pair_policy = PairPolicy(context, liveness, arbiter.store)
        self.view_change = ViewChange(context, liveness, replicator, self.adopt_decided, arbiter.store, hub)
        self.incarnations = Incarnations(context, liveness, hub)
        self.replicator = replicator
        self.decided: View | None = None
        self.waiting_for = "the other nodes"
        self.unproven_base: View | None = None
        """The view that the proposed one follows without proof that its coordinator is dead (`pair`)."""
        self.join_batch_since_ns = -1
        self.minority_since_ns = -1
        self.not_serving_since_ns = context.now_ns
        self.outlived = OutlivedView(context, liveness, arbiter.store, self.incarnations, arbiter.has_voters)
        if arbiter.has_voters:
            liveness.own.amnesiac = self.store.amnesiac
        else:
            # There are no votes here that a view could give back by naming this node: what a lost disk knew
            # stays unknown until a view is installed.
            liveness.own.amnesiac = self.store.installed_by_earlier_incarnations == ANY_EPOCH
            self.decided = self.store.record.view
            liveness.own.decided_epoch = self.store.epoch

    @property
    def view(self) -> View | None:
        return self.view_change.view

    @property
    def directory(self) -> Directory:
        return self.replicator.directory

    def on_local_pause(self, pause_ns: int) -> None:
        """Move the times on by a pause of this process: no member kept it waiting then."""
        self.next_members.on_local_pause(pause_ns)
        self.not_serving_since_ns += pause_ns
        if self.view_change.collection is not None:
            self.view_change.collection.on_local_pause(pause_ns)

    def stalled_members(self) -> list[str]:
        """Return members that keep a view from being served: no answer to its collector, or no lease."""
        since_ns = self.context.now_ns - self.context.settings.replica_timeout_ns
        collection = self.view_change.collection
        if collection is not None:
            return collection.stalled_members(since_ns)
        view, context = self.view, self.context
        if view is None or context.sealed or context.serving():
            self.not_serving_since_ns = context.now_ns
            return []
        late = context.now_ns - self.not_serving_since_ns >= NOT_SERVING_GRACES * context.settings.grace_ns
        return self.liveness.lease.members_without_ack(view) if late else []

    def describe_wait(self) -> str:
        """Return what this node waits for before it serves; "" when it serves."""
        if self.is_stable and self.context.serving():
            return ""
        return self.incarnations.explain_wait(self.view_change.waiting_for or self.waiting_for)

    @property
    def is_stable(self) -> bool:
        """Return True if the newest decided view is installed and nothing is in progress."""
        if self.view is None or self.decided is None or self.view_change.busy or self.arbiter.busy:
            return False
        return self.view.epoch == self.decided.epoch

    # -- deciding

    def reconfigure_if_needed(self) -> None:
        """Propose, collect or install, if it is this node's turn."""
        self.arbiter.on_time()
        self.arbiter.update_alarm(self.next_members.reachable_voters())
        base = self.decided
        context = self.context
        self.liveness.own.member = base is not None and base.includes(context.node_id, context.incarnation)
        self.outlived.update()
        if context.settings.arbiter_name == "pair" and self.incarnations.superseded:
            # For the other node a different daemon has our node id: alone, this one would start a second
            # history.
            return
        if base is None or not self.liveness.own.member:
            self._reconfigure_as_outsider()
            return
        if self.next_members.is_next_coordinator(base):
            self.arbiter.prepare_ahead()
        first = self.next_members.acting_coordinator(base)
        if first != context.node_id:
            self.view_change.collection = None
            self.waiting_for = f"node {first}, which has to propose the next view"
            return
        proposed = self.next_members.proposed_members(base)
        if proposed != base.incarnations or self.next_members.has_amnesiac_witness(base):
            if self._should_propose(base, proposed):
                self._propose()
            return
        if self.view is not None and self.view.epoch >= base.epoch:
            self.waiting_for = "the acknowledgement of every other member"
            return
        if base.coordinator != context.node_id or self.view_change.abandoned_epoch == base.epoch:
            self._propose()
        elif not self.view_change.is_installing(base.epoch):
            self.view_change.collect(base)
        else:
            self.view_change.install_when_complete()

    def _should_propose(self, base: View, proposed: dict[str, int]) -> bool:
        """Return True if a change may be proposed now.

        A loss is proposed at once. When nodes only join, this node waits two heartbeats for others to join
        with them.
        """
        context = self.context
        losses = any(proposed.get(node_id) != member.incarnation for node_id, member in base.members.items())
        if losses or self.view is None or self.view.epoch < base.epoch:
            self.join_batch_since_ns = -1
            return bool(proposed) and self._is_large_enough(base, proposed)
        if self.join_batch_since_ns < 0:
            self.join_batch_since_ns = context.now_ns
            context.wake_at(context.now_ns + 2 * context.settings.heartbeat_ns)
            return False
        return context.now_ns - self.join_batch_since_ns >= 2 * context.settings.heartbeat_ns

    def _is_large_enough(self, base: View, proposed: dict[str, int]) -> bool:
        """Return True if this side is large enough to propose, or let the others go first for long enough.

        The first proposer wins. Without the wait, a single node that happened to be first would stop all
        others.
        """
        context = self.context
        kept, living = 0, 0
        for node_id, member in base.members.items():
            kept += proposed.get(node_id) == member.incarnation
            living += not self.liveness.deaths.counts_as_dead(node_id, member.incarnation)
        if not self.arbiter.has_voters or 2 * kept >= living:
            self.minority_since_ns = -1
            return True
        if self.minority_since_ns < 0:
            self.minority_since_ns = context.now_ns
        return context.now_ns - self.minority_since_ns >= context.settings.grace_ns // 2

    def _reconfigure_as_outsider(self) -> None:
        """Wait for admission, or propose a cold start when no member is left that could admit us."""
        context = self.context
        heard = self.next_members.reachable_data_nodes()
        if any(peer.member for peer in heard):
            self.waiting_for = "the members of the cluster, to admit this node"
            return
        needed = f"{self._bootstrap_quorum()} of {len(context.settings.voters)}"
        if not self._has_bootstrap_quorum(len(heard) + 1):
            self.waiting_for = f"{needed} nodes for a cold start"
            return
        if self.waiting_for == f"{needed} nodes for a cold start":
            # The nodes are here. (One with an empty state directory has no vote while another remembers a
            # view.)
            self.waiting_for = f"{needed} votes for a cold start"
        view = self.store.record.view
        level = view.feature_level if view is not None else 0
        fit = [peer.node_id for peer in heard if self.liveness.features.admits(peer, level)]
        if min([context.node_id, *fit]) == context.node_id:
            self._propose()

    def _bootstrap_quorum(self) -> int:
        """Return how many nodes a cold start needs: both of a `pair`, most of the voters, or the only one."""
        pair = self.context.settings.arbiter_name == "pair"
        return len(self.context.settings.voters) if pair else self.arbiter.quorum

    def _has_bootstrap_quorum(self, nodes: int) -> bool:
        """Return True if so many data nodes, with the witnesses that are here, can make a cold start."""
        return nodes + len(self.next_members.reachable_witnesses()) >= self._bootstrap_quorum()

    def _propose(self) -> None:
        if self.store.pending is None and not self.arbiter.busy and not self.liveness.own.left:
            if "arbiter" in self.context.alarms:
                self.waiting_for = f"the arbiter: {self.context.alarms['arbiter']}"
            self.arbiter.propose(self._next_view)

    def _next_view(self, current: View | None) -> View | NoView:
        """The arbiter's `NextViewRule`: the view to follow `current`, its last; or why none may."""
        self.unproven_base = None
        if self.decided is not None and (current is None or current.epoch < self.decided.epoch):
            current = self.decided  # By an operator command, past the arbiter.
        elif (
            current is not None
            and self.arbiter.has_voters
            and (self.decided is None or current.epoch > self.decided.epoch)
        ):
            # A view that we did not know of may already be decided: it is decided again, unchanged.
            return current
        if current is not None and current.feature_level > self.context.settings.feature_level:
            self.waiting_for = "a later version of ckptd on this node (see alarm too_old)"
            return NoView.NOT_NOW
        if current is not None and current.includes(self.context.node_id, self.context.incarnation):
            view = self._successor_view(current)
        else:
            view = self._bootstrap_view(current)
        return view if isinstance(view, NoView) else self.next_members.at_common_level(view, current)

    def _successor_view(self, current: View) -> View | NoView:
        """Return the view to follow `current`, of which this node is a member; or why none may."""
        proposed = self.next_members.proposed_members(current)
        if not proposed or self.next_members.acting_coordinator(current) != self.context.node_id:
            return NoView.NOT_NOW  # (The only member, this node, left while the register was read.)
        if self._needs_no_change(current, proposed):
            return NoView.NOT_NOW  # The node that was to join has fallen silent in the meantime.
        if self._is_behind(current):
            return NoView.BEHIND
        epoch = self.last_epoch(current) + 1
        if self.context.settings.arbiter_name == "pair":
            if not self.pair_policy.may_succeed(current, proposed):
                self.waiting_for = self.pair_policy.waiting_for
                return NoView.NOT_NOW
            epoch = self.pair_policy.next_epoch(current, epoch - 1)
            self.unproven_base = current if self.pair_policy.accepts_data_loss(current) else None
        if not self._retains_directory(current, proposed):
            self.waiting_for = (
                "a member that has the directory, or proof that all nodes that have it are dead"
            )
            return NoView.NOT_NOW
        if self.view_change.abandoned_epoch == current.epoch:
            return bootstrap_view(epoch, proposed, self.next_members.reachable_witnesses())
        return successor_view(
            current, epoch, proposed, self.next_members.reachable_witnesses(), self.context.epoch
        )

    def _needs_no_change(self, current: View, proposed: dict[str, int]) -> bool:
        installed = self.view is not None and self.view.epoch >= current.epoch
        unchanged = installed and proposed == current.incarnations
        return unchanged and not self.next_members.has_amnesiac_witness(current)

    def _report_data_loss(self, current: View) -> None:
        text = (
            f"this node continues without proof that coordinator {current.coordinator} is dead: it "
            "does not have what that node acknowledged alone; that data goes to quarantine if the "
            "node comes back"
        )
        incarnation = current.members[current.coordinator].incarnation
        if not self.liveness.deaths.counts_as_dead(current.coordinator, incarnation):
            # (Operator commands and fence hooks were counted when they came.)
            self.context.count("losses_accepted")
        self.context.log(text, "warning")

    def _bootstrap_view(self, current: View | None) -> View | NoView:
        """Return the view of a cold start, when no member of the last view is left; or why none may be."""
        deaths = self.liveness.deaths
        if self._is_behind(current):
            return NoView.BEHIND
        members = self.next_members.with_joiners(
            {self.context.node_id: self.context.incarnation}, [], current
        )
        if not self._has_bootstrap_quorum(len(members)):
            return NoView.NOT_NOW
        members_before = current.members.items() if current is not None else ()
        missing = [n for n, member in members_before if not deaths.counts_as_dead(n, member.incarnation)]
        if missing:
            names = ", ".join(missing)
            self.waiting_for = f"the members of the last view, or proof that they are dead: {names}"
            return NoView.NOT_NOW
        epoch, witnesses = self.last_epoch(current) + 1, self.next_members.reachable_witnesses()
        if current is None or all(
            deaths.counts_as_dead(past.node_id, past.incarnation) for past in current.past_memberships
        ):
            return bootstrap_view(epoch, members, witnesses)
        # A node that left earlier may hold all the data, if the last view never served. That is known once
        # the members' disks are collected (seed 20235).
        unserved_epochs = (current.epoch,) if deaths.died_before_installing(current) else ()
        return successor_view(current, epoch, members, witnesses, self.context.epoch, unserved_epochs)

    def _is_behind(self, current: View | None) -> bool:
        """Return True if this node's disk, or a node that is heard, knows of a newer view than `current`.

        A view that follows the older one would ignore what was served in the newer. Voters know what a
        majority decided, but not the view that an operator forced on one of them. A member of such a view
        that restarts may have only its epoch, on disk, while the others still serve in it. If the view had no
        other member, nobody serves in it, and this node would wait for ever (seed 7170870).
        """
        ahead = self._nodes_ahead(current.epoch if current is not None else 0)
        if ahead:
            self.waiting_for = f"a newer view, of which node {', '.join(ahead)} knows"
        return bool(ahead)

    def _nodes_ahead(self, epoch: int) -> list[str]:
        """Return the nodes, perhaps this one, that know of a newer view than that of `epoch`."""
        of_a_command = epoch + EPOCH_JUMP_DATA_LOSS // 2
        voters = self.arbiter.has_voters
        newer = of_a_command if voters else epoch + 1
        own = voters and self.store.epoch >= of_a_command and not self.liveness.own.outlived_command
        others = (
            peer.node_id
            for peer in self.liveness.detector.heard_peers()
            if peer.decided_epoch >= newer or (peer.disk_epoch >= of_a_command and not peer.outlived_command)
        )
        return [self.context.node_id, *others] if own else list(others)

    def last_epoch(self, current: View | None) -> int:
        """Return the highest epoch, on disk or decided, that this node or any node it hears knows of."""
        peers = self.liveness.detector.heard_peers()
        known = [epoch for peer in peers for epoch in (peer.disk_epoch, peer.decided_epoch)]
        own, record = self.liveness.own, self.store.record
        current_epoch = current.epoch if current else 0
        return max(current_epoch, own.decided_epoch, own.disk_epoch, record.outlived_epoch, *known)

    def _retains_directory(self, current: View, proposed: dict[str, int]) -> bool:
        """Return True if the next view keeps a member that may hold the directory.

        A member that joined and has installed nothing since must not exclude the older members: what they
        hold could never count again (seed 56).
        """
        joined = current.members[self.context.node_id].join_epoch
        if self.directory.installed_epoch >= joined:
            return True
        older = {n: member for n, member in current.members.items() if member.join_epoch < joined}
        return any(proposed.get(n) == member.incarnation for n, member in older.items()) or all(
            self.liveness.deaths.counts_as_dead(n, member.incarnation) for n, member in older.items()
        )

    # -- decided views

    def declare_dead(self, node_id: str) -> None:
        """Let every known incarnation of a silent node count as dead."""
        named = incarnations_in(node_id, (self.decided, self.store.record.view))
        self.liveness.deaths.declare_dead(node_id, max([self.liveness.peers[node_id].incarnation, *named]))
        self.outlived.on_declared_lost(node_id)

    def on_decided(self, view: View) -> None:
        if self.unproven_base is not None and not view.operator_forced:
            self._report_data_loss(self.unproven_base)
        self.unproven_base = None
        if not self.adopt_decided(view):
            return
        self.context.log(f"view {view.epoch} decided: {', '.join(view.members)}")
        if view.coordinator != self.context.node_id:
            for node_id in view.members:
                self.send_decided(node_id)
        for peer in self.liveness.peers.values():
            if peer.leaving and peer.node_id not in view.members:
                # The leaving node waits for this, and its clients wait for that node.
                self.send_decided(peer.node_id)
        if view.coordinator == self.context.node_id and view.includes(
            self.context.node_id, self.context.incarnation
        ):
            # (Not a view of an earlier incarnation of this node, decided again unchanged: it has no data
            # for it.) Whether it is still the right view is considered with the next heartbeat, not at
            # once: two views that each follow from the other would never end (seed 50084).
            self.view_change.collect(view)

    def send_decided(self, node_id: str) -> None:
        """Send a node the newest decided view, when its heartbeat shows that it does not know it."""
        if self.decided is not None and node_id != self.context.node_id:
            body = pack_body([self.decided.fields()])
            self.context.send_peer(node_id, encode_frame(Kind.DECIDED, 0, self.decided.epoch, 0, body))

    def adopt_decided(self, view: View) -> bool:
        """Take note of a decided view: from now on no older epoch is served or acknowledged.

        Return True if it is the newest that is known.
        """
        if self.decided is not None and view.epoch <= self.decided.epoch:
            return view.epoch == self.decided.epoch
        self.store.discard_pending(f"view {view.epoch} was decided in the meantime")
        if self.decided is not None:
            self.next_members.eviction.note_eviction(self.decided, view)
        self.decided = view
        self.liveness.own.member = view.includes(self.context.node_id, self.context.incarnation)
        self.liveness.own.decided_epoch = max(self.liveness.own.decided_epoch, view.epoch)
        self.context.sealed = True
        self.arbiter.on_decided_elsewhere(view)
        self.liveness.own.disk_epoch = max(self.liveness.own.disk_epoch, view.epoch)
        self.outlived.update()
        self.view_change.discard_older(view.epoch)
        self.join_batch_since_ns = self.minority_since_ns = -1
        self.next_members.partitioned_since_ns.clear()
        return True

    def on_decided_elsewhere(self, frame: Frame) -> None:
        """Take DECIDED from a node. Raises: FrameError."""
        view = parse_decided(frame.body)
        if self.decided is None or view.epoch > self.decided.epoch:
            self.adopt_decided(view)
            self.reconfigure_if_needed()

    def on_heartbeat(self, node_id: str, epoch: int, decided_epoch: int) -> None:
        """Drop the INSTALL of a member that runs the view; send what was decided to a node that lags."""
        if self.view is not None and epoch == self.view.epoch:
            self.view_change.unconfirmed_installs.pop(node_id, None)
        if self.decided is not None and decided_epoch < self.decided.epoch:
            self.send_decided(node_id)
