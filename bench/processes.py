"""The processes that are measured: start them, pin them to cores, and read what they have used."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

STOP_SECONDS: Final = 10.0


def pin_to(pid: int, core: int | None) -> None:
    """Keep a process on one core, if the system can do that and a core is given."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core})


def choose_cores(wanted: int) -> list[int | None]:
    """Choose the cores to spread over; [None] if the system cannot pin."""
    if not hasattr(os, "sched_getaffinity"):
        return [None]
    return list(sorted(os.sched_getaffinity(0))[:wanted])


def cpu_ns(pid: int) -> int:
    """Return the CPU time that a process has used, in all threads, user and system."""
    if pid == os.getpid():
        return time.process_time_ns()
    if sys.platform == "linux":
        # The process's CPU clock has nanoseconds; /proc/PID/stat counts in 10 ms. Source:
        # clock_getcpuclockid(3), CPUCLOCK_SCHED.
        return time.clock_gettime_ns((~pid << 3) | 2)
    said = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True)
    seconds = 0.0
    for part in said.stdout.strip().split(":"):
        seconds = seconds * 60 + float(part)
    return int(seconds * 1e9)


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    if sys.platform == "linux":
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(said.stdout) * 1024


class FloorCluster:
    """The floor's node and its replicas, each a process."""

    def __init__(self, replicas: int, cores: Sequence[int | None]) -> None:
        """`replicas`: how many besides the node; `cores`: the node's, then the replicas', in turn."""
        self._directory = tempfile.TemporaryDirectory(prefix="floor-")
        self.path: Final = f"{self._directory.name}/node.sock"
        self._processes: list[subprocess.Popen[str]] = []
        try:
            ports = [self._start(cores[(i + 1) % len(cores)], []) for i in range(replicas)]
            self._start(cores[0], [self.path, *ports])
        except BaseException:
            self.close()
            raise

    def _start(self, core: int | None, arguments: Iterable[str]) -> str:
        command = [sys.executable, "-m", "bench.floor_node", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        pin_to(process.pid, core)
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if not said:
            raise RuntimeError("a process of the floor ended at its start")
        return said

    @property
    def pids(self) -> dict[str, int]:
        """The pids of the processes, by role."""
        replicas = {f"replica {i}": p.pid for i, p in enumerate(self._processes[:-1], 1)}
        return {"node": self._processes[-1].pid, **replicas}

    def close(self) -> None:
        """Kill all processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(STOP_SECONDS)
            if process.stdout is not None:
                process.stdout.close()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
