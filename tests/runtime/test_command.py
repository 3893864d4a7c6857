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
from ckptd.runtime.command import IGNORED_SIGNALS
from ckptd.runtime.host.systemd import watchdog_s

PATHS = os.pathsep.join(str(Path(package.__path__[0]).parent) for package in (ckpt_protocol, ckptd))


@contextlib.contextmanager
def command(
    directory: Path, *arguments: str, stdin: int | None = None, **variables: str
) -> Iterator[subprocess.Popen[str]]:
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
        stdin=stdin,
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


@pytest.mark.parametrize("loop", ["on", "off"])
def test_it_ends_with_the_program_that_has_its_standard_input_if_a_flag_says_so(
    tmp_path: Path, loop: str
) -> None:
    held, lifeline = os.pipe()
    with command(tmp_path, "--end-with-stdin", "--uvloop", loop, stdin=held) as process:
        os.close(held)
        first_line(process)
        os.write(lifeline, b"what is said there is ignored")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        os.close(lifeline)
        _, errors = process.communicate()
        assert "standard input has ended" in errors
        assert "Traceback" not in errors


def test_an_end_of_standard_input_that_cannot_be_waited_for_is_refused(tmp_path: Path) -> None:
    with command(tmp_path, "--end-with-stdin", stdin=subprocess.DEVNULL) as process:
        _, errors = process.communicate()
        assert errors == "ckptd: end_with_stdin is set, but standard input is not a pipe or a socket\n"
        assert process.returncode == 2


@pytest.mark.parametrize("loop", ["on", "off"])
def test_a_signal_that_asks_for_a_reload_is_one_line_in_the_log_and_ends_nothing(
    tmp_path: Path, loop: str
) -> None:
    """SIGHUP ended a node as a crash does: `systemctl reload`, log rotation or a closed terminal sent it."""
    with command(tmp_path, "--uvloop", loop) as process:
        line = first_line(process)
        assert process.stderr is not None
        for number in IGNORED_SIGNALS:
            process.send_signal(number)
            while f"{number.name} is ignored" not in (said := process.stderr.readline()):
                assert said, "it has ended"
        port = int(line.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):
            pass
        process.terminate()
        process.communicate()
        assert process.returncode == 0


def test_names_beyond_ascii_need_no_locale(tmp_path: Path) -> None:
    variables = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    with command(tmp_path, "--cluster", "crème", CKPTD_DAEMON_NODE_ID="é", **variables) as process:
        assert "node \\xe9 of cluster cr\\xe8me: listening" in first_line(process)


def test_it_starts_again_after_it_was_killed(tmp_path: Path) -> None:
    for _ in range(2):
        with command(tmp_path, "--socket", str(tmp_path / "s")) as process:
            assert str(tmp_path / "s") in first_line(process)
            process.kill()


def test_it_notifies_the_service_manager_when_it_serves_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with command(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            assert manager.recv(100) == b"READY=1"
            process.terminate()
            # The hand-over may take twice `leave_ms`, 10 s; the end itself is bounded, too.
            assert manager.recv(100) == b"EXTEND_TIMEOUT_USEC=25000000"
            assert manager.recv(100) == b"STOPPING=1"


def test_the_watchdog_is_notified_by_a_loop_that_runs_and_not_by_one_that_is_stuck(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with command(tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="60000") as process:
            assert [manager.recv(100) for _ in range(4)] == [b"READY=1", *3 * [b"WATCHDOG=1"]]
            process.send_signal(signal.SIGSTOP)
            while os.waitpid(process.pid, os.WUNTRACED) != (process.pid, signal.SIGSTOP << 8 | 0x7F):
                pass
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    manager.recv(100)
            manager.settimeout(0.1)
            with pytest.raises(TimeoutError):
                manager.recv(100)
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGABRT)
            _, errors = process.communicate()
            assert "Fatal Python error: Aborted" in errors
            assert "most recent call first" in errors


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "x"}, 0),
        ({"WATCHDOG_USEC": "20000000"}, 20),
        ({"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}, 0),
    ],
)
def test_a_watchdog_for_another_process_is_not_ours(
    variables: dict[str, str], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert watchdog_s() == expected


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
        assert "/nonexistent/hook is not a program" in complaint(process, 1)


def test_a_node_of_another_cluster_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    port = free_port()
    with command(tmp_path / "a", "--listen", f"127.0.0.1:{port}") as a:
        first_line(a)
        arguments = ("--node-id", "b", "--cluster", "other", "--peers", f"a=127.0.0.1:{port}")
        with command(tmp_path / "b", *arguments) as b:
            assert "this is cluster 'ckptd', not 'other'" in complaint(b, 1)


@pytest.mark.parametrize("package", ["ckptd", "ckptctl"])
def test_the_version_is_printed_without_importing_the_rest(package: str) -> None:
    """`ckptd --version` imported the whole daemon, 0.2 s."""
    code = f"""
import sys
from {package}.__main__ import main
sys.argv = ["{package}", "--version"]
main()
heavy = "asyncio", "pydantic", "msgpack", "typer", "rich", "ckptd.runtime", "ckpt_client", "ckptctl.commands"
sys.exit(", ".join(sorted(set(heavy) & set(sys.modules))) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(package)


def test_the_version_is_printed_without_starting(tmp_path: Path) -> None:
    with command(tmp_path, "--version") as process:
        assert process.communicate() == (f"ckptd {__version__}\n", "")
        assert process.returncode == 0
