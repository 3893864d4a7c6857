"""Daemons with a bug, as real processes: one request stops as few of them as can be, and is told so."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.operator import done, status

from ckpt_client import CheckpointError, Table
from ckpt_protocol.codes import SaAisErrorT
from ckptd.testing import ClusterError, LocalCluster

LAUNCHER = Path(__file__).parents[1] / "programs" / "raising_daemon.py"
POISON = b"poison"
LIMIT_SECONDS = 30.0


class FaultyCluster(LocalCluster):
    """Three nodes whose core raises at `POISON`."""

    def __init__(self, bug: str, where: str) -> None:
        super().__init__(3, name="bugs")
        self._bug = (bug, POISON.decode(), where)

    def command(self, node: int | str) -> list[str]:
        command = super().command(node)
        return [sys.executable, str(LAUNCHER), *self._bug, *command[3:]]

    def ended(self) -> list[str]:
        """The nodes whose processes ended."""
        return [node_id for node_id in self.node_ids if node_id not in self.running]


def until(done: Callable[[], object]) -> None:
    limit = time.monotonic() + LIMIT_SECONDS
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.02)


def started_again(cluster: FaultyCluster) -> bool:
    """Start what has ended; True when all nodes serve."""
    for node_id in cluster.ended():
        cluster.start(node_id)
    with contextlib.suppress(ClusterError):
        cluster.wait_serving(1.0)
        return True
    return False


@contextlib.contextmanager
def opened(cluster: LocalCluster) -> Iterator[tuple[Table, Table]]:
    """A table to be written to, and one that nothing may happen to."""
    addresses = cluster.addresses()
    with (
        Table("orders", 100, 1024, 32, address=addresses) as table,
        Table("bystander", 100, 1024, 32, address=addresses) as bystander,
    ):
        table["k"] = b"before"
        bystander["k"] = b"v"
        yield table, bystander


@pytest.mark.parametrize("where", ["everywhere", pytest.param("active", marks=pytest.mark.extended)])
def test_a_write_that_stops_a_node_is_refused_and_stops_no_other(where: str) -> None:
    with FaultyCluster("apply", where) as cluster, opened(cluster) as (table, bystander):
        active = cluster.active_node("orders")
        assert active is not None
        with pytest.raises(CheckpointError, match=f"this request stopped node {active}") as refused:
            table["k"] = POISON
        assert refused.value.code == SaAisErrorT.SA_AIS_ERR_LIBRARY
        until(cluster.ended)  # Its last words came before its process ended.
        assert cluster.ended() == [active]
        assert "this node stops" in cluster.log(active)
        table["k"] = b"after"
        bystander["k"] = b"w"
        assert (table["k"], bystander["k"]) == (b"after", b"w")
        cluster.start(active)
        cluster.wait_serving()
        assert (table["k"], bystander["k"]) == (b"after", b"w")
        assert cluster.ended() == []


@pytest.mark.extended
def test_backups_that_raise_come_back_with_the_content() -> None:
    with FaultyCluster("apply", "backup") as cluster, opened(cluster) as (table, bystander):
        active = cluster.active_node("orders")
        with contextlib.suppress(CheckpointError):
            table["k"] = POISON  # Where both others stop it waits, at the third, until one is back.
        until(cluster.ended)  # The last words of one may be in time for the other.
        assert active in cluster.running
        until(lambda: started_again(cluster))
        assert table["k"] == POISON
        assert bystander["k"] == b"v"
        until(lambda: all(in_sync for _, in_sync in table.status().replicas))
        table["k"] = b"after"
        assert cluster.ended() == []


@pytest.mark.extended
def test_what_no_node_can_commit_is_not_served_and_an_operator_ends_that() -> None:
    with FaultyCluster("commit", "everywhere") as cluster, opened(cluster) as (table, bystander):
        with contextlib.suppress(CheckpointError):
            table.Write("k", POISON, timeout=3.0)
        until(lambda: len(cluster.ended()) == 2)
        for node_id in cluster.ended():
            cluster.start(node_id)
        cluster.wait_serving()
        with pytest.raises(CheckpointError, match="is not served") as waits:
            table.Read("k", timeout=3.0)
        assert waits.value.code == SaAisErrorT.SA_AIS_ERR_TRY_AGAIN
        assert bystander["k"] == b"v"
        bystander["k"] = b"w"
        alarms = {alarm["name"]: alarm["text"] for alarm in status(cluster, "b")["alarms"]}
        assert "'orders'" in alarms["closed"]
        assert "not served" in done(cluster, "b", "ls")
        quarantined = [
            path for path in cluster.directory.rglob("quarantine/*") if POISON in path.read_bytes()
        ]
        assert quarantined
        assert cluster.ended() == []
        done(cluster, "b", "unlink", "orders")
        with Table("orders", 100, 1024, 32, address=cluster.addresses()) as again:
            again["k"] = b"fresh"
            assert again["k"] == b"fresh"
