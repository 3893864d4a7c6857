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
"""On one register checkpoint. What all of them ask at once during a fault may be ordered in any way, and a
checker follows all of them."""

REPLICAS: Final = 3
"""Of a checkpoint that is not collocated: the daemon's default."""

SLOWER: Final = 20
"""A replica that is cut off with an update pending serves no read of what that touches. So there is a
checkpoint where mostly nothing is pending: a node that goes on serving it when it may not is found out."""

READ_TIMEOUT_SECONDS: Final = 2.0
WAIT_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


@dataclass(slots=True, frozen=True)
class Shape:
    """How much load, and of which kind.

    `registers`: checkpoints of three sections that writers and readers share; the second is
    written seldom. `pinned`: no caller knows another node than its own. `timeout`: of a
    write, `pause`: the mean one between a caller's calls; seconds.
    """

    flags: int = SA_CKPT_WR_ALL_REPLICAS
    registers: int = 2
    pinned: bool = False
    timeout: float = 10.0
    pause: float = 0.01


@dataclass(slots=True)
class Load:
    """Callers at work between `__enter__` and `__exit__`; the seed decides what each asks.

    Each node has a reader of every register checkpoint and a bookkeeper. Readers know
    their own node only, the others all nodes, unless the shape pins them too.
    """

    cluster: LocalCluster
    name: str
    shape: Shape = field(default_factory=Shape)
    seed: int = 0
    callers: list[Caller] = field(default_factory=list)
    bookkeepers: list[Bookkeeper] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def register(self, number: int) -> str:
        """The name of a register checkpoint."""
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
        """A reader stays at its node, so that all nodes are read all the time."""
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

    # -- what was asked

    @property
    def stuck(self) -> list[str]:
        """Who does not end, though every call has a time-out."""
        return [caller.thread.name for caller in self.everybody if caller.thread.is_alive()]

    @property
    def errors(self) -> list[str]:
        """What failed for those who know more than one node, or whose nodes were never lost."""
        return [
            text for caller in self.everybody if self._may_move(caller) for text in caller.recorder.errors
        ]

    def _may_move(self, caller: Caller) -> bool:
        return "," in caller.place.address

    def history(self, checkpoint: int) -> list[Call]:
        """All calls on one register checkpoint, as they began."""
        calls = [
            call for c in self.callers if c.recorder.checkpoint == checkpoint for call in c.recorder.calls
        ]
        return sorted(calls, key=lambda call: call.invoked_ns)

    def succeeded(self, since_ns: int = 0) -> int:
        """How many updates of movable callers that began since then were done."""
        return sum(
            call.invoked_ns > since_ns and call.outcome == Outcome.OK
            for caller in self.bookkeepers
            for call in list(caller.recorder.calls)
        )

    def wait_more(self, count: int) -> None:
        """Until that many further entries of the ledger have been acknowledged."""
        since_ns, deadline = time.monotonic_ns(), time.monotonic() + WAIT_SECONDS
        while self.succeeded(since_ns) < count:
            if time.monotonic() > deadline:
                last = [caller.recorder.errors[-1:] for caller in self.bookkeepers]
                raise TimeoutError(f"{self.succeeded(since_ns)} of {count} updates were done; {last}")
            time.sleep(0.005)
