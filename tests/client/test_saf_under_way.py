"""What a blocking service has under way: asynchronous calls, tracking, time-outs."""

import time
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, start
from tests.client.saf_fake import (
    ALL_MODES,
    NAME,
    READ,
    Heard,
    Initialize,
    SafService,
    attributes,
    initialize,
    nothing_left,
    opened,
    other_tasks,
    readable,
    refused,
    service,
    tracked,
    unanswered,
    until,
)

from ckpt_client.io.loop_thread import shared_runner
from ckpt_client.saf import (
    CheckpointService,
    DispatchFlags,
    SaAisErrorT,
    SectionChange,
    SectionChangeT,
)
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error

__all__ = ["initialize", "nothing_left", "service", "start"]

ONE, ALL, BLOCKING = DispatchFlags
OK = SaAisErrorT.SA_AIS_OK
MILLISECOND_NS = 1_000_000
pytestmark = [pytest.mark.timeout(30), pytest.mark.usefixtures("nothing_left")]


# -- what is under way


@pytest.mark.parametrize("answered", [True, False])
def test_finalize_forgets_what_is_under_way(answered: bool, start: Start, initialize: Initialize) -> None:
    heard = Heard()
    node = start()
    library = initialize(node, heard.callbacks)
    checkpoint = opened(library)
    if not answered:
        node.misbehave = unanswered(Kind.OPEN, Kind.SYNCHRONIZE)
    for invocation in range(5):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
        checkpoint.synchronize_async(invocation)
    library.finalize()
    assert library.pending == 0 and heard.told == []
    assert library._under_way == {} or not answered


class Eager:
    """A runner that has things done before it says that they have begun."""

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> Any:
        future = shared_runner().spawn(coroutine)
        future.result()  # type: ignore[attr-defined]
        return future

    def __getattr__(self, name: str) -> Any:
        return getattr(shared_runner(), name)


def test_what_ends_before_it_is_noted_is_not_kept(start: Start) -> None:
    library = CheckpointService._initialize(Eager(), ("B", 2, 2), Heard().callbacks, address=start().url)
    library.checkpoint_open_async(1, NAME, ALL_MODES, attributes())
    assert library.pending == 1 and library._under_way == {}
    library.finalize()


def test_what_has_ended_is_not_kept(start: Start, initialize: Initialize) -> None:
    library = initialize(start(), Heard().callbacks)
    for invocation in range(200):
        library.checkpoint_open_async(invocation, NAME, ALL_MODES, attributes())
    until(lambda: library.pending == 200)
    until(lambda: library._under_way == {})


@pytest.mark.parametrize("ending", ["finalize", "close", "track_stop"])
@pytest.mark.parametrize("told", ["pending", "waiting", "taken"])
def test_tracking_ends_with_what_it_belongs_to(
    told: str, ending: str, start: Start, initialize: Initialize
) -> None:
    """With a call pending the task that waited for it to be taken stayed, after `finalize`, for ever."""
    heard = Heard()
    node = start()
    node.misbehave = tracked()
    library, writer = initialize(node, heard.callbacks), opened(initialize(node))
    checkpoint = library.checkpoint_open(NAME, READ)
    checkpoint.track()
    if told != "waiting":
        writer.section_create("k")
        until(lambda: library.pending == 1)
    if told == "taken":
        library.dispatch(ALL)
    heard.told.clear()
    {"finalize": library.finalize, "close": checkpoint.close, "track_stop": checkpoint.track_stop}[ending]()
    assert library.pending == 0
    until(lambda: not shared_runner().call(other_tasks), "its task is left")
    writer.section_create("l")
    if ending != "finalize":
        library.dispatch(ALL)
    assert heard.told == []


def test_a_slow_tracker_has_one_list_pending(start: Start, initialize: Initialize) -> None:
    heard = Heard()
    node = start()
    node.misbehave = tracked()
    library, writer = initialize(node, heard.callbacks), opened(initialize(node))
    checkpoint = library.checkpoint_open(NAME, READ)
    checkpoint.track()
    for number in range(50):
        writer.section_create(str(number))
        assert library.pending <= 1
    until(lambda: readable(library))
    told: list[SectionChange] = []
    while len(told) < 50:
        assert library.pending <= 1
        library.dispatch(ALL)
        told = [change for _, changes in heard.told for change in changes]
    assert [change.section_id for change in told] == [b"%d" % number for number in range(50)]
    assert {of for of, _ in heard.told} == {checkpoint}


def test_a_session_that_ended_ends_its_tracking(
    start: Start, service: SafService, initialize: Initialize, caplog: pytest.LogCaptureFixture
) -> None:
    """Of programs of B.02 it was UNAVAILABLE then, for which tracking waited, and waited.

    Those of B.01 were told nothing at all.
    """
    node = start()
    node.misbehave = tracked()
    for version in (("B", 2, 2), ("B", 1, 1)):
        heard = Heard()
        library = initialize(node, heard.callbacks, version=version)
        checkpoint = opened(library)
        checkpoint.track()
        until(lambda: service.waiting)
        link = service.waiting.pop()[0]
        service.end_session(link.session_id)
        link.cut()
        until(lambda library=library: library._under_way == {})
        code = codes.UNAVAILABLE if version[1] == 2 else codes.BAD_HANDLE
        with refused(code):
            library.checkpoint_unlink(NAME)
        library.dispatch(ALL)
        ((of, changes),) = heard.told
        assert of is checkpoint
        assert [change.change for change in changes] == [SectionChangeT.ENDED]
        assert checkpoint.tracking_error is not None and checkpoint.tracking_error.code == code
    assert [record.message.split(":")[0] for record in caplog.records] == [
        f"the tracking of checkpoint {NAME.encode()!r} has ended"
    ] * 2


# -- time-outs


def test_every_call_keeps_the_services_time_out(start: Start, initialize: Initialize) -> None:
    """`track` waited for half a minute."""
    node = start()
    library = initialize(node, Heard().callbacks, timeout_ns=150 * MILLISECOND_NS)
    checkpoint = opened(library)
    iteration = checkpoint.section_iteration_initialize(5)
    pages = checkpoint.section_iteration()
    node.misbehave = lambda node, link, frame: frame.kind not in (Kind.PING, Kind.ATTACH, Kind.DETACH)
    for call in (
        lambda: opened(library),
        lambda: library.checkpoint_unlink(NAME),
        checkpoint.status_get,
        checkpoint.active_replica_set,
        lambda: checkpoint.retention_duration_set(1),
        lambda: checkpoint.section_create("k"),
        lambda: checkpoint.section_delete("k"),
        lambda: checkpoint.section_expiration_time_set("k", 1),
        lambda: checkpoint.overwrite("k", "v"),
        lambda: checkpoint.write([("k", "v", 0)]),
        lambda: checkpoint.read([("k", 1, 0)]),
        lambda: checkpoint.synchronize(),
        lambda: checkpoint.synchronize_async(1),
        lambda: checkpoint.section_iteration_initialize(5),
        iteration.next,
        lambda: list(pages),
        checkpoint.track,
        checkpoint.close,
    ):
        began = time.monotonic()
        with refused(codes.TIMEOUT):
            call()
        assert time.monotonic() - began < 5


def test_a_time_out_of_its_own_goes_before_the_services(start: Start, initialize: Initialize) -> None:
    node = start()
    library = initialize(node)
    checkpoint = opened(library)
    node.misbehave = unanswered(Kind.SYNCHRONIZE, Kind.OPEN)
    with refused(codes.TIMEOUT, "saCkptCheckpointSynchronize"):
        checkpoint.synchronize(MILLISECOND_NS)
    with refused(codes.TIMEOUT, "saCkptCheckpointOpen"):
        library.checkpoint_open(NAME, READ, timeout_ns=MILLISECOND_NS)


def test_an_asynchronous_call_ends_with_its_time(start: Start, initialize: Initialize) -> None:
    heard = Heard()
    node = start()
    library = initialize(node, heard.callbacks, timeout_ns=30 * MILLISECOND_NS)
    node.misbehave = unanswered(Kind.OPEN)
    library.checkpoint_open_async(2**64 - 1, NAME, READ)
    until(lambda: library.pending)
    library.dispatch(ALL)
    assert heard.told == [(2**64 - 1, None, SaAisErrorT.SA_AIS_ERR_TIMEOUT)]


def test_an_unknown_code_is_reported_as_an_error_of_the_library(start: Start, initialize: Initialize) -> None:
    def refuse(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind == Kind.OPEN:
            link.answer(frame.a, answer_error(999, "of a later version"))
        return frame.kind == Kind.OPEN

    heard = Heard()
    node = start()
    library = initialize(node, heard.callbacks)
    node.misbehave = refuse
    library.checkpoint_open_async(1, NAME, READ)
    until(lambda: library.pending)
    library.dispatch(ALL)
    assert heard.told == [(1, None, SaAisErrorT.SA_AIS_ERR_LIBRARY)]
