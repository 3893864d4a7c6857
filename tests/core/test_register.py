"""The arbiter `etcd`: a register outside, swapped by its revision; an unknown outcome is an outcome (R5)."""

from tests.core.cluster import Cluster, nodes
from tests.core.lone_hub import LoneHub

from ckptd.core.arbiter.disk_record import DiskRecord
from ckptd.core.arbiter.etcd import EtcdArbiter
from ckptd.core.events import AskRegister
from ckptd.core.view import bootstrap_view


def on_etcd(node_ids: str) -> Cluster:
    return nodes(node_ids, arbiter="etcd")


def test_of_two_nodes_the_one_that_reaches_the_register_continues() -> None:
    for survivor, cut_off in (("a", "b"), ("b", "a")):
        cluster = on_etcd("ab")
        table = cluster.client(survivor).open()
        table.write(b"k", b"v")
        cluster.cut("a", "b")
        cluster.cut_register(cut_off)
        cluster.until(lambda cluster=cluster, survivor=survivor: cluster.active() == survivor)
        cluster.run(2000)
        assert not cluster.serving(cut_off)
        table.write(b"k", b"w")
        cluster.register.cuts.clear()
        cluster.heal()
        cluster.check()
        assert cluster.contents(cut_off) == {b"k": b"w"}


def test_only_one_of_two_sides_that_both_reach_the_register_continues() -> None:
    cluster = on_etcd("ab")
    cluster.client("a").open().write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.run(5000)
    assert [cluster.serving("a"), cluster.serving("b")].count(True) == 1


def test_without_the_register_the_service_continues_views_wait_and_there_is_an_alarm() -> None:
    cluster = on_etcd("abc")
    table = cluster.client("a").open()
    cluster.cut_register("abc")
    cluster.run(5000)
    table.write(b"k", b"v")
    for node_id in "abc":
        assert "the view cannot change" in cluster.node(node_id).context.alarms["arbiter"]
    cluster.kill("c")
    call = table.begin_write(b"k", b"w")
    cluster.run(900)
    assert call.code is None, "it waits for a view without c"
    cluster.register.cuts.clear()
    cluster.run(5000)
    assert call.code == 1
    assert "arbiter" not in cluster.node("a").context.alarms


def test_a_swap_whose_answer_was_lost_is_found_in_the_register() -> None:
    cluster = on_etcd("ab")
    cluster.client("a").open().write(b"k", b"v")
    cluster.register.loses_swaps = True
    cluster.kill("b")
    cluster.until(lambda: cluster.serving("a") and len(cluster.node("a").view.members) == 1)  # type: ignore[union-attr]
    assert cluster.register.revision == 2, "the founding view and the next one: it was not swapped twice"


def test_a_node_learns_from_the_register_that_it_was_excluded() -> None:
    cluster = on_etcd("abc")
    cluster.client("a").open().write(b"k", b"v")
    cluster.cut("a", "b")
    cluster.cut("a", "c")
    cluster.run(5000)
    assert not cluster.serving("a")
    decided = cluster.node("a").reconfiguration.decided
    assert decided is not None and "a" not in decided.members


def test_a_wiped_register_is_filled_again_with_a_higher_epoch() -> None:
    cluster = on_etcd("abc")
    epoch = cluster.node("a").view.epoch  # type: ignore[union-attr]
    cluster.register.revision, cluster.register.value = 0, None
    cluster.kill("c")
    cluster.until(lambda: cluster.serving("a") and cluster.node("a").view.epoch > epoch)  # type: ignore[union-attr]
    assert cluster.register.revision == 1


def test_a_register_that_holds_no_view_is_an_alarm_and_nothing_is_put_over_it() -> None:
    cluster = on_etcd("ab")
    cluster.register.revision, cluster.register.value = 7, b"somebody else's"
    cluster.run(5000)
    assert "is not a view" in cluster.node("a").context.alarms["arbiter"]
    assert (cluster.register.revision, cluster.register.value) == (7, b"somebody else's")
    assert cluster.serving("a")


def test_an_answer_to_an_older_question_counts_for_nothing() -> None:
    cluster = on_etcd("ab")
    arbiter = cluster.node("a").arbiter
    assert isinstance(arbiter, EtcdArbiter)
    hub = LoneHub()
    arbiter.hub, decided = hub, hub.decided
    arbiter.number = 0
    arbiter.context.effects = []
    arbiter.propose(lambda current: bootstrap_view(9, {"a": 1}))
    (asked,) = [effect for effect in arbiter.context.effects if isinstance(effect, AskRegister)]
    arbiter.on_answered(asked.number - 1, True, 9, None)
    arbiter.on_failed(asked.number + 1, "late")
    assert arbiter.busy and decided == []
    arbiter.on_answered(asked.number, False, 0, None)
    assert arbiter.number == asked.number + 1 and arbiter.proposed == bootstrap_view(9, {"a": 1})
    arbiter.on_answered(arbiter.number, True, 1, DiskRecord().pack())
    assert decided == [bootstrap_view(9, {"a": 1})]


def test_a_node_that_left_while_the_register_was_read_proposes_no_empty_view() -> None:
    """Seed 23605: it was about to admit another one, whose link broke, and was asked to leave."""
    cluster = on_etcd("ab")
    cluster.kill("b")
    cluster.settle()
    cluster.restart("b")
    arbiter = cluster.node("a").arbiter
    cluster.until(lambda: arbiter.busy)
    cluster.leave("a")
    cluster.cut("a", "b")
    cluster.until(lambda: cluster.hosts["a"].node is None)
    cluster.restart("a")
    cluster.heal()
    cluster.check()
