"""Tests of the checkers: named mutants of the core, each with one rule switched off.

A checker that never fires proves nothing. The ordinary sweep must find every mutant; if it misses one, the
mixes of faults or the checkers have a hole. A mutant is a few patches. It is known by its name, so that
worker processes can apply it themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Patch:
    """Replaces attributes of classes or modules, and can restore them."""

    def __init__(self) -> None:
        self._stood: list[tuple[Any, str, Any]] = []

    def __call__(self, owner: Any, name: str, replacement: Any) -> None:
        self._stood.append((owner, name, vars(owner)[name]))
        setattr(owner, name, replacement)

    def take_back(self) -> None:
        """Restore all originals."""
        while self._stood:
            owner, name, original = self._stood.pop()
            setattr(owner, name, original)


@dataclass(slots=True, frozen=True)
class Mutant:
    """One mutant."""

    name: str
    rule: str
    """The rule that it switches off."""

    switch_off: Callable[[Patch], None]
    shape: str
    """Its seeds have this shape of `shapes.SHAPES`; "" for none."""


MUTANTS: dict[str, Mutant] = {}
"""All mutants, by name."""


def mutant(
    name: str, rule: str, shape: str = ""
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mutant."""

    def add(switch_off: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert name not in MUTANTS, name
        MUTANTS[name] = Mutant(name, rule, switch_off, shape)
        return switch_off

    return add


@contextmanager
def switched_off(name: str) -> Iterator[None]:
    """Run the core without one rule; "" switches none off."""
    patch = Patch()
    try:
        if name:
            MUTANTS[name].switch_off(patch)
        yield
    finally:
        patch.take_back()


# The tables add themselves.
