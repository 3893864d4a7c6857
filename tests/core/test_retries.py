"""No request is applied twice, wherever its retry lands (DESIGN 5.5)."""

import pytest
from tests.core.client import Opened
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol.codes import EXIST, NOT_EXIST, OK
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA_WEAK as WEAK
from ckpt_protocol.messages import Kind, Op

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


def test_a_forwarded_request_is_sent_anew_after_a_fail_over_and_applied_once() -> None:
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
