"""Bodies: what is no body is refused, and refused before memory is spent on what it claims."""

import tracemalloc
from typing import Any

import msgpack
import pytest

from ckpt_protocol.body_codec import bounded_array, pack_body, unpack_body
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.errors import FrameError
from ckpt_protocol.messages import Kind, answer_error, answer_ok
from ckpt_protocol.parse_answers import decode_answer

MiB = 1024 * 1024


@pytest.mark.parametrize(
    "content",
    [
        [],
        [b"id", "text", 0, -1, 2**63 - 1, -(2**63), 2**64 - 1, None, True, False],
        [[b"", [b"\0\xff"]], []],
        {"node_id": "a", "members": [["a", 1, 1, ["tcp://h:1"]]]},
        bytes(70_000),
    ],
    ids=["empty", "scalars", "nested", "map", "bytes"],
)
def test_what_is_packed_is_unpacked(content: Any) -> None:
    assert unpack_body(pack_body(content)) == content


def test_text_and_bytes_remain_different() -> None:
    assert [type(field) for field in unpack_body(pack_body(["a", b"a"]))] == [str, bytes]


@pytest.mark.parametrize("code", [0, 1, 42, 127, -2, -128])
def test_an_extension_type_is_refused(code: int) -> None:
    packed = b"\x91\xc7\x02" + (code % 256).to_bytes(1, "big") + b"ab"
    with pytest.raises(FrameError):
        unpack_body(packed)


def test_a_timestamp_is_no_number_and_no_bytes() -> None:
    """msgpack decodes its own extension type by itself; no field is of that type."""
    content = unpack_body(b"\x91\xd6\xff\x00\x00\x00\x01")
    assert type(content[0]) not in (int, bytes, str, list, dict, bool)


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdd" + (1_000_001).to_bytes(4, "big"),
        b"\x91" * 3 + b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
    ids=["array", "array just over", "array within arrays", "map", "bytes", "text", "extension"],
)
def test_a_claim_of_something_huge_costs_nothing(claim: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            unpack_body(claim)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024 * 1024


def test_an_array_that_claims_as_much_as_may_be_and_brings_nothing_is_refused() -> None:
    with pytest.raises(FrameError):
        unpack_body(b"\xdd" + (1_000_000).to_bytes(4, "big"))


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01"], ids=["arrays", "maps"])
def test_nesting_without_end_is_refused(opening: bytes) -> None:
    with pytest.raises(FrameError):
        unpack_body(opening * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x92\x01", b"\xc4", b"\xa2a", b"\xa1\xff", b"\x81\x90\x01"],
    ids=["empty", "never used", "short array", "no length", "short text", "not UTF-8", "array as a key"],
)
def test_what_is_no_msgpack_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        unpack_body(body)


@pytest.mark.parametrize("rest", [b"\x00", b"\x90", b"\xc1"])
def test_bytes_after_the_body_are_refused(rest: bytes) -> None:
    with pytest.raises(FrameError):
        unpack_body(b"\x91\x01" + rest)


@pytest.mark.parametrize("content", [None, 1, b"12", "12", {0: 1, 1: 2}, [], [1]])
def test_an_array_of_too_few_fields_is_refused(content: Any) -> None:
    with pytest.raises(FrameError):
        bounded_array(pack_body(content), BOUNDS[Kind.ANSWER], 2)


def test_further_fields_are_left_to_later_versions() -> None:
    assert bounded_array(pack_body([1, 2, "new"]), BOUNDS[Kind.ANSWER], 2) == [1, 2, "new"]


def test_good_answers_are_read() -> None:
    assert answer_ok() == msgpack.packb([1])
    assert decode_answer(answer_ok()) == (1, None, -1, "")
    assert decode_answer(answer_ok([b"v"])) == (1, [b"v"], -1, "")
    assert decode_answer(pack_body([1, [b"v"], "new"])) == (1, [b"v"], -1, "")


def test_refusals_are_read() -> None:
    assert decode_answer(answer_error(12, "no such section", 3)) == (12, None, 3, "no such section")
    assert decode_answer(answer_error(6)) == (6, None, -1, "")
    assert decode_answer(pack_body([7])) == (7, None, -1, "")
    assert decode_answer(pack_body([7, None, None])) == (7, None, -1, "")


@pytest.mark.parametrize(
    "body", [b"", b"\x90", b"\x01", pack_body(["OK"]), pack_body([True]), pack_body([None])]
)
def test_an_answer_without_a_code_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode_answer(body)


def test_what_packed_a_long_body_does_not_keep_its_memory() -> None:
    """A daemon once kept 64 MiB for as long as it ran, after one read of a section of that size."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert len(pack_body([b"x" * (16 * MiB)])) > 16 * MiB
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < MiB + MiB // 2  # A new packer takes 1 MiB.
