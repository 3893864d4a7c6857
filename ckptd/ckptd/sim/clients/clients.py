"""All simulated clients of one cluster: they start, lose their connections, and crash."""

from ckptd.sim.clients.worker import Worker
from ckptd.sim.clients.workload import Workload


class Clients:
    """All clients. They work on the checkpoints of one workload."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.world = workload.world
        self.workers: list[Worker] = []
        """Empty until they start."""

    def start(self) -> None:
        """Start the clients."""
        self.workers = [Worker(self.workload, number) for number in range(self.world.options.clients)]

    def break_link(self) -> None:
        """Reset one client's connection."""
        workers = [worker for worker in self.workers if worker.client.link is not None]
        if workers:
            client = self.world.random.choice(workers).client
            self.world.say(f"fault: the connection of {client.name} is reset")
            assert client.link is not None
            self.workload.links.reset(client.link)

    def crash_one(self) -> None:
        """Crash one client's process."""
        workers = [worker for worker in self.workers if not worker.client.over]
        if workers:
            worker = self.world.random.choice(workers)
            self.world.say(f"fault: {worker.client.name} crashes")
            worker.crash()
