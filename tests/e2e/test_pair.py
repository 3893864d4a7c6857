"""Two real nodes, one of them silent: what each `on_silent_peer` does.

Source: docs/failures.md, "A pair whose coordinator is silent".
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.faulty import (
    ENTRIES,
    acknowledging,
    coordinator,
    pinned_load,
    quarantined,
    under_load,
    wait_alone,
    wait_blocked,
    wait_logged,
)
from tests.e2e.operator import status

from ckpt_client import CheckpointError, Table
from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

REASON = why_unavailable()
needs_namespaces = pytest.mark.skipif(bool(REASON), reason=REASON)

GRACE_SECONDS = 0.8
CUT_SECONDS = 3.0
LOSS_EPOCHS = 1_000
"""An epoch that went up by so much says that somebody accepted a loss."""


@contextmanager
def paused(cluster: LocalCluster, node: str) -> Iterator[None]:
    """A node stands still; it goes on at the end, unless it was killed meanwhile."""
    cluster.pause(node)
    try:
        yield
    finally:
        if node in cluster.running:
            cluster.resume(node)


# -- keep-active


@pytest.mark.extended
@needs_namespaces
def test_keep_active_the_coordinators_side_continues_and_the_other_blocks(name: str) -> None:
    with NetnsCluster(2) as cluster, pinned_load(cluster, name) as load:
        first = coordinator(cluster)
        cluster.cut("a", "b")
        since_ns = time.monotonic_ns() + int(2 * GRACE_SECONDS * 1e9)
        time.sleep(CUT_SECONDS)
        (other,) = set(cluster.node_ids) - {first}
        wait_blocked(cluster, other, f"proof that coordinator {first} is dead, or its return")
        until_ns = time.monotonic_ns()
        cluster.heal()
        cluster.wait_serving()
        assert acknowledging(cluster, load, since_ns, until_ns) == {first}


@pytest.mark.extended
def test_keep_active_the_coordinators_return_ends_the_wait(name: str) -> None:
    with LocalCluster(2) as cluster, under_load(cluster, name):
        with paused(cluster, "a"):
            wait_blocked(cluster, "b", "proof that coordinator a is dead, or its return")
        cluster.wait_serving()


@pytest.mark.extended
def test_keep_active_a_new_start_of_the_coordinator_ends_the_wait(name: str) -> None:
    """Killed while it was silent, it is not proved dead by a refused connection; its next start proves it."""
    with LocalCluster(2) as cluster, under_load(cluster, name):
        with paused(cluster, "a"):
            wait_blocked(cluster, "b", "proof that coordinator a is dead, or its return")
            cluster.kill("a")
        wait_blocked(cluster, "b", "coordinator a")
        cluster.start("a")
        cluster.wait_serving()


def test_a_coordinator_that_continued_alone_and_died_is_not_replaced_by_older_data(name: str) -> None:
    """Both start empty, and what the other held is in its quarantine."""
    with LocalCluster(2) as cluster:
        with Table(name, 10, 100, 32, address=cluster.address("a")) as table:
            table.Write("old", "on both")
            with paused(cluster, "b"):
                table.Write("new", "on a alone")
                wait_alone(cluster, "a")
                cluster.kill("a")
        cluster.start("a")
        cluster.wait_serving()
        with pytest.raises(CheckpointError, match="NOT_EXIST"):
            Table(name, address=cluster.address("b"))
        cluster.wait_until(lambda: b"on both" in quarantined(cluster, "b"), "b's copy is in its quarantine")


# -- block


@pytest.mark.extended
@pytest.mark.parametrize("silent", ["a", pytest.param("b", marks=pytest.mark.slow)])
def test_block_neither_continues_until_the_silent_one_is_back(silent: str, name: str) -> None:
    flags = ("--on-silent-peer", "block")
    with LocalCluster(2, flags=flags) as cluster, under_load(cluster, name):
        (left,) = set(cluster.node_ids) - {silent}
        with paused(cluster, silent):
            wait_blocked(cluster, left, f"{silent} is dead, or its return")
        cluster.wait_serving()


@pytest.mark.extended
@pytest.mark.parametrize("dead", ["a", pytest.param("b", marks=pytest.mark.slow)])
def test_block_the_survivor_of_a_crash_continues_at_once(dead: str, name: str) -> None:
    flags = ("--on-silent-peer", "block")
    with LocalCluster(2, flags=flags) as cluster, under_load(cluster, name) as load:
        cluster.kill(dead)
        load.wait_more(ENTRIES)
        cluster.start(dead)
        cluster.wait_serving()


# -- fence


class Hook:
    """A fence hook in a directory of the test's own: a shell script."""

    def __init__(self, directory: Path, script: str) -> None:
        self.directory = directory
        self.path = directory / "fence"
        self.path.write_text(f"#!/bin/sh\ncd {directory}\necho $$ > running\n{script}\n")
        self.path.chmod(0o700)

    def flags(self, timeout_ms: int = 10_000) -> tuple[str, ...]:
        return (
            *("--on-silent-peer", "fence", "--fence-hook", str(self.path)),
            *("--fence-timeout-ms", str(timeout_ms)),
        )

    @property
    def pid(self) -> int:
        """The process of its last run."""
        return int((self.directory / "running").read_text())


def note_pids(cluster: LocalCluster, hook: Hook) -> None:
    """Whom the hook kills, by node id."""
    for node in cluster.node_ids:
        (hook.directory / f"{node}.pid").write_text(str(cluster.pid(node)))


@pytest.mark.extended
def test_fence_the_other_continues_once_the_hook_has_killed_the_silent_coordinator(
    tmp_path: Path, name: str
) -> None:
    hook = Hook(tmp_path, 'kill -9 "$(cat "$1.pid")" && echo "$CKPTD_NODE killed $CKPTD_FENCE_NODE"')
    with LocalCluster(2, flags=hook.flags()) as cluster, under_load(cluster, name) as load:
        note_pids(cluster, hook)
        before = cluster.describe("cluster", "b").epoch
        with paused(cluster, "a"):
            wait_alone(cluster, "b")
            assert cluster.running == ("b",)
        load.wait_more(ENTRIES)
        told = status(cluster, "b")
        assert told["epoch"] > before + LOSS_EPOCHS
        assert (told["counters"]["fenced"], told["counters"]["losses_accepted"]) == (1, 1)
        log = cluster.log_path("b").read_text()
        assert "output of the fence hook for node a: b killed a" in log
        assert "without proof that coordinator a is dead" in log
        cluster.start("a")
        cluster.wait_serving()


@pytest.mark.extended
def test_fence_a_hook_that_fails_promotes_no_node(tmp_path: Path, name: str) -> None:
    hook = Hook(tmp_path, "echo no power switch answers; exit 1")
    with LocalCluster(2, flags=hook.flags()) as cluster, under_load(cluster, name):
        with paused(cluster, "a"):
            wait_logged(cluster, "b", "node a could not be fenced: the fence hook ended with exit code 1")
            wait_blocked(cluster, "b", "proof that coordinator a is dead, or its return")
        cluster.wait_serving()
        assert (
            "output of the fence hook for node a: no power switch answers"
            in cluster.log_path("b").read_text()
        )
        assert "fenced" not in status(cluster, "b")["counters"]


@pytest.mark.extended
def test_fence_a_hook_that_hangs_is_killed_and_promotes_no_node(tmp_path: Path, name: str) -> None:
    hook = Hook(tmp_path, "exec sleep 1000")
    with LocalCluster(2, flags=hook.flags(timeout_ms=300)) as cluster, under_load(cluster, name):
        with paused(cluster, "a"):
            wait_logged(cluster, "b", "node a could not be fenced: the fence hook was killed")
            wait_blocked(cluster, "b", "proof that coordinator a is dead, or its return")
            with pytest.raises(ProcessLookupError):
                os.kill(hook.pid, 0)
        cluster.wait_serving()


@pytest.mark.extended
def test_fence_a_hook_that_hangs_ends_with_its_daemon(tmp_path: Path) -> None:
    hook = Hook(tmp_path, "exec sleep 1000")
    with LocalCluster(2, flags=(*hook.flags(timeout_ms=600_000), "--leave-ms", "100")) as cluster:
        with paused(cluster, "a"):
            wait_logged(cluster, "b", "running the fence hook for node a")
            cluster.wait_until(lambda: (tmp_path / "running").exists(), "the hook runs")
            assert cluster.leave("b") == 0
        with pytest.raises(ProcessLookupError):
            os.kill(hook.pid, 0)


# -- promote


@pytest.mark.extended
def test_promote_the_other_continues_after_its_grace_and_the_log_names_what_that_can_lose(name: str) -> None:
    """The coordinator stood still, so that it acknowledged nothing alone: nothing is lost here."""
    flags = ("--on-silent-peer", "promote")
    with LocalCluster(2, flags=flags) as cluster, under_load(cluster, name) as load:
        before = cluster.describe("cluster", "b").epoch
        with paused(cluster, "a"):
            wait_alone(cluster, "b")
            load.wait_more(ENTRIES)
        told = status(cluster, "b")
        assert told["epoch"] > before + LOSS_EPOCHS
        assert told["counters"]["losses_accepted"] == 1
        wait_logged(cluster, "b", "without proof that coordinator a is dead")
        cluster.wait_serving()


@pytest.mark.extended
@needs_namespaces
def test_promote_what_the_coordinator_acknowledged_alone_goes_to_its_quarantine(name: str) -> None:
    """A cut that is no crash: both go on, which is what this setting can cost."""
    with NetnsCluster(2, flags=("--on-silent-peer", "promote")) as cluster:
        with (
            Table(name, 10, 100, 32, address=cluster.address("a")) as by_a,
            Table(name, 10, 100, 32, address=cluster.address("b")) as by_b,
        ):
            by_a.Write("before", "on both")
            cluster.cut("a", "b")
            wait_alone(cluster, "a")
            wait_alone(cluster, "b")
            by_a.Write("alone", "by a alone")
            by_b.Write("alone", "by b alone")
            cluster.heal()
            cluster.wait_serving()
            cluster.wait_in_sync(name, 2)
        cluster.wait_until(lambda: b"by a alone" in quarantined(cluster, "a"), "a's copy is kept")
        assert quarantined(cluster, "b") == b""
        for node in cluster.node_ids:
            with Table(name, address=cluster.address(node)) as table:
                assert table.read_all() == {b"before": b"on both", b"alone": b"by b alone"}
