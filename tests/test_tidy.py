"""The tree stays easy to enter: small files and functions, docstrings, rooms that are not crowded.

What is larger than it should be is named here with its size, and may only become smaller.
"""

import ast
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

LARGE_FILES = {
    "client/ckpt_client/io/aio_connection.py": 505,
}
LARGE_FUNCTIONS = {
    "ckptd/ckptd/core/replication/active_replica.py:submit": 90,
}

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
    assert {n: size for n, size in sizes.items() if size > LARGE_FILES.get(n, FILE_LINES_MAX)} == {}
    assert [name for name in LARGE_FILES if sizes.get(name, 0) <= FILE_LINES_MAX] == [], (
        "no exceptions any more"
    )


def test_no_function_is_long() -> None:
    sizes = {f"{name_of(path)}:{name}": lines for path in FILES for name, lines in functions(path)}
    long = {n: size for n, size in sizes.items() if size > LARGE_FUNCTIONS.get(n, FUNCTION_LINES_MAX)}
    assert long == {}
    small = [name for name in LARGE_FUNCTIONS if sizes.get(name, 0) <= FUNCTION_LINES_MAX]
    assert small == [], "no exceptions any more"


def test_every_module_says_what_it_is() -> None:
    assert [
        name_of(path) for path in FILES if not ast.get_docstring(ast.parse(path.read_text("utf-8")))
    ] == []


def test_no_room_is_crowded() -> None:
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
