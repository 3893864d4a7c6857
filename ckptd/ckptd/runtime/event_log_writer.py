"""Records the core's events, so that a fault seen in the field can be replayed.

A daemon that records wraps its core in `RecordedNode`; a daemon that does not record pays nothing for this.
Recordings contain payload, so only their owner can read them.
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
"""What is in the buffer is lost if the process is killed. The daemon flushes it once a second."""


class Recorder:
    """The recording of one incarnation: `NODE-INCARNATION.events` in the directory `record_events`."""

    def __init__(self, directory: Path, bytes_max: int, node_id: str, incarnation: int) -> None:
        """`bytes_max` limits all recordings in the directory together. Raises: StartRefused."""
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
        """Append to the recording unless it has stopped. A full or broken disk only stops the recording."""
        if self._file is None:
            return
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            logger.warning("recording stops: record_events_bytes_max is reached (%s)", self.path)
            self.close()
            return
        self._try(self._file.write, content)

    def pack(self, pack: Callable[..., bytes], *arguments: object) -> bytes:
        """Return what `pack` makes. If it raises, recording stops: a recording is not worth losing a node."""
        if self._file is None:
            return b""
        try:
            return pack(*arguments)
        except Exception as error:
            logger.error("recording stops: %s: %s", self.path, where(error))
            self.close()
            return b""

    def flush(self) -> None:
        """Hand the buffered content to the kernel."""
        if self._file is not None:
            self._try(self._file.flush)

    def close(self) -> None:
        """Stop recording."""
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
                # Otherwise Python closes it again when the object is freed, and Python 3.13 prints the error.
                with contextlib.suppress(OSError):
                    file.close()


class RecordedNode:
    """A core whose events are all recorded."""

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
        """Write the header: the arguments that the core was made with."""
        start = Start(__version__, settings, incarnation, record, now_ns, wall_offset_ns, self.urls)
        self._recorder.write(pack_start(start))
        self._recorder.flush()

    @property
    def deadline_ns(self) -> int:
        """When the core is next due for `TimeCame`."""
        return self._node.deadline_ns

    @property
    def turn_due(self) -> bool:
        """True if the core has work left."""
        return self._node.turn_due

    def handle(self, event: Event, now_ns: int, /) -> list[Effect]:
        """Pass an event to the core and record it, also if the core raises."""
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
        """Pass on the core's last words, unrecorded."""
        return self._node.last_words(now_ns)

    def _write(self, now_ns: int, packed: bytes, effects: list[Effect] | None) -> None:
        def pack() -> bytes:
            digest = None if effects is None else digest_of(effects)
            return pack_entry(now_ns, packed, digest, self._counts, self._limits)

        self._recorder.write(self._recorder.pack(pack))

    def _ask_counts(self) -> dict[str, int]:
        # The counts are no part of the core's state, so a replay needs them in the recording.
        self._counts = self._count()
        return self._counts

    def _ask_limits(self) -> Limits:
        self._limits = self._rows()
        return self._limits
