"""Eviction: a member that lives but owes acknowledgements for too long is left out of the next view.

Each node reports in its heartbeats which members it waits for (stall reports). A view without them follows. A
member that was evicted comes back by joining, after a back-off.
"""

from collections.abc import Iterable
from typing import Final

from ckptd.core.context import Context
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.liveness.peer import Peer
from ckptd.core.settings import SECOND_NS
from ckptd.core.view import View, succession

READMISSION_BACKOFF_NS: Final = SECOND_NS
"""How long a member that was evicted while alive stays out. The time doubles with each further eviction."""

READMISSION_BACKOFF_MAX_NS: Final = 8 * SECOND_NS
EVICTION_FORGOTTEN_NS: Final = 60 * SECOND_NS
"""A member that was not evicted for this long starts again with `READMISSION_BACKOFF_NS`."""


class Eviction:
    """Which members are reported as stalled, and which were evicted."""

    def __init__(self, context: Context, liveness: Liveness) -> None:
        self.context = context
        self.liveness = liveness
        self.evictions: dict[tuple[str, int], tuple[int, int]] = {}
        """By node and incarnation: when it was last evicted, and how long it stays out."""

    def update_stall_reports(self, stalled: Iterable[str], late_members: list[str]) -> None:
        """Report the nodes with overdue acknowledgements: `stalled` of updates, `late_members` of a view.

        A sealed node waits for no acknowledgements of updates, and reports only members that are late with
        the next view. Its last report stays valid while that view is made, but for one grace at most: a
        stale report once kept every other node out forever (seed 2238).
        """
        context, liveness = self.context, self.liveness
        if not context.sealed:
            liveness.own.stall_reported_ns = context.now_ns
            liveness.own.stall_reports = tuple(sorted({*stalled, *late_members}))
        elif late_members:
            liveness.own.stall_reported_ns = context.now_ns
            liveness.own.stall_reports = tuple(late_members)
        elif context.now_ns - liveness.own.stall_reported_ns >= context.settings.grace_ns:
            liveness.own.stall_reports = ()

    def reported_stalled(self, base: View) -> list[str]:
        """Return the members whose acknowledgements some member has waited for too long.

        Reports of a member that is itself reported do not count, since it waits for all the others. In a
        pair, a coordinator that the other node reports takes that node for the stalled one: one of the two
        has to continue.
        """
        me = self.context.node_id
        reported_stalled = list(self.liveness.own.stall_reports)
        for node_id in succession(base):
            peer = self.liveness.peers.get(node_id)
            if peer is None or peer.epoch != base.epoch or node_id in reported_stalled:
                continue
            if self.context.settings.arbiter_name == "pair" and me == base.coordinator in peer.stall_reports:
                reported_stalled.append(node_id)
            else:
                reported_stalled.extend(peer.stall_reports)
        return reported_stalled

    def note_eviction(self, view: View, next_view: View) -> None:
        """Note the members that live and are not in `next_view`.

        Such a node would block all others each time it came back, so it is re-admitted only after a
        back-off.
        """
        now_ns = self.context.now_ns
        for node_id, member in view.members.items():
            incarnation = (node_id, member.incarnation)
            if (
                next_view.includes(*incarnation)
                or node_id == self.context.node_id
                or not self.liveness.detector.alive(*incarnation)
            ):
                continue
            since_ns, backoff_ns = self.evictions.get(incarnation, (now_ns, 0))
            again = backoff_ns > 0 and now_ns - since_ns < EVICTION_FORGOTTEN_NS
            self.evictions[incarnation] = (
                now_ns,
                min(2 * backoff_ns, READMISSION_BACKOFF_MAX_NS) if again else READMISSION_BACKOFF_NS,
            )
        for incarnation, (since_ns, _) in list(self.evictions.items()):
            if now_ns - since_ns >= EVICTION_FORGOTTEN_NS:
                del self.evictions[incarnation]

    def is_in_readmission_backoff(self, peer: Peer) -> bool:
        """Return True if this member was evicted lately."""
        since_ns, backoff_ns = self.evictions.get((peer.node_id, peer.incarnation), (0, 0))
        return self.context.now_ns - since_ns < backoff_ns
