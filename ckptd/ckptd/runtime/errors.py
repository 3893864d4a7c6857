"""The exceptions that keep a daemon from starting or end it, with their exit codes.

StartupError
├── ConfigError   the settings are wrong                      exit code 2
└── StartError    the host or the peers do not let it start   exit code 1
NodeFailed          an exception out of the core: our own bug   exit code 70
BegunAgain          the node has to start again at once         none: it does so

A daemon that is asked to stop ends with 0 or with `EXIT_LAST_COPY`.
"""

from typing import Final

EXIT_FAILURE: Final = 70
"""Our own bug: sysexits' EX_SOFTWARE."""

EXIT_LAST_COPY: Final = 3
"""The node stopped as requested while it held data that no other node is known to hold: no node took the data
over in time, or a second signal cut the hand-over short."""


class StartupError(Exception):
    """The daemon does not start. Shown to the operator as one clear line, without a traceback."""

    exit_code = 1


class ConfigError(StartupError):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


class NodeFailed(Exception):
    """The core raised an exception, whose traceback is logged already."""


class BegunAgain(Exception):
    """The peers know a higher incarnation of this node, so it starts again with one above that."""

    def __init__(self, incarnation: int) -> None:
        super().__init__(f"this node has to start again above incarnation {incarnation}")
        self.incarnation = incarnation


class StartError(StartupError):
    """A port is taken, a directory locked, a peer belongs to another cluster, ..."""
