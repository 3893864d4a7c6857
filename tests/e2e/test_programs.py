"""The demo and the measuring programs run to their end, as whoever types `make` runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_the_demo_keeps_every_promise_and_leaves_no_daemon() -> None:
    ended = run("examples.demo")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Every promise was kept." in ended.stdout
    assert "All daemons have ended;" in ended.stdout
    for kind in ("ALL_REPLICAS", "ACTIVE_REPLICA", "WEAK"):
        assert kind in ended.stdout


def test_the_benchmark_measures_a_case_beside_its_floor(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    ended = run("bench", "--only", "1 replica", "--rounds", "1", "--no-scale", "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    case = json.loads(written.read_text())["cases"][0]
    assert case["case"] == "write, sync, 1 replica"
    for who in ("floor", "ckptd"):
        assert case[who]["operations"] > 0
        assert set(case[who]["cpu_us"]) == {"client", "node"}
    assert case["ratio"]["cpu"] > 0


def test_the_kill_measurement_reports_a_kill(tmp_path: Path) -> None:
    written = tmp_path / "kills.json"
    ended = run("bench.kill", "--kills", "1", "--json", str(written))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    kill = json.loads(written.read_text())[0]
    assert kill["lost"] == 0
    assert kill["errors"] == []
    assert kill["acknowledged"] > 0


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


def test_a_short_soak_finds_no_violation_and_prints_its_seed(tmp_path: Path) -> None:
    ended = run("bench.soak", "--minutes", "0.01", "--faults", "1", "--seed", "1", "--keep", str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "seed 1" in ended.stdout
    assert "no violation" in ended.stdout
    assert list(tmp_path.iterdir()) == []
