"""Retention: the coordinator ends a checkpoint that nobody has had open for its retention duration."""

from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.replicator import INTERNAL_OPS_MAX, DirectoryReplicator


class Retention:
    """When the next retention is over. The directory knows when each began."""

    def __init__(self, context: Context, replicator: DirectoryReplicator) -> None:
        self.context = context
        self.replicator = replicator
        self.next_expiry_ns = NEVER_NS

    def on_installed(self) -> None:
        """Look at all checkpoints soon, because the timers of the last coordinator are lost with it."""
        self.next_expiry_ns = self.context.now_ns

    def on_directory_changed(self, creation_ids: list[int]) -> None:
        """Note the retention times that have started on these checkpoints."""
        for creation_id in creation_ids:
            entry = self.replicator.directory.checkpoints.get(creation_id)
            expires_ns = self.replicator.directory.expires_ns(entry) if entry is not None else None
            if expires_ns is not None and expires_ns < self.next_expiry_ns:
                self.next_expiry_ns = expires_ns
                self.context.wake_at(expires_ns)

    def expire_due(self) -> None:
        """Order EXPIRE for the checkpoints whose retention is over.

        It has to be ordered, since a client may open one of them at the same time.
        """
        now_ns = self.context.now_ns
        if now_ns < self.next_expiry_ns or self.replicator.count_internal(DirectoryOp.EXPIRE):
            return  # `next_expiry_ns` stays due: the next ones follow when these are done.
        self.next_expiry_ns = NEVER_NS
        remaining = INTERNAL_OPS_MAX
        for entry in list(self.replicator.directory.checkpoints.values()):
            expires_ns = self.replicator.directory.expires_ns(entry)
            if expires_ns is None:
                continue
            if expires_ns <= now_ns and remaining > 0:
                remaining -= 1
                self.replicator.submit([DirectoryOp.EXPIRE, entry.creation_id, entry.retention_seq])
            elif expires_ns < self.next_expiry_ns:
                self.next_expiry_ns = expires_ns
        if self.next_expiry_ns > now_ns:
            self.context.wake_at(self.next_expiry_ns)
