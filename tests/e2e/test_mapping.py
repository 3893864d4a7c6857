"""A table is a mapping, as somebody expects who knows dict, shelve or Redis."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.e2e.both_tables import Both, open_either

from ckpt_client import (
    CheckpointError,
    CheckpointKeyError,
    Table,
    UndecodableValue,
    codecs,
)
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END, UPDATE_FLAGS
from ckpt_protocol.messages import Kind
from ckptd.testing import LocalCluster

LIMITS = 2_000, 4_000, 32
EITHER = pytest.mark.parametrize("kind", ["table", "async"])


@pytest.fixture(params=["table", "async"])
def both(request: pytest.FixtureRequest, cluster: LocalCluster, name: str) -> Iterator[Both]:
    with open_either(request.param, name, LIMITS, address=cluster.address("a")) as table:
        yield table
        table.unlink()


def refused(code: int, call: Any, *arguments: Any, **named: Any) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


# -- the calls of a mapping


def test_pop_returns_what_it_deletes(both: Both) -> None:
    both.write("k", "v")
    assert both.pop("k") == b"v"
    assert both.pop("k", None) is None
    assert both.pop("k", b"other") == b"other"
    with pytest.raises(CheckpointKeyError):
        both.pop("k")


def test_popitem_takes_the_first_and_ends(both: Both) -> None:
    both.write_many({"b": "2", "a": "1"})
    assert [both.popitem(), both.popitem()] == [(b"a", b"1"), (b"b", b"2")]
    with pytest.raises(KeyError):
        both.popitem()


@pytest.mark.parametrize("flags", UPDATE_FLAGS)
def test_no_two_programs_pop_the_same_item(cluster: LocalCluster, name: str, flags: int) -> None:
    def open_at(node: str) -> Table:
        return Table(name, *LIMITS, flags, address=cluster.address(node))

    taken: list[tuple[bytes, bytes]] = []

    def take(node: str) -> None:
        with open_at(node) as table:
            while True:
                try:
                    taken.append(table.popitem())
                except KeyError:
                    return

    with open_at("a") as table:
        table.update({str(i): str(i) for i in range(40)})
        threads = [threading.Thread(target=take, args=(node,)) for node in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(int(key) for key, _ in taken) == list(range(40))
        assert all(key == value for key, value in taken)
        assert len(table) == 0


def test_setdefault_writes_only_what_is_missing(both: Both) -> None:
    assert both.setdefault("k", "first") == b"first"
    assert both.setdefault("k", "second") == b"first"


def test_update_takes_what_that_of_a_dict_takes(both: Both) -> None:
    both.update({"a": "1"}, b="2")
    both.update([("c", b"3")])
    both.update(d="4")
    both.update({})
    both.update()
    assert both.read_all() == {b"a": b"1", b"b": b"2", b"c": b"3", b"d": b"4"}


def test_the_or_operator_updates(cluster: LocalCluster, name: str) -> None:
    with Table(name, *LIMITS, address=cluster.address("a")) as table:
        same = table
        table |= {"a": "1"}
        assert table is same
        assert table["a"] == b"1"


def test_update_is_all_or_nothing(both: Both) -> None:
    both.write("a", "before")
    refused(codes.INVALID_PARAM, both.update, {"a": "1", "b": bytes(4_001)})
    refused(codes.INVALID_PARAM, both.update, {"a": "1", "b": 5})
    refused(codes.INVALID_PARAM, both.update, 5)
    refused(codes.INVALID_PARAM, both.update, [("a", "b", "c")])
    refused(codes.NO_RESOURCES, both.update, {str(i): b"" for i in range(10_001)})
    refused(codes.NO_SPACE, both.update, {str(i): b"" for i in range(2_001)})
    assert both.read_all() == {b"a": b"before"}


def test_writing_several_replaces_each_value(both: Both) -> None:
    both.write("1", json.dumps({"item": "tea", "note": "a long one"}))
    both.write_many({"1": json.dumps({"item": "tea"})})
    assert json.loads(both.read("1")) == {"item": "tea"}


def test_clear_and_delete_many(both: Both) -> None:
    both.update({str(i): "v" for i in range(1_500)})
    both.delete_many(["1", b"2", "missing"])
    assert both.status().sections == 1_498
    both.clear()
    both.clear()
    assert both.snapshot() == {}
    refused(codes.INVALID_PARAM, both.delete_many, [])
    refused(codes.INVALID_PARAM, both.delete_many, [5])


def test_a_batch_is_one_update(both: Both) -> None:
    both.write_many({"old": "1", "kept": "1"})
    before = both.get_versioned("kept").version

    def change(batch: Any) -> None:
        batch["new"] = "2"
        batch["kept"] = "2"
        del batch["old"]
        batch.delete("missing")

    both.batch(change)
    assert both.snapshot() == {b"new": b"2", b"kept": b"2"}
    assert both.get_versioned("new").version == both.get_versioned("kept").version != before


def test_a_batch_that_deletes_what_is_missing_does_nothing(both: Both) -> None:
    def change(batch: Any) -> None:
        batch["new"] = "2"
        del batch["missing"]

    with pytest.raises(CheckpointKeyError):
        both.batch(change)
    assert both.snapshot() == {}


def test_views_show_the_table_as_it_is_when_they_are_used(cluster: LocalCluster, name: str) -> None:
    with Table(name, *LIMITS, address=cluster.address("a")) as table:
        keys, values, items = table.keys(), table.values(), table.items()
        assert (list(keys), len(items)) == ([], 0)
        table.update(a="1", b="2")
        assert (list(keys), list(values), list(items)) == (
            [b"a", b"b"],
            [b"1", b"2"],
            [(b"a", b"1"), (b"b", b"2")],
        )
        assert b"a" in keys
        assert b"c" not in keys
        assert b"2" in values
        assert b"3" not in values
        assert (b"a", b"1") in items
        assert (b"a", b"2") not in items
        assert keys & {b"a", b"x"} == {b"a"}
        assert table == table
        assert table != dict(table)
        assert len({table, table}) == 1
        assert bool(table)


# -- dict(table)


def test_a_dict_of_a_table_is_one_request_per_page(
    cluster: LocalCluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Table(name, *LIMITS, address=cluster.address("a")) as table:
        content = {b"%03d" % i: b"v%d" % i for i in range(500)}
        table.update(content)
        kinds = []
        call = table._connection.call

        def counted(kind: int, *more: Any) -> Any:
            kinds.append(kind)
            return call(kind, *more)

        monkeypatch.setattr(table, "_call_service", counted)
        assert dict(table) == content
        assert {**table} == content
        assert OrderedDict(table) == content
        merged = {b"other": b""}
        merged.update(table)
        assert merged == {b"other": b"", **content}
        assert kinds == [Kind.ITERATE] * 4
        assert list(dict(table)) == list(content)
        assert table._one_instruction.ready is None


def test_a_dict_of_a_table_has_no_key_error_while_another_program_deletes(
    cluster: LocalCluster, name: str
) -> None:
    stop = threading.Event()

    def change() -> None:
        with Table(name, *LIMITS, address=cluster.address("b")) as other:
            while not stop.is_set():
                other.update({str(i): "v" for i in range(100)})
                other.clear()

    with Table(name, *LIMITS, address=cluster.address("a")) as table:
        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(50):
                assert len(dict(table)) <= 100
        finally:
            stop.set()
            thread.join()


def test_what_is_read_between_two_calls_is_never_out_of_date(cluster: LocalCluster, name: str) -> None:
    """Values are ready only for the instruction that asked for the keys."""
    address = cluster.address("a")
    with Table(name, *LIMITS, address=address) as table, Table(name, address=address) as other:
        table.update(a="1", b="1")
        for key in table:
            other[key] = "2"
            assert table[key] == b"2"
        for key in table.keys():  # noqa: SIM118
            other[key] = "3"
            assert table[key] == b"3"
        keys = table.keys()
        iterator = iter(keys)
        other.update(a="4", b="4")
        assert [table[key] for key in iterator] == [b"4", b"4"]
        found = dict(table)
        other.update(a="5", b="5")
        assert [table[key] for key in found] == [b"5", b"5"]
        assert list(map(table.__getitem__, table.keys())) == [b"5", b"5"]


def test_threads_make_dicts_of_one_table_at_once(cluster: LocalCluster, name: str) -> None:
    with Table(name, *LIMITS, address=cluster.address("a")) as table:
        content = {b"%03d" % i: bytes(10) for i in range(300)}
        table.update(content)
        wrong: list[Any] = []

        def look() -> None:
            for _ in range(10):
                found = dict(table)
                if found != content:
                    wrong.append(found)

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert table._one_instruction.ready is None


# -- a whole table at one moment


@pytest.mark.parametrize("flags", UPDATE_FLAGS)
@EITHER
def test_a_snapshot_is_of_one_moment(cluster: LocalCluster, name: str, kind: str, flags: int) -> None:
    """Two sections, in different pages, always change together."""
    stop = threading.Event()
    large = 4_000

    def change() -> None:
        with Table(name, *LIMITS, flags, address=cluster.address("b")) as other:
            number = 0
            while not stop.is_set():
                number += 1
                other.update({"000": str(number), "999": str(number)})

    named = {"flags": flags, "address": cluster.address("a")}
    with open_either(kind, name, LIMITS, **named) as table:
        for start in range(1, 800, 100):
            table.update({f"{i:03}": bytes(large) for i in range(start, start + 100)})
        table.update({"000": "0", "999": "0"})
        thread = threading.Thread(target=change)
        thread.start()
        try:
            seen = set()
            for _ in range(15):
                snapshot = table.snapshot()
                assert snapshot[b"000"] == snapshot[b"999"]
                assert len(snapshot) == 802
                seen.add(snapshot[b"000"])
            assert len(seen) > 5
        finally:
            stop.set()
            thread.join()
        assert table.snapshot() == table.read_all()


# -- expiry


@pytest.fixture
def one(cluster: LocalCluster, name: str) -> Iterator[Table]:
    with Table(name, *LIMITS, address=cluster.address("b")) as table:
        yield table


def test_a_section_expires_after_a_time_and_a_write_ends_that(both: Both) -> None:
    both.write("k", "v", expires_in=30)
    left = both.expires_in("k")
    assert 29 < left <= 30
    both.write("k", "w", keep_expiry=True)
    assert 29 < both.expires_in("k") <= left
    both.touch("k", expires_in=60)
    assert 59 < both.expires_in("k") <= 60
    both.touch("k")
    assert both.expires_in("k") is None
    both.write("k", "x", expires_in=0.2)
    both.write("l", "x", expires_in=0.2)
    both.write("l", "y")
    deadline = time.monotonic() + 20
    while both.contains("k") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not both.contains("k")
    assert both.read("l") == b"y"
    for missing in (both.expires_in, both.touch):
        with pytest.raises(CheckpointKeyError):
            missing("k")


def test_every_way_of_writing_takes_a_time(both: Both) -> None:
    both.write_many({"a": "1", "b": "1"}, expires_in=30)
    both.add("c", "1", expires_in=30)
    both.write("d", "1")
    both.modify("d", lambda old: old + b"2", expires_in=30)
    version = both.get_versioned("a").version
    both.write("a", "2", if_version=version, expires_in=30)
    both.batch(lambda batch: batch.write("e", "1", expires_in=30))
    both.batch(lambda batch: batch.write("e", "2", keep_expiry=True))
    assert all(29 < both.expires_in(key) <= 30 for key in "abcde")
    assert (both.read("a"), both.read("d"), both.read("e")) == (b"2", b"12", b"2")
    both.modify("d", lambda old: old, keep_expiry=True)
    assert both.expires_in("d") is not None
    both.update(a="3")
    assert both.expires_in("a") is None


def test_a_subscript_ends_an_expiry(one: Table) -> None:
    one.Write("k", "v", expires_in=30)
    one["k"] = "w"
    assert one.expires_in("k") is None
    one.sectionExpiration = time.time_ns() + 30 * 10**9
    one["k"] = "w"
    assert 29 < (one.expires_in("k") or 0) <= 30
    one.Write("k", "w", expiration=SA_TIME_END)
    assert one.expires_in("k") is None


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), True, "30", [], b"1"])
def test_a_wrong_time_is_refused(both: Both, wrong: Any) -> None:
    both.write("k", "v")
    refused(codes.INVALID_PARAM, both.write, "k", "w", expires_in=wrong)
    refused(codes.INVALID_PARAM, both.touch, "k", expires_in=wrong)
    refused(codes.INVALID_PARAM, both.add, "l", "w", expires_in=wrong)
    refused(codes.INVALID_PARAM, both.write_many, {"k": "w"}, expires_in=wrong)
    assert both.snapshot() == {b"k": b"v"}
    assert both.expires_in("k") is None


def test_only_one_time_may_be_given(both: Both) -> None:
    both.write("k", "v")
    later = time.time_ns() + 10**12
    refused(codes.INVALID_PARAM, both.write, "k", "w", expires_in=1, keep_expiry=True)
    refused(codes.INVALID_PARAM, both.write, "k", "w", expires_in=1, expiration=later)
    refused(codes.INVALID_PARAM, both.write, "k", "w", expiration=later, keep_expiry=True)
    refused(codes.INVALID_PARAM, both.touch, "k", expires_in=1, expiration=later)
    assert both.read("k") == b"v"
    both.write("k", "v", expires_in=1e300)
    assert both.expires_in("k") is None


# -- typed values


@dataclass
class Seat:
    row: int
    taken: bool = False


CODECS = [
    (codecs.json, {"item": "té", "count": [1, 2.5, None, True]}),
    (codecs.msgpack, {"item": b"\x00", 5: [1, 2]}),
    (codecs.text, "té"),
    (codecs.pydantic(Seat), Seat(3, True)),
    (codecs.pydantic(list[int]), [1, 2]),
]


@EITHER
@pytest.mark.parametrize(("codec", "value"), CODECS, ids=lambda each: type(each).__name__)
def test_every_call_gives_and_takes_values_of_the_type(
    cluster: LocalCluster, name: str, kind: str, codec: Any, value: Any
) -> None:
    with open_either(kind, name, LIMITS, address=cluster.address("a"), codec=codec) as table:
        table.write("k", value)
        table.write_many({"l": value})
        table.update(m=value)
        table.add("n", value)
        assert table.setdefault("o", value) == value
        table.batch(lambda batch: batch.write("p", value))
        for key in "klmnop":
            assert table.read(key) == value
        assert table.get("k") == value
        assert table.get("missing", 5) == 5
        assert table.read_many(["k", "l"]) == [value, value]
        assert table.get_versioned("k").value == value
        assert table.modify("k", lambda old: old) == value
        assert table.pop("k") == value
        assert table.popitem() == (b"l", value)
        assert table.snapshot() == table.read_all() == dict.fromkeys((b"m", b"n", b"o", b"p"), value)
        assert table.listed("values") == [value] * 4
        assert table.listed("items")[0] == (b"m", value)
        table.unlink()


@EITHER
@pytest.mark.parametrize(
    ("codec", "wrong"),
    [
        (codecs.json, {1, 2}),
        (codecs.json, float("nan")),
        (codecs.msgpack, object()),
        (codecs.text, b"bytes"),
        (codecs.text, "\ud800"),
        (codecs.pydantic(Seat), {"row": 1}),
        (codecs.pydantic(list[int]), ["1"]),
    ],
)
def test_a_value_of_another_type_is_refused_and_nothing_is_written(
    cluster: LocalCluster, name: str, kind: str, codec: Any, wrong: Any
) -> None:
    with open_either(kind, name, LIMITS, address=cluster.address("a"), codec=codec) as table:
        for call, arguments in (
            (table.write, ("k", wrong)),
            (table.write_many, ({"k": wrong},)),
            (table.add, ("k", wrong)),
            (table.setdefault, ("k", wrong)),
            (table.modify, ("k", lambda old: wrong)),
        ):
            assert "'k'" in refused(codes.INVALID_PARAM, call, *arguments).text
        with pytest.raises(CheckpointError):
            table.batch(lambda batch: batch.write("k", wrong))
        assert not table.contains("k")


@EITHER
@pytest.mark.parametrize("data", [b"\xff", b"{", b"[" * 100_000, b"NaN"], ids=lambda data: str(data[:3]))
def test_a_value_that_does_not_decode_is_an_error_with_key_and_reason(
    cluster: LocalCluster, name: str, kind: str, data: bytes
) -> None:
    where = cluster.address("a")
    limits = 10, 200_000, 32
    with (
        open_either(kind, name, limits, address=where, codec=codecs.json) as table,
        Table(name, address=where) as raw,
    ):
        table.write("fine", 1)
        raw["bad"] = data
        for call, arguments in (
            (table.read, ("bad",)),
            (table.get, ("bad", None)),
            (table.read_many, (["fine", "bad"],)),
            (table.read_all, ()),
            (table.snapshot, ()),
            (table.get_versioned, ("bad",)),
            (table.pop, ("bad",)),
            (table.popitem, ()),
            (table.modify, ("bad", lambda old: old)),
            (table.setdefault, ("bad", 1)),
        ):
            with pytest.raises(UndecodableValue) as caught:
                call(*arguments)
            error = caught.value
            assert (error.key, error.data) == (b"bad", data)
            assert error.code == codes.SaAisErrorT.SA_AIS_ERR_FAILED_OPERATION
            assert error.reason in error.text
            assert len(error.text) < 1_000
        assert raw["bad"] == data
        assert table.read("fine") == 1
        table.write("bad", 2)
        assert table.read("bad") == 2


@pytest.mark.parametrize("kind", ["table", "async"])
def test_a_call_that_others_always_outrun_ends_by_its_time_out(
    cluster: LocalCluster, name: str, kind: str
) -> None:
    """Each request of a late call has 1 ms, and may be answered within that: `modify` went on and on."""
    where = cluster.address("a")
    with open_either(kind, name, LIMITS, address=where) as table, Table(name, address=where) as other:
        tries = [0]

        def outrun(old: bytes | None) -> bytes:
            tries[0] += 1
            other["k"] = str(tries[0])
            return b"mine"

        with pytest.raises(CheckpointError) as late:
            table.modify("k", outrun, timeout=0.2)
        assert late.value.code in (codes.TRY_AGAIN, codes.TIMEOUT)  # The latter if its last request was late.
        assert tries[0] > 1
        assert other["k"] == str(tries[0]).encode()
