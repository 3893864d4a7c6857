"""`Table` over real sockets against a small service: every name of ASP's table, and Python's."""

import json
import logging
import math
from collections.abc import Iterator
from typing import Any

import pytest
from tests.client.fake_service import FakeNode, FakeService
from tests.client.fixtures import Start, service, start

import aspCheckpoint
from ckpt_client import CheckpointError, Table, codecs
from ckpt_client.requests.table_requests import Attributes
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_MAX
from ckpt_protocol.limits import SECTION_BYTES_MAX
from ckpt_protocol.messages import Kind

__all__ = ["service", "start"]

SYNC, ACTIVE, WEAK, COLLOCATED = 1, 2, 4, 8


@pytest.fixture(params=["unix", "tcp", "udp"])
def node(request: pytest.FixtureRequest, start: Start) -> FakeNode:
    """One node, by each way to reach it."""
    return start("a", request.param)


@pytest.fixture
def table(node: FakeNode) -> Iterator[Table]:
    """A table of 10 sections of 1000 bytes, ids of 20."""
    with Table("phones", 10, 1000, 20, address=node.url) as opened:
        yield opened


def refusal(code: int, call: Any, *arguments: Any, **named: Any) -> CheckpointError:
    """The error of a call that is to fail with `code`."""
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


# -- the constructor


def test_the_attributes_have_asps_names(table: Table) -> None:
    assert table.ckptName == "phones"
    assert (table.maxSections, table.maxSectionSizeBytes, table.maxSectionIdSizeBytes) == (10, 1000, 20)
    assert (table.flags, table.retentionMs, table.sectionExpiration) == (SYNC, SA_TIME_MAX, SA_TIME_END)
    assert (table.autoActivate, table.tryAgainDelayMs) == (True, 250)
    assert table.svcHdl > 0 and table.ckptHdl > 0
    assert table.node_id == "a"


@pytest.mark.parametrize(
    "limits",
    [
        {"maxRows": 4, "maxRowSizeBytes": 100, "maxRowKeySizeBytes": 8, "flagsp": ACTIVE},
        {"maxSections": 4, "maxSectionSizeBytes": 100, "maxSectionIdSizeBytes": 8, "flags": ACTIVE},
    ],
)
def test_both_keyword_families_create(limits: dict[str, Any], start: Start, service: FakeService) -> None:
    node = start()
    with Table("x", **limits, retentionMs=1500, address=node.url) as table:
        assert table.attributes == Attributes(ACTIVE, 400, 1_500_000_000, 4, 100, 8)
        assert table.retentionMs == 1500
    assert service.checkpoints[b"x"].attributes == [ACTIVE, 400, 1_500_000_000, 4, 100, 8]


def test_a_limit_under_both_names_is_refused(start: Start) -> None:
    refusal(codes.INVALID_PARAM, Table, "x", 1, 1, 1, maxSections=2, address=start().url)


@pytest.mark.parametrize("codec", ["json", json, codecs.pydantic, 5])
def test_a_codec_that_is_none_is_refused_at_once(codec: Any, start: Start) -> None:
    """The table opened, and its first write failed with "module 'json' has no attribute 'encode'"."""
    error = refusal(codes.INVALID_PARAM, Table, "x", 1, 1, 1, address=start().url, codec=codec)
    assert "`encode` and `decode`" in error.text


def test_a_callback_that_cannot_be_called_is_refused(table: Table) -> None:
    """The tracking began, and each change was nothing but an error in the log."""
    assert "callable" in refusal(codes.INVALID_PARAM, table.track, 5).text
    assert "callable" in refusal(codes.INVALID_PARAM, table.track_leader, "f").text


def test_an_existing_table_opens_without_its_attributes(table: Table, node: FakeNode) -> None:
    table.Write("k", b"v")
    with Table("phones", address=node.url) as again:
        assert again.Read("k") == b"v"
        assert again.attributes == table.attributes


def test_a_missing_table_without_attributes_does_not_exist(start: Start) -> None:
    refusal(codes.NOT_EXIST, Table, "nowhere", address=start().url)


def test_other_attributes_are_refused(table: Table, node: FakeNode) -> None:
    refusal(codes.EXIST, Table, "phones", 11, 1000, 20, address=node.url)


def test_a_read_only_table_reads_and_does_not_write(table: Table, node: FakeNode) -> None:
    table.Write("k", "v")
    with Table("phones", read_only=True, address=node.url) as reader:
        assert reader["k"] == b"v"
        refusal(codes.ACCESS, reader.Write, "k", "w")
    refusal(codes.INVALID_PARAM, Table, "phones", 10, 1000, 20, read_only=True, address=node.url)


def test_some_limits_are_too_few(start: Start) -> None:
    refusal(codes.INVALID_PARAM, Table, "x", 10, 1000, address=start().url)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", codes.INVALID_PARAM),
        ("a\0b", codes.INVALID_PARAM),
        (b"\xff", codes.INVALID_PARAM),
        ("\ud800", codes.INVALID_PARAM),
        (5, codes.INVALID_PARAM),
        (None, codes.INVALID_PARAM),
        ("é" * 1025, codes.TOO_BIG),
    ],
)
def test_bad_names_are_refused_without_asking(name: Any, code: int, start: Start) -> None:
    node = start()
    refusal(code, Table, name, 1, 1, 1, address=node.url)
    assert node.received == []


def test_the_longest_name_is_fine(start: Start) -> None:
    with Table("é" * 1024, 1, 10, 1, address=start().url) as table:
        assert len(table) == 1


@pytest.mark.parametrize(
    "retention_ms", [-1, SA_TIME_MAX // 10**6 + 1, SA_TIME_MAX - 1, 1.5, "1", None, True]
)
def test_bad_retention_times_are_refused(retention_ms: Any, start: Start) -> None:
    refusal(codes.INVALID_PARAM, Table, "x", 1, 1, 1, retentionMs=retention_ms, address=start().url)


@pytest.mark.parametrize(
    ("retention_ms", "retention_ns"),
    [(0, 0), (1, 10**6), (SA_TIME_MAX // 10**6, SA_TIME_MAX // 10**6 * 10**6), (SA_TIME_MAX, SA_TIME_MAX)],
)
def test_retention_is_in_milliseconds(
    retention_ms: int, retention_ns: int, start: Start, service: FakeService
) -> None:
    with Table("x", 1, 1, 1, retentionMs=retention_ms, address=start().url) as table:
        assert service.checkpoints[b"x"].attributes[2] == retention_ns
        assert table.retentionMs == retention_ms


@pytest.mark.parametrize("limits", [(-1, 1, 1), (1, 2**63, 1), ("1", 1, 1), (2**32, 2**40, 1), (1.0, 1, 1)])
def test_bad_limits_are_refused(limits: Any, start: Start) -> None:
    refusal(codes.INVALID_PARAM, Table, "x", *limits, address=start().url)


@pytest.mark.parametrize("flags", [0, 3, 6, 8, 16, -1, 2**70, "1", None])
def test_bad_creation_flags_are_refused(flags: Any, start: Start) -> None:
    refusal(codes.INVALID_PARAM, Table, "x", 1, 1, 1, flagsp=flags, address=start().url)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
def test_bad_time_outs_are_refused(timeout: Any, start: Start) -> None:
    url = start().url
    refusal(codes.INVALID_PARAM, Table, "x", 1, 1, 1, timeout=timeout, address=url)
    with Table("x", 1, 1, 1, address=url) as table:
        refusal(codes.INVALID_PARAM, table.Read, "k", timeout=timeout)


# -- Write, Read, Delete


def test_write_one_creates_overwrites_and_truncates(table: Table) -> None:
    table.Write("k", b"long value")
    assert table.Read(["k"]) == b"long value"
    table.Write("k", b"short")
    assert table.Read(["k"]) == b"short"
    table.Write("k", "")
    assert table.Read(["k"]) == b""


@pytest.mark.parametrize("several", [{"a": "12", "b": b"3"}, [("a", "12"), ("b", b"3")]])
def test_write_several_is_one_update_and_replaces(several: Any, table: Table, service: FakeService) -> None:
    table.Write("a", b"xxxx")
    before = service.checkpoints[b"phones"].applied
    table.Write(several)
    assert table.Read(["a", "b"]) == [b"12", b"3"]
    assert service.checkpoints[b"phones"].applied == before + 1


def test_write_takes_text_and_every_kind_of_bytes(table: Table) -> None:
    for value in (b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff"), memoryview(b"0\x00\xff")[1:]):
        table.Write("k", value)
        assert table.Read("k") == b"\x00\xff"
    table.Write("clé", "é")
    assert (
        table.Read("clé")
        == table.Read("clé".encode())
        == table.Read(bytearray("clé".encode()))
        == "é".encode()
    )


@pytest.mark.parametrize("value", [None, 5, 1.5, ["x"], "\ud800", {"a": 1}])
def test_values_of_other_types_are_refused(value: Any, table: Table) -> None:
    refusal(codes.INVALID_PARAM, table.Write, "k", value)
    refusal(codes.INVALID_PARAM, table.Write, {"k": value})


@pytest.mark.parametrize("key", [None, 5, 1.5, ("a", "b"), "\ud800", b"k" * 65536])
def test_keys_of_other_types_and_sizes_are_refused(key: Any, table: Table) -> None:
    refusal(codes.INVALID_PARAM, table.Write, key, b"v")
    refusal(codes.INVALID_PARAM, table.Read, [key])
    refusal(codes.INVALID_PARAM, table.Delete, key)


@pytest.mark.parametrize("several", [[], {}, [("a",)], [("a", "b", "c")], 5, None, ["ab", "c"]])
def test_a_list_that_holds_no_pairs_is_refused(several: Any, table: Table) -> None:
    refusal(codes.INVALID_PARAM, table.Write, several)


def test_a_value_over_the_limit_is_refused_by_the_service(table: Table) -> None:
    """Only the service knows the limit: another program may have resized the checkpoint."""
    table.Write("k", bytes(1000))
    refusal(codes.INVALID_PARAM, table.Write, "k", bytes(1001))
    error = refusal(codes.INVALID_PARAM, table.Write, [("j", "v"), ("k", "é" * 501)])
    assert error.index == 1
    assert table["k"] == bytes(1000)


def test_a_value_over_the_limit_of_the_protocol_is_refused_without_asking(
    table: Table, node: FakeNode
) -> None:
    asked = len(node.received)
    refusal(codes.NO_RESOURCES, table.Write, "k", bytes(SECTION_BYTES_MAX + 1))
    assert len(node.received) == asked


def test_a_full_table_refuses_and_names_the_element(table: Table) -> None:
    table.Write({str(i): "v" for i in range(10)})
    error = refusal(codes.NO_SPACE, table.Write, [("0", "w"), ("one too many", "v")])
    assert error.index == error.aspErrorCode.index == 1
    assert table["0"] == b"v"


def test_read_one_and_several(table: Table) -> None:
    table.Write({"a": "1", "b": "2"})
    assert table.Read(["a"]) == table.Read("a") == table.Read(b"a") == table.Read(("a",)) == b"1"
    assert table.Read(["b", "a", "b"]) == [b"2", b"1", b"2"]
    assert table.read_many(["a"]) == [b"1"]


def test_reading_nothing_or_what_is_missing_fails(table: Table) -> None:
    table.Write("a", "1")
    refusal(codes.INVALID_PARAM, table.Read, [])
    refusal(codes.INVALID_PARAM, table.Read, 5)
    error = refusal(codes.NOT_EXIST, table.Read, ["a", "z"])
    assert error.index == 1
    assert not isinstance(error, KeyError)


def test_delete_of_what_is_missing_is_fine(table: Table) -> None:
    table.Write("a", "1")
    table.Delete("a")
    table.Delete("a")
    assert "a" not in table


def test_one_section_takes_every_key_and_delete_does_nothing(start: Start) -> None:
    with Table("one", 1, 100, 0, address=start().url) as table:
        table.Write("any", b"v")
        assert table["other"] == table.Read([""]) == b"v"
        table.Delete("any")
        del table["any"]
        assert list(table) == [b""]
        assert "whatever" in table


def test_expirations_travel_as_given(table: Table, service: FakeService) -> None:
    sections = service.checkpoints[b"phones"]
    table.Write("a", "1", expiration=2 * 10**18)
    table.Write("a", "2", keep_expiry=True)
    assert sections.sections[b"a"][1] == 2 * 10**18
    table.Write("a", "2")
    assert sections.sections[b"a"][1] == SA_TIME_END
    table.Write({"b": "1"}, expiration=3 * 10**18)
    assert sections.sections[b"b"][1] == 3 * 10**18
    table.sectionExpiration = 4 * 10**18
    table.Write("c", "1")
    assert sections.sections[b"c"][1] == 4 * 10**18
    for bad in (-1, 2**63, "soon", 1.5):
        refusal(codes.INVALID_PARAM, table.Write, "a", "3", expiration=bad)


# -- the mapping


def test_it_is_a_mapping_of_bytes(table: Table) -> None:
    assert len(table) == 0 and list(table) == [] and table
    table["b"] = "2"
    table[b"a"] = b"1"
    assert table["a"] == b"1"
    assert list(table) == list(table.keys()) == [b"a", b"b"]
    assert list(table.items()) == [(b"a", b"1"), (b"b", b"2")]
    assert list(table.values()) == [b"1", b"2"]
    assert table.read_all() == {b"a": b"1", b"b": b"2"}
    assert len(table) == 2 and "a" in table and b"z" not in table
    assert table.get("a") == b"1" and table.get("z") is None and table.get("z", b"-") == b"-"
    del table["a"]
    assert list(table) == [b"b"]


def test_a_missing_key_is_a_key_error_too(table: Table) -> None:
    with pytest.raises(KeyError) as caught:
        table["z"]
    assert isinstance(caught.value, CheckpointError)
    with pytest.raises(KeyError):
        del table["z"]


def test_iteration_continues_over_pages(table: Table, node: FakeNode) -> None:
    expected = {bytes([65 + i]): bytes([i]) for i in range(10)}
    table.Write(expected)
    assert table.read_all() == expected
    assert node.kinds().count(Kind.ITERATE) == 4
    described = list(table.sections())
    assert [section.value for section in described] == [None] * 10
    assert [section.size_bytes for section in described] == [1] * 10
    assert (described[0].state, described[0].expiration_ns, described[0].last_update_ns) == (
        1,
        SA_TIME_END,
        5,
    )


def test_a_corrupted_section_is_never_served_as_a_value(table: Table, service: FakeService) -> None:
    table.Write({"a": "1", "b": "2"})
    service.checkpoints[b"phones"].corrupted.add(b"b")
    items = iter(table.items())
    assert next(items) == (b"a", b"1")
    refusal(codes.FAILED_OPERATION, next, items)
    assert [section.state for section in table.sections(True)] == [1, 2]


def test_status(table: Table) -> None:
    table.Write("k", "123")
    status = table.status()
    assert (status.sections, status.memory_used_bytes, status.active) == (1, 3, "a")
    assert status.replicas == (("a", True),)
    assert (status.opens, status.unlinked, status.attributes) == (1, False, table.attributes)


# -- replicas


def test_activate_and_synchronize_on_a_synchronous_table_are_a_line_of_log(
    table: Table, node: FakeNode, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = len(node.received)
    with caplog.at_level(logging.INFO, "aspCheckpoint"):
        table.Activate()
        table.Synchronize()
    assert len(caplog.records) == 2
    assert len(node.received) == asked
    assert capsys.readouterr().out == ""


def test_synchronize_an_asynchronous_table(start: Start) -> None:
    node = start()
    with Table("x", 2, 10, 2, ACTIVE, address=node.url) as table:
        table.Synchronize()
        assert Kind.SYNCHRONIZE in node.kinds()


def test_activate_a_table_that_is_not_collocated_is_a_bad_operation(start: Start) -> None:
    with Table("x", 2, 10, 2, WEAK, address=start().url) as table:
        refusal(codes.BAD_OPERATION, table.Activate)


def test_active_status(start: Start) -> None:
    with Table("x", 2, 10, 2, ACTIVE | COLLOCATED, address=start().url) as table:
        assert table.GetActiveStatus() is False
        table.Activate()
        assert table.GetActiveStatus() is True


@pytest.mark.parametrize(
    "call",
    [
        lambda table: table.Write("k", "v"),
        lambda table: table.Write({"k": "v"}),
        lambda table: table.Delete("k"),
        lambda table: table.get("k"),
        lambda table: len(table),
        lambda table: list(table),
        lambda table: "k" in table,
        lambda table: table.Synchronize(),
    ],
)
def test_without_an_active_replica_the_local_one_is_activated(call: Any, start: Start) -> None:
    node = start()
    with Table("x", 2, 10, 2, ACTIVE | COLLOCATED, address=node.url) as table:
        call(table)
        activation = next(frame for frame in node.received if frame.kind == Kind.ACTIVE_SET)
        assert activation.body == b"\x91\xc3", "only if there is none"
        assert table.GetActiveStatus()


def test_auto_activate_off_reports_that_there_is_none(start: Start) -> None:
    node = start()
    with Table("x", 2, 10, 2, ACTIVE | COLLOCATED, address=node.url) as table:
        table.autoActivate = False
        error = refusal(codes.NOT_EXIST, table.Write, "k", "v")
        assert error.index == -1
        refusal(codes.NOT_EXIST, table.Delete, "k")
        refusal(codes.NOT_EXIST, table.get, "k")
        assert Kind.ACTIVE_SET not in node.kinds()


def test_a_reader_activates_nothing(start: Start) -> None:
    node = start()
    with (
        Table("x", 2, 10, 2, ACTIVE | COLLOCATED, address=node.url),
        Table("x", read_only=True, address=node.url) as reader,
    ):
        refusal(codes.NOT_EXIST, reader.Read, "k")
    assert Kind.ACTIVE_SET not in node.kinds()


def test_set_auto_activate_is_for_this_table_and_later_ones(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Table, "_auto_activate", True)
    url = start().url
    with Table("x", 2, 10, 2, address=url) as first, Table("x", 2, 10, 2, address=url) as second:
        first.SetAutoActivate(False)
        with Table("x", 2, 10, 2, address=url) as third:
            assert (first.autoActivate, second.autoActivate, third.autoActivate) == (False, True, False)


# -- the end


def test_a_closed_table_has_a_bad_handle(start: Start) -> None:
    table = Table("x", 2, 10, 2, address=start().url)
    table.close()
    table.close()
    assert (table.ckptHdl, table.svcHdl) == (0, 0)
    for call in (
        lambda: table.Write("k", "v"),
        lambda: table.Read("k"),
        lambda: table.Delete("k"),
        lambda: list(table),
        lambda: table.status(),
        lambda: table.unlink(),
        lambda: "k" in table,
    ):
        refusal(codes.BAD_HANDLE, call)
    assert "closed" in repr(table)


def test_close_ends_the_session(table: Table, service: FakeService) -> None:
    assert service.checkpoints[b"phones"].opens == 1
    table.close()
    assert service.checkpoints[b"phones"].opens == 0
    assert service.sessions == {}


def test_unlink_frees_the_name_and_keeps_the_data(table: Table, node: FakeNode) -> None:
    table.Write("k", "v")
    table.unlink()
    refusal(codes.NOT_EXIST, Table, "phones", address=node.url)
    assert table["k"] == b"v"
    assert table.status().unlinked
    refusal(codes.NOT_EXIST, table.unlink)


def test_unlink_leaves_a_successor_of_the_name_alone(table: Table, node: FakeNode) -> None:
    with Table("phones", address=node.url) as other:
        other.unlink()
    with Table("phones", 10, 1000, 20, address=node.url) as newer:
        refusal(codes.NOT_EXIST, table.unlink)
        with Table("phones", address=node.url) as again:
            again.Write("k", "v")
            assert newer["k"] == b"v", "the name still means the newer one"
        newer.unlink()


def test_a_table_without_a_time_out_waits_as_long_as_it_takes(node: FakeNode) -> None:
    with Table("x", 9, 100, 9, address=node.url, timeout=math.inf) as table:
        table.Write("k", "v")
        assert table.Read("k", timeout=None) == b"v"
        assert table.Read("k", timeout=math.inf) == b"v"
        table.unlink()
    for wrong in (0, -1, "1", True, float("nan")):
        refusal(codes.INVALID_PARAM, Table, "x", address=node.url, timeout=wrong)


# -- errors


def test_errors_speak_python_2(table: Table) -> None:
    error = refusal(codes.NOT_EXIST, table.Read, ["z"])
    assert error[0] == error.aspErrorCode[0] == error.errCode == codes.NOT_EXIST
    assert str(error) == f"{error.text}: Return code 'SA_AIS_ERR_NOT_EXIST' "
    assert error.aspErrorCode.args == (codes.NOT_EXIST,)
    assert isinstance(error.aspErrorCode, SystemError)


def test_asp_checkpoint_is_the_same_but_for_its_writes(start: Start, service: FakeService) -> None:
    assert issubclass(aspCheckpoint.Table, Table)
    with aspCheckpoint.Table("phones", 10, 100, 10, address=start().url) as table:
        table.Write("a", b"xxxx", expiration=2 * 10**18)
        table.Write({"a": "12", "b": b"3"})
        assert table.Read(["a", "b"]) == [b"12xx", b"3"]
        table.Write("a", "1")
        table["a"] = "1"
        assert service.checkpoints[b"phones"].sections[b"a"][1] == 2 * 10**18
        table.update(a="2")
        assert table["a"] == b"2"
    assert aspCheckpoint.CheckpointError is CheckpointError
    names = vars(aspCheckpoint)
    assert names["SA_AIS_ERR_NOT_EXIST"] == 12
    assert names["SA_CKPT_WR_ALL_REPLICAS"] == 1
    assert names["SA_TIME_MAX"] == 2**63 - 1
    assert names["SA_MAX_NAME_LENGTH"] == 256
