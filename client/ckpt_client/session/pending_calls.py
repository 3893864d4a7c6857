"""The unanswered requests of a session, their numbers, and how they end.

Pure. A number is never used for another request, and the lowest unanswered number tells the service which
answers it may forget. The service recognises repetitions because of both.
"""

from typing import Final

from ckpt_client.session.call import MILLISECOND_NS, Call
from ckpt_protocol import codes
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind

ORPHAN_NS: Final = 10_000 * MILLISECOND_NS
"""How long a session continues with an OPEN or a CLOSE that its caller gave up."""

WAITING: Final = frozenset((Kind.TRACK, Kind.LEADER_TRACK))
"""These stay unanswered as long as nothing changes."""

READ_ONLY: Final = WAITING | {
    *(Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.LEADER, Kind.DESCRIBE, Kind.PING),
}
"""These change nothing, so they can be repeated, and their outcome is never in doubt."""


class PendingCalls:
    """The calls of a session: those that are unanswered, and those that have ended."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        """The unanswered calls by number, which is also their order."""

        self.completed: list[Call] = []
        """Calls that have ended, until the driver takes them."""

        self._number = 0
        """The number of the latest request."""

    @property
    def next_number(self) -> int:
        """The number that the next request will have."""
        return self._number + 1

    @property
    def _lowest(self) -> int:
        """The number of the lowest unanswered request for which the service keeps something.

        A TRACK does not count, nor does a LEADER_TRACK.
        """
        for number, call in self.calls.items():
            if call.kind not in WAITING:
                return number
        return self._number

    def _own_request(self, kind: int, body: bytes) -> tuple[int, bytes]:
        """Return the number and the frame of a request that the session makes for itself."""
        self._number += 1
        return self._number, encode_frame(kind, self._number, 0, self._lowest, body)

    def _finish(self, call: Call, code: int, text: str = "", index: int = -1) -> None:
        del self.calls[call.number]
        self._end(call, code, text, index)

    def _end(self, call: Call, code: int, text: str, index: int = -1) -> None:
        call.done = True
        call.code, call.text, call.index = code, text, index
        if not call.orphan:
            self.completed.append(call)

    def _fail_all(self, code: int, text: str, only_without_session: bool = False) -> None:
        """End every call, or only those that need no session.

        A change that may have been made fails with TIMEOUT, whatever made us give up.
        """
        for call in tuple(self.calls.values()):
            if only_without_session and not call.needs_no_session:
                continue
            unknown = call.maybe_applied and call.kind not in READ_ONLY
            self._finish(call, codes.TIMEOUT if unknown else code, text)

    def _let_go(self, call: Call, now_ns: int) -> None:
        """Release a call whose caller waits no longer.

        The session itself continues with an OPEN that may succeed, to close it again, and with a CLOSE.
        Otherwise the checkpoint would stay open, and never expire, as long as the session lives.
        """
        opens = call.kind == Kind.OPEN and call.maybe_applied
        if not call.orphan and (opens or call.kind == Kind.CLOSE):
            self.calls[call.number] = call.orphaned(now_ns + ORPHAN_NS)
        else:
            del self.calls[call.number]
