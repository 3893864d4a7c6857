"""The client of ckptd: `Table` for programs that block, `AsyncTable` for asyncio.

Both keep a program's state in named sections that survive the loss of a node. It needs
the standard library and msgpack, nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ckpt_client.blocking import Connection
from ckpt_client.calls import SectionDescriptor, Status
from ckpt_client.errors import CheckpointError, CheckpointKeyError, Error, SaAisError
from ckpt_client.table import Table

if TYPE_CHECKING:
    from ckpt_client.aio import AsyncTable
    from ckpt_client.aio_connection import AsyncConnection
    from ckpt_client.tracking import SectionChange, SectionChangeT

__all__ = [
    "AsyncConnection",
    "AsyncTable",
    "CheckpointError",
    "CheckpointKeyError",
    "Connection",
    "Error",
    "SaAisError",
    "SectionChange",
    "SectionChangeT",
    "SectionDescriptor",
    "Status",
    "Table",
]

# asyncio takes longer to import than all the rest: a program that only blocks need not wait for it.
_LATE = {
    "AsyncTable": "ckpt_client.aio",
    "AsyncConnection": "ckpt_client.aio_connection",
    "SectionChange": "ckpt_client.tracking",
    "SectionChangeT": "ckpt_client.tracking",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_LATE[name]), name)
    return found
