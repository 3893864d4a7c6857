"""Tracking: reads (TRACK) that wait until a checkpoint changes, and the changes that they are answered with.

Nothing is queued for a tracker. A TRACK names the last update that its client knows of. The replica finds the
changes after that in the updates that it still holds, so this works equally on another node, after a
fail-over. If those updates do not reach back that far, or an asynchronous checkpoint has had another active
replica since, the answer says so, and the client looks at all sections (ADR 15).
"""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.limits import PAGE_BYTES_MAX, UPDATE_BODY_BYTES_MAX
from ckpt_protocol.messages import Change, Op, answer_ok
from ckpt_protocol.parse_requests import Track, parse_track
from ckptd.core.client_request import Request
from ckptd.core.containment import contain_request
from ckptd.core.content.replica_content import SECTION_LOOKUPS_MAX
from ckptd.core.content.section import CORRUPTED, Section
from ckptd.core.content.update_log import Update
from ckptd.core.content.versions import SEQ_BITS
from ckptd.core.replication.replica import Replica
from ckptd.core.requests.waiting_reads import WaitingReads
from ckptd.core.work_costs import KIB_SHIFT, ROW_WORK

ROWS_MAX: Final = 1_000
"""Operations that one answer looks at, except that an update is never split.

The client asks again for the rest.
"""

EXACT_ROWS_MAX: Final = 128
"""Up to this many changes are reported one by one.

If there are more, only what finally became of each section is reported.
"""

ANSWER_BYTES_MAX: Final = UPDATE_BODY_BYTES_MAX
"""An answer with values that would be longer is replaced by "look at all sections", which come in pages.

An update of many small sections is reported with what they contain by now. That may be more than a frame can
carry, and a client that cannot receive an answer asks for ever.
"""

_ROW_BYTES: Final = 40
_SEQ_MASK: Final = (1 << SEQ_BITS) - 1

Row = list[Any]
"""[sequence, change, section id, offset, size, the tracker's own request that made the change or 0]"""


class ChangeFeed(WaitingReads):
    """The TRACK requests that wait here."""

    def serve(self, request: Request, replica: Replica) -> None:
        """Answer with what changed; if nothing did, let the request wait."""
        asked = parse_track(request.body)
        if asked.after is None or asked.with_values:
            replica.flush_batch()  # What was written before is not a change to report, or its value is shown.
        try:
            found = changes_after(replica, request.session, asked)
        except Exception as error:  # Reading the log changes nothing.
            self.hub.answer(request, contain_request(self.context, request, error))
            return
        if isinstance(found, bytes):
            self.hub.answer(request, found)
            return
        if found != asked:
            request.body = pack_body(list(found))  # Nothing up to here has to be looked at again.
            if found.after != position_of(replica)[0]:
                self.turns.requeue([request])
                return
        replica.tracked = True
        self.wait(request)

    def answer_unchanged(self, request: Request) -> None:
        asked = parse_track(request.body)
        self.hub.answer(request, _answer(asked, asked.after, [], asked.lineage))


def lineage_of(replica: Replica) -> int:
    """Return the lineage of an active replica; 0 if it is not active, or not of an asynchronous checkpoint.

    A new lineage means that updates may be lost that were already read, whether or not trackers were told of
    them.
    """
    return replica.active.lineage if replica.active is not None and not replica.sync else 0


def position_of(replica: Replica) -> tuple[int, int]:
    """Return the (sequence, lineage) of the state that readers of a replica see."""
    log = replica.log
    end = log.committed_seq if replica.sync else log.seq
    return (log.epoch_of(end) << SEQ_BITS) + end, lineage_of(replica)


def changes_after(replica: Replica, session: int, asked: Track) -> bytes | Track:
    """Return TRACK's answer, `[sequence, rows, lineage]`, with `complete` behind it if values are asked for.

    The rows are nil if the client must look at all sections. If there is nothing to report yet, return what
    is to be asked later: a request for some sections passes over the changes of all others.
    """
    log, after = replica.log, asked.after
    newest, own_lineage = position_of(replica)
    end = newest & _SEQ_MASK
    if after is None:
        return _answer(asked, newest, [], own_lineage)
    epoch, seq = after >> SEQ_BITS, after & _SEQ_MASK
    if not log.is_prefix(epoch, seq) or asked.lineage != own_lineage:
        return _answer(asked, newest, None, own_lineage)
    if seq >= end:
        return asked  # (Beyond it: another node has reported it, before this one knows that it is committed.)
    if not log.holds_since(seq):
        return _answer(asked, newest, None, own_lineage)
    now, rows = after, Rows(replica, asked)
    for update in log.updates_after(seq):
        if update.seq > end or rows.are_enough:
            break
        now = (update.epoch << SEQ_BITS) + update.seq
        rows.add(update, now, session)
    if rows.are_too_large:
        return _answer(asked, newest, None, own_lineage)
    if not rows.rows and (asked.prefix or asked.exact):
        return asked._replace(after=now)
    return _answer(asked, now, rows.reported(), own_lineage, now == newest)


def _answer(
    asked: Track, sequence: int | None, rows: list[Row] | None, lineage: int, complete: bool = True
) -> bytes:
    return answer_ok([sequence, rows, lineage, *([complete] if asked.with_values else [])])


class Rows:
    """The changes that one answer reports."""

    def __init__(self, replica: Replica, asked: Track) -> None:
        self.rows: list[Row] = []
        self._replica = replica
        self._asked = asked
        self._bytes = 0
        self._examined = 0
        self._sized: set[bytes] = set()
        self._lookups = 0
        self._committed_section: Callable[[bytes], Section | None] = replica.committed_section

    @property
    def are_enough(self) -> bool:
        """Return True if no further update is looked at for this answer."""
        return self._examined >= ROWS_MAX or self._bytes >= PAGE_BYTES_MAX

    @property
    def are_too_large(self) -> bool:
        """Return True if no answer can carry them with their values."""
        return self._asked.with_values and self._bytes > ANSWER_BYTES_MAX

    def add(self, update: Update, sequence: int, session: int) -> None:
        """Add the changes of one update that are asked for."""
        replica, (_, _, with_values, prefix, exact) = self._replica, self._asked
        made, examined = _changes_of(update, sequence, session, replica.weak)
        self._examined += examined
        replica.context.work += ROW_WORK * examined + (len(update.body) >> KIB_SHIFT)
        if exact:
            made = [row for row in made if row[2] == prefix]
        elif prefix:
            made = [row for row in made if row[2].startswith(prefix)]
        self.rows += made
        for row in made:
            self._bytes += _ROW_BYTES + len(row[2])
            if with_values and row[2] not in self._sized:
                self._sized.add(row[2])
                section = self._section(row[2])
                self._bytes += len(section.content) if section is not None else 0

    def _section(self, section_id: bytes) -> Section | None:
        """Return the section as the committed updates left it.

        The first ones are looked up in each pending update, of which there may be many; then they are put
        together once.
        """
        self._lookups += 1
        if self._lookups == SECTION_LOOKUPS_MAX:
            self._committed_section = self._replica.committed_lookup(SECTION_LOOKUPS_MAX + 1)
        return self._committed_section(section_id)

    def reported(self) -> list[Row]:
        """Return the rows: with values, or if there are many, only the last one of each section."""
        if not self._asked.with_values:
            return self.rows if len(self.rows) <= EXACT_ROWS_MAX else self._coalesced()
        rows = self._coalesced()
        for row in rows:
            section = self._section(row[2])
            shown = section is not None and section.state != CORRUPTED
            row.append(section.content if section is not None and shown else None)
        return rows

    def _coalesced(self) -> list[Row]:
        """Return what finally became of each section, in the order of the sections' last changes."""
        last: dict[bytes, Row] = {}
        for row in self.rows:
            before = last.pop(row[2], None)
            if before is not None and row[1] not in (Change.DELETED, Change.EXPIRED):
                section = self._section(row[2])
                size = len(section.content) if section is not None else 0
                own = row[5] if before[5] else 0
                row = [row[0], Change.OVERWRITTEN, row[2], 0, size, own]
            last[row[2]] = row
        return list(last.values())


def _changes_of(update: Update, sequence: int, session: int, weak: bool) -> tuple[list[Row], int]:
    """Return an update's changes, and how many operations were looked at for them."""
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
    return rows, max(1, len(ops))
