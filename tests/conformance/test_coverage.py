"""No requirement is forgotten: each has a scenario, or a reason to have none, and a line in the page."""

import ast
import re
from pathlib import Path

import pytest
from tests.conformance.deviations import DEVIATIONS, NOT_APPLICABLE
from tests.conformance.requirements import REQUIREMENTS
from tests.test_nothing_forgotten import names_in

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "conformance.md"


def cited(by_all: bool = False) -> dict[str, list[str]]:
    """The requirements that scenarios cite, read from their source: those of `make test`, or all."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("test_*.py")):
        runs = names_in(path)
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if not by_all and not runs[node.name]:
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "requirement":
                    for number in mark.args:
                        found.setdefault(ast.literal_eval(number), []).append(node.name)
    return found


def test_every_requirement_has_a_scenario_that_make_test_runs_or_a_reason_to_have_none() -> None:
    shown = cited().keys() | NOT_APPLICABLE.keys()
    assert [number for number in REQUIREMENTS if number not in shown] == []


@pytest.mark.parametrize("number", [f"R{number}" for number in range(64, 78)])
def test_every_rule_of_closing_unlinking_and_retention_has_more_than_one_scenario(number: str) -> None:
    """One scenario that has gone soft would leave its rule without any."""
    assert len(set(cited()[number])) > 1


def test_scenarios_cite_requirements_that_there_are() -> None:
    assert [number for number in cited(by_all=True) if number not in REQUIREMENTS] == []


def test_every_deviation_is_shown_by_a_scenario() -> None:
    shown = cited()
    assert [number for number in DEVIATIONS if number not in shown] == []
    assert [number for number in DEVIATIONS if number in NOT_APPLICABLE] == []


@pytest.fixture
def page(pytestconfig: pytest.Config) -> str:
    """The page as it is in the repository."""
    if pytestconfig.getoption("--conformance-table", default=None):
        pytest.skip("the page is written when this run ends")
    return PAGE.read_text()


def test_every_requirement_is_in_the_page_with_what_it_asks(page: str) -> None:
    rows = dict(re.findall(r"^\| (R\d+) \| (.*?) \|", page, re.MULTILINE))
    assert rows == {number: requirement.text for number, requirement in REQUIREMENTS.items()}


def test_the_page_lists_every_deviation(page: str) -> None:
    for number, (what, why) in DEVIATIONS.items():
        assert f"* **{number}.** {what} *{why}*" in page
    for number, why in NOT_APPLICABLE.items():
        assert f"* **{number}.** {why}" in page
