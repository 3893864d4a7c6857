"""The update log of one replica: what is staged, what is pending, what was answered.

It knows neither sections nor nodes. `seq` is the seq of the last staged update; it keeps growing across
epochs. `committed_seq` is the last seq that every in-sync replica is known to have staged. Asynchronous
checkpoints have it too; for them it only tells which updates may be discarded.
"""

import struct
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.framing import HEADER, LENGTH_BYTES
from ckpt_protocol.messages import REPLICATE_ROUTE, Kind
from ckptd.core.client_request import Request
from ckptd.core.content.section import PreImages
from ckptd.core.reply_cache import FORGOTTEN, ReplyCache

_ENTRY_OVERHEAD_BYTES: Final = 300
"""Approximate memory of an update, without its body."""

_REPLICATE_HEAD: Final = struct.Struct(HEADER.format + REPLICATE_ROUTE.format.lstrip(">"))
_REPLICATE_AFTER_LENGTH: Final = _REPLICATE_HEAD.size - LENGTH_BYTES
_REPLICATE: Final = Kind.REPLICATE
_pack_replicate = _REPLICATE_HEAD.pack

LOG_BYTES_MIN: Final = 64 * 1024
"""Bytes of updates that are kept for replicas that come back, even if the checkpoint holds less."""

HISTORY_EPOCHS: Final = 64
"""Past epochs whose last seq is kept; a replica from before them is rebuilt from scratch."""


class Update:
    """One atomic list of section operations with its version and the request that asked for it."""

    __slots__ = (
        "answer",
        "body",
        "epoch",
        "first_unanswered",
        "pre_images",
        "request",
        "seq",
        "session",
        "time_ns",
        "waiting_request",
    )

    def __init__(
        self,
        epoch: int,
        seq: int,
        time_ns: int,
        session: int,
        request: int,
        first_unanswered: int,
        body: bytes,
    ) -> None:
        self.epoch = epoch
        self.seq = seq
        self.time_ns = time_ns
        self.session = session
        self.request = request
        self.first_unanswered = first_unanswered
        self.body = body
        self.pre_images: PreImages | None = None
        """While the update is pending: the previous sections."""
        self.answer = b""
        self.waiting_request: Request | None = None
        """The client request that this update has yet to answer; None on replicas that are not active."""

    def frame(self, creation_id: int, epoch: int, committed_seq: int) -> bytes:
        """Return the REPLICATE frame that carries this update in `epoch`."""
        body = self.body
        return (
            _pack_replicate(
                _REPLICATE_AFTER_LENGTH + len(body),
                _REPLICATE,
                creation_id,
                epoch,
                self.seq,
                self.session,
                self.request,
                self.first_unanswered,
                self.time_ns,
                committed_seq,
                self.epoch,
            )
            + body
        )


class UpdateLog:
    """The staged updates in sequence, which of them are pending, the epochs' last seqs, and the answers."""

    __slots__ = (
        "answers",
        "bytes_max",
        "committed_seq",
        "compact_above_bytes",
        "entries",
        "entry_bytes",
        "epoch",
        "last_seq_by_epoch",
        "pending",
        "seq",
    )

    def __init__(self, bytes_max: int = LOG_BYTES_MIN) -> None:
        self.bytes_max = bytes_max
        self.compact_above_bytes = min(LOG_BYTES_MIN, bytes_max)
        self.seq = 0
        self.epoch = 0
        self.committed_seq = 0
        self.entries: deque[Update] = deque()
        self.entry_bytes = 0
        self.pending: deque[Update] = deque()
        self.last_seq_by_epoch: list[tuple[int, int]] = []
        self.answers: dict[int, ReplyCache] = {}

    def append(self, update: Update) -> None:
        """Stage an update after the last one."""
        if update.epoch != self.epoch:
            if self.epoch:
                self.last_seq_by_epoch.append((self.epoch, self.seq))
                del self.last_seq_by_epoch[:-HISTORY_EPOCHS]
            self.epoch = update.epoch
        self.seq = update.seq
        self.entries.append(update)
        self.entry_bytes += len(update.body) + _ENTRY_OVERHEAD_BYTES

    def compact(self, content_bytes: int) -> None:
        """Forget committed updates while more is kept than sending the whole content would cost.

        If the newest one brought the whole content it stays, since trackers have yet to be notified of it.
        """
        keep = min(max(LOG_BYTES_MIN, content_bytes), self.bytes_max)
        newest_max = min(2 * content_bytes, self.bytes_max)
        entries = self.entries
        committed_seq = self.committed_seq
        while self.entry_bytes > keep and entries and entries[0].seq <= committed_seq:
            if len(entries) == 1 and self.entry_bytes <= newest_max:
                break
            self.entry_bytes -= len(entries.popleft().body) + _ENTRY_OVERHEAD_BYTES

    def updates_after(self, seq: int) -> Iterator[Update]:
        """Yield the staged updates after `seq`, oldest first."""
        if seq >= self.seq or not self.entries:
            return
        first = self.entries[0].seq
        yield from islice(self.entries, max(0, seq + 1 - first), None)

    def holds_since(self, seq: int) -> bool:
        """Return True if every update after `seq` is still held."""
        if seq == self.seq:
            return True
        return bool(self.entries) and self.entries[0].seq - 1 <= seq < self.seq

    def is_of_service(self, seq: int) -> bool:
        """Return True if the update with this seq is held, and was ordered by the service itself.

        It is a weak batch, or it changes no section: the end of a request that is answered after its commit.
        """
        for update in reversed(self.entries):
            if update.seq <= seq:
                return update.seq == seq and not update.session
        return False

    def is_prefix(self, epoch: int, seq: int) -> bool:
        """Return True if a log that ends at (epoch, seq) is a prefix of this one.

        The order of versions alone is not ancestry: (2, 5) comes after (1, 9), and yet may not contain it.
        The last seq of each epoch decides.
        """
        if seq == 0:
            return True
        if epoch == self.epoch:
            return seq <= self.seq
        return any(past == epoch and seq <= last for past, last in self.last_seq_by_epoch)

    def epoch_of(self, seq: int) -> int:
        """Return the epoch in which the update with this seq was ordered; 0 for none, or if it is too old."""
        for epoch, last in self.last_seq_by_epoch:
            if seq <= last:
                return epoch
        return self.epoch if seq else 0

    def reset_to(self, epoch: int, seq: int, history: list[tuple[int, int]]) -> None:
        """Continue from another replica's version, whose content is taken too."""
        self.epoch, self.seq, self.committed_seq = epoch, seq, seq
        self.last_seq_by_epoch = history
        self.entries.clear()
        self.pending.clear()
        self.entry_bytes = 0

    def find_reply(self, session: int, request: int, first_unanswered: int) -> tuple[int, bytes] | None:
        """Return (seq, answer) of a request that was applied before, or None; trim the session's answers.

        A request below the lowest unanswered one was answered long ago: (0, FORGOTTEN).
        Raises: RequestError NO_RESOURCES if a client lets answers pile up.
        """
        answers = self.answers.get(session)
        if answers is None:
            return None
        if request < answers.first_unanswered:
            return 0, FORGOTTEN
        if first_unanswered > answers.first_unanswered:
            answers.trim(first_unanswered)
        known = answers.by_request.get(request)
        if known is None and answers.excess:
            raise RequestError(codes.NO_RESOURCES, answers.excess)
        return known

    @property
    def answer_bytes(self) -> int:
        """Approximate size of the answers of all sessions."""
        return sum(answers.bytes for answers in self.answers.values())

    def record_reply(
        self, session: int, request: int, first_unanswered: int, seq: int, answer: bytes
    ) -> None:
        """Remember the answer that a request got, for its retries."""
        answers = self.answers.get(session)
        if answers is None:
            answers = self.answers[session] = ReplyCache()
        if first_unanswered > answers.first_unanswered:
            answers.trim(first_unanswered)
        answers.record(request, seq, answer)
