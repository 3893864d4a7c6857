"""Events, which the core is given (past tense), and effects, which it asks for (imperative).

Only the daemon's runtime and the simulator create events and carry out effects. Times are int nanoseconds
of a monotonic clock.
"""

from dataclasses import dataclass

from ckpt_protocol.framing import Frame

# -- events


@dataclass(slots=True)
class ClientConnected:
    """A client completed the handshake on a new `link` (a number that is never used again).

    `death_seen`: the system reports at once when the client's process dies.
    """

    link: int
    death_seen: bool = False


@dataclass(slots=True)
class ClientReceived:
    """Complete frames arrived from a client, in order."""

    link: int
    frames: list[Frame]


@dataclass(slots=True)
class ClientCongested:
    """A client does not read its answers: more of them wait to be sent than should."""

    link: int


@dataclass(slots=True)
class ClientDrained:
    """Most of the answers that waited to be sent to a client have gone out."""

    link: int


@dataclass(slots=True)
class ClientLost:
    """A client's link is closed. `process_dead`: its process is known to have ended."""

    link: int
    process_dead: bool = False


@dataclass(slots=True)
class PeerConnected:
    """The one link to a peer is up, and this incarnation answered at the peer's configured address.

    Either this node started the handshake at that address; or the peer started it, and this node asked back
    at that address before it believed the peer (ADR 17). Earlier frames may be lost.
    """

    node_id: str
    incarnation: int
    urls: tuple[str, ...] = ()


@dataclass(slots=True)
class PeerReceived:
    """Complete frames arrived from the connected peer, in order."""

    node_id: str
    frames: list[Frame]


@dataclass(slots=True)
class PeerLost:
    """The link to a peer is closed; what was sent and not answered may or may not have arrived."""

    node_id: str


@dataclass(slots=True)
class PeerRefused:
    """A connection to the peer's address was refused: no process listens there at the moment."""

    node_id: str


@dataclass(slots=True)
class PeerTrouble:
    """Something keeps a peer and this node apart; reported repeatedly for as long as it does.

    With `code` EXIST, the peer asked at the address that is configured there for this node, and another
    daemon answered. `node_id` may be one that is not configured here.
    """

    node_id: str
    code: int
    text: str


@dataclass(slots=True)
class Outranked:
    """A peer says that it knows a later incarnation of this node than the one that runs here."""

    node_id: str
    incarnation: int


@dataclass(slots=True)
class HeartbeatReceived:
    """A HEARTBEAT datagram arrived. It may be late, duplicated or out of order.

    `authentic`: it is signed with the secret of a handshake between the two nodes; otherwise anybody may have
    sent it.
    """

    frame: Frame
    authentic: bool = True


@dataclass(slots=True)
class WallClockRead:
    """The wall clock is `offset_ns` ahead of the core's clock (ns since 1970 minus `now_ns`)."""

    offset_ns: int


@dataclass(slots=True)
class Persisted:
    """The record of `Persist(number)`, or a later one, is on disk."""

    number: int


@dataclass(slots=True)
class PersistFailed:
    """The record of `Persist(number)` could not be written (disk full, read-only); the last one stays."""

    number: int
    text: str


@dataclass(slots=True)
class RegisterAnswered:
    """The register in etcd answered `AskRegister(number)`.

    If `swapped`, it now holds the proposed value. Otherwise nothing was changed, and it holds `value`
    (None: it was never written). `revision` belongs to what it holds now.
    """

    number: int
    swapped: bool
    revision: int
    value: bytes | None


@dataclass(slots=True)
class RegisterFailed:
    """`AskRegister(number)` got no answer: a swap may have been done, or not, or may still be done."""

    number: int
    text: str


@dataclass(slots=True)
class FenceEnded:
    """The fence hook for a node ended; `fenced` (exit code 0) is proof that the node is dead."""

    node_id: str
    fenced: bool
    text: str


@dataclass(slots=True)
class LeaveAsked:
    """The node is asked to hand over and leave the cluster (SIGTERM); `Leave` follows when it has."""


@dataclass(slots=True)
class TurnCame:
    """Other events had their turn since the core was left with work (`turn_due`): it may continue."""


@dataclass(slots=True)
class TimeCame:
    """The core's `deadline_ns` has passed."""


Event = (
    ClientConnected
    | ClientReceived
    | ClientLost
    | PeerConnected
    | PeerReceived
    | PeerLost
    | PeerRefused
    | PeerTrouble
    | Outranked
    | HeartbeatReceived
    | WallClockRead
    | Persisted
    | PersistFailed
    | RegisterAnswered
    | RegisterFailed
    | FenceEnded
    | LeaveAsked
    | TimeCame
    | TurnCame
    | ClientCongested
    | ClientDrained
)

# -- effects: to be carried out in the order given


@dataclass(slots=True)
class SendClient:
    """Send bytes (complete frames) on a client's link; dropped if the link is closed."""

    link: int
    data: bytes


@dataclass(slots=True)
class SendPeer:
    """Send bytes (complete frames) on the link to a peer; dropped if there is none."""

    node_id: str
    data: bytes


@dataclass(slots=True)
class SendHeartbeat:
    """Send one datagram to a peer, signed; it may be lost."""

    node_id: str
    data: bytes


@dataclass(slots=True)
class AskBack:
    """Ask at a peer's configured address which incarnation is there: a heartbeat named an unknown one.

    If it is not the link's incarnation, the link is closed and made again. If there is no answer, nothing
    changes.
    """

    node_id: str


@dataclass(slots=True)
class RefusePeer:
    """Close the link to a peer, and report a later incarnation of it that we know (`Outranked` there)."""

    node_id: str
    incarnation: int


@dataclass(slots=True)
class BeginAgain:
    """End this process's node, and start it again with an incarnation above this one."""

    incarnation: int


@dataclass(slots=True)
class Persist:
    """Make `record` durable in place of the last one; `Persisted` or `PersistFailed` follows.

    The core continues in the meantime; it holds back only what depends on the record (ADR 10): a promise
    that is sent before it is on disk can be forgotten in a crash and given twice. `number` grows; if
    several records wait, only the newest has to be written.
    """

    record: bytes
    number: int = 0


@dataclass(slots=True)
class AskRegister:
    """Read the register in etcd (`value` None), or swap it if its revision is still `revision`.

    Revision 0 means: if it was never written. `RegisterAnswered` or `RegisterFailed` follows, in bounded
    time.
    """

    number: int
    revision: int
    value: bytes | None


@dataclass(slots=True)
class Fence:
    """Run a node's fence hook, unless it is running already; `FenceEnded` follows, in bounded time."""

    node_id: str


@dataclass(slots=True)
class TakeLarge:
    """Take frames of any legal size on this link from now on: a client's session is attached on it.

    This comes before the answer to ATTACH, so that it is in force when the client learns of the session.
    Until then, nothing longer than `UNATTACHED_BODY_BYTES_MAX` is taken.
    """

    link: int


@dataclass(slots=True)
class CloseClient:
    """Close a client's link: it broke the protocol, or its message made our code raise."""

    link: int
    reason: str


@dataclass(slots=True)
class ClosePeer:
    """Close the link to a peer (it sent garbage, or has no link to us); it may connect again."""

    node_id: str
    reason: str


@dataclass(slots=True)
class StopReading:
    """Stop reading from a link (a client's, or a peer's by its node id) until `ReadOn`."""

    link: int | str


@dataclass(slots=True)
class ReadOn:
    """Read from a link again."""

    link: int | str


@dataclass(slots=True)
class Log:
    """Log one line for the operator: a change of a member or a checkpoint, never payload."""

    level: str
    text: str


@dataclass(slots=True)
class Quarantine:
    """Save what a losing side had, in a file named after the checkpoint: nothing is lost silently."""

    name: str
    content: bytes


@dataclass(slots=True)
class Leave:
    """Let the process end: the node has handed over, or its time for that is over.

    `last_copy`: it takes data with it that no other node is known to hold.
    """

    last_copy: bool = False


Effect = (
    SendClient
    | SendPeer
    | SendHeartbeat
    | AskBack
    | RefusePeer
    | BeginAgain
    | Persist
    | AskRegister
    | Fence
    | TakeLarge
    | CloseClient
    | ClosePeer
    | StopReading
    | ReadOn
    | Log
    | Quarantine
    | Leave
)
