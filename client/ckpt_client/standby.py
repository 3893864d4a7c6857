"""Tracking for `Table`: changes come to a callback, in a thread that does nothing else.

A table's own connection is for one call at a time. So a tracking opens the checkpoint a second time, for
reading, on a connection of its own; that counts as one more user, as the tracking does not end before it is
stopped.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

from ckpt_client import calls
from ckpt_client.aio_connection import AsyncConnection
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.saf.runner import finalize_at_exit, shared_runner
from ckpt_client.tracking import Changes, SectionChange, track
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ
from ckpt_protocol.messages import Kind

TrackCallback = Callable[[list[SectionChange]], object]

Where = tuple[str | Iterable[str] | None, str, str | bytes | None, bool | None]
"""address, cluster, key and follow_active, as `Table` takes them."""

JOIN_S: Final = 10.0
"""How long `stop` waits for a callback that is still running."""

logger = logging.getLogger("aspCheckpoint")


class Tracking:
    """What `Table.track` returns: `stop` it, or leave its `with` block.

    `error`: why it ended by itself, None while it goes on and where it was stopped.
    """

    def __init__(
        self,
        name: bytes,
        creation_id: int,
        callback: TrackCallback,
        where: Where,
        timeout_ns: int,
    ) -> None:
        """Begin to track. Raises: SaAisError NOT_EXIST: the name is unlinked; what an open may raise."""
        self.error: SaAisError | None = None
        self._name = name
        self._callback = callback
        self._pid = os.getpid()
        self._stopped = threading.Event()
        self._runner = shared_runner()
        self._connection: AsyncConnection
        self._lists = self._runner.run(self._begin(creation_id, where, timeout_ns))
        finalize_at_exit(self)
        thread_name = f"track {name.decode()}"
        self._thread = threading.Thread(target=self._follow, name=thread_name, daemon=True)
        self._thread.start()

    async def _begin(self, creation_id: int, where: Where, timeout_ns: int) -> Changes:
        connection = self._connection = AsyncConnection.own(*where)
        try:
            body = pack_body([self._name, SA_CKPT_CHECKPOINT_READ, None, True])
            payload = await connection.call(Kind.OPEN, 0, body, timeout_ns)
            handle, _ = calls.opened_of(payload)
            if payload[1] != creation_id:
                raise error_of(codes.NOT_EXIST, "another checkpoint has this name now")

            async def ask(kind: int, body: bytes, limit_ns: int) -> Any:
                return await connection.call(kind, handle, body, limit_ns)

            return await track(ask, timeout_ns)
        except BaseException:
            connection.leave()
            raise

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                changes = self._runner.run(self._lists.__anext__())
            except SaAisError as error:
                if not self._stopped.is_set():
                    logger.warning("checkpoint %r is tracked no more: %s", self._name.decode(), error)
                    self.error = error
                return
            try:
                self._callback(changes)
            except Exception:
                logger.exception("the callback for changes of checkpoint %r failed", self._name.decode())

    def stop(self) -> None:
        """Have no more changes told; from any thread, also in the callback. Stopping again does nothing, nor
        does a forked child's word: it is its parent that tracks."""
        if self._stopped.is_set() or self._pid != os.getpid():
            return
        self._stopped.set()
        self._runner.call(self._connection.leave)
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    @property
    def finalized(self) -> bool:
        """Whether it was stopped."""
        return self._stopped.is_set()

    async def finalize(self) -> None:
        """Stop, on the loop: when the process ends."""
        self._stopped.set()
        await self._connection.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended. False after `timeout` seconds (None: no limit)."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
