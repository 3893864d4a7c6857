"""How a node learns that the process at the other end of a unix socket is dead."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckptd.runtime.host.client_process import ForeignProcess, Process, process_at
from ckptd.testing import LocalCluster

CLIENT = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
sys.stdin.read()
"""

NODE = """
import asyncio, socket, sys
from ckptd.runtime.host.client_process import process_at
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("listening", flush=True)
connection, _ = server.accept()
process = process_at(connection)
print(type(process).__name__, process.is_dead(), flush=True)
connection.recv(1)

async def wait():
    report = asyncio.get_running_loop().create_future()
    process.report_death(report.set_result)
    return await report

print(asyncio.run(wait()), flush=True)
"""


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = Path("/tmp", f"ckptd-test-{os.getpid()}")  # A short path, for a unix socket.
    directory.mkdir(exist_ok=True)
    yield str(directory / "s")
    shutil.rmtree(directory)


def client_of(path: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", CLIENT, path], stdin=subprocess.PIPE, text=True)


def test_the_death_of_a_process_that_is_listed_here_is_known_at_once(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        client = client_of(path)
        connection, _ = server.accept()
    with connection:
        process = process_at(connection)
        assert isinstance(process, Process)
        assert process.pid == client.pid
        assert not process.is_dead()
        client.kill()
        connection.recv(1)
        assert process.is_dead()
        client.communicate()


def in_a_namespace_of_its_own(command: list[str]) -> list[str]:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("pid namespaces need Linux and root")
    return [unshare, "--pid", "--fork", "--kill-child", *command]


@pytest.mark.parametrize(("dies", "reported"), [(True, "True"), (False, "False")])
def test_the_death_of_a_process_in_another_namespace_is_known_too(
    path: str, dies: bool, reported: str
) -> None:
    command = in_a_namespace_of_its_own([sys.executable, "-c", NODE, path])
    node = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    assert node.stdout.readline() == "listening\n"
    client = client_of(path) if dies else None
    connection = None
    if client is None:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
    found = node.stdout.readline()
    if found == "NoneType\n" or not found:
        pytest.skip("this kernel has no SO_PEERPIDFD")
    assert found == "ForeignProcess False\n"
    if client is not None:
        client.kill()
        client.communicate()
    if connection is not None:
        connection.close()
    assert node.communicate()[0] == reported + "\n"


def test_a_foreign_process_is_dead_once_its_descriptor_is_readable() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = ForeignProcess(os.pidfd_open(child.pid))
    assert not process.is_dead()
    child.communicate(b"\n")
    assert process.is_dead()

    async def report() -> bool:
        reported = asyncio.get_running_loop().create_future()
        process.report_death(reported.set_result)
        return bool(await reported)

    assert asyncio.run(report())


def test_a_leader_whose_death_is_seen_is_shown_as_such() -> None:
    from ckpt_client import Table

    with LocalCluster(1) as cluster:
        for scheme, seen in (("unix", sys.platform == "linux"), ("tcp", False)):
            with Table("t", 10, 100, 10, address=cluster.address(scheme=scheme)) as table, table.lead():
                leader = table.leader()
                assert leader is not None
                assert leader.death_seen == seen
                unseen = cluster.describe().leaders_unseen
                assert [leader.checkpoint for leader in unseen] == ([] if seen else [b"t"])
