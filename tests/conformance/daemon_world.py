"""Three real daemons, and clients, in this process or in others, that use one kind of address."""

import itertools
import time
from typing import Any, cast

from tests.conformance.remote import Process, StandIn
from tests.conformance.world import Version, World
from tests.e2e.logs import ends_of_logs

from ckpt_client.saf import CheckpointService
from ckptd.testing import LocalCluster

_numbers = itertools.count(1)


class DaemonWorld(World):
    """One cluster serves all scenarios; after each test it is repaired before the next one begins."""

    def __init__(self, cluster: LocalCluster, scheme: str) -> None:
        super().__init__()
        self.kind = f"daemons-{scheme}"
        self.cluster = cluster
        self._scheme = scheme
        self._processes: list[Process] = []
        self._paused: list[str] = []
        self._broken = False

    def name(self, stem: str = "x") -> bytes:
        return f"safCkpt={stem}-{next(_numbers)}".encode()

    def address(self, node: str) -> str:
        return self.cluster.address(node, self._scheme)

    def _initialize(self, *arguments: Any, **named: Any) -> CheckpointService:
        return CheckpointService.initialize(*arguments, **named)

    def doomed_service(self, node: str = "a", version: Version = ("B", 2, 2)) -> CheckpointService:
        process = Process(version, self.address(node))
        self._processes.append(process)
        return cast(CheckpointService, process.service)

    def abandon(self, service: CheckpointService) -> None:
        stand_in = cast(StandIn, service)
        stand_in.process.kill()
        self._processes.remove(stand_in.process)

    def end_process(self, service: CheckpointService) -> None:
        stand_in = cast(StandIn, service)
        stand_in.process.end()
        self._processes.remove(stand_in.process)

    # -- time

    def now_ns(self) -> int:
        return time.time_ns()

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    def story(self) -> str:
        """What the nodes logged."""
        return ends_of_logs(self.cluster)

    # -- nodes

    def kill(self, node: str) -> None:
        self._broken = True
        self.cluster.kill(node)

    def restart(self, node: str) -> None:
        self.cluster.start(node)
        self.cluster.wait_serving()

    def leave(self, node: str) -> None:
        self._broken = True
        self.cluster.leave(node)

    def pause(self, node: str) -> None:
        self._broken = True
        self._paused.append(node)
        self.cluster.pause(node)

    def resume(self, node: str) -> None:
        self._paused.remove(node)
        self.cluster.resume(node)

    def running(self) -> tuple[str, ...]:
        return tuple(node for node in self.cluster.running if node not in self._paused)

    def _rows(self, node: str) -> list[Any]:
        return list(self.cluster.describe("checkpoints", node))

    # -- the end

    def close(self) -> None:
        for node in list(self._paused):
            self.resume(node)
        super().close()
        for process in self._processes:
            process.kill()
        if self._broken:
            for node in self.nodes:
                if node not in self.cluster.running:
                    self.cluster.start(node)
            self.cluster.wait_serving()
