"""Many requests of one client that wait: there is room for some, the others wait in its lane."""

import pytest
from tests.core.client import READ_WRITE, Call, Client
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import OK, TRY_AGAIN
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind, Op

EXISTING = pack_body([b"x", READ_WRITE, None, False])
LIMIT = 16
MANY = 200


def unavailable(**settings: int) -> Cluster:
    """`x` was at b alone, and b is silent: nobody knows whether it is dead."""
    cluster = three_nodes(**settings)
    table = cluster.client("b").open(flags=SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED)
    table.write(b"k", b"v")
    cluster.pause("b")
    cluster.until(lambda: cluster.serving("a") and "b" not in cluster.node("a").reconfiguration.view.members)
    return cluster


def begin(client: Client, kind: int, handle: int, body: bytes, count: int = MANY) -> list[Call]:
    calls = [Call(client._next(), kind, handle, body) for _ in range(count)]
    client.calls.update({call.number: call for call in calls})
    data = b"".join(encode_frame(kind, call.number, handle, calls[0].number, body) for call in calls)
    client.cluster.send_to_node(client.link, data)
    return calls


def test_an_open_without_capacity_is_answered_and_ends_no_node() -> None:
    """It was kept because it was to try again, refused for want of room, and so on: RecursionError."""
    cluster = unavailable(requests_waiting_max=LIMIT)
    calls = begin(cluster.client("a"), Kind.OPEN, 0, EXISTING)
    cluster.run(1)
    held = cluster.node("a").requests.waiting.parked
    assert len(held) == LIMIT
    told = [call.answer for call in calls if call.answer is not None]
    assert len(told) == MANY - LIMIT
    assert {(answer.code, answer.text) for answer in told} == {
        (TRY_AGAIN, "too many requests already wait at this node (requests_waiting_max)")
    }
    cluster.resume("b")
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.check()


def test_requests_of_one_client_that_a_node_holds_are_few_and_the_others_wait_in_its_lane() -> None:
    """90,000 that one link had held took 120 ms to look at, at each heartbeat, and 400 ms to be refused."""
    cluster = unavailable(unanswered_per_link=LIMIT)
    calls = begin(cluster.client("a"), Kind.OPEN, 0, EXISTING)
    cluster.run(1)
    assert 0 < len(cluster.node("a").requests.waiting.parked) <= LIMIT
    cluster.client("a").open(b"other")
    cluster.resume("b")
    cluster.until(lambda: all(call.answers for call in calls))
    assert [call.code for call in calls[LIMIT:]] == [OK] * (MANY - LIMIT)
    assert not cluster.node("a").turns.lanes
    assert not cluster.node("a").turns.unanswered
    cluster.check()


def test_the_end_of_a_client_does_not_wait_for_a_request_of_it_that_no_node_can_answer() -> None:
    cluster = unavailable(unanswered_per_link=LIMIT)
    client = cluster.client("a")
    begin(client, Kind.OPEN, 0, EXISTING)
    cluster.run(1)
    node = cluster.node("a")
    assert len(node.turns.lanes) == 1
    client.disconnect(process_dead=True)
    cluster.run(1)
    assert not node.turns.lanes
    assert client.session not in node.sessions.link_of_session
    cluster.run(2000)
    assert client.session not in node.directory.sessions


def test_what_was_parked_over_a_fail_over_continues_at_once_and_in_order() -> None:
    cluster = three_nodes(unanswered_per_link=LIMIT)
    active = cluster.client("a").open()
    active.write(b"k", b"v")
    table = cluster.client("b").open_existing()
    cluster.kill("a")
    calls = [table.begin_write(b"k", b"%d" % number) for number in range(MANY)]
    cluster.until(lambda: all(call.answers for call in calls))
    assert [call.code for call in calls] == [OK] * MANY
    assert table.read(b"k") == b"%d" % (MANY - 1)
    assert not cluster.node("b").turns.unanswered
    cluster.check()


def test_reads_that_ask_what_is_committed_are_few_for_one_client() -> None:
    cluster = three_nodes(unanswered_per_link=LIMIT)
    table = cluster.client("a").open()
    table.write(b"k", b"old")
    reader = cluster.client("b").open_existing()
    cluster.hold("c", "a")
    cluster.hold("a", "c")
    write = table.begin(Kind.UPDATE, [Op.PUT, b"k", b"new", None])
    cluster.run(1)
    cluster.hold("b", "a")
    calls = begin(reader.client, Kind.READ, reader.handle, pack_body([[b"k", 0, None]]))
    cluster.run(1)
    assert len(cluster.node("b").requests.waiting.commit_queries) == LIMIT
    for sender, peer in (("b", "a"), ("a", "c"), ("c", "a")):
        cluster.release(sender, peer)
    cluster.until(lambda: all(call.answers for call in [write, *calls]))
    assert {call.code for call in calls} == {OK}
    assert not cluster.node("b").turns.unanswered
    cluster.check()


@pytest.mark.parametrize("more", [[], [Kind.OPEN]])
def test_a_ping_may_withdraw_all_that_its_lane_waits_for_and_what_comes_with_it_is_served(
    more: list[int],
) -> None:
    """The lane was gone by then: the node raised, or what came behind the PING was lost (seed 7018342)."""
    cluster = unavailable(unanswered_per_link=LIMIT)
    client = cluster.client("a")
    cluster.client("a").open(b"other")
    lanes, calls = cluster.node("a").turns.lanes, []
    while not lanes:
        calls += begin(client, Kind.OPEN, 0, EXISTING, 1)
        cluster.run(1)
    assert [(lane.full, len(lane.items)) for lane in lanes.values()] == [(True, 0)]
    numbers = [call.number for call in calls]
    calls.append(Call(client._next(), Kind.PING, 0, pack_body(numbers)))
    calls += [Call(client._next(), kind, 0, pack_body([b"other", READ_WRITE, None, False])) for kind in more]
    client.calls.update({call.number: call for call in calls})
    data = b"".join(
        encode_frame(call.kind, call.number, 0, numbers[0], call.body) for call in calls[len(numbers) :]
    )
    client.cluster.send_to_node(client.link, data)
    cluster.run(50)
    assert [call.code for call in calls] == [TRY_AGAIN] * len(numbers) + [OK] * (1 + len(more))
    assert not lanes
