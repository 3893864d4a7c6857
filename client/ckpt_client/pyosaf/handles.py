"""The handles of programs: numbers for library instances, open checkpoints and iterations.

Each number is issued once, and for one kind only. Any other number is ERR_BAD_HANDLE, and so is one that was
closed. Source: R1, R2.
"""

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from ckpt_client.errors import error_of
from ckpt_client.pyosaf.memory import Allocations
from ckpt_client.saf import Checkpoint, CheckpointService, SectionChange, SectionIteration
from ckpt_client.saf.types import Version
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ

Held = TypeVar("Held")


@dataclass(slots=True, eq=False)
class Callbacks:
    """The program's functions; None for each that it left out."""

    opened: Callable[[int, int, int], object] | None = None
    synchronized: Callable[[int, int], object] | None = None
    tracked: Callable[[int, Any, int], object] | None = None
    kept: tuple[object, ...] = ()
    """The objects that the functions point to, to keep them alive."""


@dataclass(slots=True, eq=False)
class Library:
    """A library instance: what SaCkptHandleT stands for."""

    service: CheckpointService
    required: Version
    """The version that the program asked for."""
    callbacks: Callbacks
    number: int = 0
    checkpoints: "dict[int, Open]" = field(default_factory=dict)
    tracking: bool = False
    tracking_changes: threading.RLock = field(default_factory=threading.RLock)
    """Held while the instance begins or stops to track."""


@dataclass(slots=True, eq=False)
class Open:
    """An open checkpoint: what SaCkptCheckpointHandleT stands for."""

    library: Library
    checkpoint: Checkpoint
    number: int = 0
    followed: bool = False
    """Its changes are reported to the program."""

    untold: deque[list[SectionChange]] = field(default_factory=deque)
    """Updates that were not reported to the program yet."""
    iterations: "dict[int, Iteration]" = field(default_factory=dict)

    @property
    def readable(self) -> bool:
        """True if it was opened for reading."""
        return bool(self.checkpoint.open_flags & SA_CKPT_CHECKPOINT_READ)


@dataclass(slots=True, eq=False)
class Iteration:
    """An iteration: what SaCkptSectionIterationHandleT stands for."""

    open: Open
    sections: SectionIteration
    number: int = 0
    section_id: Any = None
    """The memory of the latest id that it returned."""


class Handles:
    """Everything that a process has open. Safe to use from several threads."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = itertools.count(1)
        self._lock = threading.Lock()
        self._held: dict[int, object] = {}

    def add_library(self, library: Library) -> int:
        """Return a new number for a library instance."""
        with self._lock:
            library.number = next(self._numbers)
            self._held[library.number] = library
            return library.number

    def add_open(self, opened: Open) -> int:
        """Return a new number for an open checkpoint."""
        with self._lock:
            opened.number = next(self._numbers)
            self._held[opened.number] = opened.library.checkpoints[opened.number] = opened
            return opened.number

    def add_iteration(self, iteration: Iteration) -> int:
        """Return a new number for an iteration."""
        with self._lock:
            iteration.number = next(self._numbers)
            self._held[iteration.number] = iteration.open.iterations[iteration.number] = iteration
            return iteration.number

    def find(self, kind: type[Held], number: int) -> Held:
        """Return what a number stands for. Raises: BAD_HANDLE."""
        held = self._held.get(number)
        if not isinstance(held, kind):
            raise error_of(codes.BAD_HANDLE, f"{number} is not a handle of this kind")
        return held

    def drop_library(self, library: Library) -> None:
        """Drop an instance that is finalized, and all its checkpoints."""
        with self._lock:
            for opened in library.checkpoints.values():
                self._drop_open(opened)
            library.checkpoints.clear()
            self._held.pop(library.number, None)

    def drop_open(self, opened: Open) -> None:
        """Drop a checkpoint that is closed, and its iterations."""
        with self._lock:
            self._drop_open(opened)
            opened.library.checkpoints.pop(opened.number, None)

    def drop_iteration(self, iteration: Iteration) -> None:
        """Drop an iteration that is finalized."""
        with self._lock:
            self._held.pop(iteration.number, None)
            iteration.open.iterations.pop(iteration.number, None)

    def forget(self) -> None:
        """Drop everything: a forked child has none of its parent's handles."""
        self._held.clear()
        self._lock = threading.Lock()

    def _drop_open(self, opened: Open) -> None:
        self._held.pop(opened.number, None)
        for number in opened.iterations:
            self._held.pop(number, None)
        opened.iterations.clear()
        opened.untold.clear()


HANDLES: Final = Handles()
os.register_at_fork(after_in_child=HANDLES.forget)

SECTION_IDS: Final = Allocations()
"""Generated section ids that the program has not freed."""

READ_BUFFERS: Final = Allocations()
"""Buffers of reads for which the program gave none, and that it has not freed."""
