"""What a scenario can do with a cluster, which is either cores in virtual time or real daemons.

A scenario is a plain test function with a `world`: it makes services at nodes, opens checkpoints, lets time
pass, and kills nodes or clients. What it leaves behind is cleaned up afterwards.
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
    """A node's description of a checkpoint.

    `active`: the active replica's node, or None. `replicas`: by node, True if its replica is in sync.
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
        """True if time is virtual here."""
        return self.kind == "virtual"

    # -- clients

    @abstractmethod
    def name(self, stem: str = "x") -> bytes:
        """Return a checkpoint's name that no other test uses."""

    @abstractmethod
    def address(self, node: str) -> str:
        """Return a node's address for clients."""

    @abstractmethod
    def _initialize(self, *arguments: Any, **named: Any) -> CheckpointService:
        """Call `CheckpointService.initialize` on this world's runner."""

    def service(
        self,
        node: str = "a",
        version: Version = ("B", 2, 2),
        callbacks: CheckpointCallbacks | None = None,
        **named: Any,
    ) -> CheckpointService:
        """Return a service that knows only this node's address. It is finalized when the test ends."""
        named.setdefault("address", self.address(node))
        service = self._initialize(version, callbacks, **named)
        self._services.append(service)
        return service

    @abstractmethod
    def doomed_service(self, node: str = "a", version: Version = ("B", 2, 2)) -> CheckpointService:
        """Return a service in a process of its own, for `abandon`.

        It has no callbacks. The objects that it returns have the methods and attributes of the real ones, and
        nothing else.
        """

    @abstractmethod
    def abandon(self, service: CheckpointService) -> None:
        """Kill the process of a doomed service, so that it closes nothing."""

    def end_process(self, service: CheckpointService) -> None:
        """Let the program of a doomed service end cleanly. Only with daemons."""
        raise AssertionError("only real processes end: mark the scenario with on(DAEMONS, why=...)")

    def cut_off(self, service: CheckpointService) -> None:
        """Cut a service off from all nodes; no node knows why. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    def let_in(self, service: CheckpointService) -> None:
        """Let a service that was cut off reach the nodes again. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    def open(
        self, node: str = "a", name: bytes | None = None, open_flags: int = ALL_MODES, **changed: Any
    ) -> Checkpoint:
        """Open a checkpoint (a new one if there is no `name`) with a service of its own at a node.

        `changed`: the creation attributes that differ from the usual ones, if the flags include CREATE.
        """
        wanted = attributes(**changed) if open_flags & 4 else None
        return self.service(node).checkpoint_open(name or self.name(), open_flags, wanted)

    # -- time

    @abstractmethod
    def now_ns(self) -> int:
        """Return the time of day, in ns since 1970."""

    @abstractmethod
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""

    def until(self, predicate: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Ask repeatedly until the answer is true, and return it; fail if it is not true in time.

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
        """Return True if the selection object becomes readable within a time."""
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
        """Kill a node's process: it ends at once, and connections to it are refused."""

    @abstractmethod
    def restart(self, node: str) -> None:
        """Start a killed node, and wait until it is a member again."""

    @abstractmethod
    def leave(self, node: str) -> None:
        """Let a node hand over and leave, as at SIGTERM."""

    @abstractmethod
    def pause(self, node: str) -> None:
        """Pause a node's process, as SIGSTOP does: the others receive nothing from it."""

    @abstractmethod
    def resume(self, node: str) -> None:
        """Let a paused process continue."""

    def partition(self, side: str, other_side: str) -> None:
        """Cut the nodes of two sides ("a", "bc") off from each other. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    def heal(self) -> None:
        """End every partition. Only in virtual time."""
        raise AssertionError("only virtual networks are cut: mark the scenario with on(VIRTUAL, why=...)")

    @abstractmethod
    def running(self) -> tuple[str, ...]:
        """Return the nodes that run."""

    # -- what the nodes report

    @abstractmethod
    def _rows(self, node: str) -> list[Any]:
        """Return a node's answer to DESCRIBE "checkpoints"."""

    def described(self, name: bytes, node: str | None = None, unlinked: bool = False) -> Described | None:
        """Return a node's description of a checkpoint; None if the node knows no such name.

        Without a node, ask any that runs. `unlinked`: describe the checkpoint whose name was freed, not the
        one that has the name now.
        """
        for row in self._rows(node or self.running()[0]):
            if row[0] == name and row[6] == unlinked:
                return Described(row[1], row[3], dict(row[4]), row[5], row[6])
        return None

    def active_node(self, name: bytes) -> str | None:
        """Return the node of a checkpoint's active replica."""
        found = self.described(name)
        return None if found is None else found.active

    def replicas(self, name: bytes) -> dict[str, bool]:
        """Return the nodes with a replica of a checkpoint, each with True if the replica is in sync."""
        found = self.described(name)
        return {} if found is None else found.replicas

    def wait_in_sync(self, name: bytes, *nodes: str) -> None:
        """Wait until a checkpoint has in-sync replicas on these nodes (on all, if none is named)."""
        wanted = nodes or self.running()
        self.until(lambda: all(self.replicas(name).get(node) for node in wanted))

    # -- the end

    def close(self) -> None:
        """Finalize the services that the test left."""
        for service in self._services:
            with suppress(SaAisError):
                service.finalize()
        self._services.clear()


def is_readable(selection_object: int) -> bool:
    """Return True if a descriptor is readable now."""
    return bool(select.select([selection_object], [], [], 0)[0])
