"""Tracking: reads (TRACK) that wait until a checkpoint changes, and the changes that they are answered with.

Nothing is queued for a tracker. A TRACK names the last update that its client knows of. The replica finds the
changes after that in the updates that it still holds, so this works equally on another node, after a
fail-over. If those updates do not reach back that far, or an asynchronous checkpoint has had another active
replica since, the answer says so, and the client looks at all sections (ADR 15).
"""

from collections.abc import Iterable
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.limits import PAGE_BYTES_MAX
from ckpt_protocol.messages import Change, Op, answer_error, answer_ok
from ckpt_protocol.parse_requests import parse_track
from ckptd.core.client_request import Request
from ckptd.core.containment import contain_request
from ckptd.core.content.update_log import Update
from ckptd.core.content.versions import SEQ_BITS
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.hub import Hub
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.turn_budget import TOO_MANY_TRACKERS, TRACKERS_MAX, Turns
from ckptd.core.settings import SECOND_NS
from ckptd.core.work_costs import KIB_SHIFT, ROW_WORK

TRACK_WAIT_NS: Final = 10 * SECOND_NS
"""A TRACK is answered after this time at the latest, even if nothing changed.

So whatever went wrong with it on its way ends with that.
"""

ANSWERS_PER_EVENT_MAX: Final = 512
"""TRACKs that one event answers because their time is over. The rest follow with the next heartbeat."""

ROWS_MAX: Final = 1_000
"""Changes in one answer, except that an update is never split.

The client asks again for the rest.
"""

EXACT_ROWS_MAX: Final = 128
"""Up to this many changes are reported one by one.

If there are more, only what finally became of each section is reported.
"""

_ROW_BYTES: Final = 32
_SEQ_MASK: Final = (1 << SEQ_BITS) - 1

Row = list[Any]
"""[sequence, change, section id, offset, size, the tracker's own request that made the change or 0]"""


class ChangeFeed:
    """The TRACK requests that wait here."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        turns: Turns,
    ) -> None:
        self.context = context
        self.hub = hub
        self.turns = turns
        self.waiting: dict[int, dict[tuple[int | str, int, int], Request]] = {}
        """By creation id, then by origin, session and request number.

        A repeated request replaces the earlier one, but not one that came another way: the client reads the
        answer where it is now (seed 7215794).
        """
        self.count = 0
        self.due_ns = NEVER_NS
        """No waiting request has to be answered before this time."""

    def serve(self, request: Request, replica: Replica) -> None:
        """Answer with what changed; if nothing did, let the request wait."""
        after, lineage = parse_track(request.body)
        if after is None and replica.active is not None:
            replica.active.flush_batch()  # What was written before is not a change to report.
        try:
            body = changes_after(replica, request.session, after, lineage)
        except Exception as error:  # Reading the log changes nothing.
            body = contain_request(self.context, request, error)
        if body is not None:
            self.hub.answer(request, body)
            return
        replica.tracked = True
        self.wait(request)

    def wait(self, request: Request) -> None:
        """Keep a request until something happens to its checkpoint."""
        key = request.origin, request.session, request.number
        earlier = self.waiting.get(request.creation_id, {}).pop(key, None)
        if earlier is not None:
            self.count -= 1
            request.received_ns = earlier.received_ns  # Otherwise one that is repeated would wait for ever.
            self.turns.remove_unanswered(earlier)
        excess = TOO_MANY_TRACKERS if self.count >= TRACKERS_MAX else self.turns.add_tracker(request)
        if excess:
            self.hub.answer(request, answer_error(codes.TRY_AGAIN, excess))
            return
        self.count += 1
        self.waiting.setdefault(request.creation_id, {})[key] = request
        self.due_ns = min(self.due_ns, request.received_ns + TRACK_WAIT_NS)

    def recheck(self, creation_ids: Iterable[int]) -> None:
        """Try the TRACKs of these checkpoints again: something happened to them, or to who serves them."""
        if not self.count:
            return
        for creation_id in creation_ids:
            waiting = self.waiting.pop(creation_id, {})
            self.count -= len(waiting)
            self.hub.retry(list(waiting.values()))

    def pop_all(self) -> list[Request]:
        """Remove and return every request that waits: a new view begins."""
        taken = [request for waiting in self.waiting.values() for request in waiting.values()]
        self.waiting, self.count = {}, 0
        return taken

    def on_time(self) -> None:
        """Answer the requests that have waited for `TRACK_WAIT_NS`."""
        if self.context.now_ns < self.due_ns:
            return
        expired_ns = self.context.now_ns - TRACK_WAIT_NS
        remaining = ANSWERS_PER_EVENT_MAX
        self.due_ns = NEVER_NS
        for creation_id, waiting in list(self.waiting.items()):
            for key, request in list(waiting.items()):
                if request.received_ns <= expired_ns and remaining:
                    remaining -= 1
                    del waiting[key]
                    self.count -= 1
                    after, lineage = parse_track(request.body)
                    self.hub.answer(request, answer_ok([after, [], lineage]))
                else:
                    self.due_ns = min(self.due_ns, request.received_ns + TRACK_WAIT_NS)
            if not waiting:
                del self.waiting[creation_id]


def lineage_of(replica: Replica) -> int:
    """Return the lineage of an active replica; 0 if it is not active, or not of an asynchronous checkpoint.

    A new lineage means that updates may be lost that were already read, whether or not trackers were told of
    them.
    """
    return replica.active.lineage if replica.active is not None and not replica.sync else 0


def changes_after(replica: Replica, session: int, after: int | None, lineage: int) -> bytes | None:
    """Return TRACK's answer, `[sequence, rows, lineage]`; None if there is nothing after `after`.

    The rows are nil if the client must look at all sections.
    """
    log = replica.log
    end = log.committed_seq if replica.sync else log.seq
    now = (log.epoch_of(end) << SEQ_BITS) + end
    own_lineage = lineage_of(replica)
    if after is None:
        return answer_ok([now, [], own_lineage])
    epoch, seq = after >> SEQ_BITS, after & _SEQ_MASK
    if not log.is_prefix(epoch, seq) or lineage != own_lineage:
        return answer_ok([now, None, own_lineage])
    if seq >= end:
        return None  # (Beyond it: another node has reported it, before this one knows that it is committed.)
    if not log.holds_since(seq):
        return answer_ok([now, None, own_lineage])
    rows: list[Row] = []
    rows_bytes = 0
    for update in log.updates_after(seq):
        if update.seq > end or len(rows) >= ROWS_MAX or rows_bytes >= PAGE_BYTES_MAX:
            break
        now = (update.epoch << SEQ_BITS) + update.seq
        made = _changes_of(update, now, session, replica.weak)
        replica.context.work += ROW_WORK * len(made) + (len(update.body) >> KIB_SHIFT)
        rows += made
        rows_bytes += sum(_ROW_BYTES + len(row[2]) for row in made)
    if len(rows) > EXACT_ROWS_MAX:
        rows = _coalesced(rows, replica)
    return answer_ok([now, rows, own_lineage])


def _changes_of(update: Update, sequence: int, session: int, weak: bool) -> list[Row]:
    ops = unpack_body(update.body)
    own = 0
    removed = Change.DELETED
    if update.session:
        own = update.request if update.session == session else 0
    else:
        ops, answered = ops
        # A batch of one request is that request's; those of several cannot be told apart.
        if len(answered) == 1 and answered[0][0] == session:
            own = answered[0][1]
        removed = Change.DELETED if weak else Change.EXPIRED
    rows = []
    for op in ops:
        offset, size = 0, 0
        match op[0]:
            case Op.CREATE:
                kind, size = Change.CREATED, len(op[3])
            case Op.OVERWRITE | Op.PUT:
                kind, size = Change.OVERWRITTEN, len(op[2])
            case Op.WRITE | Op.PATCH:
                kind, offset, size = Change.WRITTEN, op[2], len(op[3])
            case Op.DELETE:
                kind = Change.DELETED
            case Op.REMOVE:
                kind = Change.EXPIRED if len(op) > 2 else removed
            case Op.PIECE if op[3] + len(op[4]) >= op[2]:  # Only the last piece is reported.
                kind, size = Change.OVERWRITTEN, op[2]
            case _:
                continue  # (A new expiration time changes no data; a piece before the last, nothing yet.)
        # (An expiration is no client's own change, even if it shares its batch with one request.)
        rows.append([sequence, kind, op[1], offset, size, own if kind != Change.EXPIRED else 0])
    return rows


def _coalesced(rows: list[Row], replica: Replica) -> list[Row]:
    """Return what finally became of each section, in the order of the sections' last changes."""
    last: dict[bytes, Row] = {}
    for row in rows:
        before = last.pop(row[2], None)
        if before is not None and row[1] not in (Change.DELETED, Change.EXPIRED):
            section = replica.committed_section(row[2])
            size = len(section.content) if section is not None else 0
            own = row[5] if before[5] else 0
            row = [row[0], Change.OVERWRITTEN, row[2], 0, size, own]
        last[row[2]] = row
    return list(last.values())
