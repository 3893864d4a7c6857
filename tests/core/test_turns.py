"""A bounded amount of counted work in one event; the rest in later ones, after others had their turn."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.client import Call, Opened
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import NOT_EXIST, OK, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_CORRUPTED,
    SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME,
    SA_CKPT_WR_ACTIVE_REPLICA,
)
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind, Op
from ckptd.core.directory.directory import DirectoryOp
from ckptd.core.directory.replicator import INTERNAL_OPS_MAX
from ckptd.core.events import ClientCongested, ClientDrained, ClientLost, ClientReceived, TurnCame
from ckptd.core.node import Node
from ckptd.core.requests.router import DIRECTORY_WEIGHT
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.work_costs import FRAME_WORK, KIB_SHIFT

MANY = 200


def writes(table: Opened, count: int = MANY) -> list[Call]:
    """Begin many updates of one section in one read of the node's socket, each with its own number."""
    client = table.client
    calls, data = [], b""
    for number in range(count):
        call = Call(
            client._next(), Kind.UPDATE, table.handle, pack_body([[Op.PUT, b"k", b"%d" % number, None]])
        )
        client.calls[call.number] = call
        calls.append(call)
        data += encode_frame(call.kind, call.number, call.handle, calls[0].number, call.body)
    client.cluster.send_to_node(client.link, data)
    return calls


def pipeline(table: Opened, kind: int, count: int, *fields: Any) -> list[Call]:
    """Begin many requests in one read of the node's socket."""
    client = table.client
    calls = [Call(client._next(), kind, table.handle, pack_body(list(fields))) for _ in range(count)]
    client.calls.update({call.number: call for call in calls})
    data = b"".join(encode_frame(c.kind, c.number, c.handle, calls[0].number, c.body) for c in calls)
    client.cluster.send_to_node(client.link, data)
    return calls


class Metered:
    """A core whose counted work is looked at event by event."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.worst = 0
        self.turns = 0
        self._handle = node.handle
        node.handle = self  # type: ignore[assignment]

    def __call__(self, event: Any, now_ns: int) -> Any:
        began = 0 if isinstance(event, TurnCame) else self.node.context.work
        effects = self._handle(event, now_ns)
        self.worst = max(self.worst, self.node.context.work - began)
        self.turns += isinstance(event, TurnCame)
        return effects


def test_what_one_read_of_a_socket_brought_is_done_in_turns_and_in_order() -> None:
    cluster = three_nodes(work_per_turn=200, work_per_link=100)
    table = cluster.client("a").open()
    metered = Metered(cluster.node("a"))
    calls = writes(table)
    cluster.until(lambda: all(call.answers for call in calls))
    assert [call.code for call in calls] == [OK] * MANY
    assert table.read(b"k") == b"%d" % (MANY - 1)
    assert metered.worst <= 200 + 2 * FRAME_WORK
    assert metered.turns >= MANY * FRAME_WORK // 200
    cluster.check()


def test_a_client_is_served_between_two_turns_of_one_that_asks_for_much() -> None:
    """One program with 10,000 writes under way raised another's p99 from 5 to 747 ms."""
    cluster = three_nodes(work_per_turn=200, work_per_link=100)
    busy, quick = cluster.client("a").open(), cluster.client("a").open_existing()
    quick.write(b"q", b"0")
    calls = writes(busy, 1000)
    cluster.run(0.1)
    assert not calls[-1].answers
    quick.write(b"q", b"1")
    assert sum(bool(call.answers) for call in calls) < 300
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.check()


def test_a_node_with_much_to_do_still_keeps_its_lease() -> None:
    """Heartbeats are events of their own, and come between the turns."""
    cluster = three_nodes(
        work_per_turn=FRAME_WORK,
        work_per_link=FRAME_WORK,
        unanswered_per_link=10**6,
        heartbeat_ns=MILLISECOND_NS // 10,
        lease_ns=MILLISECOND_NS,
        grace_ns=2 * MILLISECOND_NS,
    )
    table = cluster.client("a").open()
    epoch = cluster.node("a").context.epoch
    calls = writes(table, 3000)
    cluster.run(1.5)
    while not all(call.answers for call in calls):
        assert cluster.node("a").turn_due
        assert cluster.serving("a")
        cluster.run(0.1)
    assert cluster.node("a").context.epoch == epoch
    cluster.check()


def test_a_small_frame_is_served_at_once_while_nothing_waits() -> None:
    cluster = nodes("a")
    table = cluster.client("a").open()
    node = cluster.node("a")
    frame = encode_frame(Kind.UPDATE, 77, table.handle, 77, pack_body([[Op.PUT, b"k", b"v", None]]))
    event = ClientReceived(table.client.link, FrameDecoder().feed(frame))
    node.context.work = 0
    assert node.handle(event, cluster.now_ns)
    assert not node.turn_due


# -- answers that nobody reads


def test_a_client_that_reads_no_answers_is_served_no_more_until_it_does() -> None:
    """108 KB of READs made 6 GB of answers, which nobody read."""
    cluster = nodes("a", lane_bytes_max=10_000)
    table = cluster.client("a").open(section_bytes_max=1 << 20)
    table.write(b"k", bytes(1 << 20))
    link = table.client.link
    cluster.deliver("a", ClientCongested(link))
    calls = pipeline(table, Kind.READ, MANY, [b"k", 0, None])
    cluster.run(50)
    assert not any(call.answers for call in calls)
    assert link in cluster.unread("a")
    cluster.deliver("a", ClientDrained(link))
    cluster.until(lambda: all(call.answers for call in calls))
    assert link not in cluster.unread("a")
    assert cluster.node("a").turns.lanes == {}


def test_a_link_that_is_in_the_round_is_not_served_once_it_reads_no_answers() -> None:
    """A second answer of 63 MiB was made for each client that had not read the first one."""
    cluster = nodes("a")
    table = cluster.client("a").open(section_bytes_max=1 << 20)
    table.write(b"k", bytes(1 << 20))
    link, node = table.client.link, cluster.node("a")
    frame = encode_frame(Kind.READ, 77, table.handle, 77, pack_body([[b"k", 0, None]]))
    node.handle(TurnCame(), cluster.now_ns)
    assert node.handle(ClientReceived(link, FrameDecoder().feed(2 * frame)), cluster.now_ns)
    assert node.turn_due
    node.handle(ClientCongested(link), cluster.now_ns)
    assert not node.handle(TurnCame(), cluster.now_ns)
    assert not node.turn_due
    node.handle(ClientDrained(link), cluster.now_ns)
    assert node.handle(TurnCame(), cluster.now_ns)
    assert node.turns.lanes == {}


def test_one_turn_makes_few_bytes_of_answers_for_one_link() -> None:
    """The runtime can say only between two events that the answers are not read."""
    cluster = nodes("a")
    table = cluster.client("a").open(section_bytes_max=1 << 20)
    table.write(b"k", bytes(1 << 20))
    metered = Metered(cluster.node("a"))
    calls = pipeline(table, Kind.READ, 50, [b"k", 0, None])
    cluster.until(lambda: all(call.answers for call in calls))
    assert metered.worst < cluster.node("a").settings.work_per_turn + 2 * ((1 << 20) >> KIB_SHIFT)
    assert metered.turns >= 8


def test_a_congested_client_delays_no_other_client() -> None:
    cluster = nodes("a")
    stuck, other = cluster.client("a").open(), cluster.client("a").open_existing()
    cluster.deliver("a", ClientCongested(stuck.client.link))
    calls = writes(stuck)
    other.write(b"k", b"other")
    assert not any(call.answers for call in calls)


# -- many answers that come from elsewhere


def test_a_client_with_many_writes_under_way_waits_for_their_commit() -> None:
    """What it sends would only wait at the replicas, and everybody else's updates behind it."""
    cluster = three_nodes(unanswered_per_link=10)
    table = cluster.client("a").open()
    other = cluster.client("a").open_existing()
    replica = cluster.replica("a")
    calls = writes(table)
    worst = 0
    while not all(call.answers for call in calls):
        cluster.run(0.01)
        worst = max(worst, len(replica.log.pending))
        if len(other.client.calls) < 50:
            other.begin(Kind.PING)
    assert 5 <= worst <= 10
    assert cluster.node("a").turns.unanswered == {}
    cluster.check()


@pytest.mark.parametrize("flags", [1, SA_CKPT_WR_ACTIVE_REPLICA])
def test_requests_that_go_to_another_node_are_bounded_as_well(flags: int) -> None:
    cluster = three_nodes(unanswered_per_link=10)
    creator = cluster.client("a").open(flags=flags)
    table = cluster.client("b").open_existing()
    assert cluster.active() == "a"
    waiting = cluster.node("b").requests.waiting.forwarded
    calls = writes(table)
    worst = 0
    while not all(call.answers for call in calls):
        cluster.run(0.01)
        worst = max(worst, len(waiting))
    assert 5 <= worst <= 10
    assert creator.read(b"k") == b"%d" % (MANY - 1)
    cluster.check()


@pytest.mark.parametrize("node_id", ["a", "b"])
def test_requests_of_the_directory_are_bounded_as_well(node_id: str) -> None:
    """One link with 60,000 OPENs under way kept everybody else's out of the directory, for a minute."""
    cluster = three_nodes(unanswered_per_link=10 * DIRECTORY_WEIGHT)
    creator = cluster.client("a").open()
    assert cluster.node("a").replicator.is_coordinator
    table = cluster.client(node_id).open_existing()
    queue = cluster.node("a").replicator.queue
    table.handle = 0
    calls = pipeline(table, Kind.OPEN, MANY, b"x", 3, None, False)
    worst = 0
    while not all(call.answers for call in calls):
        cluster.run(0.01)
        worst = max(worst, len(queue) + (cluster.node("a").replicator.waiting_request is not None))
    assert 5 <= worst <= 11
    assert {call.code for call in calls} == {OK}
    assert creator.status()[5] == MANY + 2
    assert cluster.node(node_id).turns.unanswered == {}
    cluster.check()


def test_what_waited_for_a_change_of_the_directory_is_looked_at_in_turns() -> None:
    """Requests that are refused leave nothing to wait for: thousands of them were refused in one event."""
    cluster = three_nodes(work_per_turn=200, work_per_link=100, unanswered_per_link=10_000)
    table = cluster.client("a").open()
    other = cluster.client("a").open_existing()
    cluster.hold("a", "b")
    first = table.client.begin(Kind.UNLINK, 0, [b"x"])
    other.handle = 0
    calls = pipeline(other, Kind.OPEN, MANY, b"none", 1, None, False)
    cluster.run(5)
    order = cluster.node("a").replicator
    assert len(order.queue) == MANY
    metered = Metered(cluster.node("a"))
    cluster.release("a", "b")
    cluster.until(lambda: first.answers and all(call.answers for call in calls))
    assert {call.code for call in calls} == {NOT_EXIST}
    assert metered.worst <= 700
    assert metered.turns >= 5
    cluster.check()


def test_what_is_withdrawn_from_a_lane_frees_its_capacity() -> None:
    """It counted for ever, until all lanes together seemed to hold much and each was allowed little."""
    cluster = three_nodes(unanswered_per_link=10)
    table = cluster.client("a").open()
    for node_id in "bc":
        cluster.hold("a", node_id)
    calls = writes(table, 30)
    cluster.run(1)
    table.client.begin(Kind.PING, 0, [call.number for call in calls[20:]])
    cluster.run(5)
    assert {call.code for call in calls[20:]} == {TRY_AGAIN}
    for node_id in "bc":
        cluster.release("a", node_id)
    cluster.until(lambda: all(call.answers for call in calls[:20]))
    assert cluster.node("a").turns.lanes == {}
    assert cluster.node("a").turns.waiting_bytes == 0
    cluster.check()


def test_a_ping_is_answered_while_its_client_waits_for_a_commit() -> None:
    """A client whose node does not answer a PING looks for another one."""
    cluster = three_nodes(unanswered_per_link=10)
    table = cluster.client("a").open()
    for node_id in "bc":
        cluster.hold("a", node_id)
    calls = writes(table)
    cluster.run(5)
    ping = table.client.begin(Kind.PING)
    cluster.run(5)
    assert ping.code == OK
    assert not any(call.answers for call in calls)
    for node_id in "bc":
        cluster.release("a", node_id)
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.check()


def test_requests_whose_node_was_lost_do_not_count_for_ever() -> None:
    """b passes writes on to a, which dies with them: the client at b is served on."""
    cluster = three_nodes(unanswered_per_link=10)
    cluster.client("a").open()
    table = cluster.client("b").open_existing()
    cluster.hold("a", "b")
    calls = writes(table)
    cluster.run(5)
    cluster.kill("a")
    cluster.until(lambda: all(call.answers for call in calls))
    table.write(b"k", b"after")
    cluster.restart("a")
    cluster.check()
    assert cluster.node("b").turns.unanswered == {}


# -- links that are lost


def test_what_a_link_brought_before_it_was_lost_is_done_before_that() -> None:
    """A program that writes and ends at once: its writes came before its end."""
    cluster = three_nodes(work_per_turn=200, work_per_link=100)
    table = cluster.client("a").open()
    other = cluster.client("b").open_existing()
    writes(table)
    cluster.run(0.1)
    cluster.deliver("a", ClientLost(table.client.link))
    cluster.run(50)
    assert other.read(b"k") == b"%d" % (MANY - 1)
    assert cluster.node("a").turns.lanes == {}
    cluster.check()


@pytest.mark.parametrize("node_id", ["a", "b"])
def test_a_lost_link_is_not_delayed_by_what_lies_below_its_lowest_number(node_id: str) -> None:
    """Such a request had no answer, and the lane waited for it for ever: the session never ended (seed 7003105)."""
    cluster = three_nodes(unanswered_per_link=1)
    creator = cluster.client("a").open()
    assert cluster.node("a").replicator.is_coordinator
    client = cluster.client(node_id).open_existing().client
    client.numbers = 100
    client.call(Kind.UNLINK, 0, [b"none"])
    client.numbers = 10
    data = b"".join(encode_frame(Kind.UNLINK, client._next(), 0, 101, pack_body([b"none"])) for _ in range(5))
    cluster.deliver(node_id, ClientReceived(client.link, FrameDecoder().feed(data)))
    client.disconnect()
    cluster.until(lambda: client.session not in cluster.node("c").directory.sessions)
    assert cluster.node(node_id).turns.lanes == {}
    assert creator.status()[5] == 1
    cluster.check()


def test_a_lost_link_is_not_delayed_by_what_came_after_its_session() -> None:
    """A session goes from b to c. What b passes on before it knows comes to nothing, and has no answer."""
    cluster = three_nodes(unanswered_per_link=10)
    cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    table = cluster.client("b").open_existing()
    assert cluster.active() == "a" and cluster.node("a").replicator.is_coordinator
    link = table.client.link
    attach = table.client.begin_attach("c")
    node = cluster.node("b")
    cluster.until(lambda: node.replicator.in_flight is not None)
    cluster.hold("a", "b")
    cluster.run(0.01)
    puts = (
        encode_frame(Kind.UPDATE, 100 + n, table.handle, 100, pack_body([[Op.PUT, b"k", b"v", None]]))
        for n in range(50)
    )
    cluster.deliver("b", ClientReceived(link, FrameDecoder().feed(b"".join(puts))))
    cluster.deliver("b", ClientLost(link))
    cluster.until(lambda: attach.answers)
    cluster.run(1)
    cluster.release("a", "b")
    cluster.run(100)
    assert node.turns.lanes == {}
    assert link not in node.sessions.links
    assert cluster.contents("a") == {}
    cluster.check()


def test_reads_of_a_client_that_is_gone_are_not_done() -> None:
    cluster = nodes("a", work_per_turn=FRAME_WORK, work_per_link=FRAME_WORK)
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    pipeline(table, Kind.READ, MANY, [b"k", 0, None])
    cluster.run(0.06)
    cluster.deliver("a", ClientLost(table.client.link))
    cluster.run(0.1)
    assert not cluster.node("a").turn_due


def test_frames_after_garbage_are_not_looked_at() -> None:
    cluster = nodes("a", work_per_turn=2 * FRAME_WORK, work_per_link=FRAME_WORK)
    table = cluster.client("a").open()
    table.write(b"k", b"before")
    good = encode_frame(Kind.UPDATE, 70, table.handle, 70, pack_body([[Op.PUT, b"k", b"behind", None]]))
    bad = encode_frame(Kind.TRACK, 71, table.handle, 70, b"\xc1")
    client = table.client
    client.calls[69] = Call(69, Kind.PING, 0, b"")
    ping = encode_frame(Kind.PING, 69, 0, 69, pack_body([]))
    cluster.send_to_node(client.link, ping + bad + good * 50)
    cluster.run(20)
    assert cluster.contents("a") == {b"k": b"before"}


def test_the_loss_of_a_peer_and_its_return_wait_until_its_frames_are_handled() -> None:
    cluster = three_nodes(work_per_turn=40, work_per_link=40, unanswered_per_link=1000)
    table = cluster.client("a").open()
    calls = writes(table)
    cluster.run(1)
    cluster.flap("a", "b", down_ms=0.01)
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.check()
    for node_id in "abc":
        assert cluster.contents(node_id) == {b"k": b"%d" % (MANY - 1)}


def test_a_peer_that_sends_faster_than_it_is_served_is_not_read_during_that_time() -> None:
    cluster = three_nodes(unanswered_per_link=1000, lane_bytes_max=3000)
    table = cluster.client("a").open()
    for node_id in "bc":
        turns = cluster.node(node_id).turns
        turns.work_max = turns.quantum = 10
    calls = writes(table)
    stopped = False
    while not all(call.answers for call in calls):
        cluster.run(0.01)
        stopped = stopped or "a" in cluster.unread("b") or "a" in cluster.unread("c")
        for node_id in "bc":
            lane = cluster.node(node_id).turns.lanes.get("a")
            assert lane is None or lane.waiting_bytes < 3000 + MANY * 400
    assert stopped
    cluster.check()


# -- many at once


def test_many_requests_that_waited_for_a_view_continue_in_turns_and_in_their_order() -> None:
    cluster = three_nodes(work_per_turn=200, work_per_link=100)
    table = cluster.client("b").open()
    cluster.settle()
    cluster.kill("c", silent=True)
    cluster.until(lambda: not cluster.serving("b"))
    calls = writes(table)
    metered = Metered(cluster.node("b"))
    cluster.until(lambda: all(call.answers for call in calls))
    assert metered.worst <= 200 + 20 * FRAME_WORK
    assert {call.code for call in calls} == {OK}
    assert table.read(b"k") == b"%d" % (MANY - 1)


def test_the_turns_of_a_recording_are_its_events() -> None:
    """The core reads no clock: the same events have the same effects."""

    def run() -> list[str]:
        cluster = three_nodes(work_per_turn=200, work_per_link=100)
        table = cluster.client("a").open()
        seen: list[str] = []
        node = cluster.node("a")
        handle = node.handle

        def noting(event: Any, now_ns: int) -> Any:
            effects = handle(event, now_ns)
            seen.append(f"{event!r} {effects!r}")
            return effects

        node.handle = noting  # type: ignore[method-assign]
        calls = writes(table)
        cluster.until(lambda: all(call.answers for call in calls))
        return seen

    assert run() == run()


# -- long requests


def iterated(table: Opened, *fields: Any) -> list[list[Any]]:
    """Every page that an iteration gets."""
    pages, after = [], None
    while True:
        chosen, expiration_ns, limit = fields
        answer = table.call(Kind.ITERATE, chosen, expiration_ns, after, False, limit)
        assert answer.code == OK, answer
        page, after = answer.payload
        pages.append([row[0] for row in page])
        if after is None:
            return pages


def test_an_iteration_looks_at_a_bounded_number_of_sections_in_one_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A selection that few of many sections match was one event, however many there were."""
    monkeypatch.setattr("ckptd.core.content.replica_content.EXAMINED_MAX", 10)
    cluster = nodes("a", work_per_turn=40, work_per_link=20)
    table = cluster.client("a").open(sections_max=1000)
    far_ns = 4 * 10**18
    rare = [b"%03d" % number for number in range(0, 200, 67)]
    table.update(*([Op.PUT, b"%03d" % n, b"", far_ns if b"%03d" % n in rare else None] for n in range(200)))
    metered = Metered(cluster.node("a"))
    for limit in (None, 1, 2):
        pages = iterated(table, SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME, far_ns, limit)
        assert [section_id for page in pages for section_id in page] == rare
        assert all(pages[:-1])
    assert metered.turns >= 3 * 200 // 40
    assert metered.worst <= 40 + FRAME_WORK + 10
    assert [i for page in iterated(table, SA_CKPT_SECTIONS_ANY, 0, None) for i in page] == [
        b"%03d" % number for number in range(200)
    ]


@pytest.mark.parametrize("flags", [1, SA_CKPT_WR_ACTIVE_REPLICA])
def test_an_iteration_through_another_node_continues_there_in_turns(
    flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptd.core.content.replica_content.EXAMINED_MAX", 10)
    cluster = three_nodes(work_per_turn=40, work_per_link=20)
    table = cluster.client("a").open(flags=flags, sections_max=1000)
    table.update(*([Op.PUT, b"%03d" % number, b"", None] for number in range(200)))
    other = cluster.client("b").open_existing()
    assert [i for page in iterated(other, SA_CKPT_SECTIONS_ANY, 0, None) for i in page] == [
        b"%03d" % number for number in range(200)
    ]
    assert iterated(other, SA_CKPT_SECTIONS_CORRUPTED, 0, None) == [[]]
    for node_id in "abc":
        assert cluster.node(node_id).turns.lanes == {}
    cluster.check()


def test_an_iteration_shows_what_is_committed_while_sections_come_and_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ckptd.core.content.replica_content.EXAMINED_MAX", 10)
    cluster = three_nodes()
    table = cluster.client("a").open(sections_max=1000)
    table.update(*([Op.PUT, b"%03d" % number, b"", None] for number in range(0, 100, 2)))
    for node_id in "bc":
        cluster.hold("a", node_id)
    deleted = table.begin(Kind.UPDATE, [Op.DELETE, b"010"], [Op.PUT, b"011", b"", None])
    cluster.run(1)
    seen = [i for page in iterated(table, SA_CKPT_SECTIONS_ANY, 0, 7) for i in page]
    assert seen == [b"%03d" % number for number in range(0, 100, 2)]
    for node_id in "bc":
        cluster.release("a", node_id)
    cluster.until(lambda: deleted.answers)
    seen = [i for page in iterated(table, SA_CKPT_SECTIONS_ANY, 0, 7) for i in page]
    assert seen == sorted({*seen, b"011"} - {b"010"})
    cluster.check()


def test_many_trackers_of_one_checkpoint_are_answered_in_turns() -> None:
    cluster = three_nodes(work_per_turn=200, work_per_link=100)
    table = cluster.client("a").open()
    trackers = [cluster.client("a").open_existing() for _ in range(30)]
    waiting = []
    for tracker in trackers:
        sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
        waiting.append(tracker.begin(Kind.TRACK, sequence, lineage))
    cluster.run(1)
    metered = Metered(cluster.node("a"))
    table.write(b"k", b"v")
    cluster.until(lambda: all(call.answers for call in waiting))
    assert all([row[2] for row in call.answers[0].payload[1]] == [b"k"] for call in waiting)
    assert metered.worst <= 300
    assert metered.turns >= 3
    cluster.check()


def test_where_many_lanes_hold_much_each_may_hold_little() -> None:
    """10,000 clients with a full lane each would be 80 GB."""
    cluster = nodes("a", lane_bytes_max=6400)
    node = cluster.node("a")
    tables = [cluster.client("a").open() for _ in range(45)]
    for table in tables:
        cluster.deliver("a", ClientCongested(table.client.link))
    calls = [writes(table, 18) for table in tables]
    cluster.run(1)
    full = 6400 * 32
    assert full <= node.turns.waiting_bytes <= full + 45 * 400
    assert cluster.unread("a")
    for table in tables:
        cluster.deliver("a", ClientDrained(table.client.link))
    cluster.until(lambda: all(call.answers for some in calls for call in some))
    assert node.turns.lanes == {}
    assert node.turns.waiting_bytes == 0


# -- what the service does by itself


def longest_queue(cluster: Cluster, done: Callable[[], bool], kind: int) -> int:
    """How many operations of a kind wait at the coordinator, at the most, until something is so."""
    worst = 0
    order = cluster.node("a").replicator
    while not done():
        cluster.run(0.5)
        worst = max(worst, order.count_internal(kind))
    return worst


@pytest.mark.parametrize("node_id", ["a", "b"])
def test_the_ends_of_many_sessions_do_not_delay_all_other_requests(node_id: str) -> None:
    """A program with 10,000 sessions was gone, and an open waited for the end of each of them."""
    cluster = three_nodes(session_grace_ns=SECOND_NS)
    clients = [cluster.client(node_id) for _ in range(200)]
    table = cluster.client("a").open()
    for client in clients:
        client.disconnect()
    directory = cluster.node("a").directory
    worst = longest_queue(cluster, lambda: len(directory.sessions) == 1, DirectoryOp.END)
    assert 10 <= worst <= INTERNAL_OPS_MAX
    assert table.status()[5] == 1
    cluster.check()


def test_the_ends_of_the_sessions_of_a_lost_node_do_not_delay_all_other_requests() -> None:
    cluster = three_nodes(session_grace_ns=SECOND_NS)
    for _ in range(200):
        cluster.client("c")
    cluster.client("a").open()
    cluster.kill("c")
    directory = cluster.node("a").directory
    assert (
        10
        <= longest_queue(cluster, lambda: len(directory.sessions) == 1, DirectoryOp.END)
        <= INTERNAL_OPS_MAX
    )


def test_checkpoints_that_expire_at_one_time_do_not_delay_all_other_requests() -> None:
    cluster = three_nodes()
    client = cluster.client("a")
    for number in range(200):
        client.open(b"x%d" % number, retention_ns=SECOND_NS)
    cluster.client("b").open(b"y")
    client.call(Kind.DETACH)
    directory = cluster.node("a").directory
    assert (
        10
        <= longest_queue(cluster, lambda: len(directory.names) == 1, DirectoryOp.EXPIRE)
        <= INTERNAL_OPS_MAX
    )
    cluster.check()


def test_a_lost_replica_is_made_again_while_clients_open_without_a_pause() -> None:
    """There was always somebody's request in the queue, and the coordinator waited for a moment without."""
    cluster = nodes("abcd", unanswered_per_link=20 * DIRECTORY_WEIGHT)
    table = cluster.client("a").open()
    lost = cluster.in_sync("a")[-1]
    other = cluster.client("a").open_existing()
    other.handle = 0
    calls = pipeline(other, Kind.OPEN, 10 * MANY, b"x", 3, None, False)
    cluster.run(5)
    cluster.kill(lost)
    cluster.until(lambda: len(cluster.in_sync("a")) == 2)
    cluster.until(lambda: len(cluster.in_sync("a")) == 3)
    assert not all(call.answers for call in calls)
    assert table.status()[1] == 0


def test_an_update_that_waits_in_a_lane_is_not_done_once_its_session_has_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its client asks where the session is now, and may have been told there that nothing was done."""
    monkeypatch.setattr("ckptd.core.requests.router.RETRY_AT_ONCE_MAX", 0)
    cluster = three_nodes()
    table = cluster.client("a").open()
    cluster.run(50)
    requests = cluster.node("a").requests
    requests.draining = True
    table.begin_write(b"k", b"v")
    cluster.run(5)
    assert len(requests.waiting.parked) == 1
    link = table.client.link
    cluster.deliver("a", ClientCongested(link))
    requests.draining = False
    requests.retry_parked()
    assert not requests.waiting.parked
    table.client.calls.clear()
    table.client.move("b")
    cluster.deliver("a", ClientDrained(link))
    cluster.run(50)
    assert cluster.contents("a") == {}
    cluster.check()
