"""Clusters of real processes. All tests share one with three nodes; a test that kills a node restarts it."""

from collections.abc import Iterator

import pytest

from ckptd.testing import LocalCluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, name="e2e") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """Yield three nodes that serve, whatever an earlier test left."""
    for node in shared_cluster.node_ids:
        if node not in shared_cluster.running:
            shared_cluster.start(node)
    shared_cluster.wait_serving()
    return shared_cluster


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a checkpoint's name that no other test uses."""
    return str(request.node.name)
