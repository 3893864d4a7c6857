"""What clients do by themselves, against real daemons."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean

from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_client.session.affinity import FOLLOW_UPDATES
from ckpt_protocol import codes
from ckptd.testing import LocalCluster

SCHEMES = ("unix", *(pytest.param(other, marks=pytest.mark.slow) for other in ("tcp", "udp")))


def test_a_session_goes_to_the_node_that_orders_its_writes(cluster: LocalCluster, name: str) -> None:
    """Its addresses do not name that node: the members of the view do."""
    addresses = [cluster.address("a", "tcp"), cluster.address("c", "tcp")]
    with (
        Table(name, 500, 100, 32, address=cluster.address("b")) as table,
        Table(name, address=addresses) as follower,
        Table(name, address=cluster.address("c")) as resident,
    ):
        assert cluster.active_node(name) == "b"
        for number in range(FOLLOW_UPDATES + 20):
            follower.Write(f"f{number}", str(number))
            resident.Write(f"r{number}", str(number))
            assert follower[f"r{number}"] == resident[f"f{number}"] == str(number).encode()
        assert follower.node_id == "b"
        assert resident.node_id == "c", "who names one address stays there"
        assert follower.read_all() == resident.read_all() == table.read_all()
        assert len(table) == 2 * (FOLLOW_UPDATES + 20)
        assert table.status().opens == 3


@pytest.mark.extended
def test_whether_to_follow_is_the_callers_choice(cluster: LocalCluster, name: str) -> None:
    both = [cluster.address("a", "tcp"), cluster.address("c", "tcp")]
    with (
        Table(name, 500, 100, 32, address=cluster.address("b")),
        Table(name, address=both, follow_active=False) as stays,
        Table(name, address=cluster.address("c"), follow_active=True) as follows,
    ):
        for number in range(FOLLOW_UPDATES + 20):
            stays.Write("s", str(number))
            follows.Write("f", str(number))
        assert (stays.node_id, follows.node_id) == ("a", "b")


@pytest.mark.extended
async def test_tasks_that_write_all_the_time_notice_nothing_of_a_move(
    cluster: LocalCluster, name: str
) -> None:
    addresses = [cluster.address("a", "tcp"), cluster.address("c", "tcp")]
    with Table(name, 500, 100, 32, address=cluster.address("b")) as table:
        async with await AsyncTable.open(name, address=addresses) as follower:

            async def count(key: str) -> None:
                for number in range(FOLLOW_UPDATES):
                    await follower.write(key, str(number))
                    assert await follower.read(key) == str(number).encode()

            await asyncio.gather(*(count(f"k{task}") for task in range(10)))
            while follower.node_id != "b":
                await count("more")
        assert table["k9"] == str(FOLLOW_UPDATES - 1).encode()


@pytest.mark.extended
def test_after_a_move_the_loss_of_that_node_is_met_as_any_other(name: str) -> None:
    with LocalCluster(3, name="follow") as cluster:
        addresses = [cluster.address("a", "tcp"), cluster.address("c", "tcp")]
        with (
            Table(name, 500, 100, 32, address=cluster.address("b")),
            Table(name, address=addresses) as follower,
        ):
            cluster.wait_in_sync(name, 3)
            for number in range(FOLLOW_UPDATES + 20):
                follower.Write("k", str(number))
            assert follower.node_id == "b"
            cluster.kill("b")
            assert follower["k"] == str(FOLLOW_UPDATES + 19).encode()
            follower.Write("k", "after")
            assert follower["k"] == b"after"
            assert follower.node_id in ("a", "c")


@pytest.mark.extended
@pytest.mark.parametrize("scheme", SCHEMES)
def test_calls_cancelled_at_every_turn_leave_the_connection_sound(scheme: str) -> None:
    with LocalCluster(1, name="cancelled") as cluster:

        def opens() -> dict[bytes, int]:
            return {each.name: each.opens for each in cluster.describe("checkpoints")}

        async def work() -> None:
            address = cluster.address("a", scheme)
            async with await AsyncTable.open("x", 500, 1000, 32, address=address) as table:
                counted = 0

                async def use(turn: int) -> None:
                    async with await AsyncTable.open("y", 500, 1000, 32, address=address) as other:
                        await asyncio.gather(table.write("k", str(turn)), other.write("k", str(turn)))
                        await table.read_all()
                        await other.delete("k")

                async def prepare(turn: int) -> Coroutine[Any, Any, None]:
                    return use(turn)

                async def check(turn: int) -> None:
                    nonlocal counted
                    counted += 1
                    await table.write("count", str(counted))
                    found = await asyncio.gather(table.read("count"), table.get("none", b"-"))
                    assert found == [str(counted).encode(), b"-"]

                assert await cancel_everywhere(prepare, check) > 5
                assert table._connection._waiters == {}
                # What was opened for a task that was cancelled is closed sooner or later.
                while opens() != {b"x": 1, b"y": 0}:
                    await check(0)
            assert opens() == {b"x": 0, b"y": 0}

        run_clean(work)


@pytest.mark.extended
@pytest.mark.parametrize("limits", [(1, 64 << 20, 1), (10, 64 << 20, 65_535)], ids=["single", "many"])
def test_exactly_what_a_table_of_64_mib_promises_fits(limits: tuple[int, int, int]) -> None:
    """Also with the longest id, through a node that passes it on; one byte more is refused unsent."""
    value, key = b"\xff" * (64 << 20), b"i" * limits[2]
    with (
        LocalCluster(2, name="largest") as cluster,
        Table("x", *limits, address=cluster.address("a"), timeout=60) as table,
        Table("x", address=cluster.address("b", "tcp"), timeout=60) as other,
    ):
        other[key] = value
        assert table[key] == value
        table.Write({key: value})
        with pytest.raises(CheckpointError) as caught:
            other[key] = value + b"x"
        assert caught.value.code == codes.NO_RESOURCES
        assert other[key] == value


@pytest.mark.extended
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_client_that_comes_back_has_its_session_attached_before_it_sends_anything_large(
    scheme: str,
) -> None:
    """Nodes take large frames only then: one that came right behind ATTACH would end its connection."""
    value = b"v" * (16 << 20)
    with LocalCluster(3) as cluster:
        addresses = [cluster.address(node, scheme) for node in ("b", "c")]
        with (
            Table("x", 10, 64 << 20, 8, address=cluster.address("a"), timeout=60) as there,
            Table("x", address=addresses, timeout=60, follow_active=False) as blocking,
        ):
            cluster.wait_in_sync("x", 3)

            async def write_all() -> None:
                async with await AsyncTable.open("x", address=addresses, timeout=60) as table:
                    keys = [f"k{number}" for number in range(3)]
                    writes = [asyncio.create_task(table.write(key, value)) for key in keys]
                    await asyncio.sleep(0.1)
                    cluster.kill("b")
                    await asyncio.gather(*writes)

            asyncio.run(write_all())
            blocking["k3"] = value
            assert blocking.node_id == "c"
            assert [there[f"k{number}"] == value for number in range(4)] == [True] * 4
        for node in cluster.running:
            counters = cluster.describe("cluster", node).counters
            assert (counters["garbage_streams"], counters["clients_cut_off"]) == (0, 0)


def test_unlinking_an_old_handle_leaves_the_successor_of_its_name_alone(
    cluster: LocalCluster, name: str
) -> None:
    with (
        Table(name, 10, 100, 8, address=cluster.address("a")) as old,
        Table(name, address=cluster.address("b")) as same,
    ):
        old["k"] = "old"
        same.unlink()
        with Table(name, 10, 100, 8, address=cluster.address("c")) as new:
            new["k"] = "new"
            for of_the_past in (old, same):
                with pytest.raises(CheckpointError) as caught:
                    of_the_past.unlink()
                assert caught.value.code == codes.NOT_EXIST
            with Table(name, address=cluster.address("a")) as found:
                assert (found["k"], old["k"]) == (b"new", b"old")
            new.unlink()
