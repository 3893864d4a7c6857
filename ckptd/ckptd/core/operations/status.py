"""A node's answers to DESCRIBE: the cluster and its checkpoints as this node sees them."""

from collections.abc import Mapping
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import PAGE_BYTES_MAX
from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.hub import Limits
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.operations.resource_usage import nearly_full
from ckptd.core.view import View
from ckptd.core.work_costs import PASSED_SHIFT, ROW_WORK

ROW_BYTES: Final = 300
"""About how much a checkpoint's description takes in addition to its name."""

LEADERS_SHOWN_MAX: Final = 20
"""The most leaders whose death is not seen that one description names."""

DESCRIBED_BYTES_MAX: Final = 16 * PAGE_BYTES_MAX
"""The most that one answer describes to a client that does not ask for pages."""


def describe_cluster(
    context: Context,
    liveness: Liveness,
    view: View | None,
    waiting_for: str,
    alarms: Mapping[str, str],
    limits: Limits,
    directory: Directory | None = None,
) -> dict[str, Any]:
    """Return the answer to `cluster`, by name. `limits` are the core's own.

    The runtime's are shown with them. The core's alarm does not cover those.
    """
    settings = context.settings
    limits = {**limits, **context.transport.limits()}
    full = nearly_full(limits)
    # This shows the current state; the alarm in the log outlasts a figure that swings.
    alarms = {name: text for name, text in alarms.items() if name != "limits"}
    if full:
        alarms["limits"] = full

    def votes(witness: str) -> bool:
        if witness == context.node_id:
            return not liveness.own.amnesiac
        peer = liveness.peers[witness]
        return peer.connected and liveness.detector.recently_heard(peer) and not peer.amnesiac

    members = view.members.items() if view else ()
    return {
        "node_id": context.node_id,
        "epoch": context.epoch,
        "coordinator": view.coordinator if view else "",
        "arbiter": settings.arbiter_name,
        "on_silent_peer": settings.on_silent_peer if settings.arbiter_name == "pair" else "",
        "members": [
            [n, member.incarnation, member.join_epoch, list(liveness.urls_of(n))] for n, member in members
        ],
        "configured": [n for n in settings.voters if n not in settings.all_witnesses],
        "voters": list(settings.voters),
        "witnesses": list(settings.all_witnesses),
        "voting_witnesses": [node_id for node_id in settings.all_witnesses if votes(node_id)],
        "feature_level": context.feature_level,
        "feature_level_waits_for": liveness.features.waits_for(),
        "leaders_unseen": _leaders_unseen(context, directory) if directory is not None else [],
        "serving": context.serving(),
        "waiting_for": waiting_for,
        "alarms": [[name, text] for name, text in sorted(alarms.items())],
        "limits": [[name, used, most] for name, (used, most) in limits.items()],
        "counters": {**context.transport.counters(), **dict(sorted(context.counters.items()))},
        "memory_bytes": context.resident_bytes,
    }


def describe_checkpoints(context: Context, directory: Directory, after: int | None) -> list[Any]:
    """Return the answer to `checkpoints`.

    With `after` it is a page: the checkpoints with a higher creation id, in the order of their ids. An empty
    page is the last. Without `after` it is all of them. Raises: RequestError TOO_BIG if those are too many
    for one answer.
    """
    context.work += len(directory.checkpoints) >> PASSED_SHIFT  # Even an empty page scans them all.
    closed = context.stops.closed
    if after is not None:
        return _page(directory, closed, after)
    size = sum(ROW_BYTES + len(entry.name) for entry in directory.checkpoints.values())
    if size > DESCRIBED_BYTES_MAX:
        text = f"{len(directory.checkpoints)} checkpoints are too many for one answer: request them in pages"
        raise RequestError(codes.TOO_BIG, text)
    return [_row(entry, closed) for entry in directory.checkpoints.values()]


def _page(directory: Directory, closed: dict[int, str], after: int) -> list[Any]:
    rows: list[Any] = []
    size = 0
    for creation_id in sorted(each for each in directory.checkpoints if each > after):
        entry = directory.checkpoints[creation_id]
        rows.append(_row(entry, closed))
        size += ROW_BYTES + len(entry.name)
        if size >= PAGE_BYTES_MAX:
            break
    return rows


def _row(entry: CheckpointEntry, closed: dict[int, str]) -> list[Any]:
    return [
        entry.name,
        entry.creation_id,
        entry.attributes.fields(),
        entry.active,
        [[node_id, in_sync] for node_id, in_sync in sorted(entry.replicas.items())],
        len(entry.opens),
        entry.unlinked,
        sorted(entry.last_in_sync),
        closed.get(entry.creation_id, ""),
    ]


def _leaders_unseen(context: Context, directory: Directory) -> list[list[Any]]:
    """Return some leaders whose death the service does not see: the next one leads only after their ttl."""
    unseen: list[list[Any]] = []
    for entry, leader in directory.leaders():
        context.work += ROW_WORK
        session = directory.sessions.get(leader.session)
        if session is None or not session.death_seen:
            unseen.append([entry.name, leader.shown])
            if len(unseen) == LEADERS_SHOWN_MAX:
                break
    return unseen
