"""What an operator types: the real `ckptctl`, at one node of a cluster."""

import json
import subprocess
import sys
from typing import Any

from ckptd.testing import LocalCluster

Run = subprocess.CompletedProcess[bytes]
LIMIT_SECONDS = 60


def ckptctl(
    cluster: LocalCluster, *arguments: str, given: bytes = b"", node: str = "b", address: str = ""
) -> Run:
    """Run one command, at a node's unix socket unless another address is given; return how it ended."""
    return subprocess.run(
        [sys.executable, "-m", "ckptctl", *arguments, "--address", address or cluster.address(node)],
        input=given,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )


def done(cluster: LocalCluster, node: str, *arguments: str) -> str:
    """Run a command that must succeed; return what it prints."""
    ended = ckptctl(cluster, *arguments, node=node)
    assert ended.returncode == 0, (arguments, ended.stdout, ended.stderr)
    return ended.stdout.decode()


def refused(cluster: LocalCluster, node: str, *arguments: str) -> str:
    """Run a command that must be refused; return its last line, after the text before the question."""
    ended = ckptctl(cluster, *arguments, node=node)
    assert ended.returncode == 1 and ended.stdout == b"", (arguments, ended)
    return ended.stderr.decode().splitlines()[-1]


def status(cluster: LocalCluster, node: str) -> Any:
    """Return what `status --json` prints."""
    return json.loads(done(cluster, node, "status", "--json"))
