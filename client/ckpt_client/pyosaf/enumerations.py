"""What pyosaf's module `saEnumConst` offers: enumerations that find names, constants that stay. Pure."""

from collections.abc import Iterable
from typing import NoReturn


class EnumException(Exception):
    """An enumeration was made of something else than names and numbers, each once."""


class Enumeration:
    """The names of an enumeration as attributes, and `whatis` for the way back.

    `lookup` maps names to numbers, `reverse_lookup` numbers to names. A member is a name with its number, or
    a name alone, which then has the number after the one before it. Source: OpenSAF's saEnumConst.
    """

    def __init__(self, enumlist: Iterable[str | tuple[str, int]], are_unique: bool = True) -> None:
        self.lookup: dict[str, int] = {}
        self.reverse_lookup: dict[int, str] = {}
        following = 0
        for member in enumlist:
            name, number = _name_and_number(member, following)
            if name in self.lookup:
                raise EnumException(f"{name} is there twice")
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

    def whatis(self, value: int) -> str:
        """The name of a number, 'UNKNOWN_ENUM' for any other."""
        return self.reverse_lookup.get(value, "UNKNOWN_ENUM")


def _name_and_number(member: object, following: int) -> tuple[str, int]:
    pair = member if isinstance(member, tuple) else (member, following)
    match pair:
        case (str(name), int(number)) if not isinstance(number, bool):
            return name, number
    raise EnumException(f"a member is a name, or a name and a number, not {member!r}")


class Const:
    """Constants as attributes: each is set once, and then stays. Source: OpenSAF's saEnumConst."""

    class ConstError(TypeError):
        """Somebody tried to set a constant anew, or to remove it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__:
            raise self.ConstError(f"{name} is a constant already")
        self.__dict__[name] = value

    def __delattr__(self, name: str) -> NoReturn:
        if name in self.__dict__:
            raise self.ConstError(f"{name} is a constant, and stays")
        raise NameError(name)

    def __getattr__(self, name: str) -> int:
        """Tells type checkers what a constant is; at run time only missing names come here."""
        raise AttributeError(name)


def constants_of(values: dict[str, int]) -> Const:
    """Constants by their names."""
    made = Const()
    vars(made).update(values)
    return made
