"""Closing: dead handles, cancelled callbacks, what the last close brings about (R62 to R64)."""

from collections.abc import Callable

import pytest
from tests.conformance.marks import each_transport, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    READ,
    SYNC,
    WRITE,
    Heard,
    attributes,
    refused,
)
from tests.conformance.world import World

from ckpt_client.saf import SA_CKPT_SECTIONS_ANY, Checkpoint, DispatchFlags
from ckptd.core.settings import SECOND_NS

CALLS: dict[str, Callable[[Checkpoint], object]] = {
    "close": lambda checkpoint: checkpoint.close(),
    "status_get": lambda checkpoint: checkpoint.status_get(),
    "retention_duration_set": lambda checkpoint: checkpoint.retention_duration_set(SECOND_NS),
    "active_replica_set": lambda checkpoint: checkpoint.active_replica_set(),
    "section_create": lambda checkpoint: checkpoint.section_create("new"),
    "section_delete": lambda checkpoint: checkpoint.section_delete("k"),
    "section_expiration_time_set": lambda checkpoint: checkpoint.section_expiration_time_set("k", 2**62),
    "section_iteration": lambda checkpoint: list(checkpoint.section_iteration()),
    "section_iteration_initialize": lambda checkpoint: checkpoint.section_iteration_initialize(5),
    "write": lambda checkpoint: checkpoint.write([("k", b"w", 0)]),
    "overwrite": lambda checkpoint: checkpoint.overwrite("k", b"w"),
    "read": lambda checkpoint: checkpoint.read([("k", None, 0)]),
    "synchronize": lambda checkpoint: checkpoint.synchronize(),
    "synchronize_async": lambda checkpoint: checkpoint.synchronize_async(1),
    "track": lambda checkpoint: checkpoint.track(),
    "track_stop": lambda checkpoint: checkpoint.track_stop(),
}


# -- dead handles


@requirement("R62")
@each_transport
def test_a_closed_handle_is_bad_handle_in_every_call_and_no_other_one_is(world: World) -> None:
    service, name = world.service(callbacks=Heard().callbacks), world.name()
    closed = service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=ASYNC | COLLOCATED))
    kept = service.checkpoint_open(name, READ | WRITE)
    kept.active_replica_set()
    kept.section_create("k", initial_data=b"v")
    closed.close()
    for call in CALLS.values():
        with refused("BAD_HANDLE"):
            call(closed)
    assert kept.read([("k", None, 0)]) == [b"v"]
    assert kept.status_get().number_of_sections == 1


@requirement("R62")
@each_transport
def test_an_iteration_is_dead_with_its_handle_and_no_other_one_is(world: World) -> None:
    checkpoint = world.open()
    checkpoint.section_create("k")
    other = checkpoint.service.checkpoint_open(checkpoint.name, READ)
    dead, alive = (
        opened.section_iteration_initialize(SA_CKPT_SECTIONS_ANY) for opened in (checkpoint, other)
    )
    sections = checkpoint.section_iteration()
    checkpoint.close()
    for call in (dead.next, dead.finalize, lambda: next(sections)):
        with refused("BAD_HANDLE"):
            call()
    assert alive.next().section_id == b"k"
    alive.finalize()


# -- callbacks


@requirement("R63")
@each_transport
def test_a_close_cancels_the_pending_callbacks_of_its_handle_and_no_others(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.name()
    closed = service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=ASYNC))
    kept = service.checkpoint_open(name, WRITE)
    for invocation, checkpoint in enumerate((closed, kept, closed), 1):
        checkpoint.synchronize_async(invocation)
    service.checkpoint_open_async(4, name, READ)
    world.until(lambda: service.pending == 4)
    closed.close()
    assert service.pending == 2
    service.dispatch(DispatchFlags.ALL)
    assert heard.synchronized == [(2, 1)]
    assert [(invocation, error) for invocation, _, error in heard.opened] == [(4, 1)]
    heard.opened[0][1].status_get()


@requirement("R63")
@each_transport
def test_a_close_cancels_what_has_not_come_yet(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.name()
    closed = service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=ASYNC))
    for invocation in range(10):
        closed.synchronize_async(invocation)
    closed.close()
    assert not world.wait_readable(service, 0.1)
    service.dispatch(DispatchFlags.ALL)
    assert heard.synchronized == []


@requirement("R63")
def test_the_selection_object_is_quiet_when_a_close_cancelled_all_that_was_pending(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.name()
    closed = service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=ASYNC))
    closed.synchronize_async(1)
    assert world.wait_readable(service)
    closed.close()
    assert not world.wait_readable(service, 0)


@requirement("R63")
def test_a_close_ends_the_reports_of_changes(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.name()
    closed = service.checkpoint_open(name, ALL_MODES, attributes())
    closed.track()
    world.open("b", name, WRITE).section_create("k")
    assert world.wait_readable(service)
    closed.close()
    world.open("b", name, WRITE).section_create("l")
    world.pass_time(0.1)
    service.dispatch(DispatchFlags.ALL)
    assert heard.tracked == []


# -- the last close


@requirement("R64")
@pytest.mark.parametrize("flags", [SYNC, SYNC | COLLOCATED, ASYNC | COLLOCATED])
def test_the_last_close_in_the_cluster_deletes_what_is_unlinked(world: World, flags: int) -> None:
    name = world.name()
    opens = [world.open(node, name, creation_flags=flags) for node in ("a", "b", "c", "b")]
    opens[0].service.checkpoint_unlink(name)
    for checkpoint in opens[:-1]:
        checkpoint.close()
        world.pass_time(0.02)
        assert world.described(name, unlinked=True) is not None
    opens[-1].close()
    assert world.described(name, "b", unlinked=True) is None
    world.until(lambda: all(world.described(name, node, unlinked=True) is None for node in world.nodes))


@requirement("R64")
@pytest.mark.parametrize("flags", [SYNC, SYNC | COLLOCATED, ASYNC | COLLOCATED])
def test_the_last_close_in_the_cluster_begins_the_retention_of_all_others(world: World, flags: int) -> None:
    name = world.name()
    opens = [
        world.open(node, name, creation_flags=flags, retention_duration=SECOND_NS // 5)
        for node in ("a", "b", "c")
    ]
    for checkpoint in opens[:-1]:
        checkpoint.close()
    world.pass_time(0.3)
    assert world.described(name) is not None
    began_ns = world.now_ns()
    opens[-1].close()
    assert world.described(name) is not None
    world.until(lambda: world.described(name) is None)
    assert world.now_ns() - began_ns >= SECOND_NS // 5
