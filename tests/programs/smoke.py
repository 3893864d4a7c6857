"""What a user does first, with what is installed: three nodes, every client, ckptctl, and a kill.

    python smoke.py [--without-uvloop] [--ipv6] [--examples DIRECTORY]

Run by `make smoke` with nothing but the installed package; it takes some seconds and prints what it did.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from ckpt_client import AsyncTable, Table
from ckpt_client.saf import CheckpointCreationAttributes, CheckpointService
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS, SA_TIME_END
from ckptd.testing import LocalCluster

READ_WRITE_CREATE = 7
SCHEMES = ("unix", "tcp", "udp")


class LoopbackSix(LocalCluster):
    """Every node at ::1 alone."""

    def listens_at(self, node: int | str) -> str:
        return super().listens_at(node).replace("127.0.0.1", "[::1]")


def use_table(cluster: LocalCluster, scheme: str) -> None:
    name = f"table-{scheme}"
    with Table(name, 10, 100, 20, address=cluster.address("a", scheme)) as table:
        table["k"] = b"v"
        table.Write({"m": b"1", "n": b"2"})
    with Table(name, address=cluster.address("b", scheme)) as table:
        assert (table["k"], table["n"], len(table)) == (b"v", b"2", 3)


async def use_async_table(cluster: LocalCluster, scheme: str) -> None:
    async with await AsyncTable.open(
        f"async-{scheme}", 10, 100, 20, address=cluster.address("b", scheme)
    ) as table:
        await table.write("k", b"v")
        assert await table.read("k") == b"v"


def use_saf(cluster: LocalCluster, scheme: str) -> None:
    service = CheckpointService.initialize(address=cluster.address("c", scheme))
    attributes = CheckpointCreationAttributes(SA_CKPT_WR_ALL_REPLICAS, 1000, SA_TIME_END, 10, 100, 20)
    checkpoint = service.checkpoint_open(f"safCkpt=saf-{scheme}", READ_WRITE_CREATE, attributes)
    checkpoint.section_create("call", SA_TIME_END, b"ringing")
    checkpoint.write([("call", b"talking", 0)])
    assert checkpoint.read([("call", None, 0)]) == [b"talking"]
    service.finalize()


def run(arguments: Sequence[str | Path], address: str = "") -> str:
    ended = subprocess.run(
        [str(argument) for argument in arguments],
        env={**os.environ, "CKPTD_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{arguments}: {ended.stdout}{ended.stderr}"
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stdout


def use_commands(cluster: LocalCluster, examples: Path | None) -> None:
    scripts = Path(sysconfig.get_path("scripts"))
    assert run([scripts / "ckptd", "--version"]).startswith("ckptd ")
    ckptctl = [scripts / "ckptctl", "--address", cluster.address("b")]
    run([*ckptctl, "status", "--check"])
    assert "table-unix" in run([*ckptctl, "ls"])
    assert run([*ckptctl, "get", "table-unix", "k"]).startswith("v")
    if examples is not None:
        for last in ("2", "4"):
            counting = [sys.executable, "-m", "ckpt_client.asp", examples / "counter.py", "2"]
            assert f"counted {last}" in run(counting, cluster.addresses())


def survive_a_kill(cluster: LocalCluster) -> None:
    with Table("killed", 10, 100, 20, address=cluster.addresses()) as table:
        table["k"] = b"acknowledged"
        cluster.wait_in_sync("killed", 3)
        active = cluster.active_node("killed")
        assert active is not None
        cluster.kill(active)
        assert table["k"] == b"acknowledged"
        table["k"] = b"goes on"
        cluster.start(active)
        cluster.wait_in_sync("killed", 3)
        assert table["k"] == b"goes on"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--without-uvloop", action="store_true")
    parser.add_argument("--ipv6", action="store_true", help="nodes listen on ::1 alone")
    parser.add_argument("--examples", type=Path, help="where counter.py is")
    arguments = parser.parse_args()
    flags = ("--uvloop", "off" if arguments.without_uvloop else "on")
    with (LoopbackSix if arguments.ipv6 else LocalCluster)(3, flags=flags) as cluster:
        for scheme in SCHEMES:
            use_table(cluster, scheme)
            asyncio.run(use_async_table(cluster, scheme))
            use_saf(cluster, scheme)
        use_commands(cluster, arguments.examples)
        survive_a_kill(cluster)
        for node in cluster.node_ids:
            assert "Traceback" not in cluster.log(node), cluster.log(node)
    print("three nodes, three clients over three transports, ckptctl, a kill: all as it should be")


if __name__ == "__main__":
    main()
