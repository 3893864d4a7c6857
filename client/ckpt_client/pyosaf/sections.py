"""Sections: create and delete them, set when they expire, iterate over them.

Source: SAF 3.6; R97, R98 for generated ids.
"""

import ctypes
from typing import Any

from ckpt_client.pyosaf.arguments import (
    address_of,
    content,
    number,
    reference,
    refuse,
    required,
    returns_code,
    section_id_of,
)
from ckpt_client.pyosaf.checkpoints import open_of
from ckpt_client.pyosaf.handles import HANDLES, SECTION_IDS, Iteration
from ckpt_client.pyosaf.structures import (
    SaCkptSectionCreationAttributesT,
    SaCkptSectionDescriptorT,
    SaCkptSectionIdT,
    SaCkptSectionIterationHandleT,
    SaCkptSectionsChosenT,
)
from ckpt_client.pyosaf.tracking import section_id_structure
from ckpt_client.pyosaf.types import SaSizeT, SaTimeT, SaUint8T


@returns_code
def saCkptSectionCreate(
    checkpointHandle: Any, sectionCreationAttributes: Any, initialData: Any, initialDataSize: Any
) -> None:
    """Create a section with this content. An id of length 0 is filled with a generated one.

    Source: SAF 3.6.1; R88 to R102.
    """
    attributes = required(SaCkptSectionCreationAttributesT, sectionCreationAttributes, "the attributes")
    place = reference(SaCkptSectionIdT, attributes.sectionId)
    if place is None:
        refuse("the attributes' sectionId is NULL")
    asked = section_id_of(place)
    data = content(initialData, number(SaSizeT, initialDataSize), "the initial data")
    checkpoint = open_of(checkpointHandle).checkpoint
    created = checkpoint.section_create(asked, attributes.expirationTime, data)
    if not asked and created:
        place.idLen = len(created)
        place.id = ctypes.cast(SECTION_IDS.allocate(created), ctypes.POINTER(SaUint8T))


@returns_code
def saCkptSectionIdFree(checkpointHandle: Any, id: Any) -> None:
    """Free the memory of a generated id, given as `sectionId.id` or `sectionId.id.contents`. Source: R98."""
    address = address_of(id)
    if address == 0:
        refuse("the id is NULL")
    open_of(checkpointHandle)
    if not SECTION_IDS.free(address):
        refuse("the library did not allocate this id, or it was freed before")


@returns_code
def saCkptSectionDelete(checkpointHandle: Any, sectionId: Any) -> None:
    """Delete a section. Source: SAF 3.6.2; R103."""
    section_id = section_id_of(sectionId)
    open_of(checkpointHandle).checkpoint.section_delete(section_id)


@returns_code
def saCkptSectionExpirationTimeSet(checkpointHandle: Any, sectionId: Any, expirationTime: Any) -> None:
    """Set when a section expires, in ns since 1970. Source: SAF 3.6.3; R104."""
    section_id = section_id_of(sectionId)
    time = number(SaTimeT, expirationTime)
    open_of(checkpointHandle).checkpoint.section_expiration_time_set(section_id, time)


@returns_code
def saCkptSectionIterationInitialize(
    checkpointHandle: Any, sectionsChosen: Any, expirationTime: Any, sectionIterationHandle: Any
) -> None:
    """Begin an iteration; put its handle into `sectionIterationHandle`. Source: SAF 3.6.4; R107 to R110."""
    place = required(SaCkptSectionIterationHandleT, sectionIterationHandle, "the address for the handle")
    chosen = number(SaCkptSectionsChosenT, sectionsChosen)
    time = number(SaTimeT, expirationTime)
    opened = open_of(checkpointHandle)
    sections = opened.checkpoint.section_iteration_initialize(chosen, time)
    place.value = HANDLES.add_iteration(Iteration(opened, sections))


@returns_code
def saCkptSectionIterationNext(sectionIterationHandle: Any, sectionDescriptor: Any) -> None:
    """Put the next section into `sectionDescriptor`. Its id lives until the next call of the iteration.

    Source: SAF 3.6.5; R111 to R114.
    """
    place = required(SaCkptSectionDescriptorT, sectionDescriptor, "the address for the descriptor")
    iteration = _iteration_of(sectionIterationHandle)
    section = iteration.sections.next()
    iteration.section_id = section_id_structure(section.section_id)
    place.sectionId = iteration.section_id
    place.expirationTime = section.expiration_time
    place.sectionSize = section.section_size
    place.sectionState = section.section_state
    place.lastUpdate = section.last_update


@returns_code
def saCkptSectionIterationFinalize(sectionIterationHandle: Any) -> None:
    """End an iteration. Source: SAF 3.6.6; R113."""
    iteration = _iteration_of(sectionIterationHandle)
    iteration.sections.finalize()
    HANDLES.drop_iteration(iteration)


def _iteration_of(sectionIterationHandle: Any) -> Iteration:
    return HANDLES.find(Iteration, number(SaCkptSectionIterationHandleT, sectionIterationHandle))
