"""The worlds themselves: what a scenario does in one of them means the same in the other."""

import asyncio

import pytest
from tests.conformance.marks import VIRTUAL, each_transport, on
from tests.conformance.shorthand import ALL_MODES, ASYNC, READ, Heard, attributes, refused
from tests.conformance.virtual_loop import Stuck
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client import AsyncTable
from ckptd.core.settings import SECOND_NS


@on(VIRTUAL, why="it is about virtual time")
def test_the_client_library_runs_on_a_virtual_loop(world: VirtualWorld) -> None:
    run = world.runner.run
    table = run(AsyncTable.open("t", 10, 100, 16, address=world.address("a")))
    run(table.write("k", "v"))
    world.kill("a")
    assert run(table.read("k")) == b"v"
    assert table.node_id != "a"
    run(table.close())


@on(VIRTUAL, why="it is about virtual time")
def test_a_time_out_is_kept_exactly_in_virtual_time(world: VirtualWorld) -> None:
    checkpoint = world.open("a", creation_flags=ASYNC)
    for node in world.nodes:
        world.pause(node)
    began_ns = world.now_ns()
    with refused("TIMEOUT"):
        checkpoint.synchronize(2 * SECOND_NS)
    assert 0 <= world.now_ns() - began_ns - 2 * SECOND_NS <= 1_100_000


@on(VIRTUAL, why="it is about virtual time")
def test_what_never_comes_fails_the_scenario(world: VirtualWorld) -> None:
    async def wait_for_nothing() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        world.runner.run(wait_for_nothing())


@on(VIRTUAL, why="it is about virtual time")
def test_two_runs_of_a_scenario_are_the_same(world: VirtualWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def story(world: VirtualWorld) -> list[str]:
        checkpoint = world.open("b")
        checkpoint.section_create("k", initial_data=b"v")
        world.kill("a")
        assert checkpoint.read([("k", None, 0)]) == [b"v"]
        world.restart("a")
        world.wait_in_sync(checkpoint.name)
        return [*world.cluster.lines, str(world.now_ns())]

    again = VirtualWorld(monkeypatch)
    told = story(again)
    again.close()
    monkeypatch.undo()
    third = VirtualWorld(monkeypatch)
    assert story(third) == told
    third.close()


@each_transport
def test_a_checkpoint_is_opened_written_and_read_at_every_node(world: World) -> None:
    checkpoint = world.open("a")
    checkpoint.section_create("k", initial_data=b"v")
    for node in world.nodes:
        other = world.service(node).checkpoint_open(checkpoint.name, READ)
        assert other.read([("k", None, 0)]) == [b"v"]
    assert world.replicas(checkpoint.name) == dict.fromkeys(world.nodes, True)


@each_transport
def test_callbacks_come_by_the_selection_object(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    assert not world.wait_readable(service, 0.05)
    service.checkpoint_open_async(7, world.name(), ALL_MODES, attributes())
    assert world.wait_readable(service)
    service.dispatch(1)
    (invocation, checkpoint, error), *rest = heard.opened
    assert (invocation, error, rest) == (7, 1, [])
    checkpoint.section_create("k")


def test_a_killed_node_comes_back(world: World) -> None:
    checkpoint = world.open("a")
    checkpoint.section_create("k", initial_data=b"v")
    world.kill("b")
    world.until(lambda: "b" not in world.replicas(checkpoint.name))
    assert "b" not in world.running()
    world.restart("b")
    world.wait_in_sync(checkpoint.name)
    other = world.service("b").checkpoint_open(checkpoint.name, READ)
    assert other.read([("k", None, 0)]) == [b"v"]


def test_a_killed_client_has_nothing_open_any_more(world: World) -> None:
    name = world.name()
    doomed = world.doomed_service("a")
    checkpoint = doomed.checkpoint_open(name, ALL_MODES, attributes(retention_duration=0))
    checkpoint.section_create("k", initial_data=b"v")
    with refused("EXIST"):
        checkpoint.section_create("k")
    assert checkpoint.name == name
    assert world.described(name) is not None
    world.abandon(doomed)
    world.until(lambda: world.described(name) is None)


@on(VIRTUAL, why="it is about virtual time")
def test_a_minority_is_cut_off_and_comes_back(world: VirtualWorld) -> None:
    checkpoint = world.open("a")
    world.partition("c", "ab")
    checkpoint.section_create("k", initial_data=b"v")
    world.heal()
    world.wait_in_sync(checkpoint.name, "a", "b", "c")
    assert world.contents("c", checkpoint.name) == {b"k": b"v"}


def test_what_is_open_is_finalized_with_the_world(world: World) -> None:
    service = world.service()
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes())
    world.close()
    with refused("BAD_HANDLE"):
        service.selection_object()
    with refused("BAD_HANDLE"):
        checkpoint.read([("k", None, 0)])
