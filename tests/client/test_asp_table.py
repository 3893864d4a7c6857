"""`aspCheckpoint.Table` under `python -m ckpt_client.asp`: what ASP's own did (strict), and what ours does.

One test for each line of the table in docs/asp.md, with both of its columns.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, service, start

from ckpt_client import CheckpointError, Table
from ckpt_client.asp.asp_table import AspTable
from ckpt_client.asp.module_builder import make_modules
from ckpt_client.asp.strict_table import ATTEMPTS, StrictTable
from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
    SA_TIME_MAX,
    SA_TIME_ONE_SECOND,
)
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error
from ckptd.testing import LocalCluster

__all__ = ["service", "start"]

SYNC = SA_CKPT_WR_ALL_REPLICAS
ACTIVE = SA_CKPT_WR_ACTIVE_REPLICA
LACKING = ACTIVE | SA_CKPT_CHECKPOINT_COLLOCATED
"""A checkpoint that has no active replica until one is set."""


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(1, name="asp") as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def address(shared_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table here finds the node."""
    monkeypatch.setenv("CKPTD_ADDRESS", shared_cluster.address("a"))


@pytest.fixture(autouse=True)
def default(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SetAutoActivate` may change the class: it is undone."""
    monkeypatch.setattr(Table, "_auto_activate", True)


Make = Callable[..., Any]


def maker(kind: type[AspTable], request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes tables of one kind, of a name that no other test uses, and closes them."""
    made: list[AspTable] = []

    def make(rows: int = 10, flags: int = SYNC, *more: Any, **named: Any) -> AspTable:
        table = kind(named.pop("name", request.node.name), rows, 100, 20, flags, *more, **named)
        made.append(table)
        return table

    yield make
    for table in made:
        table.close()


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes tables as they are without --strict."""
    yield from maker(AspTable, request)


@pytest.fixture
def strict(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes tables as they are with --strict."""
    yield from maker(StrictTable, request)


@pytest.fixture(params=[AspTable, StrictTable])
def either(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes tables of each kind, in turn."""
    yield from maker(request.param, request)


def refusal(call: Callable[..., Any], *arguments: Any) -> str:
    """The code with which a call fails, by the idioms of Python 2, and without its prefix."""
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    error = caught.value
    assert error[0] == error.aspErrorCode[0] == error.errCode
    assert error.aspErrorCode.args == (error[0],)
    name: str = make_modules()["aspMisc"].getErrorString(error[0])
    assert str(error) == f"{error.text}: Return code '{name}' "
    return name.removeprefix("SA_AIS_ERR_")


# -- the constructor


def test_the_attributes_have_asps_names(either: Make) -> None:
    table = either(rows=10)
    assert isinstance(table, Table)
    assert (table.maxSections, table.maxSectionSizeBytes, table.maxSectionIdSizeBytes) == (10, 100, 20)
    assert (table.flags, table.retentionMs, table.sectionExpiration) == (SYNC, SA_TIME_MAX, SA_TIME_END)
    assert (table.autoActivate, table.tryAgainDelayMs) == (True, 250)
    assert table.svcHdl > 0 and table.ckptHdl > 0


def test_both_families_of_keywords_are_accepted(either: Make, request: pytest.FixtureRequest) -> None:
    kind = type(either())
    limits = {"maxSections": 10, "maxSectionSizeBytes": 100, "maxSectionIdSizeBytes": 20}
    with kind(request.node.name, **limits) as table:
        assert table.maxSections == 10


def test_any_name_is_legal_and_other_attributes_are_not(either: Make) -> None:
    either(name="no distinguished name")
    assert refusal(lambda: either(name="no distinguished name", rows=11)) == "EXIST"
    assert refusal(lambda: either(10, SYNC, 5000, name="no distinguished name")) == "EXIST"


def test_retention_is_milliseconds(ours: Make) -> None:
    table = ours(10, SYNC, 5000)
    assert table.retentionMs == 5000
    assert table.attributes.retention_ns == 5 * SA_TIME_ONE_SECOND
    assert refusal(lambda: ours(10, SYNC, SA_TIME_MAX // 10**6 + 1, name="too long")) == "INVALID_PARAM"


def test_strict_retention_is_read_as_nanoseconds(strict: Make) -> None:
    table = strict(10, SYNC, 5000)
    assert table.retentionMs == 5000
    assert table.attributes.retention_ns == 5000
    table = strict(10, SYNC, retentionMs=SA_TIME_MAX - 1, name="very long")
    assert table.attributes.retention_ns == SA_TIME_MAX - 1
    assert refusal(lambda: strict(10, SYNC, -1, name="negative")) == "INVALID_PARAM"


@pytest.mark.parametrize("retention", [SA_TIME_MAX, SA_TIME_END])
def test_for_ever_is_for_ever(either: Make, retention: int) -> None:
    assert either(10, SYNC, retention).attributes.retention_ns == SA_TIME_MAX


# -- writing


def test_write_of_one_section_creates_it_and_truncates(either: Make) -> None:
    table = either()
    table.Write("k", "a long value")
    table.Write("k", "short")
    assert table.Read(["k"]) == b"short"


def test_write_of_a_list_never_truncates(either: Make) -> None:
    table = either()
    table.Write("k", "12345")
    table.Write("l", "12345")
    table.Write([("k", "ab"), ("l", "1234567")])
    assert table.Read(["k", "l"]) == [b"ab345", b"1234567"]


def test_update_replaces_as_setting_each_key_does(either: Make) -> None:
    """As one atomic update it was a `Write` of several, and kept the tails of longer old values."""
    table = either()
    table.Write("k", "12345")
    table.Write("l", "12345")
    table.update({"k": "ab"}, l="cd")
    table |= {"m": "ef"}
    assert table.read_all() == {b"k": b"ab", b"l": b"cd", b"m": b"ef"}


def test_write_of_a_list_creates_missing_sections_or_none(ours: Make) -> None:
    table = ours(rows=2)
    table.Write([("k", "one"), ("l", "two")])
    assert table.read_all() == {b"k": b"one", b"l": b"two"}
    assert refusal(table.Write, [("k", "three"), ("m", "no room")]) == "NO_SPACE"
    assert table.Read(["k"]) == b"one"


def test_strict_write_of_a_list_creates_nothing(strict: Make) -> None:
    table = strict()
    table.Write("k", "one")
    assert refusal(table.Write, [("k", "two"), ("missing", "two")]) == "NOT_EXIST"
    assert table.read_all() == {b"k": b"one"}


def test_write_of_a_mapping(ours: Make) -> None:
    table = ours()
    table.Write({"k": "one", "l": "two"})
    assert table.Read(["k", "l"]) == [b"one", b"two"]


@pytest.mark.parametrize("values", [{"k": "two"}, (("k", "two"),), None, 7])
def test_strict_write_takes_only_a_list(strict: Make, values: Any) -> None:
    table = strict()
    table.Write("k", "one")
    assert refusal(table.Write, values) == "INVALID_PARAM"
    assert table.Read(["k"]) == b"one"


def test_write_of_nothing_makes_an_empty_section(ours: Make) -> None:
    table = ours()
    table.Write("k", "")
    assert table.Read(["k"]) == b""


def test_strict_write_of_nothing_is_refused(strict: Make, capsys: pytest.CaptureFixture[str]) -> None:
    table = strict()
    assert refusal(table.Write, "k", "") == "INVALID_PARAM"
    capsys.readouterr()
    assert refusal(table.Write, "k") == "INVALID_PARAM"
    assert capsys.readouterr().out.count("\n") == 1
    assert table.read_all() == {}


def test_strict_sections_never_expire(strict: Make) -> None:
    """ASP kept `sectionExpiration` and gave it to nobody."""
    table = strict()
    table.sectionExpiration = 1
    table.Write("k", "v")
    assert [section.expiration_ns for section in table.sections()] == [SA_TIME_END]


def test_a_full_table_has_no_space(either: Make) -> None:
    table = either(rows=2)
    table.Write("k", "v")
    table.Write("l", "v")
    assert refusal(table.Write, "m", "v") == "NO_SPACE"


def test_text_and_bytes_go_in_and_bytes_come_out(either: Make) -> None:
    table = either()
    for key, value in (("k", "text"), (b"l", b"\x00\xff"), ("ключ", "значение")):
        table.Write(key, value)
    assert table.Read(["k", "l"]) == [b"text", b"\x00\xff"]
    assert table.Read(["ключ".encode()]) == "значение".encode()


# -- reading


def test_read_of_one_key_is_the_value_and_of_several_a_list(either: Make) -> None:
    table = either()
    table.Write("k", "one")
    table.Write("l", "two")
    assert table.Read(["k"]) == b"one"
    assert table.Read(["l", "k", "l"]) == [b"two", b"one", b"two"]


def test_read_of_nothing_and_of_a_missing_key_fail(either: Make) -> None:
    table = either()
    table.Write("k", "one")
    assert refusal(table.Read, []) == "INVALID_PARAM"
    assert refusal(table.Read, ["k", "missing"]) == "NOT_EXIST"


def test_read_of_a_key_that_is_no_list(ours: Make) -> None:
    table = ours()
    table.Write("k", "one")
    assert table.Read("k") == b"one"


def test_strict_read_takes_only_a_list(strict: Make, capsys: pytest.CaptureFixture[str]) -> None:
    table = strict()
    table.Write("k", "one")
    capsys.readouterr()
    assert refusal(table.Read, "k") == "INVALID_PARAM"
    assert capsys.readouterr().out.count("\n") == 1
    assert refusal(table.Read, ("k",)) == "INVALID_PARAM"


# -- deleting


def test_delete_of_a_missing_key_is_fine(ours: Make) -> None:
    table = ours()
    table.Write("k", "v")
    table.Delete("k")
    table.Delete("k")
    assert table.read_all() == {}


def test_strict_delete_of_a_missing_key_raises(strict: Make) -> None:
    table = strict()
    table.Write("k", "v")
    table.Delete("k")
    assert table.read_all() == {}
    assert refusal(table.Delete, "k") == "NOT_EXIST"


def test_delete_with_one_row_does_nothing(either: Make) -> None:
    table = either(rows=1)
    table.Write("", "v")
    table.Delete("")
    table.Delete("other")
    assert table.Read([""]) == b"v"


# -- one row


def test_with_one_row_every_key_names_it(ours: Make) -> None:
    table = ours(rows=1)
    table.Write("k", "v")
    assert table.Read(["other"]) == table.Read([""]) == b"v"


def test_strict_with_one_row_only_the_empty_key_names_it(
    strict: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """ASP took the other key's NOT_EXIST for an active replica that is missing."""
    table = strict(rows=1)
    table.Write("", "v")
    capsys.readouterr()
    assert refusal(table.Write, "k", "w") == "NOT_EXIST"
    assert capsys.readouterr().out.count("needs no active replica") == ATTEMPTS
    assert refusal(table.Read, ["k"]) == "NOT_EXIST"
    assert table.Read([""]) == b"v"


# -- no active replica


@pytest.mark.parametrize("first", ["Read", "Delete", "Write"])
def test_with_auto_activation_each_call_activates(ours: Make, first: str) -> None:
    table = ours(10, LACKING)
    assert table.GetActiveStatus() is False
    if first == "Read":
        assert refusal(table.Read, ["k"]) == "NOT_EXIST"
    elif first == "Delete":
        table.Delete("k")
    else:
        table.Write("k", "v")
    assert table.GetActiveStatus() is True


def test_strict_auto_activation_is_for_read_and_delete(strict: Make) -> None:
    table = strict(10, LACKING)
    assert refusal(table.Write, "k", "v") == "NOT_EXIST"
    assert refusal(table.Write, [("k", "v")]) == "NOT_EXIST"
    assert table.GetActiveStatus() is False
    assert refusal(table.Read, ["k"]) == "NOT_EXIST"
    assert table.GetActiveStatus() is True
    table.Write("k", "v")
    assert table.Read(["k"]) == b"v"


def test_strict_delete_activates(strict: Make) -> None:
    table = strict(10, LACKING)
    assert refusal(table.Delete, "k") == "NOT_EXIST"
    assert table.GetActiveStatus() is True


def test_strict_write_with_one_row_activates(strict: Make) -> None:
    """Since there it had no section to create."""
    table = strict(1, LACKING)
    table.Write("", "v")
    assert table.Read([""]) == b"v"


def test_without_auto_activation_calls_fail(either: Make) -> None:
    table = either(10, LACKING)
    table.SetAutoActivate(False)
    for call in (lambda: table.Read(["k"]), lambda: table.Delete("k"), lambda: table.Write("k", "v")):
        assert refusal(call) == "NOT_EXIST"
    assert table.GetActiveStatus() is False
    table.Activate()
    assert table.GetActiveStatus() is True
    table.Write("k", "v")


def test_strict_without_auto_activation_one_row_is_not_written(strict: Make) -> None:
    table = strict(1, LACKING)
    table.SetAutoActivate(False)
    assert refusal(table.Write, "", "v") == "NOT_EXIST"
    assert table.GetActiveStatus() is False


def test_auto_activation_is_set_for_this_table_and_later_ones(ours: Make) -> None:
    first = ours()
    first.SetAutoActivate(False)
    assert (first.autoActivate, ours(name="later").autoActivate) == (False, False)
    first.SetAutoActivate()
    assert (first.autoActivate, ours(name="latest").autoActivate) == (True, True)


def test_strict_auto_activation_is_set_for_this_table(strict: Make) -> None:
    first = strict()
    first.SetAutoActivate(False)
    assert (first.autoActivate, strict(name="later").autoActivate) == (False, True)
    first.SetAutoActivate()
    assert first.autoActivate is True


# -- replicas


def test_activate_and_synchronize_of_a_synchronous_table_are_a_line_of_log(
    ours: Make, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ours()
    with caplog.at_level(logging.INFO, "aspCheckpoint"):
        table.Activate()
        table.Synchronize()
    assert len(caplog.records) == 2
    assert capsys.readouterr().out == ""


def test_strict_activate_and_synchronize_of_a_synchronous_table_print_a_notice(
    strict: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    table = strict()
    capsys.readouterr()
    table.Activate()
    table.Synchronize()
    assert capsys.readouterr().out.splitlines() == [
        "a synchronous checkpoint needs no active replica",
        "a synchronous checkpoint needs no synchronization",
    ]


def test_activate_of_what_is_not_collocated_is_a_bad_operation(either: Make) -> None:
    assert refusal(either(10, ACTIVE).Activate) == "BAD_OPERATION"


def test_the_active_status_of_a_table_that_cannot_lack_one(either: Make) -> None:
    assert either().GetActiveStatus() is True


def test_synchronize_an_asynchronous_table(either: Make) -> None:
    table = either(10, ACTIVE)
    table.Write("k", "v")
    table.Synchronize()
    table.Synchronize(10 * SA_TIME_ONE_SECOND)


def test_strict_synchronize_takes_nanoseconds(strict: Make) -> None:
    assert refusal(strict(10, ACTIVE).Synchronize, -1) == "INVALID_PARAM"


# -- retries and output


def refuse_next(node: FakeNode, code: int, times: int) -> list[Frame]:
    """The node answers that many reads with a code; those that came so far."""
    seen: list[Frame] = []

    def misbehave(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind != Kind.READ:
            return False
        seen.append(frame)
        if len(seen) > times:
            return False
        link.answer(frame.a, answer_error(code, "not now"))
        return True

    node.misbehave = misbehave
    return seen


def test_a_timeout_is_raised(start: Start) -> None:
    node = start()
    with AspTable("x", 10, 100, 20, address=node.url) as table:
        table.Write([("k", "v")])
        seen = refuse_next(node, codes.TIMEOUT, 1)
        assert refusal(table.Read, ["k"]) == "TIMEOUT"
        assert len(seen) == 1


def test_strict_a_timeout_is_repeated_at_once(start: Start) -> None:
    """Five attempts in all."""
    node = start()
    with AspTable("x", 10, 100, 20, address=node.url) as writer:
        writer.Write([("k", "v")])
        with StrictTable("x", 10, 100, 20, address=node.url) as table:
            seen = refuse_next(node, codes.TIMEOUT, ATTEMPTS - 1)
            assert table.Read(["k"]) == b"v"
            assert len(seen) == ATTEMPTS == 5
            seen = refuse_next(node, codes.TIMEOUT, ATTEMPTS)
            assert refusal(table.Read, ["k"]) == "TIMEOUT"
            assert len(seen) == ATTEMPTS


@pytest.mark.parametrize("kind", [AspTable, StrictTable])
def test_try_again_is_repeated(start: Start, kind: type[AspTable]) -> None:
    """Where ASP crashed."""
    node = start()
    with AspTable("x", 10, 100, 20, address=node.url) as writer:
        writer.Write([("k", "v")])
        with kind("x", 10, 100, 20, address=node.url) as table:
            table.tryAgainDelayMs = 0
            seen = refuse_next(node, codes.TRY_AGAIN, 20)
            assert table.Read(["k"]) == b"v"
            assert len(seen) == 21


@pytest.mark.parametrize("code", [codes.INVALID_PARAM, codes.NO_RESOURCES])
def test_strict_another_error_is_not_repeated(start: Start, code: int) -> None:
    node = start()
    with StrictTable("x", 10, 100, 20, address=node.url) as table:
        seen = refuse_next(node, code, 10)
        refusal(table.Read, ["k"])
        assert len(seen) == 1


def test_nothing_is_printed(ours: Make, capsys: pytest.CaptureFixture[str]) -> None:
    table = ours()
    table.Write("k", "v")
    table.Read(["k"])
    table.Delete("k")
    assert capsys.readouterr().out == ""


def test_strict_prints_as_it_goes(strict: Make, capsys: pytest.CaptureFixture[str]) -> None:
    table = strict(10, LACKING)
    assert capsys.readouterr().out.startswith("opening checkpoint ")
    refusal(table.Read, ["k"])
    assert capsys.readouterr().out == "the checkpoint has no active replica\n"
    table.Write("k", "v")
    assert (
        capsys.readouterr().out == "the section does not exist: creating it\nthe section has been written\n"
    )
    table.Write("k", "v")
    assert capsys.readouterr().out == "the section has been written\n"


def test_strict_tables_have_what_ours_have(strict: Make) -> None:
    table = strict()
    table["k"] = "v"
    assert (table["k"], dict(table.items()), len(table)) == (b"v", {b"k": b"v"}, 1)
    del table["k"]
    assert "k" not in table


def test_strict_calls_take_asps_arguments_alone(strict: Make) -> None:
    table = strict()
    for call in (lambda: table.Write("k", "v", expiration=5), lambda: table.Read(["k"], timeout=5)):
        with pytest.raises(TypeError):
            call()
