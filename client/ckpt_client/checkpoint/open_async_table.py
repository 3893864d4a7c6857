"""The open checkpoint of an `AsyncTable`: its handle, and how it is opened again when the handle is lost.

This is `open_table` for asyncio; the rules are described there.
"""

import asyncio
import logging
import time
from typing import Any, Final, NoReturn

from ckpt_client.checkpoint.open_table import Counts
from ckpt_client.checkpoint.tracking import OwnUpdates
from ckpt_client.errors import CheckpointEnded, CheckpointError, CheckpointKeyError, SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Attributes, Opening
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.messages import Kind

logger = logging.getLogger("aspCheckpoint")

ACTIVATIONS_MAX: Final = 3
"""How often one call activates the local replica before it reports that there is no active one."""

_MILLISECOND_NS: Final = 1_000_000


class OpenAsyncTable:
    """The base of `AsyncTable`."""

    auto_activate: bool

    def __init__(self, connection: AsyncConnection, opening: Opening, timeout_ns: int) -> None:
        self._connection = connection
        self._opening = opening
        self._timeout_ns = timeout_ns
        self._handle = self._creation_id = 0
        self._closed = False
        self._reopened = 0
        self._reopening = asyncio.Lock()
        self._own: OwnUpdates | None = None
        self._attributes: Attributes
        self.name = opening.name.decode()

    @property
    def counts(self) -> Counts:
        """How often this table's session has moved, and how often its checkpoint was opened again."""
        return Counts(self._connection.moved, self._reopened)

    # -- requests

    async def _ask(self, kind: int, body: bytes, timeout: float | None, activate: bool = True) -> Any:
        """Make one call on the checkpoint; if no replica is active, activate the local one and repeat it."""
        timeout_ns = table_requests.timeout_in_ns(timeout, self._timeout_ns)
        deadline_ns = time.monotonic_ns() + timeout_ns
        try:
            return await self._call(kind, body, timeout_ns)
        except SaAisError as error:
            no_active = error.code == codes.NOT_EXIST and error.index < 0
            if not no_active or isinstance(error, CheckpointEnded) or not activate or not self._may_activate:
                raise
            refusal = error
        if kind == Kind.ACTIVE_SET:
            raise refusal
        for _ in range(ACTIVATIONS_MAX):
            logger.info("checkpoint %r has no active replica: activating the local one", self.name)
            await self._call(Kind.ACTIVE_SET, pack_body([True]), _left(deadline_ns))
            try:
                return await self._call(kind, body, _left(deadline_ns))
            except SaAisError as error:
                if error.code != codes.NOT_EXIST or error.index >= 0 or isinstance(error, CheckpointEnded):
                    raise
                refusal = error
        raise refusal

    async def _call(self, kind: int, body: bytes, timeout_ns: int) -> Any:
        """Make one request with this table's handle; if its session has ended, repeat it once in a new one.

        Repeating is safe: BAD_HANDLE means that nothing was done. What may have been done fails with TIMEOUT.
        """
        if self._closed:
            self._refuse_closed()
        if self._own is not None and kind == Kind.UPDATE:
            self._own.note(self._connection.next_number)
        handle, deadline_ns = self._handle, time.monotonic_ns() + timeout_ns
        if handle:
            try:
                return await self._connection.call(kind, handle, body, timeout_ns)
            except SaAisError as error:
                if error.code != codes.BAD_HANDLE or self._closed or not self._connection.usable:
                    raise
        await self._reopen(handle, deadline_ns)
        if self._own is not None and kind == Kind.UPDATE:
            self._own.note(self._connection.next_number)
        return await self._connection.call(kind, self._handle, body, _left(deadline_ns))

    # -- opening

    async def _open(self, timeout_ns: int) -> None:
        """Open the checkpoint as `open` does."""
        self._take_opened(await self._connection.call(Kind.OPEN, 0, self._opening.body, timeout_ns))

    def _take_opened(self, payload: Any) -> None:
        handle, self._attributes = table_requests.opened_of(payload)
        self._creation_id = payload[1]
        self._handle = handle

    async def _reopen(self, lost: int, deadline_ns: int) -> None:
        """Open the checkpoint again, unless another task has replaced the `lost` handle; see `open_table`."""
        try:
            async with asyncio.timeout(_left(deadline_ns) / 1e9):
                await self._reopening.acquire()
        except TimeoutError:
            raise error_of(codes.TRY_AGAIN, "another task is opening the checkpoint again") from None
        try:
            if self._closed:
                self._refuse_closed()
            if self._handle in (0, lost):
                self._handle = 0
                await self._open_again(deadline_ns)
        finally:
            self._reopening.release()

    async def _open_again(self, deadline_ns: int) -> None:
        connection = self._connection
        connection.renew()
        if not self._creation_id:
            await self._open(_left(deadline_ns))
        else:
            try:
                payload = await connection.call(Kind.OPEN, 0, self._opening.again, _left(deadline_ns))
            except SaAisError as error:
                if error.code != codes.NOT_EXIST:
                    raise
                self._creation_id = 0
                raise table_requests.ended("no checkpoint has its name") from None
            handle, _ = table_requests.opened_of(payload)
            if payload[1] != self._creation_id:
                await connection.call(Kind.CLOSE, handle, table_requests.EMPTY_BODY, _left(deadline_ns))
                self._creation_id = 0
                raise table_requests.ended("another checkpoint has its name")
            self._take_opened(payload)
        self._reopened += 1
        connection.notices.tell(table_requests.reopened_text(self._opening.name, connection.node_id))

    @property
    def _may_activate(self) -> bool:
        return self.auto_activate and self._opening.writable and self._attributes.may_lack_active

    def _refuse_closed(self) -> NoReturn:
        raise error_of(codes.BAD_HANDLE, "the table is closed")

    def _fail(self, what: str, error: SaAisError, key_error: bool = False) -> NoReturn:
        missing = key_error and error.code == codes.NOT_EXIST and error.index >= 0
        kind = CheckpointKeyError if missing else CheckpointError
        raise kind(error, f"cannot {what} checkpoint {self.name!r}: {error.text}") from None


def _left(deadline_ns: int) -> int:
    """Return the time until a deadline, in ns; at least 1 ms, so that a late call fails by its time-out."""
    return max(deadline_ns - time.monotonic_ns(), _MILLISECOND_NS)
