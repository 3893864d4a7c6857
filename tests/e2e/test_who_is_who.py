"""Two daemons with one node id, forged heartbeats and greetings: who is at the address is the node."""

import socket
import subprocess
from collections.abc import Iterator

import pytest

from ckpt_protocol.codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.greeting import NONCE_BYTES, ROLE_PEER, Identity, Opener
from ckpt_protocol.messages import Kind
from ckptd.testing import LocalCluster, free_port

HUGE = 2**62


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        yield cluster


def address(cluster: LocalCluster, node: str) -> tuple[str, int]:
    host, port = cluster.listens_at(node).split(":")
    return host, int(port)


def unknown_starts(cluster: LocalCluster, node: str) -> int:
    """How many heartbeats with an unknown incarnation a node has counted."""
    counters = cluster.describe("cluster", node)["counters"]
    return int(counters.get("heartbeats_of_unknown_start", 0))


def epochs(cluster: LocalCluster) -> set[int]:
    return {cluster.describe("cluster", node)["epoch"] for node in cluster.node_ids}


def test_a_forged_heartbeat_shuts_nobody_out(cluster: LocalCluster) -> None:
    """One datagram with a huge incarnation once shut b out for good; to start b again did not help."""
    before = epochs(cluster)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for incarnation in (0, 1, HUGE, 2**64 - 2):
            body = pack_body(["b", incarnation, 0, 0, 0, [], [], 0, cluster.name])
            for node in "ac":
                sender.sendto(encode_frame(Kind.HEARTBEAT, 1, 0, 0, body), address(cluster, node))
    cluster.wait_until(lambda: min(unknown_starts(cluster, node) for node in "ac") >= 4, "a and c count them")
    assert epochs(cluster) == before
    cluster.kill("b")
    cluster.start("b")
    cluster.wait_serving()


def test_a_forged_greeting_shuts_nobody_out(cluster: LocalCluster) -> None:
    before = epochs(cluster)
    for nonce in (b"1" * NONCE_BYTES, b"2" * NONCE_BYTES):
        with socket.create_connection(address(cluster, "c"), timeout=5) as stranger:
            opener = Opener(Identity(cluster.name, b"", "b", HUGE), ROLE_PEER, nonce)
            stranger.sendall(opener.hello())
            while chunk := stranger.recv(65536):
                said = chunk
            assert b"two daemons have this node id" in said or b"did not open" in said
    assert epochs(cluster) == before
    cluster.kill("b")
    cluster.start("b")
    cluster.wait_serving()


def test_a_second_daemon_with_the_same_node_id_shuts_nobody_out(cluster: LocalCluster) -> None:
    """A copied file, or a container that starts while the old one lives: it took the healthy one's place."""
    before = epochs(cluster)
    command = cluster.command("b")
    for flag, value in (
        ("--listen", f"127.0.0.1:{free_port()}"),
        ("--socket", str(cluster.directory / "second.sock")),
        ("--state-dir", str(cluster.directory / "second.state")),
    ):
        command[command.index(flag) + 1] = value
    with (cluster.directory / "second.log").open("wb") as log:
        second = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        cluster.wait_until(lambda: unknown_starts(cluster, "a") > 40, "a hears the second daemon")
    finally:
        second.kill()
        second.wait()
    cluster.wait_serving()
    assert epochs(cluster) == before
