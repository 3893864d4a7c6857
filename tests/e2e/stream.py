"""A program that writes all the time, and the writes that were acknowledged."""

import threading
from types import TracebackType
from typing import Self

from ckpt_client import CheckpointError, Table

WAIT_SECONDS = 30.0


class Stream:
    """Writes "1", "2", "3", … each to a section of that name, in a thread, until its block ends."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.acknowledged: list[str] = []
        self.errors: list[CheckpointError] = []
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        number = 0
        while not self._stopped:
            number += 1
            key = str(number)
            try:
                self.table.Write(key, key)
            except CheckpointError as error:
                self.errors.append(error)
                continue
            with self._changed:
                self.acknowledged.append(key)
                self._changed.notify_all()

    def wait_more(self, count: int) -> None:
        """Wait until this many more writes have been acknowledged."""
        with self._changed:
            wanted = len(self.acknowledged) + count
            assert self._changed.wait_for(lambda: len(self.acknowledged) >= wanted, WAIT_SECONDS), (
                f"{len(self.acknowledged)} of {wanted} writes acknowledged; errors: {self.errors[-3:]}"
            )

    def lost_at(self, table: Table) -> list[str]:
        """Return the acknowledged writes that a table does not show."""
        held = table.read_all()
        return [key for key in self.acknowledged if held.get(key.encode()) != key.encode()]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._thread.join()
