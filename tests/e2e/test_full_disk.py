"""A real node whose state directory is full: it goes on as it is, and promises nothing new.

Source: docs/adr/0010 (what is told must be on disk first).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.e2e.faulty import ENTRIES, alarms, coordinator, node_of, under_load
from tests.e2e.operator import ckptctl, done
from tests.e2e.small_disk import fill, free, on_small_disk, why_unavailable

from ckpt_client import CheckpointError, Table
from ckpt_protocol import codes
from ckptd.testing import LocalCluster

REASON = why_unavailable()
pytestmark = [pytest.mark.extended, pytest.mark.skipif(bool(REASON), reason=REASON)]


Disks = dict[str, Path]


@contextmanager
def three_nodes() -> Iterator[tuple[LocalCluster, Disks]]:
    """Three nodes, and the small disk of each."""
    cluster = LocalCluster(3)
    with ExitStack() as stack:
        disks = {node: stack.enter_context(on_small_disk(cluster, node)) for node in cluster.node_ids}
        yield stack.enter_context(cluster), disks


def wait_alarm(cluster: LocalCluster, node: str) -> None:
    cluster.wait_until(lambda: "disk" in alarms(cluster, node), f"node {node} has the alarm disk")


def wait_no_alarm(cluster: LocalCluster, node: str) -> None:
    cluster.wait_until(lambda: "disk" not in alarms(cluster, node), f"node {node} can write again")


@pytest.mark.parametrize("role", ["coordinator", pytest.param("standby", marks=pytest.mark.slow)])
def test_a_node_with_a_full_disk_gives_no_vote_and_freeing_it_lets_all_continue(role: str, name: str) -> None:
    """Of three one is dead then, so that its vote is needed. The coordinator is who proposes.

    Until there is room again nobody serves, so calls may fail; what was acknowledged is not lost.
    """
    with three_nodes() as (cluster, disks), under_load(cluster, name, failures=True) as load:
        full = node_of(cluster, role, load.register(0))
        dead = next(node for node in cluster.node_ids if node not in (full, coordinator(cluster)))
        (left,) = set(cluster.node_ids) - {full, dead}
        fill(disks[full])
        load.wait_more(ENTRIES)
        assert alarms(cluster, full) == {}, "nothing had to be written"
        with Table(load.ledger, address=cluster.address(left)) as table:
            cluster.kill(dead)
            wait_alarm(cluster, full)
            with pytest.raises(CheckpointError) as caught:
                table.Write("while the disk is full", "x", timeout=1.5)
            assert caught.value.code in (codes.TRY_AGAIN, codes.TIMEOUT)
            assert "ALARM disk: this node cannot write its state directory" in done(cluster, full, "status")
            assert ckptctl(cluster, "status", "--check", node=full).returncode == 2
            free(disks[full])
            table.Write("with room", "x")
        load.wait_more(ENTRIES)
        wait_no_alarm(cluster, full)
        cluster.start(dead)
        cluster.wait_serving()


@pytest.mark.parametrize("role", ["coordinator", pytest.param("standby", marks=pytest.mark.slow)])
def test_a_node_that_comes_back_is_not_excluded_by_the_full_disk_of_another(role: str, name: str) -> None:
    """Seen here first: nobody served, since all waited for the full one to install a view."""
    with three_nodes() as (cluster, disks), under_load(cluster, name) as load:
        full = node_of(cluster, role, load.register(0))
        dead = next(node for node in cluster.node_ids if node not in (full, coordinator(cluster)))
        cluster.kill(dead)
        cluster.wait_serving()
        fill(disks[full])
        cluster.start(dead)
        wait_alarm(cluster, full)
        load.wait_more(ENTRIES)
        others = [node for node in cluster.node_ids if node != full]
        members = [member.node_id for member in cluster.describe("cluster", others[0]).members]
        assert members == others
        free(disks[full])
        cluster.wait_serving()
        wait_no_alarm(cluster, full)


def test_a_node_without_disk_space_does_not_start_and_says_so_in_one_line() -> None:
    with three_nodes() as (cluster, disks):
        cluster.kill("c")
        fill(disks["c"])
        cluster.log_path("c").unlink()
        cluster.start("c")
        cluster.wait_until(lambda: cluster.running == ("a", "b"), "node c has ended")
        (line,) = cluster.log_path("c").read_text().splitlines()
        assert "the state directory" in line and "No space left on device" in line
        free(disks["c"])
        cluster.start("c")
        cluster.wait_serving()
