"""The one place that owns the core: events in, effects out, one timer.

This is the hot path. What one event asks to be sent to one destination leaves in one
write. An exception out of the core came after a change of state (`core.containment` stops
the others): it is our own bug, and a node that has one must not go on (fail-stop). Its last
words name what it was at (`core.stops`).
"""

import asyncio
from collections.abc import Callable
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
from ckptd.core.operations.resource_usage import EdgeLimits
from ckptd.runtime.clock import now_ns
from ckptd.runtime.errors import BegunAgain
from ckptd.runtime.logs import LEVELS, logger

NEVER_NS: Final = 2**63
MILLISECOND_NS: Final = 1_000_000


class CoreNode(Protocol):
    """The core, as far as the runtime knows it."""

    urls: tuple[str, ...]
    """Where clients reach this node; known only once its port is bound."""

    edge_counts: Callable[[], dict[str, int]]
    """What the runtime counted, for whoever asks the node how it is."""

    edge_limits: EdgeLimits
    """How full the runtime's limits are, for the same."""

    @property
    def deadline_ns(self) -> int:
        """When `TimeCame` is due next."""

    @property
    def turn_due(self) -> bool:
        """Whether work is left, for `TurnCame` once other sockets were looked at."""

    def handle(self, event: Event, now_ns: int, /) -> list[Effect]:
        """Take an event; return what to do, in order."""

    def last_words(self, now_ns: int, /) -> list[Effect]:
        """`handle` raised: what is still to be done before the node ends."""


class Outlet(Protocol):
    """Where bytes for a client or a peer go."""

    def send(self, data: bytes) -> None:
        """Send whole frames."""

    def close(self, reason: str) -> None:
        """End the link because of what came on it."""

    def stop_reading(self) -> None:
        """Take nothing more from the link, so that its sender has to wait."""

    def read_on(self) -> None:
        """Take from it again."""


class ClientOutlet(Outlet, Protocol):
    """The same for a client."""

    def take_large(self) -> None:
        """Take frames of any legal size from now on."""


class Host(Protocol):
    """What the core's rarer effects need of a daemon. None of it waits for anything."""

    def persist(self, record: bytes, number: int) -> None:
        """Make a record durable; `Persisted` or `PersistFailed` follows."""

    def ask_register(self, question: AskRegister) -> None:
        """Ask the register outside; `RegisterAnswered` or `RegisterFailed` follows."""

    def fence(self, node_id: str) -> None:
        """Run the fence hook for a node; `FenceEnded` follows."""

    def send_heartbeat(self, node_id: str, data: bytes) -> None:
        """Send a datagram to a peer."""

    def refuse_peer(self, node_id: str, incarnation: int) -> None:
        """End the link to a peer, and tell it that a later start of it is known."""

    def ask_back(self, node_id: str) -> None:
        """Ask at a peer's address who is there; a link to another start of it is made anew."""

    def quarantine(self, name: str, content: bytes) -> None:
        """Keep a file; need not be done on return."""


class Driver:
    """Runs one node. `ended` is set by `Leave`, and raises what made the node fail.

    Its result says whether the node took data with it that no other node is known to hold.
    """

    def __init__(self, node: CoreNode, host: Host) -> None:
        self.clients: dict[int, ClientOutlet] = {}
        self.peers: dict[str, Outlet] = {}
        self._node = node
        self._host = host
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[bool] = self._loop.create_future()
        self._stopped = False
        self._turn_asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns = NEVER_NS
        self._arm(node.deadline_ns)

    def handle(self, event: Event) -> None:
        """Tell the core, and do at once all that it asks for."""
        if self._stopped:
            return
        try:
            effects = self._node.handle(event, now_ns())
            if effects:
                self._carry_out(effects)
            deadline_ns = self._node.deadline_ns
            if deadline_ns < self._armed_ns:
                self._arm(deadline_ns)
            if self._node.turn_due and not self._turn_asked:
                self._turn_asked = True
                self._loop.call_soon(self._take_turn)
        except Exception as error:
            self._speak_last_words()
            self.fail(type(event).__name__, error)

    def stop(self) -> None:
        """Serve no more: events that still come are dropped."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _take_turn(self) -> None:
        # Since this was asked for the loop looked at its sockets and timers: heartbeats never wait for more.
        self._turn_asked = False
        self.handle(TurnCame())

    # -- effects

    def _carry_out(self, effects: list[Effect]) -> None:
        if len(effects) == 1:  # An answer or an acknowledgement, most often: nothing is to be gathered.
            effect = effects[0]
            if type(effect) is SendPeer:
                only = self.peers.get(effect.node_id)
            elif type(effect) is SendClient:
                only = self.clients.get(effect.link)
            else:
                self._carry_out_rare(effect, {})
                return
            if only is not None:
                only.send(effect.data)
            return
        gathered: dict[Outlet, list[bytes]] = {}
        for effect in effects:
            kind = type(effect)
            outlet: Outlet | None
            if kind is SendPeer:
                outlet = self.peers.get(effect.node_id)  # type: ignore[union-attr]
            elif kind is SendClient:
                outlet = self.clients.get(effect.link)  # type: ignore[union-attr, arg-type]
            else:
                self._carry_out_rare(effect, gathered)
                continue
            if outlet is not None:
                waiting = gathered.get(outlet)
                if waiting is None:
                    gathered[outlet] = [effect.data]  # type: ignore[union-attr]
                else:
                    waiting.append(effect.data)  # type: ignore[union-attr]
        for outlet, waiting in gathered.items():
            outlet.send(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def _carry_out_rare(self, effect: Effect, gathered: dict[Outlet, list[bytes]]) -> None:
        match effect:
            case SendHeartbeat(node_id, data):
                self._host.send_heartbeat(node_id, data)
            case AskBack(node_id):
                self._host.ask_back(node_id)
            case RefusePeer(node_id, incarnation):
                self._host.refuse_peer(node_id, incarnation)
            case BeginAgain(incarnation):
                if not self.ended.done():
                    self.ended.set_exception(BegunAgain(incarnation))
                self.stop()
            case Persist(record, number):
                self._host.persist(record, number)
            case AskRegister():
                self._host.ask_register(effect)
            case Fence(node_id):
                self._host.fence(node_id)
            case TakeLarge(link):
                client = self.clients.get(link)
                if client is not None:
                    client.take_large()
            case CloseClient(link, reason):
                self._close(self.clients.get(link), reason, gathered)
            case ClosePeer(node_id, reason):
                self._close(self.peers.get(node_id), reason, gathered)
            case Log(level, text):
                logger.log(LEVELS[level], "%s", text)
            case Quarantine(name, content):
                self._host.quarantine(name, content)
            case StopReading(which):
                self._read(which, False)
            case ReadOn(which):
                self._read(which, True)
            case Leave(last_copy):
                if not self.ended.done():
                    self.ended.set_result(last_copy)
            case _:
                raise AssertionError(f"no such effect: {effect!r}")

    def _read(self, link: int | str, reading: bool) -> None:
        outlet = self.clients.get(link) if isinstance(link, int) else self.peers.get(link)
        if outlet is not None and reading:
            outlet.read_on()
        elif outlet is not None:
            outlet.stop_reading()

    @staticmethod
    def _close(outlet: Outlet | None, reason: str, gathered: dict[Outlet, list[bytes]]) -> None:
        if outlet is not None:
            waiting = gathered.pop(outlet, None)
            if waiting:
                outlet.send(b"".join(waiting))
            outlet.close(reason)

    # -- time

    def check_time(self) -> None:
        """Tell the core if its deadline has passed: the loop's clock may have slept while ours went on."""
        if now_ns() >= self._node.deadline_ns:
            self.handle(TimeCame())

    def _arm(self, deadline_ns: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_ns = deadline_ns
        if deadline_ns >= NEVER_NS:
            return
        # Whole milliseconds, rounded up: a loop that rounds down would wake early and spin.
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

    def _speak_last_words(self) -> None:
        """Tell the peers, and the disk, what the node was at. It may be as broken as the rest."""
        try:
            self._carry_out(self._node.last_words(now_ns()))
        except Exception as error:
            logger.critical("the node ends without its last words", exc_info=error)

    def fail(self, where: str, error: Exception) -> None:
        """Our own bug: the node stops, and `ended` raises it."""
        logger.critical("the node failed on %s and stops", where, exc_info=error)
        self.stop()
        if not self.ended.done():
            self.ended.set_exception(error)


Handle = Callable[[Event], None]
