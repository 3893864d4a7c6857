"""A core that only records its events, and a client that sends raw frames."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.handshake import (
    ROLE_CLIENT,
    ROLE_PEER,
    Acceptor,
    HandshakeRejected,
    Identity,
    Opener,
    PeerIdentity,
)
from ckpt_protocol.messages import Kind, answer_ok, encode_answer
from ckptd.core.events import (
    ClientReceived,
    Effect,
    Event,
    Leave,
    LeaveAsked,
    SendClient,
    TakeLarge,
    TimeCame,
)
from ckptd.core.hub import Transport
from ckptd.core.settings import Settings
from ckptd.runtime.clients.clients import Clients
from ckptd.runtime.clients.udp_clients import UdpClients
from ckptd.runtime.config.model import Config
from ckptd.runtime.daemon import Daemon
from ckptd.runtime.driver import Driver
from ckptd.runtime.event_log_writer import EventLogWriter
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.node_assembly import NodeAssembly
from ckptd.runtime.peers.peers import Peers
from ckptd.runtime.resources import Resources
from ckptd.testing import HeldPort

NEVER_NS = 2**63
NONCE = b"n" * 16
Kept = TypeVar("Kept")


class FakeNode:
    """Keeps every event. Answers PING and ATTACH, and does what `on` says for one type of event."""

    def __init__(self, *start: Any) -> None:
        self.settings: Settings | None = start[0] if start else None
        self.start = start
        self.transport: Transport = start[5] if start else Transport()
        self.deadline_ns = NEVER_NS
        self.turn_due = False
        self.events: list[Event] = []
        self.said_last: list[Effect] = []
        self.on: dict[type[Any], Callable[[Any], list[Effect]]] = {LeaveAsked: lambda event: [Leave()]}
        self._told = asyncio.Event()

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        self.events.append(event)
        self._told.set()
        if isinstance(event, TimeCame):
            self.deadline_ns = NEVER_NS
        react = self.on.get(type(event))
        if react is not None:
            return react(event)
        if isinstance(event, ClientReceived):
            attached: list[Effect] = [TakeLarge(event.link) for f in event.frames if f.kind == Kind.ATTACH]
            return attached + [
                SendClient(event.link, encode_answer(frame.a, 1, 0, answer_ok()))
                for frame in event.frames
                if frame.kind in (Kind.PING, Kind.ATTACH)
            ]
        return []

    def last_words(self, now_ns: int) -> list[Effect]:
        return self.said_last

    async def told(self, kind: type[Kept], count: int = 1) -> Kept:
        """Return the `count`-th event of a kind, as soon as it has come."""
        while True:
            found = [event for event in self.events if isinstance(event, kind)]
            if len(found) >= count:
                return found[count - 1]
            self._told.clear()
            await self._told.wait()

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class RawClient:
    """A stream on which a test can send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []

    async def frame(self) -> Frame:
        """Return the next frame. Raises: EOFError if the daemon closed the connection."""
        while not self._frames:
            try:
                chunk = await self.reader.read(65536)
            except ConnectionError:
                chunk = b""
            if not chunk:
                raise EOFError
            self._frames += self._decoder.feed(chunk)
        return self._frames.pop(0)

    async def closed(self) -> bool:
        """Return True if the daemon closes the connection without sending more (else fail or time out)."""
        with contextlib.suppress(EOFError):
            raise AssertionError(f"a frame came: {await self.frame()}")
        return True

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def greet(self, identity: Identity, role: int = ROLE_CLIENT, behind: bytes = b"") -> PeerIdentity:
        """Make the handshake; `behind` is sent in one piece with its last frame."""
        opener = Opener(identity, role, NONCE)
        self.send(opener.hello())
        peer, proof = opener.receive(await self.frame())
        self.send(proof + behind)
        return peer

    async def attach(self) -> None:
        """Attach a session, so that the daemon accepts large frames from now on."""
        self.send(encode_frame(Kind.ATTACH, 1, 5, 1, b"\x91\xc3"))
        assert (await self.frame()).a == 1

    async def ping(self, request: int = 1) -> Frame:
        self.send(ping(request))
        return await self.frame()


def ping(request: int, body: bytes = b"\x90") -> bytes:
    return encode_frame(Kind.PING, request, 0, request, body)


class AtAddress:
    """What answers at a peer's address: this incarnation of `node_id`; it opened the handshakes `opened`."""

    def __init__(self, node_id: str, incarnation: int, key: bytes) -> None:
        self.node_id = node_id
        self.incarnation = incarnation
        self.key = key
        self.opened: list[bytes] = [NONCE]
        self.port = 0
        self.asked = 0
        self.close: Callable[[], None] = lambda: None
        """Stop listening."""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        identity = Identity("ckptd", self.key, self.node_id, self.incarnation)
        acceptor, frames = Acceptor(identity, bytes(16), self.opened), FrameDecoder()
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                for frame in frames.feed(chunk):
                    self.asked += 1
                    try:
                        writer.write(acceptor.receive(frame))
                        if acceptor.peer is not None and acceptor.peer.role == ROLE_PEER:
                            writer.write(encode_frame(Kind.TAKEN, 0, 0, 0))
                    except HandshakeRejected as error:
                        writer.write(error.frame())
        writer.close()


@contextlib.asynccontextmanager
async def at_address(node_id: str = "a", incarnation: int = 5, key: bytes = b"") -> AsyncIterator[AtAddress]:
    """Run a listener that answers as a peer does when it is asked back."""
    peer = AtAddress(node_id, incarnation, key)
    server = await asyncio.start_server(peer.answer, "127.0.0.1", 0)
    peer.port, peer.close = server.sockets[0].getsockname()[1], server.close
    try:
        yield peer
    finally:
        server.close()


class OpenDaemon(Daemon):
    """A daemon whose parts, and what it has opened, a test can see."""

    assembly: NodeAssembly
    resources: Resources

    def _assemble(
        self, identity: Identity, resources: Resources, event_log: EventLogWriter | None
    ) -> NodeAssembly:
        self.assembly = super()._assemble(identity, resources, event_log)
        self.resources = resources
        return self.assembly


class Running:
    """A daemon with a fake core, in this process."""

    def __init__(self, daemon: OpenDaemon, nodes: list[FakeNode]) -> None:
        self.daemon = daemon
        self._nodes = nodes

    @property
    def driver(self) -> Driver:
        return self.daemon.assembly.driver

    @property
    def clients(self) -> Clients:
        return self.daemon.assembly.clients

    @property
    def udp_clients(self) -> UdpClients:
        return self.daemon.assembly.udp_clients

    @property
    def peers(self) -> Peers:
        return self.daemon.assembly.peers

    @property
    def state(self) -> StateDirectory:
        return self.daemon.resources.state

    @property
    def node(self) -> FakeNode:
        return self._nodes[0]

    @property
    def port(self) -> int:
        return int(self.daemon.addresses[0].rpartition(":")[2])

    @property
    def identity(self) -> Identity:
        return Identity(self.daemon.config.cluster, self.daemon._key)

    @contextlib.asynccontextmanager
    async def client(self, greet: bool = True) -> AsyncIterator[RawClient]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        client = RawClient(reader, writer)
        try:
            if greet:
                await client.greet(self.identity)
            yield client
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def running(directory: Path, key: bytes = b"", **settings: Any) -> AsyncIterator[Running]:
    """Run a daemon on a free port until the block ends."""
    node_id = settings.setdefault("node_id", "a")
    settings.setdefault("listen", "127.0.0.1:0")
    settings.setdefault("socket", "none")
    settings.setdefault("state_dir", directory / f"state-{node_id}")
    nodes: list[FakeNode] = []

    def make_core(*start: Any) -> Any:
        nodes.append(FakeNode(*start))
        return nodes[-1]

    daemon = OpenDaemon(Config(**settings), key, make_core)
    run = asyncio.create_task(daemon.run())
    started = asyncio.create_task(daemon.started.wait())
    await asyncio.wait((run, started), return_when=asyncio.FIRST_COMPLETED)
    try:
        if run.done():
            await run
        yield Running(daemon, nodes)
    finally:
        started.cancel()
        daemon.stop()
        await asyncio.wait((run,))
    await run


_held: list[HeldPort] = []


def free_port() -> int:
    """Return a port that is free for TCP and UDP, and that no other test gets while this process runs."""
    _held.append(HeldPort())
    return _held[-1].number
