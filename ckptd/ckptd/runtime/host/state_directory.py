"""The state directory: a node's record, incarnation and quarantine, which must outlive its process.

A state directory belongs to one node of one cluster, and to one process at a time. This module must not know
what a record means.
"""

import contextlib
import fcntl
import json
import os
import secrets
import time
import urllib.parse
import zlib
from pathlib import Path
from typing import Final

from ckpt_protocol.limits import INCARNATION_MAX
from ckptd.runtime.errors import StartError
from ckptd.runtime.host.private_files import directory_fault, open_private, read_private, write_private

_RECORD_MAGIC: Final = b"ckptd record 1\n"
_CHECKSUM_BYTES: Final = 4
_QUARANTINE_NAME_CHARS_MAX: Final = 80

_SPREAD_MIN: Final = 2**20
_SPREAD_MAX: Final = 2**32
"""How far above an incarnation that a peer knows a node starts again, in ns.

The peer may not know the node's latest incarnation. If the node took the next number, it could take the one
of a process that others met and that lost its state directory. They would take the new process for that one,
and miss its heartbeats, which have lower stamps.
"""

RECORD_BYTES_SPARE: Final = 64 * 1024
"""Space on the disk that must be free at the start. The record of the largest cluster is smaller."""


class QuarantineFull(Exception):
    """One more file would exceed the limit of the quarantine."""


class StateDirectory:
    """An open, locked state directory. Close it when the node has ended."""

    def __init__(
        self,
        path: Path,
        cluster: str,
        node_id: str,
        quarantine_bytes_max: int = 2**30,
        later_than: int = 0,
    ) -> None:
        """Create the directory if it is missing, lock it, and begin an incarnation above `later_than`.

        No other start of this node has that incarnation, also if it lost its state directory in between.
        Raises: StartError.
        """
        self.path = path
        self.quarantine_bytes_max = quarantine_bytes_max
        self._quarantined = 0
        self._keeps_lock = False
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_owners()
            self._lock = self._acquire_lock()
            try:
                self._check_space()
                self.incarnation = self._begin_incarnation(cluster, node_id, later_than)
                self.record = self._read_record()
            except BaseException:
                os.close(self._lock)
                raise
        except FileExistsError:
            raise StartError(f"the state directory {path} cannot be used: it is not a directory") from None
        except OSError as error:
            raise StartError(
                f"the state directory {path} cannot be used: {error.strerror or error}"
            ) from None

    def keep_locked(self) -> None:
        """Make `close` leave the directory locked until this process is gone."""
        self._keeps_lock = True

    def close(self) -> None:
        """Release the lock on the directory, unless `keep_locked` was called."""
        if not self._keeps_lock:
            os.close(self._lock)

    def write_record(self, record: bytes) -> None:
        """Replace the last record by `record`. Returns when it is on disk."""
        checksum = zlib.crc32(record).to_bytes(_CHECKSUM_BYTES, "big")
        self._replace("record", _RECORD_MAGIC + checksum + record)
        self.record = record

    def quarantine(self, name: str, content: bytes) -> Path:
        """Write a file with the data that a losing side had, named after the checkpoint; return its path.

        Raises: QuarantineFull; OSError.
        """
        directory = self.path / "quarantine"
        directory.mkdir(mode=0o700, exist_ok=True)
        stored_bytes = sum(entry.stat().st_size for entry in os.scandir(directory))
        if stored_bytes + len(content) > self.quarantine_bytes_max:
            raise QuarantineFull(f"{directory} already contains {stored_bytes} bytes")
        self._quarantined += 1
        readable = urllib.parse.quote(name, safe="")[:_QUARANTINE_NAME_CHARS_MAX]
        path = directory / f"{readable}-{self.incarnation}-{self._quarantined}"
        try:
            write_private(path, content)
        except FileExistsError:
            raise
        except OSError:
            # A partial file would look like a whole one, and would keep a full disk full.
            path.unlink(missing_ok=True)
            raise
        return path

    # -- internals

    def _check_owners(self) -> None:
        """Refuse a directory in which another user could replace our promises."""
        for path in (self.path, self.path / "quarantine"):
            with contextlib.suppress(FileNotFoundError):
                fault = directory_fault(path, sticky_is_safe=False)
                if fault:
                    raise StartError(f"the state directory {self.path} cannot be used: {fault}")

    def _acquire_lock(self) -> int:
        lock = open_private(self.path / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise StartError(
                f"another ckptd (process {holder}) uses the state directory {self.path}"
            ) from None
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            os.close(lock)
            raise
        return lock

    def _check_space(self) -> None:
        """Write as much as a large record takes: a full disk shows now, not at the first promise."""
        probe = self.path / "record.new"
        probe.unlink(missing_ok=True)
        try:
            write_private(probe, bytes(RECORD_BYTES_SPARE))
        finally:
            probe.unlink(missing_ok=True)

    def _begin_incarnation(self, cluster: str, node_id: str, later_than: int) -> int:
        """Store and return an incarnation above every earlier one, even if the wall clock was set back."""
        last = 0
        with contextlib.suppress(FileNotFoundError):
            content = read_private(self.path / "node.json")
            try:
                stored = json.loads(content)
                last, owner = int(stored["incarnation"]), (stored["cluster"], stored["node_id"])
            except (ValueError, KeyError, TypeError):
                raise StartError(f"{self.path / 'node.json'} is damaged") from None
            if owner != (cluster, node_id):
                raise StartError(
                    f"the state directory {self.path} belongs to node {owner[1]!r} of cluster {owner[0]!r}"
                )
        above = later_than + _SPREAD_MIN + secrets.randbelow(_SPREAD_MAX - _SPREAD_MIN) if later_than else 0
        incarnation = max(last, above, time.time_ns() - 1) + 1
        if incarnation > INCARNATION_MAX:
            raise StartError(
                f"{self.path / 'node.json'} or another node already knows the highest possible "
                "incarnation of this node"
            )
        stored = {"cluster": cluster, "node_id": node_id, "incarnation": incarnation}
        self._replace("node.json", json.dumps(stored).encode())
        return incarnation

    def _read_record(self) -> bytes:
        # Refuse a damaged record instead of ignoring it: a forgotten promise could be given twice.
        try:
            content = read_private(self.path / "record")
        except FileNotFoundError:
            return b""
        start = len(_RECORD_MAGIC) + _CHECKSUM_BYTES
        record = content[start:]
        checksum = zlib.crc32(record).to_bytes(_CHECKSUM_BYTES, "big")
        if content[:start] != _RECORD_MAGIC + checksum:
            raise StartError(
                f"{self.path / 'record'} is damaged, so the promises of this node are unknown. Remove it "
                "only while all other nodes are up"
            )
        return record

    def _replace(self, name: str, content: bytes) -> None:
        temporary = self.path / f"{name}.new"
        # Remove what a failed start left. If we opened it, it could be a link to another file.
        temporary.unlink(missing_ok=True)
        write_private(temporary, content)
        os.replace(temporary, self.path / name)
        # The rename is durable only once the directory is synced.
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
