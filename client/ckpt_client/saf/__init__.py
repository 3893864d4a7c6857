"""The SAF Checkpoint Service, B.02.02, in Python's style: every call under its own name.

`CheckpointService` is for programs that block, `AsyncCheckpointService` for asyncio. Where a C program
checks a return code, these raise the `SaAisError` of the code; where it passes pointers, they take and
return values.

Source: SAI-AIS-CKPT-B.02.02.
"""

from typing import Final

from ckpt_client.errors import (
    SaAisErrAccess,
    SaAisErrAccessDenied,
    SaAisErrBadFlags,
    SaAisErrBadHandle,
    SaAisErrBadOperation,
    SaAisErrBusy,
    SaAisErrCampaignCanceled,
    SaAisErrCampaignErrorDetected,
    SaAisErrCampaignFailed,
    SaAisErrCampaignProcFailed,
    SaAisErrCampaignSuspended,
    SaAisErrCampaignSuspending,
    SaAisErrDeployment,
    SaAisErrExist,
    SaAisErrFailedOperation,
    SaAisErrInit,
    SaAisErrInterrupt,
    SaAisErrInvalidParam,
    SaAisErrLibrary,
    SaAisErrMessageError,
    SaAisErrNameNotFound,
    SaAisErrNameTooLong,
    SaAisErrNoBindings,
    SaAisErrNoMemory,
    SaAisErrNoOp,
    SaAisErrNoResources,
    SaAisErrNoSections,
    SaAisErrNoSpace,
    SaAisErrNotExist,
    SaAisErrNotReady,
    SaAisErrNotSupported,
    SaAisError,
    SaAisErrQueueFull,
    SaAisErrQueueNotAvailable,
    SaAisErrRepairPending,
    SaAisErrTimeout,
    SaAisErrTooBig,
    SaAisErrTryAgain,
    SaAisErrUnavailable,
    SaAisErrVersion,
)
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
    "SA_AIS_ERR_ACCESS",
    "SA_AIS_ERR_ACCESS_DENIED",
    "SA_AIS_ERR_BAD_FLAGS",
    "SA_AIS_ERR_BAD_HANDLE",
    "SA_AIS_ERR_BAD_OPERATION",
    "SA_AIS_ERR_BUSY",
    "SA_AIS_ERR_CAMPAIGN_CANCELED",
    "SA_AIS_ERR_CAMPAIGN_ERROR_DETECTED",
    "SA_AIS_ERR_CAMPAIGN_FAILED",
    "SA_AIS_ERR_CAMPAIGN_PROC_FAILED",
    "SA_AIS_ERR_CAMPAIGN_SUSPENDED",
    "SA_AIS_ERR_CAMPAIGN_SUSPENDING",
    "SA_AIS_ERR_DEPLOYMENT",
    "SA_AIS_ERR_EXIST",
    "SA_AIS_ERR_FAILED_OPERATION",
    "SA_AIS_ERR_INIT",
    "SA_AIS_ERR_INTERRUPT",
    "SA_AIS_ERR_INVALID_PARAM",
    "SA_AIS_ERR_LIBRARY",
    "SA_AIS_ERR_MESSAGE_ERROR",
    "SA_AIS_ERR_NAME_NOT_FOUND",
    "SA_AIS_ERR_NAME_TOO_LONG",
    "SA_AIS_ERR_NOT_EXIST",
    "SA_AIS_ERR_NOT_READY",
    "SA_AIS_ERR_NOT_SUPPORTED",
    "SA_AIS_ERR_NO_BINDINGS",
    "SA_AIS_ERR_NO_MEMORY",
    "SA_AIS_ERR_NO_OP",
    "SA_AIS_ERR_NO_RESOURCES",
    "SA_AIS_ERR_NO_SECTIONS",
    "SA_AIS_ERR_NO_SPACE",
    "SA_AIS_ERR_QUEUE_FULL",
    "SA_AIS_ERR_QUEUE_NOT_AVAILABLE",
    "SA_AIS_ERR_REPAIR_PENDING",
    "SA_AIS_ERR_TIMEOUT",
    "SA_AIS_ERR_TOO_BIG",
    "SA_AIS_ERR_TRY_AGAIN",
    "SA_AIS_ERR_UNAVAILABLE",
    "SA_AIS_ERR_VERSION",
    "SA_AIS_OK",
    "AsyncCheckpoint",
    "AsyncCheckpointService",
    "AsyncSectionIteration",
    "Checkpoint",
    "CheckpointCallbacks",
    "CheckpointCreationAttributes",
    "CheckpointDescriptor",
    "CheckpointService",
    "DispatchFlags",
    "SaAisErrAccess",
    "SaAisErrAccessDenied",
    "SaAisErrBadFlags",
    "SaAisErrBadHandle",
    "SaAisErrBadOperation",
    "SaAisErrBusy",
    "SaAisErrCampaignCanceled",
    "SaAisErrCampaignErrorDetected",
    "SaAisErrCampaignFailed",
    "SaAisErrCampaignProcFailed",
    "SaAisErrCampaignSuspended",
    "SaAisErrCampaignSuspending",
    "SaAisErrDeployment",
    "SaAisErrExist",
    "SaAisErrFailedOperation",
    "SaAisErrInit",
    "SaAisErrInterrupt",
    "SaAisErrInvalidParam",
    "SaAisErrLibrary",
    "SaAisErrMessageError",
    "SaAisErrNameNotFound",
    "SaAisErrNameTooLong",
    "SaAisErrNoBindings",
    "SaAisErrNoMemory",
    "SaAisErrNoOp",
    "SaAisErrNoResources",
    "SaAisErrNoSections",
    "SaAisErrNoSpace",
    "SaAisErrNotExist",
    "SaAisErrNotReady",
    "SaAisErrNotSupported",
    "SaAisErrQueueFull",
    "SaAisErrQueueNotAvailable",
    "SaAisErrRepairPending",
    "SaAisErrTimeout",
    "SaAisErrTooBig",
    "SaAisErrTryAgain",
    "SaAisErrUnavailable",
    "SaAisErrVersion",
    "SaAisError",
    "SaAisErrorT",
    "SectionChange",
    "SectionChangeT",
    "SectionDescriptor",
    "SectionIteration",
]
__all__ += constants.__all__

# Every return code under its own name, as in C.
SA_AIS_OK: Final = SaAisErrorT.SA_AIS_OK
SA_AIS_ERR_LIBRARY: Final = SaAisErrorT.SA_AIS_ERR_LIBRARY
SA_AIS_ERR_VERSION: Final = SaAisErrorT.SA_AIS_ERR_VERSION
SA_AIS_ERR_INIT: Final = SaAisErrorT.SA_AIS_ERR_INIT
SA_AIS_ERR_TIMEOUT: Final = SaAisErrorT.SA_AIS_ERR_TIMEOUT
SA_AIS_ERR_TRY_AGAIN: Final = SaAisErrorT.SA_AIS_ERR_TRY_AGAIN
SA_AIS_ERR_INVALID_PARAM: Final = SaAisErrorT.SA_AIS_ERR_INVALID_PARAM
SA_AIS_ERR_NO_MEMORY: Final = SaAisErrorT.SA_AIS_ERR_NO_MEMORY
SA_AIS_ERR_BAD_HANDLE: Final = SaAisErrorT.SA_AIS_ERR_BAD_HANDLE
SA_AIS_ERR_BUSY: Final = SaAisErrorT.SA_AIS_ERR_BUSY
SA_AIS_ERR_ACCESS: Final = SaAisErrorT.SA_AIS_ERR_ACCESS
SA_AIS_ERR_NOT_EXIST: Final = SaAisErrorT.SA_AIS_ERR_NOT_EXIST
SA_AIS_ERR_NAME_TOO_LONG: Final = SaAisErrorT.SA_AIS_ERR_NAME_TOO_LONG
SA_AIS_ERR_EXIST: Final = SaAisErrorT.SA_AIS_ERR_EXIST
SA_AIS_ERR_NO_SPACE: Final = SaAisErrorT.SA_AIS_ERR_NO_SPACE
SA_AIS_ERR_INTERRUPT: Final = SaAisErrorT.SA_AIS_ERR_INTERRUPT
SA_AIS_ERR_NAME_NOT_FOUND: Final = SaAisErrorT.SA_AIS_ERR_NAME_NOT_FOUND
SA_AIS_ERR_NO_RESOURCES: Final = SaAisErrorT.SA_AIS_ERR_NO_RESOURCES
SA_AIS_ERR_NOT_SUPPORTED: Final = SaAisErrorT.SA_AIS_ERR_NOT_SUPPORTED
SA_AIS_ERR_BAD_OPERATION: Final = SaAisErrorT.SA_AIS_ERR_BAD_OPERATION
SA_AIS_ERR_FAILED_OPERATION: Final = SaAisErrorT.SA_AIS_ERR_FAILED_OPERATION
SA_AIS_ERR_MESSAGE_ERROR: Final = SaAisErrorT.SA_AIS_ERR_MESSAGE_ERROR
SA_AIS_ERR_QUEUE_FULL: Final = SaAisErrorT.SA_AIS_ERR_QUEUE_FULL
SA_AIS_ERR_QUEUE_NOT_AVAILABLE: Final = SaAisErrorT.SA_AIS_ERR_QUEUE_NOT_AVAILABLE
SA_AIS_ERR_BAD_FLAGS: Final = SaAisErrorT.SA_AIS_ERR_BAD_FLAGS
SA_AIS_ERR_TOO_BIG: Final = SaAisErrorT.SA_AIS_ERR_TOO_BIG
SA_AIS_ERR_NO_SECTIONS: Final = SaAisErrorT.SA_AIS_ERR_NO_SECTIONS
SA_AIS_ERR_NO_OP: Final = SaAisErrorT.SA_AIS_ERR_NO_OP
SA_AIS_ERR_REPAIR_PENDING: Final = SaAisErrorT.SA_AIS_ERR_REPAIR_PENDING
SA_AIS_ERR_NO_BINDINGS: Final = SaAisErrorT.SA_AIS_ERR_NO_BINDINGS
SA_AIS_ERR_UNAVAILABLE: Final = SaAisErrorT.SA_AIS_ERR_UNAVAILABLE
SA_AIS_ERR_CAMPAIGN_ERROR_DETECTED: Final = SaAisErrorT.SA_AIS_ERR_CAMPAIGN_ERROR_DETECTED
SA_AIS_ERR_CAMPAIGN_PROC_FAILED: Final = SaAisErrorT.SA_AIS_ERR_CAMPAIGN_PROC_FAILED
SA_AIS_ERR_CAMPAIGN_CANCELED: Final = SaAisErrorT.SA_AIS_ERR_CAMPAIGN_CANCELED
SA_AIS_ERR_CAMPAIGN_FAILED: Final = SaAisErrorT.SA_AIS_ERR_CAMPAIGN_FAILED
SA_AIS_ERR_CAMPAIGN_SUSPENDED: Final = SaAisErrorT.SA_AIS_ERR_CAMPAIGN_SUSPENDED
SA_AIS_ERR_CAMPAIGN_SUSPENDING: Final = SaAisErrorT.SA_AIS_ERR_CAMPAIGN_SUSPENDING
SA_AIS_ERR_ACCESS_DENIED: Final = SaAisErrorT.SA_AIS_ERR_ACCESS_DENIED
SA_AIS_ERR_NOT_READY: Final = SaAisErrorT.SA_AIS_ERR_NOT_READY
SA_AIS_ERR_DEPLOYMENT: Final = SaAisErrorT.SA_AIS_ERR_DEPLOYMENT


def __dir__() -> list[str]:
    return sorted(__all__)
