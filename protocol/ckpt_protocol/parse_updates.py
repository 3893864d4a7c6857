"""Parsers for section operations: the bodies of UPDATE and REPLICATE.

A table of shapes checks an operation's number and the types of all its fields with a single look-up, whatever
the operation is. Every write passes through here, at every replica.
"""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Final, NewType

from ckpt_protocol import codes
from ckpt_protocol.body_codec import Row, unpack_bounded, unpack_rows
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.bounds_check import array_length
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.field_checks import U64_MAX, array, octets, row, whole
from ckpt_protocol.limits import (
    ANSWERS_PER_BATCH_MAX,
    OPS_PER_BATCH_MAX,
    OPS_PER_UPDATE_MAX,
    SIZE_MAX,
    VERSION_BYTES,
)
from ckpt_protocol.messages import Kind, Op

Ops = NewType("Ops", Sequence[list[Any]])
"""Checked operations: each has a known number, and its fields have the right types and ranges.

What depends on the checkpoint (its limits, what exists, what time it is) is not checked here.
"""

Answered = tuple[int, int, int, bytes]
"""A request that a weak batch answers.

It holds the session, the request number, the lowest unanswered number and the answer's body.
"""

_WRONG: Final = "an operation is unknown, or has missing or wrong fields"
_NOT_A_LIST: Final = "an update has no operations"

Shapes = dict[tuple[Any, ...], int]
"""The index of the offset field (0: none), by an operation's number and the types of all its fields."""

_NIL: Final = type(None)

_OF_CLIENTS: Final[Shapes] = {
    (Op.DELETE, int, bytes): 0,
    (Op.OVERWRITE, int, bytes, bytes): 0,
    (Op.EXPIRATION_SET, int, bytes, int): 0,
    (Op.EXPIRE_AFTER, int, bytes, int): 2,
    (Op.REMOVE, int, bytes): 0,
    (Op.CREATE, int, bytes, int, bytes): 0,
    (Op.WRITE, int, bytes, int, bytes): 2,
    (Op.PUT, int, bytes, bytes, _NIL): 0,
    (Op.PUT, int, bytes, bytes, int): 0,
    (Op.PATCH, int, bytes, int, bytes, _NIL): 2,
    (Op.PATCH, int, bytes, int, bytes, int): 2,
    (Op.REQUIRE, int, bytes, bytes): 0,
    (Op.REQUIRE, int, bytes, bool): 0,
    (Op.REQUIRE, int, bytes, _NIL): 0,
    (Op.LEAD, int, int, int, int, bool, bool, str, str, int): 0,
    (Op.RESIGN, int, int, str): 0,
    (Op.RESIGN, int, int, _NIL): 0,
    (Op.REVOKE, int, int, int): 0,
    (Op.TOKEN, int, int, int, int, int): 0,
}

for _limits in product((int, _NIL), repeat=3):
    _OF_CLIENTS[Op.RESIZE, int, *_limits, bool] = 0

_OF_REPLICAS: Final[Shapes] = {
    **_OF_CLIENTS,
    (Op.REMOVE, int, bytes, bool): 0,
    (Op.CREATE, int, bytes, int, bytes, bool): 0,  # True: the active replica generated the id.
    (Op.PIECE, int, bytes, int, int, bytes, int, int): 3,  # (Of a node without section versions.)
    (Op.PIECE, int, bytes, int, int, bytes, int, int, bytes): 3,
    (Op.LEADERSHIP, int, bytes): 0,
    (Op.RESIZE, int, int, int, int, int, int, int, int): 0,
}


def _taker(shapes: Shapes) -> Callable[[Row], Row]:
    find = shapes.get

    def check(op: Row) -> Row:
        index = find((op[0], *map(type, op))) if op and type(op[0]) is int else None
        if index == 0 or (index is not None and 0 <= op[index] <= SIZE_MAX):
            return op
        raise ValueError(_WRONG)

    return check


def _taker_of_all(shapes: Shapes) -> Callable[[list[Row]], bool]:
    """Return a check that accepts a list of operations if all have the same field types, as most updates do.

    It goes column by column, which is faster than one operation at a time.
    """
    find = shapes.get

    def check_all(ops: list[Row]) -> bool:
        try:
            columns = list(zip(*ops, strict=True))
        except ValueError:
            return False
        kinds = [set(map(type, column)) for column in columns]
        if not columns or any(len(kind) > 1 for kind in kinds):
            return False
        types = [kind.pop() for kind in kinds]
        for number in set(columns[0]):
            index = find((number, *types))
            if index is None or (
                index and not (min(columns[index]) >= 0 and max(columns[index]) <= SIZE_MAX)
            ):
                return False
        return True

    return check_all


_check_of_client: Final = _taker(_OF_CLIENTS)
_check_of_replica: Final = _taker(_OF_REPLICAS)
_check_all_of_client: Final = _taker_of_all(_OF_CLIENTS)
_check_all_of_replica: Final = _taker_of_all(_OF_REPLICAS)


def parse_update(body: bytes) -> Ops:
    """Parse a client's UPDATE.

    Raises: FrameError for a body that is not msgpack, or beyond the kind's bounds; RequestError INVALID_PARAM
    with the index of the operation at fault; RequestError NO_RESOURCES for too many operations.
    """
    ops = unpack_rows(body, OPS_PER_UPDATE_MAX, _check_of_client, _check_all_of_client)
    if ops:
        return Ops(ops)
    if array_length(body) > OPS_PER_UPDATE_MAX:
        text = f"{array_length(body)} operations in one update; at most {OPS_PER_UPDATE_MAX} are allowed"
        raise RequestError(codes.NO_RESOURCES, text)
    content = unpack_bounded(body, BOUNDS[Kind.UPDATE])
    if type(content) is not list or not content:
        raise RequestError(codes.INVALID_PARAM, _NOT_A_LIST)
    return Ops(_checked(content, _check_of_client))


def check_conditions(ops: Ops) -> int:
    """Return how many conditions an update begins with.

    Raises: RequestError INVALID_PARAM if one comes after a change, names a section that another one names, or
    has something else than a version, nil or true.
    """
    named: set[bytes] = set()
    for index, op in enumerate(ops):
        if op[0] != Op.REQUIRE:
            continue
        if index > len(named):
            raise RequestError(codes.INVALID_PARAM, "a condition comes after a change", index)
        section_id, wanted = op[1:]
        if section_id in named:
            text = f"two conditions name section {section_id[:32]!r}"
            raise RequestError(codes.INVALID_PARAM, text, index)
        if wanted is False or (type(wanted) is bytes and len(wanted) != VERSION_BYTES):
            raise RequestError(codes.INVALID_PARAM, "a condition has no version of a section", index)
        named.add(section_id)
    return len(named)


def _checked(content: list[Any], check: Any) -> list[Row]:
    for index, op in enumerate(content):
        try:
            if type(op) is not list:
                raise ValueError
            check(op)
        except ValueError:
            raise RequestError(codes.INVALID_PARAM, _WRONG, index) from None
    return content


def parse_replicated(body: bytes, session: int) -> tuple[Ops, list[Answered] | None]:
    """Parse what follows REPLICATE's route: the operations, and what a batch answers (None: not a batch).

    Raises: FrameError.
    """
    if session:
        ops = unpack_rows(body, OPS_PER_UPDATE_MAX, _check_of_replica, _check_all_of_replica)
        if ops:
            return Ops(ops), None
        content = unpack_bounded(body, BOUNDS[Kind.REPLICATE])
        if content == []:
            raise FrameError("an update has no operations")
        return _ops(content), None
    content, rows, *_ = row(unpack_bounded(body, BOUNDS[Kind.REPLICATE]), "a batch", 2)
    answered = [_answered(fields) for fields in array(rows, "answers", ANSWERS_PER_BATCH_MAX)]
    if content == [] and not answered:
        raise FrameError("an update has neither operations nor answers")
    return _ops(content), answered


def _ops(content: object) -> Ops:
    try:
        return Ops(_checked(array(content, "operations", OPS_PER_BATCH_MAX), _check_of_replica))
    except RequestError as refusal:
        raise FrameError(f"{refusal.text} ({refusal.index})") from None


def _answered(fields: object) -> Answered:
    session, request, lowest, answer, *_ = row(fields, "an answered request", 4)
    return (
        whole(session, "a session", U64_MAX),
        whole(request, "a request number", U64_MAX),
        whole(lowest, "a lowest number", U64_MAX),
        octets(answer, "an answer", SIZE_MAX),
    )
