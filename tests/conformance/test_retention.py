"""Retention: how long a checkpoint outlives its last close (R71 to R74, R76, R77)."""

from typing import Any

import pytest
from tests.conformance import shorthand
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
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
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

K = [("k", None, 0)]


def opened_with_a_section(world: World, flags: int, node: str, **changed: Any) -> Any:
    """A checkpoint with a section "k"."""
    checkpoint = shorthand.opened(world, flags, node, **changed)
    checkpoint.section_create("k", initial_data=b"v")
    return checkpoint


# -- how it runs


@requirement("R71")
@pytest.mark.parametrize("flags", [SYNC, WEAK, ASYNC | COLLOCATED])
def test_an_open_in_time_stops_the_retention_and_it_starts_again_in_full(world: World, flags: int) -> None:
    checkpoint = opened_with_a_section(world, flags, "a", retention_duration=800 * MILLISECOND_NS)
    checkpoint.close()
    world.pass_time(0.4)
    again = world.open("b", checkpoint.name, READ)
    assert again.read(K) == [b"v"]
    world.pass_time(0.5)
    assert again.read(K) == [b"v"]
    began_ns = world.now_ns()
    again.close()
    world.pass_time(0.4)
    assert world.described(checkpoint.name) is not None
    world.until(lambda: world.described(checkpoint.name) is None)
    assert world.now_ns() - began_ns >= 800 * MILLISECOND_NS
    if world.virtual:
        assert world.now_ns() - began_ns < 850 * MILLISECOND_NS


@requirement("R71", "R77")
@pytest.mark.parametrize("lost", ["a", "c"])
def test_the_retention_continues_when_a_node_is_lost(world: World, lost: str) -> None:
    """Neither shorter nor begun anew: node a coordinates, c is where it was closed."""
    checkpoint = opened_with_a_section(world, SYNC, "c", retention_duration=SECOND_NS)
    world.wait_in_sync(checkpoint.name)
    began_ns = world.now_ns()
    checkpoint.close()
    world.pass_time(0.4)
    world.kill(lost)
    world.pass_time(0.2)
    assert world.described(checkpoint.name) is not None
    world.until(lambda: world.described(checkpoint.name) is None)
    lasted_ns = world.now_ns() - began_ns
    assert SECOND_NS <= lasted_ns < 1350 * MILLISECOND_NS


@requirement("R72")
@each_transport
@pytest.mark.parametrize("flags", KINDS)
def test_when_it_is_over_checkpoint_and_name_are_gone(world: World, flags: int) -> None:
    checkpoint = opened_with_a_section(world, flags, "a", retention_duration=50 * MILLISECOND_NS)
    checkpoint.close()
    world.pass_time(0.15)
    for node in world.nodes:
        assert world.described(checkpoint.name, node) is None
        service = world.service(node)
        with refused("NOT_EXIST"):
            service.checkpoint_open(checkpoint.name, READ)
        with refused("NOT_EXIST"):
            service.checkpoint_unlink(checkpoint.name)
    fresh = world.open("b", checkpoint.name, max_sections=3)
    assert fresh.status_get() == (attributes(max_sections=3), 0, 0)


@requirement("R72")
@on(VIRTUAL, why="the nodes' own copies are looked at")
def test_when_it_is_over_no_node_has_a_replica_any_more(world: VirtualWorld) -> None:
    checkpoint = opened_with_a_section(world, SYNC, "a", retention_duration=50 * MILLISECOND_NS)
    checkpoint.close()
    assert all(world.cluster.node(node).replicas for node in world.nodes)
    world.pass_time(0.1)
    assert not any(world.cluster.node(node).replicas for node in world.nodes)


# -- its ends


@requirement("R73")
@each_transport
@pytest.mark.parametrize("duration", [0, 1, 100, 1000, 999_999])
@pytest.mark.parametrize("flags", [SYNC, ASYNC | COLLOCATED])
def test_a_retention_of_next_to_nothing_is_over_with_the_last_close(
    world: World, duration: int, flags: int
) -> None:
    service, name = world.service("b"), world.name()
    wanted = attributes(creation_flags=flags, retention_duration=duration)
    service.checkpoint_open(name, ALL_MODES, wanted).close()
    with refused("NOT_EXIST"):
        service.checkpoint_open(name, READ)
    with refused("NOT_EXIST"):
        service.checkpoint_unlink(name)


@requirement("R73")
def test_a_retention_of_nothing_keeps_what_is_open(world: World) -> None:
    checkpoint = opened_with_a_section(world, SYNC, "a", retention_duration=0)
    other = world.open("b", checkpoint.name, READ)
    checkpoint.close()
    world.pass_time(0.1)
    assert other.read(K) == [b"v"]
    other.close()
    assert world.described(checkpoint.name, "b") is None


@requirement("R73")
@on(VIRTUAL, why="minutes pass")
def test_a_retention_without_end_never_ends(world: VirtualWorld) -> None:
    checkpoint = opened_with_a_section(world, SYNC, "a", retention_duration=SA_TIME_END)
    minute = opened_with_a_section(world, SYNC, "a", retention_duration=60 * SECOND_NS)
    checkpoint.close()
    minute.close()
    world.pass_time(59)
    assert world.described(minute.name) is not None
    world.pass_time(2)
    assert world.described(minute.name) is None
    assert world.open("c", checkpoint.name, READ).read(K) == [b"v"]


# -- RetentionDurationSet


@requirement("R74")
@each_transport
def test_a_retention_that_is_set_holds_for_all_handles(world: World) -> None:
    checkpoint = world.open("a", retention_duration=60 * SECOND_NS)
    others = [world.open(node, checkpoint.name, READ | WRITE) for node in world.nodes]
    for duration in (0, 1, SECOND_NS, SA_TIME_END):
        others[2].retention_duration_set(duration)
        for opened in (checkpoint, *others):
            assert opened.status_get().creation_attributes.retention_duration == duration


@requirement("R74", "R83")
@pytest.mark.parametrize("node", ["a", "b", "c"])
@pytest.mark.parametrize("flags", [SYNC, ASYNC])
def test_the_status_shows_the_retention_that_was_set(world: World, node: str, flags: int) -> None:
    checkpoint = world.open(node, creation_flags=flags)
    for number in range(20):
        checkpoint.retention_duration_set(number * SECOND_NS)
        assert checkpoint.status_get().creation_attributes.retention_duration == number * SECOND_NS


@requirement("R74")
def test_the_retention_that_was_set_last_is_the_one_that_counts(world: World) -> None:
    kept, gone = world.open("a", retention_duration=0), world.open("a", retention_duration=60 * SECOND_NS)
    for checkpoint, duration in ((kept, 60 * SECOND_NS), (gone, 50 * MILLISECOND_NS)):
        other = world.open("b", checkpoint.name, READ | WRITE)
        other.retention_duration_set(duration)
        other.close()
        checkpoint.close()
    world.until(lambda: world.described(gone.name) is None, 1)
    assert world.described(kept.name) is not None


@requirement("R74")
@each_transport
@pytest.mark.parametrize("duration", [-1, -(2**63), 2**63, None, 1.5])
def test_a_retention_that_is_no_duration_is_invalid_param(world: World, duration: Any) -> None:
    checkpoint = world.open(retention_duration=7 * SECOND_NS)
    with refused("INVALID_PARAM"):
        checkpoint.retention_duration_set(duration)
    assert checkpoint.status_get().creation_attributes.retention_duration == 7 * SECOND_NS


@requirement("R76")
@each_transport
@pytest.mark.parametrize(
    ("open_flags", "code"),
    [(READ, "ACCESS"), (CREATE, "ACCESS"), (CREATE | READ, "ACCESS"), (WRITE, "OK"), (READ | WRITE, "OK")],
)
def test_the_retention_is_set_by_handles_with_write(world: World, open_flags: int, code: str) -> None:
    name = world.name()
    full = world.open("a", name, retention_duration=60 * SECOND_NS)
    checkpoint = world.open("a", name, open_flags)
    assert outcome(lambda: checkpoint.retention_duration_set(SECOND_NS)) == code
    in_force = SECOND_NS if code == "OK" else 60 * SECOND_NS
    assert full.status_get().creation_attributes.retention_duration == in_force


@requirement("R76")
@pytest.mark.parametrize("open_flags", [READ, CREATE])
def test_at_b_01_every_handle_may_set_the_retention(world: World, open_flags: int) -> None:
    checkpoint = world.open("a", retention_duration=60 * SECOND_NS)
    wanted = attributes(retention_duration=60 * SECOND_NS) if open_flags & CREATE else None
    old = world.service("b", ("B", 1, 1)).checkpoint_open(checkpoint.name, open_flags, wanted)
    old.retention_duration_set(SECOND_NS)
    world.until(lambda: checkpoint.status_get().creation_attributes.retention_duration == SECOND_NS)


# -- whose users count


@requirement("R77")
@pytest.mark.parametrize("flags", [SYNC | COLLOCATED, ASYNC | COLLOCATED])
def test_a_node_whose_users_are_gone_keeps_its_replica_while_others_have_users(
    world: World, flags: int
) -> None:
    """A retention that ran for each node by itself would take replicas from those who count on them."""
    checkpoint = opened_with_a_section(world, flags, "a", retention_duration=50 * MILLISECOND_NS)
    other = world.open("b", checkpoint.name, READ | WRITE)
    checkpoint.close()
    world.pass_time(0.2)
    assert world.replicas(checkpoint.name) == {"a": True, "b": True}
    assert other.read(K) == [b"v"]
    other.overwrite("k", b"w")
    assert world.open("a", checkpoint.name, READ).read(K) == [b"w"]


@requirement("R77")
def test_the_users_of_all_nodes_count(world: World) -> None:
    name = world.name()
    opens = {node: world.open(node, name, retention_duration=50 * MILLISECOND_NS) for node in world.nodes}
    for node in world.nodes:
        world.pass_time(0.1)
        assert world.described(name) is not None
        opens[node].close()
    world.until(lambda: world.described(name) is None)


@requirement("R77")
def test_a_user_whose_process_was_killed_does_not_count(world: World) -> None:
    doomed, name = world.doomed_service("b"), world.name()
    wanted = attributes(retention_duration=100 * MILLISECOND_NS)
    doomed.checkpoint_open(name, ALL_MODES, wanted)
    world.open("a", name, retention_duration=0).close()
    world.pass_time(0.2)
    assert world.described(name) is not None
    world.abandon(doomed)
    world.until(lambda: world.described(name) is None, 2)
