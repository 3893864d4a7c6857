"""What programs' own tests rely on: `ckptd.testing.LocalCluster` itself."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ckpt_client import Table
from ckptd.testing import ClusterError, HeldPort, LocalCluster

RUNNER = """
import sys, time
from ckptd.testing import LocalCluster
with LocalCluster(1) as cluster:
    if sys.argv[1] == "paused":
        cluster.pause("a")
    print(cluster.directory, flush=True)
    time.sleep(60)
"""
END_SECONDS = 10.0


# -- ports


def test_a_port_that_is_held_is_not_drawn_again_whatever_chance_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes drew one port: the second did not start, once in some hundred clusters."""
    with held_port() as first:
        draw, draws = random.randrange, iter([first.number - 1, first.number - 1])
        monkeypatch.setattr(random, "randrange", lambda *range_: next(draws, None) or draw(*range_))
        with held_port() as second:
            assert second.number != first.number


def test_a_port_that_another_process_holds_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test processes that run side by side, as with pytest-xdist, drew the same one."""
    program = "from ckptd.testing import *; p = HeldPort(); print(p.number, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        draw, draws = random.randrange, iter([theirs - 1, theirs - 1])
        monkeypatch.setattr(random, "randrange", lambda *range_: next(draws, None) or draw(*range_))
        with held_port() as ours:
            assert ours.number != theirs
        other.communicate("\n")


def test_a_port_is_free_for_its_daemon_and_for_others_once_it_is_given_back() -> None:
    with held_port() as port, socket.socket() as daemon:
        daemon.bind(("127.0.0.1", port.number))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port.number - 1))


@contextmanager
def held_port() -> Iterator[HeldPort]:
    port = HeldPort()
    try:
        yield port
    finally:
        port.close()


# -- replicas


def test_what_a_node_held_before_it_was_killed_is_not_in_sync(cluster: LocalCluster, name: str) -> None:
    """Right after `kill` and `start` the others still said so, and the test that waited went on too early."""
    with Table(name, 10, 100, 20, address=cluster.addresses()) as table:
        table["k"] = b"v"
        cluster.wait_in_sync(name, 3)
        cluster.kill("c")
        cluster.start("c")
        assert "c" not in cluster.in_sync_nodes(name)
        cluster.wait_in_sync(name, 3)
        assert "c" in cluster.checkpoint(name, "c").in_sync_nodes


@pytest.mark.extended
def test_a_checkpoint_is_asked_of_a_node_that_answers(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 100, 20, address=cluster.addresses()) as table:
        table["k"] = b"v"
        cluster.kill("a")
        cluster.start("a")
        assert cluster.checkpoint(name).name == name.encode()
        cluster.wait_serving()


# -- the end of the test runner


@pytest.mark.parametrize("state", ["running", pytest.param("paused", marks=pytest.mark.extended)])
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.extended)])
def test_nodes_end_with_the_process_that_started_them(number: signal.Signals, state: str) -> None:
    """A job of CI that was cancelled left its daemons behind."""
    if state == "paused" and not sys.platform.startswith("linux"):
        pytest.skip("only Linux is known to wake a stopped process whose parent is gone")
    with subprocess.Popen(
        [sys.executable, "-c", RUNNER, state], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as runner:
        assert runner.stdout is not None
        directory = Path(runner.stdout.readline().strip())
        try:
            assert answers(directory / "a.sock")
            os.kill(runner.pid, number)
            runner.wait()
            deadline = time.monotonic() + END_SECONDS
            while answers(directory / "a.sock"):
                assert time.monotonic() < deadline, "the daemon lives"
                time.sleep(0.01)
        finally:
            runner.kill()
            while directory.exists():  # A daemon that ends in order takes its socket away meanwhile.
                shutil.rmtree(directory, ignore_errors=True)


def answers(path: Path) -> bool:
    """Whether a process listens there, be it stopped."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            return True  # It listens, and accepts none.
        except OSError:
            return False
        return True


# -- names and directories


def test_an_unknown_node_is_one_clear_error() -> None:
    cluster = LocalCluster(2, witnesses=1)
    with pytest.raises(ClusterError, match="there is no node None in this cluster of a, b, w"):
        cluster.kill(None)  # What `active_node` returns if there is none.
    said = "there is no node 'd' in this cluster of a, b, w"
    for ask in (
        cluster.kill,
        cluster.pid,
        cluster.address,
        cluster.start,
        cluster.addresses,
        cluster.log_tail,
    ):
        with pytest.raises(ClusterError, match=said):
            ask("d")
    with pytest.raises(ClusterError, match="there is no node 2 in"):
        cluster.leave(2)
    with pytest.raises(ClusterError, match=said):
        cluster.wait_in_sync("t", ["a", "d"])
    with pytest.raises(ClusterError, match="node a has not been started"):
        cluster.kill("a")
    with pytest.raises(ClusterError, match="is a witness"):
        cluster.addresses("w")
    with pytest.raises(ClusterError, match="enter the cluster first"):
        cluster.start("a")


def test_a_cluster_that_was_never_entered_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    short = tempfile.TemporaryDirectory(dir="/tmp")  # pytest's own may be too long for a socket's path.
    monkeypatch.setattr(tempfile, "tempdir", short.name)
    with short, warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster = LocalCluster(2)
        assert not list(Path(short.name).iterdir())
        assert [cluster.directory] == list(Path(short.name).iterdir()), "made at its first use"
        cluster.close()
        assert not list(Path(short.name).iterdir())
        del cluster


def test_a_long_name_of_the_directory_for_temporary_files_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a unix socket has 103 bytes at most; TMPDIR of a CI system may be as long."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with LocalCluster(1) as cluster:
        assert cluster.describe().serving
    assert not cluster.directory.exists()
