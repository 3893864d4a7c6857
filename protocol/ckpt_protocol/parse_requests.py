"""Parsers for the bodies of clients' requests: one function for each kind.

They raise FrameError for a body that is not msgpack or beyond its kind's bounds (that ends the connection),
and RequestError for a wrong field (that is the answer to the request). UPDATE is in `parse_updates`.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NewType

from ckpt_protocol import codes
from ckpt_protocol.body_codec import Row, bounded_array, unpack_bounded, unpack_rows
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.bounds_check import array_length
from ckpt_protocol.constants import (
    OPEN_FLAGS_ALL,
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_FOREVER,
)
from ckpt_protocol.creation_attributes import attributes_fault
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.field_checks import U64_MAX, node_id, text, whole
from ckpt_protocol.limits import (
    NAME_BYTES_MAX,
    READ_ELEMENTS_MAX,
    SECTIONS_MAX,
    SIZE_MAX,
    TRACK_PREFIX_BYTES_MAX,
    WITHDRAWN_MAX,
)
from ckpt_protocol.messages import Kind, Verb

Elements = NewType("Elements", Sequence[list[Any]])
"""The checked elements of a READ, each `[section id, offset, size or None]`.

Perhaps with `with_version`, and then perhaps with `with_time_left`. Offset and size are from 0 to `SIZE_MAX`.
"""


class Open(NamedTuple):
    """OPEN. `attributes`: six integers that obey the rules of `creation_attributes`; None without CREATE.

    `grow`: the checkpoint may exist with other limits, since the client resizes it then.
    """

    name: bytes
    flags: int
    attributes: tuple[int, ...] | None
    compare_retention: bool
    grow: bool = False


class Iterate(NamedTuple):
    """ITERATE. `after` None: from the beginning; `limit` None: as many as fit into a page."""

    chosen: int
    expiration_ns: int
    after: bytes | None
    with_values: bool
    limit: int | None
    with_versions: bool
    with_position: bool


class Track(NamedTuple):
    """TRACK. `after` None: the client asks for the current position in the order of updates.

    Only sections whose id begins with `prefix` are reported, or with `exact` the one that has this id.
    """

    after: int | None
    lineage: int
    with_values: bool = False
    prefix: bytes = b""
    exact: bool = False


class Operate(NamedTuple):
    """OPERATE. `name` is a node id for `Verb.ACCEPT_LOSS`, a checkpoint's name for `Verb.RETRY`, else ""."""

    verb: str
    name: str


def wrong(message: str, index: int = -1) -> RequestError:
    """Return the refusal of a wrong field."""
    return RequestError(codes.INVALID_PARAM, message, index)


def _fields(kind: int, body: bytes, fields_min: int) -> list[Any]:
    return bounded_array(body, BOUNDS[kind], fields_min)


_NO_FIELDS: Final = b"\x90"


def parse_nothing(kind: int, body: bytes) -> None:
    """CLOSE, DETACH, STATUS, SYNCHRONIZE: they have no fields yet."""
    if body != _NO_FIELDS:
        _fields(kind, body, 0)


def parse_ping(body: bytes) -> list[int]:
    """PING: the numbers of the requests that the node should withdraw if they only wait."""
    if body == _NO_FIELDS:
        return []
    return [_number(number, "a request's number") for number in _fields(Kind.PING, body, 0)[:WITHDRAWN_MAX]]


def parse_attach(body: bytes) -> bool:
    """ATTACH: True if the session is new."""
    fresh = _fields(Kind.ATTACH, body, 1)[0]
    if type(fresh) is not bool:
        raise wrong("the session's is-new flag must be true or false")
    return fresh


def parse_open(body: bytes) -> Open:
    """OPEN. Refusals: BAD_FLAGS, then those of `check_name`, then INVALID_PARAM."""
    name, flags, attributes, compare_retention, *more = _fields(Kind.OPEN, body, 4)
    if type(flags) is not int or not 0 < flags <= OPEN_FLAGS_ALL:
        raise RequestError(codes.BAD_FLAGS, "open flags must be READ, WRITE or CREATE, or several of them")
    name = check_name(name)
    if bool(flags & SA_CKPT_CHECKPOINT_CREATE) != (attributes is not None):
        raise wrong("give creation attributes with CREATE, and only with CREATE")
    if type(compare_retention) is not bool:
        raise wrong("the compare-retention flag must be true or false")
    grow = more[0] if more else False
    if type(grow) is not bool:
        raise wrong("the grow flag must be true or false")
    if attributes is None:
        return Open(name, flags, None, compare_retention, grow)
    fault = attributes_fault(attributes)
    if fault:
        raise wrong(fault)
    return Open(name, flags, tuple(attributes[:6]), compare_retention, grow)


class Unlink(NamedTuple):
    """UNLINK. `creation_id` 0: any; `secret`: that of the leader's LEAD, 0 for others."""

    name: bytes
    creation_id: int
    secret: int


def parse_unlink(body: bytes) -> Unlink:
    """UNLINK."""
    name, *more = _fields(Kind.UNLINK, body, 1)
    creation_id, secret = (*more, 0, 0)[:2]
    return Unlink(check_name(name), _number(creation_id, "a creation id"), _number(secret, "a secret"))


def check_name(name: object) -> bytes:
    """A checkpoint's name: UTF-8, 1 to 2,048 bytes, no NUL (R33, R34). Raises: RequestError."""
    if type(name) is not bytes or not name or b"\0" in name:
        raise wrong("a checkpoint's name must be 1 to 2048 bytes of UTF-8 without NUL")
    if len(name) > NAME_BYTES_MAX:
        raise RequestError(
            codes.TOO_BIG, f"a checkpoint's name of {len(name)} bytes exceeds {NAME_BYTES_MAX} bytes"
        )
    try:
        name.decode()
    except UnicodeDecodeError:
        raise wrong("a checkpoint's name is not UTF-8") from None
    return name


def parse_retention_set(body: bytes) -> int:
    """RETENTION_SET: the duration in ns."""
    return _retention(_fields(Kind.RETENTION_SET, body, 1)[0])


def _retention(retention_ns: object) -> int:
    if type(retention_ns) is not int or not 0 <= retention_ns <= SIZE_MAX:
        raise wrong("the retention duration is negative or exceeds SA_TIME_MAX")
    return retention_ns


def parse_active_set(body: bytes) -> bool:
    """ACTIVE_SET: True if it should do nothing while there is an active replica."""
    return _only_if_none(_fields(Kind.ACTIVE_SET, body, 1)[0])


def _only_if_none(only_if_none: object) -> bool:
    if type(only_if_none) is not bool:
        raise wrong("the only-if-none flag must be true or false")
    return only_if_none


def _element(element: Row) -> Row:
    section_id, offset, size, *more = element
    for flag in more[:2]:
        if type(flag) is not bool:
            raise ValueError
    placed = type(section_id) is bytes and type(offset) is int and 0 <= offset <= SIZE_MAX
    if placed and (size is None or (type(size) is int and 0 <= size <= SIZE_MAX)):
        return element
    raise ValueError


def _one_by_one(elements: list[Row]) -> bool:
    return False


def parse_read(body: bytes) -> Elements:
    """READ. The refusal of a wrong element has its index; too many elements are NO_RESOURCES."""
    elements = unpack_rows(body, READ_ELEMENTS_MAX, _element, _one_by_one)
    if elements:
        return Elements(elements)
    if array_length(body) > READ_ELEMENTS_MAX:
        why = f"{array_length(body)} elements in one read; at most {READ_ELEMENTS_MAX} are allowed"
        raise RequestError(codes.NO_RESOURCES, why)
    content = unpack_bounded(body, BOUNDS[Kind.READ])
    if type(content) is not list or not content:
        raise wrong("a read has no elements")
    for index, element in enumerate(content):
        try:
            if type(element) is not list:
                raise ValueError
            _element(element)
        except ValueError:
            raise wrong("an id, offset or size is out of range", index) from None
    return Elements(content)


def parse_iterate(body: bytes) -> Iterate:
    """ITERATE. An unknown choice of sections is INVALID_PARAM."""
    fields = _fields(Kind.ITERATE, body, 4)
    chosen, expiration_ns, after, with_values = fields[:4]
    limit = fields[4] if len(fields) > 4 else None
    with_versions, with_position = (*fields[5:7], False, False)[:2]
    known = type(chosen) is int and SA_CKPT_SECTIONS_FOREVER <= chosen <= SA_CKPT_SECTIONS_ANY
    if not known or type(expiration_ns) is not int or not 0 <= expiration_ns <= SIZE_MAX:
        raise wrong("the choice of sections is unknown, or a time is negative")
    if (after is not None and type(after) is not bytes) or type(with_values) is not bool:
        raise wrong("a page starts after a section id, or is nil; its with-values flag must be true or false")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= SECTIONS_MAX):
        raise wrong(f"a page must have 1 to {SECTIONS_MAX} sections, or nil for as many as fit")
    if type(with_versions) is not bool or type(with_position) is not bool:
        raise wrong("the with-versions and with-position flags of a page must be true or false")
    return Iterate(chosen, expiration_ns, after, with_values, limit, with_versions, with_position)


def parse_track(body: bytes) -> Track:
    """TRACK."""
    after, *more = _fields(Kind.TRACK, body, 1)
    lineage, with_values, prefix, exact = (*more, *(0, False, b"", False)[len(more) :])[:4]
    if type(with_values) is not bool or type(exact) is not bool or type(prefix) is not bytes:
        raise wrong("a prefix of section ids must be bytes, and the flags of a TRACK true or false")
    if len(prefix) > TRACK_PREFIX_BYTES_MAX:
        raise wrong(f"a prefix of section ids may have {TRACK_PREFIX_BYTES_MAX} bytes, not {len(prefix)}")
    try:
        return Track(
            None if after is None else whole(after, "a position", U64_MAX),
            whole(lineage, "a lineage", U64_MAX, -SIZE_MAX),
            with_values,
            prefix,
            exact,
        )
    except FrameError:
        why = (
            "a position in the sequence of updates must be an unsigned number or nil, and a lineage a number"
        )
        raise wrong(why) from None


class Leader(NamedTuple):
    """LEADER. `handle`: that of the asker's LEAD, or 0; epoch and seq 0: it has no token.

    `whole`: the asker wants to know who waits and who led, too.
    """

    handle: int
    epoch: int
    seq: int
    whole: bool


def parse_leader(body: bytes) -> Leader:
    """LEADER."""
    handle, epoch, seq, everything = _fields(Kind.LEADER, body, 4)[:4]
    if type(everything) is not bool:
        raise wrong("the whole flag must be true or false")
    token = _number(epoch, "a token's epoch"), _number(seq, "a token's seq")
    return Leader(_number(handle, "a handle"), *token, everything)


class LeaderTrack(NamedTuple):
    """LEADER_TRACK: waits until the leadership's version is another one."""

    handle: int
    version: int


def parse_leader_track(body: bytes) -> LeaderTrack:
    """LEADER_TRACK."""
    handle, version = _fields(Kind.LEADER_TRACK, body, 2)[:2]
    return LeaderTrack(_number(handle, "a handle"), _number(version, "a version"))


class Describe(NamedTuple):
    """DESCRIBE. `after`: a page begins after this creation id; None: all checkpoints."""

    what: str
    after: int | None


def parse_describe(body: bytes) -> Describe:
    """DESCRIBE: "cluster" or "checkpoints", and where a page of checkpoints begins."""
    what, *more = _fields(Kind.DESCRIBE, body, 1)
    if type(what) is not str or what not in ("cluster", "checkpoints"):
        raise wrong("only `cluster` and `checkpoints` can be described")
    after = more[0] if more else None
    if after is not None and (type(after) is not int or not 0 <= after <= U64_MAX):
        raise wrong("a page of checkpoints must start after a creation id")
    return Describe(what, after)


_VERBS: Final = (Verb.DRAIN, Verb.STOP, Verb.BOOTSTRAP, Verb.FORCE_ACTIVE)


def parse_operate(body: bytes) -> Operate:
    """OPERATE: one of the commands in `Verb`."""
    fields = _fields(Kind.OPERATE, body, 1)
    verb = fields[0]
    if type(verb) is str and len(fields) == 1 and verb in _VERBS:
        return Operate(verb, "")
    try:
        if type(verb) is str and len(fields) == 2 and verb == Verb.ACCEPT_LOSS:
            return Operate(verb, node_id(fields[1], "a node"))
        if type(verb) is str and len(fields) == 2 and verb == Verb.RETRY:
            return Operate(verb, text(fields[1], "a checkpoint's name", NAME_BYTES_MAX))
    except FrameError as error:
        raise wrong(str(error)) from None
    raise wrong("an operator command must be drain, stop, bootstrap, force-active, accept-loss or retry")


# -- forwarded between nodes: what was in the client's header comes first in the body


class OfHandle(NamedTuple):
    """CLOSE, RETENTION_SET or ACTIVE_SET of a handle.

    `argument`: ns for RETENTION_SET, `only_if_none` for ACTIVE_SET, 0 for CLOSE.
    """

    handle: int
    argument: int


class RoutedAttach(NamedTuple):
    """A forwarded ATTACH. `death_seen`: the client's node is told at once when the client's process dies."""

    generation: int
    fresh: bool
    death_seen: bool


def parse_routed_attach(body: bytes) -> RoutedAttach:
    """A forwarded ATTACH."""
    generation, fresh, *more = _fields(Kind.ATTACH, body, 2)
    death_seen = more[0] if more else False
    if type(fresh) is not bool or type(death_seen) is not bool:
        raise wrong("the flags of a session must be true or false")
    return RoutedAttach(_number(generation, "a session's generation"), fresh, death_seen)


def parse_of_handle(kind: int, body: bytes) -> OfHandle:
    """A forwarded CLOSE, RETENTION_SET or ACTIVE_SET: the handle comes first."""
    fields = _fields(kind, body, 1 if kind == Kind.CLOSE else 2)
    handle = _number(fields[0], "a handle")
    if kind == Kind.CLOSE:
        return OfHandle(handle, 0)
    return OfHandle(handle, _retention(fields[1]) if kind == Kind.RETENTION_SET else _only_if_none(fields[1]))


def _number(value: object, what: str) -> int:
    try:
        return whole(value, what, U64_MAX)
    except FrameError as error:
        raise wrong(str(error)) from None
