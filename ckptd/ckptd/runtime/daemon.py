"""One daemon: assembles sockets, disk and core, runs until it is asked to stop, and closes them in order."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from ckpt_protocol.framing import HEADER_BYTES, LENGTH_BYTES, FrameError, decode_datagram
from ckpt_protocol.greeting import Identity, unseal
from ckpt_protocol.messages import Kind
from ckptd import __version__
from ckptd.core.events import HeartbeatReceived, LeaveAsked, WallClockRead
from ckptd.core.operations.graceful_leave import HAND_OVER_SHARES
from ckptd.core.settings import Settings
from ckptd.runtime.boundary import contained
from ckptd.runtime.clients.acceptor import Door
from ckptd.runtime.clients.clients import Clients
from ckptd.runtime.clients.udp_clients import UdpClients
from ckptd.runtime.clients.unfinished_frames import UnfinishedFrames
from ckptd.runtime.clients.unread_answers import UnreadAnswers
from ckptd.runtime.clock import WallClock, now_ns
from ckptd.runtime.config.addresses import HostPort, SocketAddress
from ckptd.runtime.config.model import Config
from ckptd.runtime.counters import Counts
from ckptd.runtime.driver import CoreNode, Driver
from ckptd.runtime.edge_limits import Edge
from ckptd.runtime.effects import CoreHost
from ckptd.runtime.errors import BegunAgain, NodeFailed, StartRefused
from ckptd.runtime.etcd.make_register import make_register
from ckptd.runtime.event_log_writer import RecordedNode, Recorder
from ckptd.runtime.host.descriptors import Room, make_room
from ckptd.runtime.host.fence import FenceHook
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.host.state_writer import RecordWriter
from ckptd.runtime.host.systemd import notify_systemd, watchdog_s
from ckptd.runtime.logs import Seldom, logger
from ckptd.runtime.net.datagram_lanes import Lane
from ckptd.runtime.net.datagrams import Datagrams
from ckptd.runtime.net.listening import UnixSocket, bind_port
from ckptd.runtime.peers.cluster_check import check_cluster, check_own_address
from ckptd.runtime.peers.peer_connector import Surroundings
from ckptd.runtime.peers.peers import Peers

MakeNode = Callable[[Settings, int, bytes, int, int], CoreNode]
"""Makes the core from settings, incarnation, record, now_ns and wall_offset_ns."""

TICK_S: Final = 1.0
WATCHDOG_SHARE: Final = 3
"""We notify systemd's watchdog at least three times within the time after which it kills the process."""

LEAVE_MARGIN_S: Final = 2.0
"""How much longer than the core's own limit the hand-over may take; then the daemon ends all the same."""

DRAIN_LIMIT_S: Final = 1.0
"""How long the last answers may take to reach their clients."""

RECORD_LIMIT_S: Final = 2.0
"""How long a record that is being written when the daemon ends may take."""

END_LIMIT_S: Final = DRAIN_LIMIT_S + RECORD_LIMIT_S
"""The time that we ask systemd for in addition to the hand-over, so that it does not kill a node that waits
for a peer."""

LAG_WARNING_SHARE: Final = 4
"""A delay of the event loop by a quarter of the lease is logged; one by the whole lease would lose it."""

_KIND_AT: Final = LENGTH_BYTES


class Daemon:
    """One daemon. `run` it once."""

    def __init__(self, config: Config, key: bytes, make_node: MakeNode, later_than: int = 0) -> None:
        """`later_than`: the new incarnation has to be higher than this one."""
        self.config = config
        self._later_than = later_than
        self.counts = Counts()
        self.started = asyncio.Event()
        """Set once every address is bound, just before `run` starts to serve."""

        self.handed_over = False
        """True once the node has ended and took no data with it that no other node is known to hold."""

        self.addresses: tuple[str, ...] = ()
        self._key = key
        self._make_node = make_node
        self._seldom = Seldom()
        self._wall_clock = WallClock()
        self._edge = Edge()
        self._stop_asked = asyncio.Event()
        self._abandoned = asyncio.Event()
        self._lag_line_ns = int(config.lease_ms * 1e6) // LAG_WARNING_SHARE
        self._state: StateDirectory
        self._datagrams: Datagrams
        self._driver: Driver
        self._clients: Clients
        self._peers: Peers
        self._udp_clients: UdpClients
        self._host: CoreHost
        self._recorder: Recorder | None = None

    def stop(self) -> None:
        """Hand over and end. The second call ends the daemon without waiting for the hand-over."""
        if self._stop_asked.is_set():
            self._abandoned.set()
        self._stop_asked.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises: StartRefused; NodeFailed; BegunAgain."""
        config = self.config
        room = make_room(config.clients_max, len(config.other_nodes))
        async with contextlib.AsyncExitStack() as closing:
            self._state = StateDirectory(
                config.state_path,
                config.cluster,
                config.node_id,
                config.quarantine_bytes_max,
                self._later_than,
            )
            self._host = await self._make_host(closing)
            stream, self._datagrams = await bind_port(config.listen, self.counts)
            closing.callback(self._datagrams.close)
            closing.callback(stream.close)
            unix = self._bind_unix_socket()
            if unix is not None:
                closing.callback(unix.close)
                closing.callback(unix.socket.close)
            port = int(stream.getsockname()[1])
            identity = self._identity(port)
            await check_own_address(config.node_id, config.other_nodes, stream)
            await check_cluster(identity, config.other_nodes, stream.family)

            self._start_recorder(closing)
            self._assemble(identity, stream.family, room)
            door = Door(identity, self._clients, self._peers, self.counts, self._seldom, room.strangers)
            self._edge.sources += [
                self._clients.limits,
                door.limits,
                self._udp_clients.limits,
                self._datagrams.lanes.limits,
                self._peers.limits,
            ]
            loop = asyncio.get_running_loop()
            servers = [await loop.create_server(door.accept, sock=stream)]
            if unix is not None:
                servers.append(await loop.create_unix_server(door.accept, sock=unix.socket))
            self._announce(port, unix)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(peering.keep()) for peering in self._peers.peerings.values()]
                running.append(tasks.create_task(self._datagrams.receive_all(self._receive_datagram)))
                running.append(tasks.create_task(self._tick()))
                try:
                    failure = await self._until_ended()
                finally:
                    notify_systemd("STOPPING=1")
                    # Stop serving first, then close the links, then the listeners. A refused
                    # connection proves us dead, so it must not happen while we still serve.
                    self._driver.stop()
                    for task in running:
                        task.cancel()
                    door.close()
                    await self._close_links()
                    for server in servers:
                        server.close()
        if isinstance(failure, BegunAgain):
            raise failure
        if failure is not None:
            raise NodeFailed(f"node {config.node_id} failed") from failure
        logger.info("node %s has stopped", config.node_id)

    # -- start

    async def _make_host(self, closing: contextlib.AsyncExitStack) -> CoreHost:
        """Make what the core's effects need in addition to sockets. Raises: Refusal."""
        config, state = self.config, self._state
        records = RecordWriter(state.write_record, self.counts)

        async def close_records() -> None:
            # A write that hangs may still replace the record, so we keep the lock until the process is gone.
            if await records.close(RECORD_LIMIT_S):
                state.close()
            else:
                logger.error("the last record is not on disk: %s does not answer", state.path)

        closing.push_async_callback(close_records)
        register = make_register(config)
        if register is not None:
            closing.push_async_callback(register.close)
        fence_hook = None
        if config.fence_hook:
            fence_hook = FenceHook(config.fence_hook, config.node_id, config.fence_timeout_ms / 1000)
        host = CoreHost(state, records, self.counts, register=register, fence_hook=fence_hook)
        closing.push_async_callback(host.errands.close)
        return host

    def _start_recorder(self, closing: contextlib.AsyncExitStack) -> None:
        config = self.config
        if config.record_events is None:
            return
        self._recorder = Recorder(
            config.record_events, config.record_events_bytes_max, config.node_id, self._state.incarnation
        )
        closing.callback(self._recorder.close)

    def _identity(self, port: int) -> Identity:
        config = self.config
        urls = (f"tcp://{config.advertised(port)}",)
        return Identity(config.cluster, self._key, config.node_id, self._state.incarnation, urls)

    def _bind_unix_socket(self) -> UnixSocket | None:
        path = self.config.socket_path
        if path is None:
            return None
        try:
            return UnixSocket(path, self.config.socket_mode)
        except StartRefused as error:
            if self.config.socket:
                raise
            # Of several daemons on one host, the first has the default path; the others do without a socket.
            logger.info("no unix socket: %s", error)
            return None

    def _make_core(self, urls: tuple[str, ...]) -> CoreNode:
        state = self._state
        start = (
            self.config.settings(),
            state.incarnation,
            state.record,
            now_ns(),
            self._wall_clock.offset_ns,
        )
        node = self._make_node(*start)
        node.urls = urls
        node.edge_counts = self.counts.as_dict
        node.edge_limits = self._edge.rows
        if self._recorder is None:
            return node
        recorded = RecordedNode(node, self._recorder)
        recorded.begin(*start)
        logger.warning("what the core is told, payload too, is recorded: %s", self._recorder.path)
        return recorded

    def _assemble(self, identity: Identity, family: int, room: Room) -> None:
        config, counts, seldom = self.config, self.counts, self._seldom
        self._driver = Driver(self._make_core(identity.urls), self._host)
        self._host.serve(self._driver)
        self._clients = Clients(
            self._driver,
            counts,
            seldom,
            room.clients,
            UnreadAnswers(config.client_buffer_bytes_max, config.share_of_limits),
            UnfinishedFrames(config.client_frames_bytes_max, round(config.frame_timeout_ms * 1e6)),
        )
        surroundings = Surroundings(
            identity,
            self._driver,
            counts,
            seldom,
            heartbeat_s=config.heartbeat_ms / 1000,
            buffer_bytes_max=config.peer_buffer_bytes_max,
            family=family,
            witnesses=frozenset(config.other_witnesses),
        )
        self._peers = Peers(config.other_nodes, surroundings)
        self._host.send_with(self._datagrams, self._peers)
        self._udp_clients = UdpClients(identity, self._datagrams, self._clients)
        self._datagrams.lanes.lane = self._lane_of
        self._driver.handle(WallClockRead(self._wall_clock.offset_ns))

    def _announce(self, port: int, unix: UnixSocket | None) -> None:
        config = self.config
        listening = str(HostPort(config.listen.host, port))
        self.addresses = (f"tcp://{listening}", f"udp://{listening}")
        if unix is not None:
            self.addresses += (f"unix://{unix.path}",)
        line = f"ckptd {__version__} node {config.node_id} of cluster {config.cluster}: listening on "
        # Do not fail if the process that started us has closed our stdout.
        with contextlib.suppress(OSError):
            print(line + ", ".join((listening, *self.addresses[2:])), flush=True)
        if not self._key and not config.listen.is_loopback:
            logger.warning("no key is set: whoever reaches %s can read and write everything", listening)
        notify_systemd("READY=1")
        self.started.set()

    # -- while it runs

    async def _until_ended(self) -> BaseException | None:
        """Wait until the node has handed over, ran out of time for it, or failed; return the failure."""
        ended = self._driver.ended
        stop_asked = asyncio.ensure_future(self._stop_asked.wait())
        abandoned = asyncio.ensure_future(self._abandoned.wait())
        try:
            await asyncio.wait((ended, stop_asked), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                logger.info("node %s hands over and leaves", self.config.node_id)
                self._driver.handle(LeaveAsked())
                limit_s = HAND_OVER_SHARES * self.config.leave_ms / 1000 + LEAVE_MARGIN_S
                notify_systemd(f"EXTEND_TIMEOUT_USEC={int((limit_s + END_LIMIT_S) * 1e6)}")
                await asyncio.wait((ended, abandoned), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                failure = ended.exception()
                self.handed_over = failure is None and not ended.result()
                return failure
            logger.warning("node %s leaves without having handed over", self.config.node_id)
            return None
        finally:
            stop_asked.cancel()
            abandoned.cancel()

    async def _tick(self) -> None:
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
            self.counts.loop_lag_ns_max = max(self.counts.loop_lag_ns_max, lag_ns)
            if lag_ns > self._lag_line_ns:
                self._seldom.warn("lag", f"this process was held up for {lag_ns // 1_000_000} ms")
            if self._wall_clock.moved():
                self._driver.handle(WallClockRead(self._wall_clock.offset_ns))
            self._driver.check_time()
            self._udp_clients.forget_silent()
            self._clients.unfinished.pass_time(int(tick_s * 1e9))
            self._edge.look(now_ns())
            if self._recorder is not None:
                self._recorder.flush()

    def _lane_of(self, datagram: bytes, address: SocketAddress) -> Lane:
        is_heartbeat = len(datagram) >= HEADER_BYTES and datagram[_KIND_AT] == Kind.HEARTBEAT
        if is_heartbeat:
            return Lane.PEER if self._peers.at(address) is not None else Lane.HEARTBEAT
        return Lane.CLIENT if self._udp_clients.knows(address) else Lane.STRANGER

    def _receive_datagram(self, datagram: bytes, address: SocketAddress) -> None:
        if len(datagram) < HEADER_BYTES or datagram[_KIND_AT] != Kind.HEARTBEAT:
            self._udp_clients.receive(datagram, address)
            return
        heartbeat = self._peers.unseal(datagram, address)
        sealed = heartbeat is not None
        try:
            frame = decode_datagram(heartbeat if heartbeat is not None else unseal(self._key, datagram))
        except FrameError as error:
            self.counts.garbage_datagrams += 1
            if self._peers.at(address) is None:  # (A peer's may belong to a link not up here yet.)
                self._seldom.warn("heartbeat", f"a heartbeat from {address[0]} was dropped: {error}")
        except Exception as error:
            contained(self.counts, self._seldom, "a heartbeat", error)
        else:
            self._driver.handle(HeartbeatReceived(frame, sealed))

    # -- end

    async def _close_links(self) -> None:
        """Flush and close every link, within `DRAIN_LIMIT_S`."""
        closed = self._clients.close() + self._peers.close()
        if closed and not self._abandoned.is_set():
            await asyncio.wait(closed, timeout=DRAIN_LIMIT_S)
