"""How `ckptctl` shows bytes, flags and times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ACTIVE_REPLICA, SA_TIME_MAX
from ckptctl.text_format import (
    json_bytes,
    parse_bytes,
    show_bytes,
    show_duration,
    show_flags,
    show_moment,
    show_size,
)


@given(st.binary(max_size=40))
def test_what_is_shown_can_be_typed_back_for_any_bytes(content: bytes) -> None:
    assert parse_bytes(show_bytes(content)) == content


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"key", "key"),
        ("café".encode(), "café"),
        (b"\xff", "0xff"),
        (b"a\nb", "0x610a62"),
        (b"0x61", "0x30783631"),
        (b"", ""),
    ],
)
def test_bytes_are_text_where_that_is_unambiguous(content: bytes, shown: str) -> None:
    assert show_bytes(content) == shown


@pytest.mark.parametrize("typed", ["0xz", "0x1", "0xéé"])
def test_wrong_hexadecimal_is_refused(typed: str) -> None:
    with pytest.raises(ValueError):
        parse_bytes(typed)


def test_values_are_text_in_json_only_where_they_are_utf8() -> None:
    assert json_bytes(b"v") == {"text": "v", "base64": "dg=="}
    assert json_bytes(b"\xff") == {"base64": "/w=="}


def test_flags_are_named_as_in_the_specification() -> None:
    assert show_flags(SA_CKPT_WR_ACTIVE_REPLICA) == "WR_ACTIVE_REPLICA"
    assert show_flags(SA_CKPT_WR_ACTIVE_REPLICA | SA_CKPT_CHECKPOINT_COLLOCATED) == (
        "WR_ACTIVE_REPLICA | COLLOCATED"
    )


@pytest.mark.parametrize(
    ("duration_ns", "shown"),
    [(0, "0 ms"), (5_000_000, "5 ms"), (90 * 10**9, "1.5 min"), (SA_TIME_MAX, "for ever")],
)
def test_durations_have_the_largest_fitting_unit(duration_ns: int, shown: str) -> None:
    assert show_duration(duration_ns) == shown


def test_moments_are_utc_and_the_end_of_time_is_never() -> None:
    assert show_moment(10**18) == "2001-09-09 01:46:40.000+00:00"
    assert show_moment(SA_TIME_MAX) == "never"
    assert show_moment(SA_TIME_MAX - 1).startswith("2262-")


@pytest.mark.parametrize(("size", "shown"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * 2**40, "3072 GiB")])
def test_sizes_have_the_largest_fitting_unit(size: int, shown: str) -> None:
    assert show_size(size) == shown
