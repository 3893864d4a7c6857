"""The calls of a session over one link at a time: sent, answered, repeated on the next link, timed out.

Pure: no socket, no clock, no randomness. `session` adds the moves that a session makes without need.

No update is ever applied twice, because of three rules that are kept here:

* A request's number is never used for another request or another body.
* An unanswered request goes to the next node unchanged.
* `lowest`, in each request, tells the service which answers it may forget.
"""

from typing import Any, Final

from ckpt_client.session.attachment import RESEND_NS, SessionState
from ckpt_client.session.call import MILLISECOND_NS, NEVER_NS, WITHDRAW_NS, Call, pause_after
from ckpt_client.session.link_and_fail_over import SessionLink
from ckpt_client.session.node_silence import DEAD_AFTER_NS, KEEP_UP_NS, PING_AFTER_NS
from ckpt_client.session.pending_calls import ORPHAN_NS, READ_ONLY, WAITING
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER, HEADER_BYTES, LENGTH_BYTES, Frame, decode_datagram, encode_frame
from ckpt_protocol.limits import DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX, WITHDRAWN_MAX
from ckpt_protocol.messages import Kind, answer_ok
from ckpt_protocol.parse_answers import decode_answer

# TRACK waits for a change. A request that closes something must be done even if its caller waits no longer.
# A SYNCHRONIZE whose time is over fails with TIMEOUT (SAF 3.7.4): what it waits for continues.
_NOT_WITHDRAWN: Final = WAITING | {Kind.CLOSE, Kind.DETACH, Kind.SYNCHRONIZE}

_HURRIED_NS: Final = 4 * WITHDRAW_NS
"""A call with a shorter time-out may have to be withdrawn before its node counts as quiet."""

RESEND_MIN_NS: Final = 250 * MILLISECOND_NS
AGAIN_MAX_NS: Final = 4_000 * MILLISECOND_NS
"""The pauses after which a request that was also sent on an earlier link is repeated: first and longest."""

AGAIN_BYTES_MAX: Final = 65_536
"""A larger request is not repeated in this way: it may take that long to arrive."""

_OK_BODY: Final = answer_ok()
_EMPTY_BODY: Final = pack_body([])
_unpack_header = HEADER.unpack_from

_CONNECTED: Final = frozenset((SessionState.CONNECTED, SessionState.ATTACHING, SessionState.ATTACHED))


class SessionCalls(SessionLink):
    """One session with the service, over one link at a time."""

    # -- calls

    def begin(self, kind: int, handle: int, body: bytes, now_ns: int, timeout_ns: int) -> Call:
        """Make a request.

        The call is `done` when it is answered or has failed, after `timeout_ns` at the latest.
        """
        number = self._number = self._number + 1
        call = Call(number, kind, handle, body, now_ns + timeout_ns)
        hurried = timeout_ns < _HURRIED_NS
        if kind not in _NOT_WITHDRAWN:
            call.withdraw_ns = call.deadline_ns - (timeout_ns // 4 if hurried else WITHDRAW_NS)
        if self.state is SessionState.ENDED:
            self._end(call, codes.BAD_HANDLE, "the session has ended: open the checkpoint again")
            return call
        calls = self.calls
        if not calls:
            if self._silence.unanswered:
                self._silence.excuse(now_ns)
                self.wake_ns = now_ns
            elif self._silence.begin(now_ns) and self.attached:
                self._probe(now_ns)
            if self.state is SessionState.DISCONNECTED and self._endpoints.final_code():
                self._endpoints.start_again(now_ns)
        calls[number] = call
        wake_ns = now_ns + PING_AFTER_NS
        if hurried:
            wake_ns = min(wake_ns, call.withdraw_ns, call.deadline_ns)
        if wake_ns < self.wake_ns:
            self.wake_ns = wake_ns
        if self.attached or (self.state in _CONNECTED and call.needs_no_session):
            self._send(call, now_ns)
        elif self.state is SessionState.CONNECTED:
            self._attach(now_ns)
        return call

    def ask_for_life(self, now_ns: int) -> bool:
        """Have the node show that it lives, while there are no requests. Return True if it owes an answer."""
        if not self.calls and not self._silence.unanswered:
            if now_ns - self._silence.since_ns < KEEP_UP_NS:
                return False
            self._silence.begin(now_ns)
            self._ping(now_ns)
            self._silence.unanswered = True
        return True

    def abandon(self, call: Call, now_ns: int) -> None:
        """Give up a call whose caller waits no longer. What was done stays, but an OPEN is closed again."""
        if self.calls.get(call.number) is not call:
            # The answer had already arrived when the caller gave up.
            if call.kind == Kind.OPEN and call.code == codes.OK:
                self._close_orphan(call.payload, now_ns)
            return
        self._let_go(call, now_ns)
        call.done = True
        call.code, call.text = codes.TIMEOUT, "the caller cancelled the call"

    def end(self, why: str) -> None:
        """End the session, for the service or for the program: fail every call that still waits."""
        self.state = SessionState.ENDED
        self.attached = False
        self.outgoing.clear()
        self._fail_all(codes.BAD_HANDLE, why)

    def _probe(self, now_ns: int) -> None:
        """Send a PING because nothing came for long; new requests wait until the node has answered it."""
        self.attached = False
        self._probing = True
        self._ping(now_ns)

    def _send(self, call: Call, now_ns: int) -> None:
        frame = encode_frame(call.kind, call.number, call.handle, self._lowest, call.body)
        if self._datagram:
            if len(frame) > DATAGRAM_BYTES_MAX:
                self._on_too_big_for_datagram(
                    call, f"a request of {len(frame)} bytes does not fit into a datagram", now_ns
                )
                return
            call.maybe_done = call.maybe_done or call.in_flight
            call.resend_ns = min(2 * call.resend_ns or RESEND_NS, DEAD_AFTER_NS)
            call.retry_ns = now_ns + call.resend_ns
            self.wake_ns = min(self.wake_ns, call.retry_ns)
        elif len(frame) > FRAME_BYTES_MAX:
            text = f"a request of {len(frame)} bytes exceeds {FRAME_BYTES_MAX}"
            self._finish(call, codes.NO_RESOURCES, text)
            return
        elif call.maybe_done and len(frame) <= AGAIN_BYTES_MAX:
            # It was sent on two links: its answer may have taken the one that is gone.
            call.resend_ns = min(2 * call.resend_ns or RESEND_MIN_NS, AGAIN_MAX_NS)
            call.retry_ns = now_ns + call.resend_ns
            self.wake_ns = min(self.wake_ns, call.retry_ns)
        else:
            call.retry_ns = NEVER_NS
        call.in_flight = True
        call.sends += 1
        self.outgoing.append(frame)

    # -- receiving

    def receive(self, data: bytes, now_ns: int) -> None:
        """Take what came on the link: a part of the stream, or one datagram."""
        if self._datagram:
            self._receive_datagram(data, now_ns)
            return
        self._silence.heard(now_ns)
        try:
            if self.attached and len(data) >= HEADER_BYTES and not self._decoder.held_bytes:
                # The data is mostly one whole answer, which needs no decoder.
                length, kind, number, epoch, active = _unpack_header(data)
                if kind == Kind.ANSWER and length + LENGTH_BYTES == len(data):
                    self._take_answer(number, epoch, active, data[HEADER_BYTES:], now_ns)
                    return
            for frame in self._decoder.feed(data):
                self._take(frame, now_ns)
        except FrameError as error:
            self._take_garbage(error, now_ns)

    def _receive_datagram(self, data: bytes, now_ns: int) -> None:
        """Take one datagram. Garbage may come from anywhere, so it is dropped, and is no sign of life."""
        before = self._silence.kept()
        self._silence.heard(now_ns)
        try:
            self._take(decode_datagram(data), now_ns)
        except FrameError:
            self.ignored += 1
            self._silence.restore(before)

    def receive_frame(self, frame: Frame, now_ns: int) -> None:
        """Take one whole frame that the driver has cut out itself."""
        self._silence.heard(now_ns)
        try:
            self._take(frame, now_ns)
        except FrameError as error:
            self._take_garbage(error, now_ns)

    def _take(self, frame: Frame, now_ns: int) -> None:
        if self.state is SessionState.HANDSHAKING:
            self._take_welcome(frame, now_ns)
        elif self.state not in _CONNECTED:
            return  # It was in the same data as the frame that made us drop the link.
        elif frame.kind == Kind.ANSWER:
            self._take_answer(frame.a, frame.b, frame.c, frame.body, now_ns)
        elif frame.kind == Kind.REFUSED:
            self._take_refusal(frame, now_ns)
        elif not self._datagram:
            raise FrameError(f"a frame of kind {frame.kind} arrived instead of an answer")

    def _take_answer(self, number: int, epoch: int, active: int, body: bytes, now_ns: int) -> None:
        call = self.calls.get(number)
        if call is None or not call.in_flight:
            if not 0 < number <= self._number:
                raise FrameError("an answer arrived to a request that was never sent")
            if self.state is SessionState.ATTACHING and number == self._attachment.number:
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
            self._on_too_big_for_datagram(call, text, now_ns)
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
        """Repeat a call after a pause: it was answered TRY_AGAIN, so nothing was done.

        But if a datagram was sent more than once, this may answer an earlier copy, and the node may still do
        the last one.
        """
        call.in_flight = False
        call.maybe_done = call.maybe_done or (self._datagram and call.sends > 1)
        call.resend_ns = 0
        call.pause_ns = pause_after(call.pause_ns, self.pause_max_ns)
        call.retry_ns = now_ns + call.pause_ns
        call.text = text
        self.wake_ns = min(self.wake_ns, call.retry_ns)
        # An ACTIVE_SET is no reason to go elsewhere: there it would make another *local* replica active.
        if call.kind != Kind.ACTIVE_SET:
            self._note_refused(text, now_ns)
        if call.withdrawn and (not call.maybe_done or call.kind in READ_ONLY):
            self._finish(call, codes.TRY_AGAIN, text)

    def _doubt(self, call: Call, now_ns: int) -> None:
        """Check, after BAD_HANDLE, whether the session has ended; then repeat the call.

        It may have ended while this link was up: its node was frozen for longer than the grace, and is back.
        """
        call.doubted = True
        call.in_flight = False
        call.maybe_done = call.maybe_done or (self._datagram and call.sends > 1)
        call.retry_ns = NEVER_NS
        if self.state is SessionState.ATTACHED:
            self._attach(now_ns)

    def _take_pong(self, body: bytes, now_ns: int) -> None:
        """Take the answer to a PING: the node lives. If it does not serve (cut off, say), leave it soon."""
        code, _, _, text = decode_answer(body)
        self.wake_ns = min(self.wake_ns, now_ns + PING_AFTER_NS)
        if self._probing:
            self._probing = False
            if code == codes.TRY_AGAIN and self._endpoints.has_others:
                # The waiting calls were not sent, so another node can get them for the first time.
                self._drop_link(now_ns, f"the node does not serve: {text}")
                return
            if not self._holds_calls:
                self._resume(now_ns)
        if code != codes.TRY_AGAIN:
            self._refused_since_ns = NEVER_NS
        elif not self.calls:
            # A quiet session is kept alive: check whether the node serves again soon, else leave it.
            self._silence.unanswered = True
            self._note_refused(text, now_ns)
        elif any(call.kind != Kind.ACTIVE_SET for call in self.calls.values()):
            self._note_refused(text, now_ns)

    def _close_orphan(self, payload: Any, now_ns: int) -> None:
        if type(payload) is list and payload and type(payload[0]) is int:
            self.begin(Kind.CLOSE, payload[0], _EMPTY_BODY, now_ns, ORPHAN_NS).orphan = True

    def _go_on(self, now_ns: int) -> bool:
        """Send what needs no session, after WELCOME. Return True if something waits for the session."""
        waits = False
        for call in tuple(self.calls.values()):
            if call.needs_no_session:
                self._send(call, now_ns)
            else:
                waits = True
        return waits

    def _resume(self, now_ns: int) -> None:
        """Send what waited until the session is attached."""
        self.attached = True
        for call in tuple(self.calls.values()):
            if not call.in_flight:
                self._send(call, now_ns)

    # -- extended by `session`

    _holds_calls = False
    """True while calls wait for something other than this link."""

    def _take_unasked(self, number: int, body: bytes) -> None:
        """Take an answer for which no call waits."""
        self.ignored += 1

    def _note_active(self, epoch: int, active: int, now_ns: int) -> None:
        """Take the active replica's position among the members, which the answer to an update named."""

    def _on_too_big_for_datagram(self, call: Call, text: str, now_ns: int) -> None:
        """Fail a call whose request or answer does not fit into a datagram."""
        self._finish(call, codes.TOO_BIG, f"{text}: use a tcp:// address")

    # -- time

    def advance(self, now_ns: int) -> None:
        """Do what is due: time-outs, repetitions, and leaving a node that is silent or cannot serve."""
        if now_ns < self.wake_ns:
            return
        withdrawn: list[int] = []
        for call in tuple(self.calls.values()):
            if call.deadline_ns <= now_ns:
                self._expire(call, now_ns)
                continue
            if call.withdraw_ns <= now_ns:
                call.withdraw_ns, call.withdrawn = NEVER_NS, True
                if call.in_flight:
                    withdrawn.append(call.number)
                elif call.text:
                    call.retry_ns = NEVER_NS  # It was refused, and is not repeated: it fails with TRY_AGAIN.
            if call.retry_ns <= now_ns:
                if call.in_flight or self.attached or self.state is not SessionState.ATTACHED:
                    self._send(call, now_ns)
                else:
                    call.retry_ns = NEVER_NS  # `_resume` sends it.
        if withdrawn and self.attached:
            self._ping(now_ns, withdrawn[:WITHDRAWN_MAX])
        if self.state not in (SessionState.DISCONNECTED, SessionState.ENDED):
            self._watch_link(now_ns)
        self.wake_ns = self._next_wake_ns()

    def _watch_link(self, now_ns: int) -> None:
        awaiting = self._awaits_answer
        quiet_ns = now_ns - self._silence.since_ns
        if awaiting and quiet_ns >= self._patience_ns:
            self._drop_link(now_ns, "the node does not answer")
        elif now_ns - self._refused_since_ns >= self._refusals_ns and self._endpoints.has_others:
            self._drop_link(now_ns, f"the node cannot serve: {self._refused_text or 'TRY_AGAIN'}")
        elif awaiting and self.state in _CONNECTED and now_ns >= self._silence.next_ping_ns:
            self._ping(now_ns)
        elif self.keeps_up and not awaiting and self.state is SessionState.ATTACHED:
            self.ask_for_life(now_ns)
        elif now_ns >= self._attachment.retry_ns:
            again = (
                self._attachment.hello_again
                if self.state is SessionState.HANDSHAKING
                else self._attachment.attach_again
            )
            self.outgoing.append(again(now_ns))

    @property
    def _awaits_answer(self) -> bool:
        return (
            bool(self.calls)
            or self._silence.unanswered
            or self.state in (SessionState.HANDSHAKING, SessionState.ATTACHING)
        )

    def _next_wake_ns(self) -> int:
        calls = self.calls.values()
        wake_ns = min((min(call.deadline_ns, call.withdraw_ns) for call in calls), default=NEVER_NS)
        if self.state in (SessionState.DISCONNECTED, SessionState.ENDED):
            return wake_ns
        wake_ns = min(wake_ns, min((call.retry_ns for call in calls), default=NEVER_NS))
        if self._awaits_answer:
            wake_ns = min(wake_ns, self._silence.since_ns + self._patience_ns)
            if self.state in _CONNECTED:
                wake_ns = min(wake_ns, self._silence.next_ping_ns)
        elif self.keeps_up and self.state is SessionState.ATTACHED:
            wake_ns = min(wake_ns, self._silence.since_ns + KEEP_UP_NS)
        if self._endpoints.has_others:
            wake_ns = min(wake_ns, self._refused_since_ns + self._refusals_ns)
        return min(wake_ns, self._attachment.retry_ns)

    def _expire(self, call: Call, now_ns: int) -> None:
        """Fail a call whose time is over.

        TRY_AGAIN and UNAVAILABLE promise that nothing was done; TIMEOUT does not.
        """
        sent = call.maybe_applied and not (call.text and call.kind in READ_ONLY)
        code, text = (
            codes.TIMEOUT,
            "no answer within the time-out; it is unknown whether the call was carried out",
        )
        if self.state is SessionState.ATTACHED and not sent:
            code, text = codes.TRY_AGAIN, call.text or "the service cannot carry it out now"
        elif self.state is SessionState.ATTACHED and call.text:
            text += f"; the node had answered: {call.text}"
        elif self.state is not SessionState.ATTACHED:
            refused = self.state is SessionState.ATTACHING and self._refused_since_ns != NEVER_NS
            trouble = (
                f"{self.address}: {self._refused_text or 'TRY_AGAIN'}" if refused else self._endpoints.why()
            )
            text = f"no node served this call within the time-out ({trouble})"
            if not self._attachment.unconfirmed:
                text += "; if all nodes that had the checkpoint are lost, its data is lost too"
            elif not refused and self._endpoints.hint:
                text += f"; {self._endpoints.hint}"
            if not sent:
                code = codes.TRY_AGAIN if refused else codes.UNAVAILABLE
        self._let_go(call, now_ns)
        self._end(call, code, text)

    def _let_go(self, call: Call, now_ns: int) -> None:
        self._silence.unanswered = self._silence.unanswered or call.in_flight
        super()._let_go(call, now_ns)
