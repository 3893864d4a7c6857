"""What real daemons recorded under faults: a fresh core that is told the same does the same."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.faulty import ENTRIES, coordinator, under_load

from ckptd.testing import LocalCluster

pytestmark = pytest.mark.extended

LIMIT_SECONDS = 110


def replayed(path: Path) -> str:
    """The last line of a replay that was the same."""
    ended = subprocess.run(
        [sys.executable, "-m", "ckptd.sim", "--quiet", "--replay", str(path)],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, (path.name, ended.stdout[-2000:], ended.stderr[-2000:])
    return ended.stdout.splitlines()[-1]


def test_each_start_of_each_node_and_of_the_witness_replays_the_same(tmp_path: Path, name: str) -> None:
    recordings = tmp_path / "recorded"
    flags = ("--record-events", str(recordings))
    with LocalCluster(2, witnesses=1, flags=flags) as cluster:
        with under_load(cluster, name) as load:
            first = coordinator(cluster)
            cluster.kill(first)
            load.wait_more(ENTRIES)
            cluster.start(first)
            cluster.wait_serving()
        for node in ("w", *cluster.node_ids):
            cluster.leave(node)
    starts = sorted(path.name.partition("-")[0] for path in recordings.iterdir())
    assert starts == sorted(["a", "b", "w", first])
    for path in recordings.iterdir():
        assert "the same effects" in replayed(path)
