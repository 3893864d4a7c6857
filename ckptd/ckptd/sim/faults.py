"""Faults: what goes wrong, when, and how it is put right again. The mix is the seed's."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ckptd.core.events import LeaveAsked
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.host import new_clock
from ckptd.sim.network import Way
from ckptd.sim.options import FAULT_KINDS

if TYPE_CHECKING:
    from ckptd.sim.cluster import Cluster

LEAVE_LIMIT_NS = 15 * SECOND_NS
"""A node that was asked to leave and has not after so long is killed, as a service manager does."""


class Faults:
    """Draws faults while `on`, and can undo all of them. The methods are also the verbs of scenario tests."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.network = cluster.network
        self.on = False
        self.healed = False
        self._open: dict[int, Callable[[], None]] = {}
        self._last = 0

    # -- drawing them

    def begin(self) -> None:
        """Let faults come."""
        self.on = self.world.options.fault_every_ns > 0
        self._next()

    def _next(self) -> None:
        if self.on:
            self.world.after(self.world.about(self.world.options.fault_every_ns), self._draw)

    def _draw(self) -> None:
        if not self.on:
            return
        self._next()
        if self._open and not self.world.options.faults_overlap:
            return
        kind = self.world.random.choices(FAULT_KINDS, self.world.options.fault_weights)[0]
        self.do(kind)

    def do(self, kind: str) -> None:
        """One fault of this kind, at a place and for a time that are drawn."""
        random, between = self.world.random, self.world.between
        hosts = self.cluster.hosts
        node_id = random.choice(list(hosts))
        others = list(self.network.peers_of(node_id))
        if not others and kind in (
            "cut-one-way",
            "cut-pair",
            "isolate",
            "partition",
            "slow-link",
            "break-link",
        ):
            return
        peer = random.choice(others) if others else node_id
        short_ns, long_ns = (
            between(10 * MILLISECOND_NS, SECOND_NS),
            between(50 * MILLISECOND_NS, 4 * SECOND_NS),
        )
        match kind:
            case "crash-process":
                self.crash(node_id)
                self._end_later(short_ns, lambda: self.restart(node_id))
            case "crash-amid-effects":
                self.crash_amid_effects(node_id)
                self._end_later(short_ns, lambda: self.restart(node_id))
            case "crash-host":
                self.power_off(node_id)
                self._end_later(long_ns, lambda: self.restart(node_id))
            case "crash-all":
                for each in hosts:
                    self.crash(each)
                    self._end_later(between(0, SECOND_NS), lambda each=each: self.restart(each))  # type: ignore[misc]
            case "pause":
                self.pause(node_id)
                self._end_later(random.choice((short_ns, long_ns)), lambda: self.resume(node_id))
            case "leave":
                self.leave(node_id)
                self._end_later(long_ns, lambda: self.restart(node_id))
            case "cut-one-way":
                self._cut_for(random.choice((short_ns, long_ns)), [(node_id, peer)])
            case "cut-pair":
                self._cut_for(random.choice((short_ns, long_ns)), [(node_id, peer), (peer, node_id)])
            case "isolate":
                self._cut_for(long_ns, self.ways_between([node_id], others))
            case "partition":
                side = random.sample(list(hosts), random.randint(1, len(hosts) - 1))
                rest = [each for each in hosts if each not in side]
                self._cut_for(long_ns, self.ways_between(side, rest))
            case "slow-link":
                self._slow_for(long_ns, [(node_id, peer), (peer, node_id)])
            case "slow-node":
                self._slow_for(long_ns, self.ways_between([node_id], others))
            case "lossy":
                self.lossy(0.3)
                self._end_later(long_ns, lambda: self.lossy(0.0))
            case "break-link":
                self.world.say(f"fault: the link {node_id}-{peer} is reset")
                self.network.break_link(node_id, peer)
            case "break-client":
                self.cluster.break_client_link()
            case "crash-client":
                self.cluster.crash_client()

    def _end_later(self, delay_ns: int, undo: Callable[[], None]) -> None:
        self._last += 1
        number = self._last
        self._open[number] = undo
        self.world.after(delay_ns, lambda: self._undo(number))

    def _undo(self, number: int) -> None:
        undo = self._open.pop(number, None)
        if undo is not None:
            undo()

    def heal_all(self) -> None:
        """No more faults, and none of those that were."""
        self.on = False
        self.healed = True
        for number in list(self._open):
            self._undo(number)
        for way in list(self.network.cuts):
            while self.network.is_cut(way):
                self.network.heal(way)
        self.network.slowness.clear()
        self.network.extra_loss = 0.0
        for node_id, host in self.cluster.hosts.items():
            host.crash_after = None
            self.resume(node_id)
            self.restart(node_id)
        self.world.say("all faults are over")

    # -- processes and machines

    def crash(self, node_id: str) -> None:
        """SIGKILL: the process is gone, its machine refuses connections."""
        host = self.cluster.hosts[node_id]
        if not host.running:
            return
        self.world.say(f"fault: {node_id} crashes (incarnation {host.incarnation})")
        host.stop()
        self.network.process_gone(node_id, orderly=False)
        self.cluster.client_links.process_gone(node_id, machine_too=False)

    def crash_amid_effects(self, node_id: str) -> None:
        """The process is gone at its next event, with only a part of what that asked for done."""
        host = self.cluster.hosts[node_id]
        if host.running and not host.paused:
            random = self.world.random
            host.on_crash_amid = lambda: self.crash(node_id)
            host.crash_after = lambda effects: random.randint(0, effects)

    def power_off(self, node_id: str) -> None:
        """The machine is gone without a word."""
        host = self.cluster.hosts[node_id]
        if not host.powered:
            return
        self.world.say(f"fault: {node_id} loses power (incarnation {host.incarnation})")
        host.stop()
        host.powered = False
        host.clock = new_clock(self.world)
        self.network.machine_gone(node_id)
        self.cluster.client_links.process_gone(node_id, machine_too=True)

    def restart(self, node_id: str) -> None:
        """Start a process where none runs, on the disk that is there."""
        if not self.cluster.hosts[node_id].running:
            self.cluster.start_node(node_id)

    def pause(self, node_id: str) -> None:
        """SIGSTOP."""
        host = self.cluster.hosts[node_id]
        if host.running and not host.paused:
            self.world.say(f"fault: {node_id} is paused")
            host.pause()

    def resume(self, node_id: str) -> None:
        """SIGCONT."""
        host = self.cluster.hosts[node_id]
        if host.running and host.paused:
            self.world.say(f"{node_id} goes on")
            host.resume()

    def leave(self, node_id: str) -> None:
        """SIGTERM: it hands over and leaves; killed if that takes too long."""
        host = self.cluster.hosts[node_id]
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

    # -- the network

    def ways_between(self, side: list[str], rest: list[str]) -> list[Way]:
        """All ways from one side to the other and back."""
        return [way for one in side for other in rest for way in ((one, other), (other, one))]

    def cut(self, ways: list[Way]) -> None:
        """Nothing passes on these ways."""
        self.world.say("fault: cut " + " ".join(f"{sender}>{node_id}" for sender, node_id in ways))
        for way in ways:
            self.network.cut(way)

    def heal(self, ways: list[Way]) -> None:
        """These ways are open again."""
        self.world.say("healed " + " ".join(f"{sender}>{node_id}" for sender, node_id in ways))
        for way in ways:
            self.network.heal(way)

    def _cut_for(self, delay_ns: int, ways: list[Way]) -> None:
        self.cut(ways)
        self._end_later(delay_ns, lambda: self.heal(ways))

    def slow(self, ways: list[Way], factor: int) -> None:
        """Everything on these ways takes `factor` times as long; 1 undoes it."""
        self.world.say(f"fault: {factor} times slower " + " ".join(f"{one}>{other}" for one, other in ways))
        for way in ways:
            self.network.slowness[way] = factor

    def _slow_for(self, delay_ns: int, ways: list[Way]) -> None:
        self.slow(ways, self.world.random.choice((10, 100)))
        self._end_later(delay_ns, lambda: self.slow(ways, 1))

    def lossy(self, loss: float) -> None:
        """So many more datagrams are lost everywhere."""
        self.world.say(f"fault: {loss:.0%} more of all datagrams are lost")
        self.network.extra_loss = loss
