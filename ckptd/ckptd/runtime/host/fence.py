"""Runs the operator's program that switches a silent node off: the only proof of death but a refusal.

The program gets the node id as its last argument. Exit code 0 says that the node is off,
and will not come back by itself before it is told to; anything else proves nothing.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from typing import Final

from ckptd.core.events import FenceEnded
from ckptd.runtime.errors import StartRefused
from ckptd.runtime.logs import logger

OUTPUT_BYTES_MAX: Final = 4096
"""What of a hook's output is logged; the rest is read and dropped."""

KILL_LIMIT_S: Final = 1.0
OUTPUT_LIMIT_S: Final = 0.1
"""For the last of the output: a child that the hook left running may hold the pipe open for ever."""

_OWN_VARIABLES: Final = "CKPTD_DAEMON_"


class FenceHook:
    """The program of the setting `fence_hook`, with its time limit."""

    def __init__(self, command: str, node_id: str, limit_s: float) -> None:
        """Raises: StartRefused where there is no such program."""
        self._command = shlex.split(command)
        self._node_id = node_id
        self._limit_s = limit_s
        if shutil.which(self._command[0]) is None:
            raise StartRefused(f"fence_hook: {self._command[0]} is no program that can be run")

    async def run(self, node_id: str) -> FenceEnded:
        """Run it for a node and return how it ended, within the limit."""
        logger.warning("the fence hook is run for node %s", node_id)
        fenced, text, output = await self._run(node_id)
        if output:
            logger.info("the fence hook for node %s said: %s", node_id, output)
        return FenceEnded(node_id, fenced, text)

    async def _run(self, node_id: str) -> tuple[bool, str, str]:
        output = _Output()
        try:
            process = await self._start(node_id, output)
        except (OSError, ValueError) as error:
            return False, f"the fence hook cannot be started: {error}", ""
        try:
            async with asyncio.timeout(self._limit_s):
                code = await process.wait()
        except TimeoutError:
            return False, f"the fence hook was killed: it ran for {self._limit_s:g} s", output.text()
        finally:
            if process.returncode is None:
                await _kill(process)
            await output.end()
        if code < 0:
            return False, f"the fence hook was ended by signal {-code}", output.text()
        return code == 0, f"the fence hook ended with exit code {code}", output.text()

    async def _start(self, node_id: str, output: "_Output") -> asyncio.subprocess.Process:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(_OWN_VARIABLES)}
        environment |= {"CKPTD_FENCE_NODE": node_id, "CKPTD_NODE": self._node_id}
        reading, writing = os.pipe()
        try:
            await output.open(reading)
            return await asyncio.create_subprocess_exec(
                *self._command,
                node_id,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            output.close()
            raise
        finally:
            os.close(writing)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a hook and all that it started. Not once it is reaped: its number may be another's then."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that is stuck in the kernel does not end even then, and we do not wait for it.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_LIMIT_S):
            await process.wait()


class _Output(asyncio.Protocol):
    """The first bytes of what comes out of a pipe.

    A pipe of our own, since asyncio's own would have us wait for whoever inherited it.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._transport: asyncio.BaseTransport | None = None
        self._ended = asyncio.Event()

    async def open(self, descriptor: int) -> None:
        """Read from a descriptor, and close it in the end."""
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: self, os.fdopen(descriptor, "rb", buffering=0)
        )

    def data_received(self, data: bytes) -> None:
        self._kept += data[: OUTPUT_BYTES_MAX - len(self._kept)]

    def text(self) -> str:
        """What was said, in one line."""
        return " | ".join(self._kept.decode("utf-8", "replace").split("\n")).strip(" |")

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    async def end(self) -> None:
        """Read what is there, and then no more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OUTPUT_LIMIT_S):
                await self._ended.wait()
        self.close()

    def close(self) -> None:
        """Read no more."""
        if self._transport is not None:
            self._transport.close()
