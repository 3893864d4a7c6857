"""Real processes killed, paused and restarted under load: one order explains all that clients saw.

Source: the failure table's rows that are marked as tests with real processes.
"""

import time

import pytest
from bench.load.load import Shape
from tests.e2e.faulty import ENTRIES, node_of, under_load

from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK
from ckptd.testing import LocalCluster

pytestmark = pytest.mark.extended

SIZES = (3, *(pytest.param(nodes, marks=pytest.mark.slow) for nodes in (2, 5)))
ROLES = ("active", "standby", "coordinator")
SHORT_SECONDS, LONG_SECONDS = 0.3, 1.6
"""Shorter and longer than the lease (0.6 s) and the grace (0.8 s)."""

DELAYS = (0, 0.05, 0.2, 0.5, 1, 3)


def restart(cluster: LocalCluster, node: str, delay: float) -> None:
    cluster.kill(node)
    time.sleep(delay)
    cluster.start(node)


@pytest.mark.parametrize("nodes", SIZES)
def test_sigkill_of_the_active_a_standby_and_the_coordinator_under_load(nodes: int, name: str) -> None:
    with LocalCluster(nodes) as cluster, under_load(cluster, name) as load:
        for role in ROLES:
            node = node_of(cluster, role, load.register(0))
            cluster.kill(node)
            load.wait_more(ENTRIES)
            cluster.start(node)
            cluster.wait_serving()
            for checkpoint in load.checkpoints:
                cluster.wait_in_sync(checkpoint, load.replicas)


@pytest.mark.parametrize("seconds", [pytest.param(SHORT_SECONDS, marks=pytest.mark.slow), LONG_SECONDS])
@pytest.mark.parametrize("nodes", SIZES)
def test_a_node_that_is_paused_under_load_serves_nothing_stale(nodes: int, seconds: float, name: str) -> None:
    with LocalCluster(nodes) as cluster, under_load(cluster, name) as load:
        for role in ROLES:
            node = node_of(cluster, role, load.register(0))
            cluster.pause(node)
            try:
                time.sleep(seconds)
            finally:
                cluster.resume(node)
            cluster.wait_serving()
            load.wait_more(ENTRIES)


@pytest.mark.parametrize("nodes", SIZES)
def test_nodes_that_are_killed_and_come_back_soon_or_late_lose_nothing(nodes: int, name: str) -> None:
    with LocalCluster(nodes) as cluster, under_load(cluster, name) as load:
        for node, delay in zip(cluster.node_ids, (0, 0.2, 1), strict=False):
            restart(cluster, node, delay)
            cluster.wait_serving()
            for checkpoint in load.checkpoints:
                cluster.wait_in_sync(checkpoint, load.replicas)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("nodes", SIZES)
def test_every_node_killed_and_started_again_after_every_delay_loses_nothing(
    nodes: int, delay: float, name: str
) -> None:
    with LocalCluster(nodes) as cluster, under_load(cluster, name) as load:
        for node in cluster.node_ids:
            restart(cluster, node, delay)
            cluster.wait_serving()
            for checkpoint in load.checkpoints:
                cluster.wait_in_sync(checkpoint, load.replicas)
            load.wait_more(ENTRIES)


@pytest.mark.parametrize("nodes", SIZES)
def test_a_rolling_restart_under_load_fails_no_call(nodes: int, name: str) -> None:
    with LocalCluster(nodes) as cluster, under_load(cluster, name) as load:
        for node in cluster.node_ids:
            assert cluster.leave(node) == 0
            load.wait_more(ENTRIES)
            cluster.start(node)
            cluster.wait_serving()
            for checkpoint in load.checkpoints:
                cluster.wait_in_sync(checkpoint, load.replicas)


@pytest.mark.parametrize(
    "flags",
    [SA_CKPT_WR_ACTIVE_REPLICA, pytest.param(SA_CKPT_WR_ACTIVE_REPLICA_WEAK, marks=pytest.mark.slow)],
)
def test_an_asynchronous_checkpoint_loses_only_the_end_of_its_order(flags: int, name: str) -> None:
    kills = 3
    with LocalCluster(3) as cluster, under_load(cluster, name, Shape(flags), losses=kills) as load:
        for _ in range(kills):
            node = node_of(cluster, "active", load.ledger)
            cluster.kill(node)
            load.wait_more(ENTRIES)
            cluster.start(node)
            cluster.wait_serving()
            cluster.wait_in_sync(load.ledger, load.replicas)
