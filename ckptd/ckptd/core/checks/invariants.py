"""The invariants inside a cluster (docs/rules.md, 8), as pure functions over its cores.

The simulator calls them after every event, for what that event's node touched; scenario tests call
`broken_invariants` at their end. Each function returns the contradiction as text, "" for none. They know no
simulator and change nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from ckpt_protocol.body_codec import pack_body
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.node import Node
from ckptd.core.replication.replica import Replica
from ckptd.core.view import View

Clocked = tuple[Node, int]
"""A node, and the time on its own clock."""

Version = tuple[int, int]


def version_of(replica: Replica) -> Version:
    """Return the epoch and seq of the last update that a replica holds."""
    return replica.log.epoch, replica.log.seq


def comparable_content(replica: Replica) -> bytes | None:
    """Return all that a replica holds, as bytes to compare; None while its version does not determine that.

    That is so in the middle of a resync, and while changes of a weak checkpoint gather for their batch at
    its active replica.
    """
    if not replica.complete or (replica.active is not None and replica.active.batch):
        return None
    rows: list[Any] = [
        [section_id, section.content, section.expiration_ns, section.state]
        for section_id, section in replica.sections.items_sorted()
    ]
    leadership = replica.sections.leadership
    if leadership.version:
        rows.append(leadership.pack())
    if replica.sections.resize_state.number:
        rows.append(replica.sections.resize_state.fields())
    return pack_body(rows)


def several_active(creation_id: int, nodes: Iterable[Clocked]) -> str:
    """No two nodes serve as the active replica of one checkpoint at the same time."""
    serving = [node.context.node_id for node, now_ns in nodes if node.active_for(creation_id, now_ns)]
    return f"{' and '.join(serving)} serve {creation_id:x} as active replicas" if len(serving) > 1 else ""


def over_limits(replica: Replica) -> str:
    """Sections, section sizes and id sizes stay within the limits in force."""
    attributes = replica.sections.attributes
    sections = replica.sections.sections
    if len(sections) > attributes.sections_max:
        return f"{replica.name!r} has {len(sections)} sections; at most {attributes.sections_max} are allowed"
    content_bytes = 0
    for section_id, section in sections.items():
        content_bytes += len(section.content)
        if len(section.content) > attributes.section_bytes_max:
            return f"{replica.name!r}: section {section_id!r} has {len(section.content)} bytes"
        if len(section_id) > attributes.section_id_bytes_max:
            return f"{replica.name!r}: section id {section_id!r} is too long"
    if content_bytes != replica.sections.content_bytes:
        return (
            f"{replica.name!r} counts {replica.sections.content_bytes} bytes, but its sections have "
            f"{content_bytes}"
        )
    return ""


def over_directory(replica: Replica, entry: CheckpointEntry) -> str:
    """A serving active replica accepts no more than the directory says (ADR 33)."""
    limits, listed = replica.sections.attributes.limits, entry.attributes.limits
    if listed.cover(limits):
        return ""
    return (
        f"{replica.name!r}: the limits in force are {tuple(limits)}, those of the directory {tuple(listed)}"
    )


def committed_but_not_everywhere(
    replica: Replica, entry: CheckpointEntry, view: View, nodes: Iterable[Node]
) -> str:
    """Every in-sync replica holds what the active replica of a sync checkpoint calls committed."""
    for node in nodes:
        context = node.context
        if not entry.replicas.get(context.node_id) or not view.includes(context.node_id, context.incarnation):
            continue
        other = node.replicas.get(entry.creation_id)
        if other is None or other.ignores_updates or other.last_seq >= replica.committed_seq:
            continue
        return (
            f"{entry.name!r}: {replica.context.node_id} has committed up to {replica.committed_seq}, "
            f"but the replica on {context.node_id} ends at {other.last_seq}"
        )
    return ""


def differing_views(nodes: Iterable[Node]) -> str:
    """One epoch is one view, in every node that has installed it."""
    by_epoch: dict[int, View] = {}
    for node in nodes:
        view = node.view
        if view is not None and by_epoch.setdefault(view.epoch, view).members != view.members:
            return f"epoch {view.epoch} has two views: {by_epoch[view.epoch].members} and {view.members}"
    return ""


def differing_replicas(nodes: Sequence[Node]) -> str:
    """Replicas that hold the same version hold identical sections."""
    seen: dict[tuple[int, Version], tuple[bytes, str]] = {}
    for node in nodes:
        for creation_id, replica in node.replicas.items():
            content = comparable_content(replica)
            if content is None:
                continue
            node_id = node.context.node_id
            first, first_id = seen.setdefault((creation_id, version_of(replica)), (content, node_id))
            if first != content:
                return (
                    f"{replica.name!r} at {version_of(replica)} has different content on {first_id} and "
                    f"{node_id}"
                )
    return ""


def broken_invariants(nodes: Sequence[Clocked]) -> list[str]:
    """Return all broken invariants of the whole cluster: for the end of a test."""
    cores = [node for node, _ in nodes]
    broken = [differing_views(cores), differing_replicas(cores)]
    creation_ids = dict.fromkeys(creation_id for node in cores for creation_id in node.replicas)
    broken.extend(several_active(creation_id, nodes) for creation_id in creation_ids)
    for node, now_ns in nodes:
        for creation_id, replica in node.replicas.items():
            broken.append(over_limits(replica))
            entry = node.directory.checkpoints.get(creation_id)
            if entry is None or node.view is None or not node.active_for(creation_id, now_ns):
                continue
            broken.append(over_directory(replica, entry))
            if replica.sync:
                broken.append(committed_but_not_everywhere(replica, entry, node.view, cores))
    return [text for text in broken if text]
