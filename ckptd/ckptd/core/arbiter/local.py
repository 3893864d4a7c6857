"""Arbiters: what decides whether a view may follow another.

Each is one compare-and-swap register that holds the last decided view. `propose` takes
the rule that makes the next view of the current one; `decided` is called when one is
decided, and a proposal that fails is made again at a later time. What a register
promises is on disk before it is said (`record.Disk`).

Here are what all have in common, and the register on a node's own disk that `single` and
`pair` go by. `paxos` and `etcd` hold the two others.
"""

from collections.abc import Callable
from typing import Final

from ckpt_protocol.framing import Frame
from ckptd.core.arbiter.durable_state import Disk
from ckptd.core.context import Context
from ckptd.core.view import View

Rule = Callable[[View | None], View | None]
"""The view that is to follow the current one, None when none may."""

BACK_OFF_STEP_NS: Final = 3_000_000
FAILURES_MAX: Final = 6
"""The back-off grows with so many failures in a row."""


class Arbiter:
    """The part common to all. `busy` while a proposal is under way; `quorum` voters are needed."""

    votes = False
    """Whether what is on a node's own disk may be undecided, or not the last."""

    def __init__(self, context: Context, disk: Disk) -> None:
        self.context = context
        self.disk = disk
        self.quorum = 1
        self.busy = False
        self.not_before_ns = context.now_ns
        self.failures = 0
        self.decided: Callable[[View], None] = lambda view: None

    def propose(self, rule: Rule) -> None:
        """Try to have the rule's view decided."""
        raise NotImplementedError

    def prepare(self) -> None:
        """A proposal is to be expected (a member leaves): do ahead what does not depend on it."""

    def note(self, view: View) -> None:
        """A view was decided elsewhere, or by the operator."""

    def receive(self, node_id: str, frame: Frame) -> None:
        """A voter's message. Raises: FrameError."""

    def on_time(self) -> None:
        """Look at the clock."""

    def watch(self, reachable: int) -> None:
        """Raise or clear the alarm `arbiter`; `reachable`: how many of the voters are, this node included."""

    def force(self, view: View) -> None:
        """Have a view decided because the operator says so."""
        record = self.disk.record
        record.view = view
        self.disk.save(lambda: self.decided(view))

    def back_off(self, place: int, places: int, salt: int) -> None:
        """Rivals wait differently long, by their place among all, and longer with every failure."""
        self.failures = min(self.failures + 1, FAILURES_MAX)
        spread = (place * 7 + salt * 5) % (4 * places) + 1
        self.not_before_ns = self.context.now_ns + BACK_OFF_STEP_NS * spread * self.failures
        self.context.wake_at(self.not_before_ns)


class LocalArbiter(Arbiter):
    """`single` and `pair`: whoever may propose (the rule knows) decides alone, on its own disk first."""

    def propose(self, rule: Rule) -> None:
        record = self.disk.record
        view = rule(record.view)
        if view is None:
            return
        self.busy = True
        record.view = view
        self.disk.save(lambda: self._saved(view))

    def _saved(self, view: View) -> None:
        self.busy = False
        if self.disk.record.view is view:
            self.decided(view)

    def note(self, view: View) -> None:
        if view.epoch > self.disk.epoch:
            self.disk.record.view = view
            self.disk.save()
