"""A standby's image of a checkpoint: the content of every section, kept up to date while the program waits.

It follows the changes on a connection of its own, and reads what has changed. It is complete up to a position
once all changes up to there were read.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final

from ckpt_client.checkpoint.open_checkpoint import is_missing, lacks_active, open_creation
from ckpt_client.checkpoint.tracking import (
    RETRY_S,
    TRACK_NS,
    WAITS,
    Changes,
    SectionChange,
    SectionChangeT,
    track,
)
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.candidacy import Connect
from ckpt_client.requests import table_requests
from ckpt_client.steps import Request, drive_async
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ
from ckpt_protocol.messages import Kind

READS_AT_ONCE: Final = 64

_GONE: Final = (SectionChangeT.DELETED, SectionChangeT.EXPIRED)
_OF_TRACKING: Final = (SectionChangeT.RESUMED, SectionChangeT.ENDED)


class Standby:
    """The content of one checkpoint, from `start` to `end`. Use it on one loop only."""

    def __init__(self, name: bytes, creation_id: int, connect: Connect) -> None:
        self._name = name
        self._creation_id = creation_id
        self._connection = connect()
        self._handle = 0
        self._sections: dict[bytes, bytes] = {}
        self._stale: set[bytes] = set()
        self._position = -1
        self._advanced = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def complete(self, position: int, over: Awaitable[object]) -> dict[bytes, bytes]:
        """Return the content once it is complete up to a position; return at once when `over` is done.

        Raises: SaAisError if the checkpoint is gone.
        """
        waiting = asyncio.ensure_future(over)
        try:
            while self._position < position and not self._task.done() and not waiting.done():
                self._advanced.clear()
                advanced = asyncio.ensure_future(self._advanced.wait())
                try:
                    await asyncio.wait({advanced, waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    advanced.cancel()
        finally:
            waiting.cancel()
        if self._task.done():
            self._task.result()
        return dict(self._sections)

    async def end(self) -> None:
        """Follow no longer."""
        self._task.cancel()
        try:
            await asyncio.wait({self._task})
        finally:
            if not self._task.cancelled():
                self._task.exception()  # Whoever waited has received it.
            self._connection.leave()

    async def _follow(self) -> None:
        await self._open(TimeLimit(None, table_requests.NO_LIMIT_NS))
        changes = await self._begin()
        while True:
            if not self._stale:
                self._position = changes.position
                self._advanced.set()
            self._take(await changes.advance())
            await self._read_stale()

    async def _begin(self) -> Changes:
        """Begin to track, and read everything after that; begin again if that fails for lack of a node."""
        limit = TimeLimit(None, table_requests.NO_LIMIT_NS)
        while True:
            try:
                changes = await track(self._ask, limit, reopen=self._reopen)
                await self._read_all()
                return changes
            except SaAisError as error:
                if error.code == codes.BAD_HANDLE:
                    await self._reopen(limit)
                elif error.code not in WAITS and not lacks_active(error):
                    raise
                await asyncio.sleep(RETRY_S)

    async def _read_all(self) -> None:
        self._sections, self._stale = {}, set()
        after: bytes | None = None
        while True:
            body = table_requests.iterate_body(after, True)
            page, after = table_requests.page_of(await self._ask(Kind.ITERATE, body, TRACK_NS))
            self._sections.update(map(table_requests.item_of, page))
            if after is None:
                return

    def _take(self, changes: list[SectionChange]) -> None:
        for change in changes:
            if change.change in _OF_TRACKING:
                continue
            if change.change in _GONE:
                self._sections.pop(change.section_id, None)
                self._stale.discard(change.section_id)
            else:
                self._stale.add(change.section_id)

    async def _read_stale(self) -> None:
        """Read what has changed. If the session ends meanwhile, the changes report every section again."""
        while self._stale:
            some = sorted(self._stale)[:READS_AT_ONCE]
            outcomes = await asyncio.gather(*map(self._read, some), return_exceptions=True)
            errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
            for error in errors:
                if not isinstance(error, SaAisError):
                    raise error
                if error.code == codes.BAD_HANDLE:
                    return
                if error.code not in WAITS and not lacks_active(error):
                    raise error
            if errors:
                await asyncio.sleep(RETRY_S)

    async def _read(self, section_id: bytes) -> None:
        try:
            payload = await self._ask(Kind.READ, pack_body([[section_id, 0, None]]), TRACK_NS)
        except SaAisError as error:
            if not is_missing(error):
                raise
            self._sections.pop(section_id, None)
        else:
            self._sections[section_id] = table_requests.value_of(payload)
        self._stale.discard(section_id)

    # -- requests

    async def _ask(self, kind: int, body: bytes, timeout_ns: int) -> Any:
        return await self._connection.call(kind, self._handle, body, timeout_ns)

    async def _reopen(self, within: TimeLimit | None) -> None:
        self._connection.renew()
        try:
            await self._open(within or TimeLimit(None, TRACK_NS))
        except SaAisError as error:
            if error.code != codes.BAD_HANDLE:
                raise
            raise error_of(codes.TRY_AGAIN, error.text) from None

    async def _open(self, limit: TimeLimit) -> None:
        """Open the checkpoint for reading. Raises: SaAisError NOT_EXIST if it is gone."""
        body = pack_body([self._name, SA_CKPT_CHECKPOINT_READ, None, True])
        payload = await drive_async(open_creation(body, self._creation_id), self._carry_out, limit)
        if payload is None:
            raise error_of(codes.NOT_EXIST, "the name belongs to another checkpoint by now")
        self._handle, _ = table_requests.parse_open_answer(payload)

    async def _carry_out(self, request: Request, limit: TimeLimit) -> Any:
        return await self._connection.call(*request, limit.left_ns())
