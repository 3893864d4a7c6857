"""The client of ckptd: `Table` for programs that block, `AsyncTable` for asyncio.

Both keep a program's state in named sections that survive the loss of a node. The package
needs the standard library and msgpack, nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ckpt_client.checkpoint.transactions import Transaction, Versioned
from ckpt_client.errors import (
    CheckpointError,
    CheckpointKeyError,
    Error,
    LeadershipLost,
    SaAisError,
    VersionConflict,
)
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.leadership.leaders import Leader, LeadershipHistory, PastLeader, WaitingProgram
from ckpt_client.session.table_requests import SectionDescriptor, Status
from ckpt_client.table import Table

if TYPE_CHECKING:
    from ckpt_client.async_table import AsyncTable
    from ckpt_client.checkpoint.tracking import SectionChange, SectionChangeT
    from ckpt_client.checkpoint.tracking_thread import Tracking
    from ckpt_client.checkpoint.transactions import AsyncTransaction
    from ckpt_client.io.aio_connection import AsyncConnection
    from ckpt_client.leadership.async_leadership import AsyncLeadership
    from ckpt_client.leadership.leadership import Leadership

__all__ = [
    "AsyncConnection",
    "AsyncLeadership",
    "AsyncTable",
    "AsyncTransaction",
    "CheckpointError",
    "CheckpointKeyError",
    "Connection",
    "Error",
    "Leader",
    "Leadership",
    "LeadershipHistory",
    "LeadershipLost",
    "PastLeader",
    "SaAisError",
    "SectionChange",
    "SectionChangeT",
    "SectionDescriptor",
    "Status",
    "Table",
    "Tracking",
    "Transaction",
    "VersionConflict",
    "Versioned",
    "WaitingProgram",
]

# These modules import asyncio, which takes longer than all the rest. A program that only blocks needs none.
_LAZY = {
    "AsyncTable": "ckpt_client.async_table",
    "AsyncLeadership": "ckpt_client.leadership.async_leadership",
    "Leadership": "ckpt_client.leadership.leadership",
    "AsyncConnection": "ckpt_client.io.aio_connection",
    "SectionChange": "ckpt_client.checkpoint.tracking",
    "SectionChangeT": "ckpt_client.checkpoint.tracking",
    "Tracking": "ckpt_client.checkpoint.tracking_thread",
    "AsyncTransaction": "ckpt_client.checkpoint.transactions",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_LAZY[name]), name)
    return found
