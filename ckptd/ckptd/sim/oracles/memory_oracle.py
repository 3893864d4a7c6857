"""The oracle for nodes whose replicas may take only a limited number of bytes.

It counts on its own what the sections take. If a node is at its limit and has counted since, the checkpoints
that it orders itself must not grow. What other nodes order, and a replica that is being built, may still
grow.
"""

from dataclasses import dataclass, field

from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES, SectionTable
from ckptd.core.node import Node
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation


@dataclass(slots=True)
class _MemoryUse:
    """What a node held after its last event: in total, and for each checkpoint that it orders."""

    counted_ns: int = -1
    """When the node last counted."""

    least: int = 0
    """The least that the node held since then."""

    ordered: dict[int, tuple[SectionTable, int]] = field(default_factory=dict)


class MemoryOracle:
    """Checks the nodes that have a memory limit."""

    def __init__(self) -> None:
        self.full = 0
        """How many events left a node at its limit."""

        self._use: dict[str, _MemoryUse] = {}

    def process_started(self, node_id: str) -> None:
        """Forget the node's predecessor: a new process holds nothing."""
        self._use.pop(node_id, None)

    def after_event(self, host: Host, node: Node) -> None:
        """Check what one node may have let grow. Raises: Violation."""
        limit = host.settings.memory_bytes_max
        if not limit:
            return
        before = self._use.setdefault(host.node_id, _MemoryUse())
        total, ordered = 0, {}
        for creation_id, replica in node.replicas.items():
            bytes_used = _bytes_used(replica.sections)
            total += bytes_used
            if replica.active is not None and replica.active.ready:
                ordered[creation_id] = (replica.sections, bytes_used)
        counted_ns = node.requests.replicas.capacity.recount_due_ns
        if counted_ns != before.counted_ns:
            self._use[host.node_id] = _MemoryUse(counted_ns, total, ordered)
            return
        if before.least >= limit:
            self.full += 1
            if total > limit:
                _check_growth(host, before.ordered, ordered, f"{total} of {limit} bytes")
        before.least, before.ordered = min(before.least, total), ordered


def _bytes_used(sections: SectionTable) -> int:
    return sum(SECTION_OVERHEAD_BYTES + len(section.content) for section in sections.sections.values())


def _check_growth(
    host: Host,
    before: dict[int, tuple[SectionTable, int]],
    now: dict[int, tuple[SectionTable, int]],
    text: str,
) -> None:
    for creation_id, (sections, bytes_used) in now.items():
        same, used_before = before.get(creation_id, (None, 0))
        if same is sections and bytes_used > used_before:
            raise Violation(
                "memory is limited",
                f"{host.node_id} has {text}, but let {creation_id:x} grow from {used_before} to {bytes_used}",
            )
