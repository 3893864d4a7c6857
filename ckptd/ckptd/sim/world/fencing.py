"""The fence hook. It cuts a machine's power, fails, or cuts the power without reporting it."""

from collections.abc import Callable, Mapping
from typing import Final

from ckptd.core.events import FenceEnded
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World

TIMEOUT_NS: Final = 2 * SECOND_NS


class Fencing:
    """All running hooks. A node runs at most one hook per peer at a time."""

    def __init__(self, world: World, hosts: Mapping[str, Host], power_off: Callable[[str], None]) -> None:
        self.world = world
        self.hosts = hosts
        self.power_off = power_off
        self.reliable = False
        self._running: dict[tuple[str, int, str], None] = {}

    @property
    def running(self) -> list[str]:
        """The nodes whose power a running hook may still cut."""
        return [node_id for _, _, node_id in self._running]

    def fence(self, sender: str, node_id: str) -> None:
        """Run a node's hook for a peer, unless it runs already."""
        world = self.world
        hook = (sender, self.hosts[sender].incarnation, node_id)
        if hook in self._running:
            return
        self._running[hook] = None
        delay_ns = world.between(20 * MILLISECOND_NS, SECOND_NS)
        if self.reliable or world.chance(0.7):
            world.after(delay_ns, lambda: self._cut(node_id))
            world.after(delay_ns + 1, lambda: self._end(hook, True, ""))
        elif world.chance(0.5):
            world.after(delay_ns, lambda: self._end(hook, False, "exit code 1"))
        else:
            if world.chance(0.5):
                world.after(2 * delay_ns, lambda: self._cut(node_id))
            world.after(TIMEOUT_NS, lambda: self._end(hook, False, "no end within the time limit"))

    def _cut(self, node_id: str) -> None:
        self.world.say(f"the fence hook cuts the power of {node_id}")
        self.power_off(node_id)

    def _end(self, hook: tuple[str, int, str], fenced: bool, text: str) -> None:
        del self._running[hook]
        sender, incarnation, node_id = hook
        if self.hosts[sender].incarnation == incarnation:
            self.hosts[sender].deliver(FenceEnded(node_id, fenced, text))
