"""Who leads a checkpoint, who waits to lead it, and who led it: a part of its content (ADR 32).

It changes as a whole, by an update of its own, so that every replica has the same at the same place in the
sequence of updates. The active replica decides what changes, and when (`replication.leader_election`).
"""

from typing import Any, Final, NamedTuple

from ckpt_protocol.body_codec import bounded_array, pack_body
from ckpt_protocol.bounds_by_kind import LEADERSHIP_BOUNDS
from ckpt_protocol.errors import parser
from ckpt_protocol.field_checks import U64_MAX, array, boolean, row, text, whole
from ckpt_protocol.limits import (
    ENDED_LEADERSHIPS_MAX,
    LEADER_HOST_BYTES_MAX,
    LEADER_NAME_BYTES_MAX,
    LEADER_TTL_NS_MAX,
    PID_MAX,
    SIZE_MAX,
    WAITING_TO_LEAD_MAX,
)
from ckptd.core.content.versions import SEQ_BITS

_FIELDS_OF_CANDIDATE: Final = 8
_FIELDS_OF_LEADER: Final = 4
_FIELDS_OF_ENDED: Final = 8


class Candidate(NamedTuple):
    """A program that leads or wants to: the open handle that it does so with, and what it says of itself.

    An update of the leader proves with `secret` that it is the leader's, whatever session it comes from.
    """

    session: int
    handle: int
    secret: int
    ttl_ns: int
    exclusive: bool
    name: str
    host: str
    pid: int

    @property
    def key(self) -> tuple[int, int]:
        """Its session and handle, as the directory lists the open handles of a checkpoint."""
        return self.session, self.handle

    @property
    def shown(self) -> str:
        """The program, for a text to people."""
        return f"{self.name!r} (process {self.pid} on {self.host!r})"


class Leader(NamedTuple):
    """The program that leads. With the creation id, epoch and seq of the grant are the fencing token."""

    epoch: int
    seq: int
    since_ns: int
    data_may_be_lost: bool
    """An asynchronous checkpoint may have lost updates since the leader before this one was granted."""
    program: Candidate


class Ended(NamedTuple):
    """A leadership that has ended. Times are ns since 1970; `reason` is one of `messages.EndReason`."""

    epoch: int
    seq: int
    since_ns: int
    ended_ns: int
    reason: int
    name: str
    host: str
    pid: int


class Leadership(NamedTuple):
    """Who leads, who waits and who led."""

    version: int = 0
    """`version_at` of the update that made it; 0: nothing was ever led."""
    leader: Leader | None = None
    waiting: tuple[Candidate, ...] = ()
    """In the order in which they came."""
    ended: tuple[Ended, ...] = ()
    """The last `ENDED_LEADERSHIPS_MAX`, oldest first."""
    lineage: int = 0
    """The lineage of the active replica that a leader knew last (see `Activation.lineage`)."""

    @property
    def fenced(self) -> bool:
        """Return True if no other than the leader may write."""
        return self.leader is not None and self.leader.program.exclusive

    def position_of(self, key: tuple[int, int]) -> int | None:
        """Return 0 for the leader's handle, from 1 on the place of one that waits, None for any other."""
        if self.leader is not None and self.leader.program.key == key:
            return 0
        for place, candidate in enumerate(self.waiting, 1):
            if candidate.key == key:
                return place
        return None

    def program_of(self, key: tuple[int, int]) -> Candidate | None:
        """Return the program that leads, or waits to, with this handle."""
        if self.leader is not None and self.leader.program.key == key:
            return self.leader.program
        return next((candidate for candidate in self.waiting if candidate.key == key), None)

    def others_waiting(self, key: tuple[int, int]) -> tuple[Candidate, ...]:
        """Return those that wait with other handles than this one."""
        return tuple(candidate for candidate in self.waiting if candidate.key != key)

    def end(self, reason: int, now_ns: int) -> "Leadership":
        """Return this without its leader, who is remembered as one that led."""
        leader = self.leader
        assert leader is not None
        name, host, pid = leader.program[-3:]
        ended = Ended(leader.epoch, leader.seq, leader.since_ns, now_ns, reason, name, host, pid)
        return self._replace(leader=None, ended=(*self.ended, ended)[-ENDED_LEADERSHIPS_MAX:])

    def pack(self) -> bytes:
        """Return this as `parse_leadership` takes it."""
        leader = self.leader
        return pack_body(
            [
                self.version,
                None if leader is None else [*leader[:_FIELDS_OF_LEADER], list(leader.program)],
                [list(candidate) for candidate in self.waiting],
                [list(ended) for ended in self.ended],
                self.lineage,
            ]
        )


NOBODY: Final = Leadership()
"""Nobody leads, and nobody ever did."""


def version_at(epoch: int, seq: int) -> int:
    """Return the version of the leadership that the update with this epoch and seq makes."""
    return (epoch << SEQ_BITS) + seq


def seq_of(version: int) -> int:
    """Return the seq of the update that made a leadership of this version."""
    return version & ((1 << SEQ_BITS) - 1)


@parser
def parse_leadership(body: bytes) -> Leadership:
    """Parse what `Leadership.pack` makes. Raises: FrameError."""
    version, leader, waiting, ended, lineage = bounded_array(body, LEADERSHIP_BOUNDS, 5)[:5]
    return Leadership(
        whole(version, "a version", U64_MAX),
        None if leader is None else _leader(leader),
        tuple(_candidate(fields) for fields in array(waiting, "who waits", WAITING_TO_LEAD_MAX)),
        tuple(_ended(fields) for fields in array(ended, "who led", ENDED_LEADERSHIPS_MAX)),
        whole(lineage, "a lineage", U64_MAX, -SIZE_MAX),
    )


def _leader(value: object) -> Leader:
    epoch, seq, since_ns, data_may_be_lost, program = row(value, "a leader", 5)[:5]
    return Leader(
        whole(epoch, "an epoch", U64_MAX),
        whole(seq, "a seq", U64_MAX),
        whole(since_ns, "a time"),
        boolean(data_may_be_lost, "whether data may be lost"),
        _candidate(program),
    )


def _candidate(value: object) -> Candidate:
    fields = row(value, "a candidate", _FIELDS_OF_CANDIDATE)[:_FIELDS_OF_CANDIDATE]
    session, handle, secret, ttl_ns, exclusive, *program = fields
    return Candidate(
        whole(session, "a session", U64_MAX),
        whole(handle, "a handle", U64_MAX),
        whole(secret, "a secret", U64_MAX),
        whole(ttl_ns, "a ttl", LEADER_TTL_NS_MAX),
        boolean(exclusive, "whether a leadership is exclusive"),
        *_program(program),
    )


def _ended(value: object) -> Ended:
    fields: list[Any] = row(value, "a leadership that has ended", _FIELDS_OF_ENDED)[:_FIELDS_OF_ENDED]
    epoch, seq, since_ns, ended_ns, reason, *program = fields
    return Ended(
        whole(epoch, "an epoch", U64_MAX),
        whole(seq, "a seq", U64_MAX),
        whole(since_ns, "a time"),
        whole(ended_ns, "a time"),
        whole(reason, "a reason"),
        *_program(program),
    )


def _program(fields: list[Any]) -> tuple[str, str, int]:
    name, host, pid = fields
    return (
        text(name, "a program's name", LEADER_NAME_BYTES_MAX),
        text(host, "a program's host", LEADER_HOST_BYTES_MAX),
        whole(pid, "a process id", PID_MAX),
    )
