"""What a client logs on its own: that it went to another node, or opened a checkpoint again.

While a cluster is in trouble every client would log this again and again, so each client logs one line in
`NOTICE_S`.
"""

import logging
import time
from typing import Final

NOTICE_S: Final = 10.0
"""A client logs at most one line in this many seconds. The next line says how many were left out."""

logger = logging.getLogger("ckpt_client")


class Notices:
    """The log lines of one client."""

    def __init__(self) -> None:
        self._again_s = 0.0
        self._left_out = 0

    def tell(self, text: str) -> None:
        """Log a line, unless another one was logged less than `NOTICE_S` ago."""
        now_s = time.monotonic()
        if now_s < self._again_s:
            self._left_out += 1
            return
        self._again_s = now_s + NOTICE_S
        left_out, self._left_out = self._left_out, 0
        logger.warning("%s%s", text, f" ({left_out} earlier lines were not logged)" if left_out else "")

    def tell_all(self, texts: list[str]) -> None:
        """Log these lines, and empty the list."""
        for text in texts:
            self.tell(text)
        texts.clear()
