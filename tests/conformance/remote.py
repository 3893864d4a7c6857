"""A client's process that can be killed: it does what it is told over a pipe, and is no part of the test.

The test holds stand-ins with the methods and attributes of what lives there. Run as a program this is the
process itself.
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
"""What is not sent to the test but stood in for."""


class Process:
    """The process, as the test sees it."""

    def __init__(self, version: tuple[str, int, int], address: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.service: Any = StandIn(self, self.ask(None, "initialize", (version,), {"address": address}))

    def ask(self, place: int | None, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Have something done there; its result, a stand-in, or what it was refused with."""
        assert self._popen.stdin is not None and self._popen.stdout is not None
        pickle.dump((place, method, arguments, named), self._popen.stdin)
        self._popen.stdin.flush()
        kind, result = pickle.load(self._popen.stdout)
        if kind == "refused":
            raise error_of(*result)
        return StandIn(self, result) if kind == "stays" and place is not None else result

    def end(self) -> None:
        """The program comes to its end."""
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
    """Do as one is told until one is killed, or nobody is there any more."""
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
