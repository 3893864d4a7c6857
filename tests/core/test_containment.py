"""Our own code raises where nothing was changed yet: that ends a connection, and the node goes on.

Any exception used to stop the node, also one that a client caused with one frame, and then the
next node that the client repeated it at.
"""

from typing import Any

import pytest
from tests.core.client import Client
from tests.core.cluster import nodes, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import LIBRARY, OK
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind
from ckptd.core import node, witness
from ckptd.core.content import parse_replicas, replica_content
from ckptd.core.directory import replicator
from ckptd.core.events import HeartbeatReceived, PeerReceived, SendPeer
from ckptd.core.liveness import parse_heartbeat
from ckptd.core.replication import active_replica
from ckptd.core.replication.replica import Replica
from ckptd.core.requests import change_feed, sessions


def fails(*arguments: Any, **named: Any) -> Any:
    raise ZeroDivisionError("with payload: secret")


def test_a_read_that_raises_is_answered_and_ends_its_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    other = cluster.client("a").open_existing()
    with monkeypatch.context() as patched:
        patched.setattr(Replica, "read", fails)
        answer = table.try_read(b"k")
    assert answer.code == LIBRARY
    assert "READ of" in answer.text and "hash " in answer.text and "ZeroDivisionError" in answer.text
    assert "secret" not in answer.text
    cluster.run(1)
    assert "a: closes client link" in " ".join(cluster.lines)
    assert cluster.node("a").context.counters["contained"] == 1
    assert other.read(b"k") == b"v"
    table.client.move("b")
    assert table.read(b"k") == b"v"
    cluster.check()


def test_a_read_that_raises_at_the_active_replica_is_answered_by_way_of_the_clients_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA).write(b"k", b"v")
    table = cluster.client("b").open_existing()
    active_replica = cluster.active() or ""
    with monkeypatch.context() as patched:
        patched.setattr(Replica, "read", fails)
        assert table.try_read(b"k").code == LIBRARY
    assert cluster.node(active_replica).context.counters["contained"] == 1
    assert table.read(b"k") == b"v"
    cluster.check()


def test_a_plan_that_raises_is_answered_and_orders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    seq = cluster.node("a").directory.seq
    with monkeypatch.context() as patched:
        patched.setattr(replicator, "validate", fails)
        assert table.client.unlink().code == LIBRARY
    assert cluster.node("a").directory.seq == seq
    assert cluster.client("b").unlink().payload is None
    cluster.check()


def test_tracking_that_raises_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    with monkeypatch.context() as patched:
        patched.setattr(change_feed, "changes_after", fails)
        assert table.call(Kind.TRACK, None, 0).code == LIBRARY
    cluster.check()


def test_a_description_that_raises_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    client = cluster.client("b")
    with monkeypatch.context() as patched:
        patched.setattr(node, "describe_checkpoints", fails)
        client.begin(Kind.DESCRIBE, 0, ["checkpoints"])
        cluster.run(1)
    assert any("b: closes client link" in line for line in cluster.lines)
    assert cluster.client("b").call(Kind.DESCRIBE, 0, ["checkpoints"]).payload == []
    cluster.check()


def test_lines_about_contained_exceptions_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    tables = [cluster.client("a").open_existing() for _ in range(20)]
    calls = [each.begin_read(b"k") for each in tables]
    with monkeypatch.context() as patched:
        patched.setattr(Replica, "read", fails)
        cluster.until(lambda: all(call.answers for call in calls))
    assert cluster.node("a").context.counters["contained"] == 20
    assert sum("Please report this" in line for line in cluster.lines) == 1
    cluster.check()


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.TRACK, Kind.PING, Kind.OPEN, Kind.ATTACH, Kind.OPERATE])
def test_parsing_that_raises_ends_that_connection_and_no_other(
    monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    other = cluster.client("a").open_existing()
    with monkeypatch.context() as patched:
        for name in (
            "parse_nothing",
            "parse_ping",
            "parse_track",
            "parse_open",
            "parse_attach",
            "parse_operate",
        ):
            patched.setattr(sessions, name, fails)
        link = table.client.link
        table.client.begin(kind, table.handle, [])
        cluster.run(1)
    (line,) = (line for line in cluster.lines if "closes client link" in line)
    assert f"a: closes client link {link}: " in line
    assert cluster.node("a").context.counters["contained"] == 1
    assert other.read(b"k") == b"v"
    table.client.calls.clear()  # It does not repeat that one.
    table.client.move("a")
    table.write(b"k", b"w")
    cluster.check()


@pytest.mark.parametrize("node_id", "abc")
def test_an_update_whose_parsing_raises_is_answered_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, node_id: str
) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    cluster.client("a").open().write(b"k", b"before")
    table = cluster.client(node_id).open_existing()
    with monkeypatch.context() as patched:
        patched.setattr(active_replica, "parse_update", fails)
        assert table.try_write(b"k", b"after").code == LIBRARY
    assert sum(node.context.counters.get("contained", 0) for node in cluster.running()) == 1
    if not table.client.link or node_id == cluster.active():
        table.client.move(node_id)
    assert table.read(b"k") == b"before"
    table.write(b"k", b"again")
    cluster.check()


def test_a_peers_frame_that_our_parser_raises_at_ends_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    with monkeypatch.context() as patched:
        patched.setattr(parse_replicas, "bounded_array", fails)
        join = Frame(Kind.JOIN, table.creation_id, cluster.node("a").context.epoch, 0, pack_body([0, True]))
        cluster.deliver("a", PeerReceived("c", [join]))
        cluster.run(0.1)
    assert any("a: closes the link to c: JOIN of" in line for line in cluster.lines)
    assert cluster.node("a").context.counters["contained"] == 1
    table.write(b"k", b"w")
    cluster.check()


def test_an_update_that_a_replicas_parser_raises_at_ends_the_link_and_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    with monkeypatch.context() as patched:
        patched.setattr(replica_content, "parse_replicated", fails)
        call = table.begin_write(b"k", b"v")
        cluster.run(2)
        assert not call.answers
    cluster.until(lambda: call.answers)
    assert call.code == OK
    cluster.check()
    assert {cluster.contents(node_id)[b"k"] for node_id in "abc"} == {b"v"}


def test_a_heartbeat_that_our_parser_raises_at_never_came(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = nodes("ab", witnesses="w")
    cluster.may_contain = True
    for node_id in ("a", "w"):
        node = cluster.hosts[node_id].core
        assert node is not None
        with monkeypatch.context() as patched:
            patched.setattr(parse_heartbeat, "bounded_array", fails)
            node.handle(HeartbeatReceived(Frame(Kind.HEARTBEAT, 1, 0, 0, b"\x90")), cluster.now_ns)
        assert node.context.counters["contained"] == 1
        assert node.context.counters["heartbeats_garbled"] == 1
    cluster.check()


def test_a_client_whose_question_a_witness_raises_at_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = nodes("ab", witnesses="w")
    cluster.may_contain = True
    client = Client(cluster, session=7)
    client.node_id, client.link = "w", cluster.connect_client(client, "w")
    with monkeypatch.context() as patched:
        patched.setattr(witness, "parse_describe", fails)
        client.begin(Kind.DESCRIBE, 0, ["cluster"])
        cluster.run(1)
    assert any("w: closes client link" in line for line in cluster.lines)
    cluster.check()


def test_what_raises_after_parsing_stops_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """TypeError and ValueError ended the link, however much had been changed by then."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"before")
    leading = cluster.node(cluster.active() or "")

    def on_ack(one: active_replica.ActiveReplica, node_id: str, seq: int) -> None:
        raise TypeError("half done")

    monkeypatch.setattr(active_replica.ActiveReplica, "on_ack", on_ack)
    table.begin_write(b"k", b"v")
    with pytest.raises(TypeError, match="half done"):
        cluster.run(10)
    assert any(isinstance(effect, SendPeer) for effect in leading.last_words(cluster.now_ns))
