"""Real daemons beside a hostile client and a hostile stranger: no node ends, and nobody else suffers."""

import contextlib

import pytest
from tests.e2e.raw import Raw
from tests.e2e.test_turns import MIB, memory_mib
from tests.fuzz.corpus import record
from tests.fuzz.real_daemons import SpoiledFrames

from ckpt_client import Table
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import encode_frame
from ckpt_protocol.limits import SECTION_BYTES_MAX
from ckpt_protocol.messages import Kind
from ckptd.testing import LocalCluster

KNOCKS = 200


@pytest.mark.extended
@pytest.mark.parametrize(
    "key", [pytest.param("", id="open"), pytest.param("sesame", id="with a key", marks=pytest.mark.slow)]
)
def test_spoiled_frames_by_every_transport_end_no_node_and_change_no_view(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPTD_KEY", key)
    with LocalCluster(3, key=key, name="ckptd") as cluster:
        table = Table("work", 100, 1000, 32, address=cluster.addresses())
        spoiled = SpoiledFrames(cluster, record(), seed=7, key=key)
        epoch = cluster.describe().epoch
        for number in range(KNOCKS):
            spoiled.knock()
            if number % 10 == 0:
                table[f"k{number}"] = b"%d" % number
        assert spoiled.frames > KNOCKS
        assert cluster.running == cluster.node_ids
        cluster.wait_serving()
        assert cluster.describe().epoch == epoch
        assert table.read_all() == {b"k%d" % number: b"%d" % number for number in range(0, KNOCKS, 10)}
        table.close()


@pytest.mark.extended
@pytest.mark.parametrize("door", ["unix", pytest.param("tcp", marks=pytest.mark.slow)])
def test_frames_that_never_end_take_no_more_than_their_limit_and_honest_ones_arrive(door: str) -> None:
    """25 connections with 79 MiB each of an unfinished frame took 2 GB, for as long as they liked."""
    unfinished = encode_frame(Kind.UPDATE, 7, 1, 1, bytes(60 * MIB))[:-1]
    with (
        LocalCluster(1, flags=("--client-frames-bytes-max", str(128 * MIB))) as cluster,
        Table("t", 9, SECTION_BYTES_MAX, 9, address=cluster.addresses()) as table,
    ):
        attackers = []
        for _ in range(10):
            attackers.append(Raw(cluster, "a", door))
            with contextlib.suppress(OSError):
                attackers[-1].send(unfinished)
        assert memory_mib(cluster.pid("a")) < 128 + 60 + 60
        told = cluster.describe()
        limits = {name: (used, most) for name, used, most in told.limits}
        used, most = limits["client_frames_bytes"]
        assert 0.8 * most < used <= most == 128 * MIB
        assert "client_frames_bytes" in dict(told.alarms)["limits"]
        assert {"clients", "client_buffer_bytes", "strangers", "udp_strangers", "sessions"} <= set(limits)
        table["k"] = bytes(48 * MIB)
        assert cluster.describe().counters["clients_cut_off"] >= 8
        assert "client_frames_bytes_max" in cluster.log("a")
        for attacker in attackers:
            attacker.close()


@pytest.mark.extended
def test_answers_that_many_clients_do_not_read_take_no_more_than_their_limit() -> None:
    """A client's first MiB was not counted: of 300 clients that was 200 MiB, with a limit of 32."""
    with (
        LocalCluster(1, flags=("--client-buffer-bytes-max", str(32 * MIB))) as cluster,
        Table("t", 9, MIB, 9, address=cluster.addresses()) as table,
    ):
        table["k"] = bytes(900 * 1024)
        before = memory_mib(cluster.pid("a"))
        body = pack_body([[b"k", 0, None]])
        deaf = []
        for _ in range(300):
            deaf.append(Raw(cluster, "a"))
            deaf[-1].send(encode_frame(Kind.READ, 100, deaf[-1].open(b"t"), 100, body))
        assert table["k"] == bytes(900 * 1024)
        assert memory_mib(cluster.pid("a")) - before < 32 + 60
        assert cluster.describe().counters["clients_cut_off"] > 100
        for client in deaf:
            client.close()


@pytest.mark.parametrize("door", ["unix", pytest.param("tcp", marks=pytest.mark.slow)])
def test_a_client_without_a_session_cannot_make_a_node_keep_anything_large(door: str) -> None:
    """Whoever had greeted could have 80 MiB of a node for as long as it liked."""
    with LocalCluster(1) as cluster:
        before = memory_mib(cluster.pid("a"))
        raw = Raw(cluster, "a", door, attach=False)
        with contextlib.suppress(OSError):
            raw.send(encode_frame(Kind.UPDATE, 7, 1, 1, bytes(60 * MIB)))
        assert memory_mib(cluster.pid("a")) - before < 20
        cluster.wait_until(lambda: "before its session is attached" in cluster.log("a"), "the log's line")
        raw.close()
