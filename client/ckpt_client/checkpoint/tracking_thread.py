"""Tracking for `Table`: its changes, reported by a thread (see `feed_thread`).

The program is notified when the tracking has resumed in a new session (RESUMED, then every section), and when
it has ended (ENDED, and the reason). A standby that waits for changes must not wait for ever with stale data.
"""

from collections.abc import Callable, Iterator
from typing import Generic

from ckpt_client.checkpoint.feed_thread import FeedThread, Where
from ckpt_client.checkpoint.tracking import (
    AskOne,
    Changes,
    Reopen,
    SectionChange,
    SectionChangeT,
    track,
)
from ckpt_client.codecs import V
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests.chosen import ALL, Chosen

TrackCallback = Callable[[list[SectionChange[V]]], object]


class Tracking(FeedThread[list[SectionChange[V]]], Generic[V]):
    """What `Table.track` returns: `stop` it, or leave its `with` block.

    Without a callback, iterate over it: it yields one change after the other, ends when it is stopped, and
    raises a CheckpointError when the tracking has ended on its own.
    """

    WHAT = "tracking"
    _changes: Changes

    def __init__(
        self,
        name: bytes,
        creation_id: int,
        callback: "TrackCallback[V] | None",
        where: Where,
        limit: TimeLimit,
        timeout_ns: int,
        chosen: Chosen = ALL,
        decode: Callable[[bytes, bytes], V] | None = None,
    ) -> None:
        """Begin, within the limit; see `FeedThread`."""
        self._chosen = chosen
        self._decode = decode
        super().__init__(name, creation_id, callback, where, limit, timeout_ns)

    async def _items_from(self, ask: AskOne, limit: TimeLimit, reopen: Reopen) -> Changes:
        self._changes = await track(ask, limit, None, None, reopen, self._chosen, self._decode)
        return self._changes

    def _report_end(self) -> None:
        self._pass([self._changes.ended()])

    def __iter__(self) -> Iterator[SectionChange[V]]:
        """Iterate over the changes. Raises: CheckpointError when the tracking has ended on its own."""
        for changes in self._handed_over():
            for change in changes:
                if change.change is SectionChangeT.ENDED and self.error is not None:
                    raise self._failure(self.error)
                yield change
