"""Arbiters: a view is on disk before it is decided, and no epoch ever gets two."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.lone_hub import LoneHub

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.messages import Kind
from ckptd.core.arbiter.base_arbiter import BACK_OFF_STEP_NS, Arbiter, NextViewRule, NoView
from ckptd.core.arbiter.disk_record import NEVER_RECORDED, DiskRecord, parse_disk_record
from ckptd.core.arbiter.etcd import EtcdArbiter
from ckptd.core.arbiter.make_arbiter import make_arbiter
from ckptd.core.arbiter.paxos import PROPOSAL_NS, PaxosArbiter
from ckptd.core.arbiter.single_and_pair import LocalArbiter
from ckptd.core.arbiter.wait_for_disk import RecordStore
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.events import Effect, Persist, SendPeer
from ckptd.core.liveness.liveness import Liveness
from ckptd.core.settings import Settings
from ckptd.core.view import View, bootstrap_view, successor_view

VOTERS = ("a", "b", "c")
Message = tuple[str, str, Frame]
"""From, to and what."""


def context_of(node_id: str, now_ns: int = 0, voters: tuple[str, ...] = VOTERS, **changes: Any) -> Context:
    peers = tuple(voter for voter in voters if voter != node_id)
    context = Context(dataclasses.replace(Settings(node_id, peers=peers), **changes), 1, now_ns, 0)
    context.deadline_ns = NEVER_NS
    return context


def arbiter_of(context: Context, record: DiskRecord | None = None) -> Arbiter:
    """The arbiter that the settings name, with a disk that is not empty."""
    disk = RecordStore(context, (record or DiskRecord()).pack())
    hub = LoneHub()
    return make_arbiter(context, disk, hub, Liveness(context, hub))


def voter_of(node_id: str, record: DiskRecord | None = None, **changes: Any) -> PaxosArbiter:
    arbiter = arbiter_of(context_of(node_id, **changes), record)
    assert isinstance(arbiter, PaxosArbiter)
    return arbiter


def decided_by(arbiter: Arbiter) -> list[View]:
    """The views that an arbiter has reported as decided."""
    assert isinstance(arbiter.hub, LoneHub)
    return arbiter.hub.decided


def persist(arbiter: Arbiter) -> DiskRecord:
    """The disk has written what was asked; what waited for it happens. Returns the record."""
    writes = [effect for effect in arbiter.context.effects if isinstance(effect, Persist)]
    arbiter.context.effects.clear()
    arbiter.store.on_persisted(writes[-1].number)
    return parse_disk_record(writes[-1].record)


def next_view(mark: int) -> NextViewRule:
    """A rule whose views all differ, by an incarnation that nobody else proposes."""

    def rule(current: View | None) -> View:
        return (
            bootstrap_view(1, {"a": mark})
            if current is None
            else successor_view(current, current.epoch + 1, {"a": mark})
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

    def start(self, node_id: str) -> PaxosArbiter:
        """A (new) start of a node: it knows what is on its disk only."""
        context = context_of(node_id, self.now_ns, self.voters, arbiter="majority")
        disk = RecordStore(context, self.disks[node_id])
        disk.amnesiac = False
        hub = LoneHub()
        return PaxosArbiter(context, disk, hub, Liveness(context, hub))

    def event(self, node_id: str, act: Any, crash_after: int | None = None) -> None:
        """One event at a node; with `crash_after`, it dies when so many of the effects are carried out."""
        arbiter = self.arbiters[node_id]
        arbiter.context.now_ns = self.now_ns
        decided = decided_by(arbiter)
        decided.clear()
        act(arbiter)
        done = 0
        effects: list[Effect] = arbiter.context.effects
        while effects and done != crash_after:
            effect = effects.pop(0)
            done += 1
            if isinstance(effect, Persist):
                self.disks[node_id] = effect.record
                if done != crash_after:
                    arbiter.store.on_persisted(effect.number)
            elif isinstance(effect, SendPeer):
                (frame,) = FrameDecoder().feed(effect.data)
                self.network.append((node_id, effect.node_id, frame))
        if done == crash_after:
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
        (VOTERS, "", PaxosArbiter),
        (VOTERS, "pair", LocalArbiter),
        (("a",), "majority", PaxosArbiter),
        (("a", "b"), "etcd", EtcdArbiter),
    ],
)
def test_the_arbiter_is_chosen_by_the_settings(
    voters: tuple[str, ...], name: str, kind: type[Arbiter]
) -> None:
    assert type(arbiter_of(context_of("a", voters=voters, arbiter=name))) is kind


def test_a_local_arbiter_has_its_view_on_disk_before_it_decides() -> None:
    arbiter = arbiter_of(context_of("a", voters=("a",)))
    decided = decided_by(arbiter)
    for epoch in (1, 2):
        arbiter.propose(next_view(1))
        assert arbiter.busy and len(decided) == epoch - 1
        assert persist(arbiter).view == decided[-1]
        assert not arbiter.busy
    assert arbiter.store.epoch == 2


def test_a_local_arbiter_decides_nothing_when_the_rule_allows_nothing() -> None:
    arbiter = arbiter_of(context_of("a", voters=("a",)))
    arbiter.propose(lambda current: NoView.NOT_NOW)
    assert arbiter.context.effects == [] and decided_by(arbiter) == []
    assert arbiter.store.epoch == 0


def test_a_local_arbiter_notes_newer_views_of_others_only() -> None:
    arbiter = arbiter_of(context_of("a", voters=("a", "b")))
    arbiter.on_decided_elsewhere(bootstrap_view(5, {"b": 1}))
    assert arbiter.store.epoch == 5
    assert persist(arbiter).view == bootstrap_view(5, {"b": 1})
    arbiter.on_decided_elsewhere(bootstrap_view(5, {"a": 1}))
    arbiter.on_decided_elsewhere(bootstrap_view(4, {"a": 1}))
    assert arbiter.context.effects == []


# -- the disk


def test_what_waits_for_a_record_happens_when_it_or_a_later_one_is_on_disk() -> None:
    disk = RecordStore(context_of("a"), b"")
    done: list[str] = []
    disk.persist(lambda: done.append("first"))
    disk.persist()
    disk.persist(lambda: done.append("third"))
    disk.on_persisted(0)
    assert done == []
    disk.on_persisted(2)
    assert done == ["first"]
    disk.on_persisted(3)
    assert done == ["first", "third"]


def test_nothing_that_waits_happens_while_the_disk_fails_and_all_of_it_when_it_works_again() -> None:
    context = context_of("a")
    disk = RecordStore(context, b"")
    done: list[str] = []
    disk.persist(lambda: done.append("promise"))
    disk.on_failed("no space left")
    assert "disk" in context.alarms
    context.effects.clear()
    disk.on_time()
    (again,) = [effect for effect in context.effects if isinstance(effect, Persist)]
    assert done == []
    disk.on_persisted(again.number)
    assert done == ["promise"]
    assert context.alarms == {}
    context.effects.clear()
    disk.on_time()
    assert context.effects == []


def test_an_empty_disk_is_amnesiac_and_may_have_installed_anything() -> None:
    assert RecordStore(context_of("a"), b"").amnesiac
    assert RecordStore(context_of("a"), b"").installed_by_earlier_incarnations > 2**60
    kept = RecordStore(context_of("a"), DiskRecord(installed_epoch=7).pack())
    assert (kept.amnesiac, kept.installed_by_earlier_incarnations) == (False, 7)


def test_a_record_is_the_same_after_a_restart() -> None:
    view = successor_view(bootstrap_view(1, {"a": 1, "b": 2}), 2, {"a": 1})
    for record in (DiskRecord(), DiskRecord((3, "b"), (2, "a"), view), DiskRecord((3, "b"))):
        assert parse_disk_record(record.pack()) == record
    assert parse_disk_record(b"") == DiskRecord(installed_epoch=NEVER_RECORDED)


@pytest.mark.parametrize(
    "packed", [b"\xc1", pack_body([]), pack_body({}), pack_body([[1, "a"], [1, "a"], 7])]
)
def test_a_record_that_is_none_is_an_error(packed: bytes) -> None:
    with pytest.raises(FrameError):
        parse_disk_record(packed)


# -- three arbiters


def test_one_proposer_decides_and_every_voter_has_the_view_on_disk() -> None:
    cluster = Cluster()
    cluster.propose("a")
    assert cluster.decided == []
    cluster.deliver_all()
    assert cluster.decided == [("a", bootstrap_view(1, {"a": 1}))]
    assert [parse_disk_record(cluster.disks[node_id]).view for node_id in VOTERS] == [
        bootstrap_view(1, {"a": 1})
    ] * 3


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
    assert parse_disk_record(cluster.disks["a"]).view == cluster.decided[-1][1]


def test_every_promise_and_acceptance_is_on_disk_before_it_is_sent() -> None:
    voter = voter_of("b")
    view = bootstrap_view(1, {"a": 1})
    for kind, body, record in (
        (Kind.PREPARE, ["a"], DiskRecord((4, "a"))),
        (Kind.ACCEPT, ["a", view.fields()], DiskRecord((4, "a"), (4, "a"), view)),
    ):
        voter.receive("a", Frame(kind, 4, 0, 0, pack_body(body)))
        assert [type(effect) for effect in voter.context.effects] == [Persist]
        assert persist(voter) == record
        assert [type(effect) for effect in voter.context.effects] == [SendPeer]
        voter.context.effects.clear()


def test_a_proposer_counts_its_own_promise_and_acceptance_when_they_are_on_disk() -> None:
    arbiter = voter_of("a")
    decided = decided_by(arbiter)
    arbiter.propose(next_view(1))
    arbiter.receive("b", Frame(Kind.PROMISE, 1, 0, 1, pack_body(["a", [1, "a"], [0, ""], None])))
    assert arbiter.proposed is None
    persist(arbiter)
    assert arbiter.proposed is not None
    arbiter.receive("b", Frame(Kind.ACCEPTED, 1, 0, 1, pack_body(["a", [1, "a"]])))
    assert decided == []
    persist(arbiter)
    assert decided == [bootstrap_view(1, {"a": 1})]


def test_a_disk_that_fails_gives_no_vote() -> None:
    voter = voter_of("b")
    voter.receive("a", Frame(Kind.PREPARE, 4, 0, 0, pack_body(["a"])))
    voter.context.effects.clear()
    voter.store.on_failed("no space left")
    assert not [effect for effect in voter.context.effects if isinstance(effect, SendPeer)]


def test_a_promise_is_kept_over_a_restart() -> None:
    cluster = Cluster()
    cluster.event("b", lambda arbiter: arbiter.receive("c", Frame(Kind.PREPARE, 9, 0, 0, pack_body(["c"]))))
    cluster.arbiters["b"] = cluster.start("b")
    cluster.network.clear()
    for kind, body in (
        (Kind.PREPARE, ["a"]),
        (Kind.PREPARE, ["c"]),
        (Kind.ACCEPT, ["a", bootstrap_view(1, {"a": 1}).fields()]),
    ):
        number = 9 if body == ["c"] else 8
        frame = Frame(kind, number, 0, 0, pack_body(body))
        cluster.event("b", lambda arbiter, frame=frame: arbiter.receive("a", frame))
    assert [frame.c for _, _, frame in cluster.network] == [0, 0, 0]
    assert parse_disk_record(cluster.disks["b"]) == DiskRecord((9, "c"), installed_epoch=NEVER_RECORDED)


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
    assert second.past_memberships[0].incarnation == first.members["a"].incarnation


def test_the_rule_is_given_the_view_of_the_highest_accepted_ballot() -> None:
    arbiter = voter_of("a", DiskRecord((2, "a"), (2, "a"), bootstrap_view(7, {"a": 1})))
    given: list[View | None] = []

    def rule(current: View | None) -> NoView:
        given.append(current)
        return NoView.NOT_NOW

    arbiter.propose(rule)
    persist(arbiter)
    body = ["a", [3, "a"], [2, "b"], bootstrap_view(5, {"b": 1}).fields()]
    arbiter.receive("b", Frame(Kind.PROMISE, 3, 0, 1, pack_body(body)))
    assert given == [bootstrap_view(5, {"b": 1})]
    assert not arbiter.busy


def test_a_proposer_that_lags_waits_for_the_votes_of_all_that_it_asked() -> None:
    arbiter = voter_of("a")
    arbiter.propose(lambda current: NoView.BEHIND)
    persist(arbiter)
    for node_id in VOTERS[1:]:
        assert arbiter.busy
        arbiter.receive(node_id, Frame(Kind.PROMISE, 1, 0, 1, pack_body(["a", [1, "a"], [0, ""], None])))
    assert not arbiter.busy


def test_nothing_is_accepted_when_the_rule_allows_nothing() -> None:
    cluster = Cluster()
    cluster.event("a", lambda arbiter: arbiter.propose(lambda current: NoView.NOT_NOW))
    cluster.deliver_all()
    assert cluster.decided == []
    assert not cluster.arbiters["a"].busy
    assert all(parse_disk_record(cluster.disks[node_id]).view is None for node_id in VOTERS)


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
    arbiter = voter_of("a")
    arbiter.not_before_ns = 500
    arbiter.propose(next_view(1))
    assert arbiter.context.effects == []
    assert arbiter.context.deadline_ns == 500
    arbiter.context.now_ns = 500
    arbiter.propose(next_view(1))
    assert arbiter.busy


def test_a_proposal_without_a_majority_is_abandoned_in_time() -> None:
    arbiter = voter_of("a")
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
    arbiter = voter_of("a", DiskRecord((4, "e")), voters=("a", "b", "c", "d", "e"))
    decided = decided_by(arbiter)
    arbiter.propose(next_view(1))
    persist(arbiter)
    assert arbiter.ballot == (5, "a")
    promise = Frame(Kind.PROMISE, 5, 0, 1, pack_body(["a", [5, "a"], [0, ""], None]))
    arbiter.receive("b", promise)
    arbiter.receive("b", promise)
    arbiter.receive("c", promise._replace(a=4))
    arbiter.receive("c", promise._replace(body=pack_body(["c", [5, "c"], [0, ""], None])))
    assert arbiter.proposed is None
    arbiter.receive("c", promise)
    assert arbiter.proposed is not None
    persist(arbiter)
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
    arbiter = voter_of("a")
    with pytest.raises(FrameError):
        arbiter.receive("b", Frame(kind, 1, 0, 1, pack_body(fields)))
    assert arbiter.context.effects == []
    assert arbiter.store.record == DiskRecord()


def test_a_vote_of_a_node_that_is_no_voter_is_the_senders_fault() -> None:
    arbiter = voter_of("a")
    with pytest.raises(FrameError):
        arbiter.receive("z", Frame(Kind.PREPARE, 1, 0, 0, pack_body(["z"])))
    assert arbiter.store.record == DiskRecord()


def test_a_proposal_with_promises_that_were_asked_for_ahead_takes_one_round() -> None:
    cluster = Cluster()
    cluster.event("a", lambda arbiter: arbiter.prepare_ahead())
    cluster.deliver_all()
    assert cluster.decided == []
    cluster.propose("a")
    assert {frame.kind for _, _, frame in cluster.network} == {Kind.ACCEPT}
    cluster.deliver_all()
    assert [view.epoch for _, view in cluster.decided] == [1]


def test_promises_that_were_asked_for_ahead_are_of_no_use_after_a_rivals_ballot() -> None:
    cluster = Cluster()
    cluster.event("a", lambda arbiter: arbiter.prepare_ahead())
    cluster.deliver_all()
    cluster.propose("b")
    cluster.deliver_all()
    cluster.propose("a")
    cluster.deliver_all()
    cluster.check()
    assert [(node_id, view.epoch) for node_id, view in cluster.decided] == [("b", 1), ("a", 2)]


def test_a_proposal_made_while_promises_are_under_way_waits_for_them() -> None:
    cluster = Cluster()
    cluster.event("a", lambda arbiter: arbiter.prepare_ahead())
    cluster.propose("a")
    assert {frame.kind for _, _, frame in cluster.network} == {Kind.PREPARE}
    cluster.deliver_all()
    assert [view.epoch for _, view in cluster.decided] == [1]


# -- rivals, and a network that loses, doubles and reorders

WHO = st.sampled_from(VOTERS)
WHICH = st.integers(0, 2**16)
ACTIONS = st.one_of(
    st.tuples(st.just("propose"), WHO),
    st.tuples(st.just("prepare"), WHO),
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
        case "prepare":
            cluster.event(which, lambda arbiter: arbiter.prepare_ahead())
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
def test_no_epoch_gets_two_views_whatever_the_network_does_and_whichever_node_dies(
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
