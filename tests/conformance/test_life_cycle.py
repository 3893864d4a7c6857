"""A library instance from Initialize to Finalize (R11 to R15, R21, R22)."""

import pytest
from tests.conformance.marks import each_transport, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    CREATE,
    READ,
    WRITE,
    Heard,
    attributes,
    outcome,
    refused,
)
from tests.conformance.world import Version, World

from ckpt_client.saf import CheckpointCallbacks, DispatchFlags
from ckptd.core.settings import SECOND_NS

# -- versions


@requirement("R11")
@each_transport
@pytest.mark.parametrize(
    "version", [("B", 1, 1), ("B", 1, 0), ("B", 1, 200), ("B", 2, 0), ("B", 2, 1), ("B", 2, 2), ("B", 2, 255)]
)
def test_a_supported_version_is_answered_with_the_highest_of_its_release(
    world: World, version: Version
) -> None:
    service = world.service(version=version)
    assert service.version == ("B", 2, 2)
    assert service.required_version == version


@requirement("R12")
@each_transport
@pytest.mark.parametrize(
    "version", [("A", 1, 1), ("A", 2, 2), ("C", 1, 1), ("Z", 2, 2), ("B", 3, 0), ("B", 3, 1), ("B", 255, 2)]
)
def test_any_other_version_is_refused_with_the_supported_one(world: World, version: Version) -> None:
    with refused("VERSION") as caught:
        world.service(version=version)
    assert caught.value.version == ("B", 2, 2)


def differences(world: World, version: Version) -> dict[str, str]:
    """What B.02 has changed, as a service of a version answers it."""
    service, name = world.service(version=version), world.name()
    creator = world.service(version=version).checkpoint_open(name, ALL_MODES, attributes())
    other = attributes(retention_duration=7 * SECOND_NS)
    writer = service.checkpoint_open(name, WRITE)
    reader = service.checkpoint_open(name, READ)
    told = {
        "a name without safCkpt=": outcome(
            lambda: service.checkpoint_open(b"plain-" + name, ALL_MODES, attributes())
        ),
        "another retention": outcome(lambda: service.checkpoint_open(name, ALL_MODES, other)),
        "the status without READ": outcome(writer.status_get),
        "an iteration without READ": outcome(lambda: writer.section_iteration_initialize(5).finalize()),
        "sections without READ": outcome(lambda: list(writer.section_iteration())),
        "the retention without WRITE": outcome(lambda: reader.retention_duration_set(SECOND_NS)),
    }
    creator.close()
    return told


@requirement("R13", "R76", "R87", "R110")
@pytest.mark.parametrize("version", [("B", 2, 2), ("B", 2, 1), ("B", 2, 0)])
def test_a_program_that_asks_for_b_02_has_the_rules_of_b_02(world: World, version: Version) -> None:
    assert differences(world, version) == {
        "a name without safCkpt=": "INVALID_PARAM",
        "another retention": "OK",
        "the status without READ": "ACCESS",
        "an iteration without READ": "ACCESS",
        "sections without READ": "ACCESS",
        "the retention without WRITE": "ACCESS",
    }


@requirement("R13")
@pytest.mark.parametrize("version", [("B", 1, 1), ("B", 1, 2)])
def test_a_program_that_asks_for_b_01_has_the_rules_of_b_01(world: World, version: Version) -> None:
    assert differences(world, version) == {
        "a name without safCkpt=": "OK",
        "another retention": "EXIST",
        "the status without READ": "OK",
        "an iteration without READ": "OK",
        "sections without READ": "OK",
        "the retention without WRITE": "OK",
    }


@requirement("R13")
def test_programs_of_both_editions_share_a_checkpoint(world: World) -> None:
    name = world.name()
    old = world.service("a", ("B", 1, 1)).checkpoint_open(name, ALL_MODES, attributes())
    new = world.service("b", ("B", 2, 2)).checkpoint_open(name, ALL_MODES, attributes())
    old.section_create("k", initial_data=b"v")
    assert new.read([("k", None, 0)]) == [b"v"]
    assert old.status_get() == new.status_get()


# -- callbacks


@requirement("R14")
@each_transport
@pytest.mark.parametrize("callbacks", [None, CheckpointCallbacks()])
def test_callbacks_may_be_none_until_one_is_needed(
    world: World, callbacks: CheckpointCallbacks | None
) -> None:
    service, name = world.service(callbacks=callbacks), world.name()
    checkpoint = service.checkpoint_open(name, ALL_MODES, attributes(creation_flags=2))
    checkpoint.synchronize()
    service.selection_object()
    service.dispatch(DispatchFlags.ALL)
    with refused("INIT"):
        service.checkpoint_open_async(1, name, READ)
    with refused("INIT"):
        checkpoint.synchronize_async(1)


@requirement("R14")
def test_one_callback_may_be_there_without_the_other(world: World) -> None:
    heard = Heard()
    opens = CheckpointCallbacks(checkpoint_open=heard.callbacks.checkpoint_open)
    synchronizes = CheckpointCallbacks(checkpoint_synchronize=heard.callbacks.checkpoint_synchronize)
    name = world.name()
    with_opens, with_synchronizes = world.service(callbacks=opens), world.service(callbacks=synchronizes)
    one = with_opens.checkpoint_open(name, ALL_MODES, attributes(creation_flags=2))
    other = with_synchronizes.checkpoint_open(name, WRITE)
    with refused("INIT"):
        one.synchronize_async(1)
    with refused("INIT"):
        with_synchronizes.checkpoint_open_async(2, name, READ)
    with_opens.checkpoint_open_async(3, name, READ)
    other.synchronize_async(4)
    world.dispatch_next(with_opens)
    world.dispatch_next(with_synchronizes)
    assert [told[0] for told in heard.opened] == [3]
    assert heard.synchronized == [(4, 1)]


# -- several instances


@requirement("R15")
@each_transport
def test_instances_of_one_process_have_nothing_in_common(world: World) -> None:
    first_heard, second_heard = Heard(), Heard()
    first = world.service(callbacks=first_heard.callbacks)
    second = world.service(callbacks=second_heard.callbacks)
    name = world.name()
    kept = second.checkpoint_open(name, ALL_MODES, attributes())
    first.checkpoint_open_async(1, name, READ)
    assert world.wait_readable(first)
    assert not world.wait_readable(second, 0.05)
    second.dispatch(DispatchFlags.ALL)
    assert (first_heard.opened, second_heard.opened) == ([], [])
    first.dispatch(DispatchFlags.ALL)
    assert (len(first_heard.opened), second_heard.opened) == (1, [])
    first.finalize()
    kept.section_create("k")
    with refused("BAD_HANDLE"):
        first_heard.opened[0][1].status_get()


# -- Finalize


@requirement("R21")
@each_transport
def test_finalize_closes_what_is_open_and_nothing_need_be_closed_before(world: World) -> None:
    service, name, shared = world.service(), world.name(), world.name("shared")
    for _ in range(3):
        service.checkpoint_open(name, ALL_MODES, attributes(retention_duration=0))
    service.checkpoint_open(shared, ALL_MODES, attributes(retention_duration=0))
    other = world.open("b", shared, ALL_MODES, retention_duration=0)
    service.finalize()
    with refused("NOT_EXIST"):
        world.service().checkpoint_open(name, READ)
    found = world.described(shared)
    assert found is not None
    assert found.opens == 1
    other.status_get()


@requirement("R21")
def test_finalize_deletes_what_was_unlinked_and_open_here_last(world: World) -> None:
    checkpoint = world.open()
    checkpoint.service.checkpoint_unlink(checkpoint.name)
    assert world.described(checkpoint.name, unlinked=True) is not None
    checkpoint.service.finalize()
    assert world.described(checkpoint.name, unlinked=True) is None


@requirement("R21")
@each_transport
def test_finalize_cancels_what_is_pending(world: World) -> None:
    heard = Heard()
    service = world.service(callbacks=heard.callbacks)
    service.checkpoint_open_async(1, world.name(), CREATE | READ, attributes())
    assert world.wait_readable(service)
    service.finalize()
    with refused("BAD_HANDLE"):
        service.dispatch(DispatchFlags.ALL)
    assert heard.opened == []


@requirement("R21")
@pytest.mark.parametrize("microseconds", [0, 60, 120, 180, 240, 300, 400, 1000])
def test_finalize_cancels_an_open_that_is_under_way(world: World, microseconds: int) -> None:
    """Whether the checkpoint was made is open, but nobody has it open."""
    heard, name = Heard(), world.name()
    service = world.service(callbacks=heard.callbacks)
    service.checkpoint_open_async(1, name, ALL_MODES, attributes(retention_duration=0))
    world.pass_time(microseconds / 1e6)
    service.finalize()
    world.pass_time(0.1)
    world.until(lambda: world.described(name) is None)
    assert heard.opened == []


@requirement("R22")
@each_transport
def test_a_second_finalize_is_bad_handle(world: World) -> None:
    service = world.service()
    service.finalize()
    for _ in range(2):
        with refused("BAD_HANDLE"):
            service.finalize()
