"""The oracle for nodes that leave: nothing is lost that SIGTERM could save.

It checks a node that reports that it no longer serves. What that node does not name as lost must be held by
another node that runs and stays. Where nodes only leave cleanly and come back in time (`Options.orderly`), no
node may name anything.
"""

from typing import Final

from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.node import Node
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation, World

RULE: Final = "nothing is lost that SIGTERM could save"


class LeaveOracle:
    """Checks each node once, when it has left."""

    def __init__(self, world: World, hosts: dict[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.crashed_ns = -(2**62)
        """When a process last died in another way. A node that leaves may not know of that yet."""

        self._left: set[tuple[str, int]] = set()
        self._reported_ns: dict[int, int] = {}
        """By checkpoint, when a node that left last reported that its replica was the last one."""

    def note_crash(self) -> None:
        """Note that a process died without being asked to leave."""
        self.crashed_ns = self.world.now_ns

    def after_event(self, host: Host, node: Node) -> None:
        """Check a node that has just reported that it has left. Raises: Violation."""
        start = (host.node_id, host.incarnation)
        if not node.liveness.own.left or start in self._left:
            return
        self._left.add(start)
        leaving = node.graceful_leave
        lost_with_it = [*leaving.last_replicas, *leaving.unshared]
        if self.world.options.orderly and len(self.hosts) > 1:
            self._check_loses_nothing(node, lost_with_it)
        self._reported_ns.update(dict.fromkeys(lost_with_it, self.world.now_ns))
        options = self.world.options
        if self.world.now_ns - self.crashed_ns < options.grace_ns + 2 * options.lease_ns:
            return
        for entry in node.directory.checkpoints.values():
            if entry.creation_id not in lost_with_it and entry.replicas.get(host.node_id):
                self._check_held_elsewhere(node, entry)

    def _check_loses_nothing(self, node: Node, lost_with_it: list[int]) -> None:
        for creation_id in lost_with_it:
            entry = node.directory.checkpoints[creation_id]
            if not entry.attributes.collocated:
                text = (
                    f"{node.context.node_id} takes the last replica of {entry.name!r} with it, although "
                    "the others come back"
                )
                raise Violation(RULE, text)

    def _check_held_elsewhere(self, node: Node, entry: CheckpointEntry) -> None:
        own = node.replicas.get(entry.creation_id)
        if own is None or not own.log.seq:
            return  # Nothing was written yet, and another node may not know yet that it was created.
        if own.log.committed_seq < own.log.seq:
            return  # The time of its leave was over before everything was acknowledged.
        for other in self.hosts.values():
            if other.node is None or other.node is node or other.node.liveness.own.left:
                continue
            its = other.node.replicas.get(entry.creation_id)
            if its is not None and its.complete and its.log.is_prefix(own.log.epoch, own.log.seq):
                return
        reported_ns = self._reported_ns.get(entry.creation_id, -(2**62))
        if self.world.now_ns - reported_ns < self.world.options.lease_ns:
            return  # Two left at once, and the other one reported what is lost with them (seed 7126653).
        me, name = node.context.node_id, f"{entry.name!r} ({entry.creation_id:x})"
        raise Violation(RULE, f"{me} leaves, but no other node has {name}")
