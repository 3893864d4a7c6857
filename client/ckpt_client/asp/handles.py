"""The handles that ASP's functions give out: numbers that stand for what is open.

A number is issued once in a process, whatever it is for, so that a handle of another kind, one that was
closed and one that never was are all ERR_BAD_HANDLE. What is closed takes with it what was opened through it.

Source: R1, R2.
"""

import itertools
import threading
from typing import Final, Generic, TypeVar

from ckpt_client.errors import error_of
from ckpt_protocol import codes

Held = TypeVar("Held")

_numbers: Final = itertools.count(1)


class Handles(Generic[Held]):
    """The handles of one kind. `what`: the kind, for people. Safe to use from several threads."""

    def __init__(self, what: str) -> None:
        self._what = what
        # Not a plain lock: a table that is collected just then forgets its handles in the midst of `issue`.
        self._lock = threading.RLock()
        self._held: dict[int, tuple[Held, int]] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._held)

    def issue(self, held: Held, owner: int = 0) -> int:
        """A new handle; `owner` is the handle through which it was opened."""
        with self._lock:
            number = next(_numbers)
            self._held[number] = held, owner
        return number

    def find(self, number: object) -> Held:
        """What a handle stands for. Raises: SaAisError BAD_HANDLE."""
        entry = self._held.get(number) if isinstance(number, int) else None
        if entry is None:
            raise error_of(codes.BAD_HANDLE, f"{number!r} is no open {self._what}'s handle")
        return entry[0]

    def forget(self, number: int) -> None:
        """The handle is closed; one that was already is fine."""
        with self._lock:
            self._held.pop(number, None)

    def forget_owned(self, owner: int) -> tuple[int, ...]:
        """All that was opened through `owner` is closed; its handles."""
        with self._lock:
            numbers = tuple(number for number, (_, its_owner) in self._held.items() if its_owner == owner)
            for number in numbers:
                self._held.pop(number, None)
        return numbers
