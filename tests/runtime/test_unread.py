"""Answers that clients do not read: what all have together is bounded, and what one has."""

import asyncio
from pathlib import Path

from tests.runtime.conftest import Lines
from tests.runtime.fakes import RawClient, ping, running

from ckpt_protocol.limits import FRAME_BYTES_MAX
from ckptd.core.events import ClientLost, ClientReceived, SendClient
from ckptd.runtime.clients.clients import ClientLink
from ckptd.runtime.clients.unread_answers import MEASURE_BYTES, UnreadAnswers

MIB = 1024 * 1024


class FakeLink:
    def __init__(self) -> None:
        self.unread_bytes = 0
        self.why = ""

    def cut_off(self, limit: str, why: str) -> None:
        self.why, self.unread_bytes = why, 0


def note(unread: UnreadAnswers, link: FakeLink, unread_bytes: int) -> None:
    link.unread_bytes = unread_bytes
    unread.note(link, unread_bytes)


def test_of_all_clients_the_one_with_most_is_cut_off() -> None:
    unread, one, other = UnreadAnswers(100, 4), FakeLink(), FakeLink()
    note(unread, one, 60)
    note(unread, other, 41)
    assert "client_buffer_bytes_max" in one.why
    assert not other.why
    assert unread.unread_bytes == 41


def test_a_client_that_continued_to_read_is_measured_before_any_client_is_cut_off() -> None:
    """Nothing tells that a link was drained that never had so much that its writing had to pause."""
    unread, one, other = UnreadAnswers(100, 4), FakeLink(), FakeLink()
    note(unread, one, 60)
    one.unread_bytes = 0
    note(unread, other, 60)
    assert not one.why and not other.why
    assert unread.unread_bytes == 60


def test_one_client_gets_a_quarter() -> None:
    unread, greedy, other = UnreadAnswers(400 * MIB, 4), FakeLink(), FakeLink()
    note(unread, other, 100 * MIB)
    note(unread, greedy, 100 * MIB + 1)
    assert "share_of_limits" in greedy.why
    assert not other.why
    assert unread.unread_bytes == 100 * MIB


def test_the_largest_answer_fits_whatever_the_share_is() -> None:
    assert UnreadAnswers(FRAME_BYTES_MAX, 4).link_bytes_max == FRAME_BYTES_MAX


async def test_many_clients_with_a_little_each_are_bounded_as_well(tmp_path: Path, lines: Lines) -> None:
    """Less than 1 MiB of one client was not counted: 10,000 clients could have 10 GB."""
    limit, path, clients = 4 * MIB, tmp_path / "s", []
    async with running(tmp_path, client_buffer_bytes_max=limit, socket=str(path)) as a:
        a.node.on[ClientReceived] = lambda event: [SendClient(event.link, bytes(900 * 1024))]
        for _ in range(20):
            client = RawClient(*await asyncio.open_unix_connection(str(path)))
            await client.greet(a.identity)
            client.send(ping(1))
            clients.append(client)
        await a.node.told(ClientLost)
        await a.node.told(ClientReceived, 20)
        unread = a.clients.unread
        assert MIB < unread.measure() <= limit
        while len(links := a.driver.clients.values()) > limit // (MIB // 2):
            await asyncio.sleep(0.01)  # uvloop tells a moment later that a link has ended.
        waiting = sum(link.unread_bytes for link in links if isinstance(link, ClientLink))
        assert waiting - unread.unread_bytes <= len(links) * MEASURE_BYTES
        await lines.said("exceed 4194304 bytes (client_buffer_bytes_max)")
        for client in clients:
            client.writer.transport.abort()
