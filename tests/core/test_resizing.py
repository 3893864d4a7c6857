"""Resizing (ADR 33): the limits change in the log and in the directory, once, whoever fails meanwhile."""

from typing import Any

import pytest
from tests.core.client import Answer, Call, Opened
from tests.core.cluster import Cluster, nodes, three_nodes
from tests.core.leading import ALL_KINDS, Program

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.limits import FORMER_LIMITS_MAX, SIZE_MAX
from ckpt_protocol.messages import Kind, Op
from ckptd.core.directory.attributes import Limits
from ckptd.core.events import ClientReceived, TimeCame

KINDS = pytest.mark.parametrize("flags", ALL_KINDS)
OPEN_AND_CREATE = 1 | 2 | SA_CKPT_CHECKPOINT_CREATE

GREW = Limits(200, 4096, 64)
SHRANK = Limits(50, 100, 32)
MIXED = Limits(50, 8192, 64)


def resize_op(
    sections: int | None = None, size: int | None = None, id_size: int | None = None, at_least: bool = False
) -> list[Any]:
    return [Op.RESIZE, sections, size, id_size, at_least]


def begin_resize(table: Opened, limits: Limits) -> Call:
    return table.begin(Kind.UPDATE, resize_op(*limits))


def resize(table: Opened, *asked: Any, **named: Any) -> Answer:
    return table.try_update(resize_op(*asked, **named))


def limits_of(cluster: Cluster, node_id: str) -> tuple[Limits, Limits]:
    """Return the limits of a node's replica, and those of its directory."""
    entry = cluster.node(node_id).directory.find(b"x")
    assert entry is not None
    return cluster.replica(node_id).sections.attributes.limits, entry.attributes.limits


def check_limits(cluster: Cluster, limits: Limits) -> None:
    """Check that every node has these limits, in its replica and in its directory."""
    cluster.check()
    for node in cluster.running():
        if b"x" in node.directory.names and node.directory.names[b"x"] in node.replicas:
            assert limits_of(cluster, node.context.node_id) == (limits, limits)
    directories = [node.directory for node in cluster.running()]
    for directory in directories:
        counted = directory.resident_bytes
        directory.count()
        assert directory.resident_bytes == counted


def active_of(cluster: Cluster) -> str:
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    return active


def coordinator_of(cluster: Cluster) -> str:
    view = cluster.running()[0].view
    assert view is not None
    return view.coordinator


def third_node(cluster: Cluster) -> str:
    """Return the node that is neither the active replica's nor the coordinator."""
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    assert active != coordinator
    return next(node_id for node_id in "abc" if node_id not in (active, coordinator))


def opened(cluster: Cluster, flags: int = SA_CKPT_WR_ALL_REPLICAS) -> Opened:
    """Open the checkpoint by a client of a node that survives the faults of a test."""
    table = cluster.client("b").open(flags=flags)
    cluster.until(cluster.active)
    table.client.move(third_node(cluster))
    return table


def fill(table: Opened, count: int, size: int = 1) -> None:
    for number in range(count):
        table.write(b"s%d" % number, b"v" * size)


# -- what a resize does


@KINDS
def test_a_table_grows(flags: int) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    fill(table, 100)
    assert table.try_write(b"one more", b"").code == codes.NO_SPACE
    answer = resize(table, 101, 5000)
    assert (answer.code, answer.payload) == (codes.OK, [101, 5000, 64])
    table.write(b"one more", b"v" * 5000)
    assert table.try_write(b"another", b"").code == codes.NO_SPACE
    assert table.status()[0][1:] == [101 * 5000, SA_TIME_END, 101, 5000, 64]
    check_limits(cluster, Limits(101, 5000, 64))


@KINDS
def test_a_table_shrinks_if_its_content_fits(flags: int) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    fill(table, 50, 100)
    assert resize(table, *SHRANK).code == codes.OK
    assert table.try_write(b"one more", b"").code == codes.NO_SPACE
    assert table.try_write(b"s1", b"v" * 101).code == codes.INVALID_PARAM
    assert table.try_update([Op.DELETE, b"s1"]).code == codes.OK
    assert table.try_write(b"i" * 33, b"").code == codes.INVALID_PARAM
    check_limits(cluster, SHRANK)


@KINDS
def test_one_limit_grows_while_another_shrinks(flags: int) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    assert resize(table, *MIXED).code == codes.OK
    check_limits(cluster, MIXED)


def test_a_collocated_checkpoint_is_resized() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    assert resize(table, 200).code == codes.NOT_EXIST  # It has no active replica.
    assert table.set_active().code == codes.OK
    assert resize(table, 200).code == codes.OK
    check_limits(cluster, GREW)
    other = cluster.client("b").open_existing()
    assert other.attributes[3] == 200
    check_limits(cluster, GREW)


def test_a_weak_batch_comes_before_the_resize() -> None:
    """What was written under the former limits reaches the other replicas under those."""
    cluster = three_nodes()
    table = opened(cluster, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
    fill(table, 60)
    for number in range(10, 60):
        table.begin(Kind.UPDATE, [Op.DELETE, b"s%d" % number])
    table.begin(Kind.UPDATE, [Op.PUT, b"s1", b"w" * 4096, None])
    table.begin(Kind.UPDATE, [Op.PUT, b"s1", b"short", None])
    assert resize(table, 10, 5).code == codes.OK
    check_limits(cluster, Limits(10, 5, 64))
    assert all(len(cluster.contents(node_id)) == 10 for node_id in "abc")


def test_the_limits_are_in_force_at_one_place_in_the_sequence() -> None:
    """Updates that are sent before the resize are judged by the former limits, later ones by the new ones."""
    cluster = three_nodes()
    table = opened(cluster)
    before = table.begin_write(b"before", b"v" * 200)
    fit = table.begin_write(b"before", b"v")
    shrink = begin_resize(table, SHRANK)
    after = table.begin_write(b"after", b"v" * 200)
    cluster.until(lambda: after.answers and shrink.answers)
    assert (before.code, fit.code, shrink.code, after.code) == (1, 1, 1, codes.INVALID_PARAM)
    check_limits(cluster, SHRANK)


def test_checkpoint_size_follows_up_to_what_it_may_be() -> None:
    cluster = three_nodes()
    table = opened(cluster)
    assert resize(table, 2**32 - 1, SIZE_MAX).code == codes.OK
    assert table.status()[0][1] == SIZE_MAX
    cluster.check()


def test_at_least_never_shrinks() -> None:
    cluster = three_nodes()
    table = opened(cluster)
    answer = resize(table, 50, 8192, None, at_least=True)
    assert answer.payload == [100, 8192, 64]
    check_limits(cluster, Limits(100, 8192, 64))


def test_many_resizes_are_done_in_their_order() -> None:
    cluster = three_nodes()
    table, other = opened(cluster), cluster.client("b").open_existing()
    calls = [begin_resize((table, other)[n % 2], Limits(200 - n % 7, 4096 + n, 64)) for n in range(30)]
    cluster.until(lambda: all(call.answers for call in calls))
    assert {call.code for call in calls} == {codes.OK}
    assert len(cluster.node("a").directory.find(b"x").former) == FORMER_LIMITS_MAX  # type: ignore[union-attr]
    numbers = {cluster.replica(node_id).sections.resize_state.number for node_id in "abc"}
    assert numbers == {30}
    cluster.check()


# -- what is refused


@pytest.mark.parametrize(
    ("op", "told"),
    [
        (resize_op(0), "maxSections 0"),
        (resize_op(-1, at_least=True), "maxSections -1"),
        (resize_op(2**32), "maxSections"),
        (resize_op(None, 0), "maxSectionSize 0 is not 1 to"),
        (resize_op(None, 2**63), f"maxSectionSize {2**63} is not 1 to"),
        (resize_op(None, None, 2**16), "maxSectionIdSize 65536 is not"),
        (resize_op(None, None, 0), "need ids"),
        (resize_op(1), "from 1 or to 1"),
        ([Op.RESIZE, 5], "wrong fields"),
        ([Op.RESIZE, 200, None, None, 1], "wrong fields"),
        ([Op.RESIZE, 200.0, None, None, False], "wrong fields"),
        ([Op.RESIZE, True, None, None, False], "wrong fields"),
        ([Op.RESIZE, b"200", None, None, False], "wrong fields"),
        ([Op.RESIZE, 1, 200, 4096, 64, 200, 4096, 64], "wrong fields"),
    ],
)
def test_limits_that_cannot_be_are_refused(op: list[Any], told: str) -> None:
    cluster = nodes("a")
    table = cluster.client("a").open()
    answer = table.try_update(op)
    assert answer.code == codes.INVALID_PARAM
    assert told in answer.text
    check_limits(cluster, Limits(100, 4096, 64))


def test_a_checkpoint_of_one_section_keeps_that() -> None:
    cluster = nodes("a")
    table = cluster.client("a").open(sections_max=1, section_id_bytes_max=0)
    assert resize(table, 2, None, 8).code == codes.INVALID_PARAM
    assert resize(table, None, 8192).code == codes.OK
    table.write(b"", b"v" * 8192)
    check_limits(cluster, Limits(1, 8192, 0))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_resize_is_an_update_of_its_own(place: int) -> None:
    cluster = nodes("a")
    table = cluster.client("a").open()
    ops: list[Any] = [[Op.PUT, b"k", b"v", None], [Op.PUT, b"l", b"v", None]]
    ops.insert(place, resize_op(200))
    answer = table.try_update(*ops)
    assert (answer.code, answer.index) == (codes.INVALID_PARAM, place)
    assert resize(table, 150).code == codes.OK
    assert table.try_update(resize_op(200), resize_op(300)).code == codes.INVALID_PARAM
    check_limits(cluster, Limits(150, 4096, 64))


@KINDS
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((19,), "there are 20 sections"),
        ((None, 99), "section b's0' has 100 bytes"),
        ((None, None, 2), "id b's10' has 3 bytes"),
        ((19, 8192), "there are 20 sections"),
    ],
)
def test_a_shrink_below_the_content_is_refused(flags: int, asked: Any, told: str) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    fill(table, 20, 100)
    answer = resize(table, *asked)
    assert answer.code == codes.NO_SPACE
    assert told in answer.text
    check_limits(cluster, Limits(100, 4096, 64))


def test_a_handle_that_only_reads_resizes_nothing() -> None:
    cluster = three_nodes()
    opened(cluster)
    reader = cluster.client("a").open_existing(mode=SA_CKPT_CHECKPOINT_READ)
    assert resize(reader, 200).code == codes.ACCESS


@KINDS
def test_only_the_leader_resizes(flags: int) -> None:
    cluster = three_nodes()
    one = Program(cluster, "b", "one", flags).lead()
    other = cluster.client("a").open_existing()
    answer = resize(other, 200)
    assert answer.code == codes.ACCESS
    assert "leads" in answer.text
    assert one.table.try_update(resize_op(200), one.token_op).code == codes.OK
    assert one.table.try_update(resize_op(300)).code == codes.ACCESS
    assert one.resign().code == codes.OK
    assert one.table.try_update(resize_op(300), one.token_op).code == codes.ACCESS
    assert one.table.try_update(one.token_op, resize_op(300)).code == codes.INVALID_PARAM
    check_limits(cluster, GREW)


def test_a_resize_that_waits_is_judged_at_its_place() -> None:
    """Its program leads when the request arrives, and no more when its turn comes."""
    cluster = three_nodes()
    one = Program(cluster, "b", "one")
    one.client.move(third_node(cluster))
    one.lead()
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    cluster.hold(active, coordinator)
    first = one.table.begin(Kind.UPDATE, resize_op(150), one.token_op)
    second = one.table.begin(Kind.UPDATE, resize_op(200), one.token_op)
    one.table.begin(Kind.UPDATE, [Op.RESIGN, one.table.handle, None])
    cluster.run(50)
    assert not first.answers
    cluster.release(active, coordinator)
    cluster.until(lambda: first.answers and second.answers)
    assert (first.code, second.code) == (codes.OK, codes.ACCESS)
    check_limits(cluster, Limits(150, 4096, 64))


# -- large checkpoints


def large_table(cluster: Cluster) -> Opened:
    table = cluster.client("a").open(sections_max=20_000)
    for first in range(0, 20_000, 1000):
        table.update(*([Op.PUT, b"s%d" % number, b"v" * 50, None] for number in range(first, first + 1000)))
    return table


@pytest.mark.parametrize("written", [100, 101])
def test_a_large_checkpoint_is_searched_in_portions_and_what_is_written_during_that_counts(
    written: int,
) -> None:
    """Its first portions are over when the write comes."""
    cluster = nodes("a")
    table = large_table(cluster)
    replica = cluster.replica("a")
    shrink = table.begin(Kind.UPDATE, resize_op(None, 100))
    cluster.until(lambda: replica.sections.search is not None)
    for _ in range(5):
        cluster.deliver("a", TimeCame())
    client = table.client
    body = pack_body([[Op.PUT, b"s0", b"v" * written, None]])
    call = client.calls[client.numbers + 1] = Call(client.numbers + 1, Kind.UPDATE, table.handle, body)
    client.numbers += 1
    data = encode_frame(Kind.UPDATE, call.number, table.handle, shrink.number, body)
    cluster.deliver("a", ClientReceived(client.link, list(FrameDecoder().feed(data))))
    assert replica.sections.search is not None
    cluster.until(lambda: shrink.answers and call.answers)
    assert cluster.contents("a")[b"s0"] == b"v" * written
    assert shrink.code == (codes.OK if written == 100 else codes.NO_SPACE)
    check_limits(cluster, Limits(20_000, 100 if written == 100 else 4096, 64))


def test_a_section_at_the_end_of_a_large_checkpoint_is_found() -> None:
    cluster = three_nodes()
    table = large_table(cluster)
    table.write(b"s19999", b"v" * 101)
    refused = resize(table, 20_000, 100)
    assert (refused.code, "s19999" in refused.text) == (codes.NO_SPACE, True)
    check_limits(cluster, Limits(20_000, 4096, 64))


# -- opens


def try_open(
    cluster: Cluster,
    node_id: str,
    limits: Limits,
    grow: bool = False,
    size: int = 0,
    flags: int = SA_CKPT_WR_ALL_REPLICAS,
) -> Answer:
    size = size or limits.sections_max * limits.section_bytes_max
    attributes = [flags, size, SA_TIME_END, *limits]
    return cluster.client(node_id).call(Kind.OPEN, 0, [b"x", OPEN_AND_CREATE, attributes, True, grow])


def test_former_limits_open_the_checkpoint_and_the_answer_says_what_is_in_force() -> None:
    cluster = three_nodes()
    table = opened(cluster)
    creation = Limits(100, 4096, 64)
    steps = [Limits(100 + n, 4096, 64) for n in range(1, FORMER_LIMITS_MAX + 3)]
    for limits in steps:
        assert resize(table, *limits).code == codes.OK
    in_force = steps[-1]
    for known in (creation, *steps[3:]):
        answer = try_open(cluster, "a", known)
        assert answer.code == codes.OK, known
        assert answer.payload[2][3:] == list(in_force)
    assert try_open(cluster, "a", steps[0]).code == codes.EXIST
    assert try_open(cluster, "a", creation, size=5).code == codes.EXIST
    answer = try_open(cluster, "a", Limits(99, 8192, 64))
    assert answer.code == codes.EXIST
    assert "maxSections is 118, and 99 was asked for; maxSectionSize is 4096, and 8192 was" in answer.text
    check_limits(cluster, in_force)


def test_a_client_that_grows_a_checkpoint_opens_it_with_any_limits() -> None:
    cluster = three_nodes()
    opened(cluster)
    for limits in (GREW, SHRANK, MIXED):
        assert try_open(cluster, "a", limits, grow=True).code == codes.OK
        refused = try_open(cluster, "a", limits)
        assert refused.code == codes.EXIST
        assert "grow=True" in refused.text
        another_kind = try_open(cluster, "a", limits, flags=SA_CKPT_WR_ACTIVE_REPLICA)
        assert (another_kind.code, "grow=True" in another_kind.text) == (codes.EXIST, False)
    assert try_open(cluster, "a", Limits(1, 4096, 64), grow=True).code == codes.EXIST
    check_limits(cluster, Limits(100, 4096, 64))


# -- faults


def limits_cover(cluster: Cluster) -> bool:
    """Return True if no active replica accepts more than its directory says."""
    for node in cluster.running():
        for replica in node.replicas.values():
            entry = node.directory.checkpoints.get(replica.creation_id)
            if replica.active is None or not replica.active.ready or entry is None:
                continue
            if not entry.attributes.limits.cover(replica.sections.attributes.limits):
                return False
    return True


@KINDS
@pytest.mark.parametrize("limits", [GREW, SHRANK, MIXED])
@pytest.mark.parametrize("held_ms", [0.1, 1, 40])
def test_a_resize_is_finished_after_the_active_replica_died(
    flags: int, limits: Limits, held_ms: float
) -> None:
    """It had told the other replicas what is wanted, and could not tell the directory."""
    cluster = three_nodes()
    table = opened(cluster, flags)
    table.write(b"k", b"v")
    cluster.run(50)
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    cluster.hold(active, coordinator)
    call = begin_resize(table, limits)
    cluster.run(held_ms)
    assert not call.answers
    cluster.kill(active)
    cluster.until(lambda: limits_cover(cluster) and call.answers)
    assert call.code == codes.OK
    check_limits(cluster, limits)
    assert cluster.replica(active_of(cluster)).sections.resize_state.number == 1


@KINDS
@pytest.mark.parametrize("limits", [GREW, SHRANK, MIXED])
def test_a_resize_is_finished_though_its_client_died(flags: int, limits: Limits) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    cluster.hold(active, coordinator)
    begin_resize(table, limits)
    cluster.run(20)
    table.client.disconnect(process_dead=True)
    cluster.run(20)
    cluster.kill(active)
    cluster.run(3000)
    check_limits(cluster, limits)


@KINDS
@pytest.mark.parametrize("limits", [GREW, SHRANK, MIXED])
def test_a_resize_is_finished_after_the_coordinator_died(flags: int, limits: Limits) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    cluster.hold(active, coordinator)
    call = begin_resize(table, limits)
    cluster.run(20)
    assert not call.answers
    cluster.kill(coordinator)
    cluster.until(lambda: limits_cover(cluster) and call.answers)
    assert call.code == codes.OK
    check_limits(cluster, limits)


@KINDS
def test_growth_is_finished_if_the_directory_alone_has_it(flags: int) -> None:
    """The active replica dies after the directory has the limits, and before it puts them in force."""
    cluster = three_nodes()
    table = opened(cluster, flags)
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    call = begin_resize(table, GREW)
    cluster.until(lambda: limits_of(cluster, coordinator)[1] == GREW)
    assert limits_of(cluster, coordinator)[0].sections_max == 100
    cluster.kill(active)
    cluster.until(lambda: call.answers)
    assert call.code == codes.OK
    check_limits(cluster, GREW)


@KINDS
@pytest.mark.parametrize("limits", [GREW, SHRANK])
def test_a_repeat_is_not_done_again_after_a_later_resize(flags: int, limits: Limits) -> None:
    """The answer to the first one is lost, and another client resizes the checkpoint again."""
    cluster = three_nodes()
    table = opened(cluster, flags)
    active = active_of(cluster)
    third = table.client.node_id
    cluster.hold(active, third)
    cluster.hold(third, active)
    call = begin_resize(table, limits)
    cluster.run(1)
    cluster.release(third, active)
    cluster.run(30)
    cluster.release(active, third)
    cluster.until(lambda: call.answers)
    other = cluster.client(active).open_existing()
    assert resize(other, 120, 2000).code == codes.OK
    call.answers.clear()
    cluster.kill(active)
    table.client.send(call)
    cluster.until(lambda: call.answers)
    assert (call.code, call.answer.payload) == (codes.OK, list(limits))  # type: ignore[union-attr]
    assert limits_of(cluster, third)[0][:2] == (120, 2000)
    cluster.check()


@KINDS
def test_a_repeat_waits_until_the_directory_has_it_too(flags: int) -> None:
    cluster = three_nodes()
    table = opened(cluster, flags)
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    cluster.hold(active, coordinator)
    call = begin_resize(table, SHRANK)
    cluster.run(20)
    table.client.send(call)
    cluster.run(20)
    assert not call.answers
    cluster.release(active, coordinator)
    cluster.until(lambda: call.answers)
    assert limits_of(cluster, coordinator) == (SHRANK, SHRANK)
    assert call.code == codes.OK


@pytest.mark.parametrize("limits", [GREW, SHRANK, MIXED])
def test_a_shrink_that_is_not_committed_is_not_in_the_directory(limits: Limits) -> None:
    """One replica lacks it. If that became the active one, it would accept more than the directory says."""
    cluster = three_nodes()
    table = opened(cluster)
    active, third = active_of(cluster), table.client.node_id
    cluster.hold(active, third)
    call = begin_resize(table, limits)
    cluster.run(100)
    assert not call.answers
    assert limits_of(cluster, coordinator_of(cluster))[1] == (100, 4096, 64)
    assert table.status()[0][3:] == [100, 4096, 64]
    cluster.release(active, third)
    cluster.until(lambda: call.answers)
    check_limits(cluster, limits)


@KINDS
@pytest.mark.parametrize("limits", [GREW, SHRANK])
def test_a_replica_that_joins_has_the_limits(flags: int, limits: Limits) -> None:
    """It is given updates or sections, before, in the middle of, and after a resize."""
    cluster = three_nodes()
    table = opened(cluster, flags)
    fill(table, 80)
    late = "c" if table.client.node_id != "c" else active_of(cluster)
    for number in range(40, 80):
        table.update([Op.DELETE, b"s%d" % number])
    cluster.run(50)
    cluster.kill(late)
    if table.client.node_id == late:
        table.client.move(coordinator_of(cluster))
    cluster.until(lambda: len(cluster.running()[0].view.members) == 2)  # type: ignore[union-attr]
    call = begin_resize(table, limits)
    cluster.restart(late)
    cluster.until(lambda: call.answers)
    assert call.code == codes.OK, call.answer
    check_limits(cluster, limits)


def test_a_new_replica_that_is_given_every_update_begins_with_the_limits_of_the_creation() -> None:
    """With the smaller limits of today, it would refuse the updates from before the resize."""
    cluster = three_nodes(replicas=2)
    table = cluster.client("a").open()
    fill(table, 80)
    for number in range(10, 80):
        table.update([Op.DELETE, b"s%d" % number])
    assert resize(table, 10, 5, 4).code == codes.OK
    holders = cluster.in_sync("a")
    victim = next(node_id for node_id in holders if node_id != "a")
    cluster.kill(victim)
    cluster.until(lambda: len(cluster.running()[0].view.members) == 2)  # type: ignore[union-attr]
    check_limits(cluster, Limits(10, 5, 4))
    assert not cluster.quarantined


def test_all_nodes_start_again_after_a_resize() -> None:
    cluster = three_nodes()
    table = opened(cluster)
    assert resize(table, *GREW).code == codes.OK
    assert resize(table, *SHRANK).code == codes.OK
    active = active_of(cluster)
    for node_id in "abc":
        if node_id != active:
            cluster.kill(node_id)
            cluster.until(lambda: cluster.active() == active)
            cluster.restart(node_id)
            check_limits(cluster, SHRANK)
