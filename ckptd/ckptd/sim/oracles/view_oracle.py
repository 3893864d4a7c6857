"""The oracle for views and directories: how they change from one event to the next."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.node import Node
from ckptd.core.replication.replica import Replica
from ckptd.core.settings import MILLISECOND_NS
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, View
from ckptd.sim.world.clock import PPM
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation, World

REPORTED_HEARTBEATS: Final = 4
"""A node that has held data for this many heartbeats has reported it."""

Position = tuple[int, int]
"""How far a directory is: the epoch of its view, and the seq of its last operation."""


@dataclass(slots=True, frozen=True)
class PlacementSnapshot:
    """A checkpoint in a node's directory: who held it in sync, and whether it was open."""

    name: bytes
    in_sync: tuple[tuple[str, int], ...]
    is_open: bool
    unlinked: bool
    unavailable: bool
    retention_ns: int


@dataclass(slots=True)
class DeclaredDead:
    """An operator's command by which one incarnation of a node counts as dead."""

    incarnation: int
    epoch: int
    """The newest epoch at that time."""

    known_by: dict[str, None] = field(default_factory=dict)
    """The nodes that act on it."""


class ViewListener(Protocol):
    """What this oracle reports to the rest of the simulation, and asks it. A cluster implements it."""

    def on_decided(self, view: View) -> None:
        """A new view was decided."""

    def may_be_unlinked_since(self, name: bytes, since_ns: int) -> bool:
        """Return True if a client may have unlinked a name since a time."""


class ViewOracle:
    """Checks views and directories."""

    def __init__(self, world: World, hosts: dict[str, Host], listener: ViewListener) -> None:
        self.world = world
        self.hosts = hosts
        self.listener = listener
        self.lost: dict[int, bool] = {}
        """Checkpoints of which every replica died, each with True if a client had it open."""

        self.without_replica_since_ns: dict[int, int] = {}
        """Since when no process with a whole replica of a checkpoint is left."""

        self.history_lost = False
        """True once anything that was ordered may be gone."""

        self.accepted_ns: list[int] = []
        """When a node continued without proof (a fence hook, `promote`) and reported it."""

        self.outranking: View | None = None
        """The newest view with which a node did that."""

        self.outranked: list[tuple[int, int]] = []
        """When that happened, and in which epochs."""

        self.declared_dead: dict[str, DeclaredDead] = {}
        """By node, the operator's last command that declares it dead."""

        self._bootstrapped: dict[int, View] = {}
        self._pending: dict[str, tuple[int, int]] = {}
        """By node, the epoch of the view that waits for its disk, and of the newest that it knew before."""
        self._known: dict[str, int] = {}
        self._holders_at_bootstrap: dict[str, int] | None = None
        self._holds_since_ns: dict[str, int] = {}
        self._views: dict[int, tuple[View, str]] = {}
        self._decided: dict[int, View] = {}
        self._installers: dict[int, set[str]] = {}
        self._last_decided: View | None = None
        self._newest: Position = (0, 0)
        self._installed: dict[str, int] = {}
        self._snapshots: dict[str, tuple[Position, dict[int, PlacementSnapshot]]] = {}
        self._last_snapshots: dict[int, tuple[Position, PlacementSnapshot]] = {}
        self._closed: dict[int, tuple[Position, int]] = {}
        self._reopened: dict[int, tuple[int, tuple[Position, int]]] = {}
        """By creation id: when it was last opened again, and what `_closed` had until then."""

    def process_started(self, node_id: str) -> None:
        """Forget the node's predecessor: the new process is not compared with it."""
        self._installed.pop(node_id, None)
        self._snapshots.pop(node_id, None)
        self._holds_since_ns.pop(node_id, None)
        self._pending.pop(node_id, None)

    def process_stopping(self, node_id: str) -> None:
        """A process ends, with everything that it holds."""
        node = self.hosts[node_id].node
        if node is None:
            return
        others = [other for other in self._nodes() if other is not node]
        for creation_id, replica in node.replicas.items():
            if not _is_whole(replica) or any(_is_whole(other.replicas.get(creation_id)) for other in others):
                continue
            if not any(_is_to_create(other, node, creation_id) for other in others):
                self.without_replica_since_ns[creation_id] = self.world.now_ns

    def after_event(self, node_id: str, node: Node) -> None:
        """Check what one node may have changed. Raises: Violation."""
        installed = self._installed.get(node_id)
        self._note_declared_dead(node_id, node)
        self._check_view(node_id, node)
        self._check_directory(node_id, node)
        if node.view is not None and node.view.epoch != installed:
            # Only now: the directory that came with the view may have been chosen as the command said.
            self._retract_death(node_id, node.view)

    # -- views

    def _check_view(self, node_id: str, node: Node) -> None:
        decided = node.reconfiguration.decided
        self._check_pending(node_id, node)
        if decided is not None and decided.operator_forced and decided.bootstrap_epoch == decided.epoch:
            self._note_bootstrap(decided)
        if decided is not None and (self._last_decided is None or decided.epoch > self._last_decided.epoch):
            # Half of LOSS_EPOCHS, since the side that is declared dead may have decided some epochs by then.
            last = self._last_decided
            if last is not None and decided.epoch - last.epoch >= EPOCH_JUMP_DATA_LOSS // 2:
                self.accepted_ns.append(self.world.now_ns)
                self.outranking = decided
                self.outranked.append((self.world.now_ns, decided.epoch))
                self.history_lost = True
                self.world.say(f"{node_id} continues without what the last coordinator may have acknowledged")
            if (
                self._last_decided is not None
                and decided.bootstrap_epoch != self._last_decided.bootstrap_epoch
            ):
                self._check_bootstrap(node_id, decided, self._last_decided)
                self.history_lost = True
            self._last_decided = decided
            self._decided[decided.epoch] = decided
            self.listener.on_decided(decided)
        elif (
            decided is not None and self._holders_at_bootstrap is not None and self._last_decided is not None
        ):
            # Other nodes began a history next to a bootstrapped one: one of the two will be lost.
            self.history_lost = (
                self.history_lost or decided.bootstrap_epoch != self._last_decided.bootstrap_epoch
            )
        view = node.view
        if view is None or self._installed.get(node_id) == view.epoch:
            return
        if view.epoch < self._installed.get(node_id, 0):
            raise Violation(
                "epochs", f"{node_id} went back from epoch {self._installed[node_id]} to {view.epoch}"
            )
        self._installed[node_id] = view.epoch
        self._holds_since_ns.setdefault(node_id, self.world.now_ns)
        self._installers.setdefault(view.epoch, set()).add(node_id)
        first, who = self._views.setdefault(view.epoch, (view, node_id))
        if first.fields() != view.fields() and not self._bootstrapped_twice(first, view):
            raise Violation(
                "one view per epoch",
                f"epoch {view.epoch} is {first.fields()} on {who}, but {view.fields()} on {node_id}",
            )

    def _check_pending(self, node_id: str, node: Node) -> None:
        """A view that waited for the disk was decided: right only if its node knew of no other by then."""
        decided, pending = node.reconfiguration.decided, node.store.pending
        known = decided.epoch if decided is not None else 0
        epoch, base = self._pending.get(node_id, (0, 0))
        if known and known == epoch and self._known[node_id] not in (base, epoch):
            raise Violation(
                "a view that waited for the disk is discarded once another one is decided",
                f"{node_id} decided {epoch} after {base}, although it knew {self._known[node_id]} by then",
            )
        if pending is None:
            self._pending.pop(node_id, None)
        elif pending.view.epoch != epoch:
            self._pending[node_id] = (pending.view.epoch, known)
        self._known[node_id] = known

    def _check_bootstrap(self, node_id: str, view: View, last: View) -> None:
        """A new history begins: right only if every member of the old one's last view is really dead."""
        for member_id, member in last.members.items():
            host = self.hosts[member_id]
            node = host.node
            if node is None or host.incarnation != member.incarnation or node.view is None:
                continue
            if node.view.epoch < member.join_epoch:
                continue  # What it holds is from an earlier membership: others may have continued from there.
            if self._may_have_continued(node_id, node.view.epoch):
                continue
            if self._may_be_excluded(member_id, view):
                continue
            if node.directory.checkpoints or node.directory.sessions:
                raise Violation(
                    "no history is abandoned",
                    f"{node_id} bootstrapped epoch {view.epoch} although {member_id} of {last.epoch} is "
                    "alive",
                )

    def _may_have_continued(self, node_id: str, epoch: int) -> bool:
        """Return True if nodes that are dead by now may have served after that epoch.

        That is so if a whole view was decided and is dead, since nobody can tell whether it served, or if the
        disk of some member shows that for an earlier incarnation. (The member may have died while it wrote
        that, or its disk is lost and shows nothing.)
        """
        if any(decided.epoch > epoch and self._is_dead(decided) for decided in self._decided.values()):
            return True
        view = self.hosts[node_id].node.reconfiguration.decided  # type: ignore[union-attr]
        members = [self.hosts[member_id].node for member_id in view.members] if view is not None else []
        return any(
            node is not None
            and node.context.incarnation > 1
            and node.store.installed_by_earlier_incarnations > epoch
            for node in members
        )

    # -- the operator's commands

    def on_declared_dead(self, by: str, node_id: str, incarnation: int) -> None:
        """Node `by` accepted the command that this incarnation of another node is dead.

        A node that learns of it stops waiting for that incarnation.
        """
        newest = self._last_decided.epoch if self._last_decided is not None else 0
        before = self.declared_dead.get(node_id)
        known_by = before.known_by if before is not None and before.incarnation == incarnation else {}
        self.declared_dead[node_id] = DeclaredDead(incarnation, newest, known_by | {by: None})

    def _note_declared_dead(self, node_id: str, node: Node) -> None:
        """Note whether a node acts on such a command: it got it, or learned of it (seed 7134958)."""
        for other, command in self.declared_dead.items():
            peer = node.liveness.peers.get(other)
            if peer is not None and peer.declared_dead_incarnation >= command.incarnation:
                command.known_by[node_id] = None

    def _note_bootstrap(self, view: View) -> None:
        """Note a bootstrap: only the data of nodes that its node receives heartbeats from is to be kept."""
        if view.epoch in self._bootstrapped:
            return
        self._bootstrapped[view.epoch] = view
        if self._last_decided is not None or self._holders_at_bootstrap is not None:
            self.history_lost = True
        reported_ns = self.world.now_ns - REPORTED_HEARTBEATS * self.world.options.heartbeat_ns
        self._holders_at_bootstrap = {
            node_id: host.incarnation
            for node_id, host in self.hosts.items()
            if host.node is not None and self._holds_since_ns.get(node_id, reported_ns) < reported_ns
        }

    def _retract_death(self, by: str, view: View) -> None:
        """A node installs a later view with an incarnation that it took for dead: it counts again there."""
        for node_id, command in list(self.declared_dead.items()):
            member = view.members.get(node_id)
            if (
                view.epoch > command.epoch
                and member is not None
                and member.incarnation <= command.incarnation
            ):
                command.known_by.pop(by, None)

    def _is_declared_dead(self, node_id: str, by: Iterable[str]) -> bool:
        """Return True if one of the nodes `by` acts on a command that this incarnation of a node is dead.

        A node that was told so of an earlier incarnation acts on that as long as it has not met a later one.
        (The operator who says so had better not bootstrap the later one: seed 7405975.)
        """
        command = self.declared_dead.get(node_id)
        return command is not None and any(
            each in command.known_by and self._met(each, node_id) <= command.incarnation for each in by
        )

    def _met(self, by: str, node_id: str) -> int:
        """Return the incarnation of a node that another node, if it runs, has met."""
        node = self.hosts[by].node
        return node.liveness.peers[node_id].incarnation if node is not None and by != node_id else 0

    def _may_be_excluded(self, node_id: str, view: View) -> bool:
        """Return True if a view may ignore a living node's data: declared dead, or not in a bootstrap."""
        first, holders = self._bootstrapped.get(view.bootstrap_epoch), self._holders_at_bootstrap or {}
        held = holders.get(node_id) == self.hosts[node_id].incarnation
        return self._is_declared_dead(node_id, view.members) or (
            first is not None and (node_id not in first.members or not held)
        )

    def _bootstrapped_twice(self, first: View, again: View) -> bool:
        """Return True if a node was bootstrapped alone, lost its disk and was bootstrapped again."""
        bootstrapped = (
            first.operator_forced
            and again.operator_forced
            and first.bootstrap_epoch == again.bootstrap_epoch == again.epoch
        )
        alone = list(first.members) == list(again.members) and len(first.members) == 1
        return bootstrapped and alone and self._is_dead(first)

    def is_outranked(self, node: Node) -> bool:
        """Return True if what a node serves no longer counts: others continued beyond its epoch."""
        view, outranking, context = node.view, self.outranking, node.context
        if view is None or outranking is None or view.epoch >= outranking.epoch:
            return False
        return not outranking.includes(context.node_id, context.incarnation)

    def _cannot_have_served(self, epoch: int) -> bool:
        """Return True if a member never installed that view: serving needs the echo of every member."""
        view = self._decided.get(epoch)
        return view is not None and not set(view.members) <= self._installers.get(epoch, set())

    def _is_dead(self, view: View) -> bool:
        hosts = ((self.hosts[node_id], member.incarnation) for node_id, member in view.members.items())
        return all(host.node is None or host.incarnation != incarnation for host, incarnation in hosts)

    def _nodes(self) -> list[Node]:
        return [host.node for host in self.hosts.values() if host.node is not None]

    # -- the directory

    def _check_directory(self, node_id: str, node: Node) -> None:
        directory, view = node.directory, node.view
        position = (directory.installed_epoch, directory.seq)
        before_position, before = self._snapshots.get(node_id, ((0, 0), {}))
        if position == before_position or view is None:
            return
        # What an installer completed counts once a node runs its view. One was paused when it had completed
        # what had reached it alone, and the others continued without that (seed 7121256).
        installs = node.context.sealed and position[0] == before_position[0]
        if position > self._newest and not installs:
            # (A member that lags in the same epoch has forgotten nothing.)
            if directory.seq < self._newest[1]:
                self._check_forgotten(node_id)
            self._newest = position
        now: dict[int, PlacementSnapshot] = {}
        for creation_id, entry in directory.checkpoints.items():
            snapshot = now[creation_id] = _snapshot_of(entry, view)
            if position >= self._last_snapshots.get(creation_id, (position, snapshot))[0]:
                self._last_snapshots[creation_id] = position, snapshot
            self._note_open(creation_id, position, bool(entry.opens))
        for creation_id, snapshot in before.items():
            if creation_id in now:
                continue
            last = self._last_snapshots[creation_id][1]
            held_here = (node_id, node.context.incarnation) in last.in_sync and not self.history_lost
            same_view = position[0] == before_position[0] and not snapshot.unavailable
            if (same_view or held_here) and creation_id in self._closed:
                self._check_expired(node_id, creation_id, snapshot)
            elif not same_view:
                self._check_loss(node_id, node, creation_id, last)
        self._snapshots[node_id] = (position, now)
        if position[0] != before_position[0]:
            self._find_unnoticed_losses(node_id, node, position, now)

    def _find_unnoticed_losses(
        self, node_id: str, node: Node, position: Position, now: dict[int, PlacementSnapshot]
    ) -> None:
        """Check each checkpoint that vanished, at the first view without it: who knew it must be gone."""
        for creation_id, (known_position, snapshot) in list(self._last_snapshots.items()):
            if known_position < position and creation_id not in now and creation_id not in self.lost:
                self._check_loss(node_id, node, creation_id, snapshot)

    def _note_open(self, creation_id: int, position: Position, is_open: bool) -> None:
        """Remember since when a checkpoint is closed, according to the newest directory that shows it.

        If it was opened again, and a loss was accepted after that, the open may be lost. Then it counts as
        closed ever since it was closed before (seed 7416149).
        """
        now_ns = self.world.now_ns
        if is_open:
            if creation_id in self._closed and position > self._closed[creation_id][0]:
                self._reopened[creation_id] = (now_ns, self._closed.pop(creation_id))
        elif creation_id not in self._closed:
            reopened_ns, closed = self._reopened.get(creation_id, (now_ns, (position, now_ns)))
            lost = any(accepted_ns >= reopened_ns for accepted_ns in self.accepted_ns)
            self._closed[creation_id] = closed if lost else (position, now_ns)

    def _check_expired(self, node_id: str, creation_id: int, snapshot: PlacementSnapshot) -> None:
        """A checkpoint went, not with its replicas: it was unlinked, or its retention must be over."""
        if snapshot.unlinked:
            return
        closed_ns = self._closed[creation_id][1]
        retained_ns = self.world.now_ns - closed_ns
        least_ns = snapshot.retention_ns * (PPM - self.world.options.skew_ppm) // PPM
        if retained_ns + MILLISECOND_NS < least_ns and not self.listener.may_be_unlinked_since(
            snapshot.name, closed_ns
        ):
            retained, retention = (
                f"{retained_ns / MILLISECOND_NS:.0f} ms",
                f"{least_ns / MILLISECOND_NS:.0f} ms",
            )
            raise Violation(
                "retention is kept",
                f"{node_id} deleted {creation_id:x} {retained} after its close, not {retention}",
            )

    def _check_forgotten(self, node_id: str) -> None:
        """A view began with an older directory. That is right only if no node with the newest one is left."""
        self.history_lost = True
        self.world.say(
            f"{node_id} starts with a directory that lacks a change: no node has that change any more"
        )
        for other in self._nodes():
            position = (other.directory.installed_epoch, other.directory.seq)
            has_left = other.liveness.own.left  # It serves no more, and said what it takes with it.
            if position != self._newest or has_left or self._cannot_have_served(position[0]):
                continue
            holder, view = other.context.node_id, self.hosts[node_id].node.view  # type: ignore[union-attr]
            if view is not None and self._may_be_excluded(holder, view):
                continue
            if not self._may_have_continued(node_id, position[0]):
                raise Violation(
                    "no history is abandoned",
                    f"{node_id} started a new history although {holder} has {position}",
                )

    def _alive(self, creation_id: int, snapshot: PlacementSnapshot, by: Iterable[str]) -> list[str]:
        return [
            holder
            for holder, incarnation in snapshot.in_sync
            if self._holds(holder, incarnation, creation_id) and not self._is_declared_dead(holder, by)
        ]

    def _check_loss(self, node_id: str, node: Node, creation_id: int, snapshot: PlacementSnapshot) -> None:
        """A checkpoint is gone or unavailable: if it was open, every replica of it must be dead."""
        alive = self._alive(creation_id, snapshot, node.view.members if node.view is not None else [node_id])
        still_open = any(
            opened[0] == creation_id
            for session in node.directory.sessions.values()
            for opened in session.opens.values()
        )
        if alive and still_open and creation_id not in self.lost:
            raise Violation(
                "nothing is lost while a replica lives",
                f"{node_id} counted {creation_id:x} as lost, but {alive[0]} has it",
            )
        if not alive:
            self._note_lost(creation_id, still_open)

    def was_lost_open(self, creation_id: int) -> bool:
        """Return True if a checkpoint was lost with its replicas while a client had it open."""
        return self.lost.get(creation_id, False) and not self.history_lost

    def _note_lost(self, creation_id: int, still_open: bool) -> None:
        if creation_id not in self.lost:
            self.lost[creation_id] = still_open
            self.world.say(f"checkpoint {creation_id:x} is lost: no replica of it is left")

    def _holds(self, node_id: str, incarnation: int, creation_id: int) -> bool:
        host = self.hosts[node_id]
        replica = host.node.replicas.get(creation_id) if host.node is not None else None
        return host.incarnation == incarnation and replica is not None and replica.complete


def _is_whole(replica: Replica | None) -> bool:
    """Return True if a node may yet continue from this replica, or from the one that its join set aside."""
    return replica is not None and (replica.complete or replica.previous_content is not None)


def _is_to_create(other: Node, node: Node, creation_id: int) -> bool:
    """Return True if, as `node` knows, the other one is to hold a new checkpoint and does not know it yet.

    Also True if it knows, and makes its replica once the view that it installs is on its disk (seed 7013558).
    """
    entry = node.directory.checkpoints.get(creation_id)
    placed = entry is not None and other.context.node_id in entry.in_sync
    directory = other.directory
    knows = creation_id in directory.checkpoints and creation_id not in other.replicas
    return placed and (knows or directory.may_still_be_created(creation_id))


def _snapshot_of(entry: CheckpointEntry, view: View) -> PlacementSnapshot:
    holders = tuple(entry.last_in_sync.items())
    members = tuple((n, view.members[n].incarnation) for n in entry.in_sync if n in view.members)
    return PlacementSnapshot(
        entry.name, holders or members, bool(entry.opens), entry.unlinked, bool(holders), entry.retention_ns
    )
