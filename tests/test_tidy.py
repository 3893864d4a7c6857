"""The tree stays easy to enter: small files and functions, docstrings, rooms that are not crowded."""

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("protocol/ckpt_protocol", "ckptd/ckptd", "client/ckpt_client", "client/ckptctl")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
ROOM_FILES_MAX = 15
"""Beside `__init__.py`."""

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
assert len(FILES) > 200


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """The functions of a module, each with its lines."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_file_is_long() -> None:
    sizes = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}


def test_no_function_is_long() -> None:
    sizes = {f"{name_of(path)}:{name}": lines for path in FILES for name, lines in functions(path)}
    assert {name: size for name, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


def test_every_module_says_what_it_is() -> None:
    assert [
        name_of(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ] == []


def test_no_folder_has_too_many_modules() -> None:
    rooms: dict[str, int] = defaultdict(int)
    for path in FILES:
        rooms[name_of(path.parent)] += path.name != "__init__.py"
    assert {room: files for room, files in rooms.items() if files > ROOM_FILES_MAX} == {}


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a module imports, also for type checking alone and within functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", ["ckptd/ckptd/runtime", "ckptd/ckptd/testing", "client/ckptctl"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    paths = {
        name_of(path).partition("/")[2].removesuffix(".py").replace("/", "."): path
        for path in FILES
        if name_of(path).startswith(package) and path.name != "__init__.py"
    }
    assert paths
    TopologicalSorter({name: set(imports_of(path)) for name, path in paths.items()}).prepare()


@pytest.mark.parametrize(
    "package", ["ckptd/ckptd/core", "ckptd/ckptd/runtime", "ckptd/ckptd/sim", "client/ckpt_client"]
)
def test_no_two_modules_of_a_package_have_one_name(package: str) -> None:
    """`saf`, `asp` and `pyosaf` count apart: they are packages of their own."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        apart = {"saf", "asp", "pyosaf"} & set(path.parts)
        if name_of(path).startswith(package + "/") and path.name != "__init__.py" and not apart:
            places[path.name].append(name_of(path))
    assert [found for found in places.values() if len(found) > 1] == []


def test_every_folder_of_tests_is_run() -> None:
    """`testpaths` orders them, so each is named there."""
    named = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"][
        "testpaths"
    ]
    tests = {name_of(path) for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in tests if not any(Path(name).is_relative_to(top) for top in named)} == set()


SAID_OTHERWISE = {
    # word: (what to say instead, what is meant, which packages must not use it)
    "frozen": ("sealed", "the epoch is over here: nothing of it is served or acknowledged", "core"),
    "confirmed": ("established", "every member has shown that it runs the view", "core"),
    "founding": ("bootstrap view", "the first view of a history", ""),
    "founded": ("bootstrap epoch", "the epoch of a history's first view", ""),
    "following": ("successor view", "the view that comes after another one", "core"),
    "departure": ("past membership", "a membership that has ended", ""),
    "departures": ("past memberships", "the memberships that have ended", ""),
    "start of": ("incarnation", "one start of a node, with its number", "core"),
    "forgetful": ("amnesiac", "it lost its state directory, or never had one", ""),
    "term": (
        "activation seq",
        "the directory's seq when the active replica was placed last",
        "core protocol",
    ),
    "tenure": ("lineage", "what tells readers that something which they have read may be lost", ""),
    "of word": ("operator command", "what an operator had a node do", "core"),
    "silent peer": (
        "pair policy",
        "what a pair does when a node is silent (the setting keeps its name)",
        "core",
    ),
    "candidates": ("proposed members, reachable data nodes", "who may be in the next view", "membership"),
    "installation": ("view change", "collecting for a decided view, and installing it", ""),
    "tracks": ("change feed", "reads that wait for a change", ""),
    "register arbiter": ("etcd arbiter", "the arbiter that keeps its register in etcd", ""),
    "majority arbiter": ("paxos arbiter", "the arbiter that the nodes make up together", ""),
    "seal": ("sign", "make a datagram's signature", ""),
    "seals": ("signature, heartbeat secrets", "what shows that a heartbeat is a peer's", ""),
    "unseal": ("verify", "check a datagram's signature, and take it off", ""),
    "greet": ("send hello", "begin a handshake", ""),
    "greeting": ("handshake", "the first frames of every connection", ""),
    "greeted": ("peer identity", "what is known of the other side after the handshake", ""),
    "complaint": ("stall report", "members that owe a node acknowledgements", ""),
    "complaints": ("stall reports", "members that owe a node acknowledgements", ""),
    "accused": ("reported stalled", "some member waits for it for too long", ""),
    "deaf": ("one-way partitioned", "another member's heartbeats do not arrive there", ""),
    "put out": ("evicted", "left out of the next view although it lives", ""),
    "kept out": ("in re-admission back-off", "evicted a moment ago", ""),
    "left behind": ("excluded", "a member of the last view that is not in the next one", "core"),
    "newcomers": ("reachable data nodes", "nodes that may join", ""),
    "given up": ("declared dead", "counts as dead without proof", "core sim"),
    "gives up": ("declare dead, step down, discard", "say which of them it is", "core sim"),
    "died waiting": ("died before installing", "a coordinator's view that nobody can have served", ""),
    "lag": ("local pause", "this process did not run for a while", "core"),
    "edge": ("transport", "the runtime's connections and datagrams", "core runtime sim"),
    "unlinked ns": ("disconnected since", "there is no connection (a name is unlinked, a peer is not)", ""),
    "look": ("update, recheck, scan, find", "say what is done", "core protocol"),
    "looked": ("scanned", "how much of a queue was searched", "core protocol"),
    "told": ("sent, reported, notified", "say by which message", "core protocol"),
    "tell": ("send, report, answer", "say by which message", "core"),
    "said": ("sent, announced", "say by which message", "core protocol"),
    "crowded": ("overloaded", "too much waits", "core"),
    "put off": ("deferred", "it waits for a condition", "core"),
    "take back": ("withdraw", "remove a request that only waits", ""),
    "copies": ("replicas", "what the nodes hold of a checkpoint", "core protocol"),
    "held by": ("replicas per node", "how many replicas each member holds", "core"),
    "early": ("future epoch, unknown checkpoint", "say what the frame has overtaken", "core"),
    "idle": ("unserved", "an epoch in which no node served", "core"),
    "stays": ("memberships", "from which to which epoch a node was a member", "core"),
    "stayed": ("continuous members", "members ever since the last epoch that served", "core"),
    "dropped": ("ignores updates", "a replica that waits for its next resync", "core"),
}
"""Words that this code once had for something else or for several things at once. docs/ARCHITECTURE.md,
"Words"."""

PLACES = {"core": "ckptd/ckptd/core", "membership": "ckptd/ckptd/core/membership", "protocol": "protocol"}
PLACES |= {"runtime": "ckptd/ckptd/runtime", "sim": "ckptd/ckptd/sim"}
OF_OTHERS = {"frozen", "on_silent_peer"}
"""A keyword of `dataclass`, and a setting."""


def identifiers(path: Path) -> Iterator[str]:
    """All names that a module defines or uses."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        for field in ("name", "id", "attr", "arg"):
            name = getattr(node, field, None)
            if isinstance(name, str) and name not in OF_OTHERS:
                yield name


def words_of(identifier: str) -> str:
    """An identifier as words: ` one start of `."""
    return f" {' '.join(re.findall(r'[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])', identifier)).lower()} "


def test_one_thing_has_one_name() -> None:
    found = []
    for path in FILES:
        words = {words_of(name): name for name in identifiers(path)}
        for word, (instead, _, packages) in SAID_OTHERWISE.items():
            places = [PLACES[package] for package in packages.split()] or [""]
            if any(name_of(path).startswith(place) for place in places):
                found += [(name_of(path), words[each], instead) for each in words if f" {word} " in each]
    assert found == []


TESTS_SAY_OTHERWISE = {
    # word in the name of a test or of its file: what to say instead
    "told": "reported, answered, received: say by which message",
    "tell": "report, send, list",
    "tells": "reports, sends, lists",
    "said": "reported, sent, announced",
    "hear": "receive a heartbeat",
    "hears": "receives a heartbeat",
    "heard": "its heartbeats arrive, it counts as alive",
    "go on": "continue",
    "goes on": "continues",
    "went on": "continued",
    "behind": "after, or lags",
    "nobody": "no node, no client, no process",
    "nobodys": "no node's, no client's",
    "somebody": "a node, another client",
    "everybody": "all nodes, every client",
    "anybody": "any node, every handle",
    "whoever": "the node that, the process that",
    "copy": "replica, or duplicate of a request",
    "copies": "replicas, or duplicates of a request",
    "stands": "is, or is stuck",
    "stood": "was, or was paused",
    "put out": "evicted",
    "puts out": "evicts",
    "kept out": "excluded, in re-admission back-off",
    "left behind": "excluded",
    "given up": "declared dead, cancelled, discarded: say which",
    "gives up": "declares dead, cancels, discards: say which",
    "gave up": "cancelled, left, stopped serving: say which",
    "taken back": "withdrawn, or admitted",
    "put off": "deferred",
    "held up": "paused, or delayed",
    "holds up": "delays",
    "frozen": "sealed, or paused",
    "complaints": "stall reports",
    "forgetful": "amnesiac",
    "founded": "bootstrapped",
    "founder": "bootstrap",
    "stay": "membership",
    "void": "discarded",
    "stranger": "unknown node, unauthenticated connection",
    "strangers": "unknown nodes, unauthenticated connections",
    "doors": "transports",
    "greet": "send hello",
    "greets": "sends hello, answers hello",
    "greeted": "is sent hello",
    "greeting": "handshake, hello",
    "room": "capacity, space, memory",
    "anew": "again",
    "beside": "next to",
    "wherever": "in every place",
    "meanwhile": "during it, at the same time",
    "for good": "permanently",
    "by itself": "on its own, alone",
}
"""Like `SAID_OTHERWISE`, for the names of tests: these are sentences, so each word of prose that was replaced
is here as well. A name that needs one of them is better another sentence."""


def test_no_name_of_a_test_has_a_word_that_was_replaced() -> None:
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name in (path.stem, *(name for name, _ in functions(path) if name.startswith("test_"))):
            words = words_of(name.removeprefix("test_"))
            instead = {
                word: TESTS_SAY_OTHERWISE[word] for word in TESTS_SAY_OTHERWISE if f" {word} " in words
            }
            if words.startswith(" who "):
                instead["who"] = "a node that, a client that"
            found += [f"{name_of(path)}: {name}: instead of {word!r}: {instead[word]}" for word in instead]
    assert found == []
