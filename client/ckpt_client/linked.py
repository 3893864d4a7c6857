"""A session over one link at a time: what a client asked, what is still unanswered, and where to ask next.

Pure: no socket, no clock, no randomness. `session` adds the moves that a session makes without need.

That an update is never applied twice hinges on three things kept here: a request's number and body are never
used for another; what is unanswered goes, as it was, to the next node; and `lowest` in each request tells the
service which answers it may forget.
"""

from typing import Any, Final

from ckpt_client.address import Address
from ckpt_client.attachment import RESEND_NS, Attachment, State, members_of
from ckpt_client.call import MILLISECOND_NS, NEVER_NS, TRY_AGAIN_MAX_NS, Call, pause_after
from ckpt_client.route import Route
from ckpt_client.silence import HASTE_NS, KEEP_UP_NS, QUIET_NS, SILENT_NS, Silence
from ckpt_client.unanswered import ORPHAN_NS, READ_ONLY, Unanswered
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import (
    HEADER,
    HEADER_BYTES,
    LENGTH_BYTES,
    Frame,
    FrameDecoder,
    FrameError,
    decode_datagram,
    encode_frame,
)
from ckpt_protocol.greeting import Identity, Refused
from ckpt_protocol.limits import DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX
from ckpt_protocol.messages import Kind, answer_ok, decode_answer

AGAIN_NS: Final = 250 * MILLISECOND_NS
AGAIN_MAX_NS: Final = 4_000 * MILLISECOND_NS
"""The pauses after which what was asked on an earlier link too is asked again: the first, and the longest."""

AGAIN_BYTES_MAX: Final = 65_536
"""A larger request is not: it may take as long to arrive."""

MOVE_NS: Final = 500 * MILLISECOND_NS
"""A node that answers only TRY_AGAIN for this long (cut off from the others, say) is left for another.

Longer than a fail-over keeps the nodes that go on from serving: about 0.3 s.
"""

_OK_BODY: Final = answer_ok()
_EMPTY_BODY: Final = pack_body([])
_unpack_header = HEADER.unpack_from

_GREETED: Final = frozenset((State.GREETED, State.ATTACHING, State.ATTACHED))
_FINAL_REFUSALS: Final = (codes.ACCESS, codes.VERSION)


class LinkedSession(Unanswered):
    """One session with the service, over one link at a time."""

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

    def succeed(self, ended: "LinkedSession") -> None:
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

    # -- calls

    def begin(self, kind: int, handle: int, body: bytes, now_ns: int, timeout_ns: int) -> Call:
        """Ask something.

        The call is `done` when it is answered or has failed, after `timeout_ns` at the latest.
        """
        number = self._number = self._number + 1
        call = Call(number, kind, handle, body, now_ns + timeout_ns)
        if self.state is State.ENDED:
            self._end(call, codes.BAD_HANDLE, "the session has ended: open the checkpoint again")
            return call
        calls = self.calls
        if not calls:
            if self._silence.unanswered:
                self._silence.excuse(now_ns)
                self.wake_ns = now_ns
            elif self._silence.begin(now_ns) and self.attached:
                self._probe(now_ns)
            if self.state is State.UNLINKED and self._route.verdict():
                self._route.start_again(now_ns)
        calls[number] = call
        wake_ns = now_ns + (timeout_ns if timeout_ns < QUIET_NS else QUIET_NS)
        if wake_ns < self.wake_ns:
            self.wake_ns = wake_ns
        if self.attached or (self.state in _GREETED and call.needs_no_session):
            self._send(call, now_ns)
        elif self.state is State.GREETED:
            self._attach(now_ns)
        return call

    def ask_for_life(self, now_ns: int) -> bool:
        """Nobody asks anything: have the node show that it lives. Return True if it owes an answer."""
        if not self.calls and not self._silence.unanswered:
            if now_ns - self._silence.since_ns < KEEP_UP_NS:
                return False
            self._silence.begin(now_ns)
            self._ping(now_ns)
            self._silence.unanswered = True
        return True

    @property
    def owed_life(self) -> bool:
        """Whether the node owes an answer to a PING that nobody waits for, or to a caller who gave up."""
        return self._silence.unanswered

    def abandon(self, call: Call, now_ns: int) -> None:
        """The caller no longer waits. What may have been done stays so, but what an OPEN opens is closed."""
        if self.calls.get(call.number) is not call:
            # Its answer was there already when the caller gave up.
            if call.kind == Kind.OPEN and call.code == codes.OK:
                self._close_orphan(call.payload, now_ns)
            return
        self._let_go(call, now_ns)
        call.done = True
        call.code, call.text = codes.TIMEOUT, "the caller gave up"

    def end(self, why: str) -> None:
        """The session is over, for the service or for the program: whoever still waits is told so."""
        self.state = State.ENDED
        self.attached = False
        self.outgoing.clear()
        self._fail_all(codes.BAD_HANDLE, why)

    def _probe(self, now_ns: int) -> None:
        """Nothing came for a long while: new requests wait until the node has answered a PING."""
        self.attached = False
        self._probing = True
        self._ping(now_ns)

    def _ping(self, now_ns: int) -> None:
        self._silence.pinged(now_ns, repeat=self._datagram)
        self._ping_number, ping = self._own_request(Kind.PING, _EMPTY_BODY)
        self.outgoing.append(ping)

    def _send(self, call: Call, now_ns: int) -> None:
        frame = encode_frame(call.kind, call.number, call.handle, self._lowest, call.body)
        if self._datagram:
            if len(frame) > DATAGRAM_BYTES_MAX:
                self._does_not_fit(call, f"a request of {len(frame)} bytes does not fit a datagram", now_ns)
                return
            call.maybe_done = call.maybe_done or call.in_flight
            call.resend_ns = min(2 * call.resend_ns or RESEND_NS, SILENT_NS)
            call.retry_ns = now_ns + call.resend_ns
            self.wake_ns = min(self.wake_ns, call.retry_ns)
        elif len(frame) > FRAME_BYTES_MAX:
            text = f"a request of {len(frame)} bytes exceeds {FRAME_BYTES_MAX}"
            self._finish(call, codes.NO_RESOURCES, text)
            return
        elif call.maybe_done and len(frame) <= AGAIN_BYTES_MAX:
            # Asked on two links, its answer may have taken the one that is gone.
            call.resend_ns = min(2 * call.resend_ns or AGAIN_NS, AGAIN_MAX_NS)
            call.retry_ns = now_ns + call.resend_ns
            self.wake_ns = min(self.wake_ns, call.retry_ns)
        else:
            call.retry_ns = NEVER_NS
        call.in_flight = True
        call.sends += 1
        self.outgoing.append(frame)

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
            hint = f"; {self._route.hint}" if code == codes.UNAVAILABLE else ""
            self._fail_all(code, self._route.why() + hint)
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

    # -- receiving

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take what came on the link: a piece of the stream, or one datagram."""
        if self._datagram:
            self._receive_datagram(data, now_ns)
            return
        self._silence.heard(now_ns)
        try:
            if self.attached and len(data) >= HEADER_BYTES and not self._decoder.held_bytes:
                # One whole answer is by far the most frequent, and needs no decoder.
                length, kind, number, epoch, active = _unpack_header(data)
                if kind == Kind.ANSWER and length + LENGTH_BYTES == len(data):
                    self._take_answer(number, epoch, active, data[HEADER_BYTES:], now_ns)
                    return
            for frame in self._decoder.feed(data):
                self._take(frame, now_ns)
        except FrameError as error:
            self._take_garbage(error, now_ns)

    def _receive_datagram(self, data: bytes, now_ns: int) -> None:
        """Garbage may come from anywhere, so it is dropped; it is no sign of life either."""
        before = self._silence.kept()
        self._silence.heard(now_ns)
        try:
            self._take(decode_datagram(data), now_ns)
        except FrameError:
            self.ignored += 1
            self._silence.restore(before)

    def receive_frame(self, frame: Frame, now_ns: int) -> None:
        """Take one whole frame that the shell has cut out itself."""
        self._silence.heard(now_ns)
        try:
            self._take(frame, now_ns)
        except FrameError as error:
            self._take_garbage(error, now_ns)

    def drained(self, now_ns: int) -> None:
        """The node's side has taken in a part of a large request that the shell had to wait with.

        Only the shell can tell that. That the kernel here took bytes says nothing of the node: the PING of
        every blocking client counted as its own answer so, and no frozen node was ever left.
        """
        self._silence.drained(now_ns)

    def _take(self, frame: Frame, now_ns: int) -> None:
        if self.state is State.GREETING:
            self._take_welcome(frame, now_ns)
        elif self.state not in _GREETED:
            return  # The rest of what came before the link was dropped.
        elif frame.kind == Kind.ANSWER:
            self._take_answer(frame.a, frame.b, frame.c, frame.body, now_ns)
        elif frame.kind == Kind.REFUSED:
            self._take_refusal(frame, now_ns)
        elif not self._datagram:
            raise FrameError(f"a frame of kind {frame.kind} where an answer was due")

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
        needs_session = not self._attachment.fresh
        for call in tuple(self.calls.values()):
            if call.needs_no_session:
                self._send(call, now_ns)
            else:
                needs_session = True
        if needs_session:
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

    def _take_answer(self, number: int, epoch: int, active: int, body: bytes, now_ns: int) -> None:
        call = self.calls.get(number)
        if call is None or not call.in_flight:
            if self.state is State.ATTACHING and number == self._attachment.number:
                self._take_attached(epoch, body, now_ns)
            elif number == self._ping_number or self._probing:
                self._take_pong(body, now_ns)
            else:
                self._take_unasked(number, body)
            return
        self.epoch = epoch
        if self._follows and call.kind == Kind.UPDATE:
            self._note_active(epoch, active, now_ns)
        if body == _OK_BODY:
            self._refused_since_ns = NEVER_NS
            self._finish(call, codes.OK)
            return
        code, payload, index, text = decode_answer(body)
        if code == codes.TRY_AGAIN:
            self._pause(call, text, now_ns)
            return
        self._refused_since_ns = NEVER_NS
        if code == codes.TOO_BIG and self._datagram:
            call.in_flight, call.maybe_done = False, True
            self._does_not_fit(call, text, now_ns)
            return
        if code == codes.BAD_HANDLE:
            if not call.doubted:
                self._doubt(call, now_ns)
                return
            if call.maybe_done and call.kind not in READ_ONLY:
                code = codes.TIMEOUT
        call.payload = payload
        self._finish(call, code, text, index)
        if call.orphan and code == codes.OK:
            self._close_orphan(payload, now_ns)

    def _pause(self, call: Call, text: str, now_ns: int) -> None:
        """Nothing was done: ask the same again in a while.

        But where datagrams come twice this may be the answer to an earlier copy, and the last be done yet.
        """
        call.in_flight = False
        call.maybe_done = call.maybe_done or (self._datagram and call.sends > 1)
        call.resend_ns = 0
        call.pause_ns = pause_after(call.pause_ns, self.pause_max_ns)
        call.retry_ns = now_ns + call.pause_ns
        call.text = text
        self.wake_ns = min(self.wake_ns, call.retry_ns)
        # To make the *local* replica active would mean something else at another node.
        if call.kind != Kind.ACTIVE_SET:
            self._note_refused(text, now_ns)

    def _doubt(self, call: Call, now_ns: int) -> None:
        """BAD_HANDLE: see whether the session has ended, then ask again.

        It may have ended while this link stood: its node was frozen for longer than the grace, and is back.
        """
        call.doubted = True
        call.in_flight = False
        call.maybe_done = call.maybe_done or (self._datagram and call.sends > 1)
        call.retry_ns = NEVER_NS
        if self.state is State.ATTACHED:
            self._attach(now_ns)

    def _take_pong(self, body: bytes, now_ns: int) -> None:
        """The node is alive. One that does not serve, cut off from the others say, is not waited for long."""
        code, _, _, text = decode_answer(body)
        self.wake_ns = min(self.wake_ns, now_ns + QUIET_NS)
        if self._probing:
            self._probing = False
            if not self._holds_calls:
                self._resume(now_ns)
        if code != codes.TRY_AGAIN:
            self._refused_since_ns = NEVER_NS
        elif any(call.kind != Kind.ACTIVE_SET for call in self.calls.values()):
            self._note_refused(text, now_ns)

    def _note_refused(self, text: str, now_ns: int) -> None:
        self._refused_text = text
        self._refused_since_ns = min(self._refused_since_ns, now_ns)
        if self._route.has_others:
            self.wake_ns = min(self.wake_ns, self._refused_since_ns + self._refusals_ns)

    def _close_orphan(self, payload: Any, now_ns: int) -> None:
        if type(payload) is list and payload and type(payload[0]) is int:
            self.begin(Kind.CLOSE, payload[0], _EMPTY_BODY, now_ns, ORPHAN_NS).orphan = True

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

    def _resume(self, now_ns: int) -> None:
        """Send what waited until the session is attached."""
        self.attached = True
        for call in tuple(self.calls.values()):
            if not call.in_flight:
                self._send(call, now_ns)

    # -- what `session` makes more of

    _holds_calls = False
    """Whether calls wait for something else than this link."""

    def _take_unasked(self, number: int, body: bytes) -> None:
        """An answer that no caller waits for."""
        self.ignored += 1

    def _note_active(self, epoch: int, active: int, now_ns: int) -> None:
        """The answer to an update named the active replica's place among the members."""

    def _does_not_fit(self, call: Call, text: str, now_ns: int) -> None:
        """A request, or its answer, is larger than a datagram."""
        self._finish(call, codes.TOO_BIG, f"{text}: use a tcp:// address")

    # -- time

    def advance(self, now_ns: int) -> None:
        """Do what is due: time-outs, repetitions, and leaving a node that is silent or cannot serve."""
        if now_ns < self.wake_ns:
            return
        for call in tuple(self.calls.values()):
            if call.deadline_ns <= now_ns:
                self._expire(call, now_ns)
            elif call.retry_ns <= now_ns:
                if call.in_flight or self.attached or self.state is not State.ATTACHED:
                    self._send(call, now_ns)
                else:
                    call.retry_ns = NEVER_NS  # `_resume` sends it.
        if self.state not in (State.UNLINKED, State.ENDED):
            self._watch_link(now_ns)
        self.wake_ns = self._next_wake_ns()

    def _watch_link(self, now_ns: int) -> None:
        awaiting = self._awaits_answer
        quiet_ns = now_ns - self._silence.since_ns
        if awaiting and quiet_ns >= self._patience_ns:
            self._drop_link(now_ns, "the node does not answer")
        elif now_ns - self._refused_since_ns >= self._refusals_ns and self._route.has_others:
            self._drop_link(now_ns, f"the node cannot serve: {self._refused_text or 'TRY_AGAIN'}")
        elif awaiting and self.state in _GREETED and now_ns >= self._silence.next_ping_ns:
            self._ping(now_ns)
        elif self.keeps_up and not awaiting and self.state is State.ATTACHED:
            self.ask_for_life(now_ns)
        elif now_ns >= self._attachment.retry_ns:
            again = (
                self._attachment.hello_again
                if self.state is State.GREETING
                else self._attachment.attach_again
            )
            self.outgoing.append(again(now_ns))

    @property
    def silent_ns(self) -> int:
        """When the node will have been silent for too long."""
        return self._silence.since_ns + SILENT_NS

    @property
    def connect_limit_ns(self) -> int:
        """How long a connection to `address` may take to be made."""
        return HASTE_NS if self._route.first_round else SILENT_NS

    @property
    def _patience_ns(self) -> int:
        """How long the node may be silent."""
        return self.connect_limit_ns if self.state is State.GREETING else SILENT_NS

    @property
    def _refusals_ns(self) -> int:
        """How long the node may answer TRY_AGAIN to everything."""
        looking = self.state is State.ATTACHING and self._route.first_round
        return HASTE_NS if looking and not self._attachment.fresh else MOVE_NS

    @property
    def _awaits_answer(self) -> bool:
        return bool(self.calls) or self._silence.unanswered or self.state in (State.GREETING, State.ATTACHING)

    def _next_wake_ns(self) -> int:
        calls = self.calls.values()
        wake_ns = min((call.deadline_ns for call in calls), default=NEVER_NS)
        if self.state in (State.UNLINKED, State.ENDED):
            return wake_ns
        wake_ns = min(wake_ns, min((call.retry_ns for call in calls), default=NEVER_NS))
        if self._awaits_answer:
            wake_ns = min(wake_ns, self._silence.since_ns + self._patience_ns)
            if self.state in _GREETED:
                wake_ns = min(wake_ns, self._silence.next_ping_ns)
        elif self.keeps_up and self.state is State.ATTACHED:
            wake_ns = min(wake_ns, self._silence.since_ns + KEEP_UP_NS)
        if self._route.has_others:
            wake_ns = min(wake_ns, self._refused_since_ns + self._refusals_ns)
        return min(wake_ns, self._attachment.retry_ns)

    def _expire(self, call: Call, now_ns: int) -> None:
        """The call's time is over.

        TRY_AGAIN and UNAVAILABLE promise that nothing was done, TIMEOUT does not.
        """
        sent = call.maybe_applied
        code, text = codes.TIMEOUT, "no answer within the time-out; whether it was done is not known"
        if self.state is State.ATTACHED and not sent:
            code, text = codes.TRY_AGAIN, call.text or "the service cannot do it now"
        elif self.state is not State.ATTACHED:
            refused = self.state is State.ATTACHING and self._refused_since_ns != NEVER_NS
            trouble = f"{self.address}: {self._refused_text or 'TRY_AGAIN'}" if refused else self._route.why()
            text = f"no node serves within the time-out ({trouble})"
            if not self._attachment.fresh:
                text += "; if all nodes that held the checkpoint are lost, its data is gone with them"
            if not sent:
                code = codes.TRY_AGAIN if refused else codes.UNAVAILABLE
        self._let_go(call, now_ns)
        self._end(call, code, text)

    def _let_go(self, call: Call, now_ns: int) -> None:
        self._silence.unanswered = self._silence.unanswered or call.in_flight
        super()._let_go(call, now_ns)
