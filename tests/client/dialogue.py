"""A session, and a test that plays the other side of its link: no socket, no clock."""

from typing import Any

from ckpt_client.session.address import parse_addresses
from ckpt_client.session.attachment import SessionState
from ckpt_client.session.call import MILLISECOND_NS, Call
from ckpt_client.session.session import Session
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, decode_datagram
from ckpt_protocol.handshake import Acceptor, HandshakeRejected, Identity
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer

SECOND_NS = 1000 * MILLISECOND_NS
NONCE = b"0123456789abcdef"
A, B, C = "tcp://a:1", "tcp://b:2", "tcp://c:3"
BODY = pack_body([[6, b"key", b"value", None]])


class Dialogue:
    """One session with `addresses`; the test sets `now_ns`."""

    def __init__(
        self,
        addresses: str = f"{A},{B}",
        key: bytes = b"",
        service_key: bytes = b"",
        follows: bool = False,
        waits: bool = True,
    ) -> None:
        self.session = Session(77, parse_addresses(addresses), Identity("", key), follows, waits)
        self.service = Identity("test", service_key, "a", 1)
        self.now_ns = 1000 * SECOND_NS

    # -- what the client does

    def update(self, timeout_ns: int = 10 * SECOND_NS, body: bytes = BODY) -> Call:
        """Begin an update of the checkpoint with handle 5. After a long pause the node answers a PING."""
        call = self.session.begin(Kind.UPDATE, 5, body, self.now_ns, timeout_ns)
        if not call.in_flight and self.session.outgoing:
            first = decode_datagram(self.session.outgoing[-1])
            if first.kind == Kind.PING:
                self.session.outgoing.pop()
                self.answer(first.a)
        return call

    def stale_update(self, timeout_ns: int = 10 * SECOND_NS) -> Call:
        """The same, but the node sends nothing."""
        return self.session.begin(Kind.UPDATE, 5, BODY, self.now_ns, timeout_ns)

    def ask(self, kind: int, timeout_ns: int = 10 * SECOND_NS) -> Call:
        """Begin another kind of call."""
        return self.session.begin(kind, 5, pack_body([]), self.now_ns, timeout_ns)

    def wait(self, duration_ns: int) -> None:
        """Let time pass, and wake the session at each of its deadlines."""
        until_ns = self.now_ns + duration_ns
        for _ in range(10_000):
            wake_ns = self.session.wake_ns
            if wake_ns > until_ns:
                break
            self.now_ns = max(self.now_ns, wake_ns)
            self.session.advance(self.now_ns)
            assert self.session.wake_ns > self.now_ns, "the session asks to be woken for what it has done"
        self.now_ns = until_ns

    # -- what the service does

    def sent(self) -> list[Frame]:
        """Take the frames that the session wants to send."""
        frames = [decode_datagram(frame) for frame in self.session.outgoing]
        self.session.outgoing.clear()
        return frames

    def requests(self) -> list[Frame]:
        """Return those frames of `sent` that are requests of callers."""
        return [frame for frame in self.sent() if frame.kind not in (Kind.HELLO, Kind.PROOF, Kind.ATTACH)]

    def connect(self) -> None:
        """Connect the transport, and make the handshake."""
        assert self.session.state is SessionState.DISCONNECTED, self.session.state
        assert self.now_ns >= self.session.connect_ns, "connected before the pause was over"
        self.session.open_link(NONCE, self.now_ns)
        self.welcome()

    def welcome(self) -> None:
        """Answer HELLO, and take PROOF if it is asked for."""
        (hello,) = self.sent()
        assert hello.kind == Kind.HELLO
        acceptor = Acceptor(self.service, NONCE)
        try:
            self.receive(acceptor.receive(hello))
        except HandshakeRejected as refused:
            self.receive(refused.frame())
        if self.service.key and self.session.state is not SessionState.DISCONNECTED:
            decoded = [decode_datagram(frame) for frame in self.session.outgoing]
            proof = next(frame for frame in decoded if frame.kind == Kind.PROOF)
            self.session.outgoing.pop(0)
            try:
                self.receive(acceptor.receive(proof))
            except HandshakeRejected as refused:
                self.receive(refused.frame())

    def attach(self, *urls: str) -> Frame:
        """Connect if necessary, answer ATTACH with OK, and return it.

        After this the session sends what is unanswered.
        """
        if self.session.state is SessionState.DISCONNECTED:
            self.now_ns = max(self.now_ns, self.session.connect_ns)
            self.connect()
        (attach,) = self.sent()
        assert attach.kind == Kind.ATTACH
        self.answer(attach.a, answer_ok(["a", [["a", list(urls)]]]))
        return attach

    def lose(self, why: str = "connection reset") -> None:
        """Break the transport."""
        self.session.lose_link(self.now_ns, why)

    def receive(self, data: bytes) -> None:
        """Pass bytes to the session."""
        if data:
            self.session.receive(data, self.now_ns)

    def answer(self, number: int, body: bytes = b"") -> None:
        """Answer a request: OK unless another body is given."""
        self.receive(encode_answer(number, 1, 1, body or answer_ok()))

    def try_again(self, number: int, text: str = "not now") -> None:
        """Answer TRY_AGAIN: nothing was done."""
        self.answer(number, answer_error(codes.TRY_AGAIN, text))


def outcome(call: Call) -> Any:
    """Return the code with which a call ended; None while it is in progress."""
    return call.code if call.done else None
