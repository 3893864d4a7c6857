"""Tracking: who asks what came behind an update is told all of it, in order, wherever it asks (ADR 15)."""

from itertools import pairwise
from typing import Any

import pytest
from tests.core.client import Call, Opened
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import ACCESS, BAD_HANDLE, INVALID_PARAM, NOT_EXIST, OK, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_TIME_END,
)
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.limits import TRACK_BYTES_MAX
from ckpt_protocol.messages import FORWARD_ROUTE, Change, Kind, Op
from ckptd.core.events import ClientCongested, ClientDrained, ClientReceived, PeerReceived
from ckptd.core.requests.change_feed import EXACT_ROWS_MAX
from ckptd.core.requests.waiting_reads import TRACK_WAIT_NS
from ckptd.core.settings import SECOND_NS

SYNC, ASYNC, WEAK, ASYNC_COLLOCATED = 1, 2, 4, 10
CREATED, WRITTEN, OVERWRITTEN, DELETED, EXPIRED = 1, 2, 3, 4, 5


class Standby:
    """One that tracks: `told` is what it was told, `resyncs` how often it had to look at everything."""

    def __init__(self, cluster: Cluster, opened: Opened) -> None:
        self.cluster = cluster
        self.opened = opened
        self.told: list[list[Any]] = []
        self.resyncs = 0
        answer = opened.call(Kind.TRACK, None)
        assert answer.code == OK, answer
        self.sequence, rows, self.tenure = answer.payload
        assert rows == []
        self.call = self.ask()

    def ask(self) -> Call:
        return self.opened.begin(Kind.TRACK, self.sequence, self.tenure)

    def take(self) -> None:
        """Take an answer, if there is one, and ask again."""
        if not self.call.answers:
            return
        answer = self.call.answers[0]
        assert answer.code == OK, answer
        self.sequence, rows, self.tenure = answer.payload
        if rows is None:
            self.resyncs += 1
        else:
            self.told += rows
        self.call = self.ask()

    def run(self, ms: int = 50) -> None:
        """Take what comes for a while."""
        for _ in range(ms):
            self.cluster.run(1)
            self.take()

    @property
    def changes(self) -> list[tuple[int, bytes, int, int]]:
        """(change, section id, offset, size) of what was told, and forget it."""
        told, self.told = self.told, []
        sequences = [row[0] for row in told]
        assert sequences == sorted(sequences)
        return [(row[1], row[2], row[3], row[4]) for row in told]


def tracked(flags: int = SYNC, at: str = "b", **how: Any) -> tuple[Cluster, Opened, Standby]:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags, **how)
    return cluster, table, Standby(cluster, cluster.client(at).open_existing())


@pytest.mark.parametrize("flags", [SYNC, ASYNC])
@pytest.mark.parametrize("at", ["a", "b"])
def test_every_change_is_reported_in_order_with_its_place_and_size(flags: int, at: str) -> None:
    _, table, standby = tracked(flags, at)
    table.update([Op.CREATE, b"k", SA_TIME_END, b"abc"])
    table.update([Op.WRITE, b"k", 5, b"xy"])
    table.update([Op.OVERWRITE, b"k", b"z"])
    table.update([Op.PATCH, b"k", 1, b"pq", None])
    table.write(b"j", b"new")
    table.update([Op.EXPIRATION_SET, b"k", SA_TIME_END])
    table.update([Op.DELETE, b"k"])
    standby.run()
    assert standby.changes == [
        (CREATED, b"k", 0, 3),
        (WRITTEN, b"k", 5, 2),
        (OVERWRITTEN, b"k", 0, 1),
        (WRITTEN, b"k", 1, 2),
        (OVERWRITTEN, b"j", 0, 3),
        (DELETED, b"k", 0, 0),
    ]
    assert not standby.resyncs


def test_the_changes_of_one_update_come_together() -> None:
    cluster, table, standby = tracked()
    table.update(*([Op.PUT, b"k%d" % i, b"v", None] for i in range(5)))
    cluster.run(30)
    assert len(standby.call.answers[0].payload[1]) == 5


def test_generated_ids_are_reported() -> None:
    _, table, standby = tracked()
    (made,) = table.update([Op.CREATE, b"", SA_TIME_END, b"v"])
    standby.run()
    assert standby.changes == [(CREATED, made, 0, 1)]


@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
def test_what_was_done_before_is_not_reported(flags: int) -> None:
    """Also where the tracker's node does not know yet that it is committed, or a batch still gathers."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags)
    opened = cluster.client("b").open_existing()
    table.write(b"k", b"before")
    standby = Standby(cluster, opened)
    table.write(b"k", b"since")
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 5)]


def test_a_refused_update_is_no_change() -> None:
    _, table, standby = tracked()
    assert table.try_update([Op.PUT, b"k", b"v", None], [Op.DELETE, b"missing"]).code == NOT_EXIST
    standby.run()
    assert standby.changes == []


def test_nothing_is_reported_before_it_is_committed() -> None:
    """Whoever reads what he was told of finds it."""
    cluster, table, standby = tracked(at="a")
    cluster.hold("b", "a")
    call = table.begin_write(b"k", b"v")
    standby.run()
    assert not call.answers
    assert not standby.told
    cluster.release("b", "a")
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 1)]


@pytest.mark.parametrize("flags", [SYNC, ASYNC, WEAK])
def test_an_expiration_and_a_deletion_are_reported_as_what_they_are(flags: int) -> None:
    cluster, table, standby = tracked(flags)
    table.update([Op.CREATE, b"k", cluster.node("a").context.wall_ns + SECOND_NS, b"v"])
    table.write(b"j", b"v")
    standby.run()
    standby.told.clear()
    table.update([Op.DELETE, b"j"])
    standby.run(1200)
    assert standby.changes == [(DELETED, b"j", 0, 0), (EXPIRED, b"k", 0, 0)]


def test_a_weak_checkpoint_reports_only_the_newest_change_with_each_batch() -> None:
    _, table, standby = tracked(WEAK)
    for number in range(10):
        table.begin_write(b"k", b"x" * number)
    standby.run()
    changes = standby.changes
    assert changes[-1] == (OVERWRITTEN, b"k", 0, 9)
    assert len(changes) < 10


def test_a_weak_section_in_pieces_is_one_change() -> None:
    """Of a section that travels in pieces only the last one makes it whole."""
    _, table, standby = tracked(WEAK, section_bytes_max=2_000_000)
    table.write(b"k", b"x" * 1_500_000)
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 1_500_000)]


def test_own_changes_bear_the_number_of_their_request() -> None:
    cluster, table, _ = tracked()
    mine = Standby(cluster, table)
    call = table.begin_write(b"k", b"v")
    other = cluster.client("c").open_existing()
    other.write(b"k", b"w")
    mine.run()
    assert [row[5] for row in mine.told] == [call.number, 0]


def test_an_expiration_is_reported_also_with_a_batch_of_one_own_request() -> None:
    """It bore the number of the one request in its weak batch, and was no news to whoever made that."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=WEAK)
    mine = Standby(cluster, table)
    expiration_ns = cluster.node("a").context.wall_ns + SECOND_NS
    table.update([Op.CREATE, b"k", expiration_ns, b"v"])
    mine.run(996)
    mine.told.clear()
    call = table.begin_write(b"j", b"v")
    mine.run(50)
    told = {row[2]: (row[0], row[1], row[5]) for row in mine.told}
    assert told[b"k"][0] == told[b"j"][0], "not one batch"
    assert told[b"k"][1:] == (EXPIRED, 0)
    assert told[b"j"][1:] == (OVERWRITTEN, call.number)


def test_many_changes_in_one_answer_are_reported_as_the_final_outcome_of_each_section() -> None:
    cluster, table, standby = tracked(at="a")
    first = standby.sequence
    for number in range(EXACT_ROWS_MAX + 10):
        table.begin(Kind.UPDATE, [Op.PUT, b"hot", b"x" * (number + 1), None])
    table.begin(Kind.UPDATE, [Op.PUT, b"gone", b"x", None])
    table.update([Op.DELETE, b"gone"])
    table.write(b"last", b"v")
    cluster.run(20)
    standby.call = standby.opened.begin(Kind.TRACK, first, standby.tenure)
    standby.run(5)
    size = EXACT_ROWS_MAX + 10
    assert standby.changes == [
        (OVERWRITTEN, b"hot", 0, size),
        (DELETED, b"gone", 0, 0),
        (OVERWRITTEN, b"last", 0, 1),
    ]


def test_changes_older_than_the_kept_updates_are_reported_as_everything() -> None:
    cluster, table, standby = tracked()
    for _ in range(40):
        table.write(b"k", b"x" * 4096)
    cluster.run(50)
    answer = standby.opened.call(Kind.TRACK, standby.sequence)
    now = standby.opened.call(Kind.TRACK, None).payload[0]
    assert answer.payload == [now, None, 0]
    standby.sequence = now
    standby.call = standby.ask()
    table.write(b"j", b"v")
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"j", 0, 1)]


@pytest.mark.parametrize("flags", [SYNC, ASYNC])
def test_an_update_as_large_as_the_checkpoint_is_reported_alone(flags: int) -> None:
    """It was forgotten as soon as it was committed, since it cost more than all content: whoever tracked a
    checkpoint of one large section looked at everything after every write, and heard of its own ones."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=flags, sections_max=1, section_bytes_max=1_000_000)
    standby = Standby(cluster, cluster.client("b").open_existing())
    mine = Standby(cluster, table)
    for size in (200_000, 300_000, 400_000):
        table.write(b"", b"x" * size)
        standby.run()
        mine.take()
    assert standby.changes == [(OVERWRITTEN, b"", 0, size) for size in (200_000, 300_000, 400_000)]
    assert [row[5] > 0 for row in mine.told] == [True] * 3
    assert not standby.resyncs and not mine.resyncs


@pytest.mark.parametrize("flags", [SYNC, ASYNC])
def test_a_tracker_continues_at_another_node_from_where_it_was(flags: int) -> None:
    _, table, standby = tracked(flags)
    table.write(b"k", b"1")
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 1)]
    standby.opened.client.disconnect()
    table.write(b"k", b"22")
    table.update([Op.DELETE, b"k"])
    standby.opened.client.attach("c")
    standby.call = standby.ask()
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 2), (DELETED, b"k", 0, 0)]
    assert not standby.resyncs


def test_a_fail_over_of_a_sync_checkpoint_is_passed_over() -> None:
    cluster, table, standby = tracked(at="c")
    table.write(b"k", b"1")
    standby.run()
    cluster.kill("a")
    table.client.move("b")
    table.write(b"k", b"22")
    standby.run(100)
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 1), (OVERWRITTEN, b"k", 0, 2)]
    assert not standby.resyncs
    cluster.check()


def test_after_a_fail_over_of_an_asynchronous_checkpoint_everything_is_looked_at() -> None:
    """It may have read what it was not told of yet, and what is lost: nothing would have told it so."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC)
    table.write(b"k", b"1")
    standby = Standby(cluster, cluster.client("c").open_existing())
    cluster.run(50)
    cluster.hold("a", "b")
    cluster.hold("a", "c")
    table.write(b"k", b"22")
    assert table.read(b"k") == b"22"
    cluster.kill("a")
    cluster.release("a", "b")
    cluster.release("a", "c")
    standby.run(100)
    assert standby.resyncs == 1
    assert standby.opened.read(b"k") == b"1"


def test_updates_that_an_asynchronous_checkpoint_lost_make_the_tracker_look_at_everything() -> None:
    """It was told of them at the active replica that died; what it was told is not what there is."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC)
    table.write(b"k", b"1")
    standby = Standby(cluster, cluster.client("a").open_existing())
    cluster.run(50)
    cluster.hold("a", "b")
    cluster.hold("a", "c")
    table.write(b"lost", b"v")
    standby.run(5)
    assert standby.changes == [(OVERWRITTEN, b"lost", 0, 1)]
    cluster.kill("a")
    standby.opened.client.attach("b")
    standby.call = standby.ask()
    standby.run(100)
    assert standby.resyncs == 1
    assert standby.opened.read_all() == {b"k": b"1"}


def lose_active(cluster: Cluster, table: Opened, standby: Standby) -> None:
    """A write is read, and lost with the active replica a before anybody is told of it."""
    peers = [node_id for node_id in cluster.hosts if node_id != "a"]
    for peer in peers:
        cluster.hold("a", peer)
    table.write(b"lost", b"v")
    assert table.read(b"lost") == b"v"
    cluster.kill("a")
    standby.run(1500)
    assert standby.opened.try_read(b"lost").code == NOT_EXIST


def test_an_active_replica_lost_soon_after_a_view_changed_is_noticed_by_its_trackers() -> None:
    """The tenure was the directory's number at the last view: with no operation between two views, the next
    active replica had the same one, and the tracker kept what it had read ahead of what it was told."""
    cluster = nodes("abcde", replicas=3)
    table = cluster.client("a").open(flags=ASYNC)
    without = [node_id for node_id in "abcde" if node_id not in cluster.in_sync("a")]
    standby = Standby(cluster, cluster.client(without[0]).open_existing())
    cluster.kill(without[1])
    standby.run(1500)
    resyncs = standby.resyncs
    lose_active(cluster, table, standby)
    assert standby.resyncs == resyncs + 1


def test_an_active_replica_lost_before_its_first_update_was_reported_is_noticed_by_its_trackers() -> None:
    """One that knew of nothing yet, place 0, was believed to have read nothing."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC)
    standby = Standby(cluster, cluster.client("c").open_existing())
    assert standby.sequence == 0
    lose_active(cluster, table, standby)
    assert standby.resyncs == 1


def test_a_view_that_keeps_the_active_replica_makes_no_tracker_look_at_everything() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC)
    standby = Standby(cluster, cluster.client("a").open_existing())
    table.write(b"k", b"1")
    standby.run()
    cluster.kill("c")
    standby.run(1500)
    cluster.restart("c")
    standby.run(1500)
    table.write(b"k", b"22")
    standby.run()
    assert standby.changes == [(OVERWRITTEN, b"k", 0, 1), (OVERWRITTEN, b"k", 0, 2)]
    assert not standby.resyncs


def test_an_active_replica_that_went_and_came_back_makes_its_trackers_look_at_everything() -> None:
    cluster = three_nodes()
    first = cluster.client("a").open(flags=ASYNC_COLLOCATED)
    second = cluster.client("b").open_existing()
    first.set_active()
    standby = Standby(cluster, cluster.client("a").open_existing())
    cluster.run(200)
    second.set_active()
    second.write(b"k", b"v")
    cluster.run(200)
    first.set_active()
    standby.run(500)
    assert standby.resyncs >= 1
    assert standby.opened.read(b"k") == b"v"


def test_a_tracker_without_an_active_replica_waits_for_one() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC_COLLOCATED)
    other = cluster.client("b").open_existing()
    assert other.call(Kind.TRACK, None).code == NOT_EXIST
    call = other.begin(Kind.TRACK, 0, 0)
    cluster.run(100)
    assert not call.answers
    table.set_active()
    cluster.until(lambda: call.answers)
    sequence, rows, lineage = call.answers[0].payload
    assert rows is None
    call = other.begin(Kind.TRACK, sequence, lineage)
    table.write(b"k", b"v")
    cluster.until(lambda: call.answers)
    assert [row[1:5] for row in call.answers[0].payload[1]] == [[OVERWRITTEN, b"k", 0, 1]]


def test_a_tracker_gets_an_answer_within_ten_seconds_if_nothing_happened() -> None:
    cluster, _, standby = tracked()
    began_ns = cluster.now_ns
    call = standby.call
    cluster.until(lambda: call.answers)
    assert call.answers[0].payload == [standby.sequence, [], standby.tenure]
    assert TRACK_WAIT_NS <= cluster.now_ns - began_ns <= TRACK_WAIT_NS + SECOND_NS


def test_a_track_that_is_repeated_is_answered_as_soon_as_the_first() -> None:
    """Each copy began the ten seconds anew: a client that had lost a link once, and repeats what it asked
    there, heard nothing until its own time-out."""
    cluster, _, standby = tracked()
    began_ns = cluster.now_ns
    while not standby.call.answers:
        assert cluster.now_ns - began_ns <= TRACK_WAIT_NS + SECOND_NS
        standby.opened.client.send(standby.call)
        cluster.run(500)


def test_two_trackers_of_one_handle_both_get_reports() -> None:
    cluster, table, standby = tracked()
    first, second = standby.call, standby.ask()
    cluster.run(5)
    table.write(b"k", b"v")
    cluster.run(50)
    assert first.code == second.code == OK


def test_two_handles_of_one_session_both_get_reports() -> None:
    cluster, table, standby = tracked()
    other = Standby(cluster, standby.opened.client.open_existing())
    table.write(b"k", b"v")
    cluster.run(50)
    assert standby.call.code == other.call.code == OK


def test_a_handle_that_was_closed_cannot_track() -> None:
    cluster = three_nodes()
    opened = cluster.client("a").open(flags=9)  # Collocated: the only replica is at a.
    reader = cluster.client("b").open_existing()
    standby = Standby(cluster, reader)
    reader.close()
    cluster.run(20)
    assert standby.opened.call(Kind.TRACK, standby.sequence).code == BAD_HANDLE
    assert opened.status()


@pytest.mark.parametrize("after", [-1, "x", b"y", [1], 1.5])
def test_a_place_that_is_none_is_refused(after: Any) -> None:
    _, table, _ = tracked()
    assert table.call(Kind.TRACK, after).code == INVALID_PARAM


def test_a_track_takes_hardly_any_memory() -> None:
    """What waits is limited by number alone, and was as large as its client pleased."""
    cluster, table, _ = tracked()
    table.begin(Kind.TRACK, 0, 0, b"x" * TRACK_BYTES_MAX)
    cluster.run(1)
    assert any("closes client link" in line for line in cluster.lines)


@pytest.mark.parametrize("lineage", [None, "x", [[]]])
def test_a_tenure_that_is_none_is_refused_also_where_it_would_wait(lineage: Any) -> None:
    """It was sent back after ten seconds, whatever it was."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC_COLLOCATED)
    assert table.call(Kind.TRACK, 0, lineage).code == INVALID_PARAM


@pytest.mark.parametrize("body", [b"\xc1", b"\x91\xff", b"\x90"])
def test_a_forwarded_track_that_is_garbage_ends_the_link_it_came_by(body: bytes) -> None:
    """It was held until the directory's news came, and looked into then: the link that brought the news was
    ended, and what else was held was lost."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=ASYNC_COLLOCATED)
    table.client.move("b")
    node = cluster.node("a")
    route = FORWARD_ROUTE.pack(Kind.TRACK, table.creation_id, 1, node.directory.seq + 1)
    frame = encode_frame(Kind.FORWARD, 77, node.context.epoch, table.client.session, route + body)
    cluster.deliver("a", PeerReceived("b", FrameDecoder().feed(frame)))
    cluster.client("c").open_existing()
    (line,) = (line for line in cluster.lines if "invalid frame" in line)
    assert "a: closes the link to b: " in line


@pytest.mark.parametrize("body", [b"", b"\x90", b"\x01", b"\xc1"])
def test_a_track_that_is_garbage_ends_its_connection_also_where_it_would_wait(body: bytes) -> None:
    """It was held while the node could not serve, and looked into when it could: that stopped the core."""
    cluster, _, standby = tracked()
    for frozen in (False, True):
        client = standby.opened.client
        if frozen:
            cluster.cut("b", "a")
            cluster.cut("b", "c")
            cluster.run(1000)
        number = client.begin(Kind.PING).number + 1
        client.numbers = number
        cluster.send_to_node(client.link, encode_frame(Kind.TRACK, number, standby.opened.handle, 1, body))
        cluster.run(5)
        assert client.link not in cluster.node("b").sessions.links
        cluster.heal()
        cluster.run(2000)
        client.attach("b")


def test_tracking_needs_read() -> None:
    cluster, _, _ = tracked()
    writer = cluster.client("b").open_existing(mode=SA_CKPT_CHECKPOINT_WRITE)
    assert writer.call(Kind.TRACK, None).code == ACCESS


def test_a_page_of_an_iteration_has_no_more_than_was_asked_for() -> None:
    _, table, _ = tracked()
    for key in (b"a", b"b", b"c"):
        table.write(key, b"v")
    first = table.call(Kind.ITERATE, 5, 0, None, False, 1).payload
    assert [row[0] for row in first[0]] == [b"a"]
    rest = table.call(Kind.ITERATE, 5, 0, first[1], False, 2).payload
    assert [row[0] for row in rest[0]] == [b"b", b"c"]
    assert table.call(Kind.ITERATE, 5, 0, None, False, 0).code == INVALID_PARAM


def test_iterating_needs_read_but_not_at_b01() -> None:
    """B.01.01 lists no ACCESS error for it (R110)."""
    cluster, table, _ = tracked()
    writer = cluster.client("b").open_existing(mode=SA_CKPT_CHECKPOINT_WRITE)
    assert writer.call(Kind.ITERATE, 5, 0, None, False).code == ACCESS
    old = table.client.open(mode=SA_CKPT_CHECKPOINT_WRITE)
    assert old.call(Kind.ITERATE, 5, 0, None, False).code == OK


def test_the_changes_have_the_numbers_of_the_protocol() -> None:
    numbers = (Change.CREATED, Change.WRITTEN, Change.OVERWRITTEN, Change.DELETED, Change.EXPIRED)
    assert numbers == (CREATED, WRITTEN, OVERWRITTEN, DELETED, EXPIRED)
    assert SA_CKPT_CHECKPOINT_READ == 1


@pytest.mark.parametrize("at", ["a", "b"])
def test_trackers_that_wait_are_bounded(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 TRACKs of one client were all looked at with each heartbeat, until the node missed its own."""
    for module in ("requests.waiting_reads", "requests.turn_budget", "operations.resource_usage"):
        monkeypatch.setattr(f"ckptd.core.{module}.TRACKERS_MAX", 20)
    cluster = three_nodes(share_of_limits=1)
    table = cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    cluster.run(50)
    assert cluster.active() == "a"
    tracker = cluster.client(at).open_existing()
    sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
    calls = [tracker.begin(Kind.TRACK, sequence, lineage) for _ in range(30)]
    cluster.run(50)
    assert [call.code for call in calls] == [None] * 20 + [TRY_AGAIN] * 10
    for node_id in {"a", at}:
        assert cluster.node(node_id)._limits()["trackers"] == (20, 20)
    table.write(b"k", b"v")
    cluster.run(50)
    assert [call.code for call in calls[:20]] == [OK] * 20
    assert cluster.node(at)._limits()["trackers"] == (0, 20)
    cluster.check()


@pytest.mark.parametrize("at", ["a", "b"])
def test_one_client_has_its_share_of_the_trackers(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others find room, and so does it once its own were answered, repeated or given up."""
    for module in ("requests.waiting_reads", "requests.turn_budget", "operations.resource_usage"):
        monkeypatch.setattr(f"ckptd.core.{module}.TRACKERS_MAX", 20)
    cluster = three_nodes()
    table = cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    cluster.run(50)
    tracker, other = cluster.client(at).open_existing(), cluster.client(at).open_existing()
    for _ in range(3):
        sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
        calls = [tracker.begin(Kind.TRACK, sequence, lineage) for _ in range(10)]
        cluster.run(5)
        for call in calls:
            if not call.answers:
                tracker.client.send(call)
        cluster.run(5)
        assert [call.code for call in calls] == [None] * 5 + [TRY_AGAIN] * 5
        theirs = other.begin(Kind.TRACK, sequence, lineage)
        cluster.run(5)
        table.write(b"k", b"v")
        cluster.run(50)
        assert [call.code for call in [*calls[:5], theirs]] == [OK] * 6
    calls = [tracker.begin(Kind.TRACK, tracker.call(Kind.TRACK, None, 0).payload[0], lineage)]
    cluster.run(11_000)
    assert [call.code for call in calls] == [OK]
    assert not any(cluster.node(at).turns.trackers.values()) and not cluster.node(at).turns.tracker_count
    cluster.check()


def test_a_tracker_gets_changes_when_its_client_went_to_another_node_and_back_to_its_link() -> None:
    """A move that fails late ends so: what waits on the link that stays is not asked again."""
    cluster = three_nodes()
    here = cluster.client("b").open(flags=ASYNC_COLLOCATED)
    there = cluster.client("c").open_existing()
    mine = cluster.client("a").open_existing()
    assert there.set_active().code == OK
    cluster.settle()
    sequence, _, lineage = here.call(Kind.TRACK, None, 0).payload
    call = here.begin(Kind.TRACK, sequence, lineage)
    cluster.run(5)
    client = here.client
    first = client.link
    client.attach("a")
    client.node_id, client.link = "b", first
    again = Call(client._next(), Kind.ATTACH, client.session, pack_body([False]))
    client.calls[again.number] = again
    client.send(again, 9)
    cluster.until(lambda: again.code == OK)
    assert mine.set_active().code == OK
    cluster.settle()
    mine.write(b"k", b"v")
    cluster.run(50)
    assert call.code == OK
    cluster.check()


def test_a_tracker_that_waits_in_a_lane_does_not_take_the_place_of_its_repeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seed 7215794: its client had gone to another node and asked there, and was told nothing for ten seconds."""
    monkeypatch.setattr("ckptd.core.requests.router.RETRY_AT_ONCE_MAX", 0)
    cluster = three_nodes(replicas=2)
    table = cluster.client("a").open()
    cluster.run(50)
    active = cluster.active() or ""
    (third,) = cluster.replica(active).active.commit_set  # type: ignore[union-attr]
    (other,) = set("abc") - {active, third}
    tracker = cluster.client(active).open_existing()
    sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
    call = tracker.begin(Kind.TRACK, sequence, lineage)
    cluster.run(5)
    first = tracker.client.link
    cluster.deliver(active, ClientCongested(first))
    cluster.node(active).requests.change_feed.recheck([cluster.replica(active).creation_id])
    tracker.client.move(other)
    cluster.run(5)
    cluster.deliver(active, ClientDrained(first))
    cluster.run(5)
    table.write(b"k", b"v")
    cluster.run(50)
    assert call.code == OK
    cluster.check()


def test_a_tracker_that_is_repeated_while_no_view_is_in_force_is_counted_once() -> None:
    """The two met when the next view was installed: one took the other's place, and both stayed counted."""
    cluster = three_nodes()
    table = cluster.client("a").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    cluster.run(50)
    tracker = cluster.client("b").open_existing()
    sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
    call = tracker.begin(Kind.TRACK, sequence, lineage)
    cluster.run(5)
    cluster.kill("c")
    cluster.until(lambda: not cluster.serving("b"))
    tracker.client.send(call)
    cluster.settle()
    table.write(b"k", b"v")
    cluster.run(50)
    assert call.code == OK
    assert not cluster.node("b").turns.trackers
    cluster.check()


def test_a_tracker_that_is_withdrawn_from_its_lane_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had gone there from those that waited, since many did; each cost its client one of its share."""
    monkeypatch.setattr("ckptd.core.requests.router.RETRY_AT_ONCE_MAX", 0)
    cluster = nodes("a")
    table = cluster.client("a").open()
    sequence, _, lineage = table.call(Kind.TRACK, None, 0).payload
    call = table.begin(Kind.TRACK, sequence, lineage)
    cluster.run(1)
    turns = cluster.node("a").turns
    assert list(turns.trackers.values()) == [1]
    cluster.client("a").open_existing().begin_write(b"k", b"v")
    cluster.until(lambda: turns.lanes)
    client = table.client
    ping = Call(client._next(), Kind.PING, 0, pack_body([call.number]))
    client.calls[ping.number] = ping
    frame = Frame(Kind.PING, ping.number, 0, ping.number, ping.body)
    cluster.deliver("a", ClientReceived(client.link, [frame]))
    cluster.run(1)
    assert call.code == TRY_AGAIN
    assert not turns.trackers
    cluster.check()


def test_trackers_whose_time_is_over_are_answered_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptd.core.requests.waiting_reads.ANSWERS_PER_EVENT_MAX", 5)
    cluster = nodes("a")
    tracker = cluster.client("a").open()
    sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
    calls = [tracker.begin(Kind.TRACK, sequence, lineage) for _ in range(30)]
    cluster.run(TRACK_WAIT_NS / 1_000_000 - 1)
    told = [0]
    while told[-1] < 30:
        cluster.run(1)
        told.append(sum(bool(call.answers) for call in calls))
    assert max(later - earlier for earlier, later in pairwise(told)) == 5
    cluster.check()


def test_trackers_of_links_that_are_gone_are_counted_no_more() -> None:
    """They were held while their node did not serve, went on when it did, and a view dropped them uncounted.

    With 16,384 of them no TRACK at that node would have been taken any more.
    """
    cluster = three_nodes()
    cluster.client("a").open()
    cluster.run(50)
    away = cluster.client("b")
    tracker = away.open_existing()
    sequence, _, lineage = tracker.call(Kind.TRACK, None, 0).payload
    cluster.pause("a")
    cluster.pause("c")
    cluster.run(700)
    for _ in range(20):
        tracker.begin(Kind.TRACK, sequence, lineage)
    cluster.run(1)
    requests = cluster.node("b").requests
    assert len(requests.waiting.parked) == 20
    away.disconnect()
    cluster.run(1)
    cluster.resume("a")
    cluster.resume("c")
    cluster.until(lambda: cluster.serving("b") and not requests.waiting.parked)
    cluster.kill("c")
    cluster.run(2500)
    assert (requests.turns.tracker_count, requests.turns.trackers) == (0, {})
