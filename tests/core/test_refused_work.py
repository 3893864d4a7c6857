"""What is refused was worked on all the same: it is counted, or not begun.

A request of 31 bytes that asked for too much copied 64 MiB before it was refused, and counted for nothing: 16
KB of them held everybody else up for 6.5 s. So did updates whose last operation could not be done.
"""

import tracemalloc

import pytest
from tests.core.client import Call, Opened
from tests.core.cluster import nodes, three_nodes

from ckpt_protocol.body_codec import AT_ONCE_BYTES, pack_body
from ckpt_protocol.codes import INVALID_PARAM, NO_RESOURCES, NO_SPACE, NOT_EXIST, OK
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA, SA_TIME_END
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.limits import CALL_BYTES_MAX, OPS_PER_UPDATE_MAX
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import decode_answer
from ckptd.core.content.replica_content import SECTION_LOOKUPS_MAX
from ckptd.core.content.sections import EXPIRATIONS_FREE
from ckptd.core.events import ClientReceived, SendClient
from ckptd.core.settings import SECOND_NS
from ckptd.core.work_costs import ELEMENT_WORK, FRAME_WORK, KIB_SHIFT, OP_WORK, PASSED_SHIFT, REFUSED_SHIFT

MIB = 1024 * 1024
MANY_ARRAYS = b"\xdc\x1f\x40" + (b"\x9f" + b"\x90" * 15) * 8_000
DEEP_ARRAYS = b"\xdc\x00\x80" + (b"\x91" * 1_000 + b"\xc0") * 128


def counted(table: Opened, kind: int, body: bytes) -> tuple[int, int]:
    """Ask at the node that has the table alone: the answer's code, and the work that was counted."""
    client = table.client
    node = client.cluster.node(client.node_id)
    node.context.work = 0
    frames = FrameDecoder().feed(encode_frame(kind, client._next(), table.handle, 0, body))
    (effect,) = node.handle(ClientReceived(client.link, frames), client.cluster.now_ns)
    assert isinstance(effect, SendClient)
    (answer,) = FrameDecoder().feed(effect.data)
    return decode_answer(answer.body)[0], node.context.work


def test_an_update_of_which_the_last_operation_cannot_be_done_counts_all_of_them() -> None:
    table = nodes("a").client("a").open()
    ops = [[Op.PUT, b"k", b"v", None]] * (OPS_PER_UPDATE_MAX - 1)
    code, work = counted(table, Kind.UPDATE, pack_body([*ops, [Op.DELETE, b"none"]]))
    assert code == NOT_EXIST
    assert work >= OP_WORK * OPS_PER_UPDATE_MAX


def test_sections_that_are_built_and_put_back_count() -> None:
    table = nodes("a").client("a").open(section_bytes_max=MIB)
    table.write(b"k", bytes(MIB))
    patch = [Op.PATCH, b"k", 1, b"x", None]
    code, work = counted(table, Kind.UPDATE, pack_body([*[patch] * 20, [Op.DELETE, b"none"]]))
    assert code == NOT_EXIST
    assert work >= 20 * (MIB >> KIB_SHIFT)
    code, work = counted(table, Kind.UPDATE, pack_body([patch] * 20))
    assert code == OK
    assert work >= 20 * (MIB >> KIB_SHIFT)


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.READ])
@pytest.mark.parametrize("body", [MANY_ARRAYS, DEEP_ARRAYS], ids=["many", "deep"])
def test_a_body_that_is_built_before_it_is_refused_counts_by_its_bytes(kind: int, body: bytes) -> None:
    """Half a megabyte of them in one read of a socket took 150 ms."""
    assert len(body) <= AT_ONCE_BYTES
    code, work = counted(nodes("a").client("a").open(), kind, body)
    assert code == INVALID_PARAM
    assert work >= len(body) >> REFUSED_SHIFT


@pytest.mark.parametrize("last", [[b"k", 1, None], [b"none", 0, None]], ids=["too much", "missing"])
def test_a_refused_read_has_duplicated_nothing(last: list[object]) -> None:
    table = nodes("a").client("a").open(section_bytes_max=MIB)
    table.write(b"k", bytes(MIB))
    elements = [[b"k", 1, MIB // 2]] * (CALL_BYTES_MAX // (MIB // 2))
    body = pack_body([*elements, last])
    tracemalloc.start()
    code, _ = counted(table, Kind.READ, body)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert code in (NO_RESOURCES, NOT_EXIST)
    assert peak_bytes < MIB // 2


def test_ids_that_are_tried_for_a_section_without_one_count() -> None:
    table = nodes("a").client("a").open(sections_max=1000, section_id_bytes_max=1)
    table.call(Kind.UPDATE, *([Op.CREATE, b"%c" % number, SA_TIME_END, b""] for number in range(256)))
    code, work = counted(table, Kind.UPDATE, pack_body([[Op.CREATE, b"", SA_TIME_END, b""]]))
    assert code == NO_SPACE
    assert work >= 255 >> PASSED_SHIFT


def test_reads_next_to_pending_updates_count_what_they_look_through() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(sections_max=1000)
    ids = [b"%d" % number for number in range(2 * SECTION_LOOKUPS_MAX)]
    table.call(Kind.UPDATE, *([Op.PUT, section_id, b"old", None] for section_id in ids))
    for node_id in "bc":
        cluster.hold("a", node_id)
    for _ in range(10):
        table.begin(Kind.UPDATE, *([Op.PUT, section_id, b"new", None] for section_id in ids))
    cluster.run(1)
    assert len(cluster.replica("a").log.pending) == 10
    for kind, body in (
        (Kind.READ, pack_body([[section_id, 0, None] for section_id in ids])),
        (Kind.STATUS, pack_body([])),
    ):
        code, work = counted(table, kind, body)
        assert code == OK
        assert work >= ELEMENT_WORK * 10 * len(ids)
    for some in (ids, ids[:SECTION_LOOKUPS_MAX], ids[:1]):
        read = table.begin_read(*some)
        cluster.run(1)
        assert read.answer is not None
        assert read.answer.payload == [b"old"] * len(some)


def test_expiration_times_that_count_no_more_are_not_kept_for_ever() -> None:
    """Each new time of a section left the one before in memory until that came: in 292 years, say."""
    cluster = nodes("a")
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    for number in range(30):
        ops = ([Op.EXPIRATION_SET, b"k", SA_TIME_END - 1 - number * 100 - i] for i in range(100))
        assert table.call(Kind.UPDATE, *ops).code == OK
    assert len(cluster.replica("a").sections.expirations) <= EXPIRATIONS_FREE + 2
    soon_ns = cluster.node("a").context.wall_ns + SECOND_NS
    assert table.call(Kind.UPDATE, [Op.EXPIRATION_SET, b"k", soon_ns]).code == OK
    cluster.run(2000)
    assert not cluster.replica("a").sections.sections


def test_a_page_after_the_last_checkpoint_counts_those_that_it_passes_over() -> None:
    cluster = nodes("a")
    client = cluster.client("a")
    for number in range(100):
        client.open(b"%d" % number)
    table = client.open(b"last")
    code, work = counted(table, Kind.DESCRIBE, pack_body(["checkpoints", table.creation_id]))
    assert code == OK
    assert work >= FRAME_WORK + (100 >> PASSED_SHIFT)


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.READ, Kind.ITERATE])
def test_a_body_that_is_no_request_is_refused_at_its_clients_node(kind: int) -> None:
    """60 of them kept a node's acknowledgements waiting behind them at another node, and all writes, for 580 ms."""
    cluster = three_nodes()
    cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    table = cluster.client("b").open_existing()
    code, work = counted(table, kind, DEEP_ARRAYS)
    assert code == INVALID_PARAM
    assert work >= len(DEEP_ARRAYS) >> REFUSED_SHIFT
    assert not cluster.node("b").requests.waiting.forwarded


@pytest.mark.parametrize("node_id", ["a", "b"], ids=["here", "passed on"])
def test_of_the_largest_updates_two_are_under_way_for_one_client(node_id: str) -> None:
    cluster = three_nodes()
    cluster.client("a").open()
    client = cluster.client(node_id)
    table = client.open_existing()
    body = pack_body([[Op.PUT, b"k", b"v", None]] * OPS_PER_UPDATE_MAX)
    calls = [Call(client._next(), Kind.UPDATE, table.handle, body) for _ in range(10)]
    client.calls.update({call.number: call for call in calls})
    for call in calls:
        client.send(call)
    most = 0
    while not all(call.answers for call in calls):
        cluster.run(0.1)
        requests = cluster.node(node_id).requests
        most = max(most, len(requests.waiting.forwarded), len(cluster.replica("a").log.pending))
    assert most == 2
    assert {call.code for call in calls} == {OK}
