"""Refusals that were given, kept so that a second copy of the request meets the same one.

An update that was applied is remembered by every replica. A refusal reaches no other
node; but its copy may still be under way, and come when it would be done: the caller was
told that nothing happened, and something did (seed 100257). Kept where it was given, it is
trimmed by the client's lowest unanswered request, as answers are.
"""

from ckptd.core.log import Answers


class Refused:
    """By session and request number: the seq that stood when it was given, and its body."""

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[int, Answers] = {}

    def __bool__(self) -> bool:
        return bool(self._sessions)

    def find(self, session: int, number: int, lowest: int) -> tuple[int, bytes] | None:
        """The refusal that a request got before; trims the session's."""
        answers = self._sessions.get(session)
        if answers is None:
            return None
        answers.trim(lowest)
        if not answers.by_request:
            del self._sessions[session]
            return None
        return answers.by_request.get(number)

    def keep(self, session: int, number: int, lowest: int, seq: int, body: bytes) -> None:
        """Remember one. A client that lets more pile up than are kept of answers is on its own."""
        answers = self._sessions.setdefault(session, Answers())
        answers.trim(lowest)
        if not answers.excess:
            answers.keep(number, seq, body)

    @property
    def bytes(self) -> int:
        """What they take, about."""
        return sum(answers.bytes for answers in self._sessions.values())

    def forget(self, session: int) -> None:
        """The session has ended."""
        self._sessions.pop(session, None)

    def clear(self) -> None:
        """Whoever asks from now on was told nothing."""
        self._sessions.clear()
