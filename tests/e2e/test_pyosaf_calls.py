"""pyosaf's functions on real daemons: what they return, and what they fill in."""

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from select import select
from typing import Any

import pytest

from ckpt_client.pyosaf.modules import make_modules
from ckptd.testing import LocalCluster

MODULES = make_modules()
saAis: Any = MODULES["pyosaf.saAis"]
saCkpt: Any = MODULES["pyosaf.saCkpt"]

OK = "SA_AIS_OK"
NEVER = saAis.saAis.SA_TIME_END
SECOND = saAis.saAis.SA_TIME_ONE_SECOND
READ, WRITE, CREATE = 1, 2, 4
ALL_REPLICAS, ACTIVE_REPLICA, COLLOCATED = 1, 2, 8
ONE, ALL, BLOCKING = 1, 2, 3


def call(name: str, *given: Any) -> str:
    """The code that a function returns, by its name."""
    return str(saAis.eSaAisErrorT.whatis(getattr(saCkpt, name)(*given)))


def refusal(name: str, *given: Any) -> str:
    """The error that a function returns, without what all errors' names begin with."""
    return call(name, *given).removeprefix("SA_AIS_ERR_")


def section_id(content: bytes) -> Any:
    if not content:
        return saCkpt.SA_CKPT_DEFAULT_SECTION_ID()
    return saCkpt.SaCkptSectionIdT(len(content), (ctypes.c_ubyte * len(content))(*content))


def bytes_of(given: Any) -> bytes:
    """A section id's bytes."""
    return ctypes.string_at(given.id, given.idLen)


def creation(content: bytes, expiration_time: int = NEVER) -> Any:
    return saCkpt.SaCkptSectionCreationAttributesT(ctypes.pointer(section_id(content)), expiration_time)


def element(content: bytes, buffer: Any = None, size: int = 0, offset: int = 0) -> Any:
    """An element with a buffer of ctypes, which lives as long as the element."""
    address = None if buffer is None else ctypes.cast(buffer, ctypes.c_void_p)
    return saCkpt.SaCkptIOVectorElementT(section_id(content), address, size, offset, 0)


def vector_of(*elements: Any) -> Any:
    vector = saCkpt.createSaCkptIOVector(len(elements))
    for place, one in enumerate(elements):
        vector[place] = one
    return vector


def initialize(callbacks: Any = None, version: tuple[bytes, int, int] = (b"B", 2, 3)) -> Any:
    handle = saCkpt.SaCkptHandleT()
    function = (
        "saCkptInitialize_2" if isinstance(callbacks, saCkpt.SaCkptCallbacksT_2) else "saCkptInitialize"
    )
    assert call(function, handle, callbacks, saAis.SaVersionT(*version)) == OK
    return handle


def attributes(flags: int = ALL_REPLICAS, sections: int = 4, size: int = 100) -> Any:
    return saCkpt.SaCkptCheckpointCreationAttributesT(flags, sections * size, SECOND, sections, size, 16)


def open_checkpoint(handle: Any, name: str, flags: int = 7, given: Any = None) -> Any:
    """Open or create a checkpoint, "safCkpt=" before its name."""
    checkpoint = saCkpt.SaCkptCheckpointHandleT()
    wanted = (given or attributes()) if flags & CREATE else None
    full = saAis.SaNameT(b"safCkpt=" + name.encode())
    assert call("saCkptCheckpointOpen", handle, full, wanted, flags, 10 * SECOND, checkpoint) == OK
    return checkpoint


def create(checkpoint: Any, content: bytes, data: bytes = b"") -> None:
    assert call("saCkptSectionCreate", checkpoint, creation(content), data, len(data)) == OK


def read(checkpoint: Any, content: bytes) -> bytes:
    """A section's whole content."""
    one = element(content)
    assert call("saCkptCheckpointRead", checkpoint, one, 1, None) == OK
    data = ctypes.string_at(one.dataBuffer, one.readSize)
    assert call("saCkptIOVectorElementDataFree", checkpoint, one.dataBuffer) == OK
    return data


def overwrite(checkpoint: Any, content: bytes, data: bytes) -> None:
    assert call("saCkptSectionOverwrite", checkpoint, section_id(content), data, len(data)) == OK


@pytest.fixture
def service(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """Daemons at the address that functions use."""
    monkeypatch.setenv("CKPTD_ADDRESS", cluster.addresses())
    return cluster


@pytest.fixture
def handle(service: LocalCluster) -> Iterator[Any]:
    """A library instance without callbacks."""
    made = initialize()
    yield made
    saCkpt.saCkptFinalize(made)


class Heard:
    """Callbacks, and what they were given."""

    def __init__(self) -> None:
        self.opened: list[tuple[int, int, str]] = []
        self.synchronized: list[tuple[int, str]] = []
        self.tracked: list[tuple[int, list[tuple[bytes, int, int]]]] = []

    def callbacks(self) -> Any:
        return saCkpt.SaCkptCallbacksT_2(
            saCkpt.SaCkptCheckpointOpenCallbackT(self._open),
            saCkpt.SaCkptCheckpointSynchronizeCallbackT(self._synchronize),
            saCkpt.SaCkptCheckpointTrackCallbackT(self._track),
        )

    def _open(self, invocation: int, checkpoint: int, error: int) -> None:
        self.opened.append((invocation, checkpoint, saAis.eSaAisErrorT.whatis(error)))

    def _synchronize(self, invocation: int, error: int) -> None:
        self.synchronized.append((invocation, saAis.eSaAisErrorT.whatis(error)))

    def _track(self, checkpoint: int, elements: Any, count: int) -> None:
        told = [elements[place] for place in range(count)]
        assert not any(one.dataBuffer for one in told)
        places = [(bytes_of(one.sectionId), one.dataOffset, one.dataSize) for one in told]
        self.tracked.append((checkpoint, places))

    @property
    def places(self) -> list[list[tuple[bytes, int, int]]]:
        return [places for _, places in self.tracked]


def wait(handle: Any, ended: Callable[[], bool], flags: int = ALL) -> None:
    """Dispatch when the selection object says so, until something has ended."""
    descriptor = saAis.SaSelectionObjectT()
    assert call("saCkptSelectionObjectGet", handle, descriptor) == OK
    while not ended():
        assert select([descriptor.value], [], [], 20)[0], "nothing came"
        assert call("saCkptDispatch", handle, flags) == OK


# -- the library's life


@pytest.mark.parametrize("version", [(b"B", 1, 1), (b"B", 2, 2), (b"B", 2, 3), (b"B", 2, 99)])
def test_a_supported_version_is_answered_with_the_highest(service: LocalCluster, version: Any) -> None:
    """R11; the highest minor version here is OpenSAF's (R142)."""
    asked = saAis.SaVersionT(*version)
    handle = saCkpt.SaCkptHandleT()
    assert call("saCkptInitialize", handle, saCkpt.SaCkptCallbacksT(), asked) == OK
    assert (asked.releaseCode, asked.majorVersion, asked.minorVersion) == (b"B", 2, 3)
    assert handle.value
    assert call("saCkptFinalize", handle) == OK
    assert refusal("saCkptFinalize", handle) == "BAD_HANDLE"


def test_handles_differ_and_are_of_one_kind(handle: Any, name: str) -> None:
    other = initialize()
    checkpoints = [open_checkpoint(handle, name), open_checkpoint(handle, name), open_checkpoint(other, name)]
    numbers = [one.value for one in (handle, other, *checkpoints)]
    assert len(set(numbers)) == len(numbers)
    assert refusal("saCkptCheckpointClose", handle) == "BAD_HANDLE"
    assert refusal("saCkptDispatch", checkpoints[0], ALL) == "BAD_HANDLE"
    assert call("saCkptFinalize", other) == OK
    assert refusal("saCkptCheckpointClose", checkpoints[2]) == "BAD_HANDLE"
    assert call("saCkptCheckpointClose", checkpoints[1]) == OK
    assert refusal("saCkptCheckpointClose", checkpoints[1]) == "BAD_HANDLE"
    assert call("saCkptCheckpointClose", checkpoints[0].value) == OK


def test_a_program_of_b_01_has_names_of_its_own(service: LocalCluster, name: str) -> None:
    """R13, R33."""
    old, new = initialize(version=(b"B", 1, 1)), initialize()
    checkpoint = saCkpt.SaCkptCheckpointHandleT()
    given = (saAis.SaNameT(name), attributes(), 7, SECOND * 10, checkpoint)
    assert refusal("saCkptCheckpointOpen", new, *given) == "INVALID_PARAM"
    assert call("saCkptCheckpointOpen", old, *given) == OK
    for one in (old, new):
        assert call("saCkptFinalize", one) == OK


def test_dispatching_knows_three_flags(handle: Any) -> None:
    for flags in (ONE, ALL):
        assert call("saCkptDispatch", handle, flags) == OK
    for flags in (0, 4, -1):
        assert refusal("saCkptDispatch", handle, flags) == "INVALID_PARAM"


def test_dispatching_until_the_end_ends_with_the_instance(service: LocalCluster) -> None:
    handle = initialize()
    codes: list[str] = []
    thread = threading.Thread(target=lambda: codes.append(call("saCkptDispatch", handle, BLOCKING)))
    thread.start()
    assert call("saCkptFinalize", handle) == OK
    thread.join(20)
    assert codes in ([OK], ["SA_AIS_ERR_BAD_HANDLE"])  # The latter where the thread came too late.


# -- opening


def test_opens_are_refused_with_their_codes(handle: Any, name: str) -> None:
    checkpoint = saCkpt.SaCkptCheckpointHandleT(5)
    full = saAis.SaNameT(b"safCkpt=" + name.encode())

    def refused(given: Any, flags: int, timeout: int = SECOND, of: Any = full) -> str:
        return refusal("saCkptCheckpointOpen", handle, of, given, flags, timeout, checkpoint)

    assert refused(None, READ) == "NOT_EXIST"
    assert refused(None, READ | CREATE) == "INVALID_PARAM"
    assert refused(attributes(), READ) == "INVALID_PARAM"
    assert refused(attributes(), 0) == "BAD_FLAGS"
    assert refused(attributes(), 8) == "BAD_FLAGS"
    assert refused(attributes(3), CREATE) == "INVALID_PARAM"
    assert refused(attributes(), CREATE, -1) == "INVALID_PARAM"
    assert refused(attributes(), CREATE, of=saAis.SaNameT()) == "INVALID_PARAM"
    assert checkpoint.value == 5
    open_checkpoint(handle, name)
    assert refused(attributes(sections=5), CREATE) == "EXIST"
    assert call("saCkptCheckpointUnlink", handle, full) == OK
    assert refusal("saCkptCheckpointUnlink", handle, full) == "NOT_EXIST"


def test_a_structure_may_come_as_a_pointer(handle: Any, name: str) -> None:
    checkpoint = saCkpt.SaCkptCheckpointHandleT()
    full = saAis.SaNameT(b"safCkpt=" + name.encode())
    given = (ctypes.pointer(full), ctypes.byref(attributes()), 7, SECOND * 10, ctypes.byref(checkpoint))
    assert call("saCkptCheckpointOpen", handle, *given) == OK
    assert call("saCkptCheckpointClose", checkpoint) == OK


def test_the_state_of_a_checkpoint_is_filled_in(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a", b"12345")
    assert call("saCkptCheckpointRetentionDurationSet", checkpoint, 7 * SECOND) == OK
    assert refusal("saCkptCheckpointRetentionDurationSet", checkpoint, -1) == "INVALID_PARAM"
    status = saCkpt.SaCkptCheckpointDescriptorT()
    assert call("saCkptCheckpointStatusGet", checkpoint, status) == OK
    assert (status.numberOfSections, status.memoryUsed) == (1, 5)
    made = status.checkpointCreationAttributes
    values = [getattr(made, field) for field, _ in made._fields_]
    assert values == [ALL_REPLICAS, 400, 7 * SECOND, 4, 100, 16]


def test_the_active_replica_is_set_where_there_is_one_to_set(handle: Any, name: str) -> None:
    synchronous = open_checkpoint(handle, name)
    assert refusal("saCkptActiveReplicaSet", synchronous) == "BAD_OPERATION"
    assert refusal("saCkptCheckpointSynchronize", synchronous, SECOND) == "BAD_OPERATION"
    collocated = open_checkpoint(handle, name + "-local", given=attributes(ACTIVE_REPLICA | COLLOCATED))
    assert refusal("saCkptSectionCreate", collocated, creation(b"a"), None, 0) == "NOT_EXIST"
    assert call("saCkptActiveReplicaSet", collocated) == OK
    create(collocated, b"a", b"1")
    assert call("saCkptCheckpointSynchronize", collocated, 10 * SECOND) == OK
    assert refusal("saCkptCheckpointSynchronize", collocated, -1) == "INVALID_PARAM"


# -- sections


def test_sections_are_created_and_deleted(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a\0b", b"data")
    assert read(checkpoint, b"a\0b") == b"data"
    assert refusal("saCkptSectionCreate", checkpoint, creation(b"a\0b"), None, 0) == "EXIST"
    assert refusal("saCkptSectionCreate", checkpoint, creation(b"c"), b"x" * 101, 101) == "INVALID_PARAM"
    assert refusal("saCkptSectionCreate", checkpoint, creation(b"c" * 17), None, 0) == "INVALID_PARAM"
    assert refusal("saCkptSectionCreate", checkpoint, creation(b"c", 5), None, 0) == "INVALID_PARAM"
    for content in (b"1", b"2", b"3"):
        create(checkpoint, content)
    assert refusal("saCkptSectionCreate", checkpoint, creation(b"4"), None, 0) == "NO_SPACE"
    assert call("saCkptSectionDelete", checkpoint, section_id(b"1")) == OK
    assert refusal("saCkptSectionDelete", checkpoint, section_id(b"1")) == "NOT_EXIST"
    assert refusal("saCkptSectionDelete", checkpoint, saCkpt.SA_CKPT_DEFAULT_SECTION_ID()) == "INVALID_PARAM"


def test_initial_data_comes_in_every_form(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    number = ctypes.c_uint(7)
    forms = (
        number,
        ctypes.pointer(number),
        ctypes.byref(number),
        ctypes.cast(ctypes.byref(number), ctypes.c_void_p),
    )
    for place, form in enumerate(forms[1:]):
        given = creation(b"%d" % place)
        assert call("saCkptSectionCreate", checkpoint, given, form, ctypes.sizeof(number)) == OK
        assert read(checkpoint, b"%d" % place) == bytes(number)
    with pytest.raises(ctypes.ArgumentError):
        saCkpt.saCkptSectionCreate(checkpoint, creation(b"x"), forms[0], 4)


def test_a_generated_id_is_filled_in_and_freed_once(handle: Any, name: str) -> None:
    """R97, R98."""
    checkpoint = open_checkpoint(handle, name)
    ids = [saCkpt.SA_CKPT_GENERATED_SECTION_ID() for _ in range(2)]
    for generated in ids:
        given = saCkpt.SaCkptSectionCreationAttributesT(ctypes.pointer(generated), NEVER)
        assert call("saCkptSectionCreate", checkpoint, given, b"x", 1) == OK
        assert 1 <= generated.idLen <= 16 and generated.id
        assert refusal("saCkptSectionCreate", checkpoint, given, b"x", 1) == "EXIST"
    assert bytes_of(ids[0]) != bytes_of(ids[1])
    assert read(checkpoint, bytes_of(ids[0])) == b"x"
    assert call("saCkptSectionIdFree", checkpoint, ids[0].id.contents) == OK
    assert refusal("saCkptSectionIdFree", checkpoint, ids[0].id) == "INVALID_PARAM"
    assert call("saCkptSectionIdFree", checkpoint, ids[1].id) == OK
    mine = section_id(b"mine")
    assert refusal("saCkptSectionIdFree", checkpoint, mine.id) == "INVALID_PARAM"


def test_a_checkpoint_of_one_section_has_the_default_one(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name, given=attributes(sections=1))
    default = saCkpt.SA_CKPT_DEFAULT_SECTION_ID()
    assert call("saCkptSectionOverwrite", checkpoint, default, b"state", 5) == OK
    assert read(checkpoint, b"") == b"state"
    assert refusal("saCkptSectionCreate", checkpoint, creation(b"a"), None, 0) == "EXIST"


def test_an_iteration_fills_a_descriptor_with_each_section(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    later = (time.time_ns() // SECOND + 3600) * SECOND
    create(checkpoint, b"forever", b"123")
    assert call("saCkptSectionCreate", checkpoint, creation(b"hour", later), None, 0) == OK
    assert call("saCkptSectionCreate", checkpoint, creation(b"sooner", later), None, 0) == OK
    sooner = section_id(b"sooner")
    assert call("saCkptSectionExpirationTimeSet", checkpoint, sooner, later - SECOND) == OK
    assert refusal("saCkptSectionExpirationTimeSet", checkpoint, section_id(b"no"), later) == "NOT_EXIST"

    def found(chosen: int, expiration_time: int = 0) -> dict[bytes, tuple[int, int, int]]:
        iteration = saCkpt.SaCkptSectionIterationHandleT()
        given = (checkpoint, chosen, expiration_time, iteration)
        assert call("saCkptSectionIterationInitialize", *given) == OK
        descriptor = saCkpt.SaCkptSectionDescriptorT()
        sections = {}
        while (code := call("saCkptSectionIterationNext", iteration, descriptor)) == OK:
            assert descriptor.lastUpdate > 0
            state = (descriptor.sectionSize, descriptor.sectionState, descriptor.expirationTime)
            sections[bytes_of(descriptor.sectionId)] = state
        assert code == "SA_AIS_ERR_NO_SECTIONS"
        assert refusal("saCkptSectionIterationNext", iteration, descriptor) == "NO_SECTIONS"
        assert call("saCkptSectionIterationFinalize", iteration) == OK
        assert refusal("saCkptSectionIterationFinalize", iteration) == "BAD_HANDLE"
        assert refusal("saCkptSectionIterationNext", iteration, descriptor) == "BAD_HANDLE"
        return sections

    assert found(5) == {b"forever": (3, 1, NEVER), b"hour": (0, 1, later), b"sooner": (0, 1, later - SECOND)}
    assert set(found(1)) == {b"forever"}
    assert set(found(2, later - SECOND)) == {b"sooner"}
    assert set(found(3, later)) == {b"forever", b"hour"}
    assert found(4) == {}
    iteration = saCkpt.SaCkptSectionIterationHandleT()
    for chosen, when in ((0, 0), (6, 0), (2, -1)):
        given = (checkpoint, chosen, when, iteration)
        assert refusal("saCkptSectionIterationInitialize", *given) == "INVALID_PARAM"


def test_an_iteration_ends_with_its_checkpoint(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a")
    iteration, descriptor = saCkpt.SaCkptSectionIterationHandleT(), saCkpt.SaCkptSectionDescriptorT()
    assert call("saCkptSectionIterationInitialize", checkpoint, 5, 0, iteration) == OK
    assert call("saCkptCheckpointClose", checkpoint) == OK
    assert refusal("saCkptSectionIterationNext", iteration, descriptor) == "BAD_HANDLE"
    assert refusal("saCkptSectionIterationFinalize", iteration) == "BAD_HANDLE"


# -- contents


def test_several_pieces_are_written_and_read_by_one_call(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a", b"aaaaa")
    create(checkpoint, b"b")
    one, two = ctypes.create_string_buffer(b"12", 2), ctypes.create_string_buffer(b"345", 3)
    vector = vector_of(element(b"a", one, 2, 1), element(b"b", two, 3))
    for form in (vector, vector[0]):
        assert call("saCkptCheckpointWrite", checkpoint, form, 2, None) == OK
    assert (read(checkpoint, b"a"), read(checkpoint, b"b")) == (b"a12aa", b"345")

    first, second = ctypes.create_string_buffer(10), ctypes.create_string_buffer(10)
    index = saAis.SaUint32T(99)
    vector = vector_of(element(b"a", first, 10, 1), element(b"b", second, 2), element(b"a", None, 77, 3))
    assert call("saCkptCheckpointRead", checkpoint, vector[0], 3, index) == OK
    assert [one.readSize for one in vector] == [4, 2, 2]
    assert (first.raw, second.raw) == (b"12aa".ljust(10, b"\0"), b"34".ljust(10, b"\0"))
    assert ctypes.string_at(vector[2].dataBuffer, 2) == b"aa"
    assert index.value == 99
    assert call("saCkptIOVectorElementDataFree", checkpoint, vector[2].dataBuffer) == OK
    assert refusal("saCkptIOVectorElementDataFree", checkpoint, vector[2].dataBuffer) == "INVALID_PARAM"


def test_the_wrong_element_is_reported_and_nothing_is_written(handle: Any, name: str) -> None:
    """R55, R121."""
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a", b"as it was")
    data = ctypes.create_string_buffer(200)
    good = element(b"a", data, 1)
    for wrong, expected in (
        (element(b"missing", data, 1), "NOT_EXIST"),
        (element(b"a", data, 101), "INVALID_PARAM"),
        (element(b"a", None, 1), "INVALID_PARAM"),
        (element(b"a", data, 1, 100), "NO_RESOURCES"),
        (saCkpt.SaCkptIOVectorElementT(saCkpt.SaCkptSectionIdT(3, None)), "INVALID_PARAM"),
    ):
        index = saAis.SaUint32T(99)
        vector = vector_of(good, wrong, good)
        assert refusal("saCkptCheckpointWrite", checkpoint, vector, 3, index) == expected
        assert index.value == 1
        assert refusal("saCkptCheckpointWrite", checkpoint, vector, 3, None) == expected
    assert read(checkpoint, b"a") == b"as it was"
    index = saAis.SaUint32T(99)
    missing = vector_of(element(b"a"), element(b"missing"))
    assert refusal("saCkptCheckpointRead", checkpoint, missing, 2, index) == "NOT_EXIST"
    assert index.value == 1


def test_contents_are_overwritten_with_data_in_every_form(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a", b"longer than what comes")
    number = ctypes.c_uint(7)
    for form in (bytes(number), ctypes.byref(number), ctypes.addressof(number), ctypes.pointer(number)):
        assert call("saCkptSectionOverwrite", checkpoint, section_id(b"a"), form, 4) == OK
        assert read(checkpoint, b"a") == bytes(number)
    assert call("saCkptSectionOverwrite", checkpoint, section_id(b"a"), b"", 0) == OK
    assert read(checkpoint, b"a") == b""
    assert refusal("saCkptSectionOverwrite", checkpoint, section_id(b"b"), b"x", 1) == "NOT_EXIST"
    assert refusal("saCkptSectionOverwrite", checkpoint, section_id(b"a"), b"x" * 101, 101) == "INVALID_PARAM"


def test_access_is_what_the_handle_was_opened_for(handle: Any, name: str) -> None:
    writer = open_checkpoint(handle, name, WRITE | CREATE)
    reader = open_checkpoint(handle, name, READ)
    create(writer, b"a", b"1")
    assert refusal("saCkptSectionOverwrite", reader, section_id(b"a"), b"2", 1) == "ACCESS"
    assert refusal("saCkptCheckpointRead", writer, element(b"a"), 1, None) == "ACCESS"
    assert read(reader, b"a") == b"1"


def test_memory_that_the_library_gave_outlives_the_checkpoint(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    create(checkpoint, b"a", b"still here")
    one = element(b"a")
    assert call("saCkptCheckpointRead", checkpoint, one, 1, None) == OK
    assert call("saCkptCheckpointClose", checkpoint) == OK
    gc.collect()
    assert ctypes.string_at(one.dataBuffer) == b"still here"
    assert refusal("saCkptIOVectorElementDataFree", checkpoint, one.dataBuffer) == "BAD_HANDLE"


# -- callbacks


def test_without_a_callback_asynchronous_calls_are_refused(handle: Any, name: str) -> None:
    full = saAis.SaNameT(b"safCkpt=" + name.encode())
    assert refusal("saCkptCheckpointOpenAsync", handle, 1, full, attributes(), 7) == "INIT"
    checkpoint = open_checkpoint(handle, name, given=attributes(ACTIVE_REPLICA))
    assert refusal("saCkptCheckpointSynchronizeAsync", checkpoint, 1) == "INIT"


def test_asynchronous_calls_end_with_a_callback(service: LocalCluster, name: str) -> None:
    heard = Heard()
    handle = initialize(heard.callbacks())
    gc.collect()  # Nobody but the library holds the callbacks now.
    full = saAis.SaNameT(b"safCkpt=" + name.encode())
    assert refusal("saCkptCheckpointOpenAsync", handle, 0, full, None, CREATE) == "INVALID_PARAM"
    biggest = 2**64 - 1
    given = attributes(ACTIVE_REPLICA)
    assert call("saCkptCheckpointOpenAsync", handle, biggest, full, given, 7) == OK
    wait(handle, lambda: bool(heard.opened))
    invocation, checkpoint, code = heard.opened[0]
    assert (invocation, code) == (biggest, OK)
    assert call("saCkptCheckpointOpenAsync", handle, 0, saAis.SaNameT(b"safCkpt=none"), None, READ) == OK
    wait(handle, lambda: len(heard.opened) == 2, ONE)
    assert heard.opened[1][::2] == (0, "SA_AIS_ERR_NOT_EXIST")
    create(checkpoint, b"a", b"1")
    assert call("saCkptCheckpointSynchronizeAsync", checkpoint, 5) == OK
    wait(handle, lambda: bool(heard.synchronized))
    assert heard.synchronized == [(5, OK)]
    assert call("saCkptFinalize", handle) == OK


def test_callbacks_are_those_that_were_given_at_first(service: LocalCluster, name: str) -> None:
    heard, others = Heard(), Heard()
    callbacks = heard.callbacks()
    handle = initialize(callbacks)
    ctypes.memmove(ctypes.addressof(callbacks), bytes(others.callbacks()), ctypes.sizeof(callbacks))
    full = saAis.SaNameT(b"safCkpt=" + name.encode())
    assert call("saCkptCheckpointOpenAsync", handle, 1, full, attributes(), 7) == OK
    wait(handle, lambda: bool(heard.opened))
    assert others.opened == []
    assert call("saCkptFinalize", handle) == OK


# -- tracking


def test_tracking_needs_its_version_and_its_callback(service: LocalCluster, name: str) -> None:
    """R142, R143."""
    heard = Heard()
    older = initialize(heard.callbacks(), (b"B", 2, 2))
    without = initialize(saCkpt.SaCkptCallbacksT_2())
    plain = initialize(saCkpt.SaCkptCallbacksT())
    tracking = initialize(heard.callbacks())
    assert refusal("saCkptTrack", older) == refusal("saCkptTrackStop", older) == "VERSION"
    assert refusal("saCkptTrack", without) == refusal("saCkptTrack", plain) == "INIT"
    assert refusal("saCkptTrackStop", tracking) == "NOT_EXIST"
    assert call("saCkptTrack", tracking) == call("saCkptTrack", tracking) == OK
    assert call("saCkptTrackStop", tracking) == OK
    assert refusal("saCkptTrackStop", tracking) == "NOT_EXIST"
    checkpoint = open_checkpoint(tracking, name)
    assert refusal("saCkptCheckpointTrack", checkpoint) == "NOT_SUPPORTED"
    assert refusal("saCkptCheckpointTrackStop", checkpoint) == "NOT_SUPPORTED"
    for handle in (older, without, plain, tracking):
        assert call("saCkptFinalize", handle) == OK


def test_each_call_of_another_handle_is_reported_once(service: LocalCluster, name: str) -> None:
    """R144: also of another handle of the same instance; not to the handle that wrote."""
    heard = Heard()
    handle, other = initialize(heard.callbacks()), initialize()
    tracked = open_checkpoint(handle, name)
    writer = open_checkpoint(handle, name, WRITE)
    elsewhere = open_checkpoint(other, name, WRITE)
    assert call("saCkptTrack", handle) == OK
    create(elsewhere, b"a", b"12345")
    create(tracked, b"mine", b"1")
    create(elsewhere, b"empty")
    overwrite(writer, b"a", b"123")
    data = ctypes.create_string_buffer(b"xyz", 3)
    vector = vector_of(element(b"a", data, 2, 1), element(b"empty", data, 3, 4))
    assert call("saCkptCheckpointWrite", elsewhere, vector, 2, None) == OK
    assert call("saCkptSectionDelete", writer, section_id(b"a")) == OK
    expected = [[(b"a", 0, 5)], [(b"a", 0, 3)], [(b"a", 1, 2), (b"empty", 4, 3)], [(b"a", 0, 0)]]
    wait(handle, lambda: len(heard.tracked) >= len(expected))
    assert heard.places == expected
    assert {checkpoint for checkpoint, _ in heard.tracked} == {tracked.value}
    for one in (handle, other):
        assert call("saCkptFinalize", one) == OK


def test_what_is_opened_while_the_instance_tracks_is_tracked(service: LocalCluster, name: str) -> None:
    heard = Heard()
    handle, other = initialize(heard.callbacks()), initialize()
    writer = open_checkpoint(other, name)
    assert call("saCkptTrack", handle) == OK
    full = saAis.SaNameT(b"safCkpt=" + name.encode())
    assert call("saCkptCheckpointOpenAsync", handle, 1, full, None, READ) == OK
    wait(handle, lambda: bool(heard.opened))
    create(writer, b"a", b"1")
    wait(handle, lambda: bool(heard.tracked))
    assert heard.tracked == [(heard.opened[0][1], [(b"a", 0, 1)])]
    for one in (handle, other):
        assert call("saCkptFinalize", one) == OK


def test_one_callback_is_dispatched_for_one(service: LocalCluster, name: str) -> None:
    """R17: also where the updates came together."""
    heard = Heard()
    handle, other = initialize(heard.callbacks()), initialize()
    open_checkpoint(handle, name)
    writer = open_checkpoint(other, name, WRITE)
    assert call("saCkptTrack", handle) == OK
    for content in (b"1", b"2", b"3", b"4"):
        create(writer, content, content)
    for count in range(1, 5):
        wait(handle, lambda count=count: len(heard.tracked) >= count, ONE)
        assert len(heard.tracked) == count
    assert [places[0][0] for places in heard.places] == [b"1", b"2", b"3", b"4"]
    for one in (handle, other):
        assert call("saCkptFinalize", one) == OK


def test_after_tracking_stopped_nothing_is_reported(service: LocalCluster, name: str) -> None:
    heard = Heard()
    handle, other = initialize(heard.callbacks()), initialize()
    open_checkpoint(handle, name)
    writer = open_checkpoint(other, name, WRITE)
    descriptor = saAis.SaSelectionObjectT()
    assert call("saCkptSelectionObjectGet", handle, descriptor) == OK
    assert call("saCkptTrack", handle) == OK
    create(writer, b"a", b"1")
    assert select([descriptor.value], [], [], 20)[0]
    assert call("saCkptTrackStop", handle) == OK
    assert call("saCkptDispatch", handle, ALL) == OK
    overwrite(writer, b"a", b"2")
    assert call("saCkptTrack", handle) == OK
    overwrite(writer, b"a", b"three")
    wait(handle, lambda: bool(heard.tracked))
    assert heard.places == [[(b"a", 0, 5)]]
    for one in (handle, other):
        assert call("saCkptFinalize", one) == OK


def test_a_callback_may_close_the_checkpoint_and_is_called_no_more(service: LocalCluster, name: str) -> None:
    """R63."""
    told: list[int] = []

    def close(checkpoint: int, elements: Any, count: int) -> None:
        told.append(checkpoint)
        assert call("saCkptCheckpointClose", checkpoint) == OK

    callbacks = saCkpt.SaCkptCallbacksT_2()
    callbacks.saCkptCheckpointTrackCallback = saCkpt.SaCkptCheckpointTrackCallbackT(close)
    handle, other = initialize(callbacks), initialize()
    tracked = open_checkpoint(handle, name)
    writer = open_checkpoint(other, name, WRITE)
    assert call("saCkptTrack", handle) == OK
    for content in (b"1", b"2", b"3"):
        create(writer, content, content)
    wait(handle, lambda: bool(told))
    assert call("saCkptDispatch", handle, ALL) == OK
    assert told == [tracked.value]
    for one in (handle, other):
        assert call("saCkptFinalize", one) == OK


def test_tracking_may_begin_before_there_is_an_active_replica(service: LocalCluster, name: str) -> None:
    heard = Heard()
    handle, other = initialize(heard.callbacks()), initialize()
    given = attributes(ACTIVE_REPLICA | COLLOCATED)
    tracked = open_checkpoint(handle, name, given=given)
    assert call("saCkptTrack", handle) == OK
    writer = open_checkpoint(other, name, given=given)
    assert call("saCkptActiveReplicaSet", writer) == OK
    create(writer, b"11", b"new")
    wait(handle, lambda: bool(heard.tracked), ONE)
    assert heard.tracked == [(tracked.value, [(b"11", 0, 3)])]
    for one in (handle, other):
        assert call("saCkptFinalize", one) == OK


def test_what_a_callback_raises_is_shown_and_dispatching_continues(
    service: LocalCluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in ctypes' callbacks everywhere."""
    shown: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", shown.append)
    heard: list[int] = []

    def opened(invocation: int, checkpoint: int, error: int) -> None:
        heard.append(invocation)
        raise ValueError(invocation)

    handle = initialize(saCkpt.SaCkptCallbacksT(saCkpt.SaCkptCheckpointOpenCallbackT(opened)))
    for invocation in (1, 2):
        missing = saAis.SaNameT(b"safCkpt=none")
        assert call("saCkptCheckpointOpenAsync", handle, invocation, missing, None, READ) == OK
    wait(handle, lambda: len(heard) == 2)
    assert sorted(heard) == [1, 2]
    assert [type(one.exc_value) for one in shown] == [ValueError, ValueError]
    assert call("saCkptFinalize", handle) == OK


def test_a_forked_child_has_none_of_its_parents_handles(handle: Any, name: str) -> None:
    checkpoint = open_checkpoint(handle, name)
    child = os.fork()
    if child == 0:
        codes = {refusal("saCkptCheckpointClose", checkpoint), refusal("saCkptFinalize", handle)}
        os._exit(0 if codes == {"BAD_HANDLE"} else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert call("saCkptCheckpointClose", checkpoint) == OK
