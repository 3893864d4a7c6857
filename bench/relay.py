"""Relays between clients and nodes. They can cut either direction, or send garbage to the clients.

There is a relay in front of each node. It listens at one port for TCP and UDP, and at a unix socket. It
connects to the node by the client's own transport, so that each transport is measured as it is. On a cut
direction nothing moves, as with a pulled cable: the relay reads nothing and refuses nothing.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ckptd.testing import HeldPort, LocalCluster

PIECE_BYTES: Final = 65536
START_SECONDS: Final = 10.0


class Way:
    """The traffic between clients and one node. All methods run in the relays' own thread."""

    def __init__(self) -> None:
        self.to_node = asyncio.Event()
        self.to_client = asyncio.Event()
        self.garbage = False
        self.passed_bytes = 0
        self.heal()

    def heal(self) -> None:
        """Let everything pass."""
        self.to_node.set()
        self.to_client.set()
        self.garbage = False

    def cut(self, to_node: bool, to_client: bool) -> None:
        """Let nothing pass in these directions."""
        for direction, is_cut in ((self.to_node, to_node), (self.to_client, to_client)):
            if is_cut:
                direction.clear()

    def from_node(self, data: bytes) -> bytes:
        """Return what a client gets instead of these bytes."""
        return os.urandom(len(data)) if self.garbage else data


class _ToNode(asyncio.DatagramProtocol):
    """The way back to one UDP client."""

    def __init__(self, way: Way, listener: asyncio.DatagramTransport, client: Any) -> None:
        self._way, self._listener, self._client = way, listener, client

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._way.to_client.is_set():
            self._listener.sendto(self._way.from_node(data), self._client)

    def error_received(self, exc: Exception) -> None:
        pass


class _Datagrams(asyncio.DatagramProtocol):
    """The relay's UDP port. If no node listens behind it, it reports nothing, as a machine that is off."""

    def __init__(self, way: Way, node: tuple[str, int]) -> None:
        self._way, self._node = way, node
        self._clients: dict[Any, asyncio.Future[Any]] = {}
        self._listener: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self._listener = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if not self._way.to_node.is_set():
            return
        future = self._clients.get(addr)
        if future is None:
            loop = asyncio.get_running_loop()
            made = loop.create_datagram_endpoint(
                lambda: _ToNode(self._way, self._listener, addr), remote_addr=self._node
            )
            future = self._clients[addr] = loop.create_task(made)
        future.add_done_callback(lambda ended: ended.result()[0].sendto(data))


class Relays:
    """A relay in front of each node of a cluster, on a loop in its own thread."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relays", daemon=True)
        self._links: dict[str, set[asyncio.Task[None]]] = {}
        self._ports = {node: HeldPort() for node in cluster.node_ids}
        self.ways: dict[str, Way] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_SECONDS)

    def addresses(self, scheme: str) -> str:
        """Return the addresses that clients use, for one transport."""
        if scheme == "unix":
            return ",".join(f"unix://{self._path(node)}" for node in self._ports)
        return ",".join(f"{scheme}://127.0.0.1:{port.number}" for port in self._ports.values())

    def _path(self, node: str) -> Path:
        return self._cluster.directory / f"{node}.relay"

    def cut(self, node: str, to_node: bool, to_client: bool) -> None:
        """Cut the way to a node in these directions."""
        self._loop.call_soon_threadsafe(self.ways[node].cut, to_node, to_client)

    def garble(self, node: str) -> None:
        """Replace everything that a node sends by garbage."""
        self._loop.call_soon_threadsafe(setattr, self.ways[node], "garbage", True)

    def heal(self, node: str) -> None:
        """Drop the links of a node; new ones work."""

        async def heal() -> None:
            for task in list(self._links[node]):
                task.cancel()
            self.ways[node].heal()

        self._run(heal())

    # -- on the loop

    async def _listen(self) -> None:
        for node, port in self._ports.items():
            way = self.ways[node] = Way()
            self._links[node] = set()
            host, _, node_port = self._cluster.listens_at(node).rpartition(":")
            where = host, int(node_port)

            def by_tcp(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                node: str = node,
                where: tuple[str, int] = where,
            ) -> None:
                self._begin(node, reader, writer, asyncio.open_connection(*where))

            def by_unix(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, node: str = node) -> None:
                path = str(self._cluster.socket_path(node))
                self._begin(node, reader, writer, asyncio.open_unix_connection(path))

            await asyncio.start_server(by_tcp, "127.0.0.1", port.number)
            await asyncio.start_unix_server(by_unix, str(self._path(node)))
            await self._loop.create_datagram_endpoint(
                lambda way=way, where=where: _Datagrams(way, where),  # type: ignore[misc]
                local_addr=("127.0.0.1", port.number),
            )

    def _begin(self, node: str, reader: Any, writer: Any, to_node: Any) -> None:
        task = self._loop.create_task(self._relay(self.ways[node], reader, writer, to_node))
        self._links[node].add(task)
        task.add_done_callback(self._links[node].discard)

    async def _relay(self, way: Way, reader: Any, writer: Any, to_node: Any) -> None:
        """Relay one stream, until either end is closed."""
        ends = [writer]
        pumps: list[asyncio.Task[None]] = []
        try:
            node_reader, node_writer = await to_node
            ends.append(node_writer)
            pumps.append(self._loop.create_task(self._pump(way.to_node, reader, node_writer, way, False)))
            pumps.append(self._loop.create_task(self._pump(way.to_client, node_reader, writer, way, True)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.transport.abort()

    async def _pump(self, passes: asyncio.Event, reader: Any, writer: Any, way: Way, back: bool) -> None:
        writer.transport.set_write_buffer_limits(PIECE_BYTES)
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE_BYTES):
                await passes.wait()
                writer.write(way.from_node(data) if back else data)
                way.passed_bytes += 0 if back else len(data)
                await writer.drain()
            await passes.wait()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
