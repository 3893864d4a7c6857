"""A daemon's life: what refuses its start, how it hands over and ends, what a failure does."""

import asyncio
import logging
import os
import threading
from pathlib import Path

import pytest
from tests.runtime.fakes import free_port, ping, running

from ckpt_protocol.errors import FrameError
from ckptd.core.events import (
    ClientReceived,
    Effect,
    Event,
    Leave,
    LeaveAsked,
    Persist,
    Persisted,
    PersistFailed,
    Quarantine,
    SendClient,
    WallClockRead,
)
from ckptd.runtime import daemon as daemon_module
from ckptd.runtime.effects import daemon_effects
from ckptd.runtime.errors import NodeFailed, StartError
from ckptd.runtime.host.state_directory import StateDirectory


async def test_the_core_starts_with_its_record_and_a_greater_incarnation(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        first.node.on[WallClockRead] = lambda event: [Persist(b"promise", 1)]
        first.driver.handle(WallClockRead(0))
        await first.node.told(Persisted)
    async with running(tmp_path) as second:
        settings, incarnation, record, now_ns, wall_offset_ns, _ = second.node.start
        assert (settings.node_id, record) == ("a", b"promise")
        assert incarnation > first.node.start[1]
        assert now_ns > 0
        assert second.node.events[0] == WallClockRead(wall_offset_ns)


async def test_a_second_daemon_with_the_same_directory_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(StartError, match="uses the state directory"):
            async with running(tmp_path):
                raise AssertionError("it started")


async def test_a_taken_port_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        listen = f"127.0.0.1:{a.port}"
        with pytest.raises(StartError, match="Address already in use"):
            async with running(tmp_path, node_id="b", listen=listen, socket=str(tmp_path / "s")):
                raise AssertionError("it started")
    assert not (tmp_path / "s").exists()
    async with running(tmp_path, node_id="b"):
        pass


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"cluster": "green"}, b"", "this is cluster 'ckptd', not 'green'"),
        ({}, b"secret", "has no cluster key"),
    ],
    ids=["cluster", "key"],
)
async def test_a_start_among_nodes_of_another_cluster_is_refused(
    tmp_path: Path, settings: dict[str, str], key: bytes, said: str
) -> None:
    async with running(tmp_path, node_id="a") as a:
        peers = {"a": f"127.0.0.1:{a.port}", "c": f"127.0.0.1:{free_port()}"}
        with pytest.raises(StartError, match=said):
            async with running(tmp_path, key, node_id="b", peers=peers, **settings):
                raise AssertionError("it started")


async def test_one_wrong_node_among_right_ones_does_not_stop_a_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, node_id="a") as a, running(tmp_path, node_id="c", cluster="green") as c:
        peers = {"a": f"127.0.0.1:{a.port}", "c": f"127.0.0.1:{c.port}"}
        async with running(tmp_path, node_id="b", peers=peers):
            assert "node c at" in caplog.text
            assert "is not in this cluster" in caplog.text


@pytest.mark.parametrize("listen", ["127.0.0.1", "0.0.0.0"])
async def test_a_node_id_that_is_not_the_one_that_peers_gives_this_address_is_refused(
    tmp_path: Path, listen: str
) -> None:
    """One file serves all nodes, and the node id was mistyped: it became one more voter in silence."""
    port = free_port()
    peers = {"a": f"localhost:{port}", "b": "127.0.0.1:2", "c": "127.0.0.1:3"}
    with pytest.raises(StartError, match="the address of this node, 'aa'"):
        async with running(tmp_path, node_id="aa", peers=peers, listen=f"{listen}:{port}"):
            raise AssertionError("it started")
    async with running(tmp_path, node_id="a", peers=peers, listen=f"{listen}:{port}") as a:
        assert a.node.settings is not None
        assert a.node.settings.voters == ("a", "b", "c")


async def test_a_peer_at_the_same_port_of_another_host_is_none_of_ours(tmp_path: Path) -> None:
    port = free_port()
    peers = {"a": f"127.0.0.2:{port}", "c": f"no-such-host.invalid:{port}"}
    async with running(tmp_path, node_id="b", peers=peers, listen=f"127.0.0.1:{port}") as b:
        assert b.port == port


async def test_something_else_at_a_peers_address_is_refused(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StartError, match="it is not a ckptd"):
        async with running(tmp_path, node_id="b", peers={"a": f"127.0.0.1:{port}"}):
            raise AssertionError("it started")
    server.close()


async def test_a_stop_hands_over_and_sends_the_last_answers(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        client.send(ping(1))
        await client.frame()
        link = (await a.node.told(ClientReceived)).link
        leave = a.node.on[LeaveAsked]
        a.node.on[LeaveAsked] = lambda event: [SendClient(link, ping(99)), *leave(event)]
        a.daemon.stop()
        assert (await client.frame()).a == 99
        assert await client.closed()
    assert a.node.kinds()[-1] == "LeaveAsked"


async def test_a_node_that_cannot_hand_over_leaves_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon_module, "LEAVE_MARGIN_S", 0.0)
    async with running(tmp_path, leave_ms=1) as a:
        a.node.on[LeaveAsked] = lambda event: []
    assert "ends without having handed over" in caplog.text


async def test_a_second_signal_ends_it_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, leave_ms=3_600_000) as a:
        a.node.on[LeaveAsked] = lambda event: []
        a.daemon.stop()
        await a.node.told(LeaveAsked)
    # The block's end is the second call.
    assert "ends without having handed over" in caplog.text


async def test_an_exception_out_of_the_core_ends_the_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> list[Effect]:
        raise FrameError("ours, whatever its type")

    with pytest.raises(NodeFailed):
        async with running(tmp_path) as a, a.client() as client:
            a.node.on[ClientReceived] = fail
            client.send(ping(1))
            assert await client.closed()
    assert "ours, whatever its type" in caplog.text


async def test_what_lost_is_kept_in_quarantine_before_the_daemon_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as a:
        a.node.on[WallClockRead] = lambda event: [Quarantine("phones", b"content")]
        a.driver.handle(WallClockRead(0))
    (file,) = (tmp_path / "state-a" / "quarantine").iterdir()
    assert file.read_bytes() == b"content"
    assert str(file) in caplog.text


async def test_a_quarantine_that_cannot_be_written_is_logged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, quarantine_bytes_max=2**16) as a:
        (tmp_path / "state-a" / "quarantine").touch()  # No directory.
        a.node.on[WallClockRead] = lambda event: [Quarantine("phones", b"content")]
        a.driver.handle(WallClockRead(0))
    assert "checkpoint 'phones' could not be written to quarantine" in caplog.text
    counts = a.node.transport.counters()
    assert (counts["quarantine_failures"], counts["quarantine_files"]) == (1, 0)


async def test_a_record_under_way_is_on_disk_before_the_daemon_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        first.node.on[LeaveAsked] = lambda event: [Persist(b"last", 1), Leave()]
    async with running(tmp_path) as second:
        assert second.node.start[2] == b"last"


async def test_a_disk_that_fails_does_not_end_the_daemon(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        (tmp_path / "state-a" / "record.new").mkdir()
        a.node.on[WallClockRead] = lambda event: [Persist(b"promise", 5)]
        a.driver.handle(WallClockRead(0))
        failed = await a.node.told(PersistFailed)
        assert (failed.number, failed.text) == (5, "Is a directory")
        assert a.node.transport.counters()["persist_failures"] == 1
        assert (await client.ping()).a == 1
        (tmp_path / "state-a" / "record.new").rmdir()
        a.driver.handle(WallClockRead(0))
        assert (await a.node.told(Persisted)).number == 5


async def test_a_disk_that_hangs_delays_the_daemon_for_a_bounded_time_and_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(daemon_effects, "DISK_WRITE_LIMIT_S", 0.01)
    entered, release = threading.Event(), threading.Event()

    def hang(self: StateDirectory, record: bytes) -> None:
        entered.set()
        release.wait()

    monkeypatch.setattr(StateDirectory, "write_record", hang)
    try:
        async with running(tmp_path) as a:
            a.node.on[WallClockRead] = lambda event: [Persist(b"promise", 1)]
            a.driver.handle(WallClockRead(0))
            await asyncio.to_thread(entered.wait)
        assert "the last state of this node is not on disk" in caplog.text
        with pytest.raises(StartError, match="uses the state directory"):
            async with running(tmp_path):
                raise AssertionError("it started")
    finally:
        release.set()
        os.close(a.state._lock)


async def test_a_listener_without_key_beyond_loopback_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with running(tmp_path, listen="0.0.0.0:0"):
        assert "no key is set" in caplog.text
