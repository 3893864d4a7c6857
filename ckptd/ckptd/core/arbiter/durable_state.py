"""What a node keeps on disk, and what has to wait until it is there.

A promise that is told before it is on disk can be forgotten by a crash and given twice;
so is a view that is served before. Whatever depends on the record is handed to `save` as
what comes `then`, and happens once the record, or a later one, is durable (ADR 10).
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
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
"""As `installed`: since the disk was empty no view was installed, and before that any may have been."""

UNKNOWN_EPOCH: Final = 2**62
"""What an empty disk says of earlier starts: they may have installed any view."""

WAITING_MAX: Final = 1_000
"""What may wait for a disk that does not answer; then the oldest is dropped, as a lost message is."""

Then = Callable[[], None]


@dataclass(slots=True)
class Record:
    """A node's register, the epoch of the last view that it installed, and what made nodes stop."""

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
    """A record as `Persist` wrote it; b"" is that of an empty disk. Raises: FrameError."""
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


class Disk:
    """The record of one node. `forgetful`: it was empty when this node started.

    That is so at a node's very first start, and where its state directory was lost: then
    it does not know what it promised, nor what it served.
    """

    def __init__(self, context: Context, packed: bytes) -> None:
        self.context = context
        self.record = read_record(packed)
        self.forgetful = not packed
        installed = self.record.installed
        self.installed_before = UNKNOWN_EPOCH if installed == NOT_KNOWN else installed
        self.failing = False
        self.number = 0
        self._waiting: deque[tuple[int, Then]] = deque()

    @property
    def epoch(self) -> int:
        """The highest epoch that the record tells of."""
        view = self.record.view
        return max(view.epoch if view else 0, self.record.installed)

    def save(self, then: Then | None = None) -> None:
        """Have the record as it is now made durable; `then` follows."""
        if then is not None:
            if len(self._waiting) >= WAITING_MAX:
                self._waiting.popleft()
            self._waiting.append((self.number + 1, then))
        self._write()

    def _write(self) -> None:
        self.number += 1
        self.context.effects.append(Persist(self.record.pack(), self.number))

    def on_persisted(self, number: int) -> None:
        """What waited for this record, or for an older one, may happen."""
        if self.failing:
            self.failing = False
            self.context.clear_alarm("disk")
        waiting = self._waiting
        while waiting and waiting[0][0] <= number:
            waiting.popleft()[1]()

    def on_failed(self, text: str) -> None:
        """The record could not be written: nothing that waits for it happens; it is tried again."""
        self.failing = True
        self.context.raise_alarm("disk", f"the state directory cannot be written: {text}")

    def on_time(self) -> None:
        """Try again what failed."""
        if self.failing:
            self._write()
