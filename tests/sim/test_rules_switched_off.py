"""A checker that never fires is no checker: rules of the core, switched off, are found by the ordinary seeds.

Here are some that show soon; `make sweep-mutants` hunts for all of them.
"""

import pytest

from ckptd.core.log import UpdateLog
from ckptd.sim.mutants import MUTANTS, switched_off
from ckptd.sim.sweep import Asked, hunt, sweep_seed

SEEDS = 60
"""Within so many from the known one on, since a change of the core makes other histories of them."""

KNOWN = {
    "half an update": 1,
    "answered before held": 1,
    "pending reads not asked": 1,
    "reports not awaited": 1,
    "joiners count at once": 1,
    "directory calls twice": 1,
    "directory held by some": 1,
    "retention never ends": 1,
    "sessions never end": 1,
}
"""Mutants that are found in a few seconds, and the seed from which on to look."""


@pytest.mark.parametrize("name", KNOWN)
def test_a_rule_that_is_switched_off_is_found(name: str) -> None:
    assert hunt(name, KNOWN[name], SEEDS, jobs=1).found is not None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_can_be_made_and_unmade(name: str) -> None:
    """Each still fits the core: it is made, a seed runs with it, and the core is whole again."""
    before = {attribute: value for attribute, value in vars(UpdateLog).items() if callable(value)}
    one = sweep_seed(Asked(1, mutant=name, shape=MUTANTS[name].shape))
    assert one.rule != "the simulator failed", one.text
    with switched_off(""):
        assert all(vars(UpdateLog)[attribute] is value for attribute, value in before.items())
