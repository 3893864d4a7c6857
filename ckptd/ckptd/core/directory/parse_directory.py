"""Check and parse directory operations, and directories that other members send. Raises FrameError for
anything wrong."""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol.body_codec import bounded_array
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.errors import FrameError, RequestError, parser
from ckpt_protocol.field_checks import U64_MAX, array, boolean, node_id, octets, row, text, whole
from ckpt_protocol.limits import (
    FORMER_LIMITS_MAX,
    NAME_BYTES_MAX,
    NODES_MAX,
    PEER_FRAME_BYTES_MAX,
    SECTION_ID_BYTES_MAX,
    SECTIONS_MAX,
    SEQ_MAX,
    SIZE_MAX,
    TEXT_BYTES_MAX,
)
from ckpt_protocol.messages import Kind, Row
from ckptd.core.directory.attributes import Attributes, parse_attributes
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.directory.entries import CheckpointEntry, NamedLeader, SessionEntry
from ckptd.core.parse_views import epoch_of, parse_incarnation

_ROWS_MAX: Final = 10_000_000
"""The most rows in one array of a directory. The bounds of the whole body are tighter."""

Check = Callable[[object], object]


def _number(value: object) -> int:
    return whole(value, "an operation's number", U64_MAX)


def _node(value: object) -> str:
    return node_id(value, "a node's id")


def _name(value: object) -> bytes:
    return octets(value, "a checkpoint's name", NAME_BYTES_MAX)


def _time(value: object) -> int:
    return whole(value, "a time", SIZE_MAX, -SIZE_MAX)


def _nodes(value: object) -> list[str]:
    return [_node(named) for named in array(value, "nodes", NODES_MAX)]


def _active(value: object) -> str | None:
    return None if value is None else _node(value)


def _exclusive(value: object) -> bool:
    return boolean(value, "whether a leadership is exclusive")


def _shown(value: object) -> str:
    return text(value, "who leads", TEXT_BYTES_MAX)


def _sections_max(value: object) -> int:
    return whole(value, "a number of sections", SECTIONS_MAX, 1)


def _section_bytes_max(value: object) -> int:
    return whole(value, "a section's size", SIZE_MAX, 1)


def _section_id_bytes_max(value: object) -> int:
    return whole(value, "an id's size", SECTION_ID_BYTES_MAX)


def _attributes(value: object) -> Attributes:
    try:
        return parse_attributes(value)
    except RequestError as refusal:
        raise FrameError(refusal.text) from None


_OPERATIONS: Final[dict[int, tuple[Check, ...]]] = {
    DirectoryOp.ATTACH: (_number, _number, _node),
    DirectoryOp.END: (_number, _number),
    DirectoryOp.OPEN: (_number, _number, _number, _number),
    DirectoryOp.CREATE: (_number, _number, _number, _name, _attributes, _nodes, _active),
    DirectoryOp.CLOSE: (_number, _number),
    DirectoryOp.UNLINK: (_name,),
    DirectoryOp.RETENTION_SET: (_number, _time),
    DirectoryOp.ACTIVE_SET: (_number, _node),
    DirectoryOp.IN_SYNC: (_number, _node),
    DirectoryOp.OUT_OF_SYNC: (_number, _node),
    DirectoryOp.ADD_REPLICA: (_number, _node),
    DirectoryOp.EXPIRE: (_number, _number),
    DirectoryOp.NO_OP: (),
    DirectoryOp.HOLDER_LOST: (_node, _number),
    DirectoryOp.LEADER: (_number, _number, _number, _number, _number, _exclusive, _shown),
    DirectoryOp.RESIZE: (_number, _number, _number, _sections_max, _section_bytes_max, _section_id_bytes_max),
}
"""The checks of each operation's fields. An operation that is not listed does nothing."""


def check_operation(value: object) -> list[Any]:
    """Check an operation of the directory and return it."""
    op = row(value, "a directory operation", 1)
    checks = _OPERATIONS.get(whole(op[0], "the number of a directory operation", U64_MAX), ())
    if len(op) < 1 + len(checks):
        raise FrameError(f"directory operation {op[0]} lacks fields")
    for check, field in zip(checks, op[1:], strict=False):
        check(field)
    if op[0] == DirectoryOp.ATTACH:
        _death_seen(op[1 + len(checks) :])
    if op[0] == DirectoryOp.END and len(op) > 1 + len(checks):
        boolean(op[1 + len(checks)], "whether a session's client is gone")
    if op[0] == DirectoryOp.CREATE and len(op) > 1 + len(checks):
        _time(op[1 + len(checks)])
    return op


@parser
def check_staged(body: bytes) -> bytes:
    """Check the body of a directory's REPLICATE: the operation, and the request that it answers."""
    op, session, request, first_unanswered, answer = bounded_array(body, BOUNDS[Kind.REPLICATE], 5)[:5]
    check_operation(op)
    for number in (session, request, first_unanswered):
        _number(number)
    octets(answer, "an answer", PEER_FRAME_BYTES_MAX)
    return body


@parser
def parse_proposal(body: bytes) -> list[Any]:
    """Parse ASK: the operation that a member proposes."""
    return check_operation(bounded_array(body, BOUNDS[Kind.ASK], 1))


# -- a directory that another member sends


def entry_of(value: object, now_ns: int) -> CheckpointEntry:
    """Parse a checkpoint, as `fields_of` makes it."""
    fields = row(value, "a checkpoint", 13)
    creation_id, name, attributes, retention_ns, replicas, active, opens, unlinked, passed_ns = fields[:9]
    holders, activation_seq, retention_seq, created_ns = fields[9:13]
    entry = CheckpointEntry(
        _number(creation_id),
        _name(name),
        _attributes(attributes),
        _time(retention_ns),
        dict(_replica(replica) for replica in array(replicas, "replicas", NODES_MAX)),
        _active(active),
    )
    entry.opens = dict(_open(opened) for opened in array(opens, "opens", _ROWS_MAX))
    entry.unlinked = boolean(unlinked, "the unlinked flag of a checkpoint")
    entry.last_closed_ns = now_ns - _time(passed_ns)
    entry.last_in_sync = dict(parse_incarnation(holder) for holder in array(holders, "holders", NODES_MAX))
    entry.activation_seq = _number(activation_seq)
    entry.retention_seq = _number(retention_seq)
    entry.created_ns = _time(created_ns)
    if len(fields) > 13 and fields[13] is not None:
        entry.leader = _named_leader(fields[13])
    if len(fields) > 14 and fields[14] is not None:
        number, *former = row(fields[14], "the resizes of a checkpoint", 1)
        entry.resize_number = _number(number)
        entry.former = tuple(
            _attributes(known) for known in array(former, "former limits", FORMER_LIMITS_MAX)
        )
    return entry


def _named_leader(value: object) -> NamedLeader:
    session, handle, secret, exclusive, shown = row(value, "a leader", 5)[:5]
    return NamedLeader(
        _number(session), _number(handle), _number(secret), _exclusive(exclusive), _shown(shown)
    )


def _replica(value: object) -> tuple[str, bool]:
    replica = row(value, "a replica", 2)
    return _node(replica[0]), boolean(replica[1], "the in-sync flag of a replica")


def _open(value: object) -> tuple[tuple[int, int], int]:
    session, handle, flags = row(value, "an open handle", 3)[:3]
    return (_number(session), _number(handle)), _number(flags)


def _death_seen(more: list[Any]) -> bool:
    return boolean(more[0], "whether the death of a session's client is seen") if more else False


def _opens_of_session(value: object) -> dict[int, tuple[int, int]]:
    opens: dict[int, tuple[int, int]] = {}
    for opened in array(value, "opens", _ROWS_MAX):
        handle, creation_id, flags = row(opened, "an open handle", 3)[:3]
        opens[_number(handle)] = _number(creation_id), _number(flags)
    return opens


@parser
def read_snapshot(value: object, now_ns: int) -> Directory:
    """Parse a directory that another member sent whole."""
    directory = Directory()
    epoch, seq, checkpoints, sessions, members = row(value, "a directory", 5)[:5]
    directory.installed_epoch, directory.seq = epoch_of(epoch), whole(seq, "a seq", SEQ_MAX)
    directory.members = dict(parse_incarnation(member) for member in array(members, "members", NODES_MAX))
    for fields in array(checkpoints, "checkpoints", _ROWS_MAX):
        _add_checkpoint(directory, fields, now_ns)
    for fields in array(sessions, "sessions", _ROWS_MAX):
        session, node, generation, opens, first_unanswered, answers, *more = row(fields, "a session", 6)
        session_entry = SessionEntry(_node(node), _number(generation))
        session_entry.death_seen = _death_seen(more)
        session_entry.opens = _opens_of_session(opens)
        session_entry.answers.first_unanswered = _number(first_unanswered)
        for answered in array(answers, "answers", _ROWS_MAX):
            session_entry.answers.record(*_answer(row(answered, "an answer", 3)))
        directory.sessions[_number(session)] = session_entry
    directory.count()
    return directory


def _add_checkpoint(directory: Directory, fields: object, now_ns: int) -> None:
    entry = entry_of(fields, now_ns)
    directory.checkpoints[entry.creation_id] = entry
    if entry.leader is not None:
        directory.led[entry.creation_id] = None
    if not entry.unlinked:
        directory.names[entry.name] = entry.creation_id


def _answer(fields: list[Any]) -> tuple[int, int, bytes]:
    request, seq, answer = fields[:3]
    return _number(request), _number(seq), octets(answer, "an answer", PEER_FRAME_BYTES_MAX)


def add_piece(directory: Directory, body: bytes, now_ns: int) -> None:
    """Add a piece (rows of `messages.Row`) to a directory that arrives in pieces."""
    for fields in bounded_array(body, BOUNDS[Kind.DIRECTORY], 0):
        number, *rest = row(fields, "a row of the directory", 2)
        match whole(number, "the kind of a directory row", U64_MAX):
            case Row.HEAD:
                epoch, seq, members = row(rest, "the first row of a directory", 3)[:3]
                directory.installed_epoch, directory.seq = epoch_of(epoch), whole(seq, "a seq", SEQ_MAX)
                directory.members = dict(
                    parse_incarnation(member) for member in array(members, "members", NODES_MAX)
                )
            case Row.CHECKPOINT:
                _add_checkpoint(directory, rest, now_ns)
            case Row.SESSION:
                session, node, generation, first_unanswered, *more = row(rest, "a session", 4)
                entry = directory.sessions[_number(session)] = SessionEntry(_node(node), _number(generation))
                entry.answers.first_unanswered = _number(first_unanswered)
                entry.death_seen = _death_seen(more)
            case Row.OPENS:
                _add_opens(directory, rest)
            case Row.ANSWER:
                answered = row(rest, "an answer", 4)
                _session(directory, answered[0]).answers.record(*_answer(answered[1:]))
            case _:
                raise FrameError("a directory row of unknown kind")


def _session(directory: Directory, value: object) -> SessionEntry:
    session = directory.sessions.get(_number(value))
    if session is None:
        raise FrameError("a directory row names a session that the directory does not have")
    return session


def _add_opens(directory: Directory, fields: list[Any]) -> None:
    number, opens = row(fields, "opens", 2)[:2]
    session = _session(directory, number)
    for handle, (creation_id, flags) in _opens_of_session(opens).items():
        session.opens[handle] = creation_id, flags
        if creation_id in directory.checkpoints:
            directory.checkpoints[creation_id].opens[number, handle] = flags
