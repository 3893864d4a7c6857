"""`python -m bench.soak`: all faults, at random, on real processes under load; every call is checked.

Rounds follow each other until the time is over. In each round, clients on every node work on new checkpoints
of all six kinds while faults happen, one after the other and each to its end: kills, pauses, planned
restarts, crashes of clients and, with network namespaces, splits, silent hosts, cuts in one direction and
loss. Then the cluster must become whole, and the answers that each client got are checked: synchronous
histories by the simulator's checker, ledgers entry by entry, and a ballast that has to outlive all rounds.
The exit status is 1 after any violation; the directory that is named then holds the daemons' logs and the
calls.
"""

import argparse
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from bench.load.faults import Fault, draw_fault
from bench.load.load import Load, Shape
from bench.load.verdict import Verdict, judge, settle
from bench.load.watch import Watch
from bench.processes import rss_bytes
from ckpt_client import CheckpointError, Connection, SaAisError, Table
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckptd.sim.clients.checkpoints import ALL_KINDS
from ckptd.testing import ClusterError, LocalCluster
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

FAULTS_PER_ROUND: Final = 4
ENTRIES: Final = 20
BALLAST: Final = "ballast"
BALLAST_SECTIONS: Final = 5_000
BALLAST_BYTES: Final = 1024
PAUSE_SECONDS: Final = 0.05
TIMEOUT_SECONDS: Final = 10.0
GROWTH_MAX: Final = 1.5
GROWTH_BYTES_MAX: Final = 32 << 20
KEPT_MAX: Final = 5
MIB: Final = 1 << 20


@dataclass(slots=True)
class Soak:
    """One run: what was found, and how much memory the daemons took after each round."""

    cluster: LocalCluster
    draw: random.Random
    console: Console
    keep: Path
    verdict: Verdict = field(default_factory=Verdict)
    faults: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Calls that failed although their clients knew all nodes and the service ensures an active replica.

    They are not violations, since a fault may last longer than a call, but they deserve a look.
    """

    rss: list[dict[str, int]] = field(default_factory=list)
    faults_per_round: int = FAULTS_PER_ROUND
    rounds: int = 0
    kept: int = 0

    def fill_ballast(self) -> None:
        """Fill a checkpoint that no round writes to."""
        with Table(BALLAST, BALLAST_SECTIONS, BALLAST_BYTES, 32, address=self.cluster.addresses()) as table:
            for first in range(0, BALLAST_SECTIONS, 500):
                table.Write({k: ballast_value(k) for k in ballast_keys(first, first + 500)})

    def run_round(self) -> None:
        """Load, cause faults, judge. Never raises for what the cluster does wrong."""
        self.rounds += 1
        found = Verdict()
        with Watch(self.cluster) as watch:
            loads = self._loads()
            try:
                with ExitStack() as stack:
                    for load in loads:
                        stack.enter_context(load)
                    self._break_things(loads)
                losses = len(watch.epochs())
                for load in loads:
                    found.add(judge(load, losses))
            except (ClusterError, CheckpointError, SaAisError, OSError, TimeoutError) as error:
                found.wrong.append(f"the cluster does not go on: {error}")
        found.wrong += watch.wrong() + self._ballast_wrong()
        self.failed += [text for load in loads if not may_lack_active(load) for text in load.errors]
        self._end_round(loads, found)

    def _loads(self) -> list[Load]:
        loads = []
        for kind in ALL_KINDS:
            shape = Shape(kind, registers=1, timeout=TIMEOUT_SECONDS, pause=PAUSE_SECONDS)
            name = f"round-{self.rounds}-kind-{kind}"
            loads.append(Load(self.cluster, name, shape, self.draw.getrandbits(32)))
        return loads

    def _break_things(self, loads: Sequence[Load]) -> None:
        for load in loads:
            load.wait_more(ENTRIES)
        for _ in range(self.faults_per_round):
            victim = self.draw.choice(loads)
            active = self.cluster.active_node(victim.ledger) or self.cluster.node_ids[0]
            fault = draw_fault(self.cluster, self.draw, active)
            self._happen(fault)
            for load in loads:
                settle(load)
                load.wait_more(ENTRIES)

    def _happen(self, fault: Fault) -> None:
        self.faults.append(fault.summary)
        self.console.print(f"[dim]  {fault.summary}")
        fault.happen()

    def _ballast_wrong(self) -> list[str]:
        node = self.draw.choice(self.cluster.node_ids)
        try:
            with Table(BALLAST, address=self.cluster.address(node), read_only=True) as table:
                held = table.read_all()
        except CheckpointError as error:
            return [f"the ballast cannot be read at {node}: {error}"]
        keys = ballast_keys(0, BALLAST_SECTIONS)
        missing = sum(held.get(key) != ballast_value(key) for key in keys)
        return [f"{missing} sections of the ballast are lost at {node}"] if missing else []

    def _end_round(self, loads: Sequence[Load], found: Verdict) -> None:
        if found.wrong:
            self._keep(loads, found)
        self.verdict.add(found)
        try:
            connection = Connection(self.cluster.addresses(), self.cluster.name)
            for load in loads:
                for name in load.checkpoints:
                    connection.unlink(name)
            connection.close()
        except SaAisError as error:
            self.verdict.wrong.append(f"cannot unlink what a round has left: {error}")
        self.rss.append({node: rss_bytes(self.cluster.pid(node)) for node in self.cluster.running})
        weighs = ", ".join(f"{node} {size / MIB:.0f}" for node, size in self.rss[-1].items())
        self.console.print(
            f"round {self.rounds}: {found.calls:,} calls, {found.acknowledged:,} entries acknowledged, "
            f"{found.lost} lost (asynchronous), longest call {found.longest_seconds:.1f} s, "
            f"undecided {found.undecided}, violations {len(found.wrong)}; MiB: {weighs}"
        )

    def _keep(self, loads: Sequence[Load], found: Verdict) -> None:
        for text in found.wrong[:10]:
            self.console.print(f"[red]  {text}")
        if self.kept >= KEPT_MAX:
            return
        self.kept += 1
        directory = self.keep / f"round-{self.rounds}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "violations").write_text(
            "\n".join([*self.faults[-self.faults_per_round :], "", *found.wrong])
        )
        for node in self.cluster.node_ids:
            shutil.copy(self.cluster.log_path(node), directory / f"{node}.log")
        for load in loads:
            calls = sorted(
                (call for caller in load.everybody for call in caller.recorder.calls),
                key=lambda call: call.invoked_ns,
            )
            text = "\n".join(f"{call.creation_id} {call.describe()}" for call in calls)
            (directory / f"{load.name}.calls").write_text(text)
        self.console.print(f"[red]  logs and calls are in {directory}")

    def memory_wrong(self) -> list[str]:
        """Return which daemons grew from the first quarter of the rounds to the last."""
        quarter = max(len(self.rss) // 4, 1)
        wrong = []
        for node in self.cluster.node_ids:
            sizes = [each[node] for each in self.rss if node in each]
            first, last = statistics.median(sizes[:quarter]), statistics.median(sizes[-quarter:])
            self.console.print(
                f"memory of {node}: first quarter {first / MIB:.1f} MiB, last {last / MIB:.1f} MiB"
            )
            if last > first * GROWTH_MAX + GROWTH_BYTES_MAX:
                wrong.append(f"{node} grew from {first / MIB:.0f} to {last / MIB:.0f} MiB")
        return wrong


def may_lack_active(load: Load) -> bool:
    """Return True if the service leaves it to the application to make a replica active."""
    flags = load.shape.flags
    return bool(flags & SA_CKPT_CHECKPOINT_COLLOCATED) and not flags & SA_CKPT_WR_ALL_REPLICAS


def ballast_keys(first: int, end: int) -> list[bytes]:
    """Return some of the ballast's keys."""
    return [b"section-%d" % number for number in range(first, end)]


def ballast_value(key: bytes) -> bytes:
    """Return the value that belongs to a key."""
    return (key * (BALLAST_BYTES // len(key) + 1))[:BALLAST_BYTES]


def main() -> None:
    """Soak, print, exit with 1 after any violation."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N")
    parser.add_argument(
        "--seed", type=int, default=None, metavar="N", help="of the faults and of each client"
    )
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="2, 3 or more")
    parser.add_argument("--faults", type=int, default=FAULTS_PER_ROUND, metavar="N", help="in each round")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="for logs after a violation")
    parser.add_argument("--no-network", action="store_true", help="no network namespaces, and no cuts")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    console = Console(highlight=False, soft_wrap=True)
    reason = "as asked" if arguments.no_network else why_unavailable()
    console.print(
        f"seed {seed}, {arguments.nodes} nodes, {arguments.minutes:g} minutes, "
        + (f"no faults of the network: {reason}" if reason else "with faults of the network")
    )
    keep = arguments.keep or Path(tempfile.gettempdir()) / f"ckptd-soak-{seed}"
    made = LocalCluster if reason else NetnsCluster
    with made(arguments.nodes) as cluster:
        soak = Soak(cluster, random.Random(seed), console, keep, faults_per_round=arguments.faults)
        soak.fill_ballast()
        end = time.monotonic() + arguments.minutes * 60
        while time.monotonic() < end and soak.kept < KEPT_MAX:
            soak.run_round()
        soak.verdict.wrong += soak.memory_wrong()
    sys.exit(report(console, soak))


def report(console: Console, soak: Soak) -> int:
    """Print the summary; return the exit status."""
    verdict = soak.verdict
    console.print(
        f"{soak.rounds} rounds, {len(soak.faults)} faults, {verdict.calls:,} calls, "
        f"{verdict.acknowledged:,} ledger entries acknowledged, {verdict.lost} of asynchronous ones lost, "
        f"longest call {verdict.longest_seconds:.1f} s, undecided histories {verdict.undecided}"
    )
    console.print(f"calls that failed though their clients knew all nodes: {len(soak.failed)}")
    for text in sorted(set(soak.failed))[:5]:
        console.print(f"[dim]  {text[:300]}")
    for text in verdict.wrong:
        console.print(f"[red]violation: {text[:1000]}")
    console.print("no violation" if not verdict.wrong else f"{len(verdict.wrong)} VIOLATIONS")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    main()
