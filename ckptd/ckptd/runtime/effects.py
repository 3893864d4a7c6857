"""Carries out the core's effects other than frames: disk, datagrams, external register, fence hook."""

import asyncio
from collections.abc import Callable

from ckptd.core.events import AskRegister, Event, FenceEnded, RegisterAnswered, RegisterFailed
from ckptd.runtime.boundary import contained
from ckptd.runtime.counters import Counts
from ckptd.runtime.driver import Driver
from ckptd.runtime.etcd.make_register import Register
from ckptd.runtime.host.background_tasks import Errands
from ckptd.runtime.host.fence import FenceHook
from ckptd.runtime.host.state_directory import StateDirectory
from ckptd.runtime.host.state_writer import RecordWriter
from ckptd.runtime.logs import Seldom, logger
from ckptd.runtime.net.datagrams import Datagrams
from ckptd.runtime.peers.peers import Peers


class CoreHost:
    """The driver's `Host` in a daemon. Call `serve` to connect it to the driver before the first event."""

    def __init__(
        self,
        state: StateDirectory,
        records: RecordWriter,
        counts: Counts,
        *,
        register: Register | None,
        fence_hook: FenceHook | None,
    ) -> None:
        self.errands = Errands()
        self._state = state
        self._records = records
        self._counts = counts
        self._seldom = Seldom()
        self._register = register
        self._fence_hook = fence_hook
        self._fencing: dict[str, None] = {}
        self._datagrams: Datagrams
        self._peers: Peers
        self._tell: Callable[[Event], None]

    def send_with(self, datagrams: Datagrams, peers: Peers) -> None:
        """Set what sends heartbeats and asks at peers' addresses."""
        self._datagrams, self._peers = datagrams, peers

    def serve(self, driver: Driver) -> None:
        """Report all results, and our own bugs, to this driver."""
        self._tell = self._records.tell = driver.handle
        self._records.fail = self.errands.fail = driver.fail

    # -- driver.Host

    def persist(self, record: bytes, number: int) -> None:
        self._records.persist(record, number)

    def send_heartbeat(self, node_id: str, data: bytes) -> None:
        address = self._peers.datagram_address(node_id)
        if address is not None:
            self._datagrams.send(self._peers.seal(node_id, data), address)

    def ask_back(self, node_id: str) -> None:
        self._peers.peerings[node_id].look_again()

    def refuse_peer(self, node_id: str, incarnation: int) -> None:
        self._peers.peerings[node_id].refuse(incarnation)

    def quarantine(self, name: str, content: bytes) -> None:
        self.errands.start(self._write_quarantine(name, content), to_its_end=True)

    def ask_register(self, question: AskRegister) -> None:
        assert self._register is not None, f"no register is configured for {question.number}"
        self.errands.start(self._ask(self._register, question))

    def fence(self, node_id: str) -> None:
        assert self._fence_hook is not None, f"no fence hook is configured for {node_id}"
        if node_id not in self._fencing:
            self._fencing[node_id] = None
            self.errands.start(self._fence(self._fence_hook, node_id))

    # -- background tasks

    async def _write_quarantine(self, name: str, content: bytes) -> None:
        counts = self._counts
        try:
            path = await asyncio.to_thread(self._state.quarantine, name, content)
        except Exception as error:  # OSError or QuarantineFull. No other is worth a node either.
            counts.quarantine_failures += 1
            logger.error(
                "%d bytes of checkpoint %r could not be put into quarantine: %s", len(content), name, error
            )
        else:
            counts.quarantine_files += 1
            counts.quarantine_bytes += len(content)
            logger.warning("%d bytes of checkpoint %r are in quarantine: %s", len(content), name, path)

    async def _ask(self, register: Register, question: AskRegister) -> None:
        answer: RegisterAnswered | RegisterFailed
        try:
            answer = await register.ask(question)
        except Exception as error:
            # The answer comes from outside, so the exception is contained; whether it swapped is unknown.
            answer = RegisterFailed(
                question.number, contained(self._counts, self._seldom, "asking the register", error)
            )
        if isinstance(answer, RegisterFailed):
            self._counts.register_failures += 1
        self._tell(answer)

    async def _fence(self, hook: FenceHook, node_id: str) -> None:
        self._counts.fence_runs += 1
        try:
            ended = await hook.run(node_id)
        except Exception as error:
            ended = FenceEnded(node_id, False, contained(self._counts, self._seldom, "the fence hook", error))
        finally:
            del self._fencing[node_id]
        self._tell(ended)
