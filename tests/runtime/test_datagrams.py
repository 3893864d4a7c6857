"""The wrapper of asyncio-dgram: each test is one of the traps that it closes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ckptd.runtime.counters import Counters
from ckptd.runtime.net import datagram_lanes as lanes_module
from ckptd.runtime.net.datagram_lanes import DatagramLanes, Lane
from ckptd.runtime.net.datagram_receiver import DatagramReceiver
from ckptd.runtime.net.datagram_sender import DatagramSender
from ckptd.runtime.net.listening import bind_datagram_socket


class Bound:
    """A UDP socket that sends and receives."""

    def __init__(self, lane: Lane = Lane.UNAUTHENTICATED) -> None:
        self.counters = Counters()
        self.socket = bind_datagram_socket(socket.AF_INET, ("127.0.0.1", 0))
        self.address = self.socket.getsockname()
        self.sender = DatagramSender(self.socket, self.counters)
        self.lanes = DatagramLanes(self.counters, lambda datagram, address: lane)
        self.receiver: DatagramReceiver

    async def __aenter__(self) -> "Bound":
        self.receiver = await DatagramReceiver.open(self.socket, self.lanes, self.counters)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.receiver.close()
        self.sender.close()


@pytest.fixture
async def bound() -> AsyncIterator[Bound]:
    async with Bound() as made:
        yield made


async def receive(bound: Bound, count: int) -> list[bytes]:
    received: list[bytes] = []
    enough = asyncio.Event()

    def take(datagram: bytes, address: object) -> None:
        received.append(datagram)
        if len(received) >= count:
            enough.set()

    receiving = asyncio.create_task(bound.receiver.receive_all(take))
    await enough.wait()
    receiving.cancel()
    return received


async def test_what_is_sent_to_it_is_received(bound: Bound) -> None:
    bound.sender.send(b"one", bound.address)
    bound.sender.send(b"two", bound.address)
    assert await receive(bound, 2) == [b"one", b"two"]


async def test_a_send_that_fails_costs_no_later_send(bound: Bound) -> None:
    """Unwrapped, the error of a send is raised by the next one, whose datagram is then lost."""
    bound.sender.send(bytes(100_000), bound.address)
    bound.sender.send(b"unreachable", ("255.255.255.255", 9))
    bound.sender.send(b"good", bound.address)
    assert await receive(bound, 1) == [b"good"]
    assert bound.counters.datagram_errors == 2


async def test_a_refused_datagram_costs_no_later_one(bound: Bound) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()
    for _ in range(3):
        bound.sender.send(b"to nobody", nobody)
    bound.sender.send(b"good", bound.address)
    assert await receive(bound, 1) == [b"good"]


async def test_what_is_not_received_is_dropped_beyond_a_limit(
    bound: Bound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lanes_module.SENDER_WAITING_MAX, Lane.UNAUTHENTICATED, 2)
    for number in range(5):
        bound.sender.send(b"%d" % number, bound.address)
    for _ in range(20):
        # Each turn of the loop reads at least one datagram; a taker would start before.
        await asyncio.sleep(0)
    assert await receive(bound, 2) == [b"0", b"1"]
    assert bound.counters.datagrams_dropped == 3


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
    bound = await Bound().__aenter__()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
        nobody.bind(("127.0.0.1", 0))
        for _ in range(9_000):
            Choked.full = True
            bound.sender.send(b"dropped", nobody.getsockname())
            Choked.full = False
            await asyncio.sleep(0)
    bound.sender.send(b"kept", bound.address)
    async with asyncio.timeout(5):
        assert await receive(bound, 1) == [b"kept"]
    assert bound.counters.datagrams_dropped == 9_000
    bound.close()


async def test_closing_ends_the_receiver_and_sends_are_dropped(bound: Bound) -> None:
    receiving = asyncio.create_task(bound.receiver.receive_all(lambda datagram, address: None))
    await asyncio.sleep(0)
    bound.close()
    await receiving
    bound.sender.send(b"late", ("127.0.0.1", 9))
    assert bound.counters.datagram_errors == 1


async def test_the_receive_buffer_holds_a_burst() -> None:
    """The default of Linux holds 92 datagrams of 1 KiB; a node resumed after a pause finds more than that."""
    async with Bound(Lane.CLIENT) as bound:
        for number in range(500):
            bound.sender.send(b"%4d" % number + bytes(1020), bound.address)
        assert len(await receive(bound, 500)) == 500
