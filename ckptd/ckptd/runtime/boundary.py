"""What the runtime does about an exception that it did not expect, outside of the core.

A protocol's callback, a task or an errand handles what comes from outside: a stranger's bytes,
a register's answer, a hook's output. What raises there has not touched the core, so it ends
that one connection or errand. The core's own exceptions end the node: see `driver`.
"""

from ckptd.core.containment import where
from ckptd.runtime.counters import Counts
from ckptd.runtime.logs import Seldom


def contained(counts: Counts, seldom: Seldom, what: str, error: BaseException) -> str:
    """Count and log an exception that ends `what` and nothing else; returns the text."""
    counts.contained_io += 1
    text = f"{what} raised {where(error)}"
    seldom.warn("contained", f"{text}; the node goes on. Please report this")
    return text
