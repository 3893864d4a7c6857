"""Faults: what can go wrong, and how each is undone. `chaos` draws when and where."""

from collections import deque
from collections.abc import Callable

from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.disk_record import parse_disk_record
from ckptd.core.events import Effect, LeaveAsked, SendClient, SendPeer
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.oracles.oracles import Oracles
from ckptd.sim.world.client_links import ClientLinks
from ckptd.sim.world.fake_etcd import FakeEtcd
from ckptd.sim.world.host import CrashPlan, Host, new_clock
from ckptd.sim.world.network import Network
from ckptd.sim.world.peer_links import Way
from ckptd.sim.world.world import World

LEAVE_LIMIT_NS = 15 * SECOND_NS
"""A node that has not left this long after it was asked to is killed, as a service manager does."""


class Faults:
    """What can be done to a cluster, and undone. Scenario tests use these verbs too.

    `hosts` are those of the data nodes; `machines` are these and the hosts of the witnesses.
    """

    def __init__(
        self,
        world: World,
        hosts: dict[str, Host],
        machines: dict[str, Host],
        network: Network,
        client_links: ClientLinks,
        register: FakeEtcd,
        oracles: Oracles,
    ) -> None:
        self.world = world
        self.hosts = hosts
        self.machines = machines
        self.network = network
        self.client_links = client_links
        self.register = register
        self.oracles = oracles
        self.healed = False
        self.open: dict[int, Callable[[], None]] = {}
        self._last = 0
        self.lost_disk: str | None = None
        self.burnt: list[str] = []
        self.rolling: deque[tuple[str, int, int]] = deque()
        self.away_ns: dict[str, int] = {}

    def end_later(self, delay_ns: int, undo: Callable[[], None]) -> None:
        """Undo a fault after this time, or when everything is healed."""
        self._last += 1
        number = self._last
        self.open[number] = undo
        self.world.after(delay_ns, lambda: self._undo(number))

    def _undo(self, number: int) -> None:
        undo = self.open.pop(number, None)
        if undo is not None:
            undo()

    def heal_all(self) -> None:
        """End all faults."""
        self.healed = True
        self.burnt.clear()
        for number in list(self.open):
            self._undo(number)
        for way in list(self.network.cuts):
            while self.network.is_cut(way):
                self.network.heal(way)
        for way in list(self.network.stalled):
            while self.network.stalled[way]:
                self.network.resume(way)
        self.network.slowness.clear()
        self.network.extra_loss = 0.0
        self.register.cuts.clear()
        for node_id, host in self.machines.items():
            host.crash_plan = None
            host.disk.full = False
            self.resume(node_id)
            self.restart(node_id)
        self.world.say("all faults have ended")

    # -- processes and machines

    def crash(self, node_id: str) -> None:
        """SIGKILL: the process ends, and its machine refuses connections."""
        host = self.machines[node_id]
        if not host.running:
            return
        self.world.say(f"fault: {node_id} crashes (incarnation {host.incarnation})")
        self.away_ns.pop(node_id, None)
        self.oracles.leaves.note_crash()
        host.stop()
        self.network.process_gone(node_id, orderly=False)
        self.client_links.process_gone(node_id, machine_too=False)

    def crash_amid_effects(self, node_id: str, away_ns: int = -1) -> None:
        """Crash the process at its next event, with only some of the event's effects carried out.

        It is back after `away_ns`; -1: it does not come back on its own.
        """
        random = self.world.random
        self._crash_within(node_id, lambda effects: random.randint(0, len(effects)), away_ns)

    def crash_on_answer(self, node_id: str, away_ns: int = -1) -> None:
        """Crash the process as soon as it has answered a client. What else it sent may not arrive."""

        def after(effects: list[Effect]) -> int:
            return len(effects) if any(type(effect) is SendClient for effect in effects) else -1

        self._crash_within(node_id, after, away_ns)

    def crash_amid_batch(self, node_id: str, away_ns: int = -1) -> None:
        """Crash the process between two updates that one event has it send: a peer gets only some of them."""
        random = self.world.random

        def after(effects: list[Effect]) -> int:
            positions = [position for position, effect in enumerate(effects) if _is_update(effect)]
            return random.randint(positions[0] + 1, positions[-1]) if len(positions) > 1 else -1

        self._crash_within(node_id, after, away_ns)

    def _crash_within(self, node_id: str, after: Callable[[list[Effect]], int], away_ns: int) -> None:
        host = self.machines[node_id]
        if not host.running or host.paused:
            return

        def crash() -> None:
            self.crash(node_id)
            if away_ns >= 0:
                self.end_later(away_ns, lambda: self.restart(node_id))

        host.crash_plan = CrashPlan(after, crash)

    def power_off(self, node_id: str) -> None:
        """Switch the machine off without any notice to the others."""
        host = self.machines[node_id]
        if not host.powered:
            return
        self.world.say(f"fault: {node_id} loses power (incarnation {host.incarnation})")
        self.away_ns.pop(node_id, None)
        self.oracles.leaves.note_crash()
        host.stop()
        host.powered = False
        host.clock = new_clock(self.world)
        self.network.machine_gone(node_id)
        self.client_links.process_gone(node_id, machine_too=True)

    def burn(self, node_id: str) -> None:
        """Burn a machine with its disk. A new one takes its place once all faults are over."""
        if node_id in self.burnt or not self.may_lose_disk(node_id):
            return
        self.lose_disk(node_id)
        self.power_off(node_id)
        self.world.say(f"fault: {node_id} is destroyed")
        self.burnt.append(node_id)

    def restart(self, node_id: str) -> None:
        """Start a process if none runs, with what is on the disk."""
        if not self.machines[node_id].running and node_id not in self.burnt:
            self.start(node_id)

    def start(self, node_id: str) -> None:
        """Start a process, with what is on the disk."""
        host = self.machines[node_id]
        host.start()
        self.world.say(f"{node_id} starts (incarnation {host.incarnation})")
        self.oracles.process_started(node_id)
        self.network.process_started(node_id)

    def pause(self, node_id: str) -> None:
        """SIGSTOP."""
        host = self.machines[node_id]
        if host.running and not host.paused:
            self.world.say(f"fault: {node_id} is paused")
            host.pause()

    def resume(self, node_id: str) -> None:
        """SIGCONT."""
        host = self.machines[node_id]
        if host.running and host.paused:
            self.world.say(f"{node_id} continues")
            host.resume()

    def stall(self, node_id: str, stall_ns: int) -> None:
        """Let the process handle nothing, as in a garbage collection; then its timer comes first."""
        host = self.machines[node_id]
        if not host.running or host.paused:
            return
        self.world.say(f"fault: {node_id} stalls for {stall_ns / MILLISECOND_NS:.0f} ms")
        incarnation = host.incarnation
        host.pause()

        def resume() -> None:
            if host.running and host.paused and host.incarnation == incarnation:
                host.resume(timer_first=True)

        self.world.after(stall_ns, resume)

    def leave(self, node_id: str) -> None:
        """SIGTERM: the node hands over and leaves. If that takes too long it is killed."""
        host = self.machines[node_id]
        if not host.running:
            return
        self.world.say(f"fault: {node_id} is asked to leave")
        incarnation = host.incarnation
        host.deliver(LeaveAsked())

        def kill() -> None:
            if host.running and host.incarnation == incarnation:
                self.world.say(f"{node_id} took too long to leave")
                self.crash(node_id)
                self.restart(node_id)

        self.world.after(LEAVE_LIMIT_NS, kill)

    # -- orderly restarts

    def roll(self, steps: list[tuple[str, int, int]]) -> None:
        """Restart nodes in turn. A step is a node, a pause after the last node ended, and the time away.

        Nothing checks in between that the previous node is back.
        """
        if not self.rolling and not self.away_ns:
            self.rolling = deque(steps)
            self._roll_next()

    def _roll_next(self) -> None:
        if self.rolling:
            node_id, pause_ns, away_ns = self.rolling.popleft()
            self.world.after(pause_ns, lambda: self._roll_one(node_id, away_ns))

    def _roll_one(self, node_id: str, away_ns: int) -> None:
        if self.healed or not self.machines[node_id].running:
            self.rolling.clear()
            return
        self.away_ns[node_id] = away_ns
        self.leave(node_id)

    def roll_at_once(self, away_ns: dict[str, int]) -> None:
        """Ask all of these nodes to leave at once. Each is started again this long after it has ended."""
        if self.rolling or self.away_ns or not all(self.machines[n].running for n in away_ns):
            return
        self.away_ns = dict(away_ns)
        for node_id in away_ns:
            self.leave(node_id)

    def on_left(self, node_id: str) -> None:
        """A node that was asked to leave has ended."""
        away_ns = self.away_ns.pop(node_id, -1)
        if away_ns >= 0:
            self.world.after(away_ns, lambda: self.restart(node_id))
            self._roll_next()

    # -- disks and the register

    def fill_disk(self, node_id: str) -> None:
        """Let every write to this disk fail."""
        self.world.say(f"fault: the disk of {node_id} is full")
        self.machines[node_id].disk.full = True

    def free_disk(self, node_id: str) -> None:
        """Let writes to this disk succeed again."""
        self.world.say(f"the disk of {node_id} has free space again")
        self.machines[node_id].disk.full = False

    def lose_disk(self, node_id: str) -> None:
        """Crash the process and delete its state directory."""
        host = self.machines[node_id]
        self.crash(node_id)
        if not host.running:
            self.world.say(f"fault: {node_id} lost its disk")
            host.disk.record = b""
            host.saved_incarnation = 0
            self.lost_disk = node_id

    def may_lose_disk(self, node_id: str) -> bool:
        """Return True if a node may lose its disk: one at a time, while the others know what it knows.

        * Not while the disk of another node names no view: that node knows as little as one whose disk was
          lost.
        * Not before the last node that lost its disk is a member again.
        * In a pair, only while both are in one view: a node that continued alone is the only one that knows
          of it.
        """
        witnesses = self.world.options.witness_ids
        machines = self.machines.items()
        if not all(_names_view(machine.disk.record, name in witnesses) for name, machine in machines):
            return False
        members = [self._member_of(each) for each in self.hosts]
        if self.world.options.nodes == 2 and (0 in members or len(set(members)) > 1):
            return False
        return self.lost_disk in (None, node_id) or self._member_of(self.lost_disk or "") > 0

    def _member_of(self, node_id: str) -> int:
        """Return the epoch of the view that a node has installed as a member; 0 if there is none."""
        node = self.hosts[node_id].node
        if node is None or node.view is None or not node.view.includes(node_id, node.context.incarnation):
            return 0
        return node.view.epoch

    def cut_register(self, node_ids: list[str]) -> None:
        """Cut these nodes off from the external register."""
        self.world.say(f"fault: {', '.join(node_ids)} cannot reach the register")
        for node_id in node_ids:
            self.register.cut(node_id)

    def heal_register(self, node_ids: list[str]) -> None:
        """Let these nodes reach the register again."""
        self.world.say(f"{', '.join(node_ids)} can reach the register again")
        for node_id in node_ids:
            self.register.heal(node_id)

    # -- the network

    def ways_around(self, node_id: str) -> list[Way]:
        """Return all ways from and to one host."""
        return self.ways_between([node_id], list(self.network.peers_of(node_id)))

    def ways_between(self, side: list[str], rest: list[str]) -> list[Way]:
        """Return all ways from one side to the other and back."""
        return [way for one in side for other in rest for way in ((one, other), (other, one))]

    def cut(self, ways: list[Way]) -> None:
        """Let nothing pass on these ways."""
        self.world.say("fault: cut " + " ".join(f"{sender}>{node_id}" for sender, node_id in ways))
        for way in ways:
            self.network.cut(way)

    def heal(self, ways: list[Way]) -> None:
        """Open these ways again."""
        self.world.say("healed " + " ".join(f"{sender}>{node_id}" for sender, node_id in ways))
        for way in ways:
            self.network.heal(way)

    def cut_for(self, delay_ns: int, ways: list[Way]) -> None:
        """Cut these ways for a while."""
        self.cut(ways)
        self.end_later(delay_ns, lambda: self.heal(ways))

    def stall_link(self, delay_ns: int, way: Way) -> None:
        """Stick one direction of a link for a while; heartbeats pass."""
        self.world.say(f"fault: the link {way[0]}>{way[1]} is stuck")
        self.network.stall(way)
        self.end_later(delay_ns, lambda: self._resume_link(way))

    def _resume_link(self, way: Way) -> None:
        self.world.say(f"the link {way[0]}>{way[1]} continues")
        self.network.resume(way)

    def break_link(self, node_id: str, peer: str) -> None:
        """Reset the connection between two nodes."""
        self.world.say(f"fault: the link {node_id}-{peer} is reset")
        self.network.break_link(node_id, peer)

    def slow(self, ways: list[Way], factor: int) -> None:
        """Make everything on these ways take `factor` times as long; 1 undoes it."""
        self.world.say(f"fault: {factor} times slower " + " ".join(f"{one}>{other}" for one, other in ways))
        for way in ways:
            self.network.slowness[way] = factor

    def slow_for(self, delay_ns: int, ways: list[Way]) -> None:
        """Slow these ways down for a while, by a random factor."""
        self.slow(ways, self.world.random.choice((10, 100)))
        self.end_later(delay_ns, lambda: self.slow(ways, 1))

    def lossy(self, loss: float) -> None:
        """Lose this share of datagrams everywhere, in addition to the ordinary loss."""
        self.world.say(f"fault: {loss:.0%} more of all datagrams are lost")
        self.network.extra_loss = loss


def _is_update(effect: Effect) -> bool:
    return type(effect) is SendPeer and FrameDecoder().feed(effect.data)[0].kind == Kind.REPLICATE


def _names_view(packed: bytes, witness: bool) -> bool:
    """Return True if a disk names a view that its node was in; for a witness, any view.

    A node that only accepted a view knows no more than one that lost its disk (ADR 11, seed 11761).
    """
    record = parse_disk_record(packed)
    return record.installed_epoch > 0 or (witness and record.view is not None)
