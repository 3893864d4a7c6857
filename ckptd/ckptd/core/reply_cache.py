"""Replies that are kept, so that a repeated request is answered and not done again.

A `ReplyCache` holds the answers of one session, at every replica and in the directory.

An `ErrorReplyCache` holds refusals, which reach no other node. A duplicate of a refused request may still
be in transit, and arrive when it would be carried out: the caller was told that nothing happened, and
something did (seed 100257). So the node that gave a refusal keeps it, and trims it by the client's lowest
unanswered request, like answers.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.limits import ANSWER_BYTES, ANSWERS_BYTES_MAX, ANSWERS_MAX
from ckpt_protocol.messages import answer_error

ANSWER_MEMORY_FACTOR: Final = 2
"""How many times more memory an ordinary answer takes than `ANSWER_BYTES`."""

ANSWERS_BYTES_FREE: Final = 64 * 1024
"""Bytes of answers that a session may keep, at a checkpoint or in the directory, even at full capacity."""

ERROR_REPLIES_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that the refusals of all sessions may take at one checkpoint, or in the directory.

Beyond it, a session has at most `ANSWERS_BYTES_FREE` of them kept.
"""


FORGOTTEN: Final = answer_error(
    codes.TIMEOUT, "the number of this request is below the lowest unanswered one"
)
"""The answer to a stale request.

Its client does not wait for it, but its node may: a duplicate that was dropped counted as unanswered
forever, and stalled its link's lane (seed 7003105).
"""


class ReplyCache:
    """The answers of one session, so that a retry is answered and not applied again (ADR 8).

    The client trims them by its lowest unanswered request. A request below that is stale, and its outcome
    is no longer known.
    """

    __slots__ = ("by_request", "bytes", "first_unanswered", "last")

    def __init__(self) -> None:
        self.bytes = 0
        """About how much memory the answers take."""
        self.first_unanswered = 0
        self.last = 0
        self.by_request: dict[int, tuple[int, bytes]] = {}

    def record(self, request: int, seq: int, answer: bytes) -> int:
        """Remember an answer; return how many more bytes all answers now take."""
        by_request, before = self.by_request, self.bytes
        if request > self.last:
            self.last = request
        elif request in by_request:
            self._drop(request)
        self.bytes += ANSWER_BYTES + len(answer)
        by_request[request] = (seq, answer)
        return self.bytes - before

    def _drop(self, request: int) -> None:
        self.bytes -= ANSWER_BYTES + len(self.by_request.pop(request)[1])

    @property
    def excess(self) -> str:
        """Why no more answers may be kept; "" while they may."""
        if len(self.by_request) >= ANSWERS_MAX:
            return (
                f"{ANSWERS_MAX} answers of this session are stored already, and it has not acknowledged any"
            )
        if self.bytes >= ANSWERS_BYTES_MAX:
            return (
                f"answers of {ANSWERS_BYTES_MAX} bytes are stored for this session already, and it has "
                "not acknowledged any"
            )
        return ""

    def trim(self, first_unanswered: int) -> int:
        """Discard the answers below the client's lowest unanswered request; return the bytes freed."""
        if first_unanswered <= self.first_unanswered:
            return 0
        self.first_unanswered = first_unanswered
        by_request, before = self.by_request, self.bytes
        if self.last < first_unanswered:
            by_request.clear()
            self.bytes = 0
        else:
            for request in [request for request in by_request if request < first_unanswered]:
                self._drop(request)
        return before - self.bytes


class ErrorReplyCache:
    """Refusals by session and request number: the seq at the time of the refusal, and the answer's body."""

    __slots__ = ("_sessions", "bytes")

    def __init__(self) -> None:
        self._sessions: dict[int, ReplyCache] = {}
        self.bytes = 0
        """About how much memory they take."""

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def find(self, session: int, number: int, first_unanswered: int) -> tuple[int, bytes] | None:
        """Return the refusal that a request got before; trim those of its session."""
        answers = self._sessions.get(session)
        if answers is None:
            return None
        self.bytes -= answers.trim(first_unanswered)
        if not answers.by_request:
            self.forget(session)
            return None
        return answers.by_request.get(number)

    def record(self, session: int, number: int, first_unanswered: int, seq: int, body: bytes) -> None:
        """Remember a refusal, unless the capacity is used up, or its client has let too many pile up."""
        answers = self._sessions.setdefault(session, ReplyCache())
        self.bytes -= answers.trim(first_unanswered)
        has_capacity = self.bytes < ERROR_REPLIES_BYTES_MAX or answers.bytes < ANSWERS_BYTES_FREE
        if has_capacity and not answers.excess:
            self.bytes += answers.record(number, seq, body)

    def forget(self, session: int) -> None:
        """Discard the refusals of a session that has ended."""
        answers = self._sessions.pop(session, None)
        if answers is not None:
            self.bytes -= answers.bytes

    def clear(self) -> None:
        """Discard all refusals: no request that comes from now on was refused before."""
        self._sessions.clear()
        self.bytes = 0
