"""Calls on whole checkpoints: open and close, unlink, retention, active replica, state, synchronization.

Source: SAF 3.5, 3.7.4; R142 for tracking a single checkpoint.
"""

from typing import Any

from ckpt_client.errors import error_of
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.pyosaf.arguments import name_of, number, reference, required, returns_code
from ckpt_client.pyosaf.handles import HANDLES, Open
from ckpt_client.pyosaf.library import library_of, take_opened
from ckpt_client.pyosaf.structures import (
    SaCkptCheckpointCreationAttributesT,
    SaCkptCheckpointDescriptorT,
    SaCkptCheckpointHandleT,
    SaCkptCheckpointOpenFlagsT,
)
from ckpt_client.pyosaf.types import SaInvocationT, SaTimeT
from ckpt_client.saf import CheckpointCreationAttributes
from ckpt_protocol.codes import SaAisErrorT


def open_of(checkpointHandle: Any) -> Open:
    """Return the open checkpoint of a handle. Raises: BAD_HANDLE."""
    return HANDLES.find(Open, number(SaCkptCheckpointHandleT, checkpointHandle))


@returns_code
def saCkptCheckpointOpen(
    ckptHandle: Any,
    checkpointName: Any,
    checkpointCreationAttributes: Any,
    checkpointOpenFlags: Any,
    timeout: Any,
    checkpointHandle: Any,
) -> None:
    """Open or create a checkpoint; put its handle into `checkpointHandle`. Source: SAF 3.5.1; R23 to R43."""
    name = name_of(checkpointName)
    place = required(SaCkptCheckpointHandleT, checkpointHandle, "the address for the handle")
    attributes = _attributes_of(checkpointCreationAttributes)
    flags = number(SaCkptCheckpointOpenFlagsT, checkpointOpenFlags)
    timeout_ns = number(SaTimeT, timeout)
    library = library_of(ckptHandle)
    limit = TimeLimit(None, timeout_ns or library.service.inner.timeout_ns)
    checkpoint = library.service.checkpoint_open(name, flags, attributes, timeout_ns=limit.left_ns())
    place.value = take_opened(library, checkpoint, limit)


@returns_code
def saCkptCheckpointOpenAsync(
    ckptHandle: Any,
    invocation: Any,
    checkpointName: Any,
    checkpointCreationAttributes: Any,
    checkpointOpenFlags: Any,
) -> None:
    """Begin to open a checkpoint; a callback reports how it ended. Source: SAF 3.5.1, 3.5.2; R36 to R39."""
    name = name_of(checkpointName)
    attributes = _attributes_of(checkpointCreationAttributes)
    flags = number(SaCkptCheckpointOpenFlagsT, checkpointOpenFlags)
    asked = number(SaInvocationT, invocation)
    library_of(ckptHandle).service.checkpoint_open_async(asked, name, flags, attributes)


@returns_code
def saCkptCheckpointClose(checkpointHandle: Any) -> None:
    """Close a checkpoint. The handle is dead from now on. Source: SAF 3.5.3; R62 to R64."""
    opened = open_of(checkpointHandle)
    HANDLES.drop_open(opened)
    opened.checkpoint.close()


@returns_code
def saCkptCheckpointUnlink(ckptHandle: Any, checkpointName: Any) -> None:
    """Free a checkpoint's name. Source: SAF 3.5.4; R65 to R70."""
    name = name_of(checkpointName)
    library_of(ckptHandle).service.checkpoint_unlink(name)


@returns_code
def saCkptCheckpointRetentionDurationSet(checkpointHandle: Any, retentionDuration: Any) -> None:
    """Set how long the checkpoint is kept while no program has it open, in ns.

    Source: SAF 3.5.5; R74 to R76.
    """
    duration = number(SaTimeT, retentionDuration)
    open_of(checkpointHandle).checkpoint.retention_duration_set(duration)


@returns_code
def saCkptActiveReplicaSet(checkpointHandle: Any) -> None:
    """Make the local replica the active one. Source: SAF 3.5.6; R78 to R82."""
    open_of(checkpointHandle).checkpoint.active_replica_set()


@returns_code
def saCkptCheckpointStatusGet(checkpointHandle: Any, checkpointStatus: Any) -> None:
    """Put the checkpoint's state into `checkpointStatus`. Source: SAF 3.5.7; R83 to R87."""
    place = required(SaCkptCheckpointDescriptorT, checkpointStatus, "the address for the descriptor")
    status = open_of(checkpointHandle).checkpoint.status_get()
    place.checkpointCreationAttributes = SaCkptCheckpointCreationAttributesT(*status.creation_attributes)
    place.numberOfSections = status.number_of_sections
    place.memoryUsed = status.memory_used


@returns_code
def saCkptCheckpointSynchronize(checkpointHandle: Any, timeout: Any) -> None:
    """Wait until all replicas have what was written before this call. Source: SAF 3.7.4; R134 to R140."""
    timeout_ns = number(SaTimeT, timeout)
    open_of(checkpointHandle).checkpoint.synchronize(timeout_ns)


@returns_code
def saCkptCheckpointSynchronizeAsync(checkpointHandle: Any, invocation: Any) -> None:
    """Begin to synchronize; a callback reports how it ended. Source: SAF 3.7.4, 3.7.5; R137 to R141."""
    asked = number(SaInvocationT, invocation)
    open_of(checkpointHandle).checkpoint.synchronize_async(asked)


@returns_code
def saCkptCheckpointTrack(checkpointHandle: Any) -> None:
    """Return ERR_NOT_SUPPORTED: as in OpenSAF, an instance tracks all it reads, or nothing. Source: R142."""
    open_of(checkpointHandle)
    raise error_of(SaAisErrorT.SA_AIS_ERR_NOT_SUPPORTED, "one checkpoint alone cannot be tracked")


@returns_code
def saCkptCheckpointTrackStop(checkpointHandle: Any) -> None:
    """Return ERR_NOT_SUPPORTED, like `saCkptCheckpointTrack`. Source: R142."""
    open_of(checkpointHandle)
    raise error_of(SaAisErrorT.SA_AIS_ERR_NOT_SUPPORTED, "one checkpoint alone cannot be tracked")


def _attributes_of(argument: Any) -> CheckpointCreationAttributes | None:
    attributes = reference(SaCkptCheckpointCreationAttributesT, argument)
    if attributes is None:
        return None
    return CheckpointCreationAttributes(
        attributes.creationFlags,
        attributes.checkpointSize,
        attributes.retentionDuration,
        attributes.maxSections,
        attributes.maxSectionSize,
        attributes.maxSectionIdSize,
    )
