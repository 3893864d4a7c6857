"""A client that tracks a checkpoint: it reads the sections that are reported as changed, and nothing else.

So its contents are right only if every change was reported. At the end, when nothing changes any more, they
must equal the checkpoint's.
"""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY
from ckpt_protocol.messages import Change, Kind
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import CallResult, SimClient
from ckptd.sim.clients.workload import Workload
from ckptd.sim.world.world import Violation

TRACK_NS: Final = 3 * SECOND_NS
RETRY_NS: Final = 20 * MILLISECOND_NS
FINAL_CHECKS: Final = 6
"""How often the final check is repeated before it has failed."""

CHECK_AGAIN_NS: Final = 200 * MILLISECOND_NS
_GONE: Final = (Change.DELETED, Change.EXPIRED)
CORRUPTED: Final = None

Contents = dict[bytes, bytes | None]


class TrackingClient:
    """Tracks one handle.

    `judge` gets each refusal: a handle may be gone only if every replica or the session is gone.
    """

    def __init__(
        self,
        workload: Workload,
        client: SimClient,
        handle: ClientHandle,
        judge: Callable[[ClientHandle, CallResult], None],
    ) -> None:
        self.workload = workload
        self.world = workload.world
        self.client = client
        self.handle = handle
        self.judge = judge
        self.contents: Contents = {}
        """The sections as this client knows them."""

        self.sequence: int | None = None
        self.lineage = 0
        self.needs_full_scan = True
        """True if it has to read everything again."""

        self.finished = False
        """True once the handle is gone, or the final check is done."""

        self.track_number = 0
        """The number of the last TRACK."""

        self.changed_ids: list[bytes] = []
        """The sections that were reported as changed and are not read yet."""

        self._track()

    @property
    def idle(self) -> bool:
        """True if it has read everything that was reported, and waits for more."""
        return self.sequence is not None and self.track_number in self.client.pending

    # -- tracking

    def _request(self, kind: int, body: list[Any], then: Any, call_ns: int = TRACK_NS) -> int:
        if self.finished:
            return 0
        return self.client.request(
            kind, self.handle.number, body, lambda result: self._on_result(result, then), call_ns
        )

    def _on_result(self, result: CallResult, then: Any) -> None:
        """Handle the end of a request. A dead handle ends the tracking; an unknown outcome is repeated."""
        if self.finished or self.client.over:
            self.finished = True
        elif self._is_gone(result):
            self.judge(self.handle, result)
        elif result.outcome == Outcome.OK or _concerns_section(result):
            then(result)
        else:
            self.world.after(RETRY_NS, self._continue)

    def _continue(self) -> None:
        if self.needs_full_scan and self.sequence is not None:
            self._request(Kind.ITERATE, [SA_CKPT_SECTIONS_ANY, 0, None, True], self._on_full_scan)
        elif self.changed_ids:
            self._read()
        else:
            self._track()

    def _track(self) -> None:
        self.track_number = self._request(Kind.TRACK, [self.sequence, self.lineage], self._on_changes)

    def _on_changes(self, result: CallResult) -> None:
        self.sequence, rows, self.lineage = result.payload
        self.needs_full_scan = self.needs_full_scan or rows is None
        for _, change, section_id, *_ in rows or ():
            if change in _GONE:
                self.contents.pop(section_id, None)
                if section_id in self.changed_ids:
                    self.changed_ids.remove(section_id)
            elif section_id not in self.changed_ids:
                self.changed_ids.append(section_id)
        self._continue()

    def _on_full_scan(self, result: CallResult) -> None:
        self.contents = _contents(result.payload[0])
        self.needs_full_scan = False
        self.changed_ids.clear()
        self._track()

    def _read(self) -> None:
        section_id = self.changed_ids[0]

        def on_read(result: CallResult) -> None:
            self.changed_ids.remove(section_id)
            if result.code == codes.NOT_EXIST:
                self.contents.pop(section_id, None)
            else:
                self.contents[section_id] = (
                    CORRUPTED if result.code == codes.FAILED_OPERATION else result.payload[0]
                )
            self._continue()

        self._request(Kind.READ, [[section_id, 0, None]], on_read)

    # -- the end

    def final_check(self, checks: int = FINAL_CHECKS) -> None:
        """Compare with the checkpoint: only expirations change it now, so the contents must match soon."""

        def retry(why: str) -> None:
            if self.finished:
                return
            if not checks:
                raise Violation(
                    "tracking", f"a tracking client of {self.handle.checkpoint.name.decode()} {why}"
                )
            self.world.after(CHECK_AGAIN_NS, lambda: self.final_check(checks - 1))

        def compare(result: CallResult) -> None:
            if self._is_gone(result):
                return
            there = _contents(result.payload[0]) if result.outcome == Outcome.OK else None
            if there != self.contents:
                retry(f"has {self.contents}, but the checkpoint has {there} (code {result.code})")
                return
            self.finished = True
            self.client.cancel(self.track_number)

        def on_newest(result: CallResult) -> None:
            if self._is_gone(result):
                return
            newest = result.payload[0] if result.outcome == Outcome.OK else -1
            if not self.idle or newest != self.sequence:
                self.judge(self.handle, result)  # This activates a replica if none is active.
                retry(f"is at {self.sequence}, but the newest update is {newest} (code {result.code})")
                return
            body = [SA_CKPT_SECTIONS_ANY, 0, None, True]
            self.client.request(Kind.ITERATE, self.handle.number, body, compare, TRACK_NS)

        if self.workload.is_lost(self.handle.creation_id):
            self.finished = True
        if not self.finished:
            self.client.request(Kind.TRACK, self.handle.number, [None, 0], on_newest, TRACK_NS)

    def _is_gone(self, result: CallResult) -> bool:
        if result.code == codes.BAD_HANDLE:
            self.finished = True
        return self.finished


def _concerns_section(result: CallResult) -> bool:
    """Return True if a refusal is about the section: it is missing, or corrupted."""
    return result.code == codes.FAILED_OPERATION or (result.code == codes.NOT_EXIST and result.index >= 0)


def _contents(rows: list[Any]) -> Contents:
    return {row[0]: row[5] for row in rows}
