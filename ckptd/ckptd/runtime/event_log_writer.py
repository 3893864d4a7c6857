"""Writes down what the core is told, so that a fault seen in the field can be replayed.

A daemon that records wraps its core; one that does not has nothing of this in its way.
Recordings hold payload: they are readable by their owner alone.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from ckptd import __version__
from ckptd.core.checks.event_log import Start, digest_of, pack_entry, pack_event, pack_start
from ckptd.core.containment import where
from ckptd.core.events import Effect, Event
from ckptd.core.operations.resource_usage import Limits
from ckptd.core.settings import Settings
from ckptd.runtime.driver import CoreNode
from ckptd.runtime.errors import StartRefused
from ckptd.runtime.host.private_files import directory_fault, open_private
from ckptd.runtime.logs import logger

SUFFIX: Final = ".events"
BUFFER_BYTES: Final = 64 * 1024
"""Lost where the process is killed; `flush` once a second keeps that short."""


class Recorder:
    """One start's recording: `NODE-INCARNATION.events` in the directory of the setting `record_events`."""

    def __init__(self, directory: Path, bytes_max: int, node_id: str, incarnation: int) -> None:
        """`bytes_max` is for all recordings in the directory. Raises: StartRefused."""
        self.path = directory / f"{node_id}-{incarnation}{SUFFIX}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fault = directory_fault(directory, sticky_is_safe=True)
            if fault:
                raise StartRefused(f"record_events {directory}: {fault}")
            held_bytes = sum(path.stat().st_size for path in directory.glob(f"*{SUFFIX}"))
            descriptor = open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise StartRefused(f"record_events {directory}: {error.strerror or error}") from None
        self._file: BinaryIO | None = os.fdopen(descriptor, "wb", buffering=BUFFER_BYTES)
        self._left_bytes = bytes_max - held_bytes

    def write(self, content: bytes) -> None:
        """Append, unless recording has stopped; a full or broken disk stops it, and nothing else."""
        if self._file is None:
            return
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            logger.warning("recording stops: record_events_bytes_max is reached (%s)", self.path)
            self.close()
            return
        self._try(self._file.write, content)

    def pack(self, pack: Callable[..., bytes], *arguments: object) -> bytes:
        """What `pack` makes; where it raises recording stops, since a recording is not worth a node."""
        if self._file is None:
            return b""
        try:
            return pack(*arguments)
        except Exception as error:
            logger.error("recording stops: %s: %s", self.path, where(error))
            self.close()
            return b""

    def flush(self) -> None:
        """Hand what was written to the kernel."""
        if self._file is not None:
            self._try(self._file.flush)

    def close(self) -> None:
        """Record no more."""
        file, self._file = self._file, None
        if file is not None:
            self._try(file.close)

    def _try(self, act: Callable[..., object], *arguments: bytes) -> None:
        try:
            act(*arguments)
        except OSError as error:
            logger.error("recording stops: %s: %s", self.path, error.strerror or error)
            file, self._file = self._file, None
            if file is not None:
                # Left open, it is tried once more when its object goes: an error that Python 3.13 prints.
                with contextlib.suppress(OSError):
                    file.close()


class RecordedNode:
    """A core, and a recorder that hears all it hears."""

    def __init__(self, node: CoreNode, recorder: Recorder) -> None:
        self._node = node
        self._recorder = recorder
        self._count = node.edge_counts
        self._counts: dict[str, int] | None = None
        node.edge_counts = self.edge_counts = self._ask_counts
        self._rows = node.edge_limits
        self._limits: Limits | None = None
        node.edge_limits = self.edge_limits = self._ask_limits
        self.urls = node.urls

    def begin(
        self, settings: Settings, incarnation: int, record: bytes, now_ns: int, wall_offset_ns: int
    ) -> None:
        """Write the header: what the core was made with."""
        start = Start(__version__, settings, incarnation, record, now_ns, wall_offset_ns, self.urls)
        self._recorder.write(pack_start(start))
        self._recorder.flush()

    @property
    def deadline_ns(self) -> int:
        """The core's."""
        return self._node.deadline_ns

    @property
    def turn_due(self) -> bool:
        """The core's."""
        return self._node.turn_due

    def handle(self, event: Event, now_ns: int, /) -> list[Effect]:
        """The core's; what it raises is written down as well."""
        packed = self._recorder.pack(pack_event, event)
        self._counts = self._limits = None
        try:
            effects = self._node.handle(event, now_ns)
        except Exception:
            self._write(now_ns, packed, None)
            self._recorder.flush()
            raise
        self._write(now_ns, packed, effects)
        return effects

    def last_words(self, now_ns: int, /) -> list[Effect]:
        """The core's."""
        return self._node.last_words(now_ns)

    def _write(self, now_ns: int, packed: bytes, effects: list[Effect] | None) -> None:
        def pack() -> bytes:
            digest = None if effects is None else digest_of(effects)
            return pack_entry(now_ns, packed, digest, self._counts, self._limits)

        self._recorder.write(self._recorder.pack(pack))

    def _ask_counts(self) -> dict[str, int]:
        # What comes from outside is no part of the core's state, so a replay needs it told.
        self._counts = self._count()
        return self._counts

    def _ask_limits(self) -> Limits:
        self._limits = self._rows()
        return self._limits
