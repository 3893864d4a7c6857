"""The order of one writer's updates across the sections of a weak checkpoint (SAF 3.1.4; R59).

Updates are lost from the end only: a reader that sees an update also sees what the same client did before, or
that it is corrupted. Another checker checks the order of each section on its own.
"""

from bisect import bisect_left
from collections.abc import Sequence

from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome


def check_weak_order(calls: Sequence[Call], losses_ns: Sequence[int]) -> list[str]:
    """Find reads that show a client's update but another section as it was before an earlier update.

    Only acknowledged updates count, and no two updates with a loss between them: the earlier one may be lost,
    and the later one made on what was left.
    """
    losses = sorted(losses_ns)
    made: dict[bytes | None, Call] = {}
    by_client: dict[tuple[int, bytes], list[Call]] = {}
    for call in calls:
        if call.operation != Operation.UPDATE or call.outcome != Outcome.OK:
            continue
        for op in call.arguments:
            if op[0] in (Op.PUT, Op.OVERWRITE):
                made[op[2]] = call
                by_client.setdefault((call.client, op[1]), []).append(call)
    wrong: list[str] = []
    for call in calls:
        for section_id, value, other_id, other_value in _pairs(call):
            later, shown = made.get(value), made.get(other_value)
            if later is None or shown is None:
                continue
            for earlier in by_client.get((later.client, other_id), ()):
                before = earlier.returned_ns < later.invoked_ns and shown.returned_ns < earlier.invoked_ns
                if before and not _lost_between(losses, earlier.invoked_ns, later.returned_ns):
                    wrong.append(
                        f"{section_id!r} shows {later.describe()}, but {other_id!r} does not show "
                        f"{earlier.describe()}: {call.describe()}"
                    )
    return wrong


def _pairs(call: Call) -> list[tuple[bytes, bytes | None, bytes, bytes | None]]:
    """Return every pair of sections that one read showed, with their values."""
    if call.outcome != Outcome.OK or call.operation == Operation.UPDATE:
        return []
    if call.operation == Operation.ITERATE:
        shown = list(call.result.items())
    else:
        shown = list(zip(call.arguments, call.result, strict=True))
    return [(*one, *other) for one in shown for other in shown if one[0] != other[0]]


def _lost_between(losses: list[int], from_ns: int, to_ns: int) -> bool:
    position = bisect_left(losses, from_ns)
    return position < len(losses) and losses[position] <= to_ns
