"""The command line against real daemons."""

import json

import pytest
from tests.e2e.operator import ckptctl

from ckpt_client import Table
from ckptd.testing import LocalCluster


def test_status_shows_every_member(cluster: LocalCluster) -> None:
    shown = ckptctl(cluster, "status")
    assert shown.returncode == 0
    assert b"serving" in shown.stdout
    described = json.loads(ckptctl(cluster, "status", "--json").stdout)
    assert described["node_id"] == "b"
    assert [member["node"] for member in described["members"]] == ["a", "b", "c"]


@pytest.mark.extended
@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_the_operator_is_answered_over_each_transport(cluster: LocalCluster, name: str, scheme: str) -> None:
    """Over UDP `status`, `ls` and `node wait` were refused, for want of padding."""
    address = f"{scheme}://{cluster.listens_at('a')}"
    with Table(name, 10, 1000, 32, address=cluster.addresses("a")):
        for verb in (["status", "--check"], ["ls"], ["node", "wait"]):
            ended = ckptctl(cluster, *verb, address=address)
            assert ended.returncode == 0, ended.stderr


@pytest.mark.extended
def test_the_operator_is_answered_where_clients_take_all_there_is(name: str) -> None:
    with LocalCluster(1, flags=("--clients-max", "1")) as cluster:
        with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
            table["k"] = b"v"
            checked = ckptctl(cluster, "status", "--check", node="a")
            assert b"clients 1 of 1" in checked.stdout
            assert checked.returncode == 1, checked.stderr
            refused = ckptctl(cluster, "get", name, "k", node="a")
            assert b"this node has 1 clients, which is all that it may have (clients_max" in refused.stderr
        assert ckptctl(cluster, "get", name, "k", node="a").stdout == b"v"


@pytest.mark.extended
def test_a_node_that_was_waited_for_has_its_replicas(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.addresses("a")) as table:
        table.Write("k", "v")
        assert ckptctl(cluster, "status", "--check").returncode == 0
        cluster.kill("c")
        assert ckptctl(cluster, "status", "--check").returncode == 1
        cluster.start("c")
        ended = ckptctl(cluster, "node", "wait", node="c")
        assert ended.returncode == 0, ended.stderr
        assert cluster.in_sync_nodes(name) == ("a", "b", "c")
        cluster.kill("c")
        assert ckptctl(cluster, "status", "--check", node="c").returncode == 2
        assert ckptctl(cluster, "node", "wait", "--serving", node="a").returncode == 0
        cluster.start("c")


def test_a_section_is_put_shown_got_and_deleted(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
        assert ckptctl(cluster, "put", name, "key", "-", given=b"\x00\xff").returncode == 0
        assert table["key"] == b"\x00\xff"
        assert ckptctl(cluster, "get", name, "key").stdout == b"\x00\xff"
        assert json.loads(ckptctl(cluster, "get", name, "key", "--json").stdout)["size_bytes"] == 2
        shown = json.loads(ckptctl(cluster, "show", name, "--json").stdout)
        assert [section["key"] for section in shown["sections"]] == ["key"]
        assert shown["attributes"]["flags_text"] == "WR_ALL_REPLICAS"
        assert [replica["in_sync"] for replica in shown["replicas"]] == [True] * 3
        assert b"key" in ckptctl(cluster, "show", name).stdout
        assert ckptctl(cluster, "delete", name, "key").returncode == 0
        assert len(table) == 0


def test_a_checkpoint_is_resized(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
        table.Write({str(number): "v" for number in range(10)})
        ended = ckptctl(cluster, "resize", name, "--max-sections", "2,000")
        assert ended.returncode == 2
        assert ckptctl(cluster, "resize", name).returncode == 2
        ended = ckptctl(cluster, "resize", name, "--max-sections", "2000", "--max-section-id-size", "64")
        assert (
            ended.stdout.decode()
            == f"{name}: up to 2,000 sections of up to 1000 B, with keys of up to 64 B\n"
        )
        table.Write({str(number): "v" for number in range(10, 50)})
        refused = ckptctl(cluster, "resize", name, "--max-sections", "49")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"there are 50 sections" in refused.stderr and b"SA_AIS_ERR_NO_SPACE" in refused.stderr
        ended = ckptctl(cluster, "resize", name, "--max-section-size", "100", "--json")
        assert json.loads(ended.stdout)["attributes"]["section_bytes_max"] == 100
        shown = json.loads(ckptctl(cluster, "show", name, "--json").stdout)
        assert shown["attributes"]["sections_max"] == 2000
        listed = json.loads(ckptctl(cluster, "ls", "--json").stdout)
        assert [row["attributes"]["section_bytes_max"] for row in listed if row["name"] == name] == [100]


@pytest.mark.extended
def test_a_key_of_any_bytes_can_be_typed(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
        assert ckptctl(cluster, "put", name, "0xff00", "v").returncode == 0
        assert table[b"\xff\x00"] == b"v"


@pytest.mark.extended
def test_ls_lists_until_unlink(cluster: LocalCluster, name: str) -> None:
    Table(name, 10, 1000, 32, address=cluster.address("a")).close()
    listed = json.loads(ckptctl(cluster, "ls", "--json").stdout)
    assert name in [row["name"] for row in listed]
    assert name.encode() in ckptctl(cluster, "ls").stdout
    assert ckptctl(cluster, "unlink", name).returncode == 0
    assert name not in [row["name"] for row in json.loads(ckptctl(cluster, "ls", "--json").stdout)]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["show", "nothing-here"], "SA_AIS_ERR_NOT_EXIST"),
        pytest.param(["unlink", "nothing-here"], "SA_AIS_ERR_NOT_EXIST", marks=pytest.mark.extended),
        pytest.param(["put", "nothing-here", "k", "v"], "SA_AIS_ERR_NOT_EXIST", marks=pytest.mark.extended),
    ],
)
def test_what_does_not_exist_is_one_line_and_exit_code_1(
    cluster: LocalCluster, arguments: list[str], code: str
) -> None:
    ended = ckptctl(cluster, *arguments)
    assert ended.returncode == 1
    assert ended.stdout == b""
    assert len(ended.stderr.splitlines()) == 1
    assert code in ended.stderr.decode()


@pytest.mark.extended
def test_a_missing_section_is_an_error_of_get_and_delete(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")):
        for command in ("get", "delete"):
            ended = ckptctl(cluster, command, name, "missing")
            assert ended.returncode == 1
            assert b"SA_AIS_ERR_NOT_EXIST" in ended.stderr
