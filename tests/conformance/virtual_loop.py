"""An asyncio loop in virtual time, and the runner that drives it in the calling thread.

Nothing here sleeps: when the loop would wait, the cluster handles its next event, and time jumps there.
"""

import asyncio
import contextvars
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.conformance.virtual_cluster import ClientConnection, ClientsCluster
from tests.core.network import DELAY_NS

Result = TypeVar("Result")

SECOND_NS = 1_000_000_000
PATIENCE_NS = 60 * SECOND_NS
"""The longest that one call may take in virtual time. Heartbeats never end, so there is always another event.
"""


POLL_S = 0.001


client_process = contextvars.ContextVar("client_process", default="")
"""The client's process to which the running code belongs."""


class Stuck(AssertionError):
    """The event that the test waits for does not come."""


class VirtualTransport(asyncio.Transport):
    """The client's end of a connection."""

    def __init__(self, loop: "VirtualLoop", protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = loop
        self._protocol: Any = protocol
        self._closing = False
        self._context = contextvars.copy_context()
        self.connection: ClientConnection | None = None

    def _call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        self._loop.call_soon(callback, *arguments, context=self._context)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.connection is not None and not self._closing:
            self.connection.send(bytes(data))

    def received(self, data: bytes) -> None:
        """Take bytes from the node."""
        if not self._closing:
            self._call_soon(self._protocol.data_received, data)

    def lost(self) -> None:
        """Note that the node's end is gone."""
        if not self._closing:
            self._closing = True
            self._call_soon(self._protocol.connection_lost, None)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if self.connection is not None:
                self.connection.close()
            self._call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0


class _Selector:
    """A selector that lets virtual time pass when its loop waits."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._loop.let_time_pass(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop whose time is the cluster's, and whose connections lead there."""

    def __init__(self, cluster: ClientsCluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.until_ns = PATIENCE_NS
        self._selector = _Selector(self)

    def time(self) -> float:
        return self.cluster.now_ns / SECOND_NS

    def let_time_pass(self, seconds: float | None) -> None:
        """Let the cluster run until it has something for us, or our next timer is due."""
        cluster = self.cluster
        end_ns = self.until_ns
        if seconds is not None:
            end_ns = min(end_ns, cluster.now_ns + math.ceil(seconds * SECOND_NS))
        if not self._ready:  # type: ignore[attr-defined]
            cluster.world.run_until(end_ns, lambda: bool(self._ready))  # type: ignore[attr-defined]
        if cluster.now_ns >= self.until_ns:
            said = "\n".join(cluster.lines[-20:])
            raise Stuck(
                f"nothing came in {PATIENCE_NS // SECOND_NS} s of virtual time; the cores said:\n{said}"
            )

    # -- connections

    async def create_unix_connection(self, factory: Any, path: Any = None, **_: Any) -> Any:  # type: ignore[override]
        return await self._connect(factory, path)

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:  # type: ignore[override]
        return await self._connect(factory, host)

    async def _connect(self, factory: Any, place: str) -> Any:
        cluster, process, arrived = self.cluster, client_process.get(), self.create_future()
        cluster.after(DELAY_NS, lambda: arrived.done() or arrived.set_result(None))
        await arrived
        node_id = cluster.node_at(place)
        if not cluster.hosts[node_id].powered or process in cluster.unheard:
            await self.create_future()  # No answer comes.
        protocol = factory()
        transport = VirtualTransport(self, protocol)
        transport.connection = cluster.connect(node_id, process, transport.received, transport.lost)
        protocol.connection_made(transport)
        return transport, protocol

    # -- what loops with sockets have

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualRunner:
    """Drives a virtual loop in the calling thread, as `ckpt_client.io.loop_thread` drives a real one.

    `process`: the client's process that it runs things for.
    """

    def __init__(self, loop: VirtualLoop, process: str = "") -> None:
        self.loop = loop
        self.process = process

    def _within(self, patience_ns: int = PATIENCE_NS) -> None:
        self.loop.until_ns = self.loop.cluster.now_ns + patience_ns

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end."""
        self._within()
        context = contextvars.copy_context()
        context.run(client_process.set, self.process)
        return context.run(self.loop.run_until_complete, coroutine)

    def ask(self, connection: Any, *request: Any) -> Any:
        """Make one request."""
        return self.run(connection.call(*request))

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start a coroutine; it continues whenever the loop runs."""
        context = contextvars.copy_context()
        context.run(client_process.set, self.process)
        return self.loop.create_task(coroutine, context=context)

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function on the loop."""

        async def once() -> Result:
            return function()

        return self.run(once())

    def wait(self, predicate: Callable[[], bool], condition: Any = None) -> None:
        """Let time pass until a condition holds."""

        async def poll() -> None:
            while not predicate():
                await asyncio.sleep(POLL_S)

        self.run(poll())

    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._within(int(seconds * SECOND_NS) + PATIENCE_NS)
        self.loop.run_until_complete(asyncio.sleep(seconds))
