"""Follow who leads a checkpoint: an async iterator, and a thread for programs that block.

LEADER_TRACK is a read that waits: it names the version that the client knows of, and the answer comes once
that is another one. So a lost connection or a fail-over hides no leader from those who follow, except one
that has come and gone in the meantime.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Self

from ckpt_client.checkpoint.feed_thread import FeedThread
from ckpt_client.checkpoint.open_checkpoint import lacks_active
from ckpt_client.checkpoint.tracking import RETRY_S, TRACK_NS, WAITS, AskOne, Fail, Reopen
from ckpt_client.errors import SaAisError
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.leaders import Leader, answer_of, leader_body, leader_of, leader_track_body
from ckpt_protocol import codes
from ckpt_protocol.messages import Kind

LeaderCallback = Callable[[Leader | None], object]

_UNKNOWN: Final = object()


class LeaderChanges:
    """An async iterator over who leads: first the present leader, then each other one; None for none.

    A cancelled `anext` loses nothing. If the checkpoint is gone, it raises what `fail` makes of the error.
    """

    def __init__(
        self, ask: AskOne, creation_id: int, reopen: Reopen | None = None, fail: Fail | None = None
    ) -> None:
        self._ask = ask
        self._creation_id = creation_id
        self._reopen = reopen
        self._fail = fail
        self._version: int | None = None
        self._last: object = _UNKNOWN

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Leader | None:
        while True:
            try:
                leader = await self._next()
            except SaAisError as error:
                await self._recover(error)
                continue
            # The node may change while the leader stays.
            now = leader.token if leader is not None else None
            if now != self._last:
                self._last = now
                return leader

    async def _next(self) -> Leader | None:
        """Ask who leads: the first time at once, then when that has changed."""
        if self._version is None:
            payload = await self._ask(Kind.LEADER, leader_body(), TRACK_NS)
        else:
            payload = await self._ask(Kind.LEADER_TRACK, leader_track_body(0, self._version), TRACK_NS)
        answer = answer_of(payload)
        self._version = answer.version
        return leader_of(answer, self._creation_id)

    async def _recover(self, error: SaAisError) -> None:
        """Open the checkpoint again, or wait. Raises: what the program gets."""
        try:
            if error.code == codes.BAD_HANDLE and self._reopen is not None:
                await self._reopen(None)
            elif error.code not in WAITS and not lacks_active(error):
                raise error
        except SaAisError as refusal:
            if refusal.code not in WAITS:
                if self._fail is not None:
                    self._fail(refusal)
                raise
        await asyncio.sleep(RETRY_S)


class LeaderTracking(FeedThread[Leader | None]):
    """What `Table.track_leader` returns: `stop` it, or leave its `with` block.

    Without a callback, iterate over it: it yields who leads, first the present leader, then each other one.
    It raises a CheckpointError when the tracking has ended on its own. With a callback, `error` has the
    reason.
    """

    WHAT = "tracking of the leader"

    async def _items_from(self, ask: AskOne, limit: TimeLimit, reopen: Reopen) -> LeaderChanges:
        return LeaderChanges(ask, self._creation_id, reopen)

    def _report_end(self) -> None:
        """The log has it, and `error`; a loop raises it."""

    def __iter__(self) -> Iterator[Leader | None]:
        """Iterate over the leaders. Raises: CheckpointError when the tracking has ended on its own."""
        return self._handed_over()
