"""Nodes that fail and come back: what is delayed, what is kept, who goes on (R145 to R149)."""

import pytest
from tests.conformance.concurrent_calls import begin
from tests.conformance.marks import VIRTUAL, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    READ,
    SYNC,
    WEAK,
    attributes,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import Version, World

from ckpt_client.saf import Checkpoint
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

SPREAD = (SYNC, ASYNC, WEAK)
SHORT_NS = 2 * SECOND_NS
"""A lost node delays nothing for as long as this."""


def opened(world: World, node: str = "a", kind: int = SYNC, **changed: int) -> Checkpoint:
    """A checkpoint with replicas on all nodes and the section "k"; the active replica is at this node."""
    checkpoint = world.open(node, creation_flags=kind, **changed)
    if kind & COLLOCATED:
        for other in world.nodes:
            world.open(other, checkpoint.name, ALL_MODES, creation_flags=kind, **changed)
        if kind & (ASYNC | WEAK):
            checkpoint.active_replica_set()
    checkpoint.section_create("k", initial_data=b"v")
    world.wait_in_sync(checkpoint.name)
    if not kind & SYNC:
        checkpoint.synchronize()
    return checkpoint


def lose(world: VirtualWorld, node: str, how: str) -> None:
    """Lose a node: its process ends, its machine is dead, or it stands still."""
    match how:
        case "process":
            world.kill(node)
        case "machine":
            world.cluster.kill(node, silent=True)
        case _:
            world.pause(node)


def opens_of(world: World, name: bytes) -> int:
    """How often a checkpoint is open in the whole cluster."""
    found = world.described(name)
    assert found is not None
    return found.opens


# -- a replica that is not active


@requirement("R145")
@on(VIRTUAL, why="it is about the time that it takes")
@pytest.mark.parametrize("kind", [SYNC, SYNC | COLLOCATED])
@pytest.mark.parametrize("how", ["process", "machine", "still"])
def test_a_pending_write_ends_when_the_member_that_it_waits_for_is_removed(
    world: VirtualWorld, kind: int, how: str
) -> None:
    checkpoint = opened(world, kind=kind)
    world.cluster.hold("a", "c")
    writing = begin(checkpoint, "overwrite", "k", b"new")
    world.pass_time(0.005)
    assert not writing.code
    began_ns = world.now_ns()
    lose(world, "c", how)
    writing.end(world)
    assert world.now_ns() - began_ns < SHORT_NS
    assert world.contents("b", checkpoint.name)[b"k"] == b"new"


@requirement("R145")
@on(VIRTUAL, why="it is about the time that it takes")
@pytest.mark.parametrize("kind", [*SPREAD, *(kind | COLLOCATED for kind in SPREAD)])
@pytest.mark.parametrize("how", ["process", "machine", "still"])
def test_writes_continue_after_the_loss_and_wait_for_the_dead_replica_no_more(
    world: VirtualWorld, kind: int, how: str
) -> None:
    checkpoint = opened(world, kind=kind)
    lose(world, "c", how)
    began_ns = world.now_ns()
    checkpoint.overwrite("k", b"first")
    first_ns = world.now_ns() - began_ns
    assert first_ns < (SHORT_NS if kind & SYNC else 10 * MILLISECOND_NS)
    world.until(lambda: "c" not in world.replicas(checkpoint.name))
    for number in range(10):
        began_ns = world.now_ns()
        checkpoint.overwrite("k", b"%d" % number)
        assert world.now_ns() - began_ns < 10 * MILLISECOND_NS
    assert checkpoint.read([("k", None, 0)]) == [b"9"]


@requirement("R145")
@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_writes_continue_when_a_replica_is_lost(world: World, kind: int, how: str) -> None:
    checkpoint = opened(world, kind=kind)
    getattr(world, how)("c")
    for number in range(20):
        checkpoint.overwrite("k", b"%d" % number)
    assert checkpoint.read([("k", None, 0)]) == [b"19"]
    if kind == SYNC:
        assert "c" not in world.replicas(checkpoint.name)


@requirement("R145", "R50")
@on(VIRTUAL, why="it is about the time that it takes")
@pytest.mark.parametrize("kind", SPREAD)
@pytest.mark.parametrize("how", ["process", "machine", "still"])
@pytest.mark.parametrize("later_ns", [0, 60_000, 120_000, 200_000])
def test_a_write_under_way_ends_soon_and_is_done_though_the_active_replica_is_lost(
    world: VirtualWorld, kind: int, how: str, later_ns: int
) -> None:
    checkpoint = opened(world, "a", kind)
    other = world.open("b", checkpoint.name, ALL_MODES, creation_flags=kind)
    writing = begin(other, "write", [("k", b"new", 1)])
    world.pass_time(later_ns / SECOND_NS)
    began_ns = world.now_ns()
    lose(world, "a", how)
    writing.end(world)
    assert world.now_ns() - began_ns < SHORT_NS
    if kind == SYNC:
        assert other.read([("k", None, 0)]) == [b"vnew"]
    else:
        assert other.read([("k", None, 0)]) in ([b"vnew"], [b"v"])


# -- what is kept


@requirement("R146", "R52")
@pytest.mark.parametrize("kind", [SYNC, SYNC | COLLOCATED])
def test_every_acknowledged_sync_update_is_there_after_the_loss(world: World, kind: int) -> None:
    checkpoint = opened(world, "a", kind, max_sections=50)
    readers = [world.open(node, checkpoint.name, READ) for node in ("b", "c")]
    for number in range(30):
        checkpoint.section_create(f"s{number}", initial_data=b"%d" % number)
    checkpoint.section_delete("k")
    world.kill("a")
    for reader in readers:
        assert reader.read([(f"s{number}", None, 0) for number in range(30)]) == [
            b"%d" % number for number in range(30)
        ]
        with refused("NOT_EXIST", index=0):
            reader.read([("k", None, 0)])


@requirement("R146", "R52")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("behind", ["b", "c"])
def test_no_sync_update_is_acknowledged_before_every_replica_has_it(world: VirtualWorld, behind: str) -> None:
    checkpoint = opened(world)
    reader = world.open("a", checkpoint.name, READ)
    world.cluster.hold("a", behind)
    writing = begin(checkpoint, "overwrite", "k", b"new")
    world.pass_time(0.3)
    assert not writing.code
    assert world.contents(behind, checkpoint.name)[b"k"] == b"v"
    assert reader.read([("k", None, 0)]) == [b"v"]
    world.cluster.release("a", behind)
    writing.end(world)
    assert world.contents(behind, checkpoint.name)[b"k"] == b"new"


@requirement("R146", "R59")
@on(VIRTUAL, why="only some of the frames arrive before a node is lost")
@pytest.mark.parametrize("kind", [ASYNC, WEAK])
@pytest.mark.parametrize("arrive", range(5))
def test_the_tail_of_async_updates_may_lack_but_there_is_no_hole(
    world: VirtualWorld, kind: int, arrive: int
) -> None:
    checkpoint = opened(world, kind=kind, max_sections=20)
    reader = world.open("b", checkpoint.name, READ)
    for node in ("b", "c"):
        world.cluster.hold("a", node)
    for number in range(10):
        checkpoint.section_create(f"s{number}")
        checkpoint.overwrite("k", b"%d" % number)
        world.pass_time(0.006)
    for node in ("b", "c"):
        for link, data in world.cluster.holds.pop(("a", node))[: 3 * arrive]:
            world.cluster.network.arrive(link, "a", node, data)
    world.kill("a")
    last = reader.read([("k", None, 0)])[0]
    found = {section.section_id.decode() for section in reader.section_iteration()} - {"k"}
    created = len(found)
    assert found == {f"s{number}" for number in range(created)}
    assert last in (
        b"v" if created < 2 else b"%d" % (created - 2),
        b"%d" % (created - 1) if created else b"v",
    )
    assert bool(created) == bool(arrive)


@requirement("R146", "R50")
@pytest.mark.parametrize("kind", SPREAD)
def test_every_node_is_lost_in_turn_and_all_is_kept(world: World, kind: int) -> None:
    checkpoint = opened(world, "b", kind)
    for number, node in enumerate(world.nodes):
        checkpoint.section_create(node, initial_data=b"%d" % number)
        if kind != SYNC:
            checkpoint.synchronize()
        world.kill(node)
        checkpoint.overwrite("k", node)
        if kind != SYNC:
            checkpoint.synchronize()
        world.restart(node)
        world.wait_in_sync(checkpoint.name)
    assert checkpoint.read([(node, None, 0) for node in "abck"]) == [b"0", b"1", b"2", b"c"]


# -- processes, and the processes of a node


@requirement("R147")
@pytest.mark.parametrize("kind", [SYNC, ASYNC | COLLOCATED])
def test_the_retention_starts_when_the_last_process_dies(world: World, kind: int) -> None:
    name, retention_ns = world.name(), 400 * MILLISECOND_NS
    wanted = attributes(creation_flags=kind, retention_duration=retention_ns)
    doomed, last = world.doomed_service("a"), world.doomed_service("b")
    for service in (doomed, last):
        service.checkpoint_open(name, ALL_MODES, wanted)
    world.abandon(doomed)
    world.pass_time(0.5)
    assert opens_of(world, name) == 1
    died_ns = world.now_ns()
    world.abandon(last)
    world.until(lambda: world.described(name) is None)
    assert world.now_ns() - died_ns >= retention_ns


@requirement("R148")
@pytest.mark.parametrize("how", ["kill", "leave"])
def test_the_programs_of_a_node_that_leaves_continue_at_another(world: World, how: str) -> None:
    """The deviation."""
    checkpoint = world.open("c", retention_duration=0)
    checkpoint.section_create("k", initial_data=b"v")
    getattr(world, how)("c")
    assert checkpoint.read([("k", None, 0)]) == [b"v"]
    assert opens_of(world, checkpoint.name) == 1
    checkpoint.close()
    world.until(lambda: world.described(checkpoint.name) is None)


@requirement("R148")
@on(VIRTUAL, why="a machine is lost with all that ran there, and the grace passes")
@pytest.mark.parametrize("retention_s", [0, 5])
def test_what_the_programs_of_a_lost_machine_had_open_is_closed_after_the_grace(
    world: VirtualWorld, retention_s: int
) -> None:
    checkpoint = world.open("c", retention_duration=retention_s * SECOND_NS)
    shared = world.open("c", retention_duration=0)
    stays = world.open("a", shared.name, retention_duration=0)
    lost_ns = world.now_ns()
    for service in (checkpoint.service, shared.service):
        world.cut_off(service)
    world.cluster.kill("c", silent=True)
    world.pass_time(9)
    assert opens_of(world, checkpoint.name) == 1
    world.until(lambda: world.described(checkpoint.name) is None, 10)
    gone_s = (world.now_ns() - lost_ns) / SECOND_NS - retention_s
    assert 10 <= gone_s < 13
    assert opens_of(world, shared.name) == 1
    stays.status_get()


# -- after the return


@requirement("R149")
@pytest.mark.parametrize("version", [("B", 2, 2), ("B", 1, 1)])
def test_handles_outlive_the_loss_and_the_return_of_their_node(world: World, version: Version) -> None:
    """The deviation."""
    service = world.service("c", version)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes())
    checkpoint.section_create("k", initial_data=b"v")
    world.kill("c")
    checkpoint.overwrite("k", b"w")
    world.restart("c")
    assert checkpoint.read([("k", None, 0)]) == [b"w"]
    checkpoint.overwrite("k", b"x")
    assert world.open("c", checkpoint.name, READ).read([("k", None, 0)]) == [b"x"]


@requirement("R149")
@pytest.mark.parametrize("kind", [SYNC | COLLOCATED, ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_a_new_open_after_the_return_gets_a_fresh_replica_like_the_others(world: World, kind: int) -> None:
    checkpoint = world.open("a", creation_flags=kind)
    if not kind & SYNC:
        checkpoint.active_replica_set()
    old = world.doomed_service("c")
    old.checkpoint_open(checkpoint.name, READ)
    checkpoint.section_create("old", initial_data=b"old")
    checkpoint.section_create("k", initial_data=b"old")
    world.wait_in_sync(checkpoint.name, "a", "c")
    world.abandon(old)
    world.until(lambda: opens_of(world, checkpoint.name) == 1)
    world.kill("c")
    checkpoint.section_delete("old")
    checkpoint.overwrite("k", b"new")
    world.restart("c")
    assert "c" not in world.replicas(checkpoint.name)
    again = world.service("c").checkpoint_open(checkpoint.name, ALL_MODES, attributes(creation_flags=kind))
    assert world.replicas(checkpoint.name) == {"a": True, "c": True}
    if not kind & SYNC:
        again.active_replica_set()
    world.kill("a")
    world.until(lambda: "a" not in world.replicas(checkpoint.name))
    assert outcome(lambda: again.read([("old", None, 0)])) == "NOT_EXIST"
    assert again.read([("k", None, 0)]) == [b"new"]
