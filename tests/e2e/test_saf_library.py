"""The SAF library against real daemons: standbys that miss nothing, and what processes leave."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ckpt_client import SaAisError
from ckpt_client.saf import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
    AsyncCheckpointService,
    Checkpoint,
    CheckpointCreationAttributes,
    CheckpointService,
    DispatchFlags,
    SectionChange,
    SectionChangeT,
)
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_ONE_MINUTE
from ckptd.testing import LocalCluster

CREATED, WRITTEN, OVERWRITTEN, DELETED, EXPIRED, *_ = SectionChangeT
READ, WRITE, ALL_MODES = 1, 2, 7
SYNC, ASYNC = SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA
SECTIONS = 500
DEADLINE_S = 30.0
POLL_S = 0.002
AT_ONCE_S = 5.0
"""Long before a session's grace time is over."""


def given(kind: int = SYNC) -> CheckpointCreationAttributes:
    """Creation attributes; what nobody has open stays for a minute."""
    return CheckpointCreationAttributes(kind, SECTIONS * 1000, SA_TIME_ONE_MINUTE, SECTIONS, 1000, 32)


def until(predicate: Callable[[], Any], seconds: float = DEADLINE_S) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(POLL_S)


@pytest.fixture
def dn(name: str) -> str:
    """A checkpoint's distinguished name that no other test uses."""
    return f"safCkpt={name}"


Begin = Callable[..., CheckpointService]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins a service at an address; it ends with the test."""
    with ExitStack() as stack:

        def begin_at(address: str | Iterable[str], **more: Any) -> CheckpointService:
            service = CheckpointService.initialize(more.pop("version", ("B", 2, 2)), address=address, **more)
            stack.callback(end, service)
            return service

        yield begin_at


def end(service: CheckpointService) -> None:
    """Finalize it, unless that was done."""
    try:
        service.finalize()
    except SaAisError as error:
        assert error.code == codes.BAD_HANDLE


class Standby:
    """Keeps a copy of a checkpoint, by reading what it is told of. `changes`: all that it was told."""

    def __init__(self, service: CheckpointService, name: str) -> None:
        self.service = service
        self.checkpoint = service.checkpoint_open(name, READ)
        self.copy: dict[bytes, bytes] = {}
        self.changes: list[SectionChange] = []
        self.calls = 0
        self.checkpoint.track(self._tell)

    def _tell(self, checkpoint: Checkpoint, changes: list[SectionChange]) -> None:
        self.calls += 1
        self.changes += changes
        for section_id in {change.section_id for change in changes}:
            try:
                self.copy[section_id] = checkpoint.read([(section_id, None, 0)])[0]
            except SaAisError as error:
                assert error.code == codes.NOT_EXIST
                self.copy.pop(section_id, None)

    def listen(self, predicate: Callable[[], Any]) -> None:
        """Dispatch until something is so."""

        def step() -> Any:
            assert self.service.pending <= 1
            self.service.dispatch(DispatchFlags.ALL)
            return predicate()

        until(step)

    def hear_of(self, section_id: bytes) -> None:
        """Dispatch until it has this section."""
        self.listen(lambda: section_id in self.copy)

    @property
    def in_order(self) -> bool:
        """Whether sequences never fell."""
        sequences = [change.sequence for change in self.changes]
        return sequences == sorted(sequences)


def contents(checkpoint: Checkpoint) -> dict[bytes, bytes]:
    """All sections."""
    ids = [section.section_id for section in checkpoint.section_iteration()]
    return dict(zip(ids, checkpoint.read([(i, None, 0) for i in ids]), strict=True)) if ids else {}


# -- standbys


@pytest.mark.extended
@pytest.mark.parametrize("kind", [SYNC, pytest.param(ASYNC, marks=pytest.mark.slow)])
def test_a_standby_that_does_not_dispatch_misses_nothing_and_holds_one_list(
    kind: int, cluster: LocalCluster, dn: str, begin: Begin
) -> None:
    """50,000 small writes, while it does something else."""
    writer = begin(cluster.address("a")).checkpoint_open(dn, ALL_MODES, given(kind))
    for number in range(20):
        writer.section_create(f"k{number}")
    standby = Standby(begin(cluster.address("c")), dn)

    async def write() -> None:
        service = await AsyncCheckpointService.initialize(address=cluster.address("a"))
        checkpoint = await service.checkpoint_open(dn, READ | WRITE)

        async def write_some(task: int) -> None:
            for number in range(1_000):
                await checkpoint.overwrite(f"k{(task + number) % 20}", f"{task} {number}")
                assert standby.service.pending <= 1

        await asyncio.gather(*(write_some(task) for task in range(50)))
        await checkpoint.section_create("last", SA_TIME_END, "v")
        await checkpoint.section_delete("k0")
        await service.finalize()

    asyncio.run(write())
    assert standby.changes == [] and standby.service.pending == 1
    expected = contents(writer)
    assert len(expected) == 20
    standby.listen(lambda: standby.copy == expected)
    assert standby.in_order
    assert len(standby.changes) < 5_000, "what became of each section is told, not each write"


@pytest.mark.parametrize(
    ("lost", "writes_at"), [("b", "a"), pytest.param("a", "c", marks=pytest.mark.extended)]
)
def test_a_standby_misses_nothing_when_its_node_is_killed(
    lost: str, writes_at: str, cluster: LocalCluster, dn: str, begin: Begin
) -> None:
    """The node that it is attached to, which is the one of the active replica or not."""
    writer = begin(cluster.address(writes_at)).checkpoint_open(dn, ALL_MODES, given())
    owner = begin(cluster.address("a")).checkpoint_open(dn, READ)
    writer.section_create("k")
    cluster.wait_in_sync(dn, 3)
    others = [node for node in cluster.node_ids if node != lost]
    addresses = [cluster.address(node) for node in (lost, *others)]
    standby = Standby(begin(addresses, timeout_ns=SA_TIME_ONE_MINUTE), dn)
    assert standby.service.inner.connection.node_id == lost
    for number in range(1, 51):
        writer.overwrite("k", bytes(number))
    standby.listen(lambda: len(standby.changes) >= 20)
    cluster.kill(lost)
    for number in range(51, 101):
        writer.overwrite("k", bytes(number))
    writer.section_create("last")
    standby.hear_of(b"last")
    assert [change.data_size for change in standby.changes] == [*range(1, 101), 0]
    assert [change.change for change in standby.changes] == [OVERWRITTEN] * 100 + [CREATED]
    assert standby.in_order
    assert standby.service.inner.connection.node_id != lost
    assert standby.copy == contents(writer)
    assert owner.open_flags == READ


def test_deletions_and_expirations_are_reported(cluster: LocalCluster, dn: str, begin: Begin) -> None:
    writer = begin(cluster.address("a")).checkpoint_open(dn, ALL_MODES, given())
    standby = Standby(begin(cluster.address("b", "tcp")), dn)
    for section_id in ("deleted", "expired"):
        writer.section_create(section_id, initial_data="v")
    standby.listen(lambda: len(standby.copy) == 2)
    writer.section_delete("deleted")
    writer.section_expiration_time_set("expired", time.time_ns() + 50_000_000)
    standby.listen(lambda: not standby.copy)
    assert [(change.change, change.section_id) for change in standby.changes] == [
        (CREATED, b"deleted"),
        (CREATED, b"expired"),
        (DELETED, b"deleted"),
        (EXPIRED, b"expired"),
    ]


@pytest.mark.extended
def test_tracking_stopped_and_begun_again_begins_afresh(cluster: LocalCluster, dn: str, begin: Begin) -> None:
    writer = begin(cluster.address("a")).checkpoint_open(dn, ALL_MODES, given())
    standby = Standby(begin(cluster.address("b")), dn)
    writer.section_create("told")
    standby.listen(lambda: standby.copy)
    for number in range(20):
        writer.overwrite("told", "pending when it stops")
        standby.checkpoint.track_stop()
        assert standby.service.pending == 0
        writer.section_create(f"not told {number}")
        standby.checkpoint.track(standby._tell)
        writer.section_create(f"told {number}")
        standby.hear_of(f"told {number}".encode())
    told = {change.section_id for change in standby.changes}
    assert told == {b"told", *(f"told {number}".encode() for number in range(20))}
    assert standby.in_order


# -- processes

PROGRAM = """
import sys
from ckpt_client.saf import *
def main():
    service = CheckpointService.initialize(address=sys.argv[1])
    checkpoint = service.checkpoint_open(sys.argv[2], 1)
    print("open", flush=True)
    sys.stdin.readline()
main()
"""


@pytest.mark.parametrize(
    ("scheme", "killed"),
    [
        ("unix", True),
        *(pytest.param(other, False, marks=pytest.mark.extended) for other in ("unix", "tcp", "udp")),
    ],
)
def test_what_a_process_had_open_is_closed_with_it(
    scheme: str, killed: bool, cluster: LocalCluster, dn: str, begin: Begin
) -> None:
    """At once: by its farewell, or (on the same host) by the loss of its socket."""
    begin(cluster.address("a")).checkpoint_open(dn, ALL_MODES, given())
    command = [sys.executable, "-c", PROGRAM, cluster.address("b", scheme), dn]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "open\n"
        assert cluster.checkpoint(dn).opens == 2
        if killed:
            process.kill()
        else:
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(DEADLINE_S) == (-signal.SIGKILL if killed else 0)
        assert process.stderr.read() == ""
    until(lambda: cluster.checkpoint(dn).opens == 1, AT_ONCE_S)


@pytest.mark.extended
def test_services_of_many_nodes_clusters_and_versions_in_one_process(
    cluster: LocalCluster, dn: str, begin: Begin
) -> None:
    with LocalCluster(1, name="another", key="secret") as another:
        services = [begin(cluster.address(node)) for node in "abc"]
        services.append(begin(cluster.address("a", "udp"), version=("B", 1, 1)))
        services.append(begin(another.address("a", "tcp"), cluster="another", key="secret"))
        checkpoints = [service.checkpoint_open(dn, ALL_MODES, given()) for service in services]
        for number, checkpoint in enumerate(checkpoints):
            checkpoint.section_create(f"k{number}")
        assert [checkpoint.status_get().number_of_sections for checkpoint in checkpoints] == [4, 4, 4, 4, 1]
        services[0].finalize()
        with pytest.raises(SaAisError):
            checkpoints[0].status_get()
        assert len(contents(checkpoints[1])) == 4
        assert list(contents(checkpoints[4])) == [b"k4"]
        end(services[4])


@pytest.mark.extended
def test_a_thread_that_waits_for_a_paused_node_delays_no_other(
    cluster: LocalCluster, dn: str, begin: Begin
) -> None:
    """What is synchronized waits for every replica; an asynchronous write for the active one."""
    service = begin(cluster.address("a"))
    checkpoint = service.checkpoint_open(dn, ALL_MODES, given(ASYNC))
    checkpoint.section_create("k")
    cluster.wait_in_sync(dn, 3)
    cluster.pause("c")
    try:
        checkpoint.overwrite("k", "c does not take this")
        waiting = threading.Thread(target=checkpoint.synchronize, daemon=True)
        waiting.start()
        for number in range(100):
            checkpoint.overwrite("k", str(number))
            assert checkpoint.read([("k", None, 0)]) == [b"%d" % number]
        assert waiting.is_alive()
    finally:
        cluster.resume("c")
    waiting.join(DEADLINE_S)
    assert not waiting.is_alive()
