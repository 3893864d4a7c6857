"""What peers, witnesses and strangers send is parsed whole before any of it counts, and nothing but a FrameError escapes.

On Python 3.12 and later a dict that stood where a list should raised KeyError when it was sliced, and ended the node.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.core.cluster import three_nodes
from tests.protocol.representative import REPRESENTATIVES

from ckpt_protocol.body_codec import pack_body, unpack_body
from ckpt_protocol.codes import OK
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame
from ckpt_protocol.limits import EPOCH_MAX
from ckpt_protocol.messages import FORWARD_REFUSED_ROUTE, FORWARD_ROUTE, REPLICATE_ROUTE, Kind, answer_ok
from ckptd.core.content.parse_replicas import parse_chunk, parse_join, parse_report
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.parse_directory import add_piece, check_staged, parse_proposal, read_snapshot
from ckptd.core.events import ClosePeer, HeartbeatReceived, PeerReceived
from ckptd.core.liveness.parse_heartbeat import parse_heartbeat
from ckptd.core.parse_views import parse_collect, parse_collected, parse_decided, parse_install, parse_vote
from ckptd.core.stops_by_bugs import parse_faults

ODD: list[Any] = [
    None,
    True,
    -1,
    0.5,
    float("inf"),
    float("nan"),
    2**64 - 1,
    b"",
    b"k",
    "",
    "k",
    [],
    [1],
    {},
    {1: 2},
]
PARSERS: dict[int, Callable[[Frame], Any]] = {
    Kind.HEARTBEAT: lambda frame: parse_heartbeat(frame, {}),
    Kind.JOIN: parse_join,
    Kind.CHUNK: parse_chunk,
    Kind.ASK: lambda frame: parse_proposal(frame.body),
    Kind.PREPARE: parse_vote,
    Kind.PROMISE: parse_vote,
    Kind.ACCEPT: parse_vote,
    Kind.ACCEPTED: parse_vote,
    Kind.COLLECT: parse_collect,
    Kind.COLLECTED: lambda frame: parse_collected(frame.body),
    Kind.INSTALL: parse_install,
    Kind.DECIDED: lambda frame: parse_decided(frame.body),
    Kind.FAULTS: parse_faults,
    Kind.DIRECTORY: lambda frame: add_piece(Directory(), frame.body, 0),
}
OF_PEERS = [frame for frame in REPRESENTATIVES if getattr(Kind, frame.kind) >= Kind.HEARTBEAT]
OLD = ["HEARTBEAT", "COLLECTED", "INSTALL"]
"""Of a version that was never released: each is shorter than what is read now."""
PARSED = [frame for frame in OF_PEERS if getattr(Kind, frame.kind) in PARSERS]


def frame_of(representative: Any, body: bytes) -> Frame:
    return Frame(
        getattr(Kind, representative.kind), representative.a, representative.b, representative.c, body
    )


def parts_of(representative: Any) -> tuple[bytes, Any]:
    """A body's route, and what stands behind it; None for nothing."""
    route = {"FORWARD": FORWARD_ROUTE.size, "FORWARD_REFUSED": FORWARD_REFUSED_ROUTE.size}.get(
        representative.kind, 0
    )
    if representative.kind == "REPLICATE" and representative.a:
        route = REPLICATE_ROUTE.size
    rest = representative.body[route:]
    return representative.body[:route], unpack_body(rest) if rest else None


def spoiled(content: Any, odd: Any) -> Iterator[Any]:
    """The content with `odd` in the place of each element, at every level, and with each element missing."""
    yield odd
    if type(content) is list:
        for place, element in enumerate(content):
            for other in spoiled(element, odd):
                yield [*content[:place], other, *content[place + 1 :]]
            yield content[:place]


@pytest.mark.parametrize(
    "representative", [frame for frame in PARSED if frame.name not in OLD], ids=lambda frame: frame.name
)
def test_every_representative_frame_is_parsed(representative: Any) -> None:
    PARSERS[getattr(Kind, representative.kind)](frame_of(representative, representative.body))


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("representative", PARSED, ids=lambda frame: frame.name)
def test_an_odd_field_is_a_frame_error_or_a_value(representative: Any, odd: Any) -> None:
    parse = PARSERS[getattr(Kind, representative.kind)]
    refused = 0
    for content in spoiled(parts_of(representative)[1], odd):
        try:
            parse(frame_of(representative, pack_body(content)))
        except FrameError:
            refused += 1
    assert refused


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("representative", OF_PEERS, ids=lambda frame: frame.name)
def test_no_frame_of_a_peer_with_an_odd_field_ends_a_node(representative: Any, odd: Any) -> None:
    """The link of the peer may end; nothing is raised, whatever the epoch."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    node = cluster.node("b")
    route, content = parts_of(representative)
    for other in spoiled(content, odd):
        for first in {representative.a, table.creation_id}:
            frame = frame_of(representative, route + pack_body(other))._replace(a=first, b=1)
            effects = node.handle(PeerReceived("a", [frame]), cluster.now_ns)
            node.handle(HeartbeatReceived(frame), cluster.now_ns)
            assert all(effect.node_id == "a" for effect in effects if isinstance(effect, ClosePeer))


@pytest.mark.parametrize(
    "odd", [*map(answer_ok, ([1], {}, [[], []], [1, []], [1, "x", []])), b"", b"\xc0", b"\x91\xc0"], ids=repr
)
@pytest.mark.parametrize("kind", [Kind.FORWARD_ANSWER, Kind.FORWARD_REFUSED])
def test_a_peers_answer_to_an_open_with_an_odd_field_ends_no_node(kind: int, odd: bytes) -> None:
    """The node looked the creation id up, whatever stood in its place, and raised. Its client waits on."""
    cluster = three_nodes()
    client = cluster.client("b")
    cluster.hold("b", "a")
    call = client.begin(Kind.OPEN, 0, [b"x", 7, [1, 4096, SA_TIME_END, 1, 4096, 8], True])
    cluster.run(1)
    route = FORWARD_REFUSED_ROUTE.pack(0) if kind == Kind.FORWARD_REFUSED else b""
    frame = Frame(kind, call.number, cluster.node("b").context.epoch, client.session, route + odd)
    cluster.deliver("b", PeerReceived("a", [frame]))
    assert not call.answers
    cluster.run(1)
    cluster.release("b", "a")
    cluster.until(lambda: call.code == OK)
    cluster.check()


SCALARS = st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9)
BODIES = st.recursive(
    SCALARS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=30,
)
U64 = st.integers(0, 2**64 - 1)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(PARSERS)), U64, U64, U64, (BODIES | st.lists(BODIES, max_size=12)).map(pack_body)
)
@example(Kind.HEARTBEAT, 1, 0, 0, b"\x91" * 1000 + b"\xc0")
@example(Kind.COLLECTED, 1, 0, 0, pack_body([1, 1, None, {}, 0]))
@example(Kind.INSTALL, 1, 0, 0, pack_body([[1, [["a", 1, 1]], [], 1], 1, pack_body([{}] * 5), [], True]))
def test_whatever_the_body_only_a_frame_error_escapes(kind: int, a: int, b: int, c: int, body: bytes) -> None:
    for parse in (
        PARSERS[kind],
        lambda frame: parse_report(frame.body),
        lambda frame: check_staged(frame.body),
    ):
        try:
            parse(Frame(kind, a, b, c, body))
        except FrameError as error:
            assert len(str(error)) < 200
    with contextlib.suppress(FrameError):
        read_snapshot(unpack_body(body), 0)


@pytest.mark.parametrize("infinite", [float("inf"), float("-inf"), float("nan")])
def test_a_heartbeat_of_an_unknown_sender_with_an_infinity_is_counted_and_dropped(infinite: float) -> None:
    """`int` of it raised OverflowError, and anybody could end a node that has no key."""
    cluster = three_nodes()
    node = cluster.node("a")
    body = pack_body(["b", 2**62, 0, 0, 0, [["x", infinite, False]], [], 0, "ckptd"])
    node.handle(HeartbeatReceived(Frame(Kind.HEARTBEAT, 1, 0, 0, body)), cluster.now_ns)
    assert node.context.counters["heartbeats_garbled"] == 1
    cluster.run(100)
    cluster.check()


def test_an_epoch_that_leaves_no_number_for_the_next_is_none() -> None:
    """A creation id holds 24 bits of the epoch: one forged epoch made all that followed too large for a frame."""
    good = next(frame for frame in PARSED if frame.kind == "HEARTBEAT")
    fields = unpack_body(good.body)
    for place in (2, 3):
        body = pack_body([*fields[:place], EPOCH_MAX + 1, *fields[place + 1 :]])
        with pytest.raises(FrameError):
            parse_heartbeat(frame_of(good, body), {})
    with pytest.raises(FrameError):
        parse_heartbeat(frame_of(good, good.body)._replace(b=EPOCH_MAX + 1), {})


def test_garbage_of_a_future_epoch_ends_its_own_link_when_its_epoch_begins() -> None:
    """It was kept unread until the view was installed, and then raised out of the installation."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    node = cluster.node("b")
    frame = Frame(Kind.ASK, 0, 2, 0, pack_body({1: 2}))
    node.handle(PeerReceived("a", [frame]), cluster.now_ns)
    cluster.kill("c")
    cluster.until(lambda: cluster.node("b").context.epoch == 2)
    assert any(
        "b: closes the link to a: node a sent an invalid frame: ASK of " in line for line in cluster.lines
    )
    table.write(b"k", b"w")
    cluster.check()
