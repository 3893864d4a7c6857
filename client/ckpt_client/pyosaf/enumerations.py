"""The contents of pyosaf's module `saEnumConst`: enumerations that know their names, and constants. Pure."""

from collections.abc import Iterable
from typing import NoReturn


class EnumException(Exception):
    """An enumeration was made from something other than unique names and numbers."""


class Enumeration:
    """The names of an enumeration as attributes; `whatis` finds the name of a number.

    A member is a name with its number, or only a name, whose number is then one above the previous member's.
    Source: OpenSAF's saEnumConst.
    """

    def __init__(self, enumlist: Iterable[str | tuple[str, int]], are_unique: bool = True) -> None:
        self.lookup: dict[str, int] = {}
        """Names to numbers."""

        self.reverse_lookup: dict[int, str] = {}
        """Numbers to names."""
        following = 0
        for member in enumlist:
            name, number = _name_and_number(member, following)
            if name in self.lookup:
                raise EnumException(f"{name} is listed twice")
            if are_unique and number in self.reverse_lookup:
                raise EnumException(f"{name} and {self.reverse_lookup[number]} have the same number {number}")
            self.lookup[name] = number
            self.reverse_lookup[number] = name
            following = number + 1

    def __getattr__(self, name: str) -> int:
        lookup: dict[str, int] = self.__dict__.get("lookup", {})
        if name in lookup:
            return lookup[name]
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.lookup]

    def whatis(self, value: int) -> str:
        """Return the name of a number, or 'UNKNOWN_ENUM'."""
        return self.reverse_lookup.get(value, "UNKNOWN_ENUM")


def _name_and_number(member: object, following: int) -> tuple[str, int]:
    pair = member if isinstance(member, tuple) else (member, following)
    match pair:
        case (str(name), int(number)) if not isinstance(number, bool):
            return name, number
    raise EnumException(f"a member must be a name, or a name and a number, not {member!r}")


class Const:
    """Constants as attributes, each of which can be set only once. Source: OpenSAF's saEnumConst."""

    class ConstError(TypeError):
        """The program tried to set a constant again, or to delete it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__:
            raise self.ConstError(f"{name} is already a constant")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> NoReturn:
        if name in self.__dict__:
            raise self.ConstError(f"{name} is a constant and cannot be deleted")
        raise NameError(name)

    def __getattr__(self, name: str) -> int:
        """Tell type checkers what a constant is; at run time only missing names arrive here."""
        raise AttributeError(name)


def constants_of(values: dict[str, int]) -> Const:
    """Return constants with these names and values."""
    made = Const()
    vars(made).update(values)
    return made
