"""Parsers for the bodies of answers, for clients: one function for each kind of request.

All raise FrameError: an answer that makes no sense means that the other end is not a node, or is a node of
another version.
"""

from typing import Any, Final, NamedTuple

from ckpt_protocol.body_codec import bounded_array, unpack_body
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.codes import OK
from ckpt_protocol.constants import SA_CKPT_SECTION_CORRUPTED, SA_CKPT_SECTION_VALID
from ckpt_protocol.creation_attributes import attributes_fault
from ckpt_protocol.errors import FrameError
from ckpt_protocol.field_checks import U64_MAX, array, boolean, node_id, octets, row, text, whole
from ckpt_protocol.limits import (
    CALL_BYTES_MAX,
    NODE_ID_BYTES_MAX,
    NODES_MAX,
    READ_ELEMENTS_MAX,
    SECTION_BYTES_MAX,
    SECTION_ID_BYTES_MAX,
    SECTIONS_MAX,
    SIZE_MAX,
    TEXT_BYTES_MAX,
    VERSION_BYTES,
)
from ckpt_protocol.messages import Change, Kind, answer_ok

_OK_BODY: Final = answer_ok()

_OK_ONE_VALUE: Final = frozenset((b"\x92\x01\x91\xc4", b"\x92\x01\x91\xc5", b"\x92\x01\x91\xc6"))
"""The first bytes of `[OK, [value]]`, the answer to most READs.

Nothing follows that value, so there is nothing to count.
"""


def decode_answer(body: bytes) -> tuple[int, Any, int, str]:
    """Return (code, payload, index, text) of an answer's body.

    The payload of a refusal is what it says beside its text: the version of a section, after a conflict. The
    payload is within its bounds, but not checked. Raises: FrameError.
    """
    if body == _OK_BODY:
        return OK, None, -1, ""
    if bytes(body[:4]) in _OK_ONE_VALUE:
        return OK, unpack_body(body)[1], -1, ""
    fields = bounded_array(body, BOUNDS[Kind.ANSWER], 1)
    code = whole(fields[0], "an answer's code", 2**31, OK)
    if code == OK:
        return code, fields[1] if len(fields) > 1 else None, -1, ""
    index = fields[1] if len(fields) > 1 and type(fields[1]) is int else -1
    text = fields[2] if len(fields) > 2 and type(fields[2]) is str else ""
    return code, fields[3] if len(fields) > 3 else None, index, text


# -- payloads


class Opened(NamedTuple):
    """OPEN's answer. `attributes` are the six that are in force."""

    handle: int
    creation_id: int
    attributes: tuple[int, ...]


class SectionDescriptor(NamedTuple):
    """One section. Times are ns since 1970.

    `value` is None if the client did not ask for it, or if the section is corrupted.
    """

    section_id: bytes
    expiration_ns: int
    size_bytes: int
    state: int
    last_update_ns: int
    value: bytes | None


class Status(NamedTuple):
    """STATUS's answer. `replicas`: for each, the node id, and True if it is in sync."""

    attributes: tuple[int, ...]
    sections: int
    memory_used_bytes: int
    active: str | None
    replicas: tuple[tuple[str, bool], ...]
    opens: int
    unlinked: bool


class Changed(NamedTuple):
    """One row of TRACK's answer. `change` is a number of `messages.Change`, or of a later version.

    `value` is None if the client did not ask for it, if the section is gone, or if it is corrupted.
    """

    sequence: int
    change: int
    section_id: bytes
    offset: int
    size: int
    own_request: int
    value: bytes | None

    @property
    def is_gone(self) -> bool:
        """Return True if the section does not exist after the change."""
        return self.change in (Change.DELETED, Change.EXPIRED)


class Changes(NamedTuple):
    """TRACK's answer. `rows` None: look at all sections. `complete`: nothing came after `sequence` yet.

    `complete` is None if values were not asked for, or if the node's version does not know them.
    """

    sequence: int
    rows: list[Changed] | None
    lineage: int
    complete: bool | None


class Page(NamedTuple):
    """ITERATE's answer. `after` is the id after which the next page begins, None if there is none.

    `position` is the (sequence, lineage) of the state that the page shows; None if it was not asked for, or
    if the node's version does not know it.
    """

    sections: list["SectionDescriptor"]
    after: bytes | None
    position: tuple[int, int] | None


class Read(NamedTuple):
    """One element of READ's answer, if more than its value was asked for.

    `version` is empty if it was not asked for. `left_ns`: ns until it expires, None for never; -1 if it was
    not asked for, or if the node's version does not know it.
    """

    value: bytes
    version: bytes
    left_ns: int | None


def _attributes(value: object) -> tuple[int, ...]:
    fault = attributes_fault(value)
    if fault:
        raise FrameError(fault)
    return tuple(row(value, "creation attributes", 6)[:6])


def parse_opened(payload: object) -> Opened:
    """OPEN's answer."""
    handle, creation_id, attributes = row(payload, "an answer to OPEN", 3)[:3]
    return Opened(
        whole(handle, "a handle", U64_MAX),
        whole(creation_id, "a creation id", U64_MAX),
        _attributes(attributes),
    )


def parse_values(payload: object) -> list[bytes]:
    """READ's answer: the values."""
    values = array(payload, "values", READ_ELEMENTS_MAX)
    if not set(map(type, values)) <= {bytes}:
        raise FrameError("a value is not bytes")
    return values


_DESCRIPTORS: Final = (
    (bytes, int, int, int, int, bytes),
    (bytes, int, int, int, int, type(None)),
)


def parse_page(payload: object) -> Page:
    """ITERATE's answer."""
    rows, after, *position = row(payload, "an answer to ITERATE", 2)
    if after is not None:
        octets(after, "a section's id", SECTION_ID_BYTES_MAX)
    page = []
    for fields in array(rows, "sections", SECTIONS_MAX):
        section = row(fields, "a section", 6)[:6]
        if tuple(map(type, section)) not in _DESCRIPTORS:
            raise FrameError("a section has fields of unexpected types")
        whole(section[2], "a size", SECTION_BYTES_MAX)
        whole(section[3], "a state", SA_CKPT_SECTION_CORRUPTED, SA_CKPT_SECTION_VALID)
        page.append(SectionDescriptor(*section))
    return Page(page, after, _position(position) if len(position) > 1 else None)


def _position(fields: list[Any]) -> tuple[int, int]:
    sequence, lineage = row(fields, "a position", 2)[:2]
    return whole(sequence, "a position", U64_MAX), whole(lineage, "a lineage", U64_MAX, -SIZE_MAX)


def parse_status(payload: object) -> Status:
    """STATUS's answer."""
    fields = row(payload, "an answer to STATUS", 7)
    return Status(
        _attributes(fields[0]),
        whole(fields[1], "a number of sections", SECTIONS_MAX),
        whole(fields[2], "memory"),
        None if fields[3] is None else node_id(fields[3], "the active replica's node"),
        tuple(_replica(replica) for replica in array(fields[4], "replicas", NODES_MAX)),
        whole(fields[5], "a number of opens"),
        boolean(fields[6], "whether a checkpoint is unlinked"),
    )


def _replica(value: object) -> tuple[str, bool]:
    replica = row(value, "a replica", 2)
    return node_id(replica[0], "a replica's node"), boolean(replica[1], "whether a replica is in sync")


class Program(NamedTuple):
    """A program that leads, waits to lead, or led, as it describes itself.

    `node_id`: the node that its session is attached to; "" if there is none now. `death_seen`: the service
    knows at once when its process dies; else only after the ttl.
    """

    name: str
    host: str
    pid: int
    node_id: str
    death_seen: bool


class CurrentLeader(NamedTuple):
    """Who leads. Its token is (creation id, epoch, seq); `since_ns` is in ns since 1970.

    `data_may_be_lost`: an asynchronous checkpoint may have lost what the leader before it was acknowledged.
    """

    epoch: int
    seq: int
    exclusive: bool
    since_ns: int
    ttl_ns: int
    data_may_be_lost: bool
    program: Program


class EndedLeadership(NamedTuple):
    """A leadership that has ended. Times are ns since 1970; `reason` is one of `messages.EndReason`."""

    epoch: int
    seq: int
    since_ns: int
    ended_ns: int
    reason: int
    program: Program


class LeaderAnswer(NamedTuple):
    """The answer to LEADER and LEADER_TRACK.

    `version` changes with every change. `place`: 0 if the asker's handle leads, else its place in the queue
    from 1 on; None if it does neither. `lineage`: as in TRACK's answer.
    """

    version: int
    leader: CurrentLeader | None
    place: int | None
    lineage: int
    waiting: tuple[Program, ...]
    ended: tuple[EndedLeadership, ...]


def parse_leader_answer(payload: object) -> LeaderAnswer:
    """The answer to LEADER and to LEADER_TRACK."""
    version, leader, place, lineage, waiting, ended = row(payload, "an answer to LEADER", 6)[:6]
    return LeaderAnswer(
        whole(version, "a version", U64_MAX),
        None if leader is None else _current_leader(leader),
        None if place is None else whole(place, "a place in the queue"),
        whole(lineage, "a lineage", U64_MAX, -SIZE_MAX),
        tuple(_program(fields) for fields in array(waiting, "who waits", SECTIONS_MAX)),
        tuple(_ended(fields) for fields in array(ended, "who led", SECTIONS_MAX)),
    )


def _current_leader(value: object) -> CurrentLeader:
    epoch, seq, exclusive, since_ns, ttl_ns, data_may_be_lost, program = row(value, "a leader", 7)[:7]
    return CurrentLeader(
        whole(epoch, "an epoch", U64_MAX),
        whole(seq, "a seq", U64_MAX),
        boolean(exclusive, "whether a leadership is exclusive"),
        whole(since_ns, "a time"),
        whole(ttl_ns, "a ttl"),
        boolean(data_may_be_lost, "whether data may be lost"),
        _program(program),
    )


def _program(value: object) -> Program:
    name, host, pid, node, death_seen = row(value, "a program", 5)[:5]
    return Program(
        text(name, "a program's name", TEXT_BYTES_MAX),
        text(host, "a program's host", TEXT_BYTES_MAX),
        whole(pid, "a process id"),
        text(node, "a program's node", NODE_ID_BYTES_MAX),
        boolean(death_seen, "whether the death of a program is seen"),
    )


def _ended(value: object) -> EndedLeadership:
    epoch, seq, since_ns, ended_ns, reason, program = row(value, "a leadership that has ended", 6)[:6]
    return EndedLeadership(
        whole(epoch, "an epoch", U64_MAX),
        whole(seq, "a seq", U64_MAX),
        whole(since_ns, "a time"),
        whole(ended_ns, "a time"),
        whole(reason, "a reason"),
        _program(program),
    )


def parse_changes(payload: object) -> Changes:
    """TRACK's answer."""
    sequence, rows, lineage, *more = row(payload, "an answer to TRACK", 3)
    return Changes(
        whole(sequence, "a position", U64_MAX),
        None if rows is None else [_changed(fields) for fields in array(rows, "changes", SECTIONS_MAX)],
        whole(lineage, "a lineage", U64_MAX, -SIZE_MAX),
        boolean(more[0], "whether an answer is complete") if more else None,
    )


def _changed(value: object) -> Changed:
    fields = row(value, "a change", 6)
    return Changed(
        whole(fields[0], "a position", U64_MAX),
        whole(fields[1], "a change", U64_MAX),
        octets(fields[2], "a section's id", SECTION_ID_BYTES_MAX),
        whole(fields[3], "an offset", CALL_BYTES_MAX),
        whole(fields[4], "a size", CALL_BYTES_MAX),
        whole(fields[5], "a request", U64_MAX),
        _value(fields[6]) if len(fields) > 6 else None,
    )


def _value(value: object) -> bytes | None:
    return None if value is None else octets(value, "a value", SECTION_BYTES_MAX)


def parse_element(payload: object) -> Read:
    """READ's answer for one element, of which more than its value was asked for."""
    (element,) = array(payload, "elements", 1) or [None]
    value, version, *more = row(element, "an element", 2)
    left_ns = more[0] if more else -1
    return Read(
        octets(value, "a value", SECTION_BYTES_MAX),
        b"" if version is None else octets(version, "a version", VERSION_BYTES),
        None if left_ns is None else whole(left_ns, "a time", SIZE_MAX, -1),
    )
