"""One daemon: starts a node on this host, runs it until it is asked to stop, and closes all in order."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from ckpt_protocol.handshake import Identity
from ckptd import __version__
from ckptd.core.events import LeaveAsked, WallClockRead
from ckptd.core.hub import Transport
from ckptd.core.make_core import Core
from ckptd.core.operations.graceful_leave import HAND_OVER_SHARES
from ckptd.core.settings import Settings
from ckptd.runtime.clock import WallClock, now_ns
from ckptd.runtime.config.addresses import HostPort
from ckptd.runtime.config.model import Config
from ckptd.runtime.counters import Counters
from ckptd.runtime.driver import Driver
from ckptd.runtime.effects.daemon_effects import DISK_WRITE_LIMIT_S
from ckptd.runtime.errors import BegunAgain, NodeFailed
from ckptd.runtime.event_log_writer import EventLogWriter
from ckptd.runtime.event_recorder import EventRecorder
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.host.systemd import notify_systemd, watchdog_s
from ckptd.runtime.logs import RateLimitedLog, logger
from ckptd.runtime.net.datagram_receiver import DatagramReceiver
from ckptd.runtime.node_assembly import NodeAssembly
from ckptd.runtime.peers.cluster_check import check_cluster, check_own_address
from ckptd.runtime.resources import Resources, open_resources
from ckptd.runtime.transport_limits import TransportLimits

MakeCore = Callable[[Settings, int, bytes, int, int, Transport], Core]
"""Makes the core from settings, incarnation, record, now_ns, wall_offset_ns and transport."""

TICK_S: Final = 1.0
WATCHDOG_SHARE: Final = 3
"""We notify systemd's watchdog at least three times within the time after which it kills the process."""

LEAVE_MARGIN_S: Final = 2.0
"""How much longer than the core's own limit the hand-over may take; then the daemon ends all the same."""

DRAIN_LIMIT_S: Final = 1.0
"""How long the last answers may take to reach their clients."""

END_LIMIT_S: Final = DRAIN_LIMIT_S + DISK_WRITE_LIMIT_S
"""The time that we ask systemd for in addition to the hand-over, so that it does not kill a node that waits
for a peer."""

PAUSE_WARNING_SHARE: Final = 4
"""A delay of the event loop by a quarter of the lease is logged; one by the whole lease would lose it."""


class Daemon:
    """One daemon. `run` it once."""

    def __init__(self, config: Config, key: bytes, make_core: MakeCore, later_than: int = 0) -> None:
        """`later_than`: the new incarnation has to be higher than this one."""
        self.config = config
        self._later_than = later_than
        self.counters = Counters()
        self.started = asyncio.Event()
        """Set once every address is bound, just before `run` starts to serve."""

        self.handed_over = False
        """True once the node has ended and took no data with it that no other node is known to hold."""

        self.addresses: tuple[str, ...] = ()
        self._key = key
        self._core_maker = make_core
        self._limited_log = RateLimitedLog()
        self._wall_clock = WallClock()
        self._stop_requested = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._pause_warning_ns = int(config.lease_ms * 1e6) // PAUSE_WARNING_SHARE

    def stop(self) -> None:
        """Hand over and end. The second call ends the daemon without waiting for the hand-over."""
        if self._stop_requested.is_set():
            self._stop_now.set()
        self._stop_requested.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises: StartupError; NodeFailed; BegunAgain."""
        async with contextlib.AsyncExitStack() as closing:
            resources = await open_resources(self.config, self._later_than, self.counters, closing)
            identity = await self._check_peers(resources)
            event_log = self._open_event_log(resources.state.incarnation, closing)
            assembly = self._assemble(identity, resources, event_log)
            receiver = await DatagramReceiver.open(resources.datagrams, assembly.lanes, self.counters)
            closing.callback(receiver.close)
            servers = await _listen(assembly, resources)
            self._announce(resources)
            failure = await self._serve(assembly, receiver, servers, event_log)
        if isinstance(failure, BegunAgain):
            raise failure
        if failure is not None:
            raise NodeFailed(f"node {self.config.node_id} failed") from failure
        logger.info("node %s has stopped", self.config.node_id)

    # -- start

    async def _check_peers(self, resources: Resources) -> Identity:
        """Return this node's identity, with which its peers agree. Raises: StartError."""
        config, stream = self.config, resources.stream
        urls = (f"tcp://{config.advertised(resources.port)}",)
        identity = Identity(config.cluster, self._key, config.node_id, resources.state.incarnation, urls)
        await check_own_address(config.node_id, config.other_nodes, stream)
        await check_cluster(identity, config.other_nodes, stream.family)
        return identity

    def _open_event_log(self, incarnation: int, closing: contextlib.AsyncExitStack) -> EventLogWriter | None:
        config = self.config
        if config.record_events is None:
            return None
        event_log = EventLogWriter(
            config.record_events, config.record_events_bytes_max, config.node_id, incarnation
        )
        closing.callback(event_log.close)
        logger.warning("recording every event that the core receives, including payload: %s", event_log.path)
        return event_log

    def _assemble(
        self, identity: Identity, resources: Resources, event_log: EventLogWriter | None
    ) -> NodeAssembly:
        """Make the core and all that belongs to it, and start the core's clock."""
        limits = TransportLimits()
        transport = Transport(identity.urls, self.counters.as_dict, limits.rows)
        recorder = EventRecorder(event_log, transport) if event_log is not None else None
        node = self._make_core(resources.state, transport, recorder)
        assembly = NodeAssembly(
            self.config, identity, node, recorder, limits, resources, self.counters, self._limited_log
        )
        resources.closed_after_sockets.push_async_callback(assembly.effects.close)
        assembly.driver.handle(WallClockRead(self._wall_clock.offset_ns))
        return assembly

    def _make_core(self, state: StateDirectory, transport: Transport, recorder: EventRecorder | None) -> Core:
        start = (
            self.config.settings(),
            state.incarnation,
            state.record,
            now_ns(),
            self._wall_clock.offset_ns,
        )
        if recorder is None:
            return self._core_maker(*start, transport)
        node = self._core_maker(*start, recorder.transport)
        recorder.begin(*start)
        return node

    def _announce(self, resources: Resources) -> None:
        config = self.config
        listening = str(HostPort(config.listen.host, resources.port))
        self.addresses = (f"tcp://{listening}", f"udp://{listening}")
        if resources.unix is not None:
            self.addresses += (f"unix://{resources.unix.path}",)
        line = f"ckptd {__version__} node {config.node_id} of cluster {config.cluster}: listening on "
        # Do not fail if the process that started us has closed our stdout.
        with contextlib.suppress(OSError):
            print(line + ", ".join((listening, *self.addresses[2:])), flush=True)
        if not self._key and not config.listen.is_loopback:
            logger.warning(
                "no key is set: any program that reaches %s can read and write everything", listening
            )
        notify_systemd("READY=1")
        self.started.set()

    # -- while it runs

    async def _serve(
        self,
        assembly: NodeAssembly,
        receiver: DatagramReceiver,
        servers: list[asyncio.Server],
        event_log: EventLogWriter | None,
    ) -> BaseException | None:
        """Run the node's tasks until it has ended; return its failure."""
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each.run()) for each in assembly.peers.connectors.values()]
            running.append(tasks.create_task(receiver.receive_all(assembly.router.receive)))
            running.append(tasks.create_task(self._tick(assembly, event_log)))
            try:
                return await self._until_ended(assembly.driver)
            finally:
                notify_systemd("STOPPING=1")
                # Stop serving first, then close the links, then the listeners. A refused
                # connection proves us dead, so it must not happen while we still serve.
                assembly.driver.stop()
                for task in running:
                    task.cancel()
                assembly.acceptor.close()
                await self._close_links(assembly)
                for server in servers:
                    server.close()

    async def _until_ended(self, driver: Driver) -> BaseException | None:
        """Wait until the node has handed over, ran out of time for it, or failed; return the failure."""
        ended = driver.ended
        stop_requested = asyncio.ensure_future(self._stop_requested.wait())
        stop_now = asyncio.ensure_future(self._stop_now.wait())
        try:
            await asyncio.wait((ended, stop_requested), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                logger.info("node %s is leaving: handing over", self.config.node_id)
                driver.handle(LeaveAsked())
                limit_s = HAND_OVER_SHARES * self.config.leave_ms / 1000 + LEAVE_MARGIN_S
                notify_systemd(f"EXTEND_TIMEOUT_USEC={int((limit_s + END_LIMIT_S) * 1e6)}")
                await asyncio.wait((ended, stop_now), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                failure = ended.exception()
                self.handed_over = failure is None and not ended.result()
                return failure
            logger.warning("node %s ends without having handed over", self.config.node_id)
            return None
        finally:
            stop_requested.cancel()
            stop_now.cancel()

    async def _tick(self, assembly: NodeAssembly, event_log: EventLogWriter | None) -> None:
        """Check once a second if the loop is late, if the wall clock moved, and for idle or slow clients.

        It also notifies systemd's watchdog (more often if systemd wants that), because a process whose event
        loop hangs should be killed.
        """
        watchdog = watchdog_s()
        tick_s = min(TICK_S, watchdog / WATCHDOG_SHARE) if watchdog else TICK_S
        while True:
            if watchdog:
                notify_systemd("WATCHDOG=1")
            due_ns = now_ns() + int(tick_s * 1e9)
            await asyncio.sleep(tick_s)
            lag_ns = now_ns() - due_ns
            self.counters.loop_lag_ns_max = max(self.counters.loop_lag_ns_max, lag_ns)
            if lag_ns > self._pause_warning_ns:
                self._limited_log.warn("lag", f"this process was paused for {lag_ns // 1_000_000} ms")
            if self._wall_clock.moved():
                assembly.driver.handle(WallClockRead(self._wall_clock.offset_ns))
            assembly.pass_time(tick_s)
            if event_log is not None:
                event_log.flush()

    # -- end

    async def _close_links(self, assembly: NodeAssembly) -> None:
        """Flush and close every link, within `DRAIN_LIMIT_S`."""
        closed = assembly.close_links()
        if closed and not self._stop_now.is_set():
            await asyncio.wait(closed, timeout=DRAIN_LIMIT_S)


async def _listen(assembly: NodeAssembly, resources: Resources) -> list[asyncio.Server]:
    """Accept connections on the TCP socket, and on the unix socket if there is one."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(assembly.acceptor.accept, sock=resources.stream)]
    if resources.unix is not None:
        servers.append(await loop.create_unix_server(assembly.acceptor.accept, sock=resources.unix.socket))
    return servers
