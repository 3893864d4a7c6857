"""One task at a time leads a table, with real daemons: `AsyncTable`."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean
from tests.e2e.leading import KINDS, LED, TTL_S, opened, opened_async, revoke

from ckpt_client import (
    AsyncTable,
    CheckpointError,
    LeadershipLost,
)
from ckpt_protocol import codes
from ckptd.testing import LocalCluster


@KINDS
async def test_only_the_leaders_async_table_writes(cluster: LocalCluster, name: str, flags: int) -> None:
    async with (
        await opened_async(cluster, name, "a", flags) as table,
        await opened_async(cluster, name, "b", flags) as other,
    ):
        leaders = await other.track_leader()
        assert await anext(leaders) is None
        async with table.lead(name="first") as leadership:
            await table.write("k", "1")
            await table.write_many({"k": "2"})
            async with table.transaction() as t:
                t["l"] = "3"
            await table.delete("l")
            async with table.lead(name="first") as again:
                assert again is leadership
            with pytest.raises(CheckpointError, match=LED):
                await other.write("k", "4")
            leader = await other.leader()
            assert leader is not None
            assert await anext(leaders) == leader
            assert leader.token == leadership.token
            leadership.check()
        assert await anext(leaders) is None
        await leadership.lost
        await other.write("k", "5")
        assert (await other.leadership_history()).ended[-1].reason == "resigned"


async def test_a_cancelled_task_leaves_the_queue_and_the_next_one_leads(
    cluster: LocalCluster, name: str
) -> None:
    async with (
        await opened_async(cluster, name, "a") as table,
        await opened_async(cluster, name, "b") as other,
        await opened_async(cluster, name, "c") as third,
    ):
        leadership = await table.lead()

        async def wait(waiting: AsyncTable) -> str:
            async with waiting.lead(math.inf) as led:
                return led.token

        tasks = []
        for count, waiting in enumerate((other, third), 1):
            tasks.append(asyncio.create_task(wait(waiting)))
            while len((await table.leadership_history()).waiting) < count:
                await asyncio.sleep(0.01)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert tasks[0].cancelled()
        while len((await table.leadership_history()).waiting) > 1:
            await asyncio.sleep(0.01)
        await leadership.resign()
        assert await tasks[1] > leadership.token


def test_a_task_that_is_cancelled_at_any_turn_of_its_loop_does_not_lead(
    cluster: LocalCluster, name: str
) -> None:
    async def work() -> None:
        async with (
            await opened_async(cluster, name, "a") as table,
            await opened_async(cluster, name, "b") as other,
        ):

            async def lead() -> None:
                async with table.lead():
                    await table.write("k", "1")

            async def prepare(turn: int) -> Coroutine[Any, Any, None]:
                return lead()

            async def check(turn: int) -> None:
                async with other.lead(timeout=10):
                    await other.write("k", "2")
                await table.write("k", "3")

            assert await cancel_everywhere(prepare, check) > 5

    run_clean(work)


async def test_a_lost_leadership_wakes_the_task_that_awaits_it(cluster: LocalCluster, name: str) -> None:
    called: list[bool] = []
    with opened(cluster, name, "b") as other:
        async with await opened_async(cluster, name) as table:
            async with table.lead(on_lost=lambda: called.append(True)) as leadership:
                await asyncio.to_thread(revoke, other)
                await leadership.lost.wait()
                assert called == [True]
                for write in (table.write("k", "1"), table.delete("k"), table.unlink(), table.lead()):
                    with pytest.raises(LeadershipLost):
                        await write
            await table.write("k", "2")


async def test_an_async_leader_whose_daemon_is_killed_leads_on(cluster: LocalCluster, name: str) -> None:
    address = cluster.addresses("b")
    async with (
        await AsyncTable.open(name, 100, 1000, 32, address=address, timeout=30) as table,
        table.lead(ttl=TTL_S) as leadership,
    ):
        await table.write("k", "1")
        await asyncio.to_thread(cluster.kill, "b")
        for number in range(50):
            await table.write("k", str(number))
        leadership.check()
        leader = await table.leader()
        assert leader is not None
        assert leader.token == leadership.token


async def test_a_task_leads_again_while_another_one_resigns(cluster: LocalCluster, name: str) -> None:
    async with await opened_async(cluster, name) as table:
        first = await table.lead()
        resigning = asyncio.create_task(first.resign())
        while not first.resigned:
            await asyncio.sleep(0)
        async with table.lead(timeout=30) as second:
            await resigning
            assert second.token > first.token
            await table.write("k", "1")
            leader = await table.leader()
            assert leader is not None and leader.token == second.token
            await asyncio.to_thread(refused_elsewhere, cluster, name)


def refused_elsewhere(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name, "b") as other, pytest.raises(CheckpointError, match="leads"):
        other["k"] = "2"


async def test_an_async_table_that_is_closed_while_tasks_take_turns_to_wait_leads_in_none_of_them(
    cluster: LocalCluster, name: str
) -> None:
    async with await opened_async(cluster, name) as table, table.lead():
        other = await opened_async(cluster, name, "b")

        async def wait() -> None:
            await other.lead(math.inf)

        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        while not (await table.leadership_history()).waiting:
            await asyncio.sleep(0.01)
        await other.close()
        for task in tasks:
            with pytest.raises(CheckpointError) as refused:
                await task
            assert refused.value.code == codes.BAD_HANDLE
        while (await table.leadership_history()).waiting:
            await asyncio.sleep(0.01)
