"""The end of a section's time: when it comes, who decides it, what outlives it (R100 to R102, R104)."""

import pytest
from tests.conformance.marks import VIRTUAL, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    CREATE,
    KINDS,
    READ,
    SYNC,
    WEAK,
    attributes,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_UNKNOWN
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

SPREAD = (SYNC, ASYNC, WEAK)
PASSED = {
    "a negative time": lambda now_ns: -1,
    "the least time there is": lambda now_ns: SA_TIME_UNKNOWN,
    "1970": lambda now_ns: 0,
    "the day after": lambda now_ns: 86_400 * SECOND_NS,
    "a second ago": lambda now_ns: now_ns - SECOND_NS,
}


def gone(checkpoint: Checkpoint, section_id: str = "k") -> bool:
    """Whether there is no such section for a reader."""
    return outcome(lambda: checkpoint.read([(section_id, None, 0)])) == "NOT_EXIST"


def expiration_of(checkpoint: Checkpoint, section_id: bytes = b"k") -> int:
    """The expiration that an iteration shows."""
    (found,) = (one for one in checkpoint.section_iteration() if one.section_id == section_id)
    return found.expiration_time


def replicas_at(world: World, node: str, name: bytes) -> dict[str, bool]:
    """The replicas as one node knows them."""
    found = world.described(name, node)
    return {} if found is None else found.replicas


# -- that it comes


@requirement("R100")
@pytest.mark.parametrize("kind", KINDS)
def test_a_section_goes_everywhere_at_its_time_though_all_have_it_open(world: World, kind: int) -> None:
    writer = world.open("a", creation_flags=kind)
    if kind & COLLOCATED and not kind & SYNC:
        writer.active_replica_set()
    opens = [writer, *(world.open(node, writer.name, READ) for node in ("b", "c"))]
    at_ns = world.now_ns() + 300 * MILLISECOND_NS
    writer.section_create("k", at_ns, b"v")
    writer.section_create("other", SA_TIME_END, b"w")
    for checkpoint in opens:
        assert checkpoint.read([("k", None, 0)]) == [b"v"]
    assert world.now_ns() < at_ns, "the machine was too slow for this scenario"
    for checkpoint in opens:
        world.until(lambda checkpoint=checkpoint: gone(checkpoint))
        assert world.now_ns() >= at_ns
        assert checkpoint.read([("other", None, 0)]) == [b"w"]
        status = checkpoint.status_get()
        assert (status.number_of_sections, status.memory_used) == (1, 1)


@requirement("R100")
@on(VIRTUAL, why="it is about the very moment, in the replicas themselves")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_section_is_there_until_its_time_and_in_no_replica_after_it(world: VirtualWorld, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    at_ns = world.now_ns() + 2 * SECOND_NS
    checkpoint.section_create("k", at_ns, b"v")
    world.pass_time((at_ns - world.now_ns()) / SECOND_NS - 0.001)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"k": b"v"}
    world.pass_time(0.02)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {}


@requirement("R100")
@on(VIRTUAL, why="half a minute passes")
def test_a_section_without_an_end_stays(world: World) -> None:
    checkpoint = world.open("a", retention_duration=SA_TIME_END)
    checkpoint.section_create("never", initial_data=b"v")
    checkpoint.section_create("nearly never", SA_TIME_END - 1, b"w")
    world.pass_time(30)
    assert checkpoint.read([("never", None, 0), ("nearly never", None, 0)]) == [b"v", b"w"]


@requirement("R100")
def test_a_section_expires_at_its_time_while_no_handle_is_open(world: World) -> None:
    checkpoint = world.open("a")
    at_ns = world.now_ns() + 150 * MILLISECOND_NS
    checkpoint.section_create("k", at_ns, b"v")
    checkpoint.section_create("other")
    checkpoint.close()
    found = world.described(checkpoint.name)
    assert found is not None and found.opens == 0
    world.pass_time(0.25)
    again = world.open("b", checkpoint.name, READ)
    assert [section.section_id for section in again.section_iteration()] == [b"other"]


@requirement("R100")
def test_what_expired_frees_its_place_and_its_id(world: World) -> None:
    checkpoint = world.open("b", max_sections=2)
    checkpoint.section_create("k", world.now_ns() + 200 * MILLISECOND_NS, b"old")
    checkpoint.section_create("other")
    with refused("NO_SPACE"):
        checkpoint.section_create("third")
    world.until(lambda: gone(checkpoint))
    checkpoint.section_create("k", initial_data=b"new")
    assert checkpoint.read([("k", None, 0)]) == [b"new"]
    with refused("NO_SPACE"):
        checkpoint.section_create("third")


@requirement("R100", "R101")
def test_a_new_section_does_not_go_at_the_time_of_one_that_had_its_id(world: World) -> None:
    checkpoint = world.open("a")
    at_ns = world.now_ns() + 150 * MILLISECOND_NS
    checkpoint.section_create("k", at_ns, b"old")
    checkpoint.section_create("goes then", at_ns)
    checkpoint.section_delete("k")
    checkpoint.section_create("k", initial_data=b"new")
    world.until(lambda: gone(checkpoint, "goes then"))
    world.pass_time(0.05)
    assert world.now_ns() > at_ns
    assert checkpoint.read([("k", None, 0)]) == [b"new"]
    assert expiration_of(checkpoint) == SA_TIME_END


@requirement("R100")
def test_what_is_written_to_a_section_does_not_put_its_end_off(world: World) -> None:
    checkpoint = world.open("c")
    at_ns = world.now_ns() + 300 * MILLISECOND_NS
    checkpoint.section_create("k", at_ns, b"v")
    checkpoint.overwrite("k", b"overwritten")
    checkpoint.write([("k", b"written", 3)])
    assert expiration_of(checkpoint) == at_ns
    world.until(lambda: gone(checkpoint), 3)
    assert world.now_ns() >= at_ns


# -- one decision


@requirement("R101")
@on(VIRTUAL, why="the nodes' clocks are set")
@pytest.mark.parametrize("kind", SPREAD)
def test_that_a_section_expired_is_the_active_replicas_decision_alone(world: VirtualWorld, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    readers = [world.open(node, checkpoint.name, READ) for node in world.nodes]
    checkpoint.section_create("k", world.now_ns() + 60 * SECOND_NS, b"v")
    assert world.active_node(checkpoint.name) == "a"
    for node in ("b", "c"):
        world.cluster.node(node).context.wall_offset_ns += 3600 * SECOND_NS
    world.pass_time(5)
    assert [reader.read([("k", None, 0)]) for reader in readers] == [[b"v"]] * 3
    world.pass_time(60)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {}


@requirement("R101")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_section_goes_at_its_time_though_the_active_replica_was_lost_before(
    world: World, kind: int
) -> None:
    checkpoint = world.open("b", creation_flags=kind)
    at_ns = world.now_ns() + 1500 * MILLISECOND_NS
    checkpoint.section_create("k", at_ns, b"v")
    checkpoint.section_create("other", initial_data=b"w")
    if kind != SYNC:
        checkpoint.synchronize()
    assert world.active_node(checkpoint.name) == "b"
    world.kill("b")
    reader = world.open("c", checkpoint.name, READ)
    assert reader.read([("k", None, 0)]) == [b"v"]
    assert world.now_ns() < at_ns, "the machine was too slow for this scenario"
    world.until(lambda: gone(reader), 5)
    assert world.now_ns() >= at_ns
    assert reader.read([("other", None, 0)]) == [b"w"]


@requirement("R101")
@on(VIRTUAL, why="nodes are lost one after the other, and each scenario would take seconds")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_section_goes_at_its_time_though_every_node_was_restarted_before(
    world: VirtualWorld, kind: int
) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    at_ns = world.now_ns() + 30 * SECOND_NS
    checkpoint.section_create("k", at_ns, b"v")
    world.pass_time(0.1)
    for node in world.nodes:
        world.kill(node)
        world.until(lambda node=node: node not in world.replicas(checkpoint.name))
        world.restart(node)
        world.wait_in_sync(checkpoint.name)
    assert world.now_ns() < at_ns
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"k": b"v"}
    assert expiration_of(checkpoint) == at_ns
    world.pass_time((at_ns - world.now_ns()) / SECOND_NS + 0.02)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {}


@requirement("R101")
@on(VIRTUAL, why="the network is split")
@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("apart", ["a", "c"])
def test_what_expired_does_not_come_back_with_a_node_that_was_away(
    world: VirtualWorld, kind: int, apart: str
) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    checkpoint.section_create("k", world.now_ns() + 3 * SECOND_NS, b"v")
    checkpoint.section_create("other", initial_data=b"w")
    world.pass_time(0.1)
    world.partition(apart, "abc".replace(apart, ""))
    world.pass_time(5)
    reader = world.open("b", checkpoint.name, READ)
    assert gone(reader)
    world.heal()
    world.until(lambda: all(replicas_at(world, "b", checkpoint.name).get(node) for node in world.nodes))
    world.pass_time(0.1)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"other": b"w"}
    assert gone(checkpoint)


@requirement("R101")
def test_what_expired_does_not_come_back_with_a_node_that_was_paused(world: World) -> None:
    checkpoint = world.open("a")
    checkpoint.section_create("k", world.now_ns() + 200 * MILLISECOND_NS, b"v")
    world.pause("c")
    reader = world.open("b", checkpoint.name, READ)
    world.until(lambda: gone(reader))
    world.resume("c")
    world.wait_in_sync(checkpoint.name)
    assert gone(reader)
    assert gone(world.open("c", checkpoint.name, READ))


@requirement("R101")
@on(VIRTUAL, why="it needs a node that is lost for good at the right moment")
def test_without_an_active_replica_what_is_over_goes_as_soon_as_there_is_one(world: VirtualWorld) -> None:
    checkpoint = world.open("a", creation_flags=ASYNC | COLLOCATED)
    other = world.open("b", checkpoint.name, ALL_MODES, creation_flags=ASYNC | COLLOCATED)
    checkpoint.active_replica_set()
    checkpoint.section_create("k", world.now_ns() + 2 * SECOND_NS, b"v")
    checkpoint.section_create("other", initial_data=b"w")
    checkpoint.synchronize()
    world.kill("a")
    world.pass_time(5)
    assert outcome(other.status_get) == "NOT_EXIST"
    other.active_replica_set()
    assert gone(other)
    assert other.read([("other", None, 0)]) == [b"w"]


# -- what is refused


@requirement("R102")
@pytest.mark.parametrize("kind", (SYNC, ASYNC, WEAK))
@pytest.mark.parametrize("time", PASSED)
def test_a_time_that_has_passed_is_invalid_param(world: World, kind: int, time: str) -> None:
    checkpoint = world.open("b", creation_flags=kind)
    checkpoint.section_create("k", initial_data=b"v")
    passed_ns = PASSED[time](world.now_ns())
    with refused("INVALID_PARAM"):
        checkpoint.section_create("new", passed_ns)
    with refused("INVALID_PARAM"):
        checkpoint.section_expiration_time_set("k", passed_ns)
    assert [section.section_id for section in checkpoint.section_iteration()] == [b"k"]
    assert expiration_of(checkpoint) == SA_TIME_END


@requirement("R102")
def test_a_time_that_has_passed_says_nothing_of_one_to_come(world: World) -> None:
    checkpoint = world.open("b")
    soon_ns = world.now_ns() + 3600 * SECOND_NS
    checkpoint.section_create("k", soon_ns)
    with refused("INVALID_PARAM"):
        checkpoint.section_expiration_time_set("k", 1)
    assert expiration_of(checkpoint) == soon_ns


@requirement("R104")
def test_to_set_the_expiration_is_refused_where_there_is_nothing_to_set(world: World) -> None:
    later_ns = world.now_ns() + 3600 * SECOND_NS
    checkpoint = world.open("a")
    with refused("NOT_EXIST"):
        checkpoint.section_expiration_time_set("none", later_ns)
    single = world.open("a", max_sections=1)
    for at_ns in (later_ns, SA_TIME_END):
        with refused("INVALID_PARAM"):
            single.section_expiration_time_set("", at_ns)
    assert expiration_of(single, b"") == SA_TIME_END


@requirement("R104")
@pytest.mark.parametrize("open_flags", [READ, CREATE, CREATE | READ])
def test_to_set_the_expiration_needs_write(world: World, open_flags: int) -> None:
    full = world.open("a")
    full.section_create("k")
    wanted = attributes() if open_flags & CREATE else None
    checkpoint = world.service("b").checkpoint_open(full.name, open_flags, wanted)
    with refused("ACCESS"):
        checkpoint.section_expiration_time_set("k", world.now_ns() + 3600 * SECOND_NS)
    assert expiration_of(full) == SA_TIME_END


@requirement("R104")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_section_goes_at_an_earlier_time_that_was_set(world: World, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    checkpoint.section_create("k", world.now_ns() + 3600 * SECOND_NS, b"v")
    checkpoint.section_create("forever", SA_TIME_END, b"w")
    at_ns = world.now_ns() + 250 * MILLISECOND_NS
    for section_id in ("k", "forever"):
        checkpoint.section_expiration_time_set(section_id, at_ns)
        assert expiration_of(checkpoint, section_id.encode()) == at_ns
    reader = world.open("c", checkpoint.name, READ)
    for section_id in ("k", "forever"):
        world.until(lambda section_id=section_id: gone(reader, section_id))
    assert world.now_ns() >= at_ns
    assert checkpoint.status_get().number_of_sections == 0


@requirement("R104")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_section_outlives_its_first_time_when_a_later_one_was_set(world: World, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    first_ns = world.now_ns() + 200 * MILLISECOND_NS
    later_ns = first_ns + 3600 * SECOND_NS
    for section_id in ("later", "never"):
        checkpoint.section_create(section_id, first_ns, b"v")
    checkpoint.section_expiration_time_set("later", later_ns)
    checkpoint.section_expiration_time_set("never", SA_TIME_END)
    world.pass_time(0.3)
    assert world.now_ns() > first_ns
    assert checkpoint.read([("later", None, 0), ("never", None, 0)]) == [b"v", b"v"]
    assert expiration_of(checkpoint, b"later") == later_ns
    assert expiration_of(checkpoint, b"never") == SA_TIME_END
