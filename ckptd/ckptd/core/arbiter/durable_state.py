"""The record that a node keeps on disk, and the actions that wait until it is there.

A promise that is sent before it is on disk can be forgotten in a crash and given twice; the same goes for a
view that is served before it is on disk. Actions that depend on the record are passed to `save` as `then`,
and run once this record, or a later one, is durable (ADR 10).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ckpt_protocol.bounds import VIEW_BOUNDS
from ckpt_protocol.codec import bounded_array, pack_body
from ckpt_protocol.fields import array, whole
from ckpt_protocol.limits import EPOCH_MAX, FAULTS_MAX
from ckptd.core.context import Context
from ckptd.core.events import Persist
from ckptd.core.parse_views import Ballot, parse_ballot, parse_view
from ckptd.core.stops import Stop, parse_stop
from ckptd.core.view import View

NO_BALLOT: Final[Ballot] = (0, "")

NOT_KNOWN: Final = -1
"""Value of `installed` after a start with an empty disk, until a view is installed.

Before the disk was lost, any view may have been installed.
"""

UNKNOWN_EPOCH: Final = 2**62
"""What an empty disk reports for earlier incarnations: they may have installed any view."""

WAITING_MAX: Final = 1_000
"""How many actions may wait for a slow disk; beyond it the oldest is dropped, like a lost message."""

Then = Callable[[], None]


@dataclass(slots=True)
class Record:
    """A node's register, the epoch of the last view that it installed, and the stops that it knows of."""

    promised: Ballot = NO_BALLOT
    accepted: Ballot = NO_BALLOT
    view: View | None = None
    installed: int = 0
    stops: tuple[Stop, ...] = ()

    def pack(self) -> bytes:
        view = self.view.fields() if self.view else None
        stops = [stop.fields() for stop in self.stops]
        return pack_body([list(self.promised), list(self.accepted), view, self.installed, stops])


def read_record(packed: bytes) -> Record:
    """Unpack a record as `Persist` wrote it; b"" is an empty disk. Raises: FrameError."""
    if not packed:
        return Record(installed=NOT_KNOWN)
    promised, accepted, view, installed, *more = bounded_array(packed, VIEW_BOUNDS, 4)
    return Record(
        parse_ballot(promised),
        parse_ballot(accepted),
        parse_view(view) if view is not None else None,
        whole(installed, "an epoch", EPOCH_MAX, NOT_KNOWN),
        tuple(parse_stop(row) for row in array(more[0], "stops", FAULTS_MAX)) if more else (),
    )


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
    on_void: Callable[[str], None]
    """Called with the reason when the view is given up."""


class Disk:
    """The record of one node, and what waits until it is durable."""

    def __init__(self, context: Context, packed: bytes) -> None:
        self.context = context
        self.record = read_record(packed)
        self.forgetful = not packed
        """The disk was empty when this node started.

        That is so at a node's very first start, and when its state directory was lost. Then the node does
        not know what it promised, nor what it served.
        """
        installed = self.record.installed
        self.installed_by_earlier_incarnations = UNKNOWN_EPOCH if installed == NOT_KNOWN else installed
        """The last epoch that earlier incarnations of this node installed."""
        self.failing = False
        self.number = 0
        self.pending: PendingView | None = None
        """The view that is being written, if any: `record` does not have it yet."""
        self._pending_number = 0
        self._waiting: deque[tuple[int, Then]] = deque()

    @property
    def epoch(self) -> int:
        """The highest epoch in the record; a pending view does not count."""
        view = self.record.view
        return max(view.epoch if view else 0, self.record.installed)

    def save(self, then: Then | None = None) -> None:
        """Make the current record durable, then call `then`."""
        self._write()
        if then is not None:
            self.when_durable(then)

    def when_durable(self, then: Then) -> None:
        """Call `then` once everything that was saved before is durable."""
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
        self._waiting.append((self.number, then))

    def decide(self, pending: PendingView) -> None:
        """Write a view that is decided once it is durable. It replaces one that is still pending."""
        replaced, self.pending = self.pending, pending
        self._write()
        self._pending_number = self.number
        if replaced is not None:
            replaced.on_void("another view is decided in its place")

    def void(self, reason: str) -> None:
        """Give up the pending view, if there is one, also where it may already be on disk.

        The record is written again at once, also if the last write failed: one with the view may be queued
        behind that. A node that dies before this is done may start with the view, as if it had been decided.
        """
        pending = self.pending
        if pending is None:
            return
        self.pending = None
        self._write()
        pending.on_void(reason)

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
            self.void(objection)
            return
        self.pending = None
        self.record.view = pending.view
        if pending.ballot is not None:
            self.record.promised = self.record.accepted = pending.ballot
        pending.on_decided(pending.view)

    def on_failed(self, text: str) -> None:
        """Note a failed write: nothing that waits for the record happens, and it is tried again.

        A pending view is given up: who decided it decides again, by what is true then.
        """
        self.failing = True
        reason = f"the state directory cannot be written: {text}"
        self.context.raise_alarm("disk", reason)
        self.void(reason)

    def on_time(self) -> None:
        """Write the record again if that failed."""
        if self.failing:
            self._write()
