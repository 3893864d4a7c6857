"""One program at a time leads a table, with real daemons: `Table`, and the SAF calls."""

import gc
import math
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.e2e.leading import KINDS, LED, TTL_S, Program, opened, revoke, wait_queued

from ckpt_client import (
    CheckpointError,
    LeadershipLost,
    Table,
    saf,
)
from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    UPDATE_FLAGS,
)
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA as ASYNCHRONOUS,
)
from ckptd.testing import LocalCluster

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


def test_a_table_that_is_closed_while_threads_take_turns_to_wait_leads_in_none_of_them(
    cluster: LocalCluster, name: str
) -> None:
    refused: queue.Queue[CheckpointError] = queue.Queue()

    def wait(other: Table) -> None:
        try:
            other.lead(math.inf)
        except CheckpointError as error:
            refused.put(error)

    with opened(cluster, name) as table, table.lead():
        other = opened(cluster, name, "b")
        threads = [threading.Thread(target=wait, args=(other,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_queued(cluster, table, 1)
        other.close()
        for thread in threads:
            thread.join()
            assert refused.get().code == codes.BAD_HANDLE
        wait_queued(cluster, table, 0)


def test_threads_that_lead_with_one_table_do_not_lose_it_to_each_other(
    cluster: LocalCluster, name: str
) -> None:
    failures: queue.Queue[BaseException] = queue.Queue()

    def take_turns(table: Table) -> None:
        try:
            for number in range(20):
                with table.lead(timeout=30) as leadership:
                    table["k"] = str(number)
                    leadership.check()
        except BaseException as error:
            failures.put(error)

    with opened(cluster, name) as table:
        threads = [threading.Thread(target=take_turns, args=(table,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures.empty(), failures.get()
        assert table.leader() is None


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
