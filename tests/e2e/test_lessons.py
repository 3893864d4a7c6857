"""What the predecessors could not do, with real daemons: large sections, and a pause that nobody notices."""

import time

import pytest
from tests.e2e.stream import Stream

from ckpt_client import Table
from ckptd.testing import LocalCluster

pytestmark = pytest.mark.extended

WRITES = 50
PAUSE_SECONDS = 0.3
"""Half a lease."""


@pytest.mark.parametrize("size", [600_000, 5_000_000])
def test_a_large_section_is_read_on_every_node_and_rebuilt_on_one_that_was_killed(
    cluster: LocalCluster, name: str, size: int
) -> None:
    """openais answered TRY_AGAIN for ever to a write of 600 kB, and hung at a join when it held 1 MB."""
    content = bytes(range(250)) * (size // 250)
    with Table(name, 2, size, 32, address=cluster.addresses("a")) as table:
        table.Write("k", content)
        with Table(name, address=cluster.address("b")) as other:
            assert other.Read(["k"]) == content
        cluster.kill("c")
        table.Write("small", "without c")
        cluster.start("c")
        cluster.wait_serving()
        cluster.wait_in_sync(name, cluster.node_ids)
        with Table(name, address=cluster.address("c")) as rebuilt:
            assert rebuilt.read_all() == {b"k": content, b"small": b"without c"}
            cluster.kill("a")
            cluster.kill("b")
            cluster.start("b")
            cluster.wait_serving()
            assert rebuilt.Read(["k"]) == content, "by now it is the only one that held it"


@pytest.mark.parametrize("role", ["the active replica's node", "another node"])
def test_a_pause_shorter_than_the_lease_fails_no_call_and_changes_no_view(
    cluster: LocalCluster, name: str, role: str
) -> None:
    """The failure table: nothing but latency."""
    with Table(name, 1_000_000, 100, 32, address=cluster.addresses("a")) as table:
        active = cluster.active_node(name)
        assert active is not None
        paused = next(node for node in cluster.node_ids if (node == active) == role.startswith("the active"))
        before = [cluster.describe("cluster", node).epoch for node in cluster.node_ids]
        with Stream(table) as stream:
            for _ in range(3):
                stream.wait_more(WRITES)
                cluster.pause(paused)
                time.sleep(PAUSE_SECONDS)
                cluster.resume(paused)
            stream.wait_more(WRITES)
        assert stream.errors == []
        assert stream.lost_at(table) == []
    assert [cluster.describe("cluster", node).epoch for node in cluster.node_ids] == before
    assert cluster.running == cluster.node_ids
