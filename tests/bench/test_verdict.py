"""What judges a load finds what was planted for it."""

from collections import Counter

import pytest
from bench.load.recorded import Recorder, outcome_of, patch, put
from bench.load.verdict import Entry, runs_of_loss
from bench.load.watch import Sample, never_back, one_view_each

from ckpt_client import CheckpointError
from ckpt_client.errors import error_of
from ckpt_protocol import codes
from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome


def entry(number: int, *held: bytes, outcome: Outcome = Outcome.OK) -> Entry:
    """Pair `number` of the ledger, where the sections `held` are there."""
    value = b"v%d" % number
    ops = [put(b"1.%d.%s" % (number, side), value) for side in (b"a", b"b")]
    call = Call(1, number, 0, Operation.UPDATE, ops, number, number + 1, outcome)
    return Entry.of(call, {b"1.%d.%s" % (number, side): value for side in held}, {})


def created(told: bytes, held: dict[bytes, bytes]) -> Entry:
    """A section with a generated id, where `held` is there."""
    call = Call(1, 1, 0, Operation.UPDATE, [[Op.CREATE, b"", 0, b"v"]], 1, 2, Outcome.OK, result=[told])
    return Entry.of(call, held, Counter(held.values()))


def test_an_entry_that_is_whole_is_right() -> None:
    assert entry(1, b"a", b"b").wrong(whole=True, lossy=False) == []
    assert entry(1, b"a", b"b").there


def test_half_of_an_atomic_entry_is_found() -> None:
    assert entry(1, b"a").wrong(whole=True, lossy=True)
    assert entry(1, b"a").wrong(whole=False, lossy=True) == []


def test_an_entry_that_was_answered_as_not_done_is_found() -> None:
    assert entry(1, b"a", b"b", outcome=Outcome.NOT_DONE).wrong(whole=True, lossy=False)
    assert entry(1, outcome=Outcome.NOT_DONE).wrong(whole=True, lossy=False) == []
    assert entry(1, b"a", b"b", outcome=Outcome.UNKNOWN).wrong(whole=True, lossy=False) == []


def test_a_section_that_was_created_twice_is_found() -> None:
    assert created(b"1", {b"1": b"v"}).wrong(whole=True, lossy=False) == []
    assert created(b"1", {b"1": b"v", b"2": b"v"}).wrong(whole=True, lossy=True)


def test_another_section_under_the_returned_id_is_found() -> None:
    assert created(b"1", {b"1": b"w"}).wrong(whole=True, lossy=False)


def test_each_run_of_lost_entries_counts_once() -> None:
    kept, lost = entry(1, b"a", b"b"), entry(2)
    unknown = entry(3, outcome=Outcome.UNKNOWN)
    assert runs_of_loss([kept, kept]) == 0
    assert runs_of_loss([kept, lost, unknown, lost, kept]) == 1
    assert runs_of_loss([kept, lost, kept, lost]) == 2


@pytest.mark.parametrize(
    ("code", "index", "outcome"),
    [
        (codes.NOT_EXIST, 0, Outcome.REFUSED),
        (codes.NOT_EXIST, -1, Outcome.UNKNOWN),
        (codes.TRY_AGAIN, -1, Outcome.NOT_DONE),
        (codes.UNAVAILABLE, -1, Outcome.NOT_DONE),
        (codes.TIMEOUT, -1, Outcome.UNKNOWN),
        (codes.BAD_HANDLE, -1, Outcome.UNKNOWN),
    ],
)
def test_a_code_says_what_the_caller_knows(code: int, index: int, outcome: Outcome) -> None:
    assert outcome_of(code, index) == outcome


def test_a_failed_call_is_recorded_with_its_times_and_raises() -> None:
    recorder = Recorder(1, 2)
    with pytest.raises(CheckpointError), recorder.record(Operation.UPDATE, [patch(b"k", b"v")]):
        raise CheckpointError(error_of(codes.TIMEOUT), "cannot")
    (call,) = recorder.calls
    assert call.outcome == Outcome.UNKNOWN
    assert 0 < call.invoked_ns <= call.returned_ns
    assert len(recorder.errors) == 1


def sample(node: str, asked: int, epoch: int, members: str = "abc", serving: bool = True) -> Sample:
    return Sample(node, asked, asked + 1, epoch, tuple(members), serving)


def test_a_node_that_serves_in_an_older_view_than_another_did_is_found() -> None:
    assert never_back([sample("a", 0, 1), sample("b", 5, 2), sample("a", 9, 1)])
    assert never_back([sample("a", 0, 1), sample("b", 5, 2), sample("a", 9, 1, serving=False)]) == []
    assert never_back([sample("a", 0, 1), sample("a", 5, 1), sample("b", 5, 2)]) == [], "at the same time"


def test_one_epoch_with_two_memberships_is_found() -> None:
    assert one_view_each([sample("a", 0, 1), sample("b", 0, 1, "ab")])
    assert one_view_each([sample("a", 0, 1), sample("b", 0, 2, "ab")]) == []
