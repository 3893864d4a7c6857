"""Where replicas go: the creator's node first, then the members that hold the fewest."""

from collections.abc import Collection

from ckptd.core.directory.directory import Directory
from ckptd.core.view import View


def replicas_per_node(directory: Directory, view: View) -> dict[str, int]:
    """Count the replicas that each member holds."""
    per_node = dict.fromkeys(view.members, 0)
    for entry in directory.checkpoints.values():
        for node_id in entry.replicas:
            if node_id in per_node:
                per_node[node_id] += 1
    return per_node


def place_replicas(
    per_node: dict[str, int], first: str, replicas: int, full: Collection[str] = ()
) -> list[str]:
    """Choose at most `replicas` nodes for a new checkpoint; the first of them gets the active replica.

    The node `first` comes first, then those that hold the fewest replicas. Full nodes come last: they are
    chosen only if there are too few others. Nothing can be written then, but nothing is acknowledged that a
    single crash would lose.
    """
    return sorted(
        per_node, key=lambda node_id: (node_id in full, node_id != first, per_node[node_id], node_id)
    )[:replicas]


def missing_replicas(
    directory: Directory, view: View, replicas: int, leaving: list[str], full: list[str]
) -> list[tuple[int, str]]:
    """Return (creation id, node) of each replica to add, so that every checkpoint has its number of replicas.

    A collocated checkpoint has a replica on each node through which it is open. A node that is leaving
    counts as gone already: it hands over its replicas before it goes. A full node gets no more replicas.
    """
    per_node = replicas_per_node(directory, view)
    refusing = [*leaving, *full]
    missing: list[tuple[int, str]] = []
    for entry in directory.checkpoints.values():
        if not entry.in_sync:
            continue
        if entry.attributes.collocated:
            users = {directory.sessions[session].node_id: None for session, _ in entry.opens}
            lacking = (node_id for node_id in users if node_id in per_node and node_id not in entry.replicas)
            missing += [(entry.creation_id, node_id) for node_id in lacking if node_id not in refusing]
            continue
        staying = [node_id for node_id in entry.replicas if node_id not in leaving]
        taken = (*entry.replicas, *refusing)
        candidates = [node_id for node_id in per_node if node_id not in taken]
        candidates.sort(key=lambda node_id: (per_node[node_id], node_id))
        for node_id in candidates[: max(0, replicas - len(staying))]:
            per_node[node_id] += 1
            missing.append((entry.creation_id, node_id))
    return missing
