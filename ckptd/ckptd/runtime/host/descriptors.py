"""File descriptors: how many this process may have, and how many clients that leaves room for."""

import contextlib
import resource
from dataclasses import dataclass
from typing import Final

from ckptd.runtime.errors import StartRefused
from ckptd.runtime.logs import logger

STRANGERS_MAX: Final = 256
"""Connections within the first exchange; then the oldest goes, since an honest one takes milliseconds."""

STRANGERS_SHARE: Final = 8
"""They take an eighth of the descriptors at most, where those are few."""

OWN_DESCRIPTORS: Final = 64
"""Listeners, files, the event loop, etcd, a fence hook."""

OPERATORS_MAX: Final = 8
"""Connections of the operator's tools, beside `clients_max`: where clients take all he can still look.

With one more the oldest is cut off: an honest one takes milliseconds, and nobody keeps him out by staying."""

DESCRIPTORS_OF_PEER: Final = 4
"""Its link, the next one that replaces it, and a question at its address, in both directions."""

CLIENTS_MIN: Final = 16
"""A node with room for fewer does not start: an operator with ckptctl would be refused as well."""

ASKED_ON_MACOS: Final = 10_240
"""OPEN_MAX: macOS says "unlimited" and grants no more than this."""


@dataclass(slots=True, frozen=True)
class Room:
    """How many connections of each kind a node takes."""

    clients: int
    strangers: int


def make_room(clients_max: int, peers: int) -> Room:
    """Raise this process's limit as far as is needed and allowed, and share it out.

    Raises: StartRefused where next to nothing is left for clients.
    """
    others = OWN_DESCRIPTORS + OPERATORS_MAX + DESCRIPTORS_OF_PEER * peers
    limit = _raise_limit(clients_max + others + STRANGERS_MAX)
    strangers = min(STRANGERS_MAX, limit // STRANGERS_SHARE)
    clients = min(clients_max, limit - others - strangers)
    if clients < min(CLIENTS_MIN, clients_max):
        needed = (others + CLIENTS_MIN) * STRANGERS_SHARE // (STRANGERS_SHARE - 1) + 1
        raise StartRefused(
            f"this process may have {limit} file descriptors (ulimit -n, LimitNOFILE=), "
            f"and needs {needed} or more"
        )
    if clients < clients_max:
        logger.warning(
            "this node takes %d clients, not clients_max, %d: this process may have %d file descriptors "
            "(ulimit -n, LimitNOFILE=)",
            clients,
            clients_max,
            limit,
        )
    return Room(clients, strangers)


def _raise_limit(needed: int) -> int:
    """Have the limit at `needed`, or as near as it is allowed; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (needed, ASKED_ON_MACOS):
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return needed if soft == resource.RLIM_INFINITY else soft
