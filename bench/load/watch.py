"""Record what the nodes report while faults happen: which node serves in which view."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from ckptd.testing import ClusterError, LocalCluster

PAUSE_SECONDS: Final = 0.02


@dataclass(slots=True, frozen=True)
class Sample:
    """One answer of a node. It was true at some time between the two times (CLOCK_MONOTONIC, in ns)."""

    node: str
    asked_ns: int
    answered_ns: int
    epoch: int
    members: tuple[str, ...]
    serving: bool


class Watch:
    """Asks every node all the time, each in its own thread, between `__enter__` and `__exit__`."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._stop = threading.Event()
        self.samples: Final[dict[str, list[Sample]]] = {node: [] for node in cluster.node_ids}
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in cluster.node_ids]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, node: str) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            asked = time.monotonic_ns()
            try:
                told = self._cluster.describe("cluster", node)
            except (OSError, ClusterError):
                continue
            members = tuple(sorted(member.node_id for member in told.members))
            sample = Sample(node, asked, time.monotonic_ns(), told.epoch, members, told.serving)
            self.samples[node].append(sample)

    def epochs(self) -> set[int]:
        """Return every epoch in which a node served."""
        return {s.epoch for each in self.samples.values() for s in each if s.serving}

    def wrong(self) -> list[str]:
        """Return what contradicts the rule of one service at a time."""
        every = sorted((s for each in self.samples.values() for s in each), key=lambda s: s.asked_ns)
        return one_view_each(every) + never_back(every)


def one_view_each(samples: list[Sample]) -> list[str]:
    """Return contradictions to the rule that an epoch is one view, wherever it is installed."""
    first: dict[int, Sample] = {}
    wrong: list[str] = []
    for sample in samples:
        if not sample.serving:
            continue
        other = first.setdefault(sample.epoch, sample)
        if other.members != sample.members:
            wrong.append(f"epoch {sample.epoch} is two views: {other}; {sample}")
    return wrong


def never_back(samples: list[Sample]) -> list[str]:
    """Return samples of nodes that serve in an epoch after a node has served in a later one.

    `samples` are in the order in which they were asked.
    """
    wrong: list[str] = []
    answered = sorted((s for s in samples if s.serving), key=lambda s: s.answered_ns)
    newest: Sample | None = None
    place = 0
    for sample in samples:
        while place < len(answered) and answered[place].answered_ns < sample.asked_ns:
            if newest is None or answered[place].epoch > newest.epoch:
                newest = answered[place]
            place += 1
        if sample.serving and newest is not None and newest.epoch > sample.epoch:
            wrong.append(f"served in an older view: {sample}, after {newest}")
    return wrong
