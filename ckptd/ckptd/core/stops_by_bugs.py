"""What made nodes stop. Every node knows it, so that the next one does not try the same again.

A node whose own code raises after a change of state stops (see `containment`). Its last words name what it
was doing: handling a client's request, an update, or an operation of the directory. Every node that
receives them

* refuses a repeat of that request (ERR_LIBRARY), unless it was done elsewhere and has its answer;
* does not apply that update: its replica takes the sections instead (`resync`);
* closes a checkpoint whose active replica stopped on `CLOSES_AFTER` nodes: it is not served, its name
  stays, and its content goes to quarantine, since what was acknowledged is never dropped;
* makes no replica of a checkpoint whose replica stopped this very node.

A stop is forgotten when its session has ended and its checkpoint is gone, or when an operator commands
`retry`. Before stops were shared, a client's repeats of one write ended two of three nodes.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from zlib import crc32

from ckpt_protocol.body_codec import bounded_array, pack_body
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.errors import FrameError, parser
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.limits import FAULTS_MAX
from ckpt_protocol.messages import Kind


class DirectoryContents(Protocol):
    """The part of the directory that tells whether a stop still matters."""

    @property
    def checkpoints(self) -> Container[int]:
        """Creation ids."""

    @property
    def sessions(self) -> Container[int]:
        """Session ids."""

    def may_still_be_created(self, creation_id: int) -> bool:
        """Return True if a checkpoint with this creation id may still be created."""


STOPS_MAX: Final = FAULTS_MAX
"""How many stops a node remembers; the oldest is dropped first. (Each is a crash: there are few.)"""

STOPS_ON_DISK_MAX: Final = 32
"""How many its record keeps, the newest: a record of the largest cluster has to stay small."""

MAKES_NO_REPLICA: Final = (
    "this node does not create a replica of this checkpoint, because its last one stopped "
    "the node (ckptctl cluster retry tries again)"
)
"""The answer to a client that asks for a replica there."""

CLOSES_AFTER: Final = 2
"""A checkpoint is closed when this many nodes stopped as its active replica: the first, and the next."""


class Phase:
    """What a node was doing when it stopped. The numbers are on the wire and on disk."""

    ORDER: Final = 1  # the active replica, at a client's request
    LEAD: Final = 2  # the active replica, at its own work: taking over, committing, expiring, a batch
    STAGE: Final = 3  # another replica, at an update
    COPY: Final = 4  # a replica's node, making, keeping or giving up its replica
    PLAN: Final = 5  # the coordinator, or the client's node, at a request to the directory
    COORDINATE: Final = 6  # the coordinator, applying an operation that is not answered yet
    FOLLOW: Final = 7  # another member, applying an operation
    PASS: Final = 8  # the client's node, passing a request on, reading for it, or passing its answer back


_AS_ACTIVE: Final = (Phase.ORDER, Phase.LEAD)


@dataclass(slots=True, frozen=True)
class Stop:
    """One incarnation of a node, and what it was doing when it stopped. 0 where that has no number."""

    node_id: str
    incarnation: int
    phase: int
    creation_id: int
    """A checkpoint; `epoch` and `seq` are those of an update of it. 0: of an operation of the directory."""
    epoch: int
    seq: int
    session: int
    request: int
    """A client's request; 0 for its ATTACH, which has another number at each try.

    Session 0 with a number is an operation of the service itself.
    """

    def fields(self) -> list[Any]:
        return [
            self.node_id,
            self.incarnation,
            self.phase,
            self.creation_id,
            self.epoch,
            self.seq,
            self.session,
            self.request,
        ]

    def describe(self) -> str:
        """Describe the stop for the log."""
        parts = [f"node {self.node_id}"]
        if self.creation_id:
            parts.append(f"checkpoint {self.creation_id:x}, version ({self.epoch}, {self.seq})")
        elif Phase.PLAN <= self.phase <= Phase.FOLLOW:
            parts.append("the directory")
        if self.session:
            parts.append(f"session {self.session:x}, request {self.request}")
        return ", ".join(parts)


def parse_stop(fields: Any) -> Stop:
    """Parse a stop that another node sent, or that our disk holds. Raises: FrameError."""
    if type(fields) is not list or len(fields) < 8 or type(fields[0]) is not str:
        raise FrameError("a stop has unexpected fields")
    for number in fields[1:8]:
        if type(number) is not int or not 0 <= number < 2**64:
            raise FrameError("a stop has a number that is out of range")
    return Stop(*fields[:8])


def number_of(op: list[Any]) -> int:
    """Return the number under which an operation of the service itself is refused; never 0."""
    return crc32(pack_body(op)) + 1


def _is_obsolete(stop: Stop, directory: DirectoryContents) -> bool:
    if stop.creation_id in directory.checkpoints or directory.may_still_be_created(stop.creation_id):
        return False
    if stop.session:
        # A session that never began, since its ATTACH stopped a node, may try again at any time.
        return stop.request > 0 and stop.session not in directory.sessions
    return stop.creation_id > 0


class Stops:
    """All stops that this node knows of. `requests` and `by_creation` are indexes of them."""

    __slots__ = ("by_creation", "closed", "known", "requests")

    def __init__(self) -> None:
        self.known: dict[Stop, None] = {}
        self.requests: dict[tuple[int, int], Stop] = {}
        self.by_creation: dict[int, list[Stop]] = {}
        self.closed: dict[int, str] = {}
        """Checkpoints that are not served, and why."""

    def add(self, stops: Iterable[Stop]) -> list[Stop]:
        """Remember stops; return those that are new."""
        new = [stop for stop in stops if stop not in self.known]
        for stop in new:
            self.known[stop] = None
        if new:
            while len(self.known) > STOPS_MAX:
                del self.known[next(iter(self.known))]
            self._index()
        return new

    def _index(self) -> None:
        self.requests, self.by_creation, self.closed = {}, {}, {}
        for stop in self.known:
            if stop.request or stop.session:
                self.requests[stop.session, stop.request] = stop
            if stop.creation_id:
                self.by_creation.setdefault(stop.creation_id, []).append(stop)
        for creation_id, stops in self.by_creation.items():
            nodes = {(s.node_id, s.incarnation): None for s in stops if s.phase in _AS_ACTIVE}
            if len(nodes) >= CLOSES_AFTER:
                names = " and ".join(sorted({node_id for node_id, _ in nodes}))
                self.closed[creation_id] = f"a request to it stopped node {names}"

    def named_update(self, creation_id: int, epoch: int, seq: int) -> bool:
        """Return True if this update stopped a replica's node."""
        return any(
            stop.phase == Phase.STAGE and (stop.epoch, stop.seq) == (epoch, seq)
            for stop in self.by_creation.get(creation_id, ())
        )

    def bars_replica(self, creation_id: int, node_id: str) -> bool:
        """Return True if its replica of this checkpoint stopped that node before: it makes no other."""
        return any(
            stop.phase == Phase.COPY and stop.node_id == node_id
            for stop in self.by_creation.get(creation_id, ())
        )

    def never_applied(self, seq: int, session: int, request: int) -> bool:
        """Return True if a staged operation stopped the coordinator that was to answer it."""
        operation = (Phase.COORDINATE, seq, session, request)
        return any((s.phase, s.seq, s.session, s.request) == operation for s in self.known)

    def forget(self, creation_id: int) -> bool:
        """Forget the stops of a checkpoint that is to be tried again; return True if there were any."""
        stops = self.by_creation.get(creation_id, [])
        for stop in stops:
            del self.known[stop]
        if stops:
            self._index()
        return bool(stops)

    def prune(self, directory: DirectoryContents) -> bool:
        """Forget stops that no session can repeat and no checkpoint can meet; True if there were any."""
        obsolete = [stop for stop in self.known if _is_obsolete(stop, directory)]
        for stop in obsolete:
            del self.known[stop]
        if obsolete:
            self._index()
        return bool(obsolete)

    def frame(self, epoch: int, forgotten: Iterable[int] = ()) -> bytes:
        """Return the FAULTS frame that reports all stops to another node."""
        rows = [stop.fields() for stop in self.known]
        return encode_frame(Kind.FAULTS, 0, epoch, 0, pack_body([rows, list(forgotten)]))


@parser
def parse_faults(frame: Frame) -> tuple[list[Stop], list[int]]:
    """Parse FAULTS: stops, and checkpoints that are to be tried again. Raises: FrameError."""
    rows, forgotten = bounded_array(frame.body, BOUNDS[Kind.FAULTS], 2)[:2]
    if type(rows) is not list or len(rows) > STOPS_MAX or type(forgotten) is not list:
        raise FrameError("the stops are not a list, or are too many")
    if any(type(creation_id) is not int for creation_id in forgotten):
        raise FrameError("a value is not a creation id")
    return [parse_stop(row) for row in rows], forgotten
