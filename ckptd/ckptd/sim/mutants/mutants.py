"""Tests of the checkers: named mutants of the core, each with one rule switched off.

A checker that never fires proves nothing. The ordinary sweep must find every mutant; if it misses one, the
mixes of faults or the checkers have a hole. A mutant is known by its name, so that worker processes can
apply it themselves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from ckptd.sim.mutants import of_leaders, of_limits, of_replicas, of_resizes, of_views
from ckptd.sim.mutants.mutant import Mutant, Patch

MUTANTS: Final[dict[str, Mutant]] = (
    of_leaders.TABLE | of_limits.TABLE | of_replicas.TABLE | of_resizes.TABLE | of_views.TABLE
)
"""All mutants, by name."""


@contextmanager
def switched_off(name: str) -> Iterator[None]:
    """Run the core without one rule; "" switches none off."""
    patch = Patch()
    try:
        if name:
            MUTANTS[name].switch_off(patch)
        yield
    finally:
        patch.restore()
