"""Arbiters: a view is on disk before it is decided, and no epoch ever gets two."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder, FrameError
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter import (
    BACK_OFF_STEP_NS,
    PROPOSAL_NS,
    Arbiter,
    LocalArbiter,
    MajorityArbiter,
    Record,
    Rule,
    make_arbiter,
    read_record,
)
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.events import Effect, Persist, SendPeer
from ckptd.core.settings import Settings
from ckptd.core.view import View, following, founding

VOTERS = ("a", "b", "c")
Message = tuple[str, str, Frame]
"""From, to and what."""


def context_of(node_id: str, now_ns: int = 0, voters: tuple[str, ...] = VOTERS, **changes: Any) -> Context:
    peers = tuple(voter for voter in voters if voter != node_id)
    context = Context(dataclasses.replace(Settings(node_id, peers=peers), **changes), 1, now_ns, 0)
    context.deadline_ns = NEVER_NS
    return context


def next_view(mark: int) -> Rule:
    """A rule whose views all differ, by an incarnation that nobody else proposes."""

    def rule(current: View | None) -> View:
        return (
            founding(1, {"a": mark})
            if current is None
            else following(current, current.epoch + 1, {"a": mark})
        )

    return rule


class Cluster:
    """Arbiters wired by hand: effects are carried out in order, messages wait to be delivered."""

    def __init__(self, voters: tuple[str, ...] = VOTERS) -> None:
        self.voters = voters
        self.now_ns = 0
        self.disks = dict.fromkeys(voters, b"")
        self.network: list[Message] = []
        self.decided: list[tuple[str, View]] = []
        self.marks = 0
        self.arbiters = {node_id: self.start(node_id) for node_id in voters}

    def start(self, node_id: str) -> MajorityArbiter:
        """A (new) start of a node: it knows what is on its disk only."""
        context = context_of(node_id, self.now_ns, self.voters, arbiter="majority")
        arbiter = make_arbiter(context, read_record(self.disks[node_id]))
        assert isinstance(arbiter, MajorityArbiter)
        return arbiter

    def event(self, node_id: str, act: Any, crash_after: int | None = None) -> None:
        """One event at a node; with `crash_after`, it dies when so many of the effects are carried out."""
        arbiter = self.arbiters[node_id]
        arbiter.context.now_ns = self.now_ns
        decided: list[View] = []
        arbiter.decided = decided.append
        act(arbiter)
        effects: list[Effect] = list(arbiter.context.effects)
        arbiter.context.effects.clear()
        crashes = crash_after is not None and crash_after <= len(effects)
        for effect in effects[:crash_after] if crashes else effects:
            if isinstance(effect, Persist):
                self.disks[node_id] = effect.record
            elif isinstance(effect, SendPeer):
                (frame,) = FrameDecoder().feed(effect.data)
                self.network.append((node_id, effect.node_id, frame))
        if crashes:
            self.arbiters[node_id] = self.start(node_id)
        else:
            self.decided += [(node_id, view) for view in decided]

    def propose(self, node_id: str, crash_after: int | None = None) -> None:
        self.marks += 1
        rule = next_view(self.marks)
        self.event(node_id, lambda arbiter: arbiter.propose(rule), crash_after)

    def deliver(self, index: int, crash_after: int | None = None) -> None:
        sender, receiver, frame = self.network.pop(index)
        self.event(receiver, lambda arbiter: arbiter.receive(sender, frame), crash_after)

    def deliver_all(self, *between: str) -> None:
        """Deliver in order; what goes to or comes from others than these is lost."""
        while self.network:
            sender, receiver, _ = self.network[0]
            if between and not {sender, receiver} <= set(between):
                del self.network[0]
            else:
                self.deliver(0)

    def wait(self) -> None:
        """Past every back-off and every proposal's end."""
        self.now_ns += 10**9
        for node_id in self.voters:
            self.event(node_id, lambda arbiter: arbiter.on_time())
        self.now_ns += 10**9

    def check(self) -> None:
        """No epoch has two views."""
        by_epoch: dict[int, View] = {}
        for _, view in self.decided:
            assert by_epoch.setdefault(view.epoch, view) == view


# -- one arbiter


@pytest.mark.parametrize(
    ("voters", "name", "kind"),
    [
        (("a",), "", LocalArbiter),
        (("a", "b"), "", LocalArbiter),
        (VOTERS, "", MajorityArbiter),
        (VOTERS, "pair", LocalArbiter),
        (("a",), "majority", MajorityArbiter),
    ],
)
def test_the_arbiter_is_chosen_by_the_settings(
    voters: tuple[str, ...], name: str, kind: type[Arbiter]
) -> None:
    assert type(make_arbiter(context_of("a", voters=voters, arbiter=name), Record())) is kind


def test_a_local_arbiter_has_its_view_on_disk_before_it_decides() -> None:
    context = context_of("a", voters=("a",))
    arbiter = make_arbiter(context, Record())
    on_disk: list[list[View | None]] = []

    def decided(view: View) -> None:
        on_disk.append([read_record(e.record).view for e in context.effects if isinstance(e, Persist)])
        assert on_disk[-1][-1] == view

    arbiter.decided = decided
    arbiter.propose(next_view(1))
    arbiter.propose(next_view(2))
    assert len(on_disk) == 2
    assert arbiter.disk_epoch == 2


def test_a_local_arbiter_decides_nothing_when_the_rule_allows_nothing() -> None:
    context = context_of("a", voters=("a",))
    arbiter = make_arbiter(context, Record())
    arbiter.decided = lambda view: pytest.fail("decided")
    arbiter.propose(lambda current: None)
    assert context.effects == []
    assert arbiter.disk_epoch == 0


def test_a_local_arbiter_notes_newer_views_of_others_only() -> None:
    context = context_of("a", voters=("a", "b"))
    arbiter = make_arbiter(context, Record())
    arbiter.note(founding(5, {"b": 1}))
    assert arbiter.disk_epoch == 5
    (effect,) = context.effects
    assert isinstance(effect, Persist)
    assert read_record(effect.record).view == founding(5, {"b": 1})
    arbiter.note(founding(5, {"a": 1}))
    arbiter.note(founding(4, {"a": 1}))
    assert len(context.effects) == 1


def test_a_record_is_the_same_after_a_restart() -> None:
    view = following(founding(1, {"a": 1, "b": 2}), 2, {"a": 1})
    for record in (Record(), Record((3, "b"), (2, "a"), view), Record((3, "b"))):
        assert read_record(record.pack()) == record
    assert read_record(b"") == Record()


@pytest.mark.parametrize(
    "packed", [b"\xc1", pack_body([]), pack_body({}), pack_body([[1, "a"], [1, "a"], 7])]
)
def test_a_record_that_is_none_is_an_error(packed: bytes) -> None:
    with pytest.raises(FrameError):
        read_record(packed)


# -- three arbiters


def test_one_proposer_decides_and_every_voter_has_the_view_on_disk() -> None:
    cluster = Cluster()
    cluster.propose("a")
    assert cluster.decided == []
    cluster.deliver_all()
    assert cluster.decided == [("a", founding(1, {"a": 1}))]
    assert [read_record(cluster.disks[node_id]).view for node_id in VOTERS] == [founding(1, {"a": 1})] * 3


def test_two_of_three_decide_and_one_alone_does_not() -> None:
    cluster = Cluster()
    cluster.propose("a")
    cluster.deliver_all("a")
    assert cluster.decided == []
    cluster.wait()
    cluster.propose("a")
    cluster.deliver_all("a", "b")
    assert [view.epoch for _, view in cluster.decided] == [1]


@pytest.mark.parametrize(("count", "need"), [(3, 2), (4, 3), (5, 3)])
def test_a_quorum_is_more_than_half_of_the_configured_voters(count: int, need: int) -> None:
    voters = tuple("abcde"[:count])
    for reached in range(1, count + 1):
        cluster = Cluster(voters)
        cluster.propose("a")
        cluster.deliver_all(*voters[:reached])
        assert bool(cluster.decided) == (reached >= need)


def test_a_single_voter_decides_alone_with_its_view_on_disk_first() -> None:
    cluster = Cluster(("a",))
    cluster.propose("a")
    cluster.wait()
    cluster.propose("a")
    assert [view.epoch for _, view in cluster.decided] == [1, 2]
    assert read_record(cluster.disks["a"]).view == cluster.decided[-1][1]


def test_every_promise_and_acceptance_is_on_disk_before_it_is_said() -> None:
    voter = MajorityArbiter(context_of("b"), Record())
    effects = voter.context.effects
    voter.receive("a", Frame(Kind.PREPARE, 4, 0, 0, pack_body(["a"])))
    assert [type(effect) for effect in effects] == [Persist, SendPeer]
    assert isinstance(effects[0], Persist)
    assert read_record(effects[0].record).promised == (4, "a")
    effects.clear()
    view = founding(1, {"a": 1})
    voter.receive("a", Frame(Kind.ACCEPT, 4, 0, 0, pack_body(["a", view.fields()])))
    assert [type(effect) for effect in effects] == [Persist, SendPeer]
    assert isinstance(effects[0], Persist)
    assert read_record(effects[0].record) == Record((4, "a"), (4, "a"), view)


def test_a_proposer_has_its_own_promise_and_acceptance_on_disk_before_it_asks_others() -> None:
    cluster = Cluster()
    arbiter = cluster.arbiters["a"]
    arbiter.propose(next_view(1))
    assert [type(effect) for effect in arbiter.context.effects] == [Persist, SendPeer, SendPeer]
    arbiter.context.effects.clear()
    arbiter.receive("b", Frame(Kind.PROMISE, 1, 0, 1, pack_body(["a", [1, "a"], [0, ""], None])))
    assert [type(effect) for effect in arbiter.context.effects] == [Persist, SendPeer, SendPeer]


def test_a_promise_is_kept_over_a_restart() -> None:
    cluster = Cluster()
    cluster.event("b", lambda arbiter: arbiter.receive("c", Frame(Kind.PREPARE, 9, 0, 0, pack_body(["c"]))))
    cluster.arbiters["b"] = cluster.start("b")
    cluster.network.clear()
    for kind, body in (
        (Kind.PREPARE, ["a"]),
        (Kind.PREPARE, ["c"]),
        (Kind.ACCEPT, ["a", founding(1, {"a": 1}).fields()]),
    ):
        number = 9 if body == ["c"] else 8
        frame = Frame(kind, number, 0, 0, pack_body(body))
        cluster.event("b", lambda arbiter, frame=frame: arbiter.receive("a", frame))
    assert [frame.c for _, _, frame in cluster.network] == [0, 0, 0]
    assert read_record(cluster.disks["b"]) == Record((9, "c"))


def test_a_restarted_proposer_never_uses_a_ballot_again() -> None:
    cluster = Cluster()
    cluster.propose("a")
    first = cluster.arbiters["a"].ballot
    cluster.arbiters["a"] = cluster.start("a")
    cluster.propose("a")
    assert cluster.arbiters["a"].ballot > first


def test_a_decided_view_is_found_by_the_next_proposer_whatever_majority_answers() -> None:
    cluster = Cluster()
    cluster.propose("a")
    cluster.deliver_all("a", "b")
    cluster.wait()
    cluster.propose("c")
    cluster.deliver_all("b", "c")
    cluster.wait()
    if len(cluster.decided) == 1:
        # The first ballot of c lost against what b had promised; now c knows it.
        cluster.propose("c")
        cluster.deliver_all("b", "c")
    (_, first), (_, second) = cluster.decided
    assert second.epoch == first.epoch + 1
    assert second.departures[0].incarnation == first.members["a"].incarnation


def test_the_rule_is_given_the_view_of_the_highest_accepted_ballot() -> None:
    arbiter = MajorityArbiter(context_of("a"), Record((2, "a"), (2, "a"), founding(7, {"a": 1})))
    given: list[View | None] = []
    arbiter.propose(lambda current: given.append(current))
    body = ["a", [3, "a"], [2, "b"], founding(5, {"b": 1}).fields()]
    arbiter.receive("b", Frame(Kind.PROMISE, 3, 0, 1, pack_body(body)))
    assert given == [founding(5, {"b": 1})]
    assert not arbiter.busy


def test_nothing_is_accepted_when_the_rule_allows_nothing() -> None:
    cluster = Cluster()
    cluster.event("a", lambda arbiter: arbiter.propose(lambda current: None))
    cluster.deliver_all()
    assert cluster.decided == []
    assert not cluster.arbiters["a"].busy
    assert all(read_record(cluster.disks[node_id]).view is None for node_id in VOTERS)


def test_of_two_rivals_the_one_with_the_lower_ballot_loses_and_backs_off() -> None:
    cluster = Cluster()
    cluster.propose("a")
    cluster.propose("b")
    cluster.deliver_all()
    assert [node_id for node_id, _ in cluster.decided] == ["b"]
    loser = cluster.arbiters["a"]
    assert not loser.busy
    assert loser.not_before_ns >= cluster.now_ns + BACK_OFF_STEP_NS
    assert loser.context.deadline_ns <= loser.not_before_ns


def test_nothing_is_proposed_before_a_back_off_is_over_and_the_clock_is_set_for_it() -> None:
    arbiter = MajorityArbiter(context_of("a"), Record())
    arbiter.not_before_ns = 500
    arbiter.propose(next_view(1))
    assert arbiter.context.effects == []
    assert arbiter.context.deadline_ns == 500
    arbiter.context.now_ns = 500
    arbiter.propose(next_view(1))
    assert arbiter.busy


def test_a_proposal_without_a_majority_is_given_up_in_time() -> None:
    arbiter = MajorityArbiter(context_of("a"), Record())
    arbiter.propose(next_view(1))
    assert arbiter.context.deadline_ns == PROPOSAL_NS
    arbiter.context.now_ns = PROPOSAL_NS - 1
    arbiter.on_time()
    assert arbiter.busy
    arbiter.context.now_ns = PROPOSAL_NS
    arbiter.on_time()
    assert not arbiter.busy
    assert arbiter.not_before_ns > PROPOSAL_NS


def test_votes_that_come_twice_or_for_another_ballot_do_not_count() -> None:
    arbiter = MajorityArbiter(context_of("a", voters=("a", "b", "c", "d", "e")), Record((4, "e")))
    decided: list[View] = []
    arbiter.decided = decided.append
    arbiter.propose(next_view(1))
    assert arbiter.ballot == (5, "a")
    promise = Frame(Kind.PROMISE, 5, 0, 1, pack_body(["a", [5, "a"], [0, ""], None]))
    arbiter.receive("b", promise)
    arbiter.receive("b", promise)
    arbiter.receive("c", promise._replace(a=4))
    arbiter.receive("c", promise._replace(body=pack_body(["c", [5, "c"], [0, ""], None])))
    assert arbiter.proposal is None
    arbiter.receive("c", promise)
    assert arbiter.proposal is not None
    accepted = Frame(Kind.ACCEPTED, 5, 0, 1, pack_body(["a", [5, "a"]]))
    arbiter.receive("d", accepted)
    arbiter.receive("d", accepted)
    arbiter.receive("e", accepted._replace(a=4))
    assert decided == []
    arbiter.receive("e", accepted)
    arbiter.receive("b", accepted)
    assert len(decided) == 1


@pytest.mark.parametrize("kind", [Kind.PREPARE, Kind.PROMISE, Kind.ACCEPT, Kind.ACCEPTED])
@pytest.mark.parametrize(
    "fields", [[], [7], {"a": 1}, ["a", 7, 7, 7], ["a", ["x", "y"], [0, ""], [1]], ["a"], None], ids=repr
)
def test_a_vote_of_other_fields_is_the_senders_fault(kind: int, fields: Any) -> None:
    if kind == Kind.PREPARE and type(fields) is list and fields and fields[0] == "a":
        return
    arbiter = MajorityArbiter(context_of("a"), Record())
    with pytest.raises(FrameError):
        arbiter.receive("b", Frame(kind, 1, 0, 1, pack_body(fields)))
    assert arbiter.context.effects == []
    assert arbiter.record == Record()


def test_a_vote_of_who_is_no_voter_is_the_senders_fault() -> None:
    arbiter = MajorityArbiter(context_of("a"), Record())
    with pytest.raises(FrameError):
        arbiter.receive("z", Frame(Kind.PREPARE, 1, 0, 0, pack_body(["z"])))
    assert arbiter.record == Record()


# -- rivals, and a network that loses, doubles and reorders

WHO = st.sampled_from(VOTERS)
WHICH = st.integers(0, 2**16)
ACTIONS = st.one_of(
    st.tuples(st.just("propose"), WHO),
    st.tuples(st.just("deliver"), WHICH),
    st.tuples(st.just("deliver"), WHICH),
    st.tuples(st.just("deliver"), WHICH),
    st.tuples(st.just("oldest"), st.none()),
    st.tuples(st.just("oldest"), st.none()),
    st.tuples(st.just("lose"), WHICH),
    st.tuples(st.just("double"), WHICH),
    st.tuples(st.just("restart"), WHO),
    st.tuples(st.just("die proposing"), WHO),
    st.tuples(st.just("die receiving"), WHICH),
    st.tuples(st.just("wait"), st.none()),
)


def act(cluster: Cluster, action: str, which: Any) -> None:
    """One action; those that need a message do nothing without one."""
    waiting = len(cluster.network)
    match action:
        case "propose":
            cluster.propose(which)
        case "die proposing":
            cluster.propose(which, crash_after=cluster.marks % 3)
        case "restart":
            cluster.arbiters[which] = cluster.start(which)
        case "wait":
            cluster.wait()
        case "oldest" if waiting:
            cluster.deliver(0)
        case "deliver" if waiting:
            cluster.deliver(which % waiting)
        case "lose" if waiting:
            del cluster.network[which % waiting]
        case "double" if waiting:
            cluster.network.append(cluster.network[which % waiting])
        case "die receiving" if waiting:
            cluster.deliver(which % waiting, crash_after=which % 2)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=120))
def test_no_epoch_gets_two_views_whatever_the_network_does_and_whoever_dies(
    actions: list[tuple[str, Any]],
) -> None:
    cluster = Cluster()
    for action, which in actions:
        act(cluster, action, which)
        cluster.check()
    # The faults are over: somebody decides, and on top of all that was decided.
    cluster.network.clear()
    newest = max((view.epoch for _, view in cluster.decided), default=0)
    for _ in range(4):
        cluster.wait()
        cluster.propose("a")
        cluster.deliver_all()
        cluster.check()
    assert cluster.decided
    assert cluster.decided[-1][1].epoch > newest
