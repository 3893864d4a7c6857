"""docs/protocol.md against the code: it names every number that is on the wire."""

import re
from pathlib import Path

import pytest
from tests.protocol.representative import kind_numbers, op_numbers

from ckpt_protocol import limits

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
LIMITS = [name for name in vars(limits) if name.isupper()]
NOT_ON_THE_WIRE = ("NODES_MAX",)


@pytest.mark.parametrize(("name", "number"), [*kind_numbers().items(), *op_numbers().items()])
def test_the_document_lists_every_kind_and_operation_with_its_number(name: str, number: int) -> None:
    assert re.search(rf"^\| {number} \| `{name}` \| ", DOCUMENT, re.MULTILINE)


def test_the_document_lists_no_kind_or_operation_that_is_none() -> None:
    numbers = {*kind_numbers().items(), *op_numbers().items()}
    told = re.findall(r"^\| (\d+) \| `([A-Z_]+)` \| ", DOCUMENT, re.MULTILINE)
    assert {(name, int(number)) for number, name in told if not name.startswith(("ERR_", "OK"))} <= numbers


@pytest.mark.parametrize("name", [name for name in LIMITS if name not in NOT_ON_THE_WIRE])
def test_the_document_lists_every_limit(name: str) -> None:
    assert f"| `{name}` | {getattr(limits, name):,} |" in DOCUMENT
