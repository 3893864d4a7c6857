"""Validate directory requests: check each against the directory, and turn it into an operation and an answer.

Pure functions: (directory, view, request) to (operation, answer), or a RequestError. The answers are
described in `ckpt_protocol.messages`; the rules are SAF 3.5 (R23 to R43, R62 to R82).
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.messages import Kind, answer_error, answer_ok
from ckpt_protocol.parse_requests import (
    OfHandle,
    parse_nothing,
    parse_of_handle,
    parse_open,
    parse_routed_attach,
    parse_unlink,
)
from ckptd.core.client_request import Request
from ckptd.core.directory.attributes import Attributes
from ckptd.core.directory.directory import (
    CHECKPOINT_MEMORY_BYTES,
    EPOCH_SHIFT,
    HANDLE_MEMORY_BYTES,
    OPENED_WITH_B01_RULES,
    SESSION_MEMORY_BYTES,
    Directory,
    DirectoryOp,
)
from ckptd.core.directory.entries import CheckpointEntry, SessionEntry
from ckptd.core.directory.placement import place_replicas, replicas_per_node
from ckptd.core.settings import Settings
from ckptd.core.stops_by_bugs import MAKES_NO_REPLICA
from ckptd.core.view import View

ValidatedOp = tuple[list[Any], bytes]
"""The operation to order (empty: none is needed) and the answer."""


def validate(
    directory: Directory,
    view: View,
    settings: Settings,
    node_id: str,
    request: Request,
    full: Collection[str],
    bars_replica: Callable[[int, str], bool],
) -> ValidatedOp:
    """Validate one request of a session at `node_id`. Raises: RequestError.

    `full`: the nodes whose replicas have reached their memory limit. `bars_replica`: returns True if a node
    makes no replica of a checkpoint, because the checkpoint stopped that node before.

    An open that has to wait for a replica may order an ADD. Its answer is TRY_AGAIN, and the session has
    opened nothing yet.
    """
    try:
        match request.kind:
            case Kind.ATTACH:
                return _attach(directory, settings, node_id, request)
            case Kind.DETACH:
                parse_nothing(request.kind, request.body)
                session = _session(directory, request)
                return [DirectoryOp.END, request.session, session.generation, True], answer_ok()
            case Kind.OPEN:
                return _open(directory, view, settings, node_id, request, full, bars_replica)
            case Kind.CLOSE:
                handle = parse_of_handle(request.kind, request.body).handle
                if handle not in _session(directory, request).opens:
                    raise RequestError(codes.BAD_HANDLE, "this handle is not open")
                return [DirectoryOp.CLOSE, request.session, handle], answer_ok()
            case Kind.UNLINK:
                return _unlink(directory, request)
            case Kind.RETENTION_SET:
                return _set_retention(directory, request, parse_of_handle(request.kind, request.body))
            case Kind.ACTIVE_SET:
                return _set_active(directory, node_id, request, parse_of_handle(request.kind, request.body))
    except FrameError as error:
        raise RequestError(codes.INVALID_PARAM, str(error)) from None
    raise RequestError(codes.NOT_SUPPORTED, f"this node does not know requests of kind {request.kind}")


def _check_capacity(directory: Directory, settings: Settings, more_bytes: int) -> None:
    """Check that the directory has capacity for `more_bytes`. Raises: RequestError."""
    if directory.resident_bytes + more_bytes > settings.directory_bytes_max:
        text = (
            f"the directory already takes {settings.directory_bytes_max} bytes, which is all that it "
            "may (directory_bytes_max)"
        )
        raise RequestError(codes.NO_RESOURCES, text)


def _show(name: bytes) -> str:
    return repr(name[:64].decode(errors="replace"))


def _session(directory: Directory, request: Request) -> SessionEntry:
    session = directory.sessions.get(request.session)
    if session is None:
        raise RequestError(codes.BAD_HANDLE, "this session has ended")
    return session


def _opened(directory: Directory, request: Request, handle: int) -> tuple[CheckpointEntry, int]:
    opened = _session(directory, request).opens.get(handle)
    entry = directory.checkpoints.get(opened[0]) if opened is not None else None
    if opened is None or entry is None:
        raise RequestError(codes.BAD_HANDLE, "this handle is not open")
    return entry, opened[1]


def _attach(directory: Directory, settings: Settings, node_id: str, request: Request) -> ValidatedOp:
    generation, fresh, death_seen = parse_routed_attach(request.body)
    if not 0 < request.session < 2**63:
        raise RequestError(codes.INVALID_PARAM, "a session id is a number from 1 to 2^63-1")
    session = directory.sessions.get(request.session)
    if session is None and not fresh:
        raise RequestError(codes.BAD_HANDLE, "this session has ended, because its grace time is over")
    if session is None and len(directory.sessions) >= settings.sessions_max:
        raise RequestError(
            codes.NO_RESOURCES, f"{settings.sessions_max} sessions already exist (sessions_max)"
        )
    if session is None:
        _check_capacity(directory, settings, SESSION_MEMORY_BYTES)
    if session is not None and generation < session.generation:
        raise RequestError(codes.BAD_HANDLE, "this session has been attached on another connection since")
    if session is not None and (generation, node_id) == (session.generation, session.node_id):
        return [], answer_ok()
    return [DirectoryOp.ATTACH, request.session, generation, node_id, death_seen], answer_ok()


def _open(
    directory: Directory,
    view: View,
    settings: Settings,
    node_id: str,
    request: Request,
    full: Collection[str],
    bars_replica: Callable[[int, str], bool],
) -> ValidatedOp:
    name, flags, raw_attributes, with_retention, grow = parse_open(request.body)
    session = _session(directory, request)
    if with_retention:
        flags |= OPENED_WITH_B01_RULES
    if len(session.opens) >= settings.opens_per_session_max:
        text = (
            f"a session may have at most {settings.opens_per_session_max} open handles "
            "(opens_per_session_max)"
        )
        raise RequestError(codes.NO_RESOURCES, text)
    if directory.open_handles >= settings.opens_max:
        raise RequestError(codes.NO_RESOURCES, f"{settings.opens_max} handles are already open (opens_max)")
    requested = Attributes(*raw_attributes) if raw_attributes is not None else None
    entry = directory.find(name)
    handle = request.number
    if entry is None:
        if requested is None:
            raise RequestError(codes.NOT_EXIST, f"there is no checkpoint {_show(name)}")
        if len(directory.checkpoints) >= settings.checkpoints_max:
            text = f"{settings.checkpoints_max} checkpoints already exist (checkpoints_max)"
            raise RequestError(codes.NO_RESOURCES, text)
        _check_capacity(directory, settings, CHECKPOINT_MEMORY_BYTES + len(name) + HANDLE_MEMORY_BYTES)
        creation_id = (directory.installed_epoch << EPOCH_SHIFT) + directory.seq + 1
        replicas = [node_id]
        if not requested.collocated:
            replicas = place_replicas(replicas_per_node(directory, view), node_id, settings.replicas, full)
        active = None if requested.collocated and not requested.sync else replicas[0]
        op = [DirectoryOp.CREATE, request.session, handle, flags, name, requested.fields(), replicas, active]
        return op, answer_ok([handle, creation_id, requested.fields()])
    differences = _differences(entry, requested, with_retention, grow) if requested is not None else ""
    if differences:
        text = f"checkpoint {_show(name)} exists with different creation attributes: {differences}"
        if requested is not None and not grow and not _differences(entry, requested, with_retention, True):
            text += " (a Table with grow=True opens it, and raises its smaller limits)"
        raise RequestError(codes.EXIST, text)
    waits = why_open_waits(entry, node_id)
    if waits and not entry.last_in_sync and bars_replica(entry.creation_id, node_id):
        raise RequestError(codes.LIBRARY, MAKES_NO_REPLICA)
    if waits and not entry.last_in_sync and node_id not in entry.replicas:
        return [DirectoryOp.ADD_REPLICA, entry.creation_id, node_id], answer_error(codes.TRY_AGAIN, waits)
    if waits:
        raise RequestError(codes.TRY_AGAIN, waits)
    _check_capacity(directory, settings, HANDLE_MEMORY_BYTES)
    in_force = entry.attributes.fields()
    in_force[2] = entry.retention_ns
    answer = answer_ok([handle, entry.creation_id, in_force])
    return [DirectoryOp.OPEN, request.session, handle, entry.creation_id, flags], answer


def _differences(entry: CheckpointEntry, requested: Attributes, with_retention: bool, grow: bool) -> str:
    """Describe what forbids to open a checkpoint with these attributes; "" if nothing does.

    A resize leaves the programs as they are that open it: what was in force before it is legal, too. With
    `grow` any limits are, since the client resizes the checkpoint; but one of a single section stays that.
    """
    in_force = entry.attributes
    if grow and (requested.sections_max == 1) == (in_force.sections_max == 1):
        size = {"checkpoint_size": in_force.checkpoint_size}
        requested = replace(requested, **in_force.limits._asdict(), **size)
    if any(not known.differences(requested, with_retention) for known in entry.former):
        return ""
    return in_force.differences(requested, with_retention)


def _unlink(directory: Directory, request: Request) -> ValidatedOp:
    """Free a name. With a creation id, only while the name is that checkpoint's and not a later one's.

    With a secret, only while its owner leads: a late UNLINK of a former leader frees nothing.
    """
    name, creation_id, secret = parse_unlink(request.body)
    entry = directory.find(name)
    if entry is None:
        raise RequestError(codes.NOT_EXIST, f"there is no checkpoint {_show(name)}")
    if creation_id and entry.creation_id != creation_id:
        raise RequestError(codes.NOT_EXIST, f"another checkpoint has the name {_show(name)} by now")
    leader = entry.leader
    # (Without an active replica, no one would end the leadership of a program whose session has ended.)
    leads = leader is not None and (entry.active is not None or leader.key in entry.opens)
    if secret and (leader is None or leader.secret != secret):
        now = "nobody leads" if leader is None or not leads else f"{leader.shown} leads"
        raise RequestError(codes.ACCESS, f"the leadership with this secret has ended; now {now}")
    if leader is not None and leads and leader.exclusive and leader.secret != secret:
        raise RequestError(codes.ACCESS, f"{leader.shown} leads the checkpoint")
    return [DirectoryOp.UNLINK, name], answer_ok()


def why_open_waits(entry: CheckpointEntry, node_id: str) -> str:
    """Return why a checkpoint cannot be opened at a node yet; "" if it can.

    An open completes when the replica that it makes is like the others (R41). It also waits while no member
    has a replica in sync: the nodes that the checkpoint waits for may be dead, and then there is nothing to
    open. Until the open completes, the session has opened nothing.
    """
    if entry.last_in_sync:
        return f"the checkpoint waits for its replicas on {', '.join(entry.last_in_sync)}"
    makes_one = entry.attributes.collocated and node_id not in entry.replicas
    if entry.active is not None and (makes_one or entry.replicas.get(node_id) is False):
        return f"the replica on node {node_id} is still being created"
    return ""


def _set_retention(directory: Directory, request: Request, asked: OfHandle) -> ValidatedOp:
    handle, retention_ns = asked
    entry, flags = _opened(directory, request, handle)
    if not flags & (SA_CKPT_CHECKPOINT_WRITE | OPENED_WITH_B01_RULES):
        raise RequestError(codes.ACCESS, "the handle was not opened for writing")
    if entry.unlinked:
        raise RequestError(codes.BAD_OPERATION, "the checkpoint is unlinked")
    return [DirectoryOp.RETENTION_SET, entry.creation_id, retention_ns], answer_ok()


def _set_active(directory: Directory, node_id: str, request: Request, asked: OfHandle) -> ValidatedOp:
    handle, only_if_none = asked
    entry, flags = _opened(directory, request, handle)
    if not flags & SA_CKPT_CHECKPOINT_WRITE:
        raise RequestError(codes.ACCESS, "the handle was not opened for writing")
    if entry.attributes.sync or not entry.attributes.collocated:
        raise RequestError(
            codes.BAD_OPERATION,
            "the active replica can be set only for an asynchronous collocated checkpoint",
        )
    if entry.last_in_sync:
        raise RequestError(codes.TRY_AGAIN, "the checkpoint waits for its last in-sync replicas")
    if entry.active is not None and not entry.replicas.get(entry.active):
        raise RequestError(codes.TRY_AGAIN, f"node {entry.active} is still taking over the active role")
    if entry.active == node_id or (only_if_none and entry.active is not None):
        return [], answer_ok()
    if node_id not in entry.replicas:
        raise RequestError(codes.TRY_AGAIN, "this node does not have a replica yet")
    return [DirectoryOp.ACTIVE_SET, entry.creation_id, node_id], answer_ok()
