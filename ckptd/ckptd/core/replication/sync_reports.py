"""What this node reports to the coordinator about its replicas: that one is in sync, or no longer is.

A report is a proposal of a directory operation, which the coordinator orders if it agrees.
"""

from typing import Final

from ckptd.core.context import Context
from ckptd.core.hub import Hub
from ckptd.core.settings import MILLISECOND_NS

REPEAT_NS: Final = 250 * MILLISECOND_NS


class SyncReports:
    """The proposals that the directory does not show yet. Each is repeated until it does."""

    def __init__(self, context: Context, hub: Hub) -> None:
        self.context = context
        self.hub = hub
        self.unconfirmed: dict[int, int] = {}
        """By creation id, the kind of the directory operation."""
        self.repeat_ns = 0

    def propose(self, number: int, creation_id: int) -> None:
        """Propose IN_SYNC or OUT_OF_SYNC for this node's replica of a checkpoint."""
        self.unconfirmed[creation_id] = number
        self.hub.propose([number, creation_id, self.context.node_id])

    def repeat(self) -> None:
        """Repeat proposals that may have been lost with a broken link."""
        if self.unconfirmed and self.context.now_ns >= self.repeat_ns:
            self.repeat_ns = self.context.now_ns + REPEAT_NS
            for creation_id, number in list(self.unconfirmed.items()):
                self.hub.propose([number, creation_id, self.context.node_id])
