"""What a mutant is: a core with one rule switched off, by a few patches that can be taken back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Patch:
    """Replaces attributes of classes or modules, and can restore them."""

    def __init__(self) -> None:
        self._originals: list[tuple[Any, str, Any]] = []

    def __call__(self, target: Any, name: str, replacement: Any) -> None:
        """Replace an attribute of a module, or of a class or the base class that defines it."""
        owners = target.__mro__ if isinstance(target, type) else (target,)
        owner = next(each for each in owners if name in vars(each))
        self._originals.append((owner, name, vars(owner)[name]))
        setattr(owner, name, replacement)

    def restore(self) -> None:
        """Restore all originals."""
        while self._originals:
            owner, name, original = self._originals.pop()
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


class MutantTable(dict[str, Mutant]):
    """Mutants by name, each added by the function that switches its rule off."""

    def mutant(
        self, name: str, rule: str, shape: str = ""
    ) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
        """Register a mutant."""

        def add(switch_off: Callable[[Patch], None]) -> Callable[[Patch], None]:
            assert name not in self, name
            self[name] = Mutant(name, rule, switch_off, shape)
            return switch_off

        return add
