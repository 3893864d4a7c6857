"""What clients' requests become: typed values, or a refusal, or the end of the connection; never anything
else."""

import contextlib
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.protocol.representative import REPRESENTATIVES

from ckpt_protocol import codes, parse_requests, parse_updates
from ckpt_protocol.body_codec import pack_body, unpack_body, unpack_rows
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.limits import SIZE_MAX
from ckpt_protocol.messages import Kind, Op

PARSERS: dict[str, Any] = {
    "ATTACH": parse_requests.parse_attach,
    "DETACH": lambda body: parse_requests.parse_nothing(Kind.DETACH, body),
    "OPEN": parse_requests.parse_open,
    "CLOSE": lambda body: parse_requests.parse_nothing(Kind.CLOSE, body),
    "UNLINK": parse_requests.parse_unlink,
    "RETENTION_SET": parse_requests.parse_retention_set,
    "ACTIVE_SET": parse_requests.parse_active_set,
    "STATUS": lambda body: parse_requests.parse_nothing(Kind.STATUS, body),
    "UPDATE": parse_updates.parse_update,
    "READ": parse_requests.parse_read,
    "ITERATE": parse_requests.parse_iterate,
    "SYNCHRONIZE": lambda body: parse_requests.parse_nothing(Kind.SYNCHRONIZE, body),
    "DESCRIBE": parse_requests.parse_describe,
    "PING": lambda body: parse_requests.parse_nothing(Kind.PING, body),
    "OPERATE": parse_requests.parse_operate,
    "TRACK": parse_requests.parse_track,
    "LEADER": parse_requests.parse_leader,
    "LEADER_TRACK": parse_requests.parse_leader_track,
    "routed ATTACH": parse_requests.parse_routed_attach,
    "routed CLOSE": lambda body: parse_requests.parse_of_handle(Kind.CLOSE, body),
    "routed RETENTION_SET": lambda body: parse_requests.parse_of_handle(Kind.RETENTION_SET, body),
    "routed ACTIVE_SET": lambda body: parse_requests.parse_of_handle(Kind.ACTIVE_SET, body),
    "replicated": lambda body: parse_updates.parse_replicated(body, 7),
    "batch": lambda body: parse_updates.parse_replicated(body, 0),
}
SCALARS = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, SIZE_MAX])
    | st.binary(max_size=9)
    | st.text(max_size=4)
)
CONTENT = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=20,
)
NUMBERS = st.integers(0, SIZE_MAX)
IDS = st.binary(max_size=40)
OPS = st.one_of(
    st.tuples(st.just(Op.CREATE), IDS, NUMBERS, IDS),
    st.tuples(st.just(Op.DELETE), IDS),
    st.tuples(st.just(Op.OVERWRITE), IDS, IDS),
    st.tuples(st.just(Op.WRITE), IDS, NUMBERS, IDS),
    st.tuples(st.just(Op.EXPIRATION_SET), IDS, NUMBERS),
    st.tuples(st.just(Op.PUT), IDS, IDS, st.none() | NUMBERS),
    st.tuples(st.just(Op.PATCH), IDS, NUMBERS, IDS, st.none() | NUMBERS),
    st.tuples(st.just(Op.RESIGN), NUMBERS, st.none() | st.text(max_size=4)),
    st.tuples(st.just(Op.TOKEN), NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.tuples(st.just(Op.RESIZE), *[st.none() | NUMBERS] * 3, st.booleans()),
).map(list)


@pytest.mark.parametrize(
    "frame", [f for f in REPRESENTATIVES if f.kind in PARSERS], ids=lambda frame: frame.name
)
def test_every_representative_request_is_parsed(frame: Any) -> None:
    PARSERS[frame.kind](frame.body)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=150, deadline=None)
@given(
    body=CONTENT.map(msgpack.packb)
    | st.lists(CONTENT, max_size=6).map(msgpack.packb)
    | st.binary(max_size=60)
)
@example(body=b"\x91" * 1000 + b"\xc0")
@example(body=msgpack.packb([{}]))
@example(body=msgpack.packb([{}, {}, {}, {}]))
@example(body=msgpack.packb([[{}, {}, {}], []]))
@example(body=msgpack.packb([float("inf")] * 5))
@example(body=b"\x91\xd6\xff\x00\x00\x00\x01")
def test_no_body_raises_anything_but_a_refusal_or_a_frame_error(name: str, body: bytes) -> None:
    with contextlib.suppress(FrameError, RequestError):
        PARSERS[name](body)


@settings(max_examples=200, deadline=None)
@given(ops=st.lists(OPS, min_size=1, max_size=90))
@example(ops=[[Op.DELETE, b"k"]] * 90)
@example(ops=[[Op.PUT, b"k", bytes(100), None]] * 90)
@example(ops=[[Op.PUT, b"k", bytes(5000), None]])
def test_an_update_is_parsed_as_it_was_sent_whatever_its_size(ops: list[Any]) -> None:
    body = pack_body(ops)
    assert parse_updates.parse_update(body) == ops
    assert parse_updates.parse_replicated(body, 7) == (ops, None)
    assert parse_updates.parse_replicated(pack_body([ops, [[1, 2, 3, b"a"]]]), 0) == (ops, [(1, 2, 3, b"a")])


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=8) | SCALARS, max_size=80))
@example(rows=[[Op.DELETE, b"k"]] * 3000)
@example(rows=[[Op.DELETE, b"key" * 20]] * 3000)
@example(rows=[*[[Op.WRITE, b"k", 2, b"v"]] * 900, [Op.WRITE, b"k", -1, b"v"]])
@example(rows=[*[[Op.DELETE, b"k"]] * 900, [9, b"k"]])
@example(rows=[[Op.DELETE]] * 900)
@example(rows=[[]] * 5000)
@example(rows=[*[[Op.DELETE, b"k"]] * 3000, [[[Op.DELETE, b"k"]]]])
@example(rows=[*[[Op.PUT, b"k", b"v", None]] * 2000, 7])
def test_the_quick_way_of_many_rows_yields_what_the_careful_one_does(rows: list[Any]) -> None:
    body = msgpack.packb(rows)
    for check, check_all in (
        (parse_updates._check_of_client, parse_updates._check_all_of_client),
        (parse_updates._check_of_replica, parse_updates._check_all_of_replica),
        (parse_requests._element, parse_requests._one_by_one),
    ):
        quick = unpack_rows(body, 10_000, check, check_all)
        try:
            careful = [check(row) for row in rows if type(row) is list or _wrong()]
        except ValueError:
            careful = None
        assert (quick or None) == (careful or None)
        for cut in (body[:-1], body + b"\xc0"):
            assert unpack_rows(cut, 10_000, check, check_all) is None
        assert not quick or unpack_rows(body, len(rows) - 1, check, check_all) is None


def _wrong() -> None:
    raise ValueError


@pytest.mark.parametrize("row_bytes", [0, 3000, 60_000])
@pytest.mark.parametrize("header", [b"\xdc\x27\x10", b"\xdd\x00\x00\x27\x10", b"\x9f", b"\xdc\x00\x3f"])
@pytest.mark.parametrize("parse", [parse_updates.parse_update, parse_requests.parse_read])
def test_arrays_within_arrays_that_claim_much_and_bring_nothing_cost_little(
    parse: Any, header: bytes, row_bytes: int
) -> None:
    """3 KB of headers, each of which claims 10,000 elements, once took 82 MB for a moment."""
    body = b"\x92" + msgpack.packb([Op.PUT, b"k", bytes(row_bytes), None]) + header * 1000
    tracemalloc.start()
    try:
        with pytest.raises((FrameError, RequestError)):
            parse(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1024 * 1024


@pytest.mark.parametrize("count", [3, 90, 2000])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "wrong",
    [7, None, [], [Op.DELETE], [Op.DELETE, b"k", 1], [Op.DELETE, "k"], [True, b"k"], [99, b"k"], [Op.REMOVE,
    b"k", True],
     [Op.WRITE, b"k", -1, b""], [Op.WRITE, b"k", 2**63, b""], [Op.PUT, b"k", b"v", 0.5], [Op.CREATE, b"", 5,
     b"", True],
     [Op.PIECE, b"k", 1, 0, b"", 5, 5], [[Op.DELETE, b"k"]], {}, [Op.PUT, {}, b"v", None], b"\x02k", "2k",
     [[2], b"k"], [2.0, b"k"], 2.0],
    ids=repr,
)  # fmt: skip
def test_an_operation_that_a_client_may_not_send_is_refused_with_its_index(
    wrong: Any, place: int, count: int
) -> None:
    ops: list[Any] = [[Op.PUT, b"key", b"value", None]] * count
    ops[place] = wrong
    with pytest.raises(RequestError) as caught:
        parse_updates.parse_update(msgpack.packb(ops))
    assert (caught.value.code, caught.value.index) == (codes.INVALID_PARAM, place)


def test_a_replica_takes_what_only_the_service_sends_and_no_more() -> None:
    own = [[Op.REMOVE, b"k"], [Op.REMOVE, b"k", True], [Op.PIECE, b"k", 3, 0, b"abc", 5, 6]]
    assert parse_updates.parse_replicated(pack_body([own, []]), 0) == (own, [])
    for wrong in ([[Op.PIECE, b"k", 3, -1, b"abc", 5, 6]], [[Op.REMOVE, b"k", 1]], [], [7], {}, [{}]):
        with pytest.raises(FrameError):
            parse_updates.parse_replicated(pack_body(wrong), 7)
    for answered in ({}, [{}], [[1, 2, 3]], [[1, 2, 3, "a"]], [[-1, 2, 3, b"a"]], [[1, 2, 0.5, b"a"]]):
        with pytest.raises(FrameError):
            parse_updates.parse_replicated(pack_body([own, answered]), 0)


def test_values_have_their_types() -> None:
    attributes = [1, 100, 0, 1, 100, 8]
    opened = parse_requests.parse_open(pack_body([b"n", 7, attributes, True, True, "later"]))
    assert opened == (b"n", 7, tuple(attributes), True, True)
    assert not parse_requests.parse_open(pack_body([b"n", 7, attributes, True])).grow
    with pytest.raises(RequestError):
        parse_requests.parse_open(pack_body([b"n", 7, attributes, True, 1]))
    assert parse_requests.parse_iterate(pack_body([5, 0, None, False])) == (
        5,
        0,
        None,
        False,
        None,
        False,
        False,
    )
    assert parse_requests.parse_track(pack_body([None])) == (None, 0, False, b"", False)
    assert parse_requests.parse_operate(pack_body(["accept-loss", "b"])) == ("accept-loss", "b")
    assert parse_requests.parse_of_handle(Kind.ACTIVE_SET, pack_body([3, True])) == (3, True)
    assert unpack_body(pack_body(attributes)) == attributes
