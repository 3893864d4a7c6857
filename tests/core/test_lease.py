"""The lease: when a node holds it, and until when an excluded one may."""

from tests.core.lone_liveness import (
    EPOCH,
    FIRST,
    LEASE_NS,
    START_NS,
    beat,
    exchange,
    lease_until_ns,
    node,
    pair,
    pass_time,
)

from ckptd.core.liveness.lease import CLOCK_SKEW, SOLE_MEMBER_LEASE_NS
from ckptd.core.settings import MILLISECOND_NS
from ckptd.core.view import bootstrap_view


def test_a_lease_begins_when_the_stamp_was_sent_and_not_when_its_echo_came() -> None:
    a, b, view = pair()
    asked = beat(a, b)
    pass_time(200 * MILLISECOND_NS, a, b)
    b.heartbeats.receive(asked)
    answered = beat(b, a)
    pass_time(150 * MILLISECOND_NS, a, b)
    a.heartbeats.receive(answered)
    assert lease_until_ns(a, view) == START_NS + LEASE_NS


def test_a_lease_ends_when_no_newer_stamp_is_echoed() -> None:
    a, b, view = pair()
    exchange(a, b)
    a.lease.renew(view)
    a.context.now_ns = START_NS + LEASE_NS - 1
    assert a.context.serving()
    a.context.now_ns = START_NS + LEASE_NS
    a.lease.renew(view)
    assert not a.context.serving()


def test_there_is_no_lease_before_any_echo() -> None:
    a, b, view = pair()
    assert lease_until_ns(a, view) < START_NS
    a.heartbeats.receive(beat(b, a))
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


def test_a_sole_member_of_its_view_needs_no_other_node() -> None:
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
    b.heartbeats.receive(beat(a, b))
    meant_for_the_old = beat(b, a)
    again = node("a", FIRST + 1)
    assert again.heartbeats.receive(meant_for_the_old)
    assert lease_until_ns(again, view) < START_NS


def test_an_echo_of_another_start_of_the_member_does_not_count() -> None:
    a = node("a")
    view = bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST})
    a.deaths.on_incarnation_answered(a.peers["b"], FIRST + 1)
    exchange(a, node("b", FIRST + 1))
    assert lease_until_ns(a, view) < START_NS


def test_an_older_echo_that_comes_late_does_not_shorten_a_lease() -> None:
    a, b, view = pair()
    exchange(a, b)
    exchange(a, b)
    pass_time(MILLISECOND_NS, a, b)
    stale = beat(b, a)._replace(c=START_NS)
    assert a.heartbeats.receive(stale)
    assert lease_until_ns(a, view) == START_NS + 2 * MILLISECOND_NS + LEASE_NS


def test_a_sealed_node_echoes_nothing_and_names_no_epoch() -> None:
    a, b, view = pair()
    b.heartbeats.receive(beat(a, b))
    b.context.sealed = True
    frozen = beat(b, a)
    assert (frozen.b, frozen.c) == (0, 0)
    a.heartbeats.receive(frozen)
    assert lease_until_ns(a, view) < START_NS
    pass_time(1, b)
    b.context.sealed = False
    assert (beat(b, a).b, beat(b, a).c) == (EPOCH, START_NS)


def test_a_sealed_node_takes_no_lease_from_echoes() -> None:
    a, b, view = pair()
    a.context.sealed = True
    b.heartbeats.receive(beat(a, b))
    answered = beat(b, a)
    answered = answered._replace(b=a.context.epoch)
    a.heartbeats.receive(answered)
    a.context.sealed = False
    assert lease_until_ns(a, view) < START_NS


def test_an_excluded_node_may_believe_in_its_lease_no_longer_than_our_last_echo_allows() -> None:
    a, b, view = pair()
    exchange(a, b)
    echoed_at_ns = b.peers["a"].heard_ns
    assert b.lease.granted_until_ns("a") == echoed_at_ns + LEASE_NS + LEASE_NS // CLOCK_SKEW
    assert b.lease.granted_until_ns("a") > lease_until_ns(a, view)
    b.heartbeats.receive(beat(a, b))
    assert b.lease.granted_until_ns("a") == echoed_at_ns + LEASE_NS + LEASE_NS // CLOCK_SKEW
    assert b.lease.granted_until_ns("c") < START_NS
    assert b.lease.granted_until_ns("unknown") == b.context.now_ns
