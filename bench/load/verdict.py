"""Judge a load that has ended: by the simulator's checkers, and entry by entry."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load.callers import KEYS
from bench.load.load import Load
from bench.load.recorded import RecordedTable, Recorder
from ckpt_client import Table
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckpt_protocol.messages import Op
from ckptd.sim.checkers.checkers import Subject, check_all, check_not_done
from ckptd.sim.checkers.history import Call, Outcome

READ_SECONDS: Final = 20.0
STUCK_SECONDS: Final = 5.0
"""A call that takes this much longer than its time-out was stuck."""

SETTLE_SECONDS: Final = 30.0
SHOWN_MAX: Final = 5

Sections = Mapping[bytes, bytes]


@dataclass(slots=True)
class Verdict:
    """The results of judging a load."""

    wrong: list[str] = field(default_factory=list)
    """Contradictions to what the service promises."""

    undecided: int = 0
    """How many histories have no verdict."""

    calls: int = 0
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged entries of the ledger that are gone, as an asynchronous checkpoint may lose them."""

    longest_seconds: float = 0.0

    def add(self, other: "Verdict") -> None:
        """Add the results of another verdict."""
        self.wrong += other.wrong
        self.undecided += other.undecided
        self.calls += other.calls
        self.acknowledged += other.acknowledged
        self.lost += other.lost
        self.longest_seconds = max(self.longest_seconds, other.longest_seconds)


def judge(load: Load, losses: int = 0) -> Verdict:
    """Wait until the cluster is whole, read everything through every node, and judge.

    The load must have ended. `losses`: how often, at most, an asynchronous checkpoint can have lost its
    active replica meanwhile. Raises: ClusterError if the cluster does not become whole.
    """
    verdict = Verdict(wrong=[f"stuck: {name}" for name in load.stuck])
    settle(load)
    for caller in load.everybody:
        verdict.longest_seconds = max(verdict.longest_seconds, caller.longest_seconds)
        if caller.longest_seconds > caller.place.timeout + STUCK_SECONDS:
            verdict.wrong.append(f"{caller.thread.name}: a call took {caller.longest_seconds:.1f} s")
        verdict.calls += len(caller.recorder.calls)
    if load.shape.flags & SA_CKPT_WR_ALL_REPLICAS:
        for checkpoint in range(load.shape.registers):
            _judge_register(load, checkpoint, verdict)
    by_node = {node: _read(load, load.ledger, node) for node in load.cluster.node_ids}
    _judge_same(load.ledger, by_node, verdict)
    _judge_ledger(load, next(iter(by_node.values())), losses, verdict)
    return verdict


def _read(load: Load, name: str, node: str) -> dict[bytes, bytes]:
    with Table(name, address=load.cluster.address(node), cluster=load.cluster.name) as table:
        return table.read_all(timeout=READ_SECONDS)


def _judge_same(name: str, by_node: Mapping[str, Sections], verdict: Verdict) -> None:
    (first, held), *others = by_node.items()
    for node, sections in others:
        if sections != held:
            keys = sorted(k for k in {*held, *sections} if held.get(k) != sections.get(k))
            verdict.wrong.append(
                f"{name} at {node} differs from {first} in {len(keys)} sections: {keys[:SHOWN_MAX]}"
            )


# -- the registers: one order explains all calls


def _judge_register(load: Load, checkpoint: int, verdict: Verdict) -> None:
    name = load.register(checkpoint)
    calls = load.history(checkpoint)
    by_node: dict[str, Sections] = {}
    for number, node in enumerate(load.cluster.node_ids):
        recorder = Recorder(10_000 + number, checkpoint)
        with Table(name, address=load.cluster.address(node), cluster=load.cluster.name) as table:
            by_node[node] = RecordedTable(table, recorder).read_all()
        calls += recorder.calls
    _judge_same(name, by_node, verdict)
    subject = Subject(name.encode(), checkpoint, load.shape.flags, KEYS)
    findings = check_all(subject, calls)
    verdict.wrong += findings.wrong + check_not_done(calls)
    verdict.undecided += findings.undecided


# -- the ledger: what was acknowledged is there, once and whole


def _judge_ledger(load: Load, held: Sections, losses: int, verdict: Verdict) -> None:
    flags = load.shape.flags
    made = Counter(held.values())
    for bookkeeper in load.bookkeepers:
        entries = [
            Entry.of(call, held, made)
            for call in bookkeeper.recorder.calls
            if call.outcome != Outcome.REFUSED
        ]
        whole = not flags & SA_CKPT_WR_ACTIVE_REPLICA_WEAK
        lossy = not flags & SA_CKPT_WR_ALL_REPLICAS
        verdict.wrong += [text for entry in entries for text in entry.wrong(whole, lossy)]
        lost = [entry for entry in entries if entry.acknowledged and not entry.there]
        verdict.acknowledged += sum(entry.acknowledged for entry in entries)
        verdict.lost += len(lost)
        if lost and flags & SA_CKPT_WR_ALL_REPLICAS:
            verdict.wrong.append(f"{len(lost)} acknowledged entries are lost: {_show(lost)}")
        holes = runs_of_loss(entries)
        if holes > losses:
            verdict.wrong.append(
                f"{bookkeeper.thread.name}: {holes} runs of entries were lost by at most {losses} losses of "
                f"the active replica, so that one of them was no end of the order: {_show(lost)}"
            )


@dataclass(slots=True, frozen=True)
class Entry:
    """One entry of the ledger as requested, and how many of its sections are held."""

    call: Call
    wanted: int
    found: int
    under_told_id: bool

    @classmethod
    def of(cls, call: Call, held: Sections, made: Mapping[bytes, int]) -> "Entry":
        """Look up the sections of a call."""
        if call.arguments[0][0] == Op.CREATE:
            told = call.outcome != Outcome.OK or held.get(call.result[0]) in (None, call.arguments[0][3])
            return cls(call, 1, made.get(call.arguments[0][3], 0), told)
        return cls(call, 2, sum(held.get(op[1]) == op[2] for op in call.arguments), True)

    @property
    def acknowledged(self) -> bool:
        """True if its writer was told that it is done."""
        return self.call.outcome == Outcome.OK

    @property
    def there(self) -> bool:
        """True if any of it is held."""
        return self.found > 0

    def wrong(self, whole: bool, lossy: bool) -> list[str]:
        """Return what this kind of checkpoint may not do with the entry.

        `whole`: it may not keep only a part. `lossy`: it may lose the end of the order, and a generated id
        with it, which is then used again.
        """
        wrong = []
        if self.found > self.wanted:
            wrong.append(f"done {self.found} times: {self.call.describe()}")
        if whole and 0 < self.found < self.wanted:
            wrong.append(f"half of it is there: {self.call.describe()}")
        if self.there and self.call.outcome == Outcome.NOT_DONE:
            wrong.append(f"done, though TRY_AGAIN said that it was not: {self.call.describe()}")
        if not self.under_told_id and not lossy:
            wrong.append(f"under the id that was told stands something else: {self.call.describe()}")
        return wrong


def runs_of_loss(entries: Sequence[Entry]) -> int:
    """Return how many runs of consecutive acknowledged entries of one writer are gone."""
    runs, losing = 0, False
    for entry in entries:
        if entry.acknowledged:
            runs += not entry.there and not losing
            losing = not entry.there
    return runs


def _show(entries: Sequence[Entry]) -> str:
    return "; ".join(entry.call.describe() for entry in entries[:SHOWN_MAX])


def settle(load: Load, seconds: float = SETTLE_SECONDS) -> None:
    """Wait until all nodes serve together and hold their replicas. Raises: ClusterError, CheckpointError."""
    cluster, deadline = load.cluster, time.monotonic() + seconds
    cluster.wait_serving(seconds)
    for name in load.checkpoints:
        if load.shape.flags & SA_CKPT_CHECKPOINT_COLLOCATED:
            # A node that came back holds no replica until a client opens the checkpoint there.
            for node in cluster.node_ids:
                Table(name, address=cluster.address(node), cluster=cluster.name, read_only=True).close()
        cluster.wait_in_sync(name, load.replicas, max(deadline - time.monotonic(), 1.0))
