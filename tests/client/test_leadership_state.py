"""The leadership of a table as its program knows it, with a clock that the test moves."""

import os
import threading

import msgpack
import pytest

from ckpt_client.checkpoint.leadership_state import LeadershipState, Token, array_header
from ckpt_client.errors import LeadershipEnded, SaAisError, error_of
from ckpt_client.leadership.leadership import Lost
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.limits import OPS_PER_UPDATE_MAX
from ckpt_protocol.messages import Op

SECOND_NS = 1_000_000_000
TTL_NS = 5 * SECOND_NS
SECRET = 77
TOKEN = Token(9, 2, 30)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND_NS

    def __call__(self) -> int:
        return self.now_ns

    def wait(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def leading(clock: Clock, watchdog_s: int | None = None, lineage: int = 0) -> LeadershipState:
    watchdog_ns = None if watchdog_s is None else watchdog_s * SECOND_NS
    state = LeadershipState(SECRET, TTL_NS, watchdog_ns, clock)
    state.grant(TOKEN, clock(), lineage, data_may_be_lost=False)
    return state


def test_it_lasts_for_its_ttl_since_the_last_answered_renewal_was_sent(clock: Clock) -> None:
    state = leading(clock)
    sent_ns = clock()
    clock.wait(3)
    state.check()
    state.renew(sent_ns)
    assert state.valid_for_ns == 2 * SECOND_NS
    clock.wait(1.999)
    state.check()
    clock.wait(0.001)
    assert state.valid_for_ns == 0
    with pytest.raises(LeadershipEnded, match="not renewed for its ttl of 5 s"):
        state.check()


def test_an_answer_that_comes_after_the_end_revives_nothing(clock: Clock) -> None:
    state = leading(clock)
    clock.wait(4)
    sent_ns = clock()
    clock.wait(1)
    assert state.is_over
    state.renew(sent_ns)
    assert state.is_over


def test_an_older_renewal_shortens_nothing(clock: Clock) -> None:
    state = leading(clock)
    sent_ns = clock()
    clock.wait(2)
    state.renew(clock())
    state.renew(sent_ns)
    assert state.valid_for_ns == TTL_NS


def test_the_event_is_set_as_soon_as_the_time_is_over(clock: Clock) -> None:
    state = leading(clock)
    lost = Lost(state)
    assert not lost.is_set()
    clock.wait(5)
    assert lost.is_set()
    assert lost.wait()


def test_the_end_is_reported_once(clock: Clock) -> None:
    state = leading(clock)
    ends: list[bool] = []
    state.on_end = ends.append
    state.end("an operator revoked it")
    state.end("something else")
    assert ends == [True]
    assert state.ended == "an operator revoked it"


def test_an_end_that_the_program_wants_is_no_loss(clock: Clock) -> None:
    state = leading(clock)
    ends: list[bool] = []
    state.on_end = ends.append
    state.leaving = True
    state.end("it has resigned")
    assert ends == [False]
    assert not state.lost


def test_to_leave_what_is_lost_does_not_undo_the_loss(clock: Clock) -> None:
    state = leading(clock)
    state.end("an operator revoked it")
    state.leaving = True
    assert state.lost


def test_a_loss_while_the_program_looked_for_a_successor_is_reported(clock: Clock) -> None:
    state = leading(clock)
    ends: list[bool] = []
    state.on_end = ends.append
    state.leaving = True
    state.stay()
    assert not state.leaving
    state.leaving = True
    state.end("an operator revoked it")
    for _ in range(2):
        with pytest.raises(LeadershipEnded, match="an operator revoked it"):
            state.stay()
    assert ends == [False, True]
    assert state.lost


# -- the watchdog


def test_a_silent_program_is_not_renewed_and_a_check_revives_it(clock: Clock) -> None:
    state = leading(clock, watchdog_s=2)
    woken = threading.Event()
    state.wake = woken.set
    clock.wait(1.9)
    assert not state.is_silent()
    clock.wait(0.1)
    assert state.is_silent()
    assert not woken.is_set()
    state.check()
    assert woken.is_set()
    assert not state.is_silent()


def test_a_program_that_is_silent_for_too_long_has_lost_it(clock: Clock) -> None:
    state = leading(clock, watchdog_s=2)
    clock.wait(3)
    assert state.is_silent()
    clock.wait(2)
    with pytest.raises(LeadershipEnded, match="neither written nor checked"):
        state.check()


# -- the token


def test_tokens_compare_as_text_and_as_numbers_like_their_parts() -> None:
    tokens = [Token(1, 2, 3), Token(1, 2, 2**40 - 1), Token(1, 3, 0), Token(2, 1, 0), Token(2**64 - 1, 1, 1)]
    assert sorted(tokens) == tokens
    assert sorted(token.text for token in tokens) == [token.text for token in tokens]
    assert sorted(token.number for token in tokens) == [token.number for token in tokens]
    assert {len(token.text) for token in tokens} == {42}
    assert int(TOKEN.text, 16) == TOKEN.number == 9 << 104 | 2 << 40 | 30
    assert TOKEN.position == 2 << 40 | 30


@pytest.mark.parametrize("count", [1, 14, 15, 16, OPS_PER_UPDATE_MAX - 1])
def test_an_update_gets_the_token_as_its_last_operation(clock: Clock, count: int) -> None:
    ops = [[Op.DELETE, b"%d" % number] for number in range(count)]
    signed = leading(clock, lineage=8).sign(pack_body(ops))
    assert unpack_body(signed) == [*ops, [Op.TOKEN, 2, 30, SECRET, 8]]
    assert signed == pack_body(unpack_body(signed))


@pytest.mark.parametrize("count", [0, 15, 16, 65_535, 65_536])
def test_the_header_of_an_array_is_as_msgpack_makes_it(count: int) -> None:
    assert array_header(count) == msgpack.Packer().pack_array_header(count)


def test_an_update_that_is_full_has_no_place_for_a_token(clock: Clock) -> None:
    body = pack_body([[Op.DELETE, b""]] * OPS_PER_UPDATE_MAX)
    with pytest.raises(SaAisError) as refused:
        leading(clock).sign(body)
    assert refused.value.code == codes.NO_RESOURCES


# -- refusals


def test_a_refusal_with_another_lineage_means_that_data_may_be_lost(clock: Clock) -> None:
    state = leading(clock, lineage=8)
    state.take_refusal(error_of(codes.ACCESS, "the active replica was lost", -1, 9))
    assert state.data_may_be_lost
    assert state.lineage == 9
    assert not state.is_over


def test_a_refused_token_means_that_the_leadership_is_lost(clock: Clock) -> None:
    state = leading(clock)
    with pytest.raises(LeadershipEnded, match="now 'b' leads"):
        state.take_refusal(error_of(codes.ACCESS, "the leadership has ended; now 'b' leads"))
    assert state.is_over


def test_other_refusals_are_the_callers(clock: Clock) -> None:
    state = leading(clock)
    with pytest.raises(SaAisError) as refused:
        state.take_refusal(error_of(codes.NO_SPACE, "full"))
    assert refused.value.code == codes.NO_SPACE
    assert not state.is_over


def test_a_forked_child_does_not_lead(clock: Clock) -> None:
    state = leading(clock)
    lost = Lost(state)
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            state.check()
        except LeadershipEnded:
            outcome = 0 if lost.wait() else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    state.check()
    assert not lost.is_set()
