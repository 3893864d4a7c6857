"""The functions of ASP's module `asp`, one claim a test, at a real daemon."""

import contextlib
import gc
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ckpt_client import SaAisError
from ckpt_client.asp import functions
from ckpt_client.asp.asp_table import AspTable
from ckpt_client.asp.module_builder import make_modules
from ckpt_protocol.codes import SaAisErrorT
from ckptd.testing import LocalCluster

asp: Any = make_modules()["asp"]
strict: Any = make_modules(strict=True)["asp"]

READ, WRITE, CREATE = asp.SA_CKPT_CHECKPOINT_READ, asp.SA_CKPT_CHECKPOINT_WRITE, asp.SA_CKPT_CHECKPOINT_CREATE
ALL = READ | WRITE | CREATE
SYNC = asp.SA_CKPT_WR_ALL_REPLICAS
ACTIVE = asp.SA_CKPT_WR_ACTIVE_REPLICA
COLLOCATED = asp.SA_CKPT_CHECKPOINT_COLLOCATED
FOREVER = asp.SA_TIME_MAX
SECOND = asp.SA_TIME_ONE_SECOND

FUNCTIONS = {
    "saCkptInitialize": 2,
    "saCkptSelectionObjectGet": 1,
    "saCkptDispatch": 2,
    "saCkptFinalize": 1,
    "saCkptCheckpointOpen": 5,
    "saCkptCheckpointOpenAsync": 5,
    "saCkptCheckpointClose": 1,
    "saCkptCheckpointUnlink": 2,
    "saCkptCheckpointRetentionDurationSet": 2,
    "saCkptActiveReplicaSet": 1,
    "saCkptCheckpointStatusGet": 2,
    "saCkptSectionCreate": 3,
    "saCkptSectionDelete": 2,
    "saCkptSectionIdFree": 2,
    "saCkptSectionExpirationTimeSet": 3,
    "saCkptSectionIterationInitialize": 3,
    "saCkptSectionIterationNext": 2,
    "saCkptSectionIterationFinalize": 1,
    "saCkptCheckpointWrite": 2,
    "saCkptSectionOverwrite": 3,
    "saCkptCheckpointRead": 2,
    "saCkptIOVectorElementDataFree": 2,
    "saCkptCheckpointSynchronize": 2,
    "saCkptCheckpointSynchronizeAsync": 2,
}
"""The 24 functions of B.02.02, and how many arguments each takes here."""


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(1, name="asp") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """One node, which every program here reaches; what a test leaves open is closed."""
    monkeypatch.setenv("CKPTD_ADDRESS", shared_cluster.address("a"))
    yield shared_cluster
    for handle in functions.services.forget_owned(0):
        for opened in functions.checkpoints.forget_owned(handle):
            functions.iterations.forget_owned(opened)


@pytest.fixture
def service(cluster: LocalCluster) -> Iterator[int]:
    """A service without callbacks, of version B.1.1 as ASP's programs ask for."""
    handle = asp.saCkptInitialize(None, asp.SaVersionT("B", 1, 1))
    yield handle
    with contextlib.suppress(SaAisError):
        asp.saCkptFinalize(handle)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A checkpoint's name that no other test uses."""
    return str(request.node.name)


@pytest.fixture
def opened(service: int, name: str) -> int:
    """A checkpoint of 10 sections of 100 bytes, ids of 20."""
    return open_checkpoint(service, name)


class Called:
    """Callbacks that note how they were called, and dispatch until they were."""

    def __init__(self) -> None:
        self.opens: list[tuple[Any, ...]] = []
        self.synchronizations: list[tuple[Any, ...]] = []
        self.structure = asp.SaCkptCallbacksT(self._opened, self._synchronized)
        self.service = asp.saCkptInitialize(self.structure, asp.SaVersionT("B", 1, 1))

    def _opened(self, *arguments: Any) -> None:
        self.opens.append(arguments)

    def _synchronized(self, *arguments: Any) -> None:
        self.synchronizations.append(arguments)

    def wait(self) -> None:
        """Until a callback is pending."""
        assert select.select([asp.saCkptSelectionObjectGet(self.service)], [], [], 20)[0]

    def dispatch(self) -> None:
        """Wait for a callback, and run what is pending."""
        self.wait()
        asp.saCkptDispatch(self.service, asp.SA_DISPATCH_ALL)


@pytest.fixture
def called(cluster: LocalCluster) -> Iterator[Called]:
    """A service with both callbacks."""
    made = Called()
    yield made
    with contextlib.suppress(SaAisError):
        asp.saCkptFinalize(made.service)


def attributes(creation_flags: int = SYNC, sections: int = 10, retention: int = FOREVER) -> Any:
    """Creation attributes, made as ASP's programs make them."""
    made = asp.SaCkptCheckpointCreationAttributesT()
    made.creationFlags = creation_flags
    made.maxSections = sections
    made.maxSectionSize = 100
    made.maxSectionIdSize = 20
    made.checkpointSize = sections * 100
    made.retentionDuration = retention
    return made


def open_checkpoint(service: int, name: str, creation_flags: int = SYNC, **more: Any) -> int:
    """A checkpoint, opened for everything."""
    handle = asp.saCkptCheckpointOpen(service, name, attributes(creation_flags, **more), ALL, FOREVER)
    assert type(handle) is int
    return handle


def code_of(call: Callable[..., Any], *arguments: Any) -> str:
    """The code with which a call fails, without its prefix."""
    with pytest.raises(SystemError) as caught:
        call(*arguments)
    error = caught.value
    assert isinstance(error, SaAisError)
    assert error.args == (error[0],)
    return SaAisErrorT(error[0]).name.removeprefix("SA_AIS_ERR_")


# -- the library


def test_every_function_of_the_interface_is_there() -> None:
    for module in (asp, strict):
        assert {name for name in vars(module) if name.startswith("saCkpt")} == set(FUNCTIONS)


@pytest.mark.parametrize("release", ["B", ord("B"), b"B"])
def test_initialize_overwrites_the_version_with_the_supported_one(
    cluster: LocalCluster, release: Any
) -> None:
    """R11: the minor number that is given is ignored."""
    version = asp.SaVersionT(release, 1, 77)
    handle = asp.saCkptInitialize(None, version)
    assert type(handle) is int and handle > 0
    supported = ord("B") if isinstance(release, int) else "B"
    assert version == asp.SaVersionT(supported, 2, 2)
    asp.saCkptFinalize(handle)


@pytest.mark.parametrize("asked", [("A", 1, 1), ("C", 1, 1), ("B", 3, 1), (ord("C"), 1, 1)])
def test_a_version_that_is_not_supported_is_an_error_and_overwritten(
    cluster: LocalCluster, asked: tuple[Any, int, int]
) -> None:
    """R12."""
    version = asp.SaVersionT(*asked)
    assert code_of(asp.saCkptInitialize, None, version) == "VERSION"
    supported = ord("B") if isinstance(asked[0], int) else "B"
    assert (version.releaseCode, version.majorVersion, version.minorVersion) == (supported, 2, 2)


@pytest.mark.parametrize("version", [None, ("B", 1, 1), 7])
def test_a_version_is_a_structure(cluster: LocalCluster, version: Any) -> None:
    assert code_of(asp.saCkptInitialize, None, version) == "INVALID_PARAM"


def test_the_version_that_was_asked_for_decides_the_rules(cluster: LocalCluster, name: str) -> None:
    """R13: from B.02 on a name is a distinguished name (R33), and retention is not compared (R31)."""
    old = asp.saCkptInitialize(None, asp.SaVersionT("B", 1, 1))
    new = asp.saCkptInitialize(None, asp.SaVersionT("B", 2, 2))
    open_checkpoint(old, name)
    assert code_of(open_checkpoint, new, name) == "INVALID_PARAM"
    open_checkpoint(old, "safCkpt=" + name)
    open_checkpoint(new, "safCkpt=" + name, retention=5 * SECOND)
    assert code_of(lambda: open_checkpoint(old, name, retention=5 * SECOND)) == "EXIST"
    asp.saCkptFinalize(old)
    asp.saCkptFinalize(new)


def test_every_handle_is_another(service: int, name: str) -> None:
    """R2: also of the same checkpoint."""
    other = asp.saCkptInitialize(None, asp.SaVersionT("B", 1, 1))
    opens = [open_checkpoint(service, name), open_checkpoint(service, name), open_checkpoint(other, name)]
    assert len({service, other, *opens}) == 5
    asp.saCkptFinalize(other)


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name != "saCkptInitialize"])
@pytest.mark.parametrize("module", [asp, strict])
def test_what_is_no_open_handle_is_a_bad_handle(opened: int, function: str, module: Any) -> None:
    """R1: a value never issued, one of another kind, one that was closed."""
    iteration = asp.saCkptSectionIterationInitialize(opened)
    asp.saCkptSectionIterationFinalize(iteration)
    call = getattr(module, function)
    more = ["k"] * (FUNCTIONS[function] - 1)
    of_iterations = function in ("saCkptSectionIterationNext", "saCkptSectionIterationFinalize")
    closed = [iteration] if of_iterations else []
    for handle in (0, -1, 1 << 62, None, "1", 1.0, *closed):
        assert code_of(call, handle, *more) == "BAD_HANDLE"
    if not of_iterations:
        asp.saCkptCheckpointClose(opened)
        assert code_of(call, opened, *more) == "BAD_HANDLE"


def test_a_handle_of_another_kind_is_a_bad_handle(service: int, opened: int, name: str) -> None:
    assert code_of(asp.saCkptCheckpointUnlink, opened, name) == "BAD_HANDLE"
    assert code_of(asp.saCkptFinalize, opened) == "BAD_HANDLE"
    assert code_of(asp.saCkptCheckpointClose, service) == "BAD_HANDLE"
    assert code_of(asp.saCkptSectionIterationNext, opened) == "BAD_HANDLE"
    asp.saCkptCheckpointClose(opened)


def test_finalize_closes_what_was_opened_through_it(service: int, opened: int, name: str) -> None:
    """R21, R22."""
    other = asp.saCkptInitialize(None, asp.SaVersionT("B", 1, 1))
    stays = open_checkpoint(other, name)
    iteration = asp.saCkptSectionIterationInitialize(opened)
    asp.saCkptFinalize(service)
    assert code_of(asp.saCkptFinalize, service) == "BAD_HANDLE"
    assert code_of(asp.saCkptCheckpointRead, opened, ["k"]) == "BAD_HANDLE"
    assert code_of(asp.saCkptSectionIterationNext, iteration) == "BAD_HANDLE"
    asp.saCkptSectionCreate(stays, "k", "v")
    asp.saCkptFinalize(other)


def test_nothing_is_kept_of_what_is_closed(service: int, name: str) -> None:
    handles = (functions.services, functions.checkpoints, functions.iterations)
    before = [len(kind) for kind in handles]
    opened = open_checkpoint(service, name)
    asp.saCkptSectionIterationInitialize(opened)
    asp.saCkptCheckpointClose(opened)
    assert [len(kind) for kind in handles] == before
    asp.saCkptSectionIterationInitialize(open_checkpoint(service, name))
    with AspTable(name) as table:
        asp.saCkptSectionIterationInitialize(table.ckptHdl)
    assert [len(kind) for kind in handles] == [before[0], before[1] + 1, before[2] + 1]
    asp.saCkptFinalize(service)
    assert [len(kind) for kind in handles] == [before[0] - 1, *before[1:]]


def test_dispatch_of_nothing_returns(called: Called) -> None:
    """R17, R18, R20."""
    asp.saCkptDispatch(called.service, asp.SA_DISPATCH_ONE)
    asp.saCkptDispatch(called.service, asp.SA_DISPATCH_ALL)
    assert code_of(asp.saCkptDispatch, called.service, 9) == "INVALID_PARAM"


def test_dispatch_one_runs_one_callback(called: Called, name: str) -> None:
    """R16, R17: and the descriptor is readable while there is another."""
    for invocation in (1, 2):
        asp.saCkptCheckpointOpenAsync(called.service, invocation, name, attributes(), ALL)
    for number in (1, 2):
        called.wait()
        asp.saCkptDispatch(called.service, asp.SA_DISPATCH_ONE)
        assert len(called.opens) == number
    descriptor = asp.saCkptSelectionObjectGet(called.service)
    assert not select.select([descriptor], [], [], 0)[0]
    assert {open_[0] for open_ in called.opens} == {1, 2}


def test_a_blocking_dispatch_ends_with_finalize(called: Called, name: str) -> None:
    """R19."""
    came = threading.Event()
    structure = asp.SaCkptCallbacksT(lambda *arguments: came.set(), None)
    service = asp.saCkptInitialize(structure, asp.SaVersionT("B", 1, 1))
    thread = threading.Thread(target=asp.saCkptDispatch, args=(service, asp.SA_DISPATCH_BLOCKING))
    thread.start()
    asp.saCkptCheckpointOpenAsync(service, 1, name, attributes(), ALL)
    assert came.wait(20)
    asp.saCkptFinalize(service)
    thread.join(20)
    assert not thread.is_alive()


# -- opening


@pytest.mark.parametrize(
    ("made", "flags", "timeout", "code"),
    [
        (None, READ, FOREVER, "NOT_EXIST"),
        (None, ALL, FOREVER, "INVALID_PARAM"),
        (attributes(), READ, FOREVER, "INVALID_PARAM"),
        (attributes(SYNC | ACTIVE), ALL, FOREVER, "INVALID_PARAM"),
        (attributes(), ALL, -2, "INVALID_PARAM"),
        (attributes(SYNC | ACTIVE), ALL, -1, "INVALID_PARAM"),
        (attributes(), 0, FOREVER, "BAD_FLAGS"),
        (attributes(), 64, FOREVER, "BAD_FLAGS"),
        ("no attributes", ALL, FOREVER, "INVALID_PARAM"),
    ],
)
def test_an_open_that_is_refused(
    service: int, name: str, made: Any, flags: int, timeout: int, code: str
) -> None:
    """R23, R25, R27, R29, R35."""
    assert code_of(asp.saCkptCheckpointOpen, service, name, made, flags, timeout) == code


def test_an_open_with_other_attributes_is_refused(service: int, opened: int, name: str) -> None:
    """R30, R32; at B.01 retention counts, too (R31)."""
    assert code_of(lambda: open_checkpoint(service, name, sections=11)) == "EXIST"
    assert code_of(lambda: open_checkpoint(service, name, retention=1)) == "EXIST"
    asp.saCkptSectionCreate(opened, "k", "v")
    assert asp.saCkptCheckpointRead(open_checkpoint(service, name), ["k"]) == b"v"


def test_open_flags_decide_what_a_handle_may_do(service: int, opened: int, name: str) -> None:
    """R8."""
    reader = asp.saCkptCheckpointOpen(service, name, None, READ, 0)
    writer = asp.saCkptCheckpointOpen(service, name, None, WRITE, 0)
    assert code_of(asp.saCkptSectionCreate, reader, "k", "v") == "ACCESS"
    asp.saCkptSectionCreate(writer, "k", "v")
    assert code_of(asp.saCkptCheckpointRead, writer, ["k"]) == "ACCESS"
    assert asp.saCkptCheckpointRead(reader, ["k"]) == b"v"


def test_close_ends_one_handle(service: int, opened: int, name: str) -> None:
    """R62: with the iterations made from it."""
    other = open_checkpoint(service, name)
    iteration = asp.saCkptSectionIterationInitialize(opened)
    asp.saCkptCheckpointClose(opened)
    assert code_of(asp.saCkptCheckpointClose, opened) == "BAD_HANDLE"
    assert code_of(asp.saCkptSectionIterationNext, iteration) == "BAD_HANDLE"
    asp.saCkptSectionCreate(other, "k", "v")


def test_unlink_frees_the_name(service: int, opened: int, name: str) -> None:
    """R65, R66, R67."""
    asp.saCkptSectionCreate(opened, "k", "old")
    asp.saCkptCheckpointUnlink(service, name)
    assert code_of(asp.saCkptCheckpointUnlink, service, name) == "NOT_EXIST"
    assert code_of(asp.saCkptCheckpointOpen, service, name, None, READ, 0) == "NOT_EXIST"
    new = open_checkpoint(service, name)
    assert code_of(asp.saCkptCheckpointRead, new, ["k"]) == "NOT_EXIST"
    assert asp.saCkptCheckpointRead(opened, ["k"]) == b"old"


def test_the_retention_duration_is_nanoseconds(service: int, opened: int, name: str) -> None:
    """R73, R74."""
    status = asp.SaCkptCheckpointDescriptorT()
    asp.saCkptCheckpointRetentionDurationSet(opened, 5 * SECOND)
    asp.saCkptCheckpointStatusGet(opened, status)
    assert status.checkpointCreationAttributes.retentionDuration == 5 * SECOND
    assert code_of(asp.saCkptCheckpointRetentionDurationSet, opened, -1) == "INVALID_PARAM"
    asp.saCkptCheckpointRetentionDurationSet(opened, 0)
    asp.saCkptCheckpointClose(opened)
    assert code_of(asp.saCkptCheckpointOpen, service, name, None, READ, 0) == "NOT_EXIST"


def test_a_collocated_asynchronous_checkpoint_is_activated(service: int, name: str) -> None:
    """R47, R48, R81."""
    handle = open_checkpoint(service, name, ACTIVE | COLLOCATED)
    status = asp.SaCkptCheckpointDescriptorT()
    assert code_of(asp.saCkptCheckpointStatusGet, handle, status) == "NOT_EXIST"
    assert code_of(asp.saCkptSectionCreate, handle, "k", "v") == "NOT_EXIST"
    asp.saCkptActiveReplicaSet(handle)
    asp.saCkptActiveReplicaSet(handle)
    asp.saCkptSectionCreate(handle, "k", "v")


@pytest.mark.parametrize("creation_flags", [SYNC, SYNC | COLLOCATED, ACTIVE])
def test_no_other_checkpoint_is_activated(service: int, name: str, creation_flags: int) -> None:
    """R78."""
    handle = open_checkpoint(service, name, creation_flags)
    assert code_of(asp.saCkptActiveReplicaSet, handle) == "BAD_OPERATION"


def test_the_status_fills_a_descriptor(opened: int) -> None:
    """R83, R84, R85."""
    status = asp.SaCkptCheckpointDescriptorT()
    assert asp.saCkptCheckpointStatusGet(opened, status) is None
    assert status == asp.SaCkptCheckpointDescriptorT(attributes(), 0, 0)
    asp.saCkptSectionCreate(opened, "k", "value")
    asp.saCkptCheckpointStatusGet(opened, status)
    assert (status.numberOfSections, status.memoryUsed) == (1, 5)
    assert code_of(asp.saCkptCheckpointStatusGet, opened, None) == "INVALID_PARAM"


# -- sections


def test_a_section_is_created_once(service: int, name: str) -> None:
    """R88, R90, R91, R94, R95."""
    handle = open_checkpoint(service, name, sections=2)
    assert asp.saCkptSectionCreate(handle, "k", "v") == b"k"
    assert code_of(asp.saCkptSectionCreate, handle, "k", "v") == "EXIST"
    assert code_of(asp.saCkptSectionCreate, handle, "l" * 21, "v") == "INVALID_PARAM"
    assert code_of(asp.saCkptSectionCreate, handle, "l", "v" * 101) == "INVALID_PARAM"
    asp.saCkptSectionCreate(handle, "l", "")
    assert code_of(asp.saCkptSectionCreate, handle, "m", "v") == "NO_SPACE"
    assert asp.saCkptCheckpointRead(handle, ["k", "l"]) == [b"v", b""]


def test_a_section_without_an_id_is_given_one(opened: int) -> None:
    """R97."""
    first, second = (asp.saCkptSectionCreate(opened, "", value) for value in ("one", "two"))
    assert first != second and first
    assert asp.saCkptCheckpointRead(opened, [first, second]) == [b"one", b"two"]
    asp.saCkptSectionIdFree(opened, first)


def test_a_section_is_deleted(opened: int) -> None:
    """R103: a missing one is an error here, as in C."""
    asp.saCkptSectionCreate(opened, "k", "v")
    asp.saCkptSectionDelete(opened, "k")
    assert code_of(asp.saCkptSectionDelete, opened, "k") == "NOT_EXIST"


def test_a_section_expires_at_its_expiration_time(opened: int) -> None:
    """R100, R102, R104."""
    asp.saCkptSectionCreate(opened, "k", "v")
    assert descriptors(opened)["k"].expirationTime == asp.SA_TIME_END
    until = time.time_ns() + 60 * SECOND
    asp.saCkptSectionExpirationTimeSet(opened, "k", until)
    assert descriptors(opened)["k"].expirationTime == until
    assert code_of(asp.saCkptSectionExpirationTimeSet, opened, "k", 1) == "INVALID_PARAM"
    assert code_of(asp.saCkptSectionExpirationTimeSet, opened, "missing", until) == "NOT_EXIST"


def test_the_default_section_is_there_from_the_beginning(service: int, name: str) -> None:
    """R42, R94, R103, R104: and it is the only one that a checkpoint of one section has."""
    handle = open_checkpoint(service, name, sections=1)
    assert asp.saCkptCheckpointRead(handle, [""]) == b""
    asp.saCkptSectionOverwrite(handle, asp.SA_CKPT_DEFAULT_SECTION_ID, "v")
    assert asp.saCkptCheckpointRead(handle, [""]) == b"v"
    assert code_of(asp.saCkptCheckpointRead, handle, ["k"]) == "NOT_EXIST"
    assert code_of(asp.saCkptSectionCreate, handle, "k", "v") == "EXIST"
    assert code_of(asp.saCkptSectionDelete, handle, "") == "INVALID_PARAM"
    assert code_of(asp.saCkptSectionExpirationTimeSet, handle, "", FOREVER) == "INVALID_PARAM"


def descriptors(handle: int) -> dict[str, Any]:
    """Every section's descriptor, by an iteration."""
    found = {}
    iteration = asp.saCkptSectionIterationInitialize(handle, asp.SA_CKPT_SECTIONS_ANY, 0)
    with contextlib.suppress(SaAisError):
        while True:
            section = asp.saCkptSectionIterationNext(iteration)
            found[section.sectionId.id.decode()] = section
    assert code_of(asp.saCkptSectionIterationNext, iteration) == "NO_SECTIONS"
    asp.saCkptSectionIterationFinalize(iteration)
    assert code_of(asp.saCkptSectionIterationFinalize, iteration) == "BAD_HANDLE"
    return found


def test_an_iteration_shows_every_section_once(opened: int) -> None:
    """R111 to R114."""
    assert descriptors(opened) == {}
    before = time.time_ns()
    for number in range(5):
        asp.saCkptSectionCreate(opened, f"k{number}", "v" * number)
    found = descriptors(opened)
    assert sorted(found) == ["k0", "k1", "k2", "k3", "k4"]
    assert [found[f"k{number}"].sectionSize for number in range(5)] == [0, 1, 2, 3, 4]
    assert found["k3"].sectionId.idLen == 2
    assert found["k3"].sectionState == asp.SA_CKPT_SECTION_VALID
    assert before - SECOND < found["k3"].lastUpdate < time.time_ns() + SECOND


def test_an_iteration_fills_the_descriptor_it_is_given(opened: int) -> None:
    asp.saCkptSectionCreate(opened, "k", "v")
    section = asp.SaCkptSectionDescriptorT()
    iteration = asp.saCkptSectionIterationInitialize(opened)
    assert asp.saCkptSectionIterationNext(iteration, section) is section
    assert (section.sectionId.id, section.sectionSize) == (b"k", 1)


def test_an_iteration_chooses(opened: int) -> None:
    """R107, R109."""
    until = time.time_ns() + 60 * SECOND
    asp.saCkptSectionCreate(opened, "stays", "v")
    asp.saCkptSectionCreate(opened, "goes", "v")
    asp.saCkptSectionExpirationTimeSet(opened, "goes", until)
    chosen = {
        asp.SA_CKPT_SECTIONS_FOREVER: {b"stays"},
        asp.SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME: {b"goes"},
        asp.SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME: {b"goes", b"stays"},
        asp.SA_CKPT_SECTIONS_CORRUPTED: set(),
    }
    for choice, wanted in chosen.items():
        iteration = asp.saCkptSectionIterationInitialize(opened, choice, until)
        assert {asp.saCkptSectionIterationNext(iteration).sectionId.id for _ in wanted} == wanted
        assert code_of(asp.saCkptSectionIterationNext, iteration) == "NO_SECTIONS"
    assert code_of(asp.saCkptSectionIterationInitialize, opened, 9, 0) == "INVALID_PARAM"


# -- data


def test_overwrite_sets_content_and_size(opened: int) -> None:
    """R124, R125."""
    asp.saCkptSectionCreate(opened, "k", "a long value")
    asp.saCkptSectionOverwrite(opened, "k", "short")
    assert asp.saCkptCheckpointRead(opened, ["k"]) == b"short"
    assert code_of(asp.saCkptSectionOverwrite, opened, "missing", "v") == "NOT_EXIST"
    assert code_of(asp.saCkptSectionOverwrite, opened, "k", "v" * 101) == "INVALID_PARAM"


def test_no_data_makes_an_empty_section_and_is_refused_when_strict(opened: int) -> None:
    """R125."""
    asp.saCkptSectionCreate(opened, "k", "v")
    assert code_of(strict.saCkptSectionOverwrite, opened, "k", "") == "INVALID_PARAM"
    assert code_of(strict.saCkptSectionOverwrite, opened, "k", None) == "INVALID_PARAM"
    strict.saCkptSectionOverwrite(opened, "k", b"w")
    assert asp.saCkptCheckpointRead(opened, ["k"]) == b"w"
    asp.saCkptSectionOverwrite(opened, "k", "")
    assert asp.saCkptCheckpointRead(opened, ["k"]) == b""


@pytest.mark.parametrize("module", [asp, strict])
def test_write_never_shortens(opened: int, module: Any) -> None:
    """R115, R116."""
    for key in ("k", "l"):
        asp.saCkptSectionCreate(opened, key, "12345")
    module.saCkptCheckpointWrite(opened, [("k", "ab"), ("l", b"1234567"), ("k", bytearray(b"x"))])
    assert module.saCkptCheckpointRead(opened, ["k", "l"]) == [b"xb345", b"1234567"]


def test_a_write_that_fails_writes_nothing(opened: int) -> None:
    """R55, R119, R121: and tells which element was at fault."""
    asp.saCkptSectionCreate(opened, "k", "old")
    with pytest.raises(SaAisError) as caught:
        asp.saCkptCheckpointWrite(opened, [("k", "new"), ("missing", "new")])
    assert (caught.value[0], caught.value.index) == (asp.SA_AIS_ERR_NOT_EXIST, 1)
    assert asp.saCkptCheckpointRead(opened, ["k"]) == b"old"


def test_a_mapping_is_written_and_refused_when_strict(opened: int) -> None:
    asp.saCkptSectionCreate(opened, "k", "old")
    for vector in ({"k": "new"}, (("k", "new"),)):
        assert code_of(strict.saCkptCheckpointWrite, opened, vector) == "INVALID_PARAM"
        assert asp.saCkptCheckpointRead(opened, ["k"]) == b"old"
        asp.saCkptCheckpointWrite(opened, vector)
        assert asp.saCkptCheckpointRead(opened, ["k"]) == b"new"
        asp.saCkptSectionOverwrite(opened, "k", "old")


@pytest.mark.parametrize(
    "vector", [[], {}, None, 7, ["k"], [("k",)], [("k", "v", 0)], [("k", 7)], [(7, "v")]]
)
def test_what_is_no_vector_is_not_written(opened: int, vector: Any) -> None:
    """R120."""
    asp.saCkptSectionCreate(opened, "k", "v")
    assert code_of(asp.saCkptCheckpointWrite, opened, vector) == "INVALID_PARAM"


@pytest.mark.parametrize("module", [asp, strict])
def test_one_key_reads_a_value_and_several_a_list(opened: int, module: Any) -> None:
    """R126 to R133."""
    asp.saCkptSectionCreate(opened, "k", "one")
    asp.saCkptSectionCreate(opened, b"\xff\x00", b"\x00\xff")
    assert module.saCkptCheckpointRead(opened, ["k"]) == b"one"
    assert module.saCkptCheckpointRead(opened, [b"\xff\x00", "k", "k"]) == [b"\x00\xff", b"one", b"one"]
    assert code_of(module.saCkptCheckpointRead, opened, []) == "INVALID_PARAM"
    asp.saCkptIOVectorElementDataFree(opened, b"one")


def test_a_missing_key_fails_the_whole_read(opened: int) -> None:
    """R131."""
    asp.saCkptSectionCreate(opened, "k", "one")
    with pytest.raises(SaAisError) as caught:
        asp.saCkptCheckpointRead(opened, ["k", "missing"])
    assert (caught.value[0], caught.value.index) == (asp.SA_AIS_ERR_NOT_EXIST, 1)


def test_a_key_that_is_no_list_is_read_and_refused_when_strict(opened: int) -> None:
    asp.saCkptSectionCreate(opened, "k", "one")
    for key in ("k", b"k", ("k",)):
        assert asp.saCkptCheckpointRead(opened, key) == b"one"
        assert code_of(strict.saCkptCheckpointRead, opened, key) == "INVALID_PARAM"
    assert code_of(asp.saCkptCheckpointRead, opened, 7) == "INVALID_PARAM"


def test_text_is_utf_8(opened: int) -> None:
    asp.saCkptSectionCreate(opened, "ключ", "значение")
    assert asp.saCkptCheckpointRead(opened, ["ключ".encode()]) == "значение".encode()


# -- synchronizing, and what is asynchronous


def test_synchronize_is_for_asynchronous_checkpoints(service: int, opened: int, name: str) -> None:
    """R134, R135, R139, R140."""
    assert code_of(asp.saCkptCheckpointSynchronize, opened, FOREVER) == "BAD_OPERATION"
    handle = open_checkpoint(service, name + "2", ACTIVE)
    for timeout in (0, SECOND * 10, FOREVER, -1):
        asp.saCkptCheckpointSynchronize(handle, timeout)
    assert code_of(asp.saCkptCheckpointSynchronize, handle, -2) == "INVALID_PARAM"


def test_minus_one_is_no_limit(service: int, name: str) -> None:
    """So ASP's programs write it; the SAF's word is SA_TIME_MAX."""
    handle = asp.saCkptCheckpointOpen(service, name, attributes(), ALL, -1)
    asp.saCkptCheckpointClose(handle)


def test_an_asynchronous_open_ends_in_its_callback(called: Called, name: str) -> None:
    """R36, R38: with a handle like any other."""
    for invocation in (0, 2**64 - 1):
        asp.saCkptCheckpointOpenAsync(called.service, invocation, name, attributes(), ALL)
        called.dispatch()
        given, handle, error = called.opens.pop()
        assert (given, error) == (invocation, asp.SA_AIS_OK)
        assert type(error) is int
        asp.saCkptCheckpointStatusGet(handle, asp.SaCkptCheckpointDescriptorT())
    asp.saCkptSectionCreate(handle, "k", "v")
    asp.saCkptFinalize(called.service)
    assert code_of(asp.saCkptCheckpointRead, handle, ["k"]) == "BAD_HANDLE"


def test_an_asynchronous_open_that_fails_reports_that_to_its_callback(called: Called, name: str) -> None:
    """R36, R39: what is wrong with the arguments it says itself."""
    asp.saCkptCheckpointOpenAsync(called.service, 5, name, None, READ)
    called.dispatch()
    assert called.opens == [(5, 0, asp.SA_AIS_ERR_NOT_EXIST)]
    assert code_of(asp.saCkptCheckpointOpenAsync, called.service, 5, name, None, ALL) == "INVALID_PARAM"
    assert code_of(asp.saCkptCheckpointOpenAsync, called.service, 5, name, 7, ALL) == "INVALID_PARAM"
    assert code_of(asp.saCkptCheckpointOpenAsync, called.service, 5, name, None, 0) == "BAD_FLAGS"


def test_an_asynchronous_synchronization_ends_in_its_callback(called: Called, name: str) -> None:
    """R141."""
    handle = open_checkpoint(called.service, name, ACTIVE)
    asp.saCkptCheckpointSynchronizeAsync(handle, 77)
    called.dispatch()
    assert called.synchronizations == [(77, asp.SA_AIS_OK)]
    synchronous = open_checkpoint(called.service, name + "2")
    assert code_of(asp.saCkptCheckpointSynchronizeAsync, synchronous, 1) == "BAD_OPERATION"


@pytest.mark.parametrize("callbacks", [None, asp.SaCkptCallbacksT()])
def test_without_its_callback_an_asynchronous_call_is_refused(
    cluster: LocalCluster, name: str, callbacks: Any
) -> None:
    """R14, R37, R138."""
    service = asp.saCkptInitialize(callbacks, asp.SaVersionT("B", 1, 1))
    handle = open_checkpoint(service, name, ACTIVE)
    assert code_of(asp.saCkptCheckpointOpenAsync, service, 1, name, None, READ) == "INIT"
    assert code_of(asp.saCkptCheckpointSynchronizeAsync, handle, 1) == "INIT"
    asp.saCkptFinalize(service)


# -- the handles of a table


@pytest.fixture
def table(cluster: LocalCluster, name: str) -> Iterator[AspTable]:
    with AspTable(name, 10, 100, 20) as made:
        yield made


def test_every_call_can_be_made_by_a_tables_handle(table: AspTable) -> None:
    handle = table.ckptHdl
    assert type(handle) is int
    table.Write("k", "value")
    until = time.time_ns() + 60 * SECOND
    asp.saCkptSectionExpirationTimeSet(handle, "k", until)
    assert [section.expiration_ns for section in table.sections()] == [until]
    asp.saCkptSectionCreate(handle, "l", "v")
    asp.saCkptSectionOverwrite(handle, "l", "w")
    asp.saCkptCheckpointWrite(handle, [("l", "xyz"), ("k", "V")])
    assert table.read_all() == {b"k": b"Value", b"l": b"xyz"}
    assert asp.saCkptCheckpointRead(handle, ["l", "k"]) == [b"xyz", b"Value"]
    assert sorted(descriptors(handle)) == ["k", "l"]
    asp.saCkptSectionDelete(handle, "k")
    status = asp.SaCkptCheckpointDescriptorT()
    asp.saCkptCheckpointStatusGet(handle, status)
    assert (status.numberOfSections, status.memoryUsed) == (1, 3)
    asp.saCkptCheckpointRetentionDurationSet(handle, 5 * SECOND)
    asp.saCkptCheckpointStatusGet(handle, status)
    assert status.checkpointCreationAttributes.retentionDuration == 5 * SECOND
    assert code_of(asp.saCkptCheckpointSynchronize, handle, 0) == "BAD_OPERATION"
    assert code_of(asp.saCkptActiveReplicaSet, handle) == "BAD_OPERATION"
    assert code_of(asp.saCkptSectionDelete, handle, "k") == "NOT_EXIST"
    assert code_of(asp.saCkptCheckpointSynchronizeAsync, handle, 1) == "INIT"


def test_a_tables_replica_is_activated_by_its_handle(cluster: LocalCluster, name: str) -> None:
    """And by no call that is not asked to."""
    with AspTable(name, 10, 100, 20, ACTIVE | COLLOCATED) as table:
        assert code_of(asp.saCkptSectionCreate, table.ckptHdl, "k", "v") == "NOT_EXIST"
        assert table.GetActiveStatus() is False
        asp.saCkptActiveReplicaSet(table.ckptHdl)
        assert table.GetActiveStatus() is True
        asp.saCkptCheckpointSynchronize(table.ckptHdl, 10 * SECOND)


def test_a_reading_tables_handle_does_not_write(table: AspTable, name: str) -> None:
    table.Write("k", "v")
    with AspTable(name, read_only=True) as reader:
        assert asp.saCkptCheckpointRead(reader.ckptHdl, ["k"]) == b"v"
        assert code_of(asp.saCkptSectionDelete, reader.ckptHdl, "k") == "ACCESS"


def test_a_tables_service_unlinks_opens_and_has_no_callbacks(table: AspTable, name: str) -> None:
    service = table.svcHdl
    asp.saCkptCheckpointUnlink(service, name)
    assert code_of(asp.saCkptCheckpointUnlink, service, name) == "NOT_EXIST"
    other = open_checkpoint(service, name)
    asp.saCkptSectionCreate(other, "k", "v")
    assert asp.saCkptCheckpointRead(other, ["k"]) == b"v"
    assert code_of(asp.saCkptCheckpointOpenAsync, service, 1, name, None, READ) == "INIT"
    assert not select.select([asp.saCkptSelectionObjectGet(service)], [], [], 0)[0]
    asp.saCkptDispatch(service, asp.SA_DISPATCH_ALL)
    with AspTable(name) as witness:
        assert witness.status().opens == 2
        table.close()
        assert witness.status().opens == 1
    assert code_of(asp.saCkptCheckpointRead, other, ["k"]) == "BAD_HANDLE"


def test_a_table_is_closed_as_programs_of_asp_do_it(table: AspTable) -> None:
    """The checkpoint first, then the service."""
    service, handle = table.svcHdl, table.ckptHdl
    asp.saCkptCheckpointClose(handle)
    assert code_of(asp.saCkptCheckpointClose, handle) == "BAD_HANDLE"
    assert (table.svcHdl, table.ckptHdl) == (service, 0)
    with pytest.raises(Exception, match="SA_AIS_ERR_BAD_HANDLE"):
        table.Read(["k"])
    asp.saCkptFinalize(service)
    assert code_of(asp.saCkptFinalize, service) == "BAD_HANDLE"
    assert (table.svcHdl, table.ckptHdl) == (0, 0)


def test_closing_by_the_handle_closes_at_the_service(table: AspTable, name: str) -> None:
    with AspTable(name) as witness:
        assert witness.status().opens == 2
        asp.saCkptCheckpointClose(table.ckptHdl)
        assert witness.status().opens == 1


def test_a_closed_tables_handles_are_dead(table: AspTable) -> None:
    service, handle = table.svcHdl, table.ckptHdl
    iteration = asp.saCkptSectionIterationInitialize(handle)
    table.close()
    assert (table.svcHdl, table.ckptHdl) == (0, 0)
    assert code_of(asp.saCkptCheckpointRead, handle, ["k"]) == "BAD_HANDLE"
    assert code_of(asp.saCkptCheckpointUnlink, service, "x") == "BAD_HANDLE"
    assert code_of(asp.saCkptSectionIterationNext, iteration) == "BAD_HANDLE"


def test_a_table_that_is_dropped_is_not_kept_by_its_handles(cluster: LocalCluster, name: str) -> None:
    table = AspTable(name, 10, 100, 20)
    service, handle = table.svcHdl, table.ckptHdl
    asp.saCkptCheckpointStatusGet(handle, asp.SaCkptCheckpointDescriptorT())
    del table
    gc.collect()
    assert code_of(asp.saCkptCheckpointRead, handle, ["k"]) == "BAD_HANDLE"
    assert code_of(asp.saCkptCheckpointUnlink, service, name) == "BAD_HANDLE"


def test_tables_have_handles_of_their_own(table: AspTable, name: str) -> None:
    with AspTable(name + "2", 10, 100, 20) as other:
        assert len({table.svcHdl, table.ckptHdl, other.svcHdl, other.ckptHdl}) == 4
        asp.saCkptSectionCreate(other.ckptHdl, "k", "other")
        assert code_of(asp.saCkptCheckpointRead, table.ckptHdl, ["k"]) == "NOT_EXIST"


def test_a_tables_handle_is_good_in_a_forked_child(table: AspTable) -> None:
    handle = table.ckptHdl
    table.Write("k", "v")
    child = os.fork()
    if not child:
        code = 1
        with contextlib.suppress(BaseException):
            if asp.saCkptCheckpointRead(handle, ["k"]) == b"v" and table.ckptHdl == handle:
                code = 0
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asp.saCkptCheckpointRead(handle, ["k"]) == b"v"


def test_a_table_needs_the_address_once(shared_cluster: LocalCluster, name: str) -> None:
    """Its address is kept for the service that its handle may need, also one that can be read but once."""
    addresses = (address for address in [shared_cluster.address("a")])
    with AspTable(name, 10, 100, 20, address=addresses, cluster="asp") as table:
        other = asp.saCkptCheckpointOpen(table.svcHdl, name, None, READ, 0)
        assert code_of(asp.saCkptCheckpointRead, other, ["k"]) == "NOT_EXIST"
