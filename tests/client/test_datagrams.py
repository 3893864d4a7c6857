"""What does not fit a datagram goes over a stream."""

from tests.client.dialogue import NONCE, SECOND_NS, Dialogue, outcome

from ckpt_client.session.address import parse_address
from ckpt_protocol import codes
from ckpt_protocol.framing import decode_datagram
from ckpt_protocol.handshake import Acceptor
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer


def over_udp() -> Dialogue:
    """A session over UDP."""
    talk = Dialogue("udp://a:1")
    call = talk.ask(Kind.READ)
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert call.done
    return talk


def to_stream(talk: Dialogue) -> None:
    """The move to TCP, done."""
    move = talk.session.move
    assert move is not None and move.call_waits and move.address == parse_address("tcp://a:1")
    move.open(NONCE)
    move.receive(Acceptor(talk.service, NONCE).receive(decode_datagram(move.outgoing.pop())))
    talk.session.advance_move(talk.now_ns)
    attach = decode_datagram(move.outgoing.pop())
    assert attach.c == 2
    move.receive(encode_answer(attach.a, 1, 0, answer_ok(["a", [["a", ["tcp://a:1"]]]])))
    assert talk.session.finish_move(move, talk.now_ns)


def test_an_answer_that_does_not_fit_a_datagram_is_asked_for_over_tcp_at_the_same_port() -> None:
    talk = over_udp()
    call, other = talk.ask(Kind.ITERATE), talk.update()
    first = talk.requests()[0]
    talk.answer(call.number, answer_error(codes.TOO_BIG, "the answer has 100000 bytes"))
    assert outcome(call) is None
    talk.wait(SECOND_NS // 5)
    assert call.number not in [frame.a for frame in talk.requests()], "it need not ask again over UDP"
    talk.answer(other.number)
    to_stream(talk)
    (again,) = talk.requests()
    assert (again.kind, again.a, again.body) == (first.kind, call.number, first.body)
    talk.answer(call.number, answer_ok([[], None]))
    assert (outcome(call), outcome(other)) == (codes.OK, codes.OK)
    assert talk.session.address == parse_address("tcp://a:1")


def test_a_request_that_does_not_fit_a_datagram_is_sent_over_tcp() -> None:
    talk = over_udp()
    call = talk.update(body=bytes(70_000))
    assert talk.requests() == []
    to_stream(talk)
    (request,) = talk.requests()
    assert (request.a, len(request.body)) == (call.number, 70_000)
    talk.answer(call.number)
    assert outcome(call) == codes.OK


def test_where_nothing_listens_for_tcp_it_is_too_big_and_the_session_stays() -> None:
    talk = over_udp()
    call = talk.ask(Kind.ITERATE)
    talk.requests()
    talk.answer(call.number, answer_error(codes.TOO_BIG, "the answer has 100000 bytes"))
    assert talk.session.move is not None
    move = talk.session.move
    move.fail("no daemon listens")
    assert not talk.session.finish_move(move, talk.now_ns)
    assert outcome(call) == codes.TOO_BIG
    assert "100000 bytes" in call.text and "tcp://a:1: no daemon listens" in call.text
    again = talk.update(body=bytes(70_000))
    assert outcome(again) == codes.TOO_BIG, "not tried again at once"
    small = talk.update()
    talk.answer(small.number)
    assert outcome(small) == codes.OK
