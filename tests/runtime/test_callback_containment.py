"""What raises in the runtime beside the core ends one connection or one background task, and is counted."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.fakes import free_port, running

from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.handshake import Acceptor
from ckpt_protocol.messages import Kind
from ckptd.core.events import (
    AskRegister,
    Fence,
    FenceEnded,
    Quarantine,
    RegisterFailed,
    WallClockRead,
)
from ckptd.runtime import event_recorder
from ckptd.runtime.clients import datagram_router, udp_clients
from ckptd.runtime.etcd.etcd_register import EtcdRegister, _Answer, _Unknown
from ckptd.runtime.host import client_process
from ckptd.runtime.host.fence_hook import FenceHook
from ckptd.runtime.host.state_directory import StateDirectory


def fails(*arguments: Any, **named: Any) -> Any:
    raise ZeroDivisionError("with payload: secret")


async def async_fails(*arguments: Any, **named: Any) -> Any:
    fails()


async def test_a_first_exchange_that_raises_ends_that_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as a:
        async with a.client(greet=False) as stranger:
            with monkeypatch.context() as patched:
                patched.setattr(Acceptor, "receive", fails)
                stranger.send(encode_frame(Kind.HELLO, 1, 1, 1, b"\x90"))
                assert await stranger.closed()
        assert a.node.transport.counters()["contained_io"] == 1
        assert "ZeroDivisionError" in caplog.text
        assert "secret" not in caplog.text
        async with a.client() as client:
            await client.ping()


async def test_a_client_whose_stream_raises_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as a:
        with monkeypatch.context() as patched:
            patched.setattr(FrameDecoder, "feed", fails)
            async with a.client(greet=False) as client:
                monkeypatch.setattr("tests.runtime.fakes.FrameDecoder", _Decoder)
                client._decoder = _Decoder()  # type: ignore[assignment]
                await client.greet(a.identity)
                client.send(b"x")
                assert await client.closed()
        assert a.node.transport.counters()["contained_io"] == 1
        async with a.client() as client:
            await client.ping()


class _Decoder:
    """The test's own, while the daemon's raises."""

    def __init__(self) -> None:
        self._feed = FEED.__get__(FrameDecoder())

    def feed(self, data: bytes) -> Any:
        return self._feed(data)


FEED: Any = FrameDecoder.feed


@pytest.mark.parametrize("kind", [Kind.HEARTBEAT, Kind.HELLO])
async def test_a_datagram_that_raises_is_dropped_and_the_next_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    """The task that reads datagrams ended with such a one, and the daemon with the task."""
    async with running(tmp_path) as a:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", a.port))
            for module in (datagram_router, udp_clients):
                monkeypatch.setattr(module, "decode_datagram", fails)
            for _ in range(2):
                sender.send(encode_frame(kind, 0, 0, 0, b"\x90"))
            while a.node.transport.counters()["contained_io"] < 2:
                await asyncio.sleep(0.01)
        assert not a.driver.ended.done()


async def test_a_register_that_raises_did_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EtcdRegister, "ask", async_fails)
    async with running(tmp_path, arbiter="etcd", etcd_endpoints="http://127.0.0.1:1") as a:
        a.node.on[WallClockRead] = lambda event: [AskRegister(7, 0, b"view")]
        a.driver.handle(WallClockRead(0))
        assert (await a.node.told(RegisterFailed)).number == 7
        assert a.node.transport.counters()["contained_io"] == 1


@pytest.mark.parametrize("number", ["Infinity", "1e999", "-Infinity", "NaN", "[]", "{}", '"x"', "null"])
def test_an_answer_of_etcd_with_an_impossible_number_is_unknown(number: str) -> None:
    """`int` of a float infinity raises OverflowError, which nobody caught: it ended the node."""
    with pytest.raises(_Unknown):
        _Answer(b'{"header": {"revision": %s}}' % number.encode()).revision()
    with pytest.raises(_Unknown):
        _Answer(b'{"kvs": [{"mod_revision": %s}]}' % number.encode()).first_key("kvs")


async def test_a_fence_hook_that_raises_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FenceHook, "run", async_fails)
    async with running(tmp_path, fence_hook="true", peers="a=h1:1,b=h2:2", on_silent_peer="fence") as a:
        a.node.on[WallClockRead] = lambda event: [Fence("b")]
        a.driver.handle(WallClockRead(0))
        ended = await a.node.told(FenceEnded)
        assert not ended.fenced
        assert "ZeroDivisionError" in ended.text


async def test_a_quarantine_that_raises_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateDirectory, "quarantine", fails)
    async with running(tmp_path) as a:
        a.node.on[WallClockRead] = lambda event: [Quarantine("x", b"content")]
        a.driver.handle(WallClockRead(0))
        while not a.node.transport.counters()["quarantine_failures"]:
            await asyncio.sleep(0.01)
        assert not a.driver.ended.done()


@pytest.mark.parametrize("function", ["pack_event", "pack_entry", "digest_of"])
async def test_a_recording_that_raises_stops_and_the_node_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    async with running(tmp_path, record_events=tmp_path / "events") as a, a.client() as client:
        monkeypatch.setattr(event_recorder, function, fails)
        assert (await client.ping()).a == 1
        assert (await client.ping(2)).a == 2
        assert "recording stops" in caplog.text


async def test_a_peers_name_that_cannot_be_encoded_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`getaddrinfo` raises UnicodeError for a label of 64 letters: the task ended, and the daemon with it."""
    port = free_port()
    peers = f"a=127.0.0.1:{port},b={'x' * 64}:1"
    async with running(tmp_path, peers=peers, listen=f"127.0.0.1:{port}") as a:
        while "label too long" not in caplog.text:
            await asyncio.sleep(0.01)
        async with a.client() as client:
            await client.ping()


def test_a_process_of_which_the_kernel_says_nothing_is_not_known_to_be_dead(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty /proc/PID/stat raised IndexError when a client's connection was lost: its link stayed."""
    (tmp_path / "stat").write_text("")
    real = open

    def opened(path: str, **how: Any) -> Any:
        return real(tmp_path / "stat" if path.startswith("/proc/") else path, **how)

    monkeypatch.setattr(client_process, "open", opened, raising=False)
    assert not client_process.Process(1, "0").is_dead()
