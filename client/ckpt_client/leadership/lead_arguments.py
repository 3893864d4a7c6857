"""The arguments of `lead` and `resign`, checked before anything is sent. Pure."""

import inspect
import math
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypedDict

from ckpt_client.checkpoint.leadership_state import SECOND_NS
from ckpt_client.requests.table_requests import refuse
from ckpt_protocol import codes
from ckpt_protocol.limits import (
    LEADER_HOST_BYTES_MAX,
    LEADER_NAME_BYTES_MAX,
    LEADER_TTL_NS_MAX,
    LEADER_TTL_NS_MIN,
    PID_MAX,
)

TTL_S: Final = 5.0
"""How long a leadership lasts without a renewal unless another ttl is given."""


class LeadArguments(NamedTuple):
    """How a program wants to lead."""

    ttl_ns: int
    watchdog_ns: int | None
    exclusive: bool
    name: str
    on_lost: Callable[[], object] | None
    allow_loss_on_failover: bool


class LeadOptions(TypedDict, total=False):
    """The same as the program gives it. Seconds."""

    ttl: float
    watchdog: float | None
    exclusive: bool
    name: str | None
    on_lost: Callable[[], object] | None
    allow_loss_on_failover: bool


def lead_arguments(
    ttl: Any = TTL_S,
    watchdog: Any = None,
    *,
    exclusive: Any = True,
    name: Any = None,
    on_lost: Any = None,
    allow_loss_on_failover: Any = False,
) -> LeadArguments:
    """Check and return the arguments of `lead`. Raises: SaAisError INVALID_PARAM."""
    for flag, what in ((exclusive, "exclusive"), (allow_loss_on_failover, "allow_loss_on_failover")):
        if type(flag) is not bool:
            refuse(codes.INVALID_PARAM, f"{what} must be True or False, not {flag!r}")
    if on_lost is not None and not callable(on_lost):
        refuse(codes.INVALID_PARAM, f"on_lost must be a function, not {on_lost!r}")
    if inspect.iscoroutinefunction(on_lost):
        refuse(codes.INVALID_PARAM, "on_lost is called, not awaited: it must not be a coroutine function")
    return LeadArguments(
        _ttl_in_ns(ttl),
        _watchdog_in_ns(watchdog),
        exclusive,
        default_name() if name is None else program_name(name, "name"),
        on_lost,
        allow_loss_on_failover,
    )


def _seconds(given: Any) -> float:
    """Return a number of seconds; NaN if it is no number, or not finite in nanoseconds."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return math.nan
    try:
        seconds = float(given)
    except OverflowError:
        return math.nan
    return seconds if math.isfinite(seconds * SECOND_NS) else math.nan


def _ttl_in_ns(ttl: Any) -> int:
    shortest, longest = LEADER_TTL_NS_MIN / SECOND_NS, LEADER_TTL_NS_MAX / SECOND_NS
    seconds = _seconds(ttl)
    if not shortest <= seconds <= longest:
        text = f"ttl must be a number of seconds from {shortest:g} to {longest:g}, not {ttl!r}"
        refuse(codes.INVALID_PARAM, text)
    return round(seconds * SECOND_NS)


def _watchdog_in_ns(watchdog: Any) -> int | None:
    if watchdog is None:
        return None
    seconds = _seconds(watchdog)
    if not seconds > 0:
        text = f"watchdog must be None or a positive number of seconds, not {watchdog!r}"
        refuse(codes.INVALID_PARAM, text)
    return round(seconds * SECOND_NS)


def program_name(given: Any, what: str) -> str:
    """Check and return a program's name: text of 1 to 64 bytes in UTF-8. Raises: SaAisError INVALID_PARAM."""
    try:
        size = len(given.encode()) if isinstance(given, str) else 0
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= LEADER_NAME_BYTES_MAX:
        text = f"{what} must be text of 1 to {LEADER_NAME_BYTES_MAX} bytes in UTF-8, not {given!r}"
        refuse(codes.INVALID_PARAM, text)
    return str(given)


def default_name() -> str:
    """Return the program's own name: that of its script."""
    script = os.path.basename(sys.argv[0]) if sys.argv else ""
    return _cut(script or os.path.basename(sys.executable) or "python", LEADER_NAME_BYTES_MAX)


def own_host() -> str:
    """Return this machine's name."""
    return _cut(socket.gethostname(), LEADER_HOST_BYTES_MAX)


def own_pid() -> int:
    """Return this process's id, as it is shown to others."""
    return min(os.getpid(), PID_MAX)


def _cut(text: str, bytes_max: int) -> str:
    return text.encode(errors="replace")[:bytes_max].decode(errors="ignore")
