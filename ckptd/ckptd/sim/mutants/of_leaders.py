"""Mutants of the rules about leadership, and about refusals that are final."""

from collections.abc import Callable
from typing import Any, Final

from ckpt_protocol.messages import Op, answer_conflict
from ckpt_protocol.parse_requests import parse_unlink
from ckpt_protocol.parse_updates import Ops, check_conditions
from ckptd.core.content.conditions import find_conflict
from ckptd.core.content.leadership import NOBODY
from ckptd.core.context import Context
from ckptd.core.directory import validation
from ckptd.core.replication import leader_election
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.replication.leader_election import ALONE, LeaderElection
from ckptd.core.replication.ordering import Ordering
from ckptd.core.replication.resync import ResyncSender
from ckptd.sim.mutants.mutant import MutantTable, Patch

TABLE: Final = MutantTable()

# -- who writes


@TABLE.mutant(
    "token not compared", "an update with a token is done only if the token is the leader's", "leaders"
)
def _(patch: Patch) -> None:
    patch(LeaderElection, "_admit_token", lambda election, request, ops: Ops(ops[:-1]))


@TABLE.mutant("others write as well", "while a program leads, no other writes", "leaders")
def _(patch: Patch) -> None:
    original = LeaderElection.judge

    def judge(election: Any, request: Any, ops: Any) -> Any:
        return original(election, request, ops) if ops[-1][0] in ALONE or ops[-1][0] == Op.TOKEN else ops

    patch(LeaderElection, "judge", judge)


@TABLE.mutant("others unlink", "while a program leads, no other unlinks", "leaders")
def _(patch: Patch) -> None:
    original = validation._unlink

    def unlink(directory: Any, request: Any) -> Any:
        entry = directory.find(parse_unlink(request.body)[0])
        leader = entry.leader if entry is not None else None
        if entry is not None:
            entry.leader = None
        try:
            return original(directory, request)
        finally:
            if entry is not None:
                entry.leader = leader

    patch(validation, "_unlink", unlink)


# -- refusals


@TABLE.mutant(
    "refusals forgotten", "a refusal for another leader is stored, like an update", "refusals repeated"
)
def _(patch: Patch) -> None:
    def store_refusal(election: Any, request: Any, refusal: bytes) -> None:
        election.answer(request, refusal)

    patch(Ordering, "store_refusal", store_refusal)


@TABLE.mutant(
    "conflict of one replica",
    "a conflict is reported once every in-sync replica has stored it",
    "refusals repeated",
)
def _(patch: Patch) -> None:
    def refuse_conflict(active: Any, request: Any, ops: Any) -> bool:
        conflict = find_conflict(active.replica, Ops(ops[: check_conditions(ops)]))
        if conflict is None:
            return False
        refusal = answer_conflict(*conflict)
        active.order(Ops([]), request, refusal, answers=False)
        active.answer(request, refusal)
        return True

    patch(ActiveReplica, "_refuse_conflict", refuse_conflict)


# -- who leads


@TABLE.mutant("last come first served", "programs lead in the order in which they came", "leaders")
def _(patch: Patch) -> None:
    original = LeaderElection._enqueue
    change = LeaderElection._change_leadership

    def change_leadership(election: Any, leadership: Any, *rest: Any, **more: Any) -> Any:
        waiting = (*leadership.waiting[-1:], *leadership.waiting[:-1])
        return change(election, leadership._replace(waiting=waiting), *rest, **more)

    def enqueue(election: Any, request: Any, op: Any) -> None:
        inner = Patch()
        inner(LeaderElection, "_change_leadership", change_leadership)
        try:
            original(election, request, op)
        finally:
            inner.restore()

    patch(LeaderElection, "_enqueue", enqueue)


@TABLE.mutant("leadership left behind", "a replica that joins gets the leadership", "leaders")
def _(patch: Patch) -> None:
    original = ResyncSender._send_chunk

    def send_chunk(sender: Any, *rest: Any) -> Any:
        sections = sender.replica.sections
        leadership = sections.leadership
        sections.leadership = NOBODY
        try:
            return original(sender, *rest)
        finally:
            sections.leadership = leadership

    patch(ResyncSender, "_send_chunk", send_chunk)


@TABLE.mutant(
    "granted before committed", "a grant is answered once every in-sync replica has it", "leaders lost"
)
def _(patch: Patch) -> None:
    def answer_after_commit(election: Any, request: Any, body: bytes, seq: int | None = None) -> None:
        election.answer(request, body)

    patch(Ordering, "answer_after_commit", answer_after_commit)


# -- how long


@TABLE.mutant(
    "ttl of the service", "the service waits longer than the ttl of a leader's own clock", "leaders"
)
def _(patch: Patch) -> None:
    original = LeaderElection.ends_ns

    def ends_ns(election: Any) -> int | None:
        leader = election.leadership.leader
        ends_ns: int | None = original.fget(election)  # type: ignore[attr-defined]
        return None if ends_ns is None else ends_ns - leader.program.ttl_ns // 8

    patch(LeaderElection, "ends_ns", property(ends_ns))


@TABLE.mutant("ttl goes on", "the ttl begins again when a node can hear the leader again", "leaders")
def _(patch: Patch) -> None:
    original = ActiveReplica.begin_serving

    def begin_serving(active: Any) -> None:
        _begin_serving(original, active, active.heard_ns)

    patch(Context, "note_serving", lambda context: None)
    patch(ActiveReplica, "begin_serving", begin_serving)


@TABLE.mutant(
    "grace ends leaderships",
    "the end of a session's grace ends no leadership before its ttl",
    "leaders frozen",
)
def _(patch: Patch) -> None:
    patch(leader_election, "_may_live", lambda entry, leader: False)


@TABLE.mutant("ttl since the grant", "the ttl begins again at a new active replica", "leaders")
def _(patch: Patch) -> None:
    original = ActiveReplica.begin_serving

    def begin_serving(active: Any) -> None:
        leader, context = active.leadership.leader, active.context
        heard_ns = active.heard_ns
        if leader is not None:
            heard_ns = leader.since_ns - context.wall_offset_ns - context.unserved_ns
        _begin_serving(original, active, heard_ns)

    patch(ActiveReplica, "begin_serving", begin_serving)


def _begin_serving(original: Callable[[Any], None], active: Any, heard_ns: int) -> None:
    """Begin to serve as if the leader had last been heard at that time."""
    inner = Patch()
    inner(LeaderElection, "succeed", lambda election: None)
    original(active)
    inner.restore()
    active.heard_ns = heard_ns
    if not active.leadership_settled:
        active.succeed()


# Not here: "a token has the epoch". A grant is committed on every in-sync replica before it is answered. So
# no seq of a token that a client knows is used again in one checkpoint.
