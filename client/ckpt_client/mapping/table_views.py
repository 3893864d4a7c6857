"""The views of a table's keys, values and items, and how `dict(table)` is one iteration.

Python makes `dict(table)` out of `table.keys()`, an iteration over that, and `table[key]` for each key: a
round trip each, and a KeyError if a key is deleted meanwhile. All of them are made by one instruction of the
program. `OneInstruction` knows such calls by that, reads the values with the keys, and has each one ready
when it is asked for. Between two other calls of a program anything may have been written, so these ask the
service. (ADR 34)
"""

import sys
import threading
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from ckpt_client.codecs import V

Place = tuple[int, int]
"""An instruction of the program: the frame that executes it, and where in its code."""


def place_of_caller() -> Place | None:
    """Return the instruction that called the caller of this function; None if no Python code did."""
    try:
        frame = sys._getframe(2)
    except ValueError:
        return None
    return id(frame), frame.f_lasti


class OneInstruction:
    """The values that instructions which are being executed will ask for, by thread."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Place, list[tuple[bytes, Any]]]] = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def keep(self, place: Place, items: list[tuple[bytes, Any]]) -> None:
        """Have these ready, in this order, for the instruction that asked for the keys."""
        if items:
            items.reverse()
            self._waiting[threading.get_ident()] = place, items

    def take(self, key: object, place: Place | None) -> tuple[Any] | None:
        """Return the value, if this is the next key and the instruction is the same one; else None."""
        thread = threading.get_ident()
        kept = self._waiting.get(thread)
        if kept is None:
            return None
        made_at, items = kept
        if made_at != place or items[-1][0] is not key:
            del self._waiting[thread]  # That instruction was interrupted, or asks for something else.
            return None
        value = items.pop()[1]
        if not items:
            del self._waiting[thread]
        return (value,)


class TableKeys(KeysView[bytes]):
    """The keys of a table, in order; read in pages each time that you iterate."""

    def __init__(
        self,
        table: Mapping[bytes, Any],
        read_keys: Callable[[], Iterator[bytes]],
        read_items: Callable[[], Iterator[tuple[bytes, Any]]],
        one_instruction: OneInstruction,
        made_at: Place | None,
    ) -> None:
        super().__init__(table)
        self._read_keys = read_keys
        self._read_items = read_items
        self._one_instruction = one_instruction
        self._made_at = made_at

    def __iter__(self) -> Iterator[bytes]:
        if self._made_at is None or self._made_at != place_of_caller():
            return self._read_keys()
        items = list(self._read_items())
        keys = [key for key, _ in items]
        self._one_instruction.keep(self._made_at, items)
        return iter(keys)


class TableItems(ItemsView[bytes, V]):
    """The (key, value) pairs of a table, in the order of the keys; read in pages each time."""

    def __init__(self, table: Mapping[bytes, V], read: Callable[[], Iterator[tuple[bytes, V]]]) -> None:
        super().__init__(table)
        self._read = read

    def __iter__(self) -> Iterator[tuple[bytes, V]]:
        return self._read()


class TableValues(ValuesView[V]):
    """The values of a table, in the order of the keys; read in pages each time that you iterate."""

    def __init__(self, table: Mapping[bytes, V], read: Callable[[], Iterator[tuple[bytes, V]]]) -> None:
        super().__init__(table)
        self._read = read

    def __iter__(self) -> Iterator[V]:
        for _, value in self._read():
            yield value

    def __contains__(self, value: object) -> bool:
        return any(each is value or each == value for each in self)
