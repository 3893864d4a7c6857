"""What clients and peers may send and must not: it ends their own link, or is a refusal, and harms nobody."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.client import Client
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.bounds_by_kind import NODE_KINDS, REQUEST_KINDS
from ckpt_protocol.codes import BAD_FLAGS, BAD_HANDLE, INVALID_PARAM, NOT_EXIST, OK
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind, Op
from ckptd.core.events import ClientReceived, ClosePeer, HeartbeatReceived, PeerReceived

ODD: list[Any] = [None, True, -1, 0.5, float("nan"), 2**63, b"", b"k", "k", [], [1], {}, {1: 2}, [[]]]
UNKNOWN_KINDS = [0, 26, 41, 255]
KINDS_OF_CLIENTS = [*REQUEST_KINDS, Kind.ANSWER, *UNKNOWN_KINDS]
KINDS_OF_PEERS = [*NODE_KINDS, Kind.UPDATE, *UNKNOWN_KINDS]

bodies = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=9)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=12,
)
numbers = st.sampled_from([0, 1, 2, 3, 5, 2**40 + 2, 2**63, 2**64 - 1])


def raw(client: Client, kind: int, handle: int, body: bytes) -> None:
    """Bytes of a client that does not keep to the protocol."""
    call = client.begin(Kind.PING)  # Its number is used, and its place takes the answer.
    data = encode_frame(kind, call.number, handle, call.number, body)
    client.cluster.send_to_node(client.link, data)
    client.cluster.run(1)


@pytest.mark.parametrize("offset", [0.5, -0.0, 1e300, "1", b"1", None, True, -1, 2**63])
@pytest.mark.parametrize("node_id", "ab")
def test_a_read_with_an_offset_that_is_none_is_refused(node_id: str, offset: object) -> None:
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"value")
    table = cluster.client(node_id).open_existing()
    assert table.call(Kind.READ, [b"k", offset, None]).code == INVALID_PARAM
    assert table.call(Kind.READ, [b"k", 0, offset]).code in ([OK] if offset is None else [INVALID_PARAM])
    cluster.check()


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_fields_of_reads_and_iterations_are_refused(odd: object) -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"value")
    fields: list[Any]
    for fields in ([odd], [[odd, 0, None]], [[b"k", odd, 2]], [[b"k", 1, odd]], [[b"k", 0, None], odd]):
        assert table.call(Kind.READ, *fields).code in (INVALID_PARAM, NOT_EXIST, OK)
    for fields in (
        [odd, 0, None, True],
        [1.5, 0, None, True],
        [5, odd, None, True],
        [5, 0, odd, True],
        [2, odd, None, odd],
    ):
        assert table.call(Kind.ITERATE, *fields).code in (INVALID_PARAM, OK)
    assert table.read(b"k") == b"value"
    cluster.check()


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_fields_of_directory_requests_are_refused(odd: object) -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    client = table.client
    attributes = [1, 100, 0, 1, 100, 8]
    for position in range(6):
        wrong = [*attributes[:position], odd, *attributes[position + 1 :]]
        assert client.call(Kind.OPEN, 0, [b"y%d" % position, 7, wrong, True]).code in (INVALID_PARAM, OK)
    for fields in (
        [odd, 7, attributes, True],
        [b"z", odd, attributes, True],
        [b"z", 7, odd, True],
        [b"z", 7, attributes, odd],
    ):
        assert client.call(Kind.OPEN, 0, fields).code in (INVALID_PARAM, BAD_FLAGS, OK)
    for kind in (Kind.UNLINK, Kind.RETENTION_SET, Kind.ACTIVE_SET, Kind.CLOSE, Kind.DESCRIBE):
        assert client.call(kind, 0, [odd]).code in (INVALID_PARAM, BAD_HANDLE, NOT_EXIST, OK)
    assert table.call(Kind.RETENTION_SET, odd).code in (INVALID_PARAM, OK)
    table.write(b"k", b"value")
    cluster.check()


def test_a_body_that_is_no_msgpack_is_refused_or_ends_the_link() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    for kind in KINDS_OF_CLIENTS:
        client = cluster.client("b")
        raw(client, kind, table.handle, b"\xc1\xff garbage")
    table.write(b"k", b"v")
    assert table.read(b"k") == b"v"
    cluster.check()


@pytest.mark.parametrize("body", [b"\x90", b"\x01", b"\x80", b"\xc0", b"\x91" * 1000 + b"\xc0"])
@pytest.mark.parametrize(
    "kind", [Kind.ATTACH, Kind.OPEN, Kind.UNLINK, Kind.RETENTION_SET, Kind.TRACK, Kind.DESCRIBE]
)
def test_a_request_whose_body_is_none_ends_only_its_own_link(kind: int, body: bytes) -> None:
    """A DESCRIBE that nests 1,000 arrays ended the node: its text could not be made."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    client = cluster.client("b")
    handle = client.open_existing().handle
    raw(client, kind, handle, body)
    assert sum("closes client link" in line for line in cluster.lines) == 1
    table.write(b"k", b"v")
    assert cluster.client("b").open_existing().read(b"k") == b"v"
    cluster.check()


def test_a_frame_of_a_peer_from_a_client_ends_only_its_own_link() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    client = cluster.client("a")
    raw(client, Kind.REPLICATE, 0, pack_body([1]))
    assert any("closes client link" in line for line in cluster.lines)
    table.write(b"k", b"v")
    cluster.check()


def test_a_request_without_a_session_is_refused() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    stranger = Client(cluster, 5)
    stranger.node_id = "a"
    stranger.link = cluster.connect_client(stranger, "a")
    assert stranger.call(Kind.UPDATE, table.handle, [[Op.PUT, b"k", b"v", None]]).code == BAD_HANDLE
    assert stranger.call(Kind.OPEN, 0, [b"x", 3, None, False]).code == BAD_HANDLE
    assert stranger.call(Kind.PING).code == OK
    assert stranger.call(Kind.DESCRIBE, 0, ["cluster"]).payload["members"]
    assert stranger.call(Kind.DESCRIBE, 0, ["weather"]).code == INVALID_PARAM
    cluster.check()


def test_a_session_cannot_use_the_handle_of_another() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    other = cluster.client("a")
    assert other.call(Kind.READ, table.handle + 100, [[b"k", 0, None]]).code == BAD_HANDLE
    assert other.call(Kind.CLOSE, table.handle).code == BAD_HANDLE
    cluster.check()


def fuzzed_cluster() -> tuple[Cluster, int]:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    return cluster, table.creation_id


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KINDS_OF_CLIENTS), numbers, numbers, st.lists(bodies, max_size=5) | bodies)
def test_no_client_can_stop_a_node(kind: int, handle: int, lowest: int, body: Any) -> None:
    cluster, _ = fuzzed_cluster()
    client = cluster.client("a")
    handle = client.open_existing().handle if handle == 1 else handle
    frame = Frame(kind, 3, handle, lowest, pack_body(body))
    cluster.deliver("a", ClientReceived(client.link, [frame]))
    client.link = 0
    cluster.run(50)
    table = cluster.client("b").open_existing()
    table.write(b"j", b"w")
    cluster.check()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(KINDS_OF_PEERS),
    numbers,
    st.sampled_from([0, 1, 2]),
    numbers,
    st.lists(bodies, max_size=6) | bodies,
    st.binary(max_size=60),
)
def test_garbage_of_a_peer_raises_nothing(
    kind: int, a: int, epoch: int, c: int, body: Any, head: bytes
) -> None:
    """It may end the link; what an authentic peer says in well-formed frames is believed."""
    cluster, creation_id = fuzzed_cluster()
    node = cluster.node("b")
    for first in (a, creation_id):
        for packed in (head, head + pack_body(body), pack_body(body), bytes(25) + pack_body(body)):
            frame = Frame(kind, first, epoch, c, packed)
            effects = node.handle(PeerReceived("a", [frame]), cluster.now_ns)
            node.handle(HeartbeatReceived(frame), cluster.now_ns)
            assert all(effect.node_id == "a" for effect in effects if isinstance(effect, ClosePeer))
