"""The table of bounds: every kind is in it, docs/protocol.md shows it, and a body beyond it is never
built."""

import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.protocol.representative import REPRESENTATIVES, kind_numbers

from ckpt_protocol.body_codec import bounded_array, pack_body, unpack_bounded
from ckpt_protocol.bounds_by_kind import (
    BOUNDS,
    FROM_CLIENT,
    FROM_NEW_CLIENT,
    FROM_NODE,
    FROM_PEER,
    FROM_WITNESS,
    LATER_DEPTH,
    LATER_OBJECTS,
    NODE_KINDS,
    NOT_ALLOWED,
    REQUEST_KINDS,
    Bounds,
    Sender,
    State,
    body_limits,
)
from ckpt_protocol.bounds_check import check_bounds
from ckpt_protocol.codes import OK
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import HEADER_BYTES, FrameDecoder, encode_frame
from ckpt_protocol.limits import FRAME_BYTES_MAX, PEER_FRAME_BYTES_MAX, UNATTACHED_BODY_BYTES_MAX
from ckpt_protocol.messages import FORWARD_REFUSED_ROUTE, FORWARD_ROUTE, REPLICATE_ROUTE, Kind, answer_error
from ckpt_protocol.parse_answers import decode_answer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
NAMES = {number: name for name, number in kind_numbers().items()}
ROUTES = {"FORWARD": FORWARD_ROUTE.size, "REPLICATE": REPLICATE_ROUTE.size}
TIGHT = Bounds(4096, 3, 20, Sender.PEER, State.ESTABLISHED)


def document_row(kind: int) -> str:
    """The kind's line in docs/protocol.md."""
    bounds = BOUNDS[kind]
    named = [
        ", ".join(part.name.lower() for part in flags if part.name)
        for flags in (bounds.senders, bounds.states)
    ]
    objects = f"{bounds.objects_max:,}" if bounds.depth_max else "-"
    return (
        f"| `{NAMES[kind]}` | {bounds.body_bytes_max:,} | {bounds.depth_max or '-'} | {objects} "
        f"| {named[0]} | {named[1]} |"
    )


def test_every_kind_has_bounds() -> None:
    assert sorted(BOUNDS) == sorted(kind_numbers().values())


def test_every_kind_is_of_the_first_exchange_a_request_an_answer_or_between_nodes() -> None:
    first = [kind for kind, bounds in BOUNDS.items() if bounds.states & State.HANDSHAKE]
    assert sorted([*first, *REQUEST_KINDS, Kind.ANSWER, *NODE_KINDS]) == sorted(BOUNDS)


@pytest.mark.parametrize("kind", sorted(BOUNDS))
def test_the_document_shows_the_bounds_of_every_kind(kind: int) -> None:
    assert document_row(kind) in DOCUMENT.splitlines(), document_row(kind)


@pytest.mark.parametrize("frame", REPRESENTATIVES, ids=lambda frame: frame.name)
def test_every_representative_is_within_its_bounds_and_leaves_space_for_later_fields(frame: Any) -> None:
    bounds = BOUNDS[getattr(Kind, frame.kind)]
    body = frame.body[ROUTES.get(frame.kind, 0) :]
    assert len(frame.body) <= bounds.body_bytes_max
    if bounds.depth_max and body:
        content = bounded_array(body, bounds, 0)
        later = pack_body([*content, *[0] * (LATER_OBJECTS - 4), [[0]]])
        assert check_bounds(later, bounds.depth_max, bounds.objects_max) > LATER_OBJECTS - 4
        assert LATER_DEPTH == 2


def test_a_longest_request_of_a_client_can_be_passed_on() -> None:
    """A body that its own node took was too long for the link to the next node, which was cut again and
    again."""
    longest = max(limit for limit in FROM_CLIENT)
    assert longest == FRAME_BYTES_MAX - HEADER_BYTES
    for name, route_bytes in ROUTES.items():
        assert FROM_PEER[getattr(Kind, name)] >= longest + route_bytes
    assert FROM_PEER[Kind.FORWARD_ANSWER] >= FROM_NODE[Kind.ANSWER]
    assert FROM_PEER[Kind.INSTALL] == PEER_FRAME_BYTES_MAX - HEADER_BYTES


def test_until_a_session_is_attached_every_request_may_come_that_needs_none_and_nothing_large() -> None:
    for kind, bounds in BOUNDS.items():
        assert (FROM_NEW_CLIENT[kind] == NOT_ALLOWED) == (FROM_CLIENT[kind] == NOT_ALLOWED)
        assert FROM_NEW_CLIENT[kind] <= UNATTACHED_BODY_BYTES_MAX
        if bounds.senders & Sender.CLIENT and bounds.states & State.ESTABLISHED:
            assert FROM_NEW_CLIENT[kind] == bounds.body_bytes_max


@pytest.mark.parametrize(
    ("limits", "may", "may_not"),
    [
        (FROM_CLIENT, ["ATTACH", "UPDATE", "PING"], ["HELLO", "ANSWER", "REPLICATE", "HEARTBEAT", "PREPARE"]),
        (FROM_PEER, ["FORWARD", "REFUSED", "PREPARE", "PROMISE"], ["HELLO", "UPDATE", "ANSWER", "HEARTBEAT"]),
        (FROM_WITNESS, ["PROMISE", "ACCEPTED"], ["REPLICATE", "FORWARD", "INSTALL", "PREPARE", "UPDATE"]),
        (FROM_NODE, ["WELCOME", "REFUSED", "ANSWER"], ["HELLO", "UPDATE", "REPLICATE"]),
        (body_limits(Sender.CLIENT, State.HANDSHAKE), ["HELLO", "PROOF"], ["ATTACH", "PING"]),
        (body_limits(Sender.UNAUTHENTICATED, State.NONE), ["HEARTBEAT"], ["HELLO", "UPDATE", "REPLICATE"]),
    ],
    ids=["client", "peer", "witness", "node", "first exchange", "datagram"],
)
def test_which_side_may_send_what(limits: tuple[int, ...], may: list[str], may_not: list[str]) -> None:
    for name in may:
        header = encode_frame(getattr(Kind, name), 1, 1, 1, bytes(limits[getattr(Kind, name)]))[:HEADER_BYTES]
        assert FrameDecoder(limits).feed(header) == []
    for kind in [*(getattr(Kind, name) for name in may_not), 0, 255]:
        assert limits[kind] == NOT_ALLOWED
        with pytest.raises(FrameError, match="may not come"):
            FrameDecoder(limits).feed(encode_frame(kind, 1, 1, 1, bytes(5))[:HEADER_BYTES])


# -- counting


CONTENT = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=30,
)


def counted(content: Any) -> tuple[int, int]:
    """(objects, depth), by walking over what was built."""
    if type(content) not in (list, dict):
        return 1, 0
    inner = list(content) if type(content) is list else [*content, *content.values()]
    counts = [counted(element) for element in inner]
    return 1 + sum(objects for objects, _ in counts), 1 + max((depth for _, depth in counts), default=0)


@settings(max_examples=300, deadline=None)
@given(content=CONTENT)
@example(content=[b"x" * 255, b"y" * 256, b"z" * 65_536, "x" * 31, "y" * 32, "z" * 256, "w" * 65_536])
@example(content=[*range(-200, 400), 2**16, 2**32, -(2**15), -(2**31), -(2**40), 0.5])
@example(content=[[0] * 15, [0] * 16, [0] * 65_536, {n: n for n in range(15)}, {n: n for n in range(16)}])
def test_objects_and_levels_are_counted_as_they_would_be_built(content: Any) -> None:
    body = msgpack.packb(content)
    objects, depth = counted(content)
    assert check_bounds(body, depth, objects) == objects
    with pytest.raises(FrameError, match="objects"):
        check_bounds(body, depth, objects - 1) if objects > 1 else check_bounds(b"\x91\xc0", 1, 1)
    if depth:
        with pytest.raises(FrameError, match="deeper"):
            check_bounds(body, depth - 1, objects)


@settings(max_examples=500, deadline=None)
@given(
    body=st.binary(max_size=60)
    | CONTENT.map(msgpack.packb).flatmap(lambda whole: st.just(whole[:-1] or whole))
)
def test_what_is_counted_is_what_msgpack_reads(body: bytes) -> None:
    """Whatever the bytes: within its bounds a body is one whole object to both, or to neither."""
    bounds = Bounds(100_000, 12, 100, Sender.PEER, State.ESTABLISHED)
    try:
        check_bounds(body, bounds.depth_max, bounds.objects_max)
    except FrameError:
        with pytest.raises(FrameError):
            unpack_bounded(body, bounds)
        return
    try:
        content = unpack_bounded(body, bounds)
    except FrameError:
        return  # Text that is no UTF-8, or an array as a key.
    assert counted(content)[1] <= 12


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 4 + b"\xc0",
        b"\x91" * 100_000 + b"\xc0",
        b"\x81\x01" * 100_000 + b"\xc0",
        b"\xdd\x00\x0f\x42\x40" * 500,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdc\x10\x00" + b"\x90" * 4096,
        b"\x93" + b"\x96\x01\x01\x01\x01\x01\x01" * 3,
        b"\xc6\xff\xff\xff\xff",
        b"\x91\xc7\x02\x00ab",
        b"\x91\xd6\xff\x00\x00\x00\x01",
    ],
    ids=[
        "deep", "very deep", "deep maps", "deep claims", "claim", "claim of a map", "empty arrays", "wide",
        "claim of bytes", "extension", "time",
    ],
)  # fmt: skip
def test_a_body_beyond_its_bounds_is_refused_and_costs_nothing(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(FrameError):
            unpack_bounded(body, TIGHT._replace(body_bytes_max=10**6))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 * 1024
    with pytest.raises(FrameError):
        unpack_bounded(bytes(5000), TIGHT)


@settings(max_examples=300, deadline=None)
@given(content=CONTENT)
@example(content=[1, [b"value"]])
@example(content=[1, [b""]])
@example(content=[1, [b"x" * 300]])
@example(content=[1, [b"x" * 70_000]])
@example(content=[1, [b"value", [b""]]])
@example(content=[1, {1: 2}])
@example(content=[True, [b"value"]])
def test_the_quick_way_of_an_answer_yields_what_the_careful_one_does(content: Any) -> None:
    whole = msgpack.packb(content)
    for body in (whole, bytearray(whole), whole[:-1], whole + b"\xc0"):
        try:
            careful = bounded_array(body, BOUNDS[Kind.ANSWER], 1)
        except FrameError:
            with pytest.raises(FrameError):
                decode_answer(body)
            continue
        if type(careful[0]) is int and careful[0] == OK:
            payload = careful[1] if len(careful) > 1 else None
            assert repr(decode_answer(body)) == repr((OK, payload, -1, ""))


def test_the_longest_refusal_fits_into_forward_refused() -> None:
    body = FORWARD_REFUSED_ROUTE.pack(2**64 - 1) + answer_error(2**31 - 1, "\U0001f980" * 5_000, 10**6)
    assert len(body) <= FROM_PEER[Kind.FORWARD_REFUSED]
