"""Leaderships as their clients know them: which one wants to lead, which one leads, and until when.

This is a check from outside, of requests and answers with their times. A term is one client's way from LEAD
to the end of its leadership.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.checkers.open_close import DirectoryCall

Token = tuple[int, int]
"""The epoch and seq of a grant. With the creation id in front it is the fencing token."""

NEVER_NS: Final = 2**62


@dataclass(slots=True, eq=False)
class Term:
    """One client that wants to lead one checkpoint. All times are world times."""

    client: str
    program: str
    """The name under which it wants to lead; no other term has it."""

    checkpoint: bytes
    creation_id: int
    secret: int
    ttl_ns: int
    exclusive: bool
    survives_failover: bool
    """True if its ttl is long enough for a fail-over."""

    asked_ns: int
    queued_ns: int = NEVER_NS
    """When the answer came that it waits."""

    left_ns: int = NEVER_NS
    """Since when it may be gone, since it or its client's end caused that."""

    called_ns: int = NEVER_NS
    """When another leader first named it as its successor."""

    revoked_ns: int = NEVER_NS
    """When an operator first asked to end it."""

    token: Token | None = None
    granted_ns: int = NEVER_NS
    """When its client learned that it leads."""

    confirmed_ns: int = 0
    """When it sent the last request whose answer shows that it leads."""

    valid_until_ns: int = 0
    """Until when its client believes that it leads, by the client's own clock."""

    frozen_until_ns: int = -NEVER_NS
    """Until when its client was frozen, or will be, the last time."""

    @property
    def ends_by_itself_ns(self) -> int:
        """Since when it may end without a failure of the service or of its client."""
        return min(self.left_ns, self.revoked_ns)


@dataclass(slots=True)
class SeenLeader:
    """An answer to LEADER or LEADER_TRACK: who led, at some time between the two."""

    creation_id: int
    token: Token | None
    program: str
    invoked_ns: int
    returned_ns: int


@dataclass(slots=True)
class LeadershipHistory:
    """What clients know of the leaderships of all checkpoints."""

    terms: list[Term] = field(default_factory=list)
    by_secret: dict[int, Term] = field(default_factory=dict)
    seen: list[SeenLeader] = field(default_factory=list)
    sent: dict[tuple[int, int], Token | None] = field(default_factory=dict)
    """The updates of all clients by session and number, with their tokens."""

    first_reads: list[tuple[Term, Call]] = field(default_factory=list)
    """What new leaders read first."""

    granted: dict[int, dict[Token, tuple[str, int]]] = field(default_factory=dict)
    """By checkpoint and token, as an active replica ordered them: program and time of each grant."""

    repeated: list[tuple[int, str]] = field(default_factory=list)
    """Updates that were refused for good and carried out later: their checkpoints, and what happened."""

    def begin(self, term: Term) -> None:
        """A client sends LEAD."""
        self.terms.append(term)
        self.by_secret[term.secret] = term


def check_leaderships(history: LeadershipHistory, calls: Sequence[Call], creation_id: int) -> list[str]:
    """Return what contradicts the promises of leadership, for a checkpoint of which nothing was lost."""
    terms = [term for term in history.terms if term.creation_id == creation_id]
    seen = [each for each in history.seen if each.creation_id == creation_id]
    return [
        *_tokens(seen),
        *_late_writes(terms, calls),
        *_out_of_turn(terms, history.granted.get(creation_id, {})),
    ]


def _tokens(seen: Sequence[SeenLeader]) -> Iterator[str]:
    """A token is one program's, and the tokens of a checkpoint grow."""
    owners: dict[Token, str] = {}
    newest: SeenLeader | None = None
    ends = sorted((each for each in seen if each.token is not None), key=lambda each: each.returned_ns)
    position = 0
    for each in sorted(ends, key=lambda each: each.invoked_ns):
        token = each.token
        assert token is not None
        if owners.setdefault(token, each.program) != each.program:
            yield f"{owners[token]!r} and {each.program!r} have one token, {token}"
        while position < len(ends) and ends[position].returned_ns < each.invoked_ns:
            if newest is None or ends[position].token > newest.token:  # type: ignore[operator]
                newest = ends[position]
            position += 1
        if newest is not None and newest.token > token:  # type: ignore[operator]
            yield (
                f"{each.program!r} leads with {token} at {each.returned_ns / 1e6:.3f} ms, after "
                f"{newest.program!r} has led with {newest.token}"
            )


def _late_writes(terms: Sequence[Term], calls: Sequence[Call]) -> Iterator[str]:
    """No update is acknowledged under an earlier token after a grant, nor any other than the leader's."""
    granted = [term for term in terms if term.token is not None]
    for call in calls:
        if call.operation != Operation.UPDATE or call.outcome != Outcome.OK:
            continue
        for term in granted:
            late = call.token is not None and call.token < term.token and call.invoked_ns > term.granted_ns  # type: ignore[operator]
            within = term.granted_ns < call.invoked_ns and call.returned_ns < term.confirmed_ns
            if late or (within and term.exclusive and call.token != term.token):
                yield (
                    f"acknowledged although {term.program!r} leads with {term.token}, from "
                    f"{term.granted_ns / 1e6:.3f} to {term.confirmed_ns / 1e6:.3f} ms: {call.describe()} "
                    f"with {call.token}"
                )


def check_unlinks(
    history: LeadershipHistory, opens: Sequence[DirectoryCall], unlinks: Sequence[DirectoryCall]
) -> list[str]:
    """Check that no other unlinks a name while a client leads its checkpoint exclusively.

    `opens` and `unlinks` are those of one name. Only where no other UNLINK interferes does a name certainly
    mean the checkpoint that is led.
    """
    opened_ns: dict[int, int] = {}
    for call in opens:
        if call.creation_id:
            opened_ns[call.creation_id] = min(
                opened_ns.get(call.creation_id, call.invoked_ns), call.invoked_ns
            )
    wrong: list[str] = []
    for unlink in unlinks:
        for term in history.terms if unlink.outcome == Outcome.OK else ():
            if term.creation_id not in opened_ns or not term.exclusive or term.secret == unlink.secret:
                continue
            within = term.granted_ns < unlink.invoked_ns and unlink.returned_ns < term.confirmed_ns
            if within and not any(
                other is not unlink
                and other.may_be_done
                and other.invoked_ns < unlink.returned_ns
                and not 0 <= other.returned_ns < opened_ns[term.creation_id]
                for other in unlinks
            ):
                wrong.append(
                    f"{unlink.name!r} was unlinked from {unlink.invoked_ns / 1e6:.3f} to "
                    f"{unlink.returned_ns / 1e6:.3f} ms, while {term.program!r} led it"
                )
    return wrong


def _out_of_turn(terms: Sequence[Term], granted: Mapping[Token, tuple[str, int]]) -> Iterator[str]:
    """First come, first served, unless a leader named its successor."""
    times = dict(granted.values())
    for later in terms:
        granted_ns = times.get(later.program)
        if granted_ns is None or later.called_ns <= granted_ns:
            continue
        for term in terms:
            came_first = term.queued_ns < later.asked_ns and term.left_ns > granted_ns
            if came_first and times.get(term.program, NEVER_NS) > granted_ns:
                yield (
                    f"{later.program!r}, who asked at {later.asked_ns / 1e6:.3f} ms, leads before "
                    f"{term.program!r}, who waits since {term.queued_ns / 1e6:.3f} ms"
                )


def check_first_reads(
    first_reads: Sequence[tuple[Term, Call]], calls: Sequence[Call], section_ids: Sequence[bytes]
) -> list[str]:
    """Check that a new leader reads what was acknowledged before, or something newer (synchronous kinds)."""
    wrong: list[str] = []
    puts = [
        call
        for call in calls
        if call.operation == Operation.UPDATE
        and call.outcome == Outcome.OK
        and all(op[0] == Op.PUT for op in call.arguments)
    ]
    for term, read in first_reads:
        if read.outcome != Outcome.OK:
            continue
        for section_id in section_ids:
            shown = read.result.get(section_id)
            writer = next((call for call in puts if _value(call, section_id) == shown), None)
            if shown is None or writer is None:
                continue
            for put in puts:
                newer = writer.returned_ns < put.invoked_ns and put.returned_ns < read.invoked_ns
                if newer and _value(put, section_id) is not None:
                    wrong.append(
                        f"the new leader {term.program!r} reads {section_id!r} as of {writer.describe()}, "
                        f"but {put.describe()} was acknowledged before: {read.describe()}"
                    )
    return wrong


def _value(call: Call, section_id: bytes) -> bytes | None:
    operations: list[list[Any]] = list(call.arguments)
    return next((op[2] for op in operations[::-1] if op[1] == section_id), None)


def check_refusals(history: LeadershipHistory, is_lost: Callable[[int], bool]) -> list[str]:
    """Check that no update was carried out after its caller was told that it is refused for good."""
    return [text for creation_id, text in history.repeated if not is_lost(creation_id)]
