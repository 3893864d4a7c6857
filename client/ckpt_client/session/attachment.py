"""How a link becomes a session's: the first exchange, then ATTACH, repeated where datagrams may be lost.

Pure. It makes the frames and keeps what they depend on; `session` sends them and decides what failure means.
"""

from enum import Enum
from typing import Any, Final

from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS, pause_after
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, FrameError, encode_frame
from ckpt_protocol.greeting import ROLE_CLIENT, Identity, Opener
from ckpt_protocol.messages import Kind

RESEND_NS: Final = 100 * MILLISECOND_NS
"""Datagrams get lost: what is unanswered for this long is sent again."""

REGREETS_MAX: Final = 3
"""How often a datagram link is greeted anew, without success, before its refusal counts."""


class State(Enum):
    """Where a session stands."""

    UNLINKED = 0
    GREETING = 1
    GREETED = 2
    ATTACHING = 3
    ATTACHED = 4
    ENDED = 5


class Attachment:
    """One session's tie to a node, over as many links as it takes.

    `fresh`: the service has not yet confirmed the session, so that ATTACH may create it. `retry_ns`: when the
    frame that is under way is due again.
    """

    def __init__(self, session_id: int, identity: Identity) -> None:
        self.session_id = session_id
        self.fresh = True
        self.node_id = ""
        self.retry_ns = NEVER_NS
        self.number = 0
        self._identity = identity
        self._generation = 0
        self._regreets = 0
        self._opener = Opener(identity, ROLE_CLIENT, b"")
        self._datagram = False
        self._attach = b""
        self._pause_ns = 0

    def hello(self, nonce: bytes, datagram: bool, now_ns: int) -> bytes:
        """The first frame on a new link."""
        self._opener = Opener(self._identity, ROLE_CLIENT, nonce)
        self._datagram = datagram
        self._regreets = 0
        return self.hello_again(now_ns)

    def hello_again(self, now_ns: int) -> bytes:
        """The same HELLO again: it, or its WELCOME, was lost on the way."""
        self._arm(now_ns)
        return self._opener.hello(self._datagram)

    def take_welcome(self, frame: Frame) -> bytes | None:
        """What to send upon WELCOME (perhaps nothing); None for a datagram that is none, from earlier times.

        Raises: Refused, FrameError.
        """
        if self._datagram:
            if frame.kind not in (Kind.WELCOME, Kind.REFUSED):
                return None
            # Each request that was on its way when a daemon forgot us is refused; HELLO itself is repeated.
            if self._regreets and frame.kind == Kind.REFUSED:
                return None
        greeted, proof = self._opener.receive(frame)
        self.node_id = greeted.node_id
        self.retry_ns = NEVER_NS
        return proof

    def regreet(self, frame: Frame, now_ns: int) -> bytes:
        """REFUSED after WELCOME: HELLO again for a daemon that does not know our datagrams (any more).

        Raises: Refused where our proof was wrong (streams), or greeting again does not help.
        """
        self._regreets += 1
        if not self._datagram or self._regreets > REGREETS_MAX:
            self._opener.receive(frame)
        return self.hello_again(now_ns)

    def attach(self, number: int, now_ns: int) -> bytes:
        """ATTACH as request `number`.

        Its generation grows, so that a stale node cannot end a session that moved.
        """
        self.number = number
        self._pause_ns = 0
        self._attach = self.next_attach(number)
        return self.attach_again(now_ns)

    def next_attach(self, number: int) -> bytes:
        """An ATTACH of the next generation, for whatever link."""
        self._generation += 1
        body = pack_body([self.fresh])
        return encode_frame(Kind.ATTACH, number, self.session_id, self._generation, body)

    def attach_again(self, now_ns: int) -> bytes:
        """The same ATTACH again."""
        self._arm(now_ns)
        return self._attach

    def attached(self) -> None:
        """The service has confirmed the session at this node."""
        self.fresh = False
        self._regreets = 0
        self.retry_ns = NEVER_NS

    def pause(self, now_ns: int, pause_max_ns: int) -> None:
        """TRY_AGAIN: the node cannot take the session yet."""
        self._pause_ns = pause_after(self._pause_ns, pause_max_ns)
        self.retry_ns = now_ns + self._pause_ns

    def drop(self) -> None:
        """The link is gone."""
        self.retry_ns = NEVER_NS

    def _arm(self, now_ns: int) -> None:
        self.retry_ns = now_ns + RESEND_NS if self._datagram else NEVER_NS


def members_of(payload: Any) -> dict[str, list[str]]:
    """The members and their client addresses in an answer to ATTACH; what is malformed is left out.

    Raises: FrameError.
    """
    if type(payload) is not list or len(payload) < 2 or type(payload[1]) is not list:
        raise FrameError("an answer to ATTACH without members")
    return _members(payload[1], 1)


def described_members(payload: Any) -> tuple[int, dict[str, list[str]]]:
    """(epoch, the members and their client addresses) in an answer to DESCRIBE "cluster"; epoch -1: none."""
    if type(payload) is not dict:
        return -1, {}
    epoch, rows = payload.get("epoch"), payload.get("members")
    if type(epoch) is not int or type(rows) is not list:
        return -1, {}
    return epoch, _members(rows, 3)


def _members(rows: list[Any], place: int) -> dict[str, list[str]]:
    return {
        row[0]: [url for url in row[place] if type(url) is str]
        for row in rows
        if type(row) is list and len(row) > place and type(row[0]) is str and type(row[place]) is list
    }
