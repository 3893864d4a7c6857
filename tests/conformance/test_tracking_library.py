"""The library's own tracking: each change in its order, none missed (R142 to R144)."""

from typing import Any

import pytest
from tests.conformance.marks import each_transport, requirement
from tests.conformance.shorthand import (
    ALL_MODES,
    ASYNC,
    CREATE,
    READ,
    SYNC,
    WEAK,
    WRITE,
    Heard,
    attributes,
    refused,
)
from tests.conformance.world import World

from ckpt_client.saf import Checkpoint, CheckpointService, SectionChangeT
from ckptd.core.settings import MILLISECOND_NS

CREATED, WRITTEN, OVERWRITTEN, DELETED, EXPIRED, *_ = SectionChangeT
SETTLED_S = 0.05
"""After so long an update is known everywhere."""

SILENT_S = 0.1
"""So long nothing is heard where nothing is to come."""


def opened(world: World, kind: int = SYNC, **changed: int) -> Checkpoint:
    """A new checkpoint of this kind with an active replica at a, and the sections "k" and "other"."""
    checkpoint = world.open("a", creation_flags=kind, **changed)
    if changed.get("max_sections") != 1:
        for section_id in ("k", "other"):
            checkpoint.section_create(section_id, initial_data=b"0123456789")
    world.pass_time(SETTLED_S)
    return checkpoint


@requirement("R142")
@pytest.mark.parametrize("open_flags", [WRITE, CREATE, CREATE | WRITE])
def test_the_library_tracks_what_is_open_for_reading(world: World, open_flags: int) -> None:
    full = opened(world)
    wanted = attributes() if open_flags & CREATE else None
    service = world.service("b", callbacks=Heard().callbacks)
    with refused("ACCESS"):
        service.checkpoint_open(full.name, open_flags, wanted).track()


@requirement("R143")
def test_the_library_tracks_a_checkpoint_once_and_with_a_callback(world: World) -> None:
    full = opened(world)
    with refused("INIT"):
        full.track()
    with refused("NOT_EXIST"):
        full.track_stop()
    full.track(lambda checkpoint, changes: None)
    with refused("EXIST"):
        full.track(lambda checkpoint, changes: None)
    full.track_stop()
    with refused("NOT_EXIST"):
        full.track_stop()
    full.close()
    for call in (full.track, full.track_stop):
        with refused("BAD_HANDLE"):
            call()


def changes_heard(world: World, service: CheckpointService, heard: Heard, count: int) -> list[Any]:
    """All changes that were told, in one list, once there are so many."""
    told: list[Any] = []
    while len(told) < count:
        world.dispatch_next(service)
        told = [change for _, changes in heard.tracked for change in changes]
    return told


@requirement("R144")
@each_transport
@pytest.mark.parametrize("kind", [SYNC, ASYNC])
def test_the_library_reports_each_change_in_its_order(world: World, kind: int) -> None:
    writer = opened(world, kind)
    heard = Heard()
    service = world.service("c", callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(writer.name, READ)
    checkpoint.track()
    writer.section_create("new", initial_data=b"12345")
    writer.write([("k", b"a", 1), ("other", b"bb", 0)])
    writer.overwrite("k", b"overwritten")
    writer.section_delete("new")
    writer.section_create("soon", world.now_ns() + 100 * MILLISECOND_NS)
    told = changes_heard(world, service, heard, 7)
    assert [change[1:] for change in told] == [
        (CREATED, b"new", 0, 5),
        (WRITTEN, b"k", 1, 1),
        (WRITTEN, b"other", 0, 2),
        (OVERWRITTEN, b"k", 0, 11),
        (DELETED, b"new", 0, 0),
        (CREATED, b"soon", 0, 0),
        (EXPIRED, b"soon", 0, 0),
    ]
    sequences = [change.sequence for change in told]
    assert sequences == sorted(sequences) and len(set(sequences)) == 6
    assert all(one is checkpoint for one, _ in heard.tracked)
    assert not world.wait_readable(service, SILENT_S)


@requirement("R144")
@pytest.mark.parametrize("lost", ["a", "c"])
def test_the_library_misses_nothing_when_a_node_is_lost(world: World, lost: str) -> None:
    """The writer's node and the active replica's (a), or the tracker's (c)."""
    writer = opened(world)
    heard = Heard()
    service = world.service("c", callbacks=heard.callbacks)
    service.checkpoint_open(writer.name, READ).track()
    for number in range(5):
        writer.overwrite("k", b"x" * number)
    world.kill(lost)
    for number in range(5, 10):
        writer.overwrite("k", b"x" * number)
    told = changes_heard(world, service, heard, 10)
    assert [change[1:] for change in told] == [(OVERWRITTEN, b"k", 0, number) for number in range(10)]


@requirement("R144")
def test_the_library_reports_the_default_section(world: World) -> None:
    writer = opened(world, max_sections=1)
    heard = Heard()
    service = world.service("b", callbacks=heard.callbacks)
    service.checkpoint_open(writer.name, ALL_MODES, attributes(max_sections=1)).track()
    writer.overwrite("", b"v")
    assert changes_heard(world, service, heard, 1)[0][1:] == (OVERWRITTEN, b"", 0, 1)


@requirement("R144")
@pytest.mark.parametrize("kind", [SYNC, ASYNC, WEAK])
def test_the_library_does_not_report_what_was_done_before(world: World, kind: int) -> None:
    writer = opened(world, kind)
    heard = Heard()
    service = world.service("b", callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(writer.name, READ)
    writer.overwrite("k", b"before")
    checkpoint.track()
    writer.overwrite("other", b"after")
    told = changes_heard(world, service, heard, 1)
    assert [change[1:] for change in told] == [(OVERWRITTEN, b"other", 0, 5)]


@requirement("R144")
def test_a_tracker_that_lags_far_gets_the_final_outcome_for_each_section(world: World) -> None:
    """The deviation."""
    writer = opened(world)
    heard = Heard()
    service = world.service("c", callbacks=heard.callbacks)
    checkpoint = service.checkpoint_open(writer.name, READ)
    checkpoint.track()
    writer.overwrite("k", b"first")
    assert world.wait_readable(service)
    for number in range(1, 90):
        writer.overwrite("k", b"x" * number)
        writer.overwrite("other", b"y" * number)
    writer.section_create("gone", initial_data=b"v")
    writer.section_delete("gone")
    writer.overwrite("k", b"last")
    world.pass_time(SETTLED_S)
    assert [change[1:] for change in changes_heard(world, service, heard, 1)] == [(OVERWRITTEN, b"k", 0, 5)]
    told = changes_heard(world, service, heard, 2)[1:]
    assert [change[1:] for change in told] == [
        (OVERWRITTEN, b"other", 0, 89),
        (OVERWRITTEN, b"k", 0, 4),
    ]
    assert not world.wait_readable(service, SILENT_S)


@requirement("R144")
@pytest.mark.parametrize("kind", [SYNC, ASYNC, WEAK])
def test_the_library_does_not_report_to_a_handle_what_it_wrote_itself(world: World, kind: int) -> None:
    writer = opened(world, kind)
    heard = Heard()
    service = world.service("b", callbacks=heard.callbacks)
    wanted = attributes(creation_flags=kind)
    own, other = (service.checkpoint_open(writer.name, ALL_MODES, wanted) for _ in range(2))
    own.track()
    for checkpoint, data in ((own, b"1"), (other, b"22"), (own, b"333"), (writer, b"4444")):
        checkpoint.overwrite("k", data)
        world.pass_time(SETTLED_S)
    told = changes_heard(world, service, heard, 2)
    assert [change[1:] for change in told] == [(OVERWRITTEN, b"k", 0, 2), (OVERWRITTEN, b"k", 0, 4)]
    assert not world.wait_readable(service, SILENT_S)
