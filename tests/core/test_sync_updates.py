"""WR_ALL_REPLICAS without a failure: what every replica holds, and what readers may see meanwhile."""

from tests.core.cluster import Cluster, three_nodes

from ckpt_protocol.codes import ACCESS, BAD_HANDLE, BAD_OPERATION, EXIST, NOT_EXIST, OK
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE, SA_TIME_END
from ckpt_protocol.messages import Kind, Op


def held_update(cluster: Cluster) -> None:
    """From now on b's acknowledgements do not reach a: nothing commits."""
    cluster.hold("b", "a")


def test_a_write_is_read_at_every_node_at_once() -> None:
    """SAF 3.1.3: a synchronous update is at every replica when the call returns."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    others = [cluster.client(node_id).open_existing() for node_id in "bc"]
    for number in range(20):
        table.write(b"k", b"%d" % number)
        assert [other.read(b"k") for other in others] == [b"%d" % number] * 2
    assert all(cluster.contents(node_id) == {b"k": b"19"} for node_id in "abc")
    cluster.check()


def test_writes_through_other_nodes_are_ordered_by_the_active_replica() -> None:
    cluster = three_nodes()
    tables = [cluster.client("a").open(), *(cluster.client(n).open_existing() for n in "bc")]
    calls = [table.begin_write(b"k%d" % i, b"v") for i in range(20) for table in tables]
    cluster.until(lambda: all(call.answers for call in calls))
    assert {call.code for call in calls} == {OK}
    assert len(cluster.contents("a")) == 20
    assert [cluster.replica(n).last_seq for n in "abc"] == [60, 60, 60]
    cluster.check()


def test_a_write_is_not_answered_before_every_replica_holds_it() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    held_update(cluster)
    call = table.begin_write(b"k", b"v")
    cluster.run(50)
    assert not call.answers
    assert cluster.contents("c") == {b"k": b"v"}
    cluster.release("b", "a")
    cluster.run(5)
    assert call.code == OK
    cluster.check()


def test_a_read_at_the_active_replica_shows_the_state_before_a_pending_update() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"old")
    held_update(cluster)
    table.begin(Kind.UPDATE, [Op.PUT, b"k", b"new", None], [Op.PUT, b"j", b"new", None])
    cluster.run(5)
    assert table.read(b"k") == b"old"
    assert table.try_read(b"j").code == NOT_EXIST
    assert table.read_all() == {b"k": b"old"}
    assert table.status()[1:3] == [1, 3]
    cluster.release("b", "a")
    cluster.run(5)
    assert table.read_all() == {b"k": b"new", b"j": b"new"}
    cluster.check()


def test_a_read_at_a_replica_asks_the_active_one_where_an_update_is_pending() -> None:
    """Apportioned queries (rules 5.3): the committed version is answered, never the staged one."""
    cluster = three_nodes()
    table = cluster.client("a").open()
    reader = cluster.client("c").open_existing()
    table.write(b"k", b"old")
    table.write(b"quiet", b"old")
    cluster.run(50)
    held_update(cluster)
    table.begin_write(b"k", b"new")
    cluster.run(5)
    assert cluster.contents("c")[b"k"] == b"new"
    cluster.sent.clear()
    assert reader.read(b"quiet") == b"old"
    assert not [way for way in cluster.sent if way[0] == "c"], "an untouched section is read here"
    assert reader.read(b"k") == b"old"
    assert reader.status()[2] == 6
    assert [way for way in cluster.sent if way[0] == "c"], "a touched one needs a question"
    cluster.release("b", "a")
    cluster.run(5)
    assert reader.read(b"k") == b"new"
    cluster.check()


def test_a_reader_that_was_shown_an_update_shows_it_to_all_later_readers() -> None:
    """The active replica has committed and told nobody yet: a replica must not answer with the old state."""
    cluster = three_nodes(commit_notice_ns=10**9)
    table = cluster.client("a").open()
    reader = cluster.client("b").open_existing()
    for content in (b"1", b"2", b"3"):
        table.write(b"k", content)
        assert table.read(b"k") == content
        assert reader.read(b"k") == content
    cluster.check()


def test_a_deleted_section_is_read_while_the_deletion_is_pending() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    reader = cluster.client("c").open_existing()
    table.write(b"k", b"old")
    held_update(cluster)
    table.begin(Kind.UPDATE, [Op.DELETE, b"k"])
    cluster.run(5)
    assert reader.read(b"k") == b"old"
    assert reader.read_all() == {b"k": b"old"}
    cluster.release("b", "a")
    cluster.run(5)
    assert reader.try_read(b"k").code == NOT_EXIST
    cluster.check()


def test_a_refusal_that_depends_on_a_pending_update_waits_for_its_commit() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    held_update(cluster)
    created = table.begin(Kind.UPDATE, [Op.CREATE, b"k", SA_TIME_END, b"v"])
    again = table.begin(Kind.UPDATE, [Op.CREATE, b"k", SA_TIME_END, b"w"])
    cluster.run(50)
    assert not created.answers and not again.answers
    cluster.release("b", "a")
    cluster.run(5)
    assert (created.code, again.code) == (OK, EXIST)
    cluster.check()


def test_a_refused_update_reaches_no_other_node_and_leaves_no_trace() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.run(50)
    cluster.sent.clear()
    answer = table.try_update([Op.PUT, b"k", b"w", None], [Op.OVERWRITE, b"missing", b""])
    assert (answer.code, answer.index) == (NOT_EXIST, 1)
    assert cluster.sent == []
    assert table.read_all() == {b"k": b"v"}
    cluster.check()


def test_generated_ids_are_the_same_at_every_replica() -> None:
    """SAF 3.6.1: the generated identifier is the service's choice, once for all replicas."""
    cluster = three_nodes()
    table = cluster.client("b").open()
    ids = table.update(*([Op.CREATE, b"", SA_TIME_END, b"%d" % i] for i in range(5)))
    assert len(set(ids)) == 5
    assert all(cluster.contents(n) == {key: b"%d" % i for i, key in enumerate(ids)} for n in "abc")
    cluster.check()


def test_a_broken_link_delays_a_write_and_loses_nothing() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    for down_ms in (1, 30, 200):
        cluster.hold("a", "b")
        calls = [table.begin_write(b"k%d" % i, b"%d" % down_ms) for i in range(5)]
        cluster.run(1)
        cluster.flap("a", "b", down_ms)
        cluster.holds.clear()
        cluster.until(lambda: all(call.answers for call in calls))  # noqa: B023
        assert {call.code for call in calls} == {OK}
    view = cluster.node("a").view
    assert view is not None and view.epoch == 1
    assert cluster.contents("b") == {b"k%d" % i: b"200" for i in range(5)}
    cluster.check()


def test_a_lost_acknowledgement_is_sent_again_when_the_link_is_back() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    cluster.hold("b", "a")
    call = table.begin_write(b"k", b"v")
    cluster.run(1)
    cluster.flap("a", "b")
    cluster.holds.clear()
    cluster.run(20)
    assert call.code == OK
    cluster.check()


def test_a_node_without_a_replica_passes_reads_and_writes_on() -> None:
    cluster = three_nodes(replicas=1)
    table = cluster.client("a").open()
    far = cluster.client("c").open_existing()
    far.write(b"k", b"v")
    assert table.read(b"k") == far.read(b"k") == b"v"
    assert cluster.in_sync("c") == ["a"]
    assert far.status()[4] == [["a", True]]
    cluster.check()


def test_open_modes_are_kept_at_every_node() -> None:
    """SAF 3.5.1: ACCESS without the open flag; SAF 3.7.5: BAD_OPERATION for Synchronize on a sync checkpoint."""
    cluster = three_nodes()
    cluster.client("a").open()
    for node_id in "abc":
        reader = cluster.client(node_id).open_existing(mode=SA_CKPT_CHECKPOINT_READ)
        writer = cluster.client(node_id).open_existing(mode=SA_CKPT_CHECKPOINT_WRITE)
        assert reader.try_write(b"k", b"v").code == ACCESS
        assert writer.try_write(b"k", b"v").code == OK
        assert writer.try_read(b"k").code == ACCESS
        assert reader.synchronize().code == ACCESS
        assert writer.synchronize().code == BAD_OPERATION
        assert writer.set_active().code == BAD_OPERATION
        reader.close()
        assert reader.try_read(b"k").code == BAD_HANDLE
    cluster.check()
