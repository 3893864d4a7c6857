"""Real processes that are killed, stopped and paused under a stream of writes.

Source: the failure table's rows that are marked as tests with real processes.
"""

import subprocess
import sys

import pytest
from tests.e2e.stream import Stream

from ckpt_client import CheckpointError, Table
from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ALL_REPLICAS,
)
from ckptd.testing import LocalCluster

SECTIONS = 1_000_000
WRITES = 200


def active_and_other(cluster: LocalCluster, name: str) -> tuple[str, str]:
    active = cluster.active_node(name)
    assert active is not None
    return active, next(node for node in cluster.node_ids if node != active)


@pytest.mark.parametrize(
    "attached_to",
    ["the active replica's node", pytest.param("another node", marks=pytest.mark.extended)],
)
def test_sigkill_of_the_active_node_loses_no_acknowledged_write(
    cluster: LocalCluster, name: str, attached_to: str
) -> None:
    with Table(name, SECTIONS, 100, 32, address=cluster.addresses("b")) as creator:
        active, other = active_and_other(cluster, name)
        first = active if attached_to.startswith("the active") else other
        addresses = cluster.addresses(first)
        with Table(name, address=addresses, follow_active=False) as table, Stream(table) as stream:
            stream.wait_more(WRITES)
            cluster.kill(active)
            stream.wait_more(WRITES)
        assert stream.errors == []
        assert stream.lost_at(creator) == []
        cluster.start(active)
        cluster.wait_serving()
        cluster.wait_in_sync(name, cluster.node_ids)
        with Table(name, address=cluster.address(active)) as returned:
            assert stream.lost_at(returned) == []


@pytest.mark.extended
def test_sigkill_of_a_standby_loses_no_acknowledged_write(cluster: LocalCluster, name: str) -> None:
    with Table(name, SECTIONS, 100, 32, address=cluster.addresses("a")) as table:
        _, standby = active_and_other(cluster, name)
        with Stream(table) as stream:
            stream.wait_more(WRITES)
            cluster.kill(standby)
            stream.wait_more(WRITES)
            cluster.start(standby)
            cluster.wait_serving()
            cluster.wait_in_sync(name, cluster.node_ids)
            stream.wait_more(WRITES)
        assert stream.errors == []
        with Table(name, address=cluster.address(standby)) as returned:
            assert stream.lost_at(returned) == []


def test_sigterm_hands_over_without_a_failed_call(cluster: LocalCluster, name: str) -> None:
    with Table(name, SECTIONS, 100, 32, address=cluster.addresses("c")) as table:
        active, other = active_and_other(cluster, name)
        with Stream(table) as stream:
            stream.wait_more(WRITES)
            assert cluster.leave(active) == 0
            stream.wait_more(WRITES)
        assert stream.errors == []
        assert cluster.active_node(name) != active
        with Table(name, address=cluster.address(other)) as survivor:
            assert stream.lost_at(survivor) == []


@pytest.mark.extended
def test_every_node_restarted_in_turn_keeps_everything(cluster: LocalCluster, name: str) -> None:
    with Table(name, SECTIONS, 100, 32, address=cluster.addresses("a")) as table, Stream(table) as stream:
        for node in cluster.node_ids:
            stream.wait_more(WRITES)
            assert cluster.leave(node) == 0
            cluster.start(node)
            cluster.wait_serving()
            cluster.wait_in_sync(name, cluster.node_ids)
        stream.wait_more(WRITES)
    assert stream.errors == []
    with Table(name, address=cluster.address("b")) as other:
        assert stream.lost_at(other) == []


def test_a_node_that_was_paused_serves_nothing_stale_afterwards(cluster: LocalCluster, name: str) -> None:
    with Table(name, SECTIONS, 100, 32, address=cluster.addresses("a")) as creator:
        active, other = active_and_other(cluster, name)
        creator.Write("k", "before")
        cluster.pause(active)
        try:
            with Table(name, address=cluster.address(other)) as table:
                table.Write("k", "after")
        finally:
            cluster.resume(active)
        with Table(name, address=cluster.address(active)) as resumed:
            assert resumed.Read(["k"]) == b"after"
    cluster.wait_serving()


def test_a_collocated_checkpoint_has_no_active_replica_until_a_survivor_activates_its_own(
    cluster: LocalCluster, name: str
) -> None:
    flags = SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED
    with (
        Table(name, 10, 100, 32, flags, address=cluster.address("b")) as standby,
        Table(name, 10, 100, 32, flags, address=cluster.address("c")) as writer,
    ):
        writer.Activate()
        writer.Write("k", "v")
        writer.Synchronize()
        assert cluster.active_node(name) == "c"
        cluster.kill("c")
        cluster.wait_until(lambda: cluster.active_node(name) is None, "the loss of node c is known")
        assert not standby.GetActiveStatus()
        standby.autoActivate = False
        with pytest.raises(CheckpointError) as caught:
            standby.Read(["k"])
        assert caught.value.code == codes.NOT_EXIST
        standby.autoActivate = True
        assert standby.Read(["k"]) == b"v"
        assert cluster.active_node(name) == "b"


@pytest.mark.extended
def test_a_sync_collocated_checkpoint_lives_on_where_it_is_open(cluster: LocalCluster, name: str) -> None:
    flags = SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED
    with (
        Table(name, SECTIONS, 100, 32, flags, address=cluster.address("b")) as standby,
        Table(
            name, SECTIONS, 100, 32, flags, address=f"{cluster.address('a')},{cluster.address('b')}"
        ) as table,
    ):
        assert cluster.in_sync_nodes(name) == ("a", "b")
        with Stream(table) as stream:
            stream.wait_more(WRITES)
            cluster.kill("a")
            stream.wait_more(WRITES)
        assert stream.errors == []
        assert stream.lost_at(standby) == []


def test_a_client_that_is_killed_counts_as_closed_at_once(cluster: LocalCluster, name: str) -> None:
    program = (
        "import sys; from ckpt_client import Table; "
        "t = Table(sys.argv[1], 10, 100, 32, retentionMs=0, address=sys.argv[2]); "
        "t.Write('k', 'v'); print('written', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, name, cluster.address("a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "written\n"
        client.kill()
    cluster.wait_until(
        lambda: all(each.name != name.encode() for each in cluster.describe("checkpoints")),
        "the checkpoint went with its only user",
    )


def test_the_data_of_a_single_node_goes_with_it() -> None:
    with LocalCluster(1) as cluster:
        with Table("t", 10, 100, 32, address=cluster.address()) as table:
            table.Write("k", "v")
        cluster.kill("a")
        cluster.start("a")
        cluster.wait_serving()
        with pytest.raises(CheckpointError) as caught:
            Table("t", address=cluster.address())
        assert caught.value.code == codes.NOT_EXIST


@pytest.mark.extended
def test_of_two_nodes_the_survivor_of_a_crash_continues() -> None:
    with LocalCluster(2) as cluster, Table("t", SECTIONS, 100, 32, address=cluster.addresses("a")) as table:
        for node in cluster.node_ids:
            with Stream(table) as stream:
                stream.wait_more(WRITES)
                cluster.kill(node)
                stream.wait_more(WRITES)
            assert stream.errors == []
            assert stream.lost_at(table) == []
            cluster.start(node)
            cluster.wait_serving()
            cluster.wait_in_sync("t", cluster.node_ids)


def test_without_a_majority_calls_try_again_and_status_says_what_is_awaited(
    cluster: LocalCluster, name: str
) -> None:
    with Table(name, 10, 100, 32, address=cluster.address("a")) as table:
        table.Write("k", "v")
        cluster.kill("b")
        cluster.kill("c")
        cluster.wait_until(lambda: not cluster.describe("cluster", "a").serving, "a knows that it is alone")
        assert cluster.describe("cluster", "a").waiting_for
        with pytest.raises(CheckpointError) as caught:
            table.Write("k", "w", timeout=0.3)
        assert caught.value.code in (codes.TRY_AGAIN, codes.TIMEOUT)
        cluster.start("b")
        cluster.start("c")
        cluster.wait_serving()
        assert table.Read(["k"]) in (b"v", b"w")
