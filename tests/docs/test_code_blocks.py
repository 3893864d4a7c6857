"""Every code block of README.md and of docs/ does what the page says: it is run, or at least checked.

Python runs against a real cluster, page by page; the blocks of a page continue each other. What a line prints
has to be in the comment at its end. Commands are parsed by the programs that they name, and those that only
look are run. `code_blocks` says what a page can say about a block.
"""

import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.docs.code_blocks import PAGES, ROOT, Block, blocks_of
from typer.testing import CliRunner

from ckpt_client import Connection
from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.handshake import NONCE_BYTES
from ckpt_protocol.messages import Kind
from ckptctl.commands import app
from ckptd.runtime.config.model import Config
from ckptd.runtime.config.sources import load_config
from ckptd.testing import LocalCluster

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
PROGRAM = Path(__file__).with_name("page_program.py")
PAGE_SECONDS = 30.0
ADDRESSES = re.compile(r"unix:///run/ckptd/ckptd\.sock(,tcp://host\d:7301)*")
"""What stands for the addresses of the reader's cluster."""

LOOKING = {"status", "ls", "show", "get", "leader"}
"""The commands of `ckptctl` that change nothing. They are run, unless a word in capitals stands for a
name."""

AROUND = {".", "export", "pip"}
"""The commands around ours, which are not checked."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster for all pages."""
    with LocalCluster(3) as cluster:
        yield cluster


@pytest.fixture
def addresses(cluster: LocalCluster) -> Iterator[str]:
    """Its addresses. What a page has created is gone when the next page begins."""
    yield cluster.addresses()
    connection = Connection(cluster.addresses())
    for row in connection.describe("checkpoints"):
        connection.unlink(row[0])
    connection.close()


# -- Python


def in_python(page: Path) -> list[Block]:
    """What runs of a page."""
    return [b for b in blocks_of(page) if b.language in ("python", "hidden") and not b.not_run]


def said_to_print(page: Path) -> dict[int, str]:
    """The comment at the end of each line that prints."""
    lines = page.read_text("utf-8").splitlines()
    found = {number: re.search(r"\bprint\(.*\)  # (.*)", line) for number, line in enumerate(lines, 1)}
    return {number: match[1] for number, match in found.items() if match}


@pytest.mark.parametrize("page", [page for page in PAGES if in_python(page)], ids=lambda page: page.name)
def test_the_programs_of_a_page_run_and_print_what_it_says(page: Path, addresses: str) -> None:
    programs = [(page.name, block.line, ADDRESSES.sub(addresses, block.text)) for block in in_python(page)]
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", str(PROGRAM)],
        input=json.dumps(programs),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CKPTD_ADDRESS": addresses},
        capture_output=True,
        text=True,
        timeout=PAGE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = {int(line): texts for line, texts in json.loads(done.stdout).items()}
    comments = said_to_print(page)
    wrong = {
        f"{page.name}:{line}": (text, comments[line])
        for line, texts in printed.items()
        for text in texts
        if line in comments and text.replace("'", '"') not in comments[line].replace("'", '"')
    }
    assert wrong == {}


# -- commands


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a block, without their comments."""
    joined = block.text.replace("\\\n", " ")
    lexer = [shlex.split(line, comments=True) for line in joined.splitlines()]
    return [command for line in lexer for command in split_at(line, "&&", "|") if command]


def split_at(words: list[str], *separators: str) -> Iterator[list[str]]:
    """The commands of one line."""
    command: list[str] = []
    for word in words:
        if word in separators:
            yield command
            command = []
        else:
            command.append(word)
    yield command


def parse_ckptctl(arguments: list[str]) -> list[str]:
    """Have `ckptctl` parse its arguments; return the names of the command. Raises: UsageError of click."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("ckptctl", arguments.copy())
    names: list[str] = []
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return names


def check_ckptctl(arguments: list[str], addresses: str) -> None:
    names = parse_ckptctl(arguments)
    is_example = any(word.isupper() for word in arguments)
    if names[0] in LOOKING and not is_example:
        done = CliRunner().invoke(app, arguments, env={"CKPTD_ADDRESS": addresses})
        assert done.exit_code == 0, done.output


def check_ckptd(arguments: list[str], addresses: str) -> None:
    load_config(arguments, {})


def check_python(arguments: list[str], addresses: str) -> None:
    if arguments[0] == "-c":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CKPTD_ADDRESS": addresses}
        subprocess.run([sys.executable, *arguments], env=environment, timeout=PAGE_SECONDS, check=True)
    else:
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(f"{arguments[1]}.__main__") is not None


def check_make(arguments: list[str], addresses: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert {word for word in arguments if "=" not in word} <= set(targets)


COMMANDS: dict[str, Callable[[list[str], str], None]] = {
    "ckptctl": check_ckptctl,
    "ckptd": check_ckptd,
    "python": check_python,
    "make": check_make,
}


def in_shell(block: Block) -> bool:
    return block.language in ("sh", "console") and not block.not_run


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(in_shell, blocks_of(page)))], ids=str)
def test_the_commands_of_a_page_exist_and_take_their_options(page: Path, addresses: str) -> None:
    for block in filter(in_shell, blocks_of(page)):
        for name, *arguments in commands_of(block):
            if name in AROUND:
                continue
            assert name in COMMANDS, f"{block}: nothing is known about {name!r}"
            try:
                COMMANDS[name](arguments, addresses)
            except Exception as error:
                raise AssertionError(f"{block}: {name} {arguments}: {error!r}") from error


# -- the rest


def test_a_configuration_is_one() -> None:
    for block in BLOCKS:
        if block.language == "toml" and not block.not_run:
            Config.model_validate(tomllib.loads(block.text))


def is_dialogue(block: Block) -> bool:
    return block.language == "text dialogue" and not block.not_run


STEP = re.compile(r"(?P<arrow>[→←]) (?P<kind>\w+) +(?P<a>\S+) (?P<b>\S+) (?P<c>\S+) +(?P<body>.*)")


def value_of(text: str) -> Any:
    """What the notation of the page means. `…` is anything."""
    names = {"nil": None, "true": True, "false": False, "nonce": bytes(NONCE_BYTES)}
    return eval(text.replace("…", "..."), {"__builtins__": {}}, names)


def is_like(said: Any, got: Any) -> bool:
    """Compare what does not depend on the cluster: kinds of values, and the sections' content."""
    if said is ...:
        return True
    if isinstance(said, list):
        return isinstance(got, list) and all(map(is_like, said, got))
    return type(said) is type(got) and (said == got or not isinstance(said, bytes) or not any(said))


@pytest.mark.parametrize("block", [b for b in BLOCKS if is_dialogue(b)], ids=str)
def test_a_dialogue_with_a_node_goes_as_the_page_says(
    block: Block, cluster: LocalCluster, addresses: str
) -> None:
    decoder = FrameDecoder()
    answers: dict[tuple[int, int], Any] = {}
    with socket.socket(socket.AF_UNIX) as node:
        node.settimeout(PAGE_SECONDS)
        node.connect(str(cluster.socket_path()))
        for line in block.text.splitlines():
            step = STEP.fullmatch(line)
            assert step is not None, line
            kind, body = getattr(Kind, step["kind"]), value_of(step["body"])
            if step["arrow"] == "→":
                node.sendall(
                    encode_frame(kind, int(step["a"]), int(step["b"]), int(step["c"]), pack_body(body))
                )
                continue
            while (kind, int(step["a"])) not in answers:
                for frame in decoder.feed(node.recv(65536)):
                    answers[frame.kind, frame.a] = unpack_body(frame.body)
            got = answers.pop((kind, int(step["a"])))
            assert is_like(body, got), f"{block}: {line}: {got}"


CHECKED = ("python", "hidden", "sh", "console", "toml", "text dialogue")


def test_every_block_is_checked_or_the_page_says_why_not() -> None:
    unchecked = [str(block) for block in BLOCKS if not block.not_run and block.language not in CHECKED]
    assert unchecked == [], "fence it with its language, or write <!-- not run: why --> before it"


def test_the_blocks_that_are_not_run_are_few() -> None:
    """Each is a place where the documentation can be wrong, and no test notices it."""
    reasons = {block.not_run for block in BLOCKS if block.not_run}
    assert reasons == {"a drawing", "the fields of a body"}


def test_a_comment_holds_for_the_block_after_it_and_no_other() -> None:
    drawings = "<!-- not run: it is\na drawing -->\n\n```text\n-->\n```\n\n```text\n<--\n```\n"
    first, second, hidden = blocks_of(ROOT / "README.md", f"{drawings}\n<!-- run:\nx = 1\n-->\n")
    assert (first.not_run, first.line, first.text) == ("it is a drawing", 5, "-->\n")
    assert (second.not_run, second.line) == ("", 9)
    assert (hidden.language, hidden.line, hidden.text) == ("hidden", 13, "x = 1\n")
