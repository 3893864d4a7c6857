"""`ckptctl status`: alarms first, whatever the daemon leaves out or adds."""

import json
import subprocess
import sys
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from tests.client.fake_service import FakeNode
from tests.client.fixtures import Start, service, start

from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.descriptions import parse_checkpoint_descriptions, parse_cluster_description
from ckpt_protocol.messages import Kind, answer_ok
from ckptctl import render
from ckptctl.render import Health, health_of

__all__ = ["service", "start"]

CLUSTER: dict[str, Any] = {
    "node_id": "a",
    "epoch": 7,
    "coordinator": "a",
    "arbiter": "majority",
    "members": [["a", 12, 3, ["tcp://h1:1"]], ["b", 13, 4, ["tcp://h2:1"]]],
    "configured": ["a", "b", "w"],
    "serving": True,
    "waiting_for": "",
    "alarms": [],
    "counters": {"updates": 12, "reads": 3},
    "limits": [["sessions", 81, 100], ["opens", 3, 1000]],
    "voters": ["a", "b", "w"],
    "witnesses": ["w"],
    "on_silent_peer": "keep-active",
}


def shown(cluster: dict[str, Any], counters: bool = False) -> str:
    console = Console(file=StringIO(), width=200)
    render.print_cluster(console, parse_cluster_description(cluster), counters)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f"{name} "))


def test_members_witnesses_and_absent_nodes_are_distinguished() -> None:
    text = shown(CLUSTER | {"configured": ["a", "b", "c", "w"]})
    assert row(text, "a")[:4] == ["a", "member", "yes", "3"]
    assert row(text, "w")[:3] == ["w", "witness", "yes"]
    assert row(text, "c")[:3] == ["c", "absent", "no"]
    assert "on_silent_peer keep-active" in text


def test_a_node_that_answers_and_is_in_no_view_is_not_called_absent() -> None:
    text = shown(CLUSTER | {"members": [], "serving": False})
    assert row(text, "a")[:3] == ["a", "no", "view"]
    assert row(text, "b")[:2] == ["b", "absent"]


def test_alarms_follow_the_state_directly() -> None:
    alarms = [["split-brain", "both sides wrote [3 updates]"], ["bare"], "text"]
    lines = shown(CLUSTER | {"alarms": alarms}).splitlines()
    assert lines[0] == "node a: serving"
    assert lines[1] == "ALARM split-brain: both sides wrote [3 updates]"
    assert lines[2].startswith("ALARM bare") and lines[3].startswith("ALARM text")


def test_counters_are_shown_when_they_are_asked_for() -> None:
    assert "updates" not in shown(CLUSTER)
    assert row(shown(CLUSTER, True), "updates") == ["updates", "12"]


def test_limits_are_shown_with_the_counters_and_as_json() -> None:
    assert "sessions" not in shown(CLUSTER)
    assert row(shown(CLUSTER, True), "sessions") == ["sessions", "81", "100"]
    assert render.cluster_json(parse_cluster_description(CLUSTER))["limits"] == [
        {"name": "sessions", "used": 81, "most": 100},
        {"name": "opens", "used": 3, "most": 1000},
    ]


@pytest.mark.parametrize("key", [None, *CLUSTER])
def test_what_an_older_daemon_leaves_out_does_not_break_anything(key: str | None) -> None:
    cluster = {name: value for name, value in CLUSTER.items() if name != key}
    cluster["what-comes-later"] = {"deep": [1, b"\xff"]}
    assert "node" in shown(cluster, True)
    assert render.cluster_json(parse_cluster_description(cluster))["what-comes-later"]
    assert "node" in shown({}, True)


@pytest.mark.parametrize("value", [None, 5, "text", [], {}, [5], [[]], [["a"]], [["a", None, None, None]]])
@pytest.mark.parametrize("key", CLUSTER)
def test_what_a_newer_daemon_says_otherwise_does_not_break_anything(key: str, value: Any) -> None:
    assert "node" in shown(CLUSTER | {key: value}, True)
    described = parse_cluster_description(CLUSTER | {key: value})
    render.cluster_json(described)
    health_of(described)


VOTING = {"voting_witnesses": ["w"]}


@pytest.mark.parametrize(
    ("more", "health", "wrong"),
    [
        ({}, Health.GOOD, ""),
        (VOTING, Health.GOOD, ""),
        ({"serving": False, "waiting_for": "the others"}, Health.NOT_SERVING, "not serving: the others"),
        ({"serving": False, "alarms": [["a", "b"]]}, Health.NOT_SERVING, "not serving: no view yet"),
        ({"alarms": [["a", "b"]]}, Health.DEGRADED, "alarm a: b"),
        ({"configured": ["a", "b", "c"]}, Health.DEGRADED, "absent: c"),
        ({"voting_witnesses": []}, Health.DEGRADED, "absent: w"),
        ({"node_id": "w", "serving": False, "members": []}, Health.GOOD, ""),
        ({"node_id": "w", "serving": False, "alarms": [["a", "b"]]}, Health.DEGRADED, "alarm a: b"),
        ({"node_id": "w", "serving": False, "voting_witnesses": []}, Health.DEGRADED, "does not vote"),
    ],
)
def test_what_check_looks_at(more: dict[str, Any], health: Health, wrong: str) -> None:
    """A configured node was dead, and monitoring was told that all is well."""
    found, text = health_of(parse_cluster_description(CLUSTER | more))
    assert found is health
    assert wrong in text
    assert bool(text) == bool(health)


@pytest.mark.parametrize(
    ("more", "arguments", "code"),
    [
        ({}, ["--check"], 0),
        ({"serving": False}, ["--check"], 2),
        ({"configured": ["a", "b", "c"]}, ["--check"], 1),
        ({"alarms": [["a", "b"]]}, ["--check", "--json"], 1),
        ({"serving": False, "alarms": [["a", "b"]]}, [], 0),
    ],
)
def test_the_exit_code_is_for_check(
    more: dict[str, Any], arguments: list[str], code: int, start: Start
) -> None:
    node = start("a")

    def describe(node: FakeNode, link: Any, frame: Any) -> bool:
        link.answer(frame.a, answer_ok(CLUSTER | more | {"raw": b"\xff"}))
        return bool(frame.kind == Kind.DESCRIBE)

    node.misbehave = describe
    command = [sys.executable, "-m", "ckptctl", "status", *arguments, "--address", node.url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended.stderr
    if "--json" in arguments:
        told = json.loads(ended.stdout)
        assert told["alarms"] == [{"name": "a", "text": "b"}]
        assert told["counters"] == CLUSTER["counters"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "unix:///none.sock"],
        pytest.param(["--address", "nowhere"], marks=pytest.mark.extended),
        pytest.param(["--key-file", "/none"], marks=pytest.mark.extended),
    ],
)
def test_check_without_an_answer_is_not_taken_for_degraded(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "ckptctl", "status", "--check", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == Health.NOT_SERVING
    assert len(ended.stderr.splitlines()) == 1


def test_a_witness_that_does_not_vote_is_distinguished_from_one_that_does() -> None:
    assert row(shown(CLUSTER | {"voting_witnesses": ["w"]}), "w")[:3] == ["w", "witness", "yes"]
    assert row(shown(CLUSTER | {"voting_witnesses": []}), "w")[:4] == ["w", "witness", "not", "now"]


def test_a_checkpoint_that_waits_for_its_holders_says_for_whom() -> None:
    console = Console(file=StringIO(), width=200)
    attributes = [1, 6144, 0, 64, 96, 8]
    rows = [
        [b"here", 1, attributes, "a", [["a", True]], 1, False, []],
        [b"far", 2, attributes, None, [], 1, False, ["d", "e"]],
    ]
    render.print_checkpoints(console, parse_checkpoint_descriptions(rows))
    assert isinstance(console.file, StringIO)
    text = console.file.getvalue()
    assert "unavailable: waits for d e" in next(line for line in text.splitlines() if line.startswith("far"))
    assert "a*" in next(line for line in text.splitlines() if line.startswith("here"))
    as_json = render.checkpoints_json(parse_checkpoint_descriptions(rows))
    assert [one["waiting_for"] for one in as_json] == [[], ["d", "e"]]
    older = parse_checkpoint_descriptions([row[:7] for row in rows])
    assert render.checkpoints_json(older)[1]["waiting_for"] == []


ROW = [b"orders", 5, [1, 6144, 0, 64, 96, 8], "b", [["b", True]], 1, False, []]


def test_ls_asks_a_node_that_serves_and_else_says_that_the_list_may_be_old(start: Start) -> None:
    """A node that was kept out knew of no checkpoint, and `ls` printed that there is none."""

    def answers(serving: bool, rows: list[Any]) -> Any:
        def describe(node: FakeNode, link: Any, frame: Any) -> bool:
            what = unpack_body(frame.body)
            told = CLUSTER | {"node_id": node.node_id, "serving": serving, "waiting_for": "its disk"}
            page = [row for row in rows if what[0] == "checkpoints" and row[1] > what[1]]
            link.answer(frame.a, answer_ok(told if what[0] == "cluster" else page))
            return bool(frame.kind == Kind.DESCRIBE)

        return describe

    def ls(*nodes: FakeNode) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ckptctl", "ls", "--address", ",".join(node.url for node in nodes)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    out, serves = start("a"), start("b")
    out.misbehave, serves.misbehave = answers(False, []), answers(True, [ROW])
    both, alone = ls(out, serves), ls(out)
    assert "orders" in both.stdout
    assert both.stderr == ""
    assert "0 checkpoints" in alone.stdout
    assert (
        alone.stderr
        == "ckptctl: this list may be empty or out of date: node a serves nothing; it waits for its disk\n"
    )
