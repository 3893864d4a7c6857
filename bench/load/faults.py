"""Random faults of a cluster of real processes: each fault begins, lasts and ends."""

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster

LASTS_MAX_SECONDS: Final = 3.0
SHORT_PAUSE_SECONDS: Final = (0.05, 0.5)
"""Shorter than the lease (0.6 s)."""

LONG_PAUSE_SECONDS: Final = (0.7, LASTS_MAX_SECONDS)
GONE_SECONDS: Final = 30.0

CLIENT: Final = """\
import sys
from ckpt_client import Table
table = Table(sys.argv[1], 100, 64, 32, retentionMs=0, address=sys.argv[2], cluster=sys.argv[3])
print("open", flush=True)
number = 0
while True:
    number += 1
    table.Write(str(number % 100), str(number))
"""
"""A client to be killed. Its checkpoint goes with it, since no other client opens it."""


@dataclass(slots=True, frozen=True)
class Fault:
    """One fault."""

    summary: str
    """What happens, for the log of a run."""

    happen: Callable[[], None]
    """Causes the fault; returns when it is over."""


def draw_fault(cluster: LocalCluster, draw: random.Random, active: str) -> Fault:
    """Draw one fault. `active`: a node with the active replica of some checkpoint, hit half of the time."""
    node = active if draw.random() < 0.5 else draw.choice(cluster.node_ids)
    seconds = draw.uniform(0.0, LASTS_MAX_SECONDS)
    kinds = [kill, pause_short, pause_long, leave, crash_client]
    if isinstance(cluster, NetnsCluster):
        network = draw.choice((split, isolate, cut_one_way, lose_heartbeats, lose_packets))
        if draw.random() < 0.5:
            return network(cluster, draw, node, seconds)
    return draw.choice(kinds)(cluster, draw, node, seconds)


# -- processes


def kill(cluster: LocalCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Crash the node, and start it after a while, quite often at once."""
    delay = draw.choice((0.0, 0.05, 0.2, seconds))

    def happen() -> None:
        cluster.kill(node)
        time.sleep(delay)
        cluster.start(node)

    return Fault(f"SIGKILL of {node}, start after {delay:.2f} s", happen)


def pause_short(cluster: LocalCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Freeze the node for so short that no other node needs to notice."""
    return _pause(cluster, node, draw.uniform(*SHORT_PAUSE_SECONDS))


def pause_long(cluster: LocalCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Freeze the node for longer than the lease."""
    return _pause(cluster, node, draw.uniform(*LONG_PAUSE_SECONDS))


def _pause(cluster: LocalCluster, node: str, seconds: float) -> Fault:
    def happen() -> None:
        cluster.pause(node)
        try:
            time.sleep(seconds)
        finally:
            cluster.resume(node)

    return Fault(f"SIGSTOP of {node} for {seconds:.2f} s", happen)


def leave(cluster: LocalCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Make a planned restart."""

    def happen() -> None:
        cluster.leave(node)
        time.sleep(seconds / 3)
        cluster.start(node)

    return Fault(f"SIGTERM of {node}, start after {seconds / 3:.2f} s", happen)


def crash_client(cluster: LocalCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Kill a client in the middle of its writes: what it had open is closed."""
    name = f"crash-{draw.getrandbits(32):08x}"

    def happen() -> None:
        command = [sys.executable, "-c", CLIENT, name, cluster.address(node), cluster.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            client.stdout.readline()
            time.sleep(0.1)
            client.kill()
        cluster.wait_until(
            lambda: all(each.name != name.encode() for each in cluster.describe("checkpoints", node)),
            f"what a killed client of {node} had open is closed",
            GONE_SECONDS,
        )

    return Fault(f"SIGKILL of a client at {node}", happen)


# -- the network


def split(cluster: NetnsCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Split the nodes in two sides that do not reach each other."""
    others = [other for other in cluster.node_ids if other != node]
    side = [node, *draw.sample(others, draw.randrange(len(others)))]
    return _network(cluster, f"{', '.join(side)} cut off", lambda: cluster.partition(side), seconds)


def isolate(cluster: NetnsCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Silence a host."""
    return _network(cluster, f"{node} silent", lambda: cluster.isolate(node), seconds)


def cut_one_way(cluster: NetnsCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Let one node not receive from another one, which still receives from it."""
    other = draw.choice([other for other in cluster.node_ids if other != node])
    what = f"{other} deaf to {node}"
    return _network(cluster, what, lambda: cluster.cut_one_way(node, other), seconds)


def lose_heartbeats(cluster: NetnsCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Lose datagrams."""
    share = draw.uniform(0.05, 0.4)
    return _network(cluster, f"{share:.0%} of heartbeats lost", lambda: cluster.lossy(share, "udp"), seconds)


def lose_packets(cluster: NetnsCluster, draw: random.Random, node: str, seconds: float) -> Fault:
    """Lose packets of all kinds."""
    share = draw.uniform(0.01, 0.3)
    return _network(cluster, f"{share:.0%} of packets lost", lambda: cluster.lossy(share), seconds)


def _network(cluster: NetnsCluster, what: str, begin: Callable[[], None], seconds: float) -> Fault:
    def happen() -> None:
        begin()
        try:
            time.sleep(seconds)
        finally:
            cluster.heal()

    return Fault(f"{what} for {seconds:.2f} s", happen)
