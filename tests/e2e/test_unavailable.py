"""A checkpoint whose only replica is on a node that was killed, or is frozen: what an open and a call say."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from ckpt_client import CheckpointError, Table
from ckpt_client.saf.service import CheckpointService
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckptd.testing import LocalCluster

FLAGS = SA_CKPT_WR_ALL_REPLICAS | SA_CKPT_CHECKPOINT_COLLOCATED

PROGRAM = f"""
import sys, time
from ckpt_client import Table
table = Table(sys.argv[2], 10, 100, 8, flags={FLAGS}, address=sys.argv[1])
table["k"] = "v"
print("open", flush=True)
time.sleep(600)
"""


def program_at(cluster: LocalCluster, node: str, name: str) -> "subprocess.Popen[str]":
    """A program of its own that has a checkpoint open at a node, the only one with a replica."""
    arguments = [sys.executable, "-c", PROGRAM, cluster.address(node), name]
    program = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "open\n"
    return program


def refusal(call: Callable[[], object]) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        call()
    return caught.value


def test_an_open_after_the_only_replica_died_is_not_exist(cluster: LocalCluster, name: str) -> None:
    """It was OK, and every call on its handle BAD_HANDLE."""
    with program_at(cluster, "b", name) as program:
        cluster.kill("b")
        program.kill()
    assert refusal(lambda: Table(name, address=cluster.address("a"))).code == codes.NOT_EXIST
    with Table(name, 10, 100, 8, flags=FLAGS, address=cluster.address("a")) as table:
        table["k"] = "new"
        assert table.read_all() == {b"k": b"new"}


@pytest.mark.extended
@pytest.mark.parametrize(
    "scheme", ["unix", *(pytest.param(other, marks=pytest.mark.slow) for other in ("tcp", "udp"))]
)
def test_an_unavailable_checkpoint_says_which_node_it_waits_for(
    cluster: LocalCluster, name: str, scheme: str
) -> None:
    """It was OK at once, or TIMEOUT without a reason: failures.md promises TRY_AGAIN with it."""
    address = cluster.address("a", scheme)
    with Table(name, 10, 100, 8, flags=FLAGS, address=cluster.addresses("b"), follow_active=False) as table:
        table["k"] = "v"
        cluster.pause("b")
        try:
            open_refused = refusal(lambda: Table(name, address=address, timeout=4))
            assert "replicas on b" in open_refused.text
            # (Over UDP the request is repeated, so that a copy may still be on its way.)
            assert open_refused.code == codes.TRY_AGAIN or scheme == "udp"
            for late in (
                refusal(lambda: table.Read("k", timeout=4)),
                refusal(lambda: table.Write("k", "w", timeout=0.6)),
                refusal(lambda: table.Write("k", "w", timeout=2.5)),
            ):
                assert (late.code, "replicas on b" in late.text) == (codes.TRY_AGAIN, True), late
        finally:
            cluster.resume("b")
        cluster.wait_serving()
        with Table(name, address=address) as other:
            assert other["k"] == b"v" == table["k"]


@pytest.mark.extended
def test_a_program_of_the_saf_api_gets_the_same_error(cluster: LocalCluster, name: str) -> None:
    with program_at(cluster, "b", f"safCkpt={name}") as program:
        cluster.pause("b")
        try:
            service = CheckpointService.initialize(address=cluster.address("a"), timeout_ns=3_000_000_000)
            with pytest.raises(SystemError) as caught:
                service.checkpoint_open(f"safCkpt={name}", 1)
            assert caught.value.args == (codes.TRY_AGAIN,)
            assert "replicas on b" in str(caught.value)
            service.finalize()
        finally:
            cluster.resume("b")
            program.kill()
    cluster.wait_serving()
