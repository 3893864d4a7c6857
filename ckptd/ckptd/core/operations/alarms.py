"""Alarms: what an operator should know without asking, for example that replicas are missing.

Every member checks for itself. The sets of checkpoints that lack something are updated with each change of
the directory, so checking costs nothing while nothing is wrong.

After a change of the members it takes some milliseconds to rebuild replicas or to begin leases. So only what
lasts for a lease becomes an alarm. DESCRIBE reports at once what is missing since a change
of the members, without waiting for a lease: a script that restarts one node after the other must not see a
node as whole before it has its replicas.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from ckptd.core.context import Context
from ckptd.core.directory.directory import Directory
from ckptd.core.directory.entries import CheckpointEntry
from ckptd.core.hub import Limits
from ckptd.core.operations.resource_usage import FullLimits

NAMES_MAX: Final = 3
"""An alarm's text names at most this many checkpoints."""


class Alarms:
    """The alarms of one node, and the checkpoints that they are about."""

    def __init__(self, context: Context) -> None:
        self.context = context
        settings = context.settings
        self.replicas_wanted = min(settings.replicas, 1 + len(settings.peers))
        """How many in-sync replicas a checkpoint should have, unless it is collocated."""
        self.degraded: dict[int, None] = {}
        """Creation ids of checkpoints with fewer in-sync replicas than they should have."""
        self.unavailable: dict[int, None] = {}
        """Creation ids of checkpoints with no in-sync replica in the view."""
        self._lost_with_view: dict[int, None] = {}
        """The part of `degraded` that was so when the view was installed.

        It does not hold new checkpoints, whose replicas are still being made.
        """
        self._since_ns: dict[str, int] = {}
        self._full = FullLimits()

    def on_installed(self, directory: Directory) -> None:
        """Look at every checkpoint again: a new view may have changed any of them."""
        self.degraded.clear()
        self.unavailable.clear()
        self.on_changed(directory, directory.checkpoints)
        self._lost_with_view = dict(self.degraded)

    def on_changed(self, directory: Directory, creation_ids: Iterable[int]) -> None:
        """Look again at these checkpoints: their entries in the directory changed."""
        for creation_id in creation_ids:
            entry = directory.checkpoints.get(creation_id)
            _mark(self.unavailable, creation_id, entry is not None and bool(entry.last_in_sync))
            degraded = entry is not None and not entry.last_in_sync and self._is_degraded(entry)
            _mark(self.degraded, creation_id, degraded)
            if not degraded:
                self._lost_with_view.pop(creation_id, None)

    def _is_degraded(self, entry: CheckpointEntry) -> bool:
        if entry.attributes.collocated:
            return not all(entry.replicas.values())
        return len(entry.in_sync) < self.replicas_wanted

    def on_serving(self) -> None:
        """Clear the alarm `not_serving`: this node serves."""
        self._set("not_serving", "")

    def update(self, directory: Directory, waiting_for: str, limits: Limits) -> None:
        """Raise or clear alarms; called with each heartbeat.

        `waiting_for`: what a node that does not serve waits for.
        """
        news = self._full.update(limits, self.context.now_ns)
        if news:
            self.context.raise_alarm("limits", news, again=True)
        elif not self._full:
            self.context.clear_alarm("limits")
        if not self.context.serving():
            self._set("not_serving", f"this node serves nothing; it waits for {waiting_for}")
            return
        self._set("replicas_degraded", self._degraded_text(directory) if self.degraded else "")
        self._set("unavailable", self._unavailable_text(directory) if self.unavailable else "")
        closed = {each: None for each in self.context.stops.closed if each in directory.checkpoints}
        self._set("closed", self._closed_text(directory, closed) if closed else "")
        leaderless = {each: None for each in self.context.leaderless if each in directory.checkpoints}
        self._set("leaderless", self._leaderless_text(directory, leaderless) if leaderless else "")

    def current(self, directory: Directory) -> dict[str, str]:
        """Return the alarms, and the conditions that become alarms if they last for a lease.

        This is the answer to a client that asks if all is well.
        """
        alarms = dict(self.context.alarms)
        if self.context.serving():
            if self._lost_with_view:
                alarms.setdefault("replicas_degraded", self._degraded_text(directory))
            if self.unavailable:
                alarms.setdefault("unavailable", self._unavailable_text(directory))
        return alarms

    def _degraded_text(self, directory: Directory) -> str:
        return f"fewer than {self.replicas_wanted} replicas in sync: {names_of(directory, self.degraded)}"

    def _unavailable_text(self, directory: Directory) -> str:
        first = directory.checkpoints[next(iter(self.unavailable))]
        holders, names = ", ".join(sorted(first.last_in_sync)), names_of(directory, self.unavailable)
        return f"no member has a replica in sync; waiting for node {holders}: {names}"

    def _closed_text(self, directory: Directory, closed: dict[int, None]) -> str:
        why = self.context.stops.closed[next(iter(closed))]
        return (
            f"not served, because {why}: {names_of(directory, closed)}; unlink it, or have it tried "
            "again (ckptctl cluster retry)"
        )

    def _leaderless_text(self, directory: Directory, leaderless: dict[int, None]) -> str:
        return f"programs wait to lead, and none leads: {names_of(directory, leaderless)}"

    def _set(self, name: str, text: str) -> None:
        context = self.context
        if not text:
            self._since_ns.pop(name, None)
            context.clear_alarm(name)
            return
        since_ns = self._since_ns.setdefault(name, context.now_ns)
        if context.now_ns - since_ns >= context.settings.lease_ns:
            context.raise_alarm(name, text)


def _mark(marked: dict[int, None], creation_id: int, holds: bool) -> None:
    if holds:
        marked[creation_id] = None
    else:
        marked.pop(creation_id, None)


def names_of(directory: Directory, creation_ids: dict[int, None]) -> str:
    """Return some names of these checkpoints of the directory, and how many more there are."""
    return show_names((directory.checkpoints[each].name for each in creation_ids), len(creation_ids))


def show_names(names: Iterable[bytes], count: int) -> str:
    """Return some of these `count` names, and how many more there are."""
    shown = ", ".join(repr(name.decode(errors="replace")) for name in islice(names, NAMES_MAX))
    return f"{shown} and {count - NAMES_MAX} more" if count > NAMES_MAX else shown
