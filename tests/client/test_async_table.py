"""`AsyncTable` over real sockets: the same calls, one shared connection, and tasks that give up anywhere."""

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode, FakeService
from tests.client.fixtures import Start, service, start
from tests.client.test_blocking_connection import ALL, STREAMS, cut_after, cut_before, once

from ckpt_client import AsyncConnection, AsyncTable, CheckpointError, SaAisError
from ckpt_client.io import aio_connection
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_MAX
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error

__all__ = ["service", "start"]

ACTIVE, COLLOCATED = 2, 8


@pytest.fixture(params=ALL)
def node(request: pytest.FixtureRequest, start: Start) -> FakeNode:
    """One node, by each way to reach it."""
    return start("a", request.param)


@pytest.fixture
async def table(node: FakeNode) -> AsyncIterator[AsyncTable]:
    """A table of 10 sections of 1000 bytes, ids of 20; afterwards nothing of it is left in the loop."""
    async with await AsyncTable.open("phones", 10, 1000, 20, address=node.url) as opened:
        yield opened
    assert_loop_is_clean()


def assert_loop_is_clean() -> None:
    """No task but the test's, no connection that is still known."""
    loop = asyncio.get_running_loop()
    assert not aio_connection._connections.get(loop)
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert [task for task in others if "_connect" in repr(task)] == []


async def refusal(code: int, awaitable: Any) -> CheckpointError:
    """The error of a call that is to fail with `code`."""
    with pytest.raises(CheckpointError) as caught:
        await awaitable
    assert caught.value.code == code, caught.value
    return caught.value


async def test_the_calls_do_what_tables_do(table: AsyncTable) -> None:
    await table.write("a", "long value")
    await table.write(b"a", b"1")
    await table.write_many({"b": "2", "a": "0"})
    await table.write_many([("c", b"3")])
    assert await table.read("a") == b"0"
    assert await table.read_many(["b", "a"]) == [b"2", b"0"]
    assert [key async for key in table] == [b"a", b"b", b"c"]
    assert [item async for item in table.items()] == [(b"a", b"0"), (b"b", b"2"), (b"c", b"3")]
    assert [value async for value in table.values()] == [b"0", b"2", b"3"]
    assert await table.read_all() == {b"a": b"0", b"b": b"2", b"c": b"3"}
    assert await table.contains("a") and not await table.contains("z")
    assert await table.get("z", b"-") == b"-"
    await table.delete("a")
    await table.delete("a")
    status = await table.status()
    assert (status.sections, status.active, status.opens) == (2, "a", 1)
    await table.activate()
    await table.synchronize()
    assert await table.get_active_status()
    assert (table.name, table.flags, table.retention_ms) == ("phones", 1, SA_TIME_MAX)
    assert (table.max_sections, table.max_section_size_bytes, table.max_section_id_size_bytes) == (
        10,
        1000,
        20,
    )
    assert table.section_expiration == SA_TIME_END


async def test_errors_are_checkpoint_errors(table: AsyncTable) -> None:
    error = await refusal(codes.NOT_EXIST, table.read("z"))
    assert isinstance(error, KeyError)
    await refusal(codes.INVALID_PARAM, table.read_many([]))
    await refusal(codes.INVALID_PARAM, table.write("k", bytes(1001)))
    await refusal(codes.INVALID_PARAM, table.write("k", "v", timeout=0))


async def test_pages_of_many_sections(table: AsyncTable) -> None:
    expected = {bytes([65 + i]): bytes([i]) for i in range(10)}
    await table.write_many(expected)
    assert await table.read_all() == expected


async def test_tables_share_one_connection_and_each_closes_its_own(
    start: Start, service: FakeService
) -> None:
    url = start().url
    first = await AsyncTable.open("x", 9, 100, 9, address=url)
    second = await AsyncTable.open("y", 9, 100, 9, address=url)
    assert len(service.sessions) == 1
    await first.write("k", "x")
    await second.write("k", "y")
    await first.close()
    assert service.checkpoints[b"x"].opens == 0
    assert await second.read("k") == b"y"
    await refusal(codes.BAD_HANDLE, first.read("k"))
    await refusal(codes.BAD_HANDLE, first.unlink())
    await second.close()
    await second.close()
    assert service.sessions == {}
    assert_loop_is_clean()


async def test_unlink_leaves_a_successor_of_the_name_alone(start: Start) -> None:
    url = start().url
    async with await AsyncTable.open("x", 9, 100, 9, address=url) as older:
        await older.unlink()
        async with await AsyncTable.open("x", 9, 100, 9, address=url) as newer:
            await refusal(codes.NOT_EXIST, older.unlink())
            async with await AsyncTable.open("x", address=url) as again:
                await again.write("k", "v")
                assert await newer.read("k") == b"v", "the name still means the newer one"
            await newer.unlink()


async def test_a_table_without_a_time_out_waits_as_long_as_it_takes(start: Start) -> None:
    url = start().url
    async with await AsyncTable.open("x", 9, 100, 9, address=url, timeout=math.inf) as table:
        await table.write("k", "v")
        assert await table.read("k", timeout=None) == b"v"
        assert await table.read("k", timeout=math.inf) == b"v"
        await table.unlink()
    for wrong in (0, -1, "1", True, float("nan")):
        await refusal(codes.INVALID_PARAM, AsyncTable.open("x", address=url, timeout=wrong))  # type: ignore[arg-type]


async def test_many_tasks_travel_together(start: Start, service: FakeService) -> None:
    async with await AsyncTable.open("x", 1000, 100, 9, address=start().url) as table:
        await asyncio.gather(*(table.write(str(i), str(i)) for i in range(500)))
        values = await asyncio.gather(*(table.read(str(i)) for i in range(500)))
        assert values == [str(i).encode() for i in range(500)]
    assert service.checkpoints[b"x"].applied == 500


async def test_an_address_without_a_listener_is_unavailable_and_leaves_nothing() -> None:
    opening = AsyncTable.open("x", 1, 1, 1, address="unix:///nowhere/s", timeout=0.05)
    error = await refusal(codes.UNAVAILABLE, opening)
    assert "unix:///nowhere/s" in str(error) and "ckptd --node-id a" in str(error)
    await asyncio.sleep(0)  # What tried to connect is cancelled in the loop's next turn.
    assert_loop_is_clean()


async def test_bad_arguments_are_refused_without_a_connection() -> None:
    await refusal(codes.INVALID_PARAM, AsyncTable.open("", 1, 1, 1))
    await refusal(codes.INVALID_PARAM, AsyncTable.open("x", 1, 1, 1, address="http://x"))
    await refusal(codes.INVALID_PARAM, AsyncTable.open("x", 1, 1, 1, timeout=-1))
    assert_loop_is_clean()


@pytest.mark.parametrize("scheme", ALL)
@pytest.mark.parametrize("deed", [cut_before, cut_after])
async def test_writes_survive_the_loss_of_their_link_and_are_applied_once(
    scheme: str, deed: Any, start: Start, service: FakeService
) -> None:
    node = start("a", scheme)
    async with await AsyncTable.open("x", 99, 100, 9, address=node.url) as table:
        node.misbehave = once(Kind.UPDATE, deed)
        await asyncio.gather(*(table.write(str(i), "v") for i in range(20)))
        assert len(await table.read_all()) == 20
    assert service.checkpoints[b"x"].applied == 20
    assert service.applied_twice == []


@pytest.mark.parametrize("scheme", STREAMS)
async def test_session_and_handles_move_to_the_next_node(
    scheme: str, start: Start, service: FakeService
) -> None:
    a, b = start("a", scheme), start("b", scheme)
    async with await AsyncTable.open("x", 99, 100, 9, address=[a.url, b.url]) as table:
        await table.write("k", "1")
        handle = table.handle
        await asyncio.to_thread(a.stop)
        await asyncio.gather(*(table.write(str(i), "v") for i in range(20)))
        assert (table.node_id, table.handle) == ("b", handle)
        assert await table.read("k") == b"1"
    assert service.applied_twice == []


async def test_an_idle_session_is_taken_to_the_next_node_at_once(start: Start, service: FakeService) -> None:
    """Its grace time is ten seconds: waiting for the next call could be too long."""
    a, b = start("a"), start("b")
    moved = asyncio.Event()
    loop = asyncio.get_running_loop()

    def note(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        loop.call_soon_threadsafe(moved.set)
        return False

    async with await AsyncTable.open("x", 99, 100, 9, address=[a.url, b.url]) as table:
        b.misbehave = note
        await asyncio.to_thread(a.stop)
        await moved.wait()
        assert await table.get("k") is None
        assert table.node_id == "b"


async def test_time_outs(start: Start) -> None:
    node = start("a")
    async with await AsyncTable.open("x", 99, 100, 9, address=node.url) as table:
        node.misbehave = lambda node, link, frame: frame.kind == Kind.UPDATE
        await refusal(codes.TIMEOUT, table.write("k", "v", timeout=0.02))

        def busy(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
            if frame.kind == Kind.UPDATE:
                link.answer(frame.a, answer_error(codes.TRY_AGAIN, "no view"))
            return frame.kind == Kind.UPDATE

        node.misbehave = busy
        # The last repetition before it comes half a time-out earlier, so that its answer is there.
        await refusal(codes.TRY_AGAIN, table.write("k", "v", timeout=0.5))
        node.misbehave = None
        await table.write("k", "w")
        assert await table.read("k") == b"w"


# -- cancellation


async def test_a_cancelled_call_does_not_spoil_the_next(table: AsyncTable, node: FakeNode) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def swallow(link: FakeLink, frame: Frame) -> None:
        loop.call_soon_threadsafe(asked.set)

    node.misbehave = once(Kind.UPDATE, swallow)
    write = asyncio.create_task(table.write("k", "lost"))
    await asked.wait()
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    await table.write("k", "v")
    assert await table.read("k") == b"v"


async def test_a_call_cancelled_before_anything_was_sent_is_nothing(table: AsyncTable) -> None:
    write = asyncio.create_task(table.write("k", "v"))
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    assert await table.get("k") is None


@pytest.mark.parametrize("turns", range(8))
async def test_calls_cancelled_at_every_turn_of_the_loop_leave_the_connection_whole(
    turns: int, start: Start, service: FakeService
) -> None:
    async with await AsyncTable.open("x", 1000, 100, 9, address=start("a", "tcp").url) as table:
        for number in range(20):
            tasks = [asyncio.create_task(table.write(f"{number}.{i}", "v")) for i in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            tasks[number % 5].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
        kept = await table.read_all()
        assert len(kept) >= 80
    assert service.applied_twice == []


@pytest.mark.parametrize("turns", range(6))
async def test_an_open_cancelled_at_every_turn_leaves_nothing_open(
    turns: int, start: Start, service: FakeService
) -> None:
    url = start("a").url
    async with await AsyncTable.open("other", 9, 100, 9, address=url) as other:
        opening = asyncio.create_task(AsyncTable.open("x", 9, 100, 9, address=url))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        result = (await asyncio.gather(opening, return_exceptions=True))[0]
        if isinstance(result, AsyncTable):
            await result.close()
        # Answers come in order: when a later call is answered, the orphan's CLOSE goes before the next one.
        await other.write("k", "v")
        await other.write("k", "v")
        assert b"x" not in service.checkpoints or service.checkpoints[b"x"].opens == 0
    assert_loop_is_clean()


async def test_cancelling_the_first_open_leaves_the_loop_clean(start: Start) -> None:
    url = start("a").url
    for turns in range(10):
        opening = asyncio.create_task(AsyncTable.open("x", 9, 100, 9, address=url))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        result = (await asyncio.gather(opening, return_exceptions=True))[0]
        if isinstance(result, AsyncTable):
            await result.close()
        assert_loop_is_clean()
    async with await AsyncTable.open("x", 9, 100, 9, address=url) as table:
        await table.write("k", "v")


async def test_asyncios_own_time_out_is_a_cancellation(table: AsyncTable, node: FakeNode) -> None:
    node.misbehave = once(Kind.READ, lambda link, frame: None)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await table.read("k")
    await table.write("k", "v")
    assert await table.read("k") == b"v"


async def test_closing_while_others_wait_ends_their_calls(start: Start) -> None:
    node = start("a")
    table = await AsyncTable.open("x", 9, 100, 9, address=node.url)
    node.misbehave = lambda node, link, frame: frame.kind == Kind.READ
    read = asyncio.create_task(table.read("k"))
    await asyncio.sleep(0)
    await table.close()
    await refusal(codes.BAD_HANDLE, read)
    assert_loop_is_clean()


# -- auto-activation, the connection


async def test_without_an_active_replica_the_local_one_is_activated(start: Start) -> None:
    node = start()
    async with await AsyncTable.open("x", 2, 10, 2, ACTIVE | COLLOCATED, address=node.url) as table:
        assert not await table.get_active_status()
        await table.write("k", "v")
        assert await table.get_active_status()


async def test_an_activation_that_a_view_has_undone_is_tried_again(start: Start) -> None:
    """It fails with TIMEOUT. The write, of which nothing was done, must not fail with that."""
    node, undone = start(), list[Frame]()

    def undo(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind != Kind.ACTIVE_SET or undone:
            return False
        undone.append(frame)
        link.answer(frame.a, answer_error(codes.TIMEOUT, "the former active replica was lost meanwhile"))
        return True

    node.misbehave = undo
    async with await AsyncTable.open("x", 2, 10, 2, ACTIVE | COLLOCATED, address=node.url) as table:
        await table.write("k", "v")
        assert undone and await table.read("k") == b"v"


async def test_auto_activate_off(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AsyncTable, "default_auto_activate", True)
    async with await AsyncTable.open("x", 2, 10, 2, ACTIVE | COLLOCATED, address=start().url) as table:
        table.set_auto_activate(False)
        await refusal(codes.NOT_EXIST, table.write("k", "v"))
        await table.activate()
        await table.write("k", "v")


async def test_describe_and_unlink_need_no_table(start: Start, service: FakeService) -> None:
    node = start()
    await (await AsyncTable.open("x", 9, 100, 9, address=node.url)).close()
    connection = AsyncConnection.shared(node.url)
    assert (await connection.describe("cluster")).node_id == "a"
    await connection.unlink("x")
    assert service.checkpoints == {}
    await connection.release()
    with pytest.raises(SaAisError):
        await connection.describe("cluster")
    assert_loop_is_clean()


async def test_large_values(start: Start) -> None:
    value = bytes(range(256)) * 10_000
    async with await AsyncTable.open("x", 9, 10_000_000, 9, address=start("a", "tcp").url) as table:
        await table.write("k", value)
        assert await table.read("k") == value


def test_a_table_of_another_loop_is_refused_and_undisturbed(start: Start) -> None:
    url = start("a").url
    with asyncio.Runner() as first, asyncio.Runner() as second:
        table = first.run(AsyncTable.open("x", 9, 100, 9, address=url))
        error = second.run(refusal(codes.BAD_HANDLE, table.write("k", "other")))
        assert "another event loop" in str(error)
        first.run(table.write("k", "v"))
        assert first.run(table.read("k")) == b"v"
        first.run(table.close())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_table_whose_loop_was_left_is_closed_quietly(start: Start) -> None:
    url = start("a").url
    with asyncio.Runner() as first:
        table = first.run(AsyncTable.open("x", 9, 100, 9, address=url))
    with asyncio.Runner() as second:
        second.run(table.close())
        second.run(refusal(codes.BAD_HANDLE, table.read("k")))
    del table
    gc.collect()
