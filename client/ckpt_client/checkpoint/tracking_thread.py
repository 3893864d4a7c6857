"""Tracking for `Table`: its changes, reported by a thread (see `feed_thread`).

The program is notified when the tracking has resumed in a new session (RESUMED, then every section), and when
it has ended (ENDED, and the reason). A standby that waits for changes must not wait for ever with stale data.
"""

from collections.abc import Callable, Iterator

from ckpt_client.checkpoint.feed_thread import FeedThread
from ckpt_client.checkpoint.tracking import AskOne, Changes, Reopen, SectionChange, SectionChangeT, track
from ckpt_client.io.time_limit import TimeLimit

TrackCallback = Callable[[list[SectionChange]], object]


class Tracking(FeedThread[list[SectionChange]]):
    """What `Table.track` returns: `stop` it, or leave its `with` block.

    Without a callback, iterate over it: it yields one change after the other, ends when it is stopped, and
    raises a CheckpointError when the tracking has ended on its own.
    """

    WHAT = "tracking"
    _changes: Changes

    async def _items_from(self, ask: AskOne, limit: TimeLimit, reopen: Reopen) -> Changes:
        self._changes = await track(ask, limit, reopen=reopen)
        return self._changes

    def _report_end(self) -> None:
        self._pass([self._changes.ended()])

    def __iter__(self) -> Iterator[SectionChange]:
        """Iterate over the changes. Raises: CheckpointError when the tracking has ended on its own."""
        for changes in self._handed_over():
            for change in changes:
                if change.change is SectionChangeT.ENDED and self.error is not None:
                    raise self._failure(self.error)
                yield change
