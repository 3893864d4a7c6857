"""What a scenario can do with a cluster, whether it is cores in virtual time or real daemons.

A scenario is a plain test function with a `world`: it makes services at nodes, opens checkpoints, lets time
pass, and kills what is to be killed. What it leaves behind is put in order afterwards.
"""

import select
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from tests.conformance.shorthand import ALL_MODES, attributes

from ckpt_client import SaAisError
from ckpt_client.saf import Checkpoint, CheckpointCallbacks, CheckpointService
from ckptd.testing import ClusterError

NODES: Final = ("a", "b", "c")
POLL_SECONDS: Final = 0.01
Version = tuple[str, int, int]


class Described(NamedTuple):
    """What a node says of a checkpoint.

    `active`: the active replica's node, or None. `replicas`: node to whether its replica is in sync.
    """

    creation_id: int
    active: str | None
    replicas: dict[str, bool]
    opens: int
    unlinked: bool


class World(ABC):
    """`kind` is "virtual" or "daemons-" with the scheme of the clients' addresses."""

    kind: str
    nodes: Final = NODES

    def __init__(self) -> None:
        self._services: list[CheckpointService] = []

    @property
    def virtual(self) -> bool:
        """Whether time is virtual here."""
        return self.kind == "virtual"

    # -- clients

    @abstractmethod
    def name(self, stem: str = "x") -> bytes:
        """A checkpoint's name that nobody else uses."""

    @abstractmethod
    def address(self, node: str) -> str:
        """A node's client address."""

    @abstractmethod
    def _initialize(self, *arguments: Any, **named: Any) -> CheckpointService:
        """`CheckpointService.initialize`, on this world's runner."""

    def service(
        self,
        node: str = "a",
        version: Version = ("B", 2, 2),
        callbacks: CheckpointCallbacks | None = None,
        **named: Any,
    ) -> CheckpointService:
        """A service that knows this node's address only. It is finalized when the test ends."""
        named.setdefault("address", self.address(node))
        service = self._initialize(version, callbacks, **named)
        self._services.append(service)
        return service

    @abstractmethod
    def doomed_service(self, node: str = "a", version: Version = ("B", 2, 2)) -> CheckpointService:
        """A service in a process of its own, for `abandon`.

        It has no callbacks; what it gives has the methods and attributes of the real thing, no more.
        """

    @abstractmethod
    def abandon(self, service: CheckpointService) -> None:
        """The process of a doomed service is killed: it closes nothing."""

    def end_process(self, service: CheckpointService) -> None:
        """The program of a doomed service comes to its end in good order. Only with daemons."""
        raise AssertionError("only real processes end: mark the scenario with on(DAEMONS, why=...)")

    def cut_off(self, service: CheckpointService) -> None:
        """A service reaches no node any more, and no node knows why. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    def let_in(self, service: CheckpointService) -> None:
        """A service that was cut off reaches the nodes again. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    def open(
        self, node: str = "a", name: bytes | None = None, open_flags: int = ALL_MODES, **changed: Any
    ) -> Checkpoint:
        """A checkpoint (a new one without a `name`) opened through a service of its own at a node.

        `changed`: creation attributes other than the usual, where the flags hold CREATE.
        """
        wanted = attributes(**changed) if open_flags & 4 else None
        return self.service(node).checkpoint_open(name or self.name(), open_flags, wanted)

    # -- time

    @abstractmethod
    def now_ns(self) -> int:
        """The time of day, in ns since 1970."""

    @abstractmethod
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def until(self, predicate: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Ask again and again until the answer is true, and return it; fails when it is not in time.

        A call that is refused, or a node that does not answer, counts as "not yet".
        """
        end_ns = self.now_ns() + int(seconds * 1e9)
        why = "it is not so"
        while True:
            try:
                answer = predicate()
            except (SaAisError, ClusterError, OSError) as error:
                answer, why = None, str(error)
            if answer:
                return answer
            assert self.now_ns() < end_ns, f"not within {seconds:g} s: {why}"
            self.pass_time(POLL_SECONDS)

    def wait_readable(self, service: CheckpointService, seconds: float = 5.0) -> bool:
        """Whether the selection object becomes readable within a time."""
        selected = service.selection_object()
        end_ns = self.now_ns() + int(seconds * 1e9)
        while not is_readable(selected):
            if self.now_ns() >= end_ns:
                return False
            self.pass_time(POLL_SECONDS if self.virtual else 0.001)
        return True

    def dispatch_next(self, service: CheckpointService, seconds: float = 5.0) -> None:
        """Wait for a callback and run it."""
        assert self.wait_readable(service, seconds), "no callback came"
        service.dispatch(1)

    # -- nodes

    @abstractmethod
    def kill(self, node: str) -> None:
        """A node's process ends at once, and whoever dials it is refused."""

    @abstractmethod
    def restart(self, node: str) -> None:
        """Start a killed node, and wait until it is a member again."""

    @abstractmethod
    def leave(self, node: str) -> None:
        """A node hands over and leaves, as at SIGTERM."""

    @abstractmethod
    def pause(self, node: str) -> None:
        """A node's process stands still, as at SIGSTOP: the others hear nothing of it."""

    @abstractmethod
    def resume(self, node: str) -> None:
        """A paused process goes on."""

    def partition(self, side: str, other_side: str) -> None:
        """Nothing passes between the nodes of two sides ("a", "bc"). Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    def heal(self) -> None:
        """End every partition. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    @abstractmethod
    def running(self) -> tuple[str, ...]:
        """The nodes that run."""

    # -- what the nodes say

    @abstractmethod
    def _rows(self, node: str) -> list[Any]:
        """A node's answer to DESCRIBE "checkpoints"."""

    def described(self, name: bytes, node: str | None = None, unlinked: bool = False) -> Described | None:
        """What a node (any that runs) says of a checkpoint, None where it knows none of that name.

        `unlinked`: the one whose name was freed, not the one that has it now.
        """
        for row in self._rows(node or self.running()[0]):
            if row[0] == name and row[6] == unlinked:
                return Described(row[1], row[3], dict(row[4]), row[5], row[6])
        return None

    def active_node(self, name: bytes) -> str | None:
        """The node of a checkpoint's active replica."""
        found = self.described(name)
        return None if found is None else found.active

    def replicas(self, name: bytes) -> dict[str, bool]:
        """The nodes with a replica of a checkpoint, and whether it is in sync."""
        found = self.described(name)
        return {} if found is None else found.replicas

    def wait_in_sync(self, name: bytes, *nodes: str) -> None:
        """Until a checkpoint has in-sync replicas on these nodes (none named: on all)."""
        wanted = nodes or self.running()
        self.until(lambda: all(self.replicas(name).get(node) for node in wanted))

    # -- the end

    def close(self) -> None:
        """Finalize what the test left."""
        for service in self._services:
            with suppress(SaAisError):
                service.finalize()
        self._services.clear()


def is_readable(selection_object: int) -> bool:
    """Whether a descriptor is readable now."""
    return bool(select.select([selection_object], [], [], 0)[0])
