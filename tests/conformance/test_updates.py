"""Updates and replicas: what is acknowledged where, as a whole, in which order (R52 to R55, R59 to R61)."""

import pytest
from tests.conformance.concurrent_calls import Writing, begin
from tests.conformance.marks import VIRTUAL, on, requirement, settings
from tests.conformance.shorthand import (
    ASYNC,
    COLLOCATED,
    KINDS,
    READ,
    SYNC,
    WEAK,
    WRITE,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint, CheckpointService

K = [("k", None, 0)]
MICROSECONDS = 1e-6
ALL_ASYNC = (ASYNC, WEAK, ASYNC | COLLOCATED, WEAK | COLLOCATED)


def opened(world: World, flags: int, node: str = "a", **changed: int) -> Checkpoint:
    """A new checkpoint with an active replica at this node, and a replica at each, in sync."""
    checkpoint = world.open(node, creation_flags=flags, **changed)
    if flags & COLLOCATED:
        for other in world.nodes:
            world.open(other, checkpoint.name, READ)
        if not flags & SYNC:
            checkpoint.active_replica_set()
    world.wait_in_sync(checkpoint.name, *world.nodes)
    return checkpoint


# -- acknowledged where


@requirement("R52")
@pytest.mark.parametrize("flags", [SYNC, SYNC | COLLOCATED])
def test_a_sync_update_that_is_acknowledged_shows_at_every_node(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    checkpoint.section_create("k")
    opens = [world.open(node, checkpoint.name, READ | WRITE) for node in world.nodes]
    for number in range(30):
        opens[number % 3].overwrite("k", b"%d" % number)
        for reader in opens:
            assert reader.read(K) == [b"%d" % number]


@requirement("R52")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("method", ["write", "overwrite", "section_create", "section_delete"])
def test_a_sync_update_is_acknowledged_when_the_last_replica_has_it(world: VirtualWorld, method: str) -> None:
    arguments = {
        "write": ([("k", b"w", 0)],),
        "overwrite": ("k", b"w"),
        "section_create": ("l",),
        "section_delete": ("k",),
    }[method]
    checkpoint = opened(world, SYNC)
    checkpoint.section_create("k", initial_data=b"v")
    world.cluster.hold("a", "c")
    call = begin(checkpoint, method, *arguments)
    world.pass_time(0.2)
    assert call.code == ""
    assert world.contents("c", checkpoint.name) == {b"k": b"v"}
    world.cluster.release("a", "c")
    call.end(world)
    there = world.contents("c", checkpoint.name)
    assert there != {b"k": b"v"}
    assert there == world.contents("a", checkpoint.name) == world.contents("b", checkpoint.name)


@requirement("R52")
@on(VIRTUAL, why="frames between nodes are kept back")
def test_each_replica_of_a_sync_checkpoint_serves_reads_on_its_own(world: VirtualWorld) -> None:
    checkpoint = opened(world, SYNC)
    checkpoint.section_create("k", initial_data=b"v")
    reader = world.open("b", checkpoint.name, READ)
    world.pass_time(0.05)
    for other in "ac":
        world.cluster.hold("b", other)
    began_ns = world.now_ns()
    assert reader.read(K) == [b"v"]
    assert world.now_ns() - began_ns < 1_000_000
    for other in "ac":
        world.cluster.release("b", other)


@requirement("R53")
@pytest.mark.parametrize("flags", ALL_ASYNC)
def test_a_read_shows_what_an_async_write_before_it_was_acknowledged_for(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    checkpoint.section_create("k")
    opens = [world.open(node, checkpoint.name, READ | WRITE) for node in world.nodes]
    for number in range(30):
        opens[number % 3].overwrite("k", b"%d" % number)
        for reader in opens:
            assert reader.read(K) == [b"%d" % number]


@requirement("R53")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("flags", ALL_ASYNC)
def test_an_async_update_waits_for_the_active_replica_alone_and_reads_go_there(
    world: VirtualWorld, flags: int
) -> None:
    checkpoint = opened(world, flags)
    reader = world.open("b", checkpoint.name, READ)
    for other in "bc":
        world.cluster.hold("a", other)
    checkpoint.section_create("k", initial_data=b"v")
    reading = begin(reader, "read", K)
    world.pass_time(0.2)
    assert world.contents("b", checkpoint.name) == {}
    assert reading.code == ""  # What b has is old.
    for other in "bc":
        world.cluster.release("a", other)
    assert reading.end(world) == [b"v"]
    checkpoint.synchronize()
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"k": b"v"}


# -- as a whole


@requirement("R54")
@on(VIRTUAL, why="a process is killed in the middle of a call")
@pytest.mark.parametrize("flags", [SYNC, ASYNC, SYNC | COLLOCATED, ASYNC | COLLOCATED])
@pytest.mark.parametrize("late", ["", "c"])
def test_a_write_to_several_sections_is_done_as_a_whole_or_not_at_all_through_a_crash(
    world: VirtualWorld, flags: int, late: str
) -> None:
    """The active replica's process is killed at one moment after the other, and the writer with it.

    `late`: the update does not come to that node while the active one lives.
    """
    vector = [(section_id, None, 0) for section_id in ("one", "two", "three")]
    found = []
    for moment in range(0, 300, 25):
        checkpoint = opened(world, flags)
        for section_id, *_ in vector:
            checkpoint.section_create(section_id, initial_data=b"old")
        if not flags & SYNC:
            checkpoint.synchronize()
        if late:
            world.cluster.hold("a", late)
        writing = begin(checkpoint, "write", [(section_id, b"new", 0) for section_id, *_ in vector])
        world.pass_time(moment * MICROSECONDS)
        world.kill("a")
        world.cut_off(checkpoint.service)
        writing.give_up()
        reader = world.open("b", checkpoint.name, READ | WRITE)
        if flags == ASYNC | COLLOCATED:
            world.until(lambda reader=reader: outcome(reader.active_replica_set) == "OK")
        values = reader.read(vector)
        assert len(set(values)) == 1
        found.append(values[0])
        world.wait_in_sync(checkpoint.name, "b", "c")
        if not flags & SYNC:
            reader.synchronize()
        assert world.contents("b", checkpoint.name) == world.contents("c", checkpoint.name)
        world.let_in(checkpoint.service)
        world.restart("a")
    assert set(found) == {b"old", b"new"}


@requirement("R55")
@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize(
    ("faulty", "code"),
    [
        (("none", b"w", 0), "NOT_EXIST"),
        (("k", b"w", 100), "NO_RESOURCES"),
        (("k", bytes(101), 0), "INVALID_PARAM"),
        (("k", b"w", -1), "INVALID_PARAM"),
    ],
)
def test_a_write_that_is_refused_has_written_nothing(
    world: World, flags: int, faulty: tuple[str, bytes, int], code: str
) -> None:
    checkpoint = opened(world, flags)
    for section_id in ("k", "l", "m"):
        checkpoint.section_create(section_id, initial_data=b"v")
    with refused(code, index=2):
        checkpoint.write([("l", b"new", 0), ("k", b"more", 1), faulty, ("m", b"new", 0)])
    for node in world.nodes:
        reader = world.open(node, checkpoint.name, READ)
        assert reader.read([("k", None, 0), ("l", None, 0), ("m", None, 0)]) == [b"v"] * 3
    assert checkpoint.status_get()[1:] == (3, 3)


# -- in which order


@requirement("R59")
@pytest.mark.parametrize("flags", KINDS)
def test_a_reader_of_a_later_update_of_a_writer_sees_the_earlier_ones(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    for section_id in ("first", "second"):
        checkpoint.section_create(section_id, initial_data=b"0")
    readers = [world.open(node, checkpoint.name, READ) for node in world.nodes]
    writing = Writing(world.open("b", checkpoint.name, WRITE), "first", "second")
    told = [0, 0, 0]
    for number in range(60):
        first, second = (
            int(value) for value in readers[number % 3].read([("first", None, 0), ("second", None, 0)])
        )
        assert first - 1 <= second <= first
        assert second >= max(told)
        told[number % 3] = second
        (second,) = readers[number % 3].read([("second", None, 0)])
        (first,) = readers[(number + 1) % 3].read([("first", None, 0)])
        assert int(first) >= int(second)
    assert writing.stop(world) > 10


@requirement("R59")
@pytest.mark.parametrize("flags", [SYNC, SYNC | COLLOCATED])
def test_a_sync_writers_order_outlives_the_loss_of_a_node(world: World, flags: int) -> None:
    """The writer goes on through the loss."""
    checkpoint = opened(world, flags, "c")
    for section_id in ("first", "second"):
        checkpoint.section_create(section_id, initial_data=b"0")
    vector = [("first", None, 0), ("second", None, 0)]
    readers = [world.open(node, checkpoint.name, READ) for node in ("a", "b")]
    writing = Writing(world.open("b", checkpoint.name, WRITE), "first", "second")
    world.pass_time(0.02)
    world.kill("c")
    seen = 0
    for number in range(60):
        done = writing.done
        first, second = (int(value) for value in readers[number % 2].read(vector))
        assert first - 1 <= second <= first
        assert second >= max(seen, done)
        seen = second
    assert writing.stop(world) > 0


@requirement("R59")
@pytest.mark.parametrize("flags", ALL_ASYNC)
def test_of_what_an_async_writer_did_before_a_loss_only_the_end_may_lack(world: World, flags: int) -> None:
    checkpoint = opened(world, flags, "c")
    for section_id in ("first", "second"):
        checkpoint.section_create(section_id, initial_data=b"0")
    checkpoint.synchronize()
    reader = world.open("a", checkpoint.name, READ | WRITE)
    writing = Writing(checkpoint, "first", "second")  # At c: nothing of it is under way at another node.
    world.pass_time(0.02)
    writing.begun.give_up()
    world.kill("c")
    if flags & COLLOCATED:
        world.until(lambda: outcome(lambda: reader.read(K)) == "NOT_EXIST")
        reader.active_replica_set()
    first, second = (int(value) for value in reader.read([("first", None, 0), ("second", None, 0)]))
    assert first - 1 <= second <= first


@requirement("R59")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("flags", [ASYNC, WEAK])
def test_an_async_writer_that_continues_after_a_loss_gets_no_report_of_what_it_lost(
    world: VirtualWorld, flags: int
) -> None:
    """The deviation: only the log tells of it."""
    checkpoint = opened(world, flags, "c")
    for section_id in ("first", "second"):
        checkpoint.section_create(section_id, initial_data=b"0")
    checkpoint.synchronize()
    for other in "ab":
        world.cluster.hold("c", other)
    checkpoint.overwrite("first", b"1")
    world.pass_time(0.1)
    world.kill("c")
    checkpoint.overwrite("second", b"1")
    assert checkpoint.read([("first", None, 0), ("second", None, 0)]) == [b"0", b"1"]
    assert [line for line in world.cluster.lines if "lost" in line]


@requirement("R59")
@on(VIRTUAL, why="a process is killed when half of what it sent has arrived")
@settings(weak_batch_bytes=1000)
@pytest.mark.parametrize("flags", [ASYNC, WEAK])
def test_the_order_outlives_a_loss_that_only_a_part_had_come_through(world: VirtualWorld, flags: int) -> None:
    """Second 1, first 2, second 2: who sees second 2 sees first 2, or that first is corrupted."""
    checkpoint = opened(world, flags, max_section_size=1000)
    for section_id in ("first", "second"):
        checkpoint.section_create(section_id, initial_data=b"0" * 900)
    checkpoint.synchronize()
    reader = world.open("b", checkpoint.name, READ)
    for node in "bc":
        world.cluster.hold("a", node)
    for section_id, value in (("second", b"1"), ("first", b"2"), ("second", b"2")):
        checkpoint.overwrite(section_id, value * 900)
    world.pass_time(0.02)
    for node in "bc":
        for link, portion in world.cluster.holds.pop(("a", node))[:1]:
            world.cluster.network.arrive(link, "a", node, portion)
    world.kill("a")
    told = {}
    for section_id in ("second", "first"):
        told[section_id] = outcome(lambda section_id=section_id: reader.read([(section_id, None, 0)]))
        if told[section_id] == "OK":
            told[section_id] = reader.read([(section_id, 1, 0)])[0].decode()
    assert told["second"] != "2" or told["first"] in ("2", "FAILED_OPERATION")


@requirement("R60")
@pytest.mark.parametrize("flags", KINDS)
def test_of_two_writers_at_once_all_replicas_show_the_same_order(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    checkpoint.section_create("k", initial_data=b"0")
    writings = [Writing(world.open(node, checkpoint.name, WRITE), "k") for node in ("b", "c")]
    world.pass_time(0.1)
    last = [writing.stop(world) for writing in writings]
    assert min(last) > 5
    if not flags & SYNC:
        checkpoint.synchronize()
    seen = {world.open(node, checkpoint.name, READ).read(K)[0] for node in world.nodes}
    assert len(seen) == 1
    assert int(*seen) in last
    if isinstance(world, VirtualWorld):
        assert {world.contents(node, checkpoint.name)[b"k"] for node in world.nodes} == seen


# -- no locks


@requirement("R61")
def test_no_writer_is_kept_from_writing_by_another_one(world: World) -> None:
    checkpoint = opened(world, SYNC)
    checkpoint.section_create("k", initial_data=b"----")
    other = world.open("b", checkpoint.name, READ | WRITE)
    iteration = other.section_iteration_initialize(5)
    checkpoint.write([("k", b"a", 0)])
    other.write([("k", b"b", 1)])
    checkpoint.write([("k", b"c", 2)])
    other.section_delete("k")
    with refused("NOT_EXIST"):
        checkpoint.overwrite("k", b"gone")
    iteration.finalize()


@requirement("R61")
def test_no_call_locks_anything(world: World) -> None:
    checkpoint = opened(world, SYNC)
    calls = [*dir(type(checkpoint)), *dir(CheckpointService)]
    assert [call for call in calls if "lock" in call.lower()] == []
