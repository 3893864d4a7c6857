"""`ckptctl` where the locale or the output is no UTF-8: what cannot be shown is escaped, nothing fails."""

import json
import os
import subprocess
import sys

import pytest
from tests.client.fixtures import Start, service, start

from ckpt_client import Table

__all__ = ["service", "start"]

NAME, KEY = "crème", "clé"
OUTPUT_IS_ASCII = {"PYTHONIOENCODING": "ascii"}
ALL_IS_ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture
def url(start: Start) -> str:
    """A node with a checkpoint whose name and key are not ASCII."""
    node = start("a")
    with Table(NAME, 10, 100, 32, address=node.url) as table:
        table[KEY] = "café"
    return str(node.url)


def run(*arguments: str | bytes, **variables: str) -> subprocess.CompletedProcess[bytes]:
    command: list[str | bytes] = [sys.executable, "-m", "ckptctl", *arguments]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CKPTD_")}
    return subprocess.run(command, capture_output=True, timeout=60, check=False, env=environment | variables)


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param(OUTPUT_IS_ASCII, id="output"),
        pytest.param(ALL_IS_ASCII, id="locale", marks=pytest.mark.extended),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ["show", NAME],
        ["get", "nothing-é", KEY],
        *(
            pytest.param(each, marks=pytest.mark.extended)
            for each in (["status"], ["ls"], ["show", "--help"])
        ),
    ],
)
def test_nothing_ends_in_a_traceback(url: str, words: list[str], variables: dict[str, str]) -> None:
    """Our own "…" in what `ls` and `show` say ended in a UnicodeEncodeError."""
    ended = run(*(word.encode() for word in words), "--address", url, **variables)
    assert b"Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == ("nothing-é" in words), ended.stderr
    (ended.stdout + ended.stderr).decode("ascii")


def test_json_is_json_whatever_the_output_is(url: str) -> None:
    for variables in (OUTPUT_IS_ASCII, {"PYTHONIOENCODING": "utf-8"}):
        shown = json.loads(run("show", NAME, "--json", "--address", url, **variables).stdout)
        assert shown["name"] == NAME
        assert [section["key"] for section in shown["sections"]] == [KEY]


def test_what_is_typed_is_utf8_whatever_the_locale_says(url: str) -> None:
    address = ("--address", url)
    ended = run("get", NAME.encode(), KEY.encode(), *address, **ALL_IS_ASCII)
    assert ended.stdout == "café".encode(), ended.stderr
    put = run("put", NAME.encode(), b"0xff", "ñ".encode(), *address, **ALL_IS_ASCII)
    assert put.returncode == 0, put.stderr
    with Table(NAME, address=url, read_only=True) as table:
        assert table[b"\xff"] == "ñ".encode()


def test_a_name_that_was_shown_in_hexadecimal_can_be_typed(start: Start) -> None:
    node = start("a")
    with Table("two\nlines", 10, 100, 32, address=node.url):
        shown = json.loads(
            run("show", f"0x{b'two'.hex()}0a{b'lines'.hex()}", "--json", "--address", node.url).stdout
        )
        assert shown["name"] == "0x" + b"two\nlines".hex()
    refused = run("show", "0xff", "--address", node.url)
    assert refused.returncode == 2
    assert b"UTF-8" in refused.stderr
