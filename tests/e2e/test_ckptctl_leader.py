"""`ckptctl lead` and `ckptctl leader` against real daemons."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.e2e.operator import LIMIT_SECONDS, ckptctl, done, refused

from ckpt_client import Table
from ckptd.testing import LocalCluster

Lead = subprocess.Popen[bytes]
POLL_SECONDS = 0.02
NODE = "b"
BRIEF = ("--ttl", "3s", "--kill-after", "500ms")


def _not_in_the_background() -> None:
    """Programs in the background ignore SIGINT, and those that they start do, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def leading(
    cluster: LocalCluster, name: str, *arguments: str, options: tuple[str, ...] = (), node: str = NODE
) -> Iterator[Lead]:
    """Run `ckptctl lead`; kill it at the end if it runs."""
    command = [sys.executable, "-m", "ckptctl", "lead", name, *options]
    command += ["--address", cluster.address(node), "--", *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_not_in_the_background,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < until, f"not in time: {what}"
        time.sleep(POLL_SECONDS)


def lives(pid: int) -> bool:
    """Return True if a process runs; what has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def table(cluster: LocalCluster, name: str) -> Iterator[Table]:
    with Table(name, 10, 1000, 32, address=cluster.address(NODE)) as table:
        yield table


def all_logs(cluster: LocalCluster) -> str:
    return "".join(cluster.log_path(node).read_text() for node in cluster.node_ids)


def first_line(process: Lead) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def output(process: Lead) -> tuple[str, str]:
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    return out.decode(), err.decode()


def test_the_command_has_the_token_and_its_exit_code_is_passed_on(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    script = 'echo "$CKPTD_TOKEN $CKPTD_TOKEN_INT $1"; exit 7'
    with leading(cluster, name, "sh", "-c", script, "sh", "--port") as process:
        text, number, argument = output(process)[0].split()
        assert process.returncode == 7
    assert int(text, 16) == int(number) and argument == "--port"
    history = table.leadership_history()
    assert history.leader is None
    assert (history.ended[-1].name, history.ended[-1].reason) == ("sh", "resigned")
    assert history.ended[-1].token == text


def test_the_next_command_runs_when_the_leadership_is_revoked(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    """The first one does not end by SIGTERM, so that it is killed."""
    stubborn = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    with ExitStack() as ends:
        one = ends.enter_context(
            leading(cluster, name, "sh", "-c", stubborn, options=("--name", "ada", *BRIEF))
        )
        pid = int(first_line(one))
        two = ends.enter_context(
            leading(cluster, name, "sh", "-c", "echo $$", options=("--name", "grace", *BRIEF))
        )
        wait_until(lambda: table.leadership_history().waiting, "the second one waits")
        assert lives(pid)
        assert refused(cluster, NODE, "put", name, "k", "v").endswith("(SA_AIS_ERR_ACCESS)")
        shown = done(cluster, NODE, "leader", name)
        assert "ada leads" in shown and f"grace (process {two.pid} on " in shown
        described = json.loads(done(cluster, NODE, "leader", name, "--json"))
        assert described["leader"]["pid"] == one.pid and described["leader"]["death_seen"]
        printed = done(cluster, NODE, "leader", name, "--revoke", "--yes")
        assert printed.startswith(f"ada (process {one.pid} on ")
        assert int(output(two)[0]) != pid and two.returncode == 0
        text = output(one)[1]
        assert one.returncode == 128 + signal.SIGKILL
        assert "leads no more" in text and all(line.startswith("ckptctl: ") for line in text.splitlines())
    assert not lives(pid)
    ended = table.leadership_history().ended
    assert [(past.name, past.reason) for past in ended] == [("ada", "revoked"), ("grace", "resigned")]
    wait_until(lambda: "an operator revoked it" in all_logs(cluster), "a daemon's log has it")


def test_two_commands_of_which_one_runs_at_a_time(
    cluster: LocalCluster, table: Table, name: str, tmp_path: Path
) -> None:
    """`mkdir` fails if the other one is there."""
    alone = f"mkdir {tmp_path}/alone && sleep 0.3 && rmdir {tmp_path}/alone"
    with (
        leading(cluster, name, "sh", "-c", alone) as one,
        leading(cluster, name, "sh", "-c", alone) as two,
    ):
        assert (output(one)[1], output(two)[1]) == ("", "")
        assert (one.returncode, two.returncode) == (0, 0)


def test_the_command_ends_with_ckptctl(cluster: LocalCluster, table: Table, name: str) -> None:
    """Also what it has started itself."""
    with leading(cluster, name, "sh", "-c", "sleep 1000 & echo $! $$; wait") as process:
        pids = [int(pid) for pid in first_line(process).split()]
        assert all(map(lives, pids))
        process.kill()
        wait_until(lambda: not any(map(lives, pids)), "the command has ended")
    wait_until(lambda: table.leader() is None, "it leads no more")
    assert table.leadership_history().ended[-1].reason == "closed"


@pytest.mark.extended
def test_the_command_ends_in_time_when_ckptctl_is_paused(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    """As when somebody presses Ctrl-Z: the process in between has the deadline."""
    with ExitStack() as ends:
        one = ends.enter_context(
            leading(cluster, name, "sh", "-c", "echo $$; exec sleep 1000", options=BRIEF)
        )
        pid = int(first_line(one))
        two = ends.enter_context(leading(cluster, name, "sh", "-c", "echo $CKPTD_TOKEN", options=BRIEF))
        wait_until(lambda: table.leadership_history().waiting, "the second one waits")
        os.kill(one.pid, signal.SIGSTOP)
        wait_until(lambda: not lives(pid), "the command has ended")
        leader = table.leader()
        assert leader is not None and leader.pid == one.pid, "nobody else leads yet"
        assert first_line(two) > leader.token
        os.kill(one.pid, signal.SIGCONT)
        assert "since the leadership ends" in output(one)[1]
        assert one.returncode == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.extended)])
def test_a_signal_is_passed_on_to_the_command(
    cluster: LocalCluster, table: Table, name: str, number: signal.Signals
) -> None:
    script = f"trap 'echo caught; exit 3' {number.value}; echo ready; while :; do sleep 0.1; done"
    with leading(cluster, name, "sh", "-c", script) as process:
        assert first_line(process) == "ready"
        process.send_signal(number)
        assert output(process)[0] == "caught\n"
        assert process.returncode == 3


@pytest.mark.extended
def test_a_signal_ends_one_that_waits(cluster: LocalCluster, table: Table, name: str) -> None:
    with table.lead(), leading(cluster, name, "echo", "it runs") as process:
        wait_until(lambda: table.leadership_history().waiting, "it waits")
        process.terminate()
        assert output(process)[0] == ""
        assert process.returncode == 128 + signal.SIGTERM
        wait_until(lambda: not table.leadership_history().waiting, "it waits no more")


@pytest.mark.extended
def test_the_command_itself_may_write_where_the_leadership_is_shared(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    script = f"{sys.executable} -m ckptctl put {name} k v --address {cluster.address(NODE)}"
    with leading(cluster, name, "sh", "-c", script, options=("--shared",)) as process:
        assert output(process) == ("", "") and process.returncode == 0
    assert table["k"] == b"v"


@pytest.mark.parametrize(
    ("command", "exit_code", "text"),
    [
        (["no-such-command"], 127, "ckptctl: no-such-command: command not found"),
        (["/etc/passwd"], 126, "ckptctl: /etc/passwd: permission denied"),
        (["/"], 126, "ckptctl: /: this is a directory"),
    ],
)
def test_a_command_that_cannot_run_has_the_exit_code_of_a_shell(
    cluster: LocalCluster, command: list[str], exit_code: int, text: str
) -> None:
    with leading(cluster, "nothing-here", *command) as process:
        assert output(process) == ("", text + "\n")
        assert process.returncode == exit_code


@pytest.mark.extended
def test_a_wrong_command_line_is_refused_before_anything_is_done(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    for arguments, text in (
        ([], b"no command is given"),
        (["--ttl", "5x", "--", "true"], b"--ttl '5x': a duration is 5s, 500ms"),
        (["--kill-after", "4s", "--", "true"], b"it is at most half of the ttl"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "ckptctl", "lead", name, *arguments],
            capture_output=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        assert ended.returncode == 2 and text in ended.stderr, (arguments, ended)
    assert "a ttl must be from 2.9 s" in lead_refused(cluster, name, "--ttl", "1s")
    assert "there is no checkpoint" in lead_refused(cluster, "nothing-here")
    with table.lead():
        assert "number 1 of those that wait" in lead_refused(cluster, name, "--timeout", "0.5")
    assert table.leadership_history().waiting == ()


def lead_refused(cluster: LocalCluster, name: str, *options: str) -> str:
    with leading(cluster, name, "echo", "it runs", options=options) as process:
        out, err = output(process)
    assert (out, process.returncode, len(err.splitlines())) == ("", 1, 1), err
    return err


def test_no_leadership_is_revoked_without_an_answer_or_without_a_leader(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    assert "no program leads" in refused(cluster, NODE, "leader", name, "--revoke", "--yes")
    assert "no program leads" in done(cluster, NODE, "leader", name)
    with table.lead() as leadership:
        asked = ckptctl(cluster, "leader", name, "--revoke", node=NODE)
        assert asked.returncode == 2 and b"Next: no program waits." in asked.stderr
        leadership.check()


@pytest.mark.extended
def test_the_command_ends_in_time_when_no_node_can_be_reached(name: str) -> None:
    with LocalCluster(1) as cluster, Table(name, 10, 1000, 32, address=cluster.address("a")):
        with leading(cluster, name, "sleep", "1000", options=BRIEF, node="a") as process:
            wait_until(lambda: "sleep leads" in done(cluster, "a", "leader", name), "it leads")
            cluster.pause("a")
            text = output(process)[1]
            cluster.resume("a")
        assert "since the leadership ends" in text
        assert process.returncode == 128 + signal.SIGTERM


def test_at_a_terminal_the_command_may_read_and_is_interrupted_by_ctrl_c(
    cluster: LocalCluster, table: Table, name: str
) -> None:
    """It stays in the terminal's foreground. It gets one SIGINT, not a second one from `ckptctl`."""
    script = "trap 'echo interrupted' INT; read line; echo \"it reads $line\"; while :; do sleep 0.05; done"
    command = [sys.executable, "-m", "ckptctl", "lead", name, "--address", cluster.address(NODE)]
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # A program in the background inherits that it is ignored.
        os.execv(command[0], [*command, "--", "sh", "-c", script])
    try:
        shown = ""

        def shows(text: str) -> bool:
            nonlocal shown
            shown += os.read(terminal, 1024).decode()
            return text in shown

        os.write(terminal, b"this\n")
        wait_until(lambda: shows("it reads this"), "the command reads")
        os.write(terminal, b"\x03")
        wait_until(lambda: shows("interrupted"), "the command is interrupted")
        os.kill(pid, signal.SIGTERM)
        ended, pid = os.waitpid(pid, 0), 0
        assert os.waitstatus_to_exitcode(ended[1]) == 128 + signal.SIGTERM
        assert shown.count("interrupted") == 1
    finally:
        os.close(terminal)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
