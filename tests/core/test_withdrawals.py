"""Requests that nobody can serve in time: TRY_AGAIN with the reason where nothing was done, and only there."""

import pytest
from tests.core.client import Call, Client
from tests.core.cluster import nodes, three_nodes, two_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import INVALID_PARAM, OK, TRY_AGAIN
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.framing import Frame
from ckpt_protocol.limits import WITHDRAWN_MAX
from ckpt_protocol.messages import Kind, Op
from ckptd.core.events import ClientReceived

PUT = [Op.PUT, b"k", b"v", None]
READ = [b"k", 0, None]
OPEN = [b"x", 3, None, False]


def withdraw(client: Client, *calls: Call) -> None:
    """What a client says of calls whose time is nearly over."""
    ping = client.begin(Kind.PING, 0, [call.number for call in calls])
    client.cluster.run(5)
    assert ping.answers


def test_what_waits_at_a_node_that_does_not_serve_is_given_back_with_the_reason() -> None:
    """A pair whose coordinator is silent: the other one blocks, and says for what."""
    cluster = two_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    cluster.settle()
    cluster.kill("a", silent=True)
    cluster.run(2000)
    calls = [
        table.begin(Kind.UPDATE, PUT),
        table.begin(Kind.READ, READ),
        table.client.begin(Kind.OPEN, 0, OPEN),
        table.client.begin(Kind.UNLINK, 0, [b"x"]),
    ]
    cluster.run(100)
    assert not any(call.answers for call in calls)
    withdraw(table.client, *calls)
    assert [call.code for call in calls] == [TRY_AGAIN] * 4
    assert {call.answers[0].text for call in calls} == {
        "this node does not serve now; it waits for proof that coordinator a is dead, or its return"
    }
    cluster.start("a")
    cluster.settle()
    assert table.read(b"k") == b"v" and cluster.node("b").directory.find(b"x") is not None, "none was done"
    cluster.check()


def test_what_was_passed_on_to_a_node_that_cannot_serve_it_yet_is_given_back_from_there() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SA_CKPT_WR_ALL_REPLICAS)
    client = cluster.client("c")
    other = client.open_existing()
    table.write(b"k", b"v")
    cluster.settle()
    active = cluster.replica("b").active
    assert active is not None
    active.ready, active.awaiting_report = False, ["a"]  # As while a fail-over is under way.
    waiting = other.begin(Kind.UPDATE, PUT)
    cluster.run(5)
    assert (client.session, waiting.number) in cluster.node("b").requests.waiting.parked
    withdraw(client, waiting)
    assert waiting.code == TRY_AGAIN
    assert (
        waiting.answers[0].text
        == "the active replica of this checkpoint waits for the replicas on a to report"
    )
    assert not cluster.node("b").requests.waiting.parked and not cluster.node("c").requests.waiting.forwarded
    active.ready, active.awaiting_report = True, []
    waiting.answers.clear()
    client.send(waiting)
    assert client.end(waiting).code == OK, "the same number is done when it is asked again"
    cluster.check()


@pytest.mark.parametrize("flags", [SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA])
def test_a_read_that_waits_for_another_node_is_given_back_at_once(flags: int) -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=flags)
    client = cluster.client("c")
    other = client.open_existing()
    table.write(b"k", b"v")
    cluster.settle()
    cluster.hold("b", "c")
    if flags == SA_CKPT_WR_ALL_REPLICAS:
        cluster.hold("a", "b")  # So that an update is pending, and c has to ask what is committed.
        cluster.hold("b", "a")
        cluster.release("b", "c")
        table.begin(Kind.UPDATE, PUT)
        cluster.run(5)
        cluster.hold("b", "c")
    reading = other.begin(Kind.READ, READ)
    cluster.run(5)
    assert not reading.answers
    withdraw(client, reading)
    assert reading.code == TRY_AGAIN and reading.answers[0].text


def test_what_may_have_been_done_is_not_given_back() -> None:
    """An update that is staged, and one whose copy went to an active replica that died."""
    cluster = three_nodes()
    table = cluster.client("b").open()
    client = cluster.client("c")
    other = client.open_existing()
    cluster.settle()
    cluster.hold("a", "b")
    staged = other.begin(Kind.UPDATE, PUT)
    cluster.run(5)
    withdraw(client, staged)
    assert not staged.answers, "it is pending at b"
    cluster.kill("b", silent=True)
    cluster.run(300)
    withdraw(client, staged)
    assert not staged.answers, "nobody knows yet what becomes of it"
    cluster.until(lambda: staged.answers)
    assert staged.code == OK
    assert other.read(b"k") == b"v"
    table.client.move("a")
    cluster.restart("b")
    cluster.check()


def test_a_directory_request_in_its_turn_is_given_back_and_the_one_that_is_staged_is_not() -> None:
    cluster = three_nodes()
    client = cluster.client("a")
    table = client.open()
    cluster.settle()
    cluster.hold("c", "a")
    staged = client.begin(Kind.UNLINK, 0, [b"x"])
    queued = client.begin(Kind.OPEN, 0, [b"y", 7, table.attributes, True])
    cluster.run(5)
    withdraw(client, staged, queued)
    assert not staged.answers
    assert queued.code == TRY_AGAIN
    assert queued.answers[0].text == "c must acknowledge an earlier change of the directory"
    cluster.release("c", "a")
    assert client.end(staged).code == OK
    cluster.run(100)
    assert cluster.node("a").directory.find(b"y") is None, "what was given back is not done later"
    cluster.check()


def test_a_queued_request_of_another_node_is_given_back() -> None:
    cluster = three_nodes()
    first, second = cluster.client("a"), cluster.client("b")
    table = first.open()
    cluster.settle()
    cluster.hold("c", "a")
    staged = first.begin(Kind.UNLINK, 0, [b"x"])
    queued = second.begin(Kind.OPEN, 0, [b"y", 7, table.attributes, True])
    cluster.run(5)
    withdraw(second, queued)
    assert queued.code == TRY_AGAIN and "c must acknowledge" in queued.answers[0].text
    cluster.release("c", "a")
    assert first.end(staged).code == OK
    queued.answers.clear()
    second.send(queued)
    assert second.end(queued).code == OK
    cluster.check()


def test_a_closed_checkpoint_and_wrong_numbers_do_no_harm() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    client = cluster.client("b")
    for numbers in ([0], [2**63 - 1], [1, 1, 1], list(range(WITHDRAWN_MAX + 1))):
        assert client.call(Kind.PING, 0, numbers).code == OK
    table.write(b"k", b"v")
    for numbers in ([None], ["1"], [1.5], [True], [[1]], [-1], [2**64 - 1, -2]):
        assert client.call(Kind.PING, 0, numbers).code == INVALID_PARAM
    assert table.read(b"k") == b"v"
    cluster.check()


def test_what_waits_in_its_lane_is_given_back_when_a_ping_overtakes_it() -> None:
    """This node is busy: PING is served before what waits, and may name it."""
    cluster = nodes("a", work_per_turn=4, work_per_link=4)
    client = cluster.client("a")
    table = client.open()
    calls = [Call(client._next(), Kind.UPDATE, table.handle, pack_body([PUT])) for _ in range(60)]
    client.calls.update({call.number: call for call in calls})
    ping = Call(client._next(), Kind.PING, 0, pack_body([calls[-1].number]))
    client.calls[ping.number] = ping
    for asked in (calls, [ping]):
        frames = [Frame(call.kind, call.number, call.handle, calls[0].number, call.body) for call in asked]
        cluster.deliver("a", ClientReceived(client.link, frames))
    cluster.run(500)
    assert all(call.code == OK for call in [*calls[:-1], ping])
    assert calls[-1].code == TRY_AGAIN and len(calls[-1].answers) == 1
    cluster.check()
