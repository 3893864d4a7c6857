"""Iterating over sections: what is refused (R109, R110)."""

import pytest
from tests.conformance.marks import requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    CREATE,
    WEAK,
    WRITE,
    attributes,
    ids,
    opened,
    refused,
)
from tests.conformance.world import World

from ckpt_protocol.constants import (
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_CORRUPTED,
    SA_CKPT_SECTIONS_FOREVER,
    SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME,
    SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME,
    SA_TIME_UNKNOWN,
)

FOREVER = SA_CKPT_SECTIONS_FOREVER
LEQ = SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME
GEQ = SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME
CORRUPTED = SA_CKPT_SECTIONS_CORRUPTED
ANY = SA_CKPT_SECTIONS_ANY


@requirement("R109")
@pytest.mark.parametrize("chosen", [0, 6, -1, 2**32, 2**32 + ANY, None, "any", 5.0])
def test_an_unknown_choice_is_invalid_param(world: World, chosen: int) -> None:
    checkpoint = opened(world)
    with refused("INVALID_PARAM"):
        checkpoint.section_iteration_initialize(chosen, 0)
    with refused("INVALID_PARAM"):
        checkpoint.section_iteration(chosen, 0)


@requirement("R109")
@pytest.mark.parametrize("chosen", [FOREVER, LEQ, GEQ, CORRUPTED, ANY])
@pytest.mark.parametrize("at_ns", [-1, SA_TIME_UNKNOWN])
def test_a_negative_time_is_invalid_param(world: World, chosen: int, at_ns: int) -> None:
    checkpoint = opened(world)
    with refused("INVALID_PARAM"):
        checkpoint.section_iteration_initialize(chosen, at_ns)


@requirement("R109")
def test_a_closed_handle_is_bad_handle(world: World) -> None:
    checkpoint = opened(world)
    checkpoint.close()
    with refused("BAD_HANDLE"):
        checkpoint.section_iteration_initialize(ANY)


@requirement("R109")
@pytest.mark.parametrize("kind", [ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_without_an_active_replica_an_iteration_is_not_exist(world: World, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    with refused("NOT_EXIST"):
        checkpoint.section_iteration_initialize(ANY)
    with refused("NOT_EXIST"):
        list(checkpoint.section_iteration(ANY))
    checkpoint.active_replica_set()
    assert ids(checkpoint.section_iteration_initialize(ANY)) == []


@requirement("R109")
def test_the_next_section_is_not_exist_once_the_active_replica_is_lost(world: World) -> None:
    kind = ASYNC | COLLOCATED
    checkpoint = world.open("a", creation_flags=kind)
    other = world.open("b", checkpoint.name, ALL_MODES, creation_flags=kind)
    other.active_replica_set()
    for section_id in ("one", "two"):
        checkpoint.section_create(section_id)
    checkpoint.synchronize()
    iteration = checkpoint.section_iteration_initialize(ANY)
    iteration.next()
    world.kill("b")
    with refused("NOT_EXIST"):
        iteration.next()


@requirement("R110")
@pytest.mark.parametrize("open_flags", [WRITE, CREATE, CREATE | WRITE])
def test_an_iteration_needs_read(world: World, open_flags: int) -> None:
    full = opened(world)
    wanted = attributes() if open_flags & CREATE else None
    checkpoint = world.service("b").checkpoint_open(full.name, open_flags, wanted)
    with refused("ACCESS"):
        checkpoint.section_iteration_initialize(ANY)
    with refused("ACCESS"):
        checkpoint.section_iteration(ANY)


@requirement("R110")
def test_programs_of_b_01_iterate_without_read(world: World) -> None:
    full = opened(world)
    full.section_create("k")
    checkpoint = world.service("b", ("B", 1, 1)).checkpoint_open(full.name, WRITE)
    assert ids(checkpoint.section_iteration_initialize(ANY)) == [b"k"]
