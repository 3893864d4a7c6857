"""What `ckptctl leader` prints, and the durations that `ckptctl lead` takes."""

import json
from io import StringIO

import pytest
from rich.console import Console

from ckpt_client.leadership.leaders import Leader, LeadershipHistory, PastLeader, WaitingProgram
from ckptctl.leader_view import history_json, print_history
from ckptctl.options import print_json
from ckptctl.text_format import parse_duration

TOKEN = f"{7:042x}"
LEADER = Leader("[web]-1", "host-a.example.org", 4711, "a", 1_700_000_000 * 10**9, TOKEN, 5.0, True, False)
WAITING = WaitingProgram("web-2", "host-b.example.org", 4712, "")
PAST = PastLeader("web-3", "host-c.example.org", 4713, 10**9, 76 * 10**9 + 123, "not renewed", TOKEN)


def shown(history: LeadershipHistory, width: int) -> str:
    console = Console(file=StringIO(), width=width, highlight=False)
    print_history(console, "orders", history)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_leader_those_that_wait_and_those_that_led_are_shown() -> None:
    text = shown(LeadershipHistory(LEADER, (WAITING,), (PAST,)), 200)
    assert "orders: [web]-1 leads\n" in text
    assert "4711 on host-a.example.org" in text and TOKEN in text
    assert "its death  is not seen: the next one leads after the ttl" in text
    assert "1      web-2 (process 4712 on host-b.example.org)  none now" in text
    assert "web-3 (process 4713 on host-c.example.org)  1.25 min" in text and "not renewed" in text


def test_no_name_of_a_program_reaches_the_terminal_as_a_command() -> None:
    name, host = "a\x1b[2J\x9b1m\nb", "h\x1b]0;x\x07\u202e"
    bad = LeadershipHistory(
        LEADER._replace(name=name, host=host),
        (WAITING._replace(name=name, host=host),),
        (PAST._replace(name=name, host=host),),
    )
    text = shown(bad, 300)
    assert text.replace("\n", "").isprintable(), text
    assert text.count(r"a\x1b[2J\x9b1m\nb") == 3
    assert text.count(r"h\x1b]0;x\x07\u202e") == 3


def test_json_has_no_command_for_a_terminal_either(capsys: pytest.CaptureFixture[str]) -> None:
    found = history_json("orders", LeadershipHistory(LEADER._replace(name="a\x1b\x7f\x9bé"), (), ()))
    print_json(found)
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable(), text
    assert json.loads(text)["leader"]["name"] == "a\x1b\x7f\x9bé"


def test_it_is_readable_at_80_columns() -> None:
    text = shown(LeadershipHistory(LEADER, (WAITING,), (PAST,)), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert TOKEN in text and "1970-01-01 00:01:16.000+00:00" in text and "not renewed" in text


def test_no_program_leads_or_waits() -> None:
    assert shown(LeadershipHistory(None, (), ()), 80) == "orders: no program leads\nno program waits\n"


def test_json_has_everything() -> None:
    found = history_json("orders", LeadershipHistory(LEADER, (WAITING,), (PAST,)))
    assert found["leader"] == LEADER._asdict()
    assert found["waiting"] == [WAITING._asdict()] and found["ended"] == [PAST._asdict()]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("0.5s", 0.5), ("500ms", 0.5), ("2min", 120), ("1h", 3600), ("1d", 86400), ("7", 7)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "5 fortnights", "inf", "nan", "1e", "S5"])
def test_other_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)
