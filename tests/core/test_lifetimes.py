"""How long checkpoints and sessions live: handles, retention, unlink, the grace of a client that is gone."""

import gc

import pytest
from tests.core.client import Call, Client
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import (
    BAD_HANDLE,
    BAD_OPERATION,
    EXIST,
    NO_RESOURCES,
    NOT_EXIST,
    OK,
    TRY_AGAIN,
)
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind, Op
from ckptd.core.content.sections import SectionTable
from ckptd.core.events import ClientReceived
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

TWO_SECONDS = 2 * SECOND_NS


def test_a_closed_checkpoint_goes_everywhere_when_its_retention_is_over_and_not_before() -> None:
    """SAF 3.5.4: retention starts at the last close."""
    cluster = three_nodes()
    client = cluster.client("b")
    table = client.open(retention_ns=TWO_SECONDS)
    table.write(b"k", b"v")
    cluster.run(5000)
    table.close()
    cluster.run(1990)
    assert client.try_open().code == OK
    for handle in list(cluster.node("a").directory.sessions[client.session].opens):
        assert client.call(Kind.CLOSE, handle).code == OK
    cluster.run(1990)
    assert all(cluster.node(n).replicas for n in "abc")
    cluster.run(20)
    assert client.try_open().code == NOT_EXIST
    assert not any(cluster.node(n).replicas for n in "abc")
    cluster.check()


def test_retention_is_over_with_the_close_when_it_is_zero() -> None:
    cluster = three_nodes()
    client = cluster.client("c")
    client.open(retention_ns=0).close()
    assert client.try_open().code == NOT_EXIST
    cluster.check()


def test_retention_for_ever_never_ends() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(retention_ns=SA_TIME_END)
    table.write(b"k", b"v")
    table.close()
    cluster.run(60_000)
    assert cluster.client("b").open_existing().read(b"k") == b"v"
    cluster.check()


def test_an_open_checkpoint_never_expires() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(retention_ns=MILLISECOND_NS)
    other = cluster.client("b").open_existing()
    other.close()
    cluster.run(20_000)
    table.write(b"k", b"v")
    cluster.check()


def test_retention_continues_after_a_change_of_coordinator_and_is_never_shorter() -> None:
    cluster = three_nodes()
    client = cluster.client("b")
    client.open(retention_ns=TWO_SECONDS).close()
    cluster.run(1000)
    cluster.kill("a")
    cluster.run(900)
    assert cluster.node("b").directory.find(b"x") is not None
    cluster.run(150)
    assert client.try_open().code == NOT_EXIST
    cluster.restart("a")
    cluster.check()


def test_a_retention_that_was_set_counts_from_the_last_close() -> None:
    """SAF 3.5.5; not for an unlinked checkpoint."""
    cluster = three_nodes()
    client = cluster.client("b")
    table = client.open(retention_ns=SA_TIME_END)
    assert table.call(Kind.RETENTION_SET, 100 * MILLISECOND_NS).code == OK
    assert table.status()[0][2] == 100 * MILLISECOND_NS
    cluster.run(1000)
    table.close()
    cluster.run(90)
    reopened = client.open_existing()
    assert client.unlink().code == OK
    assert reopened.call(Kind.RETENTION_SET, 0).code == BAD_OPERATION
    cluster.check()


def test_an_unlinked_name_is_free_at_once_and_the_data_goes_with_the_last_handle() -> None:
    """SAF 3.5.3."""
    cluster = three_nodes()
    old = cluster.client("a").open()
    old.write(b"k", b"old")
    other = cluster.client("b").open_existing()
    assert other.client.unlink().code == OK
    assert other.client.try_open().code == NOT_EXIST
    assert other.client.unlink().code == NOT_EXIST
    new = other.client.open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    new.write(b"k", b"new")
    assert (old.read(b"k"), new.read(b"k"), other.read(b"k")) == (b"old", b"new", b"old")
    assert old.status()[6] is True and new.status()[6] is False
    old.close()
    assert other.read(b"k") == b"old"
    other.close()
    cluster.run(50)
    assert [list(cluster.node(n).replicas) for n in "abc"] == [[new.creation_id]] * 3
    cluster.check()


def test_an_unlinked_checkpoint_outlives_the_coordinator_while_it_is_open() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    table.client.unlink()
    cluster.kill("a")
    cluster.settle()
    assert table.read(b"k") == b"v"
    assert table.client.try_open().code == NOT_EXIST
    cluster.restart("a")
    cluster.check()


def test_an_existing_checkpoint_is_not_opened_with_other_attributes() -> None:
    """SAF 3.5.1: EXIST; B.01 compares the retention too."""
    cluster = three_nodes()
    client = cluster.client("a")
    client.open(retention_ns=SECOND_NS)
    attributes = [1, 409600, SECOND_NS, 100, 4096, 64]
    for position, value in enumerate([SA_CKPT_WR_ACTIVE_REPLICA, 409599, SECOND_NS + 1, 101, 4097, 65]):
        other = [*attributes[:position], value, *attributes[position + 1 :]]
        assert client.call(Kind.OPEN, 0, [b"x", 7, other, True]).code == EXIST, position
        b02 = OK if position == 2 else EXIST
        assert client.call(Kind.OPEN, 0, [b"x", 7, other, False]).code == b02, position
    cluster.check()


# -- sessions


def test_a_session_outlives_a_lost_connection_for_its_grace() -> None:
    """rules 7: handle and all."""
    cluster = three_nodes()
    table = cluster.client("b").open(retention_ns=0)
    table.write(b"k", b"v")
    table.client.disconnect()
    cluster.run(9_900)
    table.client.move("c")
    assert table.read(b"k") == b"v"
    cluster.run(20_000)
    assert table.read(b"k") == b"v"
    cluster.check()


def test_a_session_ends_with_all_that_it_opened_when_its_grace_is_over() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(retention_ns=0)
    table.client.disconnect()
    cluster.run(10_100)
    assert cluster.node("a").directory.sessions == {}
    assert cluster.node("a").directory.find(b"x") is None
    assert table.client.attach("c").code == BAD_HANDLE
    cluster.check()


def test_a_session_ends_at_once_when_its_process_is_known_to_be_dead() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(retention_ns=0)
    table.client.disconnect(process_dead=True)
    cluster.run(50)
    assert cluster.node("a").directory.find(b"x") is None
    cluster.check()


def test_a_session_of_a_dead_node_has_its_grace_too() -> None:
    cluster = three_nodes()
    lost, saved = cluster.client("b").open(b"lost", retention_ns=0), cluster.client("b").open(retention_ns=0)
    cluster.kill("b")
    cluster.run(9_800)
    saved.client.move("c")
    cluster.run(1_000)
    assert cluster.node("a").directory.find(b"lost") is None
    assert cluster.node("a").directory.find(b"x") is not None
    assert lost.client.attach("a").code == BAD_HANDLE
    cluster.restart("b")
    cluster.check()


def test_the_grace_of_a_dead_nodes_sessions_survives_the_coordinator() -> None:
    cluster = nodes("abcde")
    cluster.client("c").open(retention_ns=0)
    cluster.kill("c")
    cluster.run(5_000)
    cluster.kill("a")
    cluster.run(4_900)
    assert cluster.node("b").directory.find(b"x") is not None
    cluster.run(200)
    assert cluster.node("b").directory.find(b"x") is None
    cluster.check()


def test_a_stale_node_cannot_end_a_session_that_moved() -> None:
    """Attaching has a generation."""
    cluster = three_nodes()
    table = cluster.client("b").open(retention_ns=0)
    link = table.client.link
    table.client.move("c")
    cluster.lose_client(link, process_dead=True)
    cluster.run(11_000)
    table.write(b"k", b"v")
    cluster.check()


def test_a_detached_session_is_refused_and_what_it_opened_is_closed() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(retention_ns=0)
    assert table.client.call(Kind.DETACH).code == OK
    assert table.try_read(b"k").code == BAD_HANDLE
    assert cluster.node("a").directory.find(b"x") is None
    assert table.client.attach("a").code == BAD_HANDLE
    cluster.check()


def second_link(cluster: Cluster, client: Client, node_id: str) -> int:
    """Another link of a client, which has no session yet; the client listens to it alone."""
    client.link = cluster.connect_client(client, node_id)
    cluster.run(1)
    return client.link


def attach_raw(cluster: Cluster, link: int, number: int, session: int) -> None:
    """A fresh session on a link of node b."""
    frame = encode_frame(Kind.ATTACH, number, session, 1, pack_body([True]))
    cluster.deliver("b", ClientReceived(link, FrameDecoder().feed(frame)))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_link_has_one_session(at_once: bool) -> None:
    """One connection took all 100,000 sessions in 3.4 s, and every newcomer was refused."""
    cluster = three_nodes()
    client = cluster.client("b")
    link = second_link(cluster, client, "b")
    session = client.session + 1
    calls = [Call(number, Kind.ATTACH, 0, b"") for number in range(101, 104)]
    client.calls.update({call.number: call for call in calls})
    for place, call in enumerate(calls):
        attach_raw(cluster, link, call.number, session + place)
        if not at_once:
            cluster.run(5)
    cluster.run(5)
    assert [call.code for call in calls] == [OK, NO_RESOURCES, NO_RESOURCES]
    assert list(cluster.node("a").directory.sessions) == [client.session, session]
    cluster.check()


def test_a_link_whose_session_has_ended_may_have_another() -> None:
    cluster = three_nodes()
    client = cluster.client("b")
    assert client.call(Kind.DETACH).code == OK
    call = client.calls[101] = Call(101, Kind.ATTACH, 0, b"")
    attach_raw(cluster, client.link, call.number, client.session + 1)
    cluster.run(5)
    assert call.code == OK
    cluster.lose_client(client.link, process_dead=True)
    cluster.run(10_100)
    assert cluster.node("a").directory.sessions == {}
    cluster.check()


@pytest.mark.parametrize("again", [True, False])
def test_a_link_whose_attach_was_refused_may_ask_for_another_session(again: bool) -> None:
    """Of an ATTACH that nobody could serve in time, too."""
    cluster = three_nodes(hold_ns=100 * 10**6)
    client = cluster.client("b")
    link = second_link(cluster, client, "b")
    call = client.calls[101] = Call(101, Kind.ATTACH, 0, b"")
    if again:
        cluster.kill("a")
        cluster.kill("c")
        cluster.run(1000)
    frame = encode_frame(Kind.ATTACH, call.number, client.session + 1, 1, pack_body([False]))
    cluster.deliver("b", ClientReceived(link, FrameDecoder().feed(frame)))
    cluster.until(lambda: call.code is not None)
    assert call.code == (TRY_AGAIN if again else BAD_HANDLE)
    if again:
        cluster.restart("a")
        cluster.restart("c")
        cluster.until(lambda: cluster.serving("b"))
    later = client.calls[102] = Call(102, Kind.ATTACH, 0, b"")
    attach_raw(cluster, link, later.number, client.session + 2)
    cluster.run(50)
    assert later.code == OK
    cluster.check()


def test_a_session_has_its_grace_though_the_answer_to_attach_was_taken_for_anothers() -> None:
    """Two ATTACHes of one number wait for the coordinator, and the first one is refused (seed 7016104)."""
    cluster = three_nodes()
    client = cluster.client("c")
    session = client.session + 1
    link = second_link(cluster, client, "c")
    client.calls[7] = Call(7, Kind.ATTACH, session, b"")
    for generation, fresh in ((2, False), (1, True)):  # Nobody knows the session of the first one.
        frame = encode_frame(Kind.ATTACH, 7, session, generation, pack_body([fresh]))
        cluster.deliver("c", ClientReceived(link, FrameDecoder().feed(frame)))
    cluster.run(50)
    assert session in cluster.node("a").directory.sessions
    cluster.lose_client(link, process_dead=False)
    cluster.run(12_000)
    assert session not in cluster.node("a").directory.sessions


def test_a_checkpoint_that_goes_leaves_nothing_for_the_collector() -> None:
    """A soak showed it: tables of sections were cycles, and the daemon keeps full collections off its loop."""

    def tables() -> int:
        return sum(type(thing) is SectionTable for thing in gc.get_objects())

    cluster = three_nodes()
    client = cluster.client("a")
    gc.collect()
    before = tables()
    gc.disable()
    try:
        for flags in (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK):
            table = client.open(flags=flags, retention_ns=0)
            table.write(b"k", b"v")
            table.try_update([Op.OVERWRITE, b"missing", b"refused"])
            cluster.run(50)
            table.close()
            cluster.run(50)
        assert cluster.node("a").directory.checkpoints == {}
        assert tables() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("to", ["a", "b"])
def test_an_outage_is_not_of_a_sessions_grace(to: str) -> None:
    """The node of a session was lost, then nobody served for longer than the grace: it could attach nowhere."""
    cluster = three_nodes()
    client = cluster.client("c")
    table = client.open(retention_ns=SECOND_NS)
    table.write(b"k", b"acknowledged")
    cluster.kill("c")
    cluster.run(1000)
    cluster.cut("a", "b")
    cluster.run(1000)
    cluster.after(12 * SECOND_NS, cluster.heal)
    assert client.attach(to).code == OK
    assert table.read(b"k") == b"acknowledged"
    cluster.restart("c")
    cluster.check()
