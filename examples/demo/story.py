"""The demo's first part: a program loses its node in the middle of its work, and another one continues."""

import subprocess
import sys
import threading
import time
from typing import Final

from rich.console import Console

from ckpt_client import Table
from ckptd.testing import LocalCluster
from examples.demo.counter import KEY, NAME

STREAM_SECONDS: Final = 1.0
CARRY_ON: Final = 500
FINISH_SECONDS: Final = 20.0


class Counter:
    """The counting program as a process of its own, and what it has printed so far."""

    def __init__(self, address: str, *how_many: str) -> None:
        command = [sys.executable, "-m", "examples.demo.counter", address, *how_many]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.numbers: list[int] = []
        self._first = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.numbers.append(int(line))
            self._first.set()
        self._first.set()

    def wait_first(self) -> int:
        """Return the number with which it began."""
        if not self._first.wait(FINISH_SECONDS) or not self.numbers:
            raise RuntimeError("the counting program did not start")
        return self.numbers[0]

    def finish(self) -> int:
        """Wait for its end and return its last number."""
        status = self.process.wait(FINISH_SECONDS)
        self._reader.join(FINISH_SECONDS)
        if status > 0:
            raise RuntimeError(f"the counting program ended with status {status}")
        return self.numbers[-1]

    def kill(self) -> int:
        """Send SIGKILL; return the last number that the program printed."""
        self.process.kill()
        return self.finish()


class Story:
    """Runs the first part, and prints a line for each step."""

    def __init__(self, console: Console, cluster: LocalCluster) -> None:
        self._console = console
        self._cluster = cluster
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line, with the time since the beginning."""
        self._console.print(f"[dim]{time.monotonic() - self._began:6.2f} s[/]  {text}", soft_wrap=True)

    def aside(self, text: str) -> None:
        """Print an explanation of the line before."""
        self._console.print(f"          [dim]{text}[/]", soft_wrap=True)

    def show_cluster(self) -> None:
        """Print the processes and the view that they have agreed on."""
        cluster = self._cluster
        for node in cluster.node_ids:
            self.say(
                f"[bold]ckptd {node}[/] runs, process {cluster.pid(node)}, {cluster.address(node, 'tcp')}, "
                f"{cluster.address(node)}"
            )
        self.aside(f"each was started as: ckptd {' '.join(cluster.command('a')[3:11])} …")
        view = cluster.describe("cluster")
        members = ", ".join(member.node_id for member in view.members)
        self.say(f"they form one cluster: epoch {view.epoch}, members {members}, arbiter {view.arbiter}")
        self.aside("a majority decides who belongs to it, so that two halves can never both go on")

    def tell(self) -> bool:
        """Run all steps; return True if nothing acknowledged was lost."""
        cluster = self._cluster
        self.show_cluster()
        writer = Counter(cluster.address("a"))
        self.say(
            f"a program on node a (process {writer.process.pid}) counts orders from {writer.wait_first()}"
        )
        self.aside(f'Table("{NAME}", …).Write("{KEY}", number): acknowledged when every replica has it')
        active = cluster.active_node(NAME)
        if active is None:
            raise RuntimeError("a sync checkpoint always has an active replica")
        self.say(
            f"replicas on {', '.join(cluster.in_sync_nodes(NAME))}; the active one, on {active}, orders the writes"
        )
        time.sleep(STREAM_SECONDS)
        cluster.kill(active)
        acknowledged = writer.kill()
        self.say(
            f"[bold red]SIGKILL[/] to ckptd {active} in the middle of the stream, and to the program with it: "
            f"{acknowledged:,} was its last acknowledged number"
        )
        other = next(node for node in cluster.node_ids if node != active)
        self.aside("their host is gone, as far as anybody can tell; nothing was written to a disk")
        successor = Counter(cluster.address(other), str(CARRY_ON))
        found = successor.wait_first()
        kept = found in (acknowledged, acknowledged + 1)
        self.say(
            f"the program starts again, on node {other}: it reads [bold]{found:,}[/] and carries on from there"
        )
        if found == acknowledged + 1:
            self.aside(
                "one more than was acknowledged: that write had arrived when its answer no longer could"
            )
        last = successor.finish()
        view = cluster.describe("cluster", other)
        self.say(
            f"it counted on to {last:,}; epoch {view.epoch}, node {cluster.active_node(NAME)} is active now"
        )
        cluster.start(active)
        cluster.wait_serving()
        cluster.wait_in_sync(NAME, [active])
        self.say(f"ckptd {active} was started again and holds an in-sync replica: {self._replicas()}")
        with Table(NAME, address=cluster.address(active), read_only=True) as table:
            read = int(table.get(KEY, b"0"))
        self.say(f"read by way of {active}: {read:,}")
        return kept and read == last

    def _replicas(self) -> str:
        return ", ".join(self._cluster.in_sync_nodes(NAME))
