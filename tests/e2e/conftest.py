"""Clusters of real processes. One of three nodes is shared: what kills a node makes it whole again."""

from collections.abc import Iterator

import pytest

from ckptd.testing import LocalCluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, name="e2e") as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: LocalCluster) -> LocalCluster:
    """Three nodes that serve, whatever an earlier test left."""
    for node in shared_cluster.node_ids:
        if node not in shared_cluster.running:
            shared_cluster.start(node)
    shared_cluster.wait_serving()
    return shared_cluster


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A checkpoint's name that no other test uses."""
    return str(request.node.name)
