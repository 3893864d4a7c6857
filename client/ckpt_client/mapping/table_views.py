"""The views of a table's keys, values and items, and how `dict(table)` is one iteration.

Python makes `dict(table)` out of `table.keys()`, an iteration over that, and `table[key]` for each key: a
round trip each, and a KeyError if a key is deleted meanwhile. All of them are made by one instruction of the
program. `OneInstruction` knows such calls by that, reads the values with the keys, and has each one ready
when it is asked for. Between two other calls of a program anything may have been written, so these ask the
service. (ADR 34)
"""

import sys
import threading
from collections.abc import Callable, Container, ItemsView, Iterator, KeysView, Mapping, ValuesView
from types import FrameType
from typing import Any

from ckpt_client.codecs import V
from ckpt_client.requests.table_requests import Key

Place = tuple[FrameType, int]
"""An instruction of the program: the frame that executes it, and where in its code.

The frame itself, not its id: the next call of the same function often has a frame with the same id. So a
program that passed `table.keys`, `list` and `table.__getitem__` to one executor got values of the past.
"""

_frame_at = sys._getframe


def place_of_caller() -> Place | None:
    """Return the instruction that called the caller of this function; None if no Python code did."""
    try:
        frame = _frame_at(2)
    except ValueError:
        return None
    return frame, frame.f_lasti


class OneInstruction(threading.local):
    """The values that an instruction which this thread executes will ask for."""

    ready: tuple[Place, list[tuple[bytes, Any]]] | None = None
    """The instruction, and the keys with their values, the next one last."""

    def keep(self, place: Place, items: list[tuple[bytes, Any]]) -> None:
        """Have these ready, in this order, for the instruction that asked for the keys."""
        items.reverse()
        self.ready = (place, items) if items else None

    def take(self, key: object, place: Place | None, missing: Any) -> Any:
        """Return the value, if this is the next key and the instruction is the same one; else `missing`."""
        ready, self.ready = self.ready, None  # So a signal handler that reads this table cannot mix them up.
        if ready is None:
            return missing
        made_at, items = ready
        next_key, value = items.pop()
        if next_key is not key or made_at != place:
            return missing  # That instruction was interrupted, or asks for something else.
        if items:
            self.ready = ready
        return value


class HasKeys(Container[Key]):
    """`"tea" in table`: text may be a key, although an iteration returns bytes. (For type checkers.)"""


class TableKeys(HasKeys, KeysView[bytes]):
    """The keys of a table, in order; read in pages each time that you iterate."""

    def __init__(
        self,
        table: Mapping[bytes, Any],
        read_keys: Callable[[], Iterator[bytes]],
        read_all: Callable[[], dict[bytes, Any]],
        one_instruction: OneInstruction,
        made_at: Place | None,
    ) -> None:
        super().__init__(table)
        self._read_keys = read_keys
        self._read_all = read_all
        self._one_instruction = one_instruction
        self._made_at = made_at

    def __iter__(self) -> Iterator[bytes]:
        made_at, self._made_at = self._made_at, None  # (A view that is kept does not keep the frame.)
        if made_at is None or made_at != place_of_caller():
            return self._read_keys()
        found = self._read_all()
        self._one_instruction.keep(made_at, list(found.items()))
        return iter(found)


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
