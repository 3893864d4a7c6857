"""The external register: what an etcd cluster is to its clients, with all that can go wrong on the way.

The register holds a revision and a value. A swap may be lost and its answer may be lost. It may also be
carried out after the node was informed that the outcome is unknown, because a server does not learn that its
client no longer waits.
"""

from collections.abc import Mapping
from typing import Final

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed
from ckptd.core.settings import MILLISECOND_NS
from ckptd.sim.draw.options import MICROSECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World

DELAY_MIN_NS: Final = 300 * MICROSECOND_NS
DELAY_MAX_NS: Final = 10 * MILLISECOND_NS
SLOW_MAX_NS: Final = 300 * MILLISECOND_NS
TIMEOUT_MIN_NS: Final = 200 * MILLISECOND_NS
TIMEOUT_MAX_NS: Final = 1000 * MILLISECOND_NS
LATE_MAX_NS: Final = 400 * MILLISECOND_NS
"""How long after the reported time-out a request may still be carried out."""


class FakeEtcd:
    """The register of one simulation."""

    def __init__(self, world: World, hosts: Mapping[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.revision = 0
        """0 until a value is written."""

        self.value: bytes | None = None
        self.cuts: dict[str, int] = {}
        """How many cuts keep each node from the register."""

        self.reliable = False
        """While True, nothing is lost or slow."""

        self.loses_swaps = False
        """While True, the answer to each swap that is done is lost."""

    def cut(self, node_id: str) -> None:
        """Cut this node off from the register."""
        self.cuts[node_id] = self.cuts.get(node_id, 0) + 1

    def heal(self, node_id: str) -> None:
        """End one cut of this node."""
        self.cuts[node_id] = max(0, self.cuts.get(node_id, 0) - 1)

    def ask(self, node_id: str, request: AskRegister) -> None:
        """Carry out one request of a node. It gets the answer, or a failure after a bounded time."""
        world, host = self.world, self.hosts[node_id]
        incarnation = host.incarnation
        answered: list[bool] = []

        def report(event: RegisterAnswered | RegisterFailed) -> None:
            if not answered and host.incarnation == incarnation:
                answered.append(True)
                host.deliver(event)

        def answer(event: RegisterAnswered) -> None:
            if not self._is_lost(node_id, 0.03) and not (self.loses_swaps and event.swapped):
                world.after(self._delay_ns(), lambda: report(event))

        timeout_ns = world.between(TIMEOUT_MIN_NS, TIMEOUT_MAX_NS)
        world.after(
            timeout_ns, lambda: report(RegisterFailed(request.number, "no answer within the time limit"))
        )
        if self._is_lost(node_id, 0.03):
            return
        delay_ns = self._delay_ns()
        if not self.reliable and world.chance(0.03):
            delay_ns = timeout_ns + world.between(0, LATE_MAX_NS)
        world.after(delay_ns, lambda: answer(self._carry_out(request)))

    def _is_lost(self, node_id: str, loss: float) -> bool:
        return self.cuts.get(node_id, 0) > 0 or (not self.reliable and self.world.chance(loss))

    def _delay_ns(self) -> int:
        slow = not self.reliable and self.world.chance(0.05)
        return self.world.between(DELAY_MIN_NS, SLOW_MAX_NS if slow else DELAY_MAX_NS)

    def _carry_out(self, request: AskRegister) -> RegisterAnswered:
        swapped = request.value is not None and request.revision == self.revision
        if swapped:
            # Other clients write to that cluster too, and the revision counts every write.
            self.revision += self.world.between(1, 3)
            self.value = request.value
        return RegisterAnswered(request.number, swapped, self.revision, self.value)
