"""The oracle for replicas: it remembers every version that any replica ever held, and who was active when.

From that it sees when replicas of one version differ, when two nodes are active at once, and when something
acknowledged is lost.
"""

from dataclasses import dataclass
from hashlib import blake2b

from ckptd.core.checks.invariants import (
    Clocked,
    Version,
    committed_but_not_everywhere,
    comparable_content,
    over_directory,
    over_limits,
    several_active,
    version_of,
)
from ckptd.core.content.sections import SectionTable
from ckptd.core.node import Node
from ckptd.core.replication.replica import Replica
from ckptd.core.view import EPOCH_JUMP_DATA_LOSS, Member
from ckptd.sim.oracles.view_oracle import ViewOracle
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation, World


@dataclass(slots=True)
class ActivePeriod:
    """The current or last active replica of a checkpoint.

    A node that left the view and came back begins a new period.
    """

    node_id: str
    member: Member
    """Which membership of the node it is."""

    seq: int
    """The seq of the last update that it was seen to have answered."""

    epoch: int


class ReplicaOracle:
    """Checks the replicas of one node after each of its events."""

    def __init__(self, world: World, hosts: dict[str, Host], views: ViewOracle) -> None:
        self.world = world
        self.hosts = hosts
        self.views = views
        self.active_periods: dict[int, ActivePeriod] = {}
        self.losses_ns: dict[int, list[int]] = {}
        """By creation id, when an active replica took over and the old one had not handed over."""

        self.lossless_ns: dict[int, list[int]] = {}
        """Those of these times at which the new one had all that the old one was seen to have answered."""

        self._epochs: dict[str, int] = {}
        """By node, the epoch of the view that it had installed when it was last checked."""

        self._superseded: dict[str, dict[int, Version]] = {}
        """By node, what it held when it joined a history that had continued without it."""

        self._highest_seq: dict[int, int] = {}
        """By checkpoint, the highest seq that any active replica gave."""

        self._checked_marks: dict[str, dict[int, tuple[int, int, int, int]]] = {
            node_id: {} for node_id in hosts
        }
        self._versions: dict[tuple[int, Version], tuple[bytes, str]] = {}
        self._last_held: dict[str, dict[int, Version]] = {node_id: {} for node_id in hosts}
        self._seen: dict[str, dict[int, tuple[int, int, SectionTable]]] = {node_id: {} for node_id in hosts}

    def losses_of(self, creation_id: int, sync: bool) -> list[int]:
        """Return when a checkpoint may have lost its last updates.

        A sync checkpoint may lose some only where a loss was accepted.

        Times at which nothing was missing do not count. (After two accepted losses nobody can tell: the
        second side may have less.)
        """
        losses_ns = self.losses_ns.get(creation_id, [])
        if not sync:
            return losses_ns
        accepted_ns = min(self.views.accepted_ns, default=self.world.now_ns)
        lossless_ns = self.lossless_ns.get(creation_id, []) if len(self.views.outranked) < 2 else []
        return [loss_ns for loss_ns in losses_ns if loss_ns >= accepted_ns and loss_ns not in lossless_ns]

    def fork_of(self, creation_id: int) -> int | None:
        """Return when, after a loss, a node continued without proof, perhaps with what was lost."""
        losses_ns = self.losses_ns.get(creation_id, [])
        forks = (ns for ns in self.views.accepted_ns if any(loss_ns < ns for loss_ns in losses_ns))
        return next(forks, None)

    def left_behind_of(self, creation_id: int) -> tuple[int, ...]:
        """Return when active replicas were lost before a node continued without proof."""
        last_ns = max(self.views.accepted_ns, default=0)
        return tuple(loss_ns for loss_ns in self.losses_ns.get(creation_id, []) if loss_ns < last_ns)

    def process_started(self, node_id: str) -> None:
        """Forget the node's predecessor: the new process is not compared with it."""
        self._seen[node_id], self._checked_marks[node_id], self._last_held[node_id] = {}, {}, {}
        self._epochs.pop(node_id, None)
        self._superseded.pop(node_id, None)

    def after_event(self, host: Host, node: Node) -> None:
        """Check what one node may have changed. Raises: Violation."""
        node_id = host.node_id
        self._check_replaced(node)
        serving = node.serving(host.local_ns) and not self.views.is_outranked(node)
        rivals: list[Clocked] | None = None
        seen = self._seen[node_id]
        for creation_id, replica in node.replicas.items():
            active, log = replica.active, replica.log
            last = seen.get(creation_id)
            if (
                last is None
                or last[1] != log.seq
                or last[0] != log.epoch
                or last[2] is not replica.sections
                or not replica.complete
                or (active is not None and active.batch)
            ):
                self._check_replica(node_id, creation_id, replica)
            if serving and active is not None and active.ready:
                if rivals is None:
                    rivals = self._serving_others(node_id)
                for rival, _ in rivals:
                    other = rival.replicas.get(creation_id)
                    if other is not None and other.active is not None and other.active.ready:
                        self._report_two_active(host, node, creation_id, rivals)
                mark = (node.context.epoch, node.directory.seq, log.seq, log.committed_seq)
                if self._checked_marks[node_id].get(creation_id) != mark:
                    self._checked_marks[node_id][creation_id] = mark
                    self._check_active(host, node, creation_id, replica)

    def _nodes(self) -> list[Node]:
        return [host.node for host in self.hosts.values() if host.node is not None]

    # -- replicas

    def _check_replica(self, node_id: str, creation_id: int, replica: Replica) -> None:
        version = version_of(replica)
        if replica.active is not None:
            self._highest_seq[creation_id] = max(self._highest_seq.get(creation_id, 0), replica.log.seq)
        excess = over_limits(replica)
        if excess:
            raise Violation("limits", f"{node_id}: {excess}")
        content = comparable_content(replica)
        if content is None:
            self._seen[node_id].pop(creation_id, None)
            return
        self._seen[node_id][creation_id] = (*version, replica.sections)
        digest = blake2b(content, digest_size=16).digest()
        first, who = self._versions.setdefault((creation_id, version), (digest, node_id))
        if first != digest:
            raise Violation(
                "same version, same sections",
                f"{replica.name!r} ({creation_id:x}) at {version} is different on {node_id} and on "
                f"{who}: {_describe(replica)}{self._describe_other(who, creation_id, version)}",
            )

    def _describe_other(self, who: str, creation_id: int, version: Version) -> str:
        node = self.hosts[who].node
        other = node.replicas.get(creation_id) if node is not None else None
        return f"; {who} has {_describe(other)}" if other is not None and version_of(other) == version else ""

    def _check_replaced(self, node: Node) -> None:
        """Check that what a replica held is in its replacement, on another node, or in quarantine."""
        node_id = node.context.node_id
        last_held, superseded = self._last_held[node_id], self._note_superseded(node)
        for creation_id, (epoch, seq) in list(last_held.items()):
            replica = node.replicas.get(creation_id)
            if replica is not None and (
                replica.previous_content is not None or _continues_from(replica, epoch, seq)
            ):
                continue
            del last_held[creation_id]
            entry = node.directory.checkpoints.get(creation_id)
            continued_without = entry is not None and not entry.attributes.sync
            was_superseded = superseded.pop(creation_id, None) is not None
            if (
                continued_without
                or was_superseded
                or (entry is None and self.views.was_lost_open(creation_id))
            ):
                self._check_not_lost(node, creation_id, (epoch, seq))
        for creation_id, replica in node.replicas.items():
            if replica.complete and replica.previous_content is None and replica.log.seq:
                last_held[creation_id] = replica.log.epoch, replica.log.seq

    def _note_superseded(self, node: Node) -> dict[int, Version]:
        """Return what a node held when it joined a history that continued without it.

        A checkpoint no longer counts once the node has it in sync again.
        """
        view, node_id = node.view, node.context.node_id
        superseded = self._superseded.setdefault(node_id, {})
        if view is None:
            return superseded
        last_epoch = self._epochs.get(node_id, view.epoch)
        self._epochs[node_id] = view.epoch
        if (
            view.epoch - last_epoch >= EPOCH_JUMP_DATA_LOSS // 2
            and view.members[node_id].join_epoch > last_epoch
        ):
            superseded.update(self._last_held[node_id])
        for creation_id in list(superseded):
            entry = node.directory.checkpoints.get(creation_id)
            if entry is not None and entry.replicas.get(node_id):
                del superseded[creation_id]
        return superseded

    def _check_not_lost(self, node: Node, creation_id: int, version: Version) -> None:
        node_id = node.context.node_id
        others = [other.replicas.get(creation_id) for other in self._nodes() if other is not node]
        if any(other is not None and _continues_from(other, *version) for other in others):
            return
        if f"{creation_id:x}-{version[0]}-{version[1]}" not in self.hosts[node_id].quarantined:
            raise Violation(
                "nothing is lost silently",
                f"{node_id} deleted its replica of {creation_id:x} at {version}, which no other node has",
            )

    def _serving_others(self, node_id: str) -> list[Clocked]:
        return [
            (host.node, host.local_ns)
            for host in self.hosts.values()
            if host.node is not None
            and host.node_id != node_id
            and host.node.serving(host.local_ns)
            and not self.views.is_outranked(host.node)
        ]

    def _report_two_active(self, host: Host, node: Node, creation_id: int, rivals: list[Clocked]) -> None:
        two = several_active(creation_id, [(node, host.local_ns), *rivals])
        if two:
            raise Violation("one active replica", two)

    def _check_active(self, host: Host, node: Node, creation_id: int, replica: Replica) -> None:
        entry, view = node.directory.checkpoints.get(creation_id), node.view
        assert view is not None, host.node_id
        if entry is None:
            raise Violation(
                "directory", f"{host.node_id} is active for {creation_id:x}, which is not in its directory"
            )
        excess = over_directory(replica, entry)
        if excess and not self.views.history_lost:
            raise Violation("no replica accepts more than the directory says", f"{host.node_id}: {excess}")
        if replica.sync:
            broken = committed_but_not_everywhere(replica, entry, view, self._nodes())
            if broken:
                raise Violation("what is committed is on every in-sync replica", broken)
        last = self.active_periods.get(creation_id)
        member = view.members[host.node_id]
        seq = replica.committed_seq if replica.sync else replica.log.seq
        if last is not None and last.node_id == host.node_id and last.member == member:
            last.seq, last.epoch = seq, view.epoch
            return
        period = self.active_periods[creation_id] = ActivePeriod(host.node_id, member, seq, view.epoch)
        if last is None:
            return
        # A node that left the view and came back dropped its replica in between, and with it what only it
        # had.
        handed_over = view.members.get(last.node_id) == last.member
        self.world.say(
            f"{entry.name.decode()} ({creation_id:x}): active replica {last.node_id} -> {period.node_id}"
            + ("" if handed_over else ", the old one is lost")
        )
        if not handed_over:
            self.losses_ns.setdefault(creation_id, []).append(self.world.now_ns)
            lost = self._count_loss(creation_id, replica, last.seq, view.epoch)
            if not lost:
                self.lossless_ns.setdefault(creation_id, []).append(self.world.now_ns)
            elif replica.sync and not self._may_lose(last.epoch, view.epoch):
                raise Violation(
                    "nothing acknowledged is lost",
                    f"{lost} updates of sync {creation_id:x} of epoch {last.epoch} are lost in {view.epoch}",
                )

    def _count_loss(self, creation_id: int, replica: Replica, ordered_seq: int, epoch: int) -> int:
        """Return how many updates of the old active replica the new one began without."""
        log = replica.log
        start_seq = (
            log.seq if log.epoch != epoch else log.last_seq_by_epoch[-1][1] if log.last_seq_by_epoch else 0
        )
        lost = max(0, ordered_seq - start_seq)
        counted = (
            replica.known_losses[-1][1]
            if replica.known_losses and replica.known_losses[-1][0] == start_seq
            else 0
        )
        # A node that has lost its lease may still have ordered what it had answered before (a weak batch).
        if counted > max(lost, self._highest_seq.get(creation_id, 0) - start_seq):
            raise Violation(
                "losses are counted correctly",
                f"{replica.context.node_id} reports that at least {counted} updates of "
                f"{creation_id:x} are lost, but {lost} are",
            )
        if lost:
            self.world.say(f"{lost} updates of {creation_id:x} are lost; it counted {counted}")
        return lost

    def _may_lose(self, last_epoch: int, epoch: int) -> bool:
        """Return True if a sync checkpoint may lose updates between two epochs: a loss was accepted there.

        After two accepted losses nobody can tell which of the sides continued.
        """
        epochs = [outranking for _, outranking in self.views.outranked]
        if len(epochs) != 1:
            return self.views.history_lost
        return last_epoch < epochs[0] <= epoch


def _continues_from(replica: Replica, epoch: int, seq: int) -> bool:
    """Return True if this replica holds what another one held at that version, or continued from it."""
    return replica.complete and replica.log.is_prefix(epoch, seq)


def _describe(replica: Replica) -> str:
    return " ".join(
        f"{section_id!r}={section.content!r},{section.expiration_ns},{section.state}"
        for section_id, section in replica.sections.items_sorted()
    )
