"""Unlinking: the name at once, the data with the last handle (R65 to R70, R75)."""

from typing import Any

import pytest
from tests.conformance.marks import each_transport, requirement
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
    refused,
)
from tests.conformance.world import World

from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

K = [("k", None, 0)]


@requirement("R65")
@pytest.mark.parametrize("flags", KINDS)
def test_an_unlinked_name_is_free_at_once_everywhere(world: World, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    services = [world.service(node) for node in world.nodes]
    services[1].checkpoint_unlink(checkpoint.name)
    for service in services:
        with refused("NOT_EXIST"):
            service.checkpoint_unlink(checkpoint.name)
        for open_flags in (READ, WRITE, READ | WRITE):
            with refused("NOT_EXIST"):
                service.checkpoint_open(checkpoint.name, open_flags)


@requirement("R66")
@pytest.mark.parametrize("flags", KINDS)
def test_a_handle_of_an_unlinked_checkpoint_keeps_all_of_it(world: World, flags: int) -> None:
    name = world.name()
    here, there, reader = (
        world.open("a", name, creation_flags=flags),
        world.open("b", name, creation_flags=flags),
        world.open("c", name, READ),
    )
    here.service.checkpoint_unlink(name)
    if flags in (ASYNC | COLLOCATED, WEAK | COLLOCATED):
        there.active_replica_set()
    here.section_create("k", initial_data=b"v")
    assert reader.read(K) == [b"v"]
    there.write([("k", b"w", 1)])
    assert here.read(K) == [b"vw"]
    if not flags & SYNC:
        here.synchronize()
    here.close()
    there.overwrite("k", b"x")
    there.section_expiration_time_set("k", 2**62)
    there.section_create("l")
    there.section_delete("l")
    there.close()
    assert reader.read(K) == [b"x"]
    assert [section.section_id for section in reader.section_iteration()] == [b"k"]
    assert reader.status_get().number_of_sections == 1
    assert world.described(name, unlinked=True) is not None
    reader.close()
    assert world.described(name, "c", unlinked=True) is None


@requirement("R66")
def test_the_handles_of_one_process_are_not_touched_by_its_own_unlink(world: World) -> None:
    service, name = world.service(), world.name()
    first = service.checkpoint_open(name, ALL_MODES, attributes(retention_duration=0))
    second = service.checkpoint_open(name, READ | WRITE)
    service.checkpoint_unlink(name)
    first.close()
    second.section_create("k", initial_data=b"v")
    assert second.read(K) == [b"v"]


@requirement("R67")
@pytest.mark.parametrize("flags", [SYNC, ASYNC, SYNC | COLLOCATED])
def test_a_name_that_was_freed_can_be_created_again_while_the_old_one_is_open(
    world: World, flags: int
) -> None:
    old = world.open("a", creation_flags=SYNC)
    old.section_create("k", initial_data=b"old")
    old.service.checkpoint_unlink(old.name)
    new = world.open("b", old.name, creation_flags=flags, max_sections=5, retention_duration=SECOND_NS)
    if flags & COLLOCATED:
        assert set(world.replicas(old.name)) == {"b"}
    assert new.status_get().number_of_sections == 0
    new.section_create("k", initial_data=b"new")
    new.section_create("l")
    old.section_delete("k")
    old.section_create("m", initial_data=b"mine")
    assert new.read(K) == [b"new"]
    assert [section.section_id for section in old.section_iteration()] == [b"m"]
    assert old.status_get() == (attributes(), 1, 4)
    wanted = attributes(creation_flags=flags, max_sections=5, retention_duration=SECOND_NS)
    assert new.status_get() == (wanted, 2, 3)
    third = world.open("c", old.name, READ)
    assert third.read(K) == [b"new"]
    old.close()
    assert third.read(K) == [b"new"]


@requirement("R67")
def test_old_and_new_have_active_replicas_of_their_own(world: World) -> None:
    old = world.open("a", creation_flags=ASYNC | COLLOCATED)
    old.active_replica_set()
    old.section_create("k", initial_data=b"old")
    old.service.checkpoint_unlink(old.name)
    new = world.open("b", old.name, creation_flags=ASYNC | COLLOCATED)
    with refused("NOT_EXIST"):
        new.status_get()
    new.active_replica_set()
    assert new.status_get().number_of_sections == 0
    assert old.read(K) == [b"old"]
    active = [world.described(old.name, unlinked=unlinked) for unlinked in (True, False)]
    assert [found.active for found in active if found is not None] == ["a", "b"]


@requirement("R67")
def test_many_of_one_name_live_until_each_is_closed(world: World) -> None:
    name, generations = world.name(), []
    for number in range(5):
        checkpoint = world.open(world.nodes[number % 3], name)
        checkpoint.section_create("k", initial_data=b"%d" % number)
        checkpoint.service.checkpoint_unlink(name)
        generations.append(checkpoint)
    for number, checkpoint in enumerate(generations):
        assert checkpoint.read(K) == [b"%d" % number]
        checkpoint.close()
    assert world.described(name, world.nodes[4 % 3], unlinked=True) is None


@requirement("R68")
@pytest.mark.parametrize("flags", [SYNC, ASYNC, ASYNC | COLLOCATED])
def test_what_no_handle_has_open_is_deleted_at_once_also_in_its_retention(world: World, flags: int) -> None:
    checkpoint = world.open("b", creation_flags=flags, retention_duration=60 * SECOND_NS)
    checkpoint.close()
    assert world.described(checkpoint.name, "b") is not None
    world.service("c").checkpoint_unlink(checkpoint.name)
    for unlinked in (False, True):
        assert world.described(checkpoint.name, "c", unlinked) is None
    fresh = world.open("a", checkpoint.name, max_sections=3)
    assert fresh.status_get().number_of_sections == 0


@requirement("R65", "R68")
@pytest.mark.parametrize("retention_duration", [0, 60 * SECOND_NS, SA_TIME_END])
def test_a_name_that_was_closed_and_unlinked_is_that_of_a_new_one_whatever_its_retention_was(
    world: World, retention_duration: int
) -> None:
    old = world.open("a", retention_duration=60 * SECOND_NS)
    old.section_create("k", initial_data=b"old")
    old.retention_duration_set(retention_duration)
    keeper = world.open("b", old.name, READ)
    old.close()
    world.service("c").checkpoint_unlink(old.name)
    for node in world.nodes:
        with refused("NOT_EXIST"):
            world.service(node).checkpoint_open(old.name, READ)
    keeper.close()
    assert world.described(old.name, "b", unlinked=True) is None
    assert world.open("c", old.name).status_get().number_of_sections == 0


@requirement("R69")
@each_transport
def test_a_program_without_a_handle_may_unlink(world: World) -> None:
    for node in world.nodes:
        checkpoint = world.open("a")
        world.service(node, ("B", 1, 1)).checkpoint_unlink(checkpoint.name)
        assert world.described(checkpoint.name, node) is None


@requirement("R69")
@pytest.mark.parametrize("open_flags", [READ, WRITE, CREATE])
def test_every_handle_may_unlink_whatever_it_was_opened_for(world: World, open_flags: int) -> None:
    name = world.name()
    world.open("a", name)
    world.open("b", name, open_flags).service.checkpoint_unlink(name)
    with refused("NOT_EXIST"):
        world.service().checkpoint_open(name, READ)


@requirement("R70")
@each_transport
@pytest.mark.parametrize("name", [b"", "", None, 5])
def test_an_unlink_of_no_name_is_invalid_param(world: World, name: Any) -> None:
    with refused("INVALID_PARAM"):
        world.service().checkpoint_unlink(name)


@requirement("R70")
@each_transport
def test_an_unlink_of_what_is_not_there_is_not_exist(world: World) -> None:
    service = world.service()
    with refused("NOT_EXIST"):
        service.checkpoint_unlink(world.name())
    unlinked = world.open()
    service.checkpoint_unlink(unlinked.name)
    expired = world.open(retention_duration=0)
    expired.close()
    for name in (unlinked.name, expired.name, world.open().name + b"x"):
        with refused("NOT_EXIST"):
            service.checkpoint_unlink(name)
    service.finalize()
    with refused("BAD_HANDLE"):
        service.checkpoint_unlink(unlinked.name)


@requirement("R70", "R72")
def test_an_unlink_of_what_expired_a_moment_ago_is_not_exist(world: World) -> None:
    checkpoint = world.open(retention_duration=100 * MILLISECOND_NS)
    checkpoint.close()
    world.pass_time(0.2)
    with refused("NOT_EXIST"):
        world.service("b").checkpoint_unlink(checkpoint.name)


@requirement("R75")
@each_transport
def test_the_retention_of_what_is_unlinked_cannot_be_set(world: World) -> None:
    checkpoint = world.open(retention_duration=60 * SECOND_NS)
    other = world.open("b", checkpoint.name, READ | WRITE)
    other.service.checkpoint_unlink(checkpoint.name)
    for opened in (checkpoint, other):
        for duration in (0, SECOND_NS):
            with refused("BAD_OPERATION"):
                opened.retention_duration_set(duration)
        assert opened.status_get().creation_attributes.retention_duration == 60 * SECOND_NS
    new = world.open("a", checkpoint.name)
    new.retention_duration_set(SECOND_NS)


@requirement("R75", "R76")
def test_of_an_unlinked_one_what_is_wrong_with_the_call_is_reported_first(world: World) -> None:
    checkpoint = world.open()
    reader = world.open("b", checkpoint.name, READ)
    reader.service.checkpoint_unlink(checkpoint.name)
    with refused("ACCESS"):
        reader.retention_duration_set(0)
    with refused("INVALID_PARAM"):
        checkpoint.retention_duration_set(-1)
