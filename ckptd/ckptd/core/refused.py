"""Refusals that were given, kept so that a second copy of the request meets the same one.

An update that was applied is remembered by every replica. A refusal reaches no other
node; but its copy may still be under way, and come when it would be done: the caller was
told that nothing happened, and something did (seed 100257). Kept where it was given, it is
trimmed by the client's lowest unanswered request, as answers are.
"""

from typing import Final

from ckptd.core.log import ANSWERS_BYTES_FREE, Answers

REFUSED_BYTES_MAX: Final = 64 * 1024 * 1024
"""What all sessions' refusals may take at one checkpoint, or in the directory.

Beyond it a session has no more than `ANSWERS_BYTES_FREE` of them kept."""


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
