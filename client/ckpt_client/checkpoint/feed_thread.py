"""A feed for programs that block: its thread passes what is new to a callback, or to the program's loop.

A table's own connection carries one call at a time. So a feed opens the checkpoint a second time, for
reading, on a connection of its own. This counts as one more user of the checkpoint until the feed is stopped.

`tracking_thread` has the feed of a checkpoint's changes, `leadership.leader_tracking` that of its leaders.
"""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from ckpt_client.checkpoint.open_checkpoint import open_creation
from ckpt_client.checkpoint.tracking import AskOne, Reopen
from ckpt_client.errors import CheckpointError, SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.loop_thread import finalize_at_exit, shared_runner
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests import table_requests
from ckpt_client.steps import Request, drive_async
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ

Item = TypeVar("Item")
Received = TypeVar("Received", covariant=True)


class Items(Protocol[Received]):
    """What a feed follows: it ends by an error only."""

    async def __anext__(self) -> Received: ...


Where = tuple[str | Iterable[str] | None, str, str | bytes | None, bool | None]
"""address, cluster, key and follow_active, as `Table` takes them."""

HAND_OVER_S: Final = 0.1
"""How often a loop over a feed, and the feed's thread, check whether it was stopped."""

JOIN_S: Final = 10.0
"""How long `stop` waits for a callback that is still running."""

logger = logging.getLogger("aspCheckpoint")


class FeedThread(Generic[Item]):
    """A feed that runs: `stop` it, or leave its `with` block."""

    WHAT: str
    """What it is, for messages."""

    def __init__(
        self,
        name: bytes,
        creation_id: int,
        callback: Callable[[Item], object] | None,
        where: Where,
        limit: TimeLimit,
        timeout_ns: int,
    ) -> None:
        """Begin, within the limit. To open the checkpoint again later may take `timeout_ns`.

        Raises: SaAisError NOT_EXIST if the name is unlinked, or what an open raises.
        """
        self.error: SaAisError | None = None
        """Why it ended on its own; None while it runs, and if it was stopped."""
        self._name = name
        self._creation_id = creation_id
        self._handle = 0
        self._callback = callback or self._hand_over
        self._handed: queue.Queue[Item] = queue.Queue(1)
        self._pid = os.getpid()
        self._stopped = threading.Event()
        self._runner = shared_runner()
        self._connection: AsyncConnection
        self._items = self._runner.run(self._begin(where, limit, timeout_ns))
        finalize_at_exit(self)
        thread_name = f"track {name.decode()}"
        self._thread = threading.Thread(target=self._follow, name=thread_name, daemon=True)
        self._thread.start()

    async def _items_from(self, ask: AskOne, limit: TimeLimit, reopen: Reopen) -> Items[Item]:
        """Begin to follow, within the limit."""
        raise NotImplementedError

    def _report_end(self) -> None:
        """Notify the program that the feed has ended on its own."""

    async def _begin(self, where: Where, limit: TimeLimit, timeout_ns: int) -> Items[Item]:
        connection = self._connection = AsyncConnection.own(*where)

        async def ask(kind: int, body: bytes, limit_ns: int) -> Any:
            return await connection.call(kind, self._handle, body, limit_ns)

        async def reopen(within: TimeLimit | None) -> None:
            connection.renew()
            try:
                await self._open(within or TimeLimit(None, timeout_ns))
            except SaAisError as error:
                if error.code == codes.NOT_EXIST:
                    raise table_requests.ended("its name is free, or belongs to a newer checkpoint") from None
                if error.code == codes.BAD_HANDLE and not self._stopped.is_set():
                    raise error_of(codes.TRY_AGAIN, error.text) from None
                raise
            logger.warning("%s: it continues in a new session", self._title)

        try:
            await self._open(limit)
            return await self._items_from(ask, limit, reopen)
        except BaseException:
            connection.leave()
            raise

    async def _open(self, limit: TimeLimit) -> None:
        """Open the checkpoint for reading. Raises: SaAisError NOT_EXIST if another one has its name."""
        body = pack_body([self._name, SA_CKPT_CHECKPOINT_READ, None, True])
        opening = open_creation(body, self._creation_id)
        payload = await drive_async(opening, self._carry_out, limit)
        if payload is None:
            raise error_of(codes.NOT_EXIST, "the name belongs to another checkpoint by now")
        self._handle, _ = table_requests.parse_open_answer(payload)

    async def _carry_out(self, request: Request, limit: TimeLimit) -> Any:
        return await self._connection.call(*request, limit.left_ns())

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                item = self._runner.run(self._items.__anext__())
            except SaAisError as error:
                self._end(error)
                return
            except BaseException as error:
                text = f"the client's loop ended: {error!r}"
                self._end(error_of(codes.SaAisErrorT.SA_AIS_ERR_LIBRARY, text))
                return
            self._pass(item)

    def _pass(self, item: Item) -> None:
        """Call the callback. Log whatever it raises, and continue.

        This includes SystemExit, which once ended the thread, and the tracking with it, without any notice.
        """
        try:
            self._callback(item)
        except BaseException:
            logger.exception("%s: the callback failed", self._title)

    def _end(self, error: SaAisError) -> None:
        """The feed has ended on its own."""
        if self._stopped.is_set():
            return
        logger.warning("%s has ended: %s", self._title, error)
        self.error = error
        self._report_end()

    @property
    def _title(self) -> str:
        return f"the {self.WHAT} of checkpoint {self._name.decode()!r}"

    def __repr__(self) -> str:
        state = "stopped" if self.finalized else f"ended: {self.error}" if self.error else "running"
        return f"<{type(self).__name__} of {self._name.decode()!r} {state}>"

    # -- without a callback

    def _hand_over(self, item: Item) -> None:
        """Wait until the program's loop takes the item."""
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._handed.put(item, timeout=HAND_OVER_S)
                return

    def _handed_over(self) -> Iterator[Item]:
        """Yield what the thread hands over. Raises: CheckpointError when it has ended on its own."""
        if self._callback != self._hand_over:
            text = f"{self._title} has a callback, which gets what a loop would wait for"
            raise CheckpointError(error_of(codes.SaAisErrorT.SA_AIS_ERR_BAD_OPERATION, text), text)
        while not self._stopped.is_set():
            if self._pid != os.getpid():
                raise self._failure(error_of(codes.BAD_HANDLE, "only the parent process is tracking"))
            try:
                item = self._handed.get(timeout=HAND_OVER_S)
            except queue.Empty:
                if self.error is None or self._thread.is_alive():
                    continue
                raise self._failure(self.error) from None
            yield item

    def _failure(self, error: SaAisError) -> CheckpointError:
        return CheckpointError(error, f"{self._title} has ended: {error.text}")

    def stop(self) -> None:
        """Report nothing more. You may call this from any thread, and in the callback.

        Stopping again does nothing. Nor does a call in a forked child, since the parent is tracking.
        """
        if self._stopped.is_set() or self._pid != os.getpid():
            return
        self._stopped.set()
        self._runner.call(self._connection.leave)
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)

    @property
    def finalized(self) -> bool:
        """True once the tracking was stopped."""
        return self._stopped.is_set()

    async def finalize(self) -> None:
        """Stop, on the loop, when the process ends."""
        self._stopped.set()
        await self._connection.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the tracking has ended. Return False after `timeout` seconds (None: no limit)."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
