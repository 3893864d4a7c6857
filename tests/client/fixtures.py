"""Fake nodes that end with the test."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.client.fake_service import FakeNode, FakeService

Start = Callable[..., FakeNode]


@pytest.fixture
def service() -> FakeService:
    """A cluster's shared state."""
    return FakeService()


@pytest.fixture
def start(service: FakeService, tmp_path: Path) -> Iterator[Start]:
    """Starts a node: `start("a")`, `start("b", "tcp", key=b"secret")`."""
    nodes: list[FakeNode] = []
    paths = (str(tmp_path / f"{number}.sock") for number in itertools.count())

    def start_node(node_id: str = "a", scheme: str = "unix", **more: bytes | str) -> FakeNode:
        node = FakeNode(service, node_id, scheme, path=next(paths), **more)  # type: ignore[arg-type]
        nodes.append(node)
        return node

    yield start_node
    for node in nodes:
        node.stop()
