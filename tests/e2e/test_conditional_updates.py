"""Versions, conditions and transactions through `Table` and `AsyncTable`, with real daemons."""

import asyncio
import threading

import pytest

from ckpt_client import (
    AsyncTable,
    CheckpointError,
    CheckpointKeyError,
    Table,
    VersionConflict,
)
from ckpt_protocol import codes
from ckpt_protocol.constants import UPDATE_FLAGS
from ckptd.testing import LocalCluster

THREADS = 4
ROUNDS = 25
KINDS = pytest.mark.parametrize("flags", UPDATE_FLAGS)


def opened(cluster: LocalCluster, name: str, node: str = "a", flags: int = UPDATE_FLAGS[0]) -> Table:
    return Table(name, 100, 1000, 32, flags, address=cluster.address(node))


@KINDS
def test_a_write_is_done_only_if_no_other_came_since(cluster: LocalCluster, name: str, flags: int) -> None:
    with opened(cluster, name, "a", flags) as table, opened(cluster, name, "b", flags) as other:
        assert table.get_versioned("k") is None
        first = table.add("k", "1")
        seen = other.get_versioned("k")
        assert seen is not None
        assert seen == (b"1", first)
        second = other.Write("k", "2", if_version=seen.version)
        with pytest.raises(VersionConflict) as conflict:
            table.Write("k", "3", if_version=first)
        assert (conflict.value.key, conflict.value.version) == ("k", second)
        assert conflict.value.code == codes.BAD_OPERATION
        with pytest.raises(VersionConflict):
            table.Delete("k", if_version=first)
        assert table.Read("k") == b"2"
        table.Delete("k", if_version=second)
        assert "k" not in table


def test_what_exists_is_not_added(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table:
        table.add("k", "1")
        with pytest.raises(CheckpointError) as refused:
            table.add("k", "2")
        assert refused.value.code == codes.EXIST
        assert not isinstance(refused.value, VersionConflict)
        assert table["k"] == b"1"


@KINDS
def test_no_increment_is_lost_between_threads(cluster: LocalCluster, name: str, flags: int) -> None:
    def count(node: str) -> None:
        with opened(cluster, name, node, flags) as table:
            for _ in range(ROUNDS):
                table.modify("n", lambda value: str(int(value or b"0") + 1))

    threads = [threading.Thread(target=count, args=("abc"[n % 3],)) for n in range(THREADS)]
    with opened(cluster, name, "a", flags) as table:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert table.Read("n") == str(THREADS * ROUNDS).encode()


def test_a_function_may_delete_and_may_raise(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table:
        assert table.modify("k", lambda value: None) is None
        assert table.modify("k", lambda value: b"1") == b"1"
        with pytest.raises(ZeroDivisionError):
            table.modify("k", lambda value: str(1 // 0))
        assert table["k"] == b"1"
        assert table.modify("k", lambda value: None) is None
        assert "k" not in table


def test_a_transaction_is_done_whole_or_not_at_all(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table:
        table.Write({"a": "100", "b": "0", "hold": "x"})
        balance = table.get_versioned("a")
        assert balance is not None
        with table.transaction() as t:
            t.require("a", balance.version)
            t.require_present("b")
            t.require_absent("c")
            t["a"] = "10"
            t["b"] = "90"
            del t["hold"]
        assert table.read_all() == {b"a": b"10", b"b": b"90"}
        changed = table.get_versioned("b")
        assert changed is not None
        assert changed.version == t.version
        with pytest.raises(VersionConflict) as conflict, table.transaction() as t:
            t.require_present("b")
            t.require("a", balance.version)
            t["a"] = "0"
        assert (conflict.value.key, conflict.value.version) == ("a", changed.version)
        with pytest.raises(CheckpointKeyError), table.transaction() as t:
            t["a"] = "0"
            del t["hold"]
        assert table.read_all() == {b"a": b"10", b"b": b"90"}


def test_a_block_that_raises_or_does_nothing_sends_nothing(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table:
        with pytest.raises(ZeroDivisionError), table.transaction() as t:
            t["a"] = "1"
            raise ZeroDivisionError
        with table.transaction():
            pass
        with table.transaction() as t:
            t["b"] = "2"
        assert table.read_all() == {b"b": b"2"}
        assert t.version == ""


@pytest.mark.parametrize("version", ["", "xyz", "00", None, 7])
def test_a_wrong_version_is_one_clear_error(cluster: LocalCluster, name: str, version: object) -> None:
    with opened(cluster, name) as table, pytest.raises(CheckpointError) as refused, table.transaction() as t:
        t.require("k", version)  # type: ignore[arg-type]
    assert refused.value.code == codes.INVALID_PARAM
    assert "a version is what a call of a table returned" in str(refused.value)


def test_two_conditions_for_one_section_are_refused_before_anything_is_sent(
    cluster: LocalCluster, name: str
) -> None:
    with opened(cluster, name) as table, pytest.raises(CheckpointError) as refused, table.transaction() as t:
        t.require_absent("k")
        t.require_present(b"k")
    assert refused.value.code == codes.INVALID_PARAM


def test_a_version_of_another_checkpoint_is_a_conflict(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table, opened(cluster, name + " 2") as other:
        version = other.add("k", "1")
        own = table.add("k", "1")
        with pytest.raises(VersionConflict) as conflict:
            table.Write("k", "2", if_version=version)
        assert conflict.value.version == own


async def test_asyncio_does_the_same(cluster: LocalCluster, name: str) -> None:
    async with await AsyncTable.open(name, 100, 1000, 32, address=cluster.address("c")) as table:
        first = await table.add("k", "1")
        assert await table.get_versioned("k") == (b"1", first)
        second = await table.write("k", "2", if_version=first)
        with pytest.raises(VersionConflict):
            await table.delete("k", if_version=first)
        async with table.transaction() as t:
            t.require("k", second)
            t.write("k", "3")
            t["l"] = "4"
        assert await table.read_all() == {b"k": b"3", b"l": b"4"}
        with pytest.raises(VersionConflict):
            async with table.transaction() as t:
                t.require_absent("l")
                del t["k"]

        async def count() -> None:
            for _ in range(ROUNDS):
                await table.modify("n", lambda value: str(int(value or b"0") + 1))

        await asyncio.gather(*(count() for _ in range(THREADS)))
        assert await table.read("n") == str(THREADS * ROUNDS).encode()
