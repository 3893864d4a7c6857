"""A blocking service from `initialize` to `finalize`: callbacks, handles, what is under way."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    ALL_MODES,
    NAME,
    READ,
    SYNC,
    WRITE,
    Heard,
    Initialize,
    SafService,
    attributes,
    initialize,
    nothing_left,
    opened,
    readable,
    refused,
    service,
    unanswered,
    until,
)

from ckpt_client.saf import (
    Checkpoint,
    CheckpointCallbacks,
    CheckpointService,
    DispatchFlags,
    SaAisErrorT,
)
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

__all__ = ["initialize", "nothing_left", "service", "start"]

ONE, ALL, BLOCKING = DispatchFlags
OK = SaAisErrorT.SA_AIS_OK
MILLISECOND_NS = 1_000_000
pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("nothing_left")]


# -- from begin to end


def test_what_is_opened_is_used_and_ends_with_the_service(
    start: Start, service: SafService, initialize: Initialize
) -> None:
    library = initialize(start())
    checkpoint = opened(library)
    assert checkpoint.section_create("k", initial_data="1") == b"k"
    checkpoint.overwrite("k", b"22")
    assert checkpoint.read([("k", None, 0), ("k", 1, 1)]) == [b"22", b"2"]
    assert [section.section_id for section in checkpoint.section_iteration()] == [b"k"]
    assert checkpoint.status_get()[1:] == (1, 2)
    assert checkpoint.status_get().creation_attributes == attributes()
    assert (checkpoint.name, checkpoint.open_flags) == (NAME.encode(), ALL_MODES)
    library.finalize()
    assert service.sessions == {}
    assert service.checkpoints[NAME.encode()].opens == 0
    with refused(codes.BAD_HANDLE, "saCkptSectionOverwrite"):
        checkpoint.overwrite("k", b"3")


def every_call(library: CheckpointService, checkpoint: Checkpoint) -> list[tuple[str, Callable[[], Any]]]:
    """Each call of the interface, by its name."""
    iteration = checkpoint.section_iteration_initialize(5)
    pages = checkpoint.section_iteration()
    return [
        ("saCkptSelectionObjectGet", library.selection_object),
        ("saCkptSelectionObjectGet", library.fileno),
        ("saCkptDispatch", lambda: library.dispatch(99)),
        ("saCkptFinalize", library.finalize),
        ("saCkptCheckpointOpen", lambda: library.checkpoint_open("", 0)),
        ("saCkptCheckpointOpenAsync", lambda: library.checkpoint_open_async(-1, "", 0)),
        ("saCkptCheckpointUnlink", lambda: library.checkpoint_unlink("")),
        ("saCkptCheckpointRetentionDurationSet", lambda: checkpoint.retention_duration_set(-1)),
        ("saCkptActiveReplicaSet", checkpoint.active_replica_set),
        ("saCkptCheckpointStatusGet", checkpoint.status_get),
        ("saCkptSectionCreate", lambda: checkpoint.section_create(5)),  # type: ignore[arg-type]
        ("saCkptSectionDelete", lambda: checkpoint.section_delete(5)),  # type: ignore[arg-type]
        ("saCkptSectionExpirationTimeSet", lambda: checkpoint.section_expiration_time_set("k", -1)),
        ("saCkptSectionIterationInitialize", lambda: checkpoint.section_iteration(0)),
        ("saCkptSectionIterationInitialize", lambda: checkpoint.section_iteration_initialize(0)),
        ("saCkptSectionIterationInitialize", lambda: list(pages)),
        ("saCkptSectionIterationNext", iteration.next),
        ("saCkptSectionIterationFinalize", iteration.finalize),
        ("saCkptCheckpointWrite", lambda: checkpoint.write([])),
        ("saCkptSectionOverwrite", lambda: checkpoint.overwrite("k", 5)),  # type: ignore[arg-type]
        ("saCkptCheckpointRead", lambda: checkpoint.read([])),
        ("saCkptCheckpointSynchronize", lambda: checkpoint.synchronize(-1)),
        ("saCkptCheckpointSynchronizeAsync", lambda: checkpoint.synchronize_async(-1)),
        ("saCkptCheckpointTrack", checkpoint.track),
        ("saCkptCheckpointTrackStop", checkpoint.track_stop),
        ("saCkptCheckpointClose", checkpoint.close),
    ]


def test_after_finalize_every_call_is_a_bad_handle_in_its_own_name(
    start: Start, initialize: Initialize
) -> None:
    """And whatever else is wrong with it: the handle comes first."""
    node = start()
    library = initialize(node)
    calls = every_call(library, opened(library))
    library.finalize()
    asked = len(node.received)
    for call, make in calls:
        with refused(codes.BAD_HANDLE, call):
            make()
    assert len(node.received) == asked


def test_after_close_every_call_of_the_checkpoint_is_a_bad_handle_in_its_own_name(
    start: Start, initialize: Initialize
) -> None:
    """SynchronizeAsync looked at its invocation first, and said it was Synchronize."""
    node = start()
    library = initialize(node)
    checkpoint = opened(library)
    calls = every_call(library, checkpoint)
    checkpoint.close()
    for call, make in calls[7:]:
        with refused(codes.BAD_HANDLE, call):
            make()
    opened(library).close()


def test_what_is_missing_for_a_call_is_reported_with_its_own_name(
    start: Start, initialize: Initialize
) -> None:
    library = initialize(start())
    opened(library, SYNC)
    reader = library.checkpoint_open(NAME, READ)
    writer = library.checkpoint_open(NAME, WRITE)
    with refused(codes.ACCESS, "saCkptCheckpointSynchronizeAsync"):
        reader.synchronize_async(-1)
    with refused(codes.INVALID_PARAM, "saCkptCheckpointSynchronizeAsync"):
        writer.synchronize_async(-1)
    with refused(codes.BAD_OPERATION, "saCkptCheckpointSynchronizeAsync"):
        writer.synchronize_async(1)
    with refused(codes.ACCESS, "saCkptCheckpointTrack"):
        writer.track()
    with refused(SaAisErrorT.SA_AIS_ERR_INIT, "saCkptCheckpointTrack"):
        reader.track()
    with refused(SaAisErrorT.SA_AIS_ERR_INIT, "saCkptCheckpointOpenAsync"):
        library.checkpoint_open_async(1, NAME, READ)
    with refused(codes.NOT_EXIST, "saCkptCheckpointTrackStop"):
        reader.track_stop()
    with refused(codes.NOT_EXIST, "saCkptCheckpointRead") as caught:
        reader.read([("k", 1, 0)])
    assert caught.value.erroneous_vector_index == 0


def test_an_unsupported_version_is_answered_with_the_supported_one(
    start: Start, initialize: Initialize
) -> None:
    node = start()
    with refused(SaAisErrorT.SA_AIS_ERR_VERSION, "saCkptInitialize") as caught:
        initialize(node, version=("B", 3, 0))
    assert caught.value.version == ("B", 2, 2)
    old, new = initialize(node, version=("B", 1, 1)), initialize(node)
    assert old.version == new.version == ("B", 2, 2)
    assert (old.required_version, new.required_version) == (("B", 1, 1), ("B", 2, 2))
    opened(old, name="x").close()
    with refused(codes.INVALID_PARAM, "saCkptCheckpointOpen"):
        opened(new, name="x")


@pytest.mark.parametrize(
    ("version", "code"), [(("B", 2, 2), codes.UNAVAILABLE), (("B", 1, 1), codes.TRY_AGAIN)]
)
def test_a_service_does_not_begin_while_no_node_serves(version: Any, code: int) -> None:
    with refused(code, "saCkptInitialize"):
        CheckpointService.initialize(version, address="unix:///nowhere/s")


@pytest.mark.parametrize("wrong", [{"timeout_ns": -1}, {"timeout_ns": 1.5}, {"address": "http://x"}])
def test_wrong_settings_are_refused_in_the_name_of_initialize(wrong: dict[str, Any]) -> None:
    with refused(codes.INVALID_PARAM, "saCkptInitialize"):
        CheckpointService.initialize(**wrong)


# -- callbacks


def test_callbacks_come_in_dispatch_and_nowhere_else(start: Start, initialize: Initialize) -> None:
    heard = Heard()
    library = initialize(start(), heard.callbacks)
    descriptor = library.selection_object()
    for invocation in range(3):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
    until(lambda: library.pending == 3)
    assert heard.told == [] and readable(library)
    library.dispatch(ONE)
    assert [told[0] for told in heard.told] == [0] and library.pending == 2
    library.dispatch(ALL)
    assert [(told[0], told[2]) for told in heard.told] == [(0, OK), (1, OK), (2, OK)]
    assert not readable(library) and library.selection_object() == library.fileno() == descriptor
    for flags in (ONE, ALL):
        library.dispatch(flags)
    assert len(heard.told) == 3
    heard.told[0][1].synchronize_async(7)
    until(lambda: readable(library))
    library.dispatch(ALL)
    assert heard.told[3] == (7, OK)


@pytest.mark.parametrize("flags", [0, 4, -1, None, "ALL"])
def test_there_are_three_ways_to_dispatch(flags: Any, start: Start, initialize: Initialize) -> None:
    with refused(codes.INVALID_PARAM, "saCkptDispatch"):
        initialize(start()).dispatch(flags)


def test_what_a_callback_raises_comes_out_and_the_rest_stays_pending(
    start: Start, initialize: Initialize
) -> None:
    told: list[int] = []

    def tell(invocation: int, checkpoint: Any, error: Any) -> None:
        told.append(invocation)
        if invocation == 1:
            raise KeyError("a callback's own")

    library = initialize(start(), CheckpointCallbacks(checkpoint_open=tell))
    for invocation in range(4):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
    until(lambda: library.pending == 4)
    with pytest.raises(KeyError, match="own"):
        library.dispatch(ALL)
    assert told == [0, 1] and library.pending == 2 and readable(library)
    library.dispatch(ALL)
    assert told == [0, 1, 2, 3]


@pytest.mark.parametrize("flags", DispatchFlags)
def test_a_callback_may_finalize(flags: DispatchFlags, start: Start, initialize: Initialize) -> None:
    told: list[int] = []

    def tell(invocation: int, checkpoint: Any, error: Any) -> None:
        told.append(invocation)
        library.finalize()

    library = initialize(start(), CheckpointCallbacks(checkpoint_open=tell))
    for invocation in range(2):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
    until(lambda: library.pending == 2)
    library.dispatch(flags)
    assert len(told) == 1
    with refused(codes.BAD_HANDLE, "saCkptDispatch"):
        library.dispatch(flags)


def test_a_callback_may_call_anything(start: Start, initialize: Initialize) -> None:
    read: list[bytes] = []

    def tell(invocation: int, checkpoint: Checkpoint, error: Any) -> None:
        checkpoint.section_create("k", initial_data="v")
        read.extend(checkpoint.read([("k", None, 0)]))
        checkpoint.close()

    library = initialize(start(), CheckpointCallbacks(checkpoint_open=tell))
    library.checkpoint_open_async(1, NAME, ALL_MODES, attributes())
    until(lambda: library.pending)
    library.dispatch(ONE)
    assert read == [b"v"]


def test_close_cancels_its_own_callbacks_only(start: Start, initialize: Initialize) -> None:
    heard = Heard()
    node = start()
    library = initialize(node, heard.callbacks)
    mine, other = opened(library), opened(library)
    for checkpoint, invocation in ((mine, 1), (other, 2), (mine, 3)):
        checkpoint.synchronize_async(invocation)
    until(lambda: library.pending == 3)
    mine.close()
    assert library.pending == 1
    node.misbehave = unanswered(Kind.SYNCHRONIZE)
    other.synchronize_async(4)
    library.checkpoint_open_async(5, NAME, READ)
    until(lambda: library.pending == 2)
    other.close()
    library.dispatch(ALL)
    assert [told[0] for told in heard.told] == [5]


# -- services beside each other


def test_services_of_one_process_have_nothing_in_common(
    start: Start, service: SafService, initialize: Initialize
) -> None:
    a, b = start("a"), start("b", "tcp", key=b"secret", cluster="other")
    first, second = initialize(a), initialize(a, version=("B", 1, 1))
    third = initialize(b, key="secret", cluster="other")
    checkpoints = [opened(library) for library in (first, second, third)]
    assert len(service.sessions) == 3
    first.finalize()
    with refused(codes.BAD_HANDLE):
        checkpoints[0].status_get()
    for checkpoint in checkpoints[1:]:
        checkpoint.status_get()
    assert len(service.sessions) == 2
