"""Every kind of frame: its number, its three header numbers and its body.

Append only: a number is never reused for something else, a body only gains fields at its end, and readers
ignore fields that they do not know. `docs/protocol.md` says the same to authors of clients in other
languages.
"""

import struct
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import BAD_OPERATION, OK
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.limits import REFUSAL_CHARS_MAX

PROTOCOL_VERSION_MIN: Final = 1
PROTOCOL_VERSION_MAX: Final = 1


class Kind:
    """The kinds of frames. The comment after each says what a, b and c are, then what the body is."""

    # -- the handshake, on every connection (see `handshake`)
    HELLO: Final = 1  # version min, version max, role; [magic, cluster, nonce, node_id, incarnation, urls]
    WELCOME: Final = 2  # version, proof asked, incarnation; [cluster, nonce, node_id, proof, urls]
    PROOF: Final = 3  # 0, 0, 0; the proof's bytes
    REFUSED: Final = 4  # code, version min, version max; [text]
    TAKEN: Final = 5  # 0, 0, 0; none: peers only, the acceptor has asked back and takes the link

    # -- from clients: request number, handle (0: none), the lowest request still unanswered
    ATTACH: Final = 10  # request, session, generation; [fresh]
    DETACH: Final = 11  # request, 0, lowest; []: end the session, close everything that it opened
    OPEN: Final = 12  # request, 0, lowest; [name, open_flags, attributes or nil, compare_retention, grow]
    CLOSE: Final = 13  # request, handle, lowest; []
    UNLINK: Final = 14  # request, 0, lowest; [name, creation id or 0: any, the leader's secret or 0]
    RETENTION_SET: Final = 15  # request, handle, lowest; [retention_ns]
    ACTIVE_SET: Final = 16  # request, handle, lowest; [only_if_none]
    STATUS: Final = 17  # request, handle, lowest; []
    UPDATE: Final = 18  # request, handle, lowest; [op, ...] (class Op)
    READ: Final = 19  # request, handle, lowest; [[section id, offset, size or nil, ...], ...] (Elements)
    ITERATE: Final = 20  # request, handle, lowest; [chosen, expiration_ns, after or nil, ...] (Iterate)
    SYNCHRONIZE: Final = 21  # request, handle, lowest; []
    DESCRIBE: Final = 22  # request, 0, lowest; [what]: "cluster" or "checkpoints"
    PING: Final = 23  # request, 0, lowest; [request, ...]: withdraw those that only wait
    OPERATE: Final = 24  # request, 0, lowest; [verb, ...]: an operator command (class Verb)
    TRACK: Final = 25  # request, handle, lowest; [sequence or nil, lineage, ...] (Track): waits for a change
    LEADER: Final = 26  # request, handle, lowest; [handle, epoch, seq, whole]: who leads; renews that token
    LEADER_TRACK: Final = 27  # request, handle, lowest; [handle, version]: LEADER that waits for a change
    ANSWER: Final = 30  # request, epoch, the active replica's ordinal (0: none); [code, ...]

    # -- between daemons; b is the sender's epoch
    HEARTBEAT: Final = 40  # stamp_ns, epoch, echoed stamp_ns; [...] (datagram)
    FORWARD: Final = 50  # request, epoch, session; FORWARD_ROUTE then the client's body
    FORWARD_ANSWER: Final = 51  # request, epoch, session; the ANSWER's body
    REPLICATE: Final = 52  # creation_id, epoch, seq; REPLICATE_ROUTE then the client's body
    ACK: Final = 53  # creation_id, epoch, seq staged; none, or [activation_seq, advertised_seq] in a report
    COMMIT: Final = 54  # creation_id, epoch, seq committed
    QUERY: Final = 55  # creation_id, epoch, token
    QUERIED: Final = 56  # creation_id, epoch, token; after a COMMIT that is current
    JOIN: Final = 57  # creation_id, epoch, last seq held; [last epoch, complete]
    CHUNK: Final = 58  # creation_id, epoch, seq it shows; [number, [section, ...], first chunk: opening]
    CHUNK_ACK: Final = 59  # creation_id, epoch, chunk's number
    JOINED: Final = 60  # creation_id, epoch, seq; []
    ASK: Final = 61  # 0, epoch, 0; [operation, ...]: a member's proposal to the coordinator (DirectoryOp)
    WITHDRAW: Final = 62  # request, epoch, session; none: return a FORWARD that only waits
    FORWARD_REFUSED: Final = 63  # request, epoch, session; FORWARD_REFUSED_ROUTE then the ANSWER's body
    PREPARE: Final = 70  # round, epoch, 0; [node_id]
    PROMISE: Final = 71  # round, epoch, granted; [node_id, promised, accepted, view or nil]
    ACCEPT: Final = 72  # round, epoch, 0; [node_id, view]
    ACCEPTED: Final = 73  # round, epoch, granted; [node_id, promised]
    COLLECT: Final = 74  # 0, epoch, directory seq; [view, installed epoch]
    COLLECTED: Final = (
        75  # 0, epoch, directory seq; [installed epoch, committed seq, staged, directory, before]
    )
    INSTALL: Final = 76  # 0, epoch, directory seq; [view, base's epoch, directory or nil, stayed, served]
    DECIDED: Final = 77  # 0, epoch, 0; [view]
    STOP: Final = 78  # 0, epoch, 0; none: an operator stops the whole cluster
    FAULTS: Final = 79  # 0, epoch, 0; [[what made a node stop, ...], [creation_id to be tried again, ...]]
    DIRECTORY: Final = 80  # piece's number, the view's epoch, 0; [row, ...] (class Row)
    DIRECTORY_ACK: Final = 81  # piece's number, the view's epoch, 0; none
    NODES: Final = 82  # 0, 0, 0; [[node_id, ...], [node_id, ...]]: the sender's data nodes and witnesses


REPLICA_KINDS: Final = (
    Kind.REPLICATE,
    Kind.ACK,
    Kind.COMMIT,
    Kind.JOIN,
    Kind.CHUNK,
    Kind.CHUNK_ACK,
    Kind.JOINED,
)
"""What replicas of a checkpoint tell each other. Those of the directory too, with DIRECTORY_ID."""

CREATION_KINDS: Final = (*REPLICA_KINDS, Kind.QUERY, Kind.QUERIED)
"""Between daemons; `a` is a creation id."""


class Row:
    """A row of a piece of a directory: an array that begins with one of these numbers. Append only."""

    HEAD: Final = 1  # installed epoch, seq, [[node_id, incarnation], ...]
    CHECKPOINT: Final = 2  # as in a whole directory, with no opens
    SESSION: Final = 3  # session, node_id, generation, lowest, death seen
    OPENS: Final = 4  # session, [[handle, creation_id, flags], ...]
    ANSWER: Final = 5  # session, request, seq, answer


class Change:
    """What happened to a section, in the answer to TRACK: `[sequence, [row, ...] or nil, lineage]`.

    A row is `[sequence, change, section id, offset, size, the session's own request or 0]`. If values were
    asked for, it has the section's value, or nil, as a seventh field, and the answer has a fourth,
    `complete`: nothing came after `sequence` yet, so the values are those of just that moment.
    """

    CREATED: Final = 1
    WRITTEN: Final = 2  # `size` bytes from `offset` on
    OVERWRITTEN: Final = 3  # content and size are replaced; this may also have created it
    DELETED: Final = 4
    EXPIRED: Final = 5


class EndReason:
    """Why a leadership ended. Append only."""

    RESIGNED: Final = 1
    CLOSED: Final = 2  # the leader closed its handle, or its session ended: its process died, perhaps
    NOT_RENEWED: Final = 3  # no renewal came for the ttl
    REVOKED: Final = 4  # by an operator


class Verb:
    """The operator commands: the first field of OPERATE. A comment names the field that follows, if any.

    The answer's payload is a text: what was done and what it can lose.
    """

    DRAIN: Final = "drain"  # hand over and leave; answered when the node has handed over
    STOP: Final = "stop"  # end every node, wait for none to come back; answered when this node ends
    BOOTSTRAP: Final = "bootstrap"  # make a cold start with the nodes that are here
    FORCE_ACTIVE: Final = "force-active"  # continue with the nodes that are here, whatever the arbiter says
    ACCEPT_LOSS: Final = "accept-loss"  # node_id: that node counts as dead, and what only it had is lost
    RETRY: Final = "retry"  # name: serve a checkpoint again that has stopped nodes


class Op:
    """A section operation: an array that begins with one of these numbers.

    PIECE and LEADERSHIP are between nodes. So is another form of RESIZE: the resize's number, the three
    limits in force, and the three that are wanted. `id` and `content` are bin, times are nanoseconds since
    1970 (`SA_TIME_END`: never), offsets are bytes.
    """

    CREATE: Final = 1  # id (empty: generate one), expiration, content
    DELETE: Final = 2  # id
    OVERWRITE: Final = 3  # id, content: replaces content and size
    WRITE: Final = 4  # id, offset, content: never shortens
    EXPIRATION_SET: Final = 5  # id, expiration
    PUT: Final = 6  # id, content, expiration or nil (unchanged): OVERWRITE, created if missing
    PATCH: Final = 7  # id, offset, content, expiration or nil: WRITE, created if missing
    REMOVE: Final = 8  # id, between nodes: true if it expired: DELETE if present
    PIECE: Final = 9  # id, total, offset, content, expiration, last update, version: of a weak section
    REQUIRE: Final = 10  # id, a version, nil (absent) or true (present): a condition, before all changes
    LEAD: Final = 11  # handle, secret, ttl, exclusive, allow loss, name, host, pid: to the queue; alone
    RESIGN: Final = 12  # handle, name of the successor or nil: leave the queue, or end the leadership; alone
    REVOKE: Final = 13  # epoch, seq: an operator ends the leadership with this token; alone
    TOKEN: Final = 14  # epoch, seq, secret, lineage: the update is the leader's; after all changes
    LEADERSHIP: Final = 15  # who leads and who waits, packed: replaces what was so before; alone
    RESIZE: Final = 16  # maxSections, maxSectionSize, maxSectionIdSize (nil: unchanged), at least; alone
    EXPIRE_AFTER: Final = 17  # id, duration: EXPIRATION_SET, so long after the time of the update


FORWARD_ROUTE: Final = struct.Struct(">BQQQ")
"""kind, creation_id (0: the directory), lowest unanswered request, the sender's directory seq."""

FORWARD_REFUSED_ROUTE: Final = struct.Struct(">Q")
"""The directory's seq at the time the active replica that refused an update was placed."""

REPLICATE_ROUTE: Final = struct.Struct(">QQQqQQ")
"""session, request, lowest, time_ns (since 1970), committed seq, epoch the update was ordered in.

Session 0 means a weak batch, or an update of the service's own. The body then also holds all requests that it
combines: `[ops, [[session, request, lowest, answer], ...]]`.
"""

DIRECTORY_ID: Final = 0
"""The creation id under which the directory's own updates travel."""


def answer_ok(payload: Any = None) -> bytes:
    """Return the body of an OK answer."""
    return _OK if payload is None else pack_body([OK, payload])


_OK: Final = pack_body([OK])


def answer_error(code: int, text: str = "", index: int = -1) -> bytes:
    """Return the body of a refusal; `index` is the lowest element at fault, -1 for none.

    A text longer than `REFUSAL_CHARS_MAX` is cut, because FORWARD_REFUSED can carry no more.
    """
    return pack_body([code, index, text[:REFUSAL_CHARS_MAX]])


def answer_conflict(index: int, text: str, version: bytes | None) -> bytes:
    """Return the body of the refusal of an update whose condition at `index` does not hold.

    `version` is that of the section as it is; None if there is none.
    """
    return pack_body([BAD_OPERATION, index, text[:REFUSAL_CHARS_MAX], version])


def is_ok(answer: bytes) -> bool:
    """Return True if this is the body of an OK answer. Looks at its first bytes and unpacks nothing."""
    return answer[1:2] == _OK[1:]


def encode_answer(request: int, epoch: int, active: int, body: bytes) -> bytes:
    """Return an ANSWER frame.

    `active` is the position of the active replica's node among the sorted members, from 1; 0 for none.
    """
    return encode_frame(Kind.ANSWER, request, epoch, active, body)
