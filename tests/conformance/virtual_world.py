"""The in-process cluster: real cores in virtual time, the real client library on a loop in virtual time."""

import asyncio
import itertools
import time
from typing import Any

import pytest
from tests.conformance.virtual_cluster import ClientsCluster, settled_cluster
from tests.conformance.virtual_loop import VirtualLoop, VirtualRunner
from tests.conformance.world import NODES, Version, World
from tests.core.cluster import WALL_OFFSET_NS

from ckpt_client.io import aio_connection, aio_links, time_limit
from ckpt_client.saf import CheckpointService
from ckpt_protocol.parse_requests import Describe
from ckptd.core.checks.invariants import broken_invariants


class CountedSecrets:
    """Instead of `secrets`: other numbers at each call, the same in each run."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def token_bytes(self, count: int) -> bytes:
        """Return bytes that no earlier call returned."""
        return next(self._numbers).to_bytes(count, "big")

    def randbits(self, bits: int) -> int:
        """Return a number that no earlier call returned."""
        return next(self._numbers)


class VirtualTime:
    """Instead of `time` in the client library: on a virtual loop its own time, elsewhere the real one."""

    def monotonic_ns(self) -> int:
        """Return the loop's time."""
        loop = asyncio._get_running_loop()
        return loop.cluster.now_ns if isinstance(loop, VirtualLoop) else time.monotonic_ns()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class VirtualWorld(World):
    """A new cluster of three nodes for each scenario. Nothing sleeps, and every run is the same."""

    kind = "virtual"

    def __init__(self, patch: pytest.MonkeyPatch, **settings: Any) -> None:
        super().__init__()
        secrets = CountedSecrets()
        for module in (aio_connection, aio_links):
            patch.setattr(module, "secrets", secrets)
            patch.setattr(module, "_monotonic_ns", VirtualTime().monotonic_ns)
        patch.setattr(time_limit, "_monotonic_ns", VirtualTime().monotonic_ns)
        self.cluster: ClientsCluster = settled_cluster("".join(NODES), **settings)
        self.loop = VirtualLoop(self.cluster)
        self.runner = VirtualRunner(self.loop)
        self._numbers = itertools.count(1)
        self._processes: dict[int, str] = {}

    def name(self, stem: str = "x") -> bytes:
        return f"safCkpt={stem}-{next(self._numbers)}".encode()

    def address(self, node: str) -> str:
        return f"unix://{self.cluster.unix_path(node)}"

    def _initialize(self, *arguments: Any, **named: Any) -> CheckpointService:
        process = f"process {next(self._numbers)}"
        service = CheckpointService._initialize(VirtualRunner(self.loop, process), *arguments, **named)
        self._processes[id(service)] = process
        return service

    def doomed_service(self, node: str = "a", version: Version = ("B", 2, 2)) -> CheckpointService:
        return self.service(node, version)

    def abandon(self, service: CheckpointService) -> None:
        self._services.remove(service)
        self.cluster.cut_off(self._processes[id(service)], process_dead=True)
        self.pass_time(0.001)

    def cut_off(self, service: CheckpointService) -> None:
        self.cluster.cut_off(self._processes[id(service)])

    def let_in(self, service: CheckpointService) -> None:
        self.cluster.unheard.remove(self._processes[id(service)])

    # -- time

    def now_ns(self) -> int:
        return WALL_OFFSET_NS + self.cluster.now_ns

    def pass_time(self, seconds: float) -> None:
        self.runner.pass_time(seconds)

    def story(self) -> str:
        """What the cores logged."""
        return self.cluster.story()

    # -- nodes

    def kill(self, node: str) -> None:
        self.cluster.kill(node)

    def restart(self, node: str) -> None:
        self.cluster.restart(node)
        members = len(self.running())

        def joined() -> bool:
            views = [running.view for running in self.cluster.running()]
            serve = all(self.cluster.serving(node_id) for node_id in self.running())
            return serve and all(view is not None and len(view.members) == members for view in views)

        self.until(joined, 30)

    def leave(self, node: str) -> None:
        self.cluster.leave(node)
        self.until(lambda: node not in self.running(), 30)

    def pause(self, node: str) -> None:
        self.cluster.pause(node)

    def resume(self, node: str) -> None:
        self.cluster.resume(node)

    def partition(self, side: str, other_side: str) -> None:
        self.cluster.cut(side, other_side)

    def heal(self) -> None:
        self.cluster.heal()

    def running(self) -> tuple[str, ...]:
        return tuple(node.context.node_id for node in self.cluster.running())

    def _rows(self, node: str) -> list[Any]:
        return list(self.cluster.node(node).describe(Describe("checkpoints", None)))

    def contents(self, node: str, name: bytes) -> dict[bytes, bytes]:
        """Return the content of a node's own replica, by section. (A test cannot ask a daemon for it.)"""
        return self.cluster.contents(node, name)

    # -- the end

    def check(self) -> None:
        """Check what must always hold of the cores."""
        cluster = self.cluster
        wrong = broken_invariants([(node, cluster.now_ns) for node in cluster.running()])
        assert wrong == []

    def close(self) -> None:
        for host in self.cluster.hosts.values():
            if host.running and host.paused:
                self.cluster.resume(host.settings.node_id)
        super().close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.runner.run(_ended(tasks))
        self.loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)
