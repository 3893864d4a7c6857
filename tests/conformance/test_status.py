"""What a checkpoint tells of itself (R83 to R87)."""

import pytest
from tests.conformance.concurrent_calls import begin
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    CREATE,
    KINDS,
    READ,
    SYNC,
    WEAK,
    WRITE,
    attributes,
    opened,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.settings import SECOND_NS


@requirement("R83")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_the_status_shows_what_the_checkpoint_was_created_with(world: World, flags: int) -> None:
    wanted = {
        "checkpoint_size": 77,
        "retention_duration": SA_TIME_END,
        "max_sections": 3,
        "max_section_size": 40,
        "max_section_id_size": 5,
    }
    checkpoint = opened(world, flags, **wanted)
    for opened_there in (checkpoint, world.open("b", checkpoint.name, READ)):
        assert opened_there.status_get() == (attributes(creation_flags=flags, **wanted), 0, 0)


@requirement("R83")
@each_transport
def test_the_status_shows_the_retention_now_in_force(world: World) -> None:
    checkpoint = world.open(retention_duration=60 * SECOND_NS)
    assert checkpoint.status_get().creation_attributes.retention_duration == 60 * SECOND_NS
    checkpoint.retention_duration_set(5)
    world.open("a", checkpoint.name, retention_duration=7)
    assert checkpoint.status_get().creation_attributes == attributes(retention_duration=5)


@requirement("R84")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize(("max_sections", "there"), [(1, 1), (2, 0), (10, 0)])
def test_the_default_section_counts_and_there_is_no_other_at_first(
    world: World, flags: int, max_sections: int, there: int
) -> None:
    checkpoint = opened(world, flags, max_sections=max_sections)
    assert checkpoint.status_get().number_of_sections == there


@requirement("R84")
@pytest.mark.parametrize("flags", KINDS)
def test_the_number_of_sections_follows_their_coming_and_going(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    reader = world.open("b", checkpoint.name, READ)
    for number in range(5):
        checkpoint.section_create(f"k{number}")
        assert reader.status_get().number_of_sections == number + 1
    checkpoint.overwrite("k0", b"v")
    assert reader.status_get().number_of_sections == 5
    for number in range(5):
        checkpoint.section_delete(f"k{number}")
        assert reader.status_get().number_of_sections == 4 - number


@requirement("R84", "R85")
@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
def test_a_section_that_expires_counts_no_more(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    checkpoint.section_create("stays", initial_data=b"1")
    checkpoint.section_create("goes", world.now_ns() + SECOND_NS // 5, b"234")
    assert checkpoint.status_get()[1:] == (2, 4)
    world.pass_time(0.25)
    world.until(lambda: checkpoint.status_get()[1:] == (1, 1), 1)


@requirement("R85")
@pytest.mark.parametrize("flags", KINDS)
def test_the_memory_used_is_the_sum_of_the_sections_sizes(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    reader = world.open("c", checkpoint.name, READ)
    used = [reader.status_get().memory_used]
    for change in (
        lambda: checkpoint.section_create("empty"),
        lambda: checkpoint.section_create("full", initial_data=bytes(100)),
        lambda: checkpoint.write([("empty", b"v", 9)]),
        lambda: checkpoint.write([("empty", b"v", 0)]),
        lambda: checkpoint.overwrite("full", b"small"),
        lambda: checkpoint.section_delete("full"),
        lambda: checkpoint.section_delete("empty"),
    ):
        change()
        used.append(reader.status_get().memory_used)
    assert used == [0, 0, 100, 110, 110, 15, 10, 0]


@requirement("R85")
def test_the_memory_used_by_large_sections_is_counted_in_full(world: World) -> None:
    checkpoint = world.open(max_section_size=127_000)
    for section_id in ("one", "two"):
        checkpoint.section_create(section_id, initial_data=bytes(127_000))
    assert checkpoint.status_get().memory_used == 254_000


@requirement("R85")
def test_the_default_section_uses_what_is_written_to_it(world: World) -> None:
    checkpoint = world.open(max_sections=1)
    assert checkpoint.status_get()[1:] == (1, 0)
    checkpoint.write([(b"", b"12345", 0)])
    assert checkpoint.status_get()[1:] == (1, 5)
    checkpoint.overwrite(b"", b"")
    assert checkpoint.status_get()[1:] == (1, 0)


@requirement("R86")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("flags", [ASYNC, WEAK])
def test_the_status_of_an_async_checkpoint_is_the_active_replicas(world: VirtualWorld, flags: int) -> None:
    checkpoint = opened(world, flags)
    reader = world.open("b", checkpoint.name, READ)
    world.wait_in_sync(checkpoint.name)
    for other in "bc":
        world.cluster.hold("a", other)
    checkpoint.section_create("k", initial_data=b"v")
    asking = begin(reader, "status_get")
    world.pass_time(0.1)
    assert world.contents("b", checkpoint.name) == {}
    assert asking.code == ""
    for other in "bc":
        world.cluster.release("a", other)
    assert asking.end(world)[1:] == (1, 1)


@requirement("R86")
@pytest.mark.parametrize("flags", [ASYNC, WEAK, ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_the_status_shows_what_an_async_update_did_at_every_node(world: World, flags: int) -> None:
    checkpoint = opened(world, flags, max_sections=20)
    readers = [world.open(node, checkpoint.name, READ) for node in world.nodes]
    for number in range(20):
        checkpoint.section_create(f"k{number}", initial_data=b"v")
        for reader in readers:
            assert reader.status_get()[1:] == (number + 1, number + 1)


@requirement("R86")
@pytest.mark.parametrize("flags", [ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_without_an_active_replica_there_is_no_status(world: World, flags: int) -> None:
    checkpoint = world.open(creation_flags=flags, max_sections=1)
    with refused("NOT_EXIST"):
        checkpoint.status_get()
    checkpoint.active_replica_set()
    assert checkpoint.status_get().number_of_sections == 1


@requirement("R87")
@each_transport
@pytest.mark.parametrize(
    ("open_flags", "code"),
    [
        (WRITE, "ACCESS"),
        (CREATE, "ACCESS"),
        (CREATE | WRITE, "ACCESS"),
        (READ, "OK"),
        (CREATE | READ, "OK"),
        (ALL_MODES, "OK"),
    ],
)
def test_the_status_is_for_handles_with_read(world: World, open_flags: int, code: str) -> None:
    name = world.name()
    world.open("a", name)
    assert outcome(world.open("a", name, open_flags).status_get) == code


@requirement("R87")
@pytest.mark.parametrize("open_flags", [WRITE, CREATE, CREATE | WRITE])
def test_at_b_01_every_handle_may_read_the_status(world: World, open_flags: int) -> None:
    name = world.name()
    world.open("a", name)
    wanted = attributes() if open_flags & CREATE else None
    old = world.service("b", ("B", 1, 1)).checkpoint_open(name, open_flags, wanted)
    assert old.status_get() == (attributes(), 0, 0)
