"""A client in a process of its own, which the test can kill: it carries out the calls that come over a pipe.

The test has stand-ins with the methods and attributes of the objects there. If this module is run as a
program, it is that process.
"""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.saf import Checkpoint, CheckpointService
from ckpt_client.saf.checkpoint import SectionIteration

_STAYS = (Checkpoint, SectionIteration, CheckpointService)
"""Objects that stay in the process; the test gets stand-ins for them."""


class Process:
    """The process, as the test sees it."""

    def __init__(self, version: tuple[str, int, int], address: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.service: Any = StandIn(self, self.ask(None, "initialize", (version,), {"address": address}))

    def ask(self, place: int | None, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Make a call there; return its result or a stand-in, or raise its error."""
        assert self._popen.stdin is not None and self._popen.stdout is not None
        pickle.dump((place, method, arguments, named), self._popen.stdin)
        self._popen.stdin.flush()
        kind, result = pickle.load(self._popen.stdout)
        if kind == "refused":
            raise error_of(*result)
        return StandIn(self, result) if kind == "stays" and place is not None else result

    def end(self) -> None:
        """Let the program end."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        assert self._popen.wait(10) == 0
        self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()


class StandIn:
    """An object that lives in the other process."""

    def __init__(self, process: Process, place: int) -> None:
        self.process = process
        self._place = place

    def __getattr__(self, name: str) -> Any:
        if name in ("name", "open_flags", "handle", "version", "required_version"):
            return self.process.ask(self._place, name, (), {})
        return lambda *arguments, **named: self.process.ask(self._place, name, arguments, named)


def _do(objects: list[Any], place: int | None, method: str, arguments: Any, named: Any) -> tuple[str, Any]:
    try:
        if place is None:
            result = CheckpointService.initialize(*arguments, **named)
        else:
            result = getattr(objects[place], method)
            if callable(result):
                result = result(*arguments, **named)
    except SaAisError as error:
        return "refused", (int(error.code), error.text, error.index)
    if isinstance(result, _STAYS):
        objects.append(result)
        return "stays", len(objects) - 1
    return "result", result


def main(told: BinaryIO, tell: BinaryIO) -> None:
    """Carry out calls until the process is killed, or the test has ended."""
    objects: list[Any] = []
    while True:
        try:
            asked = pickle.load(told)
        except EOFError:
            return
        pickle.dump(_do(objects, *asked), tell)
        tell.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
