"""The loss of the active replica's node: what survives, who takes over, when it serves."""

import pytest
from tests.core.client import Opened
from tests.core.cluster import WALL_OFFSET_NS, Cluster, nodes, three_nodes

from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.codes import FAILED_OPERATION, OK, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_SECTION_CORRUPTED,
    SA_CKPT_SECTION_VALID,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import FrameDecoder
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS

ASYNC, WEAK = SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK


def opened(cluster: Cluster, flags: int = SA_CKPT_WR_ALL_REPLICAS) -> tuple[Opened, Opened]:
    """A writer at a, where the active replica is, and one at c."""
    writer = cluster.client("a").open(flags=flags)
    other = cluster.client("c").open_existing()
    cluster.run(20)
    assert cluster.active() == "a"
    return writer, other


def test_no_acknowledged_sync_write_is_lost_when_the_active_node_dies() -> None:
    cluster = three_nodes()
    writer, other = opened(cluster)
    calls = []
    for number in range(30):
        calls.append(writer.begin_write(b"k%d" % number, b"v"))
        cluster.run(0.05)
    cluster.kill("a")
    acknowledged = [b"k%d" % i for i, call in enumerate(calls) if call.code == OK]
    assert 0 < len(acknowledged) < 30
    found = other.read_all()
    assert set(acknowledged) <= set(found)
    assert list(found) == sorted(found) and len(found) == len(cluster.contents("b"))
    cluster.check()


def test_a_client_whose_update_waits_at_a_node_that_is_cut_off_learns_that_by_ping() -> None:
    """It got no answer, found the node alive and stayed there until its time-out, while the others went on."""
    cluster = three_nodes()
    writer, other = opened(cluster)
    cluster.cut("a", "bc")
    call = writer.begin_write(b"k", b"v")
    ping = writer.client.begin(Kind.PING)
    cluster.run(1)
    assert (call.code, ping.code) == (None, OK)
    cluster.run(1_000)
    ping = writer.client.begin(Kind.PING)
    cluster.run(1)
    assert (call.code, ping.code) == (None, TRY_AGAIN)
    writer.client.move("b")
    assert writer.client.end(call).code == OK
    assert other.read(b"k") == b"v"
    cluster.heal()
    cluster.check()


def test_the_longest_staged_tail_is_kept_and_given_to_all() -> None:
    """rules 5.4: nothing staged is rolled back, though only one survivor holds it."""
    cluster = three_nodes()
    writer, other = opened(cluster)
    writer.write(b"k", b"1")
    cluster.hold("a", "b")
    calls = [writer.begin_write(b"k", b"%d" % number) for number in (2, 3, 4)]
    cluster.run(2)
    assert [call.code for call in calls] == [None] * 3
    assert (cluster.replica("b").last_seq, cluster.replica("c").last_seq) == (1, 4)
    cluster.kill("a")
    assert other.read(b"k") == b"4"
    assert cluster.contents("b") == cluster.contents("c") == {b"k": b"4"}
    writer.client.move("b")
    cluster.run(20)
    assert [call.code for call in calls] == [OK] * 3
    assert other.read(b"k") == b"4"
    cluster.check()


@pytest.mark.parametrize(("ahead", "behind"), ["bc", "cb"])
def test_what_one_survivor_holds_is_served_only_when_the_other_one_has_it(ahead: str, behind: str) -> None:
    """ADR 6: what was answered to a reader might else be lost with the one that holds it."""
    cluster = three_nodes()
    writer, _ = opened(cluster)
    reader = cluster.client(ahead).open_existing()
    writer.write(b"k", b"old")
    cluster.run(20)
    cluster.hold("a", behind)
    writer.begin_write(b"k", b"new")
    cluster.run(2)
    cluster.kill("a")
    cluster.until(lambda: all(node.context.epoch == 2 for node in cluster.running()))
    cluster.hold(ahead, behind)
    read = reader.begin_read(b"k")
    cluster.run(100)
    assert read.code is None
    assert cluster.contents(behind) == {b"k": b"old"}
    cluster.release(ahead, behind)
    cluster.run(50)
    assert read.code == OK and read.answers[0].payload == [b"new"]
    cluster.check()


def test_a_read_of_what_is_pending_is_answered_after_the_fail_over_too() -> None:
    """A question to an active replica that is not ready yet must not be forgotten."""
    cluster = three_nodes()
    writer, other = opened(cluster)
    cluster.hold("b", "a")
    cluster.hold("c", "a")
    writer.begin_write(b"k", b"v")
    cluster.run(2)
    read = other.begin_read(b"k")
    cluster.run(2)
    assert read.code is None
    cluster.kill("a")
    cluster.run(100)
    assert read.code == OK and read.answers[0].payload == [b"v"]
    cluster.check()


@pytest.mark.parametrize("flags", [ASYNC, WEAK])
def test_an_asynchronous_fail_over_may_lose_a_tail_and_never_a_part_of_an_update(flags: int) -> None:
    cluster = three_nodes()
    writer, other = opened(cluster, flags)
    writer.update([Op.PUT, b"a", b"1", None], [Op.PUT, b"b", b"1", None])
    cluster.run(20)
    cluster.hold("a", "b")
    cluster.hold("a", "c")
    writer.update([Op.PUT, b"a", b"2", None], [Op.PUT, b"b", b"2", None])
    cluster.run(20)
    cluster.kill("a")
    assert other.read_all() == {b"a": b"1", b"b": b"1"}
    cluster.restart("a")
    cluster.check()


@pytest.mark.parametrize("flags", [ASYNC, WEAK])
@pytest.mark.parametrize(("ahead", "behind"), ["bc", "cb"])
def test_the_most_advanced_asynchronous_replica_gives_what_it_has(
    flags: int, ahead: str, behind: str
) -> None:
    """Whichever of the two becomes active: it catches up first."""
    cluster = three_nodes()
    writer, other = opened(cluster, flags)
    writer.write(b"k", b"1")
    cluster.run(20)
    cluster.hold("a", behind)
    writer.write(b"k", b"2")
    cluster.run(20)
    assert (cluster.contents(ahead), cluster.contents(behind)) == ({b"k": b"2"}, {b"k": b"1"})
    cluster.kill("a")
    assert other.read(b"k") == b"2"
    cluster.check()
    assert cluster.contents(behind) == {b"k": b"2"}


def test_a_hot_weak_section_costs_one_transfer_in_a_batch() -> None:
    cluster = three_nodes()
    writer, other = opened(cluster, WEAK)
    cluster.sent.clear()
    for number in range(100):
        writer.begin_write(b"hot", b"%d" % number)
    cluster.run(50)
    to_b = sum(len(data) for sender, peer, data in cluster.sent if (sender, peer) == ("a", "b"))
    assert cluster.contents("b") == {b"hot": b"99"}
    assert cluster.replica("b").last_seq == 1
    assert to_b < 100 * 60
    assert other.read(b"hot") == b"99"
    cluster.check()


def take_over_amid_a_weak_batch() -> tuple[Cluster, Opened]:
    """Of a batch in two portions only the first came: the new active replica holds `first` as corrupted."""
    cluster = three_nodes(weak_batch_bytes=1000)
    writer, other = opened(cluster, WEAK)
    for section_id in (b"first", b"second"):
        writer.write(section_id, b"0" * 900)
    cluster.run(20)
    for node_id in "bc":
        cluster.hold("a", node_id)
    for section_id, value in ((b"second", b"1"), (b"first", b"2"), (b"second", b"2")):
        writer.write(section_id, value * 900)
    cluster.run(20)
    for node_id in "bc":
        for link, data in cluster.holds.pop(("a", node_id))[:1]:
            cluster.network.arrive(link, "a", node_id, data)
    cluster.kill("a")
    cluster.until(lambda: cluster.active() is not None)
    return cluster, other


def test_a_weak_batch_that_arrived_in_part_shows_no_later_update_without_an_earlier_one() -> None:
    """Second 1, first 2, second 2 were one batch in two portions: the new active replica had second 2 and the
    first as it was before. Who sees the later one has to see the earlier one (R59), or that it is corrupted."""
    cluster, other = take_over_amid_a_weak_batch()
    assert other.read(b"second") == b"2" * 900
    assert other.try_read(b"first").code == FAILED_OPERATION
    cluster.restart("a")
    cluster.check()


def test_a_corrupted_weak_section_stays_so_everywhere_when_its_expiration_changes() -> None:
    """The batch that told of the new time brought what there was of it as the whole: the other replicas had
    an empty section, valid, and were to show it after the next fail-over."""
    cluster, other = take_over_amid_a_weak_batch()
    other.update([Op.EXPIRATION_SET, b"first", SA_TIME_END])
    cluster.run(50)
    for node_id in "bc":
        assert cluster.replica(node_id).sections.sections[b"first"].state == SA_CKPT_SECTION_CORRUPTED
    cluster.restart("a")
    cluster.check()


def test_a_weak_batch_names_no_more_sections_than_one_update_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first portion marks all that the others bring: of two bulk loads in one batch that was an update
    longer than any replica takes, which ended the links to them again and again."""
    monkeypatch.setattr("ckptd.core.replication.weak_batch.BATCH_SECTIONS_MAX", 10)
    cluster = three_nodes(weak_batch_bytes=1000)
    writer, _ = opened(cluster, WEAK)
    updates = [
        writer.begin(Kind.UPDATE, *([Op.PUT, b"%d.%d" % (load, i), b"v" * 200, None] for i in range(8)))
        for load in range(3)
    ]
    cluster.until(lambda: all(update.answers for update in updates))
    cluster.run(50)
    log = cluster.replica("b").log
    assert max(len(unpack_body(update.body)[0]) for update in log.entries) == 8
    cluster.check()


def test_a_weak_section_whose_pieces_did_not_all_arrive_is_corrupted_until_overwritten() -> None:
    """SAF 3.1.3 and rules 4: a half-arrived section is never served as valid."""
    cluster = three_nodes(weak_batch_bytes=1000)
    writer, other = opened(cluster, WEAK)
    writer.write(b"small", b"v")
    cluster.run(20)
    for node_id in "bc":
        cluster.hold("a", node_id)
    writer.write(b"large", bytes(3500))
    cluster.run(20)
    for node_id in "bc":
        held = cluster.holds.pop(("a", node_id))
        for link, data in held[:2]:  # Two pieces of four arrive.
            cluster.network.arrive(link, "a", node_id, data)
    cluster.kill("a")
    cluster.until(lambda: cluster.active() is not None)
    assert other.states() == {b"small": SA_CKPT_SECTION_VALID, b"large": SA_CKPT_SECTION_CORRUPTED}
    assert other.try_read(b"large").code != OK
    assert other.try_update([Op.WRITE, b"large", 10, b"v"]).code != OK
    assert other.read(b"small") == b"v"
    other.update([Op.OVERWRITE, b"large", b"whole"])
    assert other.states()[b"large"] == SA_CKPT_SECTION_VALID
    assert other.read(b"large") == b"whole"
    cluster.restart("a")
    cluster.check()
    assert cluster.contents("a")[b"large"] == b"whole"


def test_synchronize_returns_when_every_replica_has_what_the_active_one_had() -> None:
    """SAF 3.7.5."""
    for flags in (ASYNC, WEAK):
        cluster = three_nodes()
        writer, other = opened(cluster, flags)
        cluster.hold("a", "b")
        writer.write(b"k", b"v")
        call = other.begin(Kind.SYNCHRONIZE)
        cluster.run(50)
        assert call.code is None
        assert cluster.contents("b") == {}
        cluster.release("a", "b")
        cluster.run(5)
        assert call.code == OK
        assert cluster.contents("b") == {b"k": b"v"}
        assert writer.synchronize().code == OK
        cluster.check()


def test_section_expiration_is_an_update_and_continues_after_a_fail_over() -> None:
    """SAF 3.6.1: replicas never disagree, and whoever takes over re-arms the timer."""
    cluster = three_nodes()
    writer, other = opened(cluster)
    wall_ns = WALL_OFFSET_NS + cluster.now_ns
    soon, later = wall_ns + 100 * MILLISECOND_NS, wall_ns + 2 * SECOND_NS
    writer.update([Op.PUT, b"soon", b"v", soon], [Op.PUT, b"later", b"v", later], [Op.PUT, b"k", b"v", None])
    cluster.run(90)
    assert set(other.read_all()) == {b"soon", b"later", b"k"}
    cluster.run(20)
    assert set(other.read_all()) == {b"later", b"k"}
    assert all(set(cluster.contents(n)) == {b"later", b"k"} for n in "abc")
    cluster.kill("a")
    cluster.run(1000)
    assert set(other.read_all()) == {b"later", b"k"}
    cluster.until(lambda: WALL_OFFSET_NS + cluster.now_ns > later)
    cluster.run(5)
    assert set(other.read_all()) == {b"k"}
    cluster.check()


def test_an_expiration_that_was_postponed_does_not_come_at_its_old_time() -> None:
    cluster = three_nodes()
    writer, _ = opened(cluster)
    soon = WALL_OFFSET_NS + cluster.now_ns + 100 * MILLISECOND_NS
    writer.update([Op.PUT, b"k", b"v", soon])
    writer.update([Op.EXPIRATION_SET, b"k", SA_TIME_END])
    cluster.run(200)
    assert writer.read(b"k") == b"v"
    cluster.check()


def test_writes_continue_when_a_backup_dies_and_it_is_rebuilt_when_it_returns() -> None:
    cluster = three_nodes()
    writer, other = opened(cluster)
    cluster.kill("b")
    for number in range(10):
        writer.write(b"k%d" % number, b"v")
    cluster.restart("b")
    cluster.settle()
    assert cluster.contents("b") == other.read_all() and len(cluster.contents("b")) == 10
    assert cluster.in_sync("b") == ["a", "b", "c"]
    cluster.check()


def test_a_replica_that_does_not_acknowledge_is_evicted_from_the_view() -> None:
    """rules 5.6: heartbeats alone do not keep a stuck node; writes pause for replica_timeout at most."""
    cluster = three_nodes()
    writer, _ = opened(cluster)
    cluster.hold("b", "a")
    call = writer.begin_write(b"k", b"v")
    cluster.run(590)
    assert call.code is None
    cluster.run(1500)
    assert call.code == OK
    view = cluster.node("a").view
    assert view is not None and "b" not in view.members
    cluster.release("b", "a")
    cluster.check()
    assert cluster.contents("b") == {b"k": b"v"}


def test_an_active_replica_that_becomes_ready_on_a_new_link_serves_the_requests_that_wait() -> None:
    """The link broke between the updates that it fetched and JOINED. It was ready, and told nobody for 10 s."""
    cluster = nodes("bcde", replicas=4)
    owner = cluster.client("b")
    tables = [owner.open(name=b"x%d" % number, flags=SA_CKPT_WR_ACTIVE_REPLICA) for number in range(4)]
    table, name = next((t, b"x%d" % n) for n, t in enumerate(tables) if t.creation_id % 3 == 0)
    table.write(b"k", b"0")
    cluster.run(100)
    far = cluster.client("e").open_existing(name)
    near = cluster.client("c").open_existing(name)
    cluster.settle()
    cluster.hold("b", "c")
    cluster.hold("b", "e")
    for number in range(3):
        table.write(b"k", b"%d" % number)
    cluster.run(5)
    cluster.kill("b")
    cluster.hold("d", "c")
    while not _release_up_to(cluster, "d", "c", Kind.JOINED):
        cluster.run(0.1)
    writes = [far.begin_write(b"far", b"1"), near.begin_write(b"near", b"2")]
    cluster.run(1)
    cluster.flap("d", "c")
    cluster.holds.clear()
    cluster.run(500)
    assert [write.code for write in writes] == [OK, OK]
    cluster.check()


def _release_up_to(cluster: Cluster, sender: str, peer: str, kind: int) -> bool:
    """Let held data pass until the next of it has a frame of this kind. Return True if it has."""
    held = cluster.holds[sender, peer]
    while held:
        link, data = held[0]
        if any(frame.kind == kind for frame in FrameDecoder().feed(data)):
            return True
        del held[0]
        cluster.network.arrive(link, sender, peer, data)
    return False
