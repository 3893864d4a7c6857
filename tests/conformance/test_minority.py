"""A side that has lost the majority acknowledges nothing that the other will not keep (R150)."""

from typing import Any

import pytest
from tests.conformance.marks import VIRTUAL, on, requirement
from tests.conformance.shorthand import ALL_MODES, ASYNC, READ, SYNC, WEAK, attributes, outcome
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint, CheckpointService
from ckptd.core.settings import SECOND_NS

SPREAD = (SYNC, ASYNC, WEAK)
UNSERVED = ("TRY_AGAIN", "UNAVAILABLE")
IN_DOUBT = (*UNSERVED, "TIMEOUT")
"""An update that was sent before it was known that nobody serves may also be TIMEOUT (R3)."""


def opened(world: World, node: str, kind: int = SYNC) -> Checkpoint:
    """A checkpoint with replicas on all nodes and the section "k"; the active replica is at this node."""
    checkpoint = world.open(node, creation_flags=kind)
    checkpoint.section_create("k", initial_data=b"v")
    world.wait_in_sync(checkpoint.name)
    if kind != SYNC:
        checkpoint.synchronize()
    return checkpoint


def confine(world: VirtualWorld, service: CheckpointService, node: str) -> None:
    """A service reaches this node only, as a program does that is cut off together with its node."""
    process, connect = world._processes[id(service)], world.cluster.connect

    def connect_within(to: str, of: str, *more: Any) -> Any:
        if of == process and to != node:
            raise ConnectionRefusedError(111, "Connection refused")
        return connect(to, of, *more)

    world.cluster.connect = connect_within  # type: ignore[method-assign]


@requirement("R150")
@on(VIRTUAL, why="the network is split, and a program is cut off with its node")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_minority_acknowledges_nothing_once_the_majority_continues(world: VirtualWorld, kind: int) -> None:
    checkpoint = opened(world, "c", kind)
    other = world.open("a", checkpoint.name, ALL_MODES, creation_flags=kind)
    confine(world, checkpoint.service, "c")
    world.partition("c", "ab")
    world.pass_time(1)
    assert other.read([("k", None, 0)]) == [b"v"]
    for update in (
        lambda: checkpoint.overwrite("k", b"minority"),
        lambda: checkpoint.section_create("minority"),
    ):
        assert outcome(update) in IN_DOUBT
    for call in (lambda: checkpoint.read([("k", None, 0)]), checkpoint.status_get):
        assert outcome(call) in UNSERVED
    other.overwrite("k", b"majority")
    world.heal()
    for node in world.nodes:
        reader = world.open(node, checkpoint.name, READ)
        assert world.until(lambda reader=reader: reader.read([("k", None, 0)])) == [b"majority"]
    world.until(lambda: world.described(checkpoint.name, "a").replicas == dict.fromkeys("abc", True))
    world.pass_time(0.1)
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == {b"k": b"majority"}


@requirement("R150")
@on(VIRTUAL, why="the network is split, and a program is cut off with its node")
def test_a_sync_write_at_the_moment_of_the_split_is_not_acknowledged_by_the_minority(
    world: VirtualWorld,
) -> None:
    checkpoint = opened(world, "c")
    other = world.open("a", checkpoint.name, ALL_MODES)
    confine(world, checkpoint.service, "c")
    world.partition("c", "ab")
    code = outcome(lambda: checkpoint.overwrite("k", b"minority"))
    assert code in IN_DOUBT
    assert other.read([("k", None, 0)]) == [b"v"]
    other.overwrite("k", b"majority")
    world.heal()
    world.pass_time(3)
    held = [world.contents(node, checkpoint.name)[b"k"] for node in world.nodes]
    assert held in ([b"majority"] * 3, [b"minority"] * 3 if code == "TIMEOUT" else None)


@requirement("R150")
@pytest.mark.parametrize("kind", SPREAD)
def test_a_node_that_is_left_alone_acknowledges_nothing(world: World, kind: int) -> None:
    service = world.service("a", timeout_ns=SECOND_NS)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=kind))
    checkpoint.section_create("k", initial_data=b"v")
    if kind != SYNC:
        checkpoint.synchronize()
    for node in ("b", "c"):
        world.kill(node)
    world.pass_time(0.7)
    code = outcome(lambda: checkpoint.overwrite("k", b"alone"))
    assert code in IN_DOUBT
    assert outcome(lambda: checkpoint.read([("k", None, 0)])) in UNSERVED
    world.restart("b")
    world.restart("c")
    assert world.until(lambda: checkpoint.read([("k", None, 0)])) in (
        [b"v"],
        [b"alone"] if code == "TIMEOUT" else None,
    )
