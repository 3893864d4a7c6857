"""The constants and structures of pyosaf's module `saCkpt`, which also has the functions. Pure.

Source: SAI-AIS-CKPT-B.02.02, section 3.3; OpenSAF's saCkpt for what is specific to Python, and for tracking.
"""

import ctypes
from typing import Any, Final

from ckpt_client.pyosaf.enumerations import Enumeration, constants_of
from ckpt_client.pyosaf.types import (
    SaAisErrorT,
    SaEnumT,
    SaInvocationT,
    SaOffsetT,
    SaSizeT,
    SaTimeT,
    SaUint8T,
    SaUint16T,
    SaUint32T,
    SaUint64T,
    SaVoidPtr,
)
from ckpt_protocol import constants

SaCkptHandleT = SaUint64T
SaCkptCheckpointHandleT = SaUint64T
SaCkptSectionIterationHandleT = SaUint64T
SaCkptCheckpointCreationFlagsT = SaUint32T
SaCkptCheckpointOpenFlagsT = SaUint32T
SaCkptSectionStateT = SaEnumT
SaCkptSectionsChosenT = SaEnumT
SaCkptCheckpointStatusT = SaEnumT
SaCkptStateT = SaEnumT

saCkpt: Final = constants_of(
    {
        "SA_CKPT_WR_ALL_REPLICAS": constants.SA_CKPT_WR_ALL_REPLICAS,
        "SA_CKPT_WR_ACTIVE_REPLICA": constants.SA_CKPT_WR_ACTIVE_REPLICA,
        "SA_CKPT_WR_ACTIVE_REPLICA_WEAK": constants.SA_CKPT_WR_ACTIVE_REPLICA_WEAK,
        "SA_CKPT_CHECKPOINT_COLLOCATED": constants.SA_CKPT_CHECKPOINT_COLLOCATED,
        "SA_CKPT_CHECKPOINT_READ": constants.SA_CKPT_CHECKPOINT_READ,
        "SA_CKPT_CHECKPOINT_WRITE": constants.SA_CKPT_CHECKPOINT_WRITE,
        "SA_CKPT_CHECKPOINT_CREATE": constants.SA_CKPT_CHECKPOINT_CREATE,
    }
)

eSaCkptSectionStateT: Final = Enumeration(
    (
        ("SA_CKPT_SECTION_VALID", constants.SA_CKPT_SECTION_VALID),
        ("SA_CKPT_SECTION_CORRUPTED", constants.SA_CKPT_SECTION_CORRUPTED),
    )
)
eSaCkptSectionsChosenT: Final = Enumeration(
    (
        ("SA_CKPT_SECTIONS_FOREVER", constants.SA_CKPT_SECTIONS_FOREVER),
        ("SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME", constants.SA_CKPT_SECTIONS_LEQ_EXPIRATION_TIME),
        ("SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME", constants.SA_CKPT_SECTIONS_GEQ_EXPIRATION_TIME),
        ("SA_CKPT_SECTIONS_CORRUPTED", constants.SA_CKPT_SECTIONS_CORRUPTED),
        ("SA_CKPT_SECTIONS_ANY", constants.SA_CKPT_SECTIONS_ANY),
    )
)
eSaCkptCheckpointStatusT: Final = Enumeration((("SA_CKPT_SECTION_FULL", 1), ("SA_CKPT_SECTION_AVAILABLE", 2)))
eSaCkptStateT: Final = Enumeration((("SA_CKPT_CHECKPOINT_STATUS", 1),))


class SaCkptCheckpointCreationAttributesT(ctypes.Structure):
    """How a checkpoint is created. Sizes in bytes, retentionDuration in ns."""

    _fields_ = (
        ("creationFlags", SaCkptCheckpointCreationFlagsT),
        ("checkpointSize", SaSizeT),
        ("retentionDuration", SaTimeT),
        ("maxSections", SaUint32T),
        ("maxSectionSize", SaSizeT),
        ("maxSectionIdSize", SaSizeT),
    )


class SaCkptSectionIdT(ctypes.Structure):
    """A section's id: its length, and its bytes."""

    _fields_ = (("idLen", SaUint16T), ("id", ctypes.POINTER(SaUint8T)))


def SA_CKPT_DEFAULT_SECTION_ID() -> SaCkptSectionIdT:
    """Return a new id, of the default section."""
    return SaCkptSectionIdT(0, None)


def SA_CKPT_GENERATED_SECTION_ID() -> SaCkptSectionIdT:
    """Return a new id, which the service fills with a generated one."""
    return SaCkptSectionIdT(0, None)


class SaCkptSectionCreationAttributesT(ctypes.Structure):
    """How a section is created. The expiration time is in ns since 1970."""

    _fields_ = (("sectionId", ctypes.POINTER(SaCkptSectionIdT)), ("expirationTime", SaTimeT))


class SaCkptSectionDescriptorT(ctypes.Structure):
    """A section's state. Times in ns since 1970."""

    _fields_ = (
        ("sectionId", SaCkptSectionIdT),
        ("expirationTime", SaTimeT),
        ("sectionSize", SaSizeT),
        ("sectionState", SaCkptSectionStateT),
        ("lastUpdate", SaTimeT),
    )


class SaCkptIOVectorElementT(ctypes.Structure):
    """One element of a read or a write of several sections."""

    _fields_ = (
        ("sectionId", SaCkptSectionIdT),
        ("dataBuffer", SaVoidPtr),
        ("dataSize", SaSizeT),
        ("dataOffset", SaOffsetT),
        ("readSize", SaSizeT),
    )


class SaCkptCheckpointDescriptorT(ctypes.Structure):
    """A checkpoint's state."""

    _fields_ = (
        ("checkpointCreationAttributes", SaCkptCheckpointCreationAttributesT),
        ("numberOfSections", SaUint32T),
        ("memoryUsed", SaSizeT),
    )


SaCkptCheckpointOpenCallbackT = ctypes.CFUNCTYPE(None, SaInvocationT, SaCkptCheckpointHandleT, SaAisErrorT)
SaCkptCheckpointSynchronizeCallbackT = ctypes.CFUNCTYPE(None, SaInvocationT, SaAisErrorT)
SaCkptCheckpointTrackCallbackT = ctypes.CFUNCTYPE(
    None, SaCkptCheckpointHandleT, ctypes.POINTER(SaCkptIOVectorElementT), SaUint32T
)


class SaCkptCallbacksT(ctypes.Structure):
    """The functions that `saCkptDispatch` calls; each may be left out."""

    _fields_ = (
        ("saCkptCheckpointOpenCallback", SaCkptCheckpointOpenCallbackT),
        ("saCkptCheckpointSynchronizeCallback", SaCkptCheckpointSynchronizeCallbackT),
    )


class SaCkptCallbacksT_2(ctypes.Structure):
    """`SaCkptCallbacksT`, and the function that is called when a tracked checkpoint changes (B.02.03)."""

    _fields_ = (
        ("saCkptCheckpointOpenCallback", SaCkptCheckpointOpenCallbackT),
        ("saCkptCheckpointSynchronizeCallback", SaCkptCheckpointSynchronizeCallbackT),
        ("saCkptCheckpointTrackCallback", SaCkptCheckpointTrackCallbackT),
    )


def createSaCkptIOVector(size: int) -> Any:
    """Return an array of `size` elements, None for 0."""
    return (SaCkptIOVectorElementT * size)() if size else None
