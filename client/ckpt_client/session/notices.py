"""What a client logs by itself: that it went to another node, or opened a checkpoint again.

A cluster that is in trouble makes every client say so again and again: each says it once in a while.
"""

import logging
import time
from typing import Final

NOTICE_S: Final = 10.0
"""One client logs one line in this many seconds at most. The next one tells how many were left out."""

logger = logging.getLogger("ckpt_client")


class Notices:
    """The lines of one client."""

    def __init__(self) -> None:
        self._again_s = 0.0
        self._left_out = 0

    def tell(self, text: str) -> None:
        """Log this, unless another line was logged just before."""
        now_s = time.monotonic()
        if now_s < self._again_s:
            self._left_out += 1
            return
        self._again_s = now_s + NOTICE_S
        left_out, self._left_out = self._left_out, 0
        logger.warning("%s%s", text, f" ({left_out} earlier ones not logged)" if left_out else "")

    def tell_all(self, texts: list[str]) -> None:
        """Log these, and forget them."""
        for text in texts:
            self.tell(text)
        texts.clear()
