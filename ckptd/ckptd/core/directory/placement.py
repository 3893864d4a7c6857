"""Where replicas go: the creator's node first, then the members that hold least."""

from collections.abc import Collection

from ckptd.core.directory.directory import Directory
from ckptd.core.view import View


def held_by(directory: Directory, view: View) -> dict[str, int]:
    """How many replicas each member holds."""
    held = dict.fromkeys(view.members, 0)
    for entry in directory.checkpoints.values():
        for node_id in entry.replicas:
            if node_id in held:
                held[node_id] += 1
    return held


def place_replicas(held: dict[str, int], first: str, replicas: int, full: Collection[str] = ()) -> list[str]:
    """The nodes of a new checkpoint's replicas, at most `replicas`; the first is to be active.

    That is `first`, and then those that hold least. Full nodes come last: they are taken only where there are
    too few others. Then nothing can be written, but nothing is acknowledged that one crash would lose.
    """
    return sorted(held, key=lambda node_id: (node_id in full, node_id != first, held[node_id], node_id))[
        :replicas
    ]


def missing_replicas(
    directory: Directory, view: View, replicas: int, leaving: list[str], full: list[str]
) -> list[tuple[int, str]]:
    """(creation id, node) of replicas to add, so that each checkpoint has its number.

    A collocated one has a replica on each node by which it is open. A node that is leaving
    counts as gone already: it hands over first. One that is full gets no more.
    """
    held = held_by(directory, view)
    wanted: list[tuple[int, str]] = []
    for entry in directory.checkpoints.values():
        if not entry.in_sync:
            continue
        if entry.attributes.collocated:
            users = {directory.sessions[session].node_id: None for session, _ in entry.opens}
            lacking = (node_id for node_id in users if node_id in held and node_id not in entry.replicas)
            wanted += [
                (entry.creation_id, node_id) for node_id in lacking if node_id not in (*leaving, *full)
            ]
            continue
        staying = [node_id for node_id in entry.replicas if node_id not in leaving]
        taken = (*entry.replicas, *leaving, *full)
        candidates = [node_id for node_id in held if node_id not in taken]
        candidates.sort(key=lambda node_id: (held[node_id], node_id))
        for node_id in candidates[: max(0, replicas - len(staying))]:
            held[node_id] += 1
            wanted.append((entry.creation_id, node_id))
    return wanted
