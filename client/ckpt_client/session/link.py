"""The link of a session: the first exchange, ATTACH, how it is lost, and how long its node may be silent.

Pure. `linked_session` adds what is asked on it.
"""

from collections.abc import Sequence
from typing import Final

from ckpt_client.session.address import Address
from ckpt_client.session.attachment import Attachment, State, members_of
from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS, TRY_AGAIN_MAX_NS
from ckpt_client.session.endpoints import Route
from ckpt_client.session.node_silence import HASTE_NS, QUIET_NS, SILENT_NS, Silence
from ckpt_client.session.pending_calls import Unanswered
from ckpt_protocol import codes
from ckpt_protocol.answers import decode_answer
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder, FrameError
from ckpt_protocol.greeting import Identity, Refused
from ckpt_protocol.messages import Kind

MOVE_NS: Final = 500 * MILLISECOND_NS
"""A node that answers only TRY_AGAIN for this long (cut off from the others, say) is left for another.

Longer than a fail-over keeps the nodes that go on from serving: about 0.3 s.
"""

_FINAL_REFUSALS: Final = (codes.ACCESS, codes.VERSION)


class Linking(Unanswered):
    """One session's tie to a node, over one link at a time."""

    def __init__(self, session_id: int, addresses: tuple[Address, ...], identity: Identity) -> None:
        super().__init__()
        self.session_id = session_id
        self.pause_max_ns = TRY_AGAIN_MAX_NS
        self.state = State.UNLINKED
        self.attached = False
        self.outgoing: list[bytes] = []
        self.wake_ns = NEVER_NS
        self.epoch = 0
        self.ignored = 0
        """Answers that nobody waited for, and datagrams that were garbage."""

        self.moved = 0
        """How often the session came to a node again, or to another one, after it had been attached."""

        self.notices: list[str] = []
        """What is to be logged: where the session went, and why."""

        self.keeps_up = False
        """Whether the node is to show that it lives while nobody asks anything."""

        self._follows = False
        self._attachment = Attachment(session_id, identity)
        self._route = Route(addresses)
        self._decoder = FrameDecoder()
        self._datagram = False
        self._silence = Silence()
        self._ping_number = 0
        self._probing = False
        self._refused_since_ns = NEVER_NS
        self._refused_text = ""
        self._left = ""

    def succeed(self, ended: "Linking") -> None:
        """Take the place of a session that has ended: same program, same places to go.

        Request numbers go on. A handle is the number of the request that opened it, so that one of the old
        session's is never taken for another of this one's.
        """
        self._number = ended._number
        self._route = ended._route
        self.pause_max_ns = ended.pause_max_ns
        self.moved = ended.moved

    # -- what the shell asks

    @property
    def address(self) -> Address:
        """The address of the link, or the one to connect to next."""
        return self._route.current

    @property
    def connect_ns(self) -> int:
        """When the next connection may be tried."""
        return self._route.connect_ns

    @property
    def node_id(self) -> str:
        """The node that we are, or were last, linked to."""
        return self._attachment.node_id

    @property
    def was_attached(self) -> bool:
        """Whether the service knows this session, so that it has something to lose."""
        return not self._attachment.fresh and self.state is not State.ENDED

    @property
    def mid_frame(self) -> bool:
        """Whether the beginning of a frame was received and its end was not."""
        return self._decoder.held_bytes > 0

    @property
    def owed_life(self) -> bool:
        """Whether the node owes an answer to a PING that nobody waits for, or to a caller who gave up."""
        return self._silence.unanswered

    @property
    def silent_ns(self) -> int:
        """When the node will have been silent for too long."""
        return self._silence.since_ns + SILENT_NS

    @property
    def connect_limit_ns(self) -> int:
        """How long a connection to `address` may take to be made."""
        return HASTE_NS if self._route.first_round else SILENT_NS

    # -- the link

    def open_link(self, nonce: bytes, now_ns: int) -> None:
        """The transport to `address` is up. `nonce`: 16 random bytes."""
        self._datagram = self.address.datagram
        self._decoder = FrameDecoder()
        self._silence.heard(now_ns)
        self._refused_since_ns = NEVER_NS
        self.outgoing.clear()
        self.wake_ns = min(self.wake_ns, now_ns + QUIET_NS)
        self._greet(self._attachment.hello(nonce, self._datagram, now_ns))

    def lose_link(self, now_ns: int, why: str, final: bool = False) -> None:
        """The transport is gone or could not be made.

        `final`: a first connection that fails so fails again (nothing listens, no such host). A session that
        was attached once goes on trying, since nodes come back.
        """
        self._drop_link(now_ns, why, codes.UNAVAILABLE if final else 0)

    def _drop_link(self, now_ns: int, why: str, final_code: int = 0) -> None:
        if self.state is State.ENDED:
            return
        if final_code == codes.UNAVAILABLE and not self._attachment.fresh:
            final_code = 0
        self.state = State.UNLINKED
        self.attached = self._probing = self._silence.unanswered = False
        self.outgoing.clear()
        self._attachment.drop()
        for call in self.calls.values():
            call.lose_link()
        self._route.failed(now_ns, why, final_code)
        self._left = f"{self.node_id or 'none'} ({why})"
        code = self._route.verdict()
        if code:
            hint = self._route.hint if code == codes.UNAVAILABLE else ""
            self._fail_all(code, "; ".join(filter(None, (self._route.why(), hint))))
        self.wake_ns = min(self.wake_ns, self._route.connect_ns)

    def _greet(self, hello: bytes) -> None:
        self.state = State.GREETING
        self.attached = False
        self.outgoing.append(hello)
        self.wake_ns = min(self.wake_ns, self._attachment.retry_ns)

    def _attach(self, now_ns: int) -> None:
        self.state = State.ATTACHING
        self.attached = False
        self._number += 1
        self.outgoing.append(self._attachment.attach(self._number, now_ns))
        self.wake_ns = min(self.wake_ns, self._attachment.retry_ns)

    def _ping(self, now_ns: int, withdrawn: Sequence[int] = ()) -> None:
        """Ask for a sign of life, and have the node give up requests that only wait there."""
        self._silence.pinged(now_ns, repeat=self._datagram)
        self._ping_number, ping = self._own_request(Kind.PING, pack_body(list(withdrawn)))
        self.outgoing.append(ping)

    def drained(self, now_ns: int) -> None:
        """The node's side has taken in a part of a large request that the shell had to wait with.

        Only the shell can tell that. That the kernel here took bytes says nothing of the node: the PING of
        every blocking client counted as its own answer so, and no frozen node was ever left.
        """
        self._silence.drained(now_ns)

    # -- the first exchange and ATTACH

    def _take_garbage(self, error: FrameError, now_ns: int) -> None:
        if self.state is State.GREETING:
            self._drop_link(now_ns, f"what listens there is no ckptd ({error})", codes.UNAVAILABLE)
        else:
            self._drop_link(now_ns, f"the daemon sent garbage ({error})")

    def _take_welcome(self, frame: Frame, now_ns: int) -> None:
        try:
            proof = self._attachment.take_welcome(frame)
        except Refused as refused:
            self._take_refused(refused, now_ns)
            return
        if proof is None:
            self.ignored += 1
            return
        if proof:
            self.outgoing.append(proof)
        self.state = State.GREETED
        if self._go_on(now_ns) or not self._attachment.fresh:
            self._attach(now_ns)

    def _take_refusal(self, frame: Frame, now_ns: int) -> None:
        try:
            hello = self._attachment.regreet(frame, now_ns)
        except Refused as refused:
            self._take_refused(refused, now_ns)
            return
        for call in self.calls.values():
            call.lose_link()
        self._greet(hello)

    def _take_refused(self, refused: Refused, now_ns: int) -> None:
        final_code = refused.code if refused.code in _FINAL_REFUSALS else 0
        self._drop_link(now_ns, f"refused: {refused.text}", final_code)

    def _take_attached(self, epoch: int, body: bytes, now_ns: int) -> None:
        code, payload, _, text = decode_answer(body)
        if code == codes.OK:
            self._attached(epoch, members_of(payload), now_ns)
        elif code == codes.TRY_AGAIN:
            self._note_refused(text, now_ns)
            self._attachment.pause(now_ns, self.pause_max_ns)
            self.wake_ns = min(self.wake_ns, self._attachment.retry_ns)
        elif code == codes.BAD_HANDLE:
            self.end(f"the session has ended ({text}): open the checkpoint again")
        else:
            if code == codes.UNAVAILABLE:
                self._route.note_witness()
            why = f"the session is not accepted: {text or codes.code_name(code)}"
            self._drop_link(now_ns, why, code if self._attachment.fresh and code != codes.TIMEOUT else 0)

    def _attached(self, epoch: int, members: dict[str, list[str]], now_ns: int) -> None:
        if not self._attachment.fresh and self._left:
            self._note_move(self._left)
        self._left = ""
        self._route.succeeded(self.node_id)
        self._route.learn(members)
        self._attachment.attached()
        self.state = State.ATTACHED
        self._refused_since_ns = NEVER_NS
        self._resume(now_ns)

    def _note_move(self, left: str) -> None:
        self.moved += 1
        self.notices.append(f"the session goes on at node {self.node_id} ({self.address}), it left {left}")

    def _note_refused(self, text: str, now_ns: int) -> None:
        self._refused_text = text
        self._refused_since_ns = min(self._refused_since_ns, now_ns)
        if self._route.has_others:
            self.wake_ns = min(self.wake_ns, self._refused_since_ns + self._refusals_ns)

    # -- how long its node may be silent, or refuse

    @property
    def _patience_ns(self) -> int:
        """How long the node may be silent."""
        return self.connect_limit_ns if self.state is State.GREETING else SILENT_NS

    @property
    def _refusals_ns(self) -> int:
        """How long the node may answer TRY_AGAIN to everything."""
        looking = self.state is State.ATTACHING and self._route.first_round
        return HASTE_NS if looking and not self._attachment.fresh else MOVE_NS

    # -- what `linked_session` makes more of

    def _go_on(self, now_ns: int) -> bool:
        """WELCOME has come: send what needs no session. Return True if something waits for the session."""
        raise NotImplementedError

    def _resume(self, now_ns: int) -> None:
        """Send what waited until the session is attached."""
        raise NotImplementedError

    def end(self, why: str) -> None:
        """The session is over, for the service or for the program: whoever still waits is told so."""
        raise NotImplementedError
