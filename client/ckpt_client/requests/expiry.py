"""When a section that is written expires: at a time, after a time, when it did before, or never."""

from typing import Any, Final, NamedTuple

from ckpt_client.requests.table_requests import refuse
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.messages import Op

_SECOND_NS: Final = 1_000_000_000


class Expiry(NamedTuple):
    """When a section expires."""

    at_ns: int | None
    """ns since 1970; SA_TIME_END: never; None: it stays as it is."""

    after_ns: int = 0
    """If not 0: so long after the write, by the clock of the active replica."""

    def ops_for(self, name: bytes) -> list[list[Any]]:
        """Return what makes a section that was just written expire after a time, if it does."""
        return [[Op.EXPIRE_AFTER, name, self.after_ns]] if self.after_ns else []


NEVER: Final = Expiry(SA_TIME_END)
UNCHANGED: Final = Expiry(None)


def expiry_of(
    default: Expiry, expiration: int | None, expires_in: float | None, keep_expiry: bool = False
) -> Expiry:
    """Return what a call says about the expiration; the default if it says nothing.

    Raises: SaAisError INVALID_PARAM.
    """
    if (expiration is not None) + (expires_in is not None) + keep_expiry > 1:
        refuse(codes.INVALID_PARAM, "give only one of expiration, expires_in and keep_expiry")
    if expires_in is not None:
        return Expiry(SA_TIME_END, duration_ns(expires_in))
    if expiration is not None:
        return Expiry(expiration)
    return UNCHANGED if keep_expiry else default


def duration_ns(expires_in: float) -> int:
    """Return seconds as ns. Raises: SaAisError INVALID_PARAM."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not expires_in > 0:
        refuse(
            codes.INVALID_PARAM, f"a section expires after a positive number of seconds, not {expires_in!r}"
        )
    return max(1, int(expires_in * _SECOND_NS)) if expires_in < SA_TIME_END / _SECOND_NS else SA_TIME_END
