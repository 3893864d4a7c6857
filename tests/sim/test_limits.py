"""Seeds whose nodes are short of memory, whose networks forge refusals, and in which an operator acts."""

from collections import Counter
from dataclasses import replace

import pytest
from tests.sim.scenario import three_nodes

from ckpt_protocol import codes
from ckpt_protocol.messages import Op, Verb
from ckptd.sim.checkers.checkers import without_outranked
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.cluster import Cluster
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.draw.limits import HASTY, SENSIBLE
from ckptd.sim.simulation import run_phases, simulate

SHORT_SEED = 9100006
"""A seed that draws memory limits: updates and copies find no room."""


def test_ordinary_seeds_draw_every_limit_and_those_with_a_given_shape_draw_none() -> None:
    drawn = [draw_options(seed) for seed in range(1, 301)]
    for has in (
        [bool(options.memory_bytes_max) for options in drawn],
        [not options.trust_rst for options in drawn],
        [bool(options.operator) for options in drawn],
    ):
        assert 15 <= sum(has) <= 75
    assert draw_options(SHORT_SEED).memory_bytes_max
    for without in (draw_options(SHORT_SEED, limits=False), draw_options(SHORT_SEED, shape="rolling")):
        assert not without.memory_bytes_max and without.trust_rst and not without.operator


def test_nodes_without_capacity_for_updates_and_replicas_report_that_they_are_full() -> None:
    updates = copies = full = 0
    for seed in range(3, 6):
        cluster = Cluster(draw_options(seed, shape="short of memory"))
        run_phases(cluster)
        calls = [call for calls in cluster.workload.history.calls.values() for call in calls]
        refused = [call for call in calls if call.code == codes.NO_MEMORY]
        assert all(call.outcome == Outcome.NOT_DONE for call in refused)
        updates += len(refused)
        full += cluster.oracles.memory.full
        copies += sum("not enough memory for a replica" in line for line in cluster.world.time_line)
    assert updates and copies and full


def test_a_network_that_forges_refusals_takes_nothing_from_nodes_that_trust_none() -> None:
    options = draw_options(1, shape="forged refusals")
    assert simulate(options).good
    trusting = [
        simulate(replace(draw_options(seed, shape="forged refusals"), trust_rst=True)) for seed in (1, 2)
    ]
    assert all(verdict.good for verdict in trusting), "where they are trusted nobody forges any"


@pytest.mark.extended
@pytest.mark.parametrize("operator", [SENSIBLE, HASTY])
def test_an_operator_bootstraps_clusters_and_accepts_losses(operator: str) -> None:
    done: Counter[str] = Counter()
    for seed in (*range(1, 12), 84):
        cluster = Cluster(replace(draw_options(seed, shape="operated by hand"), operator=operator))
        run_phases(cluster)
        done += cluster.operator.counts
    assert done["bootstrap done"] and done["accept-loss done"]
    assert operator == SENSIBLE or (done["bootstrap refused"] and done["accept-loss refused"])


def test_a_cluster_that_is_bootstrapped_before_the_other_machines_came_loses_nothing() -> None:
    """Who comes later joins; nothing that was acknowledged meanwhile is in doubt."""
    options = replace(
        draw_options(1, shape="operated by hand"),
        nodes=3,
        arbiter="",
        witnesses=0,
        operator=SENSIBLE,
        late=2,
        fault_every_ns=0,
    )
    cluster = Cluster(options)
    run_phases(cluster)
    assert cluster.operator.counts == Counter({"bootstrap done": 1})
    views = cluster.oracles.views
    assert not views.history_lost and not any(views.lost.values()) and not views.outranked


def test_a_command_counts_only_for_nodes_that_know_of_it() -> None:
    """Beyond a cut the others go on with who was given up: there its data is to be kept."""
    scenario = three_nodes()
    faults, first = scenario.faults, scenario.coordinator
    cut_off, helper = scenario.others(first)
    faults.cut(faults.ways_around(cut_off))
    scenario.until(lambda: scenario.active is not None and len(scenario.node(first).view.members) == 2)  # type: ignore[union-attr]
    scenario.cluster.operator.command(scenario.cluster.hosts[cut_off], Verb.ACCEPT_LOSS, first)
    views = scenario.cluster.oracles.views
    assert views._is_declared_dead(first, [cut_off])
    assert not views._is_declared_dead(first, [helper])
    faults.heal_all()
    scenario.converge()
    assert not views._is_declared_dead(first, [cut_off, helper, first])


def test_what_the_side_declared_dead_answered_since_counts_for_nothing() -> None:
    def write(epoch: int, begin: int) -> Call:
        ops = [[Op.PUT, b"x", b"%d" % begin, None]]
        return Call(0, begin, 1, Operation.UPDATE, ops, begin, begin + 5, Outcome.OK, epoch=epoch)

    calls = [write(3, 10), write(3, 30), write(1003, 40)]
    told = without_outranked(calls, [(20, 1003)])
    assert told[0] is calls[0] and told[2] is calls[2]
    assert (told[1].outcome, told[1].returned_ns) == (Outcome.PENDING, -1)
