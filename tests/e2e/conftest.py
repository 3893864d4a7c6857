"""Clusters of real processes. All tests share one with three nodes; a test that kills a node restarts it.

It ends with the last test of this directory: the tests that follow need the time that it takes at rest.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.logs import ends_of_logs

from ckptd.testing import LocalCluster


@pytest.fixture(autouse=True)
def _logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that fails shows the ends of logs (tests/conftest.py), also where it has closed its cluster."""
    leave = LocalCluster.__exit__

    def leave_with_logs(cluster: LocalCluster, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            error.add_note(ends_of_logs(cluster))
        leave(cluster, kind, error, trace)

    monkeypatch.setattr(LocalCluster, "__exit__", leave_with_logs)
    monkeypatch.setattr(LocalCluster, "story", ends_of_logs, raising=False)


@pytest.fixture(scope="package")
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
