"""The session core: requests, repetitions, fail-over and time-outs, as scenarios without a clock."""

from collections.abc import Callable

import pytest
from tests.client.dialogue import BODY, NONCE, SECOND_NS, A, B, C, Dialogue, outcome

from ckpt_client.session.address import parse_address
from ckpt_client.session.attachment import RESEND_NS, SessionState
from ckpt_client.session.call import MILLISECOND_NS, TRY_AGAIN_MIN_NS
from ckpt_client.session.endpoints import PAUSE_MAX_NS, Outlook
from ckpt_client.session.link_and_fail_over import LEAVE_STUCK_NODE_NS
from ckpt_client.session.node_silence import DEAD_AFTER_NS, HASTE_NS, KEEP_UP_NS, PING_AFTER_NS, STALE_NS
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.handshake import HandshakeRejected, Identity
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer


def attached(addresses: str = f"{A},{B}") -> Dialogue:
    """A session at its first address, nothing asked yet."""
    talk = Dialogue(addresses)
    first = talk.ask(Kind.READ)
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert first.done
    return talk


# -- the first exchange and ATTACH


def test_requests_wait_until_the_session_is_attached() -> None:
    talk = Dialogue()
    call = talk.update()
    assert talk.session.outgoing == []
    talk.connect()
    (attach,) = talk.sent()
    assert (attach.kind, attach.b, attach.c) == (Kind.ATTACH, 77, 1)
    assert unpack_body(attach.body) == [True]
    talk.answer(attach.a, answer_ok(["a", []]))
    (request,) = talk.requests()
    assert (request.kind, request.a, request.b, request.body) == (Kind.UPDATE, call.number, 5, BODY)
    talk.answer(request.a)
    assert outcome(call) == codes.OK
    assert talk.session.completed[-1] is call


def test_a_key_is_proved_to_a_service_that_asks() -> None:
    talk = Dialogue(key=b"secret", service_key=b"secret")
    talk.update()
    talk.attach()
    assert talk.session.attached


@pytest.mark.parametrize(("key", "service_key"), [(b"wrong", b"secret"), (b"", b"secret"), (b"secret", b"")])
def test_a_wrong_key_is_access_at_once_where_every_node_refuses(key: bytes, service_key: bytes) -> None:
    talk = Dialogue(A, key=key, service_key=service_key)
    call = talk.update()
    talk.connect()
    assert outcome(call) == codes.ACCESS
    assert "key" in call.text
    assert A in call.text


def test_a_refused_key_at_one_node_lets_the_other_be_tried() -> None:
    talk = Dialogue(service_key=b"secret")
    call = talk.update()
    talk.connect()
    assert outcome(call) is None
    assert talk.session.address == parse_address(B)


def nobody_listens(talk: Dialogue) -> None:
    """The next connection is refused."""
    talk.now_ns = max(talk.now_ns, talk.session.connect_ns)
    talk.session.lose_link(talk.now_ns, "no daemon listens", Outlook.NOT_YET)


def refuse_key(talk: Dialogue) -> None:
    """The next daemon has another key."""
    talk.service = Identity("test", b"another key", "a", 1)
    talk.connect()


def meet_stranger(talk: Dialogue) -> None:
    """What listens at the next address is no ckptd."""
    talk.session.open_link(NONCE, talk.now_ns)
    talk.receive(b"HTTP/1.1 400 Bad Request\r\nServer: something else\r\n\r\n")


def test_while_nothing_listens_anywhere_a_call_tries_again_after_growing_pauses() -> None:
    """A table failed at once if it was created while its daemons were still starting."""
    talk = Dialogue()
    call = talk.update()
    pauses = []
    for _ in range(8):
        nobody_listens(talk)
        nobody_listens(talk)
        assert outcome(call) is None
        pauses.append(talk.session.connect_ns - talk.now_ns)
    assert pauses == sorted(pauses) and pauses[0] < pauses[-1] == PAUSE_MAX_NS
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(call) == codes.OK


def test_nothing_listened_until_the_time_out_is_unavailable_and_says_how_to_start() -> None:
    talk = Dialogue()
    call = talk.update(SECOND_NS)
    nobody_listens(talk)
    nobody_listens(talk)
    talk.wait(SECOND_NS)
    assert outcome(call) == codes.UNAVAILABLE
    assert A in call.text and B in call.text and "ckptd --node-id a --listen 127.0.0.1:7301" in call.text


def test_a_session_that_does_not_wait_is_unavailable_at_once_where_nothing_listens() -> None:
    talk = Dialogue(waits=False)
    call = talk.update()
    nobody_listens(talk)
    assert outcome(call) is None
    nobody_listens(talk)
    assert outcome(call) == codes.UNAVAILABLE
    assert A in call.text and B in call.text and "ckptd --node-id a --listen 127.0.0.1:7301" in call.text


@pytest.mark.parametrize("waits", [True, False])
def test_the_successor_of_a_session_waits_as_it_did(waits: bool) -> None:
    assert Dialogue(A, waits=waits).session.successor(78).waits is waits


def test_a_question_to_any_node_is_unavailable_at_once_where_nothing_listens() -> None:
    """saCkptInitialize asks one, and has no time-out. What needs the session waits on."""
    talk = Dialogue(A)
    question, call = talk.session.begin(Kind.PING, 0, BODY, talk.now_ns, SECOND_NS), talk.update()
    nobody_listens(talk)
    assert outcome(question) == codes.UNAVAILABLE
    assert outcome(call) is None


@pytest.mark.parametrize("hopeless", [refuse_key, meet_stranger])
@pytest.mark.parametrize("at_first", [True, False])
def test_what_no_wait_will_change_fails_once_every_address_was_tried(
    hopeless: Callable[[Dialogue], None], at_first: bool
) -> None:
    """A wrong key is wrong at every node. Where another program listens, a daemon may start elsewhere."""
    talk = Dialogue()
    call = talk.update()
    for befall in (hopeless, nobody_listens) if at_first else (nobody_listens, hopeless):
        assert outcome(call) is None
        befall(talk)
    assert outcome(call) == (codes.ACCESS if hopeless is refuse_key else None)


def test_where_only_a_witness_listens_a_node_may_still_start() -> None:
    talk = Dialogue()
    call = talk.update()
    talk.connect()
    (attach,) = talk.sent()
    talk.answer(attach.a, answer_error(codes.UNAVAILABLE, "this node is a witness"))
    nobody_listens(talk)
    assert outcome(call) is None


def test_after_such_a_verdict_the_next_call_tries_again() -> None:
    talk = Dialogue(A, waits=False)
    talk.update()
    talk.session.lose_link(talk.now_ns, "no daemon listens", Outlook.NOT_YET)
    again = talk.update()
    assert outcome(again) is None
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(again) == codes.OK


def test_something_else_listens_is_unavailable_and_says_so() -> None:
    talk = Dialogue(A)
    call = talk.update()
    meet_stranger(talk)
    assert outcome(call) == codes.UNAVAILABLE
    assert "not a ckptd" in call.text


def test_a_good_attach_is_not_fresh_any_more_and_its_generation_grows() -> None:
    talk = attached()
    talk.update()
    talk.lose()
    attach = talk.attach()
    assert attach.c == 2
    assert unpack_body(attach.body) == [False]


def test_an_unanswered_attach_stays_fresh() -> None:
    talk = Dialogue()
    talk.update()
    talk.connect()
    talk.lose()
    attach = talk.attach()
    assert attach.c == 2
    assert unpack_body(attach.body) == [True]


def test_attach_is_repeated_with_number_and_generation_after_try_again() -> None:
    talk = Dialogue()
    talk.update()
    talk.connect()
    (first,) = talk.sent()
    talk.try_again(first.a)
    talk.wait(TRY_AGAIN_MIN_NS)
    (second,) = talk.sent()
    assert second == first


def test_a_session_that_has_ended_ends_every_call_with_bad_handle() -> None:
    talk = attached()
    read = talk.ask(Kind.READ)
    talk.lose()
    talk.connect()
    (attach,) = talk.sent()
    talk.answer(attach.a, answer_error(codes.BAD_HANDLE, "its grace time is over"))
    assert outcome(read) == codes.BAD_HANDLE
    assert "session has ended" in read.text
    later = talk.update()
    assert outcome(later) == codes.BAD_HANDLE
    assert talk.session.state is SessionState.ENDED


def test_a_write_that_was_on_its_way_when_the_session_ended_is_timeout() -> None:
    """Whether it was done is not known, and BAD_HANDLE would say that it was not."""
    talk = attached()
    write = talk.update()
    talk.requests()
    talk.lose()
    talk.connect()
    (attach,) = talk.sent()
    talk.answer(attach.a, answer_error(codes.BAD_HANDLE))
    assert outcome(write) == codes.TIMEOUT


def test_describe_needs_no_session() -> None:
    """A node that cannot serve, and so answers ATTACH with TRY_AGAIN, still tells what it waits for."""
    talk = Dialogue()
    call = talk.ask(Kind.DESCRIBE)
    talk.connect()
    (request,) = talk.sent()
    assert request.kind == Kind.DESCRIBE
    talk.answer(request.a, answer_ok({"serving": False}))
    assert call.payload == {"serving": False}
    write = talk.update()
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(write) == codes.OK


def test_describe_is_answered_while_attach_waits() -> None:
    talk = Dialogue()
    talk.update()
    talk.connect()
    (attach,) = talk.sent()
    talk.try_again(attach.a)
    call = talk.ask(Kind.DESCRIBE)
    (request,) = talk.requests()
    talk.answer(request.a, answer_ok({"serving": False}))
    assert outcome(call) == codes.OK


# -- numbers


def test_numbers_grow_and_lowest_is_the_first_unanswered() -> None:
    talk = attached()
    calls = [talk.update() for _ in range(4)]
    frames = talk.requests()
    assert [frame.a for frame in frames] == [call.number for call in calls]
    assert [frame.c for frame in frames] == [calls[0].number] * 4
    talk.answer(calls[1].number)
    talk.answer(calls[0].number)
    later = talk.update()
    (frame,) = talk.requests()
    assert (frame.a, frame.c) == (later.number, calls[2].number)


def test_a_single_request_is_its_own_lowest() -> None:
    talk = attached()
    for _ in range(3):
        call = talk.update()
        (frame,) = talk.requests()
        assert frame.c == frame.a == call.number
        talk.answer(frame.a)


def test_answers_come_in_any_order_and_twice() -> None:
    talk = attached()
    calls = [talk.update() for _ in range(3)]
    for call in reversed(calls):
        talk.answer(call.number)
        talk.answer(call.number, answer_error(codes.NO_SPACE))
    assert [outcome(call) for call in calls] == [codes.OK] * 3
    assert talk.session.ignored == 3


# -- fail-over


def test_what_was_unanswered_goes_as_it_was_to_the_next_node() -> None:
    talk = attached()
    first, second, third = (talk.update(body=pack_body([[6, b"k", bytes([i]), None]])) for i in range(3))
    sent = talk.requests()
    talk.answer(second.number)
    talk.lose()
    assert talk.session.address == parse_address(B)
    talk.attach()
    again = talk.requests()
    assert [(f.kind, f.a, f.b, f.body) for f in again] == [
        (f.kind, f.a, f.b, f.body) for f in (sent[0], sent[2])
    ]
    assert [f.c for f in again] == [first.number, first.number]
    talk.answer(first.number)
    talk.answer(third.number)
    assert [outcome(call) for call in (first, second, third)] == [codes.OK] * 3


def test_the_only_node_is_tried_again_after_a_growing_pause() -> None:
    talk = attached(A)
    call = talk.update()
    pauses = []
    for _ in range(8):
        talk.lose("connection refused")
        pauses.append(talk.session.connect_ns - talk.now_ns)
        talk.now_ns = talk.session.connect_ns
    assert pauses == [ms * MILLISECOND_NS for ms in (10, 20, 40, 80, 160, 250, 250, 250)]
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(call) == codes.OK


def test_members_that_the_service_names_are_further_nodes_to_try() -> None:
    talk = Dialogue(A)
    talk.update()
    talk.attach(A, C, "unix:///elsewhere.sock", "udp://c:9", "nonsense")
    talk.lose()
    assert talk.session.address == parse_address(C)
    talk.lose()
    assert talk.session.address == parse_address(A)


def test_all_nodes_gone_during_a_write_is_timeout_and_says_what_that_means() -> None:
    talk = attached()
    call = talk.update(timeout_ns=3 * SECOND_NS)
    talk.requests()
    talk.lose("connection reset")
    talk.lose("connection refused")
    talk.wait(3 * SECOND_NS)
    assert outcome(call) == codes.TIMEOUT
    assert "connection refused" in call.text and "its data is lost" in call.text


def test_all_nodes_gone_before_a_write_was_sent_is_unavailable() -> None:
    talk = attached()
    talk.lose()
    call = talk.update(timeout_ns=SECOND_NS)
    talk.lose()
    talk.wait(SECOND_NS)
    assert outcome(call) == codes.UNAVAILABLE


def test_garbage_after_the_handshake_loses_the_link_and_the_request_goes_elsewhere() -> None:
    talk = attached()
    call = talk.update()
    talk.requests()
    talk.receive(b"\xff" * 64)
    assert talk.session.state is SessionState.DISCONNECTED
    talk.attach()
    (request,) = talk.requests()
    assert request.a == call.number
    talk.answer(request.a)
    assert outcome(call) == codes.OK


@pytest.mark.parametrize("body", [b"", b"\xc1", pack_body([]), pack_body(["ok"]), pack_body(1)])
def test_an_answer_with_a_garbled_body_loses_the_link(body: bytes) -> None:
    talk = attached()
    call = talk.update()
    talk.requests()
    talk.receive(encode_answer(call.number, 1, 1, body))
    assert talk.session.state is SessionState.DISCONNECTED
    assert outcome(call) is None


def test_frames_in_pieces_and_frames_together_are_the_same() -> None:
    talk = attached()
    calls = [talk.update() for _ in range(3)]
    stream = b"".join(encode_answer(call.number, 1, 1, answer_ok()) for call in calls)
    for place in range(len(stream)):
        talk.receive(stream[place : place + 1])
    assert [outcome(call) for call in calls] == [codes.OK] * 3
    calls = [talk.update() for _ in range(3)]
    talk.receive(b"".join(encode_answer(call.number, 1, 1, answer_ok()) for call in calls))
    assert [outcome(call) for call in calls] == [codes.OK] * 3


# -- TRY_AGAIN and time-outs


def test_try_again_repeats_the_same_request_after_a_pause() -> None:
    talk = attached()
    call = talk.update()
    (first,) = talk.requests()
    talk.try_again(call.number)
    assert talk.requests() == []
    talk.wait(TRY_AGAIN_MIN_NS - 1)
    assert talk.requests() == []
    talk.wait(1)
    (second,) = talk.requests()
    assert (second.kind, second.a, second.b, second.body) == (first.kind, first.a, first.b, first.body)
    talk.answer(call.number)
    assert outcome(call) == codes.OK


def test_the_pause_grows_to_its_limit() -> None:
    talk = attached(A)
    talk.session.pause_max_ns = 50 * MILLISECOND_NS
    call = talk.update()
    pauses = []
    for _ in range(8):
        talk.requests()
        talk.try_again(call.number)
        pauses.append((call.retry_ns - talk.now_ns) // MILLISECOND_NS)
        talk.wait(call.retry_ns - talk.now_ns)
    assert pauses == [2, 4, 8, 16, 32, 50, 50, 50]


def test_try_again_until_the_time_out_is_try_again() -> None:
    talk = attached(A)
    call = talk.update(timeout_ns=SECOND_NS)
    for _ in range(100):
        for request in talk.requests():
            talk.try_again(request.a)
        talk.wait(20 * MILLISECOND_NS)
    assert outcome(call) == codes.TRY_AGAIN
    assert call.text == "not now"


def test_no_answer_until_the_time_out_is_timeout() -> None:
    talk = attached(A)
    call = talk.update(timeout_ns=SECOND_NS // 2)
    talk.wait(SECOND_NS // 2 - 1)
    assert outcome(call) is None
    talk.wait(1)
    assert outcome(call) == codes.TIMEOUT


def test_try_again_after_an_unanswered_send_never_claims_that_nothing_was_done() -> None:
    """R5: the first node may have done it, whatever the second one says that it did not do."""
    talk = attached()
    call = talk.update(timeout_ns=SECOND_NS)
    talk.requests()
    talk.lose()
    talk.attach()
    talk.requests()
    talk.try_again(call.number)
    talk.wait(TRY_AGAIN_MIN_NS)
    talk.requests()
    talk.try_again(call.number)
    talk.wait(SECOND_NS)
    assert outcome(call) == codes.TIMEOUT


def named(talk: Dialogue) -> list[tuple[int, list[int]]]:
    """Each PING that was sent, with the requests that it names."""
    return [(frame.a, unpack_body(frame.body)) for frame in talk.requests() if frame.kind == Kind.PING]


def test_what_only_waits_at_its_node_is_withdrawn_in_time_and_is_try_again_with_the_reason() -> None:
    """It was TIMEOUT without a reason: the node holds a request for a second, the caller had less."""
    talk = attached(A)
    first, second = talk.update(timeout_ns=400 * MILLISECOND_NS), talk.update(timeout_ns=400 * MILLISECOND_NS)
    talk.wait(250 * MILLISECOND_NS)
    assert [numbers for _, numbers in named(talk)] == [[]], "a sign of life, and nothing else yet"
    talk.wait(50 * MILLISECOND_NS)
    assert [numbers for _, numbers in named(talk)] == [[first.number, second.number]]
    talk.try_again(first.number, "it waits for b")
    assert (outcome(first), first.text) == (codes.TRY_AGAIN, "it waits for b")
    talk.wait(100 * MILLISECOND_NS)
    assert outcome(second) == codes.TIMEOUT, "it may be done"


def test_what_may_have_been_done_elsewhere_is_timeout_although_its_node_has_withdrawn_it() -> None:
    talk = attached()
    call = talk.update(timeout_ns=SECOND_NS)
    talk.lose()
    talk.attach()
    talk.requests()
    talk.wait(950 * MILLISECOND_NS)
    assert [call.number] in [numbers for _, numbers in named(talk)]
    talk.try_again(call.number, "it waits for b")
    talk.wait(SECOND_NS)
    assert outcome(call) == codes.TIMEOUT
    assert "it waits for b" in call.text


@pytest.mark.parametrize("kind", [Kind.CLOSE, Kind.DETACH, Kind.TRACK])
def test_a_request_that_closes_something_or_waits_for_a_change_is_not_withdrawn(kind: int) -> None:
    talk = attached(A)
    call = talk.ask(kind, timeout_ns=SECOND_NS)
    talk.wait(990 * MILLISECOND_NS)
    assert outcome(call) is None
    assert {tuple(numbers) for _, numbers in named(talk)} <= {()}


def test_a_call_that_was_refused_is_not_asked_again_when_its_time_is_nearly_over() -> None:
    talk = attached(A)
    talk.session.pause_max_ns = 250 * MILLISECOND_NS
    call = talk.update(timeout_ns=SECOND_NS)
    while talk.session.calls:
        for request in talk.requests():
            if request.kind == Kind.UPDATE:
                assert talk.now_ns < call.deadline_ns - 100 * MILLISECOND_NS
                talk.try_again(request.a, "it waits for b")
        talk.wait(10 * MILLISECOND_NS)
    assert (outcome(call), call.text) == (codes.TRY_AGAIN, "it waits for b")


def test_a_late_answer_is_ignored_and_the_link_continues() -> None:
    talk = attached(A)
    late = talk.update(timeout_ns=SECOND_NS // 2)
    talk.wait(SECOND_NS // 2)
    call = talk.update()
    talk.answer(late.number, answer_error(codes.NO_SPACE))
    talk.answer(call.number)
    assert (outcome(late), outcome(call)) == (codes.TIMEOUT, codes.OK)


def test_a_request_that_timed_out_no_longer_holds_lowest_back() -> None:
    talk = attached(A)
    talk.update(timeout_ns=SECOND_NS // 2)
    talk.wait(SECOND_NS // 2)
    talk.requests()
    call = talk.update()
    (frame,) = talk.requests()
    assert frame.c == call.number


def test_a_refusal_carries_code_index_and_text() -> None:
    talk = attached()
    call = talk.update()
    talk.answer(call.number, answer_error(codes.NO_SPACE, "the table is full", 3))
    assert (call.code, call.index, call.text) == (codes.NO_SPACE, 3, "the table is full")


def test_what_was_asked_on_two_links_is_asked_again_while_the_node_lives() -> None:
    """The answer went to whoever asked last, by the link that was gone, and the caller waited in vain."""
    talk = attached()
    call, large = talk.update(), talk.update(body=bytes(100_000))
    talk.requests()
    talk.lose()
    talk.attach()
    assert [frame.a for frame in talk.requests()] == [call.number, large.number]
    pauses = []
    begun_ns = talk.now_ns
    for _ in range(60):
        talk.wait(50 * MILLISECOND_NS)
        for frame in talk.sent():
            if frame.kind == Kind.PING:
                talk.answer(frame.a)
            else:
                assert frame.a == call.number, "a large one may take as long to arrive"
                pauses.append((talk.now_ns - begun_ns) // MILLISECOND_NS)
    assert pauses == [250, 750, 1750]
    talk.answer(call.number)
    talk.answer(large.number)
    assert (outcome(call), outcome(large)) == (codes.OK, codes.OK)


# -- silence, and nodes that cannot serve


def test_a_silent_node_is_asked_for_a_sign_of_life_and_then_left() -> None:
    talk = attached()
    call = talk.update()
    talk.requests()
    talk.wait(PING_AFTER_NS)
    (ping,) = talk.sent()
    assert ping.kind == Kind.PING
    talk.wait(DEAD_AFTER_NS - PING_AFTER_NS)
    assert talk.session.state is SessionState.DISCONNECTED
    assert talk.session.address == parse_address(B)
    talk.attach()
    (request,) = talk.requests()
    assert request.a == call.number


def test_a_ping_that_was_sent_is_no_sign_of_life() -> None:
    """The blocking shell took it for one: a client never left a node that was frozen."""
    talk = attached()
    call = talk.update()
    talk.wait(PING_AFTER_NS)
    assert [frame.kind for frame in talk.sent()] == [Kind.UPDATE, Kind.PING]
    talk.wait(DEAD_AFTER_NS - PING_AFTER_NS - 1)
    assert talk.session.attached
    talk.wait(1)
    assert talk.session.state is SessionState.DISCONNECTED
    assert outcome(call) is None


def test_calls_with_short_time_outs_leave_a_silent_node_together() -> None:
    """Each of them began the silence anew, so that none ever lasted long enough."""
    talk = attached()
    for _ in range(4):
        assert talk.session.attached
        call = talk.update(DEAD_AFTER_NS // 4)
        talk.wait(DEAD_AFTER_NS // 4)
        assert outcome(call) == codes.TIMEOUT
        talk.sent()
    talk.update()
    talk.wait(0)
    assert talk.session.address == parse_address(B)


def test_a_cancelled_call_costs_a_live_node_nothing() -> None:
    talk = attached()
    assert outcome(talk.update(PING_AFTER_NS // 2)) is None
    talk.wait(PING_AFTER_NS)
    for frame in talk.sent():
        if frame.kind == Kind.PING:
            talk.answer(frame.a)
    talk.wait(100 * SECOND_NS)
    assert talk.session.attached


def test_a_node_that_owed_an_answer_long_ago_has_a_moment_to_show_that_it_lives() -> None:
    """A blocking program does not listen between its calls: the answer may have come meanwhile."""
    talk = attached()
    call = talk.update(PING_AFTER_NS // 2)
    talk.session.advance(call.deadline_ns)
    talk.sent()
    talk.now_ns += 100 * SECOND_NS
    talk.stale_update()
    talk.session.advance(talk.now_ns)
    (again, ping) = talk.sent()
    assert (again.kind, ping.kind) == (Kind.UPDATE, Kind.PING)
    talk.wait(PING_AFTER_NS - 1)
    assert talk.session.attached
    talk.wait(1)
    assert talk.session.address == parse_address(B)


def test_after_a_long_pause_a_request_waits_until_the_node_shows_that_it_lives() -> None:
    talk = attached()
    talk.now_ns += STALE_NS
    call = talk.stale_update()
    (ping,) = talk.sent()
    assert ping.kind == Kind.PING
    assert not call.maybe_applied
    talk.answer(ping.a)
    (request,) = talk.requests()
    assert request.a == call.number
    talk.answer(call.number)
    assert outcome(call) == codes.OK
    talk.update()
    assert [frame.kind for frame in talk.sent()] == [Kind.UPDATE]


def test_a_request_after_a_long_pause_goes_to_the_next_node_for_the_first_time() -> None:
    """Sent to a node that was gone, it counted as maybe done when the session had ended meanwhile."""
    talk = attached()
    talk.now_ns += STALE_NS
    call = talk.stale_update()
    talk.wait(DEAD_AFTER_NS)
    talk.now_ns = max(talk.now_ns, talk.session.connect_ns)
    talk.connect()
    (attach,) = talk.sent()
    talk.answer(attach.a, answer_error(codes.BAD_HANDLE, "this session has ended"))
    assert outcome(call) == codes.BAD_HANDLE


def test_a_request_after_a_long_pause_is_not_given_to_a_node_that_does_not_serve() -> None:
    """It never answered, and the session had ended elsewhere: nobody knew whether it had been done."""
    talk = attached()
    talk.now_ns += STALE_NS
    call = talk.stale_update()
    (ping,) = talk.sent()
    talk.try_again(ping.a)
    assert talk.session.address == parse_address(B)
    assert not call.maybe_applied


def test_a_node_that_never_answers_hello_has_little_time_while_others_were_not_tried() -> None:
    talk = Dialogue(f"{A},{B},{C}")
    talk.update()
    for address in (A, B):
        assert talk.session.address == parse_address(address)
        talk.session.open_link(NONCE, talk.now_ns)
        talk.wait(HASTE_NS)
    assert talk.session.address == parse_address(C)
    talk.session.open_link(NONCE, talk.now_ns)
    talk.wait(DEAD_AFTER_NS - 1)
    assert talk.session.state is SessionState.HANDSHAKING


def test_datagrams_of_garbage_are_no_sign_of_life() -> None:
    talk = attached("udp://a:1,udp://b:2")
    talk.update()
    until_ns = talk.now_ns + DEAD_AFTER_NS
    while talk.now_ns < until_ns:
        talk.wait(50 * MILLISECOND_NS)
        talk.receive(b"garbage")
    assert talk.session.address == parse_address("udp://b:2")


def test_a_lost_ping_is_no_silence_where_datagrams_may_be_lost() -> None:
    talk = attached(UDP)
    talk.now_ns += STALE_NS
    call = talk.stale_update()
    (lost,) = talk.sent()
    talk.wait(PING_AFTER_NS)
    (ping,) = talk.sent()
    assert lost.kind == ping.kind == Kind.PING
    talk.answer(ping.a)
    assert [frame.a for frame in talk.sent()] == [call.number]


def test_a_node_that_answers_ping_is_not_left_however_long_the_call_takes() -> None:
    talk = attached()
    call = talk.ask(Kind.SYNCHRONIZE)
    talk.requests()
    for _ in range(9):
        talk.wait(PING_AFTER_NS)
        for frame in talk.sent():
            assert frame.kind == Kind.PING
            assert frame.c == call.number
            talk.answer(frame.a)
    assert talk.session.attached
    talk.answer(call.number)
    assert outcome(call) == codes.OK


def test_a_node_that_owes_an_answer_and_says_that_it_does_not_serve_is_left() -> None:
    """The active replica's node was cut off with an update that waits for acknowledgements.

    It answered each PING with OK, so its client stayed until the time-out, though the others had gone on.
    """
    talk = attached()
    call = talk.update()
    talk.requests()
    talk.wait(PING_AFTER_NS)
    (ping,) = talk.sent()
    talk.try_again(ping.a)
    talk.wait(PING_AFTER_NS)
    (ping,) = talk.sent()
    talk.try_again(ping.a)
    talk.wait(LEAVE_STUCK_NODE_NS - PING_AFTER_NS)
    assert talk.session.address == parse_address(B)
    talk.attach()
    (request,) = talk.requests()
    assert request.a == call.number
    talk.answer(request.a)
    assert outcome(call) == codes.OK


def test_a_node_that_serves_again_is_not_left() -> None:
    talk = attached()
    call = talk.update()
    talk.requests()
    for round_trip in range(9):
        talk.wait(PING_AFTER_NS)
        (ping,) = talk.sent()
        if round_trip % 2:
            talk.answer(ping.a)
        else:
            talk.try_again(ping.a)
    assert talk.session.attached
    talk.answer(call.number)
    assert outcome(call) == codes.OK


def test_an_idle_link_that_is_kept_up_is_watched() -> None:
    """An idle program of asyncio stayed at a node that had fallen silent until its session had ended."""
    talk = attached()
    talk.session.keeps_up = True
    call = talk.update()
    talk.answer(call.number)
    talk.sent()
    for _ in range(3):
        talk.wait(KEEP_UP_NS)
        (ping,) = talk.sent()
        assert ping.kind == Kind.PING
        talk.answer(ping.a)
    talk.wait(KEEP_UP_NS)
    assert len(talk.sent()) == 1
    talk.wait(DEAD_AFTER_NS)
    assert talk.session.address == parse_address(B)
    assert talk.session.was_attached


def test_a_ping_with_a_handle_waits_for_the_session() -> None:
    talk = Dialogue()
    call = talk.ask(Kind.PING)
    assert talk.attach().kind == Kind.ATTACH
    (ping,) = talk.sent()
    assert ping.a == call.number


def test_an_idle_link_is_not_watched() -> None:
    talk = attached()
    talk.wait(100 * SECOND_NS)
    assert talk.session.attached
    assert talk.sent() == []
    talk.update()
    talk.requests()
    talk.wait(PING_AFTER_NS - 1)
    assert talk.sent() == []


def test_a_node_that_accepts_and_says_nothing_is_left() -> None:
    talk = Dialogue()
    talk.update()
    talk.session.open_link(NONCE, talk.now_ns)
    talk.wait(DEAD_AFTER_NS)
    assert talk.session.state is SessionState.DISCONNECTED
    assert talk.session.address == parse_address(B)


def test_a_node_that_only_says_try_again_is_left_for_another() -> None:
    """A node cut off from the majority answers TRY_AGAIN for ever, while the others serve."""
    talk = attached()
    call = talk.update()
    for _ in range(LEAVE_STUCK_NODE_NS // (10 * MILLISECOND_NS) + 1):
        for request in talk.requests():
            talk.try_again(request.a)
        talk.wait(10 * MILLISECOND_NS)
    assert talk.session.address == parse_address(B)
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(call) == codes.OK


def test_a_node_that_cannot_take_the_session_is_left_for_another() -> None:
    talk = Dialogue()
    talk.update()
    talk.connect()
    for _ in range(LEAVE_STUCK_NODE_NS // (10 * MILLISECOND_NS) + 1):
        for attach in talk.sent():
            talk.try_again(attach.a)
        talk.wait(10 * MILLISECOND_NS)
    assert talk.session.address == parse_address(B)


def test_activation_stays_at_its_node() -> None:
    """ActiveReplicaSet means the *local* replica: at another node it would be another wish."""
    talk = attached()
    talk.ask(Kind.ACTIVE_SET)
    for _ in range(2 * LEAVE_STUCK_NODE_NS // (10 * MILLISECOND_NS)):
        for request in talk.requests():
            talk.try_again(request.a)
        talk.wait(10 * MILLISECOND_NS)
    assert talk.session.address == parse_address(A)


def test_a_witness_takes_no_sessions_and_the_next_address_is_tried() -> None:
    talk = Dialogue()
    call = talk.update()
    talk.connect()
    (attach,) = talk.sent()
    talk.answer(attach.a, answer_error(codes.UNAVAILABLE, "this node is a witness"))
    assert outcome(call) is None
    assert talk.session.address == parse_address(B)
    talk.attach()
    (request,) = talk.requests()
    talk.answer(request.a)
    assert outcome(call) == codes.OK


def test_where_every_address_is_a_witness_the_error_says_so() -> None:
    talk = Dialogue()
    call = talk.update()
    for _ in range(2):
        talk.connect()
        (attach,) = talk.sent()
        talk.answer(attach.a, answer_error(codes.UNAVAILABLE, "this node votes only"))
    assert outcome(call) == codes.UNAVAILABLE
    assert "witness" in call.text and "give the address of another node" in call.text
    assert "ckptd --node-id" not in call.text


# -- callers that give up


def test_an_abandoned_write_is_forgotten() -> None:
    talk = attached()
    call = talk.update()
    talk.requests()
    talk.session.abandon(call, talk.now_ns)
    assert talk.session.calls == {}
    talk.answer(call.number)
    assert talk.session.completed.count(call) == 0


def test_an_open_that_succeeds_after_it_was_cancelled_is_closed() -> None:
    """Otherwise the checkpoint stays open as long as the session lives, and never expires."""
    talk = attached()
    call = talk.ask(Kind.OPEN)
    talk.requests()
    talk.session.abandon(call, talk.now_ns)
    other = talk.update()
    (frame,) = talk.requests()
    assert frame.c == call.number, "the answer must not be forgotten by the service"
    talk.answer(call.number, answer_ok([call.number, 9, [1, 2, 3, 4, 5, 6]]))
    (close,) = talk.requests()
    assert (close.kind, close.b) == (Kind.CLOSE, call.number)
    talk.answer(close.a)
    talk.answer(other.number)
    assert talk.session.calls == {}


def test_an_open_that_was_cancelled_when_the_answer_was_there_is_closed() -> None:
    """A task that is cancelled in the turn in which its answer came never sees the handle."""
    talk = attached()
    call = talk.ask(Kind.OPEN)
    talk.requests()
    talk.answer(call.number, answer_ok([call.number, 9, [1, 2, 3, 4, 5, 6]]))
    talk.session.abandon(call, talk.now_ns)
    (close,) = talk.requests()
    assert (close.kind, close.b) == (Kind.CLOSE, call.number)


def test_an_open_that_timed_out_is_closed_when_it_succeeds() -> None:
    talk = attached(A)
    call = talk.ask(Kind.OPEN, timeout_ns=SECOND_NS // 2)
    talk.requests()
    talk.wait(SECOND_NS // 2)
    assert outcome(call) == codes.TIMEOUT
    talk.answer(call.number, answer_ok([call.number, 9, [1, 2, 3, 4, 5, 6]]))
    (close,) = [request for request in talk.requests() if request.kind != Kind.PING]
    assert (close.kind, close.b) == (Kind.CLOSE, call.number)


def test_a_close_that_was_cancelled_before_it_was_sent_is_still_done() -> None:
    """Cancelled while its link was down it was forgotten, and the checkpoint open as long as the session."""
    talk = attached()
    talk.lose()
    call = talk.ask(Kind.CLOSE)
    talk.session.abandon(call, talk.now_ns)
    talk.attach()
    (close,) = talk.requests()
    assert (close.kind, close.a, close.b) == (Kind.CLOSE, call.number, 5)
    talk.answer(close.a)
    assert talk.session.calls == {}


def test_the_session_continues_with_a_close_that_timed_out() -> None:
    talk = attached(A)
    call = talk.ask(Kind.CLOSE, timeout_ns=SECOND_NS // 2)
    talk.requests()
    talk.lose()
    talk.wait(SECOND_NS // 2)
    assert outcome(call) == codes.TIMEOUT
    talk.attach()
    (close,) = talk.requests()
    assert close.a == call.number


def test_an_open_that_was_never_sent_leaves_nothing() -> None:
    talk = Dialogue()
    call = talk.ask(Kind.OPEN)
    talk.session.abandon(call, talk.now_ns)
    assert talk.session.calls == {}


def test_an_orphan_is_not_awaited_for_ever() -> None:
    talk = attached(A)
    call = talk.ask(Kind.OPEN)
    talk.requests()
    talk.session.abandon(call, talk.now_ns)
    for _ in range(20 * SECOND_NS // PING_AFTER_NS):
        talk.wait(PING_AFTER_NS)
        for frame in talk.sent():
            if frame.kind == Kind.PING:
                talk.answer(frame.a)
    assert talk.session.calls == {}


def test_ending_the_session_fails_every_call_that_waits() -> None:
    talk = attached()
    read, write = talk.ask(Kind.READ), talk.update()
    talk.session.end("closed")
    assert (outcome(read), outcome(write)) == (codes.BAD_HANDLE, codes.TIMEOUT)


# -- datagrams


UDP = "udp://a:1"


def test_a_lost_datagram_is_sent_again_with_growing_pauses() -> None:
    talk = attached(UDP)
    call = talk.update()
    assert len(talk.requests()) == 1
    talk.wait(RESEND_NS)
    (again,) = talk.requests()
    assert (again.a, again.body) == (call.number, BODY)
    talk.wait(RESEND_NS)
    assert [request.kind for request in talk.requests()] == [Kind.PING]
    talk.wait(RESEND_NS)
    assert len([request for request in talk.requests() if request.kind != Kind.PING]) == 1
    talk.answer(call.number)
    assert outcome(call) == codes.OK


def test_a_lost_hello_and_a_lost_attach_are_sent_again() -> None:
    talk = Dialogue(UDP)
    talk.update()
    talk.session.open_link(NONCE, talk.now_ns)
    (lost,) = talk.sent()
    talk.wait(RESEND_NS)
    (hello,) = [type(lost)(*f) for f in talk.sent()]
    assert hello == lost
    talk.wait(RESEND_NS)
    talk.welcome()
    (attach,) = talk.sent()
    talk.wait(RESEND_NS)
    assert talk.sent() == [attach]
    talk.answer(attach.a, answer_ok(["a", []]))
    talk.answer(attach.a, answer_ok(["a", []]))
    assert talk.session.attached


def test_a_daemon_that_does_not_know_the_address_is_sent_hello_again() -> None:
    talk = attached(UDP)
    first, second = talk.update(), talk.update()
    talk.requests()
    stranger = HandshakeRejected(codes.TRY_AGAIN, "send HELLO first").frame()
    talk.receive(stranger)
    talk.receive(stranger)
    talk.welcome()
    attach = talk.attach()
    assert attach.c == 2
    assert [frame.a for frame in talk.requests()] == [first.number, second.number]


def test_a_daemon_that_never_knows_the_address_is_left() -> None:
    talk = attached("udp://a:1,udp://b:2")
    talk.update()
    for _ in range(10):
        talk.requests()
        if talk.session.state is SessionState.DISCONNECTED:
            break
        talk.receive(HandshakeRejected(codes.TRY_AGAIN, "send HELLO first").frame())
        if talk.session.state is SessionState.HANDSHAKING:
            talk.wait(RESEND_NS)
            talk.session.outgoing[:-1] = []
            talk.welcome()
    assert talk.session.state is SessionState.DISCONNECTED


def test_garbage_datagrams_are_dropped() -> None:
    talk = attached(UDP)
    call = talk.update()
    for garbage in (b"x", b"\xff" * 100, encode_frame(Kind.UPDATE, 1, 2, 3)):
        talk.receive(garbage)
    talk.answer(call.number)
    assert outcome(call) == codes.OK
