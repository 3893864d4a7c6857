"""What an operator is to know without asking: copies that are missing, a node that does not serve.

Every member looks for itself. The checkpoints that lack something are kept up to date with
each change of the directory, so that looking costs nothing while nothing is wrong. A
change takes some milliseconds in which copies are rebuilt or leases begin: only what
lasts for a lease is an alarm.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from ckptd.core.context import Context
from ckptd.core.directory import Directory, Entry

NAMES_MAX: Final = 3
"""So many checkpoints are named in an alarm's text."""


class Alarms:
    """Creation ids of checkpoints with fewer in-sync replicas than they should have, and with none here."""

    def __init__(self, context: Context) -> None:
        self.context = context
        settings = context.settings
        self.wanted = min(settings.replicas, 1 + len(settings.peers))
        self.degraded: dict[int, None] = {}
        self.unavailable: dict[int, None] = {}
        self._since_ns: dict[str, int] = {}

    def on_installed(self, directory: Directory) -> None:
        """A view: everything may have changed."""
        self.degraded.clear()
        self.unavailable.clear()
        self.on_changed(directory, directory.checkpoints)

    def on_changed(self, directory: Directory, creation_ids: Iterable[int]) -> None:
        """The directory says something new of these."""
        for creation_id in creation_ids:
            self.degraded.pop(creation_id, None)
            self.unavailable.pop(creation_id, None)
            entry = directory.checkpoints.get(creation_id)
            if entry is None:
                continue
            if entry.holders:
                self.unavailable[creation_id] = None
            elif self._is_degraded(entry):
                self.degraded[creation_id] = None

    def _is_degraded(self, entry: Entry) -> bool:
        if entry.attributes.collocated:
            return not all(entry.replicas.values())
        return len(entry.in_sync) < self.wanted

    def on_serving(self) -> None:
        """This node serves."""
        self._set("not_serving", "")

    def look(self, directory: Directory, waiting_for: str) -> None:
        """With each heartbeat: raise or clear. `waiting_for`: what a node that does not serve waits for."""
        if not self.context.serving():
            self._set("not_serving", f"this node serves nothing; it waits for {waiting_for}")
            return
        degraded, unavailable = self.degraded, self.unavailable
        text = (
            f"fewer than {self.wanted} replicas in sync: {names_of(directory, degraded)}" if degraded else ""
        )
        self._set("replicas_degraded", text)
        self._set("unavailable", self._waiting(directory) if unavailable else "")
        closed = {each: None for each in self.context.stops.closed if each in directory.checkpoints}
        self._set("closed", self._closed(directory, closed) if closed else "")

    def _waiting(self, directory: Directory) -> str:
        first = directory.checkpoints[next(iter(self.unavailable))]
        holders, names = ", ".join(sorted(first.holders)), names_of(directory, self.unavailable)
        return f"no replica in sync is here, and node {holders} is waited for: {names}"

    def _closed(self, directory: Directory, closed: dict[int, None]) -> str:
        why = self.context.stops.closed[next(iter(closed))]
        return f"not served, since {why}: {names_of(directory, closed)}; unlink it, or have it tried again"

    def _set(self, name: str, text: str) -> None:
        context = self.context
        if not text:
            self._since_ns.pop(name, None)
            context.clear_alarm(name)
            return
        since_ns = self._since_ns.setdefault(name, context.now_ns)
        if context.now_ns - since_ns >= context.settings.lease_ns:
            context.raise_alarm(name, text)


def names_of(directory: Directory, creation_ids: dict[int, None]) -> str:
    """Some of their names, and how many more there are."""
    few = list(islice(creation_ids, NAMES_MAX))
    names = ", ".join(repr(directory.checkpoints[each].name.decode(errors="replace")) for each in few)
    more = len(creation_ids) - len(few)
    return f"{names} and {more} more" if more else names
