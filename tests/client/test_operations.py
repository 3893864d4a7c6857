"""The steps of an operation, without a connection: what it asks, and what it does with each answer."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from ckpt_client import CheckpointError, CheckpointKeyError
from ckpt_client.checkpoint.open_checkpoint import Reopen, TableStep
from ckpt_client.checkpoint.operations import Operation, Operations
from ckpt_client.errors import error_of
from ckpt_client.requests.table_requests import Attributes, ended, open_parameters
from ckpt_client.steps import Result, drive
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ACTIVE_REPLICA, SA_TIME_END
from ckpt_protocol.messages import Kind, Op

ATTRIBUTES = Attributes(SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED, 900, 10**9, 9, 100, 9)
DEAD = error_of(codes.BAD_HANDLE, "the session has ended")
NO_ACTIVE = error_of(codes.NOT_EXIST, "there is no active replica")
MISSING = error_of(codes.NOT_EXIST, "there is no such section", 0)


class Interrupted(BaseException):
    """As KeyboardInterrupt, which a test runner would take for itself."""


@pytest.fixture
def operations() -> Operations:
    """An open checkpoint."""
    opened = Operations("x", open_parameters("x", None, None, None, 0, 0, False), 10**9)
    opened.handle, opened.creation_id, opened.attributes = 7, 11, ATTRIBUTES
    return opened


def carry_out(
    operation: Operation[Result], answers: Iterable[Any]
) -> tuple[Result | BaseException, list[TableStep]]:
    """What an operation ends with, and its steps, if they are answered like this."""
    steps: list[TableStep] = []

    def answer(step: TableStep, left: Any) -> Any:
        steps.append(step)
        given = next(left)
        if isinstance(given, BaseException):
            raise given
        return given

    try:
        return drive(operation, answer, iter(answers)), steps
    except (CheckpointError, Interrupted) as error:
        return error, steps


def kinds(steps: list[TableStep]) -> list[Any]:
    """Each step in short: a request's kind and handle, or the handle that was lost."""
    return [("reopen", step.lost) if isinstance(step, Reopen) else step[:2] for step in steps]


def test_a_write_is_one_request(operations: Operations) -> None:
    outcome, steps = carry_out(operations.write_many({"k": "v"}, None), [None])
    assert outcome is None and kinds(steps) == [(Kind.UPDATE, 7)]
    assert isinstance(steps[0], tuple) and unpack_body(steps[0][2])[0][:2] == [Op.PUT, b"k"]


def test_wrong_arguments_are_refused_before_anything_is_asked(operations: Operations) -> None:
    outcome, steps = carry_out(operations.write_many({"k": 5}, None), [])  # type: ignore[dict-item]
    assert isinstance(outcome, CheckpointError) and outcome.code == codes.INVALID_PARAM and steps == []
    assert outcome.text.startswith("cannot write to checkpoint 'x': ")


class RowOfSqlite:
    """It has `keys`, but iterates over its values, and is no Mapping."""

    def keys(self) -> list[str]:
        return ["name", "age"]

    def __getitem__(self, key: str) -> str:
        return {"name": "ab", "age": "cd"}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["ab", "cd"])


def test_what_has_keys_is_written_as_a_dict_takes_it(operations: Operations) -> None:
    """The two characters of each value were taken for a key and its value."""
    outcome, steps = carry_out(operations.merge(RowOfSqlite(), {}), [None])  # type: ignore[arg-type]
    assert outcome is None and isinstance(steps[0], tuple)
    assert [op[1:3] for op in unpack_body(steps[0][2])] == [[b"name", b"ab"], [b"age", b"cd"]]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ([], codes.NOT_SUPPORTED),
        ([None], codes.SaAisErrorT.SA_AIS_ERR_LIBRARY),
        ([b"?"], codes.SaAisErrorT.SA_AIS_ERR_LIBRARY),
    ],
)
def test_no_item_is_taken_without_its_version(operations: Operations, more: list[Any], code: int) -> None:
    section = [b"k", SA_TIME_END, 1, 1, 0, b"v", *more]
    outcome, steps = carry_out(operations.popitem(), [[[section], None]])
    assert isinstance(outcome, CheckpointError) and outcome.code == code and len(steps) == 1


def test_a_time_until_expiry_counts_as_an_operation_and_the_refusal_says_so(operations: Operations) -> None:
    """It said that 6,000 sections were 10,002."""
    values = {str(number): "v" for number in range(6_000)}
    outcome, steps = carry_out(operations.write_many(values, None, 5), [])
    assert isinstance(outcome, CheckpointError) and outcome.code == codes.NO_RESOURCES and steps == []
    assert "expires_in" in outcome.text and "10002" not in outcome.text


def a_page(key: bytes, after: bytes | None, *position: int) -> list[Any]:
    return [[[key, SA_TIME_END, 1, 1, 0, b"v"]], after, *position]


def test_a_snapshot_moves_to_an_older_node_and_is_refused(operations: Operations) -> None:
    """It asked for ever: such a node never says that its answer is complete, and sends no values."""
    pages = [a_page(b"k", b"k", 5, 0), a_page(b"l", None, 6, 0)]
    outcome, steps = carry_out(operations.snapshot(), [*pages, [6, [[6, 3, b"k", 0, 1, 0]], 0]])
    assert isinstance(outcome, CheckpointError) and outcome.code == codes.NOT_SUPPORTED and len(steps) == 3
    outcome, _ = carry_out(operations.snapshot(), [[[], None]])
    assert isinstance(outcome, CheckpointError) and outcome.code == codes.NOT_SUPPORTED


def test_a_snapshot_begins_again_when_the_changes_do_not_reach_back(operations: Operations) -> None:
    pages = [a_page(b"k", b"k", 5, 0), a_page(b"l", None, 6, 0)]
    again = [a_page(b"m", None, 9, 0)]
    assert carry_out(operations.snapshot(), [*pages, [9, None, 0, True], None, *again])[0] == {b"m": b"v"}
    assert carry_out(operations.snapshot(), [*pages, [9, [], 7, True], None, *again])[0] == {b"m": b"v"}
    another = a_page(b"l", None, 6, 7)
    assert carry_out(operations.snapshot(), [pages[0], another, None, *again])[0] == {b"m": b"v"}


def test_a_call_in_a_session_that_has_ended_is_repeated_once(operations: Operations) -> None:
    outcome, steps = carry_out(operations.get("k", None), [DEAD, 8, [b"v"]])
    assert outcome == b"v" and kinds(steps) == [(Kind.READ, 7), ("reopen", 7), (Kind.READ, 8)]
    outcome, steps = carry_out(operations.get("k", None), [DEAD, 8, DEAD])
    assert isinstance(outcome, CheckpointError) and outcome.aspErrorCode is DEAD and len(steps) == 3


def test_a_checkpoint_that_is_gone_has_no_active_replica_to_be_made(operations: Operations) -> None:
    outcome, steps = carry_out(operations.get("k", None), [DEAD, ended("its name is free")])
    assert isinstance(outcome, CheckpointError) and outcome.code == codes.NOT_EXIST and len(steps) == 2


def test_without_an_active_replica_the_local_one_is_activated(operations: Operations) -> None:
    outcome, steps = carry_out(operations.get("k", None), [NO_ACTIVE, None, [b"v"]])
    assert outcome == b"v" and kinds(steps) == [(Kind.READ, 7), (Kind.ACTIVE_SET, 7), (Kind.READ, 7)]
    operations.auto_activate = False
    outcome, steps = carry_out(operations.get("k", None), [NO_ACTIVE])
    assert isinstance(outcome, CheckpointError) and outcome.aspErrorCode is NO_ACTIVE


def test_a_session_that_ends_during_an_activation_is_replaced_too(operations: Operations) -> None:
    outcome, steps = carry_out(operations.contains("k"), [NO_ACTIVE, DEAD, 8, None, None])
    assert outcome is True
    assert kinds(steps)[1:4] == [(Kind.ACTIVE_SET, 7), ("reopen", 7), (Kind.ACTIVE_SET, 8)]


def test_what_a_missing_section_means(operations: Operations) -> None:
    assert carry_out(operations.get("k", "default"), [MISSING])[0] == "default"
    assert carry_out(operations.contains("k"), [MISSING])[0] is False
    assert carry_out(operations.delete("k", missing_is_error=False), [MISSING])[0] is None
    assert isinstance(
        carry_out(operations.delete("k", missing_is_error=True), [MISSING])[0], CheckpointKeyError
    )


def test_a_call_begins_again_only_while_there_is_time(operations: Operations) -> None:
    conflict = error_of(codes.BAD_OPERATION, "has another version", 0, bytes(24))
    late = error_of(codes.TRY_AGAIN, "others write it")
    found = [[b"v", bytes(24)]]
    outcome, steps = carry_out(
        operations.pop("k", None, False), [found, conflict, None, found, conflict, late]
    )
    assert isinstance(outcome, CheckpointError) and outcome.code == codes.TRY_AGAIN
    assert [type(step).__name__ for step in steps] == ["tuple", "tuple", "BeginAgain"] * 2


def test_an_interrupt_ends_the_operation_where_it_waits(operations: Operations) -> None:
    interrupt = Interrupted()
    assert carry_out(operations.get("k", None), [interrupt])[0] is interrupt
    assert operations.handle == 7


def test_a_closed_table_asks_nothing(operations: Operations) -> None:
    operations.closed, operations.handle = True, 0
    for operation in (operations.status(), operations.unlink(), operations.delete("k", False)):
        outcome, steps = carry_out(operation, [])
        assert isinstance(outcome, CheckpointError) and outcome.code == codes.BAD_HANDLE and steps == []


@pytest.mark.parametrize("key", ["tea", b"tea", bytearray(b"t"), memoryview(b"t"), ""])
def test_one_key_is_no_list_of_keys(operations: Operations, key: Any) -> None:
    """`delete_many("tea")` deleted the sections `t`, `e` and `a`."""
    for operation in (operations.delete_many(key), operations.read_many(key)):
        ended, steps = carry_out(operation, [])
        assert isinstance(ended, CheckpointError) and ended.code == codes.INVALID_PARAM
        assert "as a list" in ended.text
        assert steps == []
