"""Runs the operator's fence hook, a program that switches off a node whose heartbeats have stopped.

Apart from a refused connection, only its success proves such a node dead. The program gets the node id as its
last argument. Exit code 0 means that the node is off and will not come back on its own; any other outcome
proves nothing.
"""

import asyncio
import contextlib
import os
import shlex
import shutil
import signal
from typing import Final

from ckptd.core.events import FenceEnded
from ckptd.runtime.errors import StartError
from ckptd.runtime.logs import logger

OUTPUT_BYTES_MAX: Final = 4096
"""How much of a hook's output is logged; the rest is read and dropped."""

KILL_LIMIT_S: Final = 1.0
OUTPUT_LIMIT_S: Final = 0.1
"""How long we wait for the last of the output: a child that the hook left running may keep the pipe open for
ever."""

_OWN_VARIABLES: Final = "CKPTD_DAEMON_"


class FenceHook:
    """The program of the setting `fence_hook`, with its time limit."""

    def __init__(self, command: str, node_id: str, limit_s: float) -> None:
        """Raises: StartError if there is no such program."""
        self._command = shlex.split(command)
        self._node_id = node_id
        self._limit_s = limit_s
        if shutil.which(self._command[0]) is None:
            raise StartError(f"fence_hook: {self._command[0]} is not a program that can be run")

    async def run(self, node_id: str) -> FenceEnded:
        """Run the hook for a node, within the time limit; return how it ended."""
        logger.warning("running the fence hook for node %s", node_id)
        fenced, text, output = await self._run(node_id)
        if output:
            logger.info("output of the fence hook for node %s: %s", node_id, output)
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
            return False, f"the fence hook was killed after {self._limit_s:g} s", output.text()
        finally:
            if process.returncode is None:
                await _kill(process)
            await output.end()
        if code < 0:
            return False, f"signal {-code} ended the fence hook", output.text()
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
    """Kill a hook and all that it started. Call it before the hook is reaped: later its pid may be reused."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # A process that is stuck in the kernel does not end even then; do not wait for it.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_LIMIT_S):
            await process.wait()


class _Output(asyncio.Protocol):
    """The first bytes of a hook's output, read from a pipe.

    We use a pipe of our own. With asyncio's we would wait for every process that inherited the pipe.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._transport: asyncio.BaseTransport | None = None
        self._ended = asyncio.Event()

    async def open(self, descriptor: int) -> None:
        """Read from a descriptor, and close it at the end."""
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: self, os.fdopen(descriptor, "rb", buffering=0)
        )

    def data_received(self, data: bytes) -> None:
        self._kept += data[: OUTPUT_BYTES_MAX - len(self._kept)]

    def text(self) -> str:
        """Return the output in one line."""
        return " | ".join(self._kept.decode("utf-8", "replace").split("\n")).strip(" |")

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended.set()

    async def end(self) -> None:
        """Read the rest of the output for at most `OUTPUT_LIMIT_S`, then stop reading."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OUTPUT_LIMIT_S):
                await self._ended.wait()
        self.close()

    def close(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.close()
