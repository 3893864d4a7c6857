"""How full a node is: what outside input can make grow, how much there is now, and how much there may be.

`status` shows these limits together with those of the runtime, and one that is nearly full raises an alarm.
So an operator learns of it before a client is refused. Only what many clients share is listed here. What is
bounded for each one alone, by a limit in `ckpt_protocol.limits` or by `share_of_limits`, is not.
"""

from typing import Final

from ckptd.core.context import Context
from ckptd.core.hub import Limits
from ckptd.core.replication.unknown_checkpoints import FRAMES_AHEAD_MAX
from ckptd.core.reply_cache import ERROR_REPLIES_BYTES_MAX
from ckptd.core.requests.router import RequestRouter
from ckptd.core.requests.turn_budget import LANES_FULL_MAX, TRACKERS_MAX
from ckptd.core.settings import SECOND_NS

ALARM_PERCENT: Final = 80
"""A limit that is used to this percentage raises an alarm."""

REST_NS: Final = 10 * SECOND_NS
"""The alarm ends when nothing has been nearly full for this long."""


def limits_of(context: Context, requests: RequestRouter, frames_ahead: int) -> Limits:
    """Return the limits of a node's core: what it holds of everything that others can make grow.

    `frames_ahead`: the larger of the two counts (see `FRAMES_AHEAD_MAX`).
    """
    settings, directory, turns = context.settings, requests.replicator.directory, requests.turns
    waiting = requests.waiting.count
    found = {
        "checkpoints": (len(directory.checkpoints), settings.checkpoints_max),
        "sessions": (len(directory.sessions), settings.sessions_max),
        "opens": (directory.open_handles, settings.opens_max),
        "directory_bytes": (directory.resident_bytes, settings.directory_bytes_max),
        "refusals_bytes": (requests.replicator.error_replies.bytes, ERROR_REPLIES_BYTES_MAX),
        "requests_waiting": (max(waiting, len(requests.replicator.queue)), settings.requests_waiting_max),
        "requests_waiting_bytes": (requests.waiting.waiting_bytes, settings.requests_waiting_bytes_max),
        "lanes_bytes": (turns.waiting_bytes, LANES_FULL_MAX * turns.lane_bytes_max),
        "trackers": (
            max(requests.change_feed.count + requests.leader_feed.count, turns.tracker_count),
            TRACKERS_MAX,
        ),
        "early_frames": (frames_ahead, FRAMES_AHEAD_MAX),
    }
    if settings.memory_bytes_max:
        found["memory_bytes"] = context.resident_bytes, settings.memory_bytes_max
    return found


def full_limits(limits: Limits) -> Limits:
    """Return the limits that are full or nearly so."""
    return {name: (used, most) for name, (used, most) in limits.items() if 100 * used >= ALARM_PERCENT * most}


def nearly_full(limits: Limits) -> str:
    """Return the text of the alarm; "" while no limit is nearly full."""
    return _text_of(full_limits(limits))


def _text_of(rows: Limits) -> str:
    full = [f"{name} {used} of {most}" for name, (used, most) in rows.items() if used >= most]
    nearly = [f"{name} {used} of {most}" for name, (used, most) in rows.items() if used < most]
    parts = (("full", full), ("nearly full", nearly))
    return "; ".join(f"{how}: {', '.join(found)}" for how, found in parts if found)


class FullLimits:
    """Which limits have been nearly full, or full, recently.

    So the log has one line for each, even if its figure swings.
    """

    def __init__(self) -> None:
        self._reported_ns: dict[tuple[str, bool], int] = {}

    def update(self, limits: Limits, now_ns: int) -> str:
        """Return what to log, if a limit is newly nearly full, or newly full; "" otherwise.

        A limit that was so within the last `REST_NS` is not new.
        """
        rows = full_limits(limits)
        if not rows and not self._reported_ns:
            return ""
        found = [(name, False) for name in rows]
        found += [(name, True) for name, (used, most) in rows.items() if used >= most]
        news = [state for state in found if state not in self._reported_ns]
        self._reported_ns.update(dict.fromkeys(found, now_ns))
        self._reported_ns = {
            state: at_ns for state, at_ns in self._reported_ns.items() if now_ns - at_ns < REST_NS
        }
        return _text_of(rows) if news else ""

    def __bool__(self) -> bool:
        return bool(self._reported_ns)
