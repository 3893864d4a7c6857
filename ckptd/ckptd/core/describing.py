"""What a node answers to DESCRIBE: the cluster and its checkpoints as this node sees them."""

from collections.abc import Callable
from typing import Any

from ckptd.core.context import Context
from ckptd.core.directory import Directory
from ckptd.core.heartbeat import Heartbeats
from ckptd.core.view import View

EdgeCounts = Callable[[], dict[str, int]]
"""What the runtime counts, by name."""


def describe_cluster(
    context: Context,
    heartbeats: Heartbeats,
    view: View | None,
    urls: tuple[str, ...],
    waiting_for: str,
    edge_counts: EdgeCounts,
) -> dict[str, Any]:
    """The answer to `cluster`, by name. `urls` are this node's own."""
    settings = context.settings

    def urls_of(node_id: str) -> list[str]:
        peer = heartbeats.peers.get(node_id)
        return list(urls if node_id == context.node_id else peer.urls if peer is not None else ())

    def votes(witness: str) -> bool:
        if witness == context.node_id:
            return not heartbeats.forgetful
        peer = heartbeats.peers[witness]
        return peer.connected and heartbeats.hears(peer) and not peer.forgetful

    members = view.members.items() if view else ()
    return {
        "node_id": context.node_id,
        "epoch": context.epoch,
        "coordinator": view.coordinator if view else "",
        "arbiter": settings.arbiter_name,
        "on_silent_peer": settings.on_silent_peer if settings.arbiter_name == "pair" else "",
        "members": [[n, member.incarnation, member.join_epoch, urls_of(n)] for n, member in members],
        "configured": [n for n in settings.voters if n not in settings.all_witnesses],
        "voters": list(settings.voters),
        "witnesses": list(settings.all_witnesses),
        "voting_witnesses": [node_id for node_id in settings.all_witnesses if votes(node_id)],
        "serving": context.serving(),
        "waiting_for": waiting_for,
        "alarms": [[name, text] for name, text in sorted(context.alarms.items())],
        "counters": {**edge_counts(), **dict(sorted(context.counters.items()))},
        "memory_bytes": context.held_bytes,
    }


def describe_checkpoints(directory: Directory, closed: dict[int, str]) -> list[Any]:
    """The answer to `checkpoints`. `closed`: why some are not served."""
    return [
        [
            entry.name,
            entry.creation_id,
            entry.attributes.fields(),
            entry.active,
            [[node_id, in_sync] for node_id, in_sync in sorted(entry.replicas.items())],
            len(entry.opens),
            entry.unlinked,
            sorted(entry.holders),
            closed.get(entry.creation_id, ""),
        ]
        for entry in directory.checkpoints.values()
    ]
