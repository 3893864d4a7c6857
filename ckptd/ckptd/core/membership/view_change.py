"""Collecting from a decided view's members, and installing it.

The coordinator gathers how far each member's directory is, waits until no lease of those
left behind can hold, and sends everybody the view with the directory that it goes on
from. It does not know who decides views, or why.
"""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.durable_state import Disk
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.parse_directory import check_staged, read_snapshot
from ckptd.core.directory.replicator import DirectoryOrder
from ckptd.core.directory.transfer import Transfers, size_of
from ckptd.core.liveness.heartbeat import Heartbeats
from ckptd.core.parse_views import parse_collect, parse_collected, parse_install
from ckptd.core.view import View, served_between, served_by_earlier_starts, was_member

OF_INSTALLATION: Final = (
    Kind.COLLECT,
    Kind.COLLECTED,
    Kind.INSTALL,
    Kind.DIRECTORY,
    Kind.DIRECTORY_ACK,
)
"""The kinds of frames that `receive` takes."""


class Collection:
    """What a coordinator has gathered for a decided view, since when."""

    __slots__ = ("agreed", "complete_ns", "progress_ns", "replies", "since_ns", "view")

    def __init__(self, view: View, since_ns: int) -> None:
        self.view = view
        self.since_ns = since_ns
        self.replies: dict[str, Collected] = {}
        self.complete_ns = -1
        self.agreed: Agreed | None = None
        self.progress_ns: dict[str, int] = {}

    def late(self, before_ns: int) -> list[str]:
        """The members that this waits for, and of which nothing has come or been taken since a time."""
        missing = [node_id for node_id in self.view.members if node_id not in self.replies]
        if self.agreed is not None:
            missing = [node_id for node_id in self.agreed.lacking if node_id not in self.agreed.pieces]
        return [n for n in missing if max(self.since_ns, self.progress_ns.get(n, 0)) <= before_ns]

    def note_lag(self, lag_ns: int) -> None:
        """This process was held up: nobody kept it waiting in that time."""
        self.since_ns += lag_ns
        for node_id in self.progress_ns:
            self.progress_ns[node_id] += lag_ns


class Agreed:
    """What the members of a collected view are to install, once those that lack the directory have it.

    `lacking` are those; `pieces`: in how many pieces each of them got it, -1 for as a whole.
    """

    __slots__ = ("base_epoch", "lacking", "pieces", "served", "stayed")

    def __init__(self, base_epoch: int, stayed: list[str], served: bool, lacking: list[str]) -> None:
        self.base_epoch = base_epoch
        self.stayed = stayed
        self.served = served
        self.lacking = lacking
        self.pieces: dict[str, int] = {}


class Collected:
    """One member's answer: how far its directory is; the directory, where the coordinator's lies behind;
    the last epoch that earlier starts of it installed."""

    __slots__ = ("committed_seq", "directory", "installed_before", "installed_epoch", "staged")

    def __init__(
        self,
        installed_epoch: int,
        committed_seq: int,
        staged: bytes | None,
        directory: Directory | None,
        installed_before: int,
    ) -> None:
        self.installed_epoch = installed_epoch
        self.installed_before = installed_before
        self.committed_seq = committed_seq
        self.staged = staged
        self.directory = directory

    @property
    def place(self) -> tuple[int, int]:
        """How advanced it is."""
        return self.installed_epoch, self.committed_seq + (self.staged is not None)


class Installation:
    """`view` is the installed view; `installs` are the INSTALL frames that members may still lack.

    `saving` is one that will be when the disk says so: before a node serves in a view, its
    disk tells that it may have. `lost_epoch` is that of a view whose members cannot have
    what the last one served.

    `learn` tells the membership of a decided view, and answers whether that is the newest.
    """

    def __init__(
        self,
        context: Context,
        heartbeats: Heartbeats,
        order: DirectoryOrder,
        learn: Callable[[View], bool],
        disk: Disk,
        on_installed: Callable[[View], None],
    ) -> None:
        self.context = context
        self.heartbeats = heartbeats
        self.order = order
        self.learn = learn
        self.disk = disk
        self.on_installed = on_installed
        self.view: View | None = None
        self.saving: View | None = None
        self.collection: Collection | None = None
        self.installs: dict[str, bytes] = {}
        self.lost_epoch = 0
        self.waiting_for = ""
        self.transfers = Transfers(context)

    @property
    def directory(self) -> Directory:
        return self.order.directory

    @property
    def busy(self) -> bool:
        """Whether an installation is under way here."""
        return self.collection is not None or self.saving is not None

    def is_for(self, epoch: int) -> bool:
        """Whether the view of this epoch is being collected or installed."""
        under_way = self.collection.view if self.collection is not None else self.saving
        return under_way is not None and under_way.epoch == epoch

    def forget_older(self, epoch: int) -> None:
        """A view of this epoch was decided: what was collected for an older one is of no use."""
        self.installs.clear()
        self.transfers.forget_older(epoch)
        if self.collection is not None and self.collection.view.epoch < epoch:
            self.collection = None
        if self.saving is not None and self.saving.epoch < epoch:
            self.saving = None

    def receive(self, node_id: str, frame: Frame) -> None:
        """One of `OF_INSTALLATION`. Raises: FrameError."""
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
        """Begin to collect for a decided view that this node coordinates."""
        self.collection = Collection(view, self.context.now_ns)
        self.collection.replies[self.context.node_id] = self._collected_here()
        for node_id in view.members:
            if node_id != self.context.node_id:
                self._send_collect(node_id)
        self.install_when_complete()

    def _send_collect(self, node_id: str) -> None:
        assert self.collection is not None
        view = self.collection.view
        installed_epoch, seq = self.collection.replies[self.context.node_id].place
        if installed_epoch < view.members[self.context.node_id].join_epoch:
            installed_epoch, seq = 0, 0  # Ours may not count: have theirs sent, whatever it is.
        body = pack_body([view.fields(), installed_epoch])
        frame = encode_frame(Kind.COLLECT, 0, view.epoch, seq, body)
        self.context.send_peer(node_id, frame)

    def _collected_here(self) -> Collected:
        directory, before = self.directory, self.disk.installed_before
        return Collected(directory.installed_epoch, directory.seq, self.order.staged, None, before)

    def on_collect(self, node_id: str, frame: Frame) -> None:
        """Freeze, and tell the coordinator how far this member's directory is. Raises: FrameError."""
        view, installed_epoch, seq = parse_collect(frame)
        if self.view is not None and self.view.epoch >= view.epoch:
            return
        if not view.has(self.context.node_id, self.context.incarnation) or not self.learn(view):
            return
        collected = self._collected_here()
        if collected.place <= (installed_epoch, seq):
            self._send_collected(node_id, view.epoch, collected, None)
        elif self._is_small():
            self._send_collected(node_id, view.epoch, collected, self.directory.snapshot(self.context.now_ns))
        else:
            self.transfers.send(
                node_id,
                view.epoch,
                self.directory,
                lambda pieces: self._send_collected(node_id, view.epoch, collected, pieces),
            )

    def _is_small(self) -> bool:
        """Whether the directory travels as a whole."""
        return size_of(self.directory) <= self.context.settings.directory_piece_bytes

    def _send_collected(self, node_id: str, epoch: int, collected: Collected, directory: Any) -> None:
        body = [
            collected.installed_epoch,
            collected.committed_seq,
            collected.staged,
            directory,
            collected.installed_before,
        ]
        reply = encode_frame(Kind.COLLECTED, 0, epoch, collected.place[1], pack_body(body))
        self.context.send_peer(node_id, reply)

    def on_collected(self, node_id: str, frame: Frame) -> None:
        """A member's answer. Raises: FrameError."""
        collection = self.collection
        if collection is None or frame.b != collection.view.epoch or node_id not in collection.view.members:
            return
        if collection.agreed is not None:
            return  # It says again what it said.
        installed_epoch, seq, staged, sent, before = parse_collected(frame.body)
        if staged is not None:
            check_staged(staged)
        directory = None
        if type(sent) is int:
            directory = self.transfers.take(node_id, frame.b, sent)
            if directory is None:
                return
        elif sent is not None:
            directory = read_snapshot(sent, self.context.now_ns)
        collection.replies[node_id] = Collected(installed_epoch, seq, staged, directory, before)
        self.install_when_complete()

    def _note_progress(self, node_id: str, epoch: int) -> None:
        """A large directory takes longer than a member may be silent."""
        if self.collection is not None and self.collection.view.epoch == epoch:
            self.collection.progress_ns[node_id] = self.context.now_ns

    def install_when_complete(self) -> None:
        """Install, once all members have answered and no lease of others can hold."""
        collection = self.collection
        if self.saving is not None:
            self.waiting_for = "its disk"
            return
        if collection is None or len(collection.replies) < len(collection.view.members):
            self.waiting_for = "the members' answers to the collector"
            return
        if collection.agreed is not None:
            self.waiting_for = "members that are sent the directory"
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
            if heartbeats.proved_dead(node_id, incarnation) or heartbeats.gave_up(
                node_id, incarnation, view.epoch
            ):
                continue
            if view.has(node_id, incarnation):
                continue  # It is back, and froze when it answered the collector.
            if was_member:
                end_ns = max(end_ns, heartbeats.lease_left_behind_ns(node_id))
            else:
                end_ns = max(end_ns, collection.complete_ns + heartbeats.longest_lease_ns)
        return end_ns

    # -- installing

    def _install_collected(self, collection: Collection) -> None:
        view, replies = collection.view, collection.replies
        installed = {node_id: reply.installed_epoch for node_id, reply in replies.items()}
        before = {node_id: reply.installed_before for node_id, reply in replies.items()}
        served = served_between(view, installed, before)
        if served:
            counted = {n: reply for n, reply in replies.items() if installed[n] >= view.members[n].join_epoch}
        else:
            counted = {
                n: reply for n, reply in replies.items() if 0 < installed[n] == max(installed.values())
            }
        if not counted and not any(member.join_epoch == view.founded for member in view.members.values()):
            self._give_history_up(view, served_by_earlier_starts(view, before))
            return
        if not counted:
            base = Collected(0, 0, None, Directory(), 0)
        else:
            best = max(counted, key=lambda node_id: (counted[node_id].place, node_id == self.context.node_id))
            base = counted[best]
        if served:
            stayed = [n for n, member in view.members.items() if member.join_epoch <= base.installed_epoch]
        else:
            stayed = [n for n in view.members if was_member(view, n, base.installed_epoch)]
        base_place = base.place
        if base.directory is not None:
            self.order.directory = base.directory
            self.order.staged = base.staged
        if self.order.staged is not None:
            self._finish_staged()
        others = (node_id for node_id in view.members if node_id != self.context.node_id)
        lacking = [n for n in others if n not in counted or counted[n].place != base_place]
        collection.agreed = Agreed(base.installed_epoch, stayed, served, lacking)
        if not lacking or self._is_small():
            collection.agreed.pieces = dict.fromkeys(lacking, -1)
            self._install_agreed(collection, collection.agreed)
            return
        for node_id in lacking:
            self._send_directory(node_id, collection)

    def _send_directory(self, node_id: str, collection: Collection) -> None:
        """Send a member what it is to install.

        All of them install it when the last one has it. In a view that is installed and not served each of
        them would accuse the one that still lacks something.
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
            body = pack_body([view.fields(), agreed.base_epoch, directory, agreed.stayed, agreed.served])
            frame = encode_frame(Kind.INSTALL, 0, view.epoch, self.directory.seq, body)
            self.installs[node_id] = frame
            self.context.send_peer(node_id, frame)
        self.collection = None
        self._save_and_install(view, agreed.stayed, agreed.served)

    def _finish_staged(self) -> None:
        """What the last coordinator had staged comes before anything else.

        But not what stopped that coordinator when it applied it. Its answer was lost with it, and
        nobody else had committed it (or it would not be staged): each coordinator would stop in turn.
        """
        operation = self.order.staged_operation(first=True)
        if self.context.stops.never_applied(operation.seq, operation.session, operation.request):
            self.context.log("what stopped the last coordinator, before it answered, is given up", "warning")
            self.order.staged = None
        else:
            self.order.finish()

    def _give_history_up(self, view: View, served_epoch: int) -> None:
        """No member holds a directory that counts: wait for who does, or have a new history founded.

        (A founder that never installed would have had to acknowledge every change: with one
        among the members there was none.) When everybody that may have gone on is dead,
        what they held is gone with them. A member that left and came back holds what others
        may have gone on from: that counts for nothing, and goes to quarantine; and so does
        what those hold that left before `served_epoch`, which a restarted member had installed.
        """
        if self._somebody_may_tell(view):
            self.waiting_for = "a restarted node, whose disk may tell that nobody served since"
            return
        gone = all(
            self.heartbeats.counts_as_dead(departure.node_id, departure.incarnation)
            or view.has(departure.node_id, departure.incarnation)
            or departure.last_epoch < served_epoch
            for departure in view.departures
        )
        self.waiting_for = "a member that holds the directory"
        if gone and self.lost_epoch != view.epoch:
            self.lost_epoch = view.epoch
            self.context.log("every node that held the directory is dead: a new history begins", "warning")

    def _somebody_may_tell(self, view: View) -> bool:
        """Whether a node that was restarted is here and about to be admitted: its disk comes first."""
        left = {departure.node_id for departure in view.departures} - set(view.members)
        peers = (self.heartbeats.peers.get(node_id) for node_id in sorted(left))
        return any(
            peer is not None
            and peer.connected
            and self.heartbeats.hears(peer)
            and not (peer.leaving or peer.disk_fails or peer.forgetful)
            for peer in peers
        )

    def on_install(self, node_id: str, frame: Frame) -> None:
        """The coordinator's word. Raises: FrameError."""
        view, base_epoch, sent, stayed, served, seq = parse_install(frame)
        whole_directory = read_snapshot(sent, self.context.now_ns) if type(sent) is list else None
        if not view.has(self.context.node_id, self.context.incarnation):
            return
        if (self.view is not None and view.epoch <= self.view.epoch) or not self.learn(view):
            return
        if self.saving is not None:
            return  # It came before, and is being installed.
        if type(sent) is int:
            directory = self.transfers.take(node_id, frame.b, sent)
            if directory is None:
                return
            self.order.directory, self.order.staged = directory, None
        elif whole_directory is not None:
            self.order.directory, self.order.staged = whole_directory, None
        elif self.order.staged is not None and self.directory.seq < seq:
            self.order.finish()
        if self.directory.seq != seq or self.directory.installed_epoch != base_epoch:
            return
        self._save_and_install(view, stayed, served)

    def _save_and_install(self, view: View, stayed: list[str], served: bool) -> None:
        self.saving = view
        self.disk.record.installed = view.epoch
        self.disk.save(lambda: self._saved(view, stayed, served))

    def _saved(self, view: View, stayed: list[str], served: bool) -> None:
        if self.saving is not view:
            return
        self.saving = None
        if (
            not self.heartbeats.left
        ):  # Others count on it that a node that gave up serves no more (seed 1657).
            self._install(view, stayed, served)

    def _install(self, view: View, stayed: list[str], served: bool) -> None:
        context = self.context
        self.directory.install(view, stayed, self.context.now_ns, served)
        self.view = view
        self.transfers.forget_all()
        context.epoch = view.epoch
        context.frozen = False
        context.acks.clear()
        self.waiting_for = ""
        self.heartbeats.complaints = ()
        self.heartbeats.renew_lease(view)
        names = ", ".join(view.members)
        context.log(f"view {view.epoch} installed: members {names}; coordinator {view.coordinator}")
        self.on_installed(view)
        self.heartbeats.send_all()

    def on_peer_connected(self, node_id: str) -> None:
        """Say again what a broken link may have swallowed."""
        collection = self.collection
        if collection is not None and collection.agreed is not None:
            if node_id in collection.agreed.lacking and node_id not in collection.agreed.pieces:
                self._send_directory(node_id, collection)
        elif collection is not None and node_id in collection.view.members:
            self._send_collect(node_id)
        elif node_id in self.installs:
            self.context.send_peer(node_id, self.installs[node_id])
