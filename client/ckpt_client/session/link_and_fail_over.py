"""The link of a session: the handshake, ATTACH, and when the session leaves its node for another one.

Pure. It leaves a node whose link is lost, that is silent for too long, or that answers only TRY_AGAIN. Which
address it tries next is decided by `endpoints`; `session_calls` adds the requests that the link carries. A
move that the session makes without need is a `planned_move`.
"""

from collections.abc import Sequence
from typing import Final

from ckpt_client.session.address import Address
from ckpt_client.session.attachment import Attachment, SessionState, members_of
from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS, TRY_AGAIN_MAX_NS
from ckpt_client.session.endpoints import Endpoints, Outlook
from ckpt_client.session.node_silence import DEAD_AFTER_NS, HASTE_NS, PING_AFTER_NS, Silence
from ckpt_client.session.pending_calls import PendingCalls
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.handshake import HandshakeRejected, Identity
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer

LEAVE_STUCK_NODE_NS: Final = 500 * MILLISECOND_NS
"""A node that answers only TRY_AGAIN for this long (because it is cut off, say) is left for another one.

This is longer than a fail-over keeps the surviving nodes from serving: about 0.3 s.
"""

_FINAL_REFUSALS: Final = (codes.ACCESS, codes.VERSION)


class SessionLink(PendingCalls):
    """One session's attachment to a node, over one link at a time."""

    def __init__(self, session_id: int, addresses: tuple[Address, ...], identity: Identity) -> None:
        super().__init__()
        self.session_id = session_id
        self.pause_max_ns = TRY_AGAIN_MAX_NS
        self.state = SessionState.DISCONNECTED
        self.attached = False
        self.outgoing: list[bytes] = []
        self.wake_ns = NEVER_NS
        self.epoch = 0
        self.ignored = 0
        """The number of answers for which no call waited, and of datagrams that were garbage."""

        self.moved = 0
        """How often the session was attached again, to another node or to the same one."""

        self.notices: list[str] = []
        """Lines for the log: where the session went, and why."""

        self.keeps_up = False
        """True if the node has to show that it lives even while there are no requests."""

        self.waits = True
        """False if its calls fail at once when no daemon listens anywhere and it was never attached."""

        self._follows = False
        self._attachment = Attachment(session_id, identity)
        self._endpoints = Endpoints(addresses)
        self._decoder = FrameDecoder()
        self._datagram = False
        self._silence = Silence()
        self._ping_number = 0
        self._probing = False
        self._refused_since_ns = NEVER_NS
        self._refused_text = ""
        self._left = ""

    def succeed(self, ended: "SessionLink") -> None:
        """Replace a session of the same program that has ended; keep its addresses.

        The request numbers continue. A handle is the number of the request that opened it, so a handle of the
        old session is never taken for one of this session.
        """
        self._number = ended._number
        self._endpoints = ended._endpoints
        self.pause_max_ns = ended.pause_max_ns
        self.moved = ended.moved

    # -- what the driver reads

    @property
    def address(self) -> Address:
        """The address of the link, or the one to connect to next."""
        return self._endpoints.current

    @property
    def connect_ns(self) -> int:
        """When the next connection may be tried."""
        return self._endpoints.connect_ns

    @property
    def node_id(self) -> str:
        """The node to which we are, or were last, linked."""
        return self._attachment.node_id

    @property
    def was_attached(self) -> bool:
        """True if the service knows this session, which then has something to lose."""
        return not self._attachment.unconfirmed and self.state is not SessionState.ENDED

    @property
    def mid_frame(self) -> bool:
        """True if the beginning of a frame was received, but not its end."""
        return self._decoder.held_bytes > 0

    @property
    def owed_life(self) -> bool:
        """True if the node owes an answer to a PING for which no call waits, or to a caller that gave up."""
        return self._silence.unanswered

    @property
    def silent_ns(self) -> int:
        """When the node will have been silent for too long."""
        return self._silence.since_ns + DEAD_AFTER_NS

    @property
    def connect_limit_ns(self) -> int:
        """How long connecting to `address` may take."""
        return HASTE_NS if self._endpoints.first_round else DEAD_AFTER_NS

    # -- the link

    def open_link(self, nonce: bytes, now_ns: int) -> None:
        """Begin the handshake: the transport to `address` is up. `nonce`: 16 random bytes."""
        self._datagram = self.address.datagram
        self._decoder = FrameDecoder()
        self._silence.heard(now_ns)
        self._refused_since_ns = NEVER_NS
        self.outgoing.clear()
        self.wake_ns = min(self.wake_ns, now_ns + PING_AFTER_NS)
        self._send_hello(self._attachment.hello(nonce, self._datagram, now_ns))

    def lose_link(self, now_ns: int, why: str, outlook: Outlook = Outlook.OPEN) -> None:
        """Note that the transport is gone or could not be opened.

        A session that was attached once continues to try whatever the outlook is, since nodes come back.
        """
        final_code = 0 if outlook is Outlook.OPEN else codes.UNAVAILABLE
        self._drop_link(now_ns, why, final_code, outlook is Outlook.NOT_YET)

    def _drop_link(self, now_ns: int, why: str, final_code: int = 0, not_yet: bool = False) -> None:
        if self.state is SessionState.ENDED:
            return
        if final_code == codes.UNAVAILABLE and not self._attachment.unconfirmed:
            final_code = 0
        self.state = SessionState.DISCONNECTED
        self.attached = self._probing = self._silence.unanswered = False
        self.outgoing.clear()
        self._attachment.drop()
        for call in self.calls.values():
            call.lose_link()
        self._endpoints.failed(now_ns, why, final_code, not_yet)
        self._left = f"{self.node_id or 'none'} ({why})"
        code = self._endpoints.final_code()
        if code:
            hint = self._endpoints.hint if code == codes.UNAVAILABLE else ""
            waits = self.waits and code == codes.UNAVAILABLE and self._endpoints.may_start
            self._fail_all(code, "; ".join(filter(None, (self._endpoints.why(), hint))), waits)
        self.wake_ns = min(self.wake_ns, self._endpoints.connect_ns)

    def _send_hello(self, hello: bytes) -> None:
        self.state = SessionState.HANDSHAKING
        self.attached = False
        self.outgoing.append(hello)
        self.wake_ns = min(self.wake_ns, self._attachment.retry_ns)

    def _attach(self, now_ns: int) -> None:
        self.state = SessionState.ATTACHING
        self.attached = False
        self._number += 1
        self.outgoing.append(self._attachment.attach(self._number, now_ns))
        self.wake_ns = min(self.wake_ns, self._attachment.retry_ns)

    def _ping(self, now_ns: int, withdrawn: Sequence[int] = ()) -> None:
        """Send a PING: ask for a sign of life, and have the node give up requests that only wait there."""
        self._silence.pinged(now_ns, repeat=self._datagram)
        self._ping_number, ping = self._own_request(Kind.PING, pack_body(list(withdrawn)))
        self.outgoing.append(ping)

    def drained(self, now_ns: int) -> None:
        """Note that the node has taken in a part of a large request for which the driver had to wait.

        Only the driver can tell that. That our own kernel takes bytes says nothing about the node: when that
        counted, the PING of every blocking client was its own answer, and no frozen node was ever left.
        """
        self._silence.drained(now_ns)

    # -- handshake and ATTACH

    def _take_garbage(self, error: FrameError, now_ns: int) -> None:
        if self.state is SessionState.HANDSHAKING:
            self._drop_link(now_ns, f"what listens there is not a ckptd ({error})", codes.UNAVAILABLE)
        else:
            self._drop_link(now_ns, f"the daemon sent an invalid frame ({error})")

    def _take_welcome(self, frame: Frame, now_ns: int) -> None:
        try:
            proof = self._attachment.take_welcome(frame)
        except HandshakeRejected as refused:
            self._take_refused(refused, now_ns)
            return
        if proof is None:
            self.ignored += 1
            return
        if proof:
            self.outgoing.append(proof)
        self.state = SessionState.CONNECTED
        if self._go_on(now_ns) or not self._attachment.unconfirmed:
            self._attach(now_ns)

    def _take_refusal(self, frame: Frame, now_ns: int) -> None:
        try:
            hello = self._attachment.repeat_handshake(frame, now_ns)
        except HandshakeRejected as refused:
            self._take_refused(refused, now_ns)
            return
        for call in self.calls.values():
            call.lose_link()
        self._send_hello(hello)

    def _take_refused(self, refused: HandshakeRejected, now_ns: int) -> None:
        final_code = refused.code if refused.code in _FINAL_REFUSALS else 0
        self._drop_link(now_ns, f"refused: {refused.text}", final_code)

    def _take_attached(self, epoch: int, body: bytes, now_ns: int) -> None:
        code, payload, _, text = decode_answer(body)
        if code == codes.OK:
            self._attached(epoch, members_of(payload), now_ns)
        elif code == codes.TRY_AGAIN:
            self._note_refused(text, now_ns)
            self._attachment.back_off(now_ns, self.pause_max_ns)
            self.wake_ns = min(self.wake_ns, self._attachment.retry_ns)
        elif code == codes.BAD_HANDLE:
            self.end(f"the session has ended ({text}): open the checkpoint again")
        else:
            if code == codes.UNAVAILABLE:
                self._endpoints.note_witness()
            why = f"the node does not accept the session: {text or codes.code_name(code)}"
            self._drop_link(
                now_ns, why, code if self._attachment.unconfirmed and code != codes.TIMEOUT else 0
            )

    def _attached(self, epoch: int, members: dict[str, list[str]], now_ns: int) -> None:
        if not self._attachment.unconfirmed and self._left:
            self._note_move(self._left)
        self._left = ""
        self._endpoints.succeeded(self.node_id)
        self._endpoints.update_members(members)
        self._attachment.attached()
        self.state = SessionState.ATTACHED
        self._refused_since_ns = NEVER_NS
        self._resume(now_ns)

    def _note_move(self, left: str) -> None:
        self.moved += 1
        self.notices.append(
            f"the session has moved to node {self.node_id} ({self.address}); it left node {left}"
        )

    def _note_refused(self, text: str, now_ns: int) -> None:
        self._refused_text = text
        self._refused_since_ns = min(self._refused_since_ns, now_ns)
        if self._endpoints.has_others:
            self.wake_ns = min(self.wake_ns, self._refused_since_ns + self._refusals_ns)

    # -- how long its node may be silent, or refuse

    @property
    def _patience_ns(self) -> int:
        """How long the node may be silent."""
        return self.connect_limit_ns if self.state is SessionState.HANDSHAKING else DEAD_AFTER_NS

    @property
    def _refusals_ns(self) -> int:
        """How long the node may answer TRY_AGAIN to everything."""
        looking = self.state is SessionState.ATTACHING and self._endpoints.first_round
        return HASTE_NS if looking and not self._attachment.unconfirmed else LEAVE_STUCK_NODE_NS

    # -- implemented by `session_calls`

    def _go_on(self, now_ns: int) -> bool:
        """Send what needs no session, after WELCOME. Return True if something waits for the session."""
        raise NotImplementedError

    def _resume(self, now_ns: int) -> None:
        """Send what waited until the session is attached."""
        raise NotImplementedError

    def end(self, why: str) -> None:
        """End the session, for the service or for the program: fail every call that still waits."""
        raise NotImplementedError
