"""The driver owns the core: it passes events in, carries out the effects, and keeps one timer.

This is the hot path. Everything that one event sends to one destination leaves in one write.

An exception that leaves the core was raised after a change of state; those raised before are contained in
the core (`core.containment`). It is our own bug, and the node must not continue (fail-stop). Its last words
tell the other nodes what it was working on (`core.stops_by_bugs`).
"""

import asyncio
from typing import Final, Protocol

from ckptd.core.events import (
    AskBack,
    AskRegister,
    BeginAgain,
    CloseClient,
    ClosePeer,
    Effect,
    Event,
    Fence,
    Leave,
    Log,
    Persist,
    Quarantine,
    ReadOn,
    RefusePeer,
    SendClient,
    SendHeartbeat,
    SendPeer,
    StopReading,
    TakeLarge,
    TimeCame,
    TurnCame,
)
from ckptd.core.make_core import Core
from ckptd.runtime.clock import now_ns
from ckptd.runtime.errors import BegunAgain
from ckptd.runtime.event_recorder import EventRecorder
from ckptd.runtime.logs import LEVELS, logger

NEVER_NS: Final = 2**63
MILLISECOND_NS: Final = 1_000_000


class FrameSink(Protocol):
    """The link to a client or a peer, as the driver uses it. A peer's is a `peers.peer_link.PeerLink`."""

    def send(self, data: bytes) -> None:
        """Send whole frames."""

    def close(self, reason: str) -> None:
        """End the link because of what was received on it."""

    def stop_reading(self) -> None:
        """Stop reading from the link, so that its sender has to wait."""

    def resume_reading(self) -> None:
        """Read from the link again."""


class ClientSink(FrameSink, Protocol):
    """The link to a client: `clients.clients.ClientLink`, or by datagrams `clients.udp_clients.UdpLink`."""

    def accept_large_frames(self) -> None:
        """Accept frames of any legal size from now on."""


class EffectHandler(Protocol):
    """Carries out the core's rarer effects. No method waits for anything.

    In a daemon it is `effects.daemon_effects.DaemonEffects`.
    """

    def persist(self, record: bytes, number: int) -> None:
        """Make a record durable; `Persisted` or `PersistFailed` follows."""

    def ask_register(self, question: AskRegister) -> None:
        """Ask the external register; `RegisterAnswered` or `RegisterFailed` follows."""

    def fence(self, node_id: str) -> None:
        """Run the fence hook for a node; `FenceEnded` follows."""

    def send_heartbeat(self, node_id: str, data: bytes) -> None:
        """Send a datagram to a peer."""

    def refuse_peer(self, node_id: str, incarnation: int) -> None:
        """End the link to a peer, and tell the peer that we know a higher incarnation of it."""

    def ask_back(self, node_id: str) -> None:
        """Ask at a peer's address which incarnation is there; replace a link to another incarnation."""

    def quarantine(self, name: str, content: bytes) -> None:
        """Start writing a file to quarantine; it may be finished after the return."""


class Driver:
    """Runs the core of one node. With a `recorder`, all that the core is told is recorded."""

    def __init__(self, node: Core, handler: EffectHandler, recorder: EventRecorder | None = None) -> None:
        self.clients: dict[int, ClientSink] = {}
        """The links to clients by number. `clients.Clients` adds and removes them."""

        self.peers: dict[str, FrameSink] = {}
        """The links to peers by node id. `peers.PeerConnector` adds and removes them."""

        self._node = node
        self._handler = handler
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bool] = self._loop.create_future()
        """Set by `Leave`: True if the node ends with data that no other node is known to hold. If the node
        fails or has to start again, it raises the reason."""

        self._stopped = False
        self._turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns = NEVER_NS
        self._arm(node.deadline_ns)

    def handle(self, event: Event) -> None:
        """Pass an event to the core, and carry out its effects at once."""
        if self._stopped:
            return
        try:
            if self._recorder is None:
                effects = self._node.handle(event, now_ns())
            else:
                effects = self._recorder.handle(self._node, event, now_ns())
            if effects:
                self._execute(effects)
            deadline_ns = self._node.deadline_ns
            if deadline_ns < self._armed_ns:
                self._arm(deadline_ns)
            if self._node.turn_due and not self._turn_scheduled:
                self._turn_scheduled = True
                self._loop.call_soon(self._run_turn)
        except Exception as error:
            self._execute_last_words()
            self.fail(type(event).__name__, error)

    def stop(self) -> None:
        """Stop serving: later events are dropped."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _run_turn(self) -> None:
        # The loop has looked at its sockets and timers since `handle`: heartbeats wait for one turn at most.
        self._turn_scheduled = False
        self.handle(TurnCame())

    # -- effects

    def _execute(self, effects: list[Effect]) -> None:
        if len(effects) == 1:  # Mostly an answer or an acknowledgement: nothing to batch.
            effect = effects[0]
            if type(effect) is SendPeer:
                only = self.peers.get(effect.node_id)
            elif type(effect) is SendClient:
                only = self.clients.get(effect.link)
            else:
                self._execute_rare(effect, {})
                return
            if only is not None:
                only.send(effect.data)
            return
        batched: dict[FrameSink, list[bytes]] = {}
        for effect in effects:
            kind = type(effect)
            sink: FrameSink | None
            if kind is SendPeer:
                sink = self.peers.get(effect.node_id)  # type: ignore[union-attr]
            elif kind is SendClient:
                sink = self.clients.get(effect.link)  # type: ignore[union-attr, arg-type]
            else:
                self._execute_rare(effect, batched)
                continue
            if sink is not None:
                waiting = batched.get(sink)
                if waiting is None:
                    batched[sink] = [effect.data]  # type: ignore[union-attr]
                else:
                    waiting.append(effect.data)  # type: ignore[union-attr]
        for sink, waiting in batched.items():
            sink.send(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def _execute_rare(self, effect: Effect, batched: dict[FrameSink, list[bytes]]) -> None:
        match effect:
            case SendHeartbeat(node_id, data):
                self._handler.send_heartbeat(node_id, data)
            case AskBack(node_id):
                self._handler.ask_back(node_id)
            case RefusePeer(node_id, incarnation):
                self._handler.refuse_peer(node_id, incarnation)
            case BeginAgain(incarnation):
                if not self.ended.done():
                    self.ended.set_exception(BegunAgain(incarnation))
                self.stop()
            case Persist(record, number):
                self._handler.persist(record, number)
            case AskRegister():
                self._handler.ask_register(effect)
            case Fence(node_id):
                self._handler.fence(node_id)
            case TakeLarge(link):
                client = self.clients.get(link)
                if client is not None:
                    client.accept_large_frames()
            case CloseClient(link, reason):
                self._close(self.clients.get(link), reason, batched)
            case ClosePeer(node_id, reason):
                self._close(self.peers.get(node_id), reason, batched)
            case Log(level, text):
                logger.log(LEVELS[level], "%s", text)
            case Quarantine(name, content):
                self._handler.quarantine(name, content)
            case StopReading(which):
                self._set_reading(which, False)
            case ReadOn(which):
                self._set_reading(which, True)
            case Leave(last_copy):
                if not self.ended.done():
                    self.ended.set_result(last_copy)
            case _:
                raise AssertionError(f"no such effect: {effect!r}")

    def _set_reading(self, link: int | str, reading: bool) -> None:
        sink = self.clients.get(link) if isinstance(link, int) else self.peers.get(link)
        if sink is not None and reading:
            sink.resume_reading()
        elif sink is not None:
            sink.stop_reading()

    @staticmethod
    def _close(sink: FrameSink | None, reason: str, batched: dict[FrameSink, list[bytes]]) -> None:
        if sink is not None:
            waiting = batched.pop(sink, None)
            if waiting:
                sink.send(b"".join(waiting))
            sink.close(reason)

    # -- time

    def check_time(self) -> None:
        """Send `TimeCame` if the deadline has passed. A suspend may stop the loop's clock, but not ours."""
        if now_ns() >= self._node.deadline_ns:
            self.handle(TimeCame())

    def _arm(self, deadline_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_ns = deadline_ns
        if deadline_ns >= NEVER_NS:
            return
        # Round up to whole milliseconds: a loop that rounds down would wake too early and spin.
        wait_ms = max(0, -((now_ns() - deadline_ns) // MILLISECOND_NS))
        self._timer = self._loop.call_later(min(wait_ms / 1000, 3600.0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._armed_ns = NEVER_NS
        if now_ns() >= self._node.deadline_ns:
            self.handle(TimeCame())
        if not self._stopped and self._timer is None:
            self._arm(self._node.deadline_ns)

    # -- failure

    def _execute_last_words(self) -> None:
        """Tell the peers, and the disk, what the node was working on. This code may fail as well."""
        try:
            self._execute(self._node.last_words(now_ns()))
        except Exception as error:
            logger.critical("the node ends without sending its last words", exc_info=error)

    def fail(self, where: str, error: Exception) -> None:
        """Stop the node because of our own bug; `ended` raises `error`."""
        logger.critical("the node failed while handling %s and stops", where, exc_info=error)
        self.stop()
        if not self.ended.done():
            self.ended.set_exception(error)
