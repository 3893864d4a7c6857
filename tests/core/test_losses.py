"""What an asynchronous checkpoint loses with its active replica's node is said: a lower bound, at once."""

import pytest
from tests.core.cluster import three_nodes

from ckpt_protocol.constants import (
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.messages import Op


@pytest.mark.parametrize("flags", [SA_CKPT_WR_ACTIVE_REPLICA, SA_CKPT_WR_ACTIVE_REPLICA_WEAK])
def test_updates_that_no_other_replica_got_are_counted_by_the_one_that_takes_over(flags: int) -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=flags)
    table.write(b"k", b"v")
    cluster.run(100)
    active = cluster.active()
    assert active == "b"
    for other in "ac":
        cluster.hold(active, other)
    for number in range(7):
        table.write(b"k%d" % number, b"w")
        cluster.run(10)
    cluster.run(60)  # Heartbeats tell of what was ordered, though the updates themselves are stuck.
    cluster.kill(active)
    cluster.until(lambda: cluster.active() not in (None, "b"))
    new = cluster.active()
    assert new is not None
    ((_, lost),) = cluster.replica(new).known_losses
    assert lost == 7
    assert cluster.node(new).context.counters["updates_lost_at_least"] == 7
    assert any("at least 7 of its last updates are lost" in line for line in cluster.lines)


def test_no_loss_is_reported_where_all_replicas_had_everything_or_the_role_was_handed_over() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    for number in range(20):
        table.write(b"k", b"%d" % number)
    cluster.run(100)
    cluster.kill("b")
    cluster.until(lambda: cluster.active() not in (None, "b"))
    cluster.leave(str(cluster.active()))
    cluster.run(1000)
    for node in cluster.running():
        assert "updates_lost_at_least" not in node.context.counters


def test_a_loss_is_reported_once_and_not_again_at_the_next_take_over() -> None:
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    for other in "ac":
        cluster.hold("b", other)
    table.write(b"k", b"v")
    cluster.run(60)
    cluster.kill("b")
    cluster.until(lambda: cluster.active() not in (None, "b"))
    first = str(cluster.active())
    cluster.restart("b")
    cluster.check()
    cluster.kill(first)
    cluster.until(lambda: cluster.active() not in (None, first))
    second = str(cluster.active())
    assert "updates_lost_at_least" not in cluster.node(second).context.counters


def test_a_sync_checkpoint_reports_no_loss() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open(flags=SA_CKPT_WR_ALL_REPLICAS)
    table.write(b"k", b"before")
    active = str(cluster.active())
    for other in "abc":
        if other != active:
            cluster.hold(active, other)
    table.begin_write(b"k", b"v")
    cluster.run(100)
    cluster.kill(active)
    cluster.until(lambda: cluster.active() not in (None, active))
    for node in cluster.running():
        assert "updates_lost_at_least" not in node.context.counters


def test_a_generated_id_that_was_lost_is_not_given_again() -> None:
    """Real processes showed it: the id that one client was told named the section of another."""
    cluster = three_nodes()
    table = cluster.client("b").open(flags=SA_CKPT_WR_ACTIVE_REPLICA)
    table.write(b"k", b"v")
    for other in "ac":
        cluster.hold("b", other)
    ((lost_id,), (kept_id,)) = (table.update([Op.CREATE, b"", SA_TIME_END, b"lost"]) for _ in range(2))
    assert lost_id != kept_id
    cluster.kill("b")
    cluster.until(lambda: cluster.active() not in (None, "b"))
    other_table = cluster.client("a").open_existing()
    given = [other_table.update([Op.CREATE, b"", SA_TIME_END, b"new"])[0] for _ in range(3)]
    assert lost_id not in given and kept_id not in given
