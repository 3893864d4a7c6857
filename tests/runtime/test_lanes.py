"""The lanes of received datagrams: who waits for whom, and what is dropped when too much comes."""

import pytest

from ckptd.runtime.counters import Counters
from ckptd.runtime.net import datagram_lanes as lanes_module
from ckptd.runtime.net.datagram_lanes import (
    HEARTBEATS_PER_S,
    SENDER_WAITING_MAX,
    SOURCE_PER_S,
    SOURCES_MAX,
    UNAUTHENTICATED_PER_S,
    WAITING_MAX,
    DatagramLanes,
    Lane,
)

LANES = {b"p": Lane.PEER, b"c": Lane.CLIENT, b"h": Lane.HEARTBEAT, b"s": Lane.UNAUTHENTICATED}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time in ns, as its one element."""
    at = [10**12]
    monkeypatch.setattr(lanes_module, "now_ns", lambda: at[0])
    return at


@pytest.fixture
def lanes(now: list[int]) -> DatagramLanes:
    """Lanes whose datagrams say by their first letter where they belong."""
    return DatagramLanes(Counters(), lambda datagram, address: LANES[datagram[:1]])


def put(lanes: DatagramLanes, datagram: bytes, host: str = "10.0.0.1", port: int = 1) -> None:
    lanes.put((datagram, (host, port)))


def everything(lanes: DatagramLanes) -> list[bytes]:
    return [lanes.get()[0] for _ in range(len(lanes))]


def test_heartbeats_of_peers_go_first_and_all_others_in_turn(lanes: DatagramLanes) -> None:
    for datagram in (b"s1", b"s2", b"c1", b"c2", b"h1", b"p1", b"c3", b"p2"):
        put(lanes, datagram)
    assert everything(lanes) == [b"p1", b"p2", b"c1", b"h1", b"s1", b"c2", b"s2", b"c3"]


def test_a_full_lane_drops_its_oldest_and_costs_no_other_lane_anything(lanes: DatagramLanes) -> None:
    put(lanes, b"p")
    put(lanes, b"c")
    for number in range(WAITING_MAX[Lane.HEARTBEAT] + 3):
        put(lanes, b"h%d" % number, host=f"10.0.0.{number % 9}", port=number)
    waiting = everything(lanes)
    assert len(waiting) == WAITING_MAX[Lane.HEARTBEAT] + 2
    assert {b"p", b"c", b"h3"} <= set(waiting)
    assert not {b"h0", b"h1", b"h2"} & set(waiting)


def test_each_lane_reports_how_full_it_is(lanes: DatagramLanes) -> None:
    for datagram in (b"p", b"c", b"c", b"s"):
        put(lanes, datagram)
    assert [used for used, _ in lanes.limits().values()] == [1, 2, 0, 1]
    assert [most for _, most in lanes.limits().values()] == list(WAITING_MAX.values())
    assert list(lanes.limits()) == [
        f"datagrams_{each}" for each in ("peers", "clients", "heartbeats", "strangers")
    ]


def test_a_sender_has_its_share_of_a_lane(lanes: DatagramLanes) -> None:
    for _ in range(2 * SENDER_WAITING_MAX[Lane.CLIENT]):
        put(lanes, b"c", port=1)
    put(lanes, b"c", port=2)
    assert len(lanes) == SENDER_WAITING_MAX[Lane.CLIENT] + 1
    everything(lanes)
    put(lanes, b"c", port=1)
    assert len(lanes) == 1, "it has its share again"


def test_unauthenticated_connections_are_let_in_at_a_rate_for_each_host_and_for_all(
    lanes: DatagramLanes, now: list[int]
) -> None:
    let_in = 0

    def come(host: str, times: int) -> int:
        nonlocal let_in
        before = let_in
        for port in range(times):
            put(lanes, b"s", host, port)
            let_in += len(lanes)
            everything(lanes)
        return let_in - before

    assert come("10.0.0.1", 2 * SOURCE_PER_S) == SOURCE_PER_S
    assert lanes._counters.strangers_dropped == SOURCE_PER_S
    for number in range(20):
        come(f"10.0.1.{number}", SOURCE_PER_S)
    assert let_in == UNAUTHENTICATED_PER_S
    now[0] += 10**9 // 2
    assert come("10.0.0.1", 2 * SOURCE_PER_S) == SOURCE_PER_S // 2


def test_hosts_whose_rates_are_remembered_are_bounded(lanes: DatagramLanes) -> None:
    for number in range(3 * SOURCES_MAX):
        put(lanes, b"s", f"host-{number}")
    assert len(lanes._rates) <= SOURCES_MAX


def test_the_end_comes_after_all_that_waits(lanes: DatagramLanes) -> None:
    lanes.put((None, None))
    put(lanes, b"s")
    assert everything(lanes) == [b"s", None]


def test_heartbeats_of_unknown_senders_are_let_in_at_a_bounded_rate_and_those_of_peers_all(
    lanes: DatagramLanes, now: list[int]
) -> None:
    """A flood of forged ones kept three nodes from all else: the view changed five times."""
    came = 0
    for number in range(2 * HEARTBEATS_PER_S):
        put(lanes, b"h", host=f"10.0.0.{number % 200}", port=number)
        put(lanes, b"p", port=number)
        came += len(everything(lanes))
    assert came == 3 * HEARTBEATS_PER_S
    now[0] += 10**9 // 2
    for _ in range(HEARTBEATS_PER_S):
        put(lanes, b"h", host="10.0.1.1")
        came += len(everything(lanes))
    assert came == 3 * HEARTBEATS_PER_S + SOURCE_PER_S, "from one host"
