"""Handles: how long they live, and whose they are (R1, R2)."""

from collections.abc import Callable

import pytest
from tests.conformance.marks import each_transport, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    COLLOCATED,
    READ,
    Heard,
    attributes,
    outcome,
    refused,
)
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint, CheckpointService, DispatchFlags
from ckpt_client.saf.saf_requests import SafRequest
from ckpt_protocol.messages import Kind

OF_A_SERVICE: dict[str, Callable[[CheckpointService, bytes], object]] = {
    "selection_object": lambda service, name: service.selection_object(),
    "dispatch": lambda service, name: service.dispatch(DispatchFlags.ALL),
    "checkpoint_open": lambda service, name: service.checkpoint_open(name, READ),
    "checkpoint_open_async": lambda service, name: service.checkpoint_open_async(1, name, READ),
    "checkpoint_unlink": lambda service, name: service.checkpoint_unlink(name),
    "finalize": lambda service, name: service.finalize(),
}
OF_A_CHECKPOINT: dict[str, Callable[[Checkpoint], object]] = {
    "close": lambda checkpoint: checkpoint.close(),
    "retention_duration_set": lambda checkpoint: checkpoint.retention_duration_set(0),
    "active_replica_set": lambda checkpoint: checkpoint.active_replica_set(),
    "status_get": lambda checkpoint: checkpoint.status_get(),
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
}


def opened_with_a_section(world: World) -> Checkpoint:
    """A checkpoint with an active replica and a section "k"."""
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    wanted = attributes(creation_flags=ASYNC | COLLOCATED)
    checkpoint = service.checkpoint_open(world.name(), ALL_MODES, wanted)
    checkpoint.active_replica_set()
    checkpoint.section_create("k", initial_data=b"v")
    return checkpoint


@requirement("R1")
@each_transport
@pytest.mark.parametrize("call", OF_A_SERVICE)
def test_every_call_of_a_service_is_bad_handle_once_it_is_finalized(world: World, call: str) -> None:
    service = world.service()
    service.finalize()
    with refused("BAD_HANDLE"):
        OF_A_SERVICE[call](service, world.name())


@requirement("R1")
@pytest.mark.parametrize("call", OF_A_CHECKPOINT)
def test_every_call_of_a_checkpoint_is_bad_handle_once_it_is_closed(world: World, call: str) -> None:
    checkpoint = opened_with_a_section(world)
    checkpoint.close()
    with refused("BAD_HANDLE"):
        OF_A_CHECKPOINT[call](checkpoint)


@requirement("R1")
@pytest.mark.parametrize("call", OF_A_CHECKPOINT)
def test_every_call_of_a_checkpoint_is_bad_handle_once_its_service_is_finalized(
    world: World, call: str
) -> None:
    checkpoint = opened_with_a_section(world)
    checkpoint.service.finalize()
    with refused("BAD_HANDLE"):
        OF_A_CHECKPOINT[call](checkpoint)


@requirement("R1")
@pytest.mark.parametrize("ended", ["the iteration", "the checkpoint", "the service"])
def test_an_iteration_is_bad_handle_once_its_checkpoint_or_service_is_gone(world: World, ended: str) -> None:
    checkpoint = opened_with_a_section(world)
    iteration = checkpoint.section_iteration_initialize(5)
    match ended:
        case "the iteration":
            iteration.finalize()
        case "the checkpoint":
            checkpoint.close()
        case _:
            checkpoint.service.finalize()
    with refused("BAD_HANDLE"):
        iteration.next()
    with refused("BAD_HANDLE"):
        iteration.finalize()


@requirement("R1")
@pytest.mark.parametrize("handle", [0, 10**9])
def test_a_handle_that_was_never_given_is_bad_handle(world: World, handle: int) -> None:
    service = world.service()
    service.checkpoint_open(world.name(), ALL_MODES, attributes())
    for kind in (Kind.STATUS, Kind.CLOSE, Kind.SYNCHRONIZE):
        with refused("BAD_HANDLE"):
            service.run(service.inner.ask(SafRequest("saCkptCheckpointStatusGet", kind), handle))


@requirement("R1")
def test_each_call_works_before_its_handle_is_dead(world: World) -> None:
    """Else "BAD_HANDLE afterwards" would say nothing."""
    for call, act in OF_A_CHECKPOINT.items():
        assert (call, outcome(lambda act=act: act(opened_with_a_section(world)))) == (call, "OK")


@requirement("R2")
@each_transport
def test_each_open_of_one_name_in_one_process_has_a_handle_of_its_own(world: World) -> None:
    service, name = world.service(), world.name()
    opens = [service.checkpoint_open(name, ALL_MODES, attributes()) for _ in range(5)]
    assert len({checkpoint.handle for checkpoint in opens}) == 5
    opens[0].close()
    with refused("BAD_HANDLE"):
        opens[0].status_get()
    for checkpoint in opens[1:]:
        checkpoint.status_get()


@requirement("R2")
def test_each_service_of_one_process_is_its_own(world: World) -> None:
    one, other = world.service(), world.service()
    assert one.selection_object() != other.selection_object()
    one.finalize()
    other.checkpoint_open(world.name(), ALL_MODES, attributes())
