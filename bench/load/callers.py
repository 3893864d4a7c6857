"""The callers of a load: each is a loop that makes one call after the other until it is stopped.

All but those of the ledger use only a few sections, so that they conflict. Every value is written only once.
A caller that lost its session opens its table again.
"""

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import count
from typing import Final

from bench.load.recorded import RecordedAsyncTable, RecordedTable, Recorder
from ckpt_client import AsyncTable, CheckpointError, Connection, SaAisError, Table
from ckpt_client.requests.table_requests import open_parameters
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_TIME_END, SA_TIME_MAX
from ckpt_protocol.messages import Kind, Op
from ckptd.sim.checkers.history import Operation

KEYS: Final = (b"k0", b"k1", b"k2")
VALUE_BYTES: Final = 16
LEDGER_SECTIONS_MAX: Final = 1_000_000
REOPEN_SECONDS: Final = 0.1
Operations = list[list[bytes | int | None]]
FAILURES: Final = (CheckpointError, SaAisError)


@dataclass(slots=True, frozen=True)
class Place:
    """Where and how a caller works."""

    name: str
    flags: int
    address: str
    timeout: float
    """The time-out of a call, in seconds."""

    pause: float
    """The mean pause between calls, in seconds."""

    cluster: str = ""


class Caller(ABC):
    """One client, in its own thread."""

    def __init__(self, number: int, checkpoint: int, place: Place, stop: threading.Event, seed: int) -> None:
        self.place: Final = place
        self.recorder: Final = Recorder(number, checkpoint)
        self.random: Final = random.Random(f"{seed} {number}")
        self.stop: Final = stop
        self.thread: Final = threading.Thread(target=self.run, name=f"caller {number}", daemon=True)
        self.longest_seconds = 0.0
        """The longest time that any call took."""

        self._values = count()

    def value(self) -> bytes:
        """Return a value that is written only once. All values have the same length."""
        return (b"%d.%d" % (self.recorder.client, next(self._values))).ljust(VALUE_BYTES, b".")

    def pause_seconds(self) -> float:
        """Draw the pause between two calls."""
        return self.random.uniform(0, 2 * self.place.pause)

    def run(self) -> None:
        """Open, work, and open again when the session was lost; the body of the thread."""
        while not self.stop.is_set():
            try:
                self.work()
            except FAILURES as error:
                if error.code not in (codes.BAD_HANDLE, codes.UNAVAILABLE, codes.TRY_AGAIN, codes.TIMEOUT):
                    self.recorder.errors.append(f"client {self.recorder.client} cannot go on: {error}")
                self.stop.wait(REOPEN_SECONDS)

    @abstractmethod
    def work(self) -> None:
        """Open, and make calls until stopped. Raises an error if it has to be opened again."""

    def timed(self, began: float) -> None:
        """Note that a call that began then has ended."""
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)

    def must_reopen(self, error: CheckpointError | SaAisError) -> bool:
        """Return True if the session is gone."""
        return error.code == codes.BAD_HANDLE


class Blocking(Caller):
    """A caller with a `Table`; it also writes if `writes` is True."""

    def __init__(
        self,
        number: int,
        checkpoint: int,
        place: Place,
        stop: threading.Event,
        seed: int,
        writes: bool = True,
    ) -> None:
        super().__init__(number, checkpoint, place, stop, seed)
        self.writes: Final = writes

    def work(self) -> None:
        """Make calls until stopped."""
        place = self.place
        with Table(
            place.name,
            64,
            96,
            32,
            place.flags,
            address=place.address,
            timeout=place.timeout,
            cluster=place.cluster,
        ) as table:
            recorded = RecordedTable(table, self.recorder)
            while not self.stop.is_set():
                began = time.monotonic()
                try:
                    self.ask(recorded)
                except CheckpointError as error:
                    if self.must_reopen(error):
                        raise
                finally:
                    self.timed(began)
                self.stop.wait(self.pause_seconds())

    def ask(self, table: RecordedTable) -> None:
        """Make one random call."""
        key, chance = self.random.choice(KEYS), self.random.random()
        some = self.random.sample(KEYS, self.random.randint(2, len(KEYS)))
        if not self.writes:
            chance = 0.7 + chance * 0.3
        if chance < 0.35:
            table.write(key, self.value())
        elif chance < 0.6:
            value = self.value()
            table.write_many(dict.fromkeys(some, value))
        elif chance < 0.7:
            table.delete(key)
        elif chance < 0.8:
            table.read([key])
        elif chance < 0.9:
            table.read(some)
        else:
            table.read_all()


class Asyncio(Caller):
    """A caller with an `AsyncTable`, on its own loop."""

    def work(self) -> None:
        """Make calls until stopped."""
        asyncio.run(self._work())

    async def _work(self) -> None:
        place = self.place
        table = await AsyncTable.open(
            place.name,
            64,
            96,
            32,
            place.flags,
            address=place.address,
            timeout=place.timeout,
            cluster=place.cluster,
        )
        async with table:
            recorded = RecordedAsyncTable(table, self.recorder)
            while not self.stop.is_set():
                began = time.monotonic()
                try:
                    await self._ask(recorded)
                except CheckpointError as error:
                    if self.must_reopen(error):
                        raise
                finally:
                    self.timed(began)
                await asyncio.sleep(self.pause_seconds())

    async def _ask(self, table: RecordedAsyncTable) -> None:
        key, chance = self.random.choice(KEYS), self.random.random()
        some = self.random.sample(KEYS, self.random.randint(2, len(KEYS)))
        if chance < 0.4:
            await table.write(key, self.value())
        elif chance < 0.7:
            value = self.value()
            await table.write_many(dict.fromkeys(some, value))
        elif chance < 0.85:
            await table.read(some)
        else:
            await table.read_all()


class Bookkeeper(Caller):
    """Writes a ledger: pairs of sections that are never written again, and sections with generated ids.

    Pair number n of client c is the sections "c.n.a" and "c.n.b", with the same value, in one atomic update.
    Its calls are judged one by one instead of as a history.
    """

    def work(self) -> None:
        """Write until stopped."""
        place, recorder = self.place, self.recorder
        timeout_ns = int(place.timeout * 1e9)
        opening = open_parameters(place.name, LEDGER_SECTIONS_MAX, 64, 32, place.flags, SA_TIME_MAX, False)
        connection = Connection(place.address, place.cluster)
        try:
            handle = int(connection.call(Kind.OPEN, 0, opening.body, timeout_ns)[0])
            while not self.stop.is_set():
                value = self.value()
                if self.random.random() < 0.8:
                    pair = b"%d.%d" % (recorder.client, len(recorder.calls))
                    ops = [[Op.PUT, pair + side, value, None] for side in (b".a", b".b")]
                else:
                    ops = [[Op.CREATE, b"", SA_TIME_END, value]]
                began = time.monotonic()
                try:
                    with recorder.record(Operation.UPDATE, ops) as call:
                        call.result = self.ask(connection, handle, ops, timeout_ns)
                except SaAisError as error:
                    if self.must_reopen(error):
                        raise
                finally:
                    self.timed(began)
                self.stop.wait(self.pause_seconds())
        finally:
            connection.close()

    def ask(self, connection: Connection, handle: int, ops: Operations, timeout_ns: int) -> object:
        """Make one update. If no replica is active, make the local one active for the next update."""
        try:
            return connection.call(Kind.UPDATE, handle, pack_body(ops), timeout_ns)
        except SaAisError as error:
            if error.code == codes.NOT_EXIST and error.index < 0:
                connection.call(Kind.ACTIVE_SET, handle, pack_body([True]), timeout_ns)
            raise
