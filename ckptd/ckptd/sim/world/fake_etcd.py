"""The register outside: what a cluster of `etcd` is to its clients, with all that can go wrong on the way.

A revision and a value. A swap may be lost, its answer may be lost, and it may be done
after the node was told that nobody knows (a server does not hear that its client has
given up).
"""

from collections.abc import Mapping
from typing import Final

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.draw.profiles import MICROSECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World

DELAY_MIN_NS: Final = 300 * MICROSECOND_NS
DELAY_MAX_NS: Final = 10 * MILLISECOND_NS
SLOW_MAX_NS: Final = 300 * MILLISECOND_NS
TIMEOUT_MIN_NS: Final = 200 * MILLISECOND_NS
TIMEOUT_MAX_NS: Final = 1000 * MILLISECOND_NS
LATE_MAX_NS: Final = 400 * MILLISECOND_NS
"""How long after the time-out was told a request may still be carried out."""


class Register:
    """`revision` is 0 until a value is put there. `cuts` counts, by node, what keeps it from the register.

    While `quiet` nothing is lost or slow.
    """

    def __init__(self, world: World, hosts: Mapping[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.revision = 0
        self.value: bytes | None = None
        self.cuts: dict[str, int] = {}
        self.quiet = False

    def cut(self, node_id: str) -> None:
        """This node does not reach the register any more."""
        self.cuts[node_id] = self.cuts.get(node_id, 0) + 1

    def heal(self, node_id: str) -> None:
        """One cut of this node is over."""
        self.cuts[node_id] = max(0, self.cuts.get(node_id, 0) - 1)

    def ask(self, node_id: str, asked: AskRegister) -> None:
        """One request of a node's; it is told the answer, or after a bounded time that there is none."""
        world, host = self.world, self.hosts[node_id]
        incarnation = host.incarnation
        answered: list[bool] = []

        def tell(event: RegisterAnswered | RegisterFailed) -> None:
            if not answered and host.incarnation == incarnation:
                answered.append(True)
                host.deliver(event)

        def answer(event: RegisterAnswered) -> None:
            if not self._is_lost(node_id, 0.03):
                world.after(self._delay_ns(), lambda: tell(event))

        timeout_ns = world.between(TIMEOUT_MIN_NS, TIMEOUT_MAX_NS)
        world.after(timeout_ns, lambda: tell(RegisterFailed(asked.number, "no answer in time")))
        if self._is_lost(node_id, 0.03):
            return
        delay_ns = self._delay_ns()
        if not self.quiet and world.chance(0.03):
            delay_ns = timeout_ns + world.between(0, LATE_MAX_NS)
        world.after(delay_ns, lambda: answer(self._carry_out(asked)))

    def _is_lost(self, node_id: str, loss: float) -> bool:
        return self.cuts.get(node_id, 0) > 0 or (not self.quiet and self.world.chance(loss))

    def _delay_ns(self) -> int:
        slow = not self.quiet and self.world.chance(0.05)
        return self.world.between(DELAY_MIN_NS, SLOW_MAX_NS if slow else DELAY_MAX_NS)

    def _carry_out(self, asked: AskRegister) -> RegisterAnswered:
        swapped = asked.value is not None and asked.revision == self.revision
        if swapped:
            # Others write to that cluster too, and a revision counts every write.
            self.revision += self.world.between(1, 3)
            self.value = asked.value
        return RegisterAnswered(asked.number, swapped, self.revision, self.value)
