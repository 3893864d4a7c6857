"""File descriptors: with few of them a node says how many clients it takes, or does not start."""

import resource
from pathlib import Path

import pytest
from tests.runtime.fakes import running

from ckptd.runtime.errors import StartError
from ckptd.runtime.host import descriptors
from ckptd.runtime.host.descriptors import (
    CLIENTS_MIN,
    HANDSHAKES_MAX,
    MACOS_DESCRIPTORS_MAX,
    ConnectionCapacity,
    divide_descriptors,
)


class Limit:
    """What this process may have; `grants` is what the system gives at most, whatever it says."""

    def __init__(self, soft: int, hard: int, grants: int | None = None) -> None:
        self.soft = soft
        self.hard = hard
        self.grants = hard if grants is None else grants

    def getrlimit(self, kind: int) -> tuple[int, int]:
        return self.soft, self.hard

    def setrlimit(self, kind: int, limits: tuple[int, int]) -> None:
        if limits[0] > self.grants:
            raise ValueError("not allowed to raise maximum limit")
        self.soft = limits[0]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    limit = Limit(1024, 1_048_576)
    monkeypatch.setattr(resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limit.setrlimit)
    return limit


def test_the_limit_is_raised_as_far_as_clients_need_it(
    limit: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    assert divide_descriptors(10_000, 2) == ConnectionCapacity(10_000, HANDSHAKES_MAX)
    assert 10_000 + HANDSHAKES_MAX < limit.soft < 11_000
    assert caplog.text == ""


def test_a_limit_that_is_high_enough_is_left_alone(limit: Limit) -> None:
    limit.soft = limit.hard = limit.grants = resource.RLIM_INFINITY
    assert divide_descriptors(10_000, 2).clients == 10_000
    assert limit.soft == resource.RLIM_INFINITY


def test_fewer_clients_than_asked_for_are_a_line_in_the_log(
    limit: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    """`clients_max` became what was left, down to 1, without a word."""
    limit.hard = limit.grants = 1024
    capacity = divide_descriptors(10_000, 2)
    assert 500 < capacity.clients < 1024 - capacity.handshakes
    assert f"this node accepts {capacity.clients} clients instead of 10000 (clients_max)" in caplog.text
    assert "may open 1024 file descriptors" in caplog.text


def test_what_macos_calls_unlimited_is_what_it_grants(limit: Limit) -> None:
    limit.hard, limit.grants = resource.RLIM_INFINITY, MACOS_DESCRIPTORS_MAX
    assert divide_descriptors(100_000, 2).clients > 9_000


@pytest.mark.parametrize("peers", [0, 2, 63])
def test_a_node_without_descriptors_for_clients_does_not_start_and_names_how_many_it_needs(
    limit: Limit, peers: int
) -> None:
    limit.soft = limit.hard = limit.grants = 64
    with pytest.raises(StartError, match="may open 64 file descriptors") as refused:
        divide_descriptors(10_000, peers)
    needed = int(str(refused.value).split(" or more")[0].rpartition(" ")[2])
    limit.soft = limit.hard = limit.grants = needed
    assert divide_descriptors(10_000, peers).clients >= CLIENTS_MIN
    limit.soft = limit.hard = limit.grants = needed - 2
    with pytest.raises(StartError):
        divide_descriptors(10_000, peers)


async def test_a_daemon_without_enough_descriptors_does_not_start(tmp_path: Path, limit: Limit) -> None:
    limit.soft = limit.hard = limit.grants = 64
    with pytest.raises(StartError, match="file descriptors"):
        async with running(tmp_path):
            raise AssertionError("it started")


async def test_unauthenticated_connections_leave_descriptors_for_clients(
    tmp_path: Path, limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "OWN_DESCRIPTORS", 0)
    monkeypatch.setattr(descriptors, "OPERATORS_MAX", 2)
    limit.soft = limit.hard = limit.grants = 32
    assert divide_descriptors(10_000, 0) == ConnectionCapacity(26, 4)
