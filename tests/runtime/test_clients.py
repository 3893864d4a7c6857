"""Clients over streams: frames reach the core in whatever pieces they come; garbage ends one link only."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.runtime.conftest import Lines
from tests.runtime.fakes import NONCE, RawClient, ping, running

from ckpt_protocol import codes
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER, encode_frame
from ckpt_protocol.handshake import ROLE_OPERATOR, HandshakeRejected, Identity, Opener
from ckpt_protocol.limits import FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, UNATTACHED_BODY_BYTES_MAX
from ckpt_protocol.messages import Kind
from ckptd.core.events import (
    ClientCongested,
    ClientConnected,
    ClientDrained,
    ClientLost,
    ClientReceived,
    CloseClient,
    SendClient,
)
from ckptd.runtime.clients import clients as clients_module
from ckptd.runtime.clients import connection_acceptor as acceptor_module
from ckptd.runtime.host import descriptors
from ckptd.runtime.host.client_process import ForeignProcess
from ckptd.runtime.host.descriptors import OPERATORS_MAX
from ckptd.runtime.net.handshake import cut_first_frame

MIB = 1024 * 1024


async def test_requests_are_answered_after_the_first_exchange(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        assert (await client.ping(7)).a == 7
        assert a.node.kinds()[-2:] == ["ClientConnected", "ClientReceived"]


async def test_pipelined_requests_of_one_segment_are_one_event(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        client.send(ping(1) + ping(2) + ping(3))
        assert [(await client.frame()).a for _ in range(3)] == [1, 2, 3]
        assert len((await a.node.told(ClientReceived)).frames) == 3


async def test_a_request_in_single_bytes_is_put_together(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client(greet=False) as client:
        client.writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        hello = Opener(a.identity, 1, NONCE).hello()
        for byte in hello:
            client.send(bytes([byte]))
            await client.writer.drain()
        assert (await client.frame()).kind == Kind.WELCOME
        for byte in ping(5):
            client.send(bytes([byte]))
            await client.writer.drain()
        assert (await client.frame()).a == 5


async def test_requests_right_after_the_proof_are_taken(tmp_path: Path) -> None:
    """A PROOF and what follows it may come in one segment, and only the PROOF must be small."""
    async with running(tmp_path, key=b"secret") as a, a.client(greet=False) as client:
        behind = b"".join(ping(number, bytes(4096)) for number in range(1, 6))
        await client.greet(a.identity, behind=behind)
        assert [(await client.frame()).a for _ in range(5)] == [1, 2, 3, 4, 5]
        told = [event.frames for event in a.node.events if isinstance(event, ClientReceived)]
        assert [frame.a for frames in told for frame in frames] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.READ, Kind.OPEN, Kind.ITERATE, Kind.PING])
async def test_before_its_session_is_attached_a_client_sends_nothing_large(
    tmp_path: Path, kind: int, lines: Lines
) -> None:
    """Whoever had greeted could make a node hold 80 MiB, for a request that was sure to be refused."""
    async with running(tmp_path) as a, a.client() as client, a.client() as other:
        client.send(encode_frame(kind, 1, 0, 1, bytes(UNATTACHED_BODY_BYTES_MAX)))
        await a.node.told(ClientReceived)
        client.send(encode_frame(kind, 2, 0, 1, bytes(UNATTACHED_BODY_BYTES_MAX + 1))[: HEADER.size])
        assert (await a.node.told(ClientLost)).link == 1
        await lines.said(f"a frame of kind {kind} has a body of 4097 bytes, but at most 4096 are allowed")
        assert "which is the limit before its session is attached" in lines.text
        assert a.daemon.counters.garbage_streams == 1
        assert (await other.ping(9)).a == 9


async def test_a_large_request_right_after_the_answer_to_attach_is_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        await client.attach()
        client.send(encode_frame(Kind.UPDATE, 2, 0, 1, bytes(MIB)) + ping(3))
        assert (await client.frame()).a == 3


async def test_a_frame_of_many_megabytes_arrives_whole(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        await client.attach()
        body = os.urandom(8 * 1024 * 1024)
        client.send(encode_frame(Kind.UPDATE, 1, 0, 1, body) + ping(2))
        await client.frame()
        assert (await a.node.told(ClientReceived, 2)).frames[0].body == body


async def test_the_connection_ends_when_the_first_frame_is_too_long(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client(greet=False) as client:
        client.send(HEADER.pack(FIRST_FRAME_BYTES_MAX, Kind.HELLO, 1, 1, 1))
        assert await client.closed()
        assert a.daemon.counters.garbage_streams == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 4,
        bytes(64),
        encode_frame(Kind.PING, 1, 0, 1),
        encode_frame(Kind.HELLO, 1, 1, 1, b"\xff"),
    ],
    ids=["http", "zeros", "request", "hello"],
)
async def test_an_unauthenticated_connection_that_sends_garbage_is_closed_and_does_no_harm(
    tmp_path: Path, garbage: bytes
) -> None:
    async with running(tmp_path) as a, a.client() as client, a.client(greet=False) as stranger:
        stranger.send(garbage)
        assert await stranger.closed()
        assert a.daemon.counters.garbage_streams == 1
        assert (await client.ping()).a == 1


async def test_a_connection_that_ends_within_its_hello_is_forgotten(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        async with a.client(greet=False) as stranger:
            stranger.send(Opener(a.identity, 1, NONCE).hello()[:20])
            await stranger.writer.drain()
        async with a.client() as client:
            assert (await client.ping()).a == 1
        assert a.daemon.counters.garbage_streams == 0


async def test_a_silent_unauthenticated_connection_is_closed_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptor_module, "HANDSHAKE_LIMIT_S", 0.01)
    async with running(tmp_path) as a, a.client(greet=False) as stranger:
        assert await stranger.closed()
        assert a.daemon.counters.timed_out == 1


async def test_the_oldest_unauthenticated_connection_is_closed_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "HANDSHAKES_MAX", 1)
    async with running(tmp_path) as a, a.client(greet=False) as oldest, a.client() as client:
        assert await oldest.closed()
        assert (await client.ping()).a == 1


@pytest.mark.parametrize("length", [0, 24, FRAME_BYTES_MAX, 2**32 - 1])
async def test_a_client_with_an_impossible_length_is_cut_off(tmp_path: Path, length: int) -> None:
    async with running(tmp_path) as a, a.client() as client, a.client() as other:
        client.send(ping(1) + HEADER.pack(length, Kind.PING, 2, 0, 2))
        assert await client.closed()
        await a.node.told(ClientLost)
        assert a.daemon.counters.garbage_streams == 1
        assert (await other.ping(9)).a == 9


async def test_a_client_that_disappears_within_a_frame_is_lost(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        async with a.client() as client:
            connected = await a.node.told(ClientConnected)
            client.send(ping(1, bytes(3000))[:700])
            await client.writer.drain()
        lost = await a.node.told(ClientLost)
        assert lost == ClientLost(connected.link, process_dead=False)
        assert "ClientReceived" not in a.node.kinds()


async def test_one_client_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, clients_max=1) as a, a.client() as client, a.client(greet=False) as second:
        await second.greet(a.identity)
        refusal = await second.frame()
        assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.NO_RESOURCES)
        assert await second.closed()
        assert (await client.ping()).a == 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="pidfd_open is Linux's")
async def test_the_descriptor_of_a_foreign_process_takes_the_place_of_a_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not counted, and that of a refused client was never closed."""
    opened: list[int] = []

    def foreign_process(sock: socket.socket) -> ForeignProcess:
        opened.append(os.pidfd_open(os.getpid()))
        return ForeignProcess(opened[-1])

    def still_open() -> list[bool]:
        return [os.path.exists(f"/proc/self/fd/{descriptor}") for descriptor in opened]

    monkeypatch.setattr(clients_module, "process_at", foreign_process)
    async with running(tmp_path, clients_max=2) as a:
        used = a.node.transport.limits
        async with a.client() as client, a.client(greet=False) as second:
            assert (await client.ping()).a == 1
            assert used()["clients"] == (2, 2)
            await second.greet(a.identity)
            assert (await second.frame()).a == codes.NO_RESOURCES
            assert await second.closed()
            assert still_open() == [True, False]
        await a.node.told(ClientLost)
        assert still_open()[0] is False
        assert used()["clients"] == (0, 2)


async def test_an_operator_has_a_place_apart_from_the_clients_and_attaches_no_session(tmp_path: Path) -> None:
    """With `clients_max` clients `ckptctl` could not even show that, nor stop the node."""
    async with running(tmp_path, clients_max=1) as a, a.client(), a.client(greet=False) as tool:
        await tool.greet(a.identity, ROLE_OPERATOR)
        assert (await tool.ping()).a == 1
        assert a.node.transport.limits()["clients"] == (1, 1)
        tool.send(encode_frame(Kind.ATTACH, 1, 5, 1, b"\x91\xc3"))
        assert await tool.closed()
        assert (await a.node.told(ClientLost)).link == 2


async def test_of_too_many_operators_the_oldest_is_cut_off(tmp_path: Path) -> None:
    """Else eight that stay, and say nothing, keep the operator out."""
    async with running(tmp_path, clients_max=1) as a, contextlib.AsyncExitStack() as stack:
        tools = [await stack.enter_async_context(a.client(greet=False)) for _ in range(OPERATORS_MAX + 2)]
        for tool in tools:
            await tool.greet(a.identity, ROLE_OPERATOR)
            assert (await tool.ping()).a == 1
        for tool in tools[:2]:
            assert await tool.closed()
        assert [(await tool.ping(2)).a for tool in tools[2:]] == [2] * OPERATORS_MAX
        assert [event.link for event in a.node.events if isinstance(event, ClientLost)] == [1, 2]


async def test_of_too_many_operators_one_that_reads_nothing_goes_at_once(tmp_path: Path) -> None:
    """It was closed in order, which took it 10 s: who opened many in that time held as many descriptors."""
    async with running(tmp_path) as a, contextlib.AsyncExitStack() as stack:
        tools = [await stack.enter_async_context(a.client(greet=False)) for _ in range(OPERATORS_MAX)]
        for tool in tools:
            await tool.greet(a.identity, ROLE_OPERATOR)
        a.node.on[ClientReceived] = lambda event: [SendClient(event.link, bytes(32 * MIB))]
        tools[0].writer.transport.pause_reading()
        tools[0].send(ping(1))
        await a.node.told(ClientCongested)
        async with a.client(greet=False) as one_more:
            await one_more.greet(a.identity, ROLE_OPERATOR)
            assert a.daemon.counters.clients_cut_off == 1
            assert a.node.transport.limits()["client_buffer_bytes"][0] == 0


async def test_a_client_that_is_closed_and_reads_nothing_goes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It kept its connection, and counted, for as long as it liked."""
    monkeypatch.setattr(clients_module, "CLOSE_LIMIT_S", 0.1)
    async with running(tmp_path) as a, a.client() as client:
        client.writer.transport.pause_reading()
        connected = await a.node.told(ClientConnected)
        a.node.on[ClientReceived] = lambda event: [
            SendClient(connected.link, bytes(32 * MIB)),
            CloseClient(connected.link, "it is over"),
        ]
        client.send(ping(1))
        await a.node.told(ClientLost)


@pytest.mark.parametrize(
    ("identity", "code"),
    [
        (Identity("other", b"secret"), codes.ACCESS),
        (Identity("ckptd", b"wrong"), codes.ACCESS),
        (Identity("ckptd", b""), codes.ACCESS),
    ],
    ids=["cluster", "key", "no key"],
)
async def test_a_client_of_another_cluster_or_key_is_refused(
    tmp_path: Path, identity: Identity, code: int
) -> None:
    async with running(tmp_path, key=b"secret") as a, a.client(greet=False) as client:
        with pytest.raises(HandshakeRejected) as refused:
            await client.greet(identity)
        assert refused.value.code == code
        assert "ClientConnected" not in a.node.kinds()


async def test_a_client_that_forges_the_proof_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, key=b"secret") as a, a.client(greet=False) as client:
        client.send(Opener(a.identity, 1, NONCE).hello())
        await client.frame()
        client.send(encode_frame(Kind.PROOF, 0, 0, 0, bytes(32)))
        assert (await client.frame()).kind == Kind.REFUSED
        assert await client.closed()
        assert "ClientConnected" not in a.node.kinds()
        assert a.daemon.counters.refused == 1


async def test_a_client_of_another_protocol_version_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client(greet=False) as client:
        hello = bytearray(Opener(a.identity, 1, NONCE).hello())
        HEADER.pack_into(hello, 0, len(hello) - 4, Kind.HELLO, 99, 100, 1)
        client.send(bytes(hello))
        refusal = await client.frame()
        assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.VERSION)
        assert await client.closed()


async def test_close_client_ends_the_link_after_what_was_sent_before(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        a.node.on[ClientReceived] = lambda event: [
            SendClient(event.link, ping(1)),
            CloseClient(event.link, "it breaks the protocol"),
            SendClient(event.link, ping(2)),
        ]
        client.send(ping(1))
        assert (await client.frame()).a == 1
        assert await client.closed()
        await a.node.told(ClientLost)


async def test_effects_for_clients_that_are_gone_are_dropped(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client() as client:
        a.node.on[ClientReceived] = lambda event: [
            SendClient(999, b"lost"),
            CloseClient(999, "no such link"),
            SendClient(event.link, ping(1)),
        ]
        client.send(ping(1))
        assert (await client.frame()).a == 1


async def test_a_client_that_reads_no_answers_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    async with running(tmp_path, client_buffer_bytes_max=1024 * 1024) as a, a.client() as client:
        answer = bytes(512 * 1024)
        a.node.on[ClientReceived] = lambda event: [SendClient(event.link, answer)] * len(event.frames)
        # In one segment, so that they are all taken before reading can be paused.
        client.send(b"".join(ping(number) for number in range(1, 60)))
        await a.node.told(ClientLost)


async def test_a_client_that_reads_late_gets_every_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients_module, "CLIENT_BUFFER_BYTES", 64 * 1024)
    async with running(tmp_path) as a, a.client() as client:
        answer = encode_frame(Kind.ANSWER, 1, 1, 0, bytes(512 * 1024))
        a.node.on[ClientReceived] = lambda event: [SendClient(event.link, answer)] * len(event.frames)
        for number in range(1, 41):
            client.send(ping(number))
            await client.writer.drain()
        for _ in range(40):
            assert len((await client.frame()).body) == 512 * 1024


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SO_PEERCRED and /proc are Linux's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_unix_client_whose_process_was_killed_is_known_to_be_dead(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "s"
    async with running(tmp_path, socket=str(path)) as a:
        program = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            "s.sendall(bytes.fromhex(sys.argv[2])); s.recv(999); sys.stdin.read()"
        )
        hello = Opener(a.identity, 1, NONCE).hello().hex()
        with subprocess.Popen(
            [sys.executable, "-c", program, str(path), hello], stdin=subprocess.PIPE
        ) as process:
            try:
                await a.node.told(ClientConnected)
            finally:
                process.send_signal(number)
            # Nobody has reaped it: its pid is still there, as a zombie or on its way.
            assert (await a.node.told(ClientLost)).process_dead


async def test_a_unix_client_that_only_closed_its_socket_is_not_called_dead(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with running(tmp_path, socket=str(path)) as a:
        client = RawClient(*await asyncio.open_unix_connection(str(path)))
        await client.greet(a.identity)
        await client.ping()
        client.writer.close()
        assert not (await a.node.told(ClientLost)).process_dead


def test_cutting_refuses_a_length_below_a_header() -> None:
    with pytest.raises(FrameError):
        cut_first_frame(b"\0\0\0\x01")


async def test_no_more_requests_are_read_while_answers_are_not(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client():
        (link,) = a.driver.clients.values()
        assert isinstance(link, clients_module.ClientLink)
        link.pause_writing()
        assert not link._transport.is_reading()
        await a.node.told(ClientCongested)
        link.resume_writing()
        assert link._transport.is_reading()
        await a.node.told(ClientDrained)


async def test_a_link_is_read_again_when_both_its_answers_and_its_lane_allow_it(tmp_path: Path) -> None:
    async with running(tmp_path) as a, a.client():
        (link,) = a.driver.clients.values()
        assert isinstance(link, clients_module.ClientLink)
        link.stop_reading()
        link.pause_writing()
        link.resume_reading()
        assert not link._transport.is_reading()
        link.resume_writing()
        assert link._transport.is_reading()


async def test_of_all_clients_that_read_no_answers_the_worst_is_cut_off(tmp_path: Path) -> None:
    """The limit is that of all together: a thousand clients with a little each are as many bytes."""
    limit = 24 * MIB  # (The kernel takes up to 6 MiB for a socket.)
    async with (
        running(tmp_path, client_buffer_bytes_max=limit) as a,
        a.client() as one,
        a.client() as other,
    ):
        answer = bytes(8 * MIB)
        a.node.on[ClientReceived] = lambda event: [SendClient(event.link, answer)] * len(event.frames)
        one.send(ping(1) + ping(2))
        await a.node.told(ClientCongested)
        other.send(b"".join(ping(number) for number in range(1, 6)))
        lost = await a.node.told(ClientLost)
        assert lost.link == 2
        assert len(a.driver.clients) == 1
        assert 0 < a.clients.unread.unread_bytes <= limit
