"""`examples/web_service.py`: the instance that serves is killed or stopped while clients send orders."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ckpt_client import Connection, Table
from ckptd.testing import HeldPort, LocalCluster

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 60
CLIENTS = 4
ORDERS = 100
"""How many more orders are acknowledged before the next fault."""


@dataclass(slots=True, frozen=True)
class Acknowledged:
    """An order, as its client got the answer. Times are in ns."""

    number: int
    by: str
    text: bytes
    began_ns: int
    ended_ns: int


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body. Raises: OSError, http.client.HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Instances:
    """The instances of the service, by name, each on the host of another node."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._held = {name: HeldPort() for name in ("one", "two")}
        self._nodes = dict(zip(self._held, cluster.node_ids, strict=False))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in self._held:
            self.start(name)

    @property
    def ports(self) -> tuple[int, ...]:
        return tuple(port.number for port in self._held.values())

    def start(self, name: str) -> None:
        command = [sys.executable, "examples/web_service.py", name, str(self._held[name])]
        environment = {**os.environ, "CKPTD_ADDRESS": self._cluster.addresses(self._nodes[name])}
        # A group of its own: see LocalCluster.start.
        self._processes[name] = subprocess.Popen(command, cwd=ROOT, env=environment, process_group=0)

    def serving(self) -> str:
        """Wait until an instance serves; return its name. The other one says so, too."""
        found: set[str] = set()

        def serves() -> bool:
            found.clear()
            for name, port in self._held.items():
                try:
                    status, body = request(port.number, "GET", "/orders/0")
                except OSError:
                    return False
                found.add(name if status == 404 else json.loads(body).get("serves"))
            return found <= set(self._held) and len(found) == 1

        self._cluster.wait_until(serves, "one instance serves, and the other one refers to it")
        return found.pop()

    def signal(self, name: str, number: int) -> None:
        os.kill(self._processes[name].pid, number)

    def end(self, name: str) -> int:
        """Wait for the end of a process; return its exit code."""
        return self._processes[name].wait(LIMIT_SECONDS)

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        for port in self._held.values():
            port.close()


class Clients:
    """Threads that send orders, each to one instance after the other until one serves."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        self._ports = ports
        self._stopped = threading.Event()
        self.acknowledged: list[Acknowledged] = []
        self._threads = [threading.Thread(target=self._send, args=(i,)) for i in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _send(self, client: int) -> None:
        number, at = 0, client
        while not self._stopped.is_set():
            number += 1
            text = b"order %d of client %d" % (number, client)
            began = time.monotonic_ns()
            try:
                status, body = request(self._ports[at % len(self._ports)], "POST", "/orders", text)
            except (OSError, http.client.HTTPException):
                status, body = 0, b""
            if status == 201:
                answer: Any = json.loads(body)
                taken = Acknowledged(answer["order"], answer["by"], text, began, time.monotonic_ns())
                self.acknowledged.append(taken)
            else:
                at += 1
                self._stopped.wait(0.01)

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def instances(cluster: LocalCluster) -> Iterator[Instances]:
    with ExitStack() as ends:
        found = Instances(cluster)
        ends.callback(found.close)
        yield found
    with Table("orders", address=cluster.address("c")) as table:
        # (After the first of two has died, the second one may still be granted what it waited for.)
        cluster.wait_until(
            lambda: table.status().opens == 1 and table.leader() is None,
            "the service knows that all instances are gone",
        )
    connection = Connection(cluster.address("c"))
    connection.unlink("orders", LIMIT_SECONDS)
    connection.close()


@pytest.fixture
def clients(instances: Instances) -> Iterator[Clients]:
    instances.serving()
    found = Clients(instances.ports)
    yield found
    found.stop()


def wait_for_orders(cluster: LocalCluster, clients: Clients, by: str) -> None:
    """Wait until an instance has taken some more orders."""
    before = len(clients.acknowledged)
    cluster.wait_until(
        lambda: sum(taken.by == by for taken in clients.acknowledged[before:]) >= ORDERS,
        f"{by} takes orders",
    )


def check(cluster: LocalCluster, instances: Instances, clients: Clients) -> None:
    """No acknowledged order is lost or has another's number, and one instance took them at a time."""
    serving = instances.serving()
    clients.stop()
    taken = sorted(clients.acknowledged, key=lambda one: one.number)
    assert len({one.number for one in taken}) == len(taken)
    with Table("orders", address=cluster.address("c")) as table:
        held = table.read_all()
    assert {str(one.number).encode(): one.text for one in taken}.items() <= held.items()
    last = taken[-1]
    assert last.by == serving
    port = dict(zip(("one", "two"), instances.ports, strict=True))[serving]
    assert request(port, "GET", f"/orders/{last.number}") == (200, last.text)
    # Orders of one instance follow each other. So a change of the instance is a take-over, and a request that
    # began after the first answer of the next one was not taken by the one before.
    for i, one in enumerate(taken[:-1]):
        later = taken[i + 1]
        if one.by != later.by:
            assert all(early.began_ns < later.ended_ns for early in taken[: i + 1])


def test_no_order_is_lost_or_numbered_twice_when_the_instance_that_serves_is_killed(
    cluster: LocalCluster, instances: Instances, clients: Clients
) -> None:
    for _ in range(2):
        serving = instances.serving()
        other = {"one": "two", "two": "one"}[serving]
        wait_for_orders(cluster, clients, serving)
        instances.signal(serving, signal.SIGKILL)
        wait_for_orders(cluster, clients, other)
        instances.end(serving)
        instances.start(serving)
    instances.signal(other, signal.SIGTERM)
    assert instances.end(other) == 0
    wait_for_orders(cluster, clients, serving)
    instances.start(other)
    check(cluster, instances, clients)


@pytest.mark.extended
def test_an_instance_that_was_stopped_takes_no_order_when_another_one_serves(
    cluster: LocalCluster, instances: Instances, clients: Clients
) -> None:
    serving = instances.serving()
    other = {"one": "two", "two": "one"}[serving]
    wait_for_orders(cluster, clients, serving)
    instances.signal(serving, signal.SIGSTOP)
    with Table("orders", address=cluster.address("c")) as table:
        cluster.wait_until(
            lambda: (leader := table.leader()) is not None and leader.name == other, "it leads"
        )
    instances.signal(serving, signal.SIGCONT)
    wait_for_orders(cluster, clients, other)
    check(cluster, instances, clients)
