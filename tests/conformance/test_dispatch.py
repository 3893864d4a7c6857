"""The selection object and Dispatch (R16 to R20)."""

import threading
from typing import Any

import pytest
from tests.conformance.marks import DAEMONS, each_transport, on, requirement
from tests.conformance.shorthand import ALL_MODES, READ, Heard, attributes, refused
from tests.conformance.world import World, is_readable

from ckpt_client.saf import CheckpointService, DispatchFlags


def service_with_pending(world: World, heard: Heard, count: int) -> CheckpointService:
    """A service with so many callbacks pending, invocations 0, 1, …"""
    service = world.service(callbacks=heard.callbacks)
    service.checkpoint_open(name := world.name(), ALL_MODES, attributes())
    for invocation in range(count):
        service.checkpoint_open_async(invocation, name, READ)
    world.until(lambda: service.pending == count)
    return service


def invocations(heard: Heard) -> list[int]:
    """The invocations of the opens that were told."""
    return [told[0] for told in heard.opened]


@requirement("R16")
@each_transport
def test_the_selection_object_is_readable_while_a_callback_is_pending(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    selected = service.selection_object()
    assert not is_readable(selected)
    service.checkpoint_open_async(1, world.name(), ALL_MODES, attributes())
    service.checkpoint_open_async(2, world.name(), ALL_MODES, attributes())
    world.until(lambda: service.pending == 2)
    assert is_readable(selected)
    service.dispatch(DispatchFlags.ONE)
    assert is_readable(selected)
    service.dispatch(DispatchFlags.ONE)
    assert not is_readable(selected)


@requirement("R16")
def test_the_selection_object_may_be_asked_for_when_callbacks_are_pending_already(world: World) -> None:
    service = service_with_pending(world, Heard(), 2)
    assert is_readable(service.selection_object())
    service.dispatch(DispatchFlags.ALL)
    assert not is_readable(service.selection_object())


@requirement("R16")
def test_the_selection_object_is_the_same_at_every_call(world: World) -> None:
    service = world.service()
    assert service.selection_object() == service.selection_object()


@requirement("R16")
def test_the_selection_object_is_not_to_be_had_after_finalize(world: World) -> None:
    service = world.service()
    service.selection_object()
    service.finalize()
    with refused("BAD_HANDLE"):
        service.selection_object()


@requirement("R17")
@each_transport
def test_dispatch_one_runs_one_callback_and_the_oldest_first(world: World) -> None:
    heard = Heard()
    service = service_with_pending(world, heard, 3)
    for count in (1, 2, 3):
        service.dispatch(DispatchFlags.ONE)
        assert len(heard.opened) == count
        assert service.pending == 3 - count


@requirement("R17", "R18")
@pytest.mark.parametrize("flags", [DispatchFlags.ONE, DispatchFlags.ALL])
def test_dispatch_does_not_wait_where_nothing_is_pending(world: World, flags: int) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    began_ns = world.now_ns()
    service.dispatch(flags)
    assert world.now_ns() - began_ns < 500_000_000
    assert heard.opened == []


@requirement("R18")
@each_transport
def test_dispatch_all_runs_all_that_are_pending(world: World) -> None:
    heard = Heard()
    service = service_with_pending(world, heard, 5)
    service.dispatch(DispatchFlags.ALL)
    assert sorted(invocations(heard)) == [0, 1, 2, 3, 4]
    assert service.pending == 0


@requirement("R18")
def test_callbacks_may_call_the_service(world: World) -> None:
    heard, read = Heard(), []

    def opened(invocation: int, checkpoint: Any, error: int) -> None:
        checkpoint.section_create(str(invocation), initial_data=b"v")
        read.extend(checkpoint.read([(str(invocation), None, 0)]))

    heard.callbacks.checkpoint_open = opened
    service, name = world.service(callbacks=heard.callbacks), world.name()
    for invocation in range(2):
        service.checkpoint_open_async(invocation, name, ALL_MODES, attributes())
    world.until(lambda: service.pending == 2)
    service.dispatch(DispatchFlags.ALL)
    assert read == [b"v", b"v"]


@requirement("R19")
def test_dispatch_blocking_runs_callbacks_until_one_finalizes(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.name()

    def opened(invocation: int, checkpoint: Any, error: int) -> None:
        heard.opened.append((invocation, checkpoint, error))
        if invocation == 3:
            service.finalize()
        else:
            service.checkpoint_open_async(invocation + 1, name, ALL_MODES, attributes())

    heard.callbacks.checkpoint_open = opened
    service.checkpoint_open_async(0, name, ALL_MODES, attributes())
    service.dispatch(DispatchFlags.BLOCKING)
    assert invocations(heard) == [0, 1, 2, 3]
    with refused("BAD_HANDLE"):
        service.dispatch(DispatchFlags.BLOCKING)


@requirement("R18", "R19", "R21")
@pytest.mark.parametrize("flags", [DispatchFlags.ALL, DispatchFlags.BLOCKING])
def test_no_callback_runs_after_one_that_finalizes(world: World, flags: DispatchFlags) -> None:
    heard, services = Heard(), []

    def opened(invocation: int, checkpoint: Any, error: int) -> None:
        heard.opened.append((invocation, checkpoint, error))
        services[0].finalize()

    heard.callbacks.checkpoint_open = opened
    service = service_with_pending(world, heard, 3)
    services.append(service)
    service.dispatch(flags)
    assert len(heard.opened) == 1


@requirement("R19")
@on(DAEMONS, why="one thread dispatches while another finalizes")
def test_dispatch_blocking_waits_until_another_thread_finalizes(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    thread = threading.Thread(target=service.dispatch, args=(DispatchFlags.BLOCKING,))
    thread.start()
    for invocation in range(3):
        service.checkpoint_open_async(invocation, world.name(), ALL_MODES, attributes())
        world.until(lambda wanted=invocation + 1: len(heard.opened) == wanted)
    assert thread.is_alive()
    service.finalize()
    thread.join(10)
    assert not thread.is_alive()
    assert invocations(heard) == [0, 1, 2]


@requirement("R20")
@each_transport
@pytest.mark.parametrize("flags", [0, 4, -1, 2**31])
def test_dispatch_with_other_flags_is_invalid_param(world: World, flags: int) -> None:
    heard = Heard()
    service = service_with_pending(world, heard, 1)
    with refused("INVALID_PARAM"):
        service.dispatch(flags)
    assert service.pending == 1


@requirement("R20")
def test_dispatch_of_a_finalized_service_is_bad_handle_whatever_the_flags(world: World) -> None:
    service = world.service()
    service.finalize()
    for flags in (*DispatchFlags, 0, 4):
        with refused("BAD_HANDLE"):
            service.dispatch(flags)
