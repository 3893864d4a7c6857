"""Calls in progress while a scenario continues, for what happens in the middle of one."""

from collections.abc import Coroutine
from typing import Any

from tests.conformance.world import World

from ckpt_client import SaAisError
from ckpt_client.saf import Checkpoint, CheckpointService
from ckpt_protocol.codes import code_name


class Begun:
    """A coroutine of a service. `code`: "" until it ends, then "OK" or the code with which it was refused.

    It continues while the scenario lets time pass, or makes calls of its own.
    """

    def __init__(self, service: CheckpointService, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.code = ""
        self.result: Any = None
        self._under_way = service.spawn(self._see_to_its_end(coroutine))

    async def _see_to_its_end(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        try:
            self.result = await coroutine
        except SaAisError as error:
            self.code = code_name(error.code).removeprefix("SA_AIS_ERR_")
        else:
            self.code = "OK"

    def end(self, world: World, seconds: float = 10.0) -> Any:
        """Wait until it has ended successfully; return the result."""
        world.until(lambda: self.code, seconds)
        assert self.code == "OK"
        return self.result

    def give_up(self) -> None:
        """Cancel it: its outcome is unknown."""
        self._under_way.cancel()


def begin(checkpoint: Checkpoint, method: str, *arguments: Any) -> Begun:
    """Begin a call on a checkpoint."""
    return Begun(checkpoint.service, getattr(checkpoint._inner, method)(*arguments))


class Writing:
    """A process that overwrites sections with ascending numbers, in this order, again and again.

    `done`: the last number whose write to all of them was acknowledged.
    """

    def __init__(self, checkpoint: Checkpoint, *section_ids: str) -> None:
        self.done = 0
        self._stopped = False
        self._sections = section_ids
        self._inner = checkpoint._inner
        self.begun = Begun(checkpoint.service, self._write())

    async def _write(self) -> None:
        while not self._stopped:
            for section_id in self._sections:
                await self._inner.overwrite(section_id, b"%d" % (self.done + 1))
            self.done += 1

    def stop(self, world: World) -> int:
        """Let it end after this round; return the last number."""
        self._stopped = True
        self.begun.end(world)
        return self.done
