"""The open checkpoint of a blocking `Table`: its handle, and how it is opened again when the handle is lost.

A session ends when it has had no node for its grace time, or when every node was restarted. After a fork the
session stays with the parent. In each case the next call opens the checkpoint again, in a new session:

* If it is still the same creation of the checkpoint, the call continues and its caller notices nothing.
* If it is not, the call fails once with NOT_EXIST and says so, because what the program knows about the
  checkpoint is no longer true. The call after that opens the checkpoint as the constructor did, and may
  create it.
* A call that may have been done when the session ended fails with TIMEOUT. It is never repeated in the new
  session, which knows nothing of it.
"""

import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

from ckpt_client.errors import CheckpointEnded, CheckpointError, CheckpointKeyError, SaAisError, error_of
from ckpt_client.io.blocking import Connection
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Attributes, Key, Opening
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.messages import Kind

if TYPE_CHECKING:
    from ckpt_client.io.keep_alive import KeptConnection

logger = logging.getLogger("aspCheckpoint")

ACTIVATIONS_MAX: Final = 3
"""How often one call activates the local replica before it reports that there is no active one."""

_MILLISECOND_NS: Final = 1_000_000
_monotonic_ns = time.monotonic_ns


class Counts(NamedTuple):
    """What has happened to a table since it was opened."""

    moved: int
    """How often its session was attached again, to another node or to the same one."""

    reopened: int
    """How often its checkpoint was opened again in a new session."""


class OpenTable:
    """The base of `Table`, which sets `_opening` and `_timeout_ns` before it calls `__init__`."""

    _opening: Opening
    _timeout_ns: int
    autoActivate: bool

    def __init__(self, name: Key, connection: Connection, keep_alive: bool = False) -> None:
        self.ckptName = name
        self._connection = connection
        self._call_service = connection.call
        self._attributes: Attributes
        self._handle = self._creation_id = 0
        self._closed = False
        self._reopened = 0
        self._keep_alive = keep_alive
        self._to_tell: SaAisError | None = None
        """The CheckpointEnded that `come_back` met; the next call raises it."""
        self._reopening = threading.RLock()
        _tables.add(self)

    @property
    def counts(self) -> Counts:
        """How often this table's session has moved, and how often its checkpoint was opened again."""
        return Counts(self._connection.session.moved, self._reopened)

    # -- opening

    def _open(self, timeout_ns: int) -> None:
        """Open the checkpoint as the constructor does."""
        try:
            self._take_opened(self._call_service(Kind.OPEN, 0, self._opening.body, timeout_ns))
        except SaAisError as error:
            self._fail("open", error)

    def _take_opened(self, payload: Any) -> None:
        handle, self._attributes = table_requests.opened_of(payload)
        self._creation_id = payload[1]
        self._handle = handle
        if self._keep_alive:
            from ckpt_client.io import keep_alive

            keep_alive.keeper.keep(self)

    def _reopened_handle(self, timeout_ns: int, lost: int = 0) -> int:
        """Return the table's handle; first open the checkpoint again if there is none or it is `lost`.

        Threads take turns.
        """
        if self._closed:
            self._refuse_closed()
        deadline_ns = _monotonic_ns() + timeout_ns
        if not self._reopening.acquire(timeout=min(timeout_ns / 1e9, threading.TIMEOUT_MAX)):
            raise error_of(codes.TRY_AGAIN, "another thread is opening the checkpoint again")
        try:
            if self._handle == lost or not self._handle:
                self._handle = 0
                self._open_again(max(deadline_ns - _monotonic_ns(), _MILLISECOND_NS))
            return self._handle
        finally:
            self._reopening.release()

    def _open_again(self, timeout_ns: int) -> None:
        if self._to_tell is not None:
            refusal, self._to_tell = self._to_tell, None
            raise refusal
        connection = self._connection
        connection.renew()
        if not self._creation_id:
            # The caller has received CheckpointEnded, or the checkpoint was never open.
            self._open(timeout_ns)
        else:
            deadline_ns = _monotonic_ns() + timeout_ns
            try:
                payload = self._call_service(Kind.OPEN, 0, self._opening.again, timeout_ns)
            except SaAisError as error:
                if error.code != codes.NOT_EXIST:
                    raise
                self._creation_id = 0
                raise table_requests.ended("no checkpoint has its name") from None
            handle, _ = table_requests.opened_of(payload)
            if payload[1] != self._creation_id:
                left_ns = max(deadline_ns - _monotonic_ns(), _MILLISECOND_NS)
                self._call_service(Kind.CLOSE, handle, table_requests.EMPTY_BODY, left_ns)
                self._creation_id = 0
                raise table_requests.ended("another checkpoint has its name")
            self._take_opened(payload)
        self._reopened += 1
        connection.notices.tell(table_requests.reopened_text(self._opening.name, connection.node_id))

    # -- called by the thread of `keep_alive`

    @property
    def kept_connection(self) -> "KeptConnection | None":
        """The connection to keep alive; None once the table is closed."""
        from ckpt_client.io.keep_alive import KeptConnection

        connection = self._connection
        return connection if isinstance(connection, KeptConnection) and not self._closed else None

    def come_back(self, timeout_ns: int) -> None:
        """Open the checkpoint again. If it is gone, the next call raises that."""
        try:
            if self._to_tell is None and not self._closed:
                self._reopened_handle(timeout_ns, self._handle)
        except CheckpointEnded as ended:
            self._to_tell = ended
        except (SaAisError, CheckpointError) as error:
            logger.info("checkpoint %r is not open again yet: %s", self.ckptName, error)

    # -- requests

    def _ask(self, kind: int, body: bytes, timeout: float | None, activate: bool = True) -> Any:
        """Make one call on the checkpoint; if no replica is active, activate the local one and repeat it."""
        timeout_ns = table_requests.timeout_in_ns(timeout, self._timeout_ns)
        handle = self._handle or self._reopened_handle(timeout_ns)
        deadline_ns = _monotonic_ns() + timeout_ns
        try:
            return self._call_service(kind, handle, body, timeout_ns)
        except SaAisError as error:
            refusal = error
        if refusal.code == codes.BAD_HANDLE:
            try:
                return self._ask_again(kind, body, deadline_ns, handle, refusal)
            except SaAisError as error:
                refusal = error
        no_active = refusal.code == codes.NOT_EXIST and refusal.index < 0
        if not no_active or isinstance(refusal, CheckpointEnded) or not activate or not self._may_activate:
            raise refusal
        return self._activate_and_ask(kind, body, deadline_ns, refusal)

    def _ask_again(self, kind: int, body: bytes, deadline_ns: int, lost: int, refusal: SaAisError) -> Any:
        """Repeat the call in a new session.

        This is safe: BAD_HANDLE means that nothing was done. What may have been done fails with TIMEOUT.
        """
        left_ns = deadline_ns - _monotonic_ns()
        if self._closed or left_ns <= 0:
            raise refusal
        handle = self._reopened_handle(left_ns, lost)
        return self._call_service(kind, handle, body, max(deadline_ns - _monotonic_ns(), _MILLISECOND_NS))

    @property
    def _may_activate(self) -> bool:
        return self.autoActivate and self._opening.writable and self._attributes.may_lack_active

    def _activate_and_ask(self, kind: int, body: bytes, deadline_ns: int, refusal: SaAisError) -> Any:
        if kind == Kind.ACTIVE_SET:
            raise refusal
        for _ in range(ACTIVATIONS_MAX):
            logger.info("checkpoint %r has no active replica: activating the local one", self.ckptName)
            left_ns = max(deadline_ns - _monotonic_ns(), _MILLISECOND_NS)
            self._call_service(Kind.ACTIVE_SET, self._handle, pack_body([True]), left_ns)
            left_ns = max(deadline_ns - _monotonic_ns(), _MILLISECOND_NS)
            try:
                return self._call_service(kind, self._handle, body, left_ns)
            except SaAisError as error:
                if error.code != codes.NOT_EXIST or error.index >= 0:
                    raise
                refusal = error
        raise refusal

    # -- errors

    def _refuse_closed(self) -> NoReturn:
        raise error_of(codes.BAD_HANDLE, "the table is closed")

    def _fail(self, what: str, error: SaAisError, key_error: bool = False) -> NoReturn:
        missing = key_error and error.code == codes.NOT_EXIST and error.index >= 0
        kind = CheckpointKeyError if missing else CheckpointError
        raise kind(error, f"cannot {what} checkpoint {self.ckptName!r}: {error.text}") from None

    # -- fork

    def _after_fork(self) -> None:
        """In the child: drop the handle, which is the parent's, and the lock, which may be held for ever.

        The thread that holds it does not exist here.
        """
        self._handle = 0
        self._reopening = threading.RLock()


_tables: "weakref.WeakSet[OpenTable]" = weakref.WeakSet()


def _forget_handles() -> None:
    for table in list(_tables):
        table._after_fork()


os.register_at_fork(after_in_child=_forget_handles)
