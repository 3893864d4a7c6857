"""Write and Overwrite: what they change, what they refuse, and as a whole or not at all (R115 to R125)."""

import pytest
from tests.conformance.concurrent_calls import begin
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ASYNC,
    COLLOCATED,
    CREATE,
    KINDS,
    READ,
    SECTION_BYTES,
    SYNC,
    WEAK,
    attributes,
    opened,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.limits import CALL_BYTES_MAX, OPS_PER_UPDATE_MAX

SPREAD = (SYNC, ASYNC, WEAK)
LARGE_OFFSETS = [SECTION_BYTES, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 2, 2**63 - 1]


def filled(world: World, kind: int = SYNC, **changed: int) -> Checkpoint:
    """The same with the sections "one" and "two"."""
    checkpoint = opened(world, kind, **changed)
    for section_id in ("one", "two"):
        checkpoint.section_create(section_id, initial_data=b"0123456789")
    return checkpoint


def contents(checkpoint: Checkpoint) -> list[bytes]:
    """What the two sections hold."""
    return checkpoint.read([("one", None, 0), ("two", None, 0)])


UNTOUCHED = [b"0123456789", b"0123456789"]


# -- Write


@requirement("R115")
@pytest.mark.parametrize("kind", KINDS)
def test_elements_are_written_in_their_order(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    reader = world.open("c", checkpoint.name, READ)
    vector = [("one", b"aaaa", 2), ("two", b"xxxx", 8), ("one", b"bb", 4), ("one", b"c", 4), ("two", b"y", 0)]
    checkpoint.write(vector)
    assert contents(reader) == [b"01aacb6789", b"y1234567xxxx"]


@requirement("R115")
def test_the_later_of_two_elements_for_one_place_wins(world: World) -> None:
    checkpoint = filled(world)
    checkpoint.write([("one", b"first", 0), ("one", b"later", 0)])
    checkpoint.write([("two", b"later", 0), ("two", b"first", 0)])
    assert contents(checkpoint) == [b"later56789", b"first56789"]


@requirement("R116")
@each_transport
def test_a_write_never_shortens_and_grows_where_it_passes_the_end(world: World) -> None:
    checkpoint = filled(world)
    checkpoint.write([("one", b"a", 0)])
    assert contents(checkpoint)[0] == b"a123456789"
    checkpoint.write([("one", b"xyz", 8)])
    assert contents(checkpoint)[0] == b"a1234567xyz"
    checkpoint.write([("one", b"!", 11)])
    assert contents(checkpoint)[0] == b"a1234567xyz!"
    assert checkpoint.status_get().memory_used == 12 + 10


@requirement("R116")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_gap_after_the_end_reads_as_zeros(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    checkpoint.write([("one", b"far", 20)])
    checkpoint.section_create("empty")
    checkpoint.write([("empty", b"x", SECTION_BYTES - 1)])
    assert contents(checkpoint)[0] == b"0123456789" + bytes(10) + b"far"
    assert checkpoint.read([("empty", None, 0)]) == [bytes(SECTION_BYTES - 1) + b"x"]


@requirement("R117")
@pytest.mark.parametrize("kind", KINDS)
def test_data_above_max_section_size_is_invalid_param(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    with refused("INVALID_PARAM", index=0):
        checkpoint.write([("one", bytes(SECTION_BYTES + 1), 0)])
    assert contents(checkpoint) == UNTOUCHED
    checkpoint.write([("one", bytes(SECTION_BYTES), 0)])
    assert contents(checkpoint)[0] == bytes(SECTION_BYTES)


@requirement("R118")
@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("offset", LARGE_OFFSETS)
def test_offset_and_data_above_max_section_size_are_no_resources(
    world: World, kind: int, offset: int
) -> None:
    checkpoint = filled(world, kind)
    with refused("NO_RESOURCES", index=1):
        checkpoint.write([("two", b"written", 0), ("one", b"x", offset)])
    assert contents(checkpoint) == UNTOUCHED
    assert checkpoint.status_get().memory_used == 20


@requirement("R118")
def test_offset_and_data_of_exactly_max_section_size_are_ok(world: World) -> None:
    checkpoint = filled(world)
    checkpoint.write([("one", b"ab", SECTION_BYTES - 2)])
    with refused("NO_RESOURCES", index=0):
        checkpoint.write([("one", b"ab", SECTION_BYTES - 1)])
    assert checkpoint.read([("one", None, SECTION_BYTES - 2)]) == [b"ab"]
    assert checkpoint.status_get().memory_used == SECTION_BYTES + 10


@requirement("R119")
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_section_is_not_exist_with_its_index(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    for unknown in ("none", "One", b"one\0"):
        with refused("NOT_EXIST", index=1):
            checkpoint.write([("one", b"x", 0), (unknown, b"x", 0), ("two", b"x", 0)])
    assert contents(checkpoint) == UNTOUCHED


@requirement("R119", "R125")
@pytest.mark.parametrize("open_flags", [READ, CREATE, CREATE | READ])
def test_to_write_and_to_overwrite_need_write(world: World, open_flags: int) -> None:
    full = filled(world)
    wanted = attributes() if open_flags & CREATE else None
    checkpoint = world.service("b").checkpoint_open(full.name, open_flags, wanted)
    with refused("ACCESS"):
        checkpoint.write([("one", b"x", 0)])
    with refused("ACCESS"):
        checkpoint.overwrite("one", b"x")
    assert contents(full) == UNTOUCHED


@requirement("R119", "R125", "R131")
@pytest.mark.parametrize("kind", [ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_without_an_active_replica_contents_are_not_exist_with_no_index(world: World, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    for call in (
        lambda: checkpoint.write([("one", b"x", 0)]),
        lambda: checkpoint.overwrite("one", b"x"),
        lambda: checkpoint.read([("one", None, 0)]),
    ):
        with refused("NOT_EXIST") as caught:
            call()
        assert caught.value.erroneous_vector_index is None


@requirement("R120")
@pytest.mark.parametrize("kind", SPREAD)
def test_no_elements_and_negative_offsets_are_invalid_param(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    with refused("INVALID_PARAM"):
        checkpoint.write([])
    for offset in (-1, -(2**63)):
        with refused("INVALID_PARAM", index=1):
            checkpoint.write([("one", b"x", 0), ("two", b"x", offset)])
    assert contents(checkpoint) == UNTOUCHED


@requirement("R120")
@pytest.mark.parametrize("kind", SPREAD)
def test_an_element_without_bytes_changes_nothing(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    checkpoint.write([("one", b"", 0), ("one", b"", 10), ("two", b"", 50), ("two", b"", SECTION_BYTES)])
    assert contents(checkpoint) == UNTOUCHED
    with refused("NOT_EXIST", index=0):
        checkpoint.write([("none", b"", 0)])


@requirement("R121")
@pytest.mark.parametrize("fault", ["unknown section", "too large", "offset too large", "negative offset"])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_the_lowest_wrong_element_is_returned(world: World, fault: str, place: int) -> None:
    checkpoint = filled(world)
    wrong = {
        "unknown section": ("none", b"x", 0),
        "too large": ("one", bytes(SECTION_BYTES + 1), 0),
        "offset too large": ("one", b"x", SECTION_BYTES),
        "negative offset": ("one", b"x", -1),
    }
    vector = [("two", b"x", number) for number in range(6)]
    vector[place] = wrong[fault]
    vector[5] = ("none", b"x", 0)
    code = {"unknown section": "NOT_EXIST", "offset too large": "NO_RESOURCES"}.get(fault, "INVALID_PARAM")
    with refused(code, index=place):
        checkpoint.write(vector)
    assert contents(checkpoint) == UNTOUCHED


@requirement("R121")
def test_a_fault_of_the_arguments_is_reported_before_what_only_the_service_can_know(world: World) -> None:
    """The order of R7 (arguments, then state) decides which fault is told; of those it is the lowest."""
    checkpoint = filled(world)
    unknown, large = ("none", b"x", 0), ("one", bytes(SECTION_BYTES + 1), 0)
    with refused("INVALID_PARAM", index=2):
        checkpoint.write([("one", b"x", 0), unknown, large, unknown, large])
    with refused("INVALID_PARAM", index=1):
        checkpoint.write([("one", b"x", 0), large, unknown])
    assert contents(checkpoint) == UNTOUCHED


@requirement("R122")
@pytest.mark.parametrize("kind", SPREAD)
def test_checkpoint_size_is_not_enforced(world: World, kind: int) -> None:
    checkpoint = opened(world, kind, checkpoint_size=10)
    for number in range(10):
        checkpoint.section_create(f"k{number}", initial_data=bytes(SECTION_BYTES))
    status = checkpoint.status_get()
    assert (status.creation_attributes.checkpoint_size, status.memory_used) == (10, 10 * SECTION_BYTES)


@requirement("R122")
@each_transport
def test_megabytes_are_kept_in_a_checkpoint_of_four_kilobytes(world: World) -> None:
    """OpenSAF keeps 25.6 MB there."""
    size = 25_600_000
    checkpoint = opened(world, checkpoint_size=4096, max_sections=1, max_section_size=size)
    data = bytes(range(256)) * (size // 256)
    checkpoint.overwrite("", data)
    assert checkpoint.status_get().memory_used == size
    assert world.open("b", checkpoint.name, READ).read([("", None, 0)]) == [data]


@requirement("R123")
@each_transport
def test_a_call_that_is_too_large_as_a_whole_is_no_resources(world: World) -> None:
    size = CALL_BYTES_MAX // 4
    checkpoint = opened(world, max_section_size=size, max_sections=4)
    data = bytes(size)
    checkpoint.section_create("k", initial_data=b"v")
    with refused("NO_RESOURCES"):
        checkpoint.write([("k", data, 0)] * 5)
    assert checkpoint.read([("k", None, 0)]) == [b"v"]


@requirement("R123")
def test_too_many_elements_are_no_resources(world: World) -> None:
    checkpoint = filled(world)
    with refused("NO_RESOURCES"):
        checkpoint.write([("one", b"x", 0)] * (OPS_PER_UPDATE_MAX + 1))
    assert contents(checkpoint) == UNTOUCHED


# -- as a whole or not at all


@requirement("R55", "R121")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("last", [("none", b"x", 0), ("two", b"x", SECTION_BYTES), ("two", b"x", 2**63 - 1)])
def test_a_write_that_is_refused_has_written_none_of_its_elements(
    world: World, kind: int, last: tuple[str, bytes, int]
) -> None:
    checkpoint = filled(world, kind)
    readers = [world.open(node, checkpoint.name, READ) for node in world.nodes]
    before = [section.last_update for section in checkpoint.section_iteration()]
    code = "NOT_EXIST" if last[0] == "none" else "NO_RESOURCES"
    with refused(code, index=3):
        checkpoint.write([("one", b"new", 0), ("two", b"new", 0), ("one", bytes(90), 10), last])
    assert [contents(reader) for reader in readers] == [UNTOUCHED] * 3
    assert checkpoint.status_get().memory_used == 20
    assert [section.last_update for section in checkpoint.section_iteration()] == before


@requirement("R54", "R55")
@on(VIRTUAL, why="a node is lost between two frames")
@pytest.mark.parametrize("kind", [SYNC, ASYNC])
@pytest.mark.parametrize("kept_back", ["", "b", "c", "bc"])
@pytest.mark.parametrize("moments", range(6))
def test_a_write_is_in_each_replica_as_a_whole_or_not_at_all_though_the_active_one_dies(
    world: VirtualWorld, kind: int, kept_back: str, moments: int
) -> None:
    checkpoint = filled(world, kind)
    reader = world.open("b", checkpoint.name, READ)
    world.pass_time(0.1)
    for node in kept_back:
        world.cluster.hold("a", node)
    new = [b"new" + bytes(80), b"other" + bytes(80)]
    writing = begin(checkpoint, "write", [("one", new[0], 0), ("two", new[1], 0)])
    world.pass_time(0.00005 * moments)
    world.kill("a")
    told = contents(reader)
    assert told in (UNTOUCHED, new)
    for node in ("b", "c"):
        held = world.contents(node, checkpoint.name)
        assert [held[b"one"], held[b"two"]] in (UNTOUCHED, new)
    writing.end(world)
    if kind == SYNC:
        assert contents(reader) == new


# -- Overwrite


@requirement("R124")
@pytest.mark.parametrize("kind", KINDS)
def test_an_overwrite_replaces_content_and_size(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    reader = world.open("b", checkpoint.name, READ)
    for data in (b"short", b"longer than it was before", b"", b"x" * SECTION_BYTES, b"\0"):
        checkpoint.overwrite("one", data)
        assert contents(reader) == [data, b"0123456789"]
        assert checkpoint.status_get().memory_used == len(data) + 10


@requirement("R124")
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_section_is_overwritten_without_a_write_before(world: World, kind: int) -> None:
    checkpoint = opened(world, kind, max_sections=1)
    checkpoint.overwrite("", b"content")
    assert checkpoint.read([("", None, 0)]) == [b"content"]


@requirement("R124")
def test_an_overwrite_keeps_the_expiration(world: World) -> None:
    checkpoint = opened(world)
    at_ns = SA_TIME_END - 1
    checkpoint.section_create("k", at_ns)
    checkpoint.overwrite("k", b"v")
    assert [section.expiration_time for section in checkpoint.section_iteration()] == [at_ns]


@requirement("R125")
@pytest.mark.parametrize("kind", KINDS)
def test_what_an_overwrite_refuses_leaves_all_as_it_was(world: World, kind: int) -> None:
    checkpoint = filled(world, kind)
    with refused("INVALID_PARAM"):
        checkpoint.overwrite("one", bytes(SECTION_BYTES + 1))
    for nothing in (None, 5):
        with refused("INVALID_PARAM"):
            checkpoint.overwrite("one", nothing)  # type: ignore[arg-type]
    with refused("NOT_EXIST"):
        checkpoint.overwrite("none", b"x")
    assert contents(checkpoint) == UNTOUCHED
    assert checkpoint.status_get().number_of_sections == 2
