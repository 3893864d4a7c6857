"""CheckpointOpenAsync and its callback (R36 to R39)."""

import pytest
from tests.conformance.marks import VIRTUAL, each_transport, on, requirement, settings
from tests.conformance.shorthand import ALL_MODES, ASYNC, CREATE, READ, Heard, attributes, refused
from tests.conformance.world import World

from ckpt_client.saf import DispatchFlags, SaAisErrorT


@requirement("R36")
@each_transport
@pytest.mark.parametrize(
    ("name", "open_flags", "wanted", "code"),
    [
        (b"safCkpt=x", 0, None, "BAD_FLAGS"),
        (b"safCkpt=x", 8, attributes(), "BAD_FLAGS"),
        (b"safCkpt=x", ALL_MODES, None, "INVALID_PARAM"),
        (b"safCkpt=x", READ, attributes(), "INVALID_PARAM"),
        (b"safCkpt=x", ALL_MODES, attributes(creation_flags=3), "INVALID_PARAM"),
        (b"safCkpt=x", ALL_MODES, attributes(checkpoint_size=1001), "INVALID_PARAM"),
        (b"", READ, None, "INVALID_PARAM"),
        (b"plain", READ, None, "INVALID_PARAM"),
        (b"safCkpt=".ljust(2049, b"x"), READ, None, "TOO_BIG"),
    ],
)
def test_a_fault_of_the_arguments_is_raised_at_once_and_no_callback_follows(
    world: World, name: bytes, open_flags: int, wanted: object, code: str
) -> None:
    service = world.service(callbacks=Heard().callbacks)
    with refused(code):
        service.checkpoint_open_async(1, name, open_flags, wanted)
    assert not world.wait_readable(service, 0.03)


@requirement("R36")
def test_a_dead_handle_is_refused_at_once(world: World) -> None:
    service = world.service(callbacks=Heard().callbacks)
    service.finalize()
    with refused("BAD_HANDLE"):
        service.checkpoint_open_async(1, world.name(), READ)


@requirement("R36")
@each_transport
def test_what_the_service_decides_comes_by_the_callback_alone(world: World) -> None:
    heard = Heard()
    service, known = world.service(callbacks=heard.callbacks), world.open().name
    service.checkpoint_open_async(1, world.name(), READ)
    service.checkpoint_open_async(2, known, ALL_MODES, attributes(creation_flags=ASYNC))
    service.checkpoint_open_async(3, known, READ)
    service.checkpoint_open_async(4, world.name(), ALL_MODES, attributes())
    world.until(lambda: service.pending == 4)
    assert heard.opened == []
    service.dispatch(DispatchFlags.ALL)
    assert sorted((told[0], told[2]) for told in heard.opened) == [
        (1, SaAisErrorT.SA_AIS_ERR_NOT_EXIST),
        (2, SaAisErrorT.SA_AIS_ERR_EXIST),
        (3, SaAisErrorT.SA_AIS_OK),
        (4, SaAisErrorT.SA_AIS_OK),
    ]


@requirement("R36")
@on(VIRTUAL, why="a limit is set low")
@settings(checkpoints_max=1)
def test_a_limit_comes_by_the_callback(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    world.open("b")
    service.checkpoint_open_async(1, world.name(), ALL_MODES, attributes())
    world.dispatch_next(service)
    assert heard.opened == [(1, None, SaAisErrorT.SA_AIS_ERR_NO_RESOURCES)]


@requirement("R36")
def test_an_open_that_the_callback_reported_is_as_good_as_one_that_was_waited_for(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.name()
    service.checkpoint_open_async(1, name, CREATE | READ, attributes())
    world.dispatch_next(service)
    checkpoint = heard.opened[0][1]
    assert (checkpoint.name, checkpoint.open_flags) == (name, CREATE | READ)
    assert checkpoint.status_get().creation_attributes == attributes()
    with refused("ACCESS"):
        checkpoint.section_create("k")
    checkpoint.close()
    with refused("BAD_HANDLE"):
        checkpoint.status_get()


@requirement("R37")
@each_transport
def test_without_an_open_callback_it_is_init_and_nothing_is_opened(world: World) -> None:
    heard, name = Heard(), world.name()
    heard.callbacks.checkpoint_open = None
    service = world.service(callbacks=heard.callbacks)
    with refused("INIT"):
        service.checkpoint_open_async(1, name, ALL_MODES, attributes())
    world.pass_time(0.03)
    assert world.described(name) is None


@requirement("R38")
@each_transport
def test_every_invocation_comes_back_as_it_was(world: World) -> None:
    heard = Heard()
    service, name = world.service(callbacks=heard.callbacks), world.open().name
    given = [0, 1, 7, 7, 2**32, 2**63, 2**64 - 1]
    for invocation in given:
        service.checkpoint_open_async(invocation, name, READ)
    world.until(lambda: service.pending == len(given))
    service.dispatch(DispatchFlags.ALL)
    assert sorted(told[0] for told in heard.opened) == given
    assert len({told[1].handle for told in heard.opened}) == len(given)


@requirement("R39")
def test_with_an_error_there_is_no_handle(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    service.checkpoint_open_async(5, world.name(), READ)
    world.dispatch_next(service)
    assert heard.opened == [(5, None, SaAisErrorT.SA_AIS_ERR_NOT_EXIST)]
