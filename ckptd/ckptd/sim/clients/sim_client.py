"""A simulated client's session: request numbers, retries, fail-over and time-outs, as in the protocol.

It is written only from the text of the protocol and shares nothing with the client library, so that neither
hides a mistake of the other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.checkers.history import Outcome
from ckptd.sim.world.client_links import ClientLink, ClientLinks
from ckptd.sim.world.world import World

PAUSE_MIN_NS: Final = 2 * MILLISECOND_NS
PAUSE_MAX_NS: Final = 60 * MILLISECOND_NS
WITHDRAW_NS: Final = 20 * MILLISECOND_NS
"""A PING withdraws a request this long before its time ends."""

ROUNDS_MAX: Final = 3
"""After each round over the nodes an attempt to connect may take twice as long, up to this many times.

Without this, three impatient clients on a slow network asked for more than the coordinator could order, and
none was ever attached (seed 7273917). The client library stays where PING is answered.
"""

_REQUEST_REFUSALS: Final = (
    codes.BAD_HANDLE,
    codes.TRY_AGAIN,
    codes.NO_SPACE,
    codes.NO_RESOURCES,
    codes.INVALID_PARAM,
    codes.NOT_SUPPORTED,
)
"""Refusals that say nothing about a duplicate of the request that took another route."""

_FINAL: Final = (codes.ACCESS, codes.BAD_OPERATION)
"""Refusals of an update that are stored: no duplicate of it is carried out after that."""

REPEATED_AFTER_MAX_NS: Final = 500 * MILLISECOND_NS

_WAITS_FOR_CHANGE: Final = (Kind.TRACK, Kind.LEADER_TRACK)
"""Requests that wait for a change, and not for the node."""


@dataclass(slots=True, frozen=True)
class CallResult:
    """How a request ended."""

    outcome: Outcome
    code: int = 0
    payload: Any = None
    index: int = -1
    text: str = ""
    epoch: int = 0


Done = Callable[[CallResult], None]


@dataclass(slots=True)
class PendingCall:
    """A request that has not ended."""

    number: int
    kind: int
    handle: int
    body: bytes
    done: Done
    deadline_ns: int
    sent_ns: int = -1
    in_flight: bool = False
    """True while it is sent on the current link and not answered."""

    outcome_uncertain: bool = False
    """True once it was sent on a link that is lost, so that its answer cannot arrive any more."""

    handle_doubted: bool = False
    """True once it was answered with BAD_HANDLE. It is repeated when the session is attached again."""

    withdrawn: bool = False
    """True once a PING withdrew it; then TRY_AGAIN ends it."""

    refused: CallResult | None = None
    """The final refusal that it got, if it was sent again after that."""


class SimClient:
    """One session. `ended` is called when the service reports that the session is over."""

    def __init__(
        self, world: World, links: ClientLinks, name: str, home: int, ended: Callable[[], None]
    ) -> None:
        self.world = world
        self.links = links
        self.name = name
        self.ended = ended
        self.session = world.random.getrandbits(62) + 1
        self.generation = 0
        self.unconfirmed = True
        self.pending: dict[int, PendingCall] = {}
        self.link: ClientLink | None = None
        self.attached = False
        self.over = False
        self.contact_ns = world.now_ns
        """When the service last did something for this session.

        An answer of an earlier epoch does not count. A node that is excluded from the view may pass it on
        much later, while the members of the view count the session's grace (seed 91303363).
        """
        self.silence_ns = 0
        """The longest time for which the service did nothing. A session may end after its grace."""
        self._node_ids = world.options.node_ids
        self._next_node = home
        self._next_number = 1
        self._attempt = 0
        self._attempts_failed = 0
        self._attach_number = 0
        self._probe_number = 0
        self.asleep = False
        self._slept = False
        self.frozen = False
        self._arrived_frozen: list[Callable[[], None]] = []
        """What reached its process while that was frozen, in order."""

        self.on_repeated: Callable[[int, CallResult, CallResult], None] | None = None
        """Called with a request's number, its first and its second answer, if it was refused and repeated."""

    # -- calls

    @property
    def busy(self) -> bool:
        """True while it waits for an answer that is due."""
        return any(call.kind not in _WAITS_FOR_CHANGE for call in self.pending.values())

    @property
    def next_number(self) -> int:
        """The number of the next request."""
        return self._next_number

    def request(self, kind: int, handle: int, body: list[Any], done: Done, call_ns: int = 0) -> int:
        """Begin a call; `done` gets its outcome. Return the request's number."""
        number = self._next_number
        self._next_number += 1
        deadline_ns = self.world.now_ns + (call_ns or self.world.options.call_ns)
        self.pending[number] = PendingCall(number, kind, handle, pack_body(body), done, deadline_ns)
        self.world.at(deadline_ns, lambda: self._time_out(number))
        if kind not in _WAITS_FOR_CHANGE:
            self.world.at(deadline_ns - WITHDRAW_NS, lambda: self._withdraw(number))
        self._send(self.pending[number])
        return number

    def cancel(self, number: int) -> None:
        """End a call whose caller no longer wants the answer."""
        self._finish(number, CallResult(Outcome.UNKNOWN))

    def _finish(self, number: int, result: CallResult) -> None:
        pending = self.pending.pop(number, None)
        if pending is not None:
            pending.done(result)

    def _withdraw(self, number: int) -> None:
        """Ask the node to drop a request that only waits: then it ends with TRY_AGAIN."""
        pending = self.pending.get(number)
        if pending is None or not pending.in_flight or self.link is None or self.frozen:
            return
        pending.withdrawn = True
        ping = self._next_number
        self._next_number += 1
        lowest = self._lowest_unanswered(ping)
        self.links.send_to_node(self.link, encode_frame(Kind.PING, ping, 0, lowest, pack_body([number])))

    def _time_out(self, number: int) -> None:
        pending = self.pending.get(number)
        if pending is None:
            return
        # Otherwise a client whose calls are as short as its patience would stay with a dead node for ever.
        unanswered = (
            pending.in_flight
            and pending.kind not in _WAITS_FOR_CHANGE
            and self.world.now_ns - pending.sent_ns >= self.world.options.patience_ns
        )
        certain = not pending.in_flight and not pending.outcome_uncertain
        result = CallResult(Outcome.NOT_DONE if certain else Outcome.UNKNOWN, codes.TRY_AGAIN)
        self._finish(number, pending.refused or result)
        if unanswered:
            self.move()

    def _lowest_unanswered(self, otherwise: int) -> int:
        numbers = (n for n, call in self.pending.items() if call.kind not in _WAITS_FOR_CHANGE)
        return min(numbers, default=otherwise)

    def _send(self, pending: PendingCall) -> None:
        if not self.attached or self.link is None or self.frozen:
            return
        lowest = self._lowest_unanswered(pending.number)
        pending.in_flight = True
        pending.sent_ns = self.world.now_ns
        frame = encode_frame(pending.kind, pending.number, pending.handle, lowest, pending.body)
        self.links.send_to_node(self.link, frame)
        if pending.kind in _WAITS_FOR_CHANGE:
            return
        number, link = pending.number, self.link
        self.world.after(self.world.options.patience_ns, lambda: self._give_up_waiting(number, link))

    def _give_up_waiting(self, number: int, link: ClientLink) -> None:
        pending = self.pending.get(number)
        if pending is None or not pending.in_flight or self.link is not link or self.frozen:
            return
        if self.world.now_ns - pending.sent_ns >= self.world.options.patience_ns:
            self.leave_link()
            self.connect()

    # -- the connection

    def connect(self) -> None:
        """Connect to the next node, if there is no link."""
        if self.over or self.asleep or self.frozen or self.link is not None:
            return
        self._attempt += 1
        attempt = self._attempt
        node_id = self._node_ids[self._next_node % len(self._node_ids)]
        self._next_node += 1
        self.links.connect(self, node_id)
        rounds = min(self._attempts_failed // len(self._node_ids), ROUNDS_MAX)
        self.world.after(self.world.options.patience_ns << rounds, lambda: self._attempt_timed_out(attempt))

    def _attempt_timed_out(self, attempt: int) -> None:
        if attempt == self._attempt and not self.attached and not self.over and not self.frozen:
            self._attempts_failed += 1
            self.leave_link()
            self.connect()

    def on_connected(self, link: ClientLink) -> None:
        if self.frozen:
            self._arrived_frozen.append(lambda: self.on_connected(link))
            return
        if self.over or self.link is not None:
            self.links.close_by_client(link)
            return
        self.link = link
        self._attach()

    def _attach(self) -> None:
        assert self.link is not None
        self.generation += 1
        self._attach_number = self._next_number
        self._next_number += 1
        body = pack_body([self.unconfirmed])
        frame = encode_frame(Kind.ATTACH, self._attach_number, self.session, self.generation, body)
        self.links.send_to_node(self.link, frame)

    def on_lost(self, link: ClientLink | None) -> None:
        if self.frozen:
            self._arrived_frozen.append(lambda: self.on_lost(link))
            return
        if (
            self.over
            or (link is None and self.link is not None)
            or (link is not None and link is not self.link)
        ):
            return
        self._forget_link()
        self._attempt += 1
        self.world.after(self.world.between(PAUSE_MIN_NS, PAUSE_MAX_NS), self.connect)

    def freeze(self) -> None:
        """Stop the process (SIGSTOP): what arrives waits, and nothing is sent."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on (SIGCONT), first with what has arrived in the meantime."""
        self.frozen = False
        arrived, self._arrived_frozen = self._arrived_frozen, []
        for each in arrived:
            each()
        if self.over:
            return
        if self.link is None:
            self.connect()
        elif self.attached:
            for pending in list(self.pending.values()):
                if not pending.in_flight:
                    self._send(pending)
        else:
            self._attempt_timed_out(self._attempt)

    def move(self) -> None:
        """Go to the next node."""
        if not self.over and not self.asleep and not self.frozen:
            self.leave_link()
            self.connect()

    def sleep(self) -> None:
        """Make no calls and ignore the link, as a blocking program does between its calls."""
        self.asleep = self._slept = True

    def wake(self) -> None:
        """Resume. A node that is gone leaves requests in doubt, so it first has to answer a PING."""
        self.asleep = False
        if self.over:
            return
        if self.link is None:
            self.connect()
            return
        self.attached = False
        self._probe_number = self._next_number
        self._next_number += 1
        frame = encode_frame(Kind.PING, self._probe_number, 0, self._probe_number, pack_body([]))
        self.links.send_to_node(self.link, frame)
        self._attempt += 1
        attempt = self._attempt
        self.world.after(self.world.options.patience_ns, lambda: self._attempt_timed_out(attempt))

    def _on_probe_answer(self, code: int) -> None:
        if code == codes.OK:
            self._resume()
        else:
            self.leave_link()
            self.connect()

    def _resume(self) -> None:
        self.attached = True
        for pending in list(self.pending.values()):
            self._send(pending)

    def leave_link(self) -> None:
        """Leave the link."""
        if self.link is not None:
            self.links.close_by_client(self.link)
        self._forget_link()

    def _forget_link(self) -> None:
        self.link = None
        self.attached = False
        for pending in self.pending.values():
            if pending.in_flight:
                pending.in_flight = False
                pending.outcome_uncertain = True

    def crash(self, seen_dead: bool) -> None:
        """End the process. Nothing of it comes back."""
        if self.link is not None:
            self.links.close_by_client(self.link, seen_dead)
        self._end()

    def _end(self) -> None:
        self.over = True
        self._forget_link()
        for number in list(self.pending):
            self._finish(number, CallResult(Outcome.UNKNOWN))

    # -- answers

    def on_received(self, link: ClientLink, data: bytes) -> None:
        if self.frozen:
            self._arrived_frozen.append(lambda: self.on_received(link, data))
            return
        for frame in FrameDecoder().feed(data):
            if self.over or link is not self.link:
                return
            code, payload, index, text = decode_answer(frame.body)
            if code not in (codes.TRY_AGAIN, codes.BAD_HANDLE) and frame.b >= self.links.newest_epoch():
                self._note_contact()
            if frame.a == self._attach_number:
                self._on_attach_answer(code)
            elif frame.a == self._probe_number:
                self._on_probe_answer(code)
            else:
                self._on_answer(
                    frame.a,
                    CallResult(
                        Outcome.OK if code == codes.OK else Outcome.REFUSED,
                        code,
                        payload,
                        index,
                        text,
                        frame.b,
                    ),
                )

    def longest_silence_ns(self) -> int:
        """Return the longest time for which the service did nothing for this session."""
        return max(self.silence_ns, self.world.now_ns - self.contact_ns)

    def _note_contact(self) -> None:
        self.silence_ns = self.longest_silence_ns()
        self.contact_ns = self.world.now_ns

    def _on_attach_answer(self, code: int) -> None:
        if code == codes.OK:
            self.unconfirmed = False
            self._attempts_failed = 0
            self._resume()
        elif code == codes.BAD_HANDLE:
            self._end()
            self.ended()
        else:
            self.leave_link()
            self._attempt += 1
            self.world.after(self.world.between(PAUSE_MIN_NS, PAUSE_MAX_NS), self.connect)

    def _on_answer(self, number: int, result: CallResult) -> None:
        pending = self.pending.get(number)
        if pending is None:
            return
        if result.code == codes.TRY_AGAIN:
            pending.in_flight = False
            pause_ns = self.world.between(PAUSE_MIN_NS, PAUSE_MAX_NS)
            if pending.withdrawn:
                self._time_out(number)
            elif self.world.now_ns + pause_ns < pending.deadline_ns:
                self.world.after(pause_ns, lambda: self._resend(number))
            if self.world.chance(0.2):
                self.leave_link()
                self.connect()
            return
        if result.code == codes.BAD_HANDLE and self._slept and not pending.handle_doubted:
            # The session may have ended while its link was up.
            pending.handle_doubted, pending.in_flight = True, False
            self.attached = False
            self._attach()
            return
        if pending.refused is not None:
            assert self.on_repeated is not None
            self.on_repeated(number, pending.refused, result)
            self._finish(number, pending.refused)
            return
        if pending.kind == Kind.UPDATE and result.code in _FINAL:
            if result.code == codes.ACCESS:
                result = replace(result, outcome=Outcome.NOT_DONE)
            if self.on_repeated is not None and self.world.chance(self.world.options.repeats_refused):
                self._repeat_refused(pending, result)
                return
        if result.code in (codes.TIMEOUT, codes.LIBRARY):
            result = replace(result, outcome=Outcome.UNKNOWN, payload=None)
        if result.code == codes.NO_MEMORY:  # A node that answers this has checked if a duplicate was done.
            result = replace(result, outcome=Outcome.NOT_DONE, payload=None)
        request_refused = (
            result.code in _REQUEST_REFUSALS
            or (result.code == codes.ACCESS and pending.kind != Kind.UPDATE)
            or (result.code == codes.NOT_EXIST and result.index < 0)
        )
        if request_refused:
            # That no replica is active now says nothing about the time when the request was passed on.
            outcome_uncertain = pending.outcome_uncertain or result.code == codes.NOT_EXIST
            outcome = Outcome.UNKNOWN if outcome_uncertain else Outcome.NOT_DONE
            result = replace(result, outcome=outcome, payload=None)
        self._finish(number, result)

    def _repeat_refused(self, pending: PendingCall, refusal: CallResult) -> None:
        """Send a request again that was refused for good, as if its answer were lost, perhaps elsewhere."""
        pending.refused, pending.in_flight = refusal, False
        pause_ns = self.world.between(PAUSE_MIN_NS, REPEATED_AFTER_MAX_NS)
        self.world.after(pause_ns, lambda: self._resend(pending.number))
        if self.world.chance(0.5):
            self.world.after(pause_ns // 2, self.move)

    def _resend(self, number: int) -> None:
        pending = self.pending.get(number)
        if pending is not None and not pending.in_flight:
            self._send(pending)
