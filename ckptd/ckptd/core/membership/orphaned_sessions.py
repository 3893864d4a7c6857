"""Orphaned sessions: those whose node is not in the view. The coordinator ends them after their grace."""

from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.replicator import INTERNAL_OPS_MAX, DirectoryReplicator
from ckptd.core.view import View


class OrphanedSessions:
    """Every member keeps these times; only the coordinator acts on them."""

    def __init__(self, context: Context, replicator: DirectoryReplicator) -> None:
        self.context = context
        self.replicator = replicator
        self.until_ns: dict[tuple[int, int], int] = {}
        """When to end each, by session and generation."""
        self.last_served_ns = context.now_ns
        """When this node last served, as far as this class noticed, or installed a view."""

    @property
    def next_ns(self) -> int:
        return min(self.until_ns.values(), default=NEVER_NS)

    def on_installed(self, view: View) -> None:
        """Take note of the sessions that this view leaves without their node."""
        self.extend()
        until_ns = self.context.now_ns + self.context.settings.session_grace_ns
        orphans = [
            (session, entry.generation)
            for session, entry in self.replicator.directory.sessions.items()
            if entry.node_id not in view.members
        ]
        self.until_ns = {orphan: self.until_ns.get(orphan, until_ns) for orphan in orphans}

    def extend(self) -> None:
        """Extend their grace by the time in which this node did not serve.

        Clients could attach nowhere in that time, so it does not count towards their grace.
        """
        now_ns = self.context.now_ns
        away_ns, self.last_served_ns = now_ns - self.last_served_ns, now_ns
        if away_ns >= self.context.settings.lease_ns:
            self.until_ns = {orphan: until_ns + away_ns for orphan, until_ns in self.until_ns.items()}

    def end_due(self) -> None:
        """Order END for those whose grace is over."""
        remaining = INTERNAL_OPS_MAX - self.replicator.count_internal(DirectoryOp.END) if self.until_ns else 0
        for (session, generation), until_ns in list(self.until_ns.items()):
            if until_ns <= self.context.now_ns and remaining > 0:
                remaining -= 1
                del self.until_ns[session, generation]
                self.replicator.submit([DirectoryOp.END, session, generation])
