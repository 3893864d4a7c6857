"""`ckptctl node wait`: it returns when a node is ready, and not before."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, service, start

from ckpt_client import SaAisError
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_ok
from ckptctl import operator_verbs
from ckptctl.operator_verbs import wait_for
from ckptctl.render import Health
from ckptctl.settings import Access, SharedOptions, resolve

__all__ = ["service", "start"]

READY: dict[str, Any] = {
    "node_id": "a",
    "serving": True,
    "configured": ["a", "b"],
    "members": [["a", 1, 1, []], ["b", 1, 1, []]],
}
STARTING = {**READY, "serving": False, "waiting_for": "the other nodes", "members": []}
ALONE = {**READY, "members": [["a", 1, 1, []]]}
FULL = {**READY, "alarms": [["limits", "full: sessions 5 of 5"], ["memory", "all of it"]]}
JOINING = {**READY, "alarms": [["replicas_degraded", "fewer than 2 replicas in sync: 'x'"]]}


def access(address: str, timeout: float = 10.0, **more: Any) -> Access:
    return resolve(SharedOptions(address=address, timeout=timeout, **more), timeout, {})


class Becoming:
    """A node that tells one thing after the other, and the last one again and again."""

    def __init__(self, node: FakeNode, *told: dict[str, Any]) -> None:
        self.told = list(told)
        self.asked = 0
        node.misbehave = self._describe

    def _describe(self, node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind != Kind.DESCRIBE:
            return False
        told = self.told[min(self.asked, len(self.told) - 1)]
        self.asked += 1
        link.answer(frame.a, answer_ok(told))
        return True


@pytest.mark.parametrize(
    ("told", "enough", "asked"),
    [
        ([READY], Health.GOOD, 1),
        ([FULL], Health.GOOD, 1),
        ([STARTING, JOINING, ALONE, READY], Health.GOOD, 4),
        ([STARTING, JOINING, READY], Health.DEGRADED, 2),
        ([STARTING, ALONE, READY], Health.DEGRADED, 2),
    ],
)
def test_it_waits_until_nothing_is_missing_or_until_the_node_serves(
    start: Start, told: list[dict[str, Any]], enough: Health, asked: int
) -> None:
    node = start("a")
    becoming = Becoming(node, *told)
    assert wait_for(access(node.url), enough).node_id == "a"
    assert becoming.asked == asked


def test_a_daemon_that_is_not_there_yet_is_waited_for(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start("a")
    Becoming(node, READY)
    path = Path(node.url.removeprefix("unix://"))
    away = path.with_suffix(".away")
    path.rename(away)

    def come(seconds: float) -> None:
        if away.exists():
            away.rename(path)

    monkeypatch.setattr(time, "sleep", come)
    assert wait_for(access(node.url), Health.GOOD).node_id == "a"


def test_a_daemon_that_never_comes_is_reported_when_the_time_is_over(tmp_path: Path) -> None:
    with pytest.raises(SaAisError, match="no daemon listens") as failed:
        wait_for(access(f"unix://{tmp_path}/none.sock", timeout=0.001), Health.GOOD)
    assert failed.value.code == codes.TIMEOUT


@pytest.mark.parametrize(
    ("told", "said"),
    [(STARTING, "not serving: the other nodes"), (ALONE, "absent: b"), (JOINING, "fewer than 2 replicas")],
)
def test_when_the_time_is_over_it_says_what_is_missing(start: Start, told: dict[str, Any], said: str) -> None:
    node = start("a")
    Becoming(node, told)
    with pytest.raises(SaAisError, match=said) as failed:
        wait_for(access(node.url, timeout=0.5), Health.GOOD)
    assert failed.value.code == codes.TIMEOUT


def test_a_wrong_key_is_not_waited_for(start: Start) -> None:
    node = start("a", key=b"0123456789abcdef")
    with pytest.raises(SaAisError) as failed:
        wait_for(access(node.url), Health.GOOD)
    assert failed.value.code == codes.ACCESS


def test_the_command_informs_people_and_programs(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    node = start("a")
    Becoming(node, ALONE)
    operator_verbs.print_wait(access(node.url), wait_for(access(node.url), Health.DEGRADED))
    assert capsys.readouterr().out == "node a: absent: b\n"
    operator_verbs.print_wait(access(node.url, as_json=True), wait_for(access(node.url), Health.DEGRADED))
    assert json.loads(capsys.readouterr().out) == {"node": "a", "health": "degraded", "text": "absent: b"}
