"""Why a daemon does not start, each with the exit code it ends with.

Refusal
├── ConfigRefused   the settings are wrong                      exit code 2
└── StartRefused    the surroundings do not let it start        exit code 1
NodeFailed          an exception out of the core: our own bug   exit code 70
BegunAgain          the node is to start again, at once         none: it does

A daemon that stops as it was told ends with 0, or with `EXIT_LAST_COPY`.
"""

from typing import Final

EXIT_FAILURE: Final = 70
"""Our own bug: sysexits' EX_SOFTWARE."""

EXIT_LAST_COPY: Final = 3
"""Stopped as it was told, with data that no other node is known to hold: nobody came to take it over in
time, or a second signal allowed no time."""


class Refusal(Exception):
    """One clear line for the operator, and no traceback."""

    exit_code = 1


class ConfigRefused(Refusal):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


class NodeFailed(Exception):
    """The core raised; its traceback is logged already."""


class BegunAgain(Exception):
    """The others know a later start of this node: it begins again with an incarnation above that."""

    def __init__(self, incarnation: int) -> None:
        super().__init__(f"a start above incarnation {incarnation} is due")
        self.incarnation = incarnation


class StartRefused(Refusal):
    """A port is taken, a directory locked, a peer belongs to another cluster, ..."""
