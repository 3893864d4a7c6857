"""CHECKPOINT_COLLOCATED: replicas where it was opened, and an active replica that the application sets."""

import pytest
from tests.core.client import READ_WRITE, Opened
from tests.core.cluster import WALL_OFFSET_NS, Cluster, nodes, three_nodes

from ckpt_protocol.codes import BAD_HANDLE, BAD_OPERATION, NOT_EXIST, OK, TIMEOUT, TRY_AGAIN
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


@pytest.mark.parametrize("flags", KINDS)
def test_an_active_replica_serves_once_the_directory_counts_it(flags: int) -> None:
    """Seed 7172867: it served at once, and a view that came before was made without what it acknowledged."""
    cluster = nodes("abcd")
    first = cluster.client("a").open(flags=flags)
    second = cluster.client("c").open(flags=flags)
    assert cluster.in_sync("a") == ["a"], "there is no active replica yet that c could join"
    call = second.begin(Kind.ACTIVE_SET, False)
    entry = cluster.node("a").directory.find(b"x")
    assert entry is not None
    cluster.until(lambda: entry.active == "c")
    cluster.hold("c", "a")
    cluster.run(50)
    write = second.begin_write(b"k", b"v")
    cluster.run(50)
    acknowledged = write.code == OK
    cluster.kill("d")
    cluster.run(1000)
    cluster.release("c", "a")
    cluster.check()
    if cluster.active() is None:
        assert call.code == TIMEOUT, "a view undid it"
        assert first.set_active().code == OK
    else:
        assert call.code == OK
    assert (cluster.contents("a") == {b"k": b"v"}) or not acknowledged
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
    held = cluster.holds["a", "b"][:1]
    cluster.holds.clear()
    for link, data in held:  # The update arrives, its answer does not.
        cluster.network.arrive(link, "a", "b", data)
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


def test_an_update_that_was_lost_with_every_replica_is_unknown() -> None:
    """Others may have read what it wrote, so BAD_HANDLE, "nothing was done", would be wrong (seed 7003542)."""
    cluster = nodes("abc", replicas=1)
    reader = cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    writer = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    cluster.hold("a", "b")
    call = writer.begin_write(b"k", b"v")
    cluster.run(2)
    assert reader.read(b"k") == b"v"
    later = writer.begin_read(b"k")
    cluster.kill("a")
    cluster.run(100)
    assert (call.code, later.code) == (TIMEOUT, BAD_HANDLE)
    assert writer.try_write(b"k", b"w").code == BAD_HANDLE
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
def test_what_has_expired_while_no_replica_was_active_goes_as_soon_as_one_is(flags: int) -> None:
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


def test_a_client_that_moves_takes_its_collocated_replica_along() -> None:
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


# -- an open where the only replicas are elsewhere


SYNC_COLLOCATED = SA_CKPT_WR_ALL_REPLICAS | COLLOCATED


@pytest.mark.parametrize("node_id", ["a", "c"], ids=["at the coordinator", "at a member"])
def test_an_open_while_the_only_replica_dies_is_not_exist(node_id: str) -> None:
    """It was answered OK, with a handle on which every call was BAD_HANDLE."""
    for pause_ms in (0, 0.2, 1, 4, 5, 6, 8, 20):
        cluster = three_nodes()
        cluster.client("b").open(flags=SYNC_COLLOCATED).write(b"k", b"v")
        client = cluster.client(node_id)
        cluster.kill("b")
        cluster.run(pause_ms)
        assert client.try_open().code == NOT_EXIST
        assert client.open(flags=SYNC_COLLOCATED).try_read(b"k").index == 0, "it is created anew"
        cluster.check()


@pytest.mark.parametrize("flags", [SYNC_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA])
def test_an_open_of_an_unavailable_checkpoint_says_what_it_waits_for(flags: int) -> None:
    """It was OK at once, and the handle could not be used. Nothing is open before it is answered OK."""
    cluster = three_nodes(replicas=1)
    table = cluster.client("b").open(flags=flags)
    table.write(b"k", b"v")
    cluster.settle()
    client = cluster.client("c")
    cluster.pause("b")
    cluster.until(lambda: "b" not in getattr(cluster.node("a").view, "members", "b"))
    call = client.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.until(lambda: call.answers)
    assert call.code == TRY_AGAIN and call.answers[0].text == "the checkpoint waits for its replicas on b"
    entry = cluster.node("a").directory.find(b"x")
    assert entry is not None and [session for session, _ in entry.opens] == [table.client.session]
    call.answers.clear()
    client.send(call)
    cluster.run(100)
    assert not call.answers
    cluster.resume("b")
    assert client.end(call).code == OK
    assert Opened(client, call.answers[0]).read(b"k") == b"v"
    cluster.check()


def test_an_open_whose_replica_cannot_be_made_ends_with_the_checkpoint() -> None:
    """The node that it is copied from dies in the middle: NOT_EXIST; with CREATE it is created anew."""
    for create in (False, True):
        cluster = three_nodes()
        table = cluster.client("b").open(flags=SYNC_COLLOCATED)
        table.write(b"k", b"v")
        client = cluster.client("c")
        cluster.hold("b", "c")
        fields = [b"x", 3, None, False]
        if create:
            fields = [b"x", 7, table.attributes, True]
        call = client.begin(Kind.OPEN, 0, fields)
        cluster.run(50)
        assert not call.answers and list(cluster.node("c").replicas) == [table.creation_id]
        cluster.kill("b")
        answer = client.end(call)
        if create:
            opened_anew = Opened(client, answer)
            assert opened_anew.creation_id != table.creation_id
            opened_anew.write(b"k", b"w")
        else:
            assert answer.code == NOT_EXIST
        cluster.check()


def test_an_open_that_waits_for_its_replica_is_no_open_yet() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SYNC_COLLOCATED)
    table.write(b"k", b"v")
    client = cluster.client("c")
    cluster.hold("b", "c")
    call = client.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.run(400)
    assert not call.answers and table.status()[5] == 1
    cluster.release("b", "c")
    assert client.end(call).code == OK
    assert table.status()[5] == 2
    assert Opened(client, call.answers[0]).read(b"k") == b"v"
    assert cluster.in_sync("c") == ["b", "c"]
    cluster.check()


def test_replicas_that_were_opened_while_the_checkpoint_waited_are_made_when_it_is_back() -> None:
    """A client that went elsewhere with its open has a replica there."""
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SYNC_COLLOCATED)
    table.write(b"k", b"v")
    cluster.pause("b")
    cluster.until(lambda: "b" not in getattr(cluster.node("a").view, "members", "b"))
    table.client.move("c")
    cluster.resume("b")
    cluster.until(lambda: cluster.in_sync("a") == ["b", "c"])
    assert table.read(b"k") == b"v"
    cluster.check()


def test_the_retention_does_not_run_while_no_program_can_open_the_checkpoint() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SYNC_COLLOCATED, retention_ns=2000 * MILLISECOND_NS)
    table.write(b"k", b"v")
    table.close()
    client = cluster.client("c")
    cluster.pause("b")
    cluster.run(5000)
    call = client.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.run(100)
    cluster.resume("b")
    assert client.end(call).code == OK
    reopened = Opened(client, call.answers[0])
    assert reopened.read(b"k") == b"v"
    reopened.close()
    cluster.run(1990)
    assert cluster.node("a").directory.find(b"x") is not None
    cluster.run(100)
    assert cluster.node("a").directory.find(b"x") is None
    cluster.check()


@pytest.mark.parametrize("elsewhere", [True, False])
def test_an_active_replica_that_a_view_undid_is_not_reported_as_set(elsewhere: bool) -> None:
    """It was answered OK: its caller took the replica here, which lacked updates, for the active one."""
    cluster = nodes("abc")
    former = cluster.client("b").open(flags=KINDS[0])
    here = cluster.client("c").open_existing()
    if elsewhere:
        cluster.client("a").open_existing()
    assert former.set_active().code == OK
    cluster.settle()
    cluster.hold("b", "c")
    former.write(b"k", b"1")
    cluster.run(1)
    cluster.holds["b", "c"].clear()  # It is lost, so the replica at c cannot follow.
    former.write(b"k", b"2")
    cluster.run(1)
    cluster.release("b", "c")
    cluster.until(lambda: "c" not in cluster.in_sync("a"))
    cluster.hold("b", "c")
    setting = here.begin(Kind.ACTIVE_SET, False)
    entry = cluster.node("a").directory.find(b"x")
    assert entry is not None
    cluster.until(lambda: entry.active == "c")
    assert not entry.replicas["c"] and setting.code is None
    cluster.kill("b")
    cluster.until(lambda: setting.code is not None)
    assert setting.code == TIMEOUT
    if elsewhere:
        assert here.set_active().code == OK
        assert here.read(b"k") == b"2"
    cluster.check()


def test_the_only_replica_in_sync_is_not_made_to_join_one_that_is_not_counted_yet() -> None:
    """Both were out of sync then, and the next view took the checkpoint for lost, though two replicas were whole."""
    cluster = nodes("abcde", log_bytes_max=2000)
    first = cluster.client("b").open(flags=KINDS[0])
    assert first.set_active().code == OK
    cluster.client("c").open(flags=KINDS[0])
    cluster.settle()
    for number in range(60):
        first.write(b"k%d" % (number % 20), bytes(500))
    cluster.run(100)
    cluster.hold("b", "c")
    for number in range(10):
        first.write(b"k%d" % (number % 20), bytes(500))
    fourth = cluster.client("d")
    opening = fourth.begin(Kind.OPEN, 0, [b"x", READ_WRITE, None, False])
    entry = cluster.node("d").directory.find(b"x")
    assert entry is not None
    cluster.until(lambda: "d" in entry.replicas)
    cluster.hold("d", "a")
    cluster.run(60)
    assert cluster.replica("d").complete and not entry.replicas["d"]
    cluster.kill("b")
    cluster.flap("d", "a")
    cluster.holds.clear()
    cluster.until(lambda: bool(opening.answers))
    opened_there = Opened(fourth, opening.answers[0])
    assert cluster.in_sync("a") == ["c"] and cluster.active() is None
    activating = opened_there.begin(Kind.ACTIVE_SET, False)
    cluster.until(lambda: cluster.node("d").directory.find(b"x").active == "d")  # type: ignore[union-attr]
    cluster.hold("d", "a")
    cluster.run(2)
    cluster.flap("d", "a")
    cluster.holds.clear()
    cluster.until(lambda: cluster.in_sync("a") != ["c"])
    cluster.kill("a")
    cluster.run(3000)
    assert cluster.node("d").directory.find(b"x") is not None
    assert not cluster.quarantined
    cluster.check()
    assert activating.answers
