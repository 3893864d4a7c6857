"""A disk that fails: the service goes on, and no vote is given that could be forgotten."""

import pytest
from tests.core.cluster import three_nodes, two_nodes

from ckptd.core.events import PersistFailed


def test_a_node_whose_disk_is_full_serves_on_and_says_so() -> None:
    cluster = three_nodes()
    table = cluster.client("a").open()
    cluster.hosts["a"].disk.full = True
    cluster.deliver("a", PersistFailed(1, "no space left"))
    cluster.run(100)
    table.write(b"k", b"v")
    assert "cannot write" in cluster.node("a").context.alarms["disk"]
    cluster.hosts["a"].disk.full = False
    cluster.run(100)
    assert cluster.node("a").context.alarms == {}


def test_a_node_whose_disk_is_full_gives_no_vote() -> None:
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.hosts["b"].disk.full = True
    cluster.kill("c")
    cluster.run(3000)
    assert not cluster.serving("a") and not cluster.serving("b")
    cluster.hosts["b"].disk.full = False
    cluster.settle()
    assert cluster.contents("a") == {b"k": b"v"}


def test_a_coordinator_of_a_pair_does_not_continue_alone_without_a_disk() -> None:
    """R3: the epoch is on disk before it serves alone, or the other one could not know after a restart."""
    cluster = two_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.hosts["a"].disk.full = True
    cluster.kill("b", silent=True)
    cluster.run(3000)
    assert not cluster.serving("a")
    cluster.hosts["a"].disk.full = False
    cluster.until(lambda: cluster.serving("a"))


def test_a_member_whose_disk_is_full_does_not_serve_in_a_view_that_its_disk_does_not_know() -> None:
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.settle()
    cluster.hosts["b"].disk.full = True
    cluster.restart("c")
    cluster.run(3000)
    assert not cluster.serving("b")
    cluster.hosts["b"].disk.full = False
    cluster.check()


@pytest.mark.parametrize("full", "ab")
def test_a_member_that_cannot_install_a_view_is_excluded_so_that_the_others_continue(full: str) -> None:
    """Seen with real processes: b's disk was full, c came back, and nobody served until b had room.

    The view with all three was decided by a and c, and needed b's acknowledgement for ever. `a` coordinates.
    """
    cluster = three_nodes()
    cluster.client("a").open().write(b"k", b"v")
    cluster.kill("c")
    cluster.settle()
    cluster.hosts[full].disk.full = True
    cluster.restart("c")
    cluster.run(3000)
    others = [node_id for node_id in "abc" if node_id != full]
    assert [cluster.serving(node_id) for node_id in others] == [True, True]
    assert not cluster.serving(full)
    table = cluster.client(others[0]).open_existing()
    table.write(b"k", b"w")
    cluster.hosts[full].disk.full = False
    cluster.check()
    assert cluster.contents(full) == {b"k": b"w"}


def test_the_coordinator_of_a_pair_does_not_admit_a_node_that_could_not_serve_with_it() -> None:
    cluster = two_nodes()
    table = cluster.client("a").open()
    table.write(b"k", b"v")
    cluster.hosts["b"].disk.full = True
    cluster.cut("a", "b")
    cluster.run(3000)
    cluster.heal()
    cluster.run(3000)
    assert cluster.serving("a") and not cluster.serving("b")
    table.write(b"k", b"w")
    cluster.hosts["b"].disk.full = False
    cluster.check()
    assert cluster.contents("b") == {b"k": b"w"}
