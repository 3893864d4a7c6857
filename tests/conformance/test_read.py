"""Read: what is given from where, what is refused, and that all of it is of one moment (R126 to R133)."""

import ctypes

import pytest
from tests.conformance import shorthand
from tests.conformance.concurrent_calls import begin
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ASYNC,
    CREATE,
    KINDS,
    READ,
    SECTION_BYTES,
    SYNC,
    WEAK,
    WRITE,
    attributes,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.pyosaf import library
from ckpt_client.pyosaf.modules import make_modules
from ckpt_client.saf import Checkpoint

LARGE = [2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 2, 2**63 - 1]


def opened(world: World, kind: int = SYNC, **changed: int) -> Checkpoint:
    """A new checkpoint of this kind with an active replica and the sections "k" and "empty"."""
    checkpoint = shorthand.opened(world, kind, **changed)
    checkpoint.section_create("k", initial_data=b"0123456789")
    checkpoint.section_create("empty")
    return checkpoint


@requirement("R126")
@pytest.mark.parametrize("kind", KINDS)
def test_a_read_gives_what_there_is_from_the_offset(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    for reader in (checkpoint, world.open("b", checkpoint.name, READ)):
        assert reader.read([("k", 10, 0)]) == [b"0123456789"]
        assert reader.read([("k", 4, 0), ("k", 4, 3), ("k", 4, 8), ("k", 90, 0), ("k", 90, 9)]) == [
            b"0123",
            b"3456",
            b"89",
            b"0123456789",
            b"9",
        ]
        assert reader.read([("k", 0, 0), ("k", 0, 5)]) == [b"", b""]


@requirement("R127")
@each_transport
def test_reading_an_empty_section_from_its_beginning_gives_nothing(world: World) -> None:
    checkpoint = opened(world)
    assert checkpoint.read([("empty", None, 0), ("empty", 0, 0), ("empty", 50, 0)]) == [b"", b"", b""]
    single = world.open("b", max_sections=1)
    assert single.read([("", None, 0)]) == [b""]


@requirement("R128")
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_size_all_from_the_offset_to_the_end_is_given(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    reader = world.open("c", checkpoint.name, READ)
    assert reader.read([("k", None, 0), ("k", None, 7), ("k", None, 10)]) == [b"0123456789", b"789", b""]
    checkpoint.overwrite("k", b"x" * SECTION_BYTES)
    assert reader.read([("k", None, 1)]) == [b"x" * (SECTION_BYTES - 1)]


@requirement("R129")
@pytest.mark.parametrize("size", [None, 0, 5])
def test_an_offset_at_the_end_gives_nothing_and_one_beyond_it_is_invalid_param(
    world: World, size: int | None
) -> None:
    checkpoint = opened(world)
    assert checkpoint.read([("k", size, 10), ("empty", size, 0)]) == [b"", b""]
    with refused("INVALID_PARAM", index=1):
        checkpoint.read([("k", size, 10), ("k", size, 11)])
    with refused("INVALID_PARAM", index=0):
        checkpoint.read([("empty", size, 1)])


@requirement("R129")
@pytest.mark.parametrize("kind", [SYNC, ASYNC, WEAK])
@pytest.mark.parametrize("offset", LARGE)
def test_a_very_large_offset_is_invalid_param(world: World, kind: int, offset: int) -> None:
    checkpoint = opened(world, kind)
    for size in (None, 0, 1, SECTION_BYTES):
        with refused("INVALID_PARAM", index=1):
            checkpoint.read([("k", None, 0), ("k", size, offset)])
    assert checkpoint.read([("k", None, 0)]) == [b"0123456789"]


@requirement("R129")
@pytest.mark.parametrize("offset", [-1, -(2**32), -(2**63)])
def test_a_negative_offset_is_invalid_param(world: World, offset: int) -> None:
    with refused("INVALID_PARAM", index=0):
        opened(world).read([("k", None, offset)])


@requirement("R130")
@pytest.mark.parametrize("kind", KINDS)
def test_a_buffer_beyond_max_section_size_is_invalid_param(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    assert checkpoint.read([("k", SECTION_BYTES, 0), ("k", SECTION_BYTES - 5, 5)]) == [
        b"0123456789",
        b"56789",
    ]
    for size, offset in ((SECTION_BYTES + 1, 0), (SECTION_BYTES - 4, 5), *((size, 0) for size in LARGE)):
        with refused("INVALID_PARAM", index=1):
            checkpoint.read([("k", 1, 0), ("k", size, offset)])


@requirement("R131")
@pytest.mark.parametrize("open_flags", [WRITE, CREATE, CREATE | WRITE])
def test_to_read_needs_read(world: World, open_flags: int) -> None:
    full = opened(world)
    wanted = attributes() if open_flags & CREATE else None
    checkpoint = world.service("b").checkpoint_open(full.name, open_flags, wanted)
    for section_id in ("k", "none"):
        with refused("ACCESS"):
            checkpoint.read([(section_id, None, 0)])


@requirement("R131")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_unknown_section_is_not_exist_with_the_lowest_index(world: World, kind: int, place: int) -> None:
    checkpoint = opened(world, kind)
    vector = [("k", None, 0) for _ in range(5)]
    vector[place] = vector[4] = ("none", None, 0)
    with refused("NOT_EXIST", index=place):
        checkpoint.read(vector)


@requirement("R131")
def test_a_read_of_no_elements_is_invalid_param(world: World) -> None:
    with refused("INVALID_PARAM"):
        opened(world).read([])


@requirement("R132")
def test_a_buffer_that_was_read_into_is_given_back_once_where_there_are_pointers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the module for programs written against C's structures has the call; elsewhere bytes are bytes."""

    full = opened(world)
    monkeypatch.setattr(
        library,
        "CheckpointService",
        type("Here", (), {"initialize": staticmethod(lambda *told: world.service("a", *told))}),
    )
    saf = make_modules()["pyosaf.saCkpt"]
    handle, checkpoint = saf.SaCkptHandleT(), saf.SaCkptCheckpointHandleT()
    name = saf.SaNameT(full.name)
    assert saf.saCkptInitialize(handle, None, saf.SaVersionT(b"B", 2, 2)) == 1
    assert saf.saCkptCheckpointOpen(handle, name, None, READ, 10**10, checkpoint) == 1
    section_id = saf.SaCkptSectionIdT(1, (ctypes.c_ubyte * 1)(*b"k"))
    element = saf.SaCkptIOVectorElementT(section_id, None, 0, 0, 0)
    assert saf.saCkptCheckpointRead(checkpoint, element, 1, None) == 1
    assert ctypes.string_at(element.dataBuffer, element.readSize) == b"0123456789"
    assert saf.saCkptIOVectorElementDataFree(checkpoint, element.dataBuffer) == 1
    assert saf.saCkptIOVectorElementDataFree(checkpoint, element.dataBuffer) == 7
    assert saf.saCkptIOVectorElementDataFree(0, element.dataBuffer) == 9
    assert saf.saCkptFinalize(handle) == 1


# -- one moment


@requirement("R133")
@on(VIRTUAL, why="reads are made while writes are under way between nodes")
@pytest.mark.parametrize("kind", KINDS)
def test_all_elements_of_a_read_are_of_one_moment(world: VirtualWorld, kind: int) -> None:
    checkpoint = opened(world, kind)
    readers = [world.open(node, checkpoint.name, READ) for node in world.nodes]
    names = ("k", "empty")
    checkpoint.write([(name, b"%09d" % 0, 0) for name in names])
    seen: list[int] = []
    for number in range(1, 60):
        reader = readers[number % 3]
        calls = [
            (checkpoint, "write", [(name, b"%09d" % number, 0) for name in names]),
            (reader, "read", [(name, 9, 0) for name in names]),
        ]
        if number % 2:
            calls.reverse()
        begun = {}
        for of, method, vector in calls:
            begun[method] = begin(of, method, vector)
            world.pass_time(0.00003 * (number % 12))
        first, second = begun["read"].end(world)
        begun["write"].end(world)
        assert first == second
        assert int(first) in (number - 1, number)
        seen.append(number - int(first))
    assert set(seen) == {0, 1}, "the reads were all before, or all behind the writes"


@requirement("R133")
def test_a_read_of_one_section_twice_gives_the_same(world: World) -> None:
    checkpoint = opened(world)
    reader = world.open("b", checkpoint.name, READ)
    for number in range(30):
        checkpoint.overwrite("k", b"%d" % number)
        first, second, part = reader.read([("k", None, 0), ("k", None, 0), ("k", 1, 0)])
        assert first == second == b"%d" % number
        assert part == first[:1]
