"""Deleting sections, the empty id, the time of the last update (R103, R105, R106)."""

import pytest
from tests.conformance.marks import VIRTUAL, on, requirement
from tests.conformance.shorthand import (
    ASYNC,
    COLLOCATED,
    CREATE,
    KINDS,
    READ,
    SYNC,
    WEAK,
    attributes,
    opened,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

MOMENT = 0.01
SPREAD = (SYNC, ASYNC, WEAK)


def ids(checkpoint: Checkpoint) -> set[bytes]:
    """The sections that an iteration shows."""
    return {section.section_id for section in checkpoint.section_iteration()}


def last_update(checkpoint: Checkpoint, section_id: bytes = b"k") -> int:
    """The time of its last update that an iteration shows."""
    (found,) = (one for one in checkpoint.section_iteration() if one.section_id == section_id)
    return found.last_update


# -- SectionDelete


@requirement("R103")
@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_section_is_gone_for_all_handles_at_once(world: World, kind: int) -> None:
    writer = opened(world, kind)
    readers = [world.open(node, writer.name, READ) for node in world.nodes]
    writer.section_create("k", initial_data=b"value")
    writer.section_create("other", initial_data=b"w")
    writer.section_delete("k")
    for checkpoint in (writer, *readers):
        with refused("NOT_EXIST", index=0):
            checkpoint.read([("k", None, 0)])
        assert ids(checkpoint) == {b"other"}
        status = checkpoint.status_get()
        assert (status.number_of_sections, status.memory_used) == (1, 1)
    with refused("NOT_EXIST"):
        writer.overwrite("k", b"x")
    with refused("NOT_EXIST", index=0):
        writer.write([("k", b"x", 0)])


@requirement("R103")
@pytest.mark.parametrize("kind", KINDS)
def test_to_delete_an_unknown_section_is_not_exist(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    checkpoint.section_create("k")
    for unknown in ("none", "K", b"k\0"):
        with refused("NOT_EXIST"):
            checkpoint.section_delete(unknown)
    checkpoint.section_delete("k")
    with refused("NOT_EXIST"):
        checkpoint.section_delete("k")


@requirement("R103")
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_section_cannot_be_deleted(world: World, kind: int) -> None:
    checkpoint = opened(world, kind, max_sections=1)
    checkpoint.overwrite("", b"kept")
    with refused("INVALID_PARAM"):
        checkpoint.section_delete("")
    assert checkpoint.read([("", None, 0)]) == [b"kept"]
    assert checkpoint.status_get().number_of_sections == 1


@requirement("R103")
@pytest.mark.parametrize("open_flags", [READ, CREATE, CREATE | READ])
def test_to_delete_needs_write(world: World, open_flags: int) -> None:
    full = opened(world)
    full.section_create("k", initial_data=b"v")
    wanted = attributes() if open_flags & CREATE else None
    checkpoint = world.service("b").checkpoint_open(full.name, open_flags, wanted)
    for section_id in ("k", "none", ""):
        with refused("ACCESS"):
            checkpoint.section_delete(section_id)
    assert full.read([("k", None, 0)]) == [b"v"]


@requirement("R103")
@pytest.mark.parametrize("kind", KINDS)
def test_a_deletion_frees_the_place_and_the_id_at_once(world: World, kind: int) -> None:
    checkpoint = opened(world, kind, max_sections=2)
    checkpoint.section_create("one", initial_data=b"first content")
    checkpoint.section_create("two")
    with refused("NO_SPACE"):
        checkpoint.section_create("three")
    checkpoint.section_delete("one")
    checkpoint.section_create("one")
    assert checkpoint.read([("one", None, 0)]) == [b""]
    checkpoint.section_delete("two")
    checkpoint.section_create("three")
    with refused("NO_SPACE"):
        checkpoint.section_create("four")
    assert ids(checkpoint) == {b"one", b"three"}


@requirement("R103")
def test_a_deletion_needs_an_active_replica(world: World) -> None:
    checkpoint = world.open("a", creation_flags=ASYNC | COLLOCATED)
    with refused("NOT_EXIST") as caught:
        checkpoint.section_delete("k")
    assert caught.value.erroneous_vector_index is None
    checkpoint.active_replica_set()
    checkpoint.section_create("k")
    checkpoint.section_delete("k")


@requirement("R103")
@on(VIRTUAL, why="the network is split")
def test_what_was_deleted_does_not_come_back_with_a_node_that_was_away(world: VirtualWorld) -> None:
    checkpoint = opened(world)
    checkpoint.section_create("k", initial_data=b"v")
    checkpoint.section_create("other", initial_data=b"w")
    world.partition("c", "ab")
    checkpoint.section_delete("k")
    world.pass_time(2)
    world.heal()
    world.wait_in_sync(checkpoint.name, "a", "b", "c")
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"other": b"w"}


# -- the empty id


@requirement("R105")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("filled", [False, True])
def test_with_space_for_several_sections_the_empty_id_names_none(
    world: World, kind: int, filled: bool
) -> None:
    checkpoint = opened(world, kind, max_sections=2)
    if filled:
        checkpoint.section_create("", initial_data=b"v")
    with refused("NOT_EXIST", index=0):
        checkpoint.read([("", None, 0)])
    with refused("NOT_EXIST", index=0):
        checkpoint.write([("", b"x", 0)])
    with refused("NOT_EXIST"):
        checkpoint.overwrite("", b"x")
    with refused("INVALID_PARAM"):
        checkpoint.section_delete("")
    with refused("INVALID_PARAM"):
        checkpoint.section_expiration_time_set("", world.now_ns() + 3600 * SECOND_NS)
    assert checkpoint.status_get().number_of_sections == int(filled)


# -- lastUpdate


@requirement("R106")
@pytest.mark.parametrize("kind", SPREAD)
def test_the_last_update_is_when_the_section_was_created_written_or_overwritten(
    world: World, kind: int
) -> None:
    checkpoint = opened(world, kind)
    checkpoint.section_create("other", initial_data=b"w")
    others_ns = last_update(checkpoint, b"other")
    reader = world.open("c", checkpoint.name, READ)
    for update in (
        lambda: checkpoint.section_create("k", initial_data=b"v"),
        lambda: checkpoint.write([("k", b"w", 0)]),
        lambda: checkpoint.write([("k", b"w", 0)]),
        lambda: checkpoint.overwrite("k", b"x"),
        lambda: checkpoint.overwrite("k", b"x"),
    ):
        world.pass_time(MOMENT)
        before_ns = world.now_ns()
        update()
        assert before_ns <= last_update(checkpoint) <= world.now_ns()
        assert last_update(reader) == last_update(checkpoint)
    assert last_update(checkpoint, b"other") == others_ns


@requirement("R106")
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_section_is_created_with_its_checkpoint(world: World, kind: int) -> None:
    before_ns = world.now_ns()
    checkpoint = opened(world, kind, max_sections=1)
    assert before_ns <= last_update(checkpoint, b"") <= world.now_ns()


@requirement("R106")
def test_the_default_section_shows_when_it_was_written(world: World) -> None:
    checkpoint = opened(world, max_sections=1)
    world.pass_time(MOMENT)
    before_ns = world.now_ns()
    checkpoint.write([("", b"v", 0)])
    assert before_ns <= last_update(checkpoint, b"") <= world.now_ns()


@requirement("R106")
def test_reading_is_no_update(world: World) -> None:
    checkpoint = opened(world)
    checkpoint.section_create("k", initial_data=b"v")
    created_ns = last_update(checkpoint)
    world.pass_time(MOMENT)
    checkpoint.read([("k", None, 0)])
    checkpoint.status_get()
    with refused("NOT_EXIST"):
        checkpoint.write([("k", b"x", 0), ("none", b"x", 0)])
    assert last_update(checkpoint) == created_ns


@requirement("R106")
def test_a_section_that_was_created_again_is_as_old_as_the_new_one(world: World) -> None:
    checkpoint = opened(world)
    checkpoint.section_create("k")
    world.pass_time(MOMENT)
    checkpoint.section_delete("k")
    before_ns = world.now_ns()
    checkpoint.section_create("k")
    assert last_update(checkpoint) >= before_ns


@requirement("R106")
@pytest.mark.parametrize("kind", SPREAD)
def test_the_last_update_stays_what_it_was_through_a_fail_over(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    checkpoint.section_create("k", initial_data=b"v")
    if kind != SYNC:
        checkpoint.synchronize()
    updated_ns = last_update(checkpoint)
    world.kill("a")
    assert last_update(world.open("b", checkpoint.name, READ)) == updated_ns
    world.restart("a")
    world.wait_in_sync(checkpoint.name)
    world.kill("b")
    assert last_update(world.open("a", checkpoint.name, READ)) == updated_ns


@requirement("R106")
@on(VIRTUAL, why="the nodes' clocks are set")
def test_the_last_update_goes_by_one_clock_for_all_replicas(world: VirtualWorld) -> None:
    checkpoint = opened(world)
    for node in ("b", "c"):
        world.cluster.node(node).context.wall_offset_ns -= 3600 * SECOND_NS
    checkpoint.section_create("k", initial_data=b"v")
    world.pass_time(0.1)
    told = {last_update(world.open(node, checkpoint.name, READ)) for node in world.nodes}
    assert len(told) == 1
    assert world.now_ns() - told.pop() < 200 * MILLISECOND_NS
