"""Record calls on a checkpoint as the simulator records its own, so that the same checkers judge them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from ckpt_client import AsyncTable, CheckpointError, SaAisError, Table
from ckpt_protocol import codes
from ckpt_protocol.messages import Op
from ckptd.sim.checkers.history import Call, Operation, Outcome

DATA_CODES: Final = frozenset((codes.NOT_EXIST, codes.EXIST, codes.FAILED_OPERATION))
"""With an index these codes concern the sections themselves: such a refusal is a normal answer."""

NOTHING_DONE: Final = frozenset((codes.TRY_AGAIN, codes.UNAVAILABLE))

Values = Mapping[bytes, bytes]


class Recorder:
    """The calls of one client and their answers, in order. Times are CLOCK_MONOTONIC, in ns."""

    def __init__(self, client: int, checkpoint: int) -> None:
        self.client: Final = client
        self.checkpoint: Final = checkpoint
        self.calls: list[Call] = []
        self.errors: list[str] = []
        """The calls that failed, except for those that the content of the sections refuses."""

    @contextmanager
    def record(self, operation: Operation, arguments: list[Any]) -> Iterator[Call]:
        """Record the call that the block makes and stores in `result`.

        Raises: CheckpointError, SaAisError, as the block does.
        """
        call = Call(
            self.client,
            len(self.calls),
            self.checkpoint,
            operation,
            arguments,
            invoked_ns=time.monotonic_ns(),
        )
        self.calls.append(call)
        try:
            yield call
        except (CheckpointError, SaAisError) as error:
            call.code, call.index = int(error.code), error.index
            call.outcome = outcome_of(call.code, call.index)
            if call.outcome != Outcome.REFUSED:
                self.errors.append(f"client {self.client}, {operation.value}: {error}")
            raise
        else:
            call.outcome = Outcome.OK
        finally:
            call.returned_ns = time.monotonic_ns()


def outcome_of(code: int, index: int) -> Outcome:
    """Return what a caller that got this code knows."""
    if code in DATA_CODES and index >= 0:
        return Outcome.REFUSED
    return Outcome.NOT_DONE if code in NOTHING_DONE else Outcome.UNKNOWN


def put(key: bytes, value: bytes) -> list[Any]:
    """Return the operation of a `Write` of one section, as it travels."""
    return [Op.PUT, key, value, None]


def patch(key: bytes, value: bytes) -> list[Any]:
    """Return the operation of a `Write` of one section among several, as it travels."""
    return [Op.PATCH, key, 0, value, None]


class RecordedTable:
    """A `Table`, recorded."""

    def __init__(self, table: Table, recorder: Recorder) -> None:
        self.table: Final = table
        self.recorder: Final = recorder

    def write(self, key: bytes, value: bytes) -> None:
        """Set one section."""
        with self.recorder.record(Operation.UPDATE, [put(key, value)]):
            self.table.Write(key, value)

    def write_many(self, values: Values) -> None:
        """Write several sections as one atomic update."""
        with self.recorder.record(Operation.UPDATE, [patch(*pair) for pair in values.items()]):
            self.table.Write(values)

    def delete(self, key: bytes) -> None:
        """Delete one section; a missing one is refused."""
        with self.recorder.record(Operation.UPDATE, [[Op.DELETE, key]]):
            del self.table[key]

    def read(self, keys: Sequence[bytes]) -> None:
        """Read sections, all at one moment."""
        with self.recorder.record(Operation.READ, list(keys)) as call:
            call.result = self.table.read_many(keys)

    def read_all(self) -> dict[bytes, bytes]:
        """Read everything, at one moment only if it fits on one page."""
        with self.recorder.record(Operation.ITERATE, []) as call:
            call.result = self.table.read_all()
        return dict(call.result)


class RecordedAsyncTable:
    """An `AsyncTable`, recorded: one call at a time."""

    def __init__(self, table: AsyncTable, recorder: Recorder) -> None:
        self.table: Final = table
        self.recorder: Final = recorder

    async def write(self, key: bytes, value: bytes) -> None:
        """Set one section."""
        with self.recorder.record(Operation.UPDATE, [put(key, value)]):
            await self.table.write(key, value)

    async def write_many(self, values: Values) -> None:
        """Write several sections as one atomic update."""
        with self.recorder.record(Operation.UPDATE, [patch(*pair) for pair in values.items()]):
            await self.table.write_many(values)

    async def read(self, keys: Sequence[bytes]) -> None:
        """Read sections, all at one moment."""
        with self.recorder.record(Operation.READ, list(keys)) as call:
            call.result = await self.table.read_many(keys)

    async def read_all(self) -> None:
        """Read everything, at one moment only if it fits on one page."""
        with self.recorder.record(Operation.ITERATE, []) as call:
            call.result = await self.table.read_all()
