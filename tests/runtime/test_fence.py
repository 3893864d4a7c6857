"""The fence hook: only exit code 0 proves anything, and nothing of it outlives its limit."""

import asyncio
import os
import stat
import time
from pathlib import Path

import pytest
from tests.runtime.fakes import running

from ckptd.core.events import Fence, FenceEnded, WallClockRead
from ckptd.runtime.errors import StartError
from ckptd.runtime.host.fence_hook import OUTPUT_BYTES_MAX, FenceHook


def hook(directory: Path, script: str, limit_s: float = 10.0, arguments: str = "") -> FenceHook:
    """A hook that runs a shell script."""
    program = directory / "fence hook"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return FenceHook(f"'{program}' {arguments}", "a", limit_s)


def gone(pid: int) -> bool:
    """Whether a process has ended (or has only to be collected)."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


async def test_exit_code_0_is_proof(tmp_path: Path) -> None:
    ended = await hook(tmp_path, "exit 0").run("b")
    assert ended == FenceEnded("b", True, "the fence hook ended with exit code 0")


async def test_any_other_exit_code_is_none(tmp_path: Path) -> None:
    ended = await hook(tmp_path, "exit 3").run("b")
    assert ended == FenceEnded("b", False, "the fence hook ended with exit code 3")


async def test_a_signal_is_none(tmp_path: Path) -> None:
    ended = await hook(tmp_path, "kill -TERM $$").run("b")
    assert ended == FenceEnded("b", False, "signal 15 ended the fence hook")


async def test_its_last_argument_is_the_node_and_no_shell_runs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPTD_DAEMON_KEY", "secret")
    script = 'echo "[$*] $CKPTD_FENCE_NODE $CKPTD_NODE [$CKPTD_DAEMON_KEY]"; cat; echo more >&2'
    with caplog.at_level("INFO"):
        ended = await hook(tmp_path, script, arguments="--off '$HOME;x'").run("b")
    assert ended.fenced
    assert "output of the fence hook for node b: [--off $HOME;x b] b a [] | more" in caplog.text


async def test_what_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    limited = hook(tmp_path, f"trap '' TERM; sleep 600 & echo $$ $! >'{pids}'; wait", limit_s=0.5)
    ended = await limited.run("b")
    assert ended == FenceEnded("b", False, "the fence hook was killed after 0.5 s")
    for pid in map(int, pids.read_text().split()):
        while not gone(pid):
            await asyncio.sleep(0.001)


async def test_a_child_that_holds_the_output_open_holds_nothing_up(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    ended = await hook(tmp_path, f"sleep 600 & echo $! >'{pid}'; echo done").run("b")
    assert ended.fenced
    assert time.monotonic() - began < 60
    os.kill(int(pid.read_text()), 9)


async def test_a_flood_of_output_is_read_and_little_of_it_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        ended = await hook(tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x").run("b")
    assert ended.fenced
    assert caplog.text.count("x") < OUTPUT_BYTES_MAX + 100


async def test_a_program_that_vanished_proves_nothing(tmp_path: Path) -> None:
    vanished = hook(tmp_path, "exit 0")
    (tmp_path / "fence hook").unlink()
    ended = await vanished.run("b")
    assert not ended.fenced
    assert "cannot be started" in ended.text
    assert "No such file" in ended.text


def test_a_program_that_is_none_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    for command in ("/nonexistent/fence", str(tmp_path / "text")):
        with pytest.raises(StartError, match="is not a program that can be run"):
            FenceHook(command, "a", 1.0)


async def test_a_node_is_fenced_once_at_a_time_and_the_core_is_informed(tmp_path: Path) -> None:
    pipe, runs = tmp_path / "pipe", tmp_path / "runs"
    os.mkfifo(pipe)
    hook(tmp_path, f"echo \"$1\" >>'{runs}'; cat '{pipe}'")
    command = f"'{tmp_path / 'fence hook'}'"
    async with running(tmp_path, fence_hook=command) as a:
        a.node.on[WallClockRead] = lambda event: [Fence("b"), Fence("b")]
        a.driver.handle(WallClockRead(0))
        a.driver.handle(WallClockRead(0))
        with await asyncio.to_thread(open, pipe, "w"):
            pass
        assert await a.node.told(FenceEnded) == FenceEnded("b", True, "the fence hook ended with exit code 0")
        assert runs.read_text() == "b\n"
        assert a.node.transport.counters()["fence_runs"] == 1
        a.driver.handle(WallClockRead(0))
        with await asyncio.to_thread(open, pipe, "w"):
            pass
        await a.node.told(FenceEnded, 2)
        assert a.node.transport.counters()["fence_runs"] == 2


async def test_a_hook_under_way_ends_with_the_daemon(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    hook(tmp_path, f"echo $$ >'{pipe}'; sleep 600")
    async with running(tmp_path, fence_hook=f"'{tmp_path / 'fence hook'}'") as a:
        a.node.on[WallClockRead] = lambda event: [Fence("b")]
        a.driver.handle(WallClockRead(0))
        pid = int(await asyncio.to_thread(pipe.read_text))
    assert gone(pid)
    assert not [event for event in a.node.events if isinstance(event, FenceEnded)]
