"""A cancelled `await`, at every turn of the loop, leaves the connection sound."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean
from tests.client.fake_service import FakeService
from tests.client.fixtures import Start, service, start
from tests.client.test_async_table import assert_loop_is_clean
from tests.client.test_blocking_connection import ALL, cut_after, cut_before, once

from ckpt_client import AsyncTable, CheckpointError
from ckpt_client.session.planned_move import PlannedMove
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

__all__ = ["service", "start"]

SIZES = (1000, 100, 20)


async def check_table(table: AsyncTable, turn: int) -> None:
    """The next calls get their own answers."""
    await table.write("after", str(turn))
    values = await asyncio.gather(table.read("after"), table.get("none", b"-"), table.read_many(["after"]))
    assert values == [str(turn).encode(), b"-", [str(turn).encode()]]


@pytest.mark.parametrize("scheme", ALL)
def test_a_write_cancelled_at_every_turn(scheme: str, start: Start, service: FakeService) -> None:
    node = start("a", scheme)

    async def work() -> None:
        async with await AsyncTable.open("x", *SIZES, address=node.url) as table:

            async def prepare(turn: int) -> Coroutine[Any, Any, None]:
                return table.write("k", str(turn))

            await cancel_everywhere(prepare, lambda turn: check_table(table, turn))
            assert table._connection._waiters == {}
            assert table._connection._session.calls == {}
        assert_loop_is_clean()

    run_clean(work)
    assert service.applied_twice == []


@pytest.mark.parametrize("deed", [cut_before, cut_after])
def test_a_write_cancelled_at_every_turn_while_its_link_is_lost(
    deed: Any, start: Start, service: FakeService
) -> None:
    a, b = start("a", "tcp"), start("b", "tcp")

    async def work() -> None:
        async with await AsyncTable.open("x", *SIZES, address=[a.url, b.url]) as table:

            async def prepare(turn: int) -> Coroutine[Any, Any, None]:
                a.misbehave = b.misbehave = once(Kind.UPDATE, deed)
                return table.write("k", str(turn))

            async def check(turn: int) -> None:
                a.misbehave = b.misbehave = None
                await check_table(table, turn)

            turns = await cancel_everywhere(prepare, check)
            assert turns > 3
            assert table._connection._waiters == {}
        assert_loop_is_clean()

    run_clean(work)
    assert service.applied_twice == []


def test_a_write_cancelled_at_every_turn_of_a_move(start: Start, service: FakeService) -> None:
    a, b = start("a", "tcp"), start("b", "tcp")

    async def work() -> None:
        async with await AsyncTable.open("x", *SIZES, address=[a.url, b.url]) as table:
            connection = table._connection
            session = connection._session

            async def both(turn: int) -> None:
                other = next(address for address in session._endpoints._given if address != session.address)
                session.move = PlannedMove(other, "", session._identity, session._next_attach)
                await asyncio.gather(table.write("k", str(turn)), table.read_all())
                while connection._mover is not None:
                    await asyncio.sleep(0)

            async def prepare(turn: int) -> Coroutine[Any, Any, None]:
                return both(turn)

            async def check(turn: int) -> None:
                await check_table(table, turn)
                while connection._mover is not None:
                    await asyncio.sleep(0)

            turns = await cancel_everywhere(prepare, check)
            assert turns > 3
            assert connection._waiters == {} and connection._second is None
        assert_loop_is_clean()

    run_clean(work)
    assert service.applied_twice == []
    assert b.kinds().count(Kind.ATTACH) > 3, "it did move"


def test_an_iteration_cancelled_at_every_turn(start: Start, service: FakeService) -> None:
    node = start("a")
    expected = {b"%02d" % number: b"v" for number in range(20)}

    async def work() -> None:
        async with await AsyncTable.open("x", *SIZES, address=node.url) as table:
            await table.write_many(expected)

            async def prepare(turn: int) -> Coroutine[Any, Any, dict[bytes, bytes]]:
                return table.read_all()

            async def check(turn: int) -> None:
                assert await table.read_all() == expected

            turns = await cancel_everywhere(prepare, check)
            assert turns > 7, "a page is one turn at least"
        assert_loop_is_clean()

    run_clean(work)


@pytest.mark.parametrize("shared", [False, True])
def test_an_open_cancelled_at_every_turn_leaves_nothing_open(
    shared: bool, start: Start, service: FakeService
) -> None:
    node = start("a")

    async def open_and_close() -> None:
        await (await AsyncTable.open("x", *SIZES, address=node.url)).close()

    async def work() -> None:
        other = await AsyncTable.open("other", *SIZES, address=node.url) if shared else None

        async def prepare(turn: int) -> Coroutine[Any, Any, None]:
            return open_and_close()

        async def check(turn: int) -> None:
            if other is not None:
                # Answers come in order: with the second, the CLOSE of what was given up is done too.
                await check_table(other, turn)
                await check_table(other, turn)
                assert b"x" not in service.checkpoints or service.checkpoints[b"x"].opens == 0
                assert len(service.sessions) == 1
            else:
                assert_loop_is_clean()

        turns = await cancel_everywhere(prepare, check)
        assert turns > 3
        if other is not None:
            await other.close()
        assert_loop_is_clean()

    run_clean(work)
    if service.sessions:
        node.stop()  # Its thread has then taken everything in that was sent.
    assert not shared or service.sessions == {}


def test_cancelling_an_open_at_a_node_that_hangs_does_not_wait_for_it(start: Start) -> None:
    """To cancel took as long as the goodbye to the node, a second."""
    node = start("a")

    async def work() -> None:
        node.misbehave = lambda node, link, frame: frame.kind != Kind.ATTACH
        opening = asyncio.create_task(AsyncTable.open("x", *SIZES, address=node.url))
        while Kind.OPEN not in node.kinds():
            await asyncio.sleep(0)
        opening.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert opening.cancelled()
        assert_loop_is_clean()

    run_clean(work)


def test_a_close_while_the_link_is_down_does_not_wait_and_is_done_when_it_is_up_again(
    start: Start, service: FakeService
) -> None:
    a, b = start("a", "tcp"), start("b", "tcp")

    async def work() -> None:
        other = await AsyncTable.open("other", *SIZES, address=[a.url, b.url])
        table = await AsyncTable.open("x", *SIZES, address=[a.url, b.url])
        b.greets = lambda link, data: True
        await asyncio.to_thread(a.stop)
        while other._connection._session.attached:
            await asyncio.sleep(0)
        closing = asyncio.create_task(table.close())
        await asyncio.sleep(0)
        assert closing.done()
        assert service.checkpoints[b"x"].opens == 1
        b.greets = None
        await check_table(other, 1)
        await check_table(other, 2)
        assert service.checkpoints[b"x"].opens == 0
        await other.close()
        assert_loop_is_clean()

    run_clean(work)


def test_a_close_cancelled_twice_ends_at_once(start: Start, service: FakeService) -> None:
    node = start("a")

    async def work() -> None:
        table = await AsyncTable.open("x", *SIZES, address=node.url)
        node.misbehave = lambda node, link, frame: True
        closing = asyncio.create_task(table.close())
        await asyncio.sleep(0)
        for _ in range(2):
            closing.cancel()
            await asyncio.sleep(0)
        assert closing.cancelled()
        assert_loop_is_clean()

    run_clean(work)


def test_a_coroutine_that_is_never_run_again_leaves_nothing(start: Start) -> None:
    node = start("a")

    async def work() -> None:
        async with await AsyncTable.open("x", *SIZES, address=node.url) as table:
            write = table.write("k", "v")
            write.send(None)  # As a task does up to the first suspension.
            write.close()
            assert table._connection._waiters == {}
            assert table._connection._session.calls == {}
            await check_table(table, 1)

    run_clean(work)


def test_a_closed_table_says_so_in_every_task_that_waits(start: Start) -> None:
    node = start("a")

    async def work() -> None:
        table = await AsyncTable.open("x", *SIZES, address=node.url)
        node.misbehave = lambda node, link, frame: frame.kind == Kind.READ
        reads = [asyncio.create_task(table.read("k")) for _ in range(5)]
        await asyncio.sleep(0)
        reads[0].cancel()
        await table.close()
        for result in (await asyncio.gather(*reads, return_exceptions=True))[1:]:
            assert isinstance(result, CheckpointError) and result.code == codes.BAD_HANDLE

    run_clean(work)
