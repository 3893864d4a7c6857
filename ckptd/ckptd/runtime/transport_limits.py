"""How full the runtime's own limits are: reported when the node is asked, and logged when nearly full.

When the node is asked, the core adds these rows to its own (`core.operations.resource_usage`). The core does
not see them otherwise, so the runtime checks them itself once a second and logs the alarm.
"""

from ckptd.core.hub import Limits, ReadLimits
from ckptd.core.operations.resource_usage import FullLimits
from ckptd.runtime.logs import logger


class TransportLimits:
    """The limits of those parts of the runtime that were added."""

    def __init__(self) -> None:
        self._sources: list[ReadLimits] = []
        self._full = FullLimits()

    def add(self, *sources: ReadLimits) -> None:
        """Add parts, each by the function that reports its limits."""
        self._sources += sources

    def rows(self) -> Limits:
        """Return, for each limit by name, how much is used now and how much may be."""
        return {name: row for source in self._sources for name, row in source().items()}

    def check(self, now_ns: int) -> None:
        """Log a limit that has become nearly full, and the end of such a time."""
        was_full = bool(self._full)
        news = self._full.update(self.rows(), now_ns)
        if news:
            logger.warning("alarm limits (of connections): %s", news)
        elif was_full and not self._full:
            logger.info("alarm limits (of connections) has ended")
