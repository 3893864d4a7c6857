"""The operator's word by the real `ckptctl`, in each situation that waits for it.

Source: docs/failures.md, "A pair whose coordinator is silent" and "A cold start with a node missing".
"""

import pytest
from tests.e2e.faulty import ENTRIES, quarantined, under_load, wait_alone, wait_blocked
from tests.e2e.operator import ckptctl, done, refused, status
from tests.e2e.stream import Stream

from ckpt_client import CheckpointError, Table
from ckptd.testing import LocalCluster

SECTIONS = 1_000_000
WRITES = 200


@pytest.fixture
def pair() -> LocalCluster:
    return LocalCluster(2)


# -- a node that is blocked


@pytest.mark.extended
@pytest.mark.parametrize("words", [("accept-loss", "a"), ("force-active",)], ids=lambda words: words[0])
def test_a_blocked_node_of_a_pair_continues_on_an_operator_command(
    pair: LocalCluster, words: tuple[str, ...], name: str
) -> None:
    """The coordinator stands still, so that it acknowledges nothing alone: nothing is lost here."""
    with pair as cluster, under_load(cluster, name) as load:
        cluster.pause("a")
        try:
            wait_blocked(cluster, "b", "proof that coordinator a is dead, or its return")
            assert "NOT serving: proof that coordinator a" in done(cluster, "b", "status")
            assert "quarantine" in done(cluster, "b", "cluster", *words, "--yes")
            wait_alone(cluster, "b")
            load.wait_more(ENTRIES)
            assert status(cluster, "b")["counters"]["losses_accepted"] == 1
        finally:
            cluster.resume("a")
        cluster.wait_serving()


@pytest.mark.extended
def test_what_the_lost_node_had_alone_goes_to_quarantine_when_it_comes_back(
    pair: LocalCluster, name: str
) -> None:
    with pair as cluster:
        with Table(name, 10, 100, 32, address=cluster.address("a")) as table:
            table.Write("k", "on both")
            cluster.pause("b")
            try:
                wait_alone(cluster, "a")
                table.Write("k", "by a alone")
                cluster.pause("a")
            finally:
                cluster.resume("b")
            try:
                wait_blocked(cluster, "b", "coordinator a is dead, or its return")
                # Refused for a moment yet: b reads first what a sent while b stood still.
                accept_loss = ("cluster", "accept-loss", "a", "--yes")
                cluster.wait_until(lambda: ckptctl(cluster, *accept_loss).returncode == 0, "a is silent")
                wait_alone(cluster, "b")
                with Table(name, address=cluster.address("b")) as other:
                    assert other.Read(["k"]) == b"on both"
                    other.Write("k", "by b alone")
            finally:
                cluster.resume("a")
            cluster.wait_serving()
        cluster.wait_until(lambda: b"by a alone" in quarantined(cluster, "a"), "a's copy is in quarantine")
        with Table(name, address=cluster.address("a")) as table:
            assert table.Read(["k"]) == b"by b alone"


@pytest.mark.extended
def test_one_of_three_continues_alone_when_the_operator_forces_it(name: str) -> None:
    with LocalCluster(3) as cluster, under_load(cluster, name) as load:
        cluster.kill("b")
        cluster.kill("c")
        wait_blocked(
            cluster, "a", "the arbiter: only 1 of 3 voters can be reached, so the view cannot change"
        )
        done(cluster, "a", "cluster", "accept-loss", "b", "--yes")
        assert not status(cluster, "a")["serving"], "a dead node does not vote"
        assert "continues with a, without" in done(cluster, "a", "cluster", "force-active", "--yes")
        wait_alone(cluster, "a")
        load.wait_more(ENTRIES)
        cluster.start("b")
        cluster.start("c")
        cluster.wait_serving()


# -- a cold start


@pytest.mark.extended
def test_a_pair_of_which_one_node_is_missing_starts_when_the_operator_says_so(
    pair: LocalCluster, name: str
) -> None:
    with pair as cluster:
        for node in cluster.node_ids:
            cluster.kill(node)
        cluster.start("b")
        wait_blocked(cluster, "b", "2 of 2 nodes for a cold start")
        assert "bootstraps a new history" in done(cluster, "b", "cluster", "bootstrap", "--yes")
        wait_alone(cluster, "b")
        with Table(name, 10, 100, 32, address=cluster.address("b")) as table:
            table.Write("k", "v")
            cluster.start("a")
            cluster.wait_serving()
            cluster.wait_in_sync(name, 2)
            cluster.kill("b")
        with Table(name, address=cluster.address("a")) as table:
            assert table.Read(["k"]) == b"v"


@pytest.mark.extended
@pytest.mark.parametrize("words", [("accept-loss", "c"), ("bootstrap",)], ids=lambda words: words[0])
def test_a_majority_that_misses_a_member_of_the_last_view_starts_when_the_operator_says_so(
    words: tuple[str, ...], name: str
) -> None:
    with LocalCluster(3) as cluster:
        with Table(name, 10, 100, 32, address=cluster.address("a")) as table:
            table.Write("k", "v")
        for node in cluster.node_ids:
            cluster.pause(node)
        for node in cluster.node_ids:
            cluster.kill(node)
        for node in ("a", "b"):
            cluster.start(node)
        wait_blocked(cluster, "a", "members of the last view")
        done(cluster, "a", "cluster", *words, "--yes")
        cluster.wait_serving()
        with pytest.raises(CheckpointError, match="NOT_EXIST"):
            Table(name, address=cluster.address("a"))
        cluster.start("c")
        cluster.wait_serving()


@pytest.mark.extended
def test_two_nodes_without_their_witness_start_when_one_is_bootstrapped(name: str) -> None:
    with LocalCluster(2, witnesses=1) as cluster:
        for node in cluster.all_ids:
            cluster.kill(node)
        cluster.start("b")
        wait_blocked(cluster, "b", "2 of 3 nodes for a cold start")
        done(cluster, "b", "cluster", "bootstrap", "--yes")
        wait_alone(cluster, "b")
        with Table(name, 10, 100, 32, address=cluster.address("b")) as table:
            table.Write("k", "v")
            cluster.start("a")
            cluster.start("w")
            cluster.wait_serving()
            cluster.wait_in_sync(name, 2)
            cluster.kill("b")
        with Table(name, address=cluster.address("a")) as table:
            assert table.Read(["k"]) == b"v"


# -- a cluster that serves


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("bootstrap",), id="bootstrap"),
        pytest.param(("force-active",), id="force-active", marks=pytest.mark.extended),
        pytest.param(("accept-loss", "b"), id="accept-loss", marks=pytest.mark.extended),
    ],
)
def test_nothing_is_forced_on_a_cluster_that_serves(cluster: LocalCluster, words: tuple[str, ...]) -> None:
    before = cluster.describe("cluster", "a").epoch
    assert "ERR_BAD_OPERATION" in refused(cluster, "a", "cluster", *words, "--yes")
    cluster.wait_serving()
    assert cluster.describe("cluster", "a").epoch == before


def test_nothing_is_done_where_no_terminal_can_answer(cluster: LocalCluster) -> None:
    ended = ckptctl(cluster, "node", "drain", node="a")
    assert ended.returncode == 2
    assert b"--yes" in ended.stderr
    assert cluster.running == cluster.node_ids


# -- drain


@pytest.mark.extended
@pytest.mark.parametrize("nodes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_drained_node_hands_over_without_a_failed_call(nodes: int, name: str) -> None:
    with (
        LocalCluster(nodes) as cluster,
        Table(name, SECTIONS, 100, 32, address=cluster.addresses()) as table,
    ):
        with Stream(table) as stream:
            for _ in range(2):
                stream.wait_more(WRITES)
                active = cluster.active_node(name)
                assert active is not None
                said = done(cluster, active, "node", "drain", "--yes")
                assert "handed over" in said and "has ended" in said
                assert cluster.leave(active) == 0, "it has ended by itself"
                stream.wait_more(WRITES)
                cluster.start(active)
                cluster.wait_serving()
                cluster.wait_in_sync(name, nodes)
        assert stream.errors == []
        assert stream.lost_at(table) == []


@pytest.mark.extended
def test_a_witness_is_drained_at_once(name: str) -> None:
    with (
        LocalCluster(2, witnesses=1) as cluster,
        Table(name, 10, 100, 32, address=cluster.addresses()) as table,
    ):
        assert "has ended" in done(cluster, "w", "node", "drain", "--yes")
        assert cluster.running_witnesses == ()
        table.Write("k", "v")
        assert table.Read(["k"]) == b"v"
