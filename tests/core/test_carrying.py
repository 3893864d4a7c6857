"""Whatever a node may hold, a join and a change of the view can carry: no frame is ever too long.

A client that trimmed no answers once made the first chunk of a join longer than a frame may be. Its receiver
ended the link, the join began again, and the checkpoint was unavailable for good.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.client import Call
from tests.core.cluster import Cluster, three_nodes, two_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import INVALID_PARAM, NO_MEMORY, NO_RESOURCES, OK, TOO_BIG
from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.limits import ANSWERS_MAX, FRAME_BYTES_MAX, NAME_BYTES_MAX
from ckpt_protocol.messages import Kind, Op
from ckptd.core import reply_cache
from ckptd.core.directory.attributes import Attributes
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.entries import CheckpointEntry, SessionEntry
from ckptd.core.directory.transfer import Arriving, pieces_of
from ckptd.core.replication import weak_batch
from ckptd.core.reply_cache import ReplyCache

KINDS = (SA_CKPT_WR_ALL_REPLICAS, SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK)
MiB = 1024 * 1024


def largest_frame(cluster: Cluster) -> int:
    """Of all that went over links, in bytes."""
    return max(len(frame.body) for _, _, data in cluster.sent for frame in FrameDecoder().feed(data))


def fill_answers(answers: ReplyCache, body: bytes) -> None:
    """As many as may be kept, and one more: the limit is looked at before it is passed."""
    number = 1
    while not answers.excess:
        answers.record(number, number, body)
        number += 1


def keep_answers(cluster: Cluster, sessions: int, body: bytes) -> None:
    """Let every replica of `x` remember all that it may for so many sessions."""
    for node in cluster.running():
        log = cluster.replica(node.context.node_id).log
        for session in range(sessions):
            fill_answers(log.answers.setdefault(session + 1, ReplyCache()), body)


@pytest.mark.parametrize("flags", KINDS)
def test_a_join_carries_all_answers_that_may_be_kept(flags: int) -> None:
    """Thirty sessions at their limit, with answers as long as 10,000 generated ids make them: 120 MiB."""
    cluster = three_nodes(chunk_bytes=MiB, log_bytes_max=0)
    table = cluster.client("a").open(flags=flags)
    table.write(b"k", b"v")
    cluster.settle()
    keep_answers(cluster, 30, bytes(100_000))
    kept = {s: dict(answers.by_request) for s, answers in cluster.replica("a").log.answers.items()}
    assert sum(answers.bytes for answers in cluster.replica("a").log.answers.values()) > FRAME_BYTES_MAX
    cluster.kill("c")
    cluster.settle()
    cluster.sent.clear()
    cluster.restart("c")
    cluster.settle()
    mine = cluster.replica("c").log.answers
    assert {session: answers.by_request for session, answers in mine.items()} == kept
    assert largest_frame(cluster) <= 2 * MiB
    cluster.check()


def test_answers_that_come_during_the_join_are_kept_and_trimmed() -> None:
    cluster = two_nodes(chunk_bytes=200, chunks_in_flight=1, log_bytes_max=0)
    client = cluster.client("a")
    table = client.open()
    calls = [table.begin_write(b"k%d" % number, bytes(40)) for number in range(60)]
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.kill("b")
    cluster.settle()
    held = table.begin_read(b"missing")  # Not answered as long as its answer is taken away: `lowest` stays.
    cluster.until(lambda: held.answers)
    answers, held.answers = held.answers, []
    for number in range(40):
        table.begin_write(b"k%d" % number, b"more")
    cluster.run(5)
    cluster.restart("b")
    cluster.until(lambda: cluster.kinds_sent("a", "b", table.creation_id).count(Kind.CHUNK) > 5)
    for number in range(20):
        table.begin_write(b"k%d" % number, b"most")
    cluster.run(2)
    held.answers = answers
    table.write(b"k", b"last")
    cluster.settle()
    at = [cluster.replica(node_id).log.answers[client.session] for node_id in "ab"]
    assert at[0].by_request == at[1].by_request
    assert at[0].first_unanswered == at[1].first_unanswered and at[0].bytes == at[1].bytes
    cluster.check()


@pytest.mark.parametrize("flags", KINDS)
def test_a_session_that_trims_no_answers_is_refused_at_a_limit_in_bytes(
    flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the active replica, before anything is done. Its retries are still answered, and others write on."""
    monkeypatch.setattr(reply_cache, "ANSWERS_BYTES_MAX", 5_000)
    cluster = three_nodes()
    client = cluster.client("a")
    table = client.open(flags=flags, sections_max=10_000, section_bytes_max=1)
    made: list[Call] = []
    while len(made) < 2 or made[-1].code == OK:
        made.append(table.begin(Kind.UPDATE, *([Op.CREATE, b"", SA_TIME_END, b""] for _ in range(100))))
        cluster.run(3)
        made[0].answers = []  # As if its answer had not come: `lowest` stays where it is.
    assert len(made) == 6 and made[-1].code == NO_RESOURCES
    assert "has not acknowledged any" in made[-1].answers[0].text
    assert table.status()[1] == 500
    assert cluster.client("b").open_existing().try_write(b"k", b"x").code == OK
    client.send(made[0])
    cluster.until(lambda: made[0].answers)
    assert len(made[0].answers[0].payload) == 100
    assert table.try_write(b"k", b"y").code == OK, "it tells that it has the answers"


def test_a_client_cannot_choose_what_its_answer_holds() -> None:
    """It marked ids of its own as generated, and its answers listed them: 58 MB each."""
    cluster = two_nodes()
    table = cluster.client("a").open()
    assert table.try_update([Op.CREATE, b"chosen", SA_TIME_END, b"", True]).code == INVALID_PARAM
    assert table.update([Op.CREATE, b"", SA_TIME_END, b""]) != [b"chosen"]


def test_answers_count_as_memory_and_a_session_that_keeps_many_is_refused_when_that_is_full() -> None:
    cluster = two_nodes(memory_bytes_max=20 * MiB)
    client = cluster.client("a")
    table = client.open()
    table.write(b"k", b"v")
    keep_answers(cluster, 5, bytes(100_000))
    cluster.run(1100)
    assert "memory" in cluster.node("a").context.alarms
    assert table.try_write(b"k", b"w").code == OK, "what does not grow goes on"
    waits = table.begin_write(b"k", b"x")
    cluster.until(lambda: waits.answers)
    waits.answers = []
    cluster.replica("a").log.answers[client.session].record(waits.number, 3, bytes(100_000))
    assert table.try_write(b"k", b"y").code == NO_MEMORY


def test_the_count_and_the_bytes_of_answers_are_what_is_kept() -> None:
    answers = ReplyCache()
    for number in (5, 3, 9, 3):
        answers.record(number, 1, b"x" * number)
    assert answers.bytes == sum(60 + number for number in (3, 5, 9))
    answers.trim(4)
    assert answers.bytes == 60 + 5 + 60 + 9
    answers.trim(10)
    assert answers.bytes == 0
    fill_answers(answers, b"")
    assert len(answers.by_request) == ANSWERS_MAX


# -- the directory


def entry_waiting(number: int, name_bytes: int) -> CheckpointEntry:
    """A checkpoint that waits for a node that nobody knows: it has no replica that a test would have to fill."""
    name = (b"%d " % number).ljust(name_bytes, b"n")
    entry = CheckpointEntry(
        2**50 + number, name, Attributes(SA_CKPT_WR_ALL_REPLICAS, 10, 10**9, 1, 10, 10), 10**9, {}, None
    )
    entry.last_in_sync = {"z": 7}
    return entry


def fill_directories(cluster: Cluster, checkpoints: int, name_bytes: int, sessions: int) -> None:
    """The same in every node's directory."""
    for node in cluster.running():
        directory = node.directory
        for number in range(checkpoints):
            entry = entry_waiting(number, name_bytes)
            directory.checkpoints[entry.creation_id] = entry
            directory.names[entry.name] = entry.creation_id
        for number in range(10**6, 10**6 + sessions):
            session = directory.sessions[number] = SessionEntry("a", 1)
            for handle in range(3):
                session.opens[handle] = (2**50 + number % checkpoints, 3)
                directory.checkpoints[2**50 + number % checkpoints].opens[number, handle] = 3
                session.answers.record(handle, 1, b"answer")


def shape(directory: Directory) -> list[object]:
    """All of it but the times, which lose what its way takes, and the order in which its maps were filled."""
    installed_epoch, seq, checkpoints, sessions, members = directory.snapshot(0)
    shown = [[*row[:6], sorted(row[6]), row[7], *row[9:]] for row in checkpoints]
    return [installed_epoch, seq, sorted(shown), sorted(sessions), sorted(members)]


def come_together(cluster: Cluster) -> None:
    """Until all that run serve in one view (their checkpoints wait for ever)."""

    def together() -> bool:
        nodes = cluster.running()
        views = [node.view for node in nodes]
        return all(cluster.serving(node.context.node_id) for node in nodes) and all(
            view is not None and len(view.members) == len(nodes) for view in views
        )

    cluster.until(together)
    cluster.run(30)


def pieces_sent(cluster: Cluster, sender: str, receiver: str) -> int:
    frames = [
        frame
        for one, other, data in cluster.sent
        if (one, other) == (sender, receiver)
        for frame in FrameDecoder().feed(data)
    ]
    return len([frame for frame in frames if frame.kind == Kind.DIRECTORY])


@given(
    name_bytes=st.lists(st.integers(10, 2048), max_size=20),
    opens=st.lists(st.integers(0, 2500), max_size=4),
    answers=st.integers(0, 30),
    piece_bytes=st.sampled_from([1, 100, 3_000, 100_000]),
)
@settings(max_examples=40, deadline=None)
def test_a_directory_in_pieces_is_the_same_directory(
    name_bytes: list[int], opens: list[int], answers: int, piece_bytes: int
) -> None:
    directory = Directory()
    directory.installed_epoch, directory.seq, directory.members = 5, 77, {"a": 3, "b": 9}
    for number, length in enumerate(name_bytes):
        entry = entry_waiting(number, length)
        entry.unlinked, entry.last_closed_ns = bool(number % 2), 100 * number
        entry.replicas = {"a": True, "b": number % 3 == 0}
        directory.checkpoints[entry.creation_id] = entry
        if not entry.unlinked:
            directory.names[entry.name] = entry.creation_id
    for number, handles in enumerate(opens, 1):
        session = directory.sessions[number] = SessionEntry("b", number)
        for handle in range(handles):
            creation_id = 2**50 + handle % 30  # Some of them were lost with all their replicas.
            session.opens[handle] = (creation_id, 3)
            if creation_id in directory.checkpoints:
                directory.checkpoints[creation_id].opens[number, handle] = 3
        for request in range(5, answers):
            session.answers.record(request, request, bytes(request))
        session.answers.trim(4)
    arriving = Arriving(6)
    for piece in pieces_of(directory, 1_000, piece_bytes):
        assert len(piece) <= 2 * piece_bytes + 40_000
        arriving.add_piece(piece, 1_000)
    assert shape(arriving.directory) == shape(directory)
    assert arriving.directory.names == directory.names
    closed = [entry.last_closed_ns for entry in directory.checkpoints.values()]
    assert [entry.last_closed_ns for entry in arriving.directory.checkpoints.values()] == closed
    assert [s.answers.bytes for s in arriving.directory.sessions.values()] == [
        s.answers.bytes for s in directory.sessions.values()
    ]


@pytest.mark.parametrize("piece_bytes", [1, 500, 20_000])
@pytest.mark.parametrize("restarted", ["a", "c"])
def test_a_directory_that_is_large_reaches_a_restarted_node_in_pieces(
    restarted: str, piece_bytes: int
) -> None:
    """a coordinates: restarted, it asks the others for theirs (COLLECTED); c is sent it by a (INSTALL)."""
    cluster = three_nodes(session_grace_ns=10**12, directory_piece_bytes=piece_bytes)
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    fill_directories(cluster, 40, 200, 20)
    cluster.kill(restarted)
    come_together(cluster)
    cluster.sent.clear()
    cluster.restart(restarted)
    come_together(cluster)
    assert pieces_sent(cluster, "b" if restarted == "a" else "a", restarted) > 1 or restarted == "a"
    assert len({str(shape(node.directory)) for node in cluster.running()}) == 1
    assert len(cluster.node(restarted).directory.sessions) == 21
    assert table.read(b"k") == b"v"


@pytest.mark.parametrize("piece_bytes", [1, 500, 10**6])
def test_a_member_that_is_ahead_of_the_next_coordinator_sends_it_its_directory(piece_bytes: int) -> None:
    """c alone has what a ordered last, when a dies; b collects."""
    cluster = three_nodes(session_grace_ns=10**12, directory_piece_bytes=piece_bytes)
    client = cluster.client("a")
    client.open().write(b"k", b"v")
    fill_directories(cluster, 40, 200, 20)
    cluster.hold("a", "b")
    client.begin(Kind.OPEN, 0, [b"x", 3, None, False])
    cluster.until(lambda: cluster.node("c").replicator.in_flight)
    cluster.kill("a")
    come_together(cluster)
    assert (pieces_sent(cluster, "c", "b") > 1) == (piece_bytes < 10**6)
    assert shape(cluster.node("b").directory) == shape(cluster.node("c").directory)
    assert len(cluster.node("b").directory.sessions[client.session].opens) == 2


def test_a_link_that_breaks_between_two_pieces_costs_no_more_than_these() -> None:
    cluster = three_nodes(session_grace_ns=10**12, directory_piece_bytes=1)
    cluster.client("b").open().write(b"k", b"v")
    fill_directories(cluster, 40, 200, 20)
    cluster.kill("c")
    come_together(cluster)
    for pieces in (1, 2, 30, 80):
        cluster.sent.clear()
        if cluster.hosts["c"].node is None:
            cluster.restart("c")
        cluster.until(lambda: pieces_sent(cluster, "a", "c") >= pieces)  # noqa: B023
        cluster.flap("a", "c")
    come_together(cluster)
    assert len({str(shape(node.directory)) for node in cluster.running()}) == 1
    assert cluster.node("c").reconfiguration.view_change.transfers.incoming == {}


def test_a_directory_that_takes_longer_than_a_node_may_be_silent_evicts_no_node() -> None:
    cluster = three_nodes(session_grace_ns=10**12, directory_piece_bytes=1)
    cluster.client("b").open().write(b"k", b"v")
    fill_directories(cluster, 10, 20, 4_000)  # 20,000 pieces, two at a time: a virtual second.
    cluster.kill("c")
    come_together(cluster)
    before = cluster.node("a").context.epoch
    cluster.restart("c")
    come_together(cluster)
    assert pieces_sent(cluster, "a", "c") > 20_000
    assert cluster.node("c").context.epoch == before + 1, "it was admitted once, and stayed"


@pytest.mark.slow
def test_a_node_that_is_filled_to_every_limit_joins() -> None:
    """100,000 checkpoints with the longest names, opens and answers for 2,000 sessions: 240 MB."""
    cluster = two_nodes(session_grace_ns=10**12)
    cluster.client("a").open().write(b"k", b"v")
    fill_directories(cluster, 100_000, NAME_BYTES_MAX, 2_000)
    assert len(pack_body(cluster.node("a").directory.snapshot(0))) > 2 * FRAME_BYTES_MAX
    keep_answers(cluster, 25, bytes(100_000))
    cluster.kill("b")
    come_together(cluster)
    cluster.sent.clear()
    cluster.restart("b")
    come_together(cluster)
    assert largest_frame(cluster) <= 2 * MiB
    assert len(cluster.node("b").directory.checkpoints) == 100_001


# -- other messages that grow with what is held


def test_a_node_with_many_checkpoints_describes_them_in_pages() -> None:
    cluster = two_nodes(session_grace_ns=10**12)
    client = cluster.client("a")
    client.open().write(b"k", b"v")
    fill_directories(cluster, 8_000, NAME_BYTES_MAX, 10)
    assert client.call(Kind.DESCRIBE, 0, ["checkpoints"]).code == TOO_BIG
    found: list[int] = []
    page = client.call(Kind.DESCRIBE, 0, ["checkpoints", 0]).payload
    while page:
        assert len(pack_body(page)) <= 2 * MiB
        found += [row[1] for row in page]
        page = client.call(Kind.DESCRIBE, 0, ["checkpoints", found[-1]]).payload
    assert found == sorted(cluster.node("a").directory.checkpoints)
    for after in (-1, "x", 0.5):
        assert client.call(Kind.DESCRIBE, 0, ["checkpoints", after]).code == INVALID_PARAM


def test_a_weak_batch_of_long_ids_fits_into_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first portion names all sections of the batch: it is sent before these are too many bytes."""
    monkeypatch.setattr(weak_batch, "PORTION_BYTES_MAX", 20_000)
    cluster = two_nodes(weak_batch_bytes=2_000)
    client = cluster.client("a")
    table = client.open(flags=SA_CKPT_WR_ACTIVE_REPLICA_WEAK, sections_max=10_000, section_id_bytes_max=2_000)
    cluster.sent.clear()
    ids = [(b"%d " % number).ljust(1_000, b"i") for number in range(200)]
    calls = [table.begin_write(section_id, b"%d" % n) for n, section_id in enumerate(ids)]
    cluster.until(lambda: all(call.answers for call in calls))
    cluster.settle()
    cluster.run(20)
    assert largest_frame(cluster) <= 50_000
    assert cluster.contents("b") == {section_id: b"%d" % n for n, section_id in enumerate(ids)}
    cluster.check()
