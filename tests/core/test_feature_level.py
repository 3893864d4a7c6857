"""The feature level of a view: what an older node would ignore waits until no node is older (ADR 31)."""

from dataclasses import replace
from typing import Any

from tests.core.client import Answer, Opened
from tests.core.cluster import Cluster, nodes

from ckpt_protocol import codes
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_requests import Describe
from ckptd.core.settings import NEWEST, FeatureLevel

CONDITION: list[Any] = [Op.REQUIRE, b"k", None]


def set_version(cluster: Cluster, node_id: str, level: int) -> None:
    """Have the node's next process run a version with this feature level."""
    host = cluster.hosts[node_id]
    host.settings = replace(host.settings, feature_level=level)


def mixed(node_ids: str = "abc", old: str = "c", witnesses: str = "", level: int = 0) -> Cluster:
    """A cluster that serves, in which one node runs an older version."""
    cluster = Cluster(node_ids, witnesses=witnesses)
    set_version(cluster, old, level)
    cluster.start(*node_ids, *witnesses)
    cluster.check()
    return cluster


def try_condition(table: Opened) -> Answer:
    return table.try_update(CONDITION, [Op.PUT, b"l", b"1", None])


def level_of(cluster: Cluster, node_id: str = "a") -> int:
    return cluster.node(node_id).context.feature_level


def test_a_cluster_of_one_version_has_its_level_at_once() -> None:
    cluster = nodes("abc")
    assert [level_of(cluster, node_id) for node_id in "abc"] == [NEWEST] * 3
    assert try_condition(cluster.client("a").open()).code == codes.OK


def test_conditions_are_refused_while_one_node_is_older() -> None:
    cluster = mixed()
    table = cluster.client("a").open()
    refused = try_condition(table)
    assert refused.code == codes.NOT_SUPPORTED
    assert "every configured node must run" in refused.text
    assert table.try_update([Op.PUT, b"l", b"1", None]).code == codes.OK
    assert table.call(Kind.READ, [b"l", 0, None, True]).code == codes.NOT_SUPPORTED
    assert table.call(Kind.ITERATE, 5, 0, None, True, None, True).code == codes.NOT_SUPPORTED
    status = cluster.node("a").describe(Describe("cluster", None))
    assert (status["feature_level"], status["feature_level_waits_for"]) == (0, ["c"])


def test_the_level_rises_when_the_last_old_node_comes_back_with_the_new_version() -> None:
    cluster = mixed()
    table = cluster.client("a").open()
    cluster.kill("c")
    cluster.until(lambda: len(cluster.node("a").view.members) == 2)
    assert try_condition(table).code == codes.NOT_SUPPORTED, "it may come back as it was"
    set_version(cluster, "c", NEWEST)
    cluster.restart("c")
    cluster.check()
    assert [level_of(cluster, node_id) for node_id in "abc"] == [NEWEST] * 3
    assert try_condition(table).code == codes.OK


def test_a_node_that_never_came_keeps_the_level_down() -> None:
    cluster = Cluster("abc")
    cluster.start("a", "b")
    cluster.until(lambda: cluster.serving("a") and cluster.serving("b"))
    table = cluster.client("a").open()
    assert try_condition(table).code == codes.NOT_SUPPORTED
    cluster.start("c")
    cluster.check()
    assert try_condition(table).code == codes.OK


def test_a_node_that_is_away_counts_with_the_version_that_it_was_seen_with() -> None:
    cluster = nodes("abc")
    cluster.kill("c")
    cluster.until(lambda: len(cluster.node("a").view.members) == 2)
    assert try_condition(cluster.client("a").open()).code == codes.OK


def test_an_older_node_that_comes_later_is_not_admitted_and_says_what_to_do() -> None:
    cluster = nodes("abc")
    table = cluster.client("a").open()
    assert try_condition(table).code == codes.OK
    cluster.kill("c")
    set_version(cluster, "c", 0)
    cluster.restart("c")
    cluster.run(3000)
    assert list(cluster.node("a").view.members) == ["a", "b"]
    assert level_of(cluster) == NEWEST
    assert table.try_update([Op.PUT, b"l", b"2", None]).code == codes.OK
    assert "upgrade ckptd on this node" in cluster.node("c").context.alarms["too_old"]
    assert "node c is too old" in cluster.node("a").context.alarms["too_old"]
    cluster.kill("c")
    set_version(cluster, "c", NEWEST)
    cluster.restart("c")
    cluster.check()
    cluster.run(50)
    assert not any("too_old" in node.context.alarms for node in cluster.running())


def test_the_level_is_on_disk_with_the_view() -> None:
    """All nodes start again, one of them with an older version."""
    cluster = nodes("abc")
    for node_id in "abc":
        cluster.kill(node_id)
    set_version(cluster, "c", 0)
    cluster.start(*"abc")
    cluster.until(lambda: cluster.serving("a") and cluster.serving("b"))
    assert list(cluster.node("a").view.members) == ["a", "b"]
    assert level_of(cluster) == NEWEST


def test_an_older_node_proposes_no_view_above_its_level() -> None:
    """With the lowest node id it would be first."""
    cluster = nodes("abc")
    for node_id in "abc":
        cluster.kill(node_id)
    set_version(cluster, "a", 0)
    cluster.start(*"abc")
    cluster.until(lambda: cluster.serving("b") and cluster.serving("c"))
    assert level_of(cluster, "b") == NEWEST
    assert not cluster.serving("a")


def test_an_older_witness_keeps_the_level_down() -> None:
    """It stores views, and would drop the level from one."""
    cluster = mixed("ab", "w", "w")
    assert level_of(cluster) == 0
    assert try_condition(cluster.client("a").open()).code == codes.NOT_SUPPORTED


def test_a_forced_view_keeps_the_level() -> None:
    cluster = nodes("abc")
    for node_id in "bc":
        cluster.kill(node_id, silent=True)
    cluster.run(2000)
    assert cluster.operate("a", "force-active").code == codes.OK
    cluster.until(lambda: cluster.serving("a"))
    assert level_of(cluster) == NEWEST


def test_weak_batches_have_no_versions_while_a_node_is_older() -> None:
    """An older node refuses an operation with a field that it does not know."""
    cluster = mixed()
    table = cluster.client("a").open(flags=4)
    table.write(b"k", b"1")
    cluster.run(100)
    pieces = [op for node_id in "bc" for op in cluster.replica(node_id).sections.sections.values()]
    assert len({(section.version, section.content) for section in pieces}) == 1
    cluster.check()


def test_a_checkpoint_is_not_resized_while_a_node_is_older() -> None:
    """It would ignore the resize, and accept less than the others."""
    cluster = mixed(level=FeatureLevel.TAKEOVER)
    table = cluster.client("a").open()
    resize = [Op.RESIZE, 200, None, None, False]
    answer = table.try_update(resize)
    assert answer.code == codes.NOT_SUPPORTED
    assert "every configured node" in answer.text
    cluster.kill("c")
    set_version(cluster, "c", NEWEST)
    cluster.restart("c")
    cluster.check()
    assert table.try_update(resize).code == codes.OK
    cluster.check()
