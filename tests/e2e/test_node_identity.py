"""Two daemons with one node id, forged heartbeats and greetings: who is at the address is the node."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.handshake import NONCE_BYTES, ROLE_PEER, Identity, Opener
from ckpt_protocol.limits import INCARNATION_MAX
from ckpt_protocol.messages import Kind
from ckptd.testing import ClusterDescription, HeldPort, LocalCluster, describe

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
    counters = cluster.describe("cluster", node).counters
    return int(counters.get("heartbeats_of_unknown_start", 0))


def epochs(cluster: LocalCluster) -> set[int]:
    return {cluster.describe("cluster", node).epoch for node in cluster.node_ids}


def test_a_forged_heartbeat_excludes_no_node(cluster: LocalCluster) -> None:
    """One datagram with a huge incarnation once shut b out for good; to start b again did not help."""
    before = epochs(cluster)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for incarnation in (0, 1, HUGE, INCARNATION_MAX):
            body = pack_body(["b", incarnation, 0, 0, 0, [], [], 0, cluster.name])
            for node in "ac":
                sender.sendto(encode_frame(Kind.HEARTBEAT, 1, 0, 0, body), address(cluster, node))
    cluster.wait_until(lambda: min(unknown_starts(cluster, node) for node in "ac") >= 4, "a and c count them")
    assert epochs(cluster) == before
    cluster.kill("b")
    cluster.start("b")
    cluster.wait_serving()


@pytest.mark.extended
def test_a_forged_heartbeat_of_a_known_incarnation_silences_no_node(cluster: LocalCluster) -> None:
    """Its stamp was believed: every true heartbeat of b was an old one from then on, until b started anew."""
    before = epochs(cluster)
    incarnation = next(each.incarnation for each in cluster.describe().members if each.node_id == "b")
    body = pack_body(["b", incarnation, 0, 0, 2, [], [], 0, cluster.name])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for node in "ac":
            sender.sendto(encode_frame(Kind.HEARTBEAT, 2**64 - 1, 0, 0, body), address(cluster, node))

    def unsealed(node: str) -> int:
        return cluster.describe("cluster", node).counters.get("heartbeats_unsealed", 0)

    cluster.wait_until(lambda: min(map(unsealed, "ac")) >= 1, "a and c count them")
    time.sleep(1.5)  # Longer than the grace: whoever was muted would be out.
    cluster.wait_serving()
    assert epochs(cluster) == before


@pytest.mark.extended
def test_a_forged_hello_excludes_no_node(cluster: LocalCluster) -> None:
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


@contextlib.contextmanager
def second_daemon(cluster: LocalCluster, node: str, **changes: str) -> Iterator[Path]:
    """A second daemon with a node's id, at an address of its own; its unix socket."""
    command, path, port = cluster.command(node), cluster.directory / "second.sock", HeldPort()
    for flag, value in (
        ("--listen", f"127.0.0.1:{port.number}"),
        ("--socket", str(path)),
        ("--state-dir", str(cluster.directory / "second.state")),
        *((f"--{name.replace('_', '-')}", value) for name, value in changes.items()),
    ):
        command[command.index(flag) + 1] = value
    with (cluster.directory / "second.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield path
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("node", "abc")
def test_a_second_daemon_with_a_nodes_id_excludes_no_node_and_reports_what_is_wrong(
    cluster: LocalCluster, node: str
) -> None:
    """A copied file, or a container that starts while the old one lives: it took the healthy one's place.

    a dials everybody, c nobody: the one is refused, the other has to ask why nobody dials it.
    """
    before = epochs(cluster)
    others = [other for other in cluster.node_ids if other != node]
    with second_daemon(cluster, node) as path:

        def status() -> ClusterDescription:
            return describe(path, "cluster", cluster.name)

        cluster.wait_until(lambda: "superseded" in dict(status().alarms), "it says that it is superseded")
        assert not status().serving
        assert "give this one a different node id" in dict(status().alarms)["superseded"]
        assert "alarm superseded" in status().waiting_for
        cluster.wait_until(
            lambda: min(unknown_starts(cluster, other) for other in others) > 40, "it is heard"
        )
    cluster.wait_serving()
    assert epochs(cluster) == before


@pytest.mark.extended
def test_a_node_comes_back_when_the_daemon_that_replaced_it_is_gone(cluster: LocalCluster) -> None:
    """The other daemon has the address while the node is down; then the node is started again."""
    cluster.kill("b")
    with second_daemon(cluster, "b", listen=cluster.listens_at("b")):
        cluster.wait_until(
            lambda: len(cluster.describe("cluster", "a").members) == 3,
            "it is the node as long as it is there",
        )
    cluster.start("b")
    cluster.wait_serving()


@pytest.mark.extended
def test_an_incarnation_below_one_that_the_others_know_begins_again_above_it(cluster: LocalCluster) -> None:
    """Its clock was ahead, and then its state directory was lost: it was out for good."""
    state = cluster.state_path("b")
    cluster.leave("b")
    kept = json.loads((state / "node.json").read_text())
    (state / "node.json").write_text(json.dumps({**kept, "incarnation": HUGE}))
    cluster.start("b")
    cluster.wait_serving()
    cluster.kill("b")
    shutil.rmtree(state)
    cluster.start("b")
    cluster.wait_serving()
    assert json.loads((state / "node.json").read_text())["incarnation"] > HUGE


@pytest.mark.extended
def test_nodes_with_different_peers_report_that(cluster: LocalCluster) -> None:
    """It said "waits for 3 of 4 nodes", and the others said nothing."""
    listens = {node: cluster.listens_at(node) for node in cluster.node_ids}
    cluster.kill("c")
    listens["d"] = "127.0.0.1:1"
    cluster.start("c", "--peers", ",".join(f"{node}={at}" for node, at in listens.items()))

    def alarm(node: str) -> str:
        return dict(cluster.describe("cluster", node).alarms).get("peers_differ", "")

    cluster.wait_until(lambda: "node c has nodes a, b, c, d" in alarm("a"), "a is told")
    cluster.wait_until(lambda: "node a has nodes a, b, c" in alarm("c"), "c is told")
    cluster.kill("c")
    cluster.start("c")
    cluster.wait_serving()
    cluster.wait_until(lambda: not alarm("a") and not alarm("c"), "it is over")


@pytest.mark.extended
def test_a_node_that_no_peer_knows_reports_that(cluster: LocalCluster) -> None:
    command, port = cluster.command("b"), HeldPort()
    for flag, value in (
        ("--node-id", "nodeB"),
        ("--listen", f"127.0.0.1:{port.number}"),
        ("--peers", ",".join(f"{node}={cluster.listens_at(node)}" for node in cluster.node_ids)),
        ("--socket", str(cluster.directory / "other.sock")),
        ("--state-dir", str(cluster.directory / "other.state")),
    ):
        command[command.index(flag) + 1] = value
    with (cluster.directory / "other.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:

        def status() -> ClusterDescription:
            return describe(cluster.directory / "other.sock", "cluster", cluster.name)

        cluster.wait_until(
            lambda: "is not among the peers of node 'a'" in dict(status().alarms).get("peers", ""),
            "it says why",
        )
        cluster.wait_until(lambda: "alarm peers" in status().waiting_for, "it says for what it waits")
        cluster.wait_until(
            lambda: "nodeB" in dict(cluster.describe("cluster", "a").alarms).get("peers", ""), "a says so"
        )
    finally:
        process.kill()
        process.wait()
