"""Synchronize: what all replicas have then, for whom it is, how it ends (R134 to R141)."""

from collections.abc import Callable

import pytest
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    CREATE,
    READ,
    SYNC,
    WEAK,
    WRITE,
    Heard,
    attributes,
    outcome,
    refused,
)
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.constants import SA_TIME_MAX
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

ASYNCS = (ASYNC, WEAK, ASYNC | COLLOCATED, WEAK | COLLOCATED)
SYNCS = (SYNC, SYNC | COLLOCATED)
OK = SaAisErrorT.SA_AIS_OK

UPDATES: dict[str, Callable[[Checkpoint], object]] = {
    "create": lambda checkpoint: checkpoint.section_create("new", initial_data=b"v"),
    "delete": lambda checkpoint: checkpoint.section_delete("k"),
    "write": lambda checkpoint: checkpoint.write([("k", b"w", 1), ("other", b"w", 0)]),
    "overwrite": lambda checkpoint: checkpoint.overwrite("k", b"overwritten"),
}
AFTER = {
    "create": {b"k": b"v", b"other": b"v", b"new": b"v"},
    "delete": {b"other": b"v"},
    "write": {b"k": b"vw", b"other": b"w"},
    "overwrite": {b"k": b"overwritten", b"other": b"v"},
}


def opened(world: World, kind: int = ASYNC) -> Checkpoint:
    """A checkpoint with an active replica at a, replicas on all nodes, and the sections "k" and "other"."""
    checkpoint = world.open("a", creation_flags=kind)
    if kind & COLLOCATED:
        for node in ("b", "c"):
            world.open(node, checkpoint.name, ALL_MODES, creation_flags=kind)
        if kind not in SYNCS:
            checkpoint.active_replica_set()
    for section_id in ("k", "other"):
        checkpoint.section_create(section_id, initial_data=b"v")
    world.wait_in_sync(checkpoint.name)
    if kind not in SYNCS:
        checkpoint.synchronize()
    return checkpoint


# -- what it promises


@requirement("R134")
@on(VIRTUAL, why="it is about what the replicas themselves hold")
@pytest.mark.parametrize("kind", ASYNCS)
@pytest.mark.parametrize("update", UPDATES)
def test_all_replicas_have_what_was_done_before(world: VirtualWorld, kind: int, update: str) -> None:
    checkpoint = opened(world, kind)
    UPDATES[update](checkpoint)
    checkpoint.synchronize()
    for node in world.nodes:
        assert world.contents(node, checkpoint.name) == AFTER[update]


@requirement("R134")
@on(VIRTUAL, why="frames between nodes are kept back")
@pytest.mark.parametrize("kind", ASYNCS)
@pytest.mark.parametrize("behind", ["b", "c", "bc"])
def test_it_does_not_end_while_a_replica_lacks_something(world: VirtualWorld, kind: int, behind: str) -> None:
    checkpoint = opened(world, kind)
    for node in behind:
        world.cluster.hold("a", node)
    checkpoint.overwrite("k", b"new")
    with refused("TIMEOUT"):
        checkpoint.synchronize(100 * MILLISECOND_NS)
    for node in behind:
        assert world.contents(node, checkpoint.name)[b"k"] == b"v"
        world.cluster.release("a", node)
    checkpoint.synchronize()
    for node in world.nodes:
        assert world.contents(node, checkpoint.name)[b"k"] == b"new"


@requirement("R134")
@pytest.mark.parametrize("kind", ASYNCS)
def test_nothing_that_was_synchronized_is_lost_with_the_active_replica(world: World, kind: int) -> None:
    checkpoint = opened(world, kind)
    other = world.service("b").checkpoint_open(checkpoint.name, ALL_MODES, attributes(creation_flags=kind))
    for number in range(20):
        checkpoint.overwrite("k", b"%d" % number)
    checkpoint.section_create("last", initial_data=b"l")
    assert world.active_node(checkpoint.name) == "a"
    checkpoint.synchronize()
    world.kill("a")
    if kind & COLLOCATED:
        world.until(lambda: world.active_node(checkpoint.name) is None)
        other.active_replica_set()
    assert other.read([("k", None, 0), ("other", None, 0), ("last", None, 0)]) == [b"19", b"v", b"l"]


@requirement("R134")
@on(VIRTUAL, why="it is about what the replicas themselves hold")
def test_what_others_wrote_before_is_included(world: VirtualWorld) -> None:
    checkpoint = opened(world)
    other = world.open("c", checkpoint.name, WRITE)
    other.overwrite("k", b"from c")
    checkpoint.synchronize()
    for node in world.nodes:
        assert world.contents(node, checkpoint.name)[b"k"] == b"from c"


# -- for whom it is


@requirement("R135")
@pytest.mark.parametrize("kind", SYNCS)
def test_a_synchronous_checkpoint_is_bad_operation(world: World, kind: int) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=kind))
    with refused("BAD_OPERATION"):
        checkpoint.synchronize()
    with refused("BAD_OPERATION"):
        checkpoint.synchronize_async(1)
    assert not world.wait_readable(service, 0.05)
    assert heard.synchronized == []


@requirement("R136")
@pytest.mark.parametrize("kind", (SYNC, *ASYNCS))
@pytest.mark.parametrize("open_flags", [READ, CREATE, CREATE | READ])
def test_it_needs_write_and_that_is_looked_at_first(world: World, kind: int, open_flags: int) -> None:
    full = world.open("a", creation_flags=kind)
    wanted = attributes(creation_flags=kind) if open_flags & CREATE else None
    for callbacks in (None, Heard().callbacks):
        service = world.service("a", callbacks=callbacks)
        checkpoint = service.checkpoint_open(full.name, open_flags, wanted)
        with refused("ACCESS"):
            checkpoint.synchronize()
        with refused("ACCESS"):
            checkpoint.synchronize_async(1)


@requirement("R137")
@pytest.mark.parametrize("kind", [ASYNC | COLLOCATED, WEAK | COLLOCATED])
def test_without_an_active_replica_it_is_not_exist_at_once(world: World, kind: int) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=kind))
    with refused("NOT_EXIST"):
        checkpoint.synchronize()
    with refused("NOT_EXIST"):
        checkpoint.synchronize_async(1)
    assert not world.wait_readable(service, 0.05)
    assert heard.synchronized == []
    checkpoint.active_replica_set()
    checkpoint.synchronize()
    checkpoint.synchronize_async(2)
    world.dispatch_next(service)
    assert heard.synchronized == [(2, OK)]


@requirement("R138")
def test_without_a_callback_where_it_was_opened_it_is_init(world: World) -> None:
    heard = Heard()
    other = world.service("a", callbacks=heard.callbacks)
    checkpoint = opened(world)
    other.checkpoint_open(checkpoint.name, ALL_MODES, attributes(creation_flags=ASYNC))
    with refused("INIT"):
        checkpoint.synchronize_async(1)
    half = Heard().callbacks
    half.checkpoint_synchronize = None
    opener = world.service("a", callbacks=half).checkpoint_open(checkpoint.name, WRITE)
    with refused("INIT"):
        opener.synchronize_async(1)
    assert not world.wait_readable(other, 0.05)
    checkpoint.synchronize()


# -- its time-out


@requirement("R139")
@each_transport
def test_a_negative_time_out_is_invalid_param(world: World) -> None:
    checkpoint = world.open("a", creation_flags=ASYNC)
    for timeout_ns in (-1, -SECOND_NS, -(2**63)):
        with refused("INVALID_PARAM"):
            checkpoint.synchronize(timeout_ns)
    for timeout_ns in (0, SECOND_NS, SA_TIME_MAX):
        checkpoint.synchronize(timeout_ns)


@requirement("R139")
def test_its_time_is_over_while_a_replica_is_paused_and_it_continues_on_its_own(world: World) -> None:
    checkpoint = opened(world)
    checkpoint.overwrite("k", b"new")
    checkpoint.synchronize()
    world.pause("c")
    checkpoint.overwrite("k", b"newer")
    with refused("TIMEOUT"):
        checkpoint.synchronize(200 * MILLISECOND_NS)
    world.resume("c")
    world.until(lambda: outcome(lambda: checkpoint.synchronize(SECOND_NS)) == "OK")
    world.wait_in_sync(checkpoint.name)
    assert checkpoint.read([("k", None, 0)]) == [b"newer"]


@requirement("R139")
@on(VIRTUAL, why="frames between nodes are kept back")
def test_what_was_under_way_at_the_time_out_arrives_without_another_call(world: VirtualWorld) -> None:
    checkpoint = opened(world)
    world.cluster.hold("a", "b")
    checkpoint.overwrite("k", b"new")
    with refused("TIMEOUT"):
        checkpoint.synchronize(50 * MILLISECOND_NS)
    world.cluster.release("a", "b")
    world.pass_time(0.1)
    assert world.contents("b", checkpoint.name)[b"k"] == b"new"


@requirement("R139")
@on(VIRTUAL, why="it is about the very time")
@pytest.mark.parametrize("timeout_ns", [0, 700 * MILLISECOND_NS])
def test_without_a_time_out_of_its_own_it_has_the_librarys(world: VirtualWorld, timeout_ns: int) -> None:
    service = world.service("a", timeout_ns=2 * SECOND_NS)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=ASYNC))
    for node in world.nodes:
        world.pause(node)
    began_ns = world.now_ns()
    with refused("TIMEOUT"):
        checkpoint.synchronize(timeout_ns)
    late_ns = world.now_ns() - began_ns - (timeout_ns or 2 * SECOND_NS)
    assert 0 <= late_ns < 10 * MILLISECOND_NS


@requirement("R139", "R145")
@on(VIRTUAL, why="it is about the time that it takes")
@pytest.mark.parametrize("kind", ASYNCS)
def test_it_ends_when_the_replica_that_it_waits_for_is_excluded(world: VirtualWorld, kind: int) -> None:
    checkpoint = opened(world, kind)
    world.cluster.kill("c", silent=True)
    checkpoint.overwrite("k", b"new")
    began_ns = world.now_ns()
    checkpoint.synchronize()
    assert world.now_ns() - began_ns < 2 * SECOND_NS
    assert world.contents("b", checkpoint.name)[b"k"] == b"new"


@requirement("R140")
@pytest.mark.parametrize("kind", ASYNCS)
def test_it_works_without_sections_and_with_one_replica(world: World, kind: int) -> None:
    checkpoint = world.open("b", creation_flags=kind)
    if kind & COLLOCATED:
        checkpoint.active_replica_set()
        assert world.replicas(checkpoint.name) == {"b": True}
    checkpoint.synchronize()
    checkpoint.section_create("k")
    checkpoint.synchronize()
    checkpoint.section_delete("k")
    checkpoint.synchronize()
    assert checkpoint.status_get().number_of_sections == 0


# -- the callback


@requirement("R141")
@each_transport
def test_the_callback_gets_invocation_and_result_in_dispatch(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=ASYNC))
    invocations = [0, 1, 2**32, 2**64 - 1, 1]
    for invocation in invocations:
        checkpoint.synchronize_async(invocation)
    world.until(lambda: service.pending == len(invocations))
    assert heard.synchronized == []
    service.dispatch(2)
    assert sorted(heard.synchronized) == sorted((invocation, OK) for invocation in invocations)


@requirement("R141")
def test_the_callback_is_that_of_the_library_instance_that_opened(world: World) -> None:
    one, other = Heard(), Heard()
    services = [world.service(callbacks=heard.callbacks) for heard in (one, other)]
    name = world.name()
    opens = [
        service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=ASYNC)) for service in services
    ]
    opens[0].synchronize_async(10)
    world.dispatch_next(services[0])
    assert not world.wait_readable(services[1], 0.05)
    opens[1].synchronize_async(20)
    world.dispatch_next(services[1])
    assert (one.synchronized, other.synchronized) == ([(10, OK)], [(20, OK)])


@requirement("R139", "R141")
@on(VIRTUAL, why="frames between nodes are kept back")
def test_the_callback_reports_a_time_out(world: VirtualWorld) -> None:
    heard = Heard()
    service = world.service("a", callbacks=heard.callbacks, timeout_ns=300 * MILLISECOND_NS)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, attributes(creation_flags=ASYNC))
    world.cluster.hold("a", "b")
    checkpoint.section_create("k")
    checkpoint.synchronize_async(5)
    world.dispatch_next(service)
    assert heard.synchronized == [(5, SaAisErrorT.SA_AIS_ERR_TIMEOUT)]


@requirement("R134", "R141")
@on(VIRTUAL, why="it is about what the replicas themselves hold")
@pytest.mark.parametrize("kind", ASYNCS)
def test_the_callback_comes_when_all_replicas_have_it_and_not_before(world: VirtualWorld, kind: int) -> None:
    heard = Heard()
    service = world.service("a", callbacks=heard.callbacks)
    full = opened(world, kind)
    checkpoint = service.checkpoint_open(full.name, WRITE)
    world.cluster.hold("a", "b")
    full.overwrite("k", b"new")
    checkpoint.synchronize_async(5)
    assert not world.wait_readable(service, 0.2)
    world.cluster.release("a", "b")
    world.dispatch_next(service)
    assert heard.synchronized == [(5, OK)]
    assert world.contents("b", full.name)[b"k"] == b"new"
