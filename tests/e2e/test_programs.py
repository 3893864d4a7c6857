"""The demo and the measuring programs run to their end, as whoever types `make` runs them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_client import Table
from ckptd.testing import LocalCluster

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.extended
def test_the_demo_keeps_every_promise_and_leaves_no_daemon() -> None:
    ended = run("examples.demo")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Every promise was kept." in ended.stdout
    assert "All daemons have ended;" in ended.stdout
    for kind in ("ALL_REPLICAS", "ACTIVE_REPLICA", "WEAK"):
        assert kind in ended.stdout


@pytest.mark.extended
def test_the_benchmark_measures_a_case_next_to_its_floor(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    without = ("--no-scale", "--no-time-outs")
    ended = run("bench", "--only", "1 replica", "--rounds", "1", *without, "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    case = json.loads(written.read_text())["cases"][0]
    assert case["case"] == "write, sync, 1 replica"
    for who in ("floor", "ckptd"):
        assert case[who]["operations"] > 0
        assert set(case[who]["cpu_us"]) == {"client", "node"}
    assert case["ratio"]["cpu"] > 0


@pytest.mark.slow
def test_the_measurement_of_time_outs_ends() -> None:
    ended = run("bench.time_outs")
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.extended
def test_the_kill_measurement_reports_a_kill(tmp_path: Path) -> None:
    written = tmp_path / "kills.json"
    ended = run("bench.kill", "--kills", "1", "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    kill = json.loads(written.read_text())[0]
    assert kill["lost"] == 0
    assert kill["errors"] == []
    assert kill["acknowledged"] > 0


@pytest.mark.extended
def test_the_hand_over_measurement_fails_no_call(tmp_path: Path) -> None:
    written = tmp_path / "handovers.json"
    ended = run("bench.handover", "--times", "2", "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for one in json.loads(written.read_text()):
        assert one["lost"] == 0
        assert one["errors"] == []


@pytest.mark.slow
def test_the_silence_measurement_loses_nothing(tmp_path: Path) -> None:
    written = tmp_path / "silences.json"
    ended = run("bench.silence", "--times", "1", "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "is cut off" in ended.stdout or "SIGSTOP" in ended.stdout
    assert json.loads(written.read_text())[0]["lost"] == 0


@pytest.mark.slow
def test_the_join_measurement_fails_no_call(tmp_path: Path) -> None:
    written = tmp_path / "joins.json"
    ended = run("bench.join", "--times", "1", "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert json.loads(written.read_text())[0]["errors"] == []


@pytest.mark.extended
def test_a_short_soak_finds_no_violation_and_prints_its_seed(tmp_path: Path) -> None:
    ended = run("bench.soak", "--minutes", "0.01", "--faults", "1", "--seed", "1", "--keep", str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "seed 1" in ended.stdout
    assert "no violation" in ended.stdout
    assert list(tmp_path.iterdir()) == []


# -- programs in the style of ASP's


def run_asp(cluster: LocalCluster, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m ckpt_client.asp`, at one node."""
    environment = {**os.environ, "CKPTD_ADDRESS": cluster.address(node)}
    command = [sys.executable, "-m", "ckpt_client.asp", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(
    params=[pytest.param((), id="ours"), pytest.param(("--strict",), id="strict", marks=pytest.mark.slow)]
)
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """As it is, and as ASP had it."""
    return request.param  # type: ignore[no-any-return]


def unlink(cluster: LocalCluster, name: str) -> None:
    """Whatever an earlier program left is gone."""
    with Table(name, address=cluster.address("a")) as table:
        table.unlink()


def test_the_journal_is_read_at_another_node(cluster: LocalCluster, options: tuple[str, ...]) -> None:
    def journal(node: str, *arguments: str) -> str:
        done = run_asp(cluster, node, *options, "examples/journal.py", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert journal("a", "add", "the first entry") == "entry 1 is kept\n"
    assert journal("b", "show") == "2 sections, 16 bytes\nthe first entry\n"
    assert journal("c", "add", "the second one") == "entry 2 is kept\n"
    assert journal("b", "show") == "3 sections, 30 bytes\nthe first entry\nthe second one\n"
    assert journal("a", "forget") == "the journal is forgotten\n"
    assert journal("c", "show") == "0 sections, 0 bytes\n"
    unlink(cluster, "journal")


@pytest.mark.extended
def test_leases_run_out_by_themselves(cluster: LocalCluster, options: tuple[str, ...]) -> None:
    def leases(node: str, *arguments: str) -> tuple[int, list[str]]:
        done = run_asp(cluster, node, *options, "examples/leases.py", *arguments)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.returncode, done.stdout.splitlines()

    code, said = leases("a", "grant", "printer", "Ada", "3600")
    assert (code, said[-1]) == (0, "printer is Ada's for 3600 seconds")
    code, said = leases("b", "grant", "printer", "Grace", "3600")
    assert (code, said[-1]) == (1, "printer is held by Ada")
    code, said = leases("c", "list")
    assert (code, said[-1]) == (0, "printer: Ada, 59 minutes left")
    with Table("leases", address=cluster.address("b")) as table:
        leases("a", "grant", "scanner", "Ada", "1")
        cluster.wait_until(lambda: "scanner" not in table, "the lease to run out")
        assert "printer" in table
    code, said = leases("a", "drop")
    assert (code, said[-1]) == (0, "all leases are dropped")
    code, said = leases("b", "grant", "printer", "Grace", "60")
    assert (code, said[-1]) == (0, "printer is Grace's for 60 seconds")
    unlink(cluster, "leases")


@pytest.mark.extended
def test_a_program_that_dispatches_callbacks(cluster: LocalCluster, options: tuple[str, ...]) -> None:
    ended = ["invocation 2: SA_AIS_OK", "done"]
    opened = "invocation 1: the checkpoint is open"
    first = run_asp(cluster, "a", *options, "examples/callbacks.py", "20")
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.splitlines() == [opened, *ended]
    second = run_asp(cluster, "b", *options, "examples/callbacks.py", "5")
    assert second.stdout.splitlines() == [opened, "the last program came to job 20", *ended], second.stderr
    with Table("callbacks", address=cluster.address("c")) as table:
        assert table["job"] == b"job 5"
    unlink(cluster, "callbacks")


@pytest.mark.extended
def test_the_older_examples_run_strictly(cluster: LocalCluster) -> None:
    """Those that rely on what ASP could not do (a list that creates its sections) are told so."""
    for arguments, says in (
        (("phonebook.py", "add", "Ada", "1815"), "the section has been written"),
        (("phonebook.py", "find", "Ada"), "Ada: 1815"),
        (("standby.py", "active", "3"), "(code 12)"),
    ):
        done = run_asp(cluster, "a", "--strict", f"examples/{arguments[0]}", *arguments[1:])
        assert says in done.stdout, done.stdout + done.stderr
    unlink(cluster, "phonebook")  # ("jobs" is gone by itself: its hour of retention was 3.6 ms.)


# -- a program and its standby


@pytest.mark.parametrize("frozen", [False, pytest.param(True, marks=pytest.mark.extended)])
def test_the_warm_standby_takes_over_where_the_active_program_was_killed(
    frozen: bool, cluster: LocalCluster
) -> None:
    """Where its own node was frozen as well, the standby died with a traceback instead."""

    def start(node: str, name: str, jobs: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "CKPTD_ADDRESS": cluster.addresses(node)}
        command = [sys.executable, "examples/warm_standby.py", name, str(jobs)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    def said(program: subprocess.Popen[str]) -> str:
        assert program.stdout is not None
        return program.stdout.readline().strip()

    ada = start("a", "ada", 100_000)
    programs = [ada]
    try:
        assert said(ada) == "ada is active, and continues after job 0"
        with Table("warm-standby", address=cluster.address("c")) as table:
            cluster.wait_until(lambda: "done" in table, "the first job")
        grace = start("b", "grace", 3)
        programs.append(grace)
        assert said(grace) == "grace is the standby of ada"
        ada.kill()
        if frozen:
            cluster.pause("b")
        takes_over = re.fullmatch(r"grace is active, and continues after job (\d+)", said(grace))
        assert takes_over is not None
        done = int(takes_over[1])
        assert done >= 1
        assert said(grace) == f"grace ends after job {done + 3}"
        assert grace.wait(10) == 0
    finally:
        cluster.resume("b")
        for program in programs:
            program.kill()
            program.communicate()
    cluster.wait_serving()
    unlink(cluster, "warm-standby")
