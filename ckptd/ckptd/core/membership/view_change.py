"""The second half of a view change: collect the members' state, then install the view.

Once a view has been decided, its coordinator

1. asks every member how far its directory is (COLLECT); a member that answers stops serving the old epoch;
2. waits until no excluded node can still hold a lease (`lease`), since until then it may be serving clients;
3. sends every member the view and the most advanced directory (INSTALL).

How a view is decided, and when, is not this module's business: see `reconfiguration` and the arbiters.
"""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.parse_directory import check_staged, read_snapshot
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.directory.transfer import Transfers, size_of
from ckptd.core.hub import Hub
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.membership.collection import Agreed, Collection, MemberState
from ckptd.core.parse_views import parse_collect, parse_collected, parse_install
from ckptd.core.view import View, may_have_served_between, served_by_earlier_incarnations, was_member

VIEW_CHANGE_KINDS: Final = (
    Kind.COLLECT,
    Kind.COLLECTED,
    Kind.INSTALL,
    Kind.DIRECTORY,
    Kind.DIRECTORY_ACK,
)
"""The kinds of frames that `receive` takes."""


class ViewChange:
    """Collects and installs the views that are decided.

    `adopt_decided` reports a decided view to the membership, and returns True if it is the newest.
    """

    def __init__(
        self,
        context: Context,
        liveness: Liveness,
        replicator: DirectoryReplicator,
        adopt_decided: Callable[[View], bool],
        store: RecordStore,
        hub: Hub,
    ) -> None:
        self.context = context
        self.liveness = liveness
        self.replicator = replicator
        self.adopt_decided = adopt_decided
        self.store = store
        self.hub = hub
        self.view: View | None = None
        """The installed view."""
        self.awaiting_disk: View | None = None
        """The view to install once the disk has recorded that this node may have served in it."""
        self.collection: Collection | None = None
        self.unconfirmed_installs: dict[str, bytes] = {}
        """INSTALL frames that members may still lack."""
        self.abandoned_epoch = 0
        """The epoch of a view whose members cannot have what the last view served."""
        self.waiting_for = ""
        self.transfers = Transfers(context)

    @property
    def directory(self) -> Directory:
        return self.replicator.directory

    @property
    def busy(self) -> bool:
        """Return True if an installation is in progress here."""
        return self.collection is not None or self.awaiting_disk is not None

    def is_installing(self, epoch: int) -> bool:
        """Return True if the view of this epoch is being collected or installed."""
        under_way = self.collection.view if self.collection is not None else self.awaiting_disk
        return under_way is not None and under_way.epoch == epoch

    def discard_older(self, epoch: int) -> None:
        """Discard what was collected for views older than `epoch`, which was decided."""
        self.unconfirmed_installs.clear()
        self.transfers.discard_older(epoch)
        if self.collection is not None and self.collection.view.epoch < epoch:
            self.collection = None
        if self.awaiting_disk is not None and self.awaiting_disk.epoch < epoch:
            self.awaiting_disk = None

    def receive(self, node_id: str, frame: Frame) -> None:
        """Take a frame of one of the kinds `VIEW_CHANGE_KINDS`. Raises: FrameError."""
        match frame.kind:
            case Kind.COLLECT:
                self.on_collect(node_id, frame)
            case Kind.COLLECTED:
                self.on_collected(node_id, frame)
            case Kind.INSTALL:
                self.on_install(node_id, frame)
            case Kind.DIRECTORY:
                if self.transfers.on_piece(node_id, frame):
                    self._note_progress(node_id, frame.b)
            case Kind.DIRECTORY_ACK:
                if self.transfers.on_ack(node_id, frame):
                    self._note_progress(node_id, frame.b)

    # -- collecting

    def collect(self, view: View) -> None:
        """Start collecting for a decided view that this node coordinates."""
        self.collection = Collection(view, self.context.now_ns)
        self.collection.replies[self.context.node_id] = self._own_state()
        for node_id in view.members:
            if node_id != self.context.node_id:
                self._send_collect(node_id)
        self.install_when_complete()

    def _send_collect(self, node_id: str) -> None:
        assert self.collection is not None
        view = self.collection.view
        installed_epoch, seq = self.collection.replies[self.context.node_id].position
        if installed_epoch < view.members[self.context.node_id].join_epoch:
            # Our directory may not count: have the members send theirs, whatever it is.
            installed_epoch, seq = 0, 0
        body = pack_body([view.fields(), installed_epoch])
        frame = encode_frame(Kind.COLLECT, 0, view.epoch, seq, body)
        self.context.send_peer(node_id, frame)

    def _own_state(self) -> MemberState:
        directory, before = self.directory, self.store.installed_by_earlier_incarnations
        return MemberState(directory.installed_epoch, directory.seq, self.replicator.in_flight, None, before)

    def on_collect(self, node_id: str, frame: Frame) -> None:
        """Seal the old epoch, and answer how far this member's directory is. Raises: FrameError."""
        view, installed_epoch, seq = parse_collect(frame)
        if self.view is not None and self.view.epoch >= view.epoch:
            return
        if not view.includes(self.context.node_id, self.context.incarnation) or not self.adopt_decided(view):
            return
        state = self._own_state()
        if state.position <= (installed_epoch, seq):
            self._send_collected(node_id, view.epoch, state, None)
        elif self._is_small():
            self._send_collected(node_id, view.epoch, state, self.directory.snapshot(self.context.now_ns))
        else:
            self.transfers.send(
                node_id,
                view.epoch,
                self.directory,
                lambda pieces: self._send_collected(node_id, view.epoch, state, pieces),
            )

    def _is_small(self) -> bool:
        """Return True if the directory is sent as a whole, not in pieces."""
        return size_of(self.directory) <= self.context.settings.directory_piece_bytes

    def _send_collected(self, node_id: str, epoch: int, state: MemberState, directory: Any) -> None:
        body = [
            state.installed_epoch,
            state.committed_seq,
            state.staged,
            directory,
            state.installed_by_earlier_incarnations,
        ]
        reply = encode_frame(Kind.COLLECTED, 0, epoch, state.position[1], pack_body(body))
        self.context.send_peer(node_id, reply)

    def on_collected(self, node_id: str, frame: Frame) -> None:
        """Take a member's answer to COLLECT. Raises: FrameError."""
        collection = self.collection
        if collection is None or frame.b != collection.view.epoch or node_id not in collection.view.members:
            return
        if collection.agreed is not None:
            return  # A repeated answer.
        installed_epoch, seq, staged, sent, before = parse_collected(frame.body)
        if staged is not None:
            check_staged(staged)
        directory = None
        if type(sent) is int:
            directory = self.transfers.finished(node_id, frame.b, sent)
            if directory is None:
                return
        elif sent is not None:
            directory = read_snapshot(sent, self.context.now_ns)
        collection.replies[node_id] = MemberState(installed_epoch, seq, staged, directory, before)
        self.install_when_complete()

    def _note_progress(self, node_id: str, epoch: int) -> None:
        """Note progress: a large directory takes longer than a member may be silent."""
        if self.collection is not None and self.collection.view.epoch == epoch:
            self.collection.progress_ns[node_id] = self.context.now_ns

    def install_when_complete(self) -> None:
        """Install, once all members have answered and no lease of an excluded node can hold."""
        collection = self.collection
        if self.awaiting_disk is not None:
            self.waiting_for = "its disk, to store the new view"
            return
        if collection is None or len(collection.replies) < len(collection.view.members):
            self.waiting_for = "the answers of the members to the coordinator"
            return
        if collection.agreed is not None:
            self.waiting_for = "the members that are receiving the directory"
            return
        if collection.complete_ns < 0:
            collection.complete_ns = self.context.now_ns
        installed_epoch = max(reply.installed_epoch for reply in collection.replies.values())
        wait_ns = self.liveness.lease.excluded_leases_end_ns(
            collection.view, installed_epoch, collection.complete_ns
        )
        if self.context.now_ns < wait_ns:
            self.waiting_for = "the end of the leases of the excluded nodes"
            self.context.wake_at(wait_ns)
            return
        self._install_collected(collection)

    # -- installing

    def _install_collected(self, collection: Collection) -> None:
        view, replies = collection.view, collection.replies
        installed = {node_id: reply.installed_epoch for node_id, reply in replies.items()}
        before = {node_id: reply.installed_by_earlier_incarnations for node_id, reply in replies.items()}
        may_have_served = may_have_served_between(view, installed, before)
        if may_have_served:
            counted = {n: reply for n, reply in replies.items() if installed[n] >= view.members[n].join_epoch}
        else:
            counted = {
                n: reply for n, reply in replies.items() if 0 < installed[n] == max(installed.values())
            }
        if not counted and not any(
            member.join_epoch == view.bootstrap_epoch for member in view.members.values()
        ):
            self._abandon_history(view, served_by_earlier_incarnations(view, before))
            return
        if not counted:
            base = MemberState(0, 0, None, Directory(), 0)
        else:
            best = max(
                counted, key=lambda node_id: (counted[node_id].position, node_id == self.context.node_id)
            )
            base = counted[best]
        if may_have_served:
            continuous_members = [
                n for n, member in view.members.items() if member.join_epoch <= base.installed_epoch
            ]
        else:
            continuous_members = [n for n in view.members if was_member(view, n, base.installed_epoch)]
        base_position = base.position
        if base.directory is not None:
            self.replicator.directory = base.directory
            self.replicator.in_flight = base.staged
        if self.replicator.in_flight is not None:
            self._finish_staged()
        others = (node_id for node_id in view.members if node_id != self.context.node_id)
        lacking = [n for n in others if n not in counted or counted[n].position != base_position]
        collection.agreed = Agreed(base.installed_epoch, continuous_members, may_have_served, lacking)
        if not lacking or self._is_small():
            collection.agreed.pieces = dict.fromkeys(lacking, -1)
            self._install_agreed(collection, collection.agreed)
            return
        for node_id in lacking:
            self._send_directory(node_id, collection)

    def _send_directory(self, node_id: str, collection: Collection) -> None:
        """Send a member the directory that it is to install.

        All members install it once the last one has it. In a view that is installed and not served, each of
        them would report the one that still lacks something as stalled.
        """

        def sent(pieces: int) -> None:
            agreed = collection.agreed
            if self.collection is not collection or agreed is None:
                return
            agreed.pieces[node_id] = pieces
            if len(agreed.pieces) == len(agreed.lacking):
                self._install_agreed(collection, agreed)

        self.transfers.send(node_id, collection.view.epoch, self.directory, sent)

    def _install_agreed(self, collection: Collection, agreed: Agreed) -> None:
        view = collection.view
        snapshot: bytes | None = None
        for node_id in view.members:
            if node_id == self.context.node_id:
                continue
            directory: bytes | int | None = agreed.pieces.get(node_id)
            if directory == -1:
                directory = snapshot = snapshot or pack_body(self.directory.snapshot(self.context.now_ns))
            body = pack_body(
                [
                    view.fields(),
                    agreed.base_epoch,
                    directory,
                    agreed.continuous_members,
                    agreed.may_have_served,
                ]
            )
            frame = encode_frame(Kind.INSTALL, 0, view.epoch, self.directory.seq, body)
            self.unconfirmed_installs[node_id] = frame
            self.context.send_peer(node_id, frame)
        self.collection = None
        self._persist_and_install(view, agreed.continuous_members, agreed.may_have_served)

    def _finish_staged(self) -> None:
        """Finish the operation that the last coordinator had staged, before anything else.

        The exception is an operation that stopped that coordinator when it applied it: each coordinator
        would stop in turn. Its answer was lost with that coordinator, and no other member had committed it
        (or it would not be staged).
        """
        operation = self.replicator.in_flight_operation(first=True)
        if self.context.stops.never_applied(operation.seq, operation.session, operation.request):
            self.context.log(
                "the operation that stopped the last coordinator is discarded; it was not answered", "warning"
            )
            self.replicator.in_flight = None
        else:
            self.replicator.commit_in_flight()

    def _abandon_history(self, view: View, served_epoch: int) -> None:
        """No member holds a directory that counts: wait for a node that does, or prepare a new history.

        A member of the history's first view that never installed it would have had to acknowledge every
        change, so with one among the members there was no change.

        When every node that may have continued is dead, what it held is lost with it. A member that left
        and came back holds data from which others may have continued: that data counts for nothing, and
        goes to quarantine. The same applies to the data of nodes that left before `served_epoch`, which a
        restarted member had installed.
        """
        if self._awaits_returning_disk(view):
            self.waiting_for = "a restarted node, whose disk may show that no node has served since"
            return
        gone = all(
            self.liveness.deaths.counts_as_dead(past.node_id, past.incarnation)
            or view.includes(past.node_id, past.incarnation)
            or past.last_epoch < served_epoch
            for past in view.past_memberships
        )
        self.waiting_for = "a member that has the directory"
        if gone and self.abandoned_epoch != view.epoch:
            self.abandoned_epoch = view.epoch
            self.context.log(
                "every node that had the directory is dead: bootstrapping a new history", "warning"
            )

    def _awaits_returning_disk(self, view: View) -> bool:
        """Return True if a restarted node is here and about to be admitted: its disk is looked at first."""
        left = {past.node_id for past in view.past_memberships} - set(view.members)
        peers = (self.liveness.peers.get(node_id) for node_id in sorted(left))
        return any(
            peer is not None
            and peer.connected
            and self.liveness.detector.recently_heard(peer)
            and not (peer.leaving or peer.disk_failing or peer.amnesiac)
            for peer in peers
        )

    def on_install(self, node_id: str, frame: Frame) -> None:
        """Take INSTALL from the coordinator. Raises: FrameError."""
        view, base_epoch, sent, continuous_members, may_have_served, seq = parse_install(frame)
        whole_directory = read_snapshot(sent, self.context.now_ns) if type(sent) is list else None
        if not view.includes(self.context.node_id, self.context.incarnation):
            return
        if (self.view is not None and view.epoch <= self.view.epoch) or not self.adopt_decided(view):
            return
        if self.awaiting_disk is not None:
            return  # A repeated INSTALL: the view is being installed.
        if type(sent) is int:
            directory = self.transfers.finished(node_id, frame.b, sent)
            if directory is None:
                return
            self.replicator.directory, self.replicator.in_flight = directory, None
        elif whole_directory is not None:
            self.replicator.directory, self.replicator.in_flight = whole_directory, None
        elif self.replicator.in_flight is not None and self.directory.seq < seq:
            self.replicator.commit_in_flight()
        if self.directory.seq != seq or self.directory.installed_epoch != base_epoch:
            return
        self._persist_and_install(view, continuous_members, may_have_served)

    def _persist_and_install(self, view: View, continuous_members: list[str], may_have_served: bool) -> None:
        self.awaiting_disk = view
        self.store.record.installed_epoch = view.epoch
        self.store.persist(lambda: self._on_durable(view, continuous_members, may_have_served))

    def _on_durable(self, view: View, continuous_members: list[str], may_have_served: bool) -> None:
        if self.awaiting_disk is not view:
            return
        self.awaiting_disk = None
        if (
            not self.liveness.own.left
        ):  # A node that has left must not serve any more: others rely on that (seed 1657).
            self._install(view, continuous_members, may_have_served)

    def _install(self, view: View, continuous_members: list[str], may_have_served: bool) -> None:
        context = self.context
        self.directory.install(view, continuous_members, self.context.now_ns, may_have_served)
        self.view = view
        self.transfers.discard_all()
        context.epoch = view.epoch
        context.feature_level = view.feature_level
        context.sealed = False
        context.acks.clear()
        self.waiting_for = ""
        self.liveness.own.stall_reports = ()
        self.liveness.lease.renew(view)
        names = ", ".join(view.members)
        context.log(f"view {view.epoch} installed: members {names}; coordinator {view.coordinator}")
        self.hub.on_installed(view)
        self.liveness.heartbeats.send_all()

    def on_peer_connected(self, node_id: str) -> None:
        """Repeat what a broken link may have lost."""
        collection = self.collection
        if collection is not None and collection.agreed is not None:
            if node_id in collection.agreed.lacking and node_id not in collection.agreed.pieces:
                self._send_directory(node_id, collection)
        elif collection is not None and node_id in collection.view.members:
            self._send_collect(node_id)
        elif node_id in self.unconfirmed_installs:
            self.context.send_peer(node_id, self.unconfirmed_installs[node_id])
