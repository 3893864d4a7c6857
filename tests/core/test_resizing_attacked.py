"""Resizes (ADR 33) against odd clients, and at odd times."""

from itertools import pairwise
from typing import Any

import pytest
from tests.core.client import Call, Opened
from tests.core.cluster import Cluster, nodes, three_nodes
from tests.core.leading import ALL_KINDS
from tests.core.test_resizing import (
    GREW,
    MIXED,
    active_of,
    begin_resize,
    check_limits,
    coordinator_of,
    large_table,
    opened,
    resize,
    resize_op,
    third_node,
)
from tests.core.test_withdrawals import withdraw

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.content.resize_state import ResizeState
from ckptd.core.directory.attributes import Limits
from ckptd.core.events import ClientReceived, TimeCame

KINDS = pytest.mark.parametrize("flags", ALL_KINDS)


def two_that_wait(cluster: Cluster, flags: int, second: list[Any]) -> tuple[Opened, Call, Call]:
    """Begin two resizes. The first waits for the directory, and the second for the first."""
    table = opened(cluster, flags)
    table.client.move(active_of(cluster))
    active, coordinator = active_of(cluster), coordinator_of(cluster)
    cluster.hold(active, coordinator)
    first = begin_resize(table, GREW)
    waiting = table.begin(Kind.UPDATE, second)
    cluster.run(20)
    assert not first.answers and not waiting.answers
    return table, first, waiting


def release(cluster: Cluster) -> None:
    cluster.release(active_of(cluster), coordinator_of(cluster))


def begin_search(cluster: Cluster) -> tuple[Opened, Call]:
    """Begin a shrink of a large checkpoint, and stop in the middle of its search."""
    table = large_table(cluster)
    shrink = table.begin(Kind.UPDATE, resize_op(None, 100))
    replica = cluster.replica("a")
    cluster.until(lambda: replica.sections.search is not None)
    for _ in range(3):
        cluster.deliver("a", TimeCame())
    assert replica.sections.search is not None
    return table, shrink


def send_at_once(cluster: Cluster, table: Opened, number: int, op: list[Any]) -> None:
    """Let the node handle this update now, before the search goes on."""
    data = encode_frame(Kind.UPDATE, number, table.handle, 1, pack_body([op]))
    cluster.deliver("a", ClientReceived(table.client.link, list(FrameDecoder().feed(data))))


def test_a_search_for_other_limits_proves_nothing() -> None:
    """A client sent its request once more while the service searched, with smaller limits.

    They were put in force when the search for the first limits ended, below the sections that are there.
    """
    cluster = nodes("a")
    table, shrink = begin_search(cluster)
    send_at_once(cluster, table, shrink.number, resize_op(None, 10))
    cluster.until(lambda: shrink.answers)
    assert shrink.code == codes.NO_SPACE
    check_limits(cluster, Limits(20_000, 4096, 64))


def test_the_withdrawal_of_another_resize_does_not_begin_the_search_again() -> None:
    """A client that withdrew one again and again would have kept the first one from its end."""
    cluster = nodes("a")
    table, shrink = begin_search(cluster)
    search = cluster.replica("a").sections.search
    send_at_once(cluster, table, shrink.number + 1, resize_op(None, 200))
    ping = pack_body([shrink.number + 1])
    data = encode_frame(Kind.PING, shrink.number + 2, 0, 1, ping)
    for number in (shrink.number + 1, shrink.number + 2):
        table.client.calls[number] = Call(number, Kind.UPDATE, table.handle, b"")
    table.client.numbers = shrink.number + 2
    cluster.deliver("a", ClientReceived(table.client.link, list(FrameDecoder().feed(data))))
    assert cluster.replica("a").sections.search is search is not None
    cluster.until(lambda: shrink.answers)
    assert table.client.calls[shrink.number + 1].code == codes.TRY_AGAIN
    check_limits(cluster, Limits(20_000, 100, 64))


@KINDS
def test_a_duplicate_of_a_resize_that_waits_is_not_refused(flags: int) -> None:
    """TRY_AGAIN says that nothing will be done. But the first one still waited, and was done."""
    cluster = three_nodes(requests_waiting_max=2)
    table, first, waiting = two_that_wait(cluster, flags, resize_op(150))
    table.client.send(waiting)
    cluster.run(20)
    assert not waiting.answers
    release(cluster)
    cluster.until(lambda: first.answers and waiting.answers)
    assert (first.code, waiting.code) == (codes.OK, codes.OK)
    check_limits(cluster, Limits(150, 4096, 64))


def test_a_duplicate_of_a_resize_that_waits_is_not_refused_while_a_replica_lags() -> None:
    cluster = three_nodes(pending_bytes_max=10_000, log_bytes_max=0)
    table, first, waiting = two_that_wait(cluster, ALL_KINDS[0], resize_op(150))
    active, lags = active_of(cluster), third_node(cluster)
    cluster.hold(active, lags)
    writes = [table.begin_write(b"k%d" % number, b"v" * 4000) for number in range(5)]
    cluster.run(20)
    assert codes.TRY_AGAIN in {call.code for call in writes}
    table.client.send(waiting)
    cluster.run(20)
    assert not waiting.answers
    release(cluster)
    cluster.release(active, lags)
    cluster.until(lambda: first.answers and waiting.answers)
    assert waiting.code == codes.OK
    cluster.check()


@KINDS
def test_a_resize_that_waits_is_not_done_once_its_session_has_ended(flags: int) -> None:
    """It was done, and its answer stayed in the memory of every replica for ever."""
    cluster = three_nodes()
    other = opened(cluster, flags)
    active, coordinator, third = active_of(cluster), coordinator_of(cluster), third_node(cluster)
    table = cluster.client(third).open_existing()
    session = table.client.session
    cluster.hold(active, coordinator)
    first = begin_resize(other, GREW)
    cluster.run(5)
    second = table.begin(Kind.UPDATE, resize_op(150))
    cluster.until(lambda: cluster.replica(active).active.resizes)  # type: ignore[union-attr]
    table.client.begin(Kind.DETACH)
    cluster.run(5)
    cluster.release(active, coordinator)
    cluster.until(lambda: session not in cluster.node(active).directory.sessions)
    cluster.until(lambda: first.answers)
    cluster.run(500)
    assert second.code == codes.BAD_HANDLE
    assert all(session not in cluster.replica(node_id).log.answers for node_id in "abc")
    check_limits(cluster, GREW)


def test_many_resizes_that_wait_do_not_stall_the_node() -> None:
    """All those that changed nothing were done in one event: 30,000 of them may wait for a long search."""
    cluster = three_nodes(work_per_turn=200)
    table, first, _ = two_that_wait(cluster, ALL_KINDS[0], resize_op(200))
    calls = [table.begin(Kind.UPDATE, resize_op(200)) for _ in range(100)]
    active = cluster.replica(active_of(cluster)).active
    assert active is not None
    cluster.until(lambda: len(active.resizes) > 90)
    waiting: list[int] = []
    release(cluster)
    cluster.until(lambda: waiting.append(len(active.resizes)) or not active.resizes)  # type: ignore[func-returns-value]
    assert max(before - after for before, after in pairwise(waiting)) <= 20
    cluster.until(lambda: all(call.answers for call in calls))
    assert {call.code for call in (first, *calls)} == {codes.OK}
    check_limits(cluster, GREW)


def test_the_reason_why_a_resize_was_given_back_is_the_one_before_it() -> None:
    """The text named no replica: "the replicas on  have not acknowledged earlier updates"."""
    cluster = three_nodes(replicas=1)
    table = cluster.client("c").open()
    assert (active_of(cluster), coordinator_of(cluster)) == ("c", "a")
    cluster.hold("c", "a")
    first, waiting = begin_resize(table, GREW), begin_resize(table, MIXED)
    cluster.run(20)
    withdraw(table.client, waiting)
    assert waiting.code == codes.TRY_AGAIN
    assert waiting.answers[0].text == "an earlier resize of this checkpoint is not finished"
    cluster.release("c", "a")
    cluster.until(lambda: first.answers)
    check_limits(cluster, GREW)


def test_limits_of_updates_that_were_lost_are_forgotten() -> None:
    """A replica that went on from another one's content kept the place of a resize that had been lost.

    As the active replica it showed the limits from before that one, and did not go on with a resize until as
    many updates had come again.
    """
    cluster = three_nodes()
    table = opened(cluster, SA_CKPT_WR_ACTIVE_REPLICA)
    old = active_of(cluster)
    others = [node_id for node_id in "abc" if node_id != old]
    table.client.move(old)
    for node_id in others:
        cluster.cut(old, node_id)
    for number in range(30):
        table.begin_write(b"s%d" % number, b"v")
    begin_resize(table, GREW)
    cluster.run(20)
    assert cluster.replica(old).sections.limits_before[0] > 30
    table.client.move(others[0])
    cluster.until(lambda: cluster.active() in others)
    assert resize(table, *MIXED).code == codes.OK
    cluster.heal()
    check_limits(cluster, MIXED)
    assert [node_id for node_id, _ in cluster.quarantined] == [old]
    replica = cluster.replica(old)
    assert replica.committed_attributes().limits == MIXED
    assert replica.sections.limits_before[0] <= replica.log.seq


@KINDS
@pytest.mark.parametrize("pause_ms", [0, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_an_unlinked_checkpoint_is_resized_and_not_its_namesake(flags: int, pause_ms: float) -> None:
    """Its name is another checkpoint's when the directory hears of the resize, or soon after."""
    cluster = three_nodes()
    table = opened(cluster, flags)
    client = cluster.client(coordinator_of(cluster))
    first = begin_resize(table, GREW)
    cluster.run(pause_ms)
    second = table.begin(Kind.UPDATE, resize_op(150))
    assert client.unlink().code == codes.OK
    new = client.open(flags=flags, sections_max=70)
    cluster.until(lambda: first.answers and second.answers)
    assert (first.code, second.code) == (codes.OK, codes.OK)
    assert new.status()[0][3] == 70
    assert table.status()[0][3] == 150
    check_limits(cluster, Limits(70, 4096, 64))
    table.close()
    new.close()
    assert client.unlink().code == codes.OK
    cluster.run(100)
    cluster.check()


@KINDS
@pytest.mark.parametrize("limits", [GREW, MIXED, Limits(50, 100, 32)])
def test_content_that_lost_a_resize_is_resized_to_the_larger_of_both(flags: int, limits: Limits) -> None:
    """All replicas that had it are lost, and the directory still has it."""
    cluster = three_nodes()
    table = opened(cluster, flags)
    table.write(b"k", b"v" * 4096)
    table.write(b"k", b"v")
    assert resize(table, *limits).code == codes.OK
    former = Limits(100, 4096, 64)
    for node_id in "abc":
        cluster.replica(node_id).sections.replace_limits(ResizeState(0, former, former), 0)
    cluster.kill(active_of(cluster))
    cluster.until(cluster.active)
    cluster.run(500)
    check_limits(cluster, former.at_least(limits))
    assert cluster.replica(active_of(cluster)).sections.resize_state.number == 2
