"""One program at a time leads a table, with real daemons: `Table`, `AsyncTable`, the SAF calls, and `ha`."""

import asyncio
import gc
import math
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean

from ckpt_client import (
    AsyncLeadership,
    AsyncTable,
    CheckpointError,
    Leadership,
    LeadershipLost,
    Table,
    ha,
    saf,
)
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    UPDATE_FLAGS,
)
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA as ASYNCHRONOUS,
)
from ckpt_protocol.messages import Kind, Op
from ckptd.testing import LocalCluster

PROGRAM = Path(__file__).parents[1] / "programs" / "leader.py"
KINDS = pytest.mark.parametrize("flags", UPDATE_FLAGS)
TTL_S = 3.0
LED = r"'first' .* leads"


def opened(cluster: LocalCluster, name: str, node: str = "a", flags: int = UPDATE_FLAGS[0]) -> Table:
    return Table(name, 100, 1000, 32, flags, address=cluster.address(node), timeout=30)


class Program:
    """A `leader.py` that runs."""

    def __init__(self, cluster: LocalCluster, checkpoint: str, name: str, node: str, ttl_s: float) -> None:
        address = cluster.addresses(node)
        command = [sys.executable, str(PROGRAM), address, checkpoint, name, str(ttl_s)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.expect("waits")

    def expect(self, what: str) -> str:
        """Return the rest of its next line, which begins with this."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(what), line
        return line.removeprefix(what).strip()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


Start = Any


@pytest.fixture
def start(cluster: LocalCluster, name: str) -> Iterator[Start]:
    """Start a program: `start("first", "a")`."""
    with ExitStack() as stack:

        def begin(program: str, node: str, ttl_s: float = TTL_S) -> Program:
            started = Program(cluster, name, program, node, ttl_s)
            stack.callback(started.end)
            return started

        yield begin


# -- writes


@KINDS
def test_only_the_leaders_table_writes(cluster: LocalCluster, name: str, flags: int) -> None:
    with opened(cluster, name, "a", flags) as table, opened(cluster, name, "b", flags) as other:
        with table.lead(name="first") as leadership:
            table["k"] = "1"
            table.Write({"k": "2", "l": "3"})
            table.Delete("l")
            version = table.add("m", "4")
            table.Write("m", "5", if_version=version)
            table.modify("m", lambda value: b"6")
            with table.transaction() as t:
                t.require_present("m")
                t["n"] = "7"
            with pytest.raises(CheckpointError, match=LED) as refused:
                other["k"] = "8"
            assert refused.value.code == codes.ACCESS
            assert not isinstance(refused.value, LeadershipLost)
            with pytest.raises(CheckpointError, match=LED):
                other.unlink()
            assert other.read_all() == {b"k": b"2", b"m": b"6", b"n": b"7"}
            leader = other.leader()
            assert leader is not None
            assert (leader.name, leader.pid, leader.node) == ("first", os.getpid(), "a")
            assert (leader.token, leader.ttl, leader.exclusive) == (leadership.token, 5.0, True)
            leadership.check()
            assert not leadership.lost.is_set()
        assert leadership.lost.is_set()
        assert other.leader() is None
        other["k"] = "9"
        table["k"] = "10"
        with pytest.raises(LeadershipLost, match="resigned"):
            leadership.check()


def test_a_leader_unlinks(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table, table.lead():
        table.unlink()


def test_a_leadership_that_is_not_exclusive_gives_a_token_only(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table, opened(cluster, name, "b") as other:
        with table.lead(exclusive=False) as leadership:
            other["k"] = "1"
            table["k"] = "2"
            leader = other.leader()
            assert leader is not None
            assert not leader.exclusive
            first = leadership.token
        with other.lead() as leadership:
            assert leadership.token > first
            assert leadership.token_int > int(first, 16)


def test_to_lead_again_is_the_same_leadership(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table, opened(cluster, name, "b") as other:
        with table.lead() as leadership:
            with table.lead() as again:
                assert again is leadership
            table["k"] = "1"
            with pytest.raises(CheckpointError, match="another ttl") as refused:
                table.lead(ttl=6)
            assert refused.value.code == codes.INVALID_PARAM
            leadership.check()
        other["k"] = "2"


def test_a_closed_table_leads_no_more(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name, "b") as other:
        table = opened(cluster, name)
        leadership = table.lead()
        table.close()
        assert leadership.lost.is_set()
        assert other.leader() is None
        assert other.leadership_history().ended[-1].reason == "resigned"


def test_a_forked_child_neither_leads_nor_ends_it(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table, table.lead() as leadership:
        child = os.fork()
        if child == 0:
            outcome = 1
            try:
                refused = 0
                for call in (leadership.check, lambda: table.Write("k", "1"), table.lead, table.unlink):
                    try:
                        call()
                    except LeadershipLost:
                        refused += 1
                leadership.resign()
                try:
                    table["k"] = "1"
                except CheckpointError as error:
                    refused += error.code == codes.ACCESS
                outcome = 0 if refused == 5 else 2
            finally:
                os._exit(outcome)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        table["k"] = "2"
        leadership.check()


# -- the queue


def wait_queued(cluster: LocalCluster, table: Table, count: int) -> None:
    """Wait until so many programs wait to lead."""
    cluster.wait_until(lambda: len(table.leadership_history().waiting) == count, f"{count} wait")


def test_a_program_that_waits_leads_after_the_one_before_it(cluster: LocalCluster, name: str) -> None:
    led: queue.Queue[str] = queue.Queue()

    def wait(node: str, program: str) -> None:
        with opened(cluster, name, node) as table, table.lead(math.inf, name=program):
            led.put(program)

    with opened(cluster, name) as table, table.lead() as leadership:
        threads = []
        for place, program in enumerate(("x", "y", "z"), 1):
            threads.append(threading.Thread(target=wait, args=("bca"[place - 1], program)))
            threads[-1].start()
            wait_queued(cluster, table, place)
        assert [program.name for program in table.leadership_history().waiting] == ["x", "y", "z"]
        with pytest.raises(CheckpointError, match="'w' waits") as refused:
            leadership.resign(to="w")
        assert refused.value.code == codes.NOT_EXIST
        leadership.check()
        table["k"] = "1"
        leadership.resign(to="z")
    for thread in threads:
        thread.join()
    assert [led.get() for _ in threads] == ["z", "x", "y"]


def test_a_program_whose_time_is_over_leaves_the_queue(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name) as table, opened(cluster, name, "b") as other, table.lead(name="first"):
        with pytest.raises(CheckpointError, match=r"number 1 .*'first'") as refused:
            other.lead(timeout=0.3)
        assert refused.value.code == codes.TIMEOUT
        wait_queued(cluster, table, 0)


def test_a_table_that_is_closed_while_it_waits_leaves_the_queue(cluster: LocalCluster, name: str) -> None:
    refused: queue.Queue[CheckpointError] = queue.Queue()

    def wait(other: Table) -> None:
        try:
            other.lead(math.inf)
        except CheckpointError as error:
            refused.put(error)

    with opened(cluster, name) as table, table.lead():
        other = opened(cluster, name, "b")
        thread = threading.Thread(target=wait, args=(other,))
        thread.start()
        wait_queued(cluster, table, 1)
        other.close()
        thread.join()
        assert refused.get().code == codes.BAD_HANDLE
        wait_queued(cluster, table, 0)


def test_each_leader_is_reported(cluster: LocalCluster, name: str) -> None:
    seen: queue.Queue[str | None] = queue.Queue()
    with opened(cluster, name) as table, Table(name, read_only=True, address=cluster.address("b")) as reader:
        with reader.track_leader(lambda leader: seen.put(leader and leader.name)):
            assert seen.get() is None
            with table.lead(name="first"):
                assert seen.get() == "first"
            assert seen.get() is None
        with table.lead(name="second"), reader.track_leader() as leaders:
            leader = next(iter(leaders))
            assert leader is not None
            assert leader.name == "second"


# -- the end of a leadership


def revoke(table: Table) -> None:
    """End the leadership, as an operator does."""
    leader = table.leader()
    assert leader is not None
    token = int(leader.token, 16)
    body = pack_body([[Op.REVOKE, token >> 40 & 2**64 - 1, token & 2**40 - 1]])
    table._ask(Kind.UPDATE, body, None)


def test_a_lost_leadership_is_noticed_at_once_and_no_write_is_accepted_until_it_is_left(
    cluster: LocalCluster, name: str
) -> None:
    called = threading.Event()
    with opened(cluster, name) as table, opened(cluster, name, "b") as other:
        with table.lead(on_lost=called.set) as leadership:
            table["k"] = "1"
            revoke(other)
            assert leadership.lost.wait(10)
            assert called.wait(10)
            for write in (lambda: table.Write("k", "2"), table.unlink, lambda: table.Delete("k"), table.lead):
                with pytest.raises(LeadershipLost):
                    write()
            assert table["k"] == b"1"
        table["k"] = "3"
        assert other.leadership_history().ended[-1].reason == "revoked"


def test_a_silent_program_loses_it_with_a_watchdog(cluster: LocalCluster, name: str) -> None:
    with (
        opened(cluster, name) as table,
        opened(cluster, name, "b") as other,
        table.lead(ttl=0.5, watchdog=0.1, allow_loss_on_failover=True) as leadership,
    ):
        assert leadership.lost.wait(10)
        with other.lead():
            assert other.leadership_history().ended[-1].reason == "not renewed"


def test_the_next_program_leads_when_the_leader_is_killed(
    cluster: LocalCluster, name: str, start: Start
) -> None:
    with opened(cluster, name) as table:
        first = start("first", "a")
        token = first.expect("leads")
        second = start("second", "b")
        cluster.wait_until(lambda: int(table.get("n", b"0")) > 20, "it counts")
        wait_queued(cluster, table, 1)
        first.signal(signal.SIGKILL)
        assert second.expect("leads") > token
        assert table.leadership_history().ended[-1].reason == "closed"
        cluster.wait_until(lambda: table["of"] == b"second", "the second counts")


def test_no_write_of_a_leader_that_was_paused_is_accepted(
    cluster: LocalCluster, name: str, start: Start
) -> None:
    with opened(cluster, name) as table:
        first = start("first", "a")
        token = first.expect("leads")
        second = start("second", "b")
        first.signal(signal.SIGSTOP)
        assert second.expect("leads") > token
        cluster.wait_until(lambda: table.get("of") == b"second", "the second counts")
        first.signal(signal.SIGCONT)
        assert "leads no more" in first.expect("lost")
        ended = table.leadership_history().ended
        assert [leader.reason for leader in ended] == ["not renewed"]
        leader = table.leader()
        assert leader is not None
        assert leader.name == "second"


def test_a_leader_whose_daemon_is_killed_leads_on(cluster: LocalCluster, name: str, start: Start) -> None:
    with opened(cluster, name) as table:
        first = start("first", "b")
        token = first.expect("leads")
        start("second", "c")
        cluster.wait_until(lambda: int(table.get("n", b"0")) > 20, "it counts")
        cluster.kill("b")
        counted = int(table["n"])
        cluster.wait_until(lambda: int(table["n"]) > counted + 50, "it counts on")
        leader = table.leader()
        assert leader is not None
        assert (leader.name, leader.token) == ("first", token)
        assert table.leadership_history().ended == ()


# -- asynchronous collocated checkpoints


def test_a_program_that_waits_activates_its_replica(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name, "a", ASYNCHRONOUS | SA_CKPT_CHECKPOINT_COLLOCATED) as table:
        assert not table.GetActiveStatus()
        with table.lead():
            assert table.GetActiveStatus()
            table["k"] = "1"


@pytest.mark.parametrize("flags", UPDATE_FLAGS[1:])
def test_a_leader_that_stays_learns_that_data_may_be_lost_before_its_next_write(
    cluster: LocalCluster, name: str, flags: int
) -> None:
    with (
        Table(name, 100, 1000, 32, flags, address=cluster.addresses("a"), timeout=30) as table,
        table.lead(ttl=TTL_S) as leadership,
    ):
        table["k"] = "1"
        assert not leadership.data_may_be_lost
        active = cluster.active_node(name)
        assert active is not None
        cluster.kill(active)
        table["k"] = "2"
        assert leadership.data_may_be_lost
        leadership.check()


def test_a_program_that_waits_activates_its_replica_when_the_leaders_node_is_gone(
    cluster: LocalCluster, name: str, start: Start
) -> None:
    with opened(cluster, name, "a", ASYNCHRONOUS | SA_CKPT_CHECKPOINT_COLLOCATED) as table:
        table.Activate()
        first = start("first", "b")
        first.expect("leads")
    with opened(cluster, name, "c", ASYNCHRONOUS | SA_CKPT_CHECKPOINT_COLLOCATED) as table:
        second = start("second", "c")
        wait_queued(cluster, table, 1)
        cluster.wait_in_sync(name, cluster.node_ids)
        first.signal(signal.SIGSTOP)
        cluster.kill("a")
        assert second.expect("leads")
        assert cluster.active_node(name) == "c"


# -- how a program ends


def test_a_process_that_ends_without_leaving_resigns(cluster: LocalCluster, name: str) -> None:
    program = (
        "import sys; from ckpt_client import Table\n"
        "table = Table(sys.argv[1], address=sys.argv[2])\n"
        "leadership = table.lead()\n"
    )
    with opened(cluster, name) as table:
        subprocess.run([sys.executable, "-c", program, name, cluster.address("a")], timeout=60, check=True)
        assert table.leader() is None
        assert table.leadership_history().ended[-1].reason == "resigned"


def test_a_table_that_the_program_drops_leads_no_more(cluster: LocalCluster, name: str) -> None:
    with opened(cluster, name, "b") as other:
        dropped = [opened(cluster, name)]
        dropped[0].lead()
        assert other.leader() is not None
        dropped.clear()
        gc.collect()
        cluster.wait_until(lambda: other.leader() is None, "it leads no more")


def test_an_interrupted_program_leaves_the_queue(cluster: LocalCluster, name: str) -> None:
    def interrupt(*_: object) -> None:
        raise ZeroDivisionError

    with opened(cluster, name) as table, table.lead(), opened(cluster, name, "b") as other:
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(ZeroDivisionError):
                other.lead(math.inf)
        finally:
            signal.signal(signal.SIGALRM, before)
        wait_queued(cluster, table, 0)


# -- asyncio


async def opened_async(
    cluster: LocalCluster, name: str, node: str = "a", flags: int = UPDATE_FLAGS[0]
) -> AsyncTable:
    return await AsyncTable.open(name, 100, 1000, 32, flags, address=cluster.address(node), timeout=30)


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


# -- the SAF's calls


def test_a_handle_of_the_safs_calls_leads(cluster: LocalCluster, name: str) -> None:
    checkpoint_name = f"safCkpt={name}"
    with opened(cluster, checkpoint_name, "b") as other:
        service = saf.CheckpointService.initialize(address=cluster.address("a"))
        checkpoint = service.checkpoint_open(
            checkpoint_name, saf.SA_CKPT_CHECKPOINT_READ | saf.SA_CKPT_CHECKPOINT_WRITE
        )
        with checkpoint.lead(name="first"):
            checkpoint.section_create("k", initial_data="1")
            checkpoint.overwrite("k", "2")
            with pytest.raises(CheckpointError, match=LED):
                other["k"] = "3"
            revoke(other)
            with pytest.raises(saf.SaAisErrAccess, match="leads no more"):
                checkpoint.overwrite("k", "4")
        checkpoint.overwrite("k", "5")
        with pytest.raises(saf.SaAisErrInvalidParam, match="ttl"):
            checkpoint.lead(ttl=0)
        leadership = checkpoint.lead()
        service.checkpoint_unlink(checkpoint_name)
        service.finalize()
        assert leadership.lost.is_set()
        assert other.leader() is None


# -- a program with standbys


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
