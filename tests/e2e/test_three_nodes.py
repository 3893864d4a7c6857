"""Three real daemons and real clients, nothing broken."""

import pytest

from ckpt_client import AsyncTable, CheckpointError, Connection, SaAisError, Table
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_TIME_MAX, UPDATE_FLAGS
from ckptd.testing import LocalCluster

KINDS = [flag | extra for flag in UPDATE_FLAGS for extra in (0, SA_CKPT_CHECKPOINT_COLLOCATED)]


def test_a_sync_write_is_read_by_way_of_every_node(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
        table.Write("k", "v")
        for node in cluster.node_ids:
            with Table(name, address=cluster.address(node)) as other:
                assert other.Read(["k"]) == b"v"
        assert [in_sync for _, in_sync in table.status().replicas] == [True] * 3


def test_writes_by_way_of_every_node_are_seen_by_all_at_once(cluster: LocalCluster, name: str) -> None:
    tables = [Table(name, 10, 1000, 32, address=cluster.address(node)) for node in cluster.node_ids]
    for number in range(30):
        tables[number % 3].Write("k", str(number))
        assert [table.Read(["k"]) for table in tables] == [str(number).encode()] * 3
    for table in tables:
        table.close()


@pytest.mark.parametrize("flags", KINDS)
def test_every_kind_of_checkpoint_keeps_what_is_written(cluster: LocalCluster, name: str, flags: int) -> None:
    with (
        Table(name, 200, 1000, 32, flags, address=cluster.address("b")) as table,
        Table(name, 200, 1000, 32, flags, address=cluster.address("c")) as other,
    ):
        table.Write("one", "1")
        table.Write([(f"k{i}", str(i)) for i in range(100)])
        table.Delete("k50")
        table.Synchronize()
        assert len(other) == 100
        assert other.Read(["one", "k99"]) == [b"1", b"99"]
        assert "k50" not in other


@pytest.mark.parametrize("scheme", ["unix", "tcp", "udp"])
@pytest.mark.parametrize("size", [0, 1, 30_000])
def test_clients_come_by_unix_socket_tcp_and_udp(
    cluster: LocalCluster, name: str, scheme: str, size: int
) -> None:
    with Table(name, 10, 30_000, 32, address=cluster.address("b", scheme)) as table:
        table.Write("k", bytes(size))
        assert table.Read(["k"]) == bytes(size)


def test_what_does_not_fit_a_datagram_goes_over_tcp_at_the_same_port(
    cluster: LocalCluster, name: str
) -> None:
    """A page of an iteration exceeds a datagram, so that `read_all` failed over UDP."""
    expected = {b"%02d" % number: bytes([number]) * 20_000 for number in range(20)}
    with (
        Table(name, 100, 200_000, 32, address=cluster.address("a", "udp")) as table,
        Table(name, address=cluster.address("b", "udp")) as other,
    ):
        table.Write("large", bytes(150_000))
        assert table.Read(["large"]) == bytes(150_000)
        table.Delete("large")
        for key, value in expected.items():
            table.Write(key, value)
        assert other.read_all() == expected


async def test_asyncio_clients_share_the_checkpoint(cluster: LocalCluster, name: str) -> None:
    table = await AsyncTable.open(name, 100, 1000, 32, address=cluster.address("c"))
    await table.write("k", "v")
    with Table(name, address=cluster.address("a")) as other:
        assert other.Read(["k"]) == b"v"
    await table.close()


def test_large_updates_are_whole_on_every_node(cluster: LocalCluster, name: str) -> None:
    values = {f"k{i}": bytes([i]) * 100_000 for i in range(50)}
    with Table(name, 100, 100_000, 32, address=cluster.address("a")) as table:
        table.Write(values)
        with Table(name, address=cluster.address("b")) as other:
            assert other.read_all() == {key.encode(): value for key, value in values.items()}


def test_unlink_frees_the_name_and_the_data_goes_with_the_last_table(
    cluster: LocalCluster, name: str
) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
        table.Write("k", "old")
        table.unlink()
        with Table(name, 20, 1000, 32, address=cluster.address("c")) as fresh:
            assert len(fresh) == 0
            assert table.Read(["k"]) == b"old"


def test_a_checkpoint_without_retention_goes_with_its_last_table(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, retentionMs=0, address=cluster.address("a")) as table:
        table.Write("k", "v")
    cluster.wait_until(
        lambda: all(each.name != name.encode() for each in cluster.describe("checkpoints")),
        "the checkpoint is gone",
    )
    with pytest.raises(CheckpointError) as caught:
        Table(name, address=cluster.address("b"))
    assert caught.value.code == codes.NOT_EXIST


def test_other_attributes_are_refused_by_every_node(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")):
        for changed in ({"maxRows": 11}, {"retentionMs": 5}, {"flagsp": 2}):
            arguments = {"maxRows": 10, "retentionMs": SA_TIME_MAX, "flagsp": 1, **changed}
            with pytest.raises(CheckpointError) as caught:
                Table(
                    name,
                    maxRowSizeBytes=1000,
                    maxRowKeySizeBytes=32,
                    address=cluster.address("b"),
                    **arguments,
                )
            assert caught.value.code == codes.EXIST


def test_a_client_of_another_cluster_is_refused_with_both_names(cluster: LocalCluster) -> None:
    with pytest.raises(SaAisError) as caught:
        Connection(cluster.address("a"), cluster="other").describe("cluster")
    assert "e2e" in str(caught.value)
    assert "other" in str(caught.value)


def test_a_cluster_key_keeps_out_clients_that_do_not_have_it() -> None:
    with LocalCluster(2, key="right") as cluster:
        with Table("t", 10, 1000, 32, address=cluster.address("a"), key="right") as table:
            table.Write("k", "v")
        for wrong in ("", "wrong"):
            with pytest.raises(CheckpointError) as caught:
                Table("t", 10, 1000, 32, address=cluster.address("a"), key=wrong)
            assert "key" in str(caught.value)


@pytest.mark.parametrize("state_dir", ["its old one", pytest.param("a new one", marks=pytest.mark.extended)])
def test_a_node_of_another_cluster_refuses_to_start_and_says_why(
    cluster: LocalCluster, state_dir: str
) -> None:
    cluster.kill("c")
    new = ["--state-dir", str(cluster.directory / "other.state")] if state_dir == "a new one" else []
    cluster.start("c", "--cluster", "other", *new)
    cluster.wait_until(lambda: "c" not in cluster.running, "node c has ended")
    last_line = cluster.log_tail("c").splitlines()[-1]
    assert last_line.startswith("ckptd: ")
    assert "'e2e'" in last_line
    assert "other" in last_line or not new
    cluster.wait_serving()
    assert [member.node_id for member in cluster.describe("cluster", "a").members] == ["a", "b"]
