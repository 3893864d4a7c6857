"""Tables that are closed while no node answers, and programs that end without closing theirs."""

import asyncio
import subprocess
import sys
import time

import pytest

from ckpt_client import AsyncTable, Table
from ckptd.testing import LocalCluster

TABLES = 5
SCHEMES = ("unix", *(pytest.param(other, marks=pytest.mark.slow) for other in ("tcp", "udp")))

PROGRAM = """
import asyncio, sys
from ckpt_client import AsyncTable
async def main():
    table = await AsyncTable.open(sys.argv[2], 10, 100, 8, address=sys.argv[1])
    await table.write("k", "v")
    global kept
    kept = table
asyncio.run(main())
"""


@pytest.mark.extended
@pytest.mark.parametrize("scheme", SCHEMES)
def test_closing_many_tables_of_one_session_waits_once_where_no_node_answers(scheme: str) -> None:
    """Each waited its whole time-out, 10 s, one after the other."""
    with LocalCluster(1, name="closing") as cluster:
        address = cluster.address("a", scheme)

        async def work() -> float:
            opened = [await AsyncTable.open(f"t{n}", 10, 100, 8, address=address) for n in range(TABLES)]
            cluster.pause("a")
            try:
                began = time.monotonic()
                for table in opened:
                    await table.close()
                return time.monotonic() - began
            finally:
                cluster.resume("a")

        assert asyncio.run(work()) < 9, "less than the time-out of one call"


@pytest.mark.extended
@pytest.mark.parametrize("scheme", SCHEMES)
def test_closing_many_blocking_tables_is_bounded_as_well(scheme: str) -> None:
    with LocalCluster(1, name="closing") as cluster:
        address = cluster.address("a", scheme)
        opened = [Table(f"t{n}", 10, 100, 8, address=address) for n in range(TABLES)]
        cluster.pause("a")
        try:
            began = time.monotonic()
            for table in opened:
                table.close()
            assert time.monotonic() - began < 3 * TABLES
        finally:
            cluster.resume("a")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_asyncio_program_that_ends_without_closing_leaves_nothing_open(
    cluster: LocalCluster, name: str, scheme: str
) -> None:
    """Its socket was closed before its process had ended: what it had open stayed open for 10 s."""
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM, cluster.address("a", scheme), name]
    subprocess.run(arguments, check=True, timeout=60)

    def closed() -> bool:
        return {each.name: each.opens for each in cluster.describe("checkpoints")}.get(name.encode()) == 0

    cluster.wait_until(closed, "the checkpoint is closed", seconds=5)
