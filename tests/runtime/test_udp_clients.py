"""Clients over UDP: an address that greeted is a link; datagrams come twice, late, or from anybody."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from tests.runtime.fakes import NONCE, Running, at_address, ping, running

from ckpt_protocol import codes
from ckpt_protocol.framing import Frame, decode_datagram, encode_frame
from ckpt_protocol.handshake import (
    ROLE_CLIENT,
    ROLE_PEER,
    HandshakeRejected,
    Identity,
    Opener,
    parse_refused,
    sign,
)
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckptd.core.events import (
    ClientLost,
    ClientReceived,
    CloseClient,
    HeartbeatReceived,
    PeerConnected,
    SendClient,
)
from ckptd.runtime.clients import udp_clients as udp_module
from ckptd.runtime.net.datagram_lanes import SOURCE_PER_S, UNAUTHENTICATED_PER_S


class UdpClient:
    """A connected UDP socket that a test speaks frames on."""

    def __init__(self, a: Running) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(("127.0.0.1", a.port))

    def __enter__(self) -> "UdpClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, datagram: bytes) -> None:
        self.socket.send(datagram)

    async def frame(self) -> Frame:
        return decode_datagram(await asyncio.get_running_loop().sock_recv(self.socket, 65536))

    async def greet(self, identity: Identity, nonce: bytes = NONCE) -> None:
        opener = Opener(identity, ROLE_CLIENT, nonce)
        self.send(opener.hello(datagram=True))
        _, proof = opener.receive(await self.frame())
        if proof:
            self.send(proof)

    async def ping(self, request: int = 1) -> Frame:
        self.send(ping(request))
        return await self.frame()


@pytest.mark.parametrize("key", [b"", b"secret"])
async def test_requests_are_answered_after_the_first_exchange(tmp_path: Path, key: bytes) -> None:
    async with running(tmp_path, key=key) as a:
        with UdpClient(a) as client:
            await client.greet(a.identity)
            assert (await client.ping(4)).a == 4


async def test_a_request_from_an_unknown_address_is_answered_with_send_hello_first(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            refusal = await client.ping()
            assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.TRY_AGAIN)
            await client.greet(a.identity)
            assert (await client.ping(2)).kind == Kind.ANSWER


async def test_a_repeated_hello_keeps_the_link(tmp_path: Path) -> None:
    """A network may deliver a datagram twice; the second must not end the session's link."""
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            hello = Opener(a.identity, ROLE_CLIENT, NONCE).hello(datagram=True)
            client.send(hello)
            first = await client.frame()
            client.send(hello)
            assert await client.frame() == first
            assert (await client.ping()).kind == Kind.ANSWER
            assert a.node.kinds().count("ClientConnected") == 1


async def test_a_new_hello_from_the_same_address_is_a_new_link(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            await client.greet(a.identity, b"1" * 16)
            await client.greet(a.identity, b"2" * 16)
            assert (await client.ping()).kind == Kind.ANSWER
            assert a.node.kinds()[1:] == [
                "ClientConnected",
                "ClientLost",
                "ClientConnected",
                "ClientReceived",
            ]


async def test_a_hello_without_proof_leaves_the_old_link_alone(tmp_path: Path) -> None:
    """Anybody can forge a HELLO from a client's address; only the key's holder takes the link over."""
    async with running(tmp_path, key=b"secret") as a:
        with UdpClient(a) as client:
            await client.greet(a.identity, b"1" * 16)
            client.send(Opener(a.identity, ROLE_CLIENT, b"2" * 16).hello(datagram=True))
            await client.frame()
            assert (await client.ping()).kind == Kind.ANSWER
            client.send(encode_frame(Kind.PROOF, 0, 0, 0, bytes(32)))
            assert (await client.frame()).kind == Kind.REFUSED
            assert (await client.ping()).kind == Kind.ANSWER
            assert "ClientLost" not in a.node.kinds()


@pytest.mark.parametrize("padded", [True, False])
async def test_nothing_longer_than_what_came_goes_to_an_address_that_proved_nothing(
    tmp_path: Path, padded: bool
) -> None:
    """WELCOME was up to 2.7 times as long as HELLO, and the address may be forged."""
    async with running(tmp_path, advertise="a-host-with-a-long-name.example.org:7301") as a:
        with UdpClient(a) as client:
            hello = Opener(a.identity, ROLE_CLIENT, NONCE).hello(datagram=padded)
            client.send(hello)
            answer = await client.frame()
            assert answer.kind == (Kind.WELCOME if padded else Kind.REFUSED)
            assert len(encode_frame(*answer)) <= len(hello)
            assert padded or answer.a == codes.INVALID_PARAM


@pytest.mark.parametrize("kind", [Kind.PING, Kind.ATTACH, Kind.READ])
@pytest.mark.parametrize("body", [b"", bytes(1), bytes(12), bytes(400)], ids=len)
async def test_a_refusal_is_no_longer_than_the_request(tmp_path: Path, kind: int, body: bytes) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            request = encode_frame(kind, 1, 0, 1, body)
            client.send(request)
            refusal = await client.frame()
            assert (refusal.kind, refusal.a) == (Kind.REFUSED, codes.TRY_AGAIN)
            assert len(encode_frame(*refusal)) <= len(request)
            assert parse_refused(refusal).text


async def test_a_flood_from_unknown_addresses_is_dropped_unread_and_delays_no_heartbeat(
    tmp_path: Path,
) -> None:
    """Heartbeats shared one queue with them, and were dropped with them: the view changed twice."""
    async with (
        at_address("b", 5) as b,
        running(tmp_path, peers={"b": f"127.0.0.1:{b.port}"}) as a,
        contextlib.AsyncExitStack() as sockets,
    ):
        await a.node.told(PeerConnected)
        peer = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        peer.bind(("127.0.0.1", b.port))
        flood = sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for number in range(40):
            for _ in range(100):
                flood.sendto(b"x" * 40, ("127.0.0.1", a.port))
            peer.sendto(encode_frame(Kind.HEARTBEAT, number, 0, 0, b""), ("127.0.0.1", a.port))
            await asyncio.sleep(0)
        await a.node.told(HeartbeatReceived, 40)
        counters = a.daemon.counters
        while not counters.strangers_dropped:
            await asyncio.sleep(0.001)
        assert counters.garbage_datagrams <= SOURCE_PER_S + UNAUTHENTICATED_PER_S


async def test_a_wrong_cluster_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client, pytest.raises(HandshakeRejected):
            await client.greet(Identity("other"))


async def test_a_peer_cannot_come_over_udp(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            opener = Opener(Identity("ckptd", node_id="b", incarnation=1), ROLE_PEER, NONCE)
            client.send(opener.hello(datagram=True))
            assert (await client.frame()).kind == Kind.REFUSED


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"x",
        ping(1)[:-1],
        ping(1) + b"x",
        bytes(60000),
        encode_frame(Kind.ANSWER, 1, 1, 1),
        encode_frame(200, 1, 1, 1),
    ],
    ids=["empty", "short", "truncated", "long", "zeros", "answer", "unknown"],
)
async def test_garbage_is_dropped_without_an_answer_and_harms_no_link(tmp_path: Path, garbage: bytes) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client, UdpClient(a) as other:
            await client.greet(a.identity)
            for sender in (client, other):
                sender.send(garbage)
            # Had the garbage been answered, that answer would come first.
            assert (await client.ping(3)).a == 3
            assert (await other.ping(4)).kind == Kind.REFUSED
            assert a.daemon.counters.garbage_datagrams == 2


async def test_an_answer_that_does_not_fit_says_to_use_tcp(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            await client.greet(a.identity)
            a.node.on[ClientReceived] = lambda event: [
                SendClient(event.link, encode_frame(Kind.ANSWER, 8, 3, 2, bytes(70_000)) + ping(9))
            ]
            client.send(ping(8))
            refusal = await client.frame()
            assert refusal[:4] == (Kind.ANSWER, 8, 3, 2)
            code, _, _, text = decode_answer(refusal.body)
            assert code == codes.TOO_BIG
            assert "use TCP" in text
            assert (await client.frame()).a == 9


async def test_a_link_that_the_core_closes_must_send_hello_again(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            await client.greet(a.identity)
            a.node.on[ClientReceived] = lambda event: [CloseClient(event.link, "it breaks the protocol")]
            client.send(ping(1))
            await a.node.told(ClientLost)
            assert (await client.ping()).kind == Kind.REFUSED


async def test_a_silent_link_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_module, "IDLE_NS", -1)
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            await client.greet(a.identity)
            a.udp_clients.drop_idle()
            assert a.node.kinds()[-1] == "ClientLost"


@pytest.mark.parametrize("key", [b"", b"secret"])
async def test_heartbeats_of_a_node_that_was_not_met_are_reported_as_such(tmp_path: Path, key: bytes) -> None:
    async with running(tmp_path, key=key) as a:
        with UdpClient(a) as peer:
            peer.send(sign(key, encode_frame(Kind.HEARTBEAT, 5, 6, 7, b"body")))
            frame = Frame(Kind.HEARTBEAT, 5, 6, 7, b"body")
            assert await a.node.told(HeartbeatReceived) == HeartbeatReceived(frame, authentic=False)


@pytest.mark.parametrize("key", [b"", b"wrong"])
async def test_forged_heartbeats_do_not(tmp_path: Path, key: bytes) -> None:
    async with running(tmp_path, key=b"secret") as a:
        with UdpClient(a) as peer:
            peer.send(sign(key, encode_frame(Kind.HEARTBEAT, 5, 6, 7, b"body")))
            peer.send(encode_frame(Kind.HEARTBEAT, 5, 6, 7)[:10])
            peer.send(sign(b"secret", encode_frame(Kind.HEARTBEAT, 9, 6, 7)))
            assert (await a.node.told(HeartbeatReceived)).frame.a == 9
            assert a.daemon.counters.garbage_datagrams == 2


async def test_what_a_client_sends_while_its_lane_is_full_is_dropped_and_counted(tmp_path: Path) -> None:
    """Nobody can tell a sender of datagrams to wait: it asks again, as for one that was lost."""
    async with running(tmp_path) as a:
        with UdpClient(a) as client:
            await client.greet(a.identity)
            await client.ping(1)
            (link,) = a.driver.clients.values()
            link.stop_reading()
            client.send(ping(2))
            while not a.daemon.counters.datagrams_dropped:
                await asyncio.sleep(0)
            link.resume_reading()
            assert (await client.ping(3)).a == 3
