"""The watch over the nodes: after every event it checks, cheaply, what the event's node may have broken.

It remembers what the pure invariants cannot see at one moment: every version that any
replica ever held, every view that was ever installed, who was active when. It may look
inside the nodes, and it knows which processes are really dead.
"""

from dataclasses import dataclass
from hashlib import blake2b

from ckptd.core.invariants import (
    Version,
    beyond_limits,
    content_of,
    two_actives,
    uncommitted_promise,
    version_of,
)
from ckptd.core.node import Node
from ckptd.core.replica import Replica
from ckptd.core.view import Member, View
from ckptd.sim.host import Host
from ckptd.sim.world import Violation, World


@dataclass(slots=True, frozen=True)
class Reign:
    """Who is (or was last) the active replica of a checkpoint: a node, and which stay of it in the view."""

    node_id: str
    member: Member


@dataclass(slots=True, frozen=True)
class Placed:
    """What a node's directory last said of a checkpoint: who held it in sync, and whether it was open."""

    in_sync: tuple[tuple[str, int], ...]
    is_open: bool


class Watch:
    """`losses_ns`: by creation id, when an active replica took over without the old one's word."""

    def __init__(self, world: World, hosts: dict[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.reigns: dict[int, Reign] = {}
        self.losses_ns: dict[int, list[int]] = {}
        self.lost: dict[int, None] = {}
        self.history_lost = False
        self._versions: dict[tuple[int, Version], tuple[bytes, str]] = {}
        self._seen: dict[tuple[str, int], tuple[Version, int]] = {}
        self._views: dict[int, tuple[object, str]] = {}
        self._last_decided: View | None = None
        self._newest = (0, 0)
        self._installed: dict[str, int] = {}
        self._placed: dict[str, tuple[tuple[int, int], dict[int, Placed]]] = {}

    def process_started(self, node_id: str) -> None:
        """A new process: nothing of its predecessor's is compared with it."""
        self._installed.pop(node_id, None)
        self._placed.pop(node_id, None)
        for key in [key for key in self._seen if key[0] == node_id]:
            del self._seen[key]

    def after_event(self, node_id: str) -> None:
        """Check what one node may have changed. Raises: Violation."""
        host = self.hosts[node_id]
        node = host.node
        assert node is not None
        self._check_view(node_id, node)
        self._check_directory(node_id, node)
        now_ns = host.local_ns
        for creation_id, replica in node.replicas.items():
            self._check_replica(node_id, creation_id, replica)
            if node.active_for(creation_id, now_ns):
                self._check_active(host, node, creation_id, replica)

    # -- views

    def _check_view(self, node_id: str, node: Node) -> None:
        decided = node.membership.decided
        if decided is not None and (self._last_decided is None or decided.epoch > self._last_decided.epoch):
            if self._last_decided is not None and decided.founded != self._last_decided.founded:
                self._check_founding(node_id, decided, self._last_decided)
                self.history_lost = True
            self._last_decided = decided
        view = node.view
        if view is None or self._installed.get(node_id) == view.epoch:
            return
        if view.epoch < self._installed.get(node_id, 0):
            raise Violation("epochs", f"{node_id} went back from {self._installed[node_id]} to {view.epoch}")
        self._installed[node_id] = view.epoch
        first, who = self._views.setdefault(view.epoch, (view.fields(), node_id))
        if first != view.fields():
            raise Violation(
                "one view an epoch", f"epoch {view.epoch} is {first} on {who}, {view.fields()} on {node_id}"
            )

    def _check_founding(self, node_id: str, view: View, last: View) -> None:
        """A new history begins: right only if every member of the old one's last view is really dead."""
        for member_id, member in last.members.items():
            host = self.hosts[member_id]
            node = host.node
            if node is None or host.incarnation != member.incarnation or node.view is None:
                continue
            if node.view.epoch < member.join_epoch:
                continue  # What it holds is of an earlier stay: others may have gone on from there.
            if node.directory.checkpoints or node.directory.sessions:
                raise Violation(
                    "no history is abandoned",
                    f"{node_id} founded epoch {view.epoch} while {member_id} of {last.epoch} lives",
                )

    def _nodes(self) -> list[Node]:
        return [host.node for host in self.hosts.values() if host.node is not None]

    # -- the directory

    def _check_directory(self, node_id: str, node: Node) -> None:
        directory, view = node.directory, node.view
        place = (directory.installed_epoch, directory.seq)
        before_place, before = self._placed.get(node_id, ((0, 0), {}))
        if place == before_place or view is None:
            return
        if directory.installed_epoch >= self._newest[0]:
            if directory.seq < self._newest[1]:
                self._check_forgotten(node_id)
            self._newest = place
        now: dict[int, Placed] = {}
        for creation_id, entry in directory.checkpoints.items():
            holders = tuple(entry.holders.items())
            members = tuple((n, view.members[n].incarnation) for n in entry.in_sync if n in view.members)
            now[creation_id] = Placed(holders or members, bool(entry.opens))
        if place[0] != before_place[0]:
            for creation_id, placed in before.items():
                if creation_id not in now and placed.is_open:
                    self._check_loss(node_id, node, creation_id, placed)
        self._placed[node_id] = (place, now)

    def _check_forgotten(self, node_id: str) -> None:
        """A view began with an older directory: right only if nobody is left who held the newest."""
        self.history_lost = True
        self.world.say(
            f"{node_id} began with a directory that forgot what was ordered: nobody holds that any more"
        )
        for other in self._nodes():
            place = (other.directory.installed_epoch, other.directory.seq)
            if place == self._newest and other.context.node_id != node_id:
                holder = other.context.node_id
                raise Violation(
                    "no history is abandoned", f"{node_id} began anew while {holder} holds {place}"
                )

    def _check_loss(self, node_id: str, node: Node, creation_id: int, placed: Placed) -> None:
        """A view came without a checkpoint that was open: right only if every replica of it is dead."""
        still_open = any(
            opened[0] == creation_id
            for session in node.directory.sessions.values()
            for opened in session.opens.values()
        )
        if not still_open:
            return
        self.lost[creation_id] = None
        self.world.say(f"checkpoint {creation_id:x} is lost: no replica of it is left")
        for holder, incarnation in placed.in_sync:
            host = self.hosts[holder]
            replica = host.node.replicas.get(creation_id) if host.node is not None else None
            if host.incarnation == incarnation and replica is not None and replica.complete:
                raise Violation(
                    "nothing is lost while a replica lives",
                    f"{node_id} gave {creation_id:x} up, {holder} holds it",
                )

    # -- replicas

    def _check_replica(self, node_id: str, creation_id: int, replica: Replica) -> None:
        version = version_of(replica)
        mark = (version, id(replica.sections) if replica.complete else 0)
        batch = replica.active is not None and bool(replica.active.batch)
        if self._seen.get((node_id, creation_id)) == mark and not batch:
            return
        over = beyond_limits(replica)
        if over:
            raise Violation("limits", f"{node_id}: {over}")
        content = content_of(replica)
        if content is None:
            self._seen.pop((node_id, creation_id), None)
            return
        self._seen[node_id, creation_id] = mark
        digest = blake2b(content, digest_size=16).digest()
        first, who = self._versions.setdefault((creation_id, version), (digest, node_id))
        if first != digest:
            raise Violation(
                "same version, same sections",
                f"{replica.name!r} ({creation_id:x}) at {version} is not on {node_id} what it was on {who}:"
                f" {_show(replica)}{self._show_other(who, creation_id, version)}",
            )

    def _show_other(self, who: str, creation_id: int, version: Version) -> str:
        node = self.hosts[who].node
        other = node.replicas.get(creation_id) if node is not None else None
        return f"; {who} has {_show(other)}" if other is not None and version_of(other) == version else ""

    def _check_active(self, host: Host, node: Node, creation_id: int, replica: Replica) -> None:
        clocked = [(other.node, other.local_ns) for other in self.hosts.values() if other.node is not None]
        two = two_actives(creation_id, clocked)
        if two:
            raise Violation("one active replica", two)
        entry, view = node.directory.checkpoints.get(creation_id), node.view
        assert view is not None, host.node_id
        if entry is None:
            raise Violation(
                "directory", f"{host.node_id} is active for {creation_id:x}, which it does not know"
            )
        if replica.sync:
            broken = uncommitted_promise(replica, entry, view, self._nodes())
            if broken:
                raise Violation("committed is held by all", broken)
        reign = Reign(host.node_id, view.members[host.node_id])
        last = self.reigns.get(creation_id)
        if last == reign:
            return
        self.reigns[creation_id] = reign
        if last is None:
            return
        # One that left the view and came back gave its replica up in between, and with it what only it had.
        handed_over = view.members.get(last.node_id) == last.member
        self.world.say(
            f"{entry.name.decode()} ({creation_id:x}): active replica {last.node_id} -> {reign.node_id}"
            + ("" if handed_over else ", the old one is gone")
        )
        if not handed_over:
            self.losses_ns.setdefault(creation_id, []).append(self.world.now_ns)


def _show(replica: Replica) -> str:
    return " ".join(
        f"{section_id!r}={section.content!r},{section.expiration_ns},{section.state}"
        for section_id, section in replica.sections.visible()
    )
