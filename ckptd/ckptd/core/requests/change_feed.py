"""Tracking: reads (TRACK) that wait until a checkpoint changes, and the changes that they are answered with.

Nothing is queued for a tracker. A TRACK names the last update that its client knows of. The replica finds the
changes after that in the updates that it still holds, so this works equally on another node, after a
fail-over. If those updates do not reach back that far, or an asynchronous checkpoint has had another active
replica since, the answer says so, and the client looks at all sections (ADR 15).
"""

from typing import Any, Final

from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.limits import PAGE_BYTES_MAX
from ckpt_protocol.messages import Change, Op, answer_ok
from ckpt_protocol.parse_requests import parse_track
from ckptd.core.client_request import Request
from ckptd.core.containment import contain_request
from ckptd.core.content.update_log import Update
from ckptd.core.content.versions import SEQ_BITS
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.waiting_reads import WaitingReads
from ckptd.core.work_costs import KIB_SHIFT, ROW_WORK

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


class ChangeFeed(WaitingReads):
    """The TRACK requests that wait here."""

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

    def answer_unchanged(self, request: Request) -> None:
        after, lineage = parse_track(request.body)
        self.hub.answer(request, answer_ok([after, [], lineage]))


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
