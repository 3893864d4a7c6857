"""What a client takes from a node: typed values or a FrameError; a `Table.status()` once leaked a
KeyError."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.protocol.representative import REPRESENTATIVES

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.errors import FrameError
from ckpt_protocol.parse_answers import (
    decode_answer,
    parse_changes,
    parse_element,
    parse_opened,
    parse_page,
    parse_status,
    parse_values,
)

ATTRIBUTES = [1, 100, 0, 1, 100, 8]
ANSWERS: list[tuple[Callable[[Any], Any], Any]] = [
    (parse_opened, [2, 2**40 + 1, ATTRIBUTES]),
    (parse_values, [b"value", b""]),
    (parse_page, [[[b"k", 2**63 - 1, 5, 1, 17, b"value"], [b"l", 9, 5, 2, 17, None]], b"l", 2**40, 0]),
    (parse_status, [ATTRIBUTES, 3, 40, "a", [["a", True], ["b", False]], 2, False]),
    (parse_changes, [7, [[7, 2, b"k", 0, 5, 0, b"value"], [7, 4, b"l", 0, 0, 0, None]], 0, True]),
    (parse_element, [[b"value", bytes(24), 2**62]]),
]
ODD: list[Any] = [True, -1, 0.5, float("inf"), 2**64 - 1, "", "k", [], [1], {}, {1: 2}, None, b"k"]


def spoiled(content: Any, odd: Any) -> Iterator[Any]:
    yield odd
    if type(content) is list:
        for place, element in enumerate(content):
            for other in spoiled(element, odd):
                yield [*content[:place], other, *content[place + 1 :]]
            yield content[:place]


@pytest.mark.parametrize(("parse", "payload"), ANSWERS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_answer_is_read_and_an_odd_one_is_a_frame_error(parse: Callable[[Any], Any], payload: Any) -> None:
    may_have_more = parse not in (parse_values, parse_element)
    assert parse(payload) == parse([*payload, "later"] if may_have_more else payload)
    refused = 0
    for odd in ODD:
        for other in spoiled(payload, odd):
            try:
                parse(other)
            except FrameError:
                refused += 1
    assert refused > 10


def test_the_answers_of_an_older_node_lack_the_last_fields() -> None:
    assert parse_page([[], None]).position is None
    changes = parse_changes([7, [[7, 2, b"k", 0, 5, 0]], 0])
    assert changes.rows is not None
    assert (changes.complete, changes.rows[0].value) == (None, None)
    assert parse_element([[b"value", bytes(24)]]) == (b"value", bytes(24), -1)
    assert parse_element([[b"value", None, None]]) == (b"value", b"", None)
    for short in ([[b"value"]], [[]], [], [b"value"]):
        with pytest.raises(FrameError):
            parse_element(short if short != [[b"value"]] else [[5]])


@pytest.mark.parametrize(
    "body",
    [
        pack_body([2**40]),
        pack_body([0]),
        pack_body(["x"]),
        pack_body({1: 2}),
        b"\x91" * 99,
        b"",
    ],
)
def test_a_body_that_is_no_answer_is_a_frame_error(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode_answer(body)


@pytest.mark.parametrize(
    "frame", [frame for frame in REPRESENTATIVES if frame.kind == "ANSWER"], ids=lambda frame: frame.name
)
def test_every_representative_answer_is_read(frame: Any) -> None:
    assert decode_answer(frame.body)[0] > 0
