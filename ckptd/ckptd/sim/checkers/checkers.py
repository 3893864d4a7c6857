"""The checkers: they look at the history from outside for what no correct service could have done.

Each returns the contradictions that it found, as text. Apart from the calls they know only when an
asynchronous checkpoint lost its active replica.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import Final

from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.checkers.linearizability import HistoryVerdict, check_order
from ckptd.sim.checkers.model import ELSEWHERE, State, initial_state, state_after

EXPIRING_ID: Final = b"x"
"""How the ids of expiring sections begin."""


@dataclass(slots=True)
class Subject:
    """One checkpoint as the checkers see it: its flags, the modelled ids, when it may have lost its tail."""

    name: bytes
    creation_id: int
    flags: int
    section_ids: tuple[bytes, ...]
    single: bool = False
    losses_ns: list[int] = field(default_factory=list)
    fork_ns: int | None = None
    """When a node continued without proof, from before an earlier loss of this checkpoint."""

    left_behind_ns: tuple[int, ...] = ()
    """When the node that did so was left behind, as far as it may have been the active one till then."""

    fragments: bool = False
    """True for a weak checkpoint whose batches are so small that they travel in fragments. Some of these
    may be lost."""


@dataclass(slots=True)
class Findings:
    """The results of all checkers together."""

    wrong: list[str] = field(default_factory=list)
    histories: int = 0
    undecided: int = 0
    calls: int = 0


def check_all(subject: Subject, calls: Sequence[Call]) -> Findings:
    """Run every checker that applies to this kind of checkpoint."""
    findings = Findings(calls=len(calls))
    modelled = [_modelled(call, subject.section_ids) for call in calls]
    relevant = [call for call in modelled if call is not None]
    start = initial_state(subject.single)
    sync = bool(subject.flags & SA_CKPT_WR_ALL_REPLICAS)
    if subject.fork_ns is not None:
        relevant = (
            [*relevant, *_staged_on_both_sides(relevant, subject.left_behind_ns, subject.fork_ns)]
            if sync
            else _before(relevant, subject.fork_ns)
        )
    if sync:
        _add(findings, subject, "linearizability", check_order(relevant, start, subject.losses_ns))
    elif subject.flags & SA_CKPT_WR_ACTIVE_REPLICA_WEAK:
        for section_id in subject.section_ids:
            part = [p for p in (project(call, section_id) for call in relevant) if p is not None]
            verdict = check_order(part, start, subject.losses_ns, subject.fragments)
            _add(findings, subject, f"sequence of section {section_id!r}", verdict)
    else:
        _add(
            findings,
            subject,
            "sequence, losses only at its end",
            check_order(relevant, start, subject.losses_ns),
        )
    return findings


def _before(calls: Sequence[Call], fork_ns: int) -> list[Call]:
    """Return what was done before a fork. After it, what a loss took away may come back (seed 21530)."""
    return [
        call if 0 <= call.returned_ns < fork_ns else replace(call, outcome=Outcome.PENDING, returned_ns=-1)
        for call in calls
        if call.invoked_ns < fork_ns
    ]


def _staged_on_both_sides(calls: Sequence[Call], left_behind_ns: Sequence[int], fork_ns: int) -> list[Call]:
    """Return the updates that were under way when a node was left behind, as calls that begin at the fork.

    That node may have staged them as the last active replica. Their callers got their answers from the other
    side, which did them later in its order. When the node continues without proof, it finishes what it has
    staged, and what the other side did in between is lost (seed 7267470).
    """
    return [
        replace(call, invoked_ns=fork_ns, returned_ns=-1, outcome=Outcome.PENDING, index=-1, result=None)
        for call in calls
        if call.operation == Operation.UPDATE
        and any(call.invoked_ns < ns and not 0 <= call.returned_ns < ns for ns in left_behind_ns)
    ]


def without_outranked(calls: Sequence[Call], outranked: Sequence[tuple[int, int]]) -> list[Call]:
    """Return the calls whose answers count.

    `outranked`: when nodes continued without proof, and with which epoch.

    The side that was declared dead may still have answered after that, with a lower epoch. All of that may be
    lost: its updates may or may not be done, and its reads prove nothing.
    """
    return [
        replace(call, outcome=Outcome.PENDING, returned_ns=-1, result=None)
        if any(0 < call.epoch < epoch and call.returned_ns >= since_ns for since_ns, epoch in outranked)
        else call
        for call in calls
    ]


def _add(findings: Findings, subject: Subject, rule: str, verdict: HistoryVerdict) -> None:
    if verdict.wrong is not None:
        findings.wrong.append(
            f"{rule} of {subject.name.decode()} ({subject.creation_id:x}): {verdict.wrong.describe()}"
        )
    findings.histories += 1
    findings.undecided += verdict.undecided


def _modelled(call: Call, section_ids: Sequence[bytes]) -> Call | None:
    """Return the call if it names modelled ids only. All other ids are generated, or expire."""
    if call.operation == Operation.ITERATE:
        if call.outcome != Outcome.OK:
            return None
        return replace(call, result={key: value for key, value in call.result.items() if key in section_ids})
    ids = [element[1] if call.operation == Operation.UPDATE else element for element in call.arguments]
    return call if all(section_id in section_ids for section_id in ids) else None


def project(call: Call, section_id: bytes) -> Call | None:
    """Return what a call says about one section alone; None if it says nothing."""
    if call.operation == Operation.ITERATE:
        shown = {key: value for key, value in call.result.items() if key == section_id}
        return replace(call, result=shown)
    if call.operation == Operation.READ:
        if section_id not in call.arguments or (call.outcome == Outcome.REFUSED and len(call.arguments) > 1):
            return None
        if call.outcome != Outcome.OK:
            return replace(call, arguments=[section_id])
        return replace(call, arguments=[section_id], result=[call.result[call.arguments.index(section_id)]])
    ops = [op for op in call.arguments if op[1] == section_id]
    if not ops:
        return None
    if call.outcome == Outcome.REFUSED and len(call.arguments) > 1:
        return replace(call, arguments=ops, index=ELSEWHERE)
    return replace(call, arguments=ops)


def _shown_and_lost(update: Call, reader: Call, losses_ns: Sequence[int]) -> bool:
    """Return True if a reader may have seen, before a loss, an update that then ended with TRY_AGAIN."""
    return any(update.invoked_ns < ns < update.returned_ns and reader.invoked_ns <= ns for ns in losses_ns)


def check_generated(calls: Sequence[Call], losses_ns: Sequence[int] = ()) -> list[str]:
    """Check that each CREATE with a generated id was done once, under the id in its answer."""
    wrong: list[str] = []
    made = {
        call.arguments[0][3]: call
        for call in calls
        if call.operation == Operation.UPDATE and call.arguments[0][:2] == [1, b""]
    }
    for call in calls:
        if call.operation != Operation.ITERATE or call.outcome != Outcome.OK:
            continue
        by_value: dict[bytes, bytes] = {}
        for section_id, value in call.result.items():
            if value not in made:
                continue
            if value in by_value:
                wrong.append(
                    f"created twice, {by_value[value]!r} and {section_id!r}: {made[value].describe()}"
                )
            by_value[value] = section_id
        for value, create in made.items():
            if create.outcome == Outcome.OK and create.returned_ns < call.invoked_ns and not losses_ns:
                if by_value.get(value) != create.result[0]:
                    wrong.append(
                        f"not there under the id that was returned: {create.describe()}; {call.describe()}"
                    )
            elif (
                create.outcome == Outcome.NOT_DONE
                and value in by_value
                and not _shown_and_lost(create, call, losses_ns)
            ):
                wrong.append(f"carried out, although TRY_AGAIN promised that it was not: {create.describe()}")
    return wrong


def check_not_done(calls: Sequence[Call], losses_ns: Sequence[int] = ()) -> list[str]:
    """Check that a call that ended with TRY_AGAIN was not done: no call reads what it would have written."""
    refused: dict[bytes, Call] = {}
    for call in calls:
        if call.operation == Operation.UPDATE and call.outcome == Outcome.NOT_DONE:
            for op in call.arguments:
                if op[0] in (1, 3, 6):
                    refused[op[3] if op[0] == 1 else op[2]] = call
    wrong: list[str] = []
    for call in calls:
        if call.outcome == Outcome.OK and call.result and call.operation != Operation.UPDATE:
            values = call.result.values() if type(call.result) is dict else call.result
            wrong.extend(
                "read, although the answer promised that it was not carried out: "
                f"{refused[value].describe()}; {call.describe()}"
                for value in values
                if value in refused and not _shown_and_lost(refused[value], call, losses_ns)
            )
    return wrong


def check_expirations(calls: Sequence[Call], wall_ns: Callable[[int], int], tolerance_ns: int) -> list[str]:
    """Check that an expiring section stays as it was last written until its time comes.

    This holds only if nothing was lost. Only one client writes each such section. An iteration that overlaps
    one of its writes, or follows one with an unknown outcome, proves nothing. `wall_ns` converts world time
    to wall-clock time.
    """
    wrong: list[str] = []
    writes: dict[bytes, list[Call]] = {}
    for call in calls:
        if call.operation == Operation.UPDATE and call.arguments[0][1].startswith(EXPIRING_ID):
            writes.setdefault(call.arguments[0][1], []).append(call)
    for call in calls:
        if call.operation != Operation.ITERATE or call.outcome != Outcome.OK:
            continue
        for section_id, own_writes in writes.items():
            before = [write for write in own_writes if write.invoked_ns <= call.returned_ns]
            certain = all(
                write.outcome == Outcome.OK and write.returned_ns < call.invoked_ns for write in before
            )
            if (
                not before
                or not certain
                or (len(before) > 1 and before[-2].returned_ns > before[-1].invoked_ns)
            ):
                continue
            content, until_ns = before[-1].arguments[0][2:4]
            found = call.result.get(section_id)
            if found is None and wall_ns(call.returned_ns) + tolerance_ns < until_ns:
                wrong.append(f"expired too early: {before[-1].describe()}; {call.describe()}")
            elif found is not None and found != content:
                wrong.append(f"different from what was written: {before[-1].describe()}; {call.describe()}")
    return wrong


def check_order_by_brute_force(calls: Sequence[Call], start: State) -> bool:
    """Try every order of all calls: a second, naive checker for small histories without losses."""
    certain = [call for call in calls if call.outcome in (Outcome.OK, Outcome.REFUSED)]
    uncertain = [call for call in calls if call.outcome in (Outcome.PENDING, Outcome.UNKNOWN)]
    for bits in range(2 ** len(uncertain)):
        chosen = certain + [call for position, call in enumerate(uncertain) if bits >> position & 1]
        if any(_fits(order, start) for order in permutations(chosen)):
            return True
    return False


def _fits(order: Sequence[Call], start: State) -> bool:
    for position, call in enumerate(order):
        if any(0 <= later.returned_ns < call.invoked_ns for later in order[position + 1 :] if _ended(later)):
            return False
    state = start
    for call in order:
        after = state_after(call, state)
        if after is None:
            return False
        state = after
    return True


def _ended(call: Call) -> bool:
    return call.outcome in (Outcome.OK, Outcome.REFUSED)
