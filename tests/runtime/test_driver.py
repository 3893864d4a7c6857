"""The owner of the core: order of effects, one write per destination, one timer, fail-stop."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import cast

import pytest
from tests.runtime.fakes import FakeNode

from ckptd.core.events import (
    AskRegister,
    CloseClient,
    ClosePeer,
    Effect,
    Event,
    Fence,
    Leave,
    LeaveAsked,
    Log,
    Persist,
    Quarantine,
    ReadOn,
    SendClient,
    SendHeartbeat,
    SendPeer,
    StopReading,
    TakeLarge,
    TimeCame,
    TurnCame,
    WallClockRead,
)
from ckptd.core.make_core import Core
from ckptd.runtime.clock import now_ns
from ckptd.runtime.driver import NEVER_NS, Driver

FAR_NS = 3600 * 10**9


class Trace:
    """An effect handler, and links by name, that write down what they are asked for."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []

    def persist(self, record: bytes, number: int) -> None:
        self.done.append(("persist", record, number))

    def ask_register(self, question: AskRegister) -> None:
        self.done.append(("ask", question))

    def fence(self, node_id: str) -> None:
        self.done.append(("fence", node_id))

    def send_heartbeat(self, node_id: str, data: bytes) -> None:
        self.done.append(("heartbeat", node_id, data))

    def quarantine(self, name: str, content: bytes) -> None:
        self.done.append(("quarantine", name, content))


class TraceSink:
    def __init__(self, trace: Trace, name: str) -> None:
        self.trace = trace
        self.name = name

    def send(self, data: bytes) -> None:
        self.trace.done.append((self.name, data))

    def close(self, reason: str) -> None:
        self.trace.done.append((self.name, "close", reason))

    def stop_reading(self) -> None:
        self.trace.done.append((self.name, "stop"))

    def resume_reading(self) -> None:
        self.trace.done.append((self.name, "read"))

    def accept_large_frames(self) -> None:
        self.trace.done.append((self.name, "take large"))


class Bench:
    """A driver around a fake node; `effects` are what every WallClockRead asks for."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.trace = Trace()
        self.driver = Driver(cast(Core, self.node), self.trace)
        self.driver.clients.update({1: TraceSink(self.trace, "c1"), 2: TraceSink(self.trace, "c2")})
        self.driver.peers.update({"b": TraceSink(self.trace, "b")})

    def carry_out(self, *effects: Effect) -> list[tuple[object, ...]]:
        self.node.on[WallClockRead] = lambda event: list(effects)
        self.driver.handle(WallClockRead(0))
        return self.trace.done


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_what_one_event_sends_to_one_destination_is_one_write_in_order(bench: Bench) -> None:
    done = bench.carry_out(
        SendClient(1, b"1"),
        SendPeer("b", b"2"),
        SendClient(2, b"3"),
        SendClient(1, b"4"),
        SendPeer("b", b"5"),
    )
    assert done == [("c1", b"14"), ("b", b"25"), ("c2", b"3")]


async def test_what_does_not_wait_for_a_record_is_sent_at_once(bench: Bench) -> None:
    """The core keeps back what has to wait, until it is told that the record is on disk."""
    done = bench.carry_out(SendPeer("b", b"1"), Persist(b"promise", 7), SendPeer("b", b"2"))
    assert done == [("persist", b"promise", 7), ("b", b"12")]


async def test_our_own_bug_in_an_effect_fails_the_node(bench: Bench) -> None:
    def broken(record: bytes, number: int) -> None:
        raise AssertionError("not a disk's fault")

    bench.trace.persist = broken  # type: ignore[method-assign]
    bench.carry_out(Persist(b"promise"))
    with pytest.raises(AssertionError, match="not a disk's fault"):
        await bench.driver.ended


async def test_what_was_sent_before_a_close_goes_out_before_it(bench: Bench) -> None:
    done = bench.carry_out(
        SendClient(1, b"x"),
        SendPeer("b", b"y"),
        CloseClient(1, "why"),
        ClosePeer("b", "why"),
        ClosePeer("z", ""),
    )
    assert done == [("c1", b"x"), ("c1", "close", "why"), ("b", b"y"), ("b", "close", "why")]


async def test_the_rarer_effects_are_carried_out(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    done = bench.carry_out(
        SendHeartbeat("b", b"beat"),
        Log("warning", "a line with 100%"),
        Quarantine("name", b"kept"),
        AskRegister(3, 0, None),
        Fence("b"),
        Leave(),
    )
    assert done == [
        ("heartbeat", "b", b"beat"),
        ("quarantine", "name", b"kept"),
        ("ask", AskRegister(3, 0, None)),
        ("fence", "b"),
    ]
    assert "a line with 100%" in caplog.text
    assert await bench.driver.ended is False


async def test_effects_for_links_that_are_gone_are_dropped(bench: Bench) -> None:
    assert bench.carry_out(SendClient(9, b"x"), SendPeer("z", b"x"), CloseClient(9, "why")) == []


async def test_an_exception_out_of_the_core_stops_it_permanently(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> list[Effect]:
        raise AssertionError("epoch 3 after epoch 4")

    bench.node.on[LeaveAsked] = fail
    bench.driver.handle(LeaveAsked())
    bench.driver.handle(WallClockRead(0))
    assert bench.node.kinds() == ["LeaveAsked"]
    assert "epoch 3 after epoch 4" in caplog.text
    with pytest.raises(AssertionError):
        await bench.driver.ended


async def test_the_last_words_leave_before_the_node_ends(bench: Bench) -> None:
    def fail(event: Event) -> list[Effect]:
        raise AssertionError("epoch 3 after epoch 4")

    bench.node.on[LeaveAsked] = fail
    bench.node.said_last = [SendPeer("b", b"it was "), SendPeer("b", b"request 7"), Persist(b"record", 9)]
    bench.driver.handle(LeaveAsked())
    assert sorted(map(str, bench.trace.done)) == ["('b', b'it was request 7')", "('persist', b'record', 9)"]
    with pytest.raises(AssertionError, match="epoch 3"):
        await bench.driver.ended


async def test_last_words_that_fail_too_change_nothing_of_the_end(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*event: object) -> list[Effect]:
        raise AssertionError("epoch 3 after epoch 4")

    bench.node.on[LeaveAsked] = fail
    bench.node.last_words = fail  # type: ignore[method-assign]
    bench.driver.handle(LeaveAsked())
    assert "without sending its last words" in caplog.text
    with pytest.raises(AssertionError, match="epoch 3"):
        await bench.driver.ended


async def test_time_comes_when_the_deadline_has_passed(bench: Bench) -> None:
    bench.node.deadline_ns = now_ns() + 3_000_000
    deadline_ns = bench.node.deadline_ns
    bench.driver.handle(WallClockRead(0))
    await bench.node.told(TimeCame)
    assert now_ns() >= deadline_ns


async def test_time_comes_at_once_when_the_deadline_has_passed_already(bench: Bench) -> None:
    bench.node.deadline_ns = 0
    bench.driver.handle(WallClockRead(0))
    await bench.node.told(TimeCame)


@contextlib.contextmanager
def counted_timers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    loop = asyncio.get_running_loop()
    call_later = loop.call_later
    waits: list[float] = []

    def counting(delay: float, callback: object, *args: object, **kwargs: object) -> object:
        waits.append(delay)
        return call_later(delay, callback, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_later", counting)
    yield waits


async def test_the_timer_is_armed_again_only_for_an_earlier_deadline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted_timers(monkeypatch) as waits:
        for later_ns in (FAR_NS, FAR_NS, 2 * FAR_NS, FAR_NS // 2, FAR_NS):
            bench.node.deadline_ns = now_ns() + later_ns
            bench.driver.handle(WallClockRead(0))
    # The second FAR_NS is later than the first by the time between.
    assert len(waits) == 2


async def test_a_timer_that_fires_for_a_deadline_that_moved_away_says_nothing(bench: Bench) -> None:
    bench.node.deadline_ns = now_ns() + FAR_NS
    bench.driver.handle(WallClockRead(0))
    bench.driver._wake()
    assert bench.node.kinds() == ["WallClockRead"]
    bench.node.deadline_ns = 0
    bench.driver.check_time()
    assert bench.node.kinds() == ["WallClockRead", "TimeCame"]


async def test_a_node_without_deadline_arms_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted_timers(monkeypatch) as waits:
        bench = Bench()
        assert bench.node.deadline_ns == NEVER_NS
        bench.driver.handle(WallClockRead(0))
    assert waits == []


async def test_a_stopped_driver_passes_nothing_to_the_core(bench: Bench) -> None:
    bench.node.deadline_ns = 0
    bench.driver.handle(WallClockRead(0))
    bench.driver.stop()
    bench.driver.handle(LeaveAsked())
    await asyncio.sleep(0)
    assert bench.node.kinds() == ["WallClockRead"]


# -- turns


async def test_a_core_with_work_left_continues_once_the_loop_looked_at_its_sockets(bench: Bench) -> None:
    """Heartbeats come between two turns: a datagram that is there is read before the next one."""
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    seen: list[str] = []

    def turn(event: TurnCame) -> list[Effect]:
        seen.append("turn")
        one.send(b"beat")
        bench.node.turn_due = seen.count("turn") < 5
        return []

    def heard() -> None:
        other.recv(10)
        seen.append("beat")

    with one, other:
        loop.add_reader(other, heard)
        try:
            bench.node.on[TurnCame] = turn
            bench.node.turn_due = True
            bench.carry_out()
            assert seen == []
            while seen.count("beat") < 5:
                await asyncio.sleep(0)
        finally:
            loop.remove_reader(other)
    assert seen.count("turn") == 5
    longest = max(len(run) for run in "".join(name[0] for name in seen).split("b"))
    assert longest <= 2


async def test_a_turn_is_asked_for_once_however_many_events_come(bench: Bench) -> None:
    bench.node.turn_due = True
    for _ in range(3):
        bench.carry_out()
    bench.node.turn_due = False
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.node.kinds().count("TurnCame") == 1


async def test_links_are_read_as_the_core_says(bench: Bench) -> None:
    done = bench.carry_out(StopReading(1), StopReading("b"), ReadOn(1), StopReading(99), ReadOn("z"))
    assert done == [("c1", "stop"), ("b", "stop"), ("c1", "read")]


async def test_large_frames_of_a_client_are_taken_before_it_receives_that_it_is_attached(
    bench: Bench,
) -> None:
    done = bench.carry_out(TakeLarge(1), SendClient(1, b"attached"), TakeLarge(99))
    assert done == [("c1", "take large"), ("c1", b"attached")]
