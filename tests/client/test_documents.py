"""Programs in README and `examples/` can be run one after the other, against one daemon."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMITS = ("maxRows", "maxRowSizeBytes", "maxRowKeySizeBytes")


def programs() -> Iterator[tuple[str, str]]:
    """Where a program stands, and its text."""
    for path in (*ROOT.glob("examples/**/*.py"), *ROOT.glob("ckptd/ckptd/testing/*.py")):
        yield path.name, path.read_text("utf-8")
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for program in re.findall(
            r"^```python\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            yield path.name, program
        for line in re.findall(r"python -c '(.*)'", path.read_text("utf-8")):
            yield path.name, line


def tables(program: str) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The name and the limits of each table that a program makes."""
    for call in ast.walk(ast.parse(program)):
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("Table", "AsyncTable.open")):
            name, *limits = [each.value for each in call.args if isinstance(each, ast.Constant)] or [None]
            named = {each.arg: each.value for each in call.keywords}
            limits += [ast.literal_eval(named[limit]) for limit in LIMITS if limit in named]
            if isinstance(name, str) and limits:
                yield name, tuple(limits[:3])


def test_a_name_has_the_same_limits_in_every_call() -> None:
    """README's first program and examples/counter.py made "counter" differently: one was refused."""
    found: dict[str, tuple[str, tuple[object, ...]]] = {}
    for where, program in programs():
        for name, limits in tables(program):
            first, as_first = found.setdefault(name, (where, limits))
            assert limits == as_first, f"{name!r} in {first} and in {where}"
    assert {"counter", "orders", "leases", "phonebook"} <= set(found)
