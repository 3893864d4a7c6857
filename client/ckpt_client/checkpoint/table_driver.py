"""The blocking driver of an open checkpoint: it carries out the steps of `operations` on a `Connection`.

Threads take turns in opening the checkpoint again. After a fork the child has no handle, since the parent's
session stays with the parent.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ckpt_client.checkpoint.open_checkpoint import BeginAgain, Counts, TableStep, logger
from ckpt_client.checkpoint.operations import Operation, Operations
from ckpt_client.codecs import V
from ckpt_client.errors import CheckpointEnded, CheckpointError, SaAisError, error_of
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests import table_requests
from ckpt_client.steps import Result, drive
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

if TYPE_CHECKING:
    from ckpt_client.checkpoint.feed_thread import Where
    from ckpt_client.io.keep_alive import KeptConnection

Feed = TypeVar("Feed")

_monotonic_ns = time.monotonic_ns


class TableDriver(Generic[V]):
    """The base of `Table`."""

    _endpoint: "Where"

    def __init__(self, operations: Operations[V], connection: Connection, keep_alive: bool = False) -> None:
        self._operations = operations
        self._connection = connection
        self._call_service = connection.call
        self._keep_alive = keep_alive
        self._to_tell: SaAisError | None = None
        """The CheckpointEnded that `come_back` met; the next call raises it."""
        self._reopening = threading.RLock()
        _tables.add(self)

    @property
    def counts(self) -> Counts:
        """How often this table's session has moved, and how often its checkpoint was opened again."""
        return Counts(self._connection.session.moved, self._operations.reopened)

    # -- carrying out operations

    def _run(self, operation: Operation[Result], timeout: float | None = None) -> Result:
        """Carry out an operation within its time-out (seconds; None: the table's)."""
        limit = TimeLimit(timeout, self._operations.timeout_ns)
        return drive(operation, self._carry_out, limit)

    def _carry_out(self, step: TableStep, limit: TimeLimit) -> Any:
        if isinstance(step, tuple):
            return self._call_service(*step, limit.left_ns())
        if isinstance(step, BeginAgain):
            return limit.require_left(step.text)
        if step.refusal is not None and limit.is_over:
            raise step.refusal
        return self._reopened_handle(limit, step.lost)

    def _ask(self, kind: int, body: bytes, timeout: float | None, may_activate: bool = True) -> Any:
        """Do what `Operations.ask` does, without a generator for a request that succeeds at once."""
        operations = self._operations
        handle = operations.handle
        if not handle:
            return self._run(operations.ask(kind, body, may_activate), timeout)
        timeout_ns = table_requests.timeout_in_ns(timeout, operations.timeout_ns)
        deadline_ns = _monotonic_ns() + timeout_ns
        leadership = operations.leadership
        try:
            if leadership is None or kind != Kind.UPDATE:
                return self._call_service(kind, handle, body, timeout_ns)
            sent_ns = leadership.check()
            answer = self._call_service(kind, handle, leadership.sign(body), timeout_ns)
            leadership.renew(sent_ns)
            return answer
        except SaAisError as error:
            refusal = error
        if leadership is None or kind != Kind.UPDATE:
            steps = operations.recover(kind, body, may_activate, handle, refusal)
        else:
            steps = operations.recover_as_leader(body, may_activate, handle, refusal)
        return drive(steps, self._carry_out, TimeLimit.until(deadline_ns))

    # -- opening

    def _open(self, timeout_ns: int) -> None:
        """Open the checkpoint as the program did at first."""
        operations = self._operations
        try:
            drive(operations.open(), self._carry_out, TimeLimit(None, timeout_ns))
        except SaAisError as error:
            raise operations.failure("open", error) from None
        if operations.resized_text:
            self._connection.notices.tell(operations.resized_text)
        self._keep()

    def _reopened_handle(self, limit: TimeLimit, lost: int = 0) -> int:
        """Return the table's handle; first open the checkpoint again if there is none or it is `lost`.

        Threads take turns.
        """
        operations = self._operations
        if operations.closed:
            raise operations.closed_error()
        if not self._reopening.acquire(timeout=min(limit.left_ns() / 1e9, threading.TIMEOUT_MAX)):
            raise error_of(codes.TRY_AGAIN, "another thread is opening the checkpoint again")
        try:
            if operations.handle == lost or not operations.handle:
                self._open_again(limit)
            return operations.handle
        finally:
            self._reopening.release()

    def _open_again(self, limit: TimeLimit) -> None:
        operations, connection = self._operations, self._connection
        operations.handle = 0
        if self._to_tell is not None:
            refusal, self._to_tell = self._to_tell, None
            raise refusal
        connection.renew()
        was_open = bool(operations.creation_id)
        try:
            drive(operations.open_again(), self._carry_out, limit)
        except SaAisError as error:
            if was_open:
                raise
            raise operations.failure("open", error) from None
        self._keep()
        connection.notices.tell(table_requests.reopened_text(operations.opening.name, connection.node_id))

    def _start_feed(
        self, kind: "Callable[[bytes, int, Any, Where, TimeLimit, int], Feed]", callback: Any
    ) -> Feed:
        """Start a `FeedThread` of some kind, on a connection of its own, within the table's time-out."""
        operations = self._operations
        name, timeout_ns = operations.opening.name, operations.timeout_ns
        limit = TimeLimit(None, timeout_ns)
        try:
            if callback is not None and not callable(callback):
                table_requests.refuse(codes.INVALID_PARAM, f"a callback must be callable, not {callback!r}")
            if not operations.handle:
                self._reopened_handle(limit)
            try:
                return kind(name, operations.creation_id, callback, self._endpoint, limit, timeout_ns)
            except SaAisError as error:
                if error.code == codes.NOT_EXIST:
                    self._raise_if_ended(limit)  # The table's own session may have ended too.
                raise
        except SaAisError as error:
            raise operations.failure("track", error) from None

    def _raise_if_ended(self, limit: TimeLimit) -> None:
        """Make a request, and raise CheckpointEnded if the checkpoint is gone. No other error is raised.

        The caller has an error to report already, which none but that one explains better.
        """
        try:
            question = self._operations.ask(Kind.STATUS, table_requests.EMPTY_BODY, may_activate=False)
            drive(question, self._carry_out, limit)
        except CheckpointEnded:
            raise
        except (SaAisError, CheckpointError) as error:
            logger.info(
                "checkpoint %r: it is unknown whether it is still open: %s", self._operations.name, error
            )

    # -- a session that is kept alive

    def _keep(self) -> None:
        if self._keep_alive:
            from ckpt_client.io import keep_alive  # Few programs need it.

            keep_alive.keeper.keep(self)

    @property
    def kept_connection(self) -> "KeptConnection | None":
        """The connection to keep alive; None once the table is closed."""
        from ckpt_client.io.keep_alive import KeptConnection

        connection = self._connection
        if self._operations.closed or not isinstance(connection, KeptConnection):
            return None
        return connection

    def come_back(self, timeout_ns: int) -> None:
        """Open the checkpoint again. If it is gone, the next call raises that.

        The thread of `keep_alive` calls this.
        """
        operations = self._operations
        try:
            if self._to_tell is None and not operations.closed:
                self._reopened_handle(TimeLimit(None, timeout_ns), operations.handle)
        except CheckpointEnded as ended:
            self._to_tell = ended
        except (SaAisError, CheckpointError) as error:
            logger.info("checkpoint %r is not open again yet: %s", operations.name, error)

    # -- fork

    def _after_fork(self) -> None:
        """In the child: drop the handle, which is the parent's, and the lock, which may be held for ever.

        The thread that holds it does not exist here.
        """
        self._operations.handle = 0
        self._reopening = threading.RLock()


_tables: "weakref.WeakSet[TableDriver[Any]]" = weakref.WeakSet()


def _forget_handles() -> None:
    for table in list(_tables):
        table._after_fork()


os.register_at_fork(after_in_child=_forget_handles)
