"""Every client, by every transport, in every state, leaves a node that is lost: in virtual time, to the ms.

`bench.leaving` and tests/e2e/test_leaving.py are the same with real processes.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import product
from random import Random
from typing import Any

import pytest
from tests.client.virtual_faults import SECOND_NS, FaultyWorld

from ckpt_client import AsyncTable, CheckpointError, SaAisError, Table
from ckpt_client.saf import AsyncCheckpointService, CheckpointCreationAttributes, CheckpointService
from ckpt_protocol import codes

LIMIT_NS = 3 * SECOND_NS // 2
CLIENTS = ("Table", "AsyncTable", "saf", "saf.aio")
TRANSPORTS = ("unix", "tcp", "udp")
FAULTS = (
    "died",
    "froze",
    "cut off",
    "cut to node",
    "cut to client",
    "host lost",
    "isolated",
    "restarted",
    "garbage",
)
STATES = ("busy", "idle", "idle for a minute", "large write", "tracking", "forked", "resumed")
LARGE = bytes(1 << 20)
ATTRIBUTES = CheckpointCreationAttributes(1, 8 * len(LARGE), 2**63 - 1, 8, len(LARGE), 16)
NAME = "safCkpt=x"


def befall(world: FaultyWorld, fault: str) -> None:
    """Something happens to node `a`."""
    cluster = world.cluster
    match fault:
        case "died":
            cluster.kill("a")
        case "froze":
            cluster.pause("a")
        case "two froze":
            cluster.pause("a")
            cluster.pause("b")
        case "two cut off":
            cluster.cut_to_node |= {"a", "b"}
            cluster.cut_to_client |= {"a", "b"}
            cluster.cut("ab", "cde")
        case "cut to node":
            cluster.cut_to_node.add("a")
        case "cut to client":
            cluster.cut_to_client.add("a")
        case "cut off":
            cluster.cut_to_node.add("a")
            cluster.cut_to_client.add("a")
        case "isolated":
            cluster.cut("a", "bc")
        case "host lost":
            cluster.cut_to_node.add("a")
            cluster.cut_to_client.add("a")
            cluster.kill("a", silent=True)
        case "restarted":
            cluster.kill("a")
            cluster.after(SECOND_NS // 5, lambda: cluster.restart("a"))
        case "garbage":
            cluster.garbled.add("a")


class Subject:
    """One client with one checkpoint open, at node `a`."""

    def __init__(self, world: FaultyWorld, kind: str, transport: str) -> None:
        self.world = world
        self.kind = kind
        self.run = world.runner.run
        self.write: Callable[[str, bytes], Any]
        self.table: Table | None = None
        getattr(self, "_open_" + kind.replace(".", "_").lower())(world.addresses(transport))
        self.write("k", b"v")

    def _open_table(self, addresses: list[str]) -> None:
        self.table = Table(NAME, 8, len(LARGE), 16, address=addresses, follow_active=False)
        self.write = self.table.Write

    def _open_asynctable(self, addresses: list[str]) -> None:
        opening = AsyncTable.open(NAME, 8, len(LARGE), 16, address=addresses, follow_active=False)
        table = self.run(opening)
        self.write = lambda key, value: self.run(table.write(key, value))
        self.track = table.track

    def _open_saf(self, addresses: list[str]) -> None:
        service = CheckpointService._initialize(self.world.runner, ("B", 2, 2), None, address=addresses)
        checkpoint = service.checkpoint_open(NAME, 7, ATTRIBUTES)
        checkpoint.section_create("k")
        self.write = checkpoint.overwrite
        self.track = checkpoint._inner.track

    def _open_saf_aio(self, addresses: list[str]) -> None:
        service = self.run(AsyncCheckpointService.initialize(("B", 2, 2), address=addresses))
        checkpoint = self.run(service.checkpoint_open(NAME, 7, ATTRIBUTES))
        self.run(checkpoint.section_create("k"))
        self.write = lambda key, value: self.run(checkpoint.overwrite(key, value))
        self.track = checkpoint.track

    def timed(self, value: bytes = b"w") -> int:
        """How long one write takes, in ns."""
        began_ns = self.world.cluster.now_ns
        self.write("k", value)
        return self.world.cluster.now_ns - began_ns

    def rest(self, seconds: float) -> None:
        """Ask nothing. What runs on a loop goes on running."""
        if self.table is None:
            self.world.runner.pass_time(seconds)
        else:
            self.world.pass_time(seconds)


# -- the states: each returns how long the call that met the fault took


def busy(subject: Subject, happen: Callable[[], None]) -> int:
    cluster = subject.world.cluster
    began_ns = cluster.now_ns
    cluster.after(SECOND_NS // 50, happen)
    longest_ns = 0
    while (passed_ns := cluster.now_ns - began_ns) < 3 * SECOND_NS:
        longest_ns = max(longest_ns, subject.timed())
        subject.rest(0.001 if passed_ns < SECOND_NS // 10 else 0.02)  # Dense where the fault comes.
    return longest_ns


def idle(subject: Subject, happen: Callable[[], None]) -> int:
    subject.rest(4)
    happen()
    subject.rest(2)
    return subject.timed()


def idle_for_a_minute(subject: Subject, happen: Callable[[], None]) -> int:
    happen()
    subject.rest(60)
    return subject.timed()


def large_write(subject: Subject, happen: Callable[[], None]) -> int:
    subject.world.cluster.after(100_000, happen)  # The first bytes have come to the node.
    return subject.timed(LARGE)


def tracking(subject: Subject, happen: Callable[[], None]) -> int:
    world, told = subject.world, []
    other = Table(NAME, address=world.addresses("unix")[1:])
    changes = subject.run(subject.track())

    async def follow() -> None:
        await anext(changes)
        told.append(world.cluster.now_ns)

    world.runner.spawn(follow())
    subject.rest(0.5)
    happen()
    began_ns = world.cluster.now_ns
    other.Write("k", b"news")
    subject.run(_until(lambda: bool(told)))
    return told[0] - began_ns


def forked(subject: Subject, happen: Callable[[], None]) -> int:
    assert subject.table is not None
    happen()
    subject.table._connection._after_fork()
    subject.table._after_fork()
    return subject.timed()


def resumed(subject: Subject, happen: Callable[[], None]) -> int:
    happen()
    subject.world.pass_time(3)  # No loop of the client's runs meanwhile.
    return subject.timed()


async def _until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.001)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyWorld]:
    made = FaultyWorld(monkeypatch)
    yield made
    made.close()


def applies(kind: str, state: str) -> bool:
    """Only a blocking table outlives a fork. It tracks by an asyncio connection, as `AsyncTable` does."""
    return not (state == "forked" and kind != "Table") and not (state == "tracking" and kind == "Table")


TELLING = ("froze", "cut to node", "garbage", "two froze", "two cut off")
"""Each of the other faults is much like one of these."""


def by_one_transport(cases: Iterable[tuple[str, ...]]) -> list[Any]:
    """Cases that end with a fault, each by every transport: all but one, which is drawn, are slow."""

    def marks(case: tuple[str, ...], transport: str) -> Any:
        if transport != Random(repr(case)).choice(TRANSPORTS):
            return pytest.mark.slow
        telling = ("isolated",) if "idle for a minute" in case else TELLING
        return () if case[-1] in telling else pytest.mark.extended

    return [
        pytest.param(transport, *case, marks=marks(case, transport))
        for case, transport in product(cases, TRANSPORTS)
    ]


CASES = [case for case in product(CLIENTS, STATES, FAULTS) if applies(*case[:2])]


@pytest.mark.parametrize(("transport", "kind", "state", "fault"), by_one_transport(CASES))
def test_a_client_continues_within_a_second_and_a_half(
    transport: str, kind: str, state: str, fault: str, world: FaultyWorld
) -> None:
    subject = Subject(world, kind, transport)
    took_ns = globals()[state.replace(" ", "_")](subject, lambda: befall(world, fault))
    assert took_ns <= LIMIT_NS, f"{took_ns / 1e6:.0f} ms"
    with suppress(CheckpointError, SaAisError):
        if subject.table is not None:
            subject.table.close()


@pytest.mark.parametrize(
    ("transport", "kind", "fault"),
    by_one_transport(product(CLIENTS, ("two froze", "two cut off"))),
)
def test_two_nodes_of_five_are_lost_in_the_order_of_the_addresses(
    transport: str, kind: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one got as much time to greet as the first one had had to be silent."""
    world = FaultyWorld(monkeypatch, "abcde")
    try:
        subject = Subject(world, kind, transport)
        assert busy(subject, lambda: befall(world, fault)) <= LIMIT_NS
    finally:
        world.close()


@pytest.mark.parametrize(
    ("transport", "kind", "fault"),
    by_one_transport(product(("saf", "saf.aio"), ("froze", "host lost", "isolated", "died"))),
)
def test_handles_of_saf_that_ended_say_so_in_time(
    transport: str, kind: str, fault: str, world: FaultyWorld
) -> None:
    """The process stood still for longer than the grace: it could not keep its session up."""
    subject = Subject(world, kind, transport)
    befall(world, fault)
    world.pass_time(20)
    began_ns = world.cluster.now_ns
    for _ in range(2):
        with pytest.raises(SaAisError) as caught:
            subject.write("k", b"w")
        assert caught.value.code in (codes.UNAVAILABLE, codes.TIMEOUT)
    assert caught.value.code == codes.UNAVAILABLE
    assert world.cluster.now_ns - began_ns <= LIMIT_NS
