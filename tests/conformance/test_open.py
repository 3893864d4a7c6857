"""CheckpointOpen: what it accepts, and what it refuses with which code (R23 to R35)."""

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
    outcome,
    refused,
)
from tests.conformance.world import World

from ckpt_client.saf import SA_TIME_MAX
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

# -- attributes


@requirement("R23")
@each_transport
def test_create_and_attributes_come_together_or_not_at_all(world: World) -> None:
    service, name = world.service(), world.name()
    for open_flags in (CREATE, CREATE | READ, CREATE | WRITE, ALL_MODES):
        with refused("INVALID_PARAM"):
            service.checkpoint_open(name, open_flags, None)
    service.checkpoint_open(name, ALL_MODES, attributes())
    for open_flags in (READ, WRITE, READ | WRITE):
        with refused("INVALID_PARAM"):
            service.checkpoint_open(name, open_flags, attributes())


@requirement("R24")
@each_transport
@pytest.mark.parametrize(
    ("checkpoint_size", "code"),
    [(0, "OK"), (1, "OK"), (999, "OK"), (1000, "OK"), (1001, "INVALID_PARAM"), (2**63 - 1, "INVALID_PARAM")],
)
def test_a_checkpoint_is_no_larger_than_all_its_sections(
    world: World, checkpoint_size: int, code: str
) -> None:
    service, name = world.service(), world.name()
    wanted = attributes(max_sections=10, max_section_size=100, checkpoint_size=checkpoint_size)
    assert outcome(lambda: service.checkpoint_open(name, ALL_MODES, wanted)) == code


@requirement("R25")
@each_transport
@pytest.mark.parametrize("flags", [0, 3, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17, 18, 20, 25, 1 | 2**31, -1])
def test_creation_flags_without_exactly_one_update_flag_are_invalid_param(world: World, flags: int) -> None:
    service, name = world.service(), world.name()
    with refused("INVALID_PARAM"):
        service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=flags))
    with refused("NOT_EXIST"):
        service.checkpoint_open(name, READ)


@requirement("R25", "R26")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_each_update_flag_makes_a_checkpoint_with_collocated_or_without(world: World, flags: int) -> None:
    checkpoint = world.open(creation_flags=flags)
    if flags in (ASYNC | COLLOCATED, WEAK | COLLOCATED):
        checkpoint.active_replica_set()
    assert checkpoint.status_get().creation_attributes.creation_flags == flags


# -- open flags


@requirement("R27")
@each_transport
@pytest.mark.parametrize("open_flags", [0, 8, 9, 12, 15, 16, 2**31, 2**32, -1])
def test_open_flags_that_are_none_are_bad_flags_before_all_else(world: World, open_flags: int) -> None:
    service = world.service()
    for wanted in (None, attributes(), attributes(creation_flags=0)):
        with refused("BAD_FLAGS"):
            service.checkpoint_open(world.name(), open_flags, wanted)


@requirement("R28")
@each_transport
def test_a_handle_of_create_alone_neither_reads_nor_writes(world: World) -> None:
    name = world.name()
    checkpoint = world.service().checkpoint_open(name, CREATE, attributes())
    for act in (
        lambda: checkpoint.read([("k", None, 0)]),
        lambda: checkpoint.write([("k", b"v", 0)]),
        lambda: checkpoint.overwrite("k", b"v"),
        lambda: checkpoint.section_create("k"),
    ):
        with refused("ACCESS"):
            act()
    world.service("b").checkpoint_open(name, READ)
    checkpoint.close()


@requirement("R28")
def test_at_b_01_a_handle_of_create_alone_may_ask_for_the_status(world: World) -> None:
    service = world.service(version=("B", 1, 1))
    checkpoint = service.checkpoint_open(world.name(), CREATE, attributes())
    assert checkpoint.status_get().creation_attributes == attributes()


# -- names that are there, and names that are not


@requirement("R29")
@each_transport
@pytest.mark.parametrize("open_flags", [READ, WRITE, READ | WRITE])
def test_an_unknown_name_without_create_is_not_exist(world: World, open_flags: int) -> None:
    with refused("NOT_EXIST"):
        world.service().checkpoint_open(world.name(), open_flags)


@requirement("R30")
@each_transport
@pytest.mark.parametrize(
    "changed",
    [
        {"creation_flags": ASYNC},
        {"creation_flags": SYNC | COLLOCATED},
        {"checkpoint_size": 999},
        {"max_sections": 11, "checkpoint_size": 1000},
        {"max_section_size": 101, "checkpoint_size": 1000},
        {"max_section_id_size": 17},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_known_name_with_other_attributes_is_exist_and_nothing_is_opened(
    world: World, changed: dict[str, int]
) -> None:
    checkpoint = world.open("a")
    for node in ("a", "b"):
        with refused("EXIST"):
            world.open(node, checkpoint.name, **changed)
    found = world.described(checkpoint.name)
    assert found is not None
    assert found.opens == 1
    assert checkpoint.status_get().creation_attributes == attributes()


@requirement("R31")
@each_transport
def test_another_retention_duration_opens_and_changes_nothing(world: World) -> None:
    checkpoint = world.open("a", retention_duration=60 * SECOND_NS)
    other = world.open("b", checkpoint.name, retention_duration=0)
    for opened in (checkpoint, other):
        assert opened.status_get().creation_attributes.retention_duration == 60 * SECOND_NS
    checkpoint.retention_duration_set(90 * SECOND_NS)
    third = world.open("c", checkpoint.name, retention_duration=5)
    assert third.status_get().creation_attributes.retention_duration == 90 * SECOND_NS


@requirement("R31")
def test_at_b_01_another_retention_duration_is_exist(world: World) -> None:
    service, name = world.service(version=("B", 1, 1)), world.name()
    service.checkpoint_open(name, ALL_MODES, attributes())
    with refused("EXIST"):
        service.checkpoint_open(name, ALL_MODES, attributes(retention_duration=SECOND_NS))


@requirement("R32")
@each_transport
def test_a_known_name_with_the_same_attributes_is_opened_with_its_contents(world: World) -> None:
    checkpoint = world.open("a")
    checkpoint.section_create("k", initial_data=b"v")
    for node in world.nodes:
        assert world.open(node, checkpoint.name).read([("k", None, 0)]) == [b"v"]


# -- what a name may be


@requirement("R33")
@each_transport
@pytest.mark.parametrize("name", [b"", b"x", b"safCkpt", b"safckpt=x", b"safApp=safCkpt=x", b" safCkpt=x"])
def test_a_name_that_does_not_begin_with_safckpt_is_invalid_param(world: World, name: bytes) -> None:
    service = world.service()
    for open_flags, wanted in ((ALL_MODES, attributes()), (READ, None)):
        with refused("INVALID_PARAM"):
            service.checkpoint_open(name, open_flags, wanted)


@requirement("R33")
@each_transport
def test_at_b_01_any_name_is_a_name_but_none(world: World) -> None:
    service = world.service(version=("B", 1, 1))
    for stem in (b"plain-", b"safckpt=", "größe ".encode()):
        service.checkpoint_open(stem + world.name(), ALL_MODES, attributes())
    with refused("INVALID_PARAM"):
        service.checkpoint_open(b"", ALL_MODES, attributes())


@requirement("R33")
@each_transport
@pytest.mark.parametrize("version", [("B", 2, 2), ("B", 1, 1)])
def test_unlink_has_no_rule_for_the_beginning_of_names(world: World, version: tuple[str, int, int]) -> None:
    service, plain = world.service(version=version), b"plain-" + world.name()
    with refused("NOT_EXIST"):
        service.checkpoint_unlink(plain)
    world.service(version=("B", 1, 1)).checkpoint_open(plain, ALL_MODES, attributes())
    service.checkpoint_unlink(plain)


@requirement("R33")
@pytest.mark.parametrize("name", [b"safCkpt=\xff", b"safCkpt=a\0b"])
def test_a_name_that_is_no_text_is_invalid_param(world: World, name: bytes) -> None:
    """The deviation."""
    service = world.service()
    with refused("INVALID_PARAM"):
        service.checkpoint_open(name, ALL_MODES, attributes())
    with refused("INVALID_PARAM"):
        service.checkpoint_unlink(name)


@requirement("R34")
@each_transport
@pytest.mark.parametrize(
    ("length", "opens", "unlinks"), [(257, "OK", "OK"), (2048, "OK", "OK"), (2049, *["TOO_BIG"] * 2)]
)
def test_a_name_above_2048_bytes_is_too_big(world: World, length: int, opens: str, unlinks: str) -> None:
    service = world.service()
    name = world.name().ljust(length, b"x")
    assert outcome(lambda: service.checkpoint_open(name, ALL_MODES, attributes())) == opens
    assert outcome(lambda: service.checkpoint_unlink(name)) == unlinks


# -- time-outs


@requirement("R35")
@each_transport
@pytest.mark.parametrize(
    ("timeout_ns", "code"),
    [(-1, "INVALID_PARAM"), (-(2**63), "INVALID_PARAM"), (0, "OK"), (SECOND_NS, "OK"), (SA_TIME_MAX, "OK")],
)
def test_a_time_out_is_not_negative_and_may_be_none(world: World, timeout_ns: int, code: str) -> None:
    service, name = world.service(), world.name()
    assert (
        outcome(lambda: service.checkpoint_open(name, ALL_MODES, attributes(), timeout_ns=timeout_ns)) == code
    )


@requirement("R35")
def test_an_open_that_is_not_answered_in_time_is_timeout(world: World) -> None:
    service, name = world.service(), world.name()
    service.checkpoint_open(world.name(), ALL_MODES, attributes())
    for node in world.nodes:
        world.pause(node)
    began_ns = world.now_ns()
    with refused("TIMEOUT"):
        service.checkpoint_open(name, ALL_MODES, attributes(), timeout_ns=200 * MILLISECOND_NS)
    lasted_ns = world.now_ns() - began_ns
    for node in world.nodes:
        world.resume(node)
    late_ns = lasted_ns - 200 * MILLISECOND_NS
    assert 0 <= late_ns < (2 if world.virtual else 1000) * MILLISECOND_NS
    world.until(lambda: world.open("a", name).status_get())
