"""The wrapper of asyncio-dgram: each test is one of the traps that it closes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ckptd.runtime.counters import Counts
from ckptd.runtime.net import datagram_lanes as lanes_module
from ckptd.runtime.net.datagram_lanes import Lane
from ckptd.runtime.net.datagrams import Datagrams


@pytest.fixture
async def bound() -> AsyncIterator[tuple[Datagrams, Counts]]:
    counts = Counts()
    datagrams = await Datagrams.bind(socket.AF_INET, ("127.0.0.1", 0), counts)
    yield datagrams, counts
    datagrams.close()


async def receive(datagrams: Datagrams, count: int) -> list[bytes]:
    received: list[bytes] = []
    enough = asyncio.Event()

    def take(datagram: bytes, address: object) -> None:
        received.append(datagram)
        if len(received) >= count:
            enough.set()

    receiving = asyncio.create_task(datagrams.receive_all(take))
    await enough.wait()
    receiving.cancel()
    return received


async def test_what_is_sent_to_it_is_received(bound: tuple[Datagrams, Counts]) -> None:
    datagrams, _ = bound
    datagrams.send(b"one", datagrams.address)
    datagrams.send(b"two", datagrams.address)
    assert await receive(datagrams, 2) == [b"one", b"two"]


async def test_a_send_that_fails_costs_no_later_send(bound: tuple[Datagrams, Counts]) -> None:
    """Unwrapped, the error of a send is raised by the next one, whose datagram is then lost."""
    datagrams, counts = bound
    datagrams.send(bytes(100_000), datagrams.address)
    datagrams.send(b"unreachable", ("255.255.255.255", 9))
    datagrams.send(b"good", datagrams.address)
    assert await receive(datagrams, 1) == [b"good"]
    assert counts.datagram_errors == 2


async def test_a_refused_datagram_costs_no_later_one(bound: tuple[Datagrams, Counts]) -> None:
    datagrams, _ = bound
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()
    for _ in range(3):
        datagrams.send(b"to nobody", nobody)
    datagrams.send(b"good", datagrams.address)
    assert await receive(datagrams, 1) == [b"good"]


async def test_what_nobody_takes_is_dropped_beyond_a_limit(
    bound: tuple[Datagrams, Counts], monkeypatch: pytest.MonkeyPatch
) -> None:
    datagrams, counts = bound
    monkeypatch.setitem(lanes_module.SENDER_WAITING_MAX, Lane.STRANGER, 2)
    for number in range(5):
        datagrams.send(b"%d" % number, datagrams.address)
    for _ in range(20):
        # Each turn of the loop reads at least one datagram; a taker would start before.
        await asyncio.sleep(0)
    assert await receive(datagrams, 2) == [b"0", b"1"]
    assert counts.datagrams_dropped == 3


class Choked(socket.socket):
    """A socket whose send buffer is full as long as a test says so."""

    full = False

    def sendto(self, *arguments: Any) -> int:
        if self.full:
            raise BlockingIOError
        return super().sendto(*arguments)


async def test_a_full_send_buffer_drops_instead_of_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13.0 without uvloop: after some 8,000 datagrams that the kernel had no room for none left.

    cpython issue 135444: the transport counts each by 8 bytes too many, and is full for ever.
    """
    monkeypatch.setattr(socket, "socket", Choked)
    counts = Counts()
    datagrams = await Datagrams.bind(socket.AF_INET, ("127.0.0.1", 0), counts)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        for _ in range(9_000):
            Choked.full = True
            datagrams.send(b"dropped", nobody.getsockname())
            Choked.full = False
            await asyncio.sleep(0)
    datagrams.send(b"kept", datagrams.address)
    async with asyncio.timeout(5):
        assert await receive(datagrams, 1) == [b"kept"]
    assert counts.datagrams_dropped == 9_000
    datagrams.close()


async def test_closing_ends_the_receiver_and_sends_are_dropped(bound: tuple[Datagrams, Counts]) -> None:
    datagrams, counts = bound
    receiving = asyncio.create_task(datagrams.receive_all(lambda datagram, address: None))
    await asyncio.sleep(0)
    datagrams.close()
    await receiving
    datagrams.send(b"late", ("127.0.0.1", 9))
    assert counts.datagram_errors == 1


async def test_the_receive_buffer_holds_a_burst(bound: tuple[Datagrams, Counts]) -> None:
    """The default of Linux holds 92 datagrams of 1 KiB; a node resumed after a pause finds more than that."""
    datagrams, _ = bound
    datagrams.lanes.lane = lambda datagram, address: Lane.CLIENT
    for number in range(500):
        datagrams.send(b"%4d" % number + bytes(1020), datagrams.address)
    assert len(await receive(datagrams, 500)) == 500
