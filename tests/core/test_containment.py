"""Our own code raises where nothing was changed yet: that ends a connection, and the node goes on.

Any exception used to stop the node, also one that a client caused with one frame, and then the
next node that the client repeated it at.
"""

from typing import Any

import pytest
from tests.core.cluster import three_nodes

from ckpt_protocol.codes import LIBRARY
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA
from ckpt_protocol.messages import Kind
from ckptd.core import active, clients, coordinator, node, tracking
from ckptd.core.replica import Replica


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
    assert "a closes client link" in " ".join(cluster.lines)
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
    active = cluster.active() or ""
    with monkeypatch.context() as patched:
        patched.setattr(Replica, "read", fails)
        assert table.try_read(b"k").code == LIBRARY
    assert cluster.node(active).context.counters["contained"] == 1
    assert table.read(b"k") == b"v"
    cluster.check()


def test_a_plan_that_raises_is_answered_and_orders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    seq = cluster.node("a").directory.seq
    with monkeypatch.context() as patched:
        patched.setattr(coordinator, "plan", fails)
        assert table.client.unlink().code == LIBRARY
    assert cluster.node("a").directory.seq == seq
    assert cluster.client("b").unlink().payload is None
    cluster.check()


def test_tracking_that_raises_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    with monkeypatch.context() as patched:
        patched.setattr(tracking, "changes_after", fails)
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
    assert any("b closes client link" in line for line in cluster.lines)
    assert cluster.client("b").call(Kind.DESCRIBE, 0, ["checkpoints"]).payload == []
    cluster.check()


def test_lines_about_contained_exceptions_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = three_nodes()
    cluster.may_contain = True
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    calls = [table.begin_read(b"k") for _ in range(100)]
    with monkeypatch.context() as patched:
        patched.setattr(Replica, "read", fails)
        cluster.until(lambda: all(call.answers for call in calls))
    assert cluster.node("a").context.counters["contained"] == 100
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
        for name in ("parse_nothing", "parse_track", "parse_open", "parse_attach", "parse_operate"):
            patched.setattr(clients, name, fails)
        table.client.begin(kind, table.handle, [])
        cluster.run(1)
    closed = [line for line in cluster.lines if "closes client link" in line]
    assert closed == [f"a closes client link {table.client.link}"]
    assert cluster.node("a").context.counters["contained"] == 1
    assert other.read(b"k") == b"v"
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
        patched.setattr(active, "parse_update", fails)
        assert table.try_write(b"k", b"after").code == LIBRARY
    assert sum(node.context.counters.get("contained", 0) for node in cluster.running()) == 1
    if not table.client.link or node_id == cluster.active():
        table.client.move(node_id)
    assert table.read(b"k") == b"before"
    table.write(b"k", b"again")
    cluster.check()
