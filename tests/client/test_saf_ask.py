"""What each SAF call asks, and what it refuses: code, call, element, and in which order."""

from array import array
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import pytest
from tests.client.saf_fake import ALL_MODES, CREATE, READ, WRITE, attributes, refused

from ckpt_client.saf import saf_requests
from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_MAX
from ckpt_protocol.limits import NAME_BYTES_MAX, SECTION_ID_BYTES_MAX, SIZE_MAX
from ckpt_protocol.messages import Kind, Op

INVALID = codes.INVALID_PARAM
BAD_FLAGS = SaAisErrorT.SA_AIS_ERR_BAD_FLAGS
SIZE = 10
NAME = "safCkpt=x"
LONG_ID = bytes(SECTION_ID_BYTES_MAX + 1)


class Flags(IntEnum):
    """Constants as other modules have them."""

    BOTH = 3


# -- opens


def opens(name: Any = NAME, flags: Any = READ, given: Any = None, new: bool = True) -> Any:
    """What an open asks."""
    return saf_requests.open_body(name, flags, given, new)


@pytest.mark.parametrize("flags", [0, 8, -1, 15, True, 1.0, "1", None, b"\1"])
def test_open_flags_are_looked_at_before_all_else(flags: Any) -> None:
    with refused(BAD_FLAGS):
        opens(None, flags, "what")


@pytest.mark.parametrize("name", ["", b"", None, 5, "safCkpt=\0", b"safCkpt=\xff", "safCkpt=\ud800", ["x"]])
def test_a_name_is_text_that_is_there(name: Any) -> None:
    with refused(INVALID):
        opens(name, CREATE)


@pytest.mark.parametrize("new", [True, False])
def test_a_name_has_a_longest(new: bool) -> None:
    longest = "safCkpt=".ljust(NAME_BYTES_MAX, "x")
    assert opens(longest, new=new)[0] == longest.encode()
    with refused(codes.TOO_BIG):
        opens(longest + "x", CREATE, new=new)
    with refused(codes.TOO_BIG):
        opens("x" * (NAME_BYTES_MAX + 1), new=new)


@pytest.mark.parametrize("name", ["x", "SAFCKPT=x", "safckpt=x", "xsafCkpt="])
def test_names_of_b02_are_distinguished_and_those_of_b01_are_not(name: str) -> None:
    with refused(INVALID) as caught:
        opens(name, CREATE)
    assert "safCkpt=" in caught.value.text
    assert opens(name, new=False)[0] == name.encode()


@pytest.mark.parametrize("given", [NAME, NAME.encode(), bytearray(NAME.encode()), memoryview(NAME.encode())])
def test_text_and_bytes_are_the_same_name(given: Any) -> None:
    assert opens(given)[0] == NAME.encode()


@pytest.mark.parametrize(
    ("flags", "given"),
    [(CREATE, None), (ALL_MODES, None), (READ, attributes()), (READ | WRITE, attributes())],
)
def test_creation_attributes_come_with_create_and_with_nothing_else(flags: int, given: Any) -> None:
    with refused(INVALID):
        opens(flags=flags, given=given)


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("wrong", [-1, "7", None, 1.5, float("inf"), float("nan"), 2**70, b"1", [1]])
def test_creation_attributes_are_integers_in_their_ranges(place: int, wrong: Any) -> None:
    """A size of 1.5 was taken for 1, and "7" for 7; an infinite one came out as an OverflowError."""
    given = list(attributes())
    given[place] = wrong
    with refused(INVALID):
        opens(flags=CREATE, given=given)


@pytest.mark.parametrize("given", [5, "abcdef", (), (1, 2), [1] * 7, {"creation_flags": 1}, object()])
def test_creation_attributes_are_six(given: Any) -> None:
    with refused(INVALID):
        opens(flags=CREATE, given=given)


def test_what_an_open_asks() -> None:
    name, flags, body = opens(flags=Flags.BOTH | CREATE, given=list(attributes()))
    assert (name, flags) == (NAME.encode(), 7)
    assert unpack_body(body) == [NAME.encode(), 7, list(attributes()), False]
    _, flags, body = opens(flags=Flags.BOTH, new=False)
    assert type(flags) is int
    assert unpack_body(body) == [NAME.encode(), 3, None, True]
    flagged = attributes()._replace(creation_flags=Flags.BOTH - 1)
    assert unpack_body(opens(flags=CREATE, given=flagged)[2])[2][0] == 2


# -- arguments


@pytest.mark.parametrize("given", [-1, SIZE_MAX + 1, True, 1.0, "1", None, b"1"])
def test_numbers_are_whole_and_within_64_bits(given: Any) -> None:
    with refused(INVALID) as caught:
        saf_requests.as_number(given, "a size", 3)
    assert caught.value.erroneous_vector_index == 3


@pytest.mark.parametrize("given", [-1, SA_TIME_MAX + 1, True, 1.0, "1", None])
def test_a_timeout_is_a_time(given: Any) -> None:
    with refused(INVALID):
        saf_requests.as_timeout(given, 5)


def test_a_timeout_has_a_default_and_may_be_none_at_all() -> None:
    assert [saf_requests.as_timeout(given, 5) for given in (0, 1, 10**15)] == [5, 1, 10**15]
    assert saf_requests.as_timeout(SA_TIME_MAX, 5) == saf_requests.NO_LIMIT_NS
    assert saf_requests.as_timeout(0, SA_TIME_MAX) == saf_requests.NO_LIMIT_NS


@pytest.mark.parametrize("given", [-1, 2**64, True, 1.0, "1", None])
def test_an_invocation_is_an_unsigned_64_bit_number(given: Any) -> None:
    assert saf_requests.as_invocation(2**64 - 1) == 2**64 - 1
    with refused(INVALID):
        saf_requests.as_invocation(given)


def test_data_is_whatever_holds_bytes() -> None:
    for given in ("é", "é".encode(), bytearray(b"\xc3\xa9"), memoryview(b"-\xc3-\xa9")[1::2]):
        assert saf_requests.as_bytes(given, "data") == b"\xc3\xa9"
    assert saf_requests.as_bytes(array("H", [1]), "data") in (b"\1\0", b"\0\1")


@pytest.mark.parametrize("given", [5, None, ["x"], object(), "\ud800"])
def test_data_is_nothing_else(given: Any) -> None:
    with refused(INVALID) as caught:
        saf_requests.as_bytes(given, "data", 2)
    assert caught.value.index == 2


# -- sections

SECTION_CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("saCkptSectionCreate", lambda given: saf_requests.section_create(given, SA_TIME_END, b"", SIZE)),
    ("saCkptSectionDelete", lambda given: saf_requests.section_delete(given)),
    ("saCkptSectionExpirationTimeSet", lambda given: saf_requests.section_expiration_time_set(given, 1)),
    ("saCkptSectionOverwrite", lambda given: saf_requests.overwrite(given, b"", SIZE)),
    ("saCkptCheckpointWrite", lambda given: saf_requests.write([(given, b"", 0)], SIZE)),
    ("saCkptCheckpointRead", lambda given: saf_requests.read([(given, 1, 0)], SIZE)),
]


@pytest.mark.parametrize(("call", "make"), SECTION_CALLS)
@pytest.mark.parametrize("given", [5, None, LONG_ID, "x" * len(LONG_ID), ("k",)])
def test_a_section_id_is_text_or_bytes_of_limited_length(call: str, make: Any, given: Any) -> None:
    with refused(INVALID, call) as caught:
        make(given)
    assert caught.value.index == (0 if "Checkpoint" in call else -1)
    assert make(LONG_ID[1:]).call == call
    assert unpack_body(make("é").body) == unpack_body(make("é".encode()).body)


@pytest.mark.parametrize(
    ("call", "make"),
    [
        ("saCkptSectionCreate", lambda data: saf_requests.section_create("k", SA_TIME_END, data, SIZE)),
        ("saCkptSectionOverwrite", lambda data: saf_requests.overwrite("k", data, SIZE)),
        ("saCkptCheckpointWrite", lambda data: saf_requests.write([("k", b"", 0), ("k", data, 0)], SIZE)),
    ],
)
def test_data_is_no_longer_than_a_section(call: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    index = 1 if "Write" in call else -1
    make("x" * SIZE)
    for wrong in ("x" * (SIZE + 1), "é" * SIZE, 5):
        with refused(INVALID, call) as caught:
            make(wrong)
        assert caught.value.index == index
    monkeypatch.setattr(saf_requests, "SECTION_BYTES_MAX", SIZE - 1)
    with refused(codes.NO_RESOURCES, call) as caught:
        make("x" * SIZE)
    assert caught.value.index == index


def test_what_a_section_is_refused_for_comes_in_order() -> None:
    with refused(INVALID) as caught:
        saf_requests.section_create(5, -1, 5, SIZE)
    assert "section id" in caught.value.text
    with refused(INVALID) as caught:
        saf_requests.section_create("k", -1, 5, SIZE)
    assert "data" in caught.value.text
    for make in (
        lambda: saf_requests.section_create("k", -1, None, SIZE),
        lambda: saf_requests.section_expiration_time_set("k", -1),
    ):
        with refused(INVALID) as caught:
            make()
        assert "expiration time" in caught.value.text


def test_what_section_calls_ask() -> None:
    for made, op in (
        (saf_requests.section_create("k", 5, None, SIZE), [Op.CREATE, b"k", 5, b""]),
        (saf_requests.section_create("", SA_TIME_END, "v", SIZE), [Op.CREATE, b"", SA_TIME_END, b"v"]),
        (saf_requests.section_delete("k"), [Op.DELETE, b"k"]),
        (saf_requests.section_expiration_time_set("k", 0), [Op.EXPIRATION_SET, b"k", 0]),
        (saf_requests.overwrite("k", "v", SIZE), [Op.OVERWRITE, b"k", b"v"]),
        (saf_requests.write([("k", "v", 3)], SIZE), [Op.WRITE, b"k", 3, b"v"]),
    ):
        assert (made.kind, unpack_body(made.body), made.timeout_ns) == (Kind.UPDATE, [op], 0)


# -- io vectors

VECTOR_CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    ("saCkptCheckpointWrite", lambda vector: saf_requests.write(vector, SIZE)),
    ("saCkptCheckpointRead", lambda vector: saf_requests.read(vector, SIZE)),
]


@pytest.mark.parametrize(("call", "make"), VECTOR_CALLS)
@pytest.mark.parametrize("vector", [[], (), None, 5, "", [("k", b"")], [("k", b"", 0, 0)], [5], {"k": 1}])
def test_an_io_vector_has_elements_of_three(call: str, make: Any, vector: Any) -> None:
    with refused(INVALID, call) as caught:
        make(vector)
    assert caught.value.erroneous_vector_index is None


@pytest.mark.parametrize(("call", "make"), VECTOR_CALLS)
def test_an_io_vector_has_a_most(call: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saf_requests, "OPS_PER_UPDATE_MAX", 2)
    good = ("k", b"" if "Write" in call else 0, 0)
    make([good, good])
    with refused(codes.NO_RESOURCES, call):
        make([good, (5, 5, 5), good])


@pytest.mark.parametrize("offset", [-1, SIZE_MAX + 1, True, None, "0"])
def test_the_lowest_wrong_element_is_reported(offset: Any) -> None:
    good, bad = ("k", b"", 0), ("k", b"", offset)
    with refused(INVALID, "saCkptCheckpointWrite") as caught:
        saf_requests.write([good, good, bad, (5, 5, 5)], SIZE)
    assert caught.value.erroneous_vector_index == 2
    with refused(INVALID, "saCkptCheckpointRead") as caught:
        saf_requests.read([("k", None, 0), ("k", 0, offset), (5, 5, 5)], SIZE)
    assert caught.value.erroneous_vector_index == 1


def test_all_elements_of_a_write_together_have_a_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saf_requests, "CALL_BYTES_MAX", 12)
    saf_requests.write([("k", b"12345", 0), ("k", b"12345", 0)], SIZE)
    with refused(codes.NO_RESOURCES, "saCkptCheckpointWrite") as caught:
        saf_requests.write([("k", b"12345", 0), ("k", b"123456", 0), (5, 5, 5)], SIZE)
    assert caught.value.erroneous_vector_index == 1


@pytest.mark.parametrize(("size", "offset"), [(11, 0), (10, 1), (0, 11), (-1, 0), (True, 0), ("1", 0)])
def test_a_read_stays_within_the_largest_section(size: Any, offset: int) -> None:
    with refused(INVALID, "saCkptCheckpointRead") as caught:
        saf_requests.read([("k", 10, 0), ("k", size, offset)], SIZE)
    assert caught.value.erroneous_vector_index == 1


def test_what_a_read_asks() -> None:
    made = saf_requests.read(iter([("k", None, 99), (b"l", 3, 7)]), SIZE)
    assert (made.kind, unpack_body(made.body)) == (Kind.READ, [[b"k", 99, None], [b"l", 7, 3]])


# -- iterations


@pytest.mark.parametrize("choice", [0, 6, -1, True, None, "5", 1.0])
def test_a_choice_of_sections_is_one_of_five(choice: Any) -> None:
    with refused(INVALID):
        saf_requests.check_choice(choice, None)


@pytest.mark.parametrize("choice", [1, 2, 3, 4, 5])
def test_only_two_choices_need_a_time_and_all_look_at_it(choice: int) -> None:
    saf_requests.check_choice(choice, 0)
    with refused(INVALID):
        saf_requests.check_choice(choice, -1)
    if choice in (2, 3):
        with refused(INVALID):
            saf_requests.check_choice(choice, None)
    else:
        saf_requests.check_choice(choice, None)


def test_what_an_iteration_asks() -> None:
    made = saf_requests.iterate("call", 5, None, b"k", 1)
    assert (made.call, made.kind, unpack_body(made.body)) == ("call", Kind.ITERATE, [5, 0, b"k", False, 1])


# -- names of calls


def test_the_innermost_name_of_a_call_stays() -> None:
    with refused(INVALID, "inner"):
        saf_requests.with_call_name("outer")(saf_requests.with_call_name("inner")(saf_requests.refuse))(
            INVALID, "why", 4
        )
    with refused(INVALID, "saCkptSectionDelete"):
        saf_requests.with_call_name("outer")(saf_requests.section_delete)(5)
