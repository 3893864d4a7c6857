"""The watch over nodes whose replicas may take no more than so many bytes.

It counts by itself what the sections take. A node that holds as much as it may, and has counted since, lets
nothing grow that it orders itself. What others order, and a copy that is being made, may still come.
"""

from dataclasses import dataclass, field

from ckptd.core.node import Node
from ckptd.core.replication.sections import SECTION_BYTES, SectionTable
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation


@dataclass(slots=True)
class _Held:
    """What a node held after its last event: in all, and for each checkpoint that it orders.

    `least`: the least that it held since it counted last, at `counted_ns`.
    """

    counted_ns: int = -1
    least: int = 0
    ordered: dict[int, tuple[SectionTable, int]] = field(default_factory=dict)


class MemoryWatch:
    """`full` counts the events at which some node was found to hold all that it may."""

    def __init__(self) -> None:
        self.full = 0
        self._held: dict[str, _Held] = {}

    def process_started(self, node_id: str) -> None:
        """A new process: it holds nothing."""
        self._held.pop(node_id, None)

    def after_event(self, host: Host, node: Node) -> None:
        """Check what one node may have let grow. Raises: Violation."""
        limit = host.settings.memory_bytes_max
        if not limit:
            return
        before = self._held.setdefault(host.node_id, _Held())
        total, ordered = 0, {}
        for creation_id, replica in node.replicas.items():
            taken = _taken_by(replica.sections)
            total += taken
            if replica.active is not None and replica.active.ready:
                ordered[creation_id] = (replica.sections, taken)
        counted_ns = node.requests.replicas.memory.count_again_ns
        if counted_ns != before.counted_ns:
            self._held[host.node_id] = _Held(counted_ns, total, ordered)
            return
        if before.least >= limit:
            self.full += 1
            if total > limit:
                _check_growth(host, before.ordered, ordered, f"{total} of {limit} bytes")
        before.least, before.ordered = min(before.least, total), ordered


def _taken_by(sections: SectionTable) -> int:
    held = sections.sections.values()
    return sum(SECTION_BYTES + len(section.content) for section in held)


def _check_growth(
    host: Host,
    before: dict[int, tuple[SectionTable, int]],
    now: dict[int, tuple[SectionTable, int]],
    text: str,
) -> None:
    for creation_id, (sections, taken) in now.items():
        same, taken_before = before.get(creation_id, (None, 0))
        if same is sections and taken > taken_before:
            raise Violation(
                "memory is limited",
                f"{host.node_id} has {text}, and let {creation_id:x} grow from {taken_before} to {taken}",
            )
