"""Section operations: what each does, what refuses it, and that an update is all or nothing."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import RequestError
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_updates import parse_replicated, parse_update
from ckptd.core.content.section import CORRUPTED, VALID, PreImages
from ckptd.core.content.sections import SectionTable
from ckptd.core.directory.attributes import Attributes

NOW_NS = 1_000
SEQ = 7


def table(sections_max: int = 4, section_bytes_max: int = 100, id_bytes_max: int = 4) -> SectionTable:
    return SectionTable(Attributes(1, 0, 0, sections_max, section_bytes_max, id_bytes_max))


def update(sections: SectionTable, *ops: Any, of_client: bool = True) -> list[bytes] | None:
    """Check operations as the service does, and apply them."""
    body = pack_body(list(ops))
    checked = parse_update(body) if of_client else parse_replicated(body, session=1)[0]
    return sections.apply(checked, NOW_NS, SEQ, {})


def refusal(sections: SectionTable, *ops: Any, of_client: bool = True) -> tuple[int, int]:
    """(code, index) of the refusal; the table must stand as it stood."""
    before = picture(sections)
    with pytest.raises(RequestError) as caught:
        update(sections, *ops, of_client=of_client)
    assert picture(sections) == before
    return caught.value.code, caught.value.index


def picture(sections: SectionTable) -> Any:
    """All that can be seen of a table; its derived numbers are checked on the way."""
    held = {
        section_id: (s.content, s.expiration_ns, s.last_update_ns, s.seq, s.state)
        for section_id, s in sections.sections.items()
    }
    assert sections.content_bytes == sum(len(fields[0]) for fields in held.values())
    assert sections.sorted_ids() == sorted(held)
    assert [section_id for section_id, _ in sections.items_sorted()] == sorted(held)
    times = [fields[1] for fields in held.values() if fields[1] != SA_TIME_END]
    assert sections.next_expiration_ns() == min(times, default=None)
    return held


def content(sections: SectionTable, section_id: bytes) -> bytes:
    return sections.sections[section_id].content


def held(**sections: bytes) -> SectionTable:
    made = table()
    for name, value in sections.items():
        update(made, [Op.CREATE, name.encode(), SA_TIME_END, value])
    return made


# -- CREATE


def test_create_makes_a_section_when_the_id_is_free() -> None:
    sections = table()
    assert update(sections, [Op.CREATE, b"a", 5_000, b"xy"]) is None
    assert picture(sections) == {b"a": (b"xy", 5_000, NOW_NS, SEQ, VALID)}


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ([Op.CREATE, b"a", SA_TIME_END, b""], codes.EXIST),
        ([Op.CREATE, b"12345", SA_TIME_END, b""], codes.INVALID_PARAM),
        ([Op.CREATE, b"b", SA_TIME_END, bytes(101)], codes.INVALID_PARAM),
        ([Op.CREATE, b"b", NOW_NS, b""], codes.INVALID_PARAM),
        ([Op.CREATE, b"b", NOW_NS - 1, b""], codes.INVALID_PARAM),
        ([Op.CREATE, b"b", -1, b""], codes.INVALID_PARAM),
        ([Op.CREATE, b"b", 2**63, b""], codes.INVALID_PARAM),
    ],
)
def test_create_is_refused_when_a_rule_is_broken(op: list[Any], code: int) -> None:
    assert refusal(held(a=b"x"), op) == (code, 0)


def test_create_succeeds_at_every_limit() -> None:
    sections = table()
    update(sections, [Op.CREATE, b"1234", NOW_NS + 1, bytes(100)])
    assert sections.content_bytes == 100


def test_create_is_no_space_when_all_sections_are_in_use() -> None:
    sections = held(a=b"", b=b"", c=b"", d=b"")
    assert refusal(sections, [Op.CREATE, b"e", SA_TIME_END, b""]) == (codes.NO_SPACE, 0)
    assert refusal(sections, [Op.CREATE, b"", SA_TIME_END, b""]) == (codes.NO_SPACE, 0)
    update(sections, [Op.DELETE, b"a"], [Op.CREATE, b"e", SA_TIME_END, b""])
    assert sections.sorted_ids() == [b"b", b"c", b"d", b"e"]


def test_a_section_over_the_service_limit_is_no_resources_when_the_checkpoint_allows_it() -> None:
    sections = table(section_bytes_max=2**40)
    sections.section_bytes_cap = 10  # 64 MiB of content would only make this test slow.
    assert refusal(sections, [Op.CREATE, b"a", SA_TIME_END, bytes(11)]) == (codes.NO_RESOURCES, 0)


# -- generated ids


def test_generated_ids_are_unique_and_returned_in_order() -> None:
    sections = table()
    made = update(sections, *([Op.CREATE, b"", SA_TIME_END, bytes([n])] for n in range(4)))
    assert made is not None
    assert len(set(made)) == 4
    assert [content(sections, section_id) for section_id in made] == [b"\0", b"\1", b"\2", b"\3"]
    assert all(len(section_id) == 4 for section_id in made)


@pytest.mark.parametrize(("id_bytes_max", "width"), [(1, 1), (7, 7), (8, 8), (9, 8), (65535, 8)])
def test_generated_ids_are_as_wide_as_the_checkpoint_allows_up_to_eight_bytes(
    id_bytes_max: int, width: int
) -> None:
    made = update(table(id_bytes_max=id_bytes_max), [Op.CREATE, b"", SA_TIME_END, b""])
    assert made is not None
    assert [len(section_id) for section_id in made] == [width]


def test_generated_id_passes_over_ids_that_are_taken() -> None:
    sections = table(id_bytes_max=1)
    update(sections, [Op.CREATE, bytes([SEQ]), SA_TIME_END, b""])
    made = update(sections, [Op.CREATE, b"", SA_TIME_END, b""])
    assert made not in (None, [bytes([SEQ])])


def test_generated_ids_use_the_whole_space_then_are_no_space() -> None:
    sections = table(sections_max=1000, id_bytes_max=1)
    for seq in range(200, 200 + 256):
        sections.apply([[Op.CREATE, b"", SA_TIME_END, b""]], NOW_NS, seq, {})
    assert len(sections.sections) == 256
    assert refusal(sections, [Op.CREATE, b"", SA_TIME_END, b""]) == (codes.NO_SPACE, 0)


def test_an_update_says_the_same_to_every_replica_after_ids_were_generated() -> None:
    first, second = table(), table()
    update(second, [Op.CREATE, SEQ.to_bytes(4, "big"), SA_TIME_END, b"in the way"])
    ops = [[Op.CREATE, b"", SA_TIME_END, b"x"], [Op.CREATE, b"n", SA_TIME_END, b"named"]]
    made = first.apply(ops, NOW_NS, SEQ, {})
    third = table()
    assert third.apply(ops, NOW_NS, SEQ + 5, {}) == made
    assert set(third.sections) == set(first.sections)


# -- the default section


def test_the_default_section_exists_and_is_empty_when_there_is_only_one() -> None:
    assert picture(table(sections_max=1)) == {b"": (b"", SA_TIME_END, 0, 0, VALID)}
    assert picture(table(sections_max=2)) == {}


def test_the_default_section_is_written_like_any_other() -> None:
    sections = table(sections_max=1)
    update(sections, [Op.WRITE, b"", 2, b"c"], [Op.PATCH, b"", 0, b"a", None])
    assert content(sections, b"") == b"a\0c"
    update(sections, [Op.OVERWRITE, b"", b"z"])
    update(sections, [Op.PUT, b"", b"y", SA_TIME_END])
    assert content(sections, b"") == b"y"


@pytest.mark.parametrize(
    ("op", "code"),
    [
        ([Op.CREATE, b"a", SA_TIME_END, b""], codes.EXIST),
        ([Op.CREATE, b"", SA_TIME_END, b""], codes.EXIST),
        ([Op.DELETE, b""], codes.INVALID_PARAM),
        ([Op.EXPIRATION_SET, b"", 5_000], codes.INVALID_PARAM),
        ([Op.PUT, b"", b"", 5_000], codes.INVALID_PARAM),
        ([Op.PATCH, b"", 0, b"", 5_000], codes.INVALID_PARAM),
        ([Op.PUT, b"a", b"", None], codes.NO_SPACE),
        ([Op.DELETE, b"a"], codes.NOT_EXIST),
    ],
)
def test_the_default_section_can_neither_go_nor_expire_nor_have_company(op: list[Any], code: int) -> None:
    assert refusal(table(sections_max=1), op) == (code, 0)


@pytest.mark.parametrize("op", [[Op.PUT, b"", b"x", None], [Op.PATCH, b"", 0, b"x", None]])
def test_an_empty_id_is_refused_by_put_and_patch_when_several_sections_may_be(op: list[Any]) -> None:
    assert refusal(table(), op) == (codes.INVALID_PARAM, 0)


# -- DELETE, REMOVE, OVERWRITE, EXPIRATION_SET


@pytest.mark.parametrize(
    "op",
    [
        [Op.DELETE, b"q"],
        [Op.OVERWRITE, b"q", b""],
        [Op.WRITE, b"q", 0, b""],
        [Op.EXPIRATION_SET, b"q", 5_000],
    ],
)
def test_an_operation_on_a_missing_section_is_not_exist_with_its_index(op: list[Any]) -> None:
    assert refusal(held(a=b"x"), [Op.PUT, b"a", b"y", None], op) == (codes.NOT_EXIST, 1)


def test_remove_deletes_where_present_and_is_silent_where_not() -> None:
    sections = held(a=b"x")
    update(sections, [Op.REMOVE, b"a"], [Op.REMOVE, b"a"], of_client=False)
    assert picture(sections) == {}


def test_overwrite_replaces_content_and_size_and_keeps_the_expiration() -> None:
    sections = table()
    update(sections, [Op.CREATE, b"a", 5_000, b"long content"])
    sections.apply([[Op.OVERWRITE, b"a", b"s"]], NOW_NS + 1, SEQ + 1, {})
    assert picture(sections) == {b"a": (b"s", 5_000, NOW_NS + 1, SEQ + 1, VALID)}
    assert refusal(sections, [Op.OVERWRITE, b"a", bytes(101)]) == (codes.INVALID_PARAM, 0)


def test_setting_an_expiration_leaves_content_and_last_update() -> None:
    sections = held(a=b"x")
    sections.apply([[Op.EXPIRATION_SET, b"a", 9_000]], NOW_NS + 1, SEQ + 1, {})
    assert picture(sections)[b"a"][:3] == (b"x", 9_000, NOW_NS)
    assert refusal(sections, [Op.EXPIRATION_SET, b"a", NOW_NS]) == (codes.INVALID_PARAM, 0)
    assert refusal(sections, [Op.EXPIRATION_SET, b"a", 2**63]) == (codes.INVALID_PARAM, 0)


# -- WRITE and PATCH


@pytest.mark.parametrize(
    ("offset", "written", "result"),
    [
        (0, b"XY", b"XYcd"),
        (1, b"XY", b"aXYd"),
        (3, b"XY", b"abcXY"),
        (4, b"XY", b"abcdXY"),
        (6, b"XY", b"abcd\0\0XY"),
        (0, b"UVWXYZ", b"UVWXYZ"),
        (98, b"XY", b"abcd" + bytes(94) + b"XY"),
        (0, b"", b"abcd"),
        (50, b"", b"abcd"),
    ],
)
@pytest.mark.parametrize("patch", [False, True])
def test_a_write_never_shortens_and_fills_a_gap_with_zeros(
    offset: int, written: bytes, result: bytes, patch: bool
) -> None:
    sections = held(a=b"abcd")
    op = [Op.PATCH, b"a", offset, written, None] if patch else [Op.WRITE, b"a", offset, written]
    update(sections, op)
    assert picture(sections)[b"a"][0] == result


@pytest.mark.parametrize(
    ("offset", "code"),
    [
        (99, codes.NO_RESOURCES),
        (2**32, codes.NO_RESOURCES),
        (2**63 - 1, codes.NO_RESOURCES),
        (2**63, codes.INVALID_PARAM),
        (2**64 - 1, codes.INVALID_PARAM),
        (-1, codes.INVALID_PARAM),
    ],
)
@pytest.mark.parametrize("section_id", [b"a", b"new"])
def test_a_write_beyond_the_section_is_refused_before_anything_is_allocated(
    offset: int, code: int, section_id: bytes
) -> None:
    sections = held(a=b"abcd")
    assert refusal(sections, [Op.PATCH, section_id, offset, b"XY", None]) == (code, 0)
    if section_id == b"a":
        assert refusal(sections, [Op.WRITE, b"a", offset, b"XY"]) == (code, 0)


def test_patch_and_put_create_what_is_missing() -> None:
    sections = table()
    update(
        sections, [Op.PATCH, b"a", 2, b"x", 5_000], [Op.PATCH, b"b", 3, b"", None], [Op.PUT, b"c", b"y", None]
    )
    assert {section_id: fields[:2] for section_id, fields in picture(sections).items()} == {
        b"a": (b"\0\0x", 5_000),
        b"b": (b"", SA_TIME_END),
        b"c": (b"y", SA_TIME_END),
    }


@pytest.mark.parametrize("code", [Op.PUT, Op.PATCH])
def test_put_and_patch_keep_or_set_the_expiration(code: int) -> None:
    sections = table()
    offset = [0] if code == Op.PATCH else []
    update(sections, [code, b"a", *offset, b"x", 5_000])
    update(sections, [code, b"a", *offset, b"y", None])
    assert picture(sections)[b"a"][:2] == (b"y", 5_000)
    update(sections, [code, b"a", *offset, b"z", 4_000])
    assert picture(sections)[b"a"][:2] == (b"z", 4_000)
    update(sections, [code, b"a", *offset, b"z", SA_TIME_END])
    assert picture(sections)[b"a"][:2] == (b"z", SA_TIME_END)
    assert refusal(sections, [code, b"a", *offset, b"z", NOW_NS]) == (codes.INVALID_PARAM, 0)
    assert refusal(sections, [code, b"a", *offset, bytes(101), None]) == (codes.INVALID_PARAM, 0)


# -- PIECE and CORRUPTED


def piece(total: int, offset: int, part: bytes) -> list[Any]:
    return [Op.PIECE, b"a", total, offset, part, 5_000, 77]


def test_a_section_in_pieces_is_corrupted_until_the_last_one_came() -> None:
    sections = held(a=b"old content that is long")
    update(sections, piece(5, 0, b"ab"), of_client=False)
    assert picture(sections)[b"a"] == (b"ab", 5_000, 77, SEQ, CORRUPTED)
    update(sections, piece(5, 2, b"cd"), of_client=False)
    assert sections.sections[b"a"].state == CORRUPTED
    update(sections, piece(5, 4, b"e"), of_client=False)
    assert picture(sections)[b"a"] == (b"abcde", 5_000, 77, SEQ, VALID)


def test_a_section_stays_corrupted_when_a_piece_in_between_was_lost() -> None:
    sections = table()
    update(sections, piece(6, 0, b"ab"), piece(6, 4, b"ef"), of_client=False)
    assert sections.sections[b"a"].state == CORRUPTED


def test_pieces_begin_again_when_the_first_one_is_repeated() -> None:
    sections = table()
    update(sections, piece(6, 0, b"abcd"), piece(2, 0, b"xy"), of_client=False)
    assert picture(sections)[b"a"][0] == b"xy"
    assert sections.sections[b"a"].state == VALID


def test_a_corrupted_section_refuses_writes_and_is_valid_after_an_overwrite() -> None:
    sections = table()
    update(sections, piece(6, 0, b"ab"), of_client=False)
    assert refusal(sections, [Op.WRITE, b"a", 0, b"abcdef"]) == (codes.FAILED_OPERATION, 0)
    assert refusal(sections, [Op.PATCH, b"a", 0, b"abcdef", None]) == (codes.FAILED_OPERATION, 0)
    update(sections, [Op.EXPIRATION_SET, b"a", 6_000])
    assert sections.sections[b"a"].state == CORRUPTED
    update(sections, [Op.OVERWRITE, b"a", b"new"])
    assert sections.sections[b"a"].state == VALID
    update(sections, piece(6, 0, b"ab"), of_client=False)
    update(sections, [Op.PUT, b"a", b"newer", None])
    assert sections.sections[b"a"].state == VALID


# -- atomicity


def test_nothing_of_an_update_stays_when_its_last_operation_is_refused() -> None:
    sections = table(sections_max=10)
    update(sections, [Op.CREATE, b"a", 5_000, b"aaa"], [Op.CREATE, b"b", SA_TIME_END, b"bb"])
    ops = [
        [Op.CREATE, b"", 2_000, b"generated"],
        [Op.PUT, b"new", b"n", 3_000],
        [Op.DELETE, b"a"],
        [Op.CREATE, b"a", SA_TIME_END, b"again"],
        [Op.WRITE, b"b", 4, b"bb"],
        [Op.EXPIRATION_SET, b"b", 4_000],
        [Op.PATCH, b"b", 0, b"c", None],
        [Op.OVERWRITE, b"b", b""],
        [Op.DELETE, b"q"],
    ]
    assert refusal(sections, *ops) == (codes.NOT_EXIST, 8)
    assert sections.expired(4_500) == []
    assert sections.expired(5_000) == [b"a"]


def test_pre_images_keep_the_previous_value_of_every_changed_id() -> None:
    sections = held(a=b"1", b=b"2")
    stood = dict(sections.sections)
    was = picture(sections)
    before: PreImages = {}
    ops = [
        [Op.PUT, b"a", b"x", None],
        [Op.PUT, b"a", b"y", None],
        [Op.DELETE, b"b"],
        [Op.PUT, b"c", b"", None],
    ]
    sections.apply(ops, NOW_NS, SEQ, before)
    assert before == {b"a": stood[b"a"], b"b": stood[b"b"], b"c": None}
    sections.undo(before)
    assert picture(sections) == was
    assert before == {}


def test_a_joining_replica_skips_what_it_cannot_do_and_does_the_rest() -> None:
    sections = held(a=b"1")
    before: PreImages = {}
    ops = [
        [Op.OVERWRITE, b"q", b"x"],
        [Op.PUT, b"b", b"2", None],
        [Op.DELETE, b"q"],
        [Op.OVERWRITE, b"a", b"3"],
    ]
    sections.apply_during_resync(ops, NOW_NS, SEQ, before)
    assert {section_id: fields[0] for section_id, fields in picture(sections).items()} == {
        b"a": b"3",
        b"b": b"2",
    }
    assert set(before) == {b"a", b"b"}


# -- malformed operations


@pytest.mark.parametrize("ops", [[], None, {}, (), b"", "x", 3, {0: [Op.DELETE, b"a"]}])
def test_an_update_without_a_list_of_operations_is_invalid(ops: Any) -> None:
    with pytest.raises(RequestError) as caught:
        parse_update(pack_body(ops))
    assert (caught.value.code, caught.value.index) == (codes.INVALID_PARAM, -1)


@pytest.mark.parametrize(
    "op",
    [
        [],
        None,
        3,
        b"",
        "overwrite",
        [0],
        [99, b"a"],
        [None, b"a"],
        ["1", b"a", SA_TIME_END, b""],
        [[1], b"a"],
        [{}, b"a"],
        [-1, b"a"],
        [Op.CREATE],
        [Op.CREATE, b"b", SA_TIME_END],
        [Op.CREATE, b"b", SA_TIME_END, b"", False],
        [Op.CREATE, b"b", SA_TIME_END, b"", True, True],
        [Op.CREATE, "b", SA_TIME_END, b""],
        [Op.CREATE, None, SA_TIME_END, b""],
        [Op.CREATE, [], SA_TIME_END, b""],
        [Op.CREATE, b"b", None, b""],
        [Op.CREATE, b"b", 5_000.0, b""],
        [Op.CREATE, b"b", True, b""],
        [Op.CREATE, b"b", SA_TIME_END, "text"],
        [Op.CREATE, b"b", SA_TIME_END, None],
        [Op.CREATE, b"b", SA_TIME_END, [1, 2]],
        [Op.DELETE],
        [Op.DELETE, "a"],
        [Op.DELETE, None],
        [Op.DELETE, []],
        [Op.OVERWRITE, b"a"],
        [Op.OVERWRITE, b"a", b"", b""],
        [Op.OVERWRITE, {}, b""],
        [Op.OVERWRITE, b"a", "text"],
        [Op.WRITE, b"a", 0],
        [Op.WRITE, b"a", None, b"x"],
        [Op.WRITE, b"a", 0.0, b"x"],
        [Op.WRITE, b"a", True, b"x"],
        [Op.WRITE, b"a", "0", b"x"],
        [Op.WRITE, b"a", 0, None],
        [Op.EXPIRATION_SET, b"a"],
        [Op.EXPIRATION_SET, b"a", None],
        [Op.EXPIRATION_SET, b"a", "5000"],
        [Op.PUT, b"a", b""],
        [Op.PUT, "a", b"", None],
        [Op.PUT, [], b"", None],
        [Op.PUT, b"a", None, None],
        [Op.PUT, b"a", b"", "never"],
        [Op.PATCH, b"a", 0, b"x"],
        [Op.PATCH, b"a", "1", b"x", None],
        [Op.PATCH, {}, 0, b"x", None],
        [Op.PATCH, b"a", 0, 7, None],
        [Op.PATCH, b"a", 0, b"x", 5_000.5],
        [Op.REMOVE, b"a", True],
        [Op.PIECE, b"a", 1, 0, b"x", SA_TIME_END, 0],
    ],
    ids=repr,
)
def test_a_malformed_operation_is_invalid_with_its_index_and_undoes_the_others(op: Any) -> None:
    sections = held(a=b"abc")
    assert refusal(sections, [Op.PUT, b"a", b"longer", 9_000], op) == (codes.INVALID_PARAM, 1)


@pytest.mark.parametrize("offset", [None, False, b"", "", []], ids=repr)
def test_a_patch_whose_offset_is_no_integer_is_invalid_whatever_the_section_holds(offset: Any) -> None:
    """The short way for a patch that replaces everything once took any false value for offset 0."""
    sections = held(a=b"abc")
    assert refusal(sections, [Op.PATCH, b"a", offset, b"abcdef", None]) == (codes.INVALID_PARAM, 0)


# -- expiration


def test_sections_expire_in_order_of_their_times_and_once() -> None:
    sections = table()
    for name, at_ns in ((b"c", 3_000), (b"a", 4_000), (b"b", 2_000), (b"d", SA_TIME_END)):
        update(sections, [Op.CREATE, name, at_ns, b""])
    assert sections.next_expiration_ns() == 2_000
    assert sections.expired(1_999) == []
    assert sections.expired(3_000) == [b"b", b"c"]
    assert sections.expired(3_000) == []
    assert sections.next_expiration_ns() == 4_000
    assert sections.expired(SA_TIME_END - 1) == [b"a"]
    assert sections.next_expiration_ns() is None


def test_only_the_newest_expiration_of_a_section_counts() -> None:
    sections = table()
    update(
        sections, [Op.CREATE, b"a", 2_000, b""], [Op.CREATE, b"b", 2_000, b""], [Op.CREATE, b"c", 2_000, b""]
    )
    update(
        sections, [Op.EXPIRATION_SET, b"a", 9_000], [Op.EXPIRATION_SET, b"b", SA_TIME_END], [Op.DELETE, b"c"]
    )
    assert sections.expired(8_999) == []
    assert sections.expired(9_000) == [b"a"]


def test_rearm_makes_sections_due_again_for_the_next_active_replica() -> None:
    sections = table()
    update(sections, [Op.CREATE, b"a", 2_000, b""], [Op.CREATE, b"b", 3_000, b""], [Op.PUT, b"c", b"", None])
    assert sections.expired(2_500) == [b"a"]
    sections.rearm_expirations()
    assert sections.next_expiration_ns() == 2_000
    assert sections.expired(3_000) == [b"a", b"b"]


# -- against a model that copies everything

SECTIONS_MAX, BYTES_MAX, ID_BYTES_MAX = 3, 8, 2

Model = dict[bytes, tuple[bytes, int]]


def broken_rules(model: Model, op: list[Any]) -> set[int]:
    """Every code that would be right for refusing `op`; none when it must be done."""
    code, section_id = op[0], op[1]
    broken = set()
    there = section_id in model
    if code in (Op.DELETE, Op.OVERWRITE, Op.WRITE, Op.EXPIRATION_SET) and not there:
        broken.add(codes.NOT_EXIST)
    if code in (Op.DELETE, Op.EXPIRATION_SET) and section_id == b"":
        broken.add(codes.INVALID_PARAM)
    if code == Op.CREATE and there:
        broken.add(codes.EXIST)
    if code in (Op.CREATE, Op.PUT, Op.PATCH) and not there:
        if not section_id or len(section_id) > ID_BYTES_MAX:
            broken.add(codes.INVALID_PARAM)
        if len(model) == SECTIONS_MAX:
            broken.add(codes.NO_SPACE)
    expiration_ns = {Op.CREATE: 2, Op.EXPIRATION_SET: 2, Op.PUT: 3, Op.PATCH: 4}.get(code)
    if expiration_ns is not None and op[expiration_ns] is not None and op[expiration_ns] <= NOW_NS:
        broken.add(codes.INVALID_PARAM)
    written = {Op.CREATE: 3, Op.OVERWRITE: 2, Op.WRITE: 3, Op.PUT: 2, Op.PATCH: 3}.get(code)
    if written is not None and len(op[written]) > BYTES_MAX:
        broken.add(codes.INVALID_PARAM)
    if code in (Op.WRITE, Op.PATCH) and op[2] + len(op[3]) > BYTES_MAX:
        broken.add(codes.NO_RESOURCES)
    return broken


def done(model: Model, op: list[Any]) -> Model:
    """A new model in which `op` was done."""
    after = copy.deepcopy(model)
    section_id = op[1]
    old, expiration_ns = after.get(section_id, (b"", SA_TIME_END))
    if op[0] == Op.DELETE:
        del after[section_id]
    elif op[0] == Op.CREATE:
        after[section_id] = (op[3], op[2])
    elif op[0] == Op.OVERWRITE:
        after[section_id] = (op[2], expiration_ns)
    elif op[0] == Op.EXPIRATION_SET:
        after[section_id] = (old, op[2])
    elif op[0] == Op.PUT:
        after[section_id] = (op[2], expiration_ns if op[3] is None else op[3])
    else:
        cells = list(old)
        for place, byte in enumerate(op[3], op[2]):
            cells += [0] * (place + 1 - len(cells))
            cells[place] = byte
        after[section_id] = (
            bytes(cells),
            op[4] if op[0] == Op.PATCH and op[4] is not None else expiration_ns,
        )
    return after


IDS = st.sampled_from([b"", b"a", b"b", b"c", b"dd", b"eee"])
NAMED = st.sampled_from([b"a", b"b", b"c", b"dd", b"eee"])
TIMES = st.sampled_from([NOW_NS, NOW_NS + 1, NOW_NS + 50, SA_TIME_END])
CONTENTS = st.binary(max_size=BYTES_MAX + 1)
OFFSETS = st.integers(0, BYTES_MAX + 1)
OPS = st.one_of(
    st.tuples(st.just(Op.CREATE), NAMED, TIMES, CONTENTS),
    st.tuples(st.just(Op.DELETE), IDS),
    st.tuples(st.just(Op.OVERWRITE), IDS, CONTENTS),
    st.tuples(st.just(Op.WRITE), IDS, OFFSETS, CONTENTS),
    st.tuples(st.just(Op.EXPIRATION_SET), IDS, TIMES),
    st.tuples(st.just(Op.PUT), IDS, CONTENTS, st.none() | TIMES),
    st.tuples(st.just(Op.PATCH), IDS, OFFSETS, CONTENTS, st.none() | TIMES),
).map(list)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(OPS, min_size=1, max_size=4), max_size=25))
def test_the_table_equals_a_naive_model(updates: list[list[list[Any]]]) -> None:
    sections = table(SECTIONS_MAX, BYTES_MAX, ID_BYTES_MAX)
    model: Model = {}
    for seq, ops in enumerate(updates, 1):
        after, allowed, at = model, set[int](), -1
        for index, op in enumerate(ops):
            allowed, at = broken_rules(after, op), index
            if allowed:
                break
            after = done(after, op)
        try:
            sections.apply(copy.deepcopy(ops), NOW_NS, seq, {})
        except RequestError as caught:
            assert caught.code in allowed, (ops, caught)
            assert caught.index == at
        else:
            assert not allowed, (ops, at, allowed)
            model = after
        seen = {section_id: fields[:2] for section_id, fields in picture(sections).items()}
        assert seen == model
