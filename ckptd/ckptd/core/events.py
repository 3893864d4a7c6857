"""What the core is told (events, past tense) and what it asks for (effects, imperative).

The daemon's runtime and the simulator are the only ones that make events and carry out
effects. Times are int nanoseconds of a monotonic clock.
"""

from dataclasses import dataclass

from ckpt_protocol.framing import Frame

# -- events


@dataclass(slots=True)
class ClientConnected:
    """A client finished the first exchange on a new `link` (a number never used again)."""

    link: int


@dataclass(slots=True)
class ClientReceived:
    """Whole frames came from a client, in order."""

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
    """A client's link is gone. `process_dead`: its process is known to have ended."""

    link: int
    process_dead: bool = False


@dataclass(slots=True)
class PeerConnected:
    """The one link to a peer is up, and this incarnation answered at the peer's configured address.

    Either this node opened the first exchange to that address, or, where the peer opened it, this
    node asked back there before it believed (ADR 17). Earlier frames may be lost.
    """

    node_id: str
    incarnation: int
    urls: tuple[str, ...] = ()


@dataclass(slots=True)
class PeerReceived:
    """Whole frames came from the peer that is connected, in order."""

    node_id: str
    frames: list[Frame]


@dataclass(slots=True)
class PeerLost:
    """The link to a peer is gone; what was sent and not answered may or may not have come through."""

    node_id: str


@dataclass(slots=True)
class PeerRefused:
    """A connection to the peer's address was refused: nothing listens there just now."""

    node_id: str


@dataclass(slots=True)
class PeerTrouble:
    """Something keeps a peer and this node apart; told again and again for as long as it does.

    `code` EXIST: the peer found another daemon at the address that it has for this node's id.
    `node_id` may be of a node that is not configured here.
    """

    node_id: str
    code: int
    text: str


@dataclass(slots=True)
class Outranked:
    """A peer, asked at its configured address, knows a later start of this node than this one."""

    node_id: str
    incarnation: int


@dataclass(slots=True)
class HeartbeatReceived:
    """A HEARTBEAT datagram came. It may be late, doubled or out of order.

    `sealed`: with the secret of a first exchange between the two nodes; else anybody may have sent it.
    """

    frame: Frame
    sealed: bool = True


@dataclass(slots=True)
class WallClockRead:
    """The wall clock stands `offset_ns` ahead of the core's clock (ns since 1970 minus now)."""

    offset_ns: int


@dataclass(slots=True)
class Persisted:
    """The record of `Persist(number)`, or a later one, is on disk."""

    number: int


@dataclass(slots=True)
class PersistFailed:
    """The record of `Persist(number)` could not be written (disk full, read-only): the last one stands."""

    number: int
    text: str


@dataclass(slots=True)
class RegisterAnswered:
    """The register outside answered `AskRegister(number)`.

    `swapped`: it holds what was asked for now. Else nothing was changed, and it holds
    `value` (None: nothing was ever put there). `revision` goes with what it holds now.
    """

    number: int
    swapped: bool
    revision: int
    value: bytes | None


@dataclass(slots=True)
class RegisterFailed:
    """No answer to `AskRegister(number)`: a swap may have been done, or not, or be done yet."""

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
    """The node is to hand over and leave the cluster (SIGTERM); `Leave` follows when it has."""


@dataclass(slots=True)
class TurnCame:
    """Other events had their turn since the core was left with work (`turn_due`): it goes on."""


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
    """Send bytes (whole frames) on a client's link; dropped when the link is gone."""

    link: int
    data: bytes


@dataclass(slots=True)
class SendPeer:
    """Send bytes (whole frames) on the link to a peer; dropped when there is none."""

    node_id: str
    data: bytes


@dataclass(slots=True)
class SendHeartbeat:
    """Send one datagram to a peer, sealed; it may be lost."""

    node_id: str
    data: bytes


@dataclass(slots=True)
class AskBack:
    """Ask at a peer's configured address which start of it is there: somebody speaks of an unknown one.

    Where it is another one than the link's, the link is ended and made anew. Where nobody
    answers, nothing changes.
    """

    node_id: str


@dataclass(slots=True)
class RefusePeer:
    """End the link to a peer, and tell it that this node knows a later start of it (`Outranked` there)."""

    node_id: str
    incarnation: int


@dataclass(slots=True)
class BeginAgain:
    """End this process's node, and start it again with an incarnation above this one."""

    incarnation: int


@dataclass(slots=True)
class Persist:
    """Make `record` durable in place of the last one, then tell `Persisted` (else `PersistFailed`).

    Nothing waits for it but what the core keeps back until then (ADR 10): a promise that
    is sent before it is on disk can be forgotten by a crash and given twice. `number`
    grows; where several wait, only the newest need be written.
    """

    record: bytes
    number: int = 0


@dataclass(slots=True)
class AskRegister:
    """Read the register outside (`value` None), or swap it if its revision still is `revision`.

    Revision 0: if nothing was ever put there. The answer is `RegisterAnswered` or
    `RegisterFailed`, in bounded time.
    """

    number: int
    revision: int
    value: bytes | None


@dataclass(slots=True)
class Fence:
    """Run the fence hook for a node, unless it runs for it already; `FenceEnded` follows, in bounded time."""

    node_id: str


@dataclass(slots=True)
class TakeLarge:
    """A client's session is attached on this link: take frames of any legal size on it from now on.

    It comes before the answer to ATTACH, so that it is done when the client knows of it. Until then
    nothing longer than `UNATTACHED_BODY_BYTES_MAX` is taken.
    """

    link: int


@dataclass(slots=True)
class CloseClient:
    """End a client's link: it broke the protocol."""

    link: int
    reason: str


@dataclass(slots=True)
class ClosePeer:
    """End the link to a peer (it sent garbage); it may connect again."""

    node_id: str
    reason: str


@dataclass(slots=True)
class StopReading:
    """Read nothing more of a link (a client's, or a peer's by its node id) until `ReadOn`."""

    link: int | str


@dataclass(slots=True)
class ReadOn:
    """Read a link again."""

    link: int | str


@dataclass(slots=True)
class Log:
    """One line for the operator: a change of a member or a checkpoint, never payload."""

    level: str
    text: str


@dataclass(slots=True)
class Quarantine:
    """Keep what a losing side had, as a file named after the checkpoint: nothing is lost in silence."""

    name: str
    content: bytes


@dataclass(slots=True)
class Leave:
    """The node has handed over, or its time for that is over; the process may end.

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
