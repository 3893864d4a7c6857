"""What an open brings about: users, replicas, the default section, limits (R40 to R43)."""

import pytest
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement, settings
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    KINDS,
    READ,
    SYNC,
    WEAK,
    WRITE,
    attributes,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import SA_CKPT_SECTION_VALID, SA_CKPT_SECTIONS_ANY, SA_TIME_END


@requirement("R40")
@each_transport
def test_each_open_is_a_user_of_its_own(world: World) -> None:
    service, name = world.service(), world.name()
    wanted = attributes(retention_duration=0)
    opens = [service.checkpoint_open(name, ALL_MODES, wanted)]
    opens += [service.checkpoint_open(name, flags) for flags in (READ, WRITE, READ | WRITE, READ)]
    opens.append(world.service("b").checkpoint_open(name, READ))
    found = world.described(name)
    assert found is not None
    assert found.opens == 6
    for checkpoint in opens[:-1]:
        checkpoint.close()
        assert world.described(name) is not None
    opens[-1].status_get()
    opens[-1].close()
    assert world.described(name) is None


@requirement("R40")
def test_users_do_not_share_their_modes(world: World) -> None:
    service, name = world.service(), world.name()
    service.checkpoint_open(name, ALL_MODES, attributes()).section_create("k", initial_data=b"v")
    reader, writer = service.checkpoint_open(name, READ), service.checkpoint_open(name, WRITE)
    assert outcome(lambda: reader.write([("k", b"w", 0)])) == "ACCESS"
    assert outcome(lambda: writer.read([("k", None, 0)])) == "ACCESS"
    writer.write([("k", b"w", 0)])
    assert reader.read([("k", None, 0)]) == [b"w"]


@requirement("R41")
@pytest.mark.parametrize("flags", [SYNC | COLLOCATED, ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_an_open_that_makes_a_replica_ends_when_that_is_filled(world: World, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags, max_sections=200)
    if not flags & SYNC:
        checkpoint.active_replica_set()
    for number in range(150):
        checkpoint.section_create(f"k{number}", initial_data=bytes(100))
    assert world.replicas(checkpoint.name) == {"a": True}
    world.service("b").checkpoint_open(checkpoint.name, READ)
    found = world.described(checkpoint.name, "b")
    assert found is not None
    assert found.replicas == {"a": True, "b": True}


@requirement("R41")
@on(VIRTUAL, why="a node's own copy is looked at")
@pytest.mark.parametrize("flags", [SYNC | COLLOCATED, ASYNC | COLLOCATED])
def test_the_replica_that_an_open_makes_is_like_the_others(world: VirtualWorld, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    if not flags & SYNC:
        checkpoint.active_replica_set()
    for number in range(10):
        checkpoint.section_create(f"k{number}", initial_data=bytes([number]) * 50)
    world.service("b").checkpoint_open(checkpoint.name, READ)
    there = world.contents("b", checkpoint.name)
    assert there == world.contents("a", checkpoint.name)
    assert len(there) == 10


@requirement("R41")
@pytest.mark.parametrize("flags", [ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_without_an_active_replica_there_is_nothing_for_an_open_to_wait_for(world: World, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    began_ns = world.now_ns()
    other = world.service("b").checkpoint_open(checkpoint.name, READ | WRITE)
    assert world.now_ns() - began_ns < 500_000_000
    with refused("NOT_EXIST"):
        other.section_create("k")
    assert set(world.replicas(checkpoint.name)) == {"a", "b"}
    other.active_replica_set()
    other.section_create("k", initial_data=b"v")


@requirement("R42")
@pytest.mark.parametrize("flags", KINDS)
def test_with_one_section_at_most_the_default_section_is_there_from_the_beginning(
    world: World, flags: int
) -> None:
    checkpoint = world.open(creation_flags=flags, max_sections=1)
    if flags & COLLOCATED and not flags & SYNC:
        checkpoint.active_replica_set()
    assert checkpoint.status_get().number_of_sections == 1
    (section,) = checkpoint.section_iteration(SA_CKPT_SECTIONS_ANY)
    assert section[:4] == (b"", SA_TIME_END, 0, SA_CKPT_SECTION_VALID)
    assert checkpoint.read([(b"", None, 0)]) == [b""]
    checkpoint.write([(b"", b"v", 0)])
    assert checkpoint.read([(b"", None, 0)]) == [b"v"]


@requirement("R42", "R106")
@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
def test_the_default_section_was_last_updated_when_it_came_to_be(world: World, flags: int) -> None:
    began_ns = world.now_ns()
    checkpoint = world.open("b", creation_flags=flags, max_sections=1)
    (section,) = checkpoint.section_iteration(SA_CKPT_SECTIONS_ANY)
    assert began_ns - 1_000_000_000 <= section.last_update <= world.now_ns() + 1_000_000_000


@requirement("R42")
def test_with_space_for_more_sections_there_is_no_default_section(world: World) -> None:
    checkpoint = world.open(max_sections=2)
    assert checkpoint.status_get().number_of_sections == 0
    assert list(checkpoint.section_iteration(SA_CKPT_SECTIONS_ANY)) == []
    with refused("NOT_EXIST"):
        checkpoint.read([(b"", None, 0)])


@requirement("R43")
@on(VIRTUAL, why="a limit is set low")
@settings(checkpoints_max=3, share_of_limits=1)
def test_one_checkpoint_too_many_is_no_resources(world: World) -> None:
    service = world.service()
    opens = [service.checkpoint_open(world.name(), ALL_MODES, attributes()) for _ in range(3)]
    with refused("NO_RESOURCES"):
        service.checkpoint_open(world.name(), ALL_MODES, attributes())
    world.open("b", opens[0].name)
    service.checkpoint_unlink(opens[1].name)
    opens[1].close()
    service.checkpoint_open(world.name(), ALL_MODES, attributes())
