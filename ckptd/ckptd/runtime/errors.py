"""Why a daemon does not start, each with the exit code it ends with.

Refusal
├── ConfigRefused   the settings are wrong                      exit code 2
└── StartRefused    the surroundings do not let it start        exit code 1
NodeFailed          an exception out of the core: our own bug   exit code 70
"""

from typing import Final

EXIT_FAILURE: Final = 70
"""Our own bug: sysexits' EX_SOFTWARE."""


class Refusal(Exception):
    """One clear line for the operator, and no traceback."""

    exit_code = 1


class ConfigRefused(Refusal):
    """A setting is unknown, malformed or contradicts another one."""

    exit_code = 2


class NodeFailed(Exception):
    """The core raised; its traceback is logged already."""


class StartRefused(Refusal):
    """A port is taken, a directory locked, a peer belongs to another cluster, ..."""
