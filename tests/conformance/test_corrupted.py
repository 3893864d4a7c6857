"""Corrupted sections of weak checkpoints: how they come to be, and what mends them (R56 to R58)."""

import pytest
from tests.conformance.marks import VIRTUAL, on, requirement, settings
from tests.conformance.shorthand import ASYNC, COLLOCATED, READ, WEAK, WRITE, outcome, refused
from tests.conformance.virtual_world import VirtualWorld

from ckpt_client.saf import (
    SA_CKPT_SECTION_CORRUPTED,
    SA_CKPT_SECTION_VALID,
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_CORRUPTED,
    Checkpoint,
)

in_the_middle = on(VIRTUAL, why="a process is killed when half of a section has arrived")
in_pieces = settings(weak_batch_bytes=1000)
SIZE = 4000


def killed_in_the_middle(world: VirtualWorld, flags: int) -> Checkpoint:
    """A checkpoint whose active replica was lost while it sent the section "large"; there is "small" too."""
    checkpoint = world.open("a", creation_flags=flags, max_section_size=SIZE)
    reader = world.open("b", checkpoint.name, READ | WRITE)
    world.open("c", checkpoint.name, READ)
    if flags & COLLOCATED:
        checkpoint.active_replica_set()
    world.wait_in_sync(checkpoint.name, "a", "b", "c")
    checkpoint.section_create("small", initial_data=b"v")
    checkpoint.section_create("large", initial_data=b"old" * 1000)
    checkpoint.synchronize()
    for node in "bc":
        world.cluster.hold("a", node)
    checkpoint.overwrite("large", b"new" * 1000)
    world.pass_time(0.02)
    for node in "bc":
        for link, piece in world.cluster.holds.pop(("a", node))[:2]:
            world.cluster.network.arrive(link, "a", node, piece)
    world.kill("a")
    if flags & COLLOCATED:
        world.until(lambda: outcome(reader.status_get) == "NOT_EXIST")
        reader.active_replica_set()
    return reader


def states(checkpoint: Checkpoint, chosen: int = SA_CKPT_SECTIONS_ANY) -> dict[bytes, int]:
    """Each section's state."""
    return {section.section_id: section.section_state for section in checkpoint.section_iteration(chosen)}


@requirement("R56", "R107")
@in_the_middle
@in_pieces
@pytest.mark.parametrize("flags", [WEAK, WEAK | COLLOCATED])
def test_a_weak_section_that_arrived_in_part_is_corrupted(world: VirtualWorld, flags: int) -> None:
    checkpoint = killed_in_the_middle(world, flags)
    assert states(checkpoint) == {b"small": SA_CKPT_SECTION_VALID, b"large": SA_CKPT_SECTION_CORRUPTED}
    assert states(checkpoint, SA_CKPT_SECTIONS_CORRUPTED) == {b"large": SA_CKPT_SECTION_CORRUPTED}
    assert states(world.open("c", checkpoint.name, READ)) == states(checkpoint)


@requirement("R56", "R54")
@in_the_middle
@in_pieces
@pytest.mark.parametrize("flags", [ASYNC, ASYNC | COLLOCATED])
def test_a_section_that_is_not_weak_is_never_corrupted(world: VirtualWorld, flags: int) -> None:
    checkpoint = killed_in_the_middle(world, flags)
    assert set(states(checkpoint).values()) == {SA_CKPT_SECTION_VALID}
    assert states(checkpoint, SA_CKPT_SECTIONS_CORRUPTED) == {}
    assert checkpoint.read([("large", None, 0)])[0] in (b"old" * 1000, b"new" * 1000)


@requirement("R57", "R58")
@in_the_middle
@in_pieces
def test_a_corrupted_section_is_neither_read_nor_written(world: VirtualWorld) -> None:
    checkpoint = killed_in_the_middle(world, WEAK)
    with refused("FAILED_OPERATION", index=0):
        checkpoint.read([("large", None, 0)])
    with refused("FAILED_OPERATION", index=1):
        checkpoint.read([("small", None, 0), ("large", 1, 0)])
    with refused("FAILED_OPERATION", index=1):
        checkpoint.write([("small", b"w", 0), ("large", b"w", 10)])
    assert checkpoint.read([("small", None, 0)]) == [b"v"]
    checkpoint.write([("small", b"w", 0)])
    assert states(checkpoint)[b"large"] == SA_CKPT_SECTION_CORRUPTED


@requirement("R57", "R58")
@in_the_middle
@in_pieces
def test_a_write_over_all_of_a_corrupted_section_is_refused_too(world: VirtualWorld) -> None:
    checkpoint = killed_in_the_middle(world, WEAK)
    with refused("FAILED_OPERATION", index=0):
        checkpoint.write([("large", bytes(SIZE), 0)])


@requirement("R57")
@in_the_middle
@in_pieces
def test_an_overwrite_makes_a_corrupted_section_valid_again(world: VirtualWorld) -> None:
    checkpoint = killed_in_the_middle(world, WEAK)
    checkpoint.overwrite("large", b"whole")
    assert states(checkpoint) == {b"small": SA_CKPT_SECTION_VALID, b"large": SA_CKPT_SECTION_VALID}
    assert checkpoint.read([("large", None, 0)]) == [b"whole"]
    checkpoint.write([("large", b"W", 0)])
    checkpoint.synchronize()
    for node in "bc":
        assert world.contents(node, checkpoint.name)[b"large"] == b"Whole"


@requirement("R57")
@in_the_middle
@in_pieces
def test_a_corrupted_section_can_be_deleted(world: VirtualWorld) -> None:
    checkpoint = killed_in_the_middle(world, WEAK)
    checkpoint.section_delete("large")
    assert states(checkpoint) == {b"small": SA_CKPT_SECTION_VALID}
    checkpoint.section_create("large", initial_data=b"again")
    assert checkpoint.read([("large", None, 0)]) == [b"again"]
