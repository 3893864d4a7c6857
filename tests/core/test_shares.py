"""What all share is counted and bounded, and one client gets its share of it."""

import tracemalloc

import pytest
from tests.core.client import Call
from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import BAD_HANDLE, NO_RESOURCES, NOT_EXIST, OK
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.messages import Kind
from ckptd.core.directory.directory import Directory, DirectoryOp
from ckptd.core.reply_cache import ANSWERS_BYTES_FREE, ERROR_REPLIES_BYTES_MAX, ErrorReplyCache

CREATE = SA_CKPT_CHECKPOINT_CREATE | SA_CKPT_CHECKPOINT_READ
ATTRIBUTES = [SA_CKPT_WR_ALL_REPLICAS, 4096, SA_TIME_END, 1, 4096, 8]


def open_as(cluster: Cluster, node_id: str, *names: bytes) -> list[Call]:
    """A new client at a node opens these, and makes those that are missing."""
    client = cluster.client(node_id)
    calls = [client.begin(Kind.OPEN, 0, [name, CREATE, ATTRIBUTES, True]) for name in names]
    cluster.until(lambda: all(call.code is not None for call in calls))
    return calls


@pytest.mark.parametrize("at", ["a", "b"])
def test_a_connection_makes_at_most_its_share_of_the_checkpoints(at: str) -> None:
    """Others go on, and what is gone makes room for it."""
    cluster = three_nodes(checkpoints_max=8)
    client = cluster.client(at)

    def make(*names: bytes) -> list[int | None]:
        calls = [client.begin(Kind.OPEN, 0, [name, CREATE, ATTRIBUTES, True]) for name in names]
        cluster.until(lambda: all(call.code is not None for call in calls))
        return [call.code for call in calls]

    assert make(b"1") == [OK]
    assert make(b"2") == [OK]
    for _ in range(2):
        assert make(b"3") == [NO_RESOURCES]
        assert make(b"1") == [OK], "it is there already"
        assert [call.code for call in open_as(cluster, at, b"4", b"5")] == [OK, OK]
        for name in (b"2", b"4", b"5"):
            assert client.call(Kind.UNLINK, 0, [name, 0]).code == OK
        for handle in list(cluster.node("a").directory.sessions[client.session].opens):
            assert client.call(Kind.CLOSE, handle).code == OK
        cluster.run(5)
        assert make(b"2") == [OK]
    refused = client.begin(Kind.OPEN, 0, [b"3", CREATE, ATTRIBUTES, True])
    cluster.run(5)
    text = refused.answers[0].text
    assert (
        text == "one connection may create at most 2 of the 8 checkpoints (checkpoints_max, share_of_limits)"
    )
    cluster.check()


def test_a_client_that_used_its_share_gets_not_exist_for_a_missing_checkpoint() -> None:
    """Its OPEN would make nothing: that it may make no more is no answer to it."""
    cluster = three_nodes(checkpoints_max=8)
    client = cluster.client("b")
    client.open(b"1")
    client.open(b"2")
    assert client.try_open(b"3").code == NOT_EXIST
    cluster.check()


@pytest.mark.parametrize(("at", "under_one_number"), [("a", False), ("b", False), ("a", True)])
def test_a_connection_that_asks_twice_has_one_session(at: str, under_one_number: bool) -> None:
    """The first was refused, so that it could ask for another; of the two that it got then one never ended."""
    cluster = three_nodes()
    client = cluster.client(at)
    assert client.call(Kind.DETACH).code == OK

    def ask(session: int, fresh: bool, number: int = 0) -> Call:
        number = number or client._next()
        call = Call(number, Kind.ATTACH, session, pack_body([fresh]))
        client.calls.setdefault(number, call)
        client.send(call, 1)
        return client.calls[number]

    busy = cluster.client("b")
    busy.open(b"x")
    cluster.hold("c", "a")
    before = busy.begin(Kind.UNLINK, 0, [b"x", 0])  # What is asked now waits behind it.
    cluster.run(1)
    first = ask(5001, False)
    again = ask(5001, True, first.number if under_one_number else 0)
    cluster.run(1)
    cluster.hold("b", "a")
    cluster.release("c", "a")
    cluster.until(lambda: first.answers)
    other = ask(5002, True)
    cluster.run(1)
    cluster.release("b", "a")
    cluster.until(lambda: again.answers[-1:] and again.answers[-1].code == OK and other.answers)
    assert before.code == OK
    assert (first.code, other.code) == (BAD_HANDLE, NO_RESOURCES)
    assert not cluster.node(at).sessions.attaching
    client.disconnect()
    cluster.run(20_000)
    assert list(cluster.node("a").directory.sessions) == [busy.session]
    cluster.check()


def test_the_directory_counts_what_it_holds_and_takes_no_more_than_it_may() -> None:
    """10,000 names of 2,048 bytes took 20 MB, of which 3 were counted."""
    cluster = three_nodes(directory_bytes_max=20_000)
    calls = open_as(cluster, "b", *(bytes([65 + number]) * 2048 for number in range(10)))
    made = [call.code for call in calls].count(OK)
    assert 3 <= made < 8
    assert [call.code for call in calls[made:]] == [NO_RESOURCES] * (10 - made)
    assert "directory_bytes_max" in calls[-1].answers[0].text
    held = {cluster.node(node_id).directory.resident_bytes for node_id in "abc"}
    assert len(held) == 1, "it is the same everywhere"
    assert 16_000 < held.pop() <= 20_000 + 2048
    cluster.kill("c")
    cluster.restart("c")
    cluster.until(lambda: cluster.serving("c") and cluster.node("c").directory.sessions)
    assert {cluster.node(node_id).directory.resident_bytes for node_id in "abc"} == {
        cluster.node("a").directory.resident_bytes
    }
    cluster.check()


def test_what_is_gone_is_not_counted() -> None:
    directory = Directory()
    directory.installed_epoch = 1
    ops = [
        [DirectoryOp.ATTACH, 7, 1, "a"],
        [DirectoryOp.CREATE, 7, 1, CREATE, b"x", [1, 4096, 0, 1, 4096, 8], ["a"], "a"],
        [DirectoryOp.OPEN, 7, 2, (1 << 40) + 2, CREATE],
        [DirectoryOp.CREATE, 7, 3, CREATE, b"y", [1, 4096, 0, 1, 4096, 8], ["a"], "a"],
        [DirectoryOp.ATTACH, 7, 2, "b"],
        [DirectoryOp.OPEN, 7, 2, (1 << 40) + 2, CREATE],
        [DirectoryOp.CLOSE, 7, 1],
        [DirectoryOp.UNLINK, b"y"],
    ]
    for seq, op in enumerate(ops, 1):
        directory.apply(op, seq, 0)
        directory.record_reply(directory.sessions[7], seq, b"answer")
        before = directory.resident_bytes
        directory.count()
        assert directory.resident_bytes == before
    directory.trim_answers(directory.sessions[7], 3)
    before = directory.resident_bytes
    directory.count()
    assert directory.resident_bytes == before
    directory.apply([DirectoryOp.END, 7, 2], len(ops) + 1, 0)
    assert (directory.resident_bytes, directory.open_handles, directory.checkpoints) == (0, 0, {})


@pytest.mark.parametrize("name_bytes", [8, 2048])
def test_what_the_directory_counts_is_about_what_it_takes(name_bytes: int) -> None:
    directory = Directory()
    directory.installed_epoch = 1
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2_000):
            name = b"%08d" % number * (name_bytes // 8)
            directory.apply([DirectoryOp.ATTACH, 2**62 + number, 1, "a"], directory.seq + 1, 0)
            directory.apply(
                [
                    DirectoryOp.CREATE,
                    2**62 + number,
                    number,
                    CREATE,
                    name,
                    list(ATTRIBUTES),
                    ["a", "b", "c"],
                    "a",
                ],
                directory.seq + 1,
                0,
            )
            directory.apply(
                [DirectoryOp.OPEN, 2**62 + number, 10_000 + number, (1 << 40) + directory.seq, CREATE],
                directory.seq + 1,
                0,
            )
            directory.dirty.clear()
            directory.attached.clear()
            directory.created.clear()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.7 * taken < directory.resident_bytes < 1.6 * taken


def test_a_full_directory_keeps_no_more_answers_of_a_session_that_trims_none() -> None:
    """But others are served, and it may end."""
    cluster = three_nodes(directory_bytes_max=200_000)
    hog, other = cluster.client("b"), cluster.client("b")
    first = hog.begin(Kind.OPEN, 0, [b"x", CREATE, ATTRIBUTES, True])
    cluster.until(lambda: first.code == OK)
    codes = []
    for _ in range(3_000):
        number, handle = hog._next(), next(iter(cluster.node("a").directory.sessions[hog.session].opens))
        call = hog.calls[number] = Call(number, Kind.RETENTION_SET, handle, pack_body([SA_TIME_END]))
        hog.send(call, 1)  # It says of no answer that it has it.
        cluster.run(1)
        codes.append(call.code)
        if call.code == NO_RESOURCES:
            break
    assert codes[-1] == NO_RESOURCES
    assert 200_000 <= cluster.node("a").directory.resident_bytes < 210_000
    assert cluster.node("a").directory.sessions[hog.session].answers.bytes >= ANSWERS_BYTES_FREE
    assert other.call(Kind.UNLINK, 0, [b"nothing", 0]).code == NOT_EXIST
    assert hog.call(Kind.DETACH).code == OK
    assert cluster.node("a").directory.resident_bytes < 5_000
    assert [call.code for call in open_as(cluster, "b", b"z")] == [OK]
    cluster.check()


def test_refusals_that_are_kept_are_bounded_for_all_sessions_together() -> None:
    refused = ErrorReplyCache()
    body = bytes(16 * 1024)
    for session in range(1, 40):
        for number in range(1, 300):
            refused.record(session, number, 1, 0, body)
    assert refused.bytes < ERROR_REPLIES_BYTES_MAX + 40 * (ANSWERS_BYTES_FREE + len(body) + 100)
    assert refused.find(39, 1, 1) is not None, "a newcomer's are kept"
    for session in range(1, 40):
        refused.find(session, 1, 10**6)
    assert (refused.bytes, bool(refused)) == (0, False)


def limits_at(cluster: Cluster, node_id: str) -> dict[str, list[int]]:
    described = cluster.client(node_id).call(Kind.DESCRIBE, 0, ["cluster", None]).payload
    return {name: [used, most] for name, used, most in described["limits"]}


def test_status_shows_every_limit_that_clients_share_and_what_is_taken_of_it() -> None:
    cluster = three_nodes(memory_bytes_max=10**6)
    open_as(cluster, "b", b"x", b"y")
    limits = limits_at(cluster, "c")
    assert limits["checkpoints"] == [2, 100_000]
    assert limits["sessions"] == [2, 100_000]
    assert limits["opens"] == [2, 1_000_000]
    assert limits["directory_bytes"] == [cluster.node("a").directory.resident_bytes, 512 * 1024 * 1024]
    assert limits["memory_bytes"][1] == 10**6
    rest = {"refusals_bytes", "requests_waiting", "requests_waiting_bytes", "lanes_bytes", "trackers"}
    assert {name for name in limits if name in rest} == rest
    assert all(0 <= used <= most for used, most in limits.values())


def test_a_limit_that_is_nearly_full_is_an_alarm_at_every_node_until_it_is_not() -> None:
    cluster = three_nodes(checkpoints_max=5, share_of_limits=1)
    client = cluster.client("b")

    def alarm(node_id: str) -> str:
        return cluster.node(node_id).context.alarms.get("limits", "")

    for name in (b"1", b"2", b"3"):
        assert client.call(Kind.OPEN, 0, [name, CREATE, ATTRIBUTES, True]).code == OK
    cluster.run(1_000)
    assert not any(alarm(node_id) for node_id in "abc")
    handle = client.call(Kind.OPEN, 0, [b"4", CREATE, ATTRIBUTES, True]).payload[0]
    cluster.run(1_000)
    assert [alarm(node_id) for node_id in "abc"] == ["nearly full: checkpoints 4 of 5"] * 3
    assert client.call(Kind.UNLINK, 0, [b"4", 0]).code == OK
    assert client.call(Kind.CLOSE, handle).code == OK
    cluster.run(100)
    told = [cluster.client(node_id).call(Kind.DESCRIBE, 0, ["cluster", None]).payload for node_id in "abc"]
    assert [each["alarms"] for each in told] == [[]] * 3
    cluster.run(11_000)  # The log's alarm lasts longer, since a figure that swings is one line.
    assert not any(alarm(node_id) for node_id in "abc")
    cluster.check()
