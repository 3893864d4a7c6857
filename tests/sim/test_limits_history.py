"""What the clients that resize checkpoints know, and the rules that it is compared with."""

from dataclasses import replace

from tests.core.cluster import three_nodes

from ckpt_protocol.messages import Op
from ckptd.core.checks.invariants import over_directory
from ckptd.core.directory.attributes import Limits
from ckptd.sim.checkers.limits_history import LimitsHistory, limits_of, with_limits
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.simulation import simulate

CREATED = [1, 64 * 96, 0, 64, 96, 8]


def test_limits_are_known_of_each_creation() -> None:
    history = LimitsHistory()
    known = history.known(7, CREATED)
    assert (known.in_force, known.certain) == ((64, 96, 8), True)
    assert history.known(7, CREATED) is known is not history.known(8, CREATED)
    assert limits_of(with_limits(CREATED, (72, 100, 9))) == (72, 100, 9)


def test_attributes_may_show_what_shrinks_before_what_grows() -> None:
    known = LimitsHistory().known(7, CREATED)
    known.asked.append((72, 120, 8))
    assert known.may_show((72, 120, 8)) and known.may_show((64, 120, 8))
    assert not known.may_show((64, 97, 8))


def test_a_doubtful_resize_leaves_nothing_certain() -> None:
    known = LimitsHistory().known(7, CREATED)
    known.doubtful.append((72, 120, 8))
    assert not known.certain


def test_limits_above_those_of_the_directory_are_reported() -> None:
    cluster = three_nodes()
    cluster.client("a").open()
    cluster.until(cluster.active)
    active = cluster.active()
    assert active is not None
    entry = cluster.node(active).directory.find(b"x")
    assert entry is not None and over_directory(cluster.replica(active), entry) == ""
    state = cluster.replica(active).sections.resize_state
    larger = Limits(101, 4096, 64)
    cluster.replica(active).sections.put_limits(state._replace(in_force=larger))
    assert "(101, 4096, 64)" in over_directory(cluster.replica(active), entry)
    cluster.replica(active).sections.put_limits(state)


def test_clients_resize_in_some_seeds_and_in_no_others() -> None:
    drawn = [draw_options(seed).resizers for seed in range(1, 301)]
    assert 20 < sum(map(bool, drawn)) < 80
    assert not any(draw_options(seed, limits=False).resizers for seed in range(1, 301))


def test_a_seed_resizes_and_asks_what_is_in_force() -> None:
    options = replace(draw_options(1, shape="resizes"), fault_every_ns=0)
    verdict = simulate(options)
    assert verdict.good, verdict.text
    assert verdict.events > 1000
    assert Op.RESIZE == 16
