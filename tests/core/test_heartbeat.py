"""Heartbeats: when a lease is held, and what does and does not prove a node dead."""

import dataclasses
from typing import Any

import pytest
from tests.core.lone_hub import LoneHub

from ckpt_protocol.codec import pack_body, unpack_body
from ckpt_protocol.framing import Frame, FrameError, decode_datagram
from ckpt_protocol.limits import EPOCH_MAX
from ckptd.core.context import Context
from ckptd.core.events import AskBack, SendHeartbeat
from ckptd.core.liveness.heartbeat import ASK_BACK_NS, CLOCK_SKEW, SOLE_MEMBER_LEASE_NS, Heartbeats
from ckptd.core.settings import MILLISECOND_NS, Settings
from ckptd.core.view import View, bootstrap_view

START_NS = 10**12
EPOCH = 4
LEASE_NS = 600 * MILLISECOND_NS
GRACE_NS = 800 * MILLISECOND_NS
FIRST = 100
"""The incarnation of every node's first start."""


def node(node_id: str, incarnation: int = FIRST, *, now_ns: int = START_NS, **changes: Any) -> Heartbeats:
    """A serving member of epoch 4 among a, b and c, which has met the first start of each of the others."""
    peers = tuple(other for other in ("a", "b", "c") if other != node_id)
    settings = dataclasses.replace(
        Settings(node_id, peers=peers, lease_ns=LEASE_NS, grace_ns=GRACE_NS), **changes
    )
    context = Context(settings, incarnation, now_ns, 0)
    context.epoch, context.sealed = EPOCH, False
    heartbeats = Heartbeats(context, LoneHub())
    for peer in heartbeats.peers.values():
        heartbeats.on_new_incarnation(peer, FIRST)
    return heartbeats


def beat(sender: Heartbeats, receiver: Heartbeats) -> Frame:
    """The heartbeat that the sender sends to the receiver now."""
    sender.context.effects.clear()
    sender.send(sender.peers[receiver.context.node_id])
    (effect,) = sender.context.effects
    assert isinstance(effect, SendHeartbeat)
    assert effect.node_id == receiver.context.node_id
    return decode_datagram(effect.data)


def pass_time(passed_ns: int, *nodes: Heartbeats) -> None:
    for one in nodes:
        one.context.now_ns += passed_ns


def lease_until_ns(one: Heartbeats, view: View) -> int:
    one.renew_lease(view)
    return one.context.lease_until_ns


def pair(**changes: Any) -> tuple[Heartbeats, Heartbeats, View]:
    return node("a", **changes), node("b", **changes), bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST})


def exchange(a: Heartbeats, b: Heartbeats) -> None:
    """a's stamp goes to b and comes back echoed, 1 ms each way."""
    asked = beat(a, b)
    pass_time(MILLISECOND_NS, a, b)
    assert b.receive(asked)
    answered = beat(b, a)
    pass_time(MILLISECOND_NS, a, b)
    assert a.receive(answered)


# -- the lease


def test_a_lease_begins_when_the_stamp_was_sent_and_not_when_its_echo_came() -> None:
    a, b, view = pair()
    asked = beat(a, b)
    pass_time(200 * MILLISECOND_NS, a, b)
    b.receive(asked)
    answered = beat(b, a)
    pass_time(150 * MILLISECOND_NS, a, b)
    a.receive(answered)
    assert lease_until_ns(a, view) == START_NS + LEASE_NS


def test_a_lease_ends_when_no_newer_stamp_is_echoed() -> None:
    a, b, view = pair()
    exchange(a, b)
    a.renew_lease(view)
    a.context.now_ns = START_NS + LEASE_NS - 1
    assert a.context.serving()
    a.context.now_ns = START_NS + LEASE_NS
    a.renew_lease(view)
    assert not a.context.serving()


def test_there_is_no_lease_before_any_echo() -> None:
    a, b, view = pair()
    assert lease_until_ns(a, view) < START_NS
    a.receive(beat(b, a))
    assert lease_until_ns(a, view) < START_NS


def test_a_lease_takes_the_echo_of_every_member_and_is_the_shortest() -> None:
    a, b, c = node("a"), node("b"), node("c")
    view = bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST, "c": FIRST})
    exchange(a, b)
    assert lease_until_ns(a, view) < START_NS
    pass_time(2 * MILLISECOND_NS, c)
    exchange(a, c)
    assert lease_until_ns(a, view) == START_NS + LEASE_NS
    exchange(a, b)
    assert lease_until_ns(a, view) == START_NS + 2 * MILLISECOND_NS + LEASE_NS


def test_who_is_alone_in_its_view_needs_nobody() -> None:
    assert lease_until_ns(node("a"), bootstrap_view(EPOCH, {"a": FIRST})) == SOLE_MEMBER_LEASE_NS


def test_a_member_that_is_not_configured_gives_no_lease() -> None:
    assert lease_until_ns(node("a"), bootstrap_view(EPOCH, {"a": FIRST, "z": FIRST})) < START_NS


def test_an_echo_of_another_epoch_does_not_count() -> None:
    for other_epoch in (EPOCH - 1, EPOCH + 1, 0):
        a, b, view = pair()
        b.context.epoch = other_epoch
        exchange(a, b)
        assert lease_until_ns(a, view) < START_NS, other_epoch


def test_echoes_of_the_epoch_before_give_no_lease_in_the_next() -> None:
    a, b, view = pair()
    exchange(a, b)
    assert lease_until_ns(a, view) == START_NS + LEASE_NS
    a.context.epoch = b.context.epoch = EPOCH + 1
    after = bootstrap_view(EPOCH + 1, {"a": FIRST, "b": FIRST})
    assert lease_until_ns(a, after) < START_NS
    exchange(a, b)
    assert lease_until_ns(a, after) == START_NS + 2 * MILLISECOND_NS + LEASE_NS


def test_an_echo_of_a_coming_epoch_gives_no_lease_when_that_epoch_is_installed() -> None:
    """Its stamp was sent in the epoch before, where this node served by other rules."""
    a, b, _ = pair()
    b.context.epoch = EPOCH + 1
    exchange(a, b)
    a.context.epoch = EPOCH + 1
    assert lease_until_ns(a, bootstrap_view(EPOCH + 1, {"a": FIRST, "b": FIRST})) < START_NS


def test_an_echo_of_another_epoch_takes_no_lease_away() -> None:
    a, b, view = pair()
    exchange(a, b)
    b.context.epoch = EPOCH + 1
    exchange(a, b)
    assert lease_until_ns(a, view) == START_NS + LEASE_NS


def test_an_echo_meant_for_an_older_start_of_this_node_does_not_count() -> None:
    a, b, view = pair()
    b.receive(beat(a, b))
    meant_for_the_old = beat(b, a)
    again = node("a", FIRST + 1)
    assert again.receive(meant_for_the_old)
    assert lease_until_ns(again, view) < START_NS


def test_an_echo_of_another_start_of_the_member_does_not_count() -> None:
    a = node("a")
    view = bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST})
    a.on_incarnation_answered(a.peers["b"], FIRST + 1)
    exchange(a, node("b", FIRST + 1))
    assert lease_until_ns(a, view) < START_NS


def test_an_older_echo_that_comes_late_does_not_shorten_a_lease() -> None:
    a, b, view = pair()
    exchange(a, b)
    exchange(a, b)
    pass_time(MILLISECOND_NS, a, b)
    stale = beat(b, a)._replace(c=START_NS)
    assert a.receive(stale)
    assert lease_until_ns(a, view) == START_NS + 2 * MILLISECOND_NS + LEASE_NS


def test_a_frozen_node_echoes_nothing_and_says_no_epoch() -> None:
    a, b, view = pair()
    b.receive(beat(a, b))
    b.context.sealed = True
    frozen = beat(b, a)
    assert (frozen.b, frozen.c) == (0, 0)
    a.receive(frozen)
    assert lease_until_ns(a, view) < START_NS
    pass_time(1, b)
    b.context.sealed = False
    assert (beat(b, a).b, beat(b, a).c) == (EPOCH, START_NS)


def test_a_frozen_node_takes_no_lease_from_echoes() -> None:
    a, b, view = pair()
    a.context.sealed = True
    b.receive(beat(a, b))
    answered = beat(b, a)
    answered = answered._replace(b=a.context.epoch)
    a.receive(answered)
    a.context.sealed = False
    assert lease_until_ns(a, view) < START_NS


def test_a_node_left_behind_may_believe_in_its_lease_no_longer_than_our_last_echo_allows() -> None:
    a, b, view = pair()
    exchange(a, b)
    echoed_at_ns = b.peers["a"].heard_ns
    assert b.lease_expiry_ns("a") == echoed_at_ns + LEASE_NS + LEASE_NS // CLOCK_SKEW
    assert b.lease_expiry_ns("a") > lease_until_ns(a, view)
    b.receive(beat(a, b))
    assert b.lease_expiry_ns("a") == echoed_at_ns + LEASE_NS + LEASE_NS // CLOCK_SKEW
    assert b.lease_expiry_ns("c") < START_NS
    assert b.lease_expiry_ns("unknown") == b.context.now_ns


# -- who is heard


def test_a_peer_is_heard_until_the_grace_is_over() -> None:
    a, b, _ = pair()
    assert not a.alive("b", FIRST)
    a.receive(beat(b, a))
    pass_time(GRACE_NS - 1, a)
    assert a.alive("b", FIRST)
    assert not a.alive("b", FIRST - 1)
    pass_time(1, a)
    assert not a.alive("b", FIRST)


def test_silence_proves_nothing() -> None:
    a, b, _ = pair()
    a.receive(beat(b, a))
    pass_time(10**15, a)
    assert not a.proved_dead("b", FIRST)


def test_a_node_is_alive_to_itself_in_its_own_start_only() -> None:
    a = node("a")
    assert a.alive("a", FIRST)
    assert not a.alive("a", FIRST - 1)
    assert a.proved_dead("a", FIRST - 1)
    assert not a.proved_dead("a", FIRST)
    assert not a.alive("unknown", FIRST)
    assert not a.proved_dead("unknown", FIRST)


def test_heartbeats_that_come_twice_or_out_of_order_are_ignored() -> None:
    a, b, _ = pair()
    first = beat(b, a)
    pass_time(MILLISECOND_NS, b)
    second = beat(b, a)
    assert a.receive(second)
    heard_ns = a.peers["b"].heard_ns
    pass_time(MILLISECOND_NS, a)
    assert a.receive(first) is None
    assert a.receive(second) is None
    assert a.peers["b"].heard_ns == heard_ns


def test_heartbeats_of_another_cluster_or_of_strangers_are_ignored() -> None:
    a, b, _ = pair()
    other = node("b", cluster="another")
    assert a.receive(beat(other, a)) is None
    assert a.peers["b"].their_timestamp_ns == 0
    fields = unpack_body(beat(b, a).body)
    for stranger in ("z", "a"):
        frame = beat(b, a)._replace(body=pack_body([stranger, *fields[1:]]))
        assert a.receive(frame) is None
    for none in (7, None, [1], "", {}):
        with pytest.raises(FrameError):
            a.receive(beat(b, a)._replace(body=pack_body([none, *fields[1:]])))
    assert a.receive(beat(b, a))


@pytest.mark.parametrize("hears", [[["c"]], [["c", "x", True]], [3], 7, [["c", None, False]]], ids=repr)
def test_a_heartbeat_with_other_fields_is_the_senders_fault(hears: object) -> None:
    a, b, _ = pair()
    fields = unpack_body(beat(b, a).body)
    fields[5] = hears
    with pytest.raises(FrameError):
        a.receive(beat(b, a)._replace(body=pack_body(fields)))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", pack_body([]), pack_body(["b", 1]), pack_body({"b": 1})], ids=repr
)
def test_a_heartbeat_that_is_no_array_of_its_fields_is_the_senders_fault(body: bytes) -> None:
    a, b, _ = pair()
    with pytest.raises(FrameError):
        a.receive(beat(b, a)._replace(body=body))


def test_a_heartbeat_says_whom_its_sender_hears_and_has_links_to() -> None:
    a, b, c = node("a"), node("b"), node("c")
    b.receive(beat(a, b))
    b.receive(beat(c, b))
    b.peers["c"].connected = True
    a.receive(beat(b, a))
    assert a.peers["b"].its_heard == {"a": FIRST, "c": FIRST}
    assert a.peers["b"].its_links == {"c": FIRST}
    pass_time(GRACE_NS, b)
    a.receive(beat(b, a))
    assert a.peers["b"].its_heard == {}


@pytest.mark.parametrize("place", [1, 2, 3, 4])
@pytest.mark.parametrize("wrong", ["x", None, [], b"1"], ids=repr)
def test_a_heartbeat_with_a_wrong_number_changes_nothing(place: int, wrong: object) -> None:
    """What is stored of a datagram is compared later, where nobody expects it to be no number."""
    a, b, _ = pair()
    exchange(a, b)
    known = dataclasses.asdict(a.peers["b"])
    pass_time(MILLISECOND_NS, a, b)
    frame = beat(b, a)
    fields = unpack_body(frame.body)
    fields[place] = wrong
    with pytest.raises((FrameError, TypeError, ValueError)):
        a.receive(frame._replace(body=pack_body(fields)))
    assert dataclasses.asdict(a.peers["b"]) == known


def test_a_heartbeat_that_says_the_same_again_is_not_parsed_again_and_its_header_counts() -> None:
    a, b = node("a"), node("b")
    for _ in range(3):
        pass_time(MILLISECOND_NS, a, b)
        b.receive(beat(a, b))
        assert b.peers["a"].heard_ns == b.context.now_ns
    assert len(b.parsed_by_body) == 1
    with pytest.raises(FrameError):
        b.receive(beat(a, b)._replace(b=EPOCH_MAX + 1))
    a.decided_epoch = 7
    b.receive(beat(a, b))
    assert b.peers["a"].decided_epoch == 7
    assert len(b.parsed_by_body) == 1, "one for each peer"


def test_a_heartbeat_carries_the_standing_of_its_sender() -> None:
    a, b, _ = pair()
    b.leaving, b.member, b.disk_epoch, b.decided_epoch, b.stall_reports = True, True, 3, 5, ("c",)
    a.receive(beat(b, a))
    peer = a.peers["b"]
    assert (peer.leaving, peer.left, peer.member) == (True, False, True)
    assert (peer.disk_epoch, peer.decided_epoch, peer.stall_reports, peer.epoch) == (3, 5, ("c",), EPOCH)


def test_one_heartbeat_goes_to_every_configured_peer() -> None:
    a = node("a")
    a.send_all()
    assert [effect.node_id for effect in a.context.effects if isinstance(effect, SendHeartbeat)] == ["b", "c"]


# -- leaving


def test_a_node_that_left_gave_up_and_is_heard_no_more_and_yet_is_not_dead() -> None:
    a, b, _ = pair()
    b.left = True
    a.receive(beat(b, a))
    assert a.has_left_cleanly("b", FIRST, 1)
    assert not a.has_left_cleanly("b", FIRST + 1, 1)
    assert not a.alive("b", FIRST)
    assert not a.proved_dead("b", FIRST)
    assert not b.alive("b", FIRST)


# -- death


def test_a_newer_start_kills_the_older() -> None:
    a, b, _ = pair()
    a.receive(beat(b, a))
    late = node("b", now_ns=START_NS + 10**9)
    assert a.on_incarnation_answered(a.peers["b"], FIRST + 5)
    a.receive(beat(node("b", FIRST + 5), a))
    assert a.proved_dead("b", FIRST)
    assert a.proved_dead("b", FIRST + 4)
    assert not a.proved_dead("b", FIRST + 5)
    assert a.alive("b", FIRST + 5)
    assert a.receive(beat(late, a)) is None
    assert a.peers["b"].incarnation == FIRST + 5


def test_a_newer_start_inherits_nothing_of_the_older() -> None:
    a, b, view = pair()
    b.leaving = b.left = b.member = True
    b.stall_reports = ("c",)
    exchange(a, b)
    a.on_new_incarnation(a.peers["b"], FIRST + 1)
    peer = a.peers["b"]
    assert not (peer.leaving or peer.left or peer.member or peer.stall_reports or peer.its_heard)
    assert not a.alive("b", FIRST + 1)
    assert lease_until_ns(a, bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST + 1})) < START_NS
    assert lease_until_ns(a, view) < START_NS


def test_a_stamp_of_a_newer_start_counts_although_it_is_smaller() -> None:
    a, b, _ = pair()
    a.receive(beat(b, a))
    a.on_incarnation_answered(a.peers["b"], FIRST + 1)
    assert a.receive(beat(node("b", FIRST + 1, now_ns=5), a))


@pytest.mark.parametrize("incarnation", [FIRST - 1, FIRST + 1, 2**63 - 1])
def test_a_heartbeat_makes_no_other_start_known(incarnation: int) -> None:
    """One forged datagram with a huge incarnation once shut a healthy node out for good."""
    a, b, _ = pair()
    exchange(a, b)
    before = dataclasses.asdict(a.peers["b"])
    frame = beat(node("b", incarnation, now_ns=10**15), a)
    a.context.effects.clear()
    assert a.receive(frame) is None
    assert dataclasses.asdict(a.peers["b"]) == {**before, "asked_back_ns": a.context.now_ns}
    assert a.context.counters == {"heartbeats_of_unknown_start": 1}
    assert a.context.effects == [AskBack("b")]
    pass_time(MILLISECOND_NS, a, b)
    assert a.receive(beat(b, a))


def test_a_flood_of_unknown_starts_makes_a_node_ask_back_once_a_second() -> None:
    a, _, _ = pair()
    for number in range(100):
        pass_time(ASK_BACK_NS // 40, a)
        a.receive(beat(node("b", FIRST + 1 + number), a))
    asked = [effect for effect in a.context.effects if isinstance(effect, AskBack)]
    assert len(asked) == 3
    assert a.context.counters == {"heartbeats_of_unknown_start": 100}


def test_an_earlier_start_that_answers_is_not_met() -> None:
    a, b, _ = pair()
    assert not a.on_incarnation_answered(a.peers["b"], FIRST - 1)
    assert a.receive(beat(b, a))


def test_a_start_that_was_taken_for_dead_and_answers_is_alive() -> None:
    """A firewall that refused for a moment once kept a living node out until it was started again."""
    a, b = linked_pair()
    assert a.on_connection_refused("b")
    pass_time(MILLISECOND_NS, a, b)
    assert a.receive(beat(b, a)) is None
    assert a.on_incarnation_answered(a.peers["b"], FIRST)
    assert a.receive(beat(b, a))
    assert a.alive("b", FIRST)
    assert a.proved_dead("b", FIRST - 1)


def linked_pair(**changes: Any) -> tuple[Heartbeats, Heartbeats]:
    """a hears b and had a link to it, which is gone."""
    a, b, _ = pair(**changes)
    exchange(a, b)
    return a, b


def test_a_refused_connection_proves_death_when_the_node_was_just_heard() -> None:
    a, _ = linked_pair()
    pass_time(LEASE_NS - 1, a)
    assert a.on_connection_refused("b")
    assert a.proved_dead("b", FIRST)
    assert not a.proved_dead("b", FIRST + 1)
    assert not a.alive("b", FIRST)
    assert not a.on_connection_refused("b")


def test_a_refused_connection_proves_nothing_when_the_node_was_not_just_heard() -> None:
    a, _ = linked_pair()
    pass_time(LEASE_NS, a)
    assert not a.on_connection_refused("b")
    assert not a.proved_dead("b", FIRST)


def test_a_refused_connection_proves_nothing_where_refusals_are_not_trusted() -> None:
    a, _ = linked_pair(trust_rst=False)
    assert not a.on_connection_refused("b")
    assert not a.proved_dead("b", FIRST)


def test_a_refused_connection_proves_nothing_while_there_is_a_link() -> None:
    a, _ = linked_pair()
    a.peers["b"].connected = True
    assert not a.on_connection_refused("b")
    assert not a.proved_dead("b", FIRST)


def test_a_refused_connection_proves_nothing_about_a_start_that_was_never_heard() -> None:
    a, _ = linked_pair()
    a.on_incarnation_answered(a.peers["b"], FIRST + 1)
    assert not a.on_connection_refused("b")
    assert not a.proved_dead("b", FIRST + 1)


def test_a_refused_connection_proves_nothing_about_who_was_never_heard() -> None:
    a = node("a")
    assert not a.on_connection_refused("b")
    assert not a.on_connection_refused("unknown")
    assert not a.proved_dead("b", FIRST)


@pytest.mark.parametrize("fresh", [True, False])
def test_the_epoch_of_a_refusal_is_remembered_only_when_its_echoes_were_fresh(fresh: bool) -> None:
    a, b = linked_pair()
    if not fresh:
        pass_time(LEASE_NS, a, b)
        b.context.sealed = True
        a.receive(beat(b, a))
    assert a.on_connection_refused("b")
    assert a.peers["b"].lease_fresh_at_death == ((FIRST, EPOCH) if fresh else (0, 0))


def test_a_dead_start_is_not_heard_again_when_its_heartbeats_come_late() -> None:
    a, b = linked_pair()
    assert a.on_connection_refused("b")
    pass_time(MILLISECOND_NS, a, b)
    assert a.receive(beat(b, a)) is None
    assert not a.alive("b", FIRST)
    assert a.on_incarnation_answered(a.peers["b"], FIRST + 1)
    assert a.receive(beat(node("b", FIRST + 1), a))
    assert a.alive("b", FIRST + 1)


def test_two_heartbeats_of_one_moment_are_two() -> None:
    a, b, _ = pair()
    assert b.receive(beat(a, b)) is not None
    a.left = True
    told = beat(a, b)
    assert b.receive(told) is not None
    assert b.peers["a"].left
    assert b.receive(told) is None, "a copy is no news"
