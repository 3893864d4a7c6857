"""Creating sections: ids, first contents, what there is no room for (R88 to R97, R99)."""

import ctypes
from typing import Any

import pytest
from tests.conformance.marks import DAEMONS, VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    CREATE,
    KINDS,
    READ,
    WRITE,
    Heard,
    attributes,
    opened,
    outcome,
    refused,
)
from tests.conformance.world import World

from ckpt_client.pyosaf import library
from ckpt_client.pyosaf.modules import make_modules
from ckpt_client.saf import SA_CKPT_SECTION_VALID, Checkpoint, DispatchFlags, SectionChangeT
from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.settings import SECOND_NS


def contents(checkpoint: Checkpoint) -> dict[bytes, bytes]:
    """Each section's content."""
    ids = [section.section_id for section in checkpoint.section_iteration()]
    return {section_id: checkpoint.read([(section_id, None, 0)])[0] for section_id in ids}


# -- the first content


@requirement("R88")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_a_section_is_created_with_its_first_content(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    assert checkpoint.section_create("k", SA_TIME_END, b"\0content\xff") == b"k"
    for node in world.nodes:
        (section,) = world.open(node, checkpoint.name, READ).section_iteration()
        assert section[:4] == (b"k", SA_TIME_END, 9, SA_CKPT_SECTION_VALID)
        assert contents(world.open(node, checkpoint.name, READ)) == {b"k": b"\0content\xff"}


@requirement("R88")
@each_transport
@pytest.mark.parametrize("nothing", [None, b"", "", bytearray(), memoryview(b"")])
def test_a_section_without_a_first_content_is_empty(world: World, nothing: Any) -> None:
    checkpoint = world.open()
    checkpoint.section_create("k", initial_data=nothing)
    checkpoint.section_create("l")
    assert contents(checkpoint) == {b"k": b"", b"l": b""}
    checkpoint.write([("k", b"v", 0)])
    assert contents(checkpoint) == {b"k": b"v", b"l": b""}


@requirement("R88")
@each_transport
@pytest.mark.parametrize("content", [5, 1.5, ["v"], object()])
def test_a_first_content_that_is_no_bytes_is_invalid_param(world: World, content: Any) -> None:
    """What C would have as a size without data."""
    checkpoint = world.open()
    with refused("INVALID_PARAM"):
        checkpoint.section_create("k", initial_data=content)
    assert contents(checkpoint) == {}


@requirement("R89")
@each_transport
@pytest.mark.parametrize(
    ("open_flags", "code"),
    [(READ, "ACCESS"), (CREATE, "ACCESS"), (CREATE | READ, "ACCESS"), (WRITE, "OK"), (ALL_MODES, "OK")],
)
def test_sections_are_created_by_handles_with_write(world: World, open_flags: int, code: str) -> None:
    full = world.open()
    checkpoint = world.open("a", full.name, open_flags)
    assert outcome(lambda: checkpoint.section_create("k")) == code
    assert full.status_get().number_of_sections == (code == "OK")


@requirement("R89")
def test_at_b_01_too_sections_are_created_by_handles_with_write(world: World) -> None:
    full = world.open()
    reader = world.service("a", ("B", 1, 1)).checkpoint_open(full.name, READ)
    with refused("ACCESS"):
        reader.section_create("k")


@requirement("R90")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize(("size", "code"), [(99, "OK"), (100, "OK"), (101, "INVALID_PARAM")])
def test_a_first_content_above_the_largest_section_is_invalid_param(
    world: World, flags: int, size: int, code: str
) -> None:
    checkpoint = opened(world, flags)
    assert outcome(lambda: checkpoint.section_create("k", initial_data=bytes(size))) == code
    assert checkpoint.status_get()[1:] == ((1, size) if code == "OK" else (0, 0))


# -- ids


@requirement("R91")
@each_transport
@pytest.mark.parametrize(("length", "code"), [(1, "OK"), (15, "OK"), (16, "OK"), (17, "INVALID_PARAM")])
def test_an_id_above_the_longest_is_invalid_param(world: World, length: int, code: str) -> None:
    checkpoint = world.open(max_section_id_size=16)
    assert outcome(lambda: checkpoint.section_create(b"x" * length)) == code
    assert list(contents(checkpoint)) == ([b"x" * length] if code == "OK" else [])


@requirement("R91")
@each_transport
@pytest.mark.parametrize("section_id", [None, 5, ["k"]])
def test_an_id_that_is_no_bytes_is_invalid_param(world: World, section_id: Any) -> None:
    """What C would have as a length without bytes."""
    checkpoint = world.open()
    with refused("INVALID_PARAM"):
        checkpoint.section_create(section_id)
    assert contents(checkpoint) == {}


@requirement("R91", "R92")
@each_transport
@pytest.mark.parametrize(("limit", "length"), [(49, 49), (50, 50), (100, 99), (1000, 1000)])
def test_an_id_may_be_as_long_as_the_checkpoint_says(world: World, limit: int, length: int) -> None:
    checkpoint = world.open(max_section_id_size=limit)
    section_id = b"x" * length
    checkpoint.section_create(section_id, initial_data=b"v")
    assert contents(checkpoint) == {section_id: b"v"}
    with refused("INVALID_PARAM"):
        checkpoint.section_create(b"x" * (limit + 1))


@requirement("R92")
@on(VIRTUAL, DAEMONS, "daemons-tcp", why="the id is larger than a datagram")
def test_an_id_may_have_65535_bytes(world: World) -> None:
    checkpoint, section_id = world.open(max_section_id_size=65_535), b"x" * 65_535
    checkpoint.section_create(section_id, initial_data=b"v")
    with refused("EXIST"):
        checkpoint.section_create(section_id)
    checkpoint.section_create(section_id[:-1])
    assert contents(checkpoint) == {section_id: b"v", section_id[:-1]: b""}


@requirement("R92")
@each_transport
def test_no_checkpoint_has_ids_above_65535_bytes(world: World) -> None:
    with refused("INVALID_PARAM"):
        world.open(max_section_id_size=65_536)


@requirement("R93")
@each_transport
def test_ids_are_any_bytes_compared_by_length_and_bytes(world: World) -> None:
    checkpoint = world.open(max_sections=20)
    ids = [b"\0", b"\0\0", b"a", b"a\0", b"A", b"\0a", b"\xff\xfe", bytes(range(240, 256)), b" ", b"a "]
    for section_id in ids:
        checkpoint.section_create(section_id, initial_data=section_id)
    assert contents(checkpoint) == {section_id: section_id for section_id in ids}
    for section_id in ids:
        with refused("EXIST"):
            checkpoint.section_create(section_id)


@requirement("R93")
def test_an_id_means_something_in_its_checkpoint_only(world: World) -> None:
    one, other = world.open("a"), world.open("a")
    one.section_create("k", initial_data=b"one")
    with refused("NOT_EXIST"):
        other.read([("k", None, 0)])
    other.section_create("k", initial_data=b"other")
    one.section_delete("k")
    assert (contents(one), contents(other)) == ({}, {b"k": b"other"})


# -- what is there already, what there is no room for


@requirement("R94")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_an_id_that_is_there_is_exist_and_stays_as_it_is(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    checkpoint.section_create("k", initial_data=b"first")
    for node in world.nodes:
        with refused("EXIST"):
            world.open(node, checkpoint.name, WRITE).section_create("k", initial_data=b"second")
    assert contents(checkpoint) == {b"k": b"first"}


@requirement("R94")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("section_id", [b"k", b"", b"\0"])
def test_with_one_section_at_most_every_id_is_exist(world: World, flags: int, section_id: bytes) -> None:
    checkpoint = opened(world, flags, max_sections=1)
    with refused("EXIST"):
        checkpoint.section_create(section_id, initial_data=b"v")
    assert contents(checkpoint) == {b"": b""}


@requirement("R95")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("section_id", [b"three", b""])
def test_one_section_too_many_is_no_space_and_nothing_is_created(
    world: World, flags: int, section_id: bytes
) -> None:
    checkpoint = opened(world, flags, max_sections=2)
    for there in ("one", "two"):
        checkpoint.section_create(there)
    with refused("NO_SPACE"):
        checkpoint.section_create(section_id, initial_data=b"v")
    assert contents(checkpoint) == {b"one": b"", b"two": b""}
    checkpoint.section_delete("one")
    checkpoint.section_create("three")
    with refused("NO_SPACE"):
        checkpoint.section_create("one")


@requirement("R96")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_an_id_that_is_there_in_a_full_checkpoint_is_exist(world: World, flags: int) -> None:
    checkpoint = opened(world, flags, max_sections=2)
    for there in ("one", "two"):
        checkpoint.section_create(there)
    with refused("EXIST"):
        checkpoint.section_create("two")


# -- ids that are made up


@requirement("R97")
@each_transport
@pytest.mark.parametrize("limit", [1, 2, 8, 16, 65_535])
def test_without_an_id_a_new_one_is_generated_and_returned(world: World, limit: int) -> None:
    checkpoint = world.open(max_sections=100, max_section_id_size=limit)
    others = [checkpoint, world.open("b", checkpoint.name, READ | WRITE)]
    made = [others[number % 2].section_create(b"", initial_data=b"%d" % number) for number in range(100)]
    assert len(set(made)) == 100
    assert all(1 <= len(section_id) <= limit for section_id in made)
    assert checkpoint.read([(section_id, None, 0) for section_id in made]) == [b"%d" % n for n in range(100)]


@requirement("R97")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_a_made_up_id_is_an_id_like_any_other(world: World, flags: int) -> None:
    checkpoint = opened(world, flags)
    made = checkpoint.section_create(b"", initial_data=b"v")
    with refused("EXIST"):
        checkpoint.section_create(made)
    there = world.open("b", checkpoint.name, READ | WRITE)
    there.overwrite(made, b"w")
    assert contents(there) == {made: b"w"}
    there.section_delete(made)
    checkpoint.section_create(made, initial_data=b"again")
    assert contents(checkpoint) == {made: b"again"}


@requirement("R97")
def test_a_generated_id_differs_from_those_that_were_given(world: World) -> None:
    """With ids of one byte there are few: all but one are taken."""
    checkpoint = world.open(max_sections=300, max_section_id_size=1)
    for number in range(256):
        if number != 77:
            checkpoint.section_create(bytes([number]))
    assert checkpoint.section_create(b"") == bytes([77])
    with refused("NO_SPACE"):
        checkpoint.section_create(b"")
    assert checkpoint.status_get().number_of_sections == 256


@requirement("R97")
def test_an_id_is_not_made_up_again_after_a_loss(world: World) -> None:
    checkpoint = world.open("c", max_sections=100, max_section_id_size=8)
    writer = world.open("b", checkpoint.name, READ | WRITE)
    made = [writer.section_create(b"") for _ in range(5)]
    world.kill("c")
    made += [writer.section_create(b"") for _ in range(5)]
    assert len(set(made)) == 10
    assert writer.status_get().number_of_sections == 10


# -- running out of sections


@requirement("R99")
def test_no_free_section_is_reported_by_the_call_and_by_tracking_once_there_is_one(
    world: World,
) -> None:
    """The deviation."""
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(max_sections=2))
    other = world.open("b", checkpoint.name, READ | WRITE)
    checkpoint.track()
    checkpoint.section_create("one")
    checkpoint.section_create("two", world.now_ns() + SECOND_NS // 2)
    with refused("NO_SPACE"):
        checkpoint.section_create("three")
    other.section_delete("one")
    world.dispatch_next(service)
    checkpoint.section_create("three")
    with refused("NO_SPACE"):
        checkpoint.section_create("four")
    world.dispatch_next(service)
    checkpoint.section_create("four")
    service.dispatch(DispatchFlags.ALL)
    told = [(change.change, change.section_id) for _, changes in heard.tracked for change in changes]
    assert told == [(SectionChangeT.DELETED, b"one"), (SectionChangeT.EXPIRED, b"two")]


@requirement("R98")
def test_a_generated_id_is_given_back_once_where_there_are_pointers(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the module for programs written against C's structures has the call; elsewhere bytes are bytes."""
    full = opened(world, ASYNC)
    monkeypatch.setattr(
        library,
        "CheckpointService",
        type("Here", (), {"initialize": staticmethod(lambda *told: world.service("a", *told))}),
    )
    saf = make_modules()["pyosaf.saCkpt"]
    handle, checkpoint = saf.SaCkptHandleT(), saf.SaCkptCheckpointHandleT()
    assert saf.saCkptInitialize(handle, None, saf.SaVersionT(b"B", 2, 2)) == 1
    name = saf.SaNameT(full.name)
    assert saf.saCkptCheckpointOpen(handle, name, None, ALL_MODES & ~4, 10**10, checkpoint) == 1
    generated = saf.SaCkptSectionIdT()
    creation = saf.SaCkptSectionCreationAttributesT(ctypes.pointer(generated), SA_TIME_END)
    assert saf.saCkptSectionCreate(checkpoint, creation, None, 0) == 1
    made = ctypes.string_at(generated.id, generated.idLen)
    assert [section.section_id for section in full.section_iteration()] == [made]
    assert saf.saCkptSectionIdFree(0, generated.id) == 9
    assert saf.saCkptSectionIdFree(checkpoint, generated.id) == 1
    assert saf.saCkptSectionIdFree(checkpoint, generated.id) == 7
    assert saf.saCkptFinalize(handle) == 1
