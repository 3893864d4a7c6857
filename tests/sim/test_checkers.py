"""Each checker finds what was planted for it, and agrees with a dumb one on small histories."""

from dataclasses import replace

import pytest
from detangle import lin
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.messages import Op
from ckptd.sim.checkers.checkers import (
    Subject,
    check_all,
    check_expirations,
    check_generated,
    check_not_done,
    check_order_by_brute_force,
    project,
)
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.checkers.linearizability import check_order
from ckptd.sim.checkers.model import State, state_after
from ckptd.sim.checkers.weak_order import check_weak_order

SYNC, ATOMIC, WEAK = SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK
IDS = (b"x", b"y")


def put(begin: int, end: int, *pairs: tuple[bytes, bytes], outcome: Outcome = Outcome.OK) -> Call:
    ops = [[Op.PUT, section_id, content, None] for section_id, content in pairs]
    return Call(0, begin, 1, Operation.UPDATE, ops, begin, end, outcome)


def create(begin: int, end: int, section_id: bytes, content: bytes, code: int = codes.OK) -> Call:
    call = Call(
        0, begin, 1, Operation.UPDATE, [[Op.CREATE, section_id, 2**63 - 1, content]], begin, end, Outcome.OK
    )
    return call if code == codes.OK else replace(call, outcome=Outcome.REFUSED, code=code, index=0)


def read(begin: int, end: int, ids: list[bytes], values: list[bytes]) -> Call:
    return Call(1, begin, 1, Operation.READ, ids, begin, end, Outcome.OK, codes.OK, -1, values)


def missing(begin: int, end: int, section_id: bytes) -> Call:
    return Call(1, begin, 1, Operation.READ, [section_id], begin, end, Outcome.REFUSED, codes.NOT_EXIST, 0)


def seen(begin: int, end: int, **sections: bytes) -> Call:
    result = {key.encode(): value for key, value in sections.items()}
    return Call(1, begin, 1, Operation.ITERATE, [], begin, end, Outcome.OK, codes.OK, -1, result)


def wrong(flags: int, calls: list[Call], losses: list[int] | None = None) -> list[str]:
    return check_all(Subject(b"t", 1, flags, IDS, False, losses or []), calls).wrong


GOOD = {
    "sequential": [put(0, 1, (b"x", b"1")), read(2, 3, [b"x"], [b"1"])],
    "concurrent, old value": [put(0, 1, (b"x", b"1")), put(2, 9, (b"x", b"2")), read(3, 4, [b"x"], [b"1"])],
    "concurrent, new value": [put(0, 1, (b"x", b"1")), put(2, 9, (b"x", b"2")), read(3, 4, [b"x"], [b"2"])],
    "unknown write that was done": [
        put(0, 1, (b"x", b"1"), outcome=Outcome.UNKNOWN),
        read(5, 6, [b"x"], [b"1"]),
    ],
    "unknown write that was not done": [
        put(0, 1, (b"x", b"1"), outcome=Outcome.UNKNOWN),
        missing(5, 6, b"x"),
    ],
    "two writers, readers agree": [
        put(0, 9, (b"x", b"1")),
        put(0, 9, (b"x", b"2")),
        read(3, 4, [b"x"], [b"1"]),
        read(5, 6, [b"x"], [b"2"]),
    ],
    "atomic": [put(0, 1, (b"x", b"1"), (b"y", b"1")), read(2, 3, [b"x", b"y"], [b"1", b"1"])],
    "create twice is refused": [create(0, 1, b"x", b"1"), create(2, 3, b"x", b"2", codes.EXIST)],
}

BAD = {
    "lost write": [put(0, 1, (b"x", b"1")), missing(2, 3, b"x")],
    "stale read": [put(0, 1, (b"x", b"1")), put(2, 3, (b"x", b"2")), read(4, 5, [b"x"], [b"1"])],
    "read goes back": [
        put(0, 1, (b"x", b"1")),
        put(2, 9, (b"x", b"2")),
        read(3, 4, [b"x"], [b"2"]),
        read(5, 6, [b"x"], [b"1"]),
    ],
    "applied twice": [
        put(0, 1, (b"x", b"1")),
        put(2, 3, (b"x", b"2")),
        read(4, 5, [b"x"], [b"2"]),
        read(6, 7, [b"x"], [b"1"]),
    ],
    "half of an atomic update": [
        put(0, 1, (b"x", b"0"), (b"y", b"0")),
        put(2, 9, (b"x", b"1"), (b"y", b"1")),
        read(3, 4, [b"x", b"y"], [b"1", b"0"]),
    ],
    "two readers see two orders": [
        put(0, 9, (b"x", b"1")),
        put(0, 9, (b"y", b"1")),
        seen(2, 3, x=b"1"),
        seen(4, 5, y=b"1"),
    ],
    "value from nowhere": [put(0, 1, (b"x", b"1")), read(2, 3, [b"x"], [b"9"])],
    "refused without cause": [create(0, 1, b"x", b"1", codes.EXIST)],
    "refused retry of a create that was done": [
        create(0, 5, b"x", b"1", codes.EXIST),
        read(6, 7, [b"x"], [b"1"]),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_correct_history_is_explained(name: str) -> None:
    for flags in (SYNC, ATOMIC, WEAK):
        assert wrong(flags, GOOD[name]) == []
    assert check_order_by_brute_force(GOOD[name], ())


@pytest.mark.parametrize("name", BAD)
def test_a_planted_violation_is_found(name: str) -> None:
    assert wrong(SYNC, BAD[name])
    assert wrong(ATOMIC, BAD[name])
    assert not check_order_by_brute_force(BAD[name], ())


def test_weak_may_split_an_update_but_each_section_keeps_its_order() -> None:
    assert wrong(WEAK, BAD["half of an atomic update"]) == []
    assert wrong(WEAK, BAD["read goes back"])
    assert wrong(WEAK, BAD["lost write"])


def test_a_weak_checkpoint_shows_no_later_update_without_an_earlier_one_of_its_client() -> None:
    """R59: what a client did first is there, or corrupted, where what it did later is seen."""
    old, first = put(0, 1, (b"k0", b"<0.1>")), put(2, 3, (b"k0", b"<0.2>"))
    later = put(4, 5, (b"k1", b"<0.3>"))
    late = seen(20, 21, k0=b"<0.1>", k1=b"<0.3>")
    calls = [old, first, later, late]
    assert len(check_weak_order(calls, [10])) == 1
    assert not check_weak_order(calls, [4])  # The earlier one was lost, and the later made on what was left.
    assert not check_weak_order([*calls[:3], seen(20, 21, k0=b"<0.2>", k1=b"<0.3>")], [10])
    assert not check_weak_order([*calls[:3], replace(late, result={b"k0": None, b"k1": b"<0.3>"})], [10])
    assert not check_weak_order([old, first, replace(later, client=7), late], [10])


def test_a_suffix_may_be_lost_with_the_active_replica_and_nothing_else() -> None:
    writes = [put(0, 1, (b"x", b"1")), put(2, 3, (b"y", b"1")), put(4, 5, (b"x", b"2"))]
    assert wrong(ATOMIC, [*writes, seen(12, 13, x=b"1", y=b"1")], losses=[10]) == []
    assert wrong(ATOMIC, [*writes, seen(12, 13)], losses=[10]) == []
    assert wrong(ATOMIC, [*writes, seen(12, 13, x=b"2")], losses=[10]), "a hole is no suffix"
    assert wrong(ATOMIC, [*writes, seen(12, 13, x=b"1", y=b"1")], losses=[]), "nobody was lost"
    assert wrong(ATOMIC, [*writes, seen(6, 7, x=b"1", y=b"1"), seen(12, 13)], losses=[10]), "lost too early"


def test_what_was_lost_does_not_come_back() -> None:
    calls = [
        put(0, 1, (b"x", b"1")),
        put(2, 3, (b"x", b"2")),
        read(11, 12, [b"x"], [b"1"]),
        read(13, 14, [b"x"], [b"2"]),
    ]
    assert wrong(ATOMIC, calls, losses=[10])


def test_a_call_under_way_at_the_loss_may_be_done_again() -> None:
    calls = [
        put(0, 1, (b"x", b"1")),
        put(2, 20, (b"x", b"2")),
        read(4, 5, [b"x"], [b"2"]),
        read(11, 12, [b"x"], [b"1"]),
        read(21, 22, [b"x"], [b"2"]),
    ]
    assert wrong(ATOMIC, calls, losses=[10]) == []
    assert wrong(SYNC, calls)


def overwrite(begin: int, end: int, section_id: bytes, content: bytes) -> Call:
    """One that is refused, since there is no such section."""
    ops = [[Op.OVERWRITE, section_id, content]]
    return Call(0, begin, 1, Operation.UPDATE, ops, begin, end, Outcome.REFUSED, codes.NOT_EXIST, 0)


@pytest.mark.parametrize("flags", [ATOMIC, WEAK])
def test_a_call_that_was_done_before_the_loss_may_be_refused_after_it(flags: int) -> None:
    """Seed 77414280: a overwrites what b has; done there, seen there, lost with b, and refused by a."""
    calls = [
        put(0, 1, (b"x", b"1")),
        overwrite(2, 20, b"x", b"2"),
        read(4, 5, [b"x"], [b"2"]),
        missing(21, 22, b"x"),
    ]
    assert wrong(flags, calls, losses=[10]) == []
    assert wrong(flags, calls, losses=[]), "nobody was lost"
    assert wrong(flags, calls, losses=[3]), "it was lost before it was seen"
    assert wrong(flags, [*calls[:2], read(11, 12, [b"x"], [b"2"])], losses=[10]), "seen behind the loss"
    assert wrong(flags, [*calls[:3], read(21, 22, [b"x"], [b"2"])], losses=[10]), "and not undone"
    twice = [*calls[:3], read(11, 12, [b"x"], [b"1"]), read(13, 14, [b"x"], [b"2"]), missing(21, 22, b"x")]
    assert wrong(flags, twice, losses=[10])
    assert wrong(flags, twice, losses=[10, 15]) == [], "it was lost a second time"


@pytest.mark.parametrize("flags", [ATOMIC, WEAK])
def test_a_call_that_was_done_before_the_loss_may_be_answered_try_again_after_it(flags: int) -> None:
    calls = [
        put(2, 20, (b"x", b"2"), outcome=Outcome.NOT_DONE),
        read(4, 5, [b"x"], [b"2"]),
        missing(21, 22, b"x"),
    ]
    assert wrong(flags, calls, losses=[10]) == []
    assert check_not_done(calls, [10]) == []
    assert wrong(flags, calls, losses=[]) and check_not_done(calls, [])
    late = [calls[0], read(21, 22, [b"x"], [b"2"])]
    assert wrong(flags, late, losses=[10]) and check_not_done(late, [10])


@pytest.mark.parametrize("fragments", [True, False])
def test_a_call_under_way_at_the_loss_may_have_been_done_and_leave_its_section_corrupted(
    fragments: bool,
) -> None:
    """Seed 7117529: a part of its batch came through, with its answer."""
    write = Call(0, 2, 1, Operation.UPDATE, [[Op.PATCH, b"x", 3, b"2", None]], 2, 9, Outcome.OK)
    corrupted = Call(1, 3, 1, Operation.READ, [b"x"], 10, 11, Outcome.REFUSED, codes.FAILED_OPERATION, 0)
    subject = Subject(b"t", 1, WEAK, IDS, False, [5], fragments=fragments)
    assert bool(check_all(subject, [put(0, 1, (b"x", b"1")), write, corrupted]).wrong) == (not fragments)
    never = Subject(b"t", 1, WEAK, IDS, False, [], fragments=fragments)
    assert check_all(never, [put(0, 1, (b"x", b"1")), write, corrupted]).wrong


def test_a_refused_update_of_many_sections_may_have_shown_on_each_before_the_loss() -> None:
    """A weak checkpoint's sections are judged one by one; the index of the refusal is of the whole call."""
    ops = [[Op.PUT, b"x", b"2", None], [Op.OVERWRITE, b"y", b"2"]]
    both = Call(0, 2, 1, Operation.UPDATE, ops, 2, 20, Outcome.REFUSED, codes.NOT_EXIST, 1)
    calls = [put(0, 1, (b"y", b"1")), both, read(4, 5, [b"x"], [b"2"]), missing(21, 22, b"y")]
    assert wrong(WEAK, calls, losses=[10]) == []
    assert wrong(WEAK, calls, losses=[3])
    assert wrong(WEAK, [*calls[:2], read(21, 22, [b"x"], [b"2"])], losses=[10])


def test_a_create_with_a_generated_id_that_was_done_twice_is_found() -> None:
    made = create(0, 1, b"", b"v")
    made.result = [b"1"]
    both = Call(1, 2, 1, Operation.ITERATE, [], 2, 3, Outcome.OK, codes.OK, -1, {b"1": b"v", b"2": b"v"})
    assert check_generated([made, both], losses_ns=[])
    once = replace(both, result={b"1": b"v"})
    assert check_generated([made, once], losses_ns=[]) == []
    other = replace(both, result={b"2": b"v"})
    assert check_generated([made, other], losses_ns=[])
    none = replace(both, result={})
    assert check_generated([made, none], losses_ns=[])
    assert check_generated([made, none], losses_ns=[1]) == []


def test_a_section_that_went_before_its_time_is_found() -> None:
    write = Call(0, 0, 1, Operation.UPDATE, [[Op.PUT, b"x0", b"v", 100]], 0, 1, Outcome.OK)
    gone = Call(1, 2, 1, Operation.ITERATE, [], 50, 51, Outcome.OK, codes.OK, -1, {})
    assert check_expirations([write, gone], lambda world_ns: world_ns, 10)
    assert check_expirations([write, replace(gone, returned_ns=95)], lambda world_ns: world_ns, 10) == []
    assert (
        check_expirations([write, replace(gone, result={b"x0": b"v"})], lambda world_ns: world_ns, 10) == []
    )
    assert check_expirations([write, replace(gone, result={b"x0": b"w"})], lambda world_ns: world_ns, 10)


def test_a_write_that_was_answered_as_not_done_is_found() -> None:
    calls = [put(0, 1, (b"x", b"1"), outcome=Outcome.NOT_DONE), read(2, 3, [b"x"], [b"1"])]
    assert check_not_done(calls)
    assert check_not_done([calls[0], missing(2, 3, b"x")]) == []


def test_a_projection_keeps_what_is_known_of_the_section() -> None:
    call = project(put(0, 1, (b"x", b"1"), (b"y", b"2")), b"y")
    assert call is not None and call.arguments == [[Op.PUT, b"y", b"2", None]]
    call = project(read(0, 1, [b"x", b"y"], [b"1", b"2"]), b"y")
    assert call is not None and (call.arguments, call.result) == ([b"y"], [b"2"])
    assert project(put(0, 1, (b"x", b"1")), b"y") is None


@st.composite
def histories(draw: st.DrawFn, most: int = 5) -> list[Call]:
    """Some calls on two sections, at times and with results that may or may not fit."""
    calls: list[Call] = []
    values = [b"0"]
    for number in range(draw(st.integers(1, most))):
        begin = draw(st.integers(0, 2 * most))
        end = begin + draw(st.integers(0, 6))
        section_id = draw(st.sampled_from(IDS))
        kind = draw(st.sampled_from(("put", "both", "create", "delete", "read", "missing", "iterate")))
        value = b"%d" % (number + 1)
        outcome = draw(st.sampled_from((Outcome.OK, Outcome.OK, Outcome.UNKNOWN)))
        if kind == "put":
            calls.append(put(begin, end, (section_id, value), outcome=outcome))
            values.append(value)
        elif kind == "both":
            calls.append(put(begin, end, (b"x", value), (b"y", value), outcome=outcome))
            values.append(value)
        elif kind == "create":
            calls.append(
                create(begin, end, section_id, value, draw(st.sampled_from((codes.OK, codes.EXIST))))
            )
            values.append(value)
        elif kind == "delete":
            code = draw(st.sampled_from((codes.OK, codes.NOT_EXIST)))
            told = Outcome.OK if code == codes.OK else Outcome.REFUSED
            calls.append(
                Call(0, begin, 1, Operation.UPDATE, [[Op.DELETE, section_id]], begin, end, told, code, 0)
            )
        elif kind == "read":
            calls.append(read(begin, end, [section_id], [draw(st.sampled_from(values))]))
        elif kind == "missing":
            calls.append(missing(begin, end, section_id))
        else:
            sections = draw(st.dictionaries(st.sampled_from(("x", "y")), st.sampled_from(values)))
            calls.append(seen(begin, end, **sections))
    return calls


@settings(max_examples=400, deadline=None, derandomize=True)
@given(histories())
def test_the_fast_checker_agrees_with_the_dumb_one(calls: list[Call]) -> None:
    verdict = check_order(calls, ())
    assert not verdict.undecided
    assert verdict.good == check_order_by_brute_force(calls, ())


class Sections(lin.Model):
    """A checkpoint for detangle's checker: the search is its own, and so are the rules of `OwnRules`."""

    def init(self) -> State:
        return ()

    def step(self, state: State, op: lin.Operation) -> tuple[bool, State]:
        after = state_after(op.arg, state)
        return (after is not None, state if after is None else after)


class OwnRules(lin.KV):
    """Its own table of keys, without our model, for calls on single sections."""

    def step(self, state: object, op: lin.Operation) -> tuple[bool, object]:
        if op.f == "delete" and op.status == "ok" and state in (None, ("__detangle_kv_init__",)):
            return op.output is False, state
        if op.f == "delete" and op.output is False:
            return False, state
        legal, after = super().step(state, op)
        return bool(legal), after


def operations(calls: list[Call], own: bool) -> list[lin.Operation]:
    """The history as detangle takes it."""
    found = []
    for index, call in enumerate(calls):
        decided = call.outcome in (Outcome.OK, Outcome.REFUSED)
        name, argument, output = in_own_words(call) if own else ("call", call, None)
        status, ended = ("ok", call.returned_ns) if decided else ("info", None)
        found.append(
            lin.Operation(index, call.client, name, argument, call.invoked_ns, 0.0, output, status, ended)
        )
    return found


def in_own_words(call: Call) -> tuple[str, object, object]:
    refused = call.outcome == Outcome.REFUSED
    if call.operation == Operation.READ:
        return "get", call.arguments[0], None if refused else call.result[0]
    if call.arguments[0][0] == Op.DELETE:
        return "delete", call.arguments[0][1], not refused
    return "put", (call.arguments[0][1], call.arguments[0][2]), None


def simple(call: Call) -> bool:
    """Whether the call is one that a plain table of keys knows."""
    one = len(call.arguments) == 1
    return one and (
        call.operation == Operation.READ
        or (call.operation == Operation.UPDATE and call.arguments[0][0] != Op.CREATE)
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(histories(most=9))
def test_the_fast_checker_agrees_with_an_independent_search(calls: list[Call]) -> None:
    """On longer histories than the dumb checker can do. The rules of a call are ours in both."""
    verdict = check_order(calls, ())
    assert not verdict.undecided
    assert verdict.good == lin.check(operations(calls, own=False), Sections()).ok


@settings(max_examples=400, deadline=None, derandomize=True)
@given(histories(most=9))
def test_the_fast_checker_and_its_model_agree_with_independent_ones(calls: list[Call]) -> None:
    """On calls that name one section each, where the other's rules know what we know."""
    some = [call for call in calls if simple(call)]
    assert check_order(some, ()).good == lin.check(operations(some, own=True), OwnRules()).ok


def test_what_one_loss_took_may_come_back_only_where_a_node_continued_without_proof() -> None:
    """Seed 21530: the fenced side's loss, and the other went on with what it had been left behind with."""
    calls = [
        put(1, 2, (b"x", b"1")),
        put(3, 4, (b"x", b"2")),
        read(6, 7, [b"x"], [b"1"]),
        put(8, 9, (b"x", b"3")),
        read(12, 13, [b"x"], [b"2"]),
    ]
    assert wrong(ATOMIC, calls, [5, 10])
    forked = Subject(b"t", 1, ATOMIC, IDS, False, [5, 10], fork_ns=10)
    assert check_all(forked, calls).wrong == []
    assert check_all(forked, [*calls[:2], read(6, 7, [b"x"], [b"0"]), *calls[3:]]).wrong


def test_what_a_node_had_staged_when_it_was_excluded_comes_back_when_it_continues_without_proof() -> None:
    """Seed 7267470: the other side did the update later in its order, and lost what it did in between."""
    calls = [
        put(1, 2, (b"x", b"1"), (b"y", b"1")),
        put(3, 9, (b"x", b"2")),  # Staged by the active replica, which is left behind at 5.
        put(6, 7, (b"y", b"2")),
        read(7, 8, [b"x", b"y"], [b"1", b"2"]),
        read(22, 23, [b"x", b"y"], [b"2", b"1"]),
    ]
    assert wrong(SYNC, calls, [20])
    forked = Subject(b"t", 1, SYNC, IDS, False, [20], fork_ns=21, left_behind_ns=(5,))
    assert check_all(forked, calls).wrong == []
    elsewhere = Subject(b"t", 1, SYNC, IDS, False, [20], fork_ns=21, left_behind_ns=(10,))
    assert check_all(elsewhere, calls).wrong
    unwritten = [*calls[:4], read(22, 23, [b"x", b"y"], [b"3", b"1"])]
    assert check_all(forked, unwritten).wrong
