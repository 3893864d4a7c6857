"""Find out if a history of calls can be explained by putting them in one order.

A call is put in the order as late as possible: only when it returns must it have taken effect, together with
the concurrent calls that have to come before it (Lowe, "Testing for linearizability", 2017, after Wing and
Gong). The search follows all explanations at once. A call that changes nothing is placed as soon as a state
fits it, since that excludes no other explanation.

If an asynchronous checkpoint lost its active replica, the state may fall back to any earlier point of the
order: what is lost is a suffix, and never a part of a call. A call that was under way at such a loss may have
been done before it, lost with it, and done again after it with another outcome: then it may be refused, or
end with TRY_AGAIN (seed 77414280). Until the loss, readers may see what it did. Its number is kept inverted
(`~number`) while its effect must still be lost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.checkers.model import CORRUPTED, State, observes, state_after

EXPLANATIONS_MAX: Final = 8_000
"""How many explanations are followed at once. With more, the history stays undecided."""

STEPS_MAX: Final = 150_000
"""How many steps a history may take in all before it stays undecided. Most take a few hundred."""


class SearchNode:
    """A state that an explanation went through, the call that ended it, and the node before.

    Equal nodes are one object, since explanations compare them by identity.
    """

    __slots__ = ("number", "parent", "state")

    def __init__(self, state: State, number: int, parent: "SearchNode | None") -> None:
        self.state = state
        self.number = number
        self.parent = parent


Explanation = tuple[State, frozenset[int], SearchNode | None]
"""The state, the calls under way that have taken effect, and the node to which a loss may lead back."""


@dataclass(slots=True, frozen=True)
class HistoryVerdict:
    """The verdict. `wrong` is the first call that no order explains."""

    wrong: Call | None = None
    undecided: bool = False
    """True if there was too much to follow."""

    @property
    def good(self) -> bool:
        """True if no contradiction was found."""
        return self.wrong is None


class _TooMany(Exception):
    pass


def check_order(
    calls: Sequence[Call], start: State, losses_ns: Sequence[int] = (), may_corrupt: bool = False
) -> HistoryVerdict:
    """Look for an order of `calls` from state `start`, in which the state may fall back at `losses_ns`."""
    relevant = [call for call in calls if call.outcome != Outcome.NOT_DONE or _last_loss(call, losses_ns)]
    # Calls with an unknown outcome multiply the explanations. Most histories can be explained without those
    # whose effect no client saw, so try that first.
    seen = _seen_values(relevant)
    likely = [call for call in relevant if _decided(call) or any(value in seen for value in _values(call))]
    try:
        if len(likely) < len(relevant) and _Search(likely, losses_ns, may_corrupt).run(start) is None:
            return HistoryVerdict()
        return HistoryVerdict(_Search(relevant, losses_ns, may_corrupt).run(start))
    except _TooMany:
        return HistoryVerdict(undecided=True)


def _decided(call: Call) -> bool:
    return call.outcome in (Outcome.OK, Outcome.REFUSED)


def _last_loss(call: Call, losses_ns: Sequence[int]) -> int:
    """Return the time of the last loss during an update that says it changed nothing; 0 if there was none."""
    if call.operation != Operation.UPDATE or call.outcome not in (Outcome.REFUSED, Outcome.NOT_DONE):
        return 0
    return max((ns for ns in losses_ns if call.invoked_ns < ns < call.returned_ns), default=0)


def _values(call: Call) -> Iterator[bytes]:
    for op in call.arguments:
        if type(op) is list and op[0] != Op.REQUIRE:
            yield op[3] if op[0] in (1, 4, 7) else op[2] if len(op) > 2 else b""


def _seen_values(calls: Sequence[Call]) -> frozenset[bytes]:
    """Return every written value that was read.

    A spliced value counts for all values whose bytes it contains, so compare parts.
    """
    read: list[bytes] = []
    for call in calls:
        if call.outcome == Outcome.OK and call.result is not None:
            values = call.result.values() if type(call.result) is dict else call.result
            read.extend(value for value in values if value is not CORRUPTED)
    text = b"\1".join(dict.fromkeys(read))
    return frozenset(value for call in calls for value in _values(call) if value and value in text)


class _Search:
    def __init__(self, calls: Sequence[Call], losses_ns: Sequence[int], may_corrupt: bool) -> None:
        self.calls = calls
        self.may_corrupt = may_corrupt
        self.may_fall_back = bool(losses_ns)
        points: list[tuple[int, int, int]] = []
        self.undone: dict[int, Call] = {}
        for number, call in enumerate(calls):
            points.append((call.invoked_ns, 0, number))
            last_loss_ns = _last_loss(call, losses_ns)
            if _decided(call) or last_loss_ns:
                points.append((call.returned_ns, 2, number))
            if last_loss_ns:
                points.append((last_loss_ns, 1, number))
                self.undone[number] = replace(call, outcome=Outcome.UNKNOWN, index=-1)
        points.extend((loss_ns, 1, -1) for loss_ns in losses_ns)
        self.points = sorted(points)  # (At one time, first the loss and then the calls that it may undo.)
        self.steps = 0
        self.under_way: dict[int, Call] = {}
        self.nodes: dict[tuple[State, int, SearchNode | None], SearchNode] = {}

    def run(self, start: State) -> Call | None:
        """Return the first call that nothing explains, or None."""
        now: list[Explanation] = [(start, frozenset(), None)]
        for _, what, number in self.points:
            if what == 0:
                self.under_way[number] = self.calls[number]
                now = list(dict.fromkeys(self._absorb(explanation) for explanation in now))
            elif what == 1 and number < 0:
                now = self._fall_back(now)
            elif what == 1:
                del self.undone[number]
                now = list(dict.fromkeys(self._absorb(each) for each in now if ~number not in each[1]))
            else:
                now = self._must_be_done(now, number)
                if not now:
                    return self.calls[number]
                del self.under_way[number]
        return None

    def _absorb(self, explanation: Explanation) -> Explanation:
        state, done, node = explanation
        fitting = [
            number
            for number, call in self.under_way.items()
            if number not in done
            and number not in self.undone
            and observes(call)
            and state_after(call, state) is not None
        ]
        return (state, done.union(fitting), node) if fitting else explanation

    def _node(self, state: State, number: int, parent: SearchNode | None) -> SearchNode | None:
        if not self.may_fall_back:
            return None
        key = (state, number, parent)
        if key not in self.nodes:
            self.nodes[key] = SearchNode(state, number, parent)
        return self.nodes[key]

    def _must_be_done(self, now: list[Explanation], number: int) -> list[Explanation]:
        done_with: dict[Explanation, None] = {}
        for state, done, node in self._reached(now, number):
            if number in done:
                done_with[state, done - {number}, node] = None
        return list(done_with)

    def _reached(self, now: list[Explanation], number: int = -1) -> list[Explanation]:
        """Return these and those with more calls under way done, up to where call `number` is done."""
        known = dict.fromkeys(now)
        stack = list(now)
        while stack:
            state, done, node = stack.pop()
            self.steps += 1
            if number in done:
                continue
            for explanation in self._steps(state, done, node):
                if explanation not in known:
                    known[explanation] = None
                    stack.append(explanation)
            if len(known) > EXPLANATIONS_MAX or self.steps > STEPS_MAX:
                raise _TooMany
        return list(known)

    def _steps(self, state: State, done: frozenset[int], node: SearchNode | None) -> Iterator[Explanation]:
        """Yield what may come next: one call under way takes effect."""
        for other, call in self.under_way.items():
            if other in done or ~other in done:
                continue
            undone = self.undone.get(other)
            if undone is not None:
                after = state_after(undone, state)
                if after is not None and after != state:
                    yield self._absorb((after, done | {~other}, self._node(state, ~other, node)))
            after = state_after(call, state)
            if observes(call):
                if undone is not None and after is not None:
                    yield self._absorb((state, done | {other}, node))
            elif after is not None and (after != state or _decided(call)):
                yield self._absorb((after, done | {other}, self._node(state, other, node)))

    def _fall_back(self, now: list[Explanation]) -> list[Explanation]:
        """The active replica was lost: each explanation may continue from any state that it went through.

        Many explanations share a node. A way back is followed once for each set of calls that it undoes.

        A call that leaves a section corrupted may be done and stay done, known from a part of its batch. It
        cannot be placed after the loss then, where it would be refused (seed 7117529).
        """
        if self.may_corrupt:
            now = self._reached(now)
        after: dict[Explanation, None] = {}
        followed: set[tuple[Explanation, frozenset[int]]] = set()
        for explanation in now:
            state, done, node = explanation
            undone: frozenset[int] = frozenset()
            while ((state, done, node), undone) not in followed:
                followed.add(((state, done, node), undone))
                for redone in _subsets(undone):
                    after[self._absorb((state, done - redone, node))] = None
                    if self.may_corrupt:
                        corrupted = tuple((section_id, CORRUPTED) for section_id, _ in state)
                        after[self._absorb((corrupted, done - redone, node))] = None
                if node is None:
                    break
                state, number, node = node.state, node.number, node.parent
                if number < 0:
                    done = done - {number}
                elif number in done:
                    undone = undone | {number}
            if len(after) > EXPLANATIONS_MAX:
                raise _TooMany
        return list(after)


def _subsets(chosen: frozenset[int]) -> Iterator[frozenset[int]]:
    numbers = sorted(chosen)
    for bits in range(2 ** len(numbers)):
        yield frozenset(number for position, number in enumerate(numbers) if bits >> position & 1)
