"""Programs as a type checker sees them: mypy and pyright, each in its strict mode."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.programs import check_types
from tests.programs.check_types import CHECKERS, SAMPLE, check, differences, expected, is_installed

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_sample_is_accepted_and_every_mistake_is_found(checker: str, tmp_path: Path) -> None:
    if not is_installed(checker):
        pytest.skip(f"{checker} is not installed: pip install -e '.[dev]'")
    assert check(checker, ROOT, tmp_path) == []


def test_the_sample_runs() -> None:
    ended = subprocess.run([sys.executable, str(SAMPLE)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "every type is as written"


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_mistake_that_is_not_found_and_an_error_elsewhere_are_both_reported(checker: str) -> None:
    wanted = expected(checker)
    assert len(wanted) > 20
    assert differences(wanted, wanted) == []
    first = min(wanted)
    others = {place: rules for place, rules in wanted.items() if place != first}
    assert f"{first[0]}:{first[1]}: " in differences(others, wanted)[0]
    assert "found nothing" in differences(others, wanted)[0]
    elsewhere = {**wanted, (SAMPLE.name, 1): {"misc"}}
    assert differences(elsewhere, wanted) == [f"{SAMPLE.name}:1: expected nothing, found misc"]
    assert "found another" in differences({**wanted, first: {"another"}}, wanted)[0]


def test_every_package_that_programs_import_says_that_it_has_types() -> None:
    """Without `py.typed`, a type checker takes everything in an installed package for Any."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    untyped = [each for each in packages if not (ROOT / each / "py.typed").exists()]
    assert untyped == ["client/ckptctl"], "which is a command only"


def test_every_mistake_has_its_comment() -> None:
    lines = check_types.REFUSED.read_text("utf-8").splitlines()
    assert sum("refused:" in line for line in lines) == sum(
        check_types.REFUSAL.search(line) is not None for line in lines
    )
