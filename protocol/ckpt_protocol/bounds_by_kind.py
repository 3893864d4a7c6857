"""The bounds of each kind of frame: size, depth and objects of its body, who may send it, and when.

`BOUNDS` is the one table. The frame decoder refuses a frame by its header alone (`body_limits`), before the
body is held. `bounds_check` counts depth and objects before anything is built. `docs/protocol.md`
shows the same table, and a test compares the two.

An array counts as one object and one level, and so does a map. Each limit leaves room for the fields that a
later version adds (`LATER_OBJECTS`, `LATER_DEPTH`).
"""

from enum import IntFlag
from typing import Final, NamedTuple

from ckpt_protocol.framing import HEADER_BYTES
from ckpt_protocol.limits import (
    ADVERTISED_POSITIONS_MAX,
    ANSWERS_PER_BATCH_MAX,
    CHUNK_SECTIONS_MAX,
    FAULTS_MAX,
    FIRST_FRAME_BYTES_MAX,
    FRAME_BYTES_MAX,
    HEARTBEAT_BYTES_MAX,
    LEADERSHIP_BYTES_MAX,
    NAMING_REQUEST_BYTES_MAX,
    NODES_MAX,
    OPS_PER_BATCH_MAX,
    OPS_PER_UPDATE_MAX,
    PEER_FRAME_BYTES_MAX,
    PORTION_BYTES_MAX,
    READ_ELEMENTS_MAX,
    SMALL_REQUEST_BYTES_MAX,
    TRACK_BYTES_MAX,
    UNATTACHED_BODY_BYTES_MAX,
    URLS_PER_NODE_MAX,
    VIEW_BYTES_MAX,
    WITHDRAWN_MAX,
)
from ckpt_protocol.messages import Kind

LATER_OBJECTS: Final = 32
"""Spare objects, for the fields that a later version may add to a body."""

LATER_DEPTH: Final = 2
"""How many levels deeper such fields may nest than what is known now."""

DIRECTORY_OBJECTS_MAX: Final = 20_000_000
"""Objects in a whole directory: checkpoints, sessions, open handles and remembered answers."""

ANSWER_OBJECTS_MAX: Final = 4_000_000
"""Objects in an answer: a READ of `READ_ELEMENTS_MAX` values, a description of all checkpoints."""

OP_OBJECTS: Final = 9
"""Objects in a section operation: its array and at most eight fields. (LEAD, which stands alone, has ten.)"""

_ELEMENT_OBJECTS: Final = 6
_SECTION_OBJECTS: Final = 8
_ANSWERED_OBJECTS: Final = 5
_VIEW_OBJECTS: Final = 100_000
_BODY_BYTES: Final = FRAME_BYTES_MAX - HEADER_BYTES
_PEER_BODY_BYTES: Final = PEER_FRAME_BYTES_MAX - HEADER_BYTES


class Sender(IntFlag):
    """Who sends a frame.

    UNAUTHENTICATED is the sender of any datagram to the UDP port that comes from no known client.
    """

    CLIENT = 1
    PEER = 2
    WITNESS = 4
    UNAUTHENTICATED = 8
    NODE = 16
    """The node that a client, or an opener of the first exchange, is connected to."""

    OPERATOR = 32
    """An operator's tool, over a stream: a client that attaches no session."""


class State(IntFlag):
    """How far a connection has come.

    A request that needs a session but comes while the connection is only ESTABLISHED is answered
    ERR_BAD_HANDLE: the client's session may have ended in the meantime. Every other frame in a wrong state
    ends the connection.
    """

    NONE = 8
    """A datagram that belongs to no connection."""

    HANDSHAKE = 1
    """In the handshake."""

    ESTABLISHED = 2
    """The first exchange is done: both sides know who the other one is."""

    ATTACHED = 4
    """A client's session is attached."""


class Bounds(NamedTuple):
    """The limits of one kind. A body that is not msgpack (PROOF), or none at all, has depth and objects 0."""

    body_bytes_max: int
    depth_max: int
    objects_max: int
    senders: Sender
    states: State


_FIRST_BYTES: Final = FIRST_FRAME_BYTES_MAX - HEADER_BYTES
_OPENERS: Final = Sender.CLIENT | Sender.PEER | Sender.WITNESS | Sender.UNAUTHENTICATED | Sender.OPERATOR
_NODES: Final = Sender.PEER | Sender.WITNESS
_ESTABLISHED: Final = State.ESTABLISHED | State.ATTACHED


def _of(
    body_bytes: int, depth: int, objects: int, senders: Sender, states: State, later: bool = True
) -> Bounds:
    """Return bounds with spare room for what a later version adds."""
    if later:
        depth, objects = depth + LATER_DEPTH, objects + LATER_OBJECTS
    return Bounds(body_bytes, depth, objects, senders, states)


def _small(fields: int, states: State = State.ATTACHED, body_bytes: int = SMALL_REQUEST_BYTES_MAX) -> Bounds:
    """Return the bounds of a client's request that is one flat array."""
    return _of(body_bytes, 1, 1 + fields, Sender.CLIENT, states)


def _sessionless(fields: int) -> Bounds:
    """Return those of a request that needs no session and that an operator's tool may send as well."""
    return _of(SMALL_REQUEST_BYTES_MAX, 1, 1 + fields, Sender.CLIENT | Sender.OPERATOR, _ESTABLISHED)


def _between(body_bytes: int, depth: int, objects: int, senders: Sender = Sender.PEER) -> Bounds:
    """Return the bounds of a frame between nodes, after the first exchange."""
    return _of(body_bytes, depth, objects, senders, State.ESTABLISHED)


_EMPTY: Final = Bounds(0, 0, 0, Sender.PEER, State.ESTABLISHED)

BOUNDS: Final[dict[int, Bounds]] = {
    Kind.HELLO: _of(_FIRST_BYTES, 2, 8 + URLS_PER_NODE_MAX, _OPENERS, State.HANDSHAKE),
    Kind.WELCOME: _of(_FIRST_BYTES, 2, 6 + URLS_PER_NODE_MAX, Sender.NODE, State.HANDSHAKE),
    Kind.PROOF: Bounds(_FIRST_BYTES, 0, 0, _OPENERS, State.HANDSHAKE),
    # A node refuses in the first exchange. For an opener whose proof was wrong, the exchange is over by then.
    Kind.REFUSED: _of(_FIRST_BYTES, 1, 2, Sender.NODE | _NODES, State.HANDSHAKE | _ESTABLISHED),
    Kind.TAKEN: Bounds(0, 0, 0, _NODES, State.HANDSHAKE),
    Kind.ATTACH: _small(1, _ESTABLISHED),
    Kind.DETACH: _small(0),
    Kind.OPEN: _of(NAMING_REQUEST_BYTES_MAX, 2, 12, Sender.CLIENT, State.ATTACHED),
    Kind.CLOSE: _small(0),
    Kind.UNLINK: _small(3, body_bytes=NAMING_REQUEST_BYTES_MAX),
    Kind.RETENTION_SET: _small(1),
    Kind.ACTIVE_SET: _small(1),
    Kind.STATUS: _small(0),
    Kind.UPDATE: _of(_BODY_BYTES, 2, 1 + OP_OBJECTS * OPS_PER_UPDATE_MAX, Sender.CLIENT, State.ATTACHED),
    Kind.READ: _of(_BODY_BYTES, 2, 1 + _ELEMENT_OBJECTS * READ_ELEMENTS_MAX, Sender.CLIENT, State.ATTACHED),
    Kind.ITERATE: _small(7, body_bytes=NAMING_REQUEST_BYTES_MAX),
    Kind.SYNCHRONIZE: _small(0),
    Kind.DESCRIBE: _sessionless(2),
    Kind.PING: _sessionless(WITHDRAWN_MAX),
    Kind.OPERATE: _sessionless(2),
    Kind.TRACK: _small(5, body_bytes=TRACK_BYTES_MAX),
    Kind.LEADER: _small(4),
    Kind.LEADER_TRACK: _small(2, body_bytes=TRACK_BYTES_MAX),
    Kind.ANSWER: _of(_BODY_BYTES, 6, ANSWER_OBJECTS_MAX, Sender.NODE, _ESTABLISHED),
    Kind.HEARTBEAT: _of(
        HEARTBEAT_BYTES_MAX,
        3,
        12 + NODES_MAX * (4 + 1 + 3) + ADVERTISED_POSITIONS_MAX * 3,
        _NODES | Sender.UNAUTHENTICATED,
        State.NONE,
    ),
    # The body after the route has the bounds of the request's own kind.
    Kind.FORWARD: Bounds(_PEER_BODY_BYTES, 0, 0, Sender.PEER, State.ESTABLISHED),
    Kind.FORWARD_REFUSED: Bounds(SMALL_REQUEST_BYTES_MAX, 0, 0, Sender.PEER, State.ESTABLISHED),
    Kind.FORWARD_ANSWER: _between(_PEER_BODY_BYTES, 6, ANSWER_OBJECTS_MAX),
    Kind.REPLICATE: _between(
        _PEER_BODY_BYTES, 3, 3 + OP_OBJECTS * OPS_PER_BATCH_MAX + _ANSWERED_OBJECTS * ANSWERS_PER_BATCH_MAX
    ),
    Kind.ACK: _between(SMALL_REQUEST_BYTES_MAX, 1, 3),
    Kind.COMMIT: _EMPTY,
    Kind.WITHDRAW: _EMPTY,
    Kind.QUERY: _EMPTY,
    Kind.QUERIED: _EMPTY,
    Kind.JOIN: _between(SMALL_REQUEST_BYTES_MAX, 1, 3),
    Kind.CHUNK: _between(_PEER_BODY_BYTES, 6, _SECTION_OBJECTS * CHUNK_SECTIONS_MAX + DIRECTORY_OBJECTS_MAX),
    Kind.CHUNK_ACK: _EMPTY,
    Kind.JOINED: _between(SMALL_REQUEST_BYTES_MAX, 1, 1),
    Kind.ASK: _between(SMALL_REQUEST_BYTES_MAX, 1, 4),
    Kind.STOP: _EMPTY,
    Kind.FAULTS: _between(VIEW_BYTES_MAX, 3, 3 + 10 * FAULTS_MAX + FAULTS_MAX),
    Kind.DIRECTORY: _between(4 * PORTION_BYTES_MAX, 4, PORTION_BYTES_MAX),
    Kind.DIRECTORY_ACK: _EMPTY,
    Kind.NODES: _between(VIEW_BYTES_MAX, 2, 3 + 2 * NODES_MAX, _NODES),
    Kind.PREPARE: _between(VIEW_BYTES_MAX, 1, 2),
    Kind.PROMISE: _between(VIEW_BYTES_MAX, 4, 8 + _VIEW_OBJECTS, _NODES),
    Kind.ACCEPT: _between(VIEW_BYTES_MAX, 4, 2 + _VIEW_OBJECTS),
    Kind.ACCEPTED: _between(VIEW_BYTES_MAX, 2, 5, _NODES),
    Kind.COLLECT: _between(VIEW_BYTES_MAX, 4, 2 + _VIEW_OBJECTS),
    Kind.COLLECTED: _between(_PEER_BODY_BYTES, 6, DIRECTORY_OBJECTS_MAX),
    Kind.INSTALL: _between(_PEER_BODY_BYTES, 4, 6 + _VIEW_OBJECTS + NODES_MAX),
    Kind.DECIDED: _between(VIEW_BYTES_MAX, 4, 1 + _VIEW_OBJECTS, _NODES),
}


def _kinds_of(senders: Sender) -> tuple[int, ...]:
    return tuple(
        kind
        for kind, bounds in BOUNDS.items()
        if bounds.senders & senders and not bounds.states & State.HANDSHAKE
    )


REQUEST_KINDS: Final = _kinds_of(Sender.CLIENT)
"""What a client may send after the first exchange."""

NODE_KINDS: Final = _kinds_of(_NODES)
"""What a node, or a witness, may send another one after the first exchange."""
"""The bounds of every kind of frame. A kind that is not here ends the connection that it came on."""

DIRECTORY_BOUNDS: Final = _between(_PEER_BODY_BYTES, 5, DIRECTORY_OBJECTS_MAX)
"""Bounds of the directory that INSTALL carries as bytes."""

LEADERSHIP_BOUNDS: Final = _between(LEADERSHIP_BYTES_MAX, 4, 2_000)
"""Bounds of who leads a checkpoint, who waits and who led, which LEADERSHIP carries as bytes."""

VIEW_BOUNDS: Final = _between(VIEW_BYTES_MAX, 5, 8 + _VIEW_OBJECTS)
"""Bounds of what a node keeps on disk, or in the external register: a view and two ballots."""

NOT_ALLOWED: Final = -1
"""In `body_limits`: a frame of this kind may not come."""


def body_limits(senders: Sender, states: State) -> tuple[int, ...]:
    """Return, by kind (0 to 255), the longest body from one of these senders in one of these states.

    The limit of a kind that may not come is NOT_ALLOWED.
    """
    limits = [NOT_ALLOWED] * 256
    for kind, bounds in BOUNDS.items():
        if bounds.senders & senders and bounds.states & states:
            limits[kind] = bounds.body_bytes_max
    return tuple(limits)


FROM_CLIENT: Final = body_limits(Sender.CLIENT, _ESTABLISHED)
"""What a node accepts from a client over a stream once its session has been attached on it."""

FROM_NEW_CLIENT: Final = tuple(min(limit, UNATTACHED_BODY_BYTES_MAX) for limit in FROM_CLIENT)
"""Until then it accepts every kind, to answer that a session is missing, but nothing large."""

FROM_OPERATOR: Final = body_limits(Sender.OPERATOR, State.ESTABLISHED)
FROM_PEER: Final = body_limits(Sender.PEER, State.ESTABLISHED)
FROM_WITNESS: Final = body_limits(Sender.WITNESS, State.ESTABLISHED)

FROM_NODE: Final = body_limits(Sender.NODE, State.HANDSHAKE | _ESTABLISHED)
"""What a client accepts from the node that it is connected to."""
