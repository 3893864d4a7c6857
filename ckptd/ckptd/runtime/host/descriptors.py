"""File descriptors: how many this process may have, and how many clients that allows."""

import contextlib
import resource
from dataclasses import dataclass
from typing import Final

from ckptd.runtime.errors import StartError
from ckptd.runtime.logs import logger

HANDSHAKES_MAX: Final = 256
"""Connections in the handshake. With one more the oldest is closed, as an honest one takes milliseconds."""

HANDSHAKES_SHARE: Final = 8
"""Where descriptors are few, connections in the handshake get an eighth of them at most."""

OWN_DESCRIPTORS: Final = 64
"""Reserved for listeners, files, the event loop, etcd and a fence hook."""

OPERATORS_MAX: Final = 8
"""Connections of operators' tools. They do not count against `clients_max`, so an operator can still look
at a node whose clients use all of that.

With one more the oldest is cut off. An honest one takes milliseconds, and connections that stay open cannot
keep the operator out."""

DESCRIPTORS_OF_PEER: Final = 4
"""For each peer: its link, the link that replaces it, and a question at its address in either direction."""

CLIENTS_MIN: Final = 16
"""A node that could take fewer clients does not start: it would refuse an operator with ckptctl as well."""

MACOS_DESCRIPTORS_MAX: Final = 10_240
"""OPEN_MAX: macOS reports "unlimited" but grants no more than this."""


@dataclass(slots=True, frozen=True)
class ConnectionCapacity:
    """How many connections of each kind a node accepts."""

    clients: int
    handshakes: int


def divide_descriptors(clients_max: int, peers: int) -> ConnectionCapacity:
    """Raise this process's limit as far as needed and allowed, and divide it among clients and handshakes.

    Raises: StartError if fewer than `CLIENTS_MIN` descriptors are left for clients.
    """
    others = OWN_DESCRIPTORS + OPERATORS_MAX + DESCRIPTORS_OF_PEER * peers
    limit = _raise_limit(clients_max + others + HANDSHAKES_MAX)
    handshakes = min(HANDSHAKES_MAX, limit // HANDSHAKES_SHARE)
    clients = min(clients_max, limit - others - handshakes)
    if clients < min(CLIENTS_MIN, clients_max):
        needed = (others + CLIENTS_MIN) * HANDSHAKES_SHARE // (HANDSHAKES_SHARE - 1) + 1
        raise StartError(
            f"this process may open {limit} file descriptors (ulimit -n, LimitNOFILE=), but it needs "
            f"at least {needed}"
        )
    if clients < clients_max:
        logger.warning(
            "this node accepts %d clients instead of %d (clients_max), because this process may open "
            "%d file descriptors (ulimit -n, LimitNOFILE=)",
            clients,
            clients_max,
            limit,
        )
    return ConnectionCapacity(clients, handshakes)


def _raise_limit(needed: int) -> int:
    """Raise the limit to `needed`, or as close to it as allowed; return the new limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (needed, MACOS_DESCRIPTORS_MAX):
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            break
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return needed if soft == resource.RLIM_INFINITY else soft
