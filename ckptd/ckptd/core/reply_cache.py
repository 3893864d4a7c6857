"""Replies that are kept, so that a request that comes again is answered and not done again.

`Answers` are those of one session, at every replica and in the directory. `Refused` are refusals: they reach
no other node, but a second copy of the request may still be under way and come when it would be done. The
caller was told that nothing happened, and something did (seed 100257). So a refusal is kept where it was
given, and trimmed by the client's lowest unanswered request, as answers are.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.limits import ANSWER_BYTES, ANSWERS_BYTES_MAX, ANSWERS_MAX
from ckpt_protocol.messages import answer_error

ANSWER_IN_MEMORY: Final = 2
"""How many times more an ordinary answer takes in memory than `ANSWER_BYTES` says."""

ANSWERS_BYTES_FREE: Final = 64 * 1024
"""Remembered answers that a session may have at a checkpoint, or in the directory, where no room is left."""

REFUSED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What all sessions' refusals may take at one checkpoint, or in the directory.

Beyond it a session has no more than `ANSWERS_BYTES_FREE` of them kept."""


FORGOTTEN: Final = answer_error(codes.TIMEOUT, "this request lies below the lowest unanswered one")
"""The answer to a stale request. Its client waits for none, but its node may: a copy that was dropped counted
for ever as unanswered, and its link's lane was held up (seed 7003105)."""


class Answers:
    """The answers of one session, so that a retry is answered and not applied (ADR 8).

    The client trims them by its lowest unanswered request; below that a request is stale, and its outcome is
    not known any more. `bytes`: what they take, about.
    """

    __slots__ = ("by_request", "bytes", "last", "lowest")

    def __init__(self) -> None:
        self.bytes = 0
        self.lowest = 0
        self.last = 0
        self.by_request: dict[int, tuple[int, bytes]] = {}

    def keep(self, request: int, seq: int, answer: bytes) -> int:
        """Remember an answer; return how many bytes more all take."""
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
        """Why no further answer may be kept; "" while one may."""
        if len(self.by_request) >= ANSWERS_MAX:
            return f"{ANSWERS_MAX} answers of this session are kept already: none has been trimmed"
        if self.bytes >= ANSWERS_BYTES_MAX:
            return f"answers of {ANSWERS_BYTES_MAX} bytes are kept for this session: none has been trimmed"
        return ""

    def trim(self, lowest: int) -> int:
        """Forget what lies below the client's lowest unanswered request; return how many bytes that frees."""
        if lowest <= self.lowest:
            return 0
        self.lowest = lowest
        by_request, before = self.by_request, self.bytes
        if self.last < lowest:
            by_request.clear()
            self.bytes = 0
        else:
            for request in [request for request in by_request if request < lowest]:
                self._drop(request)
        return before - self.bytes


class Refused:
    """By session and request number: the seq that stood when it was given, and its body.

    `bytes`: what they take, about.
    """

    __slots__ = ("_sessions", "bytes")

    def __init__(self) -> None:
        self._sessions: dict[int, Answers] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def find(self, session: int, number: int, lowest: int) -> tuple[int, bytes] | None:
        """The refusal that a request got before; trims the session's."""
        answers = self._sessions.get(session)
        if answers is None:
            return None
        self.bytes -= answers.trim(lowest)
        if not answers.by_request:
            self.forget(session)
            return None
        return answers.by_request.get(number)

    def keep(self, session: int, number: int, lowest: int, seq: int, body: bytes) -> None:
        """Remember one. A client that lets more pile up than are kept of answers is on its own."""
        answers = self._sessions.setdefault(session, Answers())
        self.bytes -= answers.trim(lowest)
        has_room = self.bytes < REFUSED_BYTES_MAX or answers.bytes < ANSWERS_BYTES_FREE
        if has_room and not answers.excess:
            self.bytes += answers.keep(number, seq, body)

    def forget(self, session: int) -> None:
        """The session has ended."""
        answers = self._sessions.pop(session, None)
        if answers is not None:
            self.bytes -= answers.bytes

    def clear(self) -> None:
        """Whoever asks from now on was told nothing."""
        self._sessions.clear()
        self.bytes = 0
