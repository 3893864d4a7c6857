"""What tests of leadership share: tables, programs that lead, and an operator that ends a leadership."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_client import AsyncTable, Table
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import UPDATE_FLAGS
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


async def opened_async(
    cluster: LocalCluster, name: str, node: str = "a", flags: int = UPDATE_FLAGS[0]
) -> AsyncTable:
    return await AsyncTable.open(name, 100, 1000, 32, flags, address=cluster.address(node), timeout=30)


def wait_queued(cluster: LocalCluster, table: Table, count: int) -> None:
    """Wait until so many programs wait to lead."""
    cluster.wait_until(lambda: len(table.leadership_history().waiting) == count, f"{count} wait")


def revoke(table: Table) -> None:
    """End the leadership, as an operator does."""
    leader = table.leader()
    assert leader is not None
    token = int(leader.token, 16)
    body = pack_body([[Op.REVOKE, token >> 40 & 2**64 - 1, token & 2**40 - 1]])
    table._ask(Kind.UPDATE, body, None)
