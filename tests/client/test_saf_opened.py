"""A handle, an iteration and a version: what is checked before anybody is asked."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.client.saf_fake import READ, WRITE, attributes, refused

from ckpt_client.errors import error_of
from ckpt_client.requests.table_requests import Attributes
from ckpt_client.saf import SectionDescriptor
from ckpt_client.saf.answers import code_of, created_id, descriptor_of, page_of, values_of
from ckpt_client.saf.checkpoint_handle import CheckpointHandle, Iteration, SafCall
from ckpt_client.saf.saf_requests import SafRequest
from ckpt_client.saf.version import HIGHEST, is_new, negotiate, show
from ckpt_client.steps import drive
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.messages import Kind

ALL = READ | WRITE
LIBRARY = SaAisErrorT.SA_AIS_ERR_LIBRARY
NO_SECTIONS = SaAisErrorT.SA_AIS_ERR_NO_SECTIONS
VERSION = SaAisErrorT.SA_AIS_ERR_VERSION


def opened(open_flags: int = ALL, new: bool = True) -> CheckpointHandle:
    """An open checkpoint."""
    return CheckpointHandle(b"safCkpt=x", open_flags, 7, Attributes(*attributes(size=10)), new)


# -- handles


def asked(call: SafCall[Any]) -> SafRequest:
    """What a call asks the service."""
    return next(call)


ITERATE = "saCkptSectionIterationInitialize"
CALLS: list[tuple[str, Callable[[CheckpointHandle], Any], int, int]] = [
    # The call, with arguments that are wrong; what it needs at B.02; at B.01.
    ("saCkptCheckpointRetentionDurationSet", lambda o: o.retention_duration_set(-1), WRITE, 0),
    ("saCkptActiveReplicaSet", lambda o: o.active_replica_set(), WRITE, WRITE),
    ("saCkptCheckpointStatusGet", lambda o: o.status_get(), READ, 0),
    ("saCkptSectionCreate", lambda o: o.section_create(1, 1, 1), WRITE, WRITE),
    ("saCkptSectionDelete", lambda o: o.section_delete(1), WRITE, WRITE),
    ("saCkptSectionExpirationTimeSet", lambda o: o.section_expiration_time_set(1, -1), WRITE, WRITE),
    (ITERATE, lambda o: o.iterate(0, -1), READ, 0),
    ("saCkptSectionOverwrite", lambda o: o.overwrite(1, 1), WRITE, WRITE),
    ("saCkptCheckpointWrite", lambda o: o.write(None), WRITE, WRITE),
    ("saCkptCheckpointRead", lambda o: o.read(None), READ, READ),
    ("saCkptCheckpointSynchronize", lambda o: o.synchronize(-1, 5), WRITE, WRITE),
]


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(("call", "make", "needs", "needed"), CALLS)
def test_handle_then_access_then_arguments(call: str, make: Any, needs: int, needed: int, new: bool) -> None:
    dead = opened(0, new)
    dead.closed = "the checkpoint is closed"
    with refused(codes.BAD_HANDLE, call):
        asked(make(dead))
    access = needs if new else needed
    if access:
        with refused(codes.ACCESS, call):
            asked(make(opened(ALL & ~access | 4, new)))
    without_arguments = call in ("saCkptActiveReplicaSet", "saCkptCheckpointStatusGet")
    if not without_arguments:
        with refused(codes.INVALID_PARAM, call):
            asked(make(opened(access, new)))
    else:
        assert asked(make(opened(access, new))).call == call


def test_a_handle_is_closed_once_whatever_it_was_opened_for() -> None:
    handle = opened(4)
    assert handle.close().kind == Kind.CLOSE
    with refused(codes.BAD_HANDLE, "saCkptCheckpointClose"):
        handle.close()


def test_what_the_calls_ask() -> None:
    handle = opened()
    assert unpack_body(asked(handle.retention_duration_set(5)).body) == [5]
    assert unpack_body(asked(handle.active_replica_set()).body) == [False]
    assert asked(handle.synchronize(0, 5)).timeout_ns == 5
    assert asked(handle.synchronize(3, 5)) == ("saCkptCheckpointSynchronize", Kind.SYNCHRONIZE, b"\x90", 3)
    assert unpack_body(asked(handle.write([("k", b"1234567890", 99)])).body)[0][2] == 99


def test_a_size_above_the_limit_is_compared_once_more_with_that_of_the_service() -> None:
    """Another program may have resized the checkpoint."""
    calls: list[tuple[str, Callable[[CheckpointHandle, int], SafCall[Any]]]] = [
        ("saCkptSectionOverwrite", lambda handle, size: handle.overwrite("k", bytes(size))),
        ("saCkptCheckpointWrite", lambda handle, size: handle.write([("k", bytes(size), 0)])),
        ("saCkptCheckpointRead", lambda handle, size: handle.read([("k", size, 0)])),
        ("saCkptSectionCreate", lambda handle, size: handle.section_create("k", 9, bytes(size))),
    ]
    for name, make in calls:
        handle = opened()
        for size, limit in ((11, 20), (21, 10), (11, 10)):
            call = make(handle, size)
            assert next(call) == (name, Kind.STATUS, b"\x90", 0)
            payload = [list(attributes(size=limit)), 0, 0, "a", [], 1, False]
            if size > limit:
                with refused(codes.INVALID_PARAM, name):
                    call.send(payload)
            else:
                assert call.send(payload).kind in (Kind.UPDATE, Kind.READ)
                assert next(make(handle, 20)).kind in (Kind.UPDATE, Kind.READ)
        call = make(handle, 11)
        next(call)
        with refused(codes.INVALID_PARAM, name):
            call.throw(error_of(codes.TRY_AGAIN))


# -- iterations

NEXT = "saCkptSectionIterationNext"
FINALIZE = "saCkptSectionIterationFinalize"


def test_an_iteration_asks_for_the_section_after_the_last_one() -> None:
    iteration = Iteration(opened(), 3, 99)
    asks: list[SafRequest] = []

    def answer(ask: SafRequest, payload: Any) -> Any:
        asks.append(ask)
        return payload

    section = drive(iteration.next(), answer, [[[b"k", 1, 2, 1, 4, None]], b"k"])
    assert section == SectionDescriptor(b"k", 1, 2, 1, 4)
    assert unpack_body(asks[0].body) == [3, 99, None, False, 1]
    assert unpack_body(asked(iteration.next()).body) == [3, 99, b"k", False, 1]
    assert asks[0].call == NEXT


def test_an_answer_that_was_lost_is_asked_for_again() -> None:
    iteration = Iteration(opened(), 5, None)
    assert asked(iteration.next()) == asked(iteration.next())


def test_an_iteration_that_came_to_its_end_stays_there() -> None:
    iteration = Iteration(opened(), 5, None)
    with refused(NO_SECTIONS, NEXT):
        drive(iteration.next(), lambda ask, payload: payload, [[], None])
    for _ in range(2):
        with refused(NO_SECTIONS, NEXT):
            asked(iteration.next())
    iteration.finalize()
    with refused(codes.BAD_HANDLE, NEXT):
        asked(iteration.next())


def test_an_iteration_is_finalized_once_and_ends_with_its_checkpoint() -> None:
    handle = opened()
    first, second = Iteration(handle, 5, None), Iteration(handle, 5, None)
    first.finalize()
    with refused(codes.BAD_HANDLE, FINALIZE):
        first.finalize()
    asked(second.next())
    handle.close()
    with refused(codes.BAD_HANDLE, NEXT):
        asked(second.next())
    with refused(codes.BAD_HANDLE, FINALIZE):
        second.finalize()


# -- versions


@pytest.mark.parametrize(
    "asked", [("B", 2, 2), ("B", 2, 0), ("B", 2, 99), ("B", 1, 1), ("B", 1, 9), ("B", 0, 0)]
)
def test_versions_that_are_supported(asked: Any) -> None:
    assert negotiate(asked) == asked
    assert negotiate((asked[0].encode(), *asked[1:])) == asked
    assert negotiate(list(asked)) == asked
    assert is_new(asked) == (asked[1] >= 2)


@pytest.mark.parametrize(
    "asked", [("A", 1, 1), ("C", 1, 1), ("b", 2, 2), ("B", 3, 0), ("B", 3, 1), ("B", 255, 0)]
)
def test_versions_that_are_not_name_the_one_that_is(asked: Any) -> None:
    with refused(VERSION) as caught:
        negotiate(asked)
    assert caught.value.version == HIGHEST == ("B", 2, 2)
    assert "B.2.2" in caught.value.text
    with refused(VERSION) as caught:
        negotiate(asked, ("B", 2, 3))
    assert caught.value.version == ("B", 2, 3)


@pytest.mark.parametrize(
    "asked",
    [
        None, 5, "B22", "B.2.2", ("B", 2), ("B", 2, 2, 0), ("BB", 2, 2), ("", 2, 2), (2, 2, 2), ("B", "2", 2),
        ("B", 2, None), ("B", -1, 2), ("B", 2, -1), ("B", True, 1), ("B", 2.0, 2), (b"\xff", 2, 2),
    ],
)  # fmt: skip
def test_what_is_no_version_is_an_invalid_parameter(asked: Any) -> None:
    with refused(codes.INVALID_PARAM) as caught:
        negotiate(asked)
    assert caught.value.version is None


def test_a_version_as_people_write_it() -> None:
    assert show(HIGHEST) == "B.2.2"


# -- answers


def test_answers_that_no_daemon_gives() -> None:
    for read, payload in (
        (descriptor_of, [1]),
        (descriptor_of, None),
        (descriptor_of, [[1], 0, 0, "a", [], 0, False]),
        (values_of, None),
        (values_of, b"ab"),
        (page_of, [[[1, 2]], None]),
        (page_of, 5),
        (page_of, [None, None]),
    ):
        with refused(LIBRARY):
            read(payload)


def test_a_generated_id_is_returned() -> None:
    assert created_id("", [b"made up"]) == b"made up"
    assert created_id("given", []) == created_id(b"given", None) == b"given"


def test_how_a_call_ended_is_a_code_of_the_forums() -> None:
    """A code of a later daemon came out of `dispatch` as a ValueError, and the callback was never called."""
    assert code_of(None) is SaAisErrorT.SA_AIS_OK
    assert code_of(error_of(codes.TIMEOUT)) is SaAisErrorT.SA_AIS_ERR_TIMEOUT
    assert code_of(error_of(999)) is code_of(RuntimeError()) is LIBRARY
