"""How full the runtime's limits are: rows for who asks the node, and a line in the log.

The core joins these rows to its own for who asks (`core.limits`). It is not told of them otherwise, so that
the runtime itself looks once a second, and logs the alarm.
"""

from ckptd.core.operations.resource_usage import EdgeLimits, FullLimits, Limits
from ckptd.runtime.logs import logger


class Edge:
    """The rows of all parts of the runtime. `sources` gives them."""

    def __init__(self) -> None:
        self.sources: list[EdgeLimits] = []
        self._full = FullLimits()

    def rows(self) -> Limits:
        """What is used and the most that may be, by name, now."""
        return {name: row for source in self.sources for name, row in source().items()}

    def look(self, now_ns: int) -> None:
        """Log it where something is nearly full, and where that is over."""
        was_full = bool(self._full)
        news = self._full.look(self.rows(), now_ns)
        if news:
            logger.warning("alarm limits of connections: %s", news)
        elif was_full and not self._full:
            logger.info("alarm limits of connections is over")
