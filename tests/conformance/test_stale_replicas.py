"""Copies that are behind, or of a side that lost: they never win, and hide nothing (R59, R101, R149)."""

import pytest
from tests.conformance.marks import VIRTUAL, on, requirement, settings
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    READ,
    SYNC,
    WEAK,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint
from ckpt_protocol.constants import SA_CKPT_SECTION_CORRUPTED, SA_CKPT_SECTION_VALID
from ckptd.core.settings import SECOND_NS

SPREAD = (SYNC, ASYNC, WEAK)
split = on(VIRTUAL, why="the network is split")
some_frames = on(VIRTUAL, why="only some of the frames arrive before a node is lost")


def opened(world: World, node: str, kind: int, **changed: int) -> Checkpoint:
    """A checkpoint that is in sync on all nodes, active at this one, with the section "k"."""
    checkpoint = world.open(node, creation_flags=kind, **changed)
    checkpoint.section_create("k", initial_data=b"v")
    world.wait_in_sync(checkpoint.name)
    if kind != SYNC:
        checkpoint.synchronize()
    return checkpoint


def wait_for_all(world: VirtualWorld, at: str, name: bytes) -> None:
    """Until a node knows replicas in sync everywhere."""

    def everywhere() -> bool:
        found = world.described(name, at)
        return found is not None and found.replicas == dict.fromkeys(world.nodes, True)

    world.until(everywhere)
    world.pass_time(0.1)


def cut_short(world: VirtualWorld, frames: int) -> None:
    """Of what node a has sent so many frames arrive, then its process ends. (It was held back before.)"""
    for node in ("b", "c"):
        for link, data in world.cluster.holds.pop(("a", node))[:frames]:
            world.cluster.network.arrive(link, "a", node, data)
    world.kill("a")


def seen(reader: Checkpoint, section_id: str) -> bytes | str:
    """The first byte of a section, or the code that it is refused with."""
    code = outcome(lambda: reader.read([(section_id, 1, 0)]))
    return reader.read([(section_id, 1, 0)])[0] if code == "OK" else code


# -- what only a losing side had


@requirement("R149", "R146")
@split
@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("apart", ["a", "c"])
def test_a_replica_that_was_cut_off_takes_what_the_others_have(
    world: VirtualWorld, kind: int, apart: str
) -> None:
    """It is the active replica's (a), or another (c)."""
    checkpoint = opened(world, "a", kind)
    other = world.open("b", checkpoint.name, ALL_MODES, creation_flags=kind)
    for section_id in ("deleted", "kept"):
        checkpoint.section_create(section_id, initial_data=b"old")
    if kind != SYNC:
        checkpoint.synchronize()
    world.partition(apart, "abc".replace(apart, ""))
    world.pass_time(2)
    other.section_delete("deleted")
    other.overwrite("k", b"new")
    other.section_create("new", initial_data=b"new")
    expected = {b"k": b"new", b"kept": b"old", b"new": b"new"}
    if kind != SYNC:
        other.synchronize()
    world.heal()
    wait_for_all(world, "b", checkpoint.name)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == expected
    world.kill("b")
    reader = world.open(apart, checkpoint.name, READ)
    assert {one.section_id for one in reader.section_iteration()} == set(expected)
    assert reader.read([("k", None, 0)]) == [b"new"]


@requirement("R149", "R146")
@split
@pytest.mark.parametrize("kind", [ASYNC, WEAK])
def test_what_an_active_replica_did_alone_at_the_split_is_discarded_as_a_whole(
    world: VirtualWorld, kind: int
) -> None:
    """Async acknowledgements of its last moment may be lost; its copy is not mixed with the others'."""
    checkpoint = opened(world, "a", kind)
    other = world.open("b", checkpoint.name, ALL_MODES, creation_flags=kind)
    world.partition("a", "bc")
    checkpoint.overwrite("k", b"alone")
    checkpoint.section_create("alone")
    world.pass_time(2)
    other.section_create("together")
    world.heal()
    wait_for_all(world, "b", checkpoint.name)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"k": b"v", b"together": b""}


@requirement("R149", "R67")
@split
@pytest.mark.parametrize("kind", SPREAD)
def test_a_name_that_was_created_again_is_not_that_of_an_old_replica(world: VirtualWorld, kind: int) -> None:
    checkpoint = opened(world, "a", kind)
    creation_id = world.described(checkpoint.name, "a").creation_id
    checkpoint.close()
    world.partition("c", "ab")
    world.pass_time(2)
    world.service("b").checkpoint_unlink(checkpoint.name)
    again = world.open("b", checkpoint.name, ALL_MODES, creation_flags=kind, max_sections=3)
    again.section_create("new", initial_data=b"n")
    world.heal()
    wait_for_all(world, "b", checkpoint.name)
    for node in world.nodes:
        assert world.described(checkpoint.name, node).creation_id != creation_id
        assert world.contents(node, checkpoint.name) == {b"new": b"n"}


@requirement("R149")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_node_that_was_away_serves_nothing_old_when_it_is_the_last_to_have_joined(
    world: World, kind: int
) -> None:
    checkpoint = opened(world, "a", kind)
    world.kill("c")
    checkpoint.overwrite("k", b"new")
    world.restart("c")
    reader = world.open("c", checkpoint.name, READ)
    assert reader.read([("k", None, 0)]) == [b"new"]
    world.wait_in_sync(checkpoint.name)
    checkpoint.overwrite("k", b"newer")
    if kind != SYNC:
        checkpoint.synchronize()
    world.kill("a")
    assert reader.read([("k", None, 0)]) == [b"newer"]


# -- weak checkpoints: what arrived in part


@requirement("R59", "R146")
@some_frames
@settings(weak_batch_bytes=1000)
@pytest.mark.parametrize("frames", range(4))
@pytest.mark.parametrize("between", ["overwrite", "delete", "create"])
def test_a_weak_batch_that_arrived_in_part_shows_no_later_update_without_the_earlier_one(
    world: VirtualWorld, frames: int, between: str
) -> None:
    """A batch too large for one frame: "one" is written, then "two" changes, then "one" is written again."""
    checkpoint = opened(world, "a", WEAK, max_section_size=900)
    checkpoint.section_create("one", initial_data=b"0")
    if between != "create":
        checkpoint.section_create("two", initial_data=b"0")
    checkpoint.synchronize()
    for node in ("b", "c"):
        world.cluster.hold("a", node)
    checkpoint.overwrite("one", b"1" * 900)
    match between:
        case "overwrite":
            checkpoint.overwrite("two", b"2" * 900)
        case "delete":
            checkpoint.section_delete("two")
        case _:
            checkpoint.section_create("two", initial_data=b"2" * 900)
    checkpoint.overwrite("one", b"3" * 900)
    checkpoint.overwrite("k", b"3" * 900)
    world.pass_time(0.02)
    cut_short(world, frames)
    reader = world.open("b", checkpoint.name, READ)
    done = {"delete": "NOT_EXIST"}.get(between, b"2")
    for later in ("one", "k"):
        if seen(reader, later) == b"3":
            assert seen(reader, "two") in (done, "FAILED_OPERATION")
    if frames == 3:
        assert [seen(reader, section_id) for section_id in ("one", "two", "k")] == [b"3", done, b"3"]
    if frames == 0:
        assert seen(reader, "one") == b"0"


@requirement("R56", "R57", "R149")
@some_frames
@settings(weak_batch_bytes=1000)
def test_a_corrupted_section_stays_so_through_joins_and_further_losses(world: VirtualWorld) -> None:
    checkpoint = opened(world, "a", WEAK, max_section_size=4000)
    for node in ("b", "c"):
        world.cluster.hold("a", node)
    checkpoint.overwrite("k", bytes(3500))
    world.pass_time(0.02)
    cut_short(world, 2)
    for lost in ("b", "c"):
        world.restart("a" if lost == "b" else "b")
        world.wait_in_sync(checkpoint.name)
        world.kill(lost)
        reader = world.open("a", checkpoint.name, ALL_MODES, creation_flags=WEAK, max_section_size=4000)
        with refused("FAILED_OPERATION", index=0):
            reader.read([("k", None, 0)])
        (section,) = reader.section_iteration()
        assert section.section_state == SA_CKPT_SECTION_CORRUPTED
    reader.overwrite("k", b"whole")
    world.restart("c")
    world.wait_in_sync(checkpoint.name)
    world.kill("a")
    reader = world.open("c", checkpoint.name, READ)
    (section,) = reader.section_iteration()
    assert section.section_state == SA_CKPT_SECTION_VALID
    assert reader.read([("k", None, 0)]) == [b"whole"]


@requirement("R100", "R56")
@some_frames
@settings(weak_batch_bytes=1000)
def test_a_corrupted_section_goes_at_its_time(world: VirtualWorld) -> None:
    checkpoint = opened(world, "a", WEAK, max_section_size=4000)
    checkpoint.section_expiration_time_set("k", world.now_ns() + 5 * SECOND_NS)
    checkpoint.synchronize()
    for node in ("b", "c"):
        world.cluster.hold("a", node)
    checkpoint.overwrite("k", bytes(3500))
    world.pass_time(0.02)
    cut_short(world, 2)
    reader = world.open("b", checkpoint.name, READ)
    with refused("FAILED_OPERATION", index=0):
        reader.read([("k", None, 0)])
    world.pass_time(5)
    with refused("NOT_EXIST", index=0):
        reader.read([("k", None, 0)])
    assert list(reader.section_iteration()) == []
