"""The log for operators: one line per change, on stderr, never with payload."""

import logging
import sys
import time
from typing import Final

from ckptd.runtime.clock import now_ns

logger: Final = logging.getLogger("ckptd")

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

LINE_INTERVAL_NS: Final = 10 * 1_000_000_000
"""At most one line of a kind is logged in this time, however much garbage anyone sends."""


def set_up_logging(level: str) -> None:
    """Log lines of `level` and above to stderr, with time stamps in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(LEVELS[level])


class RateLimitedLog:
    """Logs at most one line of a kind per `LINE_INTERVAL_NS`, with the number of lines left out since then.

    Kinds are few and fixed; they never come from outside.
    """

    def __init__(self) -> None:
        self._last_ns: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def warn(self, kind: str, text: str) -> None:
        """Log `text`, unless a line of this kind was logged within the last `LINE_INTERVAL_NS`."""
        at_ns = now_ns()
        last_ns = self._last_ns.get(kind)
        if last_ns is not None and at_ns - last_ns < LINE_INTERVAL_NS:
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._last_ns[kind] = at_ns
        left_out = self._left_out.pop(kind, 0)
        logger.warning("%s%s", text, f" ({left_out} more like it)" if left_out else "")
