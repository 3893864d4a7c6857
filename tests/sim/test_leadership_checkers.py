"""Each checker of leaderships finds what was planted for it; a right history passes."""

from dataclasses import replace

from ckpt_protocol import codes
from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.checkers.leaderships import (
    LeadershipHistory,
    SeenLeader,
    Term,
    Token,
    check_first_reads,
    check_leaderships,
    check_refusals,
    check_unlinks,
)
from ckptd.sim.checkers.open_close import DirectoryCall

ID = 7
NAME = b"t"
FIRST, SECOND = (1, 5), (1, 9)


def term(program: str, asked: int, token: Token | None = None, granted: int = 0, confirmed: int = 0) -> Term:
    """A client that asks to lead, waits from the next moment on, and is granted it if it has a token."""
    made = Term("client", program, NAME, ID, hash(program), 100, True, True, asked, asked + 1)
    return replace(made, token=token, granted_ns=granted, confirmed_ns=confirmed) if token else made


def put(begin: int, end: int, value: bytes, token: Token | None = None) -> Call:
    ops = [[Op.PUT, b"x", value, None]]
    return Call(0, begin, ID, Operation.UPDATE, ops, begin, end, Outcome.OK, token=token)


def read(begin: int, end: int, value: bytes) -> Call:
    return Call(1, begin, ID, Operation.ITERATE, [], begin, end, Outcome.OK, result={b"x": value})


def seen(begin: int, end: int, program: str, token: Token) -> SeenLeader:
    return SeenLeader(ID, token, program, begin, end)


def wrong(history: LeadershipHistory, *calls: Call) -> list[str]:
    return check_leaderships(history, calls, ID)


def two_in_turn() -> LeadershipHistory:
    """One leads from 10 to 30, then two from 40 to 60."""
    history = LeadershipHistory()
    history.terms = [term("one", 1, FIRST, 10, 30), term("two", 5, SECOND, 40, 60)]
    history.granted[ID] = {FIRST: ("one", 9), SECOND: ("two", 35)}
    history.seen = [seen(8, 10, "one", FIRST), seen(29, 31, "one", FIRST), seen(38, 40, "two", SECOND)]
    return history


# -- tokens


def test_a_right_history_passes() -> None:
    assert wrong(two_in_turn(), put(12, 20, b"1", FIRST), put(41, 45, b"2", SECOND), put(1, 2, b"0")) == []


def test_a_token_that_two_programs_have_is_found() -> None:
    history = two_in_turn()
    history.seen.append(seen(50, 51, "three", SECOND))
    assert "have one token" in wrong(history)[0]


def test_a_token_that_falls_is_found() -> None:
    history = two_in_turn()
    history.seen.append(seen(50, 51, "one", FIRST))
    assert "after 'two' has led" in wrong(history)[0]
    history.seen[-1] = seen(39, 51, "one", FIRST)
    assert wrong(history) == [], "it may have been asked before the second grant"


# -- writes


def test_a_write_under_an_earlier_token_after_a_grant_is_found() -> None:
    assert "acknowledged although 'two' leads" in wrong(two_in_turn(), put(41, 80, b"1", FIRST))[0]
    assert wrong(two_in_turn(), put(39, 80, b"1", FIRST)) == [], "it may be ordered before the grant"


def test_a_write_of_another_while_one_leads_is_found() -> None:
    assert "acknowledged although 'one' leads" in wrong(two_in_turn(), put(12, 20, b"0"))[0]
    assert wrong(two_in_turn(), put(12, 35, b"0")) == [], "it may be ordered after the first leadership"


def test_a_leadership_that_is_not_exclusive_lets_others_write() -> None:
    history = two_in_turn()
    history.terms[0].exclusive = False
    assert wrong(history, put(12, 20, b"0")) == []
    refused = replace(put(41, 42, b"0"), outcome=Outcome.NOT_DONE, code=codes.ACCESS)
    assert wrong(history, refused) == []


def test_a_duplicate_that_is_carried_out_after_a_refusal_is_found() -> None:
    history = LeadershipHistory(repeated=[(ID, "carried out")])
    assert check_refusals(history, lambda creation_id: False) == ["carried out"]
    assert check_refusals(history, lambda creation_id: creation_id == ID) == []


# -- turns


def test_one_that_leads_before_another_that_came_first_is_found() -> None:
    history = two_in_turn()
    history.terms.append(term("three", 2))
    assert ["'three'" in text for text in wrong(history)] == [True]
    history.terms[1].called_ns = 20
    assert wrong(history) == [], "the leader named it"
    history.terms[1].called_ns = 50
    history.terms[2].left_ns = 34
    assert wrong(history) == [], "the other one had left"


def test_one_that_asked_before_the_other_waited_may_lead_first() -> None:
    history = two_in_turn()
    history.terms.append(term("three", 5))
    assert wrong(history) == []


# -- first reads


def test_a_new_leader_that_reads_less_than_was_acknowledged_is_found() -> None:
    one, two = two_in_turn().terms
    calls = [put(12, 13, b"1", FIRST), put(14, 20, b"2", FIRST)]
    found = check_first_reads([(one, read(10, 11, b"")), (two, read(41, 42, b"1"))], calls, [b"x"])
    assert ["the new leader 'two'" in text for text in found] == [True]
    assert check_first_reads([(two, read(41, 42, b"2"))], calls, [b"x"]) == []
    late = put(14, 43, b"2", FIRST)
    assert check_first_reads([(two, read(41, 42, b"1"))], [calls[0], late], [b"x"]) == []


# -- unlink


def unlinks(*calls: DirectoryCall) -> list[str]:
    opens = [DirectoryCall(NAME, 0, 1, Outcome.OK, codes.OK, ID)]
    return check_unlinks(two_in_turn(), opens, calls)


def unlink(begin: int, end: int, secret: int = 0) -> DirectoryCall:
    return DirectoryCall(NAME, begin, end, Outcome.OK, codes.OK, ID, secret)


def test_an_unlink_by_another_while_one_leads_is_found() -> None:
    assert "while 'one' led it" in unlinks(unlink(12, 20))[0]
    assert unlinks(unlink(12, 20, hash("one"))) == []
    assert unlinks(unlink(12, 35)) == [], "it may be done after the first leadership"
    assert unlinks(unlink(12, 20), unlink(3, 4)) == [], "the name may mean another checkpoint by then"
