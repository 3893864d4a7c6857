"""docs/failures.md lists every alarm that a node can raise, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ckptd" / "ckptd" / "core"
SECTION = (ROOT / "docs" / "failures.md").read_text("utf-8").split("\n## Alarms\n")[1].split("\n## ")[0]


def raised_in(path: Path) -> Iterator[str]:
    """The names with which this module calls `raise_alarm`, or its own `_set`, or sets an alarm itself."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Attribute(attr="raise_alarm" | "_set" as called), args=[name, *_]):
                    if called == "raise_alarm" and function.name == "_set":
                        continue  # Its callers give the name.
                case ast.Assign(targets=[ast.Subscript(value=ast.Attribute(attr="alarms"), slice=name)]):
                    if path.name == "context.py":
                        continue  # `raise_alarm` itself.
                case _:
                    continue
            assert isinstance(name, ast.Constant), f"{path.name}: no name at line {node.lineno}"
            yield name.value


def test_every_alarm_that_can_be_raised_is_documented_and_no_other_is() -> None:
    raised = {name for path in CORE.rglob("*.py") for name in raised_in(path)}
    assert raised == set(re.findall(r"^\| `(\w+)` \|", SECTION, re.MULTILINE))


def test_the_alarms_that_have_to_last_for_a_lease_are_documented() -> None:
    listed = SECTION.split("The conditions ")[1].split(" become an alarm")[0]
    assert set(raised_in(CORE / "operations" / "alarms.py")) - {"limits"} == set(
        re.findall(r"`(\w+)`", listed)
    )
