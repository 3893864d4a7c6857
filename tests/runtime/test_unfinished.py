"""Frames that have begun and are not whole: what all take together is bounded, and so is the time of each."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
from tests.runtime.conftest import Lines
from tests.runtime.fakes import RawClient, Running, ping, running

from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.events import ClientLost
from ckptd.runtime import daemon as daemon_module
from ckptd.runtime.clients.clients import ClientLink
from ckptd.runtime.clients.unfinished_frames import PROGRESS_BYTES_MIN, UnfinishedFrames

MIB = 1024 * 1024
SECOND_NS = 1_000_000_000
TIMEOUT_NS = 10 * SECOND_NS


class FakeLink:
    def __init__(self) -> None:
        self.is_reading = True
        self.why = ""

    def cut_off(self, limit: str, why: str) -> None:
        self.why = why


def frames(bytes_max: int = 100 * MIB) -> UnfinishedFrames:
    return UnfinishedFrames(bytes_max, TIMEOUT_NS)


def pass_seconds(unfinished: UnfinishedFrames, count: int) -> None:
    for _ in range(count):
        unfinished.pass_time(SECOND_NS)


def update(mib: int) -> bytes:
    return encode_frame(Kind.UPDATE, 1, 0, 1, bytes(mib * MIB))


# -- what all take together


def test_what_has_arrived_counts_and_not_what_a_header_announces() -> None:
    unfinished, link = frames(), FakeLink()
    unfinished.note(link, 29)
    unfinished.note(link, 5000)
    assert unfinished.buffered_bytes == 5000
    unfinished.note(link, 0)
    assert unfinished.buffered_bytes == 0


def test_beyond_the_limit_the_one_that_held_most_for_longest_is_cut_off() -> None:
    """The honest one, of which more has arrived than of any other, goes on."""
    unfinished = frames(bytes_max=100)
    old, older, honest = FakeLink(), FakeLink(), FakeLink()
    unfinished.note(older, 30)
    pass_seconds(unfinished, 2)
    unfinished.note(old, 30)
    pass_seconds(unfinished, 1)
    unfinished.note(honest, 40)
    assert unfinished.buffered_bytes == 100
    unfinished.note(honest, 60)
    assert "client_frames_bytes_max" in older.why
    assert not old.why and not honest.why
    assert unfinished.buffered_bytes == 90


def test_of_those_that_began_at_one_time_the_largest_is_cut_off() -> None:
    unfinished = frames(bytes_max=100)
    small, large = FakeLink(), FakeLink()
    unfinished.note(large, 70)
    unfinished.note(small, 31)
    assert large.why and not small.why


# -- how long one may take


@pytest.mark.parametrize("burst", [1, PROGRESS_BYTES_MIN, 40 * MIB])
def test_a_frame_that_makes_no_progress_is_cut_off(burst: int) -> None:
    unfinished, link = frames(), FakeLink()
    unfinished.note(link, burst)
    pass_seconds(unfinished, 9)
    assert not link.why
    pass_seconds(unfinished, 11)
    assert "frame_timeout_ms" in link.why
    assert unfinished.buffered_bytes == 0


def test_a_frame_that_only_drips_is_cut_off() -> None:
    unfinished, link = frames(), FakeLink()
    for buffered_bytes in range(1, 21):
        unfinished.note(link, 5 * MIB + buffered_bytes)
        pass_seconds(unfinished, 1)
    assert link.why


def test_a_frame_that_makes_progress_may_take_as_long_as_it_needs() -> None:
    unfinished, link = frames(), FakeLink()
    for second in range(1, 1000):
        unfinished.note(link, second * PROGRESS_BYTES_MIN // 10 + second)
        pass_seconds(unfinished, 1)
    assert not link.why


def test_a_stream_that_is_never_between_two_frames_is_not_slow() -> None:
    """Each read brought the end of a frame and the beginning of the next one."""
    unfinished, link = frames(), FakeLink()
    for _ in range(1000):
        unfinished.note(link, 100, begins=True)
        pass_seconds(unfinished, 1)
    assert not link.why


def test_no_time_passes_while_the_node_does_not_read() -> None:
    unfinished, link = frames(), FakeLink()
    unfinished.note(link, 5000)
    pass_seconds(unfinished, 9)
    link.is_reading = False
    pass_seconds(unfinished, 1000)
    link.is_reading = True
    pass_seconds(unfinished, 9)
    assert not link.why
    pass_seconds(unfinished, 1)
    assert link.why


# -- in a daemon


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> float:
    """A daemon that looks often; how long it lets a frame stand still, in ms."""
    monkeypatch.setattr(daemon_module, "TICK_S", 0.02)
    return 100.0


async def link_of(a: Running, client: RawClient) -> ClientLink:
    await client.ping()
    (link,) = a.driver.clients.values()
    assert isinstance(link, ClientLink)
    return link


@pytest.mark.parametrize("piece", [1, 20, 3000], ids=["length", "header", "body"])
async def test_a_client_within_a_frame_is_cut_off_when_its_time_is_over_and_an_idle_one_is_not(
    tmp_path: Path, quick: float, piece: int, lines: Lines
) -> None:
    async with running(tmp_path, frame_timeout_ms=quick) as a, a.client() as idle, a.client() as stuck:
        assert (await idle.ping()).a == 1
        stuck.send(ping(1, bytes(4000))[:piece])
        assert (await a.node.told(ClientLost)).link == 2
        await lines.said(f"client 2 (127.0.0.1:{stuck.writer.get_extra_info('sockname')[1]}) ")
        await lines.said("was cut off: it did not finish a frame")
        await asyncio.sleep(2 * quick / 1000)
        assert (await idle.ping(2)).a == 2
        assert a.node.transport.counters()["clients_cut_off"] == 1


async def test_a_client_that_has_to_wait_for_the_node_is_not_cut_off(tmp_path: Path, quick: float) -> None:
    async with running(tmp_path, frame_timeout_ms=quick) as a, a.client() as client:
        link = await link_of(a, client)
        frame = ping(7, bytes(4000))
        client.send(frame[:1000])
        while not a.clients.unfinished.buffered_bytes:
            await asyncio.sleep(0.01)
        link.stop_reading()
        client.send(frame[1000:])
        await asyncio.sleep(3 * quick / 1000)
        link.resume_reading()
        assert (await client.frame()).a == 7
        assert a.clients.unfinished.buffered_bytes == 0


async def test_unfinished_frames_of_all_clients_together_are_bounded(tmp_path: Path, lines: Lines) -> None:
    """25 connections with 79 MiB each of an unfinished frame took 2 GB, for ever."""
    async with (
        running(tmp_path) as a,
        a.client() as one,
        a.client() as other,
    ):
        a.clients.unfinished.bytes_max = 8 * MIB
        await one.attach()
        await other.attach()
        one.send(update(6)[: 5 * MIB])
        while a.clients.unfinished.buffered_bytes < 5 * MIB:
            await asyncio.sleep(0.01)
        other.send(update(6)[: 5 * MIB])
        assert (await a.node.told(ClientLost)).link in (1, 2)
        await lines.said("exceed 8388608 bytes (client_frames_bytes_max)")
        assert a.clients.unfinished.buffered_bytes <= 8 * MIB
        assert len(a.driver.clients) == 1


async def test_a_pause_of_the_process_is_not_the_clients(tmp_path: Path, quick: float) -> None:
    """Its bytes had come meanwhile, and the daemon had not read them."""
    async with running(tmp_path, frame_timeout_ms=quick) as a:
        frame = ping(7, bytes(4000))
        with socket.create_connection(("127.0.0.1", a.port)) as sock:
            client = RawClient(*await asyncio.open_connection(sock=sock.dup()))
            await client.greet(a.identity)
            sock.sendall(frame[:1000])
            while not a.clients.unfinished.buffered_bytes:
                await asyncio.sleep(0.01)
            sock.sendall(frame[1000:])
            time.sleep(3 * quick / 1000)
            assert (await client.frame()).a == 7
            client.writer.transport.abort()
