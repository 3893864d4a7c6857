"""`python -m bench.takeover_program ADDRESS NAME TTL FILE`: a program that leads a table, or waits to.

While it leads, it counts up the number in the section `state` and writes the number together with its token.
Each line of FILE says what it did. Times are in ns by CLOCK_MONOTONIC, which all
processes of a machine share.

    waits AT                       it asks to lead
    leads TOKEN NUMBER AT          it leads, and has read this number
    write TOKEN NUMBER BEGAN AT    the number was acknowledged
    failed TOKEN NUMBER BEGAN AT   it is unknown whether the number was written
    lost TOKEN AT                  a write was refused: it leads no more
    refused TOKEN AT               so was a late write, that only the service could refuse
    late TOKEN AT                  that write was accepted
    resigned TOKEN BEGAN AT        it has resigned

SIGUSR1 has it resign, and wait again. It ends when its standard input does.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from typing import Final

from ckpt_client import CheckpointError, Leadership, LeadershipLost, SaAisError, Table
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

KEY: Final = "state"
PAUSE_SECONDS: Final = 0.002
"""The pause after each write: two of these programs and their daemons share a machine with other work."""

CALL_NS: Final = 10_000_000_000

_now_ns = time.monotonic_ns


class Program:
    """The program, with the file that it writes to."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.resigns = False
        """True once it has to resign."""

    def note(self, what: str, *values: object) -> None:
        """Write one line, with the time at its end."""
        os.write(self._file, f"{what} {' '.join(map(str, (*values, _now_ns())))}\n".encode())

    def wait_and_lead(self, table: Table, ttl: float) -> None:
        """Wait, lead and count, until the leadership has ended."""
        self.note("waits")
        with table.lead(math.inf, ttl) as leadership:
            token = leadership.token
            try:
                number = int((table.get(KEY) or b"0").split()[0])
                self.note("leads", token, number)
                self._count_up(table, leadership, number)
            except LeadershipLost:
                self.note("lost", token)
                self._write_late(table, leadership)

    def _write_late(self, table: Table, leadership: Leadership) -> None:
        """Send a write with the old token, which the client library would not do."""
        operations = table._operations
        body = leadership._state.sign(operations.write_body(KEY, f"0 {leadership.token}", None))
        while True:
            try:
                table._call_service(Kind.UPDATE, operations.handle, body, CALL_NS)
            except SaAisError as error:
                if error.code not in (codes.TRY_AGAIN, codes.TIMEOUT, codes.UNAVAILABLE):
                    assert error.code == codes.ACCESS, error
                    self.note("refused", leadership.token)
                    return
            else:
                self.note("late", leadership.token)
                return

    def _count_up(self, table: Table, leadership: Leadership, number: int) -> None:
        token = leadership.token
        while not self.resigns:
            number += 1
            began = _now_ns()
            try:
                table[KEY] = f"{number} {token}"
            except LeadershipLost:
                raise
            except CheckpointError:
                self.note("failed", token, number, began)
                continue
            self.note("write", token, number, began)
            time.sleep(PAUSE_SECONDS)
        self.resigns = False
        began = _now_ns()
        leadership.resign()
        self.note("resigned", token, began)


def end_with_stdin() -> None:
    """End this process at once when its standard input ends; the body of a thread."""
    while os.read(0, 64):
        pass
    os._exit(0)


def main() -> None:
    """Run until standard input ends."""
    address, name, ttl, path = sys.argv[1:]
    program = Program(path)

    def resign(*_: object) -> None:
        program.resigns = True

    signal.signal(signal.SIGUSR1, resign)
    threading.Thread(target=end_with_stdin, daemon=True).start()
    with Table(name, 10, 256, 16, address=address, timeout=30) as table:
        while True:
            with contextlib.suppress(CheckpointError):
                program.wait_and_lead(table, float(ttl))


if __name__ == "__main__":
    main()
