"""Who leads a checkpoint, who waits to, and who led it, as programs see it. Pure."""

from typing import Any, NamedTuple

from ckpt_client.checkpoint.leadership_state import SECOND_NS, Token
from ckpt_client.checkpoint.operations import Operation, Operations
from ckpt_client.errors import SaAisError
from ckpt_client.requests.table_requests import raise_malformed
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.messages import EndReason, Kind
from ckpt_protocol.parse_answers import LeaderAnswer, parse_leader_answer


class Leader(NamedTuple):
    """The program that leads a checkpoint."""

    name: str
    host: str
    pid: int
    node: str
    """The node that its session is attached to; "" while it has none."""

    since: int
    """When its leadership began, in ns since 1970."""

    token: str
    """Its fencing token: text of a fixed width; that of a later leader compares greater."""

    ttl: float
    """Seconds."""

    exclusive: bool
    """True if no other may write."""

    death_seen: bool
    """True if the service knows at once when its process dies. Else the next one leads after the ttl."""


class WaitingProgram(NamedTuple):
    """A program that waits to lead."""

    name: str
    host: str
    pid: int
    node: str


class PastLeader(NamedTuple):
    """A leadership that has ended. Times are in ns since 1970."""

    name: str
    host: str
    pid: int
    since: int
    ended: int
    reason: str
    """"resigned", "closed" (its process died, perhaps), "not renewed" or "revoked"."""

    token: str


class LeadershipHistory(NamedTuple):
    """Who leads a checkpoint, who waits to, and who led it."""

    leader: Leader | None
    waiting: tuple[WaitingProgram, ...]
    """In the order in which they will lead."""

    ended: tuple[PastLeader, ...]
    """The last ten, the oldest first."""


_REASONS = {
    EndReason.RESIGNED: "resigned",
    EndReason.CLOSED: "closed",
    EndReason.NOT_RENEWED: "not renewed",
    EndReason.REVOKED: "revoked",
}


def leader_body(handle: int = 0, epoch: int = 0, seq: int = 0, whole: bool = False) -> bytes:
    """LEADER: who leads. With a leader's handle and token, renew its leadership."""
    return pack_body([handle, epoch, seq, whole])


def leader_track_body(handle: int, version: int) -> bytes:
    """LEADER_TRACK: who leads, once that is not `version` any more."""
    return pack_body([handle, version])


def answer_of(payload: Any) -> LeaderAnswer:
    """Return the answer to LEADER or LEADER_TRACK. Raises: SaAisError LIBRARY."""
    try:
        return parse_leader_answer(payload)
    except FrameError:
        raise_malformed("LEADER")


def leader_of(answer: LeaderAnswer, creation_id: int) -> Leader | None:
    """Return the leader in an answer."""
    leader = answer.leader
    if leader is None:
        return None
    token = Token(creation_id, leader.epoch, leader.seq).text
    name, host, pid, node, death_seen = leader.program
    ttl = leader.ttl_ns / SECOND_NS
    return Leader(name, host, pid, node, leader.since_ns, token, ttl, leader.exclusive, death_seen)


def ask_leader(operations: Operations[Any]) -> Operation[Leader | None]:
    """Return who leads the checkpoint; None if no program does."""
    return (yield from _ask(operations, whole=False)).leader


def ask_history(operations: Operations[Any]) -> Operation[LeadershipHistory]:
    """Return who leads the checkpoint, who waits to, and who led it."""
    return (yield from _ask(operations, whole=True))


def _ask(operations: Operations[Any], whole: bool) -> Operation[LeadershipHistory]:
    try:
        answer = answer_of((yield from operations.ask(Kind.LEADER, leader_body(whole=whole))))
    except SaAisError as error:
        raise operations.failure("look at", error) from None
    creation_id = operations.creation_id
    return LeadershipHistory(
        leader_of(answer, creation_id),
        tuple(WaitingProgram(*program[:4]) for program in answer.waiting),
        tuple(
            PastLeader(
                *past.program[:3],
                past.since_ns,
                past.ended_ns,
                _REASONS.get(past.reason, f"reason {past.reason}"),
                Token(creation_id, past.epoch, past.seq).text,
            )
            for past in answer.ended
        ),
    )
