"""`ha`: programs with standbys, with real daemons."""

import asyncio
import queue
import subprocess
import sys
import threading
from collections.abc import Awaitable, Coroutine
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean
from tests.e2e.leading import KINDS, TTL_S, opened, opened_async, revoke, wait_queued

from ckpt_client import (
    AsyncLeadership,
    AsyncTable,
    Leadership,
    Table,
    UndecodableValue,
    codecs,
    ha,
)
from ckpt_client.leadership.standby import Standby
from ckptd.testing import LocalCluster


def test_the_next_one_serves_with_all_that_was_acknowledged(cluster: LocalCluster, name: str) -> None:
    served: queue.Queue[tuple[str, int]] = queue.Queue()
    written = 30

    def program(node: str) -> None:
        def serve(state: dict[bytes, bytes], leadership: Leadership) -> None:
            begin = int(state.get(b"n", b"0"))
            assert len(state) == begin + (begin > 0)
            served.put((node, begin))
            for number in range(begin + 1, begin + written + 1):
                table.Write({"n": str(number), f"k{number}": "x"})

        with opened(cluster, name, node) as table:
            ha.run(serve, table=table)

    threads = [threading.Thread(target=program, args=(node,)) for node in "abc"]
    with opened(cluster, name) as table, table.lead():
        for count, thread in enumerate(threads, 1):
            thread.start()
            wait_queued(cluster, table, count)
    for thread in threads:
        thread.join()
    assert [served.get() for _ in threads] == [("a", 0), ("b", written), ("c", 2 * written)]


@KINDS
def test_a_standby_that_loses_its_node_has_everything_when_it_leads(
    cluster: LocalCluster, name: str, flags: int
) -> None:
    served: queue.Queue[dict[bytes, bytes]] = queue.Queue()

    def wait() -> None:
        with Table(name, address=cluster.addresses("b"), timeout=30) as standby:
            ha.run(lambda state, leadership: served.put(state), table=standby)

    with Table(name, 100, 1000, 32, flags, address=cluster.addresses("a"), timeout=30) as table:
        thread = threading.Thread(target=wait)
        with table.lead(ttl=TTL_S):
            table.Write({f"k{number}": "x" for number in range(50)})
            thread.start()
            wait_queued(cluster, table, 1)
            table["l"] = "1"
            cluster.kill("b")
            for number in range(20):
                table[f"k{number}"] = str(number)
            table.Delete("k49")
            expected = table.read_all()
        thread.join()
        assert served.get() == expected


def test_a_program_that_has_lost_it_waits_again(cluster: LocalCluster, name: str) -> None:
    begun: queue.Queue[Leadership] = queue.Queue()

    def serve(state: dict[bytes, bytes], leadership: Leadership) -> str:
        begun.put(leadership)
        if state:
            return "done"
        table["k"] = "1"
        leadership.lost.wait()
        leadership.check()
        return "unreachable"

    outcome: queue.Queue[str] = queue.Queue()
    with opened(cluster, name) as table, opened(cluster, name, "b") as other:
        thread = threading.Thread(target=lambda: outcome.put(ha.run(serve, table=table)))
        thread.start()
        first = begun.get()
        cluster.wait_until(lambda: "k" in other, "it serves")
        revoke(other)
        second = begun.get()
        thread.join()
        assert outcome.get() == "done"
        assert second.token > first.token
        assert other.leader() is None


def test_what_serve_raises_ends_the_run_and_the_leadership(cluster: LocalCluster, name: str) -> None:
    def serve(state: dict[bytes, bytes], leadership: Leadership) -> None:
        raise ZeroDivisionError

    with opened(cluster, name) as table:
        with pytest.raises(ZeroDivisionError):
            ha.run(serve, table=table)
        assert table.leader() is None
        table["k"] = "1"


def test_to_resign_what_was_lost_does_not_end_the_run(cluster: LocalCluster, name: str) -> None:
    served: list[str] = []

    def serve(state: dict[bytes, bytes], leadership: Leadership) -> int:
        served.append(leadership.token)
        try:
            if len(served) == 1:
                revoke(other)
                leadership.lost.wait()
        finally:
            leadership.resign()
        return len(served)

    with opened(cluster, name) as table, opened(cluster, name, "b") as other:
        assert ha.run(serve, table=table) == 2


async def test_an_async_program_does_not_serve_what_it_lost_before_it_began(
    cluster: LocalCluster, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[str] = []
    complete = Standby.complete

    async def lose_first(standby: Standby, position: int, over: Awaitable[object]) -> dict[bytes, bytes]:
        if not lost:
            lost.append(await table.leader())
            await asyncio.to_thread(revoke, other)
            await over
        return await complete(standby, position, over)

    async def serve(state: dict[bytes, bytes], leadership: AsyncLeadership) -> None:
        served.append(leadership.token)

    lost: list[object] = []
    monkeypatch.setattr(Standby, "complete", lose_first)
    with opened(cluster, name, "b") as other:
        async with await opened_async(cluster, name) as table:
            await ha.run_async(serve, table=table)
            history = await table.leadership_history()
    assert served == [history.ended[-1].token]
    assert [past.reason for past in history.ended] == ["revoked", "resigned"]


async def test_an_async_program_is_cancelled_when_it_has_lost_it(cluster: LocalCluster, name: str) -> None:
    begun: asyncio.Queue[dict[bytes, bytes]] = asyncio.Queue()
    cancelled: list[bool] = []

    async def serve(state: dict[bytes, bytes], leadership: AsyncLeadership) -> str:
        begun.put_nowait(state)
        if state:
            return "done"
        await table.write("k", "1")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(leadership.lost.is_set())
            raise
        return "unreachable"

    with opened(cluster, name, "b") as other:
        async with await opened_async(cluster, name) as table:
            task = asyncio.create_task(ha.run_async(serve, table=table))
            assert await begun.get() == {}
            await asyncio.to_thread(cluster.wait_until, lambda: "k" in other, "it serves")
            await asyncio.to_thread(revoke, other)
            assert await begun.get() == {b"k": b"1"}
            assert await task == "done"
            assert cancelled == [True]
            assert await table.leader() is None


async def test_a_cancelled_run_resigns(cluster: LocalCluster, name: str) -> None:
    begun = asyncio.Event()

    async def serve(state: dict[bytes, bytes], leadership: AsyncLeadership) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with await opened_async(cluster, name) as table:
        task = asyncio.create_task(ha.run_async(serve, table=table))
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert await table.leader() is None


def test_a_run_that_is_cancelled_at_any_turn_of_its_loop_does_not_lead(
    cluster: LocalCluster, name: str
) -> None:
    async def work() -> None:
        async with (
            await opened_async(cluster, name, "a") as table,
            await opened_async(cluster, name, "b") as other,
        ):

            async def serve(state: dict[bytes, bytes], leadership: AsyncLeadership) -> None:
                await table.write("k", "1")

            async def prepare(turn: int) -> Coroutine[Any, Any, None]:
                return ha.run_async(serve, table=table)

            async def check(turn: int) -> None:
                async with other.lead(timeout=10):
                    await other.write("k", "2")
                await table.write("k", "3")

            assert await cancel_everywhere(prepare, check) > 5

    run_clean(work)


def test_a_process_that_does_not_stop_serving_ends(cluster: LocalCluster, name: str) -> None:
    program = (
        "import sys, time; from ckpt_client import Table, ha\n"
        "with Table(sys.argv[1], address=sys.argv[2]) as table:\n"
        "    ha.run(lambda state, leadership: time.sleep(600), table=table, ttl=0.5, watchdog=0.1,\n"
        "           allow_loss_on_failover=True, end_process_after=0.1)\n"
    )
    command = [sys.executable, "-c", program, name, cluster.address("a")]
    with opened(cluster, name):
        assert subprocess.run(command, timeout=60).returncode == ha.EXIT_CODE


def test_the_state_has_values_of_the_tables_type(cluster: LocalCluster, name: str) -> None:
    with Table(name, 100, 1_000, 32, address=cluster.address("a"), codec=codecs.json) as table:
        table["k"] = [1, "two"]
        assert ha.run(lambda state, leadership: state, table=table) == {b"k": [1, "two"]}
        with Table(name, address=cluster.address("a")) as other:
            other["bad"] = "{"
        with pytest.raises(UndecodableValue):
            ha.run(lambda state, leadership: state, table=table)
        assert table.leader() is None

    async def serve(state: dict[bytes, Any], leadership: AsyncLeadership) -> Any:
        return state

    async def lead() -> Any:
        async with AsyncTable.open(name, address=cluster.address("a"), codec=codecs.json) as table:
            await table.delete("bad")
            return await ha.run_async(serve, table=table)

    assert asyncio.run(lead()) == {b"k": [1, "two"]}
