"""Parses and checks views, votes and the frames of a view change. Raises FrameError for any mistake."""

from typing import Any, Final, NamedTuple

from ckpt_protocol.body_codec import bounded_array
from ckpt_protocol.bounds_by_kind import BOUNDS, DIRECTORY_BOUNDS
from ckpt_protocol.errors import FrameError, parser
from ckpt_protocol.field_checks import array, boolean, node_id, octets, row, text, whole
from ckpt_protocol.framing import Frame
from ckpt_protocol.limits import EPOCH_MAX, NODE_ID_BYTES_MAX, NODES_MAX, PEER_FRAME_BYTES_MAX, SEQ_MAX
from ckpt_protocol.messages import Kind
from ckptd.core.view import PAST_MEMBERSHIPS_MAX, Member, PastMembership, View

ROUND_MAX: Final = 2**62
"""The highest round of a ballot. A round grows by one at a time, so there is room above for what follows."""

EARLIER_EPOCH_MAX: Final = 2**62
"""What a lost disk reports for earlier incarnations (`disk_record.ANY_EPOCH`)."""

_PAST_MEMBERSHIPS_MAX: Final = NODES_MAX * (PAST_MEMBERSHIPS_MAX + 1)

Ballot = tuple[int, str]


def epoch_of(value: object) -> int:
    """Check an epoch."""
    return whole(value, "an epoch", EPOCH_MAX)


@parser
def parse_view(value: object) -> View:
    """Parse a view, as `View.fields` sends it, with at least one member."""
    fields = row(value, "a view", 4)
    epoch, members, past_memberships, bootstrap_epoch = fields[:4]
    witnesses, operator_forced = fields[4:6] if len(fields) > 5 else ([], False)
    unserved_epochs = fields[6] if len(fields) > 6 else []
    feature_level = fields[7] if len(fields) > 7 else 0
    members_by_id = sorted(_member(member) for member in array(members, "members", NODES_MAX))
    if not members_by_id or len(dict(members_by_id)) < len(members_by_id):
        raise FrameError("a view has no members, or one of them twice")
    return View(
        epoch_of(epoch),
        {named: Member(incarnation, join_epoch) for named, (incarnation, join_epoch) in members_by_id},
        tuple(
            _past_membership(past) for past in array(past_memberships, "departures", _PAST_MEMBERSHIPS_MAX)
        ),
        epoch_of(bootstrap_epoch),
        dict(sorted(parse_incarnation(witness) for witness in array(witnesses, "witnesses", NODES_MAX))),
        boolean(operator_forced, "the operator-forced flag of a view"),
        tuple(epoch_of(past) for past in array(unserved_epochs, "the unserved epochs", PAST_MEMBERSHIPS_MAX)),
        whole(feature_level, "a feature level"),
    )


def _member(value: object) -> tuple[str, tuple[int, int]]:
    member = row(value, "a member", 3)
    return node_id(member[0], "a member"), (whole(member[1], "an incarnation"), epoch_of(member[2]))


def _past_membership(value: object) -> PastMembership:
    left = row(value, "a past membership", 4)
    who = node_id(left[0], "the node of a past membership")
    return PastMembership(who, whole(left[1], "an incarnation"), epoch_of(left[2]), epoch_of(left[3]))


def parse_incarnation(value: object) -> tuple[str, int]:
    """Parse a node's id and incarnation."""
    start = row(value, "an incarnation of a node", 2)
    return node_id(start[0], "a node's id"), whole(start[1], "an incarnation")


def parse_ballot(value: object) -> Ballot:
    """Parse a ballot: the round and the proposer ("" if there is none)."""
    ballot = row(value, "a ballot", 2)
    return whole(ballot[0], "a round", ROUND_MAX), text(ballot[1], "a proposer", NODE_ID_BYTES_MAX)


class Vote(NamedTuple):
    """PREPARE, PROMISE, ACCEPT or ACCEPTED; a field that a kind does not have is None."""

    ballot: Ballot
    promised: Ballot | None
    accepted: Ballot | None
    view: View | None
    is_over: bool = False
    """Of PROMISE: the view was forced, and nobody can serve in it any more."""


@parser
def parse_vote(frame: Frame) -> Vote:
    """Parse a frame of one of the four kinds of votes."""
    least = {Kind.PREPARE: 1, Kind.ACCEPT: 2, Kind.PROMISE: 4, Kind.ACCEPTED: 2}[frame.kind]
    fields = bounded_array(frame.body, BOUNDS[frame.kind], least)
    ballot = (
        whole(frame.a, "a round", ROUND_MAX),
        text(fields[0], "a proposer", NODE_ID_BYTES_MAX),
    )
    match frame.kind:
        case Kind.ACCEPT:
            return Vote(ballot, None, None, parse_view(fields[1]))
        case Kind.PROMISE:
            view = parse_view(fields[3]) if fields[3] is not None else None
            is_over = len(fields) > 4 and boolean(fields[4], "whether an accepted view is over")
            return Vote(ballot, parse_ballot(fields[1]), parse_ballot(fields[2]), view, is_over)
        case Kind.ACCEPTED:
            return Vote(ballot, parse_ballot(fields[1]), None, None)
        case _:
            return Vote(ballot, None, None, None)


@parser
def parse_decided(body: bytes) -> View:
    """Parse DECIDED."""
    return parse_view(bounded_array(body, BOUNDS[Kind.DECIDED], 1)[0])


@parser
def parse_collect(frame: Frame) -> tuple[View, int, int]:
    """Parse COLLECT: the view, and how far the coordinator's directory is.

    That is the epoch that the directory is installed in, and its seq.
    """
    view, installed_epoch = bounded_array(frame.body, BOUNDS[Kind.COLLECT], 2)[:2]
    return parse_view(view), epoch_of(installed_epoch), whole(frame.c, "a seq", SEQ_MAX)


class CollectedFields(NamedTuple):
    """The fields of COLLECTED."""

    installed_epoch: int
    committed_seq: int
    staged: bytes | None
    directory: int | list[Any] | None
    """None, the number of pieces that it was sent in, or its fields (not checked)."""
    installed_by_earlier_incarnations: int


@parser
def parse_collected(body: bytes) -> CollectedFields:
    """Parse COLLECTED."""
    epoch, seq, staged, directory, before = bounded_array(body, BOUNDS[Kind.COLLECTED], 5)[:5]
    return CollectedFields(
        epoch_of(epoch),
        whole(seq, "a seq", SEQ_MAX),
        None if staged is None else octets(staged, "an operation", PEER_FRAME_BYTES_MAX),
        directory if directory is None or type(directory) is list else whole(directory, "pieces", 2**32),
        whole(before, "an epoch", EARLIER_EPOCH_MAX),
    )


class Install(NamedTuple):
    """The fields of INSTALL."""

    view: View
    base_epoch: int
    directory: int | list[Any] | None
    """None, the number of pieces that it was sent in, or its fields (not checked)."""
    continuous_members: list[str]
    may_have_served: bool
    seq: int


@parser
def parse_install(frame: Frame) -> Install:
    """Parse INSTALL, and unpack the directory in it."""
    view, base_epoch, directory, continuous_members, served = bounded_array(
        frame.body, BOUNDS[Kind.INSTALL], 5
    )[:5]
    fields: int | list[Any] | None = None
    if type(directory) is bytes:
        fields = bounded_array(directory, DIRECTORY_BOUNDS, 5)
    elif directory is not None:
        fields = whole(directory, "pieces", 2**32)
    return Install(
        parse_view(view),
        epoch_of(base_epoch),
        fields,
        [
            node_id(stayer, "a continuous member")
            for stayer in array(continuous_members, "the continuous members", NODES_MAX)
        ],
        boolean(served, "the may-have-served flag of an INSTALL"),
        whole(frame.c, "a seq", SEQ_MAX),
    )
