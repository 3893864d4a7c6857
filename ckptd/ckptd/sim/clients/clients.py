"""All simulated clients of one cluster: they start, lose their connections, and crash."""

from ckptd.sim.clients.client_driver import ClientDriver
from ckptd.sim.clients.leading_client import LeadingClient
from ckptd.sim.clients.resizing_client import ResizingClient
from ckptd.sim.clients.worker import Worker
from ckptd.sim.clients.workload import Workload


class Clients:
    """All clients. They work on the checkpoints of one workload."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.world = workload.world
        self.workers: list[Worker] = []
        self.leaders: list[LeadingClient] = []
        self.resizers: list[ResizingClient] = []
        """Empty until they start."""

    def start(self) -> None:
        """Start the clients."""
        options = self.world.options
        self.workers = [Worker(self.workload, number) for number in range(options.clients)]
        self.leaders = [
            LeadingClient(self.workload, options.clients + number) for number in range(options.leaders)
        ]
        others = options.clients + options.leaders
        self.resizers = [
            ResizingClient(self.workload, others + place, place) for place in range(options.resizers)
        ]

    @property
    def drivers(self) -> list[ClientDriver]:
        """All clients: those that work, those that lead as well, and those that resize."""
        return [*self.workers, *self.leaders, *self.resizers]

    def break_link(self) -> None:
        """Reset one client's connection."""
        drivers = [driver for driver in self.drivers if driver.client.link is not None]
        if drivers:
            client = self.world.random.choice(drivers).client
            self.world.say(f"fault: the connection of {client.name} is reset")
            assert client.link is not None
            self.workload.links.reset(client.link)

    def crash_one(self) -> None:
        """Crash one client's process."""
        drivers = [driver for driver in self.drivers if not driver.client.over]
        if drivers:
            driver = self.world.random.choice(drivers)
            self.world.say(f"fault: {driver.client.name} crashes")
            driver.crash()
