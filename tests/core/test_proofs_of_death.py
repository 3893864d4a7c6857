"""What does and what does not prove a node dead."""

import pytest
from tests.core.lone_liveness import (
    EPOCH,
    FIRST,
    LEASE_NS,
    START_NS,
    beat,
    exchange,
    lease_until_ns,
    linked_pair,
    node,
    pair,
    pass_time,
)

from ckptd.core.settings import MILLISECOND_NS
from ckptd.core.view import bootstrap_view


def test_silence_proves_nothing() -> None:
    a, b, _ = pair()
    a.heartbeats.receive(beat(b, a))
    pass_time(10**15, a)
    assert not a.deaths.proved_dead("b", FIRST)


def test_a_newer_start_kills_the_older() -> None:
    a, b, _ = pair()
    a.heartbeats.receive(beat(b, a))
    late = node("b", now_ns=START_NS + 10**9)
    assert a.deaths.on_incarnation_answered(a.peers["b"], FIRST + 5)
    a.heartbeats.receive(beat(node("b", FIRST + 5), a))
    assert a.deaths.proved_dead("b", FIRST)
    assert a.deaths.proved_dead("b", FIRST + 4)
    assert not a.deaths.proved_dead("b", FIRST + 5)
    assert a.detector.alive("b", FIRST + 5)
    assert a.heartbeats.receive(beat(late, a)) is None
    assert a.peers["b"].incarnation == FIRST + 5


def test_a_newer_start_inherits_nothing_of_the_older() -> None:
    a, b, view = pair()
    b.own.leaving = b.own.left = b.own.member = True
    b.own.stall_reports = ("c",)
    exchange(a, b)
    a.deaths.on_new_incarnation(a.peers["b"], FIRST + 1)
    peer = a.peers["b"]
    assert not (peer.leaving or peer.left or peer.member or peer.stall_reports or peer.its_heard)
    assert not a.detector.alive("b", FIRST + 1)
    assert lease_until_ns(a, bootstrap_view(EPOCH, {"a": FIRST, "b": FIRST + 1})) < START_NS
    assert lease_until_ns(a, view) < START_NS


def test_an_earlier_start_that_answers_is_not_met() -> None:
    a, b, _ = pair()
    assert not a.deaths.on_incarnation_answered(a.peers["b"], FIRST - 1)
    assert a.heartbeats.receive(beat(b, a))


def test_a_start_that_was_taken_for_dead_and_answers_is_alive() -> None:
    """A firewall that refused for a moment once kept a living node out until it was started again."""
    a, b = linked_pair()
    assert a.deaths.on_connection_refused("b")
    pass_time(MILLISECOND_NS, a, b)
    assert a.heartbeats.receive(beat(b, a)) is None
    assert a.deaths.on_incarnation_answered(a.peers["b"], FIRST)
    assert a.heartbeats.receive(beat(b, a))
    assert a.detector.alive("b", FIRST)
    assert a.deaths.proved_dead("b", FIRST - 1)


def test_a_refused_connection_proves_death_when_a_heartbeat_has_just_arrived() -> None:
    a, _ = linked_pair()
    pass_time(LEASE_NS - 1, a)
    assert a.deaths.on_connection_refused("b")
    assert a.deaths.proved_dead("b", FIRST)
    assert not a.deaths.proved_dead("b", FIRST + 1)
    assert not a.detector.alive("b", FIRST)
    assert not a.deaths.on_connection_refused("b")


def test_a_refused_connection_proves_nothing_when_no_heartbeat_has_just_arrived() -> None:
    a, _ = linked_pair()
    pass_time(LEASE_NS, a)
    assert not a.deaths.on_connection_refused("b")
    assert not a.deaths.proved_dead("b", FIRST)


def test_a_refused_connection_proves_nothing_where_refusals_are_not_trusted() -> None:
    a, _ = linked_pair(trust_rst=False)
    assert not a.deaths.on_connection_refused("b")
    assert not a.deaths.proved_dead("b", FIRST)


def test_a_refused_connection_proves_nothing_while_there_is_a_link() -> None:
    a, _ = linked_pair()
    a.peers["b"].connected = True
    assert not a.deaths.on_connection_refused("b")
    assert not a.deaths.proved_dead("b", FIRST)


def test_a_refused_connection_proves_nothing_about_an_incarnation_that_sent_no_heartbeat() -> None:
    a, _ = linked_pair()
    a.deaths.on_incarnation_answered(a.peers["b"], FIRST + 1)
    assert not a.deaths.on_connection_refused("b")
    assert not a.deaths.proved_dead("b", FIRST + 1)


def test_a_refused_connection_proves_nothing_about_a_node_that_sent_no_heartbeat() -> None:
    a = node("a")
    assert not a.deaths.on_connection_refused("b")
    assert not a.deaths.on_connection_refused("unknown")
    assert not a.deaths.proved_dead("b", FIRST)


@pytest.mark.parametrize("fresh", [True, False])
def test_the_epoch_of_a_refusal_is_remembered_only_when_its_echoes_were_fresh(fresh: bool) -> None:
    a, b = linked_pair()
    if not fresh:
        pass_time(LEASE_NS, a, b)
        b.context.sealed = True
        a.heartbeats.receive(beat(b, a))
    assert a.deaths.on_connection_refused("b")
    assert a.peers["b"].lease_fresh_at_death == ((FIRST, EPOCH) if fresh else (0, 0))


def test_a_dead_incarnation_is_not_alive_again_when_its_heartbeats_come_late() -> None:
    a, b = linked_pair()
    assert a.deaths.on_connection_refused("b")
    pass_time(MILLISECOND_NS, a, b)
    assert a.heartbeats.receive(beat(b, a)) is None
    assert not a.detector.alive("b", FIRST)
    assert a.deaths.on_incarnation_answered(a.peers["b"], FIRST + 1)
    assert a.heartbeats.receive(beat(node("b", FIRST + 1), a))
    assert a.detector.alive("b", FIRST + 1)
