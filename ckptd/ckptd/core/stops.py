"""What made nodes stop: told to every node, so that the next one does not try it again.

A node whose own code raises after a change of state stops (see `containment`). Its last words
name what it was at: a client's request, an update, an operation of the directory. Every node
that hears of it

* refuses a repeat of that request (ERR_LIBRARY), unless it was done elsewhere and has its answer;
* does not apply that update: its copy takes the sections instead (`resync`);
* closes a checkpoint whose active replica stopped on `CLOSES_AFTER` nodes: it is not served, its
  name stays, and its content goes to quarantine, since what was acknowledged is never dropped;
* leaves a checkpoint alone whose copy stopped this very node.

A stop is forgotten when the session has ended and the checkpoint is gone, and where an operator
says `retry`. Before, a client's repeats of one write ended two of three nodes.
"""

from collections.abc import Container, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol
from zlib import crc32

from ckpt_protocol.bounds import BOUNDS
from ckpt_protocol.codec import bounded_array, pack_body
from ckpt_protocol.framing import Frame, FrameError, encode_frame
from ckpt_protocol.limits import FAULTS_MAX
from ckpt_protocol.messages import Kind
from ckpt_protocol.parsing import parser


class WhatThereIs(Protocol):
    """What of the directory tells whether a stop still matters."""

    @property
    def checkpoints(self) -> Container[int]:
        """Creation ids."""

    @property
    def sessions(self) -> Container[int]:
        """Their ids."""

    def may_come(self, creation_id: int) -> bool:
        """Whether such a checkpoint may still be created."""


STOPS_MAX: Final = FAULTS_MAX
"""Stops that a node remembers; the oldest goes first. (Each is a crash: there are few.)"""

STOPS_ON_DISK_MAX: Final = 32
"""Those that its record keeps, the newest: a record of the largest cluster has to stay small."""

MAKES_NO_COPY: Final = (
    "its copy of this checkpoint stopped this node, which makes none any more (ckptctl cluster retry)"
)
"""Who asks for a copy there is told so."""

CLOSES_AFTER: Final = 2
"""Nodes that stopped as a checkpoint's active replica: the first, and the next one that tried."""


class Phase:
    """What a node was at when it stopped. The numbers are on the wire and on disk."""

    ORDER: Final = 1  # the active replica, at a client's request
    LEAD: Final = 2  # the active replica, at its own work: taking over, committing, expiring, a batch
    STAGE: Final = 3  # another replica, at an update
    COPY: Final = 4  # a replica that takes, keeps or gives up its copy
    PLAN: Final = 5  # the coordinator, or the client's node, at a request to the directory
    COORDINATE: Final = 6  # the coordinator, applying an operation that nobody was answered for
    FOLLOW: Final = 7  # another member, applying an operation
    PASS: Final = 8  # the client's node, passing a request on, reading for it, or passing its answer back


_AS_ACTIVE: Final = (Phase.ORDER, Phase.LEAD)


@dataclass(slots=True, frozen=True)
class Stop:
    """One start of a node, and what it was at. 0 where that has no number.

    `creation_id`, `epoch`, `seq`: a checkpoint and an update of it (0: the directory's). `session`,
    `request`: a client's request, 0 for its ATTACH, which has another number at each try; session 0 with
    a number is an operation of the service's own.
    """

    node_id: str
    incarnation: int
    phase: int
    creation_id: int
    epoch: int
    seq: int
    session: int
    request: int

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
        """For the log."""
        parts = [f"node {self.node_id}"]
        if self.creation_id:
            parts.append(f"checkpoint {self.creation_id:x}, version ({self.epoch}, {self.seq})")
        elif Phase.PLAN <= self.phase <= Phase.FOLLOW:
            parts.append("the directory")
        if self.session:
            parts.append(f"session {self.session:x}, request {self.request}")
        return ", ".join(parts)


def parse_stop(fields: Any) -> Stop:
    """A row that another node, or our disk, tells. Raises: FrameError."""
    if type(fields) is not list or len(fields) < 8 or type(fields[0]) is not str:
        raise FrameError("a stop with other fields")
    for number in fields[1:8]:
        if type(number) is not int or not 0 <= number < 2**64:
            raise FrameError("a stop with a number out of range")
    return Stop(*fields[:8])


def number_of(op: list[Any]) -> int:
    """The number under which an operation of the service's own is refused; never 0."""
    return crc32(pack_body(op)) + 1


def _is_over(stop: Stop, directory: WhatThereIs) -> bool:
    if stop.creation_id in directory.checkpoints or directory.may_come(stop.creation_id):
        return False
    if stop.session:
        # A session that never began, since its ATTACH stopped a node, may be tried for as long as it likes.
        return stop.request > 0 and stop.session not in directory.sessions
    return stop.creation_id > 0


class Stops:
    """All that this node knows. `requests` and `by_creation` find them."""

    __slots__ = ("by_creation", "closed", "known", "requests")

    def __init__(self) -> None:
        self.known: dict[Stop, None] = {}
        self.requests: dict[tuple[int, int], Stop] = {}
        self.by_creation: dict[int, list[Stop]] = {}
        self.closed: dict[int, str] = {}
        """Checkpoints that are not served, and why."""

    def learn(self, stops: Iterable[Stop]) -> list[Stop]:
        """Remember; returns those that are new."""
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
                self.closed[creation_id] = f"what it was asked to do stopped node {names}"

    def named_update(self, creation_id: int, epoch: int, seq: int) -> bool:
        """Whether this update stopped a replica's node."""
        return any(
            stop.phase == Phase.STAGE and (stop.epoch, stop.seq) == (epoch, seq)
            for stop in self.by_creation.get(creation_id, ())
        )

    def shuns(self, creation_id: int, node_id: str) -> bool:
        """Whether its copy of this checkpoint stopped that node before: it makes none."""
        return any(
            stop.phase == Phase.COPY and stop.node_id == node_id
            for stop in self.by_creation.get(creation_id, ())
        )

    def never_applied(self, seq: int, session: int, request: int) -> bool:
        """Whether an operation that is staged stopped the coordinator that was to answer for it."""
        operation = (Phase.COORDINATE, seq, session, request)
        return any((s.phase, s.seq, s.session, s.request) == operation for s in self.known)

    def forget(self, creation_id: int) -> bool:
        """An operator says that a checkpoint is to be tried again; whether anything was known of it."""
        stops = self.by_creation.get(creation_id, [])
        for stop in stops:
            del self.known[stop]
        if stops:
            self._index()
        return bool(stops)

    def prune(self, directory: WhatThereIs) -> bool:
        """Forget what no session can repeat and no checkpoint can meet; whether that was any."""
        over = [stop for stop in self.known if _is_over(stop, directory)]
        for stop in over:
            del self.known[stop]
        if over:
            self._index()
        return bool(over)

    def frame(self, epoch: int, forgotten: Iterable[int] = ()) -> bytes:
        """The FAULTS frame that tells another node all of it."""
        rows = [stop.fields() for stop in self.known]
        return encode_frame(Kind.FAULTS, 0, epoch, 0, pack_body([rows, list(forgotten)]))


@parser
def read_stopped(frame: Frame) -> tuple[list[Stop], list[int]]:
    """What a FAULTS frame tells: stops, and checkpoints that are to be tried again. Raises: FrameError."""
    rows, forgotten = bounded_array(frame.body, BOUNDS[Kind.FAULTS], 2)[:2]
    if type(rows) is not list or len(rows) > STOPS_MAX or type(forgotten) is not list:
        raise FrameError("stops that are no list, or too many")
    if any(type(creation_id) is not int for creation_id in forgotten):
        raise FrameError("a creation id that is none")
    return [parse_stop(row) for row in rows], forgotten
