"""What each directory request becomes: the operation to order and the answer, or the refusal."""

from typing import Any

import pytest

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_TIME_MAX
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_answers import decode_answer
from ckpt_protocol.parse_requests import check_name
from ckptd.core.client_request import Request
from ckptd.core.directory.directory import EPOCH_SHIFT, OPENED_WITH_B01_RULES, Directory, DirectoryOp
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.directory.validation import validate
from ckptd.core.settings import Settings
from ckptd.core.view import bootstrap_view

SESSION = 77
READ, WRITE, CREATE = 1, 2, 4
SYNC, ASYNC_COLLOCATED, SYNC_COLLOCATED, WEAK_COLLOCATED, ASYNC = 1, 10, 9, 12, 2
VIEW = bootstrap_view(3, {"a": 1, "b": 1, "c": 1, "d": 1})


def attributes(flags: int = SYNC, retention_ns: int = 5) -> list[int]:
    return [flags, 100, retention_ns, 10, 100, 16]


class Asked:
    """A directory, and the requests of one session that is attached at node a."""

    def __init__(self, **limits: Any) -> None:
        self.directory = Directory()
        self.directory.installed_epoch = VIEW.epoch
        self.settings = Settings("a", peers=("b", "c", "d"), **limits)
        self.number = 0
        self.do(Kind.ATTACH, [True], lowest=1)

    def plan(
        self, kind: int, fields: Any, *, lowest: int = 0, session: int = SESSION, node_id: str = "a"
    ) -> tuple[list[Any], Any]:
        """(operation, the answer's payload)."""
        self.number += 1
        body = fields if type(fields) is bytes else pack_body(fields)
        request = Request(0, session, self.number, lowest, kind, 0, body, 0)
        if kind == Kind.ATTACH:
            # An ATTACH names the generation where others name the lowest unanswered request.
            request.body = pack_body([lowest, *fields])
        op, answer = validate(
            self.directory, VIEW, self.settings, node_id, request, (), lambda creation_id, barred: False
        )
        code, payload, index, text = decode_answer(answer)
        assert (code, index, text) == (codes.OK, -1, "")
        return op, payload

    def do(self, kind: int, fields: Any, **how: Any) -> Any:
        """Plan and apply; the answer's payload."""
        op, payload = self.plan(kind, fields, **how)
        if op:
            self.directory.apply(op, self.directory.seq + 1, 0)
        return payload

    def refused(self, kind: int, fields: Any, **how: Any) -> int:
        with pytest.raises(RequestError) as caught:
            self.plan(kind, fields, **how)
        assert caught.value.text
        return caught.value.code

    def create(
        self, name: bytes = b"n", flags: int = SYNC, retention_ns: int = 5, **how: Any
    ) -> CheckpointEntry:
        """The checkpoint, made and opened for everything."""
        opening = [name, READ | WRITE | CREATE, attributes(flags, retention_ns), True]
        payload = self.do(Kind.OPEN, opening, **how)
        return self.directory.checkpoints[payload[1]]

    @property
    def handle(self) -> int:
        """The handle that was opened last."""
        return list(self.directory.sessions[SESSION].opens)[-1]


# -- names


@pytest.mark.parametrize("name", [b"n", b"x" * 2048, "Prüfpunkt/✓".encode(), b" "])
def test_a_name_is_good_when_it_is_utf8_of_1_to_2048_bytes(name: bytes) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"", codes.INVALID_PARAM),
        (b"a\0b", codes.INVALID_PARAM),
        (b"\0", codes.INVALID_PARAM),
        (b"\xff", codes.INVALID_PARAM),
        ("é".encode()[:1], codes.INVALID_PARAM),
        (b"\xed\xa0\x80", codes.INVALID_PARAM),
        (b"x" * 2049, codes.TOO_BIG),
        ("é".encode() * 1025, codes.TOO_BIG),
        ("text", codes.INVALID_PARAM),
        (None, codes.INVALID_PARAM),
        (7, codes.INVALID_PARAM),
        ([b"n"], codes.INVALID_PARAM),
    ],
)
def test_a_name_is_refused_when_it_is_none(name: Any, code: int) -> None:
    asked = Asked()
    assert asked.refused(Kind.OPEN, [name, CREATE, attributes(), True]) == code
    assert asked.refused(Kind.UNLINK, [name]) == code


# -- OPEN


def test_create_orders_a_checkpoint_and_answers_its_handle_id_and_attributes() -> None:
    asked = Asked()
    op, payload = asked.plan(Kind.OPEN, [b"n", WRITE | CREATE, attributes(), True])
    creation_id = (VIEW.epoch << EPOCH_SHIFT) + asked.directory.seq + 1
    flags = WRITE | CREATE | OPENED_WITH_B01_RULES
    assert op == [DirectoryOp.CREATE, SESSION, asked.number, flags, b"n", attributes(), ["a", "b", "c"], "a"]
    assert payload == [asked.number, creation_id, attributes()]
    asked.directory.apply(op, asked.directory.seq + 1, 0)
    assert asked.directory.find(b"n") is asked.directory.checkpoints[creation_id]


@pytest.mark.parametrize(
    ("flags", "replicas", "active"),
    [
        (SYNC, ["b", "a", "c"], "b"),
        (ASYNC, ["b", "a", "c"], "b"),
        (SYNC_COLLOCATED, ["b"], "b"),
        (ASYNC_COLLOCATED, ["b"], None),
        (WEAK_COLLOCATED, ["b"], None),
    ],
)
def test_replicas_and_the_active_one_are_placed_by_the_creation_flags(
    flags: int, replicas: list[str], active: str | None
) -> None:
    op, _ = Asked().plan(Kind.OPEN, [b"n", CREATE, attributes(flags), True], node_id="b")
    assert op[6:] == [replicas, active]


def test_replicas_go_to_the_members_that_hold_least() -> None:
    asked = Asked()
    asked.create(b"n")
    assert list(asked.create(b"m").replicas) == ["a", "d", "b"]


@pytest.mark.parametrize("flags", [0, 8, 9, 15, -1, 2**32, None, "1", 1.0, True])
def test_open_flags_are_refused_when_none_or_unknown_ones_are_set(flags: Any) -> None:
    asked = Asked()
    asked.create()
    assert asked.refused(Kind.OPEN, [b"n", flags, None, True]) == codes.BAD_FLAGS
    assert asked.refused(Kind.OPEN, [b"n", flags, attributes(), True]) == codes.BAD_FLAGS


@pytest.mark.parametrize("flags", [READ, WRITE, READ | WRITE])
def test_an_open_without_create_must_bring_no_attributes_and_finds_or_does_not(flags: int) -> None:
    asked = Asked()
    assert asked.refused(Kind.OPEN, [b"n", flags, attributes(), True]) == codes.INVALID_PARAM
    assert asked.refused(Kind.OPEN, [b"n", flags, None, True]) == codes.NOT_EXIST
    entry = asked.create()
    assert asked.refused(Kind.OPEN, [b"n", flags, attributes(), True]) == codes.INVALID_PARAM
    op, payload = asked.plan(Kind.OPEN, [b"n", flags, None, True])
    assert op == [DirectoryOp.OPEN, SESSION, asked.number, entry.creation_id, flags | OPENED_WITH_B01_RULES]
    assert payload == [asked.number, entry.creation_id, attributes()]


@pytest.mark.parametrize("flags", [CREATE, CREATE | READ, CREATE | WRITE, CREATE | READ | WRITE])
def test_create_without_attributes_is_refused_even_when_the_checkpoint_exists(flags: int) -> None:
    asked = Asked()
    assert asked.refused(Kind.OPEN, [b"n", flags, None, True]) == codes.INVALID_PARAM
    asked.create()
    assert asked.refused(Kind.OPEN, [b"n", flags, None, True]) == codes.INVALID_PARAM
    assert asked.refused(Kind.OPEN, [b"n", flags, [3, 0, 0, 1, 1, 1], True]) == codes.INVALID_PARAM


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("compare_retention", [True, False])
def test_a_reopen_with_create_needs_the_same_attributes(place: int, compare_retention: bool) -> None:
    asked = Asked()
    asked.create()
    wanted = [2, 99, 6, 11, 101, 17]
    other = attributes()
    other[place] = wanted[place]
    opening = [b"n", CREATE | READ, other, compare_retention]
    if place == 2 and not compare_retention:
        _, payload = asked.plan(Kind.OPEN, opening)
        assert payload[2] == attributes(), "the retention in force is answered, not the one that was asked"
    else:
        assert asked.refused(Kind.OPEN, opening) == codes.EXIST


def test_a_reopen_compares_with_the_creation_and_answers_the_retention_in_force() -> None:
    asked = Asked()
    asked.create(retention_ns=5)
    asked.do(Kind.RETENTION_SET, [asked.handle, 900])
    _, payload = asked.plan(Kind.OPEN, [b"n", CREATE | READ, attributes(retention_ns=5), True])
    assert payload[2] == attributes(retention_ns=900)
    wanted = [b"n", CREATE | READ, attributes(retention_ns=900), True]
    assert asked.refused(Kind.OPEN, wanted) == codes.EXIST


def test_an_unlinked_name_is_free_again() -> None:
    asked = Asked()
    old = asked.create()
    asked.do(Kind.UNLINK, [b"n"])
    assert asked.refused(Kind.OPEN, [b"n", READ, None, True]) == codes.NOT_EXIST
    new = asked.create(flags=ASYNC)
    assert new.creation_id != old.creation_id
    assert set(asked.directory.checkpoints) == {old.creation_id, new.creation_id}


def test_every_limit_of_the_directory_is_no_resources() -> None:
    asked = Asked(opens_per_session_max=2)
    asked.create()
    asked.do(Kind.OPEN, [b"n", READ, None, True])
    assert asked.refused(Kind.OPEN, [b"n", READ, None, True]) == codes.NO_RESOURCES
    asked = Asked(opens_max=2)
    asked.create()
    asked.do(Kind.OPEN, [b"n", READ, None, True])
    assert asked.refused(Kind.OPEN, [b"n", READ, None, True]) == codes.NO_RESOURCES
    asked.do(Kind.CLOSE, [asked.handle])
    assert asked.plan(Kind.OPEN, [b"n", READ, None, True])
    asked = Asked(checkpoints_max=1)
    asked.create()
    assert asked.refused(Kind.OPEN, [b"m", CREATE, attributes(), True]) == codes.NO_RESOURCES
    assert asked.plan(Kind.OPEN, [b"n", READ, None, True])
    asked = Asked(sessions_max=1)
    assert asked.refused(Kind.ATTACH, [True], lowest=1, session=78) == codes.NO_RESOURCES
    assert asked.plan(Kind.ATTACH, [True], lowest=2)


# -- CLOSE, UNLINK, RETENTION_SET


def test_close_orders_the_close_of_an_open_handle_only() -> None:
    asked = Asked()
    asked.create()
    handle = asked.handle
    assert asked.plan(Kind.CLOSE, [handle]) == ([DirectoryOp.CLOSE, SESSION, handle], None)
    for wrong in (0, handle + 1):
        assert asked.refused(Kind.CLOSE, [wrong]) == codes.BAD_HANDLE
    for wrong in (-1, 2**64 - 0.5, None, "1", True, [handle]):
        assert asked.refused(Kind.CLOSE, [wrong]) == codes.INVALID_PARAM
    asked.do(Kind.CLOSE, [handle])
    assert asked.refused(Kind.CLOSE, [handle]) == codes.BAD_HANDLE


def test_unlink_of_a_name_that_means_nothing_is_not_exist() -> None:
    asked = Asked()
    assert asked.refused(Kind.UNLINK, [b"n"]) == codes.NOT_EXIST
    asked.create()
    assert asked.plan(Kind.UNLINK, [b"n"]) == ([DirectoryOp.UNLINK, b"n"], None)
    asked.do(Kind.UNLINK, [b"n"])
    assert asked.refused(Kind.UNLINK, [b"n"]) == codes.NOT_EXIST


def test_unlink_with_a_creation_id_leaves_a_successor_of_that_name_alone() -> None:
    asked = Asked()
    old = asked.create()
    asked.do(Kind.UNLINK, [b"n", old.creation_id])
    assert asked.refused(Kind.UNLINK, [b"n", old.creation_id]) == codes.NOT_EXIST
    new = asked.create()
    assert asked.refused(Kind.UNLINK, [b"n", old.creation_id]) == codes.NOT_EXIST
    assert asked.plan(Kind.UNLINK, [b"n", new.creation_id]) == ([DirectoryOp.UNLINK, b"n"], None)
    assert asked.plan(Kind.UNLINK, [b"n", 0]) == ([DirectoryOp.UNLINK, b"n"], None)
    for wrong in (None, "1", 1.0, True, [new.creation_id]):
        assert asked.refused(Kind.UNLINK, [b"n", wrong]) == codes.INVALID_PARAM


@pytest.mark.parametrize("retention_ns", [0, 1, SA_TIME_MAX])
def test_the_retention_is_set_within_its_limits(retention_ns: int) -> None:
    asked = Asked()
    entry = asked.create()
    op, _ = asked.plan(Kind.RETENTION_SET, [asked.handle, retention_ns])
    assert op == [DirectoryOp.RETENTION_SET, entry.creation_id, retention_ns]


@pytest.mark.parametrize("retention_ns", [-1, SA_TIME_MAX + 1, None, "1", 1.0, True])
def test_a_retention_that_is_no_duration_is_refused(retention_ns: Any) -> None:
    asked = Asked()
    asked.create()
    assert asked.refused(Kind.RETENTION_SET, [asked.handle, retention_ns]) == codes.INVALID_PARAM


def test_the_retention_of_an_unlinked_checkpoint_cannot_be_set() -> None:
    asked = Asked()
    asked.create()
    asked.do(Kind.UNLINK, [b"n"])
    assert asked.refused(Kind.RETENTION_SET, [asked.handle, 5]) == codes.BAD_OPERATION


@pytest.mark.parametrize("kind", [Kind.RETENTION_SET, Kind.ACTIVE_SET])
def test_setting_needs_an_open_handle_with_write(kind: int) -> None:
    asked = Asked()
    asked.create(flags=ASYNC_COLLOCATED)
    argument = kind == Kind.ACTIVE_SET or 1
    for wrong in (0, 999):
        assert asked.refused(kind, [wrong, argument]) == codes.BAD_HANDLE
    for wrong in (None, "1", [1]):
        assert asked.refused(kind, [wrong, argument]) == codes.INVALID_PARAM
    asked.do(Kind.OPEN, [b"n", READ, None, False])
    assert asked.refused(kind, [asked.handle, argument]) == codes.ACCESS


def test_at_b01_the_retention_duration_is_set_without_write() -> None:
    """B.01.01 lists no ACCESS error for it (R76); at B.02 it needs WRITE."""
    asked = Asked()
    entry = asked.create(flags=ASYNC_COLLOCATED)
    asked.do(Kind.OPEN, [b"n", READ, None, True])
    asked.do(Kind.RETENTION_SET, [asked.handle, 7])
    assert entry.retention_ns == 7


@pytest.mark.parametrize("kind", [Kind.RETENTION_SET, Kind.ACTIVE_SET])
def test_a_handle_of_a_checkpoint_that_was_lost_is_bad(kind: int) -> None:
    asked = Asked()
    entry = asked.create(flags=ASYNC_COLLOCATED)
    del asked.directory.checkpoints[entry.creation_id]
    argument = kind == Kind.ACTIVE_SET or 1
    assert asked.refused(kind, [asked.handle, argument]) == codes.BAD_HANDLE


# -- ACTIVE_SET


@pytest.mark.parametrize("flags", [SYNC, SYNC_COLLOCATED, ASYNC, 4])
def test_only_an_async_collocated_checkpoint_has_its_active_replica_set(flags: int) -> None:
    asked = Asked()
    asked.create(flags=flags)
    assert asked.refused(Kind.ACTIVE_SET, [asked.handle, False]) == codes.BAD_OPERATION


@pytest.mark.parametrize("flags", [ASYNC_COLLOCATED, WEAK_COLLOCATED])
def test_the_local_replica_becomes_active(flags: int) -> None:
    asked = Asked()
    entry = asked.create(flags=flags)
    op, _ = asked.plan(Kind.ACTIVE_SET, [asked.handle, False])
    assert op == [DirectoryOp.ACTIVE_SET, entry.creation_id, "a"]
    asked.do(Kind.ACTIVE_SET, [asked.handle, False])
    assert entry.active == "a"
    assert asked.plan(Kind.ACTIVE_SET, [asked.handle, False])[0] == []


@pytest.mark.parametrize(("only_if_none", "moves"), [(True, False), (False, True)])
def test_the_active_replica_moves_unless_it_is_only_wanted_where_there_is_none(
    only_if_none: bool, moves: bool
) -> None:
    asked = Asked()
    entry = asked.create(flags=ASYNC_COLLOCATED)
    entry.replicas["b"], entry.active = True, "b"
    op, _ = asked.plan(Kind.ACTIVE_SET, [asked.handle, only_if_none])
    assert op == ([DirectoryOp.ACTIVE_SET, entry.creation_id, "a"] if moves else [])


def test_an_active_replica_is_tried_again_while_the_last_one_is_still_becoming_it() -> None:
    asked = Asked()
    entry = asked.create(flags=ASYNC_COLLOCATED)
    entry.replicas["b"], entry.active = False, "b"
    assert asked.refused(Kind.ACTIVE_SET, [asked.handle, False]) == codes.TRY_AGAIN
    entry.active = "gone"
    assert asked.refused(Kind.ACTIVE_SET, [asked.handle, False]) == codes.TRY_AGAIN


def test_an_active_replica_is_tried_again_without_a_replica_here_or_while_holders_are_awaited() -> None:
    asked = Asked()
    entry = asked.create(flags=ASYNC_COLLOCATED)
    assert asked.refused(Kind.ACTIVE_SET, [asked.handle, False], node_id="b") == codes.TRY_AGAIN
    entry.last_in_sync = {"b": 1}
    assert asked.refused(Kind.ACTIVE_SET, [asked.handle, False]) == codes.TRY_AGAIN


# -- ATTACH and DETACH


def test_a_session_is_created_by_a_fresh_attach_only() -> None:
    asked = Asked()
    assert asked.refused(Kind.ATTACH, [False], lowest=1, session=78) == codes.BAD_HANDLE
    op, _ = asked.plan(Kind.ATTACH, [True], lowest=1, session=78, node_id="b")
    assert op == [DirectoryOp.ATTACH, 78, 1, "b", False]


def test_a_session_moves_with_a_newer_generation_and_never_back() -> None:
    asked = Asked()
    moved = asked.plan(Kind.ATTACH, [False], lowest=3, node_id="b")[0]
    assert moved == [DirectoryOp.ATTACH, SESSION, 3, "b", False]
    asked.do(Kind.ATTACH, [False], lowest=3, node_id="b")
    assert asked.plan(Kind.ATTACH, [False], lowest=3, node_id="b")[0] == []
    assert asked.refused(Kind.ATTACH, [False], lowest=2) == codes.BAD_HANDLE
    assert asked.refused(Kind.ATTACH, [True], lowest=2) == codes.BAD_HANDLE
    assert asked.directory.sessions[SESSION].node_id == "b"


@pytest.mark.parametrize("session", [0, 2**63, 2**64 - 1])
def test_a_session_number_is_refused_when_it_is_none(session: int) -> None:
    assert Asked().refused(Kind.ATTACH, [True], lowest=1, session=session) == codes.INVALID_PARAM


@pytest.mark.parametrize("generation", [None, "1", 1.0, True])
def test_a_generation_is_refused_when_it_is_no_integer(generation: Any) -> None:
    assert Asked().refused(Kind.ATTACH, [True], lowest=generation) == codes.INVALID_PARAM


def test_detach_ends_the_session_in_its_generation() -> None:
    asked = Asked()
    asked.do(Kind.ATTACH, [False], lowest=4)
    assert asked.plan(Kind.DETACH, [])[0] == [DirectoryOp.END, SESSION, 4, True]
    asked.do(Kind.DETACH, [])
    assert asked.refused(Kind.DETACH, []) == codes.BAD_HANDLE


# -- all kinds


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.DETACH, []),
        (Kind.OPEN, [b"n", READ, None, True]),
        (Kind.CLOSE, [1]),
        (Kind.RETENTION_SET, [1, 1]),
        (Kind.ACTIVE_SET, [1, False]),
    ],
)
def test_a_session_that_has_ended_has_bad_handles_only(kind: int, fields: list[Any]) -> None:
    assert Asked().refused(kind, fields, session=78) == codes.BAD_HANDLE


@pytest.mark.parametrize(
    "kind", [Kind.OPEN, Kind.CLOSE, Kind.UNLINK, Kind.RETENTION_SET, Kind.ACTIVE_SET], ids=str
)
@pytest.mark.parametrize("body", [b"", b"\xc1", pack_body([]), pack_body({}), pack_body(3)], ids=repr)
def test_a_body_that_is_no_array_of_its_fields_is_invalid(kind: int, body: bytes) -> None:
    assert Asked().refused(kind, body) == codes.INVALID_PARAM


@pytest.mark.parametrize("kind", [0, Kind.UPDATE, Kind.READ, Kind.STATUS, 99])
def test_a_kind_that_is_no_directory_request_is_not_supported(kind: int) -> None:
    assert Asked().refused(kind, []) == codes.NOT_SUPPORTED
