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


def test_a_key_of_any_bytes_can_be_typed(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")) as table:
        assert ckptctl(cluster, "put", name, "0xff00", "v").returncode == 0
        assert table[b"\xff\x00"] == b"v"


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
        (["unlink", "nothing-here"], "SA_AIS_ERR_NOT_EXIST"),
        (["put", "nothing-here", "k", "v"], "SA_AIS_ERR_NOT_EXIST"),
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


def test_a_missing_section_is_an_error_of_get_and_delete(cluster: LocalCluster, name: str) -> None:
    with Table(name, 10, 1000, 32, address=cluster.address("a")):
        for command in ("get", "delete"):
            ended = ckptctl(cluster, command, name, "missing")
            assert ended.returncode == 1
            assert b"SA_AIS_ERR_NOT_EXIST" in ended.stderr
