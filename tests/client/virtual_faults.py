"""Real cores in virtual time, the real client library, and connections between them that can be cut.

Blocking clients get sockets on which a wait lets virtual time pass. Clients with asyncio run on a virtual
loop.
"""

import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.conformance.virtual_cluster import ClientConnection, ClientsCluster
from tests.conformance.virtual_loop import VirtualLoop, VirtualRunner, client_process
from tests.conformance.virtual_world import CountedSecrets, VirtualTime
from tests.core.network import DELAY_NS

from ckpt_client.checkpoint import table_driver
from ckpt_client.io import aio_connection, aio_links, blocking_connection, time_limit
from ckpt_client.session.address import Address
from ckpt_protocol import codes
from ckpt_protocol.framing import HEADER, LENGTH_BYTES, decode_datagram
from ckpt_protocol.handshake import HandshakeRejected
from ckpt_protocol.messages import Kind

BUFFER_BYTES = 200_000
"""How many bytes a socket buffers for a node that reads nothing."""

SECOND_NS = 1_000_000_000


class FaultyCluster(ClientsCluster):
    """Nodes that clients cannot reach, in one direction or both, or that answer garbage."""

    def __init__(self, node_ids: str, **settings: Any) -> None:
        super().__init__(node_ids, **settings)
        self.cut_to_node: set[str] = set()
        self.cut_to_client: set[str] = set()
        self.garbled: set[str] = set()

    def hangs(self, node_id: str) -> bool:
        """Return True if a connection to the node is neither made nor refused."""
        return not self.hosts[node_id].powered or node_id in self.cut_to_node | self.cut_to_client

    def takes_in(self, node_id: str) -> bool:
        """Return True if a node reads what a client sends."""
        return not self.hosts[node_id].paused and not self.hangs(node_id)

    def connect(
        self, node_id: str, process: str, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> Any:
        def pass_on(data: bytes) -> None:
            if node_id not in self.cut_to_client:
                garbled = bytes(byte ^ 0xA5 for byte in data) if node_id in self.garbled else data
                received(garbled)

        def tell() -> None:
            if node_id not in self.cut_to_client:
                lost()

        return FaultyConnection(self, super().connect(node_id, process, pass_on, tell))


class FaultyConnection:
    """The client's end of a connection: what it sends may get lost."""

    def __init__(self, cluster: FaultyCluster, connection: ClientConnection) -> None:
        self._cluster = cluster
        self._connection = connection

    def runs(self) -> bool:
        """Return True if the node's process is still the one to which the client connected."""
        return self._connection.runs

    def send(self, data: bytes) -> None:
        """Send bytes to the node."""
        if self._connection.node_id not in self._cluster.cut_to_node:
            self._connection.send(data)

    def close(self) -> None:
        """The client's end goes."""
        if self._connection.node_id in self._cluster.cut_to_node:
            self._connection.link.client_end_open = False
        else:
            self._connection.close()


class DatagramLink:
    """A UDP client's link to a node. Each incarnation of the node is another one, as with a daemon."""

    def __init__(
        self, cluster: FaultyCluster, node_id: str, process: str, received: Callable[[bytes], None]
    ) -> None:
        self._cluster, self._node_id, self._process = cluster, node_id, process
        self._received = received
        self._link: FaultyConnection | None = None
        self._open = True

    def send(self, frame: bytes) -> None:
        """Send one datagram to the node."""
        if self._node_id not in self._cluster.cut_to_node:
            self._cluster.after(DELAY_NS, lambda: self._arrive(frame))

    def _arrive(self, frame: bytes) -> None:
        if not self._cluster.hosts[self._node_id].running:
            return
        hello = decode_datagram(frame).kind == Kind.HELLO
        if self._link is not None and self._link.runs():
            if not hello:
                self._link.send(frame)
        elif hello:
            self._link = self._cluster.connect(self._node_id, self._process, self._split, lambda: None)
            self._link.send(frame)
        else:
            refused = HandshakeRejected(codes.BAD_HANDLE, "send HELLO first").frame()
            self._cluster.after(DELAY_NS, lambda: self._split(refused))

    def _split(self, data: bytes) -> None:
        """Pass bytes to the client, split into one datagram for each frame; leave garbage unchanged."""
        if self._node_id in self._cluster.cut_to_client or not self._open:
            return
        while len(data) >= LENGTH_BYTES and self._node_id not in self._cluster.garbled:
            end = LENGTH_BYTES + HEADER.unpack_from(data)[0]
            self._received(data[:end])
            data = data[end:]
        if data:
            self._received(data)

    def close(self) -> None:
        """The client's end goes."""
        self._open = False
        if self._link is not None:
            self._link.close()


class FaultyLoop(VirtualLoop):
    """A virtual loop with datagrams, and with connections that are never made."""

    cluster: FaultyCluster

    async def _connect(self, factory: Any, place: str) -> Any:
        if self.cluster.hangs(self.cluster.node_at(place)):
            await self.create_future()
        return await super()._connect(factory, place)

    async def create_datagram_endpoint(self, factory: Any, remote_addr: Any = None, **_: Any) -> Any:  # type: ignore[override]
        protocol = factory()
        transport = DatagramTransport()
        node_id = self.cluster.node_at(remote_addr[0])

        def received(data: bytes) -> None:
            self.call_soon(protocol.datagram_received, data, remote_addr)

        transport.link = DatagramLink(self.cluster, node_id, client_process.get(), received)
        protocol.connection_made(transport)
        return transport, protocol


class DatagramTransport(asyncio.DatagramTransport):
    """The client's end of a `DatagramLink`."""

    link: DatagramLink

    def sendto(self, data: Any, addr: Any = None) -> None:
        self.link.send(bytes(data))

    def close(self) -> None:
        self.link.close()

    def abort(self) -> None:
        self.close()


class VirtualSocket:
    """A connected socket that never blocks."""

    def __init__(self, cluster: FaultyCluster, node_id: str, datagram: bool) -> None:
        self.type = socket.SOCK_DGRAM if datagram else socket.SOCK_STREAM
        self._cluster, self._node_id = cluster, node_id
        self._datagrams: deque[bytes] = deque()
        self._stream = bytearray()
        self._lost = False
        self._held = 0
        self._link: Any
        if datagram:
            self._link = DatagramLink(cluster, node_id, "", self._datagrams.append)
        else:
            self._link = cluster.connect(node_id, "", self._stream.extend, self._lose)

    def _lose(self) -> None:
        self._lost = True

    @property
    def readable(self) -> bool:
        return bool(self._datagrams or self._stream or self._lost)

    @property
    def room(self) -> int:
        if self._cluster.takes_in(self._node_id):
            self._held = 0
        return BUFFER_BYTES - self._held

    @property
    def untaken(self) -> int:
        return BUFFER_BYTES - self.room

    def send(self, data: Any, flags: int = 0) -> int:
        taken = bytes(data) if self.type == socket.SOCK_DGRAM else bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self._held += len(taken)
        self._link.send(taken)
        return len(taken)

    def sendall(self, data: Any) -> None:
        self._link.send(bytes(data))

    def recv(self, count: int, flags: int = 0) -> bytes:
        if self._datagrams:
            return self._datagrams.popleft()
        if self._stream:
            taken = bytes(self._stream[:count])
            del self._stream[:count]
            return taken
        if self._lost:
            return b""
        raise BlockingIOError

    def recv_into(self, view: Any, count: int = 0, flags: int = 0) -> int:
        taken = self.recv(len(view))
        view[: len(taken)] = taken
        return len(taken)

    def shutdown(self, how: int) -> None:
        self._lost = True

    def close(self) -> None:
        self._link.close()


class FaultyWorld:
    """Nodes `a`, `b`, `c`, …, and what a client library needs to run in their time."""

    def __init__(self, patch: pytest.MonkeyPatch, node_ids: str = "abc") -> None:
        self.cluster = FaultyCluster(node_ids)
        self.cluster.start(*self.cluster.hosts)
        self.cluster.settle()
        self.loop = FaultyLoop(self.cluster)
        self.runner = VirtualRunner(self.loop)
        secrets = CountedSecrets()
        for module in (aio_connection, aio_links, blocking_connection):
            patch.setattr(module, "secrets", secrets)
        for module in (aio_connection, aio_links):
            patch.setattr(module, "_monotonic_ns", VirtualTime().monotonic_ns)
        for module in (blocking_connection, table_driver, time_limit):
            patch.setattr(module, "_monotonic_ns", lambda: self.cluster.now_ns)
        patch.setattr(blocking_connection, "connect_socket", self._connect)
        patch.setattr(blocking_connection, "untaken_bytes", lambda sock: sock.untaken)
        patch.setattr(blocking_connection, "time", SimpleNamespace(sleep=self.pass_time))
        polling = SimpleNamespace(poll=self._poll, POLLIN=select.POLLIN, POLLOUT=select.POLLOUT)
        patch.setattr(blocking_connection, "select", polling)

    def addresses(self, transport: str) -> list[str]:
        """Return the nodes' addresses for one transport, `a` first."""
        if transport == "unix":
            return [f"unix://{self.cluster.unix_path(node)}" for node in self.cluster.hosts]
        return [self.cluster.url(node).replace("tcp:", f"{transport}:") for node in self.cluster.hosts]

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the nodes, while no client's loop runs."""
        self.cluster.world.run_until(self.cluster.now_ns + int(seconds * SECOND_NS))

    def story(self) -> str:
        """What the cores logged."""
        return self.cluster.story()

    def _connect(self, address: Address, timeout_s: float) -> VirtualSocket:
        node_id = self.cluster.node_at(address.host)
        if self.cluster.hangs(node_id) and not address.datagram:
            self.pass_time(timeout_s)
            raise TimeoutError("no connection within the time limit")
        self.pass_time(DELAY_NS / SECOND_NS)
        return VirtualSocket(self.cluster, node_id, address.datagram)

    def _poll(self) -> "VirtualPoll":
        return VirtualPoll(self.cluster)

    def close(self) -> None:
        """End everything that still runs."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.runner.run(_ended(tasks))
        self.loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


class VirtualPoll:
    """A poll that lets virtual time pass while it waits for a socket."""

    def __init__(self, cluster: FaultyCluster) -> None:
        self._cluster = cluster
        self._watched: list[tuple[VirtualSocket, int]] = []

    def register(self, sock: VirtualSocket, what: int) -> None:
        self._watched.append((sock, what))

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        if not self._ready():
            world = self._cluster.world
            world.run_until(world.now_ns + int(milliseconds * 1_000_000), lambda: bool(self._ready()))
        return self._ready()

    def _ready(self) -> list[tuple[int, int]]:
        for sock, what in self._watched:
            if (what & select.POLLIN and sock.readable) or (what & select.POLLOUT and sock.room > 0):
                return [(0, what)]
        return []
