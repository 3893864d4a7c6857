"""A cluster in which one node runs ckptd as it was before versions, conditions and leadership (ADR 31).

The older daemon is built from this repository's history.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.operator import done

from ckpt_client import CheckpointError, Table
from ckpt_protocol import codes
from ckptd.testing import LocalCluster

ROOT = Path(__file__).parents[2]
BEFORE = "3739a087b976"
"""The last commit without feature levels."""

OLD, NODES = "c", "abc"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the older daemon's packages."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", BEFORE, "ckptd/ckptd", "protocol/ckpt_protocol"],
        capture_output=True,
        check=False,
    )
    if archive.returncode:
        pytest.skip(f"this checkout has no history back to {BEFORE}: {archive.stderr.decode()}")
    directory = tmp_path_factory.mktemp("older")
    subprocess.run(["tar", "x", "-C", directory], input=archive.stdout, check=True)
    return directory


class MixedCluster(LocalCluster):
    """A cluster whose node c runs the older daemon until `upgraded` is set."""

    def __init__(self, older: Path) -> None:
        super().__init__(len(NODES))
        self.older = older
        self.upgraded = False

    def start(self, node: int | str, *flags: str) -> None:
        with pytest.MonkeyPatch.context() as patched:
            if self.node_id(node) == OLD and not self.upgraded:
                paths = (self.older / "ckptd", self.older / "protocol")
                patched.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
            super().start(node, *flags)


@pytest.fixture
def mixed(older: Path) -> Iterator[MixedCluster]:
    with MixedCluster(older) as cluster:
        assert "feature_level" not in cluster.describe(node=OLD)
        yield cluster


def opened(cluster: LocalCluster) -> Table:
    return Table("mixed", 100, 1000, 32, address=cluster.addresses())


def test_what_an_older_node_would_ignore_is_refused_until_it_is_upgraded(mixed: MixedCluster) -> None:
    with opened(mixed) as table:
        table["k"] = "v"
        for call in (lambda: table.add("l", "v"), lambda: table.lead(timeout=1.0).__enter__()):
            with pytest.raises(CheckpointError, match="every configured node must run") as refused:
                call()
            assert refused.value.code == codes.NOT_SUPPORTED
        assert list(table) == [b"k"]
        assert mixed.describe().feature_level_waits_for == (OLD,)
        assert mixed.leave(OLD) == 0
        with pytest.raises(CheckpointError):
            table.add("l", "v")  # It may come back as it was.
        mixed.upgraded = True
        mixed.start(OLD)
        mixed.wait_serving()
        table.add("l", "v")
        with table.lead(timeout=10.0):
            table["m"] = "v"
        assert mixed.describe(node=OLD).feature_level_waits_for == ()


@pytest.mark.extended
def test_an_older_node_that_comes_later_is_not_admitted(mixed: MixedCluster) -> None:
    mixed.leave(OLD)
    mixed.upgraded = True
    mixed.start(OLD)
    mixed.wait_serving()
    with opened(mixed) as table:
        table.add("k", "v")
        mixed.leave(OLD)
        mixed.upgraded = False
        mixed.start(OLD)
        mixed.wait_until(
            lambda: "too_old" in dict(mixed.describe().alarms), "an alarm because of the older node"
        )
        assert [member.node_id for member in mixed.describe().members] == ["a", "b"]
        table.add("l", "v")
        mixed.leave(OLD)
        mixed.upgraded = True
        mixed.start(OLD)
        mixed.wait_serving()
        assert sorted(table) == [b"k", b"l"]


def test_ckptctl_status_shows_which_node_is_older(mixed: MixedCluster) -> None:
    shown = done(mixed, "a", "status")
    assert "leading and conditions are refused until c was seen" in shown
