"""A standby that tracks a checkpoint: it reads the sections that are reported as changed, and nothing else.

So its copy is right only if every change was reported. At the end, when nothing changes any more, the copy
must equal the checkpoint.
"""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY
from ckpt_protocol.messages import Change, Kind
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import SimClient, Told
from ckptd.sim.clients.workload import Workload
from ckptd.sim.world.world import Violation

TRACK_NS: Final = 3 * SECOND_NS
AGAIN_NS: Final = 20 * MILLISECOND_NS
LOOKS: Final = 6
LOOK_AGAIN_NS: Final = 200 * MILLISECOND_NS
_GONE: Final = (Change.DELETED, Change.EXPIRED)
CORRUPTED: Final = None

Copy = dict[bytes, bytes | None]


class Standby:
    """The tracker of one handle.

    `judge` gets each refusal: a handle may be gone only if every replica or the session is gone.
    """

    def __init__(
        self,
        workload: Workload,
        client: SimClient,
        opened: ClientHandle,
        judge: Callable[[ClientHandle, Told], None],
    ) -> None:
        self.workload = workload
        self.world = workload.world
        self.client = client
        self.opened = opened
        self.judge = judge
        self.copy: Copy = {}
        """The sections as the standby knows them."""

        self.sequence: int | None = None
        self.tenure = 0
        self.blind = True
        """True if it has to read everything again."""

        self.over = False
        """True once the handle is gone."""

        self.waiting = 0
        self.todo: list[bytes] = []
        self._ask()

    @property
    def idle(self) -> bool:
        """True if it has read everything that was reported, and waits for more."""
        return self.sequence is not None and self.waiting in self.client.pending

    # -- following

    def _call(self, kind: int, body: list[Any], then: Any, call_ns: int = TRACK_NS) -> int:
        if self.over:
            return 0
        return self.client.request(
            kind, self.opened.handle, body, lambda told: self._told(told, then), call_ns
        )

    def _told(self, told: Told, then: Any) -> None:
        """Handle the end of a request. A dead handle ends the tracker; an unknown outcome is asked again."""
        if self.over or self.client.over:
            self.over = True
        elif self._is_gone(told):
            self.judge(self.opened, told)
        elif told.outcome == Outcome.OK or _says(told):
            then(told)
        else:
            self.world.after(AGAIN_NS, self._again)

    def _again(self) -> None:
        if self.blind and self.sequence is not None:
            self._call(Kind.ITERATE, [SA_CKPT_SECTIONS_ANY, 0, None, True], self._take_all)
        elif self.todo:
            self._read()
        else:
            self._ask()

    def _ask(self) -> None:
        self.waiting = self._call(Kind.TRACK, [self.sequence, self.tenure], self._take)

    def _take(self, told: Told) -> None:
        self.sequence, rows, self.tenure = told.payload
        self.blind = self.blind or rows is None
        for _, change, section_id, *_ in rows or ():
            if change in _GONE:
                self.copy.pop(section_id, None)
                if section_id in self.todo:
                    self.todo.remove(section_id)
            elif section_id not in self.todo:
                self.todo.append(section_id)
        self._again()

    def _take_all(self, told: Told) -> None:
        self.copy = _contents(told.payload[0])
        self.blind = False
        self.todo.clear()
        self._ask()

    def _read(self) -> None:
        section_id = self.todo[0]

        def take(told: Told) -> None:
            self.todo.remove(section_id)
            if told.code == codes.NOT_EXIST:
                self.copy.pop(section_id, None)
            else:
                self.copy[section_id] = CORRUPTED if told.code == codes.FAILED_OPERATION else told.payload[0]
            self._again()

        self._call(Kind.READ, [[section_id, 0, None]], take)

    # -- the end

    def look(self, looks: int = LOOKS) -> None:
        """Compare with the checkpoint: only expirations change it now, so the copy must match soon."""

        def again(why: str) -> None:
            if self.over:
                return
            if not looks:
                raise Violation("tracking", f"a standby of {self.opened.slot.name.decode()} {why}")
            self.world.after(LOOK_AGAIN_NS, lambda: self.look(looks - 1))

        def compare(told: Told) -> None:
            if self._is_gone(told):
                return
            there = _contents(told.payload[0]) if told.outcome == Outcome.OK else None
            if there != self.copy:
                again(f"has {self.copy}, and there is {there} (code {told.code})")
                return
            self.over = True
            self.client.cancel(self.waiting)

        def take_newest(told: Told) -> None:
            if self._is_gone(told):
                return
            newest = told.payload[0] if told.outcome == Outcome.OK else -1
            if not self.idle or newest != self.sequence:
                self.judge(self.opened, told)  # This activates a replica if none is active.
                again(f"is at {self.sequence}, the newest update is {newest} (code {told.code})")
                return
            body = [SA_CKPT_SECTIONS_ANY, 0, None, True]
            self.client.request(Kind.ITERATE, self.opened.handle, body, compare, TRACK_NS)

        if self.workload.is_lost(self.opened.creation_id):
            self.over = True
        if not self.over:
            self.client.request(Kind.TRACK, self.opened.handle, [None, 0], take_newest, TRACK_NS)

    def _is_gone(self, told: Told) -> bool:
        if told.code == codes.BAD_HANDLE:
            self.over = True
        return self.over


def _says(told: Told) -> bool:
    """Return True if a refusal says something about the section: that it is missing, or corrupted."""
    return told.code == codes.FAILED_OPERATION or (told.code == codes.NOT_EXIST and told.index >= 0)


def _contents(rows: list[Any]) -> Copy:
    return {row[0]: row[5] for row in rows}
