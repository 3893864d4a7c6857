"""A host in the world: one node's process with its clock and its disk; it is up, paused or down.

The host gives events to the core and carries out its effects. It can crash between any two effects: those
after the crash never happen.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from ckptd.core import events
from ckptd.core.events import AskRegister, Effect, Event, TimeCame, TurnCame, WallClockRead
from ckptd.core.make_core import Core
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS, Settings
from ckptd.sim.world.clock import Clock
from ckptd.sim.world.disk import Disk
from ckptd.sim.world.world import Violation, World

MakeCore = Callable[[Settings, int, bytes, int, int], Core]
"""Makes the core of a process: settings, incarnation, record, clock, and how far the wall clock is ahead."""

IDLE_WAKES_MAX: Final = 500
"""A core that asks this often in a row to be woken at once, while nothing else happens, spins."""

WALL_CLOCK_NS: Final = SECOND_NS
"""How often a process reads the wall clock."""

TIMER_LATE_NS: Final = MILLISECOND_NS
"""A timer fires up to this much late, as the daemon's does."""


class PlantedBugError(Exception):
    """A bug that a scenario puts into the core (see `planted_bugs`)."""


TURN_MIN_NS: Final = 1000
TURN_MAX_NS: Final = 200_000
"""How long a core with work left waits for its next turn. What other sockets brought is handled in
between."""


@dataclass(slots=True, frozen=True)
class CrashPlan:
    """A crash that comes amid the effects of one of the process's next events."""

    effects_done: Callable[[list[Effect]], int]
    """Returns how many of an event's effects are still carried out before the process dies; -1: it lives
    on."""

    crash: Callable[[], None]
    """Ends the process."""


class Outside(Protocol):
    """The rest of the world, as a host sees it: where effects go. A cluster implements it."""

    def clock_ahead(self) -> int:
        """Return how far the clock of a starting process is ahead, as its incarnation shows."""

    def process_stopping(self, node_id: str) -> None:
        """The process ends now; its core is still there."""

    def send_peer(self, sender: str, node_id: str, data: bytes) -> None:
        """Send whole frames to a peer."""

    def send_heartbeat(self, sender: str, node_id: str, data: bytes) -> None:
        """Send a datagram to a peer."""

    def ask_back(self, sender: str, node_id: str) -> None:
        """Ask who is at a peer's address."""

    def refuse_peer(self, sender: str, node_id: str, incarnation: int) -> None:
        """End the link to a peer, and inform the peer of its later incarnation."""

    def begin_again(self, node_id: str, incarnation: int) -> None:
        """End the process, and start it again above this incarnation."""

    def close_peer(self, sender: str, node_id: str) -> None:
        """End the link to a peer."""

    def send_client(self, link: int, data: bytes) -> None:
        """Send whole frames to a client."""

    def close_client(self, link: int) -> None:
        """End a client's link."""

    def ask_register(self, sender: str, request: AskRegister) -> None:
        """Send a request to the external register."""

    def fence(self, sender: str, node_id: str) -> None:
        """Run the fence hook for a peer."""

    def read(self, sender: str, link: int | str, reading: bool) -> None:
        """Read from a client's or a peer's link, or stop reading it."""

    def take_large(self, link: int) -> None:
        """Accept large frames on a client's link."""

    def process_ended(self, node_id: str, last_copy: bool) -> None:
        """The process ended on its own, after it handed over. `last_copy` is that of `Leave`."""

    def process_failed(self, node_id: str) -> None:
        """The process failed, after its last words."""

    def core_raised(self, node_id: str, event: Event, error: Exception) -> None:
        """The core raised. If this returns, the host raises the error again."""

    def core_contained(self, node_id: str, effects: list[Effect]) -> None:
        """The core raised before it had changed anything, and continues; these are the event's effects."""

    def handled(self, node_id: str, event: Event) -> None:
        """A node handled an event, and all its effects are carried out."""


class Host:
    """One machine with the process that runs on it."""

    def __init__(
        self, world: World, settings: Settings, clock: Clock, outside: Outside, make: MakeCore
    ) -> None:
        self.world = world
        self.settings = settings
        self.node_id = settings.node_id
        self.clock = clock
        self.outside = outside
        self.make = make
        self.core: Core | None = None
        """None while no process runs."""

        self.powered = True
        """True while the machine answers (and refuses) connections."""

        self.paused = False
        self.incarnation = 0
        self.start_count = 0
        self.saved_incarnation = 0
        """The last incarnation, as the state directory has it."""
        self._incarnations: set[int] = set()
        """The incarnations of all its starts."""
        self.disk = Disk(world, self.deliver)
        self.crash_plan: CrashPlan | None = None
        """None while no crash is due."""

        self.quarantined: dict[str, bytes] = {}
        """The files in quarantine, by name."""

        self._inbox: deque[Event] = deque()
        self._armed = 0
        self._armed_ns = -1
        self._idle_wakes = 0
        self._turn_scheduled = False

    @property
    def node(self) -> Node | None:
        """The core of a node with data; None while no process runs, and at a witness's host."""
        core = self.core
        return core if isinstance(core, Node) else None

    @property
    def running(self) -> bool:
        """True if a process runs here, paused or not."""
        return self.core is not None

    @property
    def busy(self) -> bool:
        """True while events that arrived during a pause still wait to be handled."""
        return bool(self._inbox)

    @property
    def local_ns(self) -> int:
        """What the node's clock shows now."""
        return self.clock.read(self.world.now_ns)

    # -- its process

    def start(self) -> None:
        """Start the process: a new incarnation, with the record on the disk."""
        assert self.core is None, self.node_id
        self.powered = True
        self.paused = False
        self.start_count += 1
        # After the loss of its disk a node may get a lower incarnation than before.
        clock = self.start_count + self.outside.clock_ahead()
        self.incarnation = max(clock, self.saved_incarnation + 1)
        if self.incarnation in self._incarnations:
            raise Violation(
                "one process per incarnation",
                f"{self.node_id} starts with incarnation {self.incarnation} for the second time",
            )
        self._incarnations.add(self.incarnation)
        self.saved_incarnation = self.incarnation
        self.crash_plan = None
        self._inbox.clear()
        self._idle_wakes = 0
        self._turn_scheduled = False
        wall_offset_ns = self.clock.wall_offset(self.world.now_ns)
        self.core = self.make(
            self.settings, self.incarnation, self.disk.record, self.local_ns, wall_offset_ns
        )
        self._arm()

    def _read_wall_clock(self, incarnation: int) -> None:
        """Report the wall clock to the core again and again, since a monotonic clock drifts away from it."""
        if self.incarnation == incarnation and self.core is not None:
            self.deliver(WallClockRead(self.clock.wall_offset(self.world.now_ns)))
            self.world.after(WALL_CLOCK_NS, lambda: self._read_wall_clock(incarnation))

    def stop(self) -> None:
        """End the process at once."""
        if self.core is not None:
            self.outside.process_stopping(self.node_id)
        self.core = None
        self.paused = False
        self.crash_plan = None
        self.disk.process_gone()
        self._inbox.clear()
        self._armed += 1
        self._armed_ns = -1

    def pause(self) -> None:
        """SIGSTOP: events wait from now on."""
        self.paused = True

    def resume(self, timer_first: bool = False) -> None:
        """SIGCONT: handle in order what waited; the clock has continued.

        `timer_first`: the overdue timer comes before all that, as after a stall.
        """
        self.paused = False
        if timer_first and self.core is not None and self.core.deadline_ns <= self.local_ns:
            self._handle(TimeCame())
        self._resume_next(self.incarnation)

    def _resume_next(self, incarnation: int) -> None:
        core = self.core
        if self.paused or core is None or self.incarnation != incarnation:
            return
        if core.deadline_ns <= self.local_ns and self.world.chance(0.5):
            self._handle(TimeCame())
        elif self._inbox:
            self._handle(self._inbox.popleft())
        if self._inbox:
            self.world.after(self.world.between(1000, 20_000), lambda: self._resume_next(incarnation))
        elif self.running:
            self._arm()

    def deliver(self, event: Event) -> None:
        """Handle an event at this host, or queue it while the process is paused."""
        if self.core is None:
            return
        if self.paused or self._inbox:
            self._inbox.append(event)
        else:
            self._handle(event)

    def _take_turn(self, incarnation: int) -> None:
        if self.incarnation == incarnation and self.core is not None:
            self._turn_scheduled = False
            self.deliver(TurnCame())

    # -- its core

    def _handle(self, event: Event) -> None:
        core = self.core
        assert core is not None
        try:
            effects = core.handle(event, self.local_ns)
        except PlantedBugError as error:
            self._stop_by_fault(core, error)
            return
        except Exception as error:
            self.outside.core_raised(self.node_id, event, error)
            raise
        if "contained" in core.context.counters:
            self.outside.core_contained(self.node_id, effects)
        self._check_spinning(event)
        self.world.trace.handled(self.world.now_ns, self.node_id, event, effects)
        plan = self.crash_plan
        last = -1 if plan is None or not effects else plan.effects_done(effects)
        for effect in effects if last < 0 else effects[:last]:
            self.carry_out(effect)
        if plan is not None and last >= 0:
            # The node did what it did, and may have sent something: the oracles check that (seeds 4461, 487).
            if self.core is core:
                self.outside.handled(self.node_id, event)
            self.crash_plan = None
            plan.crash()
        if self.core is core:
            self.schedule()
            self.outside.handled(self.node_id, event)

    def schedule(self) -> None:
        """Set the timer and the next turn, as the core wants them now."""
        assert self.core is not None
        self._arm()
        if self.core.turn_due and not self._turn_scheduled:
            self._turn_scheduled = True
            incarnation = self.incarnation
            delay_ns = self.world.between(TURN_MIN_NS, TURN_MAX_NS)
            self.world.after(delay_ns, lambda: self._take_turn(incarnation))

    def _stop_by_fault(self, core: Core, error: PlantedBugError) -> None:
        """The core raised: carry out its last words and end, as the daemon does."""
        self.world.say(f"{self.node_id} stops because of a fault of its own: {error}")
        for effect in core.last_words(self.local_ns):
            self.carry_out(effect)
        self.outside.process_failed(self.node_id)

    def _check_spinning(self, event: Event) -> None:
        assert self.core is not None
        if type(event) is TimeCame and self.core.deadline_ns <= self.local_ns:
            self._idle_wakes += 1
            if self._idle_wakes > IDLE_WAKES_MAX:
                raise Violation("progress", f"node {self.node_id} wants to be woken at once, again and again")
        else:
            self._idle_wakes = 0

    def carry_out(self, effect: Effect) -> None:
        """Do what the core asks for."""
        match effect:
            case events.SendPeer(node_id, data):
                self.outside.send_peer(self.node_id, node_id, data)
            case events.SendHeartbeat(node_id, data):
                self.outside.send_heartbeat(self.node_id, node_id, data)
            case events.RefusePeer(node_id, incarnation):
                self.outside.refuse_peer(self.node_id, node_id, incarnation)
            case events.BeginAgain(incarnation):
                self.outside.begin_again(self.node_id, incarnation)
            case events.AskBack(node_id):
                self.outside.ask_back(self.node_id, node_id)
            case events.SendClient(link, data):
                self.outside.send_client(link, data)
            case events.Persist(record, number):
                self.disk.persist(record, number)
            case events.AskRegister():
                self.outside.ask_register(self.node_id, effect)
            case events.Fence(node_id):
                self.outside.fence(self.node_id, node_id)
            case events.TakeLarge(link):
                self.outside.take_large(link)
            case events.CloseClient(link, reason):
                self.world.say(f"{self.node_id}: closes client link {link}: {reason}")
                self.outside.close_client(link)
            case events.ClosePeer(node_id, reason):
                self.world.say(f"{self.node_id}: closes the link to {node_id}: {reason}")
                self.outside.close_peer(self.node_id, node_id)
            case events.StopReading(link):
                self.outside.read(self.node_id, link, False)
            case events.ReadOn(link):
                self.outside.read(self.node_id, link, True)
            case events.Log(level, text):
                self.world.say(
                    f"{self.node_id}: {text}" if level == "info" else f"{self.node_id}: {level}: {text}"
                )
            case events.Quarantine(name, content):
                self.quarantined[name] = content
                self.world.say(f"{self.node_id}: {len(content)} bytes of {name!r} to quarantine")
            case events.Leave(last_copy):
                self.outside.process_ended(self.node_id, last_copy)
            case _:
                assert_never(effect)

    # -- its timer

    def _arm(self) -> None:
        assert self.core is not None
        deadline_ns = self.core.deadline_ns
        if deadline_ns >= 2**62:
            return
        due_ns = max(self.clock.world_ns_at(deadline_ns), self.world.now_ns)
        if self._armed_ns >= 0 and self._armed_ns <= due_ns:
            return
        self._armed += 1
        self._armed_ns = due_ns
        armed = self._armed
        self.world.at(due_ns + self.world.between(1000, TIMER_LATE_NS), lambda: self._wake(armed))

    def _wake(self, armed: int) -> None:
        if armed != self._armed or self.core is None:
            return
        self._armed_ns = -1
        if self.paused or self._inbox:
            return
        if self.core.deadline_ns <= self.local_ns:
            self._handle(TimeCame())
        else:
            self._arm()


def new_clock(world: World) -> Clock:
    """Draw the clock of a host that was switched on."""
    options = world.options
    return Clock(
        world.between(0, 1000 * SECOND_NS),
        world.between(-options.skew_ppm, options.skew_ppm),
        world.between(-options.wall_error_ns, options.wall_error_ns),
    )
