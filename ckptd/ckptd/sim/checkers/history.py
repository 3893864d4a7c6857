"""What clients did and which answers they got. The checkers look at nothing else."""

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Outcome(Enum):
    """What the caller knows. A PENDING or UNKNOWN call may be done at any time after it was made."""

    PENDING = "pending"
    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    NOT_DONE = "not done"


class Operation(Enum):
    """What a call does with a checkpoint's sections."""

    UPDATE = "update"
    READ = "read"
    ITERATE = "iterate"


@dataclass(slots=True)
class Call:
    """One call on one checkpoint. Times are world times. `code` and `index` are those of a refusal."""

    client: int
    number: int
    creation_id: int
    operation: Operation
    arguments: list[Any]
    """The operations of an update as they travel, or the ids of a read."""

    invoked_ns: int
    returned_ns: int = -1
    outcome: Outcome = Outcome.PENDING
    code: int = 0
    index: int = -1
    result: Any = None
    """The values of a read, or an iteration's {id: value}, where a corrupted value is None."""

    epoch: int = 0
    """The epoch of the node that answered."""

    token: tuple[int, int] | None = None
    """The epoch and seq of the leadership under which an update was made; None for one without a token."""

    def describe(self) -> str:
        """Describe the call for people."""
        arguments = " ".join(_show(element) for element in self.arguments)
        answer = (
            self.outcome.value if self.outcome != Outcome.REFUSED else f"refused {self.code} at {self.index}"
        )
        if self.result is not None and self.outcome == Outcome.OK:
            answer += f" {_show(self.result)}"
        span = f"[{self.invoked_ns / 1e6:.3f}, {self.returned_ns / 1e6:.3f}]"
        return f"{span} client {self.client} #{self.number} {self.operation.value} {arguments}: {answer}"


def _show(content: Any) -> str:
    if type(content) is bytes:
        return content[:24].decode(errors="replace") or "''"
    if type(content) is dict:
        return "{" + ", ".join(f"{_show(key)}: {_show(value)}" for key, value in content.items()) + "}"
    if isinstance(content, list | tuple):
        return "(" + " ".join(_show(element) for element in content) + ")"
    return str(content)


class History:
    """All calls by checkpoint, in the order in which they were made."""

    def __init__(self) -> None:
        self.calls: dict[int, list[Call]] = {}

    def add(self, call: Call) -> None:
        """Add a call that begins."""
        self.calls.setdefault(call.creation_id, []).append(call)

    def latest(self) -> list[Call]:
        """Return all calls, those that began last first."""
        calls = [call for each in self.calls.values() for call in each]
        return sorted(calls, key=lambda call: -call.invoked_ns)
