"""Creation attributes: which are legal, what their flags mean, and when a reopen agrees with them."""

from typing import Any

import pytest

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckptd.core.directory.attributes import FIELD_NAMES, Attributes, parse_attributes

SYNC, ASYNC, WEAK, COLLOCATED = 1, 2, 4, 8
LEGAL = [1_000, 5, 10, 100, 16]
"""checkpointSize, retentionDuration, maxSections, maxSectionSize, maxSectionIdSize."""


def code(fields: Any) -> int:
    with pytest.raises(RequestError) as caught:
        parse_attributes(fields)
    assert caught.value.text
    return caught.value.code


@pytest.mark.parametrize("flags", range(17))
def test_flags_are_legal_when_they_hold_exactly_one_update_flag(flags: int) -> None:
    if flags in (1, 2, 4, 9, 10, 12):
        attributes = parse_attributes([flags, *LEGAL])
        assert attributes.fields() == [flags, *LEGAL]
        assert attributes.sync == (flags in (SYNC, SYNC | COLLOCATED))
        assert attributes.weak == (flags in (WEAK, WEAK | COLLOCATED))
        assert attributes.collocated == (flags > COLLOCATED)
    else:
        assert code([flags, *LEGAL]) == codes.INVALID_PARAM


@pytest.mark.parametrize("flags", [-1, 2**31 | 1, 2**64 | 1])
def test_flags_are_refused_when_unknown_bits_are_set(flags: int) -> None:
    assert code([flags, *LEGAL]) == codes.INVALID_PARAM


@pytest.mark.parametrize(
    ("place", "low", "high"),
    [(2, 0, 2**63 - 1), (3, 10, 2**32 - 1), (4, 100, 2**63 - 1), (5, 1, 65_535)],
)
def test_each_size_is_legal_at_its_limits_and_refused_beyond(place: int, low: int, high: int) -> None:
    for value in (low, high):
        fields = [SYNC, *LEGAL]
        fields[place] = value
        assert parse_attributes(fields).fields()[place] == value
    for value in (-1, high + 1):
        fields = [SYNC, *LEGAL]
        fields[place] = value
        assert code(fields) == codes.INVALID_PARAM


@pytest.mark.parametrize("place", [3, 4])
def test_no_sections_or_sections_of_no_bytes_are_refused(place: int) -> None:
    fields = [SYNC, 0, *LEGAL[1:]]
    fields[place] = 0
    assert code(fields) == codes.INVALID_PARAM


def test_the_checkpoint_size_is_at_most_all_sections_together() -> None:
    assert parse_attributes([SYNC, 1_000, 0, 10, 100, 1])
    assert code([SYNC, 1_001, 0, 10, 100, 1]) == codes.INVALID_PARAM
    assert parse_attributes([SYNC, 0, 0, 10, 100, 1])
    assert code([SYNC, -1, 0, 10, 100, 1]) == codes.INVALID_PARAM


def test_a_single_section_needs_no_id_and_several_do() -> None:
    assert parse_attributes([SYNC, 100, 0, 1, 100, 0])
    assert code([SYNC, 100, 0, 2, 100, 0]) == codes.INVALID_PARAM


@pytest.mark.parametrize(
    "fields",
    [None, 3, b"", {}, (SYNC, *LEGAL), [], [SYNC, *LEGAL[:-1]], *([*([1] * n), bad, *([1] * (5 - n))]
     for n in range(6) for bad in (None, 1.0, True, "1", b"1", [1]))],
    ids=repr,
)  # fmt: skip
def test_attributes_that_are_not_six_integers_are_refused(fields: Any) -> None:
    assert code(fields) == codes.INVALID_PARAM


def test_further_fields_are_ignored_when_a_newer_client_sends_them() -> None:
    assert parse_attributes([SYNC, *LEGAL, "later"]).fields() == [SYNC, *LEGAL]


def test_the_service_holds_at_most_its_own_limit_whatever_a_checkpoint_allows() -> None:
    assert parse_attributes([SYNC, 0, 0, 1, 2**63 - 1, 0]).section_bytes_cap == 64 * 1024 * 1024
    assert parse_attributes([SYNC, 0, 0, 1, 100, 0]).section_bytes_cap == 100


@pytest.mark.parametrize("place", range(6))
def test_a_reopen_that_differs_is_answered_with_the_difference(place: int) -> None:
    """That the attributes are other ones was all it said; which one, and what it is, had to be guessed."""
    mine = Attributes(SYNC, *LEGAL)
    fields = mine.fields()
    fields[place] += 1
    other = Attributes(*fields)
    told = f"{FIELD_NAMES[place]} is {fields[place] - 1}, and {fields[place]} was asked for"
    assert mine.differences(other, with_retention=True) == told
    assert mine.differences(other, with_retention=False) == ("" if place == 2 else told)
    assert mine.differences(Attributes(SYNC, *LEGAL), with_retention=True) == ""
