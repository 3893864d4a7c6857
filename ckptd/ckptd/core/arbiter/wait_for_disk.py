"""What waits until a node's record is on its disk.

A promise that is sent before it is on disk can be forgotten in a crash and given twice; the same goes for a
view that is served before it is on disk. Actions that depend on the record are passed to `persist` as
`on_durable`, and run once this record, or a later one, is durable (ADR 10).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ckptd.core.arbiter.disk_record import ANY_EPOCH, NEVER_RECORDED, parse_disk_record
from ckptd.core.context import Context
from ckptd.core.events import Persist
from ckptd.core.parse_views import Ballot
from ckptd.core.view import View

WAITING_MAX: Final = 1_000
"""How many actions may wait for a slow disk; beyond it the oldest is dropped, like a lost message."""

OnDurable = Callable[[], None]


@dataclass(slots=True, frozen=True)
class PendingView:
    """A view that this node decides by writing it to its disk.

    Until it is there it counts for nothing, and everything that happens meanwhile goes before it.
    """

    view: View
    ballot: Ballot | None
    """The ballot that a voter accepts it with; None if the arbiter has no ballots."""
    objection: Callable[[], str]
    """Says, when the view is on disk, why it must not count any more; "" if nothing speaks against it."""
    on_decided: Callable[[View], None]
    on_discarded: Callable[[str], None]
    """Called with the reason when the view is discarded."""


class RecordStore:
    """The record of one node, and what waits until it is durable."""

    def __init__(self, context: Context, packed: bytes) -> None:
        self.context = context
        self.record = parse_disk_record(packed)
        self.amnesiac = not packed
        """The disk was empty when this node started.

        That is so at a node's very first start, and when its state directory was lost. Then the node does
        not know what it promised, nor what it served.
        """
        installed = self.record.installed_epoch
        self.installed_by_earlier_incarnations = ANY_EPOCH if installed == NEVER_RECORDED else installed
        """The last epoch that earlier incarnations of this node installed."""
        self.failing = False
        self.number = 0
        self.pending: PendingView | None = None
        """The view that is being written, if any: `record` does not have it yet."""
        self._pending_number = 0
        self._waiting: deque[tuple[int, OnDurable]] = deque()

    @property
    def epoch(self) -> int:
        """The highest epoch in the record; a pending view does not count."""
        view = self.record.view
        return max(view.epoch if view else 0, self.record.installed_epoch)

    def persist(self, on_durable: OnDurable | None = None) -> None:
        """Make the current record durable, then call `on_durable`."""
        self._write()
        if on_durable is not None:
            self.when_durable(on_durable)

    def when_durable(self, on_durable: OnDurable) -> None:
        """Call `on_durable` once everything that was saved before is durable."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
        self._waiting.append((self.number, on_durable))

    def decide(self, pending: PendingView) -> None:
        """Write a view that is decided once it is durable. It replaces one that is still pending."""
        replaced, self.pending = self.pending, pending
        self._write()
        self._pending_number = self.number
        if replaced is not None:
            replaced.on_discarded("a different view was decided first")

    def discard_pending(self, reason: str) -> None:
        """Give up the pending view, if there is one, also where it may already be on disk.

        The record is written again at once, also if the last write failed: one with the view may be queued
        behind that. A node that dies before this is done may start with the view, as if it had been decided.
        """
        pending = self.pending
        if pending is None:
            return
        self.pending = None
        self._write()
        pending.on_discarded(reason)

    def _write(self) -> None:
        record, pending = self.record, self.pending
        if pending is not None:
            record = replace(record, view=pending.view)
            if pending.ballot is not None:
                record = replace(record, promised=pending.ballot, accepted=pending.ballot)
        self.number += 1
        self.context.effects.append(Persist(record.pack(), self.number))

    def on_persisted(self, number: int) -> None:
        """Run the actions that waited for this record or an older one."""
        if self.failing:
            self.failing = False
            self.context.clear_alarm("disk")
        if self.pending is not None and self._pending_number <= number:
            self._complete(self.pending)
        waiting = self._waiting
        while waiting and waiting[0][0] <= number:
            waiting.popleft()[1]()

    def _complete(self, pending: PendingView) -> None:
        objection = pending.objection()
        if objection:
            self.discard_pending(objection)
            return
        self.pending = None
        self.record.view = pending.view
        if pending.ballot is not None:
            self.record.promised = self.record.accepted = pending.ballot
        pending.on_decided(pending.view)

    def on_failed(self, text: str) -> None:
        """Note a failed write: nothing that waits for the record happens, and it is tried again.

        A pending view is discarded: the node that decided it decides again, by what is true then.
        """
        self.failing = True
        reason = f"this node cannot write its state directory: {text}"
        self.context.raise_alarm("disk", reason)
        self.discard_pending(reason)

    def on_time(self) -> None:
        """Write the record again if that failed."""
        if self.failing:
            self._write()
