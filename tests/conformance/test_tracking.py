"""Tracking as OpenSAF has it, for programs of pyosaf (R142 to R144)."""

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conformance import shorthand
from tests.conformance.marks import VIRTUAL, on, requirement
from tests.conformance.shorthand import (
    ASYNC,
    KINDS,
    READ,
    SYNC,
    WEAK,
    WRITE,
    refused,
)
from tests.conformance.world import World

from ckpt_client.pyosaf import library
from ckpt_client.pyosaf.modules import make_modules
from ckpt_client.saf import Checkpoint, CheckpointService
from ckpt_protocol.codes import SaAisErrorT
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

saf: Any = make_modules()["pyosaf.saCkpt"]
TRACKING = (b"B", 2, 3)
SILENT_S = 0.1
"""So long nothing is heard where nothing is to come."""

SETTLED_S = 0.05
"""After so long an update is known everywhere, and the next of a weak checkpoint travels by itself."""

Place = tuple[bytes, int, int]
"""A section's id, the offset and the size of what was done to it."""


class Program:
    """A program of pyosaf at a node, with a library instance that hears of changes."""

    def __init__(
        self, world: World, node: str, version: tuple[bytes, int, int] = TRACKING, deaf: bool = False
    ) -> None:
        self.world = world
        self.heard: list[tuple[int, list[Place]]] = []
        self.handle = saf.SaCkptHandleT()
        self._kept = saf.SaCkptCheckpointTrackCallbackT(self._hear)
        callbacks = saf.SaCkptCallbacksT_2()
        if not deaf:
            callbacks.saCkptCheckpointTrackCallback = self._kept
        _Initialized.at = world, node
        given = saf.SaVersionT(*version)
        assert self.call("Initialize_2", self.handle, callbacks, given) == "OK"
        self.service: CheckpointService = _Initialized.made

    def _hear(self, checkpoint: int, elements: Any, count: int) -> None:
        told = [elements[index] for index in range(count)]
        assert all(not element.dataBuffer for element in told)
        places = [
            (
                ctypes.string_at(element.sectionId.id, element.sectionId.idLen),
                element.dataOffset,
                element.dataSize,
            )
            for element in told
        ]
        self.heard.append((checkpoint, places))

    def call(self, name: str, *given: Any) -> str:
        """A function of the interface; the code that it returns, without its prefix."""
        code = SaAisErrorT(getattr(saf, f"saCkpt{name}")(*given))
        return code.name.removeprefix("SA_AIS_ERR_").removeprefix("SA_AIS_")

    def open(self, name: bytes, open_flags: int = READ) -> int:
        """Open a checkpoint; its handle."""
        checkpoint = saf.SaCkptCheckpointHandleT()
        given = (saf.SaNameT(name), None, open_flags, 10 * SECOND_NS, checkpoint)
        assert self.call("CheckpointOpen", self.handle, *given) == "OK"
        return int(checkpoint.value)

    def overwrite(self, checkpoint: int, section_id: bytes, data: bytes) -> None:
        """SectionOverwrite."""
        own = (ctypes.c_ubyte * len(section_id))(*section_id)
        given = (saf.SaCkptSectionIdT(len(section_id), own), data, len(data))
        assert self.call("SectionOverwrite", checkpoint, *given) == "OK"

    def hears(self, count: int) -> list[tuple[int, list[Place]]]:
        """What it hears, dispatching until it has heard this often, and for a while after that."""
        while len(self.heard) < count:
            assert self.world.wait_readable(self.service), f"heard only {self.heard}"
            assert self.call("Dispatch", self.handle, 2) == "OK"
        if self.world.wait_readable(self.service, SILENT_S):
            assert self.call("Dispatch", self.handle, 2) == "OK"
        return self.heard


class _Initialized:
    """Instead of the service's class in the module: `initialize` comes to this world's nodes."""

    at: tuple[World, str]
    made: CheckpointService

    @classmethod
    def initialize(cls, version: tuple[str, int, int], callbacks: Any) -> CheckpointService:
        """A service at the node."""
        world, node = cls.at
        cls.made = world.service(node, version, callbacks)
        return cls.made


@pytest.fixture(autouse=True)
def pyosaf_in_this_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Programs of pyosaf come to the nodes of the scenario's world."""
    monkeypatch.setattr(library, "CheckpointService", _Initialized)
    yield


def opened(world: World, kind: int = SYNC, **changed: int) -> Checkpoint:
    """A new checkpoint of this kind with an active replica at a, and the sections "k" and "other"."""
    checkpoint = shorthand.opened(world, kind, **changed)
    if changed.get("max_sections") != 1:
        for section_id in ("k", "other"):
            checkpoint.section_create(section_id, initial_data=b"0123456789")
    world.pass_time(SETTLED_S)
    return checkpoint


def spaced(world: World, kind: int, *updates: Callable[[], object]) -> None:
    """Do updates: those of a weak checkpoint far enough apart that each travels by itself."""
    for update in updates:
        update()
        if kind & WEAK:
            world.pass_time(SETTLED_S)


# -- what OpenSAF added


@requirement("R142")
def test_tracking_is_offered_under_the_names_and_the_version_of_opensaf(world: World) -> None:
    checkpoint = opened(world)
    program = Program(world, "a")
    version = saf.SaVersionT(b"B", 2, 2)
    handle = saf.SaCkptHandleT()
    assert program.call("Initialize", handle, None, version) == "OK"
    assert (version.releaseCode, version.majorVersion, version.minorVersion) == TRACKING
    assert program.call("Finalize", handle) == "OK"
    number = program.open(checkpoint.name)
    for name in ("CheckpointTrack", "CheckpointTrackStop"):
        assert program.call(name, number) == "NOT_SUPPORTED"
        assert program.call(name, 0) == "BAD_HANDLE"


@requirement("R142")
def test_the_service_itself_speaks_b_02_02(world: World) -> None:
    assert world.service("a", ("B", 2, 3)).version == ("B", 2, 2)
    assert world.service("a", ("B", 2, 99)).version == ("B", 2, 2)


@requirement("R143")
@pytest.mark.parametrize("version", [(b"B", 1, 1), (b"B", 2, 1), (b"B", 2, 2)])
def test_a_program_of_an_older_version_does_not_track(world: World, version: tuple[bytes, int, int]) -> None:
    program = Program(world, "a", version)
    assert program.call("Track", program.handle) == "VERSION"
    assert program.call("TrackStop", program.handle) == "VERSION"


@requirement("R143")
def test_what_tracking_refuses(world: World) -> None:
    program, deaf = Program(world, "a"), Program(world, "a", deaf=True)
    assert deaf.call("Track", deaf.handle) == "INIT"
    assert deaf.call("TrackStop", deaf.handle) == "NOT_EXIST"
    assert program.call("TrackStop", program.handle) == "NOT_EXIST"
    assert program.call("Track", program.handle) == "OK"
    assert program.call("TrackStop", program.handle) == "OK"
    assert program.call("TrackStop", program.handle) == "NOT_EXIST"
    checkpoint = program.open(opened(world).name)
    for name in ("Track", "TrackStop"):
        assert program.call(name, 0) == "BAD_HANDLE"
        assert program.call(name, checkpoint) == "BAD_HANDLE"
    assert program.call("Finalize", program.handle) == "OK"
    for name in ("Track", "TrackStop"):
        assert program.call(name, program.handle) == "BAD_HANDLE"


@requirement("R144")
@pytest.mark.parametrize("kind", KINDS)
def test_each_update_is_one_callback_with_what_it_touched(world: World, kind: int) -> None:
    writer = opened(world, kind)
    program = Program(world, "b")
    checkpoint = program.open(writer.name)
    assert program.call("Track", program.handle) == "OK"
    spaced(
        world,
        kind,
        lambda: writer.section_create("new", initial_data=b"12345"),
        lambda: writer.write([("k", b"abc", 4)]),
        lambda: writer.overwrite("other", b"overwritten"),
        lambda: writer.section_delete("new"),
    )
    expected = [
        [(b"new", 0, 5)],
        [(b"k", 4, 3)] if not kind & WEAK else [(b"k", 0, 10)],
        [(b"other", 0, 11)],
        [(b"new", 0, 0)],
    ]
    assert program.hears(4) == [(checkpoint, places) for places in expected]


@requirement("R144")
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_done_before_is_not_reported(world: World, kind: int) -> None:
    writer = opened(world, kind)
    program = Program(world, "b")
    program.open(writer.name)
    writer.overwrite("k", b"before")
    assert program.call("Track", program.handle) == "OK"
    assert program.hears(0) == []


@requirement("R144")
@pytest.mark.parametrize("kind", [SYNC, ASYNC])
def test_a_write_of_several_elements_is_one_callback(world: World, kind: int) -> None:
    writer = opened(world, kind)
    program = Program(world, "c")
    checkpoint = program.open(writer.name)
    assert program.call("Track", program.handle) == "OK"
    writer.write([("k", b"a", 1), ("other", b"bb", 0), ("k", b"ccc", 90)])
    places = [(b"k", 1, 1), (b"other", 0, 2), (b"k", 90, 3)]
    assert program.hears(1) == [(checkpoint, places)]


@requirement("R144")
@on(VIRTUAL, why="the updates fall into one batch of a weak checkpoint")
def test_updates_of_one_weak_batch_are_reported_together_with_their_final_outcome(world: World) -> None:
    """The deviation."""
    writer = opened(world, WEAK)
    program = Program(world, "b")
    checkpoint = program.open(writer.name)
    assert program.call("Track", program.handle) == "OK"
    for number in range(4):
        writer.overwrite("k", b"x" * (number + 1))
    writer.section_delete("other")
    ((told, places),) = program.hears(1)
    assert told == checkpoint
    assert sorted(places) == [(b"k", 0, 4), (b"other", 0, 0)]


@requirement("R144")
def test_what_is_no_update_of_contents_is_not_reported(world: World) -> None:
    writer = opened(world)
    program = Program(world, "b")
    checkpoint = program.open(writer.name)
    assert program.call("Track", program.handle) == "OK"
    writer.section_create("empty")
    writer.section_expiration_time_set("empty", world.now_ns() + 150 * MILLISECOND_NS)
    writer.retention_duration_set(SECOND_NS)
    writer.read([("k", None, 0)])
    with refused("NOT_EXIST"):
        writer.write([("k", b"x", 0), ("none", b"x", 0)])
    with refused("EXIST"):
        writer.section_create("k")
    world.pass_time(0.25)
    assert writer.status_get().number_of_sections == 2
    writer.overwrite("k", b"v")
    assert program.hears(1) == [(checkpoint, [(b"k", 0, 1)])]


@requirement("R144")
@pytest.mark.parametrize("kind", KINDS)
def test_the_handle_that_wrote_gets_no_report_and_all_others_do(world: World, kind: int) -> None:
    writer = opened(world, kind)
    program, other = Program(world, "a"), Program(world, "b")
    writes, reads = program.open(writer.name, READ | WRITE), program.open(writer.name)
    elsewhere = other.open(writer.name, READ | WRITE)
    for one in (program, other):
        assert one.call("Track", one.handle) == "OK"
    program.overwrite(writes, b"k", b"v")
    assert program.hears(1) == [(reads, [(b"k", 0, 1)])]
    assert other.hears(1) == [(elsewhere, [(b"k", 0, 1)])]


@requirement("R144")
def test_only_what_is_open_for_reading_is_reported(world: World) -> None:
    writer, unknown = opened(world), opened(world)
    program = Program(world, "b")
    program.open(writer.name, WRITE)
    assert program.call("Track", program.handle) == "OK"
    later = program.open(writer.name, READ)
    writer.overwrite("k", b"v")
    unknown.overwrite("k", b"v")
    assert program.hears(1) == [(later, [(b"k", 0, 1)])]
    assert program.call("CheckpointClose", later) == "OK"
    writer.overwrite("k", b"w")
    assert program.hears(1) == [(later, [(b"k", 0, 1)])]


@requirement("R144")
def test_after_track_stop_nothing_is_reported_and_after_track_again_only_what_comes_then(
    world: World,
) -> None:
    writer = opened(world)
    program = Program(world, "b")
    checkpoint = program.open(writer.name)
    assert program.call("Track", program.handle) == "OK"
    writer.overwrite("k", b"untold")
    assert world.wait_readable(program.service)
    assert program.call("TrackStop", program.handle) == "OK"
    writer.overwrite("k", b"unheard")
    assert program.hears(0) == []
    assert program.call("Track", program.handle) == "OK"
    writer.overwrite("k", b"heard")
    assert program.hears(1) == [(checkpoint, [(b"k", 0, 5)])]


@requirement("R144")
def test_what_was_reported_can_be_read(world: World) -> None:
    writer = opened(world)
    reader = world.open("c", writer.name, READ)
    program = Program(world, "c")
    program.open(writer.name)
    assert program.call("Track", program.handle) == "OK"
    for number in range(1, 6):
        writer.write([("k", b"%d" % number, number)])
        (_, [(section_id, offset, size)]) = program.hears(number)[-1]
        assert reader.read([(section_id, size, offset)]) == [b"%d" % number]
