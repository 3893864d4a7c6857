"""Replicas: where they are, which one is active, what becomes of a checkpoint without them (R44 to R51)."""

import pytest
from tests.conformance.daemon_world import DaemonWorld
from tests.conformance.marks import DAEMONS, VIRTUAL, on, requirement, settings
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
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

from ckpt_protocol.constants import SA_TIME_END

ASYNC_COLLOCATED = (ASYNC | COLLOCATED, WEAK | COLLOCATED)
ALL_COLLOCATED = (SYNC | COLLOCATED, *ASYNC_COLLOCATED)
GO_ON = (SYNC, ASYNC, WEAK, SYNC | COLLOCATED)
"""The kinds that a lost node does not stop."""


# -- one at a node, in memory


@requirement("R44")
@pytest.mark.parametrize("flags", [ASYNC, SYNC | COLLOCATED])
def test_a_node_has_one_replica_however_many_have_the_checkpoint_open_there(world: World, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    others = [world.open("a", checkpoint.name, READ | WRITE) for _ in range(3)]
    assert set(world.replicas(checkpoint.name)) == ({"a"} if flags & COLLOCATED else {"a", "b", "c"})
    if isinstance(world, VirtualWorld):
        held = [replica.name for replica in world.cluster.node("a").replicas.values()]
        assert held.count(checkpoint.name) == 1
    for number, other in enumerate(others):
        other.section_create(f"k{number}", initial_data=b"v")
    assert checkpoint.status_get().number_of_sections == 3


@requirement("R44")
@on(DAEMONS, why="a daemon's files are looked at")
def test_what_a_checkpoint_holds_is_in_no_file(world: DaemonWorld) -> None:
    content = b"nowhere but in memory"
    checkpoint = world.open("a")
    checkpoint.section_create("k", initial_data=content)
    world.wait_in_sync(checkpoint.name)
    files = [path for path in world.cluster.directory.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path.name for path in files if content in path.read_bytes()] == []


@requirement("R44", "R51")
@on(VIRTUAL, why="all nodes end at once")
@pytest.mark.parametrize("flags", [SYNC, ASYNC])
def test_when_all_nodes_end_nothing_is_left(world: VirtualWorld, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags, retention_duration=SA_TIME_END)
    checkpoint.section_create("k", initial_data=b"v")
    world.wait_in_sync(checkpoint.name)
    for node in world.nodes:
        world.kill(node)
    for node in world.nodes:
        world.cluster.restart(node)
    world.until(lambda: all(world.cluster.serving(node) for node in world.nodes), 30)
    with refused("NOT_EXIST"):
        world.service("b").checkpoint_open(checkpoint.name, READ)
    fresh = world.open("b", checkpoint.name, creation_flags=flags, max_sections=3)
    assert fresh.status_get().number_of_sections == 0


# -- collocated


@requirement("R45")
@pytest.mark.parametrize("flags", ALL_COLLOCATED)
def test_a_collocated_checkpoint_has_replicas_where_it_was_opened_and_nowhere_else(
    world: World, flags: int
) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    world.pass_time(0.1)
    assert set(world.replicas(checkpoint.name)) == {"a"}
    for _ in range(2):
        world.open("c", checkpoint.name, READ)
        world.pass_time(0.05)
        assert set(world.replicas(checkpoint.name)) == {"a", "c"}
    world.open("b", checkpoint.name, WRITE)
    assert set(world.replicas(checkpoint.name)) == {"a", "b", "c"}


@requirement("R45")
def test_no_node_makes_a_collocated_replica_instead_of_a_lost_one(world: World) -> None:
    """Redundancy is the application's to see to."""
    checkpoint = world.open("a", creation_flags=SYNC | COLLOCATED)
    world.open("c", checkpoint.name, READ).close()
    assert set(world.replicas(checkpoint.name)) == {"a", "c"}
    world.kill("c")
    world.until(lambda: world.replicas(checkpoint.name) == {"a": True})
    world.pass_time(0.3)
    world.restart("c")
    world.pass_time(0.2)
    assert world.replicas(checkpoint.name) == {"a": True}


@requirement("R45")
@pytest.mark.parametrize("kept_at", ["a", "b"])
def test_a_process_that_continues_at_another_node_has_its_replica_there(world: World, kept_at: str) -> None:
    """The deviation."""
    checkpoint = world.open(kept_at, creation_flags=SYNC | COLLOCATED)
    mover = world.open("c", checkpoint.name, READ | WRITE)
    world.kill("c")
    mover.section_create("k", initial_data=b"v")
    gone_to = mover.service.inner.connection.node_id
    assert gone_to in ("a", "b")
    world.until(lambda: world.replicas(checkpoint.name) == {kept_at: True, gone_to: True})


# -- not collocated


@requirement("R46")
@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
def test_a_checkpoint_that_is_not_collocated_has_replicas_where_no_program_opened_it(
    world: World, flags: int
) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    assert set(world.replicas(checkpoint.name)) == {"a", "b", "c"}
    world.wait_in_sync(checkpoint.name, "a", "b", "c")


@requirement("R46")
def test_a_lost_replica_is_made_again_when_its_node_is_back(world: World) -> None:
    checkpoint = world.open("a")
    checkpoint.section_create("k", initial_data=b"v")
    world.kill("b")
    world.until(lambda: set(world.replicas(checkpoint.name)) == {"a", "c"})
    world.restart("b")
    world.wait_in_sync(checkpoint.name, "a", "b", "c")
    assert world.open("b", checkpoint.name, READ).read([("k", None, 0)]) == [b"v"]


@requirement("R46")
@on(VIRTUAL, why="there are to be more nodes than replicas")
@settings(replicas=2)
@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
def test_a_lost_replica_is_made_on_another_node(world: VirtualWorld, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    checkpoint.section_create("k", initial_data=b"v")
    (other,) = set(world.replicas(checkpoint.name)) - {"a"}
    (third,) = {"b", "c"} - {other}
    world.kill(other)
    world.until(lambda: world.replicas(checkpoint.name) == {"a": True, third: True})
    assert world.contents(third, checkpoint.name) == {b"k": b"v"}


# -- which one is active


@requirement("R47")
@pytest.mark.parametrize("flags", [SYNC, SYNC | COLLOCATED])
def test_a_sync_checkpoint_needs_no_active_replica_and_is_given_none(world: World, flags: int) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    other = world.open("b", checkpoint.name, READ | WRITE)
    other.section_create("k", initial_data=b"v")
    assert checkpoint.read([("k", None, 0)]) == [b"v"]
    for opened in (checkpoint, other):
        with refused("BAD_OPERATION"):
            opened.active_replica_set()


@requirement("R47")
@pytest.mark.parametrize("flags", [ASYNC, WEAK])
def test_an_async_checkpoint_has_an_active_replica_from_the_beginning(world: World, flags: int) -> None:
    checkpoint = world.open("c", creation_flags=flags)
    checkpoint.section_create("k", initial_data=b"v")
    for node in world.nodes:
        assert world.open(node, checkpoint.name, READ).read([("k", None, 0)]) == [b"v"]
    assert world.active_node(checkpoint.name) in world.replicas(checkpoint.name)


@requirement("R47")
@pytest.mark.parametrize("flags", ASYNC_COLLOCATED)
def test_an_async_collocated_checkpoint_has_no_active_replica_until_it_is_set(
    world: World, flags: int
) -> None:
    checkpoint = world.open("a", creation_flags=flags)
    for node in ("b", "a", "c"):
        opened = world.open(node, checkpoint.name, READ | WRITE)
        with refused("NOT_EXIST"):
            opened.section_create("k")
    world.pass_time(0.2)
    assert world.active_node(checkpoint.name) is None
    opened.active_replica_set()
    assert world.active_node(checkpoint.name) == "c"
    checkpoint.section_create("k")


@requirement("R47")
def test_of_several_replicas_the_one_that_was_set_last_is_the_active_one(world: World) -> None:
    name = world.name()
    opened = {node: world.open(node, name, creation_flags=ASYNC | COLLOCATED) for node in world.nodes}
    for node in ("a", "c", "b", "a"):
        opened[node].active_replica_set()
        actives = [lambda other=other: world.described(name, other).active for other in world.nodes]
        world.until(lambda actives=actives, node=node: [active() for active in actives] == [node] * 3)


# -- lost nodes


@requirement("R50")
@pytest.mark.parametrize("lost", ["a", "c"])
def test_all_but_async_collocated_checkpoints_continue_when_the_active_ones_node_is_lost(
    world: World, lost: str
) -> None:
    """A caller waits for a moment; nobody has to do anything. Node a also coordinates."""
    survivors = []
    for flags in GO_ON:
        creator = world.open(lost, creation_flags=flags)
        survivors.append(world.open("b", creator.name, READ | WRITE))
        creator.section_create("k", initial_data=b"before")
        if not flags & SYNC:
            creator.synchronize()
            assert world.active_node(creator.name) == lost
    for checkpoint in survivors:
        world.wait_in_sync(checkpoint.name, "b", lost)
    world.kill(lost)
    for checkpoint in survivors:
        assert checkpoint.read([("k", None, 0)]) == [b"before"]
        checkpoint.overwrite("k", b"after")
        checkpoint.section_create("new")
        assert checkpoint.read([("k", None, 0)]) == [b"after"]


@requirement("R50")
@pytest.mark.parametrize("flags", GO_ON)
def test_a_process_at_the_lost_node_continues_too(world: World, flags: int) -> None:
    checkpoint = world.open("c", creation_flags=flags)
    world.open("b", checkpoint.name, READ)
    checkpoint.section_create("k", initial_data=b"before")
    if not flags & SYNC:
        checkpoint.synchronize()
    world.wait_in_sync(checkpoint.name, "b", "c")
    world.kill("c")
    assert checkpoint.read([("k", None, 0)]) == [b"before"]
    checkpoint.overwrite("k", b"after")
    assert checkpoint.read([("k", None, 0)]) == [b"after"]


@requirement("R51")
@pytest.mark.parametrize("flags", ALL_COLLOCATED)
@pytest.mark.parametrize("closed", [False, True])
def test_with_its_last_replica_a_checkpoint_is_gone_whatever_its_retention(
    world: World, flags: int, closed: bool
) -> None:
    service, name = world.service("c"), world.name()
    wanted = attributes(creation_flags=flags, retention_duration=SA_TIME_END)
    checkpoint = service.checkpoint_open(name, ALL_MODES, wanted)
    if not flags & SYNC:
        checkpoint.active_replica_set()
    checkpoint.section_create("k", initial_data=b"v")
    if closed:
        checkpoint.close()
    world.kill("c")
    elsewhere = world.service("a")
    world.until(lambda: outcome(lambda: elsewhere.checkpoint_open(name, READ)) == "NOT_EXIST")
    if not closed:
        with refused("BAD_HANDLE"):
            checkpoint.read([("k", None, 0)])
    fresh = world.open("a", name, max_sections=3)
    assert fresh.status_get().number_of_sections == 0
