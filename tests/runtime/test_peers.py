"""Links between daemons: one per pair, replaced by a newer one, dialled or probed at once when lost."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Lines
from tests.runtime.fakes import NONCE, AtAddress, RawClient, Running, at_address, free_port, running

from ckpt_protocol import codes
from ckpt_protocol.framing import HEADER, encode_frame
from ckpt_protocol.handshake import ROLE_PEER, Identity, Opener
from ckpt_protocol.messages import Kind
from ckptd.core.events import (
    AskBack,
    BeginAgain,
    ClosePeer,
    HeartbeatReceived,
    Outranked,
    PeerConnected,
    PeerLost,
    PeerReceived,
    PeerRefused,
    PeerTrouble,
    RefusePeer,
    SendHeartbeat,
    SendPeer,
    WallClockRead,
)
from ckptd.runtime.errors import BegunAgain
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.net.connecting import connect_stream
from ckptd.runtime.peers.peer_connector import IDENTIFY_PAUSE_S, STABLE_LINK_NS


@contextlib.asynccontextmanager
async def pair(directory: Path, key: bytes = b"") -> AsyncIterator[tuple[Running, Running]]:
    """Nodes a and b that have each other as peer; a dials."""
    at_a, at_b = (f"127.0.0.1:{free_port()}" for _ in "ab")
    async with (
        running(directory, key, node_id="b", peers={"a": at_a}, listen=at_b) as b,
        running(directory, key, node_id="a", peers={"b": at_b}, listen=at_a) as a,
    ):
        yield a, b


@contextlib.asynccontextmanager
async def waiting_for_a(directory: Path, **settings: Any) -> AsyncIterator[tuple[Running, AtAddress]]:
    """Node b, which waits for node a to dial, and what answers at a's address."""
    async with (
        at_address("a") as a,
        running(directory, node_id="b", peers={"a": f"127.0.0.1:{a.port}"}, **settings) as b,
    ):
        yield b, a


async def greet_as_peer(
    client: RawClient, node_id: str = "a", incarnation: int = 5, key: bytes = b""
) -> None:
    await client.greet(Identity("ckptd", key, node_id, incarnation, ("tcp://a:1",)), ROLE_PEER)


def commit(seq: int) -> bytes:
    """A frame as it goes between peers."""
    return encode_frame(Kind.COMMIT, seq, 0, 0)


async def link_as_peer(client: RawClient, incarnation: int = 5) -> None:
    """Greet as node a, and be taken."""
    await greet_as_peer(client, incarnation=incarnation)
    assert (await client.frame()).kind == Kind.TAKEN


@pytest.mark.parametrize("key", [b"", b"secret"])
async def test_the_smaller_node_dials_and_both_know_each_other(tmp_path: Path, key: bytes) -> None:
    async with pair(tmp_path, key) as (a, b):
        connected = await a.node.told(PeerConnected)
        assert connected == PeerConnected("b", b.node.start[1], (f"tcp://127.0.0.1:{b.port}",))
        connected = await b.node.told(PeerConnected)
        assert (connected.node_id, connected.incarnation) == ("a", a.node.start[1])


async def test_frames_go_both_ways(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.node.told(PeerConnected)
        b.node.on[PeerReceived] = lambda event: [
            SendPeer("a", commit(event.frames[0].a + 1)),
            SendPeer("a", commit(7)),
        ]
        a.node.on[WallClockRead] = lambda event: [SendPeer("b", commit(1)), SendPeer("nobody", b"lost")]
        a.driver.handle(WallClockRead(0))
        received = await a.node.told(PeerReceived)
        assert [frame.a for frame in received.frames] == [2, 7]


@pytest.mark.parametrize("key", [b"", b"secret"])
async def test_heartbeats_travel_sealed_by_the_secret_of_the_link(tmp_path: Path, key: bytes) -> None:
    async with pair(tmp_path, key) as (a, b):
        await a.node.told(PeerConnected)
        a.node.on[WallClockRead] = lambda event: [
            SendHeartbeat("b", encode_frame(Kind.HEARTBEAT, 1, 2, 3, b"x")),
            SendHeartbeat("nobody", b"lost"),
        ]
        a.driver.handle(WallClockRead(0))
        beat = await b.node.told(HeartbeatReceived)
        assert (beat.frame.a, beat.authentic) == (1, True)


async def test_a_dialler_redials_when_the_core_closes_the_link(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.node.told(PeerConnected)
        a.node.on[WallClockRead] = lambda event: [ClosePeer("b", "it sent garbage")]
        a.driver.handle(WallClockRead(0))
        await a.node.told(PeerConnected, 2)
        await b.node.told(PeerConnected, 2)
        ties = [kind for kind in b.node.kinds() if kind in ("PeerConnected", "PeerLost")]
        assert ties == ["PeerConnected", "PeerLost", "PeerConnected"]


async def test_a_dialler_learns_that_no_process_listens(tmp_path: Path) -> None:
    async with running(tmp_path, peers={"b": f"127.0.0.1:{free_port()}"}) as a:
        assert await a.node.told(PeerRefused, 3) == PeerRefused("b")


async def test_a_waiting_node_probes_as_soon_as_the_link_is_lost(tmp_path: Path) -> None:
    """Fail-over hinges on it: end of stream, probe, refusal, all within milliseconds of a SIGKILL."""
    async with contextlib.AsyncExitStack() as listening:
        a = await listening.enter_async_context(at_address("a"))
        b = await listening.enter_async_context(
            running(tmp_path, node_id="b", peers={"a": f"127.0.0.1:{a.port}"})
        )
        async with b.client(greet=False) as peer:
            await greet_as_peer(peer)
            await b.node.told(PeerConnected)
            a.close()
            before = b.node.kinds().count("PeerRefused")
        await b.node.told(PeerLost)
        await b.node.told(PeerRefused, before + 1)
        kinds = b.node.kinds()
        assert kinds.index("PeerLost") < len(kinds) - 1 - kinds[::-1].index("PeerRefused")


async def test_a_probe_of_a_living_node_says_nothing(tmp_path: Path) -> None:
    """It connects and goes: no event here, and no complaint there."""
    async with (
        running(tmp_path, node_id="a") as a,
        running(tmp_path, node_id="b", peers={"a": f"127.0.0.1:{a.port}"}) as b,
    ):
        connector = b.peers.connectors["a"]
        assert not connector.is_dialer
        assert await connector._dial_or_probe()
        async with a.client() as client:
            await client.ping()
        assert "PeerRefused" not in b.node.kinds()
        assert a.daemon.counters.garbage_streams == a.daemon.counters.refused == 0


async def test_a_port_that_connects_to_itself_counts_as_refused() -> None:
    """A dialler of an ephemeral port that nobody listens on can meet itself, and would then hold the port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        sock.connect(address)
        assert sock.getsockname() == sock.getpeername()

    class Meeting(socket.socket):
        def getpeername(self) -> object:
            return self.getsockname()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "socket", Meeting)
        listener = Meeting()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(ConnectionRefusedError):
            await connect_stream(listener.getsockname(), socket.AF_INET)
        listener.close()


async def test_a_newer_connection_of_a_peer_replaces_the_old_one(tmp_path: Path) -> None:
    async with (
        waiting_for_a(tmp_path) as (b, a),
        b.client(greet=False) as first,
        b.client(greet=False) as second,
    ):
        await link_as_peer(first)
        await b.node.told(PeerConnected)
        a.incarnation = 6
        await greet_as_peer(second, incarnation=6)
        await b.node.told(PeerConnected, 2)
        assert await first.closed()
        second.send(commit(1))
        await b.node.told(PeerReceived)
        ties = [event for event in b.node.events if isinstance(event, PeerConnected | PeerLost)]
        assert [type(tie) for tie in ties] == [PeerConnected, PeerLost, PeerConnected]
        assert b.peers.connectors["a"].link is not None


@pytest.mark.parametrize("incarnation", [4, 6, 2**63 - 1])
async def test_only_the_process_that_answers_at_its_address_is_a_peer(
    tmp_path: Path, incarnation: int, lines: Lines
) -> None:
    """One greeting with a huge incarnation once shut a healthy node out for good."""
    async with (
        waiting_for_a(tmp_path) as (b, _),
        b.client(greet=False) as real,
        b.client(greet=False) as second,
    ):
        await greet_as_peer(real, incarnation=5)
        await b.node.told(PeerConnected)
        await greet_as_peer(second, incarnation=incarnation)
        refusal = await second.frame()
        assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.EXIST)
        assert await second.closed()
        await lines.said("two daemons have this node id")
        real.send(commit(1))
        await b.node.told(PeerReceived)
        assert "PeerLost" not in b.node.kinds()
        assert b.daemon.counters.refused == 1


async def test_a_connection_that_the_peer_did_not_open_is_refused(tmp_path: Path, lines: Lines) -> None:
    """Its node id and its incarnation are no secrets."""
    async with waiting_for_a(tmp_path) as (b, a), b.client(greet=False) as other:
        a.opened.clear()
        await greet_as_peer(other, incarnation=5)
        assert (await other.frame()).a == codes.EXIST
        await lines.said("did not open that connection")
        assert "PeerConnected" not in b.node.kinds()


async def test_a_peer_that_cannot_be_asked_is_not_taken_yet(tmp_path: Path) -> None:
    peers = {"a": f"127.0.0.1:{free_port()}"}
    async with running(tmp_path, node_id="b", peers=peers) as b, b.client(greet=False) as peer:
        await greet_as_peer(peer)
        assert (await peer.frame()).a == codes.TRY_AGAIN
        assert "PeerConnected" not in b.node.kinds()


async def test_connections_that_claim_to_be_a_peer_do_not_keep_it_away(tmp_path: Path) -> None:
    async with waiting_for_a(tmp_path) as (b, a), contextlib.AsyncExitStack() as clients:
        began_s = time.monotonic()
        for _ in range(20):
            stranger = await clients.enter_async_context(b.client(greet=False))
            await greet_as_peer(stranger, incarnation=9)
        real = await clients.enter_async_context(b.client(greet=False))
        await greet_as_peer(real, incarnation=5)
        assert (await b.node.told(PeerConnected)).incarnation == 5
        pauses = (time.monotonic() - began_s) / IDENTIFY_PAUSE_S
        assert a.asked <= 4 + pauses, "claims of one host wait in one place"


async def test_a_connection_that_asks_back_is_no_client(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await b.node.told(PeerConnected)
        assert "ClientConnected" not in a.node.kinds()


async def test_another_start_at_a_peers_address_ends_the_link_to_the_one_before(tmp_path: Path) -> None:
    """The core heard of an unknown start: the peer's name stands for another machine by now."""
    async with waiting_for_a(tmp_path) as (b, a), b.client(greet=False) as peer:
        await link_as_peer(peer)
        await b.node.told(PeerConnected)
        b.node.on[WallClockRead] = lambda event: [AskBack("a")]
        b.driver.handle(WallClockRead(0))
        while a.asked < 2:
            await asyncio.sleep(0.001)
        assert "PeerLost" not in b.node.kinds(), "the same start answers"
        a.incarnation = 6
        b.driver.handle(WallClockRead(0))
        await b.node.told(PeerLost)
        assert await peer.closed()


async def test_a_node_that_asks_back_without_a_link_dials_at_once(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, peers={"b": f"127.0.0.1:{port}"}) as a:
        await a.node.told(PeerRefused, 9)  # The pauses have grown to 250 ms by now.
        async with at_address("b", 7) as b:
            connector = a.peers.connectors["b"]
            connector.resolved = ("127.0.0.1", b.port)
            a.node.on[WallClockRead] = lambda event: [AskBack("b")]
            a.driver.handle(WallClockRead(0))
            assert (await a.node.told(PeerConnected)).incarnation == 7


async def test_a_name_that_has_no_address_yet_is_looked_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was looked up once, when its link came up: heartbeats went nowhere for ever."""
    known: dict[str, str] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int, **more: Any) -> list[Any]:
        if host != "node-a":
            return real(host, port, **more)
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (known[host], port))]

    async with at_address("a") as a:
        with monkeypatch.context() as patch:
            patch.setattr("ckptd.runtime.net.name_lookup.socket.getaddrinfo", look_up)
            async with running(tmp_path, node_id="b", peers={"a": f"node-a:{a.port}"}) as b:
                async with b.client(greet=False) as peer:
                    await greet_as_peer(peer)
                    assert (await peer.frame()).a == codes.TRY_AGAIN
                assert b.peers.datagram_address("a") is None
                known["node-a"] = "127.0.0.1"
                async with b.client(greet=False) as peer:
                    await greet_as_peer(peer)
                    await b.node.told(PeerConnected)
                assert b.peers.datagram_address("a") == ("127.0.0.1", a.port)


async def test_a_node_that_is_not_among_the_peers_is_refused_and_the_operator_informed(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, node_id="b", peers={"a": "127.0.0.1:1"}) as b, b.client(greet=False) as peer:
        await greet_as_peer(peer, "z")
        refusal = await peer.frame()
        assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.ACCESS)
        assert b"not among the peers of node 'b'" in refusal.body
        assert await peer.closed()
        assert "PeerConnected" not in b.node.kinds()
        assert (await b.node.told(PeerTrouble)).node_id == "z"


async def test_a_peer_that_this_node_dials_learns_that(tmp_path: Path) -> None:
    """It waited a second in vain, and asks why. A link that only this end believes in is made anew."""
    async with (
        at_address("b") as b,
        running(tmp_path, node_id="a", peers={"b": f"127.0.0.1:{b.port}"}) as a,
    ):
        await a.node.told(PeerConnected)
        await asyncio.sleep(2 * STABLE_LINK_NS / 1e9)  # It takes that long until a link counts as steady.
        async with a.client(greet=False) as waiting:
            await greet_as_peer(waiting, "b")
            refusal = await waiting.frame()
            assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.BAD_OPERATION)
        await a.node.told(PeerLost)
        await a.node.told(PeerConnected, 2)


async def test_a_node_that_no_peer_dials_asks_why_and_learns_of_the_other_daemon(tmp_path: Path) -> None:
    """The second daemon with node id b: a dials b, and never this one."""
    at_a, at_b = (f"127.0.0.1:{free_port()}" for _ in "ab")
    async with (
        running(tmp_path, node_id="a", peers={"b": at_b}, listen=at_a) as a,
        running(tmp_path, node_id="b", peers={"a": at_a}, listen=at_b),
    ):
        await a.node.told(PeerConnected)
        other = tmp_path / "other"
        async with running(other, node_id="b", peers={"a": at_a}) as second:
            trouble = await second.node.told(PeerTrouble)
            assert (trouble.node_id, trouble.code) == ("a", codes.EXIST)
            assert "PeerConnected" not in second.node.kinds()
        assert "PeerLost" not in a.node.kinds()


async def test_a_peer_of_an_earlier_incarnation_learns_which_later_one_is_known(tmp_path: Path) -> None:
    at_a, at_b = (f"127.0.0.1:{free_port()}" for _ in "ab")
    async with (
        running(tmp_path, node_id="b", peers={"a": at_a}, listen=at_b) as b,
        running(tmp_path, node_id="a", peers={"b": at_b}, listen=at_a) as a,
    ):
        await b.node.told(PeerConnected)
        b.node.on[WallClockRead] = lambda event: [RefusePeer("a", 2**62)]
        b.driver.handle(WallClockRead(0))
        assert await a.node.told(Outranked) == Outranked("b", 2**62)
        await b.node.told(PeerLost)
        await b.node.told(PeerConnected, 2)


async def test_a_node_that_begins_again_does_so_above_the_start_that_is_known(tmp_path: Path) -> None:
    with pytest.raises(BegunAgain) as begun:
        async with running(tmp_path) as a:
            first = a.node.start[1]
            a.node.on[WallClockRead] = lambda event: [BeginAgain(2**62)]
            a.driver.handle(WallClockRead(0))
    assert first < 2**62 == begun.value.incarnation
    incarnations = set()
    for name in ("state-a", "state-b", "state-c"):
        state = StateDirectory(tmp_path / name, "ckptd", "a", later_than=begun.value.incarnation)
        incarnations.add(state.incarnation)
        state.close()
    assert min(incarnations) > 2**62
    assert len(incarnations) == 3, "a start that lost its state directory got the incarnation of another"


@pytest.mark.parametrize("length", [3, 2**32 - 1])
async def test_a_peer_that_sends_garbage_is_cut_off_and_may_come_again(tmp_path: Path, length: int) -> None:
    async with waiting_for_a(tmp_path) as (b, _):
        async with b.client(greet=False) as peer:
            await link_as_peer(peer)
            peer.send(HEADER.pack(length, Kind.ACK, 0, 0, 0))
            assert await peer.closed()
            await b.node.told(PeerLost)
            assert b.daemon.counters.garbage_streams == 1
        async with b.client(greet=False) as peer:
            await greet_as_peer(peer)
            await b.node.told(PeerConnected, 2)


async def test_a_peer_with_a_wrong_key_never_connects(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, b"secret", node_id="b", peers={"a": "127.0.0.1:1"}) as b:
        async with b.client(greet=False) as peer:
            peer.send(Opener(Identity("ckptd", b"wrong", "a", 5), ROLE_PEER, NONCE).hello())
            await peer.frame()
            peer.send(encode_frame(Kind.PROOF, 0, 0, 0, bytes(32)))
            assert (await peer.frame()).kind == Kind.REFUSED
        assert "PeerConnected" not in b.node.kinds()
        assert "key is missing or wrong" in caplog.text


async def test_a_peer_that_does_not_read_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    async with (
        waiting_for_a(tmp_path, peer_buffer_bytes_max=1024 * 1024) as (b, _),
        b.client(greet=False) as peer,
    ):
        await greet_as_peer(peer)
        peer.writer.transport.pause_reading()
        await b.node.told(PeerConnected)
        b.node.on[WallClockRead] = lambda event: [SendPeer("a", bytes(32 * 1024 * 1024))]
        b.driver.handle(WallClockRead(0))
        await b.node.told(PeerLost)


async def test_what_waits_for_a_peer_is_a_limit_that_is_shown(tmp_path: Path) -> None:
    async with (
        waiting_for_a(tmp_path, peer_buffer_bytes_max=64 * 1024 * 1024) as (b, _),
        b.client(greet=False) as peer,
    ):
        await greet_as_peer(peer)
        peer.writer.transport.pause_reading()
        await b.node.told(PeerConnected)
        assert b.node.transport.limits()["peer_buffer_bytes"] == (0, 64 * 1024 * 1024)
        b.node.on[WallClockRead] = lambda event: [SendPeer("a", bytes(32 * 1024 * 1024))]
        b.driver.handle(WallClockRead(0))
        unsent, most = b.node.transport.limits()["peer_buffer_bytes"]
        assert 16 * 1024 * 1024 < unsent <= most // 2


async def test_a_dialler_says_what_is_wrong_and_keeps_trying(tmp_path: Path, lines: Lines) -> None:
    port = free_port()
    at_a = f"127.0.0.1:{free_port()}"
    async with running(tmp_path, peers={"b": f"127.0.0.1:{port}"}, listen=at_a) as a:
        await a.node.told(PeerRefused)
        async with running(tmp_path, node_id="b", cluster="other", peers={}, listen=f"127.0.0.1:{port}"):
            await lines.said("cluster 'other', not 'ckptd'")
        async with running(
            tmp_path,
            node_id="b",
            state_dir=tmp_path / "2",
            peers={"a": at_a},
            listen=f"127.0.0.1:{port}",
        ):
            await a.node.told(PeerConnected)


async def test_a_dialler_that_reaches_another_node_does_not_take_it_for_its_peer(
    tmp_path: Path, lines: Lines
) -> None:
    async with (
        running(tmp_path, node_id="c", peers={"a": "127.0.0.1:1"}) as c,
        running(tmp_path, node_id="a", peers={"b": f"127.0.0.1:{c.port}"}) as a,
    ):
        await lines.said("is node 'c', not 'b'")
        assert "PeerConnected" not in a.node.kinds()


async def test_a_link_is_silent_once_the_daemon_stops_and_its_listener_closes_last(tmp_path: Path) -> None:
    """A refused connection proves a process dead, so no request may be answered after one could be seen."""
    port = free_port()
    async with (
        waiting_for_a(tmp_path, listen=f"127.0.0.1:{port}") as (b, _),
        b.client(greet=False) as peer,
    ):
        await link_as_peer(peer)
        await b.node.told(PeerConnected)
        b.daemon.stop()
        assert await peer.closed()
        said = len(b.node.events)
    assert len(b.node.events) == said
    with pytest.raises(ConnectionRefusedError):
        await connect_stream(("127.0.0.1", port), socket.AF_INET)
