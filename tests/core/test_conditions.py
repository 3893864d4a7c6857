"""Versions of sections, and conditions of updates (ADR 30)."""

from typing import Any

import pytest
from tests.core.client import Answer, Client, Opened
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.limits import VERSION_BYTES
from ckpt_protocol.messages import Kind, Op

KINDS = pytest.mark.parametrize(
    "flags", [SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK]
)


def update(table: Opened, *ops: list[Any]) -> Answer:
    return table.client.call(Kind.UPDATE, table.handle, ops)


def put(table: Opened, section_id: bytes, value: bytes, *conditions: list[Any]) -> Answer:
    return update(table, *conditions, [Op.PUT, section_id, value, None])


def version_of(table: Opened, section_id: bytes) -> bytes:
    ((_, version),) = table.client.call(Kind.READ, table.handle, [[section_id, 0, None, True]]).payload
    assert len(version) == VERSION_BYTES
    return bytes(version)


def versions_at(cluster: Cluster, table: Opened) -> list[dict[bytes, int]]:
    """Return the versions of all sections, replica by replica."""
    return [
        {each: section.version for each, section in replica.sections.sections.items()}
        for replica in (cluster.replica(node_id) for node_id in "abc")
    ]


@KINDS
def test_an_update_is_done_only_if_the_section_has_the_version(flags: int) -> None:
    table = three_nodes().client("a").open(flags=flags)
    assert put(table, b"k", b"1").code == codes.OK
    first = version_of(table, b"k")
    answer = put(table, b"k", b"2", [Op.REQUIRE, b"k", first])
    assert answer.code == codes.OK
    assert answer.payload == [None, version_of(table, b"k")]
    refused = put(table, b"k", b"3", [Op.REQUIRE, b"k", first])
    assert (refused.code, refused.index) == (codes.BAD_OPERATION, 0)
    assert refused.payload == version_of(table, b"k") != first
    assert table.read(b"k") == b"2"


@KINDS
def test_absent_and_present_are_conditions(flags: int) -> None:
    table = three_nodes().client("b").open(flags=flags)
    assert put(table, b"k", b"1", [Op.REQUIRE, b"k", None]).code == codes.OK
    refused = put(table, b"k", b"2", [Op.REQUIRE, b"k", None])
    assert (refused.code, refused.payload) == (codes.BAD_OPERATION, version_of(table, b"k"))
    assert put(table, b"k", b"3", [Op.REQUIRE, b"k", True]).code == codes.OK
    missing = put(table, b"k", b"4", [Op.REQUIRE, b"k", True], [Op.REQUIRE, b"l", True])
    assert (missing.code, missing.index, missing.payload) == (codes.BAD_OPERATION, 1, None)
    assert table.read(b"k") == b"3"


@KINDS
def test_an_update_with_conditions_is_all_or_nothing(flags: int) -> None:
    table = three_nodes().client("c").open(flags=flags)
    assert update(table, [Op.PUT, b"a", b"1", None], [Op.PUT, b"b", b"1", None]).code == codes.OK
    conditions = [[Op.REQUIRE, b"a", version_of(table, b"a")], [Op.REQUIRE, b"b", version_of(table, b"b")]]
    changes: list[Any] = [
        [Op.PUT, b"a", b"0", None],
        [Op.PUT, b"b", b"2", None],
        [Op.CREATE, b"", SA_TIME_END, b"new"],
    ]
    answer = update(table, *conditions, *changes)
    assert answer.code == codes.OK
    assert len(answer.payload[0]) == 1, "the generated id"
    refused = update(table, *conditions, *changes)
    assert (refused.code, refused.index) == (codes.BAD_OPERATION, 0)
    assert (table.read(b"a"), table.read(b"b")) == (b"0", b"2")
    too_late = update(table, [Op.REQUIRE, b"a", True], [Op.DELETE, b"a"], [Op.DELETE, b"missing"])
    assert (too_late.code, too_late.index) == (codes.NOT_EXIST, 2)
    assert table.read(b"a") == b"0"


@KINDS
def test_conditions_alone_are_an_update(flags: int) -> None:
    table = three_nodes().client("a").open(flags=flags)
    assert update(table, [Op.REQUIRE, b"k", None]).code == codes.OK
    assert update(table, [Op.REQUIRE, b"k", True]).code == codes.BAD_OPERATION


@pytest.mark.parametrize(
    "ops",
    [
        [[Op.PUT, b"k", b"1", None], [Op.REQUIRE, b"k", True]],
        [[Op.REQUIRE, b"k", True], [Op.REQUIRE, b"k", None]],
        [[Op.REQUIRE, b"k", False]],
        [[Op.REQUIRE, b"k", b"short"]],
        [[Op.REQUIRE, b"k", 7]],
        [[Op.REQUIRE, b"k"]],
    ],
)
def test_a_wrong_condition_is_one_clear_error_and_nothing_is_done(ops: list[Any]) -> None:
    table = three_nodes().client("a").open()
    assert update(table, *ops, [Op.PUT, b"l", b"1", None]).code == codes.INVALID_PARAM
    assert table.client.call(Kind.READ, table.handle, [[b"l", 0, None]]).code == codes.NOT_EXIST


@KINDS
def test_every_replica_has_the_same_versions(flags: int) -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags)
    for number in range(5):
        put(table, b"k%d" % (number % 2), b"%d" % number)
    cluster.run(50)
    before = versions_at(cluster, table)
    assert before[0] == before[1] == before[2]
    cluster.kill("c")
    put(table, b"k0", b"new")
    cluster.restart("c")
    cluster.check()
    after = versions_at(cluster, table)
    assert after[0] == after[1] == after[2]
    assert after[0][b"k1"] == before[0][b"k1"], "a join stamps nothing again"


def test_updates_of_one_weak_batch_give_different_versions() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
    client = table.client
    calls = [client.begin(Kind.UPDATE, table.handle, [[Op.PUT, b"k", b"%d" % n, None]]) for n in range(3)]
    reads = []
    for call in calls:
        client.end(call)
        reads.append(version_of(table, b"k"))
    assert put(table, b"k", b"1").code == codes.OK
    first = version_of(table, b"k")
    assert put(table, b"k", b"2").code == codes.OK
    assert version_of(table, b"k") != first
    cluster.run(50)
    versions = versions_at(cluster, table)
    assert versions[0] == versions[1] == versions[2]


def test_a_name_that_is_created_again_has_other_versions() -> None:
    client = three_nodes().client("a")
    table = client.open()
    put(table, b"k", b"1")
    old = version_of(table, b"k")
    client.call(Kind.UNLINK, 0, [b"x", 0])
    client.call(Kind.CLOSE, table.handle)
    again = client.open()
    put(again, b"k", b"1")
    refused = put(again, b"k", b"2", [Op.REQUIRE, b"k", old])
    assert (refused.code, refused.payload) == (codes.BAD_OPERATION, version_of(again, b"k"))


def repeat(client: Client, number: int, at: str) -> Answer:
    """Send the request with this number again, at another node."""
    call = client.calls[number]
    call.answers.clear()
    client.move(at)
    return client.end(call)


@KINDS
def test_a_conflict_is_reported_again_after_the_active_replica_is_lost(flags: int) -> None:
    """A duplicate comes to the next active replica, where by then the condition would hold."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags)
    put(table, b"k", b"1")
    client = cluster.client("b")
    other = client.open(flags=flags)
    refused = client.begin(Kind.UPDATE, other.handle, [[Op.REQUIRE, b"k", None], [Op.PUT, b"k", b"2", None]])
    assert client.end(refused).code == codes.BAD_OPERATION
    assert update(table, [Op.DELETE, b"k"]).code == codes.OK
    cluster.run(50)
    cluster.kill("a")
    cluster.until(lambda: cluster.serving("b"))
    assert repeat(client, refused.number, "c").code == codes.BAD_OPERATION
    assert client.call(Kind.READ, other.handle, [[b"k", 0, None]]).code == codes.NOT_EXIST
    cluster.check()


@pytest.mark.parametrize("flags", [SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK])
def test_no_conflict_is_reported_before_every_replica_has_it(flags: int) -> None:
    """An asynchronous checkpoint would lose it with its active replica, and a duplicate would be carried out."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags)
    put(table, b"k", b"1")
    cluster.run(50)
    cluster.hold("a", "b")
    call = table.client.begin(
        Kind.UPDATE, table.handle, [[Op.REQUIRE, b"k", None], [Op.PUT, b"k", b"2", None]]
    )
    cluster.run(50)
    assert not call.answers
    table.client.send(call)  # A duplicate is not told earlier.
    cluster.run(50)
    assert not call.answers
    cluster.release("a", "b")
    assert table.client.end(call).code == codes.BAD_OPERATION
    cluster.run(50)
    assert {answer.code for answer in call.answers} == {codes.BAD_OPERATION}


def test_an_update_that_was_carried_out_is_not_judged_again() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    call = table.client.begin(
        Kind.UPDATE, table.handle, [[Op.REQUIRE, b"k", None], [Op.PUT, b"k", b"1", None]]
    )
    first = table.client.end(call)
    cluster.kill("a")
    cluster.until(lambda: cluster.serving("b"))
    assert repeat(table.client, call.number, "b") == first
    assert first.code == codes.OK
    cluster.check()


def test_a_corrupted_section_has_no_version_that_can_be_required() -> None:
    """Its content is a part of what had this version."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    put(table, b"k", b"1")
    version = version_of(table, b"k")
    for node_id in "abc":
        cluster.replica(node_id).sections.sections[b"k"].state = 2
    refused = put(table, b"k", b"2", [Op.REQUIRE, b"k", version])
    assert (refused.code, refused.payload) == (codes.BAD_OPERATION, version)
    assert put(table, b"k", b"3", [Op.REQUIRE, b"k", True]).code == codes.OK


def test_an_iteration_shows_versions_if_it_is_asked_to() -> None:
    table = three_nodes().client("a").open()
    put(table, b"k", b"1")
    rows, _ = table.client.call(Kind.ITERATE, table.handle, [5, 0, None, True, None, True]).payload
    assert rows[0][6] == version_of(table, b"k")
    rows, _ = table.client.call(Kind.ITERATE, table.handle, [5, 0, None, True, None]).payload
    assert len(rows[0]) == 6
