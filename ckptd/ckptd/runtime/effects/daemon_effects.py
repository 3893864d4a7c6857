"""Carries out the core's effects other than frames: disk, datagrams, external register, fence hook."""

import asyncio
from typing import Final

from ckptd.core.events import AskRegister, FenceEnded, RegisterAnswered, RegisterFailed
from ckptd.core.make_core import Core
from ckptd.runtime.callback_containment import contained
from ckptd.runtime.config.addresses import HostPort
from ckptd.runtime.counters import Counters
from ckptd.runtime.driver import Driver, EffectHandler
from ckptd.runtime.effects.background_tasks import BackgroundTasks
from ckptd.runtime.effects.disk_writer_thread import DiskWriterThread
from ckptd.runtime.etcd.make_register import Register
from ckptd.runtime.event_recorder import EventRecorder
from ckptd.runtime.host.fence_hook import FenceHook
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.logs import RateLimitedLog, logger
from ckptd.runtime.net.datagram_sender import DatagramSender
from ckptd.runtime.peers.peer_context import PeerContext
from ckptd.runtime.peers.peers import Peers

DISK_WRITE_LIMIT_S: Final = 2.0
"""How long a record that is being written when the daemon ends may take."""


class DaemonEffects(EffectHandler):
    """The driver's `EffectHandler`, and what it works with.

    It makes the `driver`, since each of them needs the other, and then what reports to the driver.
    """

    def __init__(
        self,
        node: Core,
        recorder: EventRecorder | None,
        state: StateDirectory,
        datagrams: DatagramSender,
        peer_addresses: dict[str, HostPort],
        peer_context: PeerContext,
        counters: Counters,
        *,
        register: Register | None,
        fence_hook: FenceHook | None,
    ) -> None:
        self.driver = Driver(node, self, recorder)
        self.peers = Peers(peer_addresses, self.driver, peer_context)
        self._tasks = BackgroundTasks(self.driver)
        self._writer = DiskWriterThread(state, counters, self.driver)
        self._state = state
        self._datagrams = datagrams
        self._counters = counters
        self._limited_log = RateLimitedLog()
        self._register = register
        self._fence_hook = fence_hook
        self._fencing: dict[str, None] = {}

    async def close(self) -> None:
        """Wait for the tasks and for the record that still waits to be written."""
        await self._tasks.close()
        if not await self._writer.close(DISK_WRITE_LIMIT_S):
            logger.error("the last state of this node is not on disk: %s does not answer", self._state.path)
            # A write that hangs may still replace the record.
            self._state.keep_locked()

    # -- EffectHandler

    def persist(self, record: bytes, number: int) -> None:
        self._writer.persist(record, number)

    def send_heartbeat(self, node_id: str, data: bytes) -> None:
        address = self.peers.datagram_address(node_id)
        if address is not None:
            self._datagrams.send(self.peers.sign(node_id, data), address)

    def ask_back(self, node_id: str) -> None:
        self.peers.connectors[node_id].recheck()

    def refuse_peer(self, node_id: str, incarnation: int) -> None:
        self.peers.connectors[node_id].refuse(incarnation)

    def quarantine(self, name: str, content: bytes) -> None:
        self._tasks.start(self._write_quarantine(name, content), to_its_end=True)

    def ask_register(self, question: AskRegister) -> None:
        assert self._register is not None, f"no register is configured for {question.number}"
        self._tasks.start(self._ask_register(self._register, question))

    def fence(self, node_id: str) -> None:
        assert self._fence_hook is not None, f"no fence hook is configured for {node_id}"
        if node_id not in self._fencing:
            self._fencing[node_id] = None
            self._tasks.start(self._run_fence_hook(self._fence_hook, node_id))

    # -- background tasks

    async def _write_quarantine(self, name: str, content: bytes) -> None:
        counters = self._counters
        try:
            path = await asyncio.to_thread(self._state.quarantine, name, content)
        except Exception as error:  # OSError or QuarantineFull. No other is worth a node either.
            counters.quarantine_failures += 1
            logger.error(
                "%d bytes of checkpoint %r could not be written to quarantine: %s", len(content), name, error
            )
        else:
            counters.quarantine_files += 1
            counters.quarantine_bytes += len(content)
            logger.warning(
                "%d bytes of checkpoint %r were written to quarantine: %s", len(content), name, path
            )

    async def _ask_register(self, register: Register, question: AskRegister) -> None:
        answer: RegisterAnswered | RegisterFailed
        try:
            answer = await register.ask(question)
        except Exception as error:
            # The answer comes from outside, so the exception is contained; whether it swapped is unknown.
            answer = RegisterFailed(
                question.number,
                contained(self._counters, self._limited_log, "a request to the register", error),
            )
        if isinstance(answer, RegisterFailed):
            self._counters.register_failures += 1
        self.driver.handle(answer)

    async def _run_fence_hook(self, hook: FenceHook, node_id: str) -> None:
        self._counters.fence_runs += 1
        try:
            ended = await hook.run(node_id)
        except Exception as error:
            ended = FenceEnded(
                node_id, False, contained(self._counters, self._limited_log, "the fence hook", error)
            )
        finally:
            del self._fencing[node_id]
        self.driver.handle(ended)
