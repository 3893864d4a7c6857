"""A program that starts before the cluster that it uses."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from tests.client.test_coming_back import SHELLS

from ckpt_client import AsyncTable, Table
from ckptd.testing import LocalCluster

EARLIER_S = 0.3
"""How long before the daemons the table is created."""


def blocking(where: str) -> bytes:
    with Table("early", 10, 100, 10, address=where) as table:
        table["k"] = b"v"
        return table["k"]


async def with_asyncio(where: str) -> bytes:
    async with await AsyncTable.open("early", 10, 100, 10, address=where) as table:
        await table.write("k", b"v")
        return await table.read("k")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_table_that_is_created_before_the_cluster_starts_is_open_once_it_serves(shell: str) -> None:
    """First nothing listens, then daemons listen that serve nothing yet."""
    use: Callable[[str], bytes] = blocking if shell == "blocking" else lambda w: asyncio.run(with_asyncio(w))
    cluster = LocalCluster(3)
    where = ",".join(cluster.address(node, "tcp") for node in cluster.node_ids)
    read: list[bytes] = []
    program = threading.Thread(target=lambda: read.append(use(where)))
    program.start()
    time.sleep(EARLIER_S)
    with cluster:
        program.join(20.0)
    assert read == [b"v"]
