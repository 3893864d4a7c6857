"""The operator's commands: they say what they can cost, ask, and act on one node."""

import json
import os
import pty
import subprocess
import sys
import threading
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, service, start

from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.framing import Frame
from ckpt_protocol.handshake import Identity
from ckpt_protocol.messages import Kind, answer_error, answer_ok

__all__ = ["service", "start"]

COMMANDS = {
    "cluster bootstrap": (["bootstrap"], "quarantine when they come back"),
    "cluster force-active": (["force-active"], "both sides write"),
    "cluster accept-loss c": (["accept-loss", "c"], "c counts as dead"),
    "cluster retry orders": (["retry", "orders"], "may stop this node"),
    "cluster stop": (["stop"], "ends every node of the cluster (a, b)"),
    "node drain": (["drain"], "nothing is lost"),
}

ENDING = ("cluster stop", "node drain")
FIRST, *OTHERS = COMMANDS
ONE_AND_OTHERS = [FIRST, *(pytest.param(each, marks=pytest.mark.extended) for each in OTHERS)]


class Operated:
    """What a fake node was told. `answer` is its answer; `then` what it does afterwards."""

    def __init__(
        self,
        node: FakeNode,
        answer: bytes | None = None,
        then: Any = None,
        voters: tuple[str, ...] = ("a", "b"),
    ) -> None:
        self.words: list[Any] = []
        self.voters = voters
        self.answer = answer_ok("two checkpoints were handed over") if answer is None else answer
        self.then = then
        node.misbehave = self._serve

    def _serve(self, node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind == Kind.DESCRIBE:
            link.answer(
                frame.a,
                answer_ok(
                    {"node_id": "a", "voters": self.voters, "serving": False, "waiting_for": "node [b]"}
                ),
            )
            return True
        if frame.kind != Kind.OPERATE:
            return False
        self.words.append(unpack_body(frame.body))
        if self.answer:
            link.answer(frame.a, self.answer)
        else:
            link.cut()
        if self.then is not None:
            self.then(node)
        return True


def go(node: FakeNode) -> None:
    """The daemon ends."""
    node.die()


def run(arguments: str, *more: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CKPTD_")}
    environment |= settings.pop("environment", {})
    settings.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [sys.executable, "-m", "ckptctl", *arguments.split(), *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        **settings,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_word_reaches_the_node_and_its_answer_the_operator(command: str, start: Start) -> None:
    node = start("a")
    operated = Operated(node, then=go if command in ENDING else None)
    ended = run(command, "--yes", "--address", node.url)
    assert ended.returncode == 0, ended.stderr
    assert operated.words == [COMMANDS[command][0]]
    assert "two checkpoints were handed over" in ended.stdout
    assert COMMANDS[command][1] in ended.stderr
    assert f"at node a ({node.url}), not serving: node [b]" in ended.stderr


@pytest.mark.parametrize("command", ONE_AND_OTHERS)
def test_without_a_terminal_and_without_yes_nothing_is_done(command: str, start: Start) -> None:
    node = start("a")
    operated = Operated(node)
    ended = run(command, "--address", node.url)
    assert ended.returncode == 2
    assert operated.words == []
    assert COMMANDS[command][1] in ended.stderr
    assert "--yes" in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(("typed", "code", "words"), [("y", 0, 1), ("n", 1, 0), ("", 1, 0)])
def test_at_a_terminal_the_operator_is_asked(typed: str, code: int, words: int, start: Start) -> None:
    node = start("a")
    operated = Operated(node)
    controller, terminal = pty.openpty()
    try:
        os.write(controller, f"{typed}\n".encode())
        ended = run("cluster bootstrap", "--address", node.url, stdin=terminal)
    finally:
        os.close(controller)
        os.close(terminal)
    assert ended.returncode == code, ended.stderr
    assert len(operated.words) == words
    assert "Continue?" in ended.stderr


@pytest.mark.parametrize("command", ONE_AND_OTHERS)
def test_several_addresses_are_refused(command: str, start: Start) -> None:
    node = start("a")
    operated = Operated(node)
    several = f"{node.url},tcp://127.0.0.1:9"
    for ended in (
        run(command, "--yes", "--address", several),
        run(command, "--yes", environment={"CKPTD_ADDRESS": several}),
    ):
        assert ended.returncode == 2
        assert "exactly one node" in " ".join(ended.stderr.replace("│", " ").split())
    assert operated.words == []


def test_a_refusal_is_one_line_with_its_code(start: Start) -> None:
    node = start("a")
    Operated(node, answer_error(codes.INVALID_PARAM, "node c is no member"))
    ended = run("cluster accept-loss c", "--yes", "--address", node.url)
    assert ended.returncode == 1
    assert "node c is no member" in ended.stderr.splitlines()[-1]
    assert "INVALID_PARAM" in ended.stderr.splitlines()[-1]


def test_an_answer_that_does_not_come_is_an_outcome_that_is_not_known(start: Start) -> None:
    node = start("a")
    Operated(node, b"")
    ended = run("cluster force-active", "--yes", "--address", node.url)
    assert ended.returncode == 1
    assert "unknown whether the command was carried out" in ended.stderr
    assert "SA_AIS_ERR_TIMEOUT" in ended.stderr


def test_json_says_who_did_what(start: Start) -> None:
    node = start("a")
    Operated(node)
    ended = run("cluster accept-loss c", "--yes", "--json", "--address", node.url)
    assert json.loads(ended.stdout) == {
        "node": "a",
        "verb": "accept-loss",
        "done": "two checkpoints were handed over",
    }


# -- drain


def test_drain_waits_until_the_daemon_has_gone_and_says_how_long_that_took(start: Start) -> None:
    node = start("a")
    asked = threading.Event()
    operated = Operated(node)
    serve = operated._serve

    def go_at_the_third_look(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if operated.words and len(node.received) >= 5:
            asked.set()
            node.die()
        return serve(node, link, frame)

    node.misbehave = go_at_the_third_look
    ended = run("node drain", "--yes", "--address", node.url)
    assert ended.returncode == 0, ended.stderr
    assert asked.is_set()
    assert "node a has ended after " in ended.stdout


def test_the_confirmation_for_draining_the_only_node_says_that_its_data_is_lost(start: Start) -> None:
    node = start("a")
    Operated(node, then=go, voters=("a",))
    ended = run("node drain", "--yes", "--address", node.url)
    assert "this is the only node: its data is only in its memory, and is lost" in ended.stderr
    assert "nothing is lost" not in ended.stderr


def test_a_daemon_that_was_started_again_at_once_has_gone_all_the_same(start: Start) -> None:
    """A supervisor may start the next one before anybody has looked."""
    node = start("a")

    def start_again(node: FakeNode) -> None:
        node.identity = Identity("test", b"", "a", 2)

    Operated(node, then=start_again)
    ended = run("node drain", "--yes", "--json", "--address", node.url)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["node"], told["verb"], told["gone"]) == ("a", "drain", True)
    assert told["seconds"] >= 0


def test_a_daemon_that_does_not_go_is_an_error_when_the_time_is_over(start: Start) -> None:
    node = start("a")
    Operated(node)
    ended = run("node drain", "--yes", "--timeout", "0.5", "--address", node.url)
    assert ended.returncode == 1
    assert "has answered, but it still runs after 0.5 s" in ended.stderr
