"""Heartbeats: what they carry, and which of them count."""

import dataclasses

import pytest
from tests.core.lone_liveness import EPOCH, FIRST, GRACE_NS, beat, exchange, node, pair, pass_time

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.limits import EPOCH_MAX
from ckptd.core.events import AskBack, SendHeartbeat
from ckptd.core.liveness.heartbeat import ASK_BACK_NS
from ckptd.core.settings import MILLISECOND_NS


def test_heartbeats_that_come_twice_or_out_of_order_are_ignored() -> None:
    a, b, _ = pair()
    first = beat(b, a)
    pass_time(MILLISECOND_NS, b)
    second = beat(b, a)
    assert a.heartbeats.receive(second)
    heard_ns = a.peers["b"].heard_ns
    pass_time(MILLISECOND_NS, a)
    assert a.heartbeats.receive(first) is None
    assert a.heartbeats.receive(second) is None
    assert a.peers["b"].heard_ns == heard_ns


def test_heartbeats_of_another_cluster_or_of_unknown_nodes_are_ignored() -> None:
    a, b, _ = pair()
    other = node("b", cluster="another")
    assert a.heartbeats.receive(beat(other, a)) is None
    assert a.peers["b"].their_timestamp_ns == 0
    fields = unpack_body(beat(b, a).body)
    for stranger in ("z", "a"):
        frame = beat(b, a)._replace(body=pack_body([stranger, *fields[1:]]))
        assert a.heartbeats.receive(frame) is None
    for none in (7, None, [1], "", {}):
        with pytest.raises(FrameError):
            a.heartbeats.receive(beat(b, a)._replace(body=pack_body([none, *fields[1:]])))
    assert a.heartbeats.receive(beat(b, a))


@pytest.mark.parametrize("hears", [[["c"]], [["c", "x", True]], [3], 7, [["c", None, False]]], ids=repr)
def test_a_heartbeat_with_other_fields_is_the_senders_fault(hears: object) -> None:
    a, b, _ = pair()
    fields = unpack_body(beat(b, a).body)
    fields[5] = hears
    with pytest.raises(FrameError):
        a.heartbeats.receive(beat(b, a)._replace(body=pack_body(fields)))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", pack_body([]), pack_body(["b", 1]), pack_body({"b": 1})], ids=repr
)
def test_a_heartbeat_that_is_no_array_of_its_fields_is_the_senders_fault(body: bytes) -> None:
    a, b, _ = pair()
    with pytest.raises(FrameError):
        a.heartbeats.receive(beat(b, a)._replace(body=body))


def test_a_heartbeat_lists_the_nodes_that_its_sender_receives_from_and_has_links_to() -> None:
    a, b, c = node("a"), node("b"), node("c")
    b.heartbeats.receive(beat(a, b))
    b.heartbeats.receive(beat(c, b))
    b.peers["c"].connected = True
    a.heartbeats.receive(beat(b, a))
    assert a.peers["b"].its_heard == {"a": FIRST, "c": FIRST}
    assert a.peers["b"].its_links == {"c": FIRST}
    pass_time(GRACE_NS, b)
    a.heartbeats.receive(beat(b, a))
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
        a.heartbeats.receive(frame._replace(body=pack_body(fields)))
    assert dataclasses.asdict(a.peers["b"]) == known


def test_a_heartbeat_that_says_the_same_again_is_not_parsed_again_and_its_header_counts() -> None:
    a, b = node("a"), node("b")
    for _ in range(3):
        pass_time(MILLISECOND_NS, a, b)
        b.heartbeats.receive(beat(a, b))
        assert b.peers["a"].heard_ns == b.context.now_ns
    assert len(b.heartbeats.parsed_by_body) == 1
    with pytest.raises(FrameError):
        b.heartbeats.receive(beat(a, b)._replace(b=EPOCH_MAX + 1))
    a.own.decided_epoch = 7
    b.heartbeats.receive(beat(a, b))
    assert b.peers["a"].decided_epoch == 7
    assert len(b.heartbeats.parsed_by_body) == 1, "one for each peer"


def test_a_heartbeat_carries_the_standing_of_its_sender() -> None:
    a, b, _ = pair()
    b.own.leaving, b.own.member, b.own.disk_epoch, b.own.decided_epoch, b.own.stall_reports = (
        True,
        True,
        3,
        5,
        ("c",),
    )
    a.heartbeats.receive(beat(b, a))
    peer = a.peers["b"]
    assert (peer.leaving, peer.left, peer.member) == (True, False, True)
    assert (peer.disk_epoch, peer.decided_epoch, peer.stall_reports, peer.epoch) == (3, 5, ("c",), EPOCH)


def test_one_heartbeat_goes_to_every_configured_peer() -> None:
    a = node("a")
    a.heartbeats.send_all()
    assert [effect.node_id for effect in a.context.effects if isinstance(effect, SendHeartbeat)] == ["b", "c"]


def test_a_stamp_of_a_newer_start_counts_although_it_is_smaller() -> None:
    a, b, _ = pair()
    a.heartbeats.receive(beat(b, a))
    a.deaths.on_incarnation_answered(a.peers["b"], FIRST + 1)
    assert a.heartbeats.receive(beat(node("b", FIRST + 1, now_ns=5), a))


@pytest.mark.parametrize("incarnation", [FIRST - 1, FIRST + 1, 2**63 - 1])
def test_a_heartbeat_makes_no_other_start_known(incarnation: int) -> None:
    """One forged datagram with a huge incarnation once shut a healthy node out for good."""
    a, b, _ = pair()
    exchange(a, b)
    before = dataclasses.asdict(a.peers["b"])
    frame = beat(node("b", incarnation, now_ns=10**15), a)
    a.context.effects.clear()
    assert a.heartbeats.receive(frame) is None
    assert dataclasses.asdict(a.peers["b"]) == {**before, "asked_back_ns": a.context.now_ns}
    assert a.context.counters == {"heartbeats_of_unknown_start": 1}
    assert a.context.effects == [AskBack("b")]
    pass_time(MILLISECOND_NS, a, b)
    assert a.heartbeats.receive(beat(b, a))


def test_a_flood_of_unknown_starts_makes_a_node_ask_back_once_a_second() -> None:
    a, _, _ = pair()
    for number in range(100):
        pass_time(ASK_BACK_NS // 40, a)
        a.heartbeats.receive(beat(node("b", FIRST + 1 + number), a))
    asked = [effect for effect in a.context.effects if isinstance(effect, AskBack)]
    assert len(asked) == 3
    assert a.context.counters == {"heartbeats_of_unknown_start": 100}


def test_two_heartbeats_of_one_moment_are_two() -> None:
    a, b, _ = pair()
    assert b.heartbeats.receive(beat(a, b)) is not None
    a.own.left = True
    told = beat(a, b)
    assert b.heartbeats.receive(told) is not None
    assert b.peers["a"].left
    assert b.heartbeats.receive(told) is None, "a copy is no news"
