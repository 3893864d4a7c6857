"""The rounds of `bench.takeover`: two programs, of which one leads, and what happens to the one that does."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from bench.takeover_log import Leading, ProgramLog, Write, faults_of
from bench.takeover_program import KEY
from ckpt_client import Table
from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster

NAME: Final = "takeover"
WRITES_BEFORE: Final = 20
"""How many writes a leader has made before something happens to it."""

POLL_SECONDS: Final = 0.002
STOPPED_TTLS: Final = 3


class Program:
    """One of the programs, and its file."""

    def __init__(self, address: str, ttl: float, path: Path) -> None:
        self.log = ProgramLog()
        self._path = path
        self._offset = 0
        command = [sys.executable, "-m", "bench.takeover_program", address, NAME, str(ttl), str(path)]
        # In a group of its own: if this process ends while the program is stopped, the kernel resumes it.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)

    def read(self) -> ProgramLog:
        """Return everything that it wrote into its file until now."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return self.log
        self._offset += len(text)
        self.log.feed(text.decode())
        return self.log

    @property
    def leading(self) -> Leading | None:
        """Its last leadership."""
        return self.read().leadings[-1] if self.read().leadings else None

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()


class Takeover(NamedTuple):
    """One round: how long it took until the next write, and how long `resign` took (else 0)."""

    next_write_ms: float
    resign_ms: float = 0.0


class Stage:
    """A cluster, and two programs on different nodes.

    With namespaces, each program reaches only the node on its own host.
    """

    def __init__(self, cluster: LocalCluster, ttl: float) -> None:
        self.cluster = cluster
        self.ttl = ttl
        self.logs: list[ProgramLog] = []
        self.programs: dict[str, Program] = {}
        """By the node whose host they are on."""

        self._killed_daemons = 0
        self._directory = Path(tempfile.mkdtemp(prefix="takeover-"))
        self._ends = ExitStack()
        self._ends.callback(shutil.rmtree, self._directory)
        address = cluster.addresses(cluster.node_ids[-1])
        self.table = self._ends.enter_context(Table(NAME, 10, 256, 16, address=address, timeout=30))
        try:
            for node in cluster.node_ids[:2]:
                self._start(node)
        except BaseException:
            self.close()
            raise

    def _start(self, node: str) -> None:
        alone = isinstance(self.cluster, NetnsCluster)
        address = self.cluster.address(node) if alone else self.cluster.addresses(node)
        program = Program(address, self.ttl, self._directory / str(len(self.logs)))
        self.logs.append(program.log)
        self.programs[node] = program

    def _wait(self, condition: Callable[[], object], what: str) -> None:
        self.cluster.wait_until(lambda: bool(condition()), what)

    def _ready(self) -> tuple[str, str]:
        """Wait until one program has led for some writes and the other one waits; return their nodes."""
        found: list[str] = []

        def ready() -> bool:
            history = self.table.leadership_history()
            leader, waiting = history.leader, {program.pid for program in history.waiting}
            places = {program.process.pid: node for node, program in self.programs.items()}
            if leader is None or leader.pid not in places or len(waiting) != 1 or not waiting <= set(places):
                return False
            found[:] = places.pop(leader.pid), *places.values()
            leading = self.programs[found[0]].leading
            return (
                leading is not None and leading.token == leader.token and len(leading.writes) >= WRITES_BEFORE
            )

        self._wait(ready, "one program leads and the other one waits")
        return found[0], found[1]

    def _led(self, node: str) -> Leading:
        """Return the leadership that a node's program has, or had last."""
        leading = self.programs[node].leading
        assert leading is not None, f"the program at {node} has led"
        return leading

    def _next_write(self, node: str, token: str, moment_ns: int, takes_over: bool = True) -> Write:
        """Wait for a write of a node's program after a moment, with another token if it takes over."""
        found: list[Write] = []

        def written() -> bool:
            leading = self.programs[node].leading
            if leading is None or (leading.token != token) != takes_over:
                return False
            write = leading.first_write_after(moment_ns)
            found[:] = [] if write is None else [write]
            return bool(found)

        self._wait(written, f"the program at {node} writes")
        return found[0]

    # -- rounds

    def kill_program(self) -> Takeover:
        """Kill the leading program with SIGKILL, and start it again."""
        node, other = self._ready()
        token = self._led(node).token
        moment = time.monotonic_ns()
        self.programs[node].process.kill()
        write = self._next_write(other, token, moment)
        self.programs[node].end()
        self.programs[node].read()
        self._start(node)
        return _takeover(moment, write)

    def stop_program(self) -> Takeover:
        """Stop the leading program for 3 times the ttl. Then it has to learn that it leads no more."""
        node, other = self._ready()
        program, leading = self.programs[node], self._led(node)
        moment = time.monotonic_ns()
        os.kill(program.process.pid, signal.SIGSTOP)
        write = self._next_write(other, leading.token, moment)
        time.sleep(max(STOPPED_TTLS * self.ttl - (time.monotonic_ns() - moment) / 1e9, 0))
        os.kill(program.process.pid, signal.SIGCONT)
        self._wait(
            lambda: program.read() and (leading.refused or leading.late),
            "the service has decided on a late write of the stopped program",
        )
        return _takeover(moment, write)

    def kill_daemon(self) -> Takeover:
        """Kill a daemon of the leading program, which stays the leader, and start the daemon again.

        In turns it is the node to which its leadership is attached, and the one that orders its writes.
        """
        node, _ = self._ready()
        token = self._led(node).token
        leader, active = self.table.leader(), self.cluster.active_node(NAME)
        assert leader is not None and leader.node and active, "the leader is attached to a node"
        self._killed_daemons += 1
        daemon = leader.node if self._killed_daemons % 2 else active
        moment = time.monotonic_ns()
        self.cluster.kill(daemon)
        write = self._next_write(node, token, moment, takes_over=False)
        self._restart(daemon)
        return _takeover(moment, write)

    def lose_host(self) -> Takeover:
        """Cut off the leader's host and kill what is on it; then start it again."""
        cluster = self.cluster
        assert isinstance(cluster, NetnsCluster), "hosts are network namespaces"
        node, other = self._ready()
        token = self._led(node).token
        moment = time.monotonic_ns()
        cluster.isolate(node)
        self.programs[node].process.kill()
        cluster.kill(node)
        write = self._next_write(other, token, moment)
        self.programs[node].end()
        self.programs[node].read()
        cluster.heal()
        self._restart(node)
        self._start(node)
        return _takeover(moment, write)

    def resign(self) -> Takeover:
        """Have the leader resign."""
        node, other = self._ready()
        leading = self._led(node)
        os.kill(self.programs[node].process.pid, signal.SIGUSR1)
        self._wait(lambda: self.programs[node].read() and leading.resigned_ns[0], "the leader resigns")
        began, ended = leading.resigned_ns
        write = self._next_write(other, leading.token, began)
        return Takeover((write.ended_ns - began) / 1e6, (ended - began) / 1e6)

    def _restart(self, node: str) -> None:
        self.cluster.start(node)
        self.cluster.wait_serving()
        self.cluster.wait_in_sync(NAME, self.cluster.node_ids)

    # -- the end

    def faults(self) -> list[str]:
        """Return what went wrong in all rounds until now, a line for each."""
        for program in self.programs.values():
            program.read()
        return faults_of(self.logs, int(self.table[KEY].split()[0]))

    @property
    def acknowledged(self) -> int:
        """How many writes the leaders were acknowledged."""
        return sum(len(leading.writes) for log in self.logs for leading in log.leadings)

    def close(self) -> None:
        """End the programs."""
        for program in self.programs.values():
            program.end()
        self._ends.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _takeover(moment_ns: int, write: Write) -> Takeover:
    return Takeover((write.ended_ns - moment_ns) / 1e6)
