"""The time-out of one operation, which may take several requests."""

import time
from typing import Final

from ckpt_client.errors import error_of
from ckpt_client.requests.table_requests import timeout_in_ns
from ckpt_protocol import codes

_MILLISECOND_NS: Final = 1_000_000
_monotonic_ns = time.monotonic_ns


class TimeLimit:
    """How much of an operation's time-out is left. The time begins with the first request."""

    __slots__ = ("_default_ns", "_timeout", "_until_ns")

    def __init__(self, timeout: float | None, default_ns: int) -> None:
        """`timeout` is in seconds, as the program gave it; None takes the default."""
        self._timeout = timeout
        self._default_ns = default_ns
        self._until_ns = 0

    @classmethod
    def until(cls, deadline_ns: int) -> "TimeLimit":
        """Return the limit of an operation whose first request was made already."""
        limit = cls(None, 0)
        limit._until_ns = deadline_ns
        return limit

    def left_ns(self) -> int:
        """Return the time left; at least 1 ms, so that a late request fails by its time-out.

        Raises: SaAisError INVALID_PARAM if the program's time-out is none.
        """
        if self._until_ns:
            return max(self._until_ns - _monotonic_ns(), _MILLISECOND_NS)
        timeout_ns = timeout_in_ns(self._timeout, self._default_ns)
        self._until_ns = _monotonic_ns() + timeout_ns
        return timeout_ns

    def require_left(self, text: str) -> None:
        """Raise SaAisError TRY_AGAIN if no time is left."""
        if self.is_over:
            raise error_of(codes.TRY_AGAIN, text)

    @property
    def is_over(self) -> bool:
        """True if no time is left."""
        return bool(self._until_ns) and _monotonic_ns() >= self._until_ns
