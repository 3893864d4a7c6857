"""What every arbiter does: the interface that a node uses, and what they all have in common.

An arbiter decides whether a view may follow another. Each is one compare-and-swap register that holds the
last decided view. `propose` takes the rule that computes the next view from the current one. When a view
has been decided, the arbiter tells the node; a proposal that fails is made again later. What a register
promises is on disk before it is sent (`wait_for_disk.RecordStore`).

`single_and_pair`, `paxos` (for `majority`) and `etcd` implement it.
"""

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from ckpt_protocol.framing import Frame
from ckptd.core.arbiter.wait_for_disk import PendingView, RecordStore
from ckptd.core.context import Context
from ckptd.core.hub import VoterHub
from ckptd.core.parse_views import Ballot
from ckptd.core.view import View


class NoView(Enum):
    """Why no view may follow the current one."""

    NOT_NOW = auto()
    BEHIND = auto()
    """A node that is heard knows of a newer view. The vote of that node may tell it."""


NextViewRule = Callable[[View | None], View | NoView]
"""Computes the view to follow the current one."""

BACK_OFF_STEP_NS: Final = 3_000_000
FAILURES_MAX: Final = 6
"""The back-off grows with each failure in a row, up to this many."""


class Arbiter:
    """What all arbiters have in common."""

    has_voters = False
    """True if the view on a node's own disk may be undecided, or may not be the last one."""

    def __init__(self, context: Context, store: RecordStore, hub: VoterHub) -> None:
        self.context = context
        self.hub = hub
        self.store = store
        self.quorum = 1
        """How many voters are needed."""
        self.busy = False
        """A proposal is in progress."""
        self.not_before_ns = context.now_ns
        self.failures = 0

    def propose(self, next_view_rule: NextViewRule) -> None:
        """Try to have the view decided that the rule computes."""
        raise NotImplementedError

    def prepare_ahead(self) -> None:
        """Prepare for a proposal that is expected soon (a member leaves): do what does not depend on it."""

    def on_decided_elsewhere(self, view: View) -> None:
        """Take note of a view that was decided elsewhere, or by the operator."""

    def receive(self, node_id: str, frame: Frame) -> None:
        """Take a message of a voter. Raises: FrameError."""

    def on_time(self) -> None:
        """Act on the time: a proposal may have timed out."""

    def update_alarm(self, reachable: int) -> None:
        """Raise or clear the alarm `arbiter`; `reachable` counts the reachable voters, this node included."""

    def force(
        self,
        view: View,
        objection: Callable[[], str],
        on_decided: Callable[[View], None],
        on_discarded: Callable[[str], None],
    ) -> None:
        """Decide a view by operator command, once it is on disk, unless there is an objection by then."""
        ballot = self._begin_command()
        self.store.decide(PendingView(view, ballot, objection, on_decided, on_discarded))

    def _begin_command(self) -> Ballot | None:
        """Stop what is being proposed, and return the ballot of a command; None without ballots."""
        return None

    def back_off(self, rank: int, ranks: int, salt: int) -> None:
        """Wait before the next proposal: rivals wait for different times, and longer after every failure."""
        self.failures = min(self.failures + 1, FAILURES_MAX)
        spread = (rank * 7 + salt * 5) % (4 * ranks) + 1
        self.not_before_ns = self.context.now_ns + BACK_OFF_STEP_NS * spread * self.failures
        self.context.wake_at(self.not_before_ns)
