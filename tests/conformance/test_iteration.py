"""Iterating over sections: which are chosen, how often each is told, what is told of it (R107 to R114)."""

import pytest
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    KINDS,
    READ,
    SYNC,
    WEAK,
    attributes,
    ids,
    opened,
    refused,
    rest,
)
from tests.conformance.world import World

from ckpt_protocol.constants import (
    SA_CKPT_SECTION_VALID,
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_CORRUPTED,
    SA_CKPT_SECTIONS_FOREVER,
    SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME,
    SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME,
    SA_TIME_END,
)
from ckptd.core.settings import SECOND_NS

FOREVER = SA_CKPT_SECTIONS_FOREVER
LEQ = SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME
GEQ = SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME
CORRUPTED = SA_CKPT_SECTIONS_CORRUPTED
ANY = SA_CKPT_SECTIONS_ANY
HOUR_NS = 3600 * SECOND_NS
END = "the end of time"

CHOICES = [
    (FOREVER, 0, "never"),
    (ANY, 0, "one two three never"),
    (CORRUPTED, 0, ""),
    (LEQ, 0, ""),
    (LEQ, HOUR_NS - 1, ""),
    (LEQ, HOUR_NS, "one"),
    (LEQ, 2 * HOUR_NS, "one two"),
    (LEQ, 3 * HOUR_NS - 1, "one two"),
    (LEQ, END, "one two three never"),
    (GEQ, 0, "one two three never"),
    (GEQ, HOUR_NS + 1, "two three never"),
    (GEQ, 2 * HOUR_NS, "two three never"),
    (GEQ, 3 * HOUR_NS + 1, "never"),
    (GEQ, END, "never"),
]
"""What is chosen, the time (from now on), and the sections that are to be told."""


# -- which sections


@requirement("R107")
@pytest.mark.parametrize("kind", KINDS)
def test_each_choice_returns_the_sections_that_its_name_says(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    reader = world.open("b", checkpoint.name, READ)
    now_ns = world.now_ns()
    for hours, section_id in enumerate(("one", "two", "three"), 1):
        checkpoint.section_create(section_id, now_ns + hours * HOUR_NS)
    checkpoint.section_create("never", SA_TIME_END)
    for chosen, after_ns, expected in CHOICES:
        at_ns = SA_TIME_END if after_ns == END else now_ns + after_ns if after_ns else 0
        told = {section.section_id.decode() for section in reader.section_iteration(chosen, at_ns)}
        assert (chosen, after_ns, told) == (chosen, after_ns, set(expected.split()))
        singly = ids(checkpoint.section_iteration_initialize(chosen, at_ns))
        assert (chosen, after_ns, {one.decode() for one in singly}) == (chosen, after_ns, told)
        assert len(singly) == len(told)


@requirement("R107")
@pytest.mark.parametrize("chosen", [FOREVER, CORRUPTED, ANY])
def test_the_time_means_nothing_to_choices_that_are_not_about_it(world: World, chosen: int) -> None:
    checkpoint = opened(world)
    checkpoint.section_create("later", world.now_ns() + HOUR_NS)
    checkpoint.section_create("never")
    without = ids(checkpoint.section_iteration_initialize(chosen))
    assert sorted(without) == {FOREVER: [b"never"], CORRUPTED: [], ANY: [b"later", b"never"]}[chosen]
    for at_ns in (0, 1, world.now_ns() + 2 * HOUR_NS, SA_TIME_END):
        assert ids(checkpoint.section_iteration_initialize(chosen, at_ns)) == without


@requirement("R107")
def test_an_expiration_that_was_set_is_the_one_that_counts(world: World) -> None:
    checkpoint = opened(world)
    soon_ns, later_ns = world.now_ns() + HOUR_NS, world.now_ns() + 2 * HOUR_NS
    checkpoint.section_create("k", later_ns)
    checkpoint.section_expiration_time_set("k", soon_ns)
    assert ids(checkpoint.section_iteration_initialize(LEQ, soon_ns)) == [b"k"]
    assert ids(checkpoint.section_iteration_initialize(GEQ, soon_ns + 1)) == []
    checkpoint.section_expiration_time_set("k", SA_TIME_END)
    assert ids(checkpoint.section_iteration_initialize(FOREVER)) == [b"k"]
    assert ids(checkpoint.section_iteration_initialize(LEQ, later_ns)) == []


@requirement("R108")
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_section_takes_part_as_one_that_never_expires(world: World, kind: int) -> None:
    checkpoint = opened(world, kind, max_sections=1)
    far_ns = world.now_ns() + 1000 * HOUR_NS
    for chosen, at_ns, told in (
        (FOREVER, 0, True),
        (ANY, 0, True),
        (GEQ, 0, True),
        (GEQ, far_ns, True),
        (GEQ, SA_TIME_END, True),
        (LEQ, SA_TIME_END, True),
        (LEQ, far_ns, False),
        (LEQ, SA_TIME_END - 1, False),
        (CORRUPTED, 0, False),
    ):
        found = list(rest(checkpoint.section_iteration_initialize(chosen, at_ns)))
        assert (chosen, at_ns, [one.section_id for one in found]) == (chosen, at_ns, [b""] if told else [])
        assert all(section.expiration_time == SA_TIME_END for section in found)


# -- to the end


@requirement("R111")
@each_transport
def test_next_returns_one_section_each_and_no_sections_ever_after(world: World) -> None:
    checkpoint = opened(world)
    for section_id in ("one", "two", "three"):
        checkpoint.section_create(section_id)
    iteration = checkpoint.section_iteration_initialize(ANY)
    told = {iteration.next().section_id for _ in range(3)}
    assert told == {b"one", b"two", b"three"}
    for _ in range(3):
        with refused("NO_SECTIONS"):
            iteration.next()
    iteration.finalize()


@requirement("R111")
@pytest.mark.parametrize("chosen", [FOREVER, LEQ, GEQ, CORRUPTED, ANY])
def test_where_nothing_is_chosen_the_first_next_is_no_sections(world: World, chosen: int) -> None:
    iteration = opened(world).section_iteration_initialize(chosen, 1)
    for _ in range(2):
        with refused("NO_SECTIONS"):
            iteration.next()


@requirement("R111")
def test_an_iteration_at_its_end_stays_there_though_sections_are_added(world: World) -> None:
    checkpoint = opened(world)
    iteration = checkpoint.section_iteration_initialize(ANY)
    with refused("NO_SECTIONS"):
        iteration.next()
    checkpoint.section_create("late")
    with refused("NO_SECTIONS"):
        iteration.next()


@requirement("R112")
@pytest.mark.parametrize("kind", [SYNC, ASYNC, WEAK])
def test_what_is_there_from_begin_to_end_is_returned_once_whatever_changes(world: World, kind: int) -> None:
    checkpoint = opened(world, kind, max_sections=60)
    stays = [f"stays-{number:02}" for number in range(20)]
    goes = [f"goes-{number:02}" for number in range(20)]
    for section_id in (*stays, *goes):
        checkpoint.section_create(section_id)
    iteration = checkpoint.section_iteration_initialize(ANY)
    told = []
    for number in range(10):
        told.append(iteration.next().section_id)
        checkpoint.section_delete(goes[2 * number])
        checkpoint.section_create(f"new-{number}")
        checkpoint.section_create(f"a-{number}")
        checkpoint.overwrite(stays[number], b"x" * number)
        checkpoint.write([(stays[19 - number], b"y", number)])
    told += ids(iteration)
    assert len(told) == len(set(told))
    assert {section_id.encode() for section_id in stays} <= set(told)
    assert {section_id.encode() for section_id in goes[1::2]} <= set(told)


@requirement("R112")
def test_thousands_of_sections_are_returned_once_each(world: World) -> None:
    many = 300 if not world.virtual else 3000
    checkpoint = opened(world, max_sections=many, max_section_id_size=600)
    expected = {f"{number:04}".encode() + bytes(500) for number in range(many)}
    for section_id in sorted(expected):
        checkpoint.section_create(section_id)
    told = [section.section_id for section in checkpoint.section_iteration(ANY)]
    assert len(told) == many
    assert set(told) == expected


@requirement("R112")
@on(VIRTUAL, why="sections are deleted between two pages of a megabyte")
def test_pages_return_each_section_once_though_sections_come_and_go_between_them(world: World) -> None:
    checkpoint = opened(world, max_sections=4000, max_section_id_size=1100)
    expected = [f"{number:04}".encode() + bytes(1000) for number in range(0, 4000, 2)]
    for section_id in expected:
        checkpoint.section_create(section_id)
    pages = checkpoint.section_iteration(ANY)
    told = [next(pages).section_id]
    for section_id in expected[10:1990]:
        if section_id not in told and section_id[3:4] == b"2":
            checkpoint.section_delete(section_id)
    for number in range(1, 400, 2):
        checkpoint.section_create(f"{number:04}")
    told += [section.section_id for section in pages]
    assert len(told) == len(set(told))
    left = {section.section_id for section in checkpoint.section_iteration(ANY)}
    assert {section_id for section_id in expected if section_id in left} <= set(told)


@requirement("R112")
def test_an_iteration_continues_where_it_was_after_a_fail_over(world: World) -> None:
    checkpoint = opened(world)
    expected = [f"k{number}".encode() for number in range(8)]
    for section_id in expected:
        checkpoint.section_create(section_id)
    iteration = checkpoint.section_iteration_initialize(ANY)
    told = [iteration.next().section_id for _ in range(3)]
    world.kill("a")
    told += ids(iteration)
    assert sorted(told) == expected


# -- the end of an iteration


@requirement("R113")
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_finalized_iteration_is_bad_handle(world: World, steps: int) -> None:
    checkpoint = opened(world)
    for section_id in ("one", "two"):
        checkpoint.section_create(section_id)
    iteration, other = (checkpoint.section_iteration_initialize(ANY) for _ in range(2))
    for _ in range(min(steps, 2)):
        iteration.next()
    if steps > 2:
        with refused("NO_SECTIONS"):
            iteration.next()
    iteration.finalize()
    with refused("BAD_HANDLE"):
        iteration.next()
    with refused("BAD_HANDLE"):
        iteration.finalize()
    assert sorted(ids(other)) == [b"one", b"two"]


@requirement("R113")
@pytest.mark.parametrize("ended", ["close", "finalize"])
def test_an_iteration_ends_with_its_checkpoint_and_its_library(world: World, ended: str) -> None:
    service = world.service()
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes())
    checkpoint.section_create("k")
    iteration = checkpoint.section_iteration_initialize(ANY)
    pages = checkpoint.section_iteration(ANY)
    checkpoint.close() if ended == "close" else service.finalize()
    for call in (iteration.next, iteration.finalize, lambda: next(pages)):
        with refused("BAD_HANDLE"):
            call()


# -- the descriptor


@requirement("R114")
@pytest.mark.parametrize("kind", KINDS)
def test_each_section_is_returned_as_it_is_now(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    reader = world.open("c", checkpoint.name, READ)
    at_ns = world.now_ns() + HOUR_NS
    checkpoint.section_create("k", initial_data=b"v")
    iteration = reader.section_iteration_initialize(ANY)
    world.pass_time(0.01)
    before_ns = world.now_ns()
    checkpoint.overwrite("k", b"longer by far")
    checkpoint.section_expiration_time_set("k", at_ns)
    section = iteration.next()
    assert section[:4] == (b"k", at_ns, 13, SA_CKPT_SECTION_VALID)
    assert before_ns <= section.last_update <= world.now_ns()


@requirement("R114")
def test_what_was_returned_stays_as_it_was(world: World) -> None:
    checkpoint = opened(world)
    checkpoint.section_create("one", initial_data=b"1")
    checkpoint.section_create("two", initial_data=b"22")
    iteration = checkpoint.section_iteration_initialize(ANY)
    first = iteration.next()
    copy = tuple(first)
    iteration.next()
    checkpoint.section_delete(first.section_id)
    iteration.finalize()
    assert tuple(first) == copy
