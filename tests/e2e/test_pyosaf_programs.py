"""Programs that were written for OpenSAF's pyosaf run on real daemons as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ckptd.testing import LocalCluster

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests" / "programs"


def start(address: str, program: str, *arguments: str) -> "subprocess.Popen[str]":
    """A program under `python -m ckpt_client.pyosaf`, on its way."""
    command = [sys.executable, "-m", "ckpt_client.pyosaf", str(PROGRAMS / program), *arguments]
    environment = {**os.environ, "CKPTD_ADDRESS": address}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(address: str, program: str, *arguments: str) -> str:
    """What a program prints."""
    with start(address, program, *arguments) as process:
        printed, wrong = process.communicate(timeout=60)
    assert process.returncode == 0, printed + wrong
    return printed


def test_a_counter_continues_at_another_node_where_it_was(cluster: LocalCluster) -> None:
    first, second = cluster.node_ids[:2]
    assert run(cluster.address(first), "pyosaf_counter.py", "3") == "count 3\n"
    assert run(cluster.address(second), "pyosaf_counter.py", "2") == "count 5\n"


@pytest.mark.extended
def test_sections_are_made_written_listed_and_read(cluster: LocalCluster) -> None:
    printed = run(cluster.addresses(), "pyosaf_sections.py").splitlines()
    assert printed == [
        "4 sections, 15 bytes",
        "(generated) 9 generated always",
        "first 3 one always",
        "second 3 two always",
        "third 0 - hour",
    ]


@pytest.mark.extended
def test_what_is_asynchronous_ends_with_a_callback(cluster: LocalCluster) -> None:
    assert run(cluster.addresses(), "pyosaf_async.py").splitlines() == [
        "open 1 ended: SA_AIS_ERR_NOT_EXIST",
        "open 2 ended: SA_AIS_OK",
        "synchronize 3 ended: SA_AIS_OK",
    ]


@pytest.mark.extended
def test_a_tracker_at_another_node_gets_one_report_for_each_call(cluster: LocalCluster) -> None:
    first, second = cluster.node_ids[:2]
    with start(cluster.address(first), "pyosaf_tracking.py", "tracker", "3") as tracker:
        assert tracker.stdout is not None
        assert tracker.stdout.readline() == "tracking\n"
        run(cluster.address(second), "pyosaf_tracking.py", "writer")
        printed, wrong = tracker.communicate(timeout=60)
    assert tracker.returncode == 0, wrong
    told = [[element.split("=")[0] for element in line.split()] for line in printed.splitlines()]
    assert told == [["a@0+3"], ["b@0+3"], ["a@0+2", "b@1+3"]]
    assert printed.splitlines()[-1] == "a@0+2=12 b@1+3=345"
