"""A checker that never fires is no checker: rules of the core, switched off, are found by the ordinary seeds.

Here are some that show soon; `make sweep-mutants` searches a seed for all of them. Some matter too rarely for
that: a scenario of the core shows each of those.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.core import (
    test_carrying,
    test_collocated,
    test_joining,
    test_lifetimes,
    test_operating,
    test_resizing,
)

from ckptd.core.arbiter.paxos import PaxosArbiter
from ckptd.core.content.update_log import UpdateLog
from ckptd.core.membership.orphaned_sessions import OrphanedSessions
from ckptd.core.replication import local_replicas, resync
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.replication.resizing import Resizing
from ckptd.sim.draw.draw_options import draw_options
from ckptd.sim.mutants.mutant import Patch
from ckptd.sim.mutants.mutants import MUTANTS, switched_off
from ckptd.sim.simulation import simulate
from ckptd.sim.sweep import find_seed

SEEDS_MAX = 60
"""Most need a few; a change of the core makes other histories of them."""

FOUND_AT_ONCE = (
    "half an update",
    "answered before acknowledged",
    "retention never ends",
    "the living declared dead",
    "log first when it grows",
    "directory first when it shrinks",
)
FOUND_SOON = (
    "pending reads not asked",
    "reports not awaited",
    "joiners count at once",
    "directory calls twice",
    "directory acked by some",
    "sessions never end",
    "growth on full nodes",
    "refused though done",
    "refusals believed",
    "outranked continue",
    "token not compared",
    "others write as well",
    "leadership left behind",
    "last come first served",
    "ttl goes on",
    "resize not finished after fail-over",
    "limits left behind",
)


@pytest.mark.parametrize(
    "name", [*FOUND_AT_ONCE, *(pytest.param(name, marks=pytest.mark.extended) for name in FOUND_SOON)]
)
def test_a_rule_that_is_switched_off_is_found(name: str) -> None:
    assert find_seed(name, 1, SEEDS_MAX, jobs=1).found is not None


@pytest.mark.parametrize("steps", [1_000, pytest.param(0, id="all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_can_be_made_and_unmade(name: str, steps: int) -> None:
    """Each still fits the core: it is made, a seed runs with it, and the core is whole again.

    One named a field that had got another name. It raised at every start of a node, which counted as found.
    """
    before = {attribute: value for attribute, value in vars(UpdateLog).items() if callable(value)}
    with switched_off(name):
        verdict = simulate(draw_options(1, steps_max=steps, shape=MUTANTS[name].shape))
    assert not re.search(r"\b(Type|Attribute|Name)Error\(", verdict.text), verdict.text
    assert all(vars(UpdateLog)[attribute] is value for attribute, value in before.items())


def answers_do_not_travel(patch: Patch) -> None:
    """Off: the memory of answers travels with every join."""
    original = resync.receive_chunk

    def take_chunk(replica: Any, chunk: Any, source: str) -> None:
        original(replica, chunk, source)
        replica.log.answers = {}

    patch(local_replicas, "receive_chunk", take_chunk)


def orphans_live_on(patch: Patch) -> None:
    """Off: the sessions of a node that left end after their grace."""
    original = OrphanedSessions.on_installed

    def on_installed(orphans: Any, view: Any) -> None:
        original(orphans, view)
        orphans.until_ns.clear()

    patch(OrphanedSessions, "on_installed", on_installed)


def forced_views_void_all(patch: Patch) -> None:
    """Off: a voter that forgot what it promised since the operator's command abstains."""
    original = PaxosArbiter.on_decided_elsewhere

    def note(arbiter: Any, view: Any) -> None:
        original(arbiter, replace(view, members={}, witnesses={}) if view.operator_forced else view)

    patch(PaxosArbiter, "on_decided_elsewhere", note)


def served_uncounted(patch: Patch) -> None:
    """Off: an active replica serves once the directory counts it as in sync."""
    original = ActiveReplica.begin_activation

    def start(active: Any, in_sync: list[str], term: int, counted: bool) -> None:
        original(active, in_sync, term, True)

    patch(ActiveReplica, "begin_activation", start)


def shrunk_before_committed(patch: Patch) -> None:
    """Off: the directory takes smaller limits once every in-sync replica has them."""
    original = Resizing._bring_in_line

    def bring_in_line(resizing: Any, entry: Any) -> bool:
        resizing.table.limits_before = (0, resizing.table.limits_before[1])
        return original(resizing, entry)

    patch(Resizing, "_bring_in_line", bring_in_line)


@pytest.mark.parametrize(
    ("switch_off", "scenario"),
    [
        (
            MUTANTS["joined before committed"].switch_off,
            test_joining.test_a_replica_that_joined_shows_nothing_that_is_pending,
        ),
        (
            answers_do_not_travel,
            test_carrying.test_answers_that_come_during_the_join_are_kept_and_trimmed,
        ),
        (
            forced_views_void_all,
            test_operating.test_a_voter_that_lost_its_disk_after_the_operators_word_abstains_all_the_same,
        ),
        (
            served_uncounted,
            partial(
                test_collocated.test_an_active_replica_serves_once_the_directory_counts_it,
                test_collocated.KINDS[0],
            ),
        ),
        (
            shrunk_before_committed,
            partial(
                test_resizing.test_a_shrink_that_is_not_committed_is_not_in_the_directory,
                test_resizing.SHRANK,
            ),
        ),
        (orphans_live_on, test_lifetimes.test_a_session_of_a_dead_node_has_its_grace_too),
    ],
)
def test_a_rule_that_hardly_any_seed_shows_is_shown_by_a_scenario(
    switch_off: Callable[[Patch], None], scenario: Callable[[], None]
) -> None:
    """The scenario passes with every rule, as a test of its own, and not without this one."""
    patch = Patch()
    switch_off(patch)
    try:
        with pytest.raises((AssertionError, KeyError)):
            scenario()
    finally:
        patch.restore()
    scenario()
