"""A load: callers on every node, on checkpoints of one kind, until it is stopped."""

import random
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from bench.load.callers import Asyncio, Blocking, Bookkeeper, Caller, Place
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckptd.sim.checkers.history import Call, Outcome
from ckptd.testing import LocalCluster

WRITERS_MAX: Final = 3
"""How many writers one register checkpoint has. Their concurrent calls during a fault may be ordered in
any way, and the checker follows all orders."""

REPLICAS: Final = 3
"""How many replicas a checkpoint has that is not collocated: the daemon's default."""

SLOWER: Final = 20
"""How many times slower the writers of the second register checkpoint are.

A replica that is cut off with an update pending serves no read that the update touches. So there is a
checkpoint where mostly nothing is pending: it shows a node that continues serving when it may not.
"""

READ_TIMEOUT_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


@dataclass(slots=True, frozen=True)
class Shape:
    """How much load, and of which kind."""

    flags: int = SA_CKPT_WR_ALL_REPLICAS
    registers: int = 2
    """How many checkpoints of three sections writers and readers share. The second is written rarely."""

    pinned: bool = False
    """True if no caller knows any node but its own."""

    timeout: float = 10.0
    """The time-out of a write, in seconds."""

    pause: float = 0.01
    """The mean pause between a caller's calls, in seconds."""


@dataclass(slots=True)
class Load:
    """Callers at work between `__enter__` and `__exit__`; the seed decides what each one asks.

    Each node has a reader of every register checkpoint and a bookkeeper. Readers know only their own node,
    the others know all nodes, unless the shape pins them too.
    """

    cluster: LocalCluster
    name: str
    shape: Shape = field(default_factory=Shape)
    seed: int = 0
    callers: list[Caller] = field(default_factory=list)
    bookkeepers: list[Bookkeeper] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def register(self, number: int) -> str:
        """Return the name of a register checkpoint."""
        return f"{self.name}-register-{number}"

    @property
    def ledger(self) -> str:
        """The name of the ledger."""
        return f"{self.name}-ledger"

    @property
    def everybody(self) -> list[Caller]:
        """All callers."""
        return [*self.callers, *self.bookkeepers]

    def __enter__(self) -> Self:
        nodes, shape = self.cluster.node_ids, self.shape
        draw = random.Random(f"{self.seed} load")
        for checkpoint in range(shape.registers):
            writers = draw.sample(nodes, min(WRITERS_MAX, len(nodes)))
            for node in writers:
                kind = draw.choice((Blocking, Asyncio))
                place = self._place(self.register(checkpoint), node)
                self.callers.append(kind(self._number(), checkpoint, place, self.stop, self.seed))
            for node in nodes:
                place = self._place(self.register(checkpoint), node, reads=True)
                self.callers.append(
                    Blocking(self._number(), checkpoint, place, self.stop, self.seed, writes=False)
                )
        for node in nodes:
            number = len(self.callers) + len(self.bookkeepers)
            place = self._place(self.ledger, node)
            self.bookkeepers.append(Bookkeeper(number, shape.registers, place, self.stop, self.seed))
        for caller in self.everybody:
            caller.thread.start()
        return self

    def _number(self) -> int:
        return len(self.callers)

    def _place(self, name: str, node: str, reads: bool = False) -> Place:
        """Return where a caller works. A reader stays at its node, so that every node is always read."""
        shape, cluster = self.shape, self.cluster
        stays = reads or shape.pinned
        address = cluster.address(node) if stays else cluster.addresses(node)
        timeout = min(shape.timeout, READ_TIMEOUT_SECONDS) if reads else shape.timeout
        slow = name == self.register(1) and not reads
        return Place(name, shape.flags, address, timeout, shape.pause * (SLOWER if slow else 1), cluster.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        deadline = time.monotonic() + STOP_SECONDS + self.shape.timeout
        for caller in self.everybody:
            caller.thread.join(max(deadline - time.monotonic(), 0.1))

    @property
    def checkpoints(self) -> list[str]:
        """The names of all checkpoints."""
        return [self.ledger, *(self.register(number) for number in range(self.shape.registers))]

    @property
    def replicas(self) -> int:
        """How many replicas each checkpoint has when all nodes run."""
        everywhere = self.shape.flags & SA_CKPT_CHECKPOINT_COLLOCATED
        nodes = len(self.cluster.node_ids)
        return nodes if everywhere else min(REPLICAS, nodes)

    # -- the calls

    @property
    def stuck(self) -> list[str]:
        """The callers that do not end, though every call has a time-out."""
        return [caller.thread.name for caller in self.everybody if caller.thread.is_alive()]

    @property
    def errors(self) -> list[str]:
        """The failed calls of callers that know more than one node."""
        return [
            text for caller in self.everybody if self._may_move(caller) for text in caller.recorder.errors
        ]

    def _may_move(self, caller: Caller) -> bool:
        return "," in caller.place.address

    def history(self, checkpoint: int) -> list[Call]:
        """Return all calls on one register checkpoint, in the order in which they began."""
        calls = [
            call for c in self.callers if c.recorder.checkpoint == checkpoint for call in c.recorder.calls
        ]
        return sorted(calls, key=lambda call: call.invoked_ns)

    def succeeded(self, since_ns: int = 0) -> int:
        """Return how many updates of the bookkeepers that began since then were done."""
        return sum(
            call.invoked_ns > since_ns and call.outcome == Outcome.OK
            for caller in self.bookkeepers
            for call in list(caller.recorder.calls)
        )

    def wait_more(self, count: int) -> None:
        """Wait until that many further entries of the ledger are acknowledged."""
        since_ns, deadline = time.monotonic_ns(), time.monotonic() + WAIT_SECONDS
        while self.succeeded(since_ns) < count:
            if time.monotonic() > deadline:
                last = [caller.recorder.errors[-1:] for caller in self.bookkeepers]
                raise TimeoutError(f"{self.succeeded(since_ns)} of {count} updates were done; {last}")
            time.sleep(0.005)
