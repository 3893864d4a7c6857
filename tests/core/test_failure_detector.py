"""Which nodes are heard, and for how long."""

from tests.core.lone_liveness import FIRST, GRACE_NS, beat, node, pair, pass_time


def test_a_peer_counts_as_alive_until_the_grace_is_over() -> None:
    a, b, _ = pair()
    assert not a.detector.alive("b", FIRST)
    a.heartbeats.receive(beat(b, a))
    pass_time(GRACE_NS - 1, a)
    assert a.detector.alive("b", FIRST)
    assert not a.detector.alive("b", FIRST - 1)
    pass_time(1, a)
    assert not a.detector.alive("b", FIRST)


def test_a_node_is_alive_to_itself_in_its_own_start_only() -> None:
    a = node("a")
    assert a.detector.alive("a", FIRST)
    assert not a.detector.alive("a", FIRST - 1)
    assert a.deaths.proved_dead("a", FIRST - 1)
    assert not a.deaths.proved_dead("a", FIRST)
    assert not a.detector.alive("unknown", FIRST)
    assert not a.deaths.proved_dead("unknown", FIRST)


def test_a_node_that_left_cleanly_sends_no_heartbeats_and_yet_is_not_dead() -> None:
    a, b, _ = pair()
    b.own.left = True
    a.heartbeats.receive(beat(b, a))
    assert a.deaths.has_left_cleanly("b", FIRST, 1)
    assert not a.deaths.has_left_cleanly("b", FIRST + 1, 1)
    assert not a.detector.alive("b", FIRST)
    assert not a.deaths.proved_dead("b", FIRST)
    assert not b.detector.alive("b", FIRST)
