"""Contains unexpected exceptions that the runtime raises outside the core.

Protocol callbacks and background tasks handle input from outside: the bytes of an unauthenticated
connection, the answer of the register, the output of the fence hook. An exception there has not touched the
core, so it ends only that one connection or task. An exception in the core ends the node: see `driver`.
"""

from ckptd.core.containment import where
from ckptd.runtime.counters import Counters
from ckptd.runtime.logs import RateLimitedLog


def contained(counters: Counters, limited_log: RateLimitedLog, what: str, error: BaseException) -> str:
    """Count and log an exception that ends `what` and nothing else. Returns the logged description."""
    counters.contained_io += 1
    text = f"{what} raised {where(error)}"
    limited_log.warn("contained", f"{text}; the node continues. Please report this")
    return text
