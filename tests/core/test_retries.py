"""No request is applied twice, wherever its retry lands (rules 5.5)."""

import pytest
from tests.core.client import Call, Opened
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import EXIST, LIBRARY, NOT_EXIST, OK, TIMEOUT, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA_WEAK as WEAK
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.messages import FORWARD_REFUSED_ROUTE, FORWARD_ROUTE, Kind, Op, answer_error
from ckptd.core.events import ClientReceived, PeerReceived

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, WEAK)


def create(table: Opened, section_id: bytes = b"k") -> list[object]:
    """An operation that would be refused the second time."""
    return [Op.CREATE, section_id, SA_TIME_END, b"v"]


def opened_at(cluster: Cluster, node_id: str, flags: int) -> Opened:
    """A client at one node; the checkpoint's active replica is at a."""
    cluster.client("a").open(flags=flags)
    return cluster.client(node_id).open_existing()


@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("node_id", "ab")
def test_a_retry_at_the_same_node_gets_the_first_answer(flags: int, node_id: str) -> None:
    cluster = three_nodes()
    table = opened_at(cluster, node_id, flags)
    call = table.begin(Kind.UPDATE, create(table))
    later = table.begin(Kind.UPDATE, create(table, b"j"))
    cluster.run(20)
    for _ in range(2):
        table.client.send(call)
        cluster.run(20)
    assert [answer.code for answer in call.answers] == [OK, OK, OK]
    assert later.code == OK
    assert cluster.contents("a") == {b"k": b"v", b"j": b"v"}
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_a_retry_at_another_node_gets_the_first_answer(flags: int) -> None:
    cluster = three_nodes()
    table = opened_at(cluster, "b", flags)
    call = table.begin(Kind.UPDATE, [Op.CREATE, b"", SA_TIME_END, b"v"])
    cluster.run(0.16)  # It is at a by now; its answer is under way.
    assert not call.answers
    table.client.move("c")
    cluster.run(50)
    assert [answer.code for answer in call.answers] == [OK]
    assert call.answers[0].payload == list(cluster.contents("a"))
    assert len(cluster.contents("a")) == 1
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_a_retry_while_the_first_is_under_way_is_answered_once_a_link_is_back(flags: int) -> None:
    cluster = three_nodes()
    table = opened_at(cluster, "b", flags)
    cluster.hold("a", "b")
    call = table.begin(Kind.UPDATE, create(table))
    cluster.run(2)
    cluster.flap("a", "b", down_ms=5)
    cluster.holds.clear()
    cluster.run(50)
    assert call.code == OK
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_a_retry_after_a_fail_over_gets_the_first_answer(flags: int) -> None:
    cluster = three_nodes()
    table = opened_at(cluster, "a", flags)
    table.write(b"j", b"1")
    call = table.begin(Kind.UPDATE, create(table))
    cluster.run(10)  # Long enough for a weak batch, too.
    assert call.code == OK
    call.answers.clear()  # As if the answer had been lost with the node.
    cluster.kill("a")
    table.client.move("b")
    cluster.run(50)
    assert [answer.code for answer in call.answers] == [OK]
    assert cluster.contents("b") == cluster.contents("c") == {b"j": b"1", b"k": b"v"}
    cluster.restart("a")
    cluster.check()


def test_an_update_that_was_pending_when_the_active_node_died_is_applied_once() -> None:
    cluster = three_nodes()
    table = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS)
    cluster.hold("b", "a")
    call = table.begin(Kind.UPDATE, [Op.CREATE, b"", SA_TIME_END, b"v"])
    cluster.run(1)
    cluster.kill("a")
    table.client.move("c")
    cluster.run(50)
    assert call.code == OK
    assert call.answers[0].payload == list(cluster.contents("b"))
    assert cluster.contents("b") == cluster.contents("c")
    assert len(cluster.contents("b")) == 1
    cluster.check()


def test_a_forwarded_request_is_sent_again_after_a_fail_over_and_applied_once() -> None:
    cluster = three_nodes()
    table = opened_at(cluster, "c", SA_CKPT_WR_ALL_REPLICAS)
    cluster.hold("a", "c")
    call = table.begin(Kind.UPDATE, create(table))
    cluster.run(1)
    assert not call.answers
    cluster.kill("a")
    cluster.run(50)
    assert [answer.code for answer in call.answers] == [OK]
    assert cluster.contents("b") == cluster.contents("c") == {b"k": b"v"}
    cluster.check()


def test_a_joining_replica_learns_the_answers_that_were_given() -> None:
    """The window of answers travels with the join: a retry is recognised by a node that saw none of it."""
    cluster = three_nodes()
    table = opened_at(cluster, "b", SA_CKPT_WR_ALL_REPLICAS)
    cluster.kill("c")
    call = table.begin(Kind.UPDATE, create(table))
    cluster.run(50)
    assert call.code == OK
    cluster.restart("c")
    cluster.settle()
    cluster.kill("a")
    cluster.settle()
    cluster.kill("b")  # c is no majority alone, until a is back.
    cluster.restart("a")
    call.answers.clear()
    table.client.move("c")
    cluster.run(500)
    assert [answer.code for answer in call.answers] == [OK]
    cluster.restart("b")
    cluster.check()


def test_opens_and_unlinks_are_applied_once_when_the_coordinator_dies() -> None:
    cluster = three_nodes()
    client = cluster.client("b")
    cluster.hold("a", "b")
    attributes = [SA_CKPT_WR_ALL_REPLICAS, 1000, SA_TIME_END, 10, 100, 8]
    call = client.begin(Kind.OPEN, 0, [b"x", 7, attributes, True])
    cluster.run(1)
    assert not call.answers
    cluster.kill("a")
    cluster.run(50)
    assert [answer.code for answer in call.answers] == [OK]
    entry = cluster.node("c").directory.find(b"x")
    assert entry is not None and list(entry.opens) == [(client.session, call.number)]
    unlinked = client.begin(Kind.UNLINK, 0, [b"x"])
    cluster.run(5)
    client.send(unlinked)
    client.move("c")
    client.send(unlinked)
    cluster.run(20)
    assert {answer.code for answer in unlinked.answers} == {OK}
    assert client.unlink().code == NOT_EXIST
    cluster.check()


def test_two_sessions_may_use_the_same_request_numbers() -> None:
    cluster = three_nodes()
    one, other = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS), cluster.client("a").open_existing()
    calls = [one.begin(Kind.UPDATE, create(one)), other.begin(Kind.UPDATE, create(other))]
    assert calls[0].number == calls[1].number
    cluster.run(20)
    assert [call.code for call in calls] == [OK, EXIST]
    cluster.check()


def test_answers_below_the_lowest_unanswered_request_are_forgotten() -> None:
    cluster = three_nodes()
    table = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS)
    for number in range(50):
        table.write(b"k", b"%d" % number)
    kept = {n: len(cluster.replica(n).log.answers[table.client.session].by_request) for n in "abc"}
    assert kept == {"a": 1, "b": 1, "c": 1}
    cluster.check()


@pytest.mark.parametrize("node_id", ["a", "b"])
@pytest.mark.parametrize("flags", [SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA])
@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.RETENTION_SET])
def test_a_request_below_the_lowest_unanswered_one_is_not_done_and_its_outcome_is_unknown(
    kind: int, flags: int, node_id: str
) -> None:
    cluster = three_nodes()
    table = opened_at(cluster, node_id, flags)
    assert cluster.active() == "a"
    table.write(b"k", b"before")
    table.client.unlink(b"none")
    fields = [[Op.PUT, b"k", b"behind", None]] if kind == Kind.UPDATE else [10**9]
    call = table.client.calls[1] = Call(1, kind, table.handle, pack_body(fields))
    table.client.send(call)
    assert table.client.end(call).code == TIMEOUT
    assert table.read(b"k") == b"before"
    assert cluster.node(node_id).requests.waiting.forwarded == {}
    assert cluster.node(node_id).turns.unanswered == {}
    cluster.check()


def test_a_request_that_its_caller_cancelled_does_not_count_for_ever_where_it_is_forwarded_again() -> None:
    """Each of them took one of the 128 places that a link has for what it waits for."""
    cluster = three_nodes()
    table = opened_at(cluster, "b", SA_CKPT_WR_ACTIVE_REPLICA)
    assert cluster.active() == "a"
    cluster.hold("a", "b")
    given_up = table.begin_write(b"k", b"given up")
    cluster.run(1)
    del table.client.calls[given_up.number]
    later = table.begin_write(b"k", b"later")
    cluster.run(1)
    table.client.calls[given_up.number] = given_up
    cluster.flap("a", "b")
    cluster.release("a", "b")
    cluster.run(20)
    assert later.code == OK
    assert cluster.node("b").requests.waiting.forwarded == {}
    assert cluster.node("b").turns.unanswered == {}
    cluster.check()


def forwarded(cluster: Cluster, table: Opened, call: Call) -> Frame:
    """A copy of a client's request, as its node passes it on."""
    node = cluster.node("a")
    route = FORWARD_ROUTE.pack(call.kind, table.creation_id, call.number, node.replicator.directory.seq)
    return Frame(Kind.FORWARD, call.number, node.context.epoch, table.client.session, route + call.body)


def test_a_late_duplicate_does_not_take_the_answer_from_the_request_that_waits() -> None:
    """By way of two nodes; the active replica answered only whoever asked last, and the live one timed out."""
    cluster = three_nodes()
    table = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS)
    cluster.hold("b", "a")
    call = table.begin(Kind.UPDATE, create(table))
    cluster.run(1)
    cluster.deliver("a", PeerReceived("c", [forwarded(cluster, table, call)]))
    assert not call.answers
    cluster.release("b", "a")
    cluster.run(5)
    assert [answer.code for answer in call.answers] == [OK]
    assert Kind.FORWARD_ANSWER not in cluster.kinds_sent("a", "c", call.number)
    cluster.check()


@pytest.mark.parametrize("pending", [True, False])
def test_what_was_refused_is_not_applied_by_a_duplicate(pending: bool) -> None:
    """Seed 100257: OVERWRITE was refused, as there was no such section; its copy came when there was one.

    The client was told the refusal, and its value was there.
    """
    cluster = three_nodes()
    mine = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS)
    theirs = cluster.client("b").open_existing()
    if pending:
        cluster.hold("c", "a")
        mine.begin_write(b"other", b"1")
        cluster.run(1)
    call = theirs.begin(Kind.UPDATE, [Op.OVERWRITE, b"k", b"refused"])
    cluster.run(1)
    put = mine.begin_write(b"k", b"put")
    cluster.run(1)
    cluster.deliver("a", PeerReceived("b", [forwarded(cluster, theirs, call)]))
    if pending:
        assert not call.answers
        cluster.release("c", "a")
    cluster.run(20)
    assert (call.code, put.code) == (NOT_EXIST, OK)
    assert mine.read(b"k") == b"put"
    cluster.check()


def test_a_duplicate_through_a_node_that_the_session_has_left_is_not_applied() -> None:
    cluster = three_nodes()
    mine = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS)
    theirs = cluster.client("b").open_existing()
    call = theirs.begin(Kind.UPDATE, [Op.OVERWRITE, b"k", b"refused"])
    cluster.run(0.08)
    stale = forwarded(cluster, theirs, call)
    theirs.client.move("c")
    cluster.run(5)
    assert call.code == NOT_EXIST
    mine.write(b"k", b"put")
    cluster.node("a")._replicas.by_id[theirs.creation_id].active.error_replies.clear()  # type: ignore[union-attr]
    cluster.deliver("a", PeerReceived("b", [stale]))
    cluster.run(5)
    assert mine.read(b"k") == b"put"
    cluster.check()


def test_a_request_on_a_link_that_the_session_has_left_is_not_applied() -> None:
    """Its node was paused for less than its lease, and read it afterwards."""
    cluster = three_nodes()
    table = opened_at(cluster, "a", SA_CKPT_WR_ALL_REPLICAS)
    other = cluster.client("b").open_existing()
    cluster.pause("a")
    cluster.run(1)
    call = table.begin(Kind.UPDATE, create(table))
    cluster.run(1)
    client, link = table.client, table.client.link
    cluster.resume("a")
    cluster.run(5)
    assert call.code == OK
    client.move("c")
    late = encode_frame(Kind.UPDATE, 99, table.handle, 99, pack_body([[Op.PUT, b"late", b"1", None]]))
    cluster.deliver("a", ClientReceived(link, FrameDecoder().feed(late)))
    cluster.run(5)
    assert other.read_all() == {b"k": b"v"}
    cluster.check()


def test_an_open_that_was_refused_is_not_done_by_a_duplicate() -> None:
    cluster = three_nodes()
    client = cluster.client("b")
    call = client.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.run(1)
    assert call.code == NOT_EXIST
    creator = cluster.client("a").open()
    route = FORWARD_ROUTE.pack(Kind.OPEN, 0, call.number, 0)
    frame = Frame(
        Kind.FORWARD, call.number, cluster.node("a").context.epoch, client.session, route + call.body
    )
    cluster.deliver("a", PeerReceived("b", [frame]))
    cluster.run(5)
    assert creator.status()[5] == 1, "only its creator has it open"
    cluster.check()


def test_an_open_that_was_ordered_is_never_answered_try_again() -> None:
    """Seed 98: it was staged, a view change finished it, and its client was told that nothing was done."""
    cluster = three_nodes(hold_ns=300 * 10**6)
    client = cluster.client("a")
    cluster.hold("c", "a")
    call = client.begin(Kind.OPEN, 0, [b"x", 7, [1, 4096, SA_TIME_END, 1, 4096, 8], True])
    cluster.until(lambda: len(cluster.node("a").view.members) == 2)  # type: ignore[union-attr]
    cluster.cut("a", "b")  # Before its lease begins.
    cluster.run(500)
    assert not cluster.serving("a")
    assert call.code != TRY_AGAIN
    cluster.release("c", "a")
    cluster.heal()
    cluster.until(lambda: call.answers)
    assert call.code == OK
    cluster.check()


def test_a_duplicate_that_was_forwarded_does_nothing_when_the_node_that_forwarded_it_becomes_active() -> None:
    """Seed 23895: refused, and done later. The copy was under way to who had just been active.

    That node passed it on, kept it, and did it itself when it was made active again.
    """
    cluster = three_nodes()
    here = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    there = cluster.client("c").open_existing()
    assert there.set_active().code == OK
    cluster.settle()
    cluster.hold("b", "c")
    call = here.begin(Kind.UPDATE, [Op.OVERWRITE, b"k", b"refused"])
    cluster.run(1)
    assert here.set_active().code == OK
    cluster.until(lambda: call.code is not None)
    assert call.code == NOT_EXIST
    cluster.client("a").open_existing().write(b"k", b"v")
    cluster.release("b", "c")
    cluster.run(20)
    assert there.set_active().code == OK
    cluster.settle()
    assert there.read(b"k") == b"v"
    cluster.check()


def collocated_at_b_and_c(cluster: Cluster) -> tuple[Opened, Opened]:
    """One asynchronous checkpoint, opened at b and at c, with its active replica on c."""
    here = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    there = cluster.client("c").open_existing()
    assert there.set_active().code == OK
    cluster.settle()
    return here, there


def test_the_refusal_of_a_former_active_replica_is_not_that_of_the_current_one() -> None:
    """Seed 7100408: refused, and done. The refusal was on its way when the request went to who came next."""
    cluster = three_nodes()
    here, _ = collocated_at_b_and_c(cluster)
    mine = cluster.client("a").open_existing()
    cluster.hold("c", "b")
    call = here.begin(Kind.UPDATE, [Op.OVERWRITE, b"k", b"1"])
    cluster.run(1)
    assert Kind.FORWARD_REFUSED in cluster.kinds_sent("c", "b", call.number)
    mine.begin(Kind.ACTIVE_SET, False)
    cluster.until(lambda: cluster.node("a").replicator.directory.checkpoints[here.creation_id].active == "a")
    put = mine.begin_write(b"k", b"put")
    cluster.until(
        lambda: (
            cluster.node("b").requests.waiting.forwarded[here.client.session, call.number].forwarded_to == "a"
        )
    )
    cluster.hold("a", "b")
    cluster.until(lambda: put.code == OK)
    cluster.release("c", "b")
    cluster.run(5)
    assert not call.answers
    cluster.release("a", "b")
    cluster.run(5)
    assert (call.code, mine.read(b"k")) == (OK, b"1")
    cluster.check()


def test_a_refusal_of_an_earlier_time_as_active_replica_is_discarded() -> None:
    """It was on its way while its node lost the role and got it back, and another did the update between."""
    cluster = three_nodes()
    here, there = collocated_at_b_and_c(cluster)
    before = cluster.node("c").replicator.directory.checkpoints[here.creation_id].activation_seq
    mine = cluster.client("a").open_existing()
    assert mine.set_active().code == OK
    assert there.set_active().code == OK
    cluster.settle()
    cluster.hold("b", "c")
    call = here.begin(Kind.UPDATE, [Op.PUT, b"k", b"1", None])
    cluster.run(1)
    body = FORWARD_REFUSED_ROUTE.pack(before) + answer_error(NOT_EXIST, "there is no such section")
    frame = Frame(
        Kind.FORWARD_REFUSED, call.number, cluster.node("b").context.epoch, here.client.session, body
    )
    cluster.deliver("b", PeerReceived("c", [frame]))
    assert not call.answers
    cluster.release("b", "c")
    cluster.run(5)
    assert call.code == OK
    cluster.check()


def test_a_duplicate_that_was_sent_before_its_addressee_became_active_again_does_nothing() -> None:
    """Who sent it has sent it to who was active in between, and may have been told a refusal there."""
    cluster = three_nodes()
    here, there = collocated_at_b_and_c(cluster)
    mine = cluster.client("a").open_existing()
    cluster.hold("b", "c")
    call = here.begin(Kind.UPDATE, [Op.OVERWRITE, b"k", b"refused"])
    cluster.run(1)
    late = forwarded(cluster, here, call)
    assert mine.set_active().code == OK
    cluster.until(lambda: call.code is not None)
    assert call.code == NOT_EXIST
    mine.write(b"k", b"put")
    cluster.holds.pop(("b", "c"))
    cluster.flap("b", "c")
    assert there.set_active().code == OK
    cluster.settle()
    cluster.deliver("c", PeerReceived("b", [late]))
    cluster.run(5)
    assert there.read(b"k") == b"put"
    cluster.check()


def test_an_update_that_is_withdrawn_from_a_node_that_lags_is_answered() -> None:
    """It waited there for news of the directory, and was refused in the name of an earlier placing: for ever."""
    cluster = three_nodes()
    here = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED)
    there = cluster.client("c").open_existing()
    cluster.settle()
    there.begin(Kind.ACTIVE_SET, False)
    cluster.until(lambda: cluster.node("c").replicator.in_flight is not None)
    cluster.hold("a", "c")  # It does not learn that it is active.
    cluster.until(lambda: cluster.node("b").replicator.directory.checkpoints[here.creation_id].active == "c")
    call = here.begin_write(b"k", b"v")
    cluster.run(1)
    client = here.client
    ping = Call(client._next(), Kind.PING, 0, pack_body([call.number]))
    client.calls[ping.number] = ping
    client.send(ping)
    cluster.run(1)
    assert call.code == TRY_AGAIN
    assert not cluster.node("b").requests.waiting.forwarded
    cluster.release("a", "c")
    cluster.run(20)
    assert there.read_all() == {}
    cluster.check()


def refused_elsewhere(cluster: Cluster, here: Opened) -> Call:
    """An update waits on its way from b to c; its client goes to a, is refused there, and comes back to b."""
    cluster.hold("b", "c")
    call = here.begin(Kind.UPDATE, [Op.OVERWRITE, b"k", b"refused"])
    cluster.run(1)
    here.client.disconnect()
    here.client.move("a")
    cluster.until(lambda: call.code is not None)
    assert call.code == NOT_EXIST
    assert here.try_update([Op.OVERWRITE, b"j", b"refused"]).code == NOT_EXIST  # The first is trimmed by it.
    here.client.disconnect()
    here.client.attach("b")
    return call


def test_a_duplicate_that_is_under_way_does_nothing_when_its_client_is_back() -> None:
    """It came by the node where its session was again, and nobody remembered what it had been told since."""
    cluster = three_nodes()
    here, _ = collocated_at_b_and_c(cluster)
    mine = cluster.client("a").open_existing()
    call = refused_elsewhere(cluster, here)
    mine.write(b"k", b"put")
    cluster.release("b", "c")
    cluster.run(20)
    assert (mine.read(b"k"), len(call.answers)) == (b"put", 1)
    cluster.check()


@pytest.mark.parametrize("change", ["active replica", "link"])
def test_a_node_passes_nothing_on_again_for_a_session_that_left_it_and_came_back(change: str) -> None:
    cluster = three_nodes()
    here, _ = collocated_at_b_and_c(cluster)
    mine = cluster.client("a").open_existing()
    refused_elsewhere(cluster, here)
    cluster.holds.pop(("b", "c"))
    mine.write(b"k", b"put")
    if change == "active replica":
        assert mine.set_active().code == OK
    cluster.flap("b", "c")  # What was held is lost with it.
    cluster.run(50)
    cluster.settle()
    assert (cluster.active(), mine.read(b"k")) == ("c" if change == "link" else "a", b"put")
    assert not cluster.node("b").requests.waiting.forwarded
    cluster.check()


def test_a_request_whose_batch_was_half_sent_is_not_done_again() -> None:
    """The answers went with the last portion: of the first alone nobody could tell what had been done."""
    cluster = three_nodes(weak_batch_bytes=1000)
    cluster.client("a").open(flags=WEAK)
    table = cluster.client("c").open_existing()
    assert cluster.active() == "a"
    cluster.hold("a", "b")
    cluster.hold("a", "c")
    call = table.begin(Kind.UPDATE, [Op.CREATE, b"", SA_TIME_END, bytes(900)])
    table.begin(Kind.UPDATE, [Op.PUT, b"other", bytes(900), None])
    cluster.run(20)
    link, portion = cluster.holds.pop(("a", "b"))[0]
    cluster.network.arrive(link, "a", "b", portion)
    cluster.kill("a")
    cluster.holds.clear()
    cluster.until(lambda: call.code == OK)
    assert len([key for key in table.read_all() if key != b"other"]) == 1
    cluster.restart("a")
    cluster.check()


def test_a_client_that_uses_a_number_twice_does_not_part_two_nodes() -> None:
    """Its OPEN got the answer of an earlier request, which the coordinator remembered (seed 7128983).

    Its node took that for garbage of the coordinator's, and closed the link to it: again whenever it was back.
    """
    cluster = three_nodes()
    table = cluster.client("b").open()
    first = table.begin(Kind.RETENTION_SET, SA_TIME_END)
    cluster.run(5)
    assert first.code == OK
    second = Call(first.number, Kind.OPEN, 0, pack_body([b"x", 3, None, False]))
    table.client.calls[first.number] = second
    table.client.send(second, first.number)
    cluster.run(50)
    assert second.code == LIBRARY
    assert not [line for line in cluster.lines if "closes the link" in line]
    table.write(b"k", b"v")
    cluster.check()
