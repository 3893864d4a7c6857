"""Two nodes with data and a witness, as real processes: what one of three voters can and cannot stop.

Source: the failure table, "2 nodes + witness" and "Arbiter/witness down".
"""

import shutil
import time

import pytest
from tests.e2e.faulty import (
    ENTRIES,
    acknowledging,
    alarms,
    coordinator,
    pinned_load,
    under_load,
    wait_blocked,
)
from tests.e2e.operator import ckptctl, done, refused

from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

REASON = why_unavailable()
needs_namespaces = pytest.mark.skipif(bool(REASON), reason=REASON)

GRACE_SECONDS = 0.8
CUT_SECONDS = 3.0


def other_of(cluster: LocalCluster, node: str) -> str:
    return next(other for other in cluster.node_ids if other != node)


@pytest.mark.extended
def test_sigkill_of_the_coordinator_and_of_the_other_loses_nothing(name: str) -> None:
    with LocalCluster(2, witnesses=1) as cluster, under_load(cluster, name) as load:
        for _ in cluster.node_ids:
            first = coordinator(cluster)
            cluster.kill(first)
            load.wait_more(ENTRIES)
            cluster.start(first)
            cluster.wait_serving()
            for checkpoint in load.checkpoints:
                cluster.wait_in_sync(checkpoint, load.replicas)


def test_the_other_continues_when_the_coordinator_is_paused(name: str) -> None:
    with LocalCluster(2, witnesses=1) as cluster, under_load(cluster, name) as load:
        first = coordinator(cluster)
        cluster.pause(first)
        try:
            load.wait_more(ENTRIES)
            assert coordinator_of(cluster, other_of(cluster, first)) != first
        finally:
            cluster.resume(first)
        cluster.wait_serving()


def coordinator_of(cluster: LocalCluster, node: str) -> str:
    return cluster.describe("cluster", node).coordinator


@pytest.mark.extended
@needs_namespaces
def test_the_other_continues_with_the_witness_when_the_coordinator_is_cut_off(name: str) -> None:
    with NetnsCluster(2, witnesses=1) as cluster, pinned_load(cluster, name) as load:
        first = coordinator(cluster)
        cluster.isolate(first)
        # A view without the coordinator needs its lease to end first; what each does then is what counts.
        since_ns = time.monotonic_ns() + int(2 * GRACE_SECONDS * 1e9)
        time.sleep(CUT_SECONDS)
        until_ns = time.monotonic_ns()
        cluster.heal()
        cluster.wait_serving()
        assert acknowledging(cluster, load, since_ns, until_ns) == {other_of(cluster, first)}


@pytest.mark.extended
@needs_namespaces
def test_of_two_that_both_reach_the_witness_and_not_each_other_one_continues(name: str) -> None:
    with NetnsCluster(2, witnesses=1) as cluster, pinned_load(cluster, name) as load:
        cluster.cut("a", "b")
        since_ns = time.monotonic_ns() + int(2 * GRACE_SECONDS * 1e9)
        time.sleep(CUT_SECONDS)
        until_ns = time.monotonic_ns()
        cluster.heal()
        cluster.wait_serving()
        assert len(acknowledging(cluster, load, since_ns, until_ns)) == 1


@pytest.mark.extended
def test_without_the_witness_the_service_continues_and_only_without_a_majority_there_is_an_alarm(
    name: str,
) -> None:
    with LocalCluster(2, witnesses=1) as cluster, under_load(cluster, name) as load:
        first = coordinator(cluster)
        other = other_of(cluster, first)
        cluster.kill("w")
        load.wait_more(ENTRIES)
        assert [alarms(cluster, node) for node in cluster.node_ids] == [{}, {}]
        cluster.kill(other)
        wait_blocked(
            cluster, first, "the arbiter: only 1 of 3 voters can be reached, so the view cannot change"
        )
        cluster.wait_until(
            lambda: "1 of 3 voters" in alarms(cluster, first).get("arbiter", ""), "the alarm is raised"
        )
        assert "ALARM arbiter" in done(cluster, first, "status")
        assert ckptctl(cluster, "status", "--check", node=first).returncode == 2
        cluster.start("w")
        cluster.wait_serving()
        load.wait_more(ENTRIES)
        assert "arbiter" not in alarms(cluster, first)
        cluster.wait_until(lambda: "replicas_degraded" in alarms(cluster, first), "one copy is missing")
        cluster.start(other)
        cluster.wait_serving()


@pytest.mark.extended
def test_a_witness_that_lost_its_state_directory_votes_again_once_a_view_names_it(name: str) -> None:
    with LocalCluster(2, witnesses=1) as cluster, under_load(cluster, name) as load:
        before = cluster.describe().epoch
        cluster.kill("w")
        shutil.rmtree(cluster.state_path("w"))
        cluster.start("w")
        cluster.wait_serving()
        assert cluster.describe().epoch > before
        first = coordinator(cluster)
        cluster.kill(first)
        load.wait_more(ENTRIES)
        cluster.start(first)
        cluster.wait_serving()


@pytest.mark.extended
def test_a_witness_that_is_restarted_under_load_costs_no_client_anything(name: str) -> None:
    with LocalCluster(2, witnesses=1) as cluster, under_load(cluster, name) as load:
        # It may have started too late to vote on the first view: then its record is empty, as if lost.
        assert cluster.leave("b") == 0
        cluster.start("b")
        cluster.wait_serving()
        before = cluster.describe().epoch
        assert cluster.leave("w") == 0
        load.wait_more(ENTRIES)
        cluster.start("w")
        cluster.wait_serving()
        assert cluster.describe().epoch == before
        first = coordinator(cluster)
        cluster.kill(first)
        load.wait_more(ENTRIES)
        cluster.start(first)
        cluster.wait_serving()


@pytest.mark.slow
def test_two_witnesses_keep_three_nodes_going_though_two_of_them_die(name: str) -> None:
    with LocalCluster(3, witnesses=2) as cluster, under_load(cluster, name) as load:
        dead = (coordinator(cluster), next(n for n in cluster.node_ids if n != coordinator(cluster)))
        for node in dead:
            cluster.kill(node)
            load.wait_more(ENTRIES)
        for node in dead:
            cluster.start(node)
        cluster.wait_serving()


@pytest.mark.extended
def test_a_witness_says_what_it_is_to_an_operator_and_to_a_client(name: str) -> None:
    with LocalCluster(2, witnesses=1) as cluster:
        assert "witness: it votes and holds no data" in done(cluster, "w", "status")
        assert ckptctl(cluster, "status", "--check", node="w").returncode == 0
        assert "ERR_UNAVAILABLE" in refused(cluster, "w", "show", name)
