"""How long a client's call takes when its node is lost, for every client in every state.

The result is a table of client × transport × state × fault. Each client is a process of its own. It is
attached at node `a` of three through a relay (see `relay`), and the fault happens to `a`. The figure is the
time of the call that met the fault. For a tracker it is the time from the fault to the change that another
client wrote then.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from bench.leaving_client import KINDS
from bench.relay import Relays
from ckpt_client import Connection, SaAisError, Table
from ckptd.testing import LocalCluster

TRANSPORTS: Final = ("unix", "tcp", "udp")
FAULTS: Final = ("died", "froze", "cut off", "cut to node", "cut to client", "restarted", "garbage")
STATES: Final = ("busy", "idle", "idle past grace", "large write", "tracking", "forked", "resumed")

LIMIT_S: Final = 1.5
"""How long a call may take beyond its own work."""

GRACE_MS: Final = 6_000
"""The session grace of these clusters. With the default, 10 s, an idle client takes longer to measure."""

NODE: Final = "a"
IDLE_S: Final = 3.5
"""Longer than a link may be quiet before the client checks it (`node_silence.STALE_NS`)."""

SETTLED_S: Final = 2.0
PAUSED_S: Final = 2.0
BEGUN_BYTES: Final = 1 << 20
"""A large write is under way when this much of each has reached the node."""


@dataclass(slots=True)
class Row:
    """One client's call."""

    client: str
    transport: str
    state: str
    fault: str
    seconds: float
    own_s: float
    """How long the same call takes without a fault."""

    error: str

    @property
    def kept(self) -> bool:
        """True if the client continued in time."""
        return not self.error and self.seconds <= LIMIT_S + 2 * self.own_s

    def __str__(self) -> str:
        verdict = "" if self.kept else f"  NOT KEPT {self.error}"
        return (
            f"{self.client:10} {self.transport:4} {self.state:15} {self.fault:13} {self.seconds:6.2f} s, "
            f"alone {self.own_s:5.2f} s{verdict}"
        )


class Crowd:
    """One process for each kind of client and each transport."""

    def __init__(self, relays: Relays, kinds: Sequence[str], transports: Sequence[str], stem: str) -> None:
        self.places = [(kind, transport) for transport in transports for kind in kinds]
        self.names = [f"safCkpt={stem},{kind},{transport}" for kind, transport in self.places]
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (it is closed with the crowd)
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.leaving_client", kind, relays.addresses(transport), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.said,
                text=True,
            )
            for (kind, transport), name in zip(self.places, self.names, strict=True)
        ]

    def __enter__(self) -> "Crowd":
        self.hear()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.communicate()
        self.said.close()

    def hear(self) -> list[dict[str, Any]]:
        """Return one line from each client."""
        lines = [process.stdout.readline() for process in self.processes if process.stdout is not None]
        if all(lines):
            return [json.loads(line) for line in lines]
        self.said.seek(0)
        raise RuntimeError(f"a client ended: {self.said.read()[-2000:].decode()}")

    def say(self, word: str) -> list[dict[str, Any]]:
        """Send all clients a command; return their answers."""
        for process in self.processes:
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.write(word + "\n")
                    process.stdin.flush()
        return self.hear()

    def signal(self, number: int) -> None:
        """Send a signal to all clients."""
        for process in self.processes:
            os.kill(process.pid, number)


@contextmanager
def befall(cluster: LocalCluster, relays: Relays, fault: str) -> Iterator[Callable[[], None]]:
    """Yield the function that causes the fault. Afterwards the cluster is whole again."""

    def happen() -> None:
        match fault:
            case "died":
                cluster.kill(NODE)
            case "froze":
                cluster.pause(NODE)
            case "restarted":
                cluster.leave(NODE)
                cluster.start(NODE)
            case "garbage":
                relays.garble(NODE)
            case _:
                relays.cut(NODE, fault != "cut to client", fault != "cut to node")

    try:
        yield happen
    finally:
        relays.heal(NODE)
        if NODE in cluster.running:
            cluster.resume(NODE)
        else:
            cluster.start(NODE)
        cluster.wait_serving()


class Round:
    """All clients on some transports, in one state, with one fault."""

    def __init__(self, cluster: LocalCluster, relays: Relays) -> None:
        self.cluster = cluster
        self.relays = relays
        self.number = 0

    def run(
        self, state: str, fault: str, kinds: Sequence[str] = KINDS, transports: Sequence[str] = TRANSPORTS
    ) -> list[Row]:
        """Return the rows of one state and one fault."""
        if state == "forked":
            kinds = [kind for kind in kinds if kind == "Table"]  # The other clients end with their process.
        self.number += 1
        stem = f"{self.number}"
        with (
            Crowd(self.relays, kinds, transports, stem) as crowd,
            befall(self.cluster, self.relays, fault) as happen,
        ):
            own = crowd.say("call")
            if state == "large write":
                crowd.say("large")
                own = crowd.say("end")
            found = getattr(self, "_" + state.replace(" ", "_"))(crowd, happen)
        self._forget(crowd.names)
        return [
            Row(kind, transport, state, fault, one["seconds"], alone["seconds"], one["error"])
            for (kind, transport), one, alone in zip(crowd.places, found, own, strict=True)
        ]

    def _forget(self, names: Sequence[str]) -> None:
        """Unlink the tables: large values that are no longer needed would travel with every restart."""
        connection = Connection(self.cluster.address("b"))
        for name in names:
            with suppress(SaAisError):
                connection.unlink(name)
        connection.close()

    def _busy(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        crowd.say("busy")
        time.sleep(0.3)
        happen()
        time.sleep(SETTLED_S + LIMIT_S)
        return crowd.say("end")

    def _idle(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        time.sleep(IDLE_S)
        happen()
        time.sleep(SETTLED_S)
        return crowd.say("call")

    def _idle_past_grace(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        happen()
        time.sleep(SETTLED_S + GRACE_MS / 1000)
        return crowd.say("call")

    def _large_write(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        way = self.relays.ways[NODE]
        under_way = way.passed_bytes + BEGUN_BYTES * len(crowd.places)
        crowd.say("large")
        until = time.monotonic() + LIMIT_S
        while way.passed_bytes < under_way and time.monotonic() < until:
            time.sleep(0.001)
        happen()
        return crowd.say("end")

    def _tracking(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        others = ",".join(self.cluster.address(node) for node in self.cluster.node_ids if node != NODE)
        with ExitStack() as stack:
            tables = [stack.enter_context(Table(name, address=others)) for name in crowd.names]
            crowd.say("track")
            crowd.say("forget")
            moment_ns = time.monotonic_ns()
            happen()
            threads = [threading.Thread(target=table.Write, args=("k", b"w")) for table in tables]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            told = crowd.say("told")
        return [
            {
                "seconds": (one.get("told_ns", 0) - moment_ns) / 1e9,
                "error": "" if one.get("told_ns") else "nothing was told",
            }
            for one in told
        ]

    def _forked(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        happen()
        return crowd.say("fork")

    def _resumed(self, crowd: Crowd, happen: Callable[[], None]) -> list[dict[str, Any]]:
        crowd.signal(signal.SIGSTOP)
        happen()
        time.sleep(PAUSED_S)
        crowd.signal(signal.SIGCONT)
        return crowd.say("call")


@contextmanager
def rounds() -> Iterator[Round]:
    """Yield a cluster with relays."""
    flags = ("--session-grace-ms", str(GRACE_MS))
    with LocalCluster(3, flags=flags) as cluster, Relays(cluster) as relays:
        yield Round(cluster, relays)


def all_rows() -> Iterator[Row]:
    """Yield the whole table, in rounds. Large writes use one transport at a time: they load the machine."""
    with rounds() as round_of:
        for state in STATES:
            for fault in FAULTS:
                for transports in [(t,) for t in TRANSPORTS] if state == "large write" else [TRANSPORTS]:
                    yield from round_of.run(state, fault, transports=transports)
