"""The handles that ASP's functions give out: numbers that stand for what is open.

A process issues each number once, for whichever kind of handle. So a handle of another kind, a closed handle
and one that was never issued are all ERR_BAD_HANDLE. Closing a handle closes what was opened through it.

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
    """The handles of one kind. Safe to use from several threads."""

    def __init__(self, what: str) -> None:
        self._what = what
        """The kind, as error texts name it."""

        # Reentrant: the garbage collector may collect a table, which forgets its handles, inside `issue`.
        self._lock = threading.RLock()
        self._held: dict[int, tuple[Held, int]] = {}

    def __len__(self) -> int:
        """Return how many handles are open."""
        return len(self._held)

    def issue(self, held: Held, owner: int = 0) -> int:
        """Return a new handle for `held`; `owner` is the handle through which it was opened."""
        with self._lock:
            number = next(_numbers)
            self._held[number] = held, owner
        return number

    def find(self, number: object) -> Held:
        """Return what a handle stands for. Raises: SaAisError BAD_HANDLE."""
        entry = self._held.get(number) if isinstance(number, int) else None
        if entry is None:
            raise error_of(codes.BAD_HANDLE, f"{number!r} is not the handle of an open {self._what}")
        return entry[0]

    def forget(self, number: int) -> None:
        """Forget a handle that is closed; forgetting it again does nothing."""
        with self._lock:
            self._held.pop(number, None)

    def forget_owned(self, owner: int) -> tuple[int, ...]:
        """Forget the handles of everything that was opened through `owner`; return these handles."""
        with self._lock:
            numbers = tuple(number for number, (_, its_owner) in self._held.items() if its_owner == owner)
            for number in numbers:
                self._held.pop(number, None)
        return numbers
