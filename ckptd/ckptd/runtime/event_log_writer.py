"""Writes the event log of a core (`record_events`), so that a fault seen in the field can be replayed.

An event log contains payload, so only its owner can read it.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from ckptd.core.containment import where
from ckptd.runtime.errors import StartError
from ckptd.runtime.host.private_files import directory_fault, open_private
from ckptd.runtime.logs import logger

SUFFIX: Final = ".events"
BUFFER_BYTES: Final = 64 * 1024
"""What is in the buffer is lost if the process is killed. The daemon flushes it once a second."""


class EventLogWriter:
    """The event log of one incarnation: `NODE-INCARNATION.events` in the directory `record_events`."""

    def __init__(self, directory: Path, bytes_max: int, node_id: str, incarnation: int) -> None:
        """`bytes_max` limits all event logs in the directory together. Raises: StartError."""
        self.path = directory / f"{node_id}-{incarnation}{SUFFIX}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fault = directory_fault(directory, sticky_is_safe=True)
            if fault:
                raise StartError(f"record_events {directory}: {fault}")
            stored_bytes = sum(path.stat().st_size for path in directory.glob(f"*{SUFFIX}"))
            descriptor = open_private(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise StartError(f"record_events {directory}: {error.strerror or error}") from None
        self._file: BinaryIO | None = os.fdopen(descriptor, "wb", buffering=BUFFER_BYTES)
        self._left_bytes = bytes_max - stored_bytes

    def write(self, content: bytes) -> None:
        """Append to the log unless it has stopped. A full or broken disk only stops the log."""
        if self._file is None:
            return
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            logger.warning("recording stops, because record_events_bytes_max is reached (%s)", self.path)
            self.close()
            return
        self._try(self._file.write, content)

    def pack(self, pack: Callable[..., bytes], *arguments: object) -> bytes:
        """Return what `pack` makes. If it raises, the log stops: it is not worth losing a node."""
        if self._file is None:
            return b""
        try:
            return pack(*arguments)
        except Exception as error:
            logger.error("recording stops, because %s cannot be written: %s", self.path, where(error))
            self.close()
            return b""

    def flush(self) -> None:
        """Hand the buffered content to the kernel."""
        if self._file is not None:
            self._try(self._file.flush)

    def close(self) -> None:
        """Stop the log."""
        file, self._file = self._file, None
        if file is not None:
            self._try(file.close)

    def _try(self, act: Callable[..., object], *arguments: bytes) -> None:
        try:
            act(*arguments)
        except OSError as error:
            logger.error(
                "recording stops, because %s cannot be written: %s", self.path, error.strerror or error
            )
            file, self._file = self._file, None
            if file is not None:
                # Otherwise Python closes it again when the object is freed, and Python 3.13 prints the error.
                with contextlib.suppress(OSError):
                    file.close()
