"""The client of ckptd: `Table` for programs that block, `AsyncTable` for asyncio.

Both keep a program's state in named sections that survive the loss of a node. The package
needs the standard library and msgpack, nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ckpt_client import codecs
from ckpt_client.checkpoint.open_checkpoint import Counts
from ckpt_client.checkpoint.transactions import AsyncTransaction, Transaction, Versioned
from ckpt_client.errors import (
    CheckpointError,
    CheckpointKeyError,
    Error,
    LeadershipLost,
    SaAisError,
    UndecodableValue,
    VersionConflict,
)
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.leadership.leaders import Leader, LeadershipHistory, PastLeader, WaitingProgram
from ckpt_client.requests.table_requests import Attributes, SectionDescriptor, Status
from ckpt_client.table import Table
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_SECTION_CORRUPTED,
    SA_CKPT_SECTION_VALID,
    SA_CKPT_WR_ACTIVE_REPLICA,
    SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
    SA_TIME_MAX,
    SA_TIME_ONE_DAY,
    SA_TIME_ONE_HOUR,
    SA_TIME_ONE_MICROSECOND,
    SA_TIME_ONE_MILLISECOND,
    SA_TIME_ONE_MINUTE,
    SA_TIME_ONE_SECOND,
)

if TYPE_CHECKING:
    from ckpt_client.async_table import AsyncTable
    from ckpt_client.checkpoint.tracking import SectionChange, SectionChangeT
    from ckpt_client.checkpoint.tracking_thread import TrackCallback, Tracking
    from ckpt_client.io.aio_connection import AsyncConnection
    from ckpt_client.leadership.async_leadership import AsyncLeadership, Leading
    from ckpt_client.leadership.leader_tracking import LeaderCallback, LeaderTracking
    from ckpt_client.leadership.leadership import Leadership
    from ckpt_protocol.descriptions import CheckpointDescription, ClusterDescription

__all__ = [
    "SA_CKPT_CHECKPOINT_COLLOCATED",
    "SA_CKPT_SECTION_CORRUPTED",
    "SA_CKPT_SECTION_VALID",
    "SA_CKPT_WR_ACTIVE_REPLICA",
    "SA_CKPT_WR_ACTIVE_REPLICA_WEAK",
    "SA_CKPT_WR_ALL_REPLICAS",
    "SA_TIME_END",
    "SA_TIME_MAX",
    "SA_TIME_ONE_DAY",
    "SA_TIME_ONE_HOUR",
    "SA_TIME_ONE_MICROSECOND",
    "SA_TIME_ONE_MILLISECOND",
    "SA_TIME_ONE_MINUTE",
    "SA_TIME_ONE_SECOND",
    "AsyncConnection",
    "AsyncLeadership",
    "AsyncTable",
    "AsyncTransaction",
    "Attributes",
    "CheckpointDescription",
    "CheckpointError",
    "CheckpointKeyError",
    "ClusterDescription",
    "Connection",
    "Counts",
    "Error",
    "Leader",
    "LeaderCallback",
    "LeaderTracking",
    "Leadership",
    "LeadershipHistory",
    "LeadershipLost",
    "Leading",
    "PastLeader",
    "SaAisError",
    "SaAisErrorT",
    "SectionChange",
    "SectionChangeT",
    "SectionDescriptor",
    "Status",
    "Table",
    "TrackCallback",
    "Tracking",
    "Transaction",
    "UndecodableValue",
    "VersionConflict",
    "Versioned",
    "WaitingProgram",
    "codecs",
]

# Most of these modules import asyncio, which takes longer than all the rest. A program that only blocks needs
# none of them.
_LAZY = {
    "AsyncConnection": "ckpt_client.io.aio_connection",
    "AsyncLeadership": "ckpt_client.leadership.async_leadership",
    "AsyncTable": "ckpt_client.async_table",
    "CheckpointDescription": "ckpt_protocol.descriptions",
    "ClusterDescription": "ckpt_protocol.descriptions",
    "LeaderCallback": "ckpt_client.leadership.leader_tracking",
    "LeaderTracking": "ckpt_client.leadership.leader_tracking",
    "Leadership": "ckpt_client.leadership.leadership",
    "Leading": "ckpt_client.leadership.async_leadership",
    "SectionChange": "ckpt_client.checkpoint.tracking",
    "SectionChangeT": "ckpt_client.checkpoint.tracking",
    "TrackCallback": "ckpt_client.checkpoint.tracking_thread",
    "Tracking": "ckpt_client.checkpoint.tracking_thread",
}

# A type checker that sees this function accepts every name, also a wrong one.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(_LAZY[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
