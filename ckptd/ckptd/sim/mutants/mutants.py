"""The checkers are checked: named mutants of the core, each with one rule switched off.

A checker that never fires is no checker. The ordinary sweep must find every mutant; one
that it does not find says that the mixes of faults, or the checkers, have a hole. A
mutant is a few patches, and goes by its name, so that worker processes make it themselves.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Patch:
    """Puts a replacement in an attribute's place: of a class or a module. It can be taken back."""

    def __init__(self) -> None:
        self._stood: list[tuple[Any, str, Any]] = []

    def __call__(self, owner: Any, name: str, replacement: Any) -> None:
        self._stood.append((owner, name, vars(owner)[name]))
        setattr(owner, name, replacement)

    def take_back(self) -> None:
        """Everything is as it was."""
        while self._stood:
            owner, name, original = self._stood.pop()
            setattr(owner, name, original)


@dataclass(slots=True, frozen=True)
class Mutant:
    """`rule` is what it switches off; `shape` the one of `shapes.SHAPES` that its seeds have, "" for none."""

    name: str
    rule: str
    switch_off: Callable[[Patch], None]
    shape: str


MUTANTS: dict[str, Mutant] = {}
"""All of them, by name."""


def mutant(
    name: str, rule: str, shape: str = ""
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Put a mutant into the table."""

    def add(switch_off: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert name not in MUTANTS, name
        MUTANTS[name] = Mutant(name, rule, switch_off, shape)
        return switch_off

    return add


@contextmanager
def switched_off(name: str) -> Iterator[None]:
    """The core without one rule; "" leaves it whole."""
    patch = Patch()
    try:
        if name:
            MUTANTS[name].switch_off(patch)
        yield
    finally:
        patch.take_back()


# The tables add themselves.
