"""The active replica of async collocated checkpoints: with none, set, moved, lost (R48, R49, R78 to R82)."""

from collections.abc import Callable

import pytest
from tests.conformance.concurrent_calls import Writing, begin
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    CREATE,
    KINDS,
    READ,
    WEAK,
    WRITE,
    Heard,
    attributes,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import SA_CKPT_SECTIONS_ANY, Checkpoint, DispatchFlags
from ckptd.core.settings import SECOND_NS

ASYNC_COLLOCATED = (ASYNC | COLLOCATED, WEAK | COLLOCATED)
K = [("k", None, 0)]

NEED_AN_ACTIVE_REPLICA: dict[str, Callable[[Checkpoint], object]] = {
    "write": lambda checkpoint: checkpoint.write([("k", b"w", 0)]),
    "overwrite": lambda checkpoint: checkpoint.overwrite("k", b"w"),
    "read": lambda checkpoint: checkpoint.read(K),
    "section_create": lambda checkpoint: checkpoint.section_create("new"),
    "section_delete": lambda checkpoint: checkpoint.section_delete("k"),
    "section_expiration_time_set": lambda checkpoint: checkpoint.section_expiration_time_set("k", 2**62),
    "section_iteration": lambda checkpoint: list(checkpoint.section_iteration()),
    "section_iteration_initialize": lambda checkpoint: checkpoint.section_iteration_initialize(5),
    "status_get": lambda checkpoint: checkpoint.status_get(),
    "synchronize": lambda checkpoint: checkpoint.synchronize(),
    "synchronize_async": lambda checkpoint: checkpoint.synchronize_async(1),
}
NEED_NONE: dict[str, Callable[[Checkpoint], object]] = {
    "open": lambda checkpoint: checkpoint.service.checkpoint_open(checkpoint.name, READ),
    "retention_duration_set": lambda checkpoint: checkpoint.retention_duration_set(SECOND_NS),
    "unlink": lambda checkpoint: checkpoint.service.checkpoint_unlink(checkpoint.name),
    "active_replica_set": lambda checkpoint: checkpoint.active_replica_set(),
    "close": lambda checkpoint: checkpoint.close(),
}


def opened(world: World, flags: int, *nodes: str) -> list[Checkpoint]:
    """A new checkpoint, opened at these nodes in this order, with no active replica."""
    name = world.name()
    return [world.open(node, name, creation_flags=flags) for node in nodes]


def lose_the_active_replica(world: World, flags: int) -> Checkpoint:
    """A checkpoint opened at a, with a section "k" that is at a's replica too; the active one was at c."""
    here, there = opened(world, flags, "a", "c")
    there.active_replica_set()
    here.section_create("k", initial_data=b"v")
    here.synchronize()
    there.close()
    world.kill("c")
    world.until(lambda: world.described(here.name) and world.active_node(here.name) is None)
    return here


# -- without one


@requirement("R48")
@each_transport
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_without_an_active_replica_what_needs_one_is_not_exist(world: World, flags: int) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=flags))
    for call, act in NEED_AN_ACTIVE_REPLICA.items():
        assert (call, outcome(lambda act=act: act(checkpoint))) == (call, "NOT_EXIST")
    world.pass_time(0.05)
    service.dispatch(DispatchFlags.ALL)
    assert heard.synchronized == []


@requirement("R48")
@pytest.mark.parametrize("call", NEED_NONE)
def test_without_an_active_replica_all_else_works(world: World, call: str) -> None:
    (checkpoint,) = opened(world, ASYNC | COLLOCATED, "a")
    NEED_NONE[call](checkpoint)


@requirement("R48")
def test_a_missing_active_replica_is_no_fault_of_any_element(world: World) -> None:
    (checkpoint,) = opened(world, ASYNC | COLLOCATED, "a")
    with refused("NOT_EXIST") as caught:
        checkpoint.write([("k", b"v", 0), ("l", b"v", 0)])
    assert caught.value.erroneous_vector_index is None
    with refused("NOT_EXIST") as caught:
        checkpoint.read([("k", None, 0), ("l", None, 0)])
    assert caught.value.erroneous_vector_index is None


@requirement("R48", "R49")
def test_an_iteration_whose_active_replica_is_lost_is_not_exist_and_can_be_finalized(world: World) -> None:
    """The deviation: what is finalized needs nobody."""
    here, there = opened(world, ASYNC | COLLOCATED, "a", "c")
    there.active_replica_set()
    here.section_create("k")
    here.synchronize()
    iteration = here.section_iteration_initialize(SA_CKPT_SECTIONS_ANY)
    there.close()
    world.kill("c")
    with refused("NOT_EXIST"):
        iteration.next()
    iteration.finalize()
    with refused("BAD_HANDLE"):
        iteration.finalize()


# -- lost


@requirement("R49", "R48")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_a_lost_active_replica_is_followed_by_none_until_one_is_set(world: World, flags: int) -> None:
    checkpoint = lose_the_active_replica(world, flags)
    for call, act in NEED_AN_ACTIVE_REPLICA.items():
        if call != "synchronize_async":  # (It lacks a callback, which is looked at first.)
            assert (call, outcome(lambda act=act: act(checkpoint))) == (call, "NOT_EXIST")
    world.pass_time(0.3)
    assert world.active_node(checkpoint.name) is None
    world.restart("c")
    world.open("c", checkpoint.name, READ)
    assert world.active_node(checkpoint.name) is None
    with refused("NOT_EXIST"):
        checkpoint.read(K)
    checkpoint.active_replica_set()
    assert world.active_node(checkpoint.name) == "a"
    assert checkpoint.read(K) == [b"v"]


@requirement("R49")
def test_an_active_replica_that_leaves_in_good_order_is_followed_by_none(world: World) -> None:
    here, there = opened(world, ASYNC | COLLOCATED, "a", "c")
    there.active_replica_set()
    here.section_create("k", initial_data=b"v")
    there.close()
    world.leave("c")
    with refused("NOT_EXIST"):
        here.read(K)
    assert world.active_node(here.name) is None
    here.active_replica_set()
    assert here.read(K) == [b"v"]


# -- who may set it


@requirement("R78")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_an_active_replica_is_set_of_async_collocated_checkpoints_alone(world: World, flags: int) -> None:
    checkpoint = world.open(creation_flags=flags)
    code = "OK" if flags in ASYNC_COLLOCATED else "BAD_OPERATION"
    assert outcome(checkpoint.active_replica_set) == code


@requirement("R79")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
@pytest.mark.parametrize("open_flags", [READ, CREATE, CREATE | READ])
def test_a_handle_without_write_may_not_set_the_active_replica(
    world: World, flags: int, open_flags: int
) -> None:
    """ACCESS, also where it would be BAD_OPERATION."""
    name = world.name()
    world.open("a", name, creation_flags=flags)
    checkpoint = world.open("a", name, open_flags, creation_flags=flags)
    with refused("ACCESS"):
        checkpoint.active_replica_set()
    if flags in ASYNC_COLLOCATED:
        assert world.active_node(name) is None


@requirement("R79")
def test_a_handle_with_only_write_may_set_the_active_replica(world: World) -> None:
    (checkpoint,) = opened(world, ASYNC | COLLOCATED, "a")
    world.open("b", checkpoint.name, WRITE).active_replica_set()
    assert world.active_node(checkpoint.name) == "b"


# -- moved


@requirement("R80")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_the_new_active_replica_has_all_that_the_former_had(world: World, flags: int) -> None:
    here, there = opened(world, flags, "c", "b")
    here.active_replica_set()
    for number in range(10):
        here.section_create(f"k{number}", initial_data=b"%d" % number)
    here.section_delete("k9")
    there.active_replica_set()
    if isinstance(world, VirtualWorld):
        assert world.contents("b", here.name) == {b"k%d" % number: b"%d" % number for number in range(9)}
    for checkpoint in (there, here):
        assert checkpoint.read([(f"k{n}", None, 0) for n in range(9)]) == [b"%d" % n for n in range(9)]
        assert checkpoint.status_get().number_of_sections == 9


@requirement("R80")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_writers_and_readers_do_not_notice_that_the_active_replica_moves(world: World, flags: int) -> None:
    at = dict(zip("abc", opened(world, flags, "a", "b", "c"), strict=True))
    at["a"].active_replica_set()
    at["a"].section_create("k", initial_data=b"0")
    writing = Writing(world.open("c", at["a"].name, WRITE), "k")
    for node in "bcabca":
        at[node].active_replica_set()
        for reader in at.values():
            done = writing.done
            assert int(reader.read(K)[0]) >= done
        world.pass_time(0.01)
    last = writing.stop(world)
    assert last > 20
    assert at["b"].read(K) == [b"%d" % last]


@requirement("R80")
def test_with_no_former_one_the_local_replica_is_active_with_what_it_has(world: World) -> None:
    checkpoint = lose_the_active_replica(world, ASYNC | COLLOCATED)
    checkpoint.active_replica_set()
    assert checkpoint.read(K) == [b"v"]
    checkpoint.overwrite("k", b"w")
    assert checkpoint.read(K) == [b"w"]


# -- kept


@requirement("R81")
def test_an_active_replica_stays_so_until_another_one_is_set(world: World) -> None:
    here, there, third = opened(world, ASYNC | COLLOCATED, "a", "b", "c")
    there.active_replica_set()
    for _ in range(2):
        there.active_replica_set()  # Again is OK.
    there.close()
    world.open("a", here.name, READ | WRITE).close()
    third.close()
    world.kill("c")
    world.pass_time(0.3)
    here.section_create("k", initial_data=b"v")
    assert world.active_node(here.name) == "b"
    here.active_replica_set()
    assert world.active_node(here.name) == "a"
    assert here.read(K) == [b"v"]


@requirement("R81")
def test_it_stays_through_a_time_in_which_no_handle_is_open(world: World) -> None:
    here, there = opened(world, ASYNC | COLLOCATED, "a", "b")
    there.active_replica_set()
    here.close()
    there.close()
    again = world.open("a", here.name, READ | WRITE)
    again.section_create("k")
    assert world.active_node(here.name) == "b"


@requirement("R81")
def test_with_the_checkpoint_its_active_replica_is_over(world: World) -> None:
    name = world.name()
    first = world.open("a", name, creation_flags=ASYNC | COLLOCATED, retention_duration=0)
    first.active_replica_set()
    first.close()
    second = world.open("a", name, creation_flags=ASYNC | COLLOCATED)
    with refused("NOT_EXIST"):
        second.status_get()


# -- behind


@requirement("R82", "R80")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_a_replica_that_lags_catches_up_before_it_is_active(world: VirtualWorld, flags: int) -> None:
    """Node a coordinates: what it says of the new active replica comes through."""
    here, there = opened(world, flags, "c", "b")
    here.active_replica_set()
    world.wait_in_sync(here.name, "c", "b")
    world.cluster.hold("c", "b")
    here.section_create("k", initial_data=b"v")
    setting = begin(there, "active_replica_set")
    world.pass_time(0.2)
    assert setting.code == ""
    assert world.contents("b", here.name) == {}
    world.cluster.release("c", "b")
    setting.end(world)
    assert world.contents("b", here.name) == {b"k": b"v"}
    assert there.read(K) == [b"v"]


@requirement("R82", "R149")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_a_replica_whose_node_was_away_has_what_it_missed_when_it_is_set(world: World, flags: int) -> None:
    here, there = opened(world, flags, "a", "c")
    there.active_replica_set()
    there.section_create("k", initial_data=b"old")
    here.active_replica_set()
    there.close()
    world.kill("c")
    here.overwrite("k", b"new")
    here.section_create("l")
    world.restart("c")
    back = world.open("c", here.name, READ | WRITE)
    back.active_replica_set()
    assert world.active_node(here.name) == "c"
    assert back.read(K) == [b"new"]
    assert back.status_get().number_of_sections == 2


@requirement("R82")
@pytest.mark.parametrize("at", ["b", "c"])
def test_an_empty_replica_is_filled_by_those_that_are_left_before_it_is_active(world: World, at: str) -> None:
    """At b a replica was never filled; c comes back without what it had."""
    checkpoint = lose_the_active_replica(world, ASYNC | COLLOCATED)
    if at == "c":
        world.restart("c")
    fresh = world.open(at, checkpoint.name, READ | WRITE)
    fresh.active_replica_set()
    assert world.active_node(checkpoint.name) == at
    assert fresh.read(K) == [b"v"]


@requirement("R82")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_of_those_that_are_left_the_one_that_has_most_counts(world: VirtualWorld, flags: int) -> None:
    """What was acknowledged has come to b alone; then the active replica is lost, and c is set."""
    here, b, c = opened(world, flags, "a", "b", "c")
    here.active_replica_set()
    world.wait_in_sync(here.name, "a", "b", "c")
    world.cluster.hold("a", "c")
    here.section_create("k", initial_data=b"v")
    world.until(lambda: world.contents("b", here.name) == {b"k": b"v"})
    assert world.contents("c", here.name) == {}
    here.close()
    world.kill("a")
    with refused("NOT_EXIST"):
        b.status_get()
    c.active_replica_set()
    for checkpoint in (b, c):
        assert checkpoint.read(K) == [b"v"]
