"""A node that was held up itself (a pause, a collector) accuses nobody of silence for it."""

import pytest
from tests.core.cluster import nodes, three_nodes, two_nodes


def epochs(cluster: object) -> set[int]:
    return {node.view.epoch for node in cluster.running()}  # type: ignore[attr-defined]


@pytest.mark.parametrize("node_id", ["a", "b", "c"])
@pytest.mark.parametrize("pause_ms", [50, 300, 499])
def test_a_pause_under_half_a_second_changes_no_view(node_id: str, pause_ms: int) -> None:
    cluster = three_nodes()
    table = cluster.client("b").open()
    table.write(b"k", b"v")
    before = epochs(cluster)
    for _ in range(5):
        call = table.begin_write(b"k", b"w")
        cluster.pause(node_id)
        cluster.run(pause_ms)
        cluster.resume(node_id)
        cluster.run(200)
        assert call.code == 1
    assert epochs(cluster) == before
    cluster.check()


@pytest.mark.parametrize("pause_ms", [900, 5000])
def test_a_node_that_was_paused_for_long_reads_what_waits_before_it_judges(pause_ms: int) -> None:
    """It woke, found everybody silent for longer than the grace, and asked for a view without them."""
    cluster = two_nodes()
    before = epochs(cluster)
    cluster.hosts["a"].node.context.deadline_ns = 2**62  # type: ignore[union-attr]
    node = cluster.node("a")
    cluster.cut("a", "b")
    cluster.run(100)
    cluster.cuts.clear()
    cluster.hosts["a"].node.context.deadline_ns = cluster.now_ns  # type: ignore[union-attr]
    cluster.hosts["a"].schedule()
    cluster.run(100)
    assert epochs(cluster) == before
    peer = node.liveness.peers["b"]
    peer.heard_ns -= pause_ms * 10**6
    node.heartbeats.next_ns = cluster.now_ns - pause_ms * 10**6
    node._on_local_pause(pause_ms * 10**6)
    assert node.liveness.detector.recently_heard(peer), (
        "what it did not hear while it was held up counts against nobody"
    )
    cluster.run(500)
    assert epochs(cluster) == before


def test_lag_excuses_only_the_time_of_the_lag() -> None:
    cluster = two_nodes()
    node = cluster.node("a")
    cluster.cut("a", "b")
    cluster.run(700)
    node._on_local_pause(200 * 10**6)
    peer = node.liveness.peers["b"]
    assert node.liveness.detector.recently_heard(peer)
    cluster.run(400)
    assert not node.liveness.detector.recently_heard(peer)


def test_acknowledgements_that_a_paused_node_did_not_read_are_not_overdue() -> None:
    cluster = nodes("abc", replica_timeout_ns=200 * 10**6)
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    before = epochs(cluster)
    active = cluster.active()
    assert active is not None
    for _ in range(3):
        call = table.begin_write(b"k", b"w")
        cluster.run(0.12)
        cluster.pause(active)
        cluster.run(450)
        cluster.resume(active)
        cluster.run(200)
        assert call.code == 1
    assert epochs(cluster) == before


@pytest.mark.parametrize("paused", ["a", "b", "ab"])
def test_a_node_of_a_pair_that_was_paused_evicts_no_node(paused: str) -> None:
    """It had served nothing for three graces, and held that against the other, whose echoes were old."""
    cluster = two_nodes()
    cluster.client("b").open().write(b"k", b"v")
    epoch = cluster.node("a").context.epoch
    for node_id in paused:
        cluster.pause(node_id)
    if paused == "a":
        cluster.run(3000)  # The coordinator's silence is no proof: the other waits.
    else:
        cluster.run(700)
    for node_id in paused:
        cluster.resume(node_id)
    cluster.run(2500)
    assert [cluster.node(node_id).context.epoch for node_id in "ab"] == [epoch, epoch]
    cluster.check()
