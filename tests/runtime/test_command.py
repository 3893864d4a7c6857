"""The `ckptd` command as a process: its lines, its signals, its exit codes."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtime.fakes import free_port

import ckpt_protocol
import ckptd
from ckptd import __version__

PATHS = os.pathsep.join(str(Path(package.__path__[0]).parent) for package in (ckpt_protocol, ckptd))


@contextlib.contextmanager
def command(directory: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m ckptd`, with everything it keeps in `directory`; killed if it outlives the block."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": PATHS,
        "CKPTD_DAEMON_STATE_DIR": str(directory / "state"),
        "CKPTD_DAEMON_SOCKET": "none",
        "CKPTD_DAEMON_NODE_ID": "a",
        "CKPTD_DAEMON_LISTEN": "127.0.0.1:0",
        **variables,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "ckptd", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """What it says once it serves; its complaint where it does not."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return line


@pytest.mark.parametrize("loop", ["on", "off"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_cleanly_on_a_signal(
    tmp_path: Path, number: signal.Signals, loop: str
) -> None:
    with command(tmp_path, "--uvloop", loop, "--socket", str(tmp_path / "s")) as process:
        line = first_line(process)
        start = re.escape(f"ckptd {__version__} node a of cluster ckptd: listening on ")
        found = re.fullmatch(rf"{start}127\.0\.0\.1:(\d+), unix://{tmp_path}/s\n", line)
        assert found, line
        with socket.create_connection(("127.0.0.1", int(found[1]))):
            pass
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "node a has stopped" in errors
        assert "Traceback" not in errors
    assert not (tmp_path / "s").exists()


def test_it_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    for _ in range(2):
        with command(tmp_path, "--socket", str(tmp_path / "s")) as process:
            assert str(tmp_path / "s") in first_line(process)
            process.kill()


def test_it_tells_the_service_manager_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with command(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert manager.recv(100) == b"READY=1"
            process.terminate()
            # The hand-over may take twice `leave_ms`, 10 s; the end itself is bounded, too.
            assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=25000000"
            assert manager.recv(100) == b"STOPPING=1"


def complaint(process: subprocess.Popen[str], exit_code: int) -> str:
    """The one line with which it refuses to start."""
    output, errors = process.communicate()
    assert process.returncode == exit_code, errors
    assert output == ""
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    assert lines[0].startswith("ckptd: ")
    return lines[0]


def test_a_wrong_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with command(tmp_path, "--lease-ms", "900") as process:
        assert "lease_ms < grace_ms" in complaint(process, 2)
    with command(tmp_path, CKPTD_DAEMON_LEASE="1") as process:
        assert "unknown setting lease (in CKPTD_DAEMON_LEASE)" in complaint(process, 2)


def test_a_taken_port_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with command(tmp_path, "--listen", f"127.0.0.1:{taken.getsockname()[1]}") as process:
            assert "Address already in use" in complaint(process, 1)


def test_a_locked_directory_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with command(tmp_path) as first:
        first_line(first)
        with command(tmp_path) as second:
            assert f"another ckptd (process {first.pid})" in complaint(second, 1)


def test_a_full_disk_is_one_line_and_exit_code_1(small_disk: Path) -> None:
    with open(small_disk / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with command(small_disk) as process:
        assert f"{small_disk}/state cannot be used: No space left on device" in complaint(process, 1)


def test_a_disk_that_fills_up_later_does_not_end_a_node(small_disk: Path) -> None:
    with command(small_disk) as process:
        first_line(process)
        with open(small_disk / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        process.terminate()
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "Traceback" not in errors


def test_etcd_without_its_password_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    flags = ("--arbiter", "etcd", "--etcd-endpoints", "http://127.0.0.1:9", "--etcd-user", "u")
    with command(tmp_path, *flags, "--etcd-password-file", str(tmp_path / "none")) as process:
        assert "etcd_password_file" in complaint(process, 2)


def test_a_fence_hook_that_is_no_program_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    with command(tmp_path, "--fence-hook", "/nonexistent/hook") as process:
        assert "/nonexistent/hook is no program" in complaint(process, 1)


def test_a_node_of_another_cluster_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    port = free_port()
    with command(tmp_path / "a", "--listen", f"127.0.0.1:{port}") as a:
        first_line(a)
        arguments = ("--node-id", "b", "--cluster", "other", "--peers", f"a=127.0.0.1:{port}")
        with command(tmp_path / "b", *arguments) as b:
            assert "this is cluster 'ckptd', not 'other'" in complaint(b, 1)


def test_the_version_is_said_without_starting(tmp_path: Path) -> None:
    with command(tmp_path, "--version") as process:
        assert process.communicate() == (f"ckptd {__version__}\n", "")
        assert process.returncode == 0
