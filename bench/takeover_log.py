"""What the programs of `bench.takeover` wrote into their files, and what must not have happened. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class Write(NamedTuple):
    """An acknowledged write. Times are in ns."""

    number: int
    began_ns: int
    ended_ns: int


@dataclass(slots=True)
class Leading:
    """One leadership, from one program's file."""

    token: str
    read: int
    """The number that it found."""

    since_ns: int
    writes: list[Write] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    """Numbers that may have been written."""

    refused: bool = False
    """True once a write was refused, also a late one by the service."""

    late: bool = False
    """True if a late write was accepted."""

    resigned_ns: tuple[int, int] = (0, 0)
    """When it began to resign, and when it had."""

    def first_write_after(self, moment_ns: int) -> Write | None:
        """Return the first acknowledged write that began after a moment."""
        return next((write for write in self.writes if write.began_ns > moment_ns), None)


class ProgramLog:
    """One program's file, as far as it was read."""

    def __init__(self) -> None:
        self.leadings: list[Leading] = []
        self.waits_ns = 0
        """When it asked to lead for the last time."""

        self._rest = ""

    def feed(self, text: str) -> None:
        """Take more of the file."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._take(*line.split())

    def _take(self, what: str, *values: str) -> None:
        at = int(values[-1])
        if what == "waits":
            self.waits_ns = at
            return
        token, *numbers = values[0], *map(int, values[1:-1])
        if what == "leads":
            self.leadings.append(Leading(token, numbers[0], at))
            return
        if not self.leadings or self.leadings[-1].token != token:
            # It lost the leadership before it had read anything.
            self.leadings.append(Leading(token, 0, 0))
        leading = self.leadings[-1]
        if what == "write":
            leading.writes.append(Write(numbers[0], numbers[1], at))
        elif what == "failed":
            leading.unknown.append(numbers[0])
        elif what == "refused":
            leading.refused = True
        elif what == "late":
            leading.late = True
        elif what == "resigned":
            leading.resigned_ns = numbers[0], at


def faults_of(logs: Sequence[ProgramLog], content: int) -> list[str]:
    """Return what went wrong, one line each. `content` is the number in the table at the end.

    A write that was acknowledged to one leader, and that the next one has not read, is lost or came late.
    """
    every = [leading for log in logs for leading in log.leadings if leading.since_ns]
    late = [leading for log in logs for leading in log.leadings if leading.late]
    every.sort(key=lambda leading: leading.token)
    faults = [
        f"two leaders have the token {one.token}" for one, two in pairwise(every) if one.token == two.token
    ]
    faults += [f"a late write of {leading.token} was accepted" for leading in late]
    most = 0
    for place, leading in enumerate(every):
        if leading.read < most:
            faults.append(f"{leading.token} has read {leading.read}, but {most} was acknowledged before")
        numbers = [leading.read, *(write.number for write in leading.writes)]
        faults += [
            f"{leading.token}: {two} was acknowledged after {one}"
            for one, two in pairwise(numbers)
            if two <= one
        ]
        most = max(most, *numbers)
        for later in every[place + 1 : place + 2]:
            write = leading.first_write_after(later.since_ns)
            if write is not None:
                faults.append(f"{leading.token} has written {write.number} when {later.token} led")
    if content < most:
        faults.append(f"the table has {content}, but {most} was acknowledged")
    return faults
