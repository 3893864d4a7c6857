"""A writer that times each of its writes, and a count of the acknowledged writes that were lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from ckpt_client import CheckpointError, Table
from ckptd.testing import LocalCluster

KEYS: Final = 100
VALUE_BYTES: Final = 1024


def _value(number: int) -> bytes:
    return number.to_bytes(8, "big") + bytes(VALUE_BYTES - 8)


@dataclass(slots=True)
class Writer:
    """Writes 1, 2, 3, … to the keys in turn, one after the other, until stopped."""

    table: Table
    number: int = 0
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    began_ns: list[int] = field(default_factory=list)
    ended_ns: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unknown: set[bytes] = field(default_factory=set)
    """Keys whose last write ended in an error: its outcome is not known."""

    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Write until stopped; the body of a thread."""
        while not self.stopped.is_set():
            self.number += 1
            key = b"key-%d" % (self.number % KEYS)
            began = time.monotonic_ns()
            try:
                self.table.Write(key, _value(self.number))
            except CheckpointError as error:
                self.errors.append(str(error))
                self.unknown.add(key)
                continue
            self.began_ns.append(began)
            self.ended_ns.append(time.monotonic_ns())
            self.acknowledged[key] = self.number
            self.unknown.discard(key)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Write in a thread while the block runs."""
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self.stopped.set()
            thread.join()

    def first_after_ns(self, moment_ns: int) -> int | None:
        """Return when the first write that began after a moment was acknowledged."""
        for began, ended in zip(self.began_ns, self.ended_ns, strict=False):
            if began > moment_ns:
                return ended
        return None

    def longest_ns(self, since_ns: int, until_ns: int) -> int:
        """Return the longest time of a write that was under way between these two."""
        pairs = zip(self.began_ns, self.ended_ns, strict=True)
        return max(
            (ended - began for began, ended in pairs if began < until_ns and ended > since_ns), default=0
        )

    def count_after(self, moment_ns: int) -> int:
        """Return how many writes that began after a moment have been acknowledged."""
        return sum(1 for began in reversed(self.began_ns) if began > moment_ns)


def count_lost(cluster: LocalCluster, node: str, name: str, writer: Writer) -> int:
    """Return how many keys, read through a node, do not hold their last acknowledged value."""
    with Table(name, address=cluster.address(node)) as table:
        held = table.read_all()
    lost = 0
    for key, number in writer.acknowledged.items():
        found = int.from_bytes(held.get(key, b"")[:8], "big")
        lost += found < number if key in writer.unknown else found != number
    return lost


def goal(name: str, wanted: str, found: float, met: bool) -> str:
    """Return one line for the console: a goal, met or missed."""
    return (
        f"goal {name} {wanted}: [{'green' if met else 'red'}]{'met' if met else 'MISSED'}[/] ({found:,.1f})"
    )
