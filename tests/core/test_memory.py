"""A node's memory limit: what would go beyond it is NO_MEMORY, and what there is goes on."""

import pytest
from tests.core.cluster import Cluster, nodes, three_nodes

from ckpt_protocol.codes import NO_MEMORY, OK, TRY_AGAIN
from ckpt_protocol.constants import SA_CKPT_WR_ACTIVE_REPLICA_WEAK
from ckpt_protocol.messages import Op
from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES
from ckptd.core.settings import MILLISECOND_NS, Settings

LIMIT = 400_000
BLOCK = bytes(4000)


def filled(cluster: Cluster, flags: int = 1) -> int:
    """Write sections until one is refused; how many there were."""
    table = cluster.client("b").open(flags=flags, sections_max=1000)
    for number in range(1000):
        answer = table.try_write(b"%d" % number, BLOCK)
        if answer.code != OK:
            assert answer.code == NO_MEMORY, answer
            return number
    raise AssertionError("nothing was refused")


def test_what_goes_beyond_the_limit_is_refused_and_changes_nothing() -> None:
    cluster = three_nodes(memory_bytes_max=LIMIT)
    count = filled(cluster)
    assert 50 <= count <= LIMIT // len(BLOCK)
    table = cluster.client("a").open_existing()
    assert sorted(table.read_all()) == sorted(b"%d" % number for number in range(count))
    cluster.run(100)
    for node_id in "abc":
        assert (
            "memory" in cluster.node(node_id).context.alarms
            or cluster.node(node_id).context.resident_bytes < LIMIT
        )
    cluster.check()


def test_a_full_node_still_overwrites_shrinks_and_deletes_and_has_capacity_again_then() -> None:
    cluster = three_nodes(memory_bytes_max=LIMIT)
    count = filled(cluster)
    table = cluster.client("c").open_existing()
    table.write(b"0", bytes(len(BLOCK)))
    table.write(b"1", b"")
    for number in range(2, 40):
        table.update([Op.DELETE, b"%d" % number])
    cluster.run(1200)
    assert "memory" not in cluster.node("b").context.alarms
    table.write(b"2", BLOCK)
    assert len(table.read_all()) == count - 37
    cluster.check()


def test_half_of_an_atomic_update_is_never_kept_when_the_other_half_exceeds_the_capacity() -> None:
    cluster = three_nodes(memory_bytes_max=LIMIT)
    filled(cluster)
    table = cluster.client("a").open_existing()
    before = table.read_all()
    answer = table.try_update([Op.PUT, b"0", b"small", None], [Op.PUT, b"new", BLOCK + BLOCK, None])
    assert answer.code in (NO_MEMORY, 7)
    if answer.code == NO_MEMORY:
        assert table.read_all() == before


def test_a_weak_checkpoint_has_the_same_limit() -> None:
    cluster = three_nodes(memory_bytes_max=LIMIT)
    assert 50 <= filled(cluster, SA_CKPT_WR_ACTIVE_REPLICA_WEAK) <= LIMIT // len(BLOCK)
    cluster.check()


def test_a_replica_elsewhere_that_is_full_refuses_for_all() -> None:
    """c may hold less than the active replica's node: its word travels in its heartbeats."""
    cluster = Cluster("abc")
    small = Settings("c", peers=("a", "b"), memory_bytes_max=LIMIT)
    cluster.hosts["c"].settings = small
    cluster.start("a", "b", "c")
    cluster.settle()
    table = cluster.client("a").open(sections_max=1000)
    written = 0
    while table.try_write(b"%d" % written, BLOCK).code == OK:
        written += 1
        cluster.run(30)  # As fast as heartbeats tell.
    assert written <= LIMIT // len(BLOCK) + 2
    assert "node c" in table.try_write(b"more", BLOCK).text
    cluster.check()


def test_no_replica_is_placed_on_a_full_node() -> None:
    cluster = nodes("abcd", replicas=3, memory_bytes_max=LIMIT)
    filled(cluster)
    entry = cluster.node("a").directory.find(b"x")
    assert entry is not None
    spare = next(node_id for node_id in "abcd" if node_id not in entry.replicas)
    node = cluster.node(spare)
    node.context.resident_bytes = LIMIT
    node._replicas.capacity.recount_due_ns = 2**62
    cluster.run(100)
    cluster.kill(next(node_id for node_id in entry.replicas if node_id != "b"))
    cluster.run(3000)
    entry = cluster.node(spare).directory.find(b"x")
    assert entry is not None and spare not in entry.replicas
    node._replicas.capacity.recount_due_ns = 0
    cluster.run(1000)


def full_at(full: str, node_ids: str, replicas: int) -> Cluster:
    """A cluster of which one node's replicas take all that they may."""
    cluster = Cluster(node_ids, replicas=replicas)
    peers = tuple(node_id for node_id in node_ids if node_id != full)
    cluster.hosts[full].settings = Settings(full, peers=peers, replicas=replicas, memory_bytes_max=LIMIT)
    cluster.start(*node_ids)
    cluster.settle()
    table = cluster.client(full).open(sections_max=1000)
    for number in range(LIMIT // len(BLOCK) + 100):
        table.try_write(b"%d" % number, BLOCK)
    cluster.node(full)._replicas.capacity.recount_due_ns = 2**62
    cluster.node(full).context.resident_bytes = LIMIT
    cluster.run(1_500)
    assert cluster.node(peers[0]).context.full_nodes == (full,)
    return cluster


@pytest.mark.parametrize("full", ["b", "c"])
def test_a_new_checkpoint_has_no_replica_on_a_full_node_where_another_is_spare(full: str) -> None:
    """Be it the node whose client creates it. With one of three nodes full no new checkpoint could be written."""
    cluster = full_at(full, "abc", replicas=2)
    fresh = cluster.client("b").open(b"fresh")
    fresh.write(b"k", b"v")
    assert full not in cluster.in_sync("a", b"fresh")
    assert len(cluster.in_sync("a", b"fresh")) == 2


def test_a_new_checkpoint_has_no_fewer_replicas_for_want_of_memory() -> None:
    """What one copy alone had acknowledged went with it, in a crash or a planned leave."""
    cluster = full_at("a", "ab", replicas=3)
    fresh = cluster.client("a").open(b"fresh")
    assert fresh.try_write(b"k", BLOCK).code == NO_MEMORY
    assert cluster.in_sync("a", b"fresh") == ["a", "b"]


def test_a_replica_without_memory_is_deferred_until_there_is_some() -> None:
    cluster = Cluster("abc", chunk_bytes=4000)
    cluster.hosts["c"].settings = Settings("c", peers=("a", "b"), memory_bytes_max=LIMIT, chunk_bytes=4000)
    cluster.start("a", "b")
    cluster.settle()
    table = cluster.client("a").open(sections_max=1000)
    for number in range(200):
        table.write(b"%d" % number, BLOCK)
    cluster.start("c")
    cluster.run(3000)
    assert cluster.node("c").context.counters["joins_without_memory"] >= 1
    assert cluster.in_sync("a") == ["a", "b"]
    assert cluster.node("c").context.resident_bytes < LIMIT
    table.write(b"0", b"writes go on")
    for number in range(180):
        table.update([Op.DELETE, b"%d" % number])
    cluster.until(lambda: cluster.in_sync("a") == ["a", "b", "c"])
    cluster.check()


def test_sections_count_at_once_in_every_state_and_not_only_when_all_is_counted_again() -> None:
    """A node that was not active counted the content of a new section, and not what the section itself takes."""
    cluster = three_nodes(memory_bytes_max=LIMIT)
    table = cluster.client("a").open(sections_max=1000)
    cluster.run(1000)
    for node_id in "abc":
        cluster.node(node_id)._replicas.capacity.recount_due_ns = 2**62
    before = {node_id: cluster.node(node_id).context.resident_bytes for node_id in "abc"}
    for number in range(100):
        table.write(b"%d" % number, b"")
    cluster.run(20)
    for node_id in "abc":
        assert (
            cluster.node(node_id).context.resident_bytes - before[node_id] >= 100 * SECTION_OVERHEAD_BYTES
        ), node_id
    cluster.check()


def test_a_replica_of_small_sections_counts_what_the_sections_take_while_it_is_made() -> None:
    cluster = Cluster("abc")
    cluster.hosts["c"].settings = Settings("c", peers=("a", "b"), memory_bytes_max=LIMIT)
    cluster.start("a", "b")
    cluster.settle()
    table = cluster.client("a").open(sections_max=2000)
    for number in range(2000):
        table.write(b"%d" % number, b"")
    cluster.start("c")
    cluster.until(lambda: cluster.node("c").context.counters.get("joins_without_memory", 0) > 0)
    assert cluster.in_sync("a") == ["a", "b"]


def test_what_waits_at_a_node_is_bounded_and_more_is_answered_try_again() -> None:
    cluster = three_nodes(requests_waiting_max=50, hold_ns=10**10)
    table = cluster.client("a").open()
    cluster.kill("b", silent=True)
    cluster.kill("c", silent=True)
    cluster.run(1000)
    assert not cluster.serving("a")
    calls = [table.begin_write(b"k", b"%d" % number) for number in range(80)]
    cluster.run(10)
    assert [call.code for call in calls].count(TRY_AGAIN) == 30
    assert len(cluster.node("a").requests.waiting.parked) == 50


def test_what_waits_takes_no_more_bytes_than_it_may() -> None:
    cluster = three_nodes(requests_waiting_bytes_max=64 * 1024, hold_ns=10**10)
    table = cluster.client("a").open(section_bytes_max=100_000)
    cluster.kill("b", silent=True)
    cluster.kill("c", silent=True)
    cluster.run(1000)
    for number in range(40):
        table.begin_write(b"k", bytes(10_000) + b"%d" % number)
        cluster.run(30)
    assert 6 <= len(cluster.node("a").requests.waiting.parked) <= 8


def test_a_replica_without_capacity_makes_no_other_node_wait() -> None:
    """All its chunks were under way: it was told that it had joined, and every write waited for it, again and again."""
    cluster = Cluster("abc")
    cluster.hosts["c"].settings = Settings("c", peers=("a", "b"), memory_bytes_max=400_000)
    cluster.start("a", "b")
    cluster.settle()
    table = cluster.client("a").open(sections_max=1000)
    for number in range(130):
        table.write(b"%d" % number, bytes(4000))
    cluster.start("c")
    cluster.until(lambda: cluster.node("c").context.counters.get("joins_without_memory", 0) > 0)
    epoch = cluster.node("a").context.epoch
    for number in range(40):
        begun_ns = cluster.now_ns
        table.write(b"0", b"%d" % number)
        assert cluster.now_ns - begun_ns < 100 * MILLISECOND_NS
        cluster.run(500)
    assert cluster.node("a").context.epoch == epoch
    assert cluster.node("c").context.counters["joins_without_memory"] > 2, "it is tried again"


def test_a_node_that_has_capacity_again_takes_the_replicas_that_are_missing() -> None:
    cluster = nodes("abcd", replicas=3, memory_bytes_max=400_000)
    cluster.client("b").open().write(b"k", b"v")
    holders = cluster.in_sync("b")
    (spare,) = set("abcd") - set(holders)
    node = cluster.node(spare)
    node.context.resident_bytes = 400_000
    node._replicas.capacity.recount_due_ns = 2**62
    cluster.run(100)
    cluster.kill(next(node_id for node_id in holders if node_id != "b"))
    cluster.run(3000)
    assert spare not in cluster.in_sync("b")
    node._replicas.capacity.recount_due_ns = 0
    cluster.until(lambda: spare in cluster.in_sync("b"))
