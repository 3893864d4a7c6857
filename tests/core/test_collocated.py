"""CHECKPOINT_COLLOCATED: replicas where it was opened, and an active replica that the application sets."""

import pytest
from tests.core.client import Opened
from tests.core.cluster import WALL_OFFSET_NS, Cluster, three_nodes

from ckpt_protocol.codes import BAD_OPERATION, NOT_EXIST, OK, TIMEOUT
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import MILLISECOND_NS

COLLOCATED = SA_CKPT_CHECKPOINT_COLLOCATED
KINDS = (SA_CKPT_WR_ACTIVE_REPLICA | COLLOCATED, SA_CKPT_WR_ACTIVE_REPLICA_WEAK | COLLOCATED)


def opened(cluster: Cluster, flags: int, node_ids: str = "ab") -> list[Opened]:
    """Open at each of these nodes, and have the first one active."""
    tables = [cluster.client(node_id).open(flags=flags) for node_id in node_ids]
    assert tables[0].set_active().code == OK
    cluster.settle()
    return tables


@pytest.mark.parametrize("flags", KINDS)
def test_nothing_is_read_or_written_before_an_active_replica_is_set(flags: int) -> None:
    """SAF 3.1.7.1: the error is NOT_EXIST; a missing section's has an index."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags)
    for answer in (table.try_write(b"k", b"v"), table.try_read(b"k"), table.synchronize()):
        assert (answer.code, answer.index) == (NOT_EXIST, -1)
    assert cluster.active() is None
    assert table.set_active().code == OK
    assert cluster.active() == "a"
    table.write(b"k", b"v")
    assert table.try_read(b"missing").index == 0
    assert table.status()[3] == "a"
    cluster.check()


@pytest.mark.parametrize("flags", [*KINDS, SA_CKPT_WR_ALL_REPLICAS | COLLOCATED])
def test_replicas_are_only_where_it_was_opened(flags: int) -> None:
    cluster = three_nodes()
    first = cluster.client("a").open(flags=flags)
    if flags in KINDS:
        first.set_active()
    first.write(b"k", b"v")
    assert list(cluster.node("b").replicas) == []
    second = cluster.client("b").open_existing()
    assert second.read(b"k") == b"v"
    assert cluster.contents("b") == {b"k": b"v"}, "an open completes when the replica is like the others"
    assert list(cluster.node("c").replicas) == []
    second.close()
    cluster.run(50)
    assert cluster.in_sync("a") == ["a", "b"], "kept until the checkpoint goes"
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_the_active_replica_is_handed_over_without_a_loss(flags: int) -> None:
    """SAF 3.1.7.1. Writes go on meanwhile: each is answered once, and none is lost."""
    cluster = three_nodes()
    tables = opened(cluster, flags, "abc")
    calls = []
    for number in range(60):
        calls.append(tables[number % 3].begin(Kind.UPDATE, [Op.CREATE, b"k%d" % number, 2**63 - 1, b"v"]))
        if number % 10 == 5:
            calls.append(tables[number // 10 % 3].begin(Kind.ACTIVE_SET, False))
        cluster.run(0.15)
    cluster.run(200)
    assert {call.code for call in calls} == {OK}
    assert len(tables[0].read_all()) == 60
    view = cluster.node("a").view
    assert view is not None and view.epoch == 1, "a hand-over is no change of the view"
    cluster.check()
    assert cluster.contents("a") == cluster.contents("b") == cluster.contents("c")


@pytest.mark.parametrize("flags", KINDS)
def test_no_active_replica_is_elected_after_a_loss_and_the_data_is_kept(flags: int) -> None:
    cluster = three_nodes()
    first, second = opened(cluster, flags)
    first.write(b"k", b"v")
    cluster.run(20)
    cluster.kill("a")
    cluster.run(100)
    assert cluster.active() is None
    answer = second.try_read(b"k")
    assert (answer.code, answer.index) == (NOT_EXIST, -1)
    assert second.set_active(only_if_none=True).code == OK
    assert second.read(b"k") == b"v"
    second.write(b"k", b"w")
    cluster.restart("a")
    first.client.move("a")
    assert first.read(b"k") == b"w"
    cluster.check()


def test_an_activation_only_if_there_is_none_leaves_the_active_replica_where_it_is() -> None:
    cluster = three_nodes()
    _, second = opened(cluster, KINDS[0])
    assert second.set_active(only_if_none=True).code == OK
    assert cluster.active() == "a"
    assert second.set_active().code == OK
    assert cluster.active() == "b"
    cluster.check()


def test_an_activation_catches_up_with_the_most_advanced_replica_first() -> None:
    """rules 4: it never silently loses data."""
    cluster = three_nodes()
    first, second, third = opened(cluster, KINDS[0], "abc")
    cluster.hold("a", "b")
    first.write(b"k", b"v")
    cluster.run(20)
    cluster.kill("a")
    cluster.run(100)
    assert (cluster.contents("b"), cluster.contents("c")) == ({}, {b"k": b"v"})
    assert second.set_active().code == OK
    assert second.read(b"k") == third.read(b"k") == b"v"
    cluster.check()


def test_an_update_that_the_dead_active_replica_gave_to_us_is_not_denied() -> None:
    cluster = three_nodes()
    _, second = opened(cluster, KINDS[0])
    cluster.hold("a", "b")
    call = second.begin_write(b"k", b"v")
    cluster.run(2)
    held, cluster.holds = cluster.holds, {}
    for link, data in held["a", "b"][:1]:  # The update arrives, its answer does not.
        cluster._arrive(link, "a", "b", data)
    cluster.kill("a")
    cluster.run(100)
    assert cluster.contents("b") == {b"k": b"v"}
    assert call.code == OK
    cluster.check()


def test_an_update_whose_fate_died_with_the_active_replica_is_unknown() -> None:
    """R5: an unknown outcome is an outcome, and NOT_EXIST would say that nothing was done."""
    cluster = three_nodes()
    _, second = opened(cluster, KINDS[0])
    cluster.hold("a", "b")
    call = second.begin_write(b"k", b"v")
    cluster.run(2)
    cluster.kill("a")
    cluster.run(100)
    assert cluster.contents("b") == {}
    assert call.code == TIMEOUT
    cluster.check()


def test_a_synchronous_collocated_checkpoint_has_an_active_replica_always() -> None:
    cluster = three_nodes()
    flags = SA_CKPT_WR_ALL_REPLICAS | COLLOCATED
    first = cluster.client("a").open(flags=flags)
    second = cluster.client("b").open_existing()
    first.write(b"k", b"v")
    assert first.set_active().code == BAD_OPERATION
    cluster.kill("a")
    assert second.read(b"k") == b"v"
    second.write(b"k", b"w")
    assert cluster.active() == "b"
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_what_has_expired_while_nobody_was_active_goes_as_soon_as_somebody_is(flags: int) -> None:
    """Seed 6023: it stood there until the next heartbeat."""
    cluster = three_nodes()
    first, second = opened(cluster, flags)
    second.write(b"lasting", b"v")
    first.update([Op.PUT, b"short", b"v", WALL_OFFSET_NS + cluster.now_ns + 40 * MILLISECOND_NS])
    cluster.run(20)
    cluster.kill("a")
    cluster.run(200)
    cluster.until(lambda: cluster.serving("b"))
    assert cluster.active() is None and b"short" in cluster.contents("b")
    assert second.set_active().code == OK
    cluster.run(2)
    assert cluster.contents("b") == {b"lasting": b"v"}


def test_a_client_that_moves_takes_its_collocated_copy_along() -> None:
    cluster = three_nodes()
    flags = SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED
    client = cluster.client("a")
    table = client.open(flags=flags)
    cluster.client("b").open_existing()
    table.write(b"k", b"v")
    cluster.kill("a")
    client.move("c")
    cluster.until(lambda: cluster.in_sync("b") == ["b", "c"])
    assert cluster.contents("c") == {b"k": b"v"}
    cluster.restart("a")
    cluster.check()
