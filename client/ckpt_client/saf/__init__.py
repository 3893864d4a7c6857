"""The SAF Checkpoint Service, B.02.02, in Python's style: every call under its own name.

`CheckpointService` is for programs that block, `AsyncCheckpointService` for asyncio. Where a C program
checks a return code, these raise the `SaAisError` of the code; where it passes pointers, they take and
return values.

Source: SAI-AIS-CKPT-B.02.02.
"""

from typing import Any

from ckpt_client.errors import ERROR_CLASSES, SaAisError
from ckpt_client.saf.aio import AsyncCheckpoint, AsyncCheckpointService, AsyncSectionIteration
from ckpt_client.saf.checkpoint import Checkpoint, CheckpointCallbacks, SectionIteration
from ckpt_client.saf.service import CheckpointService
from ckpt_client.saf.types import (
    DEFAULT,
    CheckpointCreationAttributes,
    CheckpointDescriptor,
    DispatchFlags,
    SectionChange,
    SectionChangeT,
    SectionDescriptor,
)
from ckpt_protocol import constants
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.constants import *  # noqa: F403

__all__ = [
    "DEFAULT",
    "AsyncCheckpoint",
    "AsyncCheckpointService",
    "AsyncSectionIteration",
    "Checkpoint",
    "CheckpointCallbacks",
    "CheckpointCreationAttributes",
    "CheckpointDescriptor",
    "CheckpointService",
    "DispatchFlags",
    "SaAisError",
    "SaAisErrorT",
    "SectionChange",
    "SectionChangeT",
    "SectionDescriptor",
    "SectionIteration",
]
__all__ += [name for name in vars(constants) if name.startswith("SA_")]

_ERRORS = {kind.__name__: kind for kind in ERROR_CLASSES.values()}
_CODES = {code.name: code for code in SaAisErrorT}
globals().update(_ERRORS, **_CODES)
__all__ += [*_ERRORS, *_CODES]


def __getattr__(name: str) -> Any:
    """Tell type checkers that the errors and the codes exist; at run time only missing names arrive here."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
