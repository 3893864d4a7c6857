"""`ckptctl` without a daemon: its errors are one line and an exit code."""

import errno
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from ckpt_client import CheckpointError, SaAisError, Table
from ckpt_client.io import blocking_connection
from ckptctl import queries
from ckptctl.settings import SharedOptions, resolve


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ckptctl", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "put x k v",
        *(
            pytest.param(each, marks=pytest.mark.extended)
            for each in ("ls", "show x", "get x k", "delete x k", "unlink x")
        ),
    ],
)
def test_no_daemon_is_one_line_that_names_the_address_and_how_to_start_one(
    command: str, tmp_path: Path
) -> None:
    address = f"unix://{tmp_path}/none.sock"
    ended = run(*command.split(), "--address", address, "--timeout", "0.2")
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("ckptctl: ")
    assert address in ended.stderr
    assert "ckptd --node-id" in ended.stderr


def refusing(error: OSError) -> Callable[..., NoReturn]:
    def refuse(*arguments: object) -> NoReturn:
        raise error

    return refuse


NOT_ALLOWED = PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NOT_ALLOWED, "this user may not connect (Permission denied)"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_a_user_who_may_not_connect_is_not_advised_to_start_a_daemon(
    monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    """Permission denied ended in the advice to start a daemon, which ran already."""
    monkeypatch.setattr(queries, "connect_socket", refusing(error))
    access = resolve(SharedOptions(address="unix:///s"), 1.0)
    with pytest.raises(SaAisError) as failed:
        queries.describe_cluster(access)
    assert said in str(failed.value)
    assert "ckptd --node-id" not in str(failed.value)


def test_a_table_that_may_not_connect_does_not_suggest_to_start_a_daemon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocking_connection, "connect_socket", refusing(NOT_ALLOWED))
    with pytest.raises(CheckpointError, match="may not connect") as failed:
        Table("x", 1, 1, 1, address="unix:///s")
    assert "ckptd --node-id" not in str(failed.value)


def test_something_else_that_listens_is_one_line_too(tmp_path: Path) -> None:
    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        ended = run("status", "--address", f"unix://{path}", "--timeout", "0.2")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1


def test_a_wrong_address_is_one_line() -> None:
    ended = run("status", "--address", "http://x")
    assert ended.returncode == 1
    assert "http://x" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["get"], ["nothing"], ["get", "x", "0xz"], ["ls", "--timeout", "-1"]])
def test_a_wrong_command_line_is_exit_code_2(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_version_is_printed() -> None:
    ended = run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("ckptctl")
