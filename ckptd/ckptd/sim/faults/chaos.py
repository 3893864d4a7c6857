"""Chaos: which fault comes next, where, and for how long. The seed determines the mix."""

from typing import Final

from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.core.view import View
from ckptd.sim.clients.clients import Clients
from ckptd.sim.faults.faults import Faults

STALL_MIN_NS: Final = 20 * MILLISECOND_NS
STALL_MAX_NS: Final = 450 * MILLISECOND_NS
"""A full garbage collection over two million objects takes about that long."""

BETWEEN_HOSTS: Final = (
    "cut-one-way",
    "cut-pair",
    "isolate",
    "partition",
    "slow-link",
    "break-link",
    "stuck-link",
    "stuck-briefly",
    "cut-then-crash",
    "lag-then-crash",
    "join-then-crash",
)
INJECTIONS: Final = ("crash-process", "pause", "isolate", "break-link")


class Chaos:
    """Draws faults while `on`."""

    def __init__(self, faults: Faults, clients: Clients) -> None:
        self.faults = faults
        self.clients = clients
        self.world = faults.world
        self.hosts = faults.hosts
        self.machines = faults.machines
        self.oracles = faults.oracles
        self.on = False
        self._injections = 0

    def begin(self) -> None:
        """Let faults come."""
        faults, options = self.faults, self.world.options
        self.on = options.fault_every_ns > 0
        if self.on and options.slow_factor > 1 and len(self.machines) > 1:
            node_id = self.world.random.choice(list(self.machines))
            faults.slow(faults.ways_around(node_id), options.slow_factor)
        self._next()

    def end(self) -> None:
        """Draw no more faults."""
        self.on = False

    def _next(self) -> None:
        if self.on:
            self.world.after(self.world.about(self.world.options.fault_every_ns), self._draw)

    def _draw(self) -> None:
        if not self.on:
            return
        self._next()
        if self.faults.open and not self.world.options.faults_overlap:
            return
        weights = self.world.options.fault_weights
        kind = self.world.random.choices(list(weights), list(weights.values()))[0]
        self.do(kind)

    def do(self, kind: str) -> None:
        """Cause one fault of this kind, at a random place and for a random time."""
        faults = self.faults
        random = self.world.random
        node_id = random.choice(list(self.machines))
        if kind in BETWEEN_HOSTS:
            if self._others(node_id):
                self._do_between(kind, node_id, random.choice(self._others(node_id)))
            return
        match kind:
            case "break-client":
                self.clients.break_link()
            case "crash-client":
                self.clients.crash_one()
            case "strike-installer":
                self._injections += 1
            case "crash-the-others":
                self._crash_the_others(node_id)
            case "forget-and-swap":
                self._forget_and_swap()
            case "lossy":
                faults.lossy(0.3)
                faults.end_later(self._long_ns(), lambda: faults.lossy(0.0))
            case "slow-node":
                faults.slow_for(self._long_ns(), faults.ways_around(node_id))
            case "register-cut" | "witness-cut" | "disk-full" | "disk-lost":
                self._do_to_deciders(kind)
            case _:
                self._do_to_process(kind, node_id)

    def _short_ns(self) -> int:
        return self.world.between(10 * MILLISECOND_NS, SECOND_NS)

    def _long_ns(self) -> int:
        return self.world.between(50 * MILLISECOND_NS, 4 * SECOND_NS)

    def _either_ns(self) -> int:
        return self._short_ns() if self.world.chance(0.5) else self._long_ns()

    def _away_ns(self, otherwise_ns: int) -> int:
        """Draw how long a process that died stays away."""
        most_ns = self.world.options.restart_max_ns
        return otherwise_ns if most_ns < 0 else self.world.between(0, most_ns)

    def _do_to_process(self, kind: str, node_id: str) -> None:
        faults = self.faults
        between, options = self.world.between, self.world.options
        match kind:
            case "crash-process":
                faults.crash(node_id)
                faults.end_later(self._away_ns(self._short_ns()), lambda: faults.restart(node_id))
            case "crash-amid-effects":
                faults.crash_amid_effects(node_id, self._away_ns(self._short_ns()))
            case "crash-on-answer":
                faults.crash_on_answer(node_id, self._away_ns(self._short_ns()))
            case "crash-amid-batch":
                faults.crash_amid_batch(node_id, self._away_ns(self._short_ns()))
            case "crash-host":
                faults.power_off(node_id)
                faults.end_later(self._away_ns(self._long_ns()), lambda: faults.restart(node_id))
            case "crash-all":
                for each in self.machines:
                    faults.crash(each)
                    away_ns = self._away_ns(between(0, SECOND_NS))
                    faults.end_later(away_ns, lambda each=each: faults.restart(each))  # type: ignore[misc]
            case "pause":
                faults.pause(node_id)
                drawn_ns = between(options.pause_min_ns, options.pause_max_ns)
                faults.end_later(drawn_ns or self._either_ns(), lambda: faults.resume(node_id))
            case "collector-stall":
                faults.stall(node_id, between(STALL_MIN_NS, STALL_MAX_NS))
            case "roll":
                self._roll()
            case "roll-at-once":
                faults.roll_at_once({each: self._away_ns(0) for each in self.hosts})
            case "burn":
                faults.burn(node_id)
            case "leave" if node_id in self.hosts:
                faults.leave(node_id)
                faults.end_later(self._long_ns(), lambda: faults.restart(node_id))

    def _roll(self) -> None:
        """Restart every node in turn, or some. The pauses are drawn once, as in a script."""
        nodes = self.world.random.sample(list(self.hosts), len(self.hosts))
        pause_ns = self.world.random.choice((0, 3, 30, 300)) * MILLISECOND_NS
        self.faults.roll([(node_id, pause_ns, self._away_ns(0)) for node_id in nodes])

    def _do_between(self, kind: str, node_id: str, peer: str) -> None:
        faults = self.faults
        random, hosts = self.world.random, list(self.machines)
        match kind:
            case "cut-one-way":
                faults.cut_for(self._either_ns(), [(node_id, peer)])
            case "cut-pair":
                faults.cut_for(self._either_ns(), [(node_id, peer), (peer, node_id)])
            case "isolate":
                faults.cut_for(self._long_ns(), faults.ways_around(node_id))
            case "partition":
                side = random.sample(hosts, random.randint(1, len(hosts) - 1))
                rest = [each for each in hosts if each not in side]
                faults.cut_for(self._long_ns(), faults.ways_between(side, rest))
            case "slow-link":
                faults.slow_for(self._long_ns(), [(node_id, peer), (peer, node_id)])
            case "break-link":
                faults.break_link(node_id, peer)
            case "stuck-link":
                self._stall_link(node_id, peer)
            case "stuck-briefly":
                faults.stall_link(self.world.between(MILLISECOND_NS, 60 * MILLISECOND_NS), (node_id, peer))
            case "cut-then-crash":
                self._cut_then_crash(node_id, peer)
            case "lag-then-crash":
                self._lag_then_crash()
            case "join-then-crash":
                self._join_then_crash()

    def _cut_then_crash(self, node_id: str, peer: str) -> None:
        """Cut a node off from one peer's messages, and crash it as soon as it receives them again.

        It may have continued alone in between.
        """
        faults, lease_ns = self.faults, self.world.options.lease_ns
        faults.break_link(node_id, peer)
        cut_ns = self.world.between(lease_ns, 6 * lease_ns)
        faults.cut_for(cut_ns, [(peer, node_id)])

        def crash() -> None:
            if self.on:
                self._do_to_process("crash-process", node_id)

        self.world.after(cut_ns + self.world.between(0, lease_ns), crash)

    def _stall_link(self, node_id: str, peer: str) -> None:
        """Have a node excluded because its acknowledgements are stuck; then perhaps crash its excluder.

        The second node waits for the end of a lease before it serves alone.
        """
        options, between = self.world.options, self.world.between
        self.faults.stall_link(
            between(options.replica_timeout_ns // 2, 4 * options.lease_ns), (node_id, peer)
        )

        def crash() -> None:
            if self.on:
                self._do_to_process("crash-process", peer)

        if self.world.chance(0.4):
            out_ns = options.replica_timeout_ns
            self.world.after(between(out_ns, out_ns + 3 * options.lease_ns // 2), crash)

    def _lag_then_crash(self) -> None:
        """Make one peer of an active replica lag; then crash the active one's node while the peer lags.

        Without this, replicas differed in 7 of 560 take-overs, because links are too fast.
        """
        faults, options, random = self.faults, self.world.options, self.world.random
        active = dict.fromkeys(period.node_id for period in self.oracles.replicas.active_periods.values())
        node_id = random.choice(list(active) or list(self.hosts))
        peer = random.choice(self._other_holders(node_id) or self._others(node_id))
        lag_ns = self.world.between(20 * MILLISECOND_NS, options.lease_ns // 3)
        way = [(node_id, peer)]
        faults.slow(way, max(2, lag_ns // options.delay_max_ns))

        def crash() -> None:
            faults.slow(way, 1)
            if self.on:
                self._do_to_process("crash-process", node_id)

        self.world.after(self.world.between(5 * MILLISECOND_NS, lag_ns), crash)

    def _join_then_crash(self) -> None:
        """Hold back an active replica's answers to one node while another node joins; then crash it.

        The node that joined takes over, and is asked again for what the stuck node had passed on.
        """
        faults, random, between = self.faults, self.world.random, self.world.between
        active = random.choice([r.node_id for r in self.oracles.replicas.active_periods.values()] or [""])
        node = self.hosts[active].node if active else None
        if node is None:
            return
        away = random.choice(self._other_holders(active) or self._others(active))
        waits = random.choice([n for n in self._others(active) if n != away])
        lease_ns = self.world.options.lease_ns
        faults.stall_link(lease_ns, (active, waits))
        self._do_to_process("crash-process", away)

        def crash() -> None:
            if self.on:
                self._do_to_process("crash-process", active)

        self.world.after(between(lease_ns // 10, lease_ns // 2), crash)

    def _other_holders(self, active: str) -> list[str]:
        """Return the nodes with in-sync replicas of what is active on a node, one for each replica."""
        node = self.hosts[active].node
        entries = node.directory.checkpoints.values() if node is not None else ()
        return [n for entry in entries if entry.active == active for n in entry.in_sync if n != active]

    def _crash_the_others(self, node_id: str) -> None:
        """Cut a node off while the others continue, then crash all others: it has the older state."""
        faults, lease_ns = self.faults, self.world.options.lease_ns
        cut_ns = self.world.between(2 * lease_ns, 6 * lease_ns)
        faults.cut_for(cut_ns, faults.ways_around(node_id))

        def crash() -> None:
            for other in self._others(node_id) if self.on else []:
                self._do_to_process("crash-process", other)

        self.world.after(cut_ns - self.world.between(0, lease_ns), crash)

    def _forget_and_swap(self) -> None:
        """Cut a node off; one that continued loses its disk, and another is cut off in its place.

        Now there is a majority again, and no node in it remembers what was decided.
        """
        faults, lease_ns = self.faults, self.world.options.lease_ns
        away, forgets, next_away = self.world.random.sample(list(self.hosts), 3)
        cut_ns = self.world.between(2 * lease_ns, 5 * lease_ns)
        faults.cut_for(cut_ns, faults.ways_around(away))

        def swap() -> None:
            if self.on and faults.may_lose_disk(forgets):
                faults.lose_disk(forgets)
                faults.end_later(self._away_ns(self._short_ns() // 4), lambda: faults.restart(forgets))
                faults.cut_for(self.world.between(3 * lease_ns, 6 * lease_ns), faults.ways_around(next_away))

        self.world.after(cut_ns, swap)

    def _do_to_deciders(self, kind: str) -> None:
        """Cause faults of disks, of witnesses, and of the way to the register."""
        faults = self.faults
        random, nodes = self.world.random, list(self.hosts)
        some = random.sample(nodes, random.randint(1, len(nodes)))
        node_id = some[0]
        match kind:
            case "register-cut":
                faults.cut_register(some)
                faults.end_later(self._either_ns(), lambda: faults.heal_register(some))
            case "witness-cut":
                witness = random.choice(self.world.options.witness_ids)
                faults.cut_for(self._either_ns(), faults.ways_between([witness], some))
            case "disk-full":
                faults.fill_disk(node_id)
                faults.end_later(self._either_ns(), lambda: faults.free_disk(node_id))
            case "disk-lost" if faults.may_lose_disk(node_id):
                faults.lose_disk(node_id)
                faults.end_later(self._away_ns(self._short_ns()), lambda: faults.restart(node_id))

    def on_decided(self, view: View) -> None:
        """A view was decided: if an injection is due, inject a fault at its coordinator while it collects."""
        if not self._injections or not self.on or not self._others(view.coordinator):
            return
        self._injections -= 1
        delay_ns = self.world.between(0, 5 * self.world.options.delay_max_ns)
        self.world.after(delay_ns, lambda: self._inject(view.coordinator))

    def _inject(self, node_id: str) -> None:
        kind = self.world.random.choice(INJECTIONS) if self.on else ""
        if kind in BETWEEN_HOSTS:
            self._do_between(kind, node_id, self.world.random.choice(self._others(node_id)))
        elif kind:
            self._do_to_process(kind, node_id)

    def _others(self, node_id: str) -> list[str]:
        return [each for each in self.machines if each != node_id]
