"""When is a view over that an operator forced, or that followed such a view?

When nobody can serve in it, or has what was served in it. Forced views are decided beside the register, which
may have forgotten what followed. A node that died and came back may be the only one that knows of such a
view, and all others wait for it until that node reports that it is over (ADR 12).
"""

from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import Context
from ckptd.core.liveness.incarnations import Incarnations
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.view import View


class OutlivedView:
    """Notes when the newest view that this node's disk had at the start is over, and has it reported."""

    def __init__(
        self,
        context: Context,
        liveness: Liveness,
        store: RecordStore,
        incarnations: Incarnations,
        has_voters: bool,
    ) -> None:
        self.context = context
        self.liveness = liveness
        self.store = store
        self.incarnations = incarnations
        self.has_voters = has_voters
        """A view on the disk may be undecided, or may not be the last one."""
        self._declared_lost_ns: dict[str, int] = {}
        """When the operator last told this node that a node is dead."""
        liveness.own.disk_epoch = store.epoch
        self.update()

    def on_declared_lost(self, node_id: str) -> None:
        """Note that the operator told this node that a node is dead."""
        self._declared_lost_ns[node_id] = self.context.now_ns

    def update(self) -> None:
        """Record, and tell the others, that nobody can serve in the newest view here.

        The newest is the one that this node tells of, `own.disk_epoch`. It may be on no disk any more, since
        the register may have taken a lower view (seed 7272051).
        """
        own, record = self.liveness.own, self.store.record
        if self.has_voters and own.decided_epoch >= own.disk_epoch:
            own.outlived_command = False  # The others are sent the view, and see for themselves.
            return
        if record.outlived_epoch != own.disk_epoch and self._has_outlived_command(own.disk_epoch):
            record.outlived_epoch = own.disk_epoch
        own.outlived_command = 0 < own.disk_epoch == record.outlived_epoch

    def _has_outlived_command(self, epoch: int) -> bool:
        """Return True if nobody can serve in this, the newest view here, of before this start.

        Either every configured node is heard, and none knows of it. Or it is on disk, and each of its other
        members is heard and does not know it, or has started again. Serving takes every member, so nobody
        serves in the view, and nobody has what was served in it. Or another node reports that.
        """
        view, context = self.store.record.view, self.context
        if self._is_over_for_another(epoch) or self._is_known_to_nobody(epoch):
            return True
        if view is None or view.epoch != epoch:
            return False
        if context.node_id not in view.members or view.includes(context.node_id, context.incarnation):
            return False
        return all(self._never_served(n, view) for n in view.members if n != context.node_id)

    def _never_served(self, node_id: str, view: View) -> bool:
        """Return True if a member of a view is heard, and can neither serve in it nor have its data.

        It does not know the view. If it has started again since, what it served before is gone; with an
        empty disk it may have known a later view, too.
        """
        peer = self.liveness.peers.get(node_id)
        return (
            peer is not None
            and self.liveness.detector.recently_heard(peer)
            and peer.decided_epoch < view.epoch
            and (view.includes(node_id, peer.incarnation) or not peer.amnesiac)
        )

    def _is_over_for_another(self, epoch: int) -> bool:
        """Return True if another node, whose disk has the view, reports that nobody can serve in it."""
        return self.liveness.own.decided_epoch < epoch and any(
            peer.disk_epoch == epoch and peer.outlived_command
            for peer in self.liveness.detector.heard_peers()
        )

    def _is_known_to_nobody(self, epoch: int) -> bool:
        """Return True if no configured node can be in a view of this epoch, or of a higher one.

        Each is heard, hears this incarnation, and knows no such view; or the operator has said that it is
        lost. The members of a view are configured nodes. So whoever serves in it is one of them, and knows
        it; unless nodes are configured differently.
        """
        view, peers = self.store.record.view, self.context.settings.peers
        if self.liveness.own.decided_epoch >= epoch:
            return False
        if view is not None and not {self.context.node_id, *peers} >= set(view.members):
            return False
        return all(self._is_lost(node_id) or self._knows_no_view(node_id, epoch) for node_id in peers)

    def _is_lost(self, node_id: str) -> bool:
        """Return True if the operator told this node that a node is dead, and it gave no sign of life since.

        What counts is the command to this very node: others may have had it before the node came back.
        """
        peer, declared_ns = self.liveness.peers[node_id], self._declared_lost_ns.get(node_id)
        return declared_ns is not None and not peer.connected and peer.heard_ns <= declared_ns

    def _knows_no_view(self, node_id: str, epoch: int) -> bool:
        peer = self.liveness.peers[node_id]
        return (
            self.liveness.detector.recently_heard(peer)
            and peer.knows_us == self.context.incarnation
            and peer.decided_epoch < epoch
            and self.incarnations.has_same_nodes(node_id)
        )
