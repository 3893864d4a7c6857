"""How a link becomes a session's: the handshake, then ATTACH, both repeated where datagrams may be lost.

Pure. This module makes the frames and keeps their state. `link_and_fail_over` sends them and
decides what a failure means.
"""

from enum import Enum
from typing import Any, Final

from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS, pause_after
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.handshake import ROLE_CLIENT, Identity, Opener
from ckpt_protocol.messages import Kind

RESEND_NS: Final = 100 * MILLISECOND_NS
"""A datagram that is unanswered for this long is sent again, since it may be lost."""

HANDSHAKE_REPEATS_MAX: Final = 3
"""How often the handshake is repeated on a datagram link, without success, before a refusal counts."""


class SessionState(Enum):
    """The state of a session."""

    DISCONNECTED = 0
    HANDSHAKING = 1
    CONNECTED = 2
    ATTACHING = 3
    ATTACHED = 4
    ENDED = 5


class Attachment:
    """One session's attachment to a node, over as many links as it takes."""

    def __init__(self, session_id: int, identity: Identity) -> None:
        self.session_id = session_id
        self.unconfirmed = True
        """The service has not confirmed the session yet, so ATTACH may create it."""

        self.node_id = ""
        self.retry_ns = NEVER_NS
        """When the HELLO or ATTACH that is under way has to be sent again."""

        self.number = 0
        """The request number of the latest ATTACH."""
        self._identity = identity
        self._generation = 0
        self._hello_repeats = 0
        self._opener = Opener(identity, ROLE_CLIENT, b"")
        self._datagram = False
        self._attach = b""
        self._pause_ns = 0

    def hello(self, nonce: bytes, datagram: bool, now_ns: int) -> bytes:
        """Return HELLO, the first frame on a new link."""
        self._opener = Opener(self._identity, ROLE_CLIENT, nonce)
        self._datagram = datagram
        self._hello_repeats = 0
        return self.hello_again(now_ns)

    def hello_again(self, now_ns: int) -> bytes:
        """Return the same HELLO again, since it or its WELCOME was lost."""
        self._schedule_resend(now_ns)
        return self._opener.hello(self._datagram)

    def take_welcome(self, frame: Frame) -> bytes | None:
        """Return what to send after WELCOME (perhaps nothing); None for a stray datagram from earlier.

        Raises: HandshakeRejected, FrameError.
        """
        if self._datagram:
            if frame.kind not in (Kind.WELCOME, Kind.REFUSED):
                return None
            # A daemon that has forgotten us refuses every request on its way. HELLO itself is repeated.
            if self._hello_repeats and frame.kind == Kind.REFUSED:
                return None
        peer, proof = self._opener.receive(frame)
        self.node_id = peer.node_id
        self.retry_ns = NEVER_NS
        return proof

    def repeat_handshake(self, frame: Frame, now_ns: int) -> bytes:
        """Return HELLO, after REFUSED, for a daemon that does not know our datagrams (any more).

        Raises: HandshakeRejected if our proof was wrong (streams), or if repeating the handshake does not
        help.
        """
        self._hello_repeats += 1
        if not self._datagram or self._hello_repeats > HANDSHAKE_REPEATS_MAX:
            self._opener.receive(frame)
        return self.hello_again(now_ns)

    def attach(self, number: int, now_ns: int) -> bytes:
        """Return ATTACH, as request `number`.

        Its generation grows, so that a stale node cannot end a session that has moved.
        """
        self.number = number
        self._pause_ns = 0
        self._attach = self.next_attach(number)
        return self.attach_again(now_ns)

    def next_attach(self, number: int) -> bytes:
        """Return an ATTACH of the next generation, for any link."""
        self._generation += 1
        body = pack_body([self.unconfirmed])
        return encode_frame(Kind.ATTACH, number, self.session_id, self._generation, body)

    def attach_again(self, now_ns: int) -> bytes:
        """Return the same ATTACH again."""
        self._schedule_resend(now_ns)
        return self._attach

    def attached(self) -> None:
        """Note that the service has confirmed the session at this node."""
        self.unconfirmed = False
        self._hello_repeats = 0
        self.retry_ns = NEVER_NS

    def back_off(self, now_ns: int, pause_max_ns: int) -> None:
        """Pause before the next ATTACH: after TRY_AGAIN, since the node cannot take the session yet."""
        self._pause_ns = pause_after(self._pause_ns, pause_max_ns)
        self.retry_ns = now_ns + self._pause_ns

    def drop(self) -> None:
        """Repeat nothing more, since the link is gone."""
        self.retry_ns = NEVER_NS

    def _schedule_resend(self, now_ns: int) -> None:
        self.retry_ns = now_ns + RESEND_NS if self._datagram else NEVER_NS


def members_of(payload: Any) -> dict[str, list[str]]:
    """Return the members and their client addresses in an answer to ATTACH; leave out what is malformed.

    Raises: FrameError.
    """
    if type(payload) is not list or len(payload) < 2 or type(payload[1]) is not list:
        raise FrameError("an answer to ATTACH lacks the members")
    return _members(payload[1], 1)


def described_members(payload: Any) -> tuple[int, dict[str, list[str]]]:
    """Return (epoch, members and their client addresses) in an answer to DESCRIBE "cluster"; -1: no epoch."""
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
