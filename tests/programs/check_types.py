"""Type checkers accept `typed_sample.py`, and find every mistake of `typed_refused.py`.

    python check_types.py [--source CHECKOUT]

It asks mypy and pyright (by its package basedpyright), both in their strict modes, whichever is installed
beside this Python; `make smoke` has it look at the installed package, `tests/client/test_types.py` at a
checkout.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
SAMPLE = HERE / "typed_sample.py"
REFUSED = HERE / "typed_refused.py"
FOLDERS = ("protocol", "ckptd", "client")
"""The parents of a checkout's packages."""

CHECKERS = ("mypy", "basedpyright")
REFUSAL = re.compile(r"# refused: ([\w-]+), ([\w-]+)$")

Found = dict[tuple[str, int], set[str]]
"""The rules that a checker cites, by file and line."""


def expected(checker: str) -> Found:
    """The rules that the comments of `typed_refused.py` name; `-` for none."""
    wanted: Found = {}
    for number, line in enumerate(REFUSED.read_text("utf-8").splitlines(), 1):
        refusal = REFUSAL.search(line)
        if refusal is not None and refusal[1 + CHECKERS.index(checker)] != "-":
            wanted[REFUSED.name, number] = {refusal[1 + CHECKERS.index(checker)]}
    return wanted


def is_installed(checker: str) -> bool:
    """Return True if this Python has the type checker."""
    return importlib.util.find_spec(checker) is not None


def run(checker: str, *arguments: str, paths: Iterable[Path] = ()) -> str:
    """Have a type checker read both programs; return what it prints."""
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", checker, *arguments, str(SAMPLE), str(REFUSED)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    if ended.returncode not in (0, 1):
        raise SystemExit(f"{checker} failed: {ended.stdout}{ended.stderr}")
    return ended.stdout


def ask_mypy(paths: Iterable[Path], cache: Path) -> Found:
    arguments = ("--strict", "--follow-imports=silent", "--no-error-summary", "--no-pretty")
    said = run("mypy", "--config-file=", f"--cache-dir={cache}", *arguments, paths=paths)
    found: Found = {}
    for line in said.splitlines():
        error = re.match(r"(.+?):(\d+): error: .*\[([\w-]+)\]$", line)
        if error is not None:
            found.setdefault((Path(error[1]).name, int(error[2])), set()).add(error[3])
        elif ": error:" in line:
            raise SystemExit(f"mypy: {line}")
    return found


def ask_pyright(paths: Iterable[Path], cache: Path) -> Found:
    settings = cache / "pyrightconfig.json"
    wanted = {"typeCheckingMode": "strict", "extraPaths": [str(path) for path in paths]}
    settings.write_text(json.dumps(wanted))
    said = run("basedpyright", "--outputjson", "--project", str(settings), "--pythonpath", sys.executable)
    found: Found = {}
    for each in json.loads(said)["generalDiagnostics"]:
        if each["severity"] == "error":
            place = Path(each["file"]).name, each["range"]["start"]["line"] + 1
            found.setdefault(place, set()).add(each.get("rule", "syntax"))
    return found


def differences(found: Found, wanted: Found) -> list[str]:
    """What is wrong: an error that no comment names, or a mistake that is not found."""
    wrong: list[str] = []
    for place in sorted({*found, *wanted}):
        rules, cited = wanted.get(place, set()), found.get(place, set())
        if not rules or not rules <= cited:
            texts = [", ".join(sorted(each)) or "nothing" for each in (rules, cited)]
            wrong.append(f"{place[0]}:{place[1]}: expected {texts[0]}, found {texts[1]}")
    return wrong


def check(checker: str, source: Path | None, cache: Path) -> list[str]:
    """Ask one type checker; return what is wrong."""
    paths = [source / folder for folder in FOLDERS] if source is not None else []
    found = (ask_mypy if checker == "mypy" else ask_pyright)(paths, cache)
    return differences(found, expected(checker))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path)
    source: Path | None = parser.parse_args().source
    wrong: list[str] = []
    for checker in CHECKERS:
        if not is_installed(checker):
            wrong.append(f"{checker} is not installed")
            continue
        with tempfile.TemporaryDirectory() as cache:
            wrong += [f"{checker}: {each}" for each in check(checker, source, Path(cache))]
    print("\n".join(wrong) or f"{SAMPLE.name} is accepted, and every mistake of {REFUSED.name} is found")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
